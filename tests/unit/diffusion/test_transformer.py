"""The transformer against a plain one, who sees whom, and dropout that belongs to one generator."""

import pytest
import torch
from torch import nn

from synth_pipeline.diffusion.networks.transformer import Form, Transformer, kept

FORM = Form(16, heads=2)


def random(seed):
    return torch.Generator().manual_seed(seed)


def make(form=FORM, depth=2, **given):
    network = Transformer(form, depth=depth, generator=random(0), **given)
    with torch.no_grad():  # weights as small as at the start would hide differences
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random(parameter.numel())), alpha=0.3)
    return network


def tokens(b=3, t=7, seed=1):
    return torch.randn(b, t, FORM.width, generator=random(seed))


def torchs_own(block, form):
    """The same layer made of torch's parts."""
    layer = nn.TransformerEncoderLayer(
        form.width,
        form.heads,
        form.expansion * form.width,
        dropout=0.0,
        batch_first=True,
        norm_first=form.norm == "before",
        activation=torch.relu,
    )
    pairs = {
        "self_attn.in_proj_weight": block.project.weight,
        "self_attn.in_proj_bias": block.project.bias,
        "self_attn.out_proj.weight": block.merge.weight,
        "self_attn.out_proj.bias": block.merge.bias,
        "linear1.weight": block.widen.weight,
        "linear1.bias": block.widen.bias,
        "linear2.weight": block.narrow.weight,
        "linear2.bias": block.narrow.bias,
        "norm1.weight": block.norms[0].weight,
        "norm1.bias": block.norms[0].bias,
        "norm2.weight": block.norms[1].weight,
        "norm2.bias": block.norms[1].bias,
    }
    layer.load_state_dict({name: value.detach() for name, value in pairs.items()})
    return layer


@pytest.mark.parametrize("norm", ["before", "after"])
@pytest.mark.parametrize("causal", [True, False])
def test_it_is_the_transformer_that_torch_has(norm, causal):
    form = Form(16, heads=2, norm=norm)
    network, x = make(form, causal=causal), tokens()
    expected, mask = x, nn.Transformer.generate_square_subsequent_mask(7) if causal else None
    for block in network.blocks:
        expected = torchs_own(block, form)(expected, src_mask=mask)
    if norm == "before":
        expected = network.norm(expected)
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rng", [None, 5])
def test_nothing_looks_ahead(rng):
    network, x = make(Form(16, heads=2, dropout=0.3)), tokens()
    changed = x.clone()
    changed[:, 4:] += 1.0
    before, after = (network(part, rng=rng and random(rng)) for part in (x, changed))
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).any(dim=-1).all()


def test_without_the_order_every_token_sees_all():
    network, x = make(causal=False), tokens()
    changed = x.clone()
    changed[:, -1] += 1.0
    assert (network(x) != network(changed)).any(dim=-1).all()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("rng", [None, 5])
@pytest.mark.parametrize("padding", [7.0, float("nan"), float("inf")])
def test_padding_reaches_no_valid_token(causal, rng, padding):
    network, x = make(Form(16, heads=2, dropout=0.3), causal=causal), tokens()
    valid = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0], [1, 1, 0, 1, 0, 1, 1]], dtype=torch.bool)
    other = torch.where(valid[:, :, None], x, padding)
    ours, theirs = (network(part, valid=valid, rng=rng and random(rng)) for part in (x, other))
    assert torch.isfinite(theirs).all()
    assert torch.equal(ours[valid], theirs[valid])


@pytest.mark.parametrize("causal", [True, False])
def test_a_padded_sequence_is_the_short_one(causal):
    network, x = make(causal=causal), tokens()
    valid = torch.ones(3, 7, dtype=torch.bool)
    valid[:, :3] = False
    torch.testing.assert_close(network(x, valid=valid)[:, 3:], network(x[:, 3:]))


def test_padding_keeps_gradients_finite():
    network, x = make(), tokens().requires_grad_()
    valid = torch.tensor([False, False, True, True, True, True, True]).expand(3, 7)
    network(x, valid=valid)[:, 2:].square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
    assert not x.grad[:, :2].any()


@pytest.mark.parametrize("read", [slice(1, None, 3), slice(-2, None, 3), slice(0, 1)])
@pytest.mark.parametrize("norm", ["before", "after"])
def test_what_is_read_alone_is_what_is_read_of_all(read, norm):
    network, x = make(Form(16, heads=2, norm=norm)), tokens()
    torch.testing.assert_close(network(x, read=read), network(x)[:, read])
    valid = torch.tensor([False, True, True, True, True, True, True]).expand(3, 7)
    torch.testing.assert_close(network(x, read=read, valid=valid), network(x, valid=valid)[:, read])


def test_a_sequence_does_not_depend_on_its_batch():
    network, x = make(), tokens(b=8)
    torch.testing.assert_close(network(x)[:1], network(x[:1]), rtol=1e-5, atol=1e-6)


def test_dropout_belongs_to_its_generator():
    network, x = make(Form(16, heads=2, dropout=0.3)), tokens()
    torch.manual_seed(1)
    first, state = network(x, rng=random(3)), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first, network(x, rng=random(3)))
    assert not torch.equal(first, network(x, rng=random(4)))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(network(x), make(FORM)(x))


def test_building_neither_reads_nor_changes_the_global_random_state():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = make().state_dict()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert all(torch.equal(value, first[name]) for name, value in make().state_dict().items())


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_kept_values_are_independent_and_keep_the_mean(dropout):
    factors = kept(torch.empty(400, 1001), dropout, random(0))
    values = factors.unique()
    assert values.tolist() == pytest.approx([0.0, 1 / (1 - dropout)], rel=1e-4)
    lanes = factors.flatten()[: 400 * 1000].view(-1, 4) > 0  # the four draws that share a word
    limit = 5 * (dropout * (1 - dropout) / 1e5) ** 0.5
    assert (lanes.double().mean(dim=0) - (1 - dropout)).abs().max() < limit
    correlation = torch.corrcoef(lanes.double().T) - torch.eye(4)
    assert correlation.abs().max() < 5 / 1e5**0.5


def test_attention_under_dropout_keeps_its_mean():
    block = make(Form(16, heads=2, dropout=0.2), depth=1).blocks[0]
    q, k, v = (torch.randn(1, 2, 5, 8, generator=random(i)) for i in range(3))
    many = [part.expand(4000, -1, -1, -1) for part in (q, k, v)]
    mean = block._attend_some(*many, torch.zeros(1, 1, 5, 5), random(3)).mean(dim=0)
    torch.testing.assert_close(mean, nn.functional.scaled_dot_product_attention(q, k, v)[0], atol=0.05, rtol=0)
