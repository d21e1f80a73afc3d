"""The runners against plain Gymnasium, number for number."""

import gymnasium
import mujoco
import numpy as np
import pytest

from synth_pipeline import envs
from synth_pipeline.envs.rollout import RandomActor, rollout
from synth_pipeline.seeding import Stage, integer_seed

NAMES = ["hopper", "halfcheetah", "walker2d"]


@pytest.fixture(params=NAMES)
def runner(request):
    return envs.make(request.param)


def test_rollout_equals_plain_gymnasium_for_the_same_seed_and_actions(runner):
    episodes = rollout(runner, RandomActor(runner.spec.action), episodes=4, lanes=3, seed=11, max_steps=300)
    env = gymnasium.make(runner.spec.gymnasium_id)
    for episode in range(4):
        observation, _ = env.reset(seed=integer_seed(11, Stage.COLLECT, 0, episode))
        for row in range(episodes.starts[episode], episodes.starts[episode + 1]):
            np.testing.assert_array_equal(episodes["observations"][row], np.float32(observation))
            observation, reward, termination, _, _ = env.step(episodes["actions"][row])
            assert (episodes["rewards"][row], episodes["terminations"][row]) == (np.float32(reward), termination)
        np.testing.assert_array_equal(episodes.final_observations[episode], np.float32(observation))


def test_lanes_equal_plain_gymnasium_in_double_precision(runner):
    env, lanes = gymnasium.make(runner.spec.gymnasium_id), runner.lanes(2)
    rng = np.random.default_rng(0)
    for seed in range(3):
        np.testing.assert_array_equal(env.reset(seed=seed)[0], lanes.reset(1, seed))
        lanes.reset(0, 99)
        for _ in range(15):
            actions = rng.uniform(-1, 1, (2, runner.spec.action_size)).astype(np.float32)
            observation, reward, termination, _, _ = env.step(actions[1])
            outcome = lanes.step(np.arange(2), actions)
            np.testing.assert_array_equal(outcome.next_observations[1], observation)
            assert outcome.rewards[1] == reward
            assert outcome.terminations[1] == termination


def test_spec_has_gymnasiums_horizon_and_time_step(runner):
    env = runner.bare()
    assert runner.spec.horizon == gymnasium.spec(runner.spec.gymnasium_id).max_episode_steps
    assert runner.spec.dt == env.dt
    assert runner.spec.observation_size == env.model.nq - 1 + env.model.nv


def test_observation_clip_is_where_gymnasium_clips(runner):
    env = runner.bare()
    env.reset(seed=0)
    env.set_state(env.init_qpos, np.full(env.model.nv, 1000.0))
    shown = env._get_obs()
    limits = runner.spec.observation_clip or (None,) * len(shown)
    for component, limit in enumerate(limits):
        is_velocity = component >= env.model.nq - 1
        assert limit == (shown[component] if is_velocity and shown[component] < 1000 else None)


@pytest.mark.parametrize(
    ("name", "observation", "terminated"),
    [
        ("hopper", {0: 1.2}, False),
        ("hopper", {0: 0.7}, True),
        ("hopper", {0: 1.2, 1: 0.21}, True),
        ("hopper", {0: 1.2, 1: -0.19}, False),
        ("hopper", {0: 1.2, 3: 100.0}, True),
        ("walker2d", {0: 1.2}, False),
        ("walker2d", {0: 2.0}, True),
        ("walker2d", {0: 0.8}, True),
        ("walker2d", {0: 1.2, 1: -1.0}, True),
        ("halfcheetah", {0: -50.0, 1: 9.0}, False),
    ],
)
def test_termination_rules(name, observation, terminated):
    model = envs.make(name)
    row = np.zeros((1, model.spec.observation_size))
    for component, value in observation.items():
        row[0, component] = value
    assert model.terminated(row).tolist() == [terminated]


def test_reward_of_one_step_by_hand():
    cheetah = envs.make("halfcheetah")
    observations, actions = np.zeros((1, 17)), np.full((1, 6), 0.5)
    env = cheetah.bare()
    env.reset(seed=0)
    env.set_state(np.zeros(9), np.zeros(9))
    env.step(actions[0])
    expected = env.data.qpos[0] / 0.05 - 0.1 * 6 * 0.25
    np.testing.assert_allclose(cheetah.step(observations, actions).rewards, [expected], atol=1e-10)


def test_a_simulation_that_blows_up_is_nan_and_leaves_no_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cheetah = envs.make("halfcheetah")
    observations = np.zeros((3, 17))
    observations[1, 9:] = 1e6
    outcome = cheetah.step(observations, np.zeros((3, 6)))
    assert np.isnan(outcome.next_observations).all(axis=1).tolist() == [False, True, False]
    assert np.isnan(outcome.rewards).tolist() == [False, True, False]
    assert list(tmp_path.iterdir()) == []
    assert mujoco.get_mju_user_warning() is None


def test_more_rows_than_one_chunk(monkeypatch):
    cheetah = envs.make("halfcheetah")
    rng = np.random.default_rng(0)
    observations, actions = 0.1 * rng.standard_normal((70, 17)), rng.uniform(-1, 1, (70, 6))
    whole = cheetah.step(observations, actions)
    monkeypatch.setattr("synth_pipeline.envs.simulator._CHUNK", 32)
    np.testing.assert_array_equal(cheetah.step(observations, actions).next_observations, whole.next_observations)
