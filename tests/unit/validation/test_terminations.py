import numpy as np
import pytest
from toy_data import SPEC

from synth_pipeline import envs
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.oracle import judge_sample
from synth_pipeline.validation.terminations import prevalence, rates, terminations
from synth_pipeline.validation.truth import Answer, Truth, truth_of


def ends(next_observations):
    return next_observations[:, 0] > 0.5


TRUTH = Truth(lambda s, a: Answer(s, np.zeros(len(s)), np.isfinite(s[:, 0]), "still"), terminated=ends)


def table(values, flags):
    values = np.array(values, float)[:, None]
    columns = {"observations": values, "actions": values, "rewards": values[:, 0], "next_observations": 0 * values}
    return Transitions({**columns, "terminations": np.array(flags, bool)})


def measured(rows, truth=TRUTH):
    real = Dataset(SPEC, rows=table([0, 1], [0, 1]).with_columns(next_observations=np.array([[0.0], [1.0]])))
    found = terminations(real, judge_sample(real, rows, truth), truth.terminated)
    return {m.metric.removeprefix("terminations."): m for m in found}


def test_rates_by_hand():
    true, flagged = np.array([1, 1, 1, 1, 0, 0], bool), np.array([1, 1, 1, 0, 1, 0], bool)
    assert rates(true, flagged) == (0.75, 0.75)
    assert rates(true, np.zeros(6, bool)) == (0.0, None)
    assert rates(np.zeros(6, bool), flagged) == (None, 0.0)


def test_flags_are_held_against_what_would_have_happened():
    """40 rows end by the oracle's next state; 30 of them are flagged, and 10 others; s' as generated is not asked."""
    found = measured(table([1] * 40 + [0] * 60, [1] * 30 + [0] * 10 + [1] * 10 + [0] * 50))
    assert {name: m.value for name, m in found.items()} == {"recall": 0.75, "precision": 0.75}
    assert found["recall"].details == {"judged rows": 100, "true": 40, "flagged": 40}


def test_rows_that_cannot_be_judged_count_nowhere():
    found = measured(table([1] * 20 + [np.nan] * 80, [1] * 100))
    assert found["precision"].value == 1.0


@pytest.mark.parametrize(("true", "decidable"), [(19, False), (20, True)])
def test_a_handful_decides_nothing(true, decidable):
    found = measured(table([1] * true + [0] * 50, [1] * true + [0] * 50))
    assert (found["recall"].value is not None) is decidable
    assert ("20 are needed" in found["recall"].details.get("why", "")) is not decidable


def test_no_flag_has_no_precision():
    found = measured(table([1] * 30, [0] * 30))
    assert (found["recall"].value, found["precision"].value) == (0.0, None)
    assert found["precision"].details["why"] == "no row is flagged"


def test_nothing_known_is_not_decidable():
    assert {m.value for m in measured(table([1], [1]), Truth()).values()} == {None}


def test_real_rows_of_a_simulator_have_the_right_flags():
    from worlds import roll

    real, truth = roll("hopper", episodes=60, steps=60), truth_of(envs.make("hopper"))
    fresh = roll("hopper", episodes=60, steps=60, seed=1).transitions()
    found = terminations(real, judge_sample(real, fresh, truth), truth.terminated)
    assert [m.value for m in found] == [1.0, 1.0]
    assert [m.floor.median for m in found] == [1.0, 1.0]


def test_prevalence_by_hand():
    real = Dataset(SPEC, rows=table([0] * 100, [1] * 25 + [0] * 75))
    (found,) = prevalence(real, table([0] * 50, [1] * 5 + [0] * 45))
    assert (found.value, found.floor, found.target) == (pytest.approx(0.4), None, 1.0)
    assert found.details == {
        "real": {"rows": 100, "ends": 25, "begin after an end": 0},
        "generated": {"rows": 50, "ends": 5, "begin after an end": 0},
    }


def test_a_row_that_begins_after_an_end_is_no_end():
    real = Dataset(SPEC, rows=table([0] * 100, [1] * 25 + [0] * 75))
    rows = table([1] * 20 + [0] * 30, [1] * 25 + [0] * 25)
    assert prevalence(real, rows)[0].value == pytest.approx(2.0)
    (found,) = prevalence(real, rows, ends)
    assert found.value == pytest.approx(0.4)
    assert found.details["generated"] == {"rows": 50, "ends": 5, "begin after an end": 20}


def test_rows_that_never_end_have_prevalence_0_though_no_flag_is_wrong():
    """A gate that asks for recall and precision alone lets them through: there is nothing to recall."""
    real, rows = Dataset(SPEC, rows=table([0] * 100, [1] * 25 + [0] * 75)), table([0] * 100, [0] * 100)
    assert prevalence(real, rows)[0].value == 0.0
    assert {m.value for m in terminations(real, judge_sample(real, rows, TRUTH), ends)} == {None}


def test_prevalence_needs_twenty_real_ends_and_both_sides():
    few = Dataset(SPEC, rows=table([0] * 100, [1] * 19 + [0] * 81))
    assert "19 of the real rows end, 20 are needed" in prevalence(few, table([0], [1]))[0].details["why"]
    enough = Dataset(SPEC, rows=table([0] * 100, [1] * 20 + [0] * 80))
    flagless = table([0], [1]).take(np.zeros(0, np.int64))
    assert prevalence(enough, flagless)[0].value is None


def test_the_floor_of_prevalence_is_that_of_halves_by_episode():
    from worlds import roll

    real = roll("hopper", episodes=60, steps=60)
    (found,) = prevalence(real, real.transitions())
    assert found.value == 1.0
    assert 0 < found.floor.worst95 < 0.6  # about 30 ends a half
