"""The table contract: exact, over all rows, streamed. A single row that breaks it fails the gate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Array, Field
from synth_pipeline.data.rows import RowSource, chunks, over_parts
from synth_pipeline.validation.metric import Measurement

CHUNK = 65_536
Counts = dict[str, dict[str, int]]  # check -> column -> offending rows


def contract(
    rows: RowSource, fields: tuple[Field, ...], terminated: Callable[[Array], Array] | None = None
) -> list[Measurement]:
    """Count the rows that break the table contract.

    Args:
        rows: Every row of the store is read once, part by part and chunk by chunk.
        fields: What each column must be.
        terminated: The environment's termination function of next observations; None: not checked.

    Returns:
        `contract.schema` (columns that are missing or misshapen), `contract.finite`, `contract.bounds` and,
        with a known function, `contract.terminations` (judged on finite rows): numbers of offending rows.
    """
    counts = _nothing()
    if len(rows) == 0:
        counts["schema"]["(rows)"] = 1
    for part in over_parts(rows, partial(_counted, fields, terminated)):
        for name, by_field in part.items():
            for field, number in by_field.items():
                _add(counts[name], field, number)
    if terminated is None:
        del counts["terminations"]
    return [_measurement(name, by_field, len(rows)) for name, by_field in counts.items()]


def _nothing() -> Counts:
    return {"schema": {}, "finite": {}, "bounds": {}, "terminations": {}}


def _counted(fields: tuple[Field, ...], terminated: Callable[[Array], Array] | None, rows: RowSource) -> Counts:
    counts = _nothing()
    for chunk in chunks(rows, CHUNK):
        _check(chunk, fields, terminated, counts)
    return counts


def _check(
    chunk: Transitions,
    fields: tuple[Field, ...],
    terminated: Callable[[Array], Array] | None,
    counts: Counts,
) -> None:
    sound: dict[str, Array] = {}  # columns of the right shape and type, by name: which rows are finite
    for field in fields:
        if field.name not in chunk:
            _add(counts["schema"], field.name, 0 if field.optional else len(chunk))
            continue
        column = chunk[field.name]
        if column.shape[1:] != field.shape or column.dtype != field.dtype:
            _add(counts["schema"], field.name, len(chunk))
        if column.shape[1:] != field.shape or column.dtype.kind not in "biuf":
            continue
        values = column.reshape(len(chunk), -1)
        finite: Array = np.all(np.isfinite(values), axis=1)
        _add(counts["finite"], field.name, int((~finite).sum()))
        _add(counts["bounds"], field.name, _out_of_bounds(field, values))
        sound[field.name] = finite
    if terminated is not None and "terminations" in sound and "next_observations" in sound:
        rows = sound["next_observations"]
        wrong = terminated(chunk["next_observations"][rows]) != chunk["terminations"][rows]
        _add(counts["terminations"], "terminations", int(wrong.sum()))


def _out_of_bounds(field: Field, values: Array) -> int:
    bad = np.zeros(len(values), bool)
    if field.low is not None:
        bad |= (values < np.asarray(field.low, field.dtype)).any(axis=1)
    if field.high is not None:
        bad |= (values > np.asarray(field.high, field.dtype)).any(axis=1)
    if field.num_categories is not None:
        bad |= ((values < 0) | (values >= field.num_categories)).any(axis=1)
    return int(bad.sum())


def _add(counts: dict[str, int], name: str, number: int) -> None:
    if number:
        counts[name] = counts.get(name, 0) + number


def _measurement(name: str, by_field: dict[str, int], total: int) -> Measurement:
    details: dict[str, Any] = {"fields": by_field, "rows": total}
    return Measurement(
        f"contract.{name}",
        float(sum(by_field.values())),
        "rows",
        "lower",
        (0.0, float("inf")),
        total,
        "table contract of the store's schema",
        details=details,
    )
