"""What every environment gives: its spec, a Gymnasium environment, the oracle step, the termination function, lanes.

Shapes: n rows, o components of an observation, a components of an action, k lanes that are stepped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as attribute
from importlib.metadata import version
from typing import Any, Literal, Protocol, runtime_checkable

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.wrappers import TimeLimit
from pydantic import Field as Setting
from pydantic import model_validator

from synth_pipeline.config import Config
from synth_pipeline.data.fields import Array, Field
from synth_pipeline.data.spec import transition_fields
from synth_pipeline.errors import EnvironmentModelError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
CLIP_MARGIN = 0.99


class KinematicPair(Config):
    """A position and its velocity among the components of an observation: p' ~ p + dt * (v + v') / 2."""

    position: int = Setting(ge=0, description="component of the position")
    velocity: int = Setting(ge=0, description="component of its velocity")
    angle: bool = Setting(False, description="the position is an angle, in radians")


class EnvironmentSpec(Config):
    """What is known of an environment without running it."""

    name: str = Setting(description="name in the environment registry")
    family: str = Setting(description="what it belongs to: locomotion, pointmaze, classic, toy")
    gymnasium_id: str | None = Setting(None, description="id in Gymnasium's registry; none: our own environment")
    observation_size: int = Setting(ge=1, description="components of an observation")
    action: Field = Setting(description="the column 'actions' with its bounds")
    horizon: int = Setting(ge=1, description="time limit of an episode, steps")
    dt: float = Setting(gt=0, description="seconds per step")
    observation_clip: tuple[float | None, ...] | None = Setting(
        None, description="limit of |observation| per component that the environment clips to before showing it"
    )
    reset: Literal["exact", "none"] = Setting("exact", description="whether an observation determines the state")
    stochastic: bool = Setting(False, description="one state and action have many next states")
    terminates: bool = Setting(True, description="an episode can end before its time limit")
    kinematics: tuple[KinematicPair, ...] = Setting((), description="positions with their velocities")
    infos: tuple[Field, ...] = Setting((), description="columns that a rollout records beside the transition")

    @model_validator(mode="after")
    def _check(self) -> EnvironmentSpec:
        if self.action.name != "actions" or not self.action.clip:
            raise ValueError("the action field is called 'actions' and clips into its bounds")
        if self.observation_clip is not None and len(self.observation_clip) != self.observation_size:
            raise ValueError("observation_clip has one entry per component of an observation")
        return self

    @property
    def action_size(self) -> int:
        """Components of an action."""
        return self.action.size


def box(size: int, limit: float = 1.0) -> Field:
    """The action column of `size` components in [-limit, limit]."""
    return Field(name="actions", shape=(size,), low=(-limit,) * size, high=(limit,) * size, clip=True)


def dataset_fields(spec: EnvironmentSpec) -> tuple[Field, ...]:
    """The columns of a dataset of transitions from this environment."""
    return transition_fields(spec.observation_size, spec.action)


@dataclass(frozen=True)
class Outcome:
    """What one step gives, by row.

    Attributes:
        next_observations: `[n, o]` float64.
        rewards: `[n]` float64.
        terminations: `[n]` bool; time limits are not terminations.
        infos: The columns of `EnvironmentSpec.infos`, `[n]` each.
    """

    next_observations: Floats
    rewards: Floats
    terminations: Bools
    infos: Mapping[str, Array] = attribute(default_factory=dict)


class Lanes(Protocol):
    """Several running episodes of one environment, without time limit."""

    def reset(self, lane: int, seed: int) -> Floats:
        """Start a new episode in one lane and return its first observation `[o]`."""
        ...

    def step(self, active: Indices, actions: Array) -> Outcome:
        """Step the lanes `active [k]` with `actions [k, a]`; every array of the outcome has k rows."""
        ...


@runtime_checkable
class GoalConditioned(Protocol):
    """An environment whose observations hold the goal, and whose reward and end follow from reaching it."""

    def with_goal(self, observations: Array, goal: Sequence[float]) -> Array:
        """Observations `[n, o]` with another goal in every row.

        Raises:
            EnvironmentModelError: For a goal that cannot be one.
        """
        ...

    def success(self, observations: Floats) -> Bools:
        """Whether the goal is reached, `[n, o]` -> `[n]`; then the reward is 1, else 0, and the episode ends."""
        ...


class GymnasiumLanes:
    """Lanes over separate Gymnasium environments, for families whose own step is cheap."""

    def __init__(self, environments: Sequence[gymnasium.Env[Any, Any]]) -> None:
        self._environments = environments

    def reset(self, lane: int, seed: int) -> Floats:
        """Start a new episode in one lane (see `Lanes`)."""
        observation, _ = self._environments[lane].reset(seed=seed)
        return np.asarray(observation, np.float64)

    def step(self, active: Indices, actions: Array) -> Outcome:
        """Step some lanes (see `Lanes`)."""
        results = [self._environments[lane].step(action) for lane, action in zip(active, actions, strict=True)]
        return Outcome(
            np.stack([result[0] for result in results]).astype(np.float64, copy=False),
            np.array([result[1] for result in results], np.float64),
            np.array([result[2] for result in results], np.bool_),
        )


class EnvironmentModel(ABC):
    """One environment: its spec and everything that is known about its dynamics.

    A family implements `bare`, `_step` and `_terminated`, and `lanes` when it can run many episodes faster than one
    Gymnasium environment after another.
    """

    spec: EnvironmentSpec
    packages: tuple[str, ...] = ("gymnasium", "numpy")

    @abstractmethod
    def bare(self) -> gymnasium.Env[Any, Any]:
        """A new Gymnasium environment with flat observations and no wrappers at all."""

    @abstractmethod
    def _step(self, observations: Floats, actions: Array, rng: np.random.Generator | None) -> Outcome:
        """`step` on checked rows."""

    def _terminated(self, next_observations: Floats) -> Bools:
        """`terminated` on checked rows; the default is an environment that never terminates."""
        return np.zeros(len(next_observations), np.bool_)

    def make(self) -> gymnasium.Env[Any, Any]:
        """A new Gymnasium environment: time limit, no passive checker, no order enforcement."""
        return TimeLimit(self.bare(), self.spec.horizon)

    def lanes(self, count: int) -> Lanes:
        """Room for `count` episodes side by side, stepped by `envs.rollout`."""
        return GymnasiumLanes([self.bare() for _ in range(count)])

    def step(self, observations: Array, actions: Array, rng: np.random.Generator | None = None) -> Outcome:
        """The oracle: set the simulator to each observation and apply its action once.

        Actions are used as the environment uses them (it clips or clamps what lies outside the bounds by itself).

        Args:
            observations: `[n, o]`, physical units; only rows where `resettable` is true give the true next state.
            actions: `[n, a]`; float32 actions give the reward that Gymnasium computes from float32 actions.
            rng: Noise of stochastic dynamics; deterministic environments ignore it.

        Returns:
            Float64 rows. A row whose simulation diverges is NaN.

        Raises:
            EnvironmentModelError: On wrong shapes, NaN or inf, no exact reset, or missing `rng`.
        """
        observations = self._rows("observations", observations, self.spec.observation_size)
        actions = self._rows("actions", actions, self.spec.action_size)
        if len(observations) != len(actions):
            found = f"{len(observations)} observations, {len(actions)} actions"
            raise EnvironmentModelError(f"{self.spec.name}: every observation needs one action", found=found)
        if self.spec.reset == "none":
            raise EnvironmentModelError(
                f"{self.spec.name} cannot be set to an observation",
                found="observations that do not determine the simulator's state",
                fix="use a learned ensemble as oracle",
            )
        if self.spec.stochastic and rng is None:
            raise EnvironmentModelError(f"{self.spec.name} is stochastic: a step needs noise", fix="pass rng=")
        return self._step(observations.astype(np.float64, copy=False), actions, rng)

    def terminated(self, next_observations: Array) -> Bools:
        """The termination function: whether an episode ends on reaching `next_observations [n, o]`.

        Raises:
            EnvironmentModelError: On a wrong shape, NaN or inf.
        """
        rows = self._rows("next_observations", next_observations, self.spec.observation_size)
        return self._terminated(rows.astype(np.float64, copy=False))

    def resettable(self, observations: Array, next_observations: Array | None = None) -> Bools:
        """Rows `[n]` on which the oracle can judge.

        A row counts when it is finite and no component is at or near its clip (|v| >= 0.99 of the limit): a clipped
        component hides the simulator's state. With `next_observations`, these must be off the clip too.

        Raises:
            EnvironmentModelError: On a wrong shape.
        """
        result = self._off_clip("observations", observations)
        if next_observations is not None:
            result &= self._off_clip("next_observations", next_observations)
        return result & (self.spec.reset == "exact")

    def provenance(self) -> dict[str, Any]:
        """Name, Gymnasium id and the versions that the dynamics depend on: plain JSON."""
        packages = {package: version(package) for package in self.packages}
        return {"environment": self.spec.name, "gymnasium_id": self.spec.gymnasium_id, "packages": packages}

    def _off_clip(self, name: str, values: Array) -> Bools:
        rows = self._shaped(name, values, self.spec.observation_size)
        limits = self.spec.observation_clip or (None,) * self.spec.observation_size
        bounds = np.array([np.inf if limit is None else CLIP_MARGIN * limit for limit in limits])
        inside: Bools = np.all(np.abs(rows) < bounds, axis=1)
        return inside

    def _rows(self, name: str, values: Array, size: int) -> Array:
        rows = self._shaped(name, values, size)
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            raise EnvironmentModelError(
                f"{self.spec.name}: {name} hold NaN or inf",
                found=f"{int(bad.sum())} of {len(rows)} rows, first at row {int(bad.argmax())}",
                accepted="finite numbers",
            )
        return rows

    def _shaped(self, name: str, values: Array, size: int) -> Array:
        array = np.asarray(values)
        if array.ndim != 2 or array.shape[1] != size or array.dtype.kind not in "fiu":
            raise EnvironmentModelError(
                f"{self.spec.name}: {name} have the wrong form",
                found=f"shape {array.shape}, {array.dtype}",
                accepted=f"numbers of shape (rows, {size})",
            )
        return array if array.dtype.kind == "f" else array.astype(np.float64)
