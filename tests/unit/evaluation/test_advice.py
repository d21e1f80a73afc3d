"""Advice: what is recommended follows from intervals on all of the data, and every sentence from what was measured."""

import pytest

from synth_pipeline.data.split import Fold
from synth_pipeline.errors import ConfigError
from synth_pipeline.evaluation.advice import (
    PROBE,
    AdviceConfig,
    Trial,
    concluded,
    helps,
    judged,
    on_a_quarter,
    recommended,
    trials,
)
from synth_pipeline.evaluation.statistics import paired_difference
from synth_pipeline.evaluation.study import cells

CONFIG = AdviceConfig.parse({"arms": {"good": {"kind": "smote"}, "bad": {"kind": "duplicate"}}, "draws": 6})
TRAINING, ROWS = 16_000, 20_000
NOISE = (0.01, -0.01, 0.005, -0.005, 0.0, 0.002)
USUAL = {"real": 0.5, "good": 0.4, "bad": 0.55}
QUARTER = {(4000, "real"): 0.5, (4000, "good"): 0.4, (None, "real"): 0.3, (None, "good"): 0.25}


def measured(study, errors):
    """Results whose error of values is given by (size, arm)."""
    return {
        cell: {"values": {"rmse": errors[(cell.size, cell.arm)] + NOISE[cell.draw]}, "diverged": None}
        for cell in cells(study)
    }


def looked_at(errors, lost=(), arm="real"):
    """The trials on all of the data, with an arm that diverged in some draws."""
    study = trials("toy/points", None, CONFIG)
    results = measured(study, {(None, name): error for name, error in errors.items()})
    for cell in results:
        if cell.arm == arm and cell.draw in lost:
            results[cell] = {"values": None, "diverged": {"step": 1, "reason": "critics"}}
    return judged(study, results, TRAINING)


def quarter(errors=QUARTER, lost=()):
    """The recommended arm on a quarter, where it diverged in some draws."""
    study = on_a_quarter("toy/points", None, TRAINING, "good", CONFIG)
    results = measured(study, errors)
    for cell in results:
        if (cell.size, cell.arm) == (TRAINING // 4, "good") and cell.draw in lost:
            results[cell] = {"values": None, "diverged": {"step": 1, "reason": "critics"}}
    (found,) = judged(study, results, TRAINING)
    return found


def text_of(found, look=None, episodes=50):
    return " ".join(concluded(found, look, CONFIG, ROWS, episodes).sentences())


def test_every_arm_is_tried_on_all_rows_and_one_on_a_quarter():
    first = trials("toy/points", None, CONFIG)
    assert {(cell.size, cell.arm, cell.agent) for cell in cells(first)} == {(None, arm, PROBE) for arm in USUAL}
    assert len(cells(first)) == 6 * 3
    second = on_a_quarter("toy/points", None, TRAINING, "good", CONFIG)
    assert {(cell.size, cell.arm) for cell in cells(second)} == set(QUARTER)
    assert [first.unseen(draw) for draw in range(6)] == [second.unseen(draw) for draw in range(6)]
    assert first.unseen(5) == Fold(5, 6), "every draw holds out another part"
    whole = {cell for cell in cells(second) if cell.size is None}
    assert whole < set(cells(first)), "they are there"


def test_the_better_arm_is_first_and_recommended():
    good, bad = looked_at(USUAL)
    assert (good.arm, bad.arm) == ("good", "bad")
    assert good.difference.value == pytest.approx(0.1)
    assert (helps(good), helps(bad)) == (True, False)
    assert recommended((good, bad)) == "good"
    assert good.multiplier is None, "on all rows the curve ends"


def test_a_quarter_says_what_it_is_worth():
    """From 0.5 at 4,000 rows to 0.3 at 16,000, half-way on a logarithmic axis."""
    assert quarter().multiplier.value.value == pytest.approx(2.0, rel=0.01)
    assert "With it on a quarter of them: error of values changes by -0.100" in text_of(looked_at(USUAL), quarter())
    assert "worth 2x [2x, 2x] the real rows" in text_of(looked_at(USUAL), quarter())


def test_what_is_recommended_is_plain():
    yes = concluded(looked_at(USUAL), quarter(), CONFIG, ROWS, 50)
    assert yes.augment
    assert yes.sentences()[0] == "Augment with good (50% of every batch): values got better on all 20,000 rows."
    plain = yes.plain()
    assert (plain["mixed"]["share"], plain["mixed"]["kind"]) == (0.5, "smote")
    assert plain["quarter"]["multiplier"]["value"] == "2x"
    assert f"Risk: the gain may be as small as {yes.trials[0].difference.low:.3f} of a deviation." in text_of(
        looked_at(USUAL), quarter()
    )


@pytest.mark.parametrize(
    ("error", "lost", "said"),
    [
        (0.4, (), "of a deviation. Not"),
        (0.5, (), "of a deviation; on a quarter of them nothing is beyond doubt."),
        (0.6, (), "of a deviation; on a quarter of them it is worse beyond doubt."),
        (0.4, (0,), "of a deviation; on a quarter of them nothing is beyond doubt, where it diverged in 1 draw."),
        (0.6, (0, 1), "of a deviation; on a quarter of them nothing is beyond doubt, where it diverged in 2 draws."),
        (0.4, range(6), "of a deviation; on a quarter of them nothing is beyond doubt, where it diverged in 6 draws."),
    ],
)
def test_a_gain_that_a_quarter_does_not_show_is_a_risk(error, lost, said):
    look = quarter({**QUARTER, (4000, "good"): error}, lost)
    assert concluded(looked_at(USUAL), look, CONFIG, ROWS, 50).augment, "the question is about all of the data"
    assert said in text_of(looked_at(USUAL), look)


@pytest.mark.parametrize("lost", [(0, 1), range(6)])
def test_without_an_interval_it_is_said_what_diverged(lost):
    said = f"it diverged in {len(lost)} draws, real rows alone in 0 draws"
    assert f"With it on a quarter of them: too few draws for an interval: {said}." in text_of(
        looked_at(USUAL), quarter(lost=lost)
    )


def test_where_real_rows_never_gave_values_nothing_is_said_to_be_better():
    good, bad = looked_at(USUAL, range(6))
    assert helps(good), "values of use, where there were none"
    text = text_of((good, bad), quarter())
    assert "on all 20,000 rows real rows alone diverged every time, and with it none did." in text
    assert "it diverged in 0 draws, real rows alone in 6 draws" in text
    assert "got better" not in text


def test_an_arm_that_never_diverged_helps_where_real_rows_did():
    """Small data make real rows diverge: without an interval the advice would be no, where augmenting is worth most."""
    good, bad = looked_at(USUAL, {0, 3})
    assert good.difference.low is None
    assert helps(good)
    assert not helps(bad)
    text = text_of((good, bad), quarter())
    assert "values got better on all 20,000 rows, wherever real rows alone did not diverge." in text
    assert "these diverged in 2 draws" in text
    assert "Risk: how much is not known, for real rows alone diverged" in text
    assert not helps(looked_at(USUAL, {0}, arm="good")[0])


def test_an_arm_that_diverged_is_the_risk():
    assert "Risk: 'bad' diverged in 1 draw." in text_of(looked_at({**USUAL, "good": 0.5}, {0}, arm="bad"))


def trial(arm, values, error=0.5):
    difference = paired_difference({"": dict(enumerate(values))}, {"": dict.fromkeys(range(len(values)), 0.0)})
    return Trial(arm, difference, error, 0.95)


def test_values_that_are_no_better_than_their_mean_recommend_nothing():
    helped = [0.1, 0.11, 0.09, 0.1, 0.1]
    assert helps(trial("good", helped, 0.9))
    assert not helps(trial("good", helped, 1.1))
    poor = [trial("good", helped, 1.1)]
    advice = concluded(poor, None, CONFIG, ROWS, 50)
    assert not advice.augment
    assert "on all 20,000 rows even the better values are no better than their mean" in advice.sentences()[0]
    assert recommended([*poor, trial("bad", helped, 0.9)]) == "bad", "the next one is of use"


def test_values_of_which_none_are_of_use_tell_nothing():
    """A probe that was trained too shortly is no finding about the data."""
    poor = looked_at({"real": 5.15, "good": 5.1, "bad": 5.2})
    text = text_of([one for one in poor if one.arm == "bad"])
    assert "Nothing can be told, so do not augment: on all 20,000 rows no values are better than their mean" in text
    assert "which would cost 1; with real rows alone their error is 5.15. More rows" in text
    assert "Nothing can be told" in text_of(poor), "nor does an arm that is better, and as useless"
    gone = [one for one in looked_at({**USUAL, "bad": 5.0}, range(6)) if one.arm == "bad"]
    assert "which would cost 1; real rows alone diverged." in text_of(gone)
    one_is_of_use = looked_at({"real": 5.15, "good": 0.9, "bad": 5.2})
    assert text_of(one_is_of_use, quarter()).startswith("Augment with good")


def test_the_best_is_that_with_the_greatest_gain():
    """Not that with the narrowest interval, which is what a recommendation goes by."""
    wide, narrow = trial("wide", [0.5, -0.3, 0.4, -0.2, 0.1]), trial("narrow", [-0.01, 0.0, -0.01, 0.01, 0.0])
    assert "Best on all rows: 'wide', error of values changes by -0.100" in text_of([narrow, wide])


@pytest.mark.parametrize("name", ["real", ""])
def test_an_arm_needs_a_name_of_its_own(name):
    with pytest.raises(ConfigError, match="a name of its own"):
        AdviceConfig.parse({"arms": {name: {"kind": "smote"}}})


def test_few_lives_are_said():
    assert "All of this rests on 19 episodes." in text_of(looked_at(USUAL), quarter(), episodes=19)
    assert "rests on" not in text_of(looked_at(USUAL), quarter(), episodes=20)


def test_nothing_is_recommended_when_nothing_helps():
    first = looked_at({**USUAL, "good": 0.5})
    assert recommended(first) is None
    advice = concluded(first, None, CONFIG, ROWS, 50)
    assert advice.arm is advice.mixed is advice.plain()["mixed"] is advice.plain()["quarter"] is None
    text = " ".join(advice.sentences())
    assert "Do not augment: on all 20,000 rows no arm made values better beyond doubt." in text
    assert "Best on all rows: 'good', error of values changes by +0.000" in text.replace("-0.000 of", "+0.000 of")
    assert "Not measured: returns" in text
    assert "Risk: 'bad' may cost up to 0.0" in text


def test_a_diverged_probe_is_left_out():
    good = next(one for one in looked_at(USUAL, {0}, arm="good") if one.arm == "good")
    assert good.difference.pairs == 5
    assert good.difference.diverged == (1, 0)


def test_too_few_draws_are_refused():
    with pytest.raises(ConfigError, match="draws"):
        AdviceConfig.parse({"draws": 4})
