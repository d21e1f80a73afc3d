"""Advice: what is recommended follows from intervals, on both looks, and every sentence from what was measured."""

import pytest

from synth_pipeline.errors import ConfigError
from synth_pipeline.evaluation.advice import (
    PROBE,
    AdviceConfig,
    Trial,
    concluded,
    confirmation,
    helps,
    judged,
    trials,
    tried,
)
from synth_pipeline.evaluation.statistics import paired_difference
from synth_pipeline.evaluation.study import Cell, cells

CONFIG = AdviceConfig.parse({"arms": {"good": {"kind": "smote"}, "bad": {"kind": "duplicate"}}, "draws": 6})
TRAINING = 16_000
NOISE = (0.01, -0.01, 0.005, -0.005, 0.0, 0.002)


def found(errors):
    """Results whose error of values is given by (size, arm)."""
    study = trials("toy/points", None, TRAINING, CONFIG)
    return study, {
        cell: {"values": {"rmse": errors[(cell.size, cell.arm)] + NOISE[cell.draw]}, "diverged": None}
        for cell in cells(study)
        if tried(study, cell)
    }


USUAL = {(1000, "real"): 0.9, (4000, "real"): 0.5, (None, "real"): 0.3, (4000, "good"): 0.4, (4000, "bad"): 0.55}


def test_arms_are_tried_on_a_quarter_and_real_rows_at_three_sizes():
    study = trials("toy/points", None, TRAINING, CONFIG)
    wanted = [cell for cell in cells(study) if tried(study, cell)]
    assert study.sizes == (1000, 4000, None)
    assert {(cell.size, cell.arm) for cell in wanted} == set(USUAL)
    assert len(wanted) == 5 * 6
    assert {cell.agent for cell in wanted} == {PROBE}
    again = confirmation("toy/points", None, "good", CONFIG)
    assert {(cell.size, cell.arm) for cell in cells(again)} == {(None, "real"), (None, "good")}


def test_the_better_arm_is_first_and_worth_what_the_curve_says():
    good, bad = judged(*found(USUAL), TRAINING)
    assert (good.arm, bad.arm) == ("good", "bad")
    assert good.difference.value == pytest.approx(0.1)
    assert helps(good)
    assert not helps(bad)
    # From 0.5 at 4,000 rows to 0.3 at 16,000, half-way on a logarithmic axis.
    assert good.multiplier.value.value == pytest.approx(2.0, rel=0.01)


def trial(arm, values, error=0.5):
    difference = paired_difference({"": dict(enumerate(values))}, {"": dict.fromkeys(range(len(values)), 0.0)})
    return Trial(arm, difference, error)


def test_augment_only_when_both_looks_say_so():
    first = judged(*found(USUAL), TRAINING)
    yes = concluded(first, [trial("good", [0.1, 0.11, 0.09, 0.1, 0.1])], CONFIG, TRAINING, 9)
    assert yes.augment
    assert "Augment with good (50% of every batch)" in yes.sentences()[0]
    assert yes.plain()["mixed"]["share"] == 0.5
    assert yes.plain()["mixed"]["kind"] == "smote"
    no = concluded(first, [trial("good", [0.1, -0.1, 0.1, -0.1, 0.0])], CONFIG, TRAINING, 9)
    assert not no.augment
    assert no.arm is no.mixed is no.plain()["mixed"] is None
    assert "good helped on 4,000 rows and not beyond doubt on all" in no.sentences()[0]


def test_the_second_arm_that_helps_is_recommended_where_the_first_does_not_hold():
    first = [trial("good", [0.3, 0.31, 0.29, 0.3, 0.3]), trial("bad", [0.2, 0.21, 0.19, 0.2, 0.2])]
    looks = [trial("good", [0.1, -0.1, 0.1, -0.1, 0.0]), trial("bad", [0.05, 0.06, 0.04, 0.05, 0.05])]
    advice = concluded(first, looks, CONFIG, TRAINING, 9)
    assert advice.arm == "bad"
    assert advice.mixed == CONFIG.arms["bad"]
    text = " ".join(advice.sentences())
    assert "good on all rows, over trainings: error of values changes by -0.000 of a deviation" in text
    low = [found.difference.low for found in (first[1], looks[1])]
    risk = (
        f"Risk: on a quarter of the rows the gain may be as small as {low[0]:.3f} of a deviation; on all rows the gain"
    )
    assert f"{risk} may be as small as {low[1]:.3f} of a deviation." in text, "of what is recommended, not of another"


def diverging(draws, errors=USUAL, arm="real", size=4000):
    """The usual results, with an arm that diverged in some draws."""
    study, results = found(errors)
    for cell in results:
        if (cell.arm, cell.size) == (arm, size) and cell.draw in draws:
            results[cell] = {"values": None, "diverged": {"step": 1, "reason": "critics"}}
    return study, results


def test_an_arm_that_never_diverged_helps_where_real_rows_did():
    """Small data make real rows diverge: without an interval the advice would be no, where augmenting is worth most."""
    good, bad = judged(*diverging({0, 3}), TRAINING)
    assert good.difference.low is None
    assert helps(good)
    assert not helps(bad)
    assert good.arm == "good"
    text = " ".join(concluded((good, bad), (good,), CONFIG, TRAINING, 9).sentences())
    assert "these diverged in 2 draws" in text
    assert "values got better on 4,000 rows and on all 16,000, wherever real rows alone did not diverge." in text
    assert "Risk: on a quarter of the rows how much is not known, for real rows alone diverged" in text
    assert not helps(judged(*diverging({0}, arm="good"), TRAINING)[0])


def test_an_arm_that_diverged_is_the_risk():
    text = " ".join(concluded(judged(*diverging({0}, arm="bad"), TRAINING), (), CONFIG, TRAINING, 9).sentences())
    assert "Risk: bad diverged in 1 draw." in text


def test_real_rows_that_always_diverge_at_the_smallest_size_leave_a_curve_of_the_others():
    good, _ = judged(*diverging(range(6), size=1000), TRAINING)
    assert good.multiplier.value.value == pytest.approx(2.0, rel=0.01)


def test_values_that_are_no_better_than_their_mean_recommend_nothing():
    helped = [0.1, 0.11, 0.09, 0.1, 0.1]
    assert helps(trial("good", helped, 0.9))
    assert not helps(trial("good", helped, 1.1))
    first = judged(*found({key: error + 1 for key, error in USUAL.items()}), TRAINING)
    assert first[0].difference.verdict == "better"
    advice = concluded(first, [trial("good", helped, 1.1)], CONFIG, TRAINING, 9)
    assert not advice.augment
    assert "Best on 4,000 rows: good, values there no better than their mean" in advice.sentences()[1]
    assert "on all 16,000 rows even the better values are no better than their mean" in advice.sentences()[0]
    of_use = concluded(first, [trial("good", helped, 0.9)], CONFIG, TRAINING, 9)
    assert of_use.augment, "a quarter of the rows may be too few to be of use"


def test_few_held_out_lives_are_said():
    first = judged(*found(USUAL), TRAINING)
    assert "the states of 2 episodes only" in " ".join(concluded(first, (), CONFIG, TRAINING, 2).sentences())
    assert "only" not in " ".join(concluded(first, (), CONFIG, TRAINING, 5).sentences())


def test_nothing_is_recommended_when_nothing_helps():
    first = judged(*found({**USUAL, (4000, "good"): 0.5}), TRAINING)
    assert not any(helps(one) for one in first)
    advice = concluded(first, (), CONFIG, TRAINING, 9)
    assert not advice.augment
    assert advice.arm is None
    text = " ".join(advice.sentences())
    assert "Do not augment" in text
    assert "Not measured: returns" in text
    assert "Risk: bad may cost up to 0.0" in text
    assert advice.plain()["confirmed"] == []


def test_a_diverged_probe_is_left_out():
    study, results = found(USUAL)
    lost = Cell(4000, 0, "good", PROBE, 0)
    results[lost] = {"values": None, "diverged": {"step": 7, "reason": "loss inf"}}
    good = next(one for one in judged(study, results, TRAINING) if one.arm == "good")
    assert good.difference.pairs == 5
    assert good.difference.diverged == (1, 0)


def test_too_few_rows_are_refused():
    with pytest.raises(ConfigError, match="at least 160"):
        trials("toy/points", None, 159, CONFIG)
    with pytest.raises(ConfigError, match="draws"):
        AdviceConfig.parse({"draws": 4})
