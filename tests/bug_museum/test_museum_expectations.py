"""What Great Expectations lets pass or cannot keep when it is used as its pages suggest, and ours beside it."""

import json
import re

import numpy as np
import pandas
import pytest
from toy_data import SPEC, toy_rows

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.expectations import (
    Table,
    check,
    great_expectations,
    sample_table,
    scorecard_table,
    statistics_table,
    store_expectations,
)
from synth_pipeline.validation.gate import Rule, Suite, judge
from synth_pipeline.validation.metric import Measurement
from synth_pipeline.validation.statistics import BINS, edges_of, statistics

REWARDS = (Field(name="rewards"),)


def said(frame, *expectations):
    """Success of expectations on a table, in their order."""
    return [one.success for one in check("naive", Table(frame, list(expectations))).results]


def failed(table):
    return {one.expectation_config.meta["metric"] for one in check("ours", table).results if not one.success}


def rewards(values):
    return Transitions({"rewards": np.asarray(values, np.float32)})


@pytest.fixture
def gxe():
    return great_expectations().expectations


def test_an_infinity_is_not_null(gxe):
    """ "Not null" lets an infinity pass, and so does a range that one row in a hundred may miss."""
    rows = rewards([*np.linspace(0, 1, 199), np.inf])
    frame = pandas.DataFrame({"rewards": rows["rewards"]})
    not_null = gxe.ExpectColumnValuesToNotBeNull(column="rewards", meta={})
    mostly = gxe.ExpectColumnValuesToBeBetween(column="rewards", min_value=-9, max_value=9, mostly=0.99, meta={})
    assert said(frame, not_null, mostly) == [True, True]
    assert failed(sample_table(rows, REWARDS)) == {"contract.finite"}
    counted = statistics(Dataset(SPEC, rows=rows), REWARDS)
    assert failed(statistics_table(counted, REWARDS, 200)) == {"contract.finite"}


def test_quantile_expectations_cannot_be_stored(gxe, tmp_path):
    """The result holds a NumPy flag that no JSON can; ours is a quantile that we measured, held against a rule."""
    frame = pandas.DataFrame({"errors": np.linspace(0, 1, 101)})
    ranges = {"quantiles": [0.95], "value_ranges": [[0.9, 1.0]]}
    naive = gxe.ExpectColumnQuantileValuesToBeBetween(column="errors", quantile_ranges=ranges, meta={})
    result = check("naive", Table(frame, [naive]))
    assert result.success
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(result.to_json_dict())
    measured = [Measurement("oracle.p95", 0.95, "share", "lower", (0.0, 1.0), 101, "here")]
    store(tmp_path, toy_rows().transitions(), measured, Suite(name="x", rules=(Rule(metric="oracle.p95", at_most=1),)))
    assert json.loads((tmp_path / "results" / "scorecard.json").read_text())["success"] is True


def test_one_value_outside_the_bins_makes_divergence_infinite(gxe):
    """Bins over the range of the real data alone: one value beyond them, and 10,000 good ones count for nothing."""
    rng = np.random.default_rng(0)
    real, synthetic = rewards(rng.standard_normal(10_000)), rewards([*rng.standard_normal(10_000), 7.0])
    edges = edges_of(real, REWARDS)
    frame = pandas.DataFrame({"rewards": synthetic["rewards"].astype(float)})
    counts = [statistics(Dataset(SPEC, rows=rows), REWARDS, edges)["rewards"].histogram for rows in (real, synthetic)]
    assert [len(count) for count in counts] == [BINS, BINS]
    assert counts[1][-1] > counts[0][-1] == 0  # what lies beyond is counted, not lost
    closed, opened = edges["rewards"].tolist(), [-np.inf, *edges["rewards"].tolist(), np.inf]
    naive = {"bins": closed, "weights": (counts[0][1:-1] / counts[0].sum()).tolist()}
    ours = {"bins": opened, "weights": ((counts[0] + 1) / (counts[0] + 1).sum()).tolist()}
    divergences = [
        gxe.ExpectColumnKLDivergenceToBeLessThan(column="rewards", threshold=0.1, partition_object=bins, meta={})
        for bins in (naive, ours)
    ]
    results = check("naive", Table(frame, divergences)).results
    assert [one.success for one in results] == [False, True]
    assert results[0].result["observed_value"] is None
    assert results[1].result["observed_value"] < 0.02


def test_pages_of_great_expectations_load_from_the_network(tmp_path):
    """Its pages are bare without a dozen files from other hosts; without an icon font, nothing says "passed"."""
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    suite = Suite(name="x", rules=(Rule(metric="a.b", at_least=0),))
    measured = [Measurement("a.b", 1.0, "share", "higher", (0.0, 1.0), 1, "here")]
    result = check("scorecard", scorecard_table(suite, judge(measured, suite), [measured[0].to_json()]))
    naive = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(result))
    loads = r"<(?:script|link|img)[^>]*(?:src|href)=.https?://"
    assert len(re.findall(loads, naive)) > 8
    assert "passed" not in naive.lower()
    store(tmp_path, toy_rows().transitions(), measured, suite)
    ours = (tmp_path / "data_docs" / "scorecard.html").read_text()
    assert not re.findall(loads, ours)
    assert "passed" in ours


def test_a_range_on_nothing_passes(gxe):
    """Nulls are skipped value by value: a metric that was not measured passes any threshold."""
    naive = gxe.ExpectColumnValuesToBeBetween(column="a.b", min_value=0.9, meta={})
    assert said(pandas.DataFrame({"a.b": [np.nan]}), naive) == [True]
    suite = Suite(name="x", rules=(Rule(metric="a.b", at_least=0.9),))
    assert not judge([], suite).passed
    assert failed(scorecard_table(suite, judge([], suite), [])) == {"a.b"}


def test_rules_that_differ_in_what_they_mean_alone_are_merged(gxe):
    """`add_expectation` keeps one of two that are equal but for their meta: a rule would vanish without a word."""
    naive = great_expectations().ExpectationSuite(name="naive")
    for verdict in ("fidelity", "novelty"):
        naive.add_expectation(gxe.ExpectColumnMinToBeBetween(column="a.b", min_value=0, meta={"verdict": verdict}))
    assert len(naive.expectations) == 1
    rules = tuple(Rule(metric="a.b", at_least=0, verdict=verdict) for verdict in ("fidelity", "novelty"))
    suite = Suite(name="x", rules=rules)
    result = check("scorecard", scorecard_table(suite, judge([], suite), []))
    assert [one.expectation_config.meta["verdict"] for one in result.results] == ["fidelity", "novelty"]


def store(folder, rows, measured, suite):
    return store_expectations(
        suite,
        judge(measured, suite),
        [measurement.to_json() for measurement in measured],
        statistics=statistics(Dataset(SPEC, rows=rows), SPEC.fields),
        sample=rows,
        fields=SPEC.fields,
        rows=len(rows),
        folder=folder,
    )
