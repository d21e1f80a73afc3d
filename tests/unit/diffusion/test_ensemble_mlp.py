"""The written-out gradients against finite differences and against autograd on the same formulas."""

import copy
import pickle

import pytest
import torch
from torch.nn.functional import layer_norm

from synth_pipeline.diffusion.networks.ensemble_mlp import EnsembleMLP

FORMS = [
    pytest.param({"sizes": (3, 5, 4, 1), "members": 2}, id="values"),
    pytest.param({"sizes": (3, 5, 4, 1), "members": 2, "normalize": True}, id="values, layer norm"),
    pytest.param({"sizes": (3, 5, 2), "members": 1}, id="policy"),
    pytest.param({"sizes": (3, 2), "members": 3}, id="no hidden layer"),
    pytest.param({"sizes": (3, 4, 4, 2), "members": 3, "normalize": True, "initial": "orthogonal"}, id="ensemble"),
]


def made(form, seed=0):
    """In double precision, away from the initial scales."""
    network = EnsembleMLP(**form, generator=torch.Generator().manual_seed(seed)).double()
    with torch.no_grad():
        network.vector.add_(0.2 * torch.randn(network.vector.shape, generator=torch.Generator().manual_seed(7)))
    return network


def plain(network, x):
    """The same map, one operation of torch after another."""
    *hidden, last = network.layers
    h = x if x.ndim == 3 else x.expand(network.members, *x.shape)
    for layer in hidden:
        h = h @ layer.weight + layer.bias
        if layer.norm is not None:
            h = layer_norm(h, h.shape[-1:]) * layer.norm.scale + layer.norm.shift
        h = torch.relu(h)
    return h @ last.weight + last.bias


def inputs(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("own", [False, True], ids=["shared inputs", "inputs by member"])
def test_values_and_gradients_are_those_of_autograd(form, own):
    network = made(form)
    x = inputs(network.members, 6, 3) if own else inputs(6, 3)
    found, expected = network(x), plain(network, x)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        assert torch.equal(network(x), found)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    wanted = (x, network.vector)
    gradients = [torch.autograd.grad((y * weights).sum(), wanted) for y in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_finite_differences(form):
    network = made(form)
    assert torch.autograd.gradcheck(lambda x, _: network(x), (inputs(4, 3), network.vector))


def test_the_first_members_alone_are_those_of_all_and_only_they_learn():
    network = made({"sizes": (3, 5, 1), "members": 3, "normalize": True})
    x = inputs(6, 3)
    torch.testing.assert_close(network(x, first=2), network(x)[:2])
    network(x, first=2).sum().backward()
    gradient = network._form.layers(network.vector.grad)
    for weight, bias, norm in gradient:
        for part in (weight, bias, *(norm or ())):
            assert float(part[2].abs().max()) == 0
            assert float(part[:2].abs().max()) > 0


def test_frozen_weights_get_no_gradient_and_pass_it_on():
    network = made(FORMS[0].values[0]).requires_grad_(False)
    x = inputs(6, 3)
    network(x).sum().backward()
    assert network.vector.grad is None
    torch.testing.assert_close(x.grad, torch.autograd.grad(plain(network, x).sum(), x)[0])


def test_the_incoming_gradient_and_the_inputs_are_left_as_they_were():
    network, x = made(FORMS[2].values[0]), inputs(6, 3)
    y, incoming = network(x), torch.ones(1, 6, 2, dtype=torch.float64)
    before = x.detach().clone()
    y.backward(incoming)
    assert bool((incoming == 1).all())
    assert torch.equal(x.detach(), before)


def test_a_copy_and_a_saved_one_are_the_same_map_with_parameters_of_their_own():
    network, x = made(FORMS[1].values[0]), inputs(6, 3)
    copied, loaded = copy.deepcopy(network), made(FORMS[1].values[0], seed=5)
    loaded.load_state_dict(network.state_dict())
    before = network(x).detach()
    with torch.no_grad():
        network.vector.zero_()
    for other in (copied, loaded):
        assert torch.equal(other(x), before)


def test_a_second_derivative_is_refused():
    network, x = made(FORMS[2].values[0]), inputs(6, 3)
    (first,) = torch.autograd.grad(network(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def _reloaded(network):
    return pickle.loads(pickle.dumps(network))  # noqa: S301


@pytest.mark.parametrize("copied", [copy.deepcopy, _reloaded])
def test_a_copy_computes_with_its_own_parameters(copied):
    """Views are made once; those of the original must not follow."""
    network, x = made(FORMS[0].values[0]), inputs(6, 3).detach()
    with torch.inference_mode():
        before = network(x).clone()  # the views come to be here
    twin = copied(network)
    with torch.no_grad():
        twin.vector.mul_(2)
    torch.testing.assert_close(twin(x), plain(twin, x))
    assert torch.equal(network(x), before)


def test_parameters_that_are_replaced_are_those_that_compute():
    network, x = made(FORMS[1].values[0]), inputs(6, 3)
    network(x).sum().backward()  # in use, with gradients
    network.load_state_dict(made(FORMS[1].values[0], seed=1).state_dict())  # into the same place
    torch.testing.assert_close(network(x), plain(network, x))
    network.vector.data = made(FORMS[1].values[0], seed=2).vector.data  # another place, as moving to a device does
    torch.testing.assert_close(network(x), plain(network, x))
    network.float()
    torch.testing.assert_close(network(x.float()), plain(network, x.float()))
