"""Errors of dynamics and rewards against hand-computed values; real rows of a simulator pass, wrong ones do not."""

import json
import re

import numpy as np
import pytest
from toy_data import SPEC
from worlds import linear_gaussian, roll

from synth_pipeline import envs
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.envs.toys import BimodalSlip, Heteroscedastic, Jumps
from synth_pipeline.validation.oracle import (
    METRICS,
    REPLAY_TOLERANCE,
    calibration,
    clipped_share,
    difference_scale,
    dynamics,
    hold_against,
    judge_sample,
    ks_uniform,
    top_bias,
)
from synth_pipeline.validation.terminations import terminations
from synth_pipeline.validation.truth import Answer, Truth, truth_of


def rows(before, after, rewards=None):
    before, after = np.array(before, float), np.array(after, float)
    rewards = np.zeros(len(before)) if rewards is None else np.array(rewards, float)
    columns = {"observations": before, "actions": np.zeros((len(before), 1)), "rewards": rewards}
    return Transitions({**columns, "next_observations": after})


def still(observations, actions):
    """Nothing moves, the reward is 1."""
    judged = np.isfinite(observations).all(axis=1)
    return Answer(observations, np.ones(len(observations)), judged, "still")


def by_name(measurements):
    return {m.metric: m for m in measurements}


def measured(real, synthetic, truth, **options):
    return by_name(dynamics(real, judge_sample(real, synthetic, truth), **options))


def test_scale_is_the_variance_of_the_step():
    table = rows([[0, 5], [1, 5], [2, 7], [3, 7]], [[1, 5], [1, 5], [3, 7], [3, 7]])
    # steps of the first component: 1, 0, 1, 0; the second never moves, its own values have variance 1
    assert difference_scale(table, Truth()).tolist() == [0.25, 1.0]


def test_scale_leaves_out_clipped_rows_and_constants():
    table = rows([[0, 1], [1, 1], [10, 1]], [[2, 1], [1, 1], [0, 1]])
    scale = difference_scale(table, Truth(clip=np.array([10.0, np.inf])))
    assert scale[0] == 1.0
    assert np.isnan(scale[1])
    nothing = difference_scale(table, Truth(clip=np.array([0.1, 0.1])))
    assert np.isnan(nothing).all()


def test_errors_by_hand():
    table = rows([[0, 0], [0, 0], [np.nan, 0], [0, 0]], [[1, 2], [0, 0], [0, 0], [np.inf, 0]], [1, 3, 1, 1])
    side = hold_against(table, np.array([0, 1, 2, 3]), still, np.array([0.25, 2.0]), Truth())
    assert side.judged.tolist() == [True, True, False, False]
    np.testing.assert_allclose(side.scaled[:2], [[2, 2**0.5], [0, 0]])
    np.testing.assert_allclose(side.errors, [3, 0, np.nan, np.nan])
    np.testing.assert_allclose(side.reward_errors, [0, 2, np.nan, np.nan])


def test_a_constant_component_is_left_out_and_the_others_keep_their_names():
    real = Dataset(SPEC, rows=rows([[0, 1, 0], [0, 1, 0]], [[1, 1, 0], [-1, 1, 2]], [0, 2]))
    found = measured(real, rows([[0, 1, 0]], [[2, 7, 1]], [1]), Truth(oracle=still))
    assert found["oracle.mean"].details["columns"] == {"next_observations[0]": 4.0, "next_observations[2]": 1.0}
    assert found["oracle.mean"].value == 2.5


def test_generated_rows_are_clipped_as_observations_are():
    side = hold_against(
        rows([[9.0]], [[14.0]]), np.array([0]), still, np.array([1.0]), Truth(oracle=still, clip=np.array([10.0]))
    )
    assert side.errors.tolist() == [1.0]


def test_summaries_and_rewards_by_hand():
    real = Dataset(SPEC, rows=rows([[0]] * 4, [[1], [-1], [1], [-1]], [0, 2, 0, 2]))  # Var(s' - s) = 1, sd of r = 1
    after, rewards = np.arange(101.0)[:, None] ** 0.5, np.linspace(0, 2, 101)
    found = measured(real, rows(np.zeros((101, 1)), after, rewards), Truth(oracle=still), learned_floor={"mean": 0.5})
    values = {name.removeprefix("oracle."): m.value for name, m in found.items()}
    errors = np.arange(101.0)
    assert values["mean"] == pytest.approx(errors.mean())
    assert values["median"] == pytest.approx(50)
    assert (values["p95"], values["p99"]) == (pytest.approx(95), pytest.approx(99))
    assert values["reward_error"] == pytest.approx(np.abs(rewards - 1).mean())
    assert values["reward_bias"] == pytest.approx(0, abs=1e-12)
    assert values["reward_bias_top5"] == pytest.approx(np.mean(rewards[-6:] - 1))
    assert found["oracle.mean"].details["learned_floor"] == 0.5
    assert found["oracle.mean"].details["judged share"] == 1.0


def test_top_bias_shares_ties():
    rewards, errors = np.array([5.0] + [1.0] * 39), np.array([2.0] + [0.0, 4.0] * 19 + [0.0])
    # two places: the 5, and one for the 39 that tie, whose errors average 76 / 39
    assert top_bias(rewards, errors) == pytest.approx((2 + 76 / 39) / 2)
    assert top_bias(rewards[::-1], errors[::-1]) == pytest.approx((2 + 76 / 39) / 2)


def test_without_oracle_nothing_is_decidable():
    real = Dataset(SPEC, rows=rows([[0]], [[1]], [1]))
    truth, spoilt = Truth(oracle=still), rows([[np.nan]], [[1]], [1])
    for found in (measured(real, spoilt, Truth()), measured(real, spoilt, truth)):
        assert {m.value for m in found.values()} == {None}
        assert all(m.details["why"] for m in found.values())
        json.dumps([m.to_json() for m in found.values()], allow_nan=False)
    (share,) = clipped_share(real, spoilt, Truth())
    (pit,) = calibration(real, spoilt, None)
    assert share.value is None
    assert pit.value is None
    assert {*found, share.metric, pit.metric} == set(METRICS)


def test_real_rows_that_are_all_at_the_clip_have_no_scale():
    real = Dataset(SPEC, rows=rows([[10.0], [10.0]], [[10.0], [10.0]], [0, 1]))
    found = measured(real, rows([[0]], [[1]], [1]), Truth(oracle=still, clip=np.array([10.0])))
    assert {m.value for m in found.values()} == {None}


def test_equal_rewards_have_no_scale():
    real = Dataset(SPEC, rows=rows([[0], [0]], [[1], [2]], [1, 1]))
    found = measured(real, rows([[0]], [[1]], [1]), Truth(oracle=still))
    assert found["oracle.reward_bias"].value is None
    assert found["oracle.mean"].value is not None


def test_clipped_share_by_hand():
    truth = Truth(clip=np.array([10.0]))
    real = Dataset(SPEC, rows=rows([[0], [10], [0], [0]], [[0], [0], [-9.95], [0]]))  # 2 of 4
    (found,) = clipped_share(real, rows([[11.0], [0], [0], [0]], [[0]] * 4), truth)
    assert found.value == 0.5
    none = Dataset(SPEC, rows=rows([[0]], [[0]]))
    assert clipped_share(none, rows([[11.0]], [[0]]), truth)[0].value is None


# --- simulators -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hopper():
    return roll("hopper", episodes=8, steps=60), roll("hopper", episodes=8, steps=60, seed=1).transitions()


def test_fresh_rows_of_a_simulator_pass_at_float_precision(hopper):
    real, fresh = hopper
    found = measured(real, fresh, truth_of(envs.make("hopper")))
    assert found["oracle.p99"].value < 1e-8
    assert found["oracle.reward_error"].value < 1e-5
    assert found["oracle.mean"].floor.worst95 < 1e-8
    assert found["oracle.mean"].details["judged share"] > 0.5


@pytest.mark.parametrize("name", ["halfcheetah", "pointmaze-umaze", "toy-point-mass"])
def test_fresh_rows_of_other_simulators_pass_too(name):
    real = roll(name, episodes=6, steps=50)
    fresh = roll(name, episodes=6, steps=50, seed=1).transitions()
    found = measured(real, fresh, truth_of(envs.make(name)))
    assert found["oracle.p95"].value < 1e-6
    assert found["oracle.mean"].details["judged share"] == 1.0
    assert found["oracle.mean"].floor.median < 1e-5


def test_a_wrong_goal_counts_though_goals_never_move():
    real = roll("pointmaze-umaze", episodes=6, steps=50)
    rows = real.transitions()
    moved = rows["next_observations"].copy()
    moved[:, 4] += 1.0
    found = measured(real, rows.with_columns(next_observations=moved), truth_of(envs.make("pointmaze-umaze")))
    assert found["oracle.mean"].value > 0.05
    assert max(found["oracle.mean"].details["columns"].items(), key=lambda item: item[1])[0] == "next_observations[4]"


def test_noise_on_the_next_state_is_measured_on_its_scale(hopper):
    real, fresh = hopper
    truth, rng = truth_of(envs.make("hopper")), np.random.default_rng(0)
    deviation = np.sqrt(difference_scale(real.transitions(), truth))
    noisy = fresh["next_observations"] + 0.1 * deviation * rng.standard_normal(fresh["observations"].shape)
    found = measured(real, fresh.with_columns(next_observations=noisy), truth)
    assert found["oracle.mean"].value == pytest.approx(0.01, rel=0.15)
    assert max(found["oracle.mean"].details["columns"].values()) < 0.02


def test_shuffled_actions_and_rosy_rewards_are_noticed(hopper):
    real, fresh = hopper
    truth = truth_of(envs.make("hopper"))
    shuffled = fresh.with_columns(actions=fresh["actions"][np.random.default_rng(0).permutation(len(fresh))])
    assert measured(real, shuffled, truth)["oracle.mean"].value > 0.05
    found = measured(real, fresh.with_columns(rewards=fresh["rewards"] * 1.1), truth)
    deviation = real.transitions()["rewards"].std()
    judged = judge_sample(real, fresh, truth)[0].judged
    assert found["oracle.reward_bias"].value == pytest.approx(
        0.1 * fresh["rewards"][judged].mean() / deviation, rel=1e-3
    )
    assert found["oracle.reward_bias_top5"].value > 0


# --- kernels ----------------------------------------------------------------------------------------------------------


def test_ks_by_hand():
    levels = np.array([[0.1, 0.5], [0.6, 0.5], [0.7, 0.5]])
    # first column: the empirical CDF jumps to 1/3, 2/3, 1 there; the largest gap is just before 0.6
    np.testing.assert_allclose(ks_uniform(levels), [1.0 - 0.7, 0.5])
    assert np.isnan(ks_uniform(np.zeros((0, 2)))).all()


@pytest.mark.parametrize("kind", [BimodalSlip, Heteroscedastic, Jumps])
def test_draws_of_the_kernel_pass_and_its_mean_fails(kind):
    toy = kind()
    real = roll(toy.spec.name, episodes=40, steps=100)
    fresh = roll(toy.spec.name, episodes=40, steps=100, seed=1).transitions()
    (passed,) = calibration(real, fresh, toy.conditional_cdf)
    assert passed.value < 0.04
    assert passed.floor.median < 0.05
    mean, _ = toy.mean_and_covariance(fresh["observations"], fresh["actions"])
    (failed,) = calibration(real, fresh.with_columns(next_observations=mean), toy.conditional_cdf)
    assert failed.value > 0.15
    assert failed.value > 4 * passed.value


def test_noise_of_the_wrong_size_or_shape_fails():
    real, toy = linear_gaussian(), envs.make("toy-linear-gaussian")
    fresh = linear_gaussian(seed=1).transitions()
    mean, _ = toy.mean_and_covariance(fresh["observations"], fresh["actions"])
    right = calibration(real, fresh, toy.conditional_cdf)[0].value
    rng = np.random.default_rng(0)
    uncorrelated = mean + rng.standard_normal(mean.shape) * np.sqrt(np.diag(toy.L @ toy.L.T))
    wide = mean + 1.3 * (fresh["next_observations"] - mean)
    for after in (uncorrelated, wide):
        assert calibration(real, fresh.with_columns(next_observations=after), toy.conditional_cdf)[0].value > 2 * right


def test_rows_that_are_not_finite_are_left_out_of_the_calibration():
    real, toy = linear_gaussian(), envs.make("toy-linear-gaussian")
    after = real.transitions()["next_observations"].copy()
    after[:10] = np.nan
    (found,) = calibration(real, real.transitions().with_columns(next_observations=after), toy.conditional_cdf)
    assert found.value < 0.05
    assert found.details["judged share"] == pytest.approx(1 - 10 / len(after))


# --- who may judge ----------------------------------------------------------------------------------------------------


def test_a_simulator_that_does_not_replay_the_real_rows_does_not_judge(hopper):
    real, fresh = hopper
    truth, heavier = truth_of(envs.make("hopper")), envs.make("hopper")
    heavier._simulator._model.opt.gravity[2] *= 1.2  # as if another version had recorded the rows
    pair = judge_sample(real, fresh, truth_of(heavier))
    found = by_name(dynamics(real, pair))
    assert {m.value for m in found.values()} == {None}
    for measurement in found.values():
        assert re.match(
            r"the simulator does not replay the real rows \(median error 0.00\d+,", measurement.details["why"]
        )
    ends = terminations(real, pair, truth.terminated)
    assert {m.value for m in ends} == {None}
    assert np.isnan(pair[0].errors).all()


@pytest.mark.parametrize(("shift", "judges"), [(0.5, True), (2.0, False)])
def test_the_tolerance_is_on_the_median_of_real_rows(hopper, shift, judges):
    """A shift by c standard deviations of the step costs c^2 / tolerance of what is accepted."""
    real, fresh = hopper
    truth, rows = truth_of(envs.make("hopper")), real.transitions()
    moved = shift * np.sqrt(REPLAY_TOLERANCE * difference_scale(rows, truth))
    shifted = Dataset(real.spec, rows=rows.with_columns(next_observations=rows["next_observations"] + moved))
    found = measured(shifted, fresh, truth)["oracle.mean"]
    assert (found.value is not None) == judges
    if judges:
        assert found.details["median error of real rows"] == pytest.approx(shift**2 * REPLAY_TOLERANCE, rel=0.01)


def test_generated_rows_do_not_decide_whether_the_simulator_judges(hopper):
    real, fresh = hopper
    wrong = fresh.with_columns(next_observations=fresh["next_observations"] + 1)
    assert measured(real, wrong, truth_of(envs.make("hopper")))["oracle.median"].value > 1


def test_bias_is_what_does_not_average_out():
    real = Dataset(SPEC, rows=rows([[0]] * 4, [[1], [-1], [1], [-1]], [0] * 4))  # Var(s' - s) = 1
    judge = Truth(oracle=still)
    spread = measured(real, rows([[0.0]] * 2, [[0.5], [-0.5]], [0, 0]), judge)
    shifted = measured(real, rows([[0.0]] * 2, [[0.75], [-0.25]], [0, 0]), judge)
    assert spread["oracle.bias"].value == pytest.approx(0.0)
    assert shifted["oracle.bias"].value == pytest.approx(0.25)
    assert spread["oracle.mean"].value == pytest.approx(0.25)


@pytest.mark.parametrize(("own", "decided"), [(0.26, False), (0.24, True)])
def test_a_learned_oracle_judges_beyond_twice_its_own_error(own, decided):
    real = Dataset(SPEC, rows=rows([[0]] * 4, [[1], [-1], [1], [-1]], [0, 2, 0, 2]))  # Var(s' - s) = 1, sd of r = 1
    names = ("mean", "p95", "p99", "median", "bias", "reward_error", "reward_bias", "reward_bias_top5")
    judge = Truth(oracle=lambda s, a: still(s, a)._replace(own_errors=dict.fromkeys(names, own)))
    found = measured(real, rows([[0.0]], [[0.5**0.5]], [0.5]), judge)  # error 0.5, reward too low by 0.5
    for name, value in zip(names, [0.5] * 4 + [0.5**0.5] + [0.5] + [-0.5] * 2, strict=True):
        if name == "bias":
            continue  # 0.71: beyond both
        measurement = found[f"oracle.{name}"]
        assert measurement.value == (pytest.approx(value) if decided else None)
        assert measurement.details["own error"] == own
        why = f"error {abs(value):.3g} is within twice the oracle's own error {own}: as good as it can see"
        assert measurement.details.get("why") == (None if decided else why)
        assert measurement.floor is None
