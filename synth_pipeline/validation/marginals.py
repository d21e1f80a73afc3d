"""Marginals: does every single column look real? SDMetrics' column-shape score, from its definition.

Continuous channels: KSComplement = 1 - sup_x |F_real(x) - F_synthetic(x)|. Flags and classes: TVComplement
= 1 - 1/2 sum_c |p_real(c) - p_synthetic(c)|. Necessary, never sufficient: shuffling every column keeps both at 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Array, Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import SourceError
from synth_pipeline.validation.metric import Floor, Measurement, floor_of, real_halves, subsample

SAMPLE = 50_000
SOURCE = "SDMetrics KSComplement and TVComplement (Column Shapes)"


def ks_complement(real: Array, synthetic: Array) -> float:
    """1 - the Kolmogorov-Smirnov statistic of two samples `[n]`, `[m]`; 1 is identical, 0 disjoint."""
    a, b = np.sort(real), np.sort(synthetic)
    points = np.concatenate([a, b])
    return float(1.0 - np.abs(_cdf(a, points) - _cdf(b, points)).max())


def _cdf(ordered: Array, points: Array) -> npt.NDArray[np.float64]:
    return np.searchsorted(ordered, points, side="right") / len(ordered)


def tv_complement(real: Array, synthetic: Array) -> float:
    """1 - the total-variation distance of two samples of flags or classes."""
    classes = np.union1d(real, synthetic)
    gaps = [abs(float(np.mean(real == value)) - float(np.mean(synthetic == value))) for value in classes]
    return 1.0 - 0.5 * sum(gaps)


def column_scores(real: Transitions, synthetic: Transitions, fields: tuple[Field, ...]) -> dict[str, float]:
    """Complement of every channel, by `name` or `name[i]`; optional columns that one side lacks are left out.

    Raises:
        UnknownNameError: When a side lacks a column.
        SourceError: When a column has another shape than its field.
    """
    scores = {}
    for field in fields:
        if field.optional and not (field.name in real and field.name in synthetic):
            continue
        a, b = (_flat(rows[field.name], field) for rows in (real, synthetic))
        score = ks_complement if field.kind == "continuous" else tv_complement
        for channel in range(field.size):
            label = f"{field.name}[{channel}]" if field.shape else field.name
            scores[label] = score(a[:, channel], b[:, channel])
    return scores


def _flat(column: Array, field: Field) -> Array:
    if column.shape[1:] != field.shape:
        raise SourceError(f"column '{field.name}' has the wrong shape", found=column.shape[1:], accepted=field.shape)
    return column.reshape(len(column), -1)


def marginals(
    real: Dataset, synthetic: Transitions, fields: tuple[Field, ...], *, sample: int = SAMPLE, seed: int = 0
) -> list[Measurement]:
    """`marginals.mean` and `marginals.worst` over all channels, with floors between real halves.

    Args:
        real: The real data that the store is judged against.
        synthetic: Rows of the store (a sample).
        fields: Columns to compare.
        sample: Rows of each side.
        seed: Seed of the subsamples.

    Returns:
        Both with the value None when one side has no rows.
    """
    if not len(real) or not len(synthetic):
        why = {"why": f"{len(real)} real and {len(synthetic)} synthetic rows"}
        return [_measurement(name, None, [], why, sample) for name in ("mean", "worst")]
    chosen = subsample(real.transitions(), sample, seed=seed, address=0)
    scores = column_scores(chosen, subsample(synthetic, sample, seed=seed, address=1), fields)
    floors = [
        column_scores(subsample(a, sample, seed=seed, address=2), subsample(b, sample, seed=seed, address=3), fields)
        for a, b in real_halves(real, seed=seed)
    ]
    details = {"columns": {label: round(score, 6) for label, score in scores.items()}}
    return [
        _measurement(name, summary(scores), [summary(floor) for floor in floors], details, sample)
        for name, summary in (("mean", _mean), ("worst", _worst))
    ]


def _mean(scores: Mapping[str, float]) -> float:
    return float(np.mean(list(scores.values())))


def _worst(scores: Mapping[str, float]) -> float:
    return min(scores.values())


def _measurement(
    name: str, value: float | None, floors: list[float], details: dict[str, Any], sample: int
) -> Measurement:
    floor: Floor | None = floor_of(floors, "higher") if floors else None
    return Measurement(
        f"marginals.{name}", value, "1 = identical", "higher", (0.0, 1.0), sample, SOURCE, floor, details
    )
