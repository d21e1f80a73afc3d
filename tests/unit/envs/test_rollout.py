"""The rollout: alignment, whole episodes, targets, addresses, and what the actor sees."""

import gymnasium
import numpy as np
import pytest

from synth_pipeline import envs
from synth_pipeline.data.fields import Field
from synth_pipeline.envs.base import EnvironmentModel, EnvironmentSpec, Outcome, box
from synth_pipeline.envs.rollout import RandomActor, rollout, rollout_rows
from synth_pipeline.errors import EnvironmentModelError
from synth_pipeline.seeding import Stage, integer_seed


class CounterEnvironment(gymnasium.Env):
    """Counts steps from `100 * (seed mod 7)` and terminates after `1 + seed mod 7` steps."""

    def __init__(self, longest):
        self.longest = longest

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.length = 1 + seed % self.longest
        self.value = 100.0 * (self.length - 1)
        self.steps = 0
        return np.array([self.value]), {}

    def step(self, action):
        self.steps += 1
        return np.array([self.value + self.steps]), float(self.steps), self.steps == self.length, False, {}


class Counter(EnvironmentModel):
    """Episodes of 1 to `longest` steps, or up to the horizon."""

    def __init__(self, longest=7, horizon=1000):
        self.longest = longest
        self.spec = EnvironmentSpec(
            name="counter", family="test", observation_size=1, action=box(1), horizon=horizon, dt=1.0
        )

    def bare(self):
        return CounterEnvironment(self.longest)

    def _step(self, observations, actions, rng):
        raise NotImplementedError


class Watching:
    """Records everything that it is given."""

    def __init__(self):
        self.resets, self.observations, self.rewards, self.costs, self.infos = [], [], [], [], []

    def reset(self, n):
        self.resets.append(n)

    def act(self, observations, rng):
        self.observations.append(observations)
        return np.zeros((len(observations), 1), np.float32)

    def observe(self, rewards, costs, infos):
        self.rewards.append(rewards.copy())
        self.costs.append(costs)
        self.infos.append(infos)


def expected_lengths(count, seed=0, address=(), longest=7):
    return [1 + integer_seed(seed, Stage.COLLECT, *address, 0, episode) % longest for episode in range(count)]


@pytest.mark.parametrize("lanes", [1, 4, 100])
def test_rows_are_aligned_and_episodes_stand_in_order(lanes):
    episodes = rollout(Counter(), Watching(), episodes=10, seed=0, lanes=lanes)
    lengths = expected_lengths(10)
    assert episodes.lengths.tolist() == lengths
    for episode, length in enumerate(lengths):
        rows = slice(episodes.starts[episode], episodes.starts[episode + 1])
        first = 100.0 * (length - 1)
        np.testing.assert_array_equal(episodes["observations"][rows, 0], first + np.arange(length))
        np.testing.assert_array_equal(episodes["next_observations"][rows, 0], first + 1 + np.arange(length))
        np.testing.assert_array_equal(episodes["rewards"][rows], 1 + np.arange(length))
        assert episodes["terminations"][rows].tolist() == [False] * (length - 1) + [True]
    assert not episodes["truncations"].any()


def test_a_time_limit_truncates_unless_the_last_step_terminates():
    episodes = rollout(Counter(), Watching(), episodes=30, seed=0, max_steps=4)
    lengths = np.array(expected_lengths(30))
    last = episodes.starts[1:] - 1
    np.testing.assert_array_equal(episodes.lengths, np.minimum(lengths, 4))
    np.testing.assert_array_equal(episodes["terminations"][last], lengths <= 4)
    np.testing.assert_array_equal(episodes["truncations"][last], lengths > 4)


def test_max_steps_cannot_exceed_the_horizon():
    episodes = rollout(Counter(horizon=3), Watching(), episodes=20, seed=0, max_steps=50)
    assert episodes.lengths.max() == 3


def test_the_actor_sees_float32_lanes_of_its_batch_and_zero_rewards_in_finished_ones():
    actor = Watching()
    rollout(Counter(), actor, episodes=5, seed=0, lanes=3)
    lengths = expected_lengths(5)
    assert actor.resets == [3, 2]
    assert all(observations.dtype == np.float32 for observations in actor.observations)
    steps = max(lengths[:3])
    for step in range(steps):
        expected = [step + 1 if step < length else 0 for length in lengths[:3]]
        assert actor.rewards[step].tolist() == expected
        seen = [100 * (length - 1) + min(step, length) for length in lengths[:3]]
        assert actor.observations[step][:, 0].tolist() == seen
    assert len(actor.observations) == steps + max(lengths[3:])
    assert set(actor.costs) == {None}


def test_infos_reach_the_actor_and_the_columns():
    class Lanes:
        def reset(self, lane, seed):
            return np.zeros(1)

        def step(self, active, actions):
            even = active % 2 == 0
            return Outcome(np.zeros((len(active), 1)), np.ones(len(active)), even, {"success": even})

    counter, actor = Counter(horizon=2), Watching()
    counter.spec = counter.spec.replace(infos=(Field(name="success", kind="binary"),))
    counter.lanes = lambda count: Lanes()
    episodes = rollout(counter, actor, episodes=3, seed=0)
    assert episodes.lengths.tolist() == [1, 2, 1]
    assert episodes["success"].tolist() == [True, False, False, True]
    assert [info["success"].tolist() for info in actor.infos] == [[True, False, True], [False, False, False]]


def test_environment_seeds_belong_to_seed_stage_address_and_episode():
    there = rollout(Counter(), Watching(), episodes=4, seed=9, stage=Stage.EVALUATE, address=(5, 6))
    lengths = [1 + integer_seed(9, Stage.EVALUATE, 5, 6, 0, episode) % 7 for episode in range(4)]
    assert there.lengths.tolist() == lengths


@pytest.mark.parametrize("lanes", [1, 5, 16])
def test_rows_stop_with_the_first_episode_that_reaches_the_target(lanes):
    episodes = rollout_rows(Counter(horizon=7), Watching(), rows=60, capacity=100, seed=1, lanes=lanes)
    ends = np.cumsum(expected_lengths(100, seed=1))
    needed = int(np.searchsorted(ends, 60)) + 1
    assert len(episodes) == needed
    assert episodes.num_rows == ends[needed - 1] >= 60 > ends[needed - 2]


@pytest.mark.parametrize("seed", range(8))
def test_rows_never_exceed_the_capacity(seed):
    episodes = rollout_rows(Counter(horizon=7), Watching(), rows=20, capacity=20, seed=seed)
    ends = np.cumsum(expected_lengths(100, seed=seed))
    assert episodes.num_rows == max(end for end in ends if end <= 20)


def test_few_episodes_are_run_in_vain():
    actor = Watching()
    episodes = rollout_rows(Counter(longest=1, horizon=7), actor, rows=100, capacity=200, seed=0, lanes=16)
    assert len(episodes) == 100
    assert sum(actor.resets) == 100


def test_a_task_smaller_than_an_episode_is_refused():
    with pytest.raises(EnvironmentModelError, match="capacity") as caught:
        rollout_rows(envs.make("pendulum"), Watching(), rows=10, capacity=100, seed=0)
    assert "200" in caught.value.accepted


@pytest.mark.parametrize("counts", [{"episodes": 0}, {"episodes": 1, "lanes": 0}, {"episodes": 1, "max_steps": 0}])
def test_counts_below_one_are_refused(counts):
    with pytest.raises(EnvironmentModelError, match="below 1"):
        rollout(Counter(), Watching(), seed=0, **counts)
    with pytest.raises(EnvironmentModelError, match="rows below 1"):
        rollout_rows(Counter(), Watching(), rows=0, capacity=2000, seed=0)


@pytest.mark.parametrize("actions", [np.zeros((3, 2)), np.zeros(3), np.array([[0.0], [np.nan], [0.0]])])
def test_actions_that_cannot_be_used_are_refused(actions):
    actor = Watching()
    actor.act = lambda observations, rng: actions
    with pytest.raises(EnvironmentModelError, match="actions that cannot be used"):
        rollout(Counter(), actor, episodes=3, seed=0)


def test_random_actor_is_uniform_over_the_bounds():
    actor = RandomActor(Field(name="actions", shape=(2,), low=(-1.0, 0.0), high=(3.0, 0.5), clip=True))
    actions = actor.act(np.zeros((20_000, 4)), np.random.default_rng(0))
    assert actions.shape == (20_000, 2)
    assert np.all((actions >= [-1, 0]) & (actions <= [3, 0.5]))
    np.testing.assert_allclose(actions.mean(axis=0), [1, 0.25], atol=0.03)
    np.testing.assert_allclose(actions.var(axis=0), [16 / 12, 0.25 / 12], rtol=0.03)


def test_the_actors_noise_belongs_to_seed_stage_and_address():
    def actions(**place):
        return rollout(Counter(longest=1), RandomActor(box(1)), episodes=8, **place)["actions"]

    first = actions(seed=0, address=(1,))
    np.testing.assert_array_equal(first, actions(seed=0, address=(1,)))
    for place in ({"seed": 1, "address": (1,)}, {"seed": 0, "address": (2,)}, {"seed": 0, "address": ()}):
        assert not np.array_equal(first, actions(**place))
    assert not np.array_equal(first, actions(seed=0, address=(1,), stage=Stage.EVALUATE))
