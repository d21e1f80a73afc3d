"""Statistics of runs, against closed forms, other libraries, and what a sceptic would try."""

import math

import numpy as np
import pytest
import scipy.stats
from sklearn.isotonic import IsotonicRegression

from synth_pipeline.errors import ConfigError, SourceError
from synth_pipeline.evaluation import statistics
from synth_pipeline.evaluation.effective import Multiple, effective_multiplier, isotonic, multiplier_of, size_reaching
from synth_pipeline.evaluation.profiles import performance_profile
from synth_pipeline.evaluation.statistics import (
    Diverged,
    averaged,
    estimate,
    expanded_levels,
    interquartile_mean,
    mean,
    paired_difference,
    probability_of_improvement,
    sign_test,
)

BAD = Diverged(10, "mean |Q| of 'critics' is 1e9")


def rng(seed=0):
    return np.random.default_rng(seed)


def runs(*scores, task="a"):
    return {task: dict(enumerate(scores))}


# --- aggregates ------------------------------------------------------------------------------------------------------


def test_the_interquartile_mean_by_hand():
    assert interquartile_mean(np.arange(1.0, 9.0)) == 4.5
    assert interquartile_mean(np.array([8.0, 1, 7, 2, 6, 3, 5, 4])) == 4.5
    assert interquartile_mean(np.array([-1e9, 2.0, 3.0, 1e9])) == 2.5


def test_the_interquartile_mean_is_a_trimmed_mean():
    for count in range(1, 30):
        x = rng(count).normal(size=(3, count))
        np.testing.assert_allclose(interquartile_mean(x), scipy.stats.trim_mean(x, 0.25, axis=1))


def test_an_estimate_is_over_the_runs_of_all_tasks():
    found = estimate({**runs(*range(5)), **runs(*range(10, 15), task="b")}, mean)
    assert (found.value, found.runs, found.diverged, found.why) == (7, 10, 0, None)
    assert found.low < 7 < found.high


def test_runs_are_drawn_again_within_their_task():
    """Between tasks nothing varies: scores that differ only by task leave nothing to be unsure of."""
    found = estimate({**runs(*[1.0] * 5), **runs(*[100.0] * 5, task="b")}, mean)
    assert (found.low, found.high) == (50.5, 50.5)


@pytest.mark.parametrize("count", [5, 10])
def test_intervals_hold_the_truth_as_often_as_they_say(count, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 2_000)
    held, plain = 0, 0
    for repeat in range(400):
        x = rng(repeat).normal(size=count)
        found = paired_difference(runs(*x), runs(*[0.0] * count), seed=repeat)
        held += found.low <= 0 <= found.high
        low, high = np.quantile(statistics.weights(count, rng(repeat)) @ x, [0.025, 0.975])
        plain += low <= 0 <= high
    assert held / 400 > 0.9
    assert held / 400 < 0.98
    assert plain < held


def test_the_levels_are_those_of_student():
    low, high = expanded_levels([10])
    assert scipy.stats.norm.ppf(low) * math.sqrt(0.9) == pytest.approx(scipy.stats.t.ppf(0.025, 9))
    assert low + high == 1
    assert expanded_levels([10_000])[0] == pytest.approx(0.025, abs=1e-4)
    assert expanded_levels([5]) < expanded_levels([5, 5]) < expanded_levels([5, 5, 5])


def test_fewer_than_five_runs_are_points_with_a_reason():
    found = estimate(runs(1.0, 2.0, 3.0, 4.0))
    assert (found.value, found.low, found.high) == (2.5, None, None)
    assert found.why == "4 runs of 'a'; an interval needs 5"
    assert estimate(runs(1.0, 2.0, task="")).why == "2 runs; an interval needs 5"
    assert estimate({**runs(*range(9)), **runs(1, 2, task="b")}).why.startswith("2 runs of 'b'")
    difference = paired_difference(runs(2.0, 3.0), runs(1.0, 1.0))
    assert (difference.value, difference.low, difference.verdict) == (1.5, None, None)
    assert probability_of_improvement(runs(2.0, 3.0), runs(1.0, 1.0)).why is not None


def test_diverged_runs_are_counted_and_never_averaged():
    found = estimate(runs(1.0, 2.0, 3.0, BAD, 4.0, 5.0), mean)
    assert (found.value, found.runs, found.diverged) == (3, 5, 1)
    found = estimate({**runs(1.0, 2.0), **runs(BAD, BAD, task="b")})
    assert (found.value, found.low, found.diverged) == (None, None, 2)
    assert found.why == "no run of 'b' is left"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_is_refused(bad):
    for call in (estimate, lambda x: paired_difference(x, x), lambda x: probability_of_improvement(x, x)):
        with pytest.raises(SourceError, match="run 1 of 'a' has a score that is not finite"):
            call(runs(1.0, bad))
    with pytest.raises(SourceError, match="no runs"):
        estimate({"a": {}})


def test_intervals_are_functions_of_the_seed():
    x = runs(*rng().normal(size=8))
    assert estimate(x, seed=1) == estimate(x, seed=1)
    assert estimate(x, mean, seed=1).low != estimate(x, mean, seed=2).low


def test_runs_on_one_draw_of_the_data_can_be_taken_as_one():
    outcomes = {(0, 0): 1.0, (0, 1): 3.0, (1, 0): 5.0, (1, 1): BAD, (2, 0): 7.0}
    assert averaged(outcomes, lambda run: run[0]) == {0: 2.0, 1: BAD, 2: 7.0}


# --- two arms --------------------------------------------------------------------------------------------------------


def test_pairs_see_what_the_spread_between_seeds_hides():
    seeds = 100 * rng().normal(size=10)
    ours, theirs = runs(*(seeds + 2 + 0.5 * rng(1).normal(size=10))), runs(*seeds)
    found = paired_difference(ours, theirs)
    alone = estimate(ours, mean)
    assert found.verdict == "better"
    assert 1 < found.low < found.value < found.high < 3
    assert found.high - found.low < 0.05 * (alone.high - alone.low)
    assert (found.pairs, found.wins, found.losses) == (10, 10, 0)


def test_the_difference_turns_its_sign_with_the_arms():
    ours, theirs = (runs(*rng(seed).normal(size=7)) for seed in (0, 1))
    one, other = paired_difference(ours, theirs), paired_difference(theirs, ours)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert (one.wins, one.losses, one.sign_p) == (other.losses, other.wins, other.sign_p)


def test_verdicts_follow_from_the_interval_alone():
    zero = runs(*[0.0] * 6)
    assert paired_difference(runs(1, 2, 1, 2, 1, 2), zero).verdict == "better"
    assert paired_difference(runs(-1, -2, -1, -2, -1, -2), zero).verdict == "worse"
    assert paired_difference(runs(-1, 2, -1, 2, -1, 2), zero).verdict == "undecided"
    assert paired_difference(zero, zero).verdict == "undecided"


def test_runs_are_paired_by_name_and_not_by_place():
    ours = {"a": {seed: float(seed) + 1 for seed in range(6)}}
    theirs = {"a": {seed: float(seed) for seed in reversed(range(6))}}
    found = paired_difference(ours, theirs)
    assert (found.low, found.high) == pytest.approx((1, 1))


def test_a_pair_with_a_diverged_run_is_left_out_whole():
    ours, theirs = runs(1.0, BAD, 3.0, 4.0, 5.0, 100.0, 7.0), runs(0.0, 0.0, 0.0, 0.0, 0.0, BAD, 0.0)
    found = paired_difference(ours, theirs)
    assert (found.value, found.pairs, found.diverged) == (4, 5, (1, 1))
    assert found.plain()["diverged"] == [1, 1]
    assert paired_difference(runs(BAD), runs(1.0)).value is None


LONE = (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ((2.0,) * 5, (*LONE, BAD, BAD), "outlasts"),
        ((2.0,) * 5, (*LONE, 2.5, BAD), None),
        ((2.0,) * 4, (*LONE, BAD), None),
        ((*LONE, BAD, BAD), (2.0,) * 5, "outlasted"),
        ((BAD,) * 5, (2.0,) * 5, "outlasted"),
        ((*LONE, 2.5, BAD), (2.0,) * 5, None),
        ((BAD,) * 5, (BAD,) * 5, None),
        ((3.0, 3.1, 3.2, 3.3, 3.4, BAD), (2.0,) * 6, "undecided"),
        ((3.0, 3.1, 3.2, 3.3, 3.4, BAD), (*(2.0,) * 5, BAD), "better"),
        ((1.0, 1.1, 1.2, 1.3, 1.4, 2.5), (*(2.0,) * 5, BAD), "worse"),
    ],
)
def test_what_diverged_has_a_part_in_the_verdict(ours, theirs, verdict):
    """Runs that are left say nothing for an arm that lost more of them, and none may be left to say anything."""
    assert paired_difference(runs(*ours), runs(*theirs)).verdict == verdict


def test_arms_on_other_runs_or_tasks_are_refused():
    with pytest.raises(SourceError, match="same runs of 'a'") as error:
        paired_difference(runs(1.0, 2.0, 3.0), runs(1.0, 2.0))
    assert "in one arm only: 2" in str(error.value)
    for compare in (paired_difference, probability_of_improvement):
        with pytest.raises(SourceError, match="same tasks"):
            compare(runs(1.0), runs(1.0, task="b"))


def test_every_task_weighs_the_same():
    ours = {"a": dict.fromkeys(range(5), 1.0), "b": dict.fromkeys(range(20), 3.0)}
    found = paired_difference(ours, {task: dict.fromkeys(of, 0.0) for task, of in ours.items()})
    assert found.value == 2


@pytest.mark.parametrize("split", [(5, 0), (0, 5), (0, 0), (8, 2), (3, 3), (12, 4)])
def test_the_sign_test_is_exact(split):
    expected = scipy.stats.binomtest(split[0], sum(split)).pvalue if sum(split) else 1.0
    assert sign_test(*split) == pytest.approx(expected)


def test_the_probability_of_improvement_by_hand_and_as_a_rank_statistic():
    assert probability_of_improvement(runs(1.0, 3.0), runs(1.0, 2.0)).value == (0.5 + 0 + 1 + 1) / 4
    x, y = rng().normal(size=9), rng(1).normal(0.5, size=12)
    found = probability_of_improvement(runs(*x), runs(*y))
    assert found.value == pytest.approx(scipy.stats.mannwhitneyu(x, y).statistic / (9 * 12))
    assert 0 <= found.low < found.value < found.high <= 1
    assert (found.runs, found.diverged) == (21, 0)
    certain = probability_of_improvement(runs(*range(10, 15)), runs(*range(5)))
    assert (certain.value, certain.low, certain.high) == pytest.approx((1, 1, 1))


def test_profiles_are_shares_above():
    scores = {**runs(0, 10, 20, 30, 40), **runs(*[25] * 5, task="b")}
    found = performance_profile(scores, [-1, 0, 24.9, 25, 40])
    assert found.shares.tolist() == pytest.approx([1, 0.9, 0.7, 0.2, 0])
    assert (np.diff(found.low) <= 0).all()
    assert (found.low <= found.shares + 1e-9).all()
    assert (found.shares <= found.high + 1e-9).all()
    assert found.low[2] == pytest.approx(0.5)
    few = performance_profile(runs(1.0, BAD, 3.0), [0, 2])
    assert few.shares.tolist() == pytest.approx([2 / 3, 1 / 3]), "what diverged scores above nothing"
    assert (few.low, few.runs, few.diverged) == (None, 3, 1)
    assert performance_profile(runs(BAD), [0]).shares.tolist() == [0]
    with pytest.raises(SourceError, match="no run of 'b'"):
        performance_profile({**runs(1.0), "b": {}}, [0])


# --- effective samples -----------------------------------------------------------------------------------------------

NOISE = (-2.0, -1.0, 0.0, 1.0, 2.0)


def around(score, noise=NOISE):
    return {seed: score + offset for seed, offset in enumerate(noise)}


CURVE = {1_000: around(30), 100: around(10), 10_000: around(50)}  # 20 more for every tenfold


@pytest.mark.parametrize(("score", "rows", "expected"), [(40, 1_000, 10**0.5), (30, 100, 10), (20, 1_000, 10**-0.5)])
def test_the_multiplier_on_a_known_curve(score, rows, expected):
    found = effective_multiplier(CURVE, around(score), rows)
    assert found.value == Multiple(pytest.approx(expected))
    # runs that move together, the arm's with the curve's, leave the multiplier as it is
    assert found.low.value == pytest.approx(expected)
    assert found.high.value == pytest.approx(expected)
    assert (found.sizes, found.score) == ((100, 1_000, 10_000), score)


def test_runs_of_the_curve_and_of_the_arm_are_drawn_together_by_name():
    arm = around(40)
    turned = dict(reversed(arm.items()))
    assert effective_multiplier(CURVE, turned, 1_000) == effective_multiplier(CURVE, arm, 1_000)


def test_scores_beyond_the_curve_are_censored():
    above, below = effective_multiplier(CURVE, around(60), 1_000), effective_multiplier(CURVE, around(5), 1_000)
    assert (str(above.value), str(above.low), str(above.high)) == (">= 10x", ">= 10x", ">= 10x")
    assert (str(below.value), below.plain()["low"]) == ("<= 0.1x", "<= 0.1x")
    assert str(effective_multiplier(CURVE, around(50), 1_000).value) == "10x"
    assert str(effective_multiplier(CURVE, around(10), 1_000).value) == "0.1x"


def test_an_interval_may_be_known_at_one_end_only():
    """An arm of other runs, whose mean lies below the end of the curve, with a spread that reaches beyond."""
    arm = {f"run {seed}": 47.0 + offset for seed, offset in enumerate((-8, -4, 0, 4, 8))}
    found = effective_multiplier(CURVE, arm, 1_000)
    assert found.value.relation == "="
    assert 1 < found.low.value < found.value.value < 10
    assert (found.low.relation, str(found.high)) == ("=", ">= 10x")


def test_a_curve_that_falls_is_made_monotone():
    falling = {100: around(10), 1_000: around(40), 10_000: around(20), 100_000: around(50)}
    found = effective_multiplier(falling, around(30), 1_000)
    assert found.curve == (10, 30, 30, 50)
    assert found.value == Multiple(pytest.approx(1))  # the smallest size that reaches it


def test_isotonic_regression_is_that_of_scikit_learn():
    for seed in range(20):
        values, shares = rng(seed).normal(size=(4, 6)), rng(seed).uniform(1, 5, 6)
        expected = [IsotonicRegression().fit_transform(range(6), row, sample_weight=shares) for row in values]
        np.testing.assert_allclose(isotonic(values, shares), expected)


def test_sizes_are_read_off_at_the_first_place():
    fitted, logs = np.array([1.0, 2.0, 2.0, 4.0]), np.array([0.0, 1.0, 2.0, 3.0])
    found = size_reaching(fitted, logs, np.array([0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 4.1]))
    assert found.tolist() == [-math.inf, 0, 0.5, 1, 2.5, 3, math.inf]
    assert size_reaching(np.array([2.0, 2.0]), np.array([0.0, 1.0]), 2.0) == 0
    assert size_reaching(np.array([2.0, 2.0]), np.array([0.0, 1.0]), 3.0) == math.inf


def test_a_size_of_which_a_run_diverged_is_left_out_where_two_others_are_there():
    """It takes no interval from what is read between the others, and its survivors flatter it."""
    broken = {**CURVE, 100: {**around(45), 5: BAD}}
    found, clean = (
        effective_multiplier(curve, around(40), 1_000) for curve in (broken, {1_000: around(30), 10_000: around(50)})
    )
    assert found == clean
    assert found.low is not None


def test_what_an_arm_lost_is_left_out_of_the_curve_too():
    """Draws differ by more than arms do: without the hardest of them any arm looks better than the whole curve."""
    hard = (-20.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    curve = {size: around(score, hard) for size, score in ((100, 10), (1_000, 30), (10_000, 50))}
    lost = effective_multiplier(curve, {**around(30, hard), 0: BAD}, 1_000)
    assert lost.value == Multiple(pytest.approx(1))
    assert (lost.diverged, lost.low.value) == (1, pytest.approx(1))
    assert lost.curve == pytest.approx((10, 30, 50)), "of the five draws that are left"


def test_where_no_run_came_through_at_every_size_there_is_no_interval():
    """Sizes drawn again each on its own would count what draws of the data differ by as what rows are worth."""
    lost = {100: range(4), 1_000: range(4, 8), 10_000: range(8, 12)}
    curve = {
        size: {**dict.fromkeys(range(12), 10.0 * size**0.25), **dict.fromkeys(gone, BAD)} for size, gone in lost.items()
    }
    found = effective_multiplier(curve, dict.fromkeys(range(12), 40.0), 1_000)
    assert (found.low, found.high, found.why) == (None, None, "no run came through at every size")
    assert found.value is not None


def test_there_is_no_multiplier_without_a_curve():
    gone = dict.fromkeys(range(5), BAD)
    assert multiplier_of({100: gone, 1_000: around(30)}, around(20), 100) is None
    assert multiplier_of(CURVE, gone, 100) is None
    assert multiplier_of({**CURVE, 100: gone}, around(40), 1_000).value.value == pytest.approx(10**0.5)


def test_multipliers_count_what_diverged_and_say_when_runs_are_too_few():
    found = effective_multiplier({100: around(10), 1_000: {**around(30), 5: BAD}}, around(20), 100)
    assert (found.diverged, found.why) == (1, None)
    few = effective_multiplier({100: around(10), 1_000: {0: 30.0, 1: 30.0}}, around(20), 100)
    assert few.value.value == pytest.approx(10**0.5)
    assert (few.low, few.why) == (None, "2 runs of '1,000 real rows'; an interval needs 5")
    with pytest.raises(ConfigError, match="at least two sizes"):
        effective_multiplier({100: around(10)}, around(20), 100)
    with pytest.raises(ConfigError, match="no run of the arm is left"):
        effective_multiplier(CURVE, {0: BAD}, 100)
