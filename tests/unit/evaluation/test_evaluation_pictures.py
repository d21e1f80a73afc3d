"""The pictures of a study show its cells, and say why where they cannot."""

from itertools import product

import pytest

from synth_pipeline.evaluation.pictures import _band, pictures
from synth_pipeline.evaluation.scores import ScoreScale
from synth_pipeline.evaluation.study import Cell, StudyConfig
from synth_pipeline.evaluation.tables import table

SCALE = ScoreScale("toy-point-mass", 100, 0.0, 200.0, "none", {})
ARMS = {"real": {}, "smote": {"kind": "smote"}}


def study(**changes):
    return StudyConfig.parse({"dataset": "toy/points", "arms": ARMS, "agents": {"td3_bc": {}}, **changes})


def cell(returns, *, diverged=None):
    evaluations = [{"step": step, "counts": step > 1, "returns": [r], "lengths": [1]} for step, r in enumerate(returns)]
    costs = {"seconds": 1.0, "mixed_rows": 0, "arm_seconds": 0.0}
    return {"evaluations": evaluations, "diverged": diverged, **costs}


def results(seeds=5, arms=("real", "smote"), size=None, **changes):
    addresses = [Cell(size, 0, arm, "td3_bc", seed) for arm in arms for seed in range(seeds)]
    return {c: cell([0, 10, 20 + c.seed, 40 + 10 * (c.arm == "smote")], **changes) for c in addresses}


def drawn(found, given=None):
    given = given or study()
    return {p.name: p for p in pictures(given, found, table(given, found, SCALE), SCALE)}


def test_differences_spread_and_curves_of_every_agent():
    found = drawn(results())
    assert list(found) == ["differences", "spread_td3_bc", "curves_td3_bc"]
    assert all(picture.svg.startswith("<?xml") for picture in found.values())
    assert found["differences"].alt.endswith("td3_bc with smote 2.5"), "10 more returns in one of two, over 200, x 100"
    assert found["curves_td3_bc"].alt.endswith("real ends at 20, smote ends at 25")
    assert found["spread_td3_bc"].alt.endswith("real: 5 runs, smote: 5 runs")


def test_a_size_has_its_own_pictures():
    sizes = [100, 1000]
    found = {c: r for size in sizes for c, r in results(size=size).items()}
    names = set(drawn(found, study(sizes=sizes)))
    assert names >= {"spread_td3_bc_on_100_rows", "curves_td3_bc_on_1_000_rows"}


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_runs_are_drawn_without_intervals(seeds):
    assert all(picture.svg for picture in drawn(results(seeds=seeds)).values())


def test_diverged_runs_are_counted_and_in_no_curve_and_what_is_left_of_nothing_is_said():
    found = results() | {Cell(None, 0, "smote", "td3_bc", 1): cell([], diverged={"step": 3, "reason": "loss inf"})}
    assert drawn(found)["spread_td3_bc"].alt.endswith("real: 5 runs, smote: 5 runs, 1 diverged")
    assert drawn(found)["curves_td3_bc"].svg
    lost = drawn(results(diverged={"step": 3, "reason": "loss inf"}))
    assert [lost[name].caption for name in ("spread_td3_bc", "curves_td3_bc")] == ["every run diverged"] * 2
    assert not lost["curves_td3_bc"].svg


def test_a_draw_of_which_a_seed_diverged_is_in_no_curve():
    """As in the table: the mean of what is left of it is of other runs than its pair's."""
    cells = {Cell(None, draw, "real", "td3_bc", seed): cell([100.0 * draw] * 4) for draw in range(3) for seed in (0, 1)}
    cells[Cell(None, 2, "real", "td3_bc", 1)] = cell([], diverged={"step": 3, "reason": "loss inf"})
    alone = drawn(cells, study(arms={"real": {}}, draws=3))
    assert alone["curves_td3_bc"].alt.endswith("real ends at 25"), "returns of 0 and 100 in parts of 200, x 100"
    assert alone["spread_td3_bc"].alt.endswith("real: 3 runs, 1 diverged")


def test_the_seeds_of_the_only_draw_that_is_left_are_no_draws():
    """Five agents on the same rows say nothing of other rows: no interval."""
    seeds, cells = range(5), {}
    for draw, seed in product(range(2), seeds):
        lost = {"step": 3, "reason": "loss inf"} if draw else None
        cells[Cell(None, draw, "real", "td3_bc", seed)] = cell([10.0 * seed] * 4, diverged=lost)
    evaluations = {c: r["evaluations"] for c, r in cells.items() if r["diverged"] is None}
    assert _band(evaluations, SCALE, True, 0).low is None
    assert _band(evaluations, SCALE, False, 0).low is not None, "of one draw, the seeds are the runs"
    assert drawn(cells, study(arms={"real": {}}, draws=2))["curves_td3_bc"].svg


def test_real_rows_alone_have_no_difference():
    alone = drawn(results(arms=("real",)), study(arms={"real": {}}))
    assert alone["differences"].caption == "only real rows were trained on"
    assert alone["spread_td3_bc"].svg
