"""The two-fold oracle: its own error is that of rows it did not see, and it judges no finer than that."""

import json

import numpy as np
import pytest
from worlds import linear_gaussian, roll

from synth_pipeline import envs
from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.dynamics.regressor import RegressorConfig
from synth_pipeline.dynamics.twofold import learned_truth
from synth_pipeline.errors import SourceError
from synth_pipeline.validation.oracle import dynamics, judge_sample
from synth_pipeline.validation.terminations import terminations
from synth_pipeline.validation.truth import Truth, truth_of


def config(steps):
    trainer = RegressorConfig().trainer.replace(
        gradient_steps=steps, batch_size=128, warmup_steps=20, precision="float32", log_every=50
    )
    return RegressorConfig(members=2, width=32, depth=2, trainer=trainer)


def unknown(data):
    """The same rows, of which nobody knows the environment."""
    return Dataset(data.spec.replace(environment=None), data.episodes)


def measured(real, synthetic, truth):
    return {m.metric.removeprefix("oracle."): m for m in dynamics(real, judge_sample(real, synthetic, truth))}


@pytest.fixture(scope="module")
def real():
    return unknown(roll("pendulum", episodes=60, steps=50))


@pytest.fixture(scope="module")
def fresh():
    return roll("pendulum", episodes=20, steps=50, seed=1).transitions()


@pytest.fixture(scope="module")
def truth(real):
    return learned_truth(real, Truth(), seed=0, config=config(400))


def test_true_rows_are_as_good_as_it_can_see(real, fresh, truth):
    found = measured(real, fresh, truth)
    assert truth.oracle(fresh["observations"], fresh["actions"]).label.startswith("learned")
    for name, measurement in found.items():
        assert measurement.value is None, name
        assert measurement.floor is None
        own = measurement.details["own error"]
        assert own < 0.2
        assert f"within twice the oracle's own error {own:.3g}" in measurement.details["why"]
    json.dumps([m.to_json() for m in found.values()], allow_nan=False)


def test_rows_that_are_wrong_are_found_wrong(real, fresh, truth):
    rng = np.random.default_rng(0)
    shuffled = fresh.with_columns(actions=fresh["actions"][rng.permutation(len(fresh))])
    exact = truth_of(envs.make("pendulum"))
    for name in ("mean", "p95", "median"):
        learned, known = measured(real, shuffled, truth)[name], measured(real, shuffled, exact)[name]
        assert learned.value == pytest.approx(known.value, rel=0.2)
        assert learned.value > 2 * learned.details["own error"]
        assert learned.details["columns"]
    rosy = fresh.with_columns(rewards=fresh["rewards"] + fresh["rewards"].std())
    found = measured(real, rosy, truth)
    assert found["mean"].value is None
    for name in ("reward_error", "reward_bias", "reward_bias_top5"):
        assert found[name].value == pytest.approx(1, rel=0.2)
    gloomy = measured(real, fresh.with_columns(rewards=fresh["rewards"] - fresh["rewards"].std()), truth)
    assert gloomy["reward_bias"].value == pytest.approx(-1, rel=0.2)


def opposites(count=400):
    """Two episodes of which one moves by its action and the other against it: neither tells of the other."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (2 * count, 1)).astype(np.float32)
    direction = np.repeat([1, -1], count)[:, None]
    moved = (direction * actions).reshape(2, count, 1)
    states = np.concatenate([np.zeros((2, 1, 1)), moved.cumsum(axis=1)], axis=1).astype(np.float32)
    columns = {"actions": actions, "rewards": (direction * actions)[:, 0], "terminations": np.zeros(2 * count, bool)}
    starts = np.array([0, count, 2 * count])
    episodes = Episodes(states[:, :-1].reshape(-1, 1), states[:, -1], starts, columns)
    action = Field(name="actions", shape=(1,), low=(-1.0,), high=(1.0,), clip=True)
    return Dataset(DatasetSpec(dataset_id="toy/opposites", fields=transition_fields(1, action)), episodes)


def test_its_own_error_is_that_of_rows_it_did_not_see():
    """E[(2 a)^2] / E[a^2] = 4 across the episodes, where it would be 0 within them."""
    data = opposites()
    rows = data.transitions()
    answer = learned_truth(data, Truth(), seed=0, config=config(300)).oracle(rows["observations"], rows["actions"])
    own = answer.own_errors
    assert own["mean"] == pytest.approx(4, rel=0.25)
    assert own["reward_error"] == pytest.approx(2 * 0.5 / np.sqrt(1 / 3), rel=0.25)
    assert own["reward_bias_top5"] == pytest.approx(2 / np.sqrt(1 / 3), rel=0.25)
    moved = answer.next_observations - rows["observations"]  # the mean of both stands still
    assert np.mean(moved**2) < 0.1 * np.mean(rows["actions"] ** 2)


def test_its_own_error_is_the_noise_where_there_is_noise():
    data, toy = linear_gaussian(episodes=60, steps=50), envs.make("toy-linear-gaussian")
    truth = learned_truth(unknown(data), Truth(), seed=0, config=config(400))
    rows = data.transitions()
    own = truth.oracle(rows["observations"], rows["actions"]).own_errors
    moved = (rows["next_observations"] - rows["observations"]).astype(float)
    assert own["mean"] == pytest.approx(np.mean(np.diag(toy.L @ toy.L.T) / moved.var(axis=0)), rel=0.2)
    assert own["median"] < own["mean"] < own["p95"] < own["p99"]


def test_the_seed_alone_decides(real, fresh):
    answers = [learned_truth(real, Truth(), seed=seed, config=config(5)).oracle for seed in (0, 0, 1)]
    same, again, other = (ask(fresh["observations"], fresh["actions"]) for ask in answers)
    np.testing.assert_array_equal(same.next_observations, again.next_observations)
    assert same.own_errors == again.own_errors
    assert same.own_errors != other.own_errors


def test_progress_counts_both_halves(real):
    seen = []
    learned_truth(real, Truth(), seed=0, config=config(100), report=lambda *said: seen.append(said))
    assert [(step, total) for step, total, _ in seen] == [(50, 200), (100, 200), (150, 200), (200, 200)]
    assert "second_half.loss" in seen[-1][2]


def test_rows_that_are_not_finite_are_not_judged(fresh, truth):
    spoilt = fresh["actions"].copy()
    spoilt[3] = np.nan
    states = fresh["observations"].copy()
    states[4] = 3e38
    answer = truth.oracle(states, spoilt)
    assert np.flatnonzero(~answer.judged).tolist() == [3, 4]


def test_terminations_are_judged_where_their_function_is_known(real, fresh, truth):
    ended = np.asarray(fresh["next_observations"][:, 0] > 0.3)
    flagged = fresh.with_columns(terminations=ended)
    pair = judge_sample(real, flagged, truth)
    assert {m.value for m in terminations(real, pair, None)} == {None}
    recall, precision = terminations(real, pair, lambda states: states[:, 0] > 0.3)
    assert recall.value > 0.9
    assert precision.value > 0.9


def test_nothing_is_learned_where_it_is_known_or_cannot_be_checked(real, fresh):
    known = truth_of(envs.make("hopper"))
    stochastic = truth_of(envs.make("toy-jumps"))
    for truth in (known, stochastic):
        assert learned_truth(real, truth, seed=0) is truth
    one = Dataset(real.spec, real.episodes.take(np.array([0])))
    for few in (one, Dataset(real.spec, rows=real.transitions())):
        truth = learned_truth(few, Truth(), seed=0)
        assert truth == Truth()
        for measurement in measured(few, fresh, truth).values():
            assert measurement.value is None
            assert "learning one takes two episodes" in measurement.details["why"]


def classes(data, name):
    """The same episodes with classes in a column."""
    given = Field(name=name, kind="categorical", num_categories=3)
    fields = tuple(given if field.name == name else field for field in data.spec.fields)
    old = data.episodes
    columns = {**old.columns, **({name: np.arange(old.num_rows) % 3} if name in old.columns else {})}
    episodes = Episodes(old.observations, old.final_observations, old.starts, columns)
    return Dataset(data.spec.replace(fields=fields), episodes)


def test_actions_that_are_classes_are_learned_from(real):
    few = classes(real, "actions")
    rows = few.transitions()
    answer = learned_truth(few, Truth(), seed=0, config=config(5)).oracle(rows["observations"], rows["actions"])
    assert answer.judged.all()


def test_observations_that_are_classes_are_not_predicted(real):
    truth = Truth()
    assert learned_truth(classes(real, "observations"), truth, seed=0, config=config(5)) is truth


def test_rows_that_never_change_cannot_be_judged():
    data = opposites(20)
    still = Episodes(
        np.zeros_like(data.episodes.observations),
        np.zeros_like(data.episodes.final_observations),
        data.episodes.starts,
        data.episodes.columns,
    )
    with pytest.raises(SourceError, match="no real row can be judged"):
        learned_truth(Dataset(data.spec, still), Truth(), seed=0, config=config(2))
