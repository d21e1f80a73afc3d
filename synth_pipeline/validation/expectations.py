"""The gate once more as Great Expectations: results to keep, and Data Docs to read.

A suite becomes expectations over three small tables: statistics of every column over all rows, a sample of the rows,
and the scorecard in one row. Our verdict is the one that counts. Great Expectations has to agree with it rule by rule,
and with the table contract; where it does not, one of the two has a bug, whatever the data.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Array, Field
from synth_pipeline.runs import write_bytes, write_json
from synth_pipeline.validation.data_docs import pages
from synth_pipeline.validation.gate import Suite, Verdict
from synth_pipeline.validation.statistics import ColumnStatistics, Floats, components, labels

SCHEMA, FINITE, BOUNDS = (f"contract.{name}" for name in ("schema", "finite", "bounds"))


@dataclass(frozen=True)
class Table:
    """A small table and what is expected of it.

    Attributes:
        frame: The table (pandas).
        expectations: Each names in its meta the metric that it stands for, and on the scorecard the rule.
        left_out: Meta of the rules that expect nothing.
        key: Column that names the rows.
    """

    frame: Any
    expectations: list[Any]
    left_out: tuple[dict[str, Any], ...] = ()
    key: str | None = None


def store_expectations(
    suite: Suite,
    verdict: Verdict,
    measurements: Sequence[Mapping[str, Any]],
    *,
    statistics: Mapping[str, ColumnStatistics],
    sample: Transitions,
    fields: tuple[Field, ...],
    rows: int,
    folder: Path,
) -> dict[str, Any]:
    """Check the three tables, and keep suites, results, statistics and Data Docs.

    The files do not tell when or where they were made: the same inputs give the same bytes.

    Args:
        suite: The rules.
        verdict: What `judge` said.
        measurements: As the scorecard holds them.
        statistics: Of all rows.
        sample: Some of the rows, to be looked at one by one.
        fields: What every column must be.
        rows: Number of all rows.
        folder: Where to: `suites/<table>.json`, `results/<table>.json`, `statistics.json`, `data_docs/index.html`.

    Returns:
        Plain JSON. `great_expectations`: its version. `tables`: how many expectations each has, and how many passed.
        `rules`: in the order of the suite, the type of the expectation and whether it passed; None: nothing expected.

    Raises:
        RuntimeError: When Great Expectations disagrees with the verdict or the contract, or cannot judge.
    """
    fields = expected_fields(fields, sample)
    tables = {
        "statistics": statistics_table(statistics, fields, rows),
        "sample": sample_table(sample, fields),
        "scorecard": scorecard_table(suite, verdict, measurements),
    }
    results = {name: check(name, table) for name, table in tables.items()}
    require_agreement(verdict, measurements, results)
    summary = _summary(verdict, results)
    for name, table in tables.items():
        expected = [expectation.configuration.to_json_dict() for expectation in table.expectations]
        named = {"name": name, "expectations": expected, "meta": {"left_out": table.left_out}}
        write_json(folder / "suites" / f"{name}.json", _plain(named))
        write_json(folder / "results" / f"{name}.json", _plain(results[name].to_json_dict()))
    write_json(folder / "statistics.json", {label: column.to_json() for label, column in statistics.items()})
    for file, page in pages(verdict, summary, results).items():
        write_bytes(folder / "data_docs" / file, page.encode())
    return summary


def great_expectations() -> Any:
    """The package with its telemetry off; the first call takes seconds."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"module 'sre_\w+' is deprecated", DeprecationWarning)
        import great_expectations
    return great_expectations


def expected_fields(fields: tuple[Field, ...], rows: Transitions) -> tuple[Field, ...]:
    """The fields whose columns must be there: an optional one only where the rows have it."""
    return tuple(field for field in fields if not field.optional or field.name in rows)


# --- tables ----------------------------------------------------------------------------------------------------------


def statistics_table(statistics: Mapping[str, ColumnStatistics], fields: tuple[Field, ...], rows: int) -> Table:
    """One row a column: each is there, of its type, as long as the table, finite, and inside its bounds.

    Args:
        statistics: Of all rows, by label.
        fields: What its columns must be.
        rows: Number of all rows.
    """
    import pandas

    gxe = great_expectations().expectations
    known = {label: (field, i) for field in fields for i, label in enumerate(labels(field))}
    places = [known[label] for label in statistics]
    columns = statistics.values()
    frame = pandas.DataFrame(
        {
            "column": list(statistics),
            "type": [", ".join(sorted(column.types)) for column in columns],
            "type of the field": [field.dtype.name for field, _ in places],
            "rows": [column.count for column in columns],
            "not finite": [column.non_finite for column in columns],
            "low": [bounds(field)[0][i] for field, i in places],
            "min": [column.minimum for column in columns],
            "max": [column.maximum for column in columns],
            "high": [bounds(field)[1][i] for field, i in places],
            "mean": [column.mean for column in columns],
            "std": [column.std for column in columns],
        }
    )
    pair, above = gxe.ExpectColumnPairValuesToBeEqual, gxe.ExpectColumnPairValuesAToBeGreaterThanB
    inside = {"or_equal": True, "ignore_row_if": "either_value_is_missing", "meta": {"metric": BOUNDS}}
    schema: dict[str, Any] = {"meta": {"metric": SCHEMA}}
    expectations = [
        gxe.ExpectColumnDistinctValuesToContainSet(column="column", value_set=list(known), **schema),
        pair(column_A="type", column_B="type of the field", **schema),
        gxe.ExpectColumnValuesToBeInSet(column="rows", value_set=[rows], **schema),
        gxe.ExpectColumnValuesToBeInSet(column="not finite", value_set=[0], meta={"metric": FINITE}),
        above(column_A="min", column_B="low", **inside),
        above(column_A="high", column_B="max", **inside),
    ]
    return Table(frame, expectations, key="column")


def sample_table(sample: Transitions, fields: tuple[Field, ...]) -> Table:
    """The rows as they are: types, finite values, bounds, flags.

    Args:
        sample: Rows; columns that are missing or misshapen are missing in the table.
        fields: What the columns must be; images are left out.
    """
    import pandas

    gxe = great_expectations().expectations
    vectors = tuple(field for field in fields if field.kind != "image")
    columns = {label: (field, i, values) for field, label, i, values in components(sample, vectors)}
    required = [label for field in vectors for label in labels(field)]
    expectations = [gxe.ExpectTableColumnsToMatchSet(column_set=required, exact_match=False, meta={"metric": SCHEMA})]
    for label, (field, component, values) in columns.items():
        low, high = (float(bound[component]) for bound in bounds(field))
        expectations += _of_column(label, field, values, low, high)
    return Table(pandas.DataFrame({label: values for label, (_, _, values) in columns.items()}), expectations)


def _of_column(label: str, field: Field, values: Array, low: float, high: float) -> list[Any]:
    gxe = great_expectations().expectations
    kind = values.dtype.kind
    schema: dict[str, Any] = {"column": label, "meta": {"metric": SCHEMA}}
    expected = [gxe.ExpectColumnValuesToBeOfType(type_=field.dtype.name, **schema)]
    if field.kind == "binary":
        expected.append(gxe.ExpectColumnValuesToBeInSet(value_set=[True, False], **schema))
    if kind == "f" and len(values):  # an infinity is not null; it lies outside the range of its type
        largest = float(np.finfo(values.dtype).max)
        finite: dict[str, Any] = {"column": label, "meta": {"metric": FINITE}}
        expected += [
            gxe.ExpectColumnValuesToNotBeNull(**finite),
            gxe.ExpectColumnMinToBeBetween(min_value=-largest, **finite),
            gxe.ExpectColumnMaxToBeBetween(max_value=largest, **finite),
        ]
    if kind in "iuf" and (math.isfinite(low) or math.isfinite(high)):
        ends = {name: end for name, end in (("min_value", low), ("max_value", high)) if math.isfinite(end)}
        expected.append(gxe.ExpectColumnValuesToBeBetween(column=label, meta={"metric": BOUNDS}, **ends))
    return expected


def bounds(field: Field) -> tuple[Floats, Floats]:
    """Lowest and highest value of each component, as the column's type holds them; infinite where there is none."""
    low, high = np.full(field.size, -np.inf), np.full(field.size, np.inf)
    if field.low is not None:
        low = np.asarray(field.low, field.dtype).astype(np.float64)
    if field.high is not None:
        high = np.asarray(field.high, field.dtype).astype(np.float64)
    if field.num_categories is not None:
        low, high = np.maximum(low, 0), np.minimum(high, field.num_categories - 1)
    return low, high


def scorecard_table(suite: Suite, verdict: Verdict, measurements: Sequence[Mapping[str, Any]]) -> Table:
    """One row, one column for each metric that has a rule; each rule is a threshold on its column.

    What was not measured is null. The smallest and the largest value of nothing are not between anything, where values
    one by one would be ignored: so a rule on it fails, unless it is optional and expects nothing. A margin on a floor
    is the threshold that it came to.

    Args:
        suite: The rules.
        verdict: What `judge` said; only for the notes.
        measurements: As the scorecard holds them.
    """
    import pandas

    gxe = great_expectations().expectations
    measured = {measurement["metric"]: measurement["value"] for measurement in measurements}
    expectations, left_out = [], []
    for number, (rule, said) in enumerate(zip(suite.rules, verdict.rules, strict=True)):
        floor = None if said.floor is None else asdict(said.floor)
        meta = {"metric": rule.metric, "rule": number, "verdict": rule.verdict, "why": rule.why, "floor": floor}
        if rule.optional and said.value is None:
            left_out.append(meta)
            continue
        about = {"column": rule.metric, "notes": f"{rule.why} ({said.sentence()})", "meta": meta}
        if said.low is None and said.high is None:  # a margin on a floor that is not there
            expectations.append(gxe.ExpectColumnToExist(**{**about, "column": f"floor of {rule.metric}"}))
        elif said.low is not None:
            expectations.append(gxe.ExpectColumnMinToBeBetween(min_value=said.low, max_value=said.high, **about))
        else:
            expectations.append(gxe.ExpectColumnMaxToBeBetween(max_value=said.high, **about))
    row = {rule.metric: [measured.get(rule.metric)] for rule in suite.rules}
    return Table(pandas.DataFrame(row, dtype=np.float64), expectations, tuple(left_out))


# --- results ---------------------------------------------------------------------------------------------------------


def check(name: str, table: Table) -> Any:
    """What Great Expectations says of a table: its validation result, in the order of the expectations.

    Raises:
        RuntimeError: When an expectation could not be judged.
    """
    gx = great_expectations()
    batch = _context(gx).data_sources.add_pandas("tables").add_dataframe_asset(name)
    batch = batch.add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": table.frame})
    for number, expectation in enumerate(table.expectations):
        expectation.meta = {**expectation.meta, "number": number}
    shown: dict[str, Any] = {"result_format": "SUMMARY"}
    if table.key is not None:
        named = {"unexpected_index_column_names": [table.key], "return_unexpected_index_query": False}
        shown = {"result_format": "COMPLETE", **named}
    # The list goes to the constructor: add_expectation drops what is equal but for its meta, e.g. two equal rules.
    asked = gx.ExpectationSuite(name=name, expectations=table.expectations)
    result = batch.validate(asked, result_format=shown)
    result.meta = {}  # when it was made, and by which batch
    for one in result.results:
        one.result = _plain(one.result)  # numbers of NumPy overflow when stored, and are missing on the pages
    result.results.sort(key=lambda one: one.expectation_config.meta["number"])
    raised = [one.exception_info for one in result.results if _raised(one.exception_info)]
    if raised or len(result.results) != len(table.expectations):
        raise RuntimeError(f"Great Expectations could not judge the table '{name}': {raised or result}")
    return result


def _raised(info: Mapping[str, Any]) -> bool:
    """Whether an expectation met an exception; those of its metrics stand one level down, by metric."""
    return any(one.get("raised_exception") for one in (info, *info.values()) if isinstance(one, Mapping))


def _context(gx: Any) -> Any:
    """A context that lives in memory, sends nothing and draws no progress bars."""
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    return gx.get_context(project_config=config, mode="ephemeral")


def require_agreement(verdict: Verdict, measurements: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> None:
    """Fail when Great Expectations and we do not say the same.

    Rules one by one; and what the table contract counted over all rows must show in the statistics of all rows, and
    nothing that it did not count may show in the sample.

    Raises:
        RuntimeError: With every disagreement.
    """
    said = _by_rule(results["scorecard"])
    wrong = [
        f"{rule.sentence()}: the gate says {_word(rule.passed)}, not {_word(passed)}"
        for number, rule in enumerate(verdict.rules)
        if (passed := said[number].success if number in said else True) != rule.passed
    ]
    failed = {
        name: {one.expectation_config.meta["metric"] for one in results[name].results if not one.success}
        for name in ("statistics", "sample")
    }
    for measurement in measurements:
        metric, broken = measurement["metric"], bool(measurement["value"])
        if metric not in (SCHEMA, FINITE, BOUNDS):
            continue
        if (metric in failed["statistics"]) != broken or (metric in failed["sample"] and not broken):
            tables = ", ".join(f"{name} {_word(metric not in metrics)}" for name, metrics in failed.items())
            wrong.append(f"{metric}: {measurement['value']:g} rows, but {tables}")
    if wrong:
        raise RuntimeError(f"Great Expectations disagrees with the gate, one of them has a bug: {'; '.join(wrong)}")


def _summary(verdict: Verdict, results: Mapping[str, Any]) -> dict[str, Any]:
    said = _by_rule(results["scorecard"])
    tables = {
        name: {"expectations": len(result.results), "passed": sum(one.success for one in result.results)}
        for name, result in results.items()
    }
    rules = [
        {
            "metric": rule.metric,
            "expectation": said[number].expectation_config.type if number in said else None,
            "passed": said[number].success if number in said else None,
        }
        for number, rule in enumerate(verdict.rules)
    ]
    return {"great_expectations": great_expectations().__version__, "tables": tables, "rules": rules}


def _by_rule(result: Any) -> dict[int, Any]:
    return {one.expectation_config.meta["rule"]: one for one in result.results}


def _word(passed: bool) -> str:
    return "passed" if passed else "failed"


def _plain(values: Any) -> Any:
    """Values that strict JSON can hold: numbers of Python; infinities and NaN become their names."""
    if isinstance(values, Mapping):
        return {str(name): _plain(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    if isinstance(values, np.number):
        values = values.item()
    return str(values) if isinstance(values, float) and not math.isfinite(values) else values
