"""The mazes against plain Gymnasium-Robotics."""

import subprocess
import sys
import tempfile
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from synth_pipeline import envs
from synth_pipeline.envs.rollout import RandomActor, rollout
from synth_pipeline.seeding import Stage, integer_seed


@pytest.fixture(scope="module", params=["umaze", "medium", "large"])
def maze(request):
    return envs.make(f"pointmaze-{request.param}")


def plain(maze):
    return gymnasium.make(maze.spec.gymnasium_id, continuing_task=False)


def test_rollout_equals_plain_gymnasium_for_the_same_seed_and_actions(maze):
    episodes = rollout(maze, RandomActor(maze.spec.action), episodes=3, lanes=2, seed=5)
    env = plain(maze)
    for episode in range(3):
        observation, _ = env.reset(seed=integer_seed(5, Stage.COLLECT, 0, episode))
        rows = range(episodes.starts[episode], episodes.starts[episode + 1])
        for row in rows:
            np.testing.assert_array_equal(episodes["observations"][row, :4], np.float32(observation["observation"]))
            np.testing.assert_array_equal(episodes["observations"][row, 4:], np.float32(observation["desired_goal"]))
            observation, reward, termination, truncation, info = env.step(episodes["actions"][row])
            assert (episodes["rewards"][row], episodes["terminations"][row]) == (reward, termination)
            assert episodes["success"][row] == info["success"]
        assert episodes["truncations"][rows[-1]] == truncation
        assert len(rows) <= maze.spec.horizon
    Path(env.unwrapped.tmp_xml_file_path).unlink()


def test_spec_has_gymnasiums_horizon_and_time_step(maze):
    assert maze.spec.horizon == gymnasium.spec(maze.spec.gymnasium_id).max_episode_steps
    assert maze.spec.dt == maze.bare().maze.point_env.dt


def test_cells_and_centres_are_the_simulators(maze):
    theirs = maze.bare().maze.maze
    cells = np.argwhere(~maze.walls)
    centres = maze.centres(cells)
    np.testing.assert_array_equal(centres, [theirs.cell_rowcol_to_xy(cell) for cell in cells])
    np.testing.assert_array_equal(maze.cells(centres), cells)
    np.testing.assert_array_equal(maze.cells(centres + 0.49), cells)
    np.testing.assert_array_equal(maze.cells(centres - 0.49), cells)
    assert maze.walls[0].all()


def test_success_is_the_goal_circle():
    maze = envs.make("pointmaze-umaze")
    rows = np.array([[0.0, 0.0, 0, 0, 0.44, 0.0], [0.0, 0.0, 0, 0, 0.46, 0.0], [1.0, 1.0, 9, 9, 1.0, 1.0]])
    assert maze.success(rows).tolist() == [True, False, True]
    assert maze.terminated(rows).tolist() == [True, False, True]


def test_reaching_the_goal_pays_one_and_ends_the_episode():
    maze = envs.make("pointmaze-umaze")
    rows = np.array([[-1.0, 1.0, 0, 0, -0.5, 1.0], [-1.0, 1.0, 0, 0, 1.0, 1.0]])
    outcome = maze.step(rows.repeat(2, axis=0), np.array([[1.0, 0], [-1.0, 0], [1.0, 0], [-1.0, 0]]))
    closer = outcome.next_observations[:, 0] > -1.0
    assert closer.tolist() == [True, False, True, False]
    running = maze.lanes(1)
    running.reset(0, 1)
    np.testing.assert_array_equal(outcome.rewards, outcome.terminations.astype(float))
    np.testing.assert_array_equal(outcome.next_observations[:, 4:], rows.repeat(2, axis=0)[:, 4:])


def test_speed_is_limited_before_the_step():
    maze = envs.make("pointmaze-umaze")
    fast, limit = np.array([[0.0, 1.0, 50.0, 0, 1, 1]]), np.array([[0.0, 1.0, 5.0, 0, 1, 1]])
    none = np.zeros((1, 2))
    np.testing.assert_array_equal(maze.step(fast, none).next_observations, maze.step(limit, none).next_observations)


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    maze = envs.make("pointmaze-medium")
    maze.lanes(2).reset(0, 0)
    maze.make().reset(seed=0)
    assert list(tmp_path.iterdir()) == []


def test_importing_prints_nothing():
    code = "import synth_pipeline.envs.pointmaze"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (answer.stdout, answer.stderr) == ("", "")
