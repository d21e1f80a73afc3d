"""Dependence: do columns move together as they do in real rows? SDMetrics' CorrelationSimilarity, from its definition.

Score of a pair of columns: 1 - |rho_real - rho_synthetic| / 2 with Pearson's rho; the value is the mean over pairs.
It sees shuffled columns, which the marginals cannot; it is blind to anything that is not linear.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.metric import Measurement, floor_of, real_halves, subsample

SAMPLE = 50_000
METRICS = ("dependence.correlation",)
SHOWN = 10  # worst pairs in the details
_NUMBERS = ("continuous", "binary")

Floats = npt.NDArray[np.float64]


def pair_scores(real: Floats, synthetic: Floats) -> Floats:
    """`[pairs]`, the score of every pair of columns of `[n, c]` and `[m, c]`, in the order of `numpy.triu_indices`.

    NaN where a column is constant in the real rows, which has no correlation; a column that is constant only in the
    synthetic rows counts as uncorrelated.
    """
    upper = np.triu_indices(real.shape[1], k=1)
    ours = np.nan_to_num(_correlation(synthetic)[upper], nan=0.0)
    scores: Floats = 1.0 - np.abs(_correlation(real)[upper] - ours) / 2.0
    return scores


def _correlation(x: Floats) -> Floats:
    centred = x - x.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    scaled = np.divide(centred, norm, out=np.full_like(centred, np.nan), where=norm > 0)
    rho: Floats = np.clip(scaled.T @ scaled, -1.0, 1.0)
    return rho


def dependence(
    real: Dataset, synthetic: Transitions, fields: tuple[Field, ...], *, sample: int = SAMPLE, seed: int = 0
) -> list[Measurement]:
    """`dependence.correlation` over all channels that are numbers or flags, with its floor between real halves.

    Args:
        real: The real data.
        synthetic: Rows of the store (a sample); rows that are not finite are left out (the table contract counts them).
        fields: Columns to compare.
        sample: Rows of each side.
        seed: Seed of the subsamples.
    """
    rows = real.transitions()
    fields = tuple(f for f in fields if f.kind in _NUMBERS and f.name in rows and f.name in synthetic)
    ours, theirs = _matrix(synthetic, fields, sample, seed, 1), _matrix(rows, fields, sample, seed, 0)
    scores = pair_scores(theirs, ours) if len(ours) and len(theirs) else np.zeros(0)
    if not np.isfinite(scores).any():
        return [_measurement(None, [], {"why": "no rows, or no two columns that vary"}, sample)]
    floors = [
        float(np.nanmean(pair_scores(_matrix(a, fields, sample, seed, 2), _matrix(b, fields, sample, seed, 3))))
        for a, b in real_halves(real, seed=seed)
    ]
    return [_measurement(float(np.nanmean(scores)), floors, {"columns": _worst_pairs(scores, fields)}, sample)]


def _matrix(rows: Transitions, fields: tuple[Field, ...], sample: int, seed: int, address: int) -> Floats:
    rows = subsample(rows, sample, seed=seed, address=address)
    x = np.concatenate([np.asarray(rows[f.name], np.float64).reshape(len(rows), f.size) for f in fields], axis=1)
    kept: Floats = x[np.isfinite(x).all(axis=1)]
    return kept


def _worst_pairs(scores: Floats, fields: tuple[Field, ...]) -> dict[str, float]:
    labels = [f"{f.name}[{i}]" if f.shape else f.name for f in fields for i in range(f.size)]
    first, second = np.triu_indices(len(labels), k=1)
    order = [i for i in np.argsort(scores, kind="stable")[:SHOWN] if np.isfinite(scores[i])]
    return {f"{labels[first[i]]} ~ {labels[second[i]]}": round(float(scores[i]), 6) for i in order}


def _measurement(value: float | None, floors: list[float], details: dict[str, object], sample: int) -> Measurement:
    return Measurement(
        "dependence.correlation",
        value,
        "1 = identical",
        "higher",
        (0.0, 1.0),
        sample,
        "SDMetrics CorrelationSimilarity (Pearson)",
        floor_of(floors, "higher") if floors else None,
        details,
    )
