"""Statistics of every column over all rows, streamed in constant memory and mergeable in any grouping.

Mean and squared deviations merge by Chan, Golub and LeVeque 1979 (Updating Formulae and a Pairwise Algorithm for
Computing Sample Variances), which loses no digits where the spread is small beside the mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Integers, Transitions
from synth_pipeline.data.fields import Array, Field
from synth_pipeline.data.rows import RowSource, chunks, over_parts

CHUNK = 65_536
BINS = 32
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ColumnStatistics:
    """What one column holds.

    Attributes:
        types: Names of the types that its parts were read as.
        count: Rows.
        non_finite: Values that are NaN or infinite.
        minimum: Smallest value, infinities included and NaN not; NaN when there is none.
        maximum: Largest value, likewise.
        finite: Finite values.
        mean: Their mean; 0 when there are none.
        squares: Sum of their squared deviations from the mean.
        histogram: `[BINS]`, values in each bin between the edges, the outer ones open; NaN is in none. None: no edges.
    """

    types: frozenset[str]
    count: int
    non_finite: int
    minimum: float
    maximum: float
    finite: int
    mean: float
    squares: float
    histogram: Integers | None

    @classmethod
    def of(cls, values: Array, edges: Floats | None = None) -> ColumnStatistics:
        """Statistics of a column `[n]`, or of `[n, components]` together; edges as `edges_of` gives them."""
        flat = values.astype(np.float64).ravel()
        finite = flat[np.isfinite(flat)]
        with np.errstate(over="ignore", invalid="ignore"):  # beyond 1e154 the spread of finite values is not finite
            mean = float(finite.mean()) if len(finite) else 0.0
            squares = float(np.square(finite - mean).sum())
        return cls(
            types=frozenset({values.dtype.name}),
            count=len(values),
            non_finite=len(flat) - len(finite),
            minimum=float(np.fmin.reduce(flat, initial=np.nan)),
            maximum=float(np.fmax.reduce(flat, initial=np.nan)),
            finite=len(finite),
            mean=mean,
            squares=squares,
            histogram=None if edges is None else _histogram(flat, edges),
        )

    def merge(self, other: ColumnStatistics) -> ColumnStatistics:
        """Statistics of the rows of both, which were counted between the same edges."""
        finite = self.finite + other.finite
        gap, share = other.mean - self.mean, other.finite / max(finite, 1)
        known = self.histogram is not None and other.histogram is not None
        return ColumnStatistics(
            types=self.types | other.types,
            count=self.count + other.count,
            non_finite=self.non_finite + other.non_finite,
            minimum=float(np.fmin(self.minimum, other.minimum)),
            maximum=float(np.fmax(self.maximum, other.maximum)),
            finite=finite,
            mean=self.mean + gap * share,
            squares=self.squares + other.squares + gap * gap * self.finite * share,
            histogram=np.add(self.histogram, other.histogram) if known else None,  # type: ignore[arg-type]
        )

    @property
    def std(self) -> float:
        """Standard deviation of the finite values."""
        return math.sqrt(self.squares / max(self.finite, 1))

    def to_json(self) -> dict[str, Any]:
        """Plain values that strict JSON can hold; what is not finite is None."""
        numbers = {"min": self.minimum, "max": self.maximum, "mean": self.mean, "std": self.std}
        return {
            "types": sorted(self.types),
            "count": self.count,
            "non_finite": self.non_finite,
            **{name: number if math.isfinite(number) else None for name, number in numbers.items()},
            "histogram": None if self.histogram is None else self.histogram.tolist(),
        }


def _histogram(values: Floats, edges: Floats) -> Integers:
    known = values[~np.isnan(values)]
    return np.bincount(np.searchsorted(edges, known, side="right"), minlength=BINS).astype(np.int64)


def components(rows: Transitions, fields: tuple[Field, ...]) -> Iterator[tuple[Field, str, int, Array]]:
    """The columns that can be counted, one scalar column at a time.

    A column that is missing, misshapen or not numeric is left out. The pixels of an image are one column together.

    Yields:
        Field, label (`name`, or `name[i]` where the field has a shape), component, and values `[n]`
        (`[n, components]` for an image).
    """
    for field in fields:
        if field.name not in rows:
            continue
        column = rows[field.name]
        if column.shape[1:] != field.shape or column.dtype.kind not in "biuf":
            continue
        values = column.reshape(len(column), field.size)
        if field.kind == "image":
            yield field, field.name, 0, values
            continue
        for component, label in enumerate(labels(field)):
            yield field, label, component, values[:, component]


def labels(field: Field) -> list[str]:
    """What the components of a field are called."""
    if not field.shape or field.kind == "image":
        return [field.name]
    return [f"{field.name}[{component}]" for component in range(field.size)]


def edges_of(real: Transitions, fields: tuple[Field, ...]) -> dict[str, Floats]:
    """Edges of the histograms: `BINS - 2` equal bins over the range of the real values, and two for all beyond.

    Open outer bins lose no value, however far out, so that any two histograms can be compared.

    Args:
        real: The real rows; values that are not finite are left out.
        fields: Their columns.

    Returns:
        Label -> `[BINS - 1]`, rising; a bin holds its lower edge. Columns without finite values have none.
    """
    edges = {}
    for _, label, _, values in components(real, fields):
        finite = values[np.isfinite(values)].astype(np.float64)
        if len(finite):
            edges[label] = np.linspace(finite.min(), finite.max(), BINS - 1)
            edges[label][-1] = np.nextafter(finite.max(), np.inf)  # the largest real value is inside
    return edges


def statistics(
    rows: RowSource, fields: tuple[Field, ...], edges: Mapping[str, Floats] | None = None
) -> dict[str, ColumnStatistics]:
    """Statistics of every column; all rows are read once, part by part and chunk by chunk.

    Args:
        rows: Where the rows are.
        fields: What the columns are; those that `components` leaves out have no statistics.
        edges: Edges of the histograms by label; a column without them has no histogram.

    Returns:
        Label -> statistics, in the order of the fields.
    """
    merged: dict[str, ColumnStatistics] = {}
    for part in over_parts(rows, partial(_of_part, fields, edges or {})):
        _merge(merged, part)
    return merged


def _of_part(fields: tuple[Field, ...], edges: Mapping[str, Floats], rows: RowSource) -> dict[str, ColumnStatistics]:
    merged: dict[str, ColumnStatistics] = {}
    for chunk in chunks(rows, CHUNK):
        found = components(chunk, fields)
        _merge(merged, {label: ColumnStatistics.of(values, edges.get(label)) for _, label, _, values in found})
    return merged


def _merge(merged: dict[str, ColumnStatistics], more: Mapping[str, ColumnStatistics]) -> None:
    for label, part in more.items():
        merged[label] = merged[label].merge(part) if label in merged else part
