"""The known kernels, checked by hand."""

import numpy as np
import pytest
from scipy.stats import kstest, multivariate_normal, norm

from synth_pipeline import envs
from synth_pipeline.envs.toys import BimodalSlip, Heteroscedastic, Jumps, LinearGaussian, Mixture


def test_linear_gaussian_is_its_formula():
    toy = LinearGaussian()
    rng = np.random.default_rng(0)
    states, actions, after = rng.standard_normal((5, 3)), rng.uniform(-1, 1, (5, 2)), rng.standard_normal((5, 3))
    mean, covariance = toy.mean_and_covariance(states, actions)
    for row in range(5):
        np.testing.assert_allclose(mean[row], toy.A @ states[row] + toy.B @ actions[row])
        np.testing.assert_allclose(covariance[row], toy.L @ toy.L.T)
    expected = [multivariate_normal(m, toy.L @ toy.L.T).logpdf(x) for m, x in zip(mean, after, strict=True)]
    np.testing.assert_allclose(toy.log_prob(states, actions, after), expected)


def test_linear_gaussian_stays_bounded():
    assert np.abs(np.linalg.eigvals(LinearGaussian.A)).max() < 0.95


def test_mixture_density_is_the_weighted_sum():
    factors = np.array([[[[0.5, 0.0], [0.2, 0.4]]], [[[1.0, 0.0], [-0.3, 0.7]]]])
    mixture = Mixture(np.array([0.25, 0.75]), np.array([[[0.0, 1.0]], [[2.0, -1.0]]]), factors)
    at = np.array([[0.3, 0.2]])
    parts = [multivariate_normal(mixture.means[m, 0], factors[m, 0] @ factors[m, 0].T).pdf(at[0]) for m in range(2)]
    np.testing.assert_allclose(np.exp(mixture.log_prob(at)), [0.25 * parts[0] + 0.75 * parts[1]])


def test_slip_goes_to_the_other_side_as_often_as_it_says():
    toy, count = BimodalSlip(), 20_000
    states, actions = np.zeros((count, 2)), np.tile([1.0, 0.0], (count, 1))
    after = toy.step(states, actions, np.random.default_rng(0)).next_observations[:, 0]
    assert np.all((np.abs(after - 0.5) < 0.3) | (np.abs(after + 0.5) < 0.3))
    assert abs(np.mean(after < 0) - 0.3) < 0.02
    mean, _ = toy.mean_and_covariance(states[:1], actions[:1])
    at_mean, at_mode = (toy.log_prob(states[:1], actions[:1], x) for x in (mean, np.array([[0.5, 0.0]])))
    assert at_mean < at_mode - 10


def test_noise_grows_with_the_state():
    toy = Heteroscedastic()
    _, covariance = toy.mean_and_covariance(np.array([[0.0, 5.0]]), np.zeros((1, 1)))
    np.testing.assert_allclose(np.sqrt(np.diag(covariance[0])), [0.02, 0.02 + 0.28 * 25 / 26])


def test_one_step_in_a_hundred_jumps():
    toy, count = Jumps(), 50_000
    after = toy.step(np.zeros((count, 2)), np.zeros((count, 2)), np.random.default_rng(1)).next_observations
    jumped = np.linalg.norm(after - [3.0, -2.0], axis=1) < 0.5
    assert np.all(np.linalg.norm(after[~jumped], axis=1) < 0.5)
    assert abs(jumped.mean() - 0.01) < 0.002


def test_reward_is_known_from_the_row():
    toy = Jumps()
    outcome = toy.step(np.ones((3, 2)), np.full((3, 2), 9.0), np.random.default_rng(0))  # clipped to 1
    np.testing.assert_allclose(outcome.rewards, -np.sum(outcome.next_observations**2, axis=1) - 0.2)


@pytest.mark.parametrize("name", [name for name in envs.ENVIRONMENTS.names() if name.startswith("toy-")])
def test_actions_beyond_the_bounds_act_like_the_bound(name):
    toy = envs.make(name)
    states = np.full((4, toy.spec.observation_size), -0.3)
    wild, bound = np.full((4, toy.spec.action_size), 7.0), np.ones((4, toy.spec.action_size))
    for values in zip(toy.mean_and_covariance(states, wild), toy.mean_and_covariance(states, bound), strict=True):
        np.testing.assert_array_equal(*values)


def test_conditional_cdf_of_one_gaussian_is_its_textbook_form():
    toy = LinearGaussian()
    rng = np.random.default_rng(0)
    states, actions, after = rng.standard_normal((5, 3)), rng.uniform(-1, 1, (5, 2)), rng.standard_normal((5, 3))
    mean, covariance = toy.mean_and_covariance(states, actions)
    after = mean + 0.1 * after
    found = toy.conditional_cdf(states, actions, after)
    for row in range(5):
        c, offset = covariance[row], after[row] - mean[row]
        for i in range(3):
            gain = c[i, :i] @ np.linalg.pinv(c[:i, :i]) if i else np.zeros(0)
            centre, spread = gain @ offset[:i], np.sqrt(c[i, i] - gain @ c[:i, i])
            assert found[row, i] == pytest.approx(norm.cdf((offset[i] - centre) / spread))


def test_conditional_cdf_of_a_mixture_weighs_its_parts_by_what_was_seen():
    factors = np.array([[[[0.5, 0.0], [0.2, 0.4]]], [[[1.0, 0.0], [-0.3, 0.7]]]])
    mixture = Mixture(np.array([0.25, 0.75]), np.array([[[0.0, 1.0]], [[2.0, -1.0]]]), factors)
    at = np.array([[0.3, 0.2]])
    first = 0.25 * norm.cdf(0.3 / 0.5) + 0.75 * norm.cdf(0.3 - 2)
    grid = np.linspace(-12, 12, 20_001)
    points = np.stack([np.full_like(grid, 0.3), grid], axis=1)
    density = np.exp(Mixture(mixture.weights, np.repeat(mixture.means, len(grid), axis=1), factors).log_prob(points))
    second = density[grid <= 0.2].sum() / density.sum()
    np.testing.assert_allclose(mixture.conditional_cdf(at), [[first, second]], atol=1e-3)


@pytest.mark.parametrize("kind", [LinearGaussian, BimodalSlip, Heteroscedastic, Jumps])
def test_conditional_cdf_of_draws_is_uniform_and_independent(kind):
    toy, rng = kind(), np.random.default_rng(0)
    states = rng.standard_normal((20_000, toy.spec.observation_size))
    actions = rng.uniform(-1, 1, (20_000, toy.spec.action_size))
    levels = toy.conditional_cdf(states, actions, toy.step(states, actions, rng).next_observations)
    assert max(kstest(column, "uniform").statistic for column in levels.T) < 0.012
    off_diagonal = np.corrcoef(levels.T) - np.eye(levels.shape[1])
    assert np.abs(off_diagonal).max() < 0.03


def test_conditional_cdf_far_in_the_tail_is_a_number():
    toy = BimodalSlip()
    levels = toy.conditional_cdf(np.zeros((2, 2)), np.zeros((2, 2)), np.array([[1e6, 0.0], [-1e6, 3.0]]))
    np.testing.assert_allclose(levels[:, 0], [1.0, 0.0])
    assert np.isfinite(levels).all()
