"""What is known of an environment's dynamics, as plain callables: simulators and learned models are injected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from synth_pipeline import envs
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Array
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.envs.base import CLIP_MARGIN, EnvironmentModel

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Kernel = Callable[[Array, Array, Array], Floats]  # (s, a, s') -> probability-integral transform of s', [n, o]


class Answer(NamedTuple):
    """What should have followed, by row.

    Attributes:
        next_observations: `[n, o]`; anything where `judged` is false.
        rewards: `[n]`; anything where `judged` is false.
        judged: `[n]`, rows on which the oracle knows the answer.
        label: What kind of oracle spoke, for the report.
        exact: Whether the environment's own rows follow it exactly, as they follow a simulator of the same version.
        own_errors: Errors of a learned oracle on rows that it did not see, under the names and in the units of the
            metrics `oracle.<name>`; None: not learned.
    """

    next_observations: Floats
    rewards: Floats
    judged: Bools
    label: str
    exact: bool = False
    own_errors: Mapping[str, float] | None = None


class Oracle(Protocol):
    """Says what follows from a state and an action."""

    def __call__(self, observations: Array, actions: Array) -> Answer:
        """Observations `[n, o]` and actions `[n, a]`, which may hold NaN, -> the answer by row."""
        ...


@dataclass(frozen=True)
class Truth:
    """Everything that is known of an environment; what is not known is None.

    Attributes:
        oracle: The next observation and reward of deterministic dynamics.
        kernel: The distribution of the next observation of stochastic dynamics.
        clip: `[o]`, limit of |observation| that the environment clips to before showing it; inf: no limit.
        terminated: The termination function of next observations.
    """

    oracle: Oracle | None = None
    kernel: Kernel | None = None
    clip: Floats | None = None
    terminated: Callable[[Array], Array] | None = None

    @property
    def of_dynamics(self) -> bool:
        """Whether it is known what follows an observation and an action."""
        return self.oracle is not None or self.kernel is not None

    def bounded(self, observations: Array) -> Floats:
        """Observations as the environment would show them: float64, inside the clip."""
        values = np.asarray(observations, np.float64)
        return values if self.clip is None else np.clip(values, -self.clip, self.clip)

    def clipped(self, rows: Transitions) -> Bools:
        """Rows `[n]` where a component of s or s' is at or near its limit (0.99 of it), which hides the state."""
        result = np.zeros(len(rows), bool)
        if self.clip is not None:
            for name in ("observations", "next_observations"):
                result |= (np.abs(rows[name]) >= CLIP_MARGIN * self.clip).any(axis=1)
        return result


def known_truth(spec: DatasetSpec) -> Truth:
    """What is known of the environment of a dataset."""
    return Truth() if spec.environment is None else truth_of(envs.make(spec.environment))


def truth_of(environment: EnvironmentModel) -> Truth:
    """What is known of an environment."""
    spec, limits = environment.spec, environment.spec.observation_clip
    exact = spec.reset == "exact" and not spec.stochastic
    return Truth(
        oracle=simulator_oracle(environment) if exact else None,
        kernel=getattr(environment, "conditional_cdf", None),
        clip=None if limits is None else np.array([np.inf if limit is None else limit for limit in limits]),
        terminated=environment.terminated,
    )


def simulator_oracle(environment: EnvironmentModel) -> Oracle:
    """Reset to s, apply a.

    Not judged: rows that are not finite, rows that the simulator diverges on, and rows where s or the simulator's own
    s' is at or near the clip. What a generator claims as s' never decides whether it is judged.
    """

    def oracle(observations: Array, actions: Array) -> Answer:
        judged = environment.resettable(observations) & np.isfinite(actions).all(axis=1)
        outcome = environment.step(observations[judged], actions[judged])
        next_observations, rewards = np.full(observations.shape, np.nan), np.full(len(observations), np.nan)
        next_observations[judged], rewards[judged] = outcome.next_observations, outcome.rewards
        known = judged & environment.resettable(next_observations) & np.isfinite(rewards)
        return Answer(next_observations, rewards, known, f"simulator {environment.spec.name}", exact=True)

    return oracle


def simulated(rows: Transitions, truth: Truth) -> Transitions:
    """(s, a) of rows with what follows from them: s', r and flags of the oracle, as the environment shows them.

    Args:
        rows: With observations, actions, rewards, next_observations and terminations.
        truth: Its oracle must be known.

    Returns:
        Rows that the oracle does not know are left out; the order and all other columns stay.
    """
    assert truth.oracle is not None
    answer = truth.oracle(rows["observations"], rows["actions"])
    kept = np.flatnonzero(answer.judged)
    labelled = rows.take(kept).with_columns(
        next_observations=truth.bounded(answer.next_observations[kept]).astype(np.float32),
        rewards=answer.rewards[kept].astype(np.float32),
    )
    return labelled if truth.terminated is None else with_flags(labelled, truth.terminated)


def with_flags(rows: Transitions, terminated: Callable[[Array], Array]) -> Transitions:
    """Rows with the termination flags of their next observations."""
    return rows.with_columns(terminations=terminated(rows["next_observations"]))
