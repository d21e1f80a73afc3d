"""Toy systems whose transition kernel is known in closed form: the ground truth that generators are tested against.

Every kernel is a mixture of Gaussians whose weights are fixed and whose means and spreads depend on state and action.
Shapes: n rows, o components of an observation, a of an action, m components of the mixture.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from scipy.special import ndtr, softmax

from synth_pipeline.data.fields import Array
from synth_pipeline.envs.base import EnvironmentModel, EnvironmentSpec, Floats, Outcome, box


class ToyEnvironment(gymnasium.Env[Floats, Array]):
    """A toy as a Gymnasium environment, one row at a time.

    Args:
        toy: Whose kernel it steps.
    """

    def __init__(self, toy: Toy) -> None:
        self._toy = toy
        self._state = np.zeros(toy.spec.observation_size)
        low, high = np.asarray(toy.spec.action.low, np.float32), np.asarray(toy.spec.action.high, np.float32)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (toy.spec.observation_size,), np.float64)
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Draw a first state."""
        super().reset(seed=seed)
        self._state = self._toy.start(self.np_random)
        return self._state.copy(), {}

    def step(self, action: Array) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Draw the next state."""
        outcome = self._toy.step(self._state[None], np.asarray(action)[None], self.np_random)
        self._state = outcome.next_observations[0]
        return self._state.copy(), float(outcome.rewards[0]), bool(outcome.terminations[0]), False, {}


class Toy(EnvironmentModel):
    """An environment that is nothing but its kernel."""

    packages = ("numpy",)

    def bare(self) -> ToyEnvironment:
        """A new Gymnasium environment without wrappers."""
        return ToyEnvironment(self)

    def start(self, rng: np.random.Generator) -> Floats:
        """A first state `[o]`; the default is standard normal."""
        return rng.standard_normal(self.spec.observation_size)

    @abstractmethod
    def mean_and_covariance(self, observations: Array, actions: Array) -> tuple[Floats, Floats]:
        """Exact mean `[n, o]` and covariance `[n, o, o]` of the next observation."""


@dataclass(frozen=True)
class Mixture:
    """The next observation's distribution, by row.

    Attributes:
        weights: `[m]`, summing to 1.
        means: `[m, n, o]`.
        factors: Lower Cholesky factors of the covariances, `[m, n, o, o]` (n may be 1: the same for all rows).
    """

    weights: Floats
    means: Floats
    factors: Floats

    def mean_and_covariance(self) -> tuple[Floats, Floats]:
        """First two moments: `[n, o]` and `[n, o, o]`."""
        mean = np.einsum("m,mno->no", self.weights, self.means)
        offsets = self.means - mean
        within = np.einsum("m,mnij,mnkj->nik", self.weights, self.factors, self.factors)
        return mean, within + np.einsum("m,mni,mnk->nik", self.weights, offsets, offsets)

    def log_prob(self, values: Floats) -> Floats:
        """Log density `[n]` of `values [n, o]`."""
        white = np.linalg.solve(self.factors, (values - self.means)[..., None])[..., 0]
        log_determinant = np.log(np.diagonal(self.factors, axis1=-2, axis2=-1)).sum(axis=-1)
        constant = 0.5 * values.shape[1] * np.log(2 * np.pi)
        parts = np.log(self.weights)[:, None] - 0.5 * (white**2).sum(axis=-1) - log_determinant - constant
        total: Floats = np.logaddexp.reduce(parts, axis=0)
        return total

    def conditional_cdf(self, values: Floats) -> Floats:
        """P(x_i <= values_i | x_1 .. x_(i-1) = values_1 .. values_(i-1)), `[n, o]`.

        Rosenblatt's transform (1952): draws of the mixture become independent and uniform on [0, 1]. The Cholesky
        factors make each component's conditionals one-dimensional; the weights follow Bayes' rule along the way.
        """
        white = np.linalg.solve(self.factors, (values - self.means)[..., None])[..., 0]
        scales = np.diagonal(self.factors, axis1=-2, axis2=-1)
        log_density = np.cumsum(-0.5 * white**2 - np.log(scales), axis=-1)
        before = np.concatenate([np.zeros_like(log_density[..., :1]), log_density[..., :-1]], axis=-1)
        weights = softmax(np.log(self.weights)[:, None, None] + before, axis=0)
        total: Floats = np.sum(weights * ndtr(white), axis=0)
        return total

    def sample(self, rng: np.random.Generator) -> Floats:
        """One draw per row, `[n, o]`."""
        _, rows, size = self.means.shape
        chosen = np.searchsorted(np.cumsum(self.weights)[:-1], rng.random(rows), side="right")
        noise = rng.standard_normal((rows, size, 1))
        factors = np.broadcast_to(self.factors, (*self.means.shape, size))
        index = np.arange(rows)
        drawn: Floats = self.means[chosen, index] + (factors[chosen, index] @ noise)[..., 0]
        return drawn


class MixtureToy(Toy):
    """A toy with a Gaussian-mixture kernel; the reward is -|s'|^2 - 0.1 |a|^2, known from the row."""

    @abstractmethod
    def kernel(self, observations: Floats, actions: Floats) -> Mixture:
        """The mixture at checked rows; actions are inside their bounds."""

    def mean_and_covariance(self, observations: Array, actions: Array) -> tuple[Floats, Floats]:
        """Exact mean `[n, o]` and covariance `[n, o, o]` of the next observation."""
        return self._kernel(observations, actions).mean_and_covariance()

    def log_prob(self, observations: Array, actions: Array, next_observations: Array) -> Floats:
        """Log density `[n]` of the next observation."""
        values = self._rows("next_observations", next_observations, self.spec.observation_size)
        return self._kernel(observations, actions).log_prob(values.astype(np.float64, copy=False))

    def conditional_cdf(self, observations: Array, actions: Array, next_observations: Array) -> Floats:
        """Probability-integral transform of the next observation, `[n, o]` in [0, 1] (see `Mixture`)."""
        values = self._rows("next_observations", next_observations, self.spec.observation_size)
        return self._kernel(observations, actions).conditional_cdf(values.astype(np.float64, copy=False))

    def _step(self, observations: Floats, actions: Array, rng: np.random.Generator | None) -> Outcome:
        assert rng is not None
        bounded = self.spec.action.clipped(actions.astype(np.float64, copy=False))
        after = self.kernel(observations, bounded).sample(rng)
        rewards = -np.sum(after**2, axis=1) - 0.1 * np.sum(bounded**2, axis=1)
        return Outcome(after, rewards, self._terminated(after))

    def _kernel(self, observations: Array, actions: Array) -> Mixture:
        states = self._rows("observations", observations, self.spec.observation_size)
        bounded = self.spec.action.clipped(self._rows("actions", actions, self.spec.action_size).astype(np.float64))
        return self.kernel(states.astype(np.float64, copy=False), bounded)


def _spec(name: str, observation_size: int, action_size: int) -> EnvironmentSpec:
    return EnvironmentSpec(
        name=name,
        family="toy",
        observation_size=observation_size,
        action=box(action_size),
        horizon=100,
        dt=1.0,
        stochastic=True,
        terminates=False,
    )


class LinearGaussian(MixtureToy):
    """s' = A s + B a + L e: three coupled components, two actions, correlated noise.

    Attributes:
        A: `[3, 3]`, a damped rotation (spectral radius below 0.95).
        B: `[3, 2]`.
        L: `[3, 3]`, lower Cholesky factor of the noise.
    """

    spec = _spec("toy-linear-gaussian", 3, 2)
    A = np.array([[0.85, -0.35, 0.0], [0.35, 0.85, 0.1], [0.0, 0.0, 0.8]])
    B = np.array([[0.3, 0.0], [0.0, 0.3], [0.2, -0.2]])
    L = np.array([[0.1, 0.0, 0.0], [0.06, 0.08, 0.0], [-0.02, 0.04, 0.05]])

    def kernel(self, observations: Floats, actions: Floats) -> Mixture:
        """One Gaussian."""
        means = observations @ self.A.T + actions @ self.B.T
        return Mixture(np.ones(1), means[None], self.L[None, None])


class BimodalSlip(MixtureToy):
    """s' = 0.9 s + 0.5 a + noise, but with probability 0.3 the action slips to the other side (-a).

    The mean of the next state is one that hardly ever happens: a mean regressor fails here.
    """

    spec = _spec("toy-bimodal-slip", 2, 2)
    slip_probability = 0.3
    deviation = 0.05

    def kernel(self, observations: Floats, actions: Floats) -> Mixture:
        """Two Gaussians: kept and slipped."""
        means = 0.9 * observations + 0.5 * np.stack([actions, -actions])
        factors = np.broadcast_to(self.deviation * np.eye(2), (2, 1, 2, 2))
        return Mixture(np.array([1 - self.slip_probability, self.slip_probability]), means, factors)


class Heteroscedastic(MixtureToy):
    """s' = 0.9 s + B a + d(s) e: the noise grows from 0.02 at the origin towards 0.3 far from it."""

    spec = _spec("toy-heteroscedastic", 2, 1)
    B = np.array([[0.2], [0.3]])

    def deviation(self, observations: Floats) -> Floats:
        """Standard deviation of each component, `[n, 2]`."""
        squared = observations**2
        return 0.02 + 0.28 * squared / (1 + squared)

    def kernel(self, observations: Floats, actions: Floats) -> Mixture:
        """One Gaussian with a diagonal covariance."""
        means = 0.9 * observations + actions @ self.B.T
        factors = self.deviation(observations)[:, :, None] * np.eye(2)
        return Mixture(np.ones(1), means[None], factors[None])


class Jumps(MixtureToy):
    """s' = 0.9 s + 0.3 a + noise, and in 1 % of the steps a jump by (3, -2) on top: a rare mode that must survive."""

    spec = _spec("toy-jumps", 2, 2)
    jump_probability = 0.01
    jump = np.array([3.0, -2.0])
    deviation = 0.05

    def kernel(self, observations: Floats, actions: Floats) -> Mixture:
        """Two Gaussians: usual and jumped."""
        usual = 0.9 * observations + 0.3 * actions
        factors = np.broadcast_to(self.deviation * np.eye(2), (2, 1, 2, 2))
        return Mixture(
            np.array([1 - self.jump_probability, self.jump_probability]), np.stack([usual, usual + self.jump]), factors
        )
