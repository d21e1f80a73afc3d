"""The maze controller: shortest paths, success where straight lines fail, noise."""

import numpy as np
import pytest

from synth_pipeline import envs
from synth_pipeline.envs.rollout import RandomActor, rollout
from synth_pipeline.envs.waypoints import DAMPING, GAIN, WaypointActor, shortest_paths
from synth_pipeline.seeding import Stage

MAZES = ("pointmaze-umaze", "pointmaze-medium", "pointmaze-large")
HARD = 5


class StraightLine(RandomActor):
    """PD control toward the goal, whatever stands between."""

    def act(self, observations, rng):
        position, velocity, goal = np.split(observations, 3, axis=1)
        return np.clip(GAIN * (goal - position) - DAMPING * velocity, -1, 1)


def solved_hard_starts(maze, actor, episodes=60):
    """Of the episodes whose path takes at least five moves between cells: which reach the goal."""
    found = rollout(maze, actor, episodes=episodes, seed=3, stage=Stage.EVALUATE)
    first = found.observations[found.starts[:-1]]
    hard = WaypointActor(maze).path_cells(first) >= HARD
    assert hard.sum() >= 5
    return found["terminations"][found.starts[1:] - 1][hard]


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("name", MAZES)
def test_solves_every_hard_start(name, noise):
    maze = envs.make(name)
    assert solved_hard_starts(maze, WaypointActor(maze, noise=noise)).all()


def test_straight_lines_and_uniform_actions_do_not():
    maze = envs.make("pointmaze-umaze")
    assert not solved_hard_starts(maze, StraightLine(maze.spec.action)).any()
    assert solved_hard_starts(maze, RandomActor(maze.spec.action)).mean() < 0.2


def test_shortest_paths_of_a_known_maze():
    walls = np.array([[0, 0, 0], [1, 1, 0], [0, 1, 0]], bool)  # a hook, and one cell cut off
    distances, following = shortest_paths(walls)
    assert distances[8, 0] == 4
    path, cell = [], 0
    while cell != 8:
        cell = int(following[8, cell])
        path.append(cell)
    assert path == [1, 2, 5, 8]
    assert distances[8, 6] == -1
    assert following[8, 6] == 6
    assert (np.diag(distances)[~walls.ravel()] == 0).all()
    free = ~walls.ravel()
    np.testing.assert_array_equal(distances[free][:, free], distances[free][:, free].T)


@pytest.mark.parametrize("name", MAZES)
def test_every_free_cell_reaches_every_other(name):
    walls = envs.make(name).walls
    distances, following = shortest_paths(walls)
    free = np.flatnonzero(~walls)
    assert (distances[np.ix_(free, free)] >= 0).all()
    for goal in free:
        steps = following[goal, free]
        others = free != goal
        np.testing.assert_array_equal(distances[goal, steps[others]], distances[goal, free[others]] - 1)
        assert not walls.ravel()[steps].any()


def test_noise_is_drawn_and_clipped():
    maze = envs.make("pointmaze-umaze")
    goal = maze.centres(np.array([3, 1]))  # 0.05 m to the right of the ball: the noise decides what is clipped
    observations = np.concatenate([goal - (0.05, 0), (0, 0), goal])[None].repeat(50, axis=0)
    calm, noisy = WaypointActor(maze), WaypointActor(maze, noise=0.5)
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    rows = calm.act(observations, rng)
    assert rng.bit_generator.state == before
    assert (rows == rows[0]).all()
    varied = noisy.act(observations, rng)
    assert len(np.unique(varied, axis=0)) == 50
    np.testing.assert_allclose(varied[:, 1].std(), 0.45, atol=0.1)
    assert np.abs(varied).max() <= 1
    assert varied.dtype == np.float32
