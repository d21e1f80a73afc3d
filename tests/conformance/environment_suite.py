"""What every environment must do. A class that inherits `EnvironmentTests` gives the fixture `environment`."""

import copy
import json
from functools import cached_property

import gymnasium
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from synth_pipeline import envs
from synth_pipeline.envs.base import CLIP_MARGIN, EnvironmentModel, dataset_fields
from synth_pipeline.envs.rollout import RandomActor, rollout
from synth_pipeline.errors import EnvironmentModelError
from synth_pipeline.seeding import Stage, integer_seed

SEED = 3


class WavyActor:
    """Deterministic, component by component: its actions do not depend on what stands in the other lanes."""

    def __init__(self, spec, gain=1.0):
        self._size, self._high, self._gain = spec.action_size, np.asarray(spec.action.high, np.float32), gain

    def reset(self, n):
        pass

    def act(self, observations, rng):
        return self._gain * self._high * np.sin(5 * observations[:, : self._size])

    def observe(self, rewards, costs, infos):
        pass


class Recording:
    """Steps of random episodes in double precision, as the lanes give them, flattened to rows."""

    def __init__(self, environment: EnvironmentModel, episodes: int, limit: int = 200) -> None:
        rng, lanes = np.random.default_rng(SEED), environment.lanes(1)
        self.rows: list[tuple] = []
        for episode in range(episodes):
            observation = lanes.reset(0, episode)
            for _ in range(limit):
                action = rng.uniform(environment.spec.action.low, environment.spec.action.high).astype(np.float32)
                outcome = lanes.step(np.array([0]), action[None])
                after = outcome.next_observations[0]
                self.rows.append((observation, action, outcome.rewards[0], after, outcome.terminations[0]))
                observation = after
                if outcome.terminations[0]:
                    break

    @cached_property
    def columns(self) -> tuple[np.ndarray, ...]:
        return tuple(np.array(column) for column in zip(*self.rows, strict=True))


class EnvironmentTests:
    #: How far the oracle may be from the running simulator, per unit of max(1, |value|): rows in double precision
    #: and rows rounded to float32.
    exact_tolerance = 1e-9
    rounded_tolerance = 1e-5
    #: Median error of p' = p + dt (v + v') / 2 per median step of p.
    kinematic_tolerance = 0.2
    episodes = 24

    @pytest.fixture(scope="class")
    @classmethod
    def environment(cls) -> EnvironmentModel:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def recording(cls, environment):
        return Recording(environment, cls.episodes).columns

    @pytest.fixture(scope="class")
    @classmethod
    def rollouts(cls, environment):
        actor = RandomActor(environment.spec.action)
        return rollout(environment, actor, episodes=cls.episodes, seed=SEED, max_steps=200)

    @staticmethod
    def shortened(environment, horizon):
        short = copy.copy(environment)
        short.spec = environment.spec.replace(horizon=horizon)
        return short

    def test_registered_name_is_the_spec_name(self, environment):
        assert type(envs.make(environment.spec.name)) is type(environment)

    def test_spec_agrees_with_the_gymnasium_environment(self, environment):
        env = environment.make()
        assert isinstance(env, gymnasium.Env)
        assert env.observation_space.shape == (environment.spec.observation_size,)
        np.testing.assert_array_equal(env.action_space.low, np.float32(environment.spec.action.low))
        np.testing.assert_array_equal(env.action_space.high, np.float32(environment.spec.action.high))
        observation, _ = env.reset(seed=SEED)
        assert observation.shape == (environment.spec.observation_size,)
        fields = {field.name: field for field in dataset_fields(environment.spec)}
        assert fields["next_observations"].shape == observation.shape
        assert fields["actions"] == environment.spec.action
        env.close()

    def test_make_gives_a_time_limit(self, environment):
        env = self.shortened(environment, 3).make()
        env.reset(seed=SEED)
        flags = [env.step(np.zeros(environment.spec.action_size, np.float32))[2:4] for _ in range(3)]
        assert flags == [(False, False), (False, False), (False, True)]
        env.close()

    def test_lanes_give_the_bytes_of_the_gymnasium_environment(self, environment):
        actor = RandomActor(environment.spec.action)
        episodes = rollout(environment, actor, episodes=3, lanes=2, seed=SEED, max_steps=150)
        env = environment.make()
        for episode in range(3):
            observation, _ = env.reset(seed=integer_seed(SEED, Stage.COLLECT, 0, episode))
            for row in range(episodes.starts[episode], episodes.starts[episode + 1]):
                np.testing.assert_array_equal(np.float32(observation), episodes["observations"][row])
                observation, reward, termination, _, info = env.step(episodes["actions"][row])
                assert np.float32(reward) == episodes["rewards"][row]
                assert termination == episodes["terminations"][row]
                for field in environment.spec.infos:
                    assert info[field.name] == episodes[field.name][row]
            np.testing.assert_array_equal(np.float32(observation), episodes.final_observations[episode])
        env.close()

    def test_step_reproduces_the_simulator_in_double_precision(self, environment, recording):
        if environment.spec.stochastic:
            pytest.skip("a stochastic step is judged by its distribution (KernelTests)")
        observations, actions, rewards, after, terminations = recording
        rows = environment.resettable(observations)
        assert rows.mean() > 0.02
        outcome = environment.step(observations[rows], actions[rows])
        scale = np.maximum(1, np.abs(after[rows]))
        assert np.max(np.abs(outcome.next_observations - after[rows]) / scale) < self.exact_tolerance
        np.testing.assert_allclose(outcome.rewards, rewards[rows], rtol=0, atol=1e3 * self.exact_tolerance)
        np.testing.assert_array_equal(outcome.terminations, terminations[rows])

    def test_step_reproduces_recorded_float32_rows(self, environment, rollouts):
        if environment.spec.stochastic:
            pytest.skip("a stochastic step is judged by its distribution (KernelTests)")
        rows = rollouts.transitions()
        rows = rows.take(environment.resettable(rows["observations"], rows["next_observations"]))
        assert len(rows) > 10
        outcome = environment.step(rows["observations"], rows["actions"])
        assert outcome.next_observations.dtype == outcome.rewards.dtype == np.float64
        error = np.abs(outcome.next_observations - rows["next_observations"])
        scale = np.maximum(1, np.abs(rows["next_observations"]))
        assert np.quantile(error / scale, 0.999) < self.rounded_tolerance
        np.testing.assert_allclose(outcome.rewards, rows["rewards"], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(outcome.terminations, rows["terminations"])

    def test_step_of_a_row_does_not_depend_on_the_other_rows(self, environment, recording):
        if environment.spec.stochastic:
            pytest.skip("noise is drawn in the order of the rows")
        observations, actions = recording[0][:50], recording[1][:50]
        forwards = environment.step(observations, actions)
        backwards = environment.step(observations[::-1], actions[::-1])
        # Vectorised sines may differ in the last bit between memory layouts.
        np.testing.assert_allclose(forwards.next_observations, backwards.next_observations[::-1], atol=1e-13)
        np.testing.assert_allclose(forwards.rewards, backwards.rewards[::-1], atol=1e-13)

    def test_step_of_no_rows(self, environment):
        spec = environment.spec
        outcome = environment.step(
            np.zeros((0, spec.observation_size)), np.zeros((0, spec.action_size)), np.random.default_rng(0)
        )
        assert outcome.next_observations.shape == (0, spec.observation_size)
        assert outcome.rewards.shape == outcome.terminations.shape == (0,)

    def test_terminated_is_the_recorded_flag(self, environment, rollouts):
        flags = environment.terminated(rollouts["next_observations"])
        np.testing.assert_array_equal(flags, rollouts["terminations"])
        if not environment.spec.terminates:
            assert not flags.any()

    def test_horizon_gives_truncation_not_termination(self, environment):
        episodes = rollout(self.shortened(environment, 4), WavyActor(environment.spec), episodes=3, seed=SEED)
        assert episodes.lengths.tolist() == [4, 4, 4]
        assert not episodes["terminations"].any()
        assert episodes["truncations"].tolist() == [False, False, False, True] * 3

    def test_every_episode_ends_in_exactly_one_flag(self, rollouts):
        ends = rollouts["terminations"] | rollouts["truncations"]
        assert not (rollouts["terminations"] & rollouts["truncations"]).any()
        np.testing.assert_array_equal(np.flatnonzero(ends), rollouts.starts[1:] - 1)

    def test_same_seed_same_bytes_other_seed_other_bytes(self, environment):
        actor = RandomActor(environment.spec.action)
        first, again, other = (
            rollout(environment, actor, episodes=3, seed=seed, max_steps=50) for seed in (SEED, SEED, SEED + 1)
        )
        for name in ("observations", "next_observations", "actions", "rewards"):
            np.testing.assert_array_equal(first[name], again[name])
        assert not np.array_equal(first.final_observations, other.final_observations)

    def test_lanes_do_not_change_what_a_deterministic_actor_meets(self, environment):
        actor = WavyActor(environment.spec)
        one, three, eight = (
            rollout(environment, actor, episodes=8, seed=SEED, lanes=lanes, max_steps=60) for lanes in (1, 3, 8)
        )
        for other in (three, eight):
            np.testing.assert_array_equal(one.starts, other.starts)
            np.testing.assert_array_equal(one["next_observations"], other["next_observations"])
            np.testing.assert_array_equal(one["rewards"], other["rewards"])

    def test_tasks_do_not_depend_on_their_order_or_process(self, environment):
        def task(model, number):
            actor = RandomActor(model.spec.action)
            return rollout(model, actor, episodes=2, seed=SEED, address=(number,), max_steps=40)

        together = [task(environment, number) for number in (0, 1)]
        apart = [task(envs.make(environment.spec.name), number) for number in (1, 0)][::-1]
        for a, b in zip(together, apart, strict=True):
            np.testing.assert_array_equal(a["next_observations"], b["next_observations"])
        assert not np.array_equal(together[0]["observations"][0], together[1]["observations"][0])

    def test_actions_are_clipped_into_their_bounds_and_recorded_so(self, environment, rollouts):
        low, high = np.float32(environment.spec.action.low), np.float32(environment.spec.action.high)
        wild = rollout(environment, WavyActor(environment.spec, gain=10), episodes=2, seed=SEED, max_steps=40)
        for episodes in (rollouts, wild):
            assert np.all(episodes["actions"] >= low)
            assert np.all(episodes["actions"] <= high)
        assert np.any(np.abs(wild["actions"]) == high)

    def test_columns_have_the_dtypes_of_their_fields(self, environment, rollouts):
        rows = rollouts.transitions()
        for field in (*dataset_fields(environment.spec), *environment.spec.infos):
            assert rows[field.name].dtype == field.dtype
            assert rows[field.name].shape[1:] == field.shape

    def test_resettable_needs_finite_values_off_the_clip(self, environment, recording):
        rows = recording[0][:1].repeat(3, axis=0)
        rows[1, 0], rows[2, -1] = np.nan, -np.inf
        assert environment.resettable(rows)[1:].tolist() == [False, False]
        for component, limit in enumerate(environment.spec.observation_clip or ()):
            row = np.zeros((1, environment.spec.observation_size))
            inside = [environment.resettable(row)[0], environment.resettable(row, row)[0]]
            row[0, component] = -CLIP_MARGIN * (limit or 1e6)
            at_clip = [environment.resettable(row)[0], environment.resettable(np.zeros_like(row), row)[0]]
            assert inside == [True, True]
            assert at_clip == [limit is None] * 2

    @pytest.mark.parametrize("damage", ["nan", "inf", "width", "flat", "text", "rows"])
    def test_bad_rows_give_the_error_form(self, environment, damage):
        spec, rng = environment.spec, np.random.default_rng(0)
        observations, actions = np.zeros((4, spec.observation_size)), np.zeros((4, spec.action_size))
        match damage:
            case "nan":
                observations[2, 0] = np.nan
            case "inf":
                actions[1, 0] = np.inf
            case "width":
                observations = observations[:, 1:]
            case "flat":
                observations = observations[0]
            case "text":
                observations = observations.astype(str)
            case "rows":
                actions = actions[:3]
        with pytest.raises(EnvironmentModelError, match=spec.name) as caught:
            environment.step(observations, actions, rng)
        assert caught.value.found is not None
        if damage not in ("inf", "rows"):
            with pytest.raises(EnvironmentModelError, match=spec.name):
                environment.terminated(observations)

    def test_positions_follow_their_velocities(self, environment, rollouts):
        before, after = rollouts["observations"], rollouts["next_observations"]
        keep = environment.resettable(before, after)
        for pair in environment.spec.kinematics:
            p, v = pair.position, pair.velocity
            moved = (after[:, p] - before[:, p])[keep]
            predicted = environment.spec.dt * 0.5 * (before[:, v] + after[:, v])[keep]
            assert np.median(np.abs(moved - predicted)) < self.kinematic_tolerance * np.median(np.abs(moved))

    def test_provenance_is_plain_and_names_versions(self, environment):
        provenance = environment.provenance()
        assert json.loads(json.dumps(provenance)) == provenance
        assert provenance["environment"] == environment.spec.name
        assert provenance["packages"]["numpy"] == np.__version__


class KernelTests:
    """What every environment with a closed-form, stochastic kernel must do besides."""

    @pytest.fixture(scope="class")
    @classmethod
    def environment(cls) -> EnvironmentModel:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def points(cls, environment):
        """A few states and actions, all different."""
        rng = np.random.default_rng(SEED)
        observations = rng.standard_normal((4, environment.spec.observation_size))
        return observations, rng.uniform(-1, 1, (4, environment.spec.action_size))

    @staticmethod
    def draws(environment, points, number, count=40_000):
        observations, actions = (np.repeat(array[number : number + 1], count, axis=0) for array in points)
        return environment.step(observations, actions, np.random.default_rng(number)).next_observations

    def test_draws_have_the_closed_form_moments(self, environment, points):
        means, covariances = environment.mean_and_covariance(*points)
        for number, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
            draws = self.draws(environment, points, number)
            deviation = np.sqrt(np.diag(covariance))
            assert np.all(np.abs(draws.mean(axis=0) - mean) < 5 * deviation / np.sqrt(len(draws)))
            error = (np.cov(draws.T) - covariance) / np.outer(deviation, deviation)
            # Sampling error of a covariance from n draws is about sqrt(kurtosis / n); rare modes have a large one.
            kurtosis = np.mean(((draws - mean) / deviation) ** 4)
            assert np.max(np.abs(error)) < 5 * np.sqrt(max(kurtosis, 3) / len(draws))

    def test_log_prob_integrates_to_one(self, environment, points):
        """For draws x of the kernel p and any density q inside its support, the mean of q(x) / p(x) is 1."""
        for number in range(len(points[0])):
            draws = self.draws(environment, points, number)
            rows = [np.repeat(array[number : number + 1], len(draws), axis=0) for array in points]
            log_p = environment.log_prob(*rows, draws)
            bulk = draws[np.argmax(log_p)]
            rare = draws[np.argmax(np.linalg.norm(draws - bulk, axis=1))]
            for place, share in ((bulk, 0.5), (rare, 0.005)):
                order = np.argsort(np.linalg.norm(draws - place, axis=1))
                near = draws[order[: int(share * len(draws))]]
                q = multivariate_normal(near.mean(axis=0), 0.5 * np.cov(near.T))
                ratio = np.exp(q.logpdf(draws) - log_p)
                standard_error = ratio.std() / np.sqrt(len(ratio))
                assert abs(ratio.mean() - 1) < 4 * standard_error
                assert standard_error < 0.2

    def test_log_prob_prefers_the_right_action(self, environment, points):
        observations, actions = points
        draws = np.concatenate([self.draws(environment, points, number, 500) for number in range(4)])
        right, wrong = (np.repeat(array, 500, axis=0) for array in (actions, actions[::-1]))
        states = np.repeat(observations, 500, axis=0)
        own, other = environment.log_prob(states, right, draws), environment.log_prob(states, wrong, draws)
        assert own.mean() > other.mean() + 0.1

    def test_same_generator_same_draws(self, environment, points):
        first, again = (environment.step(*points, np.random.default_rng(7)).next_observations for _ in range(2))
        other = environment.step(*points, np.random.default_rng(8)).next_observations
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_a_step_without_noise_is_refused(self, environment, points):
        with pytest.raises(EnvironmentModelError, match="rng"):
            environment.step(*points)
