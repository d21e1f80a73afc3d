"""Gymnasium's Pendulum-v1: cos, sin and speed of an angle; the reward is minus a cost; never terminates."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from synth_pipeline.data.fields import Array
from synth_pipeline.envs.base import EnvironmentModel, EnvironmentSpec, Floats, Outcome, box

_MAX_SPEED, _MAX_TORQUE, _GRAVITY = 8.0, 2.0, 10.0


class Pendulum(EnvironmentModel):
    """A swing-up with a torque in [-2, 2]; mass and length are 1.

    Equations: Gymnasium's documentation of Pendulum-v1 (semi-implicit Euler, speed limited to 8).
    """

    spec = EnvironmentSpec(
        name="pendulum",
        family="classic",
        gymnasium_id="Pendulum-v1",
        observation_size=3,
        action=box(1, _MAX_TORQUE),
        horizon=200,
        dt=0.05,
        terminates=False,
    )

    def bare(self) -> gymnasium.Env[Any, Any]:
        """A new Gymnasium environment without wrappers."""
        return gymnasium.make("Pendulum-v1", disable_env_checker=True).unwrapped

    def _step(self, observations: Floats, actions: Array, rng: np.random.Generator | None) -> Outcome:
        angle = np.arctan2(observations[:, 1], observations[:, 0])
        speed = observations[:, 2]
        torque = np.clip(actions[:, 0].astype(np.float64), -_MAX_TORQUE, _MAX_TORQUE)
        rewards = -(angle**2 + 0.1 * speed**2 + 0.001 * torque**2)
        acceleration = 1.5 * _GRAVITY * np.sin(angle) + 3.0 * torque
        speed = np.clip(speed + acceleration * self.spec.dt, -_MAX_SPEED, _MAX_SPEED)
        angle = angle + speed * self.spec.dt
        after = np.stack([np.cos(angle), np.sin(angle), speed], axis=1)
        return Outcome(after, rewards, self._terminated(after))
