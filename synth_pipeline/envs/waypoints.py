"""A controller for the PointMazes: shortest path over free cells, PD control toward the next cell on it.

Recipe and gains as in D4RL's and Minari's maze data (Fu et al. 2020, arXiv 2004.07219): P 10, D -1, Gaussian action
noise. Straight-line control solves most default starts but none whose path takes five cells or more; this one solves
all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.fields import Array
from synth_pipeline.envs.pointmaze import PointMaze

GAIN, DAMPING = 10.0, 1.0
_MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))


class WaypointActor:
    """Walks a maze from any position to the goal in the observation.

    It remembers nothing: the next waypoint is looked up from the ball's cell and the goal's cell at every step.

    Args:
        maze: The maze to walk in.
        noise: Standard deviation of Gaussian noise on the actions (before they are clipped to [-1, 1]).
    """

    def __init__(self, maze: PointMaze, *, noise: float = 0.0) -> None:
        self._maze, self.noise = maze, noise
        self._distances, self._next = shortest_paths(maze.walls)

    def reset(self, n: int) -> None:
        """Nothing is remembered between steps."""

    def act(self, observations: Array, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """`[n, (x, y, vx, vy, goal_x, goal_y)]` -> `[n, 2]` in [-1, 1]; draws `2 n` normals when noisy."""
        positions, velocities, goals = np.split(np.asarray(observations, np.float64), 3, axis=1)
        here, there = self._flat_cells(positions), self._flat_cells(goals)
        following = np.stack(np.divmod(self._next[there, here], self._maze.walls.shape[1]), axis=1)
        targets = np.where((here == there)[:, None], goals, self._maze.centres(following))
        actions = GAIN * (targets - positions) - DAMPING * velocities
        if self.noise:
            actions = actions + self.noise * rng.standard_normal(actions.shape)
        return np.clip(actions, -1.0, 1.0).astype(np.float32)

    def observe(self, rewards: Array, costs: Array | None, infos: Mapping[str, Array]) -> None:
        """Nothing is learned from what actions gave."""

    def path_cells(self, observations: Array) -> npt.NDArray[np.int64]:
        """`[n]`, moves between cells on the shortest path from each position to its goal."""
        rows = np.asarray(observations, np.float64)
        return self._distances[self._flat_cells(rows[:, 4:]), self._flat_cells(rows[:, :2])]

    def _flat_cells(self, positions: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        cells = self._maze.cells(positions)
        flat: npt.NDArray[np.int64] = cells[:, 0] * self._maze.walls.shape[1] + cells[:, 1]
        return flat


def shortest_paths(walls: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Breadth-first search from every free cell.

    Args:
        walls: `[rows, columns]`, true where nothing can pass.

    Returns:
        Two tables `[goal, cell]` over flat cells: the number of moves (-1: unreachable) and the next cell to go to
        (the cell itself at the goal and where no path leads).
    """
    columns = walls.shape[1]
    distances = np.full((walls.size, walls.size), -1, np.int64)
    following = np.tile(np.arange(walls.size), (walls.size, 1))
    for goal in np.flatnonzero(~walls):
        distances[goal, goal] = 0
        queue = deque([int(goal)])
        while queue:
            cell = queue.popleft()
            for neighbour in _free_neighbours(walls, *divmod(cell, columns)):
                if distances[goal, neighbour] < 0:
                    distances[goal, neighbour] = distances[goal, cell] + 1
                    following[goal, neighbour] = cell
                    queue.append(neighbour)
    return distances, following


def _free_neighbours(walls: npt.NDArray[np.bool_], row: int, column: int) -> list[int]:
    rows, columns = walls.shape
    around = [(row + down, column + right) for down, right in _MOVES]
    inside = [(r, c) for r, c in around if 0 <= r < rows and 0 <= c < columns and not walls[r, c]]
    return [r * columns + c for r, c in inside]
