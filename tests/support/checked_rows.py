"""Good and spoilt rows, a suite that judges them, and what is kept of their check by Great Expectations."""

import numpy as np
from toy_data import SPEC, toy_rows

from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.contract import contract
from synth_pipeline.validation.expectations import store_expectations
from synth_pipeline.validation.gate import Rule, Suite, judge
from synth_pipeline.validation.metric import Floor, Measurement
from synth_pipeline.validation.statistics import edges_of, statistics

FIELDS = (*SPEC.fields, Field(name="gear", kind="categorical", num_categories=3), Field(name="costs", optional=True))
SUITE = Suite(
    name="mine",
    rules=(
        Rule(metric="contract.schema", at_most=0, why="columns are what they must be"),
        Rule(metric="contract.finite", at_most=0, why="no NaN & no <infinity>"),
        Rule(metric="contract.bounds", at_most=0, why="inside the bounds"),
        Rule(metric="marginals.mean", at_least=0.9, why="like the real columns"),
        Rule(metric="novelty.ratio", verdict="novelty", at_least=0.9, optional=True, why="no copies"),
    ),
)
MEAN = Measurement("marginals.mean", 0.95, "1 = identical", "higher", (0.0, 1.0), 10, "here", Floor(0.97, 0.96))


def good(n=100):
    rows = toy_rows().transitions().take(slice(0, n))
    return rows.with_columns(gear=np.arange(n) % 3)


def changed(**columns):
    """Good rows with columns changed by functions that write into them."""
    rows = good()
    for name, change in columns.items():
        column = rows[name].copy()
        change(column)
        rows = rows.with_columns(**{name: column})
    return rows


def measured(rows, fields=FIELDS):
    return [*contract(Dataset(SPEC, rows=rows), fields), MEAN]


def plain(measurements):
    return [measurement.to_json() for measurement in measurements]


def kept(folder, rows=None, suite=SUITE, fields=FIELDS):
    rows = good() if rows is None else rows
    found = measured(rows, fields)
    return store_expectations(
        suite,
        judge(found, suite),
        plain(found),
        statistics=statistics(Dataset(SPEC, rows=rows), fields, edges_of(good(), fields)),
        sample=rows,
        fields=fields,
        rows=len(rows),
        folder=folder,
    )
