"""Collisions of the point mass, checked by hand."""

import numpy as np
import pytest

from synth_pipeline.envs.point_mass import PointMass


def after(observation, action):
    outcome = PointMass().step(np.array([observation], float), np.array([action], float))
    return outcome.next_observations[0]


def test_free_flight():
    np.testing.assert_allclose(after([-0.9, 0, 0.5, -0.2], [1, 0]), [-0.9 + 0.1 * 0.55, -0.02, 0.6, -0.2])


def test_a_wall_stops_one_axis_and_leaves_the_other():
    np.testing.assert_allclose(after([-0.2, 0.5, 1, 0.4], [0, 0]), [-0.2, 0.54, 0, 0.4])


def test_the_edge_of_the_square_stops():
    np.testing.assert_allclose(after([0.95, -0.95, 1, -1], [1, -1]), [0.95, -0.95, 0, 0])


def test_speed_is_limited():
    np.testing.assert_allclose(after([0.5, -0.5, 0.99, 0], [1, 0])[2], 1.0)


def test_no_row_of_a_long_walk_is_inside_a_wall():
    mass, rng = PointMass(terminal=False), np.random.default_rng(0)
    states = np.stack([mass.start(rng) for _ in range(300)])
    hits = 0
    for _ in range(200):
        outcome = mass.step(states, rng.uniform(-1, 1, (300, 2)))
        states = outcome.next_observations
        hits += int(np.sum(states[:, 2:] == 0))
        assert not mass.blocked(states[:, :2]).any()
        assert not outcome.terminations.any()
    assert hits > 100


def test_walls_are_wider_than_a_step():
    low, high = PointMass.walls[:, ::2], PointMass.walls[:, 1::2]
    assert np.all(high - low > 0.1)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_goal_ends_the_episode_only_if_it_is_terminal(terminal):
    mass = PointMass(terminal=terminal)
    outcome = mass.step(np.array([[0.7, 0.7, 0, 0], [-0.9, 0.9, 0, 0]]), np.zeros((2, 2)))
    assert outcome.terminations.tolist() == [terminal, False]
    assert mass.spec.terminates == terminal
    np.testing.assert_allclose(outcome.rewards, [0.0, -np.hypot(1.6, 0.2)])


def test_covariance_is_zero():
    mean, covariance = PointMass().mean_and_covariance(np.zeros((2, 4)), np.zeros((2, 2)))
    np.testing.assert_array_equal(mean, np.zeros((2, 4)))
    assert covariance.shape == (2, 4, 4)
    assert not covariance.any()
