"""Scores: every reward counts once, references are those of the environment, and nothing is selected."""

import json
import math

import numpy as np
import pytest

from synth_pipeline import envs
from synth_pipeline.data.fields import Field
from synth_pipeline.envs.base import EnvironmentModel, EnvironmentSpec, Outcome, box
from synth_pipeline.errors import (
    ConfigError,
    EnvironmentModelError,
    SourceError,
    TrainingDivergedError,
    UnknownNameError,
)
from synth_pipeline.evaluation.scores import (
    Evaluation,
    evaluate_actor,
    evaluation_steps,
    final_score,
    score_scale,
)
from synth_pipeline.sources import catalog

HORIZON = 5


class ScriptedLanes:
    """Episode e ends by itself after `lengths[e]` steps; its last step pays 7, a step too many 1000."""

    def __init__(self, lengths, solved_at):
        self.script, self.solved_at, self.started = lengths, solved_at, 0
        self.lengths, self.steps = {}, {}

    def reset(self, lane, seed):
        self.lengths[lane], self.steps[lane] = self.script[self.started], 0
        self.started += 1
        return np.zeros(1)

    def step(self, active, actions):
        for lane in active:
            self.steps[lane] += 1
        steps = np.array([self.steps[lane] for lane in active])
        lengths = np.array([self.lengths[lane] for lane in active])
        last = np.minimum(lengths, HORIZON)
        rewards = np.where(steps == last, 7.0, 0.0) + np.where(steps > last, 1000.0, 0.0)
        infos = {} if self.solved_at is None else {"success": steps == self.solved_at}
        return Outcome(np.zeros((len(active), 1)), rewards, steps == lengths, infos)


class Scripted(EnvironmentModel):
    def __init__(self, lengths, solved_at=None):
        infos = () if solved_at is None else (Field(name="success", kind="binary"),)
        names = {"name": "scripted", "family": "test", "observation_size": 1, "action": box(1)}
        self.spec = EnvironmentSpec(**names, horizon=HORIZON, dt=1.0, infos=infos)
        self._script = (lengths, solved_at)

    def bare(self):
        raise NotImplementedError

    def lanes(self, count):
        return ScriptedLanes(*self._script)

    def _step(self, observations, actions, rng):
        raise NotImplementedError


class Constant:
    def __init__(self, value, size=1):
        self.value, self.size = value, size

    def reset(self, n):
        pass

    def act(self, observations, rng):
        return np.full((len(observations), self.size), self.value, np.float32)

    def observe(self, rewards, costs, infos):
        pass


def evaluation(mean, environment="hopper", horizon=1000):
    returns = np.array([mean - 1.0, mean + 1.0])
    return Evaluation(environment, horizon, returns, np.array([3, 5]), np.array([True, False]))


@pytest.mark.parametrize("lanes", [1, 2, 3, 16])
def test_the_last_reward_counts_and_nothing_after_the_end_does(lanes):
    """One episode terminates, two are cut by the time limit."""
    found = evaluate_actor(Scripted([3, 99, 99]), Constant(0.0), episodes=3, seed=0, lanes=lanes)
    assert found.returns.tolist() == [7, 7, 7]
    assert found.lengths.tolist() == [3, 5, 5]
    assert found.terminations.tolist() == [True, False, False]
    assert found.mean == 7
    assert found.success is None


def test_an_episode_is_solved_when_it_was_at_any_step():
    found = evaluate_actor(Scripted([1, 2, 4], solved_at=2), Constant(0.0), episodes=3, seed=0)
    assert found.success.tolist() == [False, True, True]
    assert json.loads(json.dumps(found.plain()))["success"] == [False, True, True]


def test_actors_are_compared_from_the_same_states():
    environment = envs.make("toy-point-mass")
    place = {"episodes": 4, "seed": 1, "address": (3, 200)}
    first, again = (evaluate_actor(environment, Constant(0.0, 2), **place).returns for _ in range(2))
    np.testing.assert_array_equal(first, again)
    for other in ({"seed": 2}, {"address": (3, 400)}):
        assert not np.array_equal(first, evaluate_actor(environment, Constant(0.0, 2), **{**place, **other}).returns)


def test_an_actor_that_gives_nan_has_diverged():
    with pytest.raises(TrainingDivergedError, match="not finite"):
        evaluate_actor(Scripted([3]), Constant(math.nan), episodes=1, seed=0)


def test_an_actor_that_gives_the_wrong_shape_is_a_mistake():
    with pytest.raises(EnvironmentModelError, match="cannot be used"):
        evaluate_actor(Scripted([3]), Constant(0.0, 2), episodes=1, seed=0)


def test_scores_are_read_between_random_and_the_best_policy_beside_the_raw_return():
    scale = score_scale("hopper", 1000)
    references = catalog.get("hopper/medium").references
    assert scale.score(evaluation(references.random.mean)).normalized == pytest.approx(0)
    assert scale.score(evaluation(references.best.mean)).normalized == pytest.approx(100)
    middle = scale.score(evaluation((references.random.mean + references.best.mean) / 2))
    assert middle.normalized == pytest.approx(50)
    assert middle.raw == pytest.approx((references.random.mean + references.best.mean) / 2)
    assert middle.d4rl == pytest.approx(100 * (middle.raw + 20.272305) / (3234.3 + 20.272305), abs=0.05)
    assert middle.d4rl_label == "D4RL's constants of hopper-*-v2"
    assert json.loads(json.dumps(middle.plain()))["random"] == references.random.mean


def test_constants_of_d4rl_are_left_out_where_returns_mean_something_else():
    score = score_scale("pointmaze-umaze", 300).score(evaluation(0.5, "pointmaze-umaze", 300))
    assert (score.d4rl, score.d4rl_label) == (None, None)
    assert 0 < score.normalized < 100


@pytest.mark.parametrize(
    ("environment", "horizon", "error", "words"),
    [
        ("hopper", 200, EnvironmentModelError, "1000 steps"),
        ("hoper", 1000, UnknownNameError, "did you mean 'hopper'"),
        ("toy-linear-gaussian", 100, EnvironmentModelError, "no upper reference"),
    ],
)
def test_returns_without_references_are_not_normalised(environment, horizon, error, words):
    with pytest.raises(error, match=words):
        score_scale(environment, horizon)


@pytest.mark.parametrize("other", [evaluation(1.0, "hopper", 200), evaluation(1.0, "walker2d", 1000)])
def test_a_scale_refuses_evaluations_of_another_kind(other):
    with pytest.raises(EnvironmentModelError, match="their own environment and time limit"):
        score_scale("hopper", 1000).score(other)


def test_the_evaluations_are_the_last_five_and_fixed_beforehand():
    assert evaluation_steps(1_000_000) == (920_000, 940_000, 960_000, 980_000, 1_000_000)
    assert evaluation_steps(100, count=3, spacing=40) == (20, 60, 100)
    assert evaluation_steps(7, count=1) == (7,)
    assert evaluation_steps(5) == (1, 2, 3, 4, 5)
    for impossible in ({"total": 4}, {"total": 100, "spacing": 25}, {"total": 10, "count": 0}):
        with pytest.raises(ConfigError, match="too short"):
            evaluation_steps(**impossible)


def test_the_best_evaluation_has_no_part_in_the_final_score():
    steps = evaluation_steps(100, count=5, spacing=10)
    scores = {10: 500.0, 50: 90.0, **dict(zip(steps, [10.0, 20.0, 30.0, 20.0, 0.0], strict=True))}
    assert final_score(scores, steps) == 16
    assert final_score({**scores, 10: -1e9}, steps) == 16


@pytest.mark.parametrize("scores", [{80: 1.0, 90: 1.0}, {80: 1.0, 90: 1.0, 100: math.nan}])
def test_a_final_score_of_missing_or_failed_evaluations_is_refused(scores):
    with pytest.raises(SourceError, match="step 100"):
        final_score(scores, (80, 90, 100))
