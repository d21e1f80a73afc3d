"""Our pendulum equations against Gymnasium's environment."""

import gymnasium
import numpy as np

from synth_pipeline import envs


def test_step_equals_gymnasium_from_many_states():
    pendulum, env = envs.make("pendulum"), gymnasium.make("Pendulum-v1").unwrapped
    rng = np.random.default_rng(0)
    angles, speeds = rng.uniform(-np.pi, np.pi, 200), rng.uniform(-8, 8, 200)
    torques = rng.uniform(-3, 3, (200, 1))  # beyond the bounds too: the environment clips
    rows = np.stack([np.cos(angles), np.sin(angles), speeds], axis=1)
    outcome = pendulum.step(rows, torques)
    for row, (angle, speed) in enumerate(zip(angles, speeds, strict=True)):
        env.reset(seed=0)
        env.state = np.array([angle, speed])
        observation, reward, *_ = env.step(torques[row])
        np.testing.assert_allclose(outcome.next_observations[row], observation, atol=1e-6)
        np.testing.assert_allclose(outcome.rewards[row], reward, atol=1e-12)


def test_spec_has_gymnasiums_horizon_and_time_step():
    pendulum = envs.make("pendulum")
    assert pendulum.spec.horizon == gymnasium.spec("Pendulum-v1").max_episode_steps
    assert pendulum.spec.dt == pendulum.bare().dt
    assert pendulum.spec.action.high == (pendulum.bare().max_torque,)


def test_hanging_still_costs_pi_squared():
    outcome = envs.make("pendulum").step(np.array([[-1.0, 0.0, 0.0]]), np.zeros((1, 1)))
    np.testing.assert_allclose(outcome.rewards, [-(np.pi**2)])
    np.testing.assert_allclose(outcome.next_observations, [[-1.0, 0.0, 0.0]], atol=1e-12)
