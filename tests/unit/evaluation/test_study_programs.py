"""What the studies conclude from their cells: each rule that decides a claim, on cells whose answer is known."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from synth_pipeline.evaluation.statistics import Difference, paired_difference
from synth_pipeline.evaluation.study import cells
from synth_pipeline.evaluation.tables import scale_of

ROOT = Path(__file__).parents[3]
SPREAD = np.linspace(-20, 20, 10)  # of the returns over the draws
SCALE = scale_of("hopper", 1_000)
POINT = SCALE.best - SCALE.random  # a hundred points, as returns


def program(name):
    """A program of `validation/` as a module; what it puts on the path is taken off again."""
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location(f"program_{name}", ROOT / "validation" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path
    return module


utility, advice = program("utility"), program("advice")


def difference(values, diverged=(0, 0)):
    found = paired_difference({"": dict(enumerate(values))}, {"": dict.fromkeys(range(len(values)), 0.0)})
    return Difference(**{**vars(found), "diverged": diverged})


GAIN, LOSS, NOTHING = [3.0, 3.1, 2.9, 3.0, 3.2], [-3.0, -3.1, -2.9, -3.0, -3.2], [3.0, -3.0, 1.0, -1.0, 0.5]


def test_a_limit_is_nothing_where_there_is_none_or_more_runs_of_ours_diverged():
    assert 2.5 < utility.lower(difference(GAIN)) < 3.0
    assert utility.lower(difference(GAIN, (1, 1))) == utility.lower(difference(GAIN))
    assert utility.lower(difference(GAIN, (1, 0))) == utility.NOTHING
    assert utility.lower(difference(GAIN[:4])) == utility.NOTHING


@pytest.mark.parametrize(
    ("values", "said"), [(GAIN, "is above 0"), (LOSS, "is below 0"), (NOTHING, "is inconclusive about 0")]
)
def test_an_interval_that_reaches_below_a_limit_is_no_proof_of_a_loss(values, said):
    assert said in utility.outcome(difference(values), 0)
    assert "2 runs diverged where 1 did" in utility.outcome(difference(values, (2, 1)), 0)


def claimed(monkeypatch, gains, lost=()):
    """What E2 claims when arms gain so many points over real rows; draws of SynthER on few rows that diverged."""
    (config,) = utility.returns().values()
    results = {}
    for cell in cells(config):
        value = 500 + SPREAD[cell.draw] + gains.get((cell.size, cell.arm), 0.0) * POINT / 100
        dead = cell.arm == "synther" and cell.size == config.sizes[0] and cell.draw in lost
        diverged = {"step": 1, "reason": "values"} if dead else None
        results[cell] = {"evaluations": [{"step": 1, "counts": True, "returns": [value]}], "diverged": diverged}
    found = {}
    monkeypatch.setattr(utility, "record", lambda claim, value, **given: found.update({claim: (value, given)}))
    utility.claims(config, results, SCALE, 1.0)
    return found["utility.small_data_lift"], found["utility.full_data_noninferior"]


def test_a_lift_beats_real_rows_and_every_control(monkeypatch):
    few = 10_000
    (value, given), _ = claimed(monkeypatch, {(few, "synther"): 5.0, (few, "smote"): 2.0})
    assert value == pytest.approx(3.0)
    assert "why" not in given["details"]
    for control in ("smote", "real, regularised"):
        (value, given), _ = claimed(monkeypatch, {(few, "synther"): 5.0, (few, control): 6.0})
        assert value == pytest.approx(-1.0), control
        assert "is below 0" in given["details"]["why"]
    (value, _), _ = claimed(monkeypatch, {(few, "synther"): 5.0}, lost=(3,))
    assert value == utility.NOTHING


@pytest.mark.parametrize(("gain", "value"), [(0.0, 0.0), (-1.5, -1.5), (-2.5, -2.5)])
def test_non_inferiority_is_a_matter_of_all_rows(monkeypatch, gain, value):
    _, (found, given) = claimed(monkeypatch, {(100_000, "synther"): gain, (10_000, "synther"): 50.0})
    assert found == pytest.approx(value, abs=1e-9)
    assert given["bar"] == "> -2"
    assert ("why" in given["details"]) == (gain < -2)


@pytest.mark.parametrize(
    ("augment", "arm", "helped", "right"),
    [
        (False, None, [], True),
        (False, None, ["synther"], False),
        (True, "synther, half", ["synther"], True),
        (True, "synther, half", ["smote"], False),
        (True, "synther, half", [], False),
    ],
)
def test_advice_is_right_when_the_long_study_says_the_same(augment, arm, helped, right):
    kinds = ("synther", "smote", "learned labels")
    verdicts = {kind: "better" if kind in helped else "undecided" for kind in kinds}
    assert advice.hit({"augment": augment, "arm": arm}, verdicts) is right


def test_what_always_the_same_answer_would_reach_is_counted():
    verdicts = {"a": {"synther": "better", "smote": "worse"}, "b": {"synther": "better"}, "c": {"synther": "undecided"}}
    same = advice.constant(verdicts)
    assert same["never"] == pytest.approx(1 / 3)
    assert same["synther"] == pytest.approx(2 / 3)
    assert same["smote"] == 0
