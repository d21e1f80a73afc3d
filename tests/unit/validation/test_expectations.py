import json
from dataclasses import replace

import numpy as np
import pytest
from checked_rows import FIELDS, MEAN, SUITE, changed, good, kept, measured, plain
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_data import SPEC

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.contract import contract
from synth_pipeline.validation.expectations import (
    bounds,
    check,
    expected_fields,
    sample_table,
    scorecard_table,
    statistics_table,
    store_expectations,
)
from synth_pipeline.validation.gate import Rule, Suite, judge
from synth_pipeline.validation.metric import Floor
from synth_pipeline.validation.statistics import statistics


def raw(rows, fields=FIELDS):
    """Results of the two tables of rows, and what failed in each: (metric, column)."""
    fields = expected_fields(fields, rows)
    tables = {
        "statistics": statistics_table(statistics(Dataset(SPEC, rows=rows), fields), fields, len(rows)),
        "sample": sample_table(rows, fields),
    }
    results = {name: check(name, table) for name, table in tables.items()}
    failed = {
        name: {
            (c.meta["metric"], c.kwargs.get("column"))
            for one in result.results
            if not one.success
            for c in [one.expectation_config]
        }
        for name, result in results.items()
    }
    return results, failed


# --- both agree


VALUES = st.none() | st.sampled_from([0.0, -0.0, 0.5, 1.0, float("nan"), float("inf")]) | st.floats(-2, 2)
THRESHOLDS = st.sampled_from([0.0, 0.5, 1.0]) | st.floats(-2, 2)
NAMES = st.sampled_from(["a.a", "a.b", "b.a", "not.measured"])
RULES = st.builds(
    lambda metric, threshold, kind, optional: Rule(
        metric=metric, optional=optional, **{kind: abs(threshold) if kind == "floor_plus" else threshold}
    ),
    NAMES,
    THRESHOLDS,
    st.sampled_from(["at_least", "at_most", "floor_plus"]),
    st.booleans(),
)
KINDS = st.builds(
    lambda direction, floor: {
        "direction": direction,
        "target": 0.5 if direction == "nearest" else None,
        "floor": Floor(0.25, 0.5) if floor else None,
    },
    st.sampled_from(["higher", "lower", "nearest"]),
    st.booleans(),
)


@settings(max_examples=60)
@given(st.lists(RULES, min_size=1, max_size=12), st.tuples(VALUES, VALUES, VALUES), st.tuples(KINDS, KINDS, KINDS))
def test_it_agrees_with_the_gate_rule_by_rule(rules, values, kinds):
    """Also where a rule stands twice, a value is NaN or infinite, or nothing was measured, a floor included."""
    suite = Suite(name="any", rules=tuple(rules))
    made = zip(("a.a", "a.b", "b.a"), values, kinds, strict=True)
    found = [replace(MEAN, metric=name, value=value, **kind) for name, value, kind in made]
    verdict = judge(found, suite)
    table = scorecard_table(suite, verdict, plain(found))
    result = check("scorecard", table)
    said = {one.expectation_config.meta["rule"]: one.success for one in result.results}
    out = {meta["rule"] for meta in table.left_out}
    assert said.keys() | out == set(range(len(rules)))
    assert not said.keys() & out
    assert all(rule.passed == said.get(number, True) for number, rule in enumerate(verdict.rules))
    assert all(suite.rules[number].optional and verdict.rules[number].value is None for number in out)


def test_what_was_not_measured_is_left_out_by_name_or_fails():
    suite = Suite(
        name="two",
        rules=(
            Rule(metric="a.b", at_least=0, why="may be missing", optional=True),
            Rule(metric="a.b", at_least=0),
            Rule(metric="c.d", at_most=0),
        ),
    )
    table = scorecard_table(suite, judge([], suite), [])
    assert [(meta["metric"], meta["why"]) for meta in table.left_out] == [("a.b", "may be missing")]
    assert [one.success for one in check("scorecard", table).results] == [False, False]


def test_each_rule_carries_what_the_report_says_of_it():
    verdict = judge([MEAN], SUITE)
    *_, expectation = scorecard_table(SUITE, verdict, plain([MEAN])).expectations
    expected = {"metric": "marginals.mean", "rule": 3, "verdict": "fidelity", "why": "like the real columns"}
    assert expectation.meta == {**expected, "floor": {"median": 0.97, "worst95": 0.96}}
    assert expectation.notes == "like the real columns (marginals.mean: 0.95, needs >= 0.9, real against real 0.97)"


SPOILERS = st.sampled_from(
    [
        ("observations", np.nan),
        ("observations", np.inf),
        ("actions", -np.inf),
        ("actions", np.nan),
        ("actions", 1.0000001),
        ("actions", 1.0),
        ("rewards", np.inf),
        ("rewards", np.finfo(np.float32).max),
        ("gear", 3),
        ("gear", -1),
    ]
)
SHAPES = st.sampled_from(
    [
        {},
        {"rewards": None},
        {"costs": np.full(100, np.inf, np.float32)},
        {"costs": np.zeros((100, 2), np.float32)},
        {"observations": np.zeros((100, 4), np.float32)},
        {"observations": np.full((100, 3), 1e300)},
        {"actions": np.full((100, 2), 3, np.int64)},
        {"actions": np.zeros((100, 2), bool)},
        {"gear": np.array(["text"] * 100)},
        {"terminations": np.full(100, 0.5, np.float32)},
        {"terminations": np.zeros((100, 1), bool)},
    ]
)


@settings(max_examples=10)
@given(SHAPES, st.lists(st.tuples(SPOILERS, st.integers(0, 99)), max_size=3))
def test_it_agrees_with_the_table_contract_on_any_rows(shapes, spoiled):
    rows = good()
    for (name, value), row in spoiled:
        column = rows[name].copy()
        column[row] = value
        rows = rows.with_columns(**{name: column})
    columns = {**rows.columns, **shapes}
    rows = Transitions({name: column for name, column in columns.items() if column is not None})
    counts = {m.metric: m.value > 0 for m in contract(Dataset(SPEC, rows=rows), FIELDS)}
    _, failed = raw(rows)
    for table in failed.values():  # the sample is of all rows here
        metrics = {metric for metric, _ in table}
        assert {metric: metric in metrics for metric in counts} == counts


@pytest.mark.parametrize("rows", [good(0), Transitions({}), Transitions({"other": np.zeros(3)})])
def test_a_table_without_rows_or_columns_breaks_the_schema_alone(tmp_path, rows):
    summary = kept(tmp_path, rows)
    assert [rule["passed"] for rule in summary["rules"]] == [False, True, True, True, None]
    _, failed = raw(rows)
    assert failed["statistics"] == {("contract.schema", "column")}
    assert {metric for metric, _ in failed["sample"]} <= {"contract.schema"}


def test_a_store_with_rows_missing_in_one_column():
    found = statistics(Dataset(SPEC, rows=good()), FIELDS)
    result = check("statistics", statistics_table(found, FIELDS[:-1], rows=101))
    assert [one.success for one in result.results] == [True, True, False, True, True, True]


def test_results_stand_in_the_order_of_the_expectations():
    results, _ = raw(good())
    for result in results.values():
        numbers = [one.expectation_config.meta["number"] for one in result.results]
        assert numbers == list(range(len(numbers)))


def test_the_columns_at_fault_are_named():
    def spoil(column):
        column[3, 1] = np.inf

    results, failed = raw(changed(actions=spoil))
    assert failed["sample"] == {("contract.finite", "actions[1]"), ("contract.bounds", "actions[1]")}
    assert "actions[1]" in json.dumps(results["statistics"].to_json_dict())


def test_bounds_are_those_that_the_type_can_hold():
    field = Field(name="actions", shape=(2,), low=(-0.4, -0.4), high=(0.4, 0.4))
    low, high = bounds(field)
    assert (low[0], high[0]) == (float(np.float32(-0.4)), float(np.float32(0.4))) != (-0.4, 0.4)
    rows = Transitions({"actions": np.tile(np.array([[0.4, -0.4]], np.float32), (5, 1))})
    _, failed = raw(rows, (field,))
    assert failed == {"statistics": set(), "sample": set()}


# --- and where they do not, nobody can miss it


def disagreement(folder, *, verdict=None, found=None, counted=None):
    rows = good()
    found = measured(rows) if found is None else found
    return store_expectations(
        SUITE,
        judge(found, SUITE) if verdict is None else verdict,
        plain(found),
        statistics=statistics(Dataset(SPEC, rows=rows if counted is None else counted), FIELDS),
        sample=rows,
        fields=FIELDS,
        rows=len(rows),
        folder=folder,
    )


def test_a_gate_that_lets_pass_what_fails_is_a_bug(tmp_path):
    found = [*measured(good())[:-1], replace(MEAN, value=0.5)]
    right = judge(found, SUITE)
    wrong = replace(right, passed=True, rules=tuple(replace(rule, passed=True) for rule in right.rules))
    with pytest.raises(RuntimeError, match=r"marginals.mean: 0.5, needs >= 0.9.*gate says passed, not failed"):
        disagreement(tmp_path, found=found, verdict=wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_gate_that_stops_what_passes_is_a_bug(tmp_path):
    right = judge(measured(good()), SUITE)
    rules = tuple(replace(rule, passed=rule.metric != "novelty.ratio") for rule in right.rules)
    with pytest.raises(RuntimeError, match=r"novelty.ratio: not decidable.*gate says failed, not passed"):
        disagreement(tmp_path, verdict=replace(right, passed=False, rules=rules))


def test_a_contract_that_overlooks_what_the_statistics_show_is_a_bug(tmp_path):
    def spoil(column):
        column[7] = np.nan

    with pytest.raises(RuntimeError, match=r"contract.finite: 0 rows, but statistics failed, sample passed"):
        disagreement(tmp_path, counted=changed(rewards=spoil))


def test_rows_in_the_sample_that_the_contract_overlooked_are_a_bug(tmp_path):
    def spoil(column):
        column[7] = np.inf

    found = measured(good())
    with pytest.raises(RuntimeError, match=r"contract.finite: 0 rows, but statistics passed, sample failed"):
        store_expectations(
            SUITE,
            judge(found, SUITE),
            plain(found),
            statistics=statistics(Dataset(SPEC, rows=good()), FIELDS),
            sample=changed(rewards=spoil),
            fields=FIELDS,
            rows=100,
            folder=tmp_path,
        )


def test_what_it_cannot_judge_is_an_error_not_a_failure():
    table = scorecard_table(SUITE, judge([MEAN], SUITE), plain([MEAN]))
    del table.frame["marginals.mean"]
    with pytest.raises(RuntimeError, match="could not judge the table 'scorecard'"):
        check("scorecard", table)
