"""Physical units to model units and back: observations, actions, rewards; fitted on real rows, saved with the agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.fields import Array
from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import SourceError

Floats = npt.NDArray[np.float64]
LEAST = 1e-3  # added to standard deviations (Fujimoto and Gu 2021, arXiv:2106.06860, sec. 5)
RANGE = 1000.0  # what the returns of the data are scaled to span


@dataclass(frozen=True)
class Scaling:
    """z-scored observations, actions in [-1, 1], rewards times a factor.

    Attributes:
        mean: `[o]`; zero when observations are left as they are.
        std: `[o]`; one then.
        centre: `[a]`, middle of the bounds of an action.
        reach: `[a]`, half of their distance.
        reward_factor: What rewards are multiplied with.
    """

    mean: Floats
    std: Floats
    centre: Floats
    reach: Floats
    reward_factor: float = 1.0

    @classmethod
    def fit(cls, data: Dataset, *, normalize_observations: bool, scale_rewards: bool) -> Scaling:
        """From real rows.

        Args:
            data: The training data.
            normalize_observations: (s - mean) / (std + 1e-3).
            scale_rewards: r * 1000 / (largest return - smallest return), as IQL does on locomotion
                (Kostrikov et al. 2022, arXiv:2110.06169, app. B).

        Raises:
            SourceError: When actions are classes, or returns that should give the scale are not there or all equal.
        """
        action = data.spec.field("actions")
        if action.kind != "continuous":
            raise SourceError("agents act with numbers", found=f"actions that are {action.kind}")
        rows = data.transitions()
        observations = np.asarray(rows["observations"], np.float64)
        size = observations.shape[1]
        mean = observations.mean(axis=0) if normalize_observations else np.zeros(size)
        std = observations.std(axis=0) + LEAST if normalize_observations else np.ones(size)
        if action.low is not None and action.high is not None:
            low, high = np.asarray(action.low, np.float64), np.asarray(action.high, np.float64)
        else:  # no bounds are known: those of the data
            given = np.asarray(rows["actions"], np.float64).reshape(len(rows), -1)
            low, high = given.min(axis=0), given.max(axis=0)
        reach = np.maximum((high - low) / 2, 1e-8)
        return cls(mean, std, (low + high) / 2, reach, _reward_factor(data) if scale_rewards else 1.0)

    @property
    def observation_size(self) -> int:
        """Components of an observation."""
        return len(self.mean)

    @property
    def action_size(self) -> int:
        """Components of an action."""
        return len(self.centre)

    def observations(self, x: Array) -> npt.NDArray[np.float32]:
        """`[n, o]` -> model units."""
        return ((x - self.mean) / self.std).astype(np.float32)

    def actions(self, x: Array) -> npt.NDArray[np.float32]:
        """`[n, a]` -> [-1, 1]; what lies beyond the bounds is moved to them, as the environments do."""
        return np.clip((x - self.centre) / self.reach, -1, 1).astype(np.float32)

    def physical_actions(self, z: Array) -> npt.NDArray[np.float32]:
        """Inverse of `actions`."""
        return (z * self.reach + self.centre).astype(np.float32)

    def rewards(self, x: Array) -> npt.NDArray[np.float32]:
        """`[n]` -> what critics learn."""
        return (np.asarray(x, np.float64) * self.reward_factor).astype(np.float32)

    def arrays(self) -> dict[str, Array]:
        """What has to be saved."""
        parts = {"mean": self.mean, "std": self.std, "centre": self.centre, "reach": self.reach}
        return {**parts, "reward_factor": np.array([self.reward_factor])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Scaling:
        """Inverse of `arrays`."""
        mean, std, centre, reach = (np.asarray(arrays[n], np.float64) for n in ("mean", "std", "centre", "reach"))
        return cls(mean, std, centre, reach, float(arrays["reward_factor"][0]))


def complete(data: Dataset) -> npt.NDArray[np.bool_]:
    """`[episodes]`, which ended by themselves or at the time limit; all, where none did or no limit is known.

    What a log or a subset cut off has earned only a part of its return.
    """
    assert data.episodes is not None
    lengths, horizon = data.episodes.lengths, data.spec.horizon
    ended = np.asarray(data.episodes["terminations"], np.bool_)[data.episodes.starts[1:] - 1]
    found = ended | (lengths >= (horizon or 0))
    return found if found.any() else np.ones(len(lengths), np.bool_)


def _reward_factor(data: Dataset) -> float:
    """The spread is that of episodes that are complete, where these have one."""
    if data.episodes is None:
        raise SourceError(
            "rewards are scaled by the spread of the returns, and there are no episodes",
            found="rows without episodes",
            fix="--set scale_rewards=false for this agent",
        )
    returns = data.episodes.returns
    whole = returns[complete(data)]
    spread = float(np.ptp(whole)) or float(np.ptp(returns))
    if not spread > 0:
        raise SourceError(
            "rewards are scaled by the spread of the returns, and all returns are equal",
            found=f"{len(returns)} episodes of return {returns[0]:g}",
            fix="--set scale_rewards=false for this agent",
        )
    return RANGE / spread
