"""Densities against torch's distributions and numerical integrals; samples, divergence, temperature."""

import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution, kl_divergence

from synth_pipeline.agents.policies import LOG_STD, Gaussian, SquashedGaussian, Temperature
from synth_pipeline.diffusion.networks.ensemble_mlp import EnsembleMLP


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(actions=2, seed=0, log_std=(-0.7, 0.2)):
    policy = Gaussian(EnsembleMLP([3, 8, actions], generator=rng(seed)), actions)
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor(log_std[:actions]))
    return policy


def squashed(actions=2, seed=0):
    return SquashedGaussian(EnsembleMLP([3, 8, 2 * actions], generator=rng(seed)))


def reference(policy, observations):
    return Independent(Normal(policy.mean(observations), policy.log_std.exp()), 1)


def squashed_reference(policy, observations):
    mean, log_std = policy.moments(observations)
    return Independent(TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()]), 1)


OBSERVATIONS = torch.randn(5, 3, generator=rng(1))
ACTIONS = torch.rand(5, 2, generator=rng(2)) * 1.8 - 0.9


@pytest.mark.parametrize(
    ("policy", "known"), [(gaussian(), reference), (squashed(), squashed_reference)], ids=["gaussian", "squashed"]
)
def test_densities_are_those_of_torch(policy, known):
    expected = known(policy, OBSERVATIONS).log_prob(ACTIONS)
    assert torch.allclose(policy.log_density(OBSERVATIONS, ACTIONS), expected, atol=1e-5)


@pytest.mark.parametrize(("policy", "reach"), [(gaussian(1), 6.0), (squashed(1), 0.999999)])
def test_densities_integrate_to_one(policy, reach):
    grid = torch.linspace(-reach, reach, 100_001)[:, None]
    density = policy.log_density(OBSERVATIONS[:1].expand(len(grid), -1), grid).exp().detach()
    assert float(torch.trapezoid(density, grid[:, 0])) == pytest.approx(1.0, abs=2e-3)


def test_samples_of_a_gaussian_have_its_moments_and_stay_inside_the_bounds():
    policy = gaussian(log_std=(-3.0, -2.0))
    drawn = policy.sample(OBSERVATIONS, rng(3), count=20_000).detach()
    assert drawn.shape == (20_000, 5, 2)
    assert torch.allclose(drawn.mean(dim=0), policy.mean(OBSERVATIONS), atol=5e-3)
    assert torch.allclose(drawn.std(dim=0), policy.log_std.exp().expand(5, 2), rtol=0.03)
    wide = gaussian(log_std=(2.0, 2.0)).sample(OBSERVATIONS, rng(3), count=10).detach()
    assert float(wide.abs().max()) == 1.0


def test_the_same_noise_at_every_state():
    policy, noise = gaussian(log_std=(-3.0, -2.0)), torch.tensor([[[1.0, -1.0]], [[0.0, 0.0]]])
    actions = policy.perturbed(OBSERVATIONS, noise)
    assert torch.allclose(actions[1], policy.mean(OBSERVATIONS))
    assert torch.allclose(actions[0] - actions[1], (policy.log_std.exp() * noise[0]).expand(5, 2), atol=1e-6)


def test_the_width_has_limits():
    for given, limit in ((-50.0, LOG_STD[0]), (50.0, LOG_STD[1])):
        assert gaussian(log_std=(given, given)).limited_log_std().tolist() == [limit, limit]


def test_the_divergence_is_that_of_torch():
    ours, theirs = gaussian(seed=0), gaussian(seed=1, log_std=(0.3, -1.0))
    expected = kl_divergence(reference(ours, OBSERVATIONS), reference(theirs, OBSERVATIONS))
    assert torch.allclose(ours.divergence(theirs, OBSERVATIONS), expected, atol=1e-5)
    assert torch.allclose(ours.divergence(ours, OBSERVATIONS), torch.zeros(5), atol=1e-6)


def test_squashed_samples_carry_their_own_density():
    policy = squashed()
    actions, log_densities = policy.sample(OBSERVATIONS, rng(3), count=7)
    assert actions.shape == (7, 5, 2)
    for action, log_density in zip(actions, log_densities, strict=True):
        assert torch.allclose(policy.log_density(OBSERVATIONS, action), log_density, atol=1e-3)


def test_densities_at_the_bounds_are_finite():
    corners = torch.tensor([[1.0, -1.0]]).expand(5, 2)
    assert torch.isfinite(squashed().log_density(OBSERVATIONS, corners)).all()
    far = squashed()
    with torch.no_grad():
        far.network.layers[-1].bias.fill_(30.0)
    assert torch.isfinite(far.sample(OBSERVATIONS, rng(), 3)[1]).all()


@pytest.mark.parametrize("policy", [gaussian(), squashed()], ids=["gaussian", "squashed"])
def test_gradients_pass_through_samples(policy):
    drawn = policy.sample(OBSERVATIONS, rng())
    actions = drawn[0] if isinstance(drawn, tuple) else drawn
    actions.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in policy.parameters())


@pytest.mark.parametrize(("entropy", "rises"), [(-5.0, True), (5.0, False)])
def test_the_temperature_rises_while_the_entropy_is_below_its_target(entropy, rises):
    temperature = Temperature()
    assert temperature.value().tolist() == [1.0]
    temperature.loss(torch.full((4,), -entropy), target=-2.0).backward()
    assert (float(temperature.logarithm.grad) < 0) == rises
