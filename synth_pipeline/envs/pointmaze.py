"""Gymnasium-Robotics' PointMaze v3 (UMaze, Medium, Large), sparse reward, one goal per episode.

An observation is x, y, vx, vy, goal_x, goal_y: the Dict observation flattened, so that a row determines the state, the
reward and the success. Reaching the goal (0.45 m) gives reward 1 and terminates (`continuing_task=False`).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt

from synth_pipeline.data.fields import Array, Field
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
from synth_pipeline.errors import EnvironmentModelError

# Its import prints a notice about the Adroit hand environments, which nothing here uses.
with contextlib.redirect_stderr(io.StringIO()):
    from gymnasium_robotics.envs.maze import maps
    from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv

GOAL_RADIUS = 0.45
_MAX_SPEED = 5.0


class _Flat(gymnasium.Env[Floats, Array]):
    """PointMaze with flat observations and without wrappers."""

    def __init__(self, maze_map: list[list[int]]) -> None:
        self.maze = PointMazeEnv(maze_map=maze_map, continuing_task=False)
        # The environment leaves the compiled maze behind in the system's temporary folder.
        Path(self.maze.tmp_xml_file_path).unlink()
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (6,), np.float64)
        self.action_space = self.maze.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        observation, info = self.maze.reset(seed=seed, options=options)
        return self._flatten(observation), info

    def step(self, action: Array) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        observation, reward, termination, truncation, info = self.maze.step(action)
        return self._flatten(observation), float(reward), termination, truncation, info

    def close(self) -> None:
        self.maze.close()

    @staticmethod
    def _flatten(observation: dict[str, Floats]) -> Floats:
        return np.concatenate([observation["observation"], observation["desired_goal"]])


class PointMaze(EnvironmentModel):
    """A ball pushed through a maze of unit cells; the subclasses give the maze.

    Row 0 of the maze is at the top (largest y); the origin is the centre of the maze.
    """

    packages = ("gymnasium", "gymnasium-robotics", "mujoco", "numpy")
    maze_map: ClassVar[list[list[int]]]

    @cached_property
    def walls(self) -> Bools:
        """`[rows, columns]`, true where a cell is a wall."""
        walls: Bools = np.array(self.maze_map) == 1
        return walls

    def cells(self, positions: Floats) -> npt.NDArray[np.int64]:
        """The cells `[..., (row, column)]` that positions `[..., (x, y)]` lie in."""
        rows, columns = self.walls.shape
        row = np.floor(rows / 2 - positions[..., 1])
        column = np.floor(positions[..., 0] + columns / 2)
        return np.stack([row, column], axis=-1).astype(np.int64)

    def centres(self, cells: npt.NDArray[np.int64]) -> Floats:
        """The centres `[..., (x, y)]` of cells `[..., (row, column)]`, metres."""
        rows, columns = self.walls.shape
        return np.stack([cells[..., 1] + 0.5 - columns / 2, rows / 2 - cells[..., 0] - 0.5], axis=-1)

    def success(self, observations: Floats) -> Bools:
        """Whether the ball is at its goal, `[n, 6]` -> `[n]`."""
        offset = observations[:, :2] - observations[:, 4:]
        reached: Bools = np.sqrt(np.sum(offset * offset, axis=1)) <= GOAL_RADIUS
        return reached

    def with_goal(self, observations: Array, goal: Sequence[float]) -> Array:
        """Observations `[n, 6]` with the goal `(x, y)`, metres, in every row.

        Raises:
            EnvironmentModelError: When the goal is not two finite numbers inside a free cell.
        """
        place = np.asarray(goal, np.float64)
        rows, columns = self.walls.shape
        if place.shape == (2,) and (abs(place) < (columns / 2, rows / 2)).all() and not self._in_wall(place):
            changed = observations.copy()
            changed[:, 4:] = place
            return changed
        raise EnvironmentModelError(
            f"{self.spec.name} has no such goal",
            found=", ".join(f"{number:g}" for number in goal),
            accepted=f"x,y in a free cell, such as {', '.join(map(self._centre, np.argwhere(~self.walls)[[0, -1]]))}",
        )

    def _in_wall(self, place: Floats) -> bool:
        return bool(self.walls[tuple(self.cells(place))])

    def _centre(self, cell: npt.NDArray[np.int64]) -> str:
        return ",".join(f"{number:g}" for number in self.centres(cell))

    def bare(self) -> _Flat:
        """A new environment without wrappers."""
        return _Flat(self.maze_map)

    def lanes(self, count: int) -> PointMazeLanes:
        """Room for `count` episodes side by side."""
        return PointMazeLanes(self, count)

    def outcome(self, qpos: Floats, qvel: Floats, goals: Floats) -> Outcome:
        """Observation, reward, termination and success from the simulator's state `[n, 2]` each after a step."""
        observations = np.concatenate([qpos, qvel, goals], axis=1)
        success = self.success(observations)
        return Outcome(observations, success.astype(np.float64), success, {"success": success})

    def _step(self, observations: Floats, actions: Array, rng: np.random.Generator | None) -> Outcome:
        velocities = np.clip(observations[:, 2:4], -_MAX_SPEED, _MAX_SPEED)
        qpos, qvel = self._simulator.step(observations[:, :2], velocities, actions)
        return self.outcome(qpos, qvel, observations[:, 4:])

    def _terminated(self, next_observations: Floats) -> Bools:
        return self.success(next_observations)

    @cached_property
    def _simulator(self) -> Simulator:
        return Simulator(self.bare().maze.point_env)


class PointMazeLanes:
    """Running episodes of one maze (see `base.Lanes`)."""

    def __init__(self, model: PointMaze, count: int) -> None:
        self._model = model
        self._environment = model.bare()
        self._lanes = SimulatorLanes(self._environment.maze.point_env, count)
        self._goals = np.zeros((count, 2))

    def reset(self, lane: int, seed: int) -> Floats:
        """Start a new episode in one lane."""
        observation, _ = self._environment.reset(seed=seed)
        self._lanes.load(lane)
        self._goals[lane] = observation[4:]
        return observation

    def step(self, active: Indices, actions: Array) -> Outcome:
        """Step some lanes."""
        self._lanes.clip_velocities(active, _MAX_SPEED)
        self._lanes.advance(active, np.clip(actions, -1.0, 1.0))
        return self._model.outcome(*self._lanes.state(active), self._goals[active])


def _spec(size: str, horizon: int) -> EnvironmentSpec:
    return EnvironmentSpec(
        name=f"pointmaze-{size.lower()}",
        family="pointmaze",
        gymnasium_id=f"PointMaze_{size}-v3",
        observation_size=6,
        action=box(2),
        horizon=horizon,
        dt=0.01,
        kinematics=(KinematicPair(position=0, velocity=2), KinematicPair(position=1, velocity=3)),
        infos=(Field(name="success", kind="binary"),),
    )


class UMaze(PointMaze):
    """The U: 3 x 3 cells inside walls."""

    maze_map = maps.U_MAZE
    spec = _spec("UMaze", 300)


class MediumMaze(PointMaze):
    """6 x 6 cells inside walls."""

    maze_map = maps.MEDIUM_MAZE
    spec = _spec("Medium", 600)


class LargeMaze(PointMaze):
    """7 x 10 cells inside walls."""

    maze_map = maps.LARGE_MAZE
    spec = _spec("Large", 800)
