"""Gymnasium's MuJoCo runners, version 5: Hopper, HalfCheetah, Walker2d.

Observations are the positions without x, then the velocities (clipped to +-10 by Hopper and Walker2d). The reward is
forward velocity, plus 1 while healthy (not HalfCheetah), minus a weight times the squared action.
Source of rewards and health limits: Gymnasium's documentation of the v5 environments.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv

from synth_pipeline.data.fields import Array
from synth_pipeline.envs.base import (
    Bools,
    EnvironmentModel,
    EnvironmentSpec,
    Floats,
    Indices,
    KinematicPair,
    Outcome,
    box,
)
from synth_pipeline.envs.simulator import Simulator, SimulatorLanes


def _kinematics(positions: int, angles: tuple[int, ...]) -> tuple[KinematicPair, ...]:
    # The velocities begin with that of x, which has no position in the observation.
    return tuple(KinematicPair(position=i, velocity=positions + 1 + i, angle=i in angles) for i in range(positions))


class Locomotion(EnvironmentModel):
    """A runner in the plane; the subclasses give its numbers."""

    packages = ("gymnasium", "mujoco", "numpy")
    control_weight: ClassVar[float]
    healthy_reward: ClassVar[float]
    velocity_clip: ClassVar[float | None]

    def healthy(self, states: Floats) -> Bools:
        """Whether the runner stands, from positions without x and velocities, `[n, o]` -> `[n]`."""
        return np.ones(len(states), np.bool_)

    def bare(self) -> MujocoEnv:
        """A new Gymnasium environment without wrappers."""
        assert self.spec.gymnasium_id is not None
        environment = gymnasium.make(self.spec.gymnasium_id, disable_env_checker=True).unwrapped
        assert isinstance(environment, MujocoEnv)
        return environment

    def lanes(self, count: int) -> LocomotionLanes:
        """Room for `count` episodes side by side."""
        return LocomotionLanes(self, count)

    def outcome(self, x_before: Floats | float, qpos: Floats, qvel: Floats, actions: Array) -> Outcome:
        """Observation, reward and termination from the simulator's state after a step.

        Args:
            x_before: `[n]`, the x position before the step, metres.
            qpos: `[n, nq]` positions after the step.
            qvel: `[n, nv]` velocities after the step.
            actions: `[n, a]`; the control cost is computed in their precision, as Gymnasium does.
        """
        states = np.concatenate([qpos[:, 1:], qvel], axis=1)
        healthy = self.healthy(states)
        cost = self.control_weight * np.sum(np.square(actions), axis=1)
        rewards = (qpos[:, 0] - x_before) / self.spec.dt + healthy * self.healthy_reward - cost
        if self.velocity_clip is not None:
            velocities = states[:, qpos.shape[1] - 1 :]
            np.clip(velocities, -self.velocity_clip, self.velocity_clip, out=velocities)
        return Outcome(states, rewards, ~healthy)

    def _step(self, observations: Floats, actions: Array, rng: np.random.Generator | None) -> Outcome:
        positions = len(self.spec.kinematics)
        qpos = np.concatenate([np.zeros((len(observations), 1)), observations[:, :positions]], axis=1)
        return self.outcome(0.0, *self._simulator.step(qpos, observations[:, positions:], actions), actions)

    def _terminated(self, next_observations: Floats) -> Bools:
        return ~self.healthy(next_observations)

    @cached_property
    def _simulator(self) -> Simulator:
        return Simulator(self.bare())


class LocomotionLanes:
    """Running episodes of one runner (see `base.Lanes`)."""

    def __init__(self, model: Locomotion, count: int) -> None:
        self._model = model
        self._environment = model.bare()
        self._lanes = SimulatorLanes(self._environment, count)
        self._x = np.zeros(count)

    def reset(self, lane: int, seed: int) -> Floats:
        """Start a new episode in one lane."""
        observation, info = self._environment.reset(seed=seed)
        self._lanes.load(lane)
        self._x[lane] = info["x_position"]
        return np.asarray(observation, np.float64)

    def step(self, active: Indices, actions: Array) -> Outcome:
        """Step some lanes."""
        self._lanes.advance(active, actions)
        qpos, qvel = self._lanes.state(active)
        outcome = self._model.outcome(self._x[active], qpos, qvel, actions)
        self._x[active] = qpos[:, 0]
        return outcome


class Hopper(Locomotion):
    """One leg: 11 observations, 3 torques; falls when low, tilted by 0.2 rad, or beyond 100 in any component."""

    control_weight = 1e-3
    healthy_reward = 1.0
    velocity_clip = 10.0
    spec = EnvironmentSpec(
        name="hopper",
        family="locomotion",
        gymnasium_id="Hopper-v5",
        observation_size=11,
        action=box(3),
        horizon=1000,
        dt=0.008,
        observation_clip=(None,) * 5 + (velocity_clip,) * 6,
        kinematics=_kinematics(5, angles=(1, 2, 3, 4)),
    )

    def healthy(self, states: Floats) -> Bools:
        """Height above 0.7, |angle| below 0.2, everything but the height within 100."""
        inside: Bools = np.all(np.abs(states[:, 1:]) < 100.0, axis=1)
        return inside & (states[:, 0] > 0.7) & (np.abs(states[:, 1]) < 0.2)


class HalfCheetah(Locomotion):
    """Two legs: 17 observations, 6 torques; never falls."""

    control_weight = 0.1
    healthy_reward = 0.0
    velocity_clip = None
    spec = EnvironmentSpec(
        name="halfcheetah",
        family="locomotion",
        gymnasium_id="HalfCheetah-v5",
        observation_size=17,
        action=box(6),
        horizon=1000,
        dt=0.05,
        terminates=False,
        kinematics=_kinematics(8, angles=(1, 2, 3, 4, 5, 6, 7)),
    )


class Walker2d(Locomotion):
    """A biped: 17 observations, 6 torques; falls when its height leaves (0.8, 2) or its angle (-1, 1)."""

    control_weight = 1e-3
    healthy_reward = 1.0
    velocity_clip = 10.0
    spec = EnvironmentSpec(
        name="walker2d",
        family="locomotion",
        gymnasium_id="Walker2d-v5",
        observation_size=17,
        action=box(6),
        horizon=1000,
        dt=0.008,
        observation_clip=(None,) * 8 + (velocity_clip,) * 9,
        kinematics=_kinematics(8, angles=(1, 2, 3, 4, 5, 6, 7)),
    )

    def healthy(self, states: Floats) -> Bools:
        """Height in (0.8, 2), |angle| below 1."""
        upright: Bools = np.abs(states[:, 1]) < 1.0
        return upright & (states[:, 0] > 0.8) & (states[:, 0] < 2.0)
