"""A point mass in a walled square: deterministic, with collisions that any row can be checked against."""

from __future__ import annotations

import numpy as np

from synth_pipeline.data.fields import Array
from synth_pipeline.envs.base import Bools, EnvironmentSpec, Floats, KinematicPair, Outcome, box
from synth_pipeline.envs.toys import Toy


class PointMass(Toy):
    """State x, y, vx, vy in the square [-1, 1]^2; the action is an acceleration.

    One step: v' = clip(v + dt a, -1, 1); the point moves by dt (v + v') / 2, first along x, then along y. A move that
    would end in a wall or outside the square does not happen: the coordinate stays and its velocity becomes 0. The
    reward is minus the distance to the goal after the step; inside the goal's circle the episode ends.

    Args:
        terminal: Whether reaching the goal ends the episode.

    Attributes:
        walls: `[w, 4]`, solid rectangles (x low, x high, y low, y high), all wider than one step reaches.
        goal: `[2]`, centre of the goal.
        goal_radius: Its radius.
    """

    walls = np.array([[-0.15, 0.15, -0.4, 1.0], [-0.7, -0.4, -1.0, -0.1]])
    goal = np.array([0.7, 0.7])
    goal_radius = 0.2

    def __init__(self, terminal: bool = True) -> None:
        self.spec = EnvironmentSpec(
            name="toy-point-mass",
            family="toy",
            observation_size=4,
            action=box(2),
            horizon=100,
            dt=0.1,
            terminates=terminal,
            kinematics=(KinematicPair(position=0, velocity=2), KinematicPair(position=1, velocity=3)),
        )

    def start(self, rng: np.random.Generator) -> Floats:
        """At rest, uniform over the free part of the square outside the goal."""
        while True:
            position = rng.uniform(-1.0, 1.0, 2)
            if not self.blocked(position[None])[0] and not self.reached(position[None])[0]:
                return np.concatenate([position, np.zeros(2)])

    def blocked(self, positions: Floats) -> Bools:
        """Whether positions `[n, 2]` lie in a wall or outside the square."""
        x, y = positions[:, :1], positions[:, 1:2]
        x_low, x_high, y_low, y_high = self.walls.T
        inside = (x > x_low) & (x < x_high) & (y > y_low) & (y < y_high)
        blocked: Bools = inside.any(axis=1) | (np.abs(positions) > 1.0).any(axis=1)
        return blocked

    def reached(self, observations: Floats) -> Bools:
        """Whether rows `[n, >= 2]` lie in the goal's circle."""
        near: Bools = np.linalg.norm(observations[:, :2] - self.goal, axis=1) <= self.goal_radius
        return near

    def mean_and_covariance(self, observations: Array, actions: Array) -> tuple[Floats, Floats]:
        """The next observation `[n, 4]` and a covariance of zeros `[n, 4, 4]`."""
        mean = self.step(observations, actions).next_observations
        return mean, np.zeros((*mean.shape, 4))

    def _step(self, observations: Floats, actions: Array, rng: np.random.Generator | None) -> Outcome:
        dt = self.spec.dt
        position, velocity = observations[:, :2].copy(), observations[:, 2:]
        target = np.clip(velocity + dt * self.spec.action.clipped(actions.astype(np.float64)), -1.0, 1.0)
        for axis in range(2):
            moved = position.copy()
            moved[:, axis] += 0.5 * dt * (velocity[:, axis] + target[:, axis])
            stopped = self.blocked(moved)
            target[stopped, axis] = 0.0
            position = np.where(stopped[:, None], position, moved)
        after = np.concatenate([position, target], axis=1)
        rewards = -np.linalg.norm(position - self.goal, axis=1)
        return Outcome(after, rewards, self._terminated(after))

    def _terminated(self, next_observations: Floats) -> Bools:
        if not self.spec.terminates:
            return super()._terminated(next_observations)
        return self.reached(next_observations)
