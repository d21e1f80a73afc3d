"""Fréchet distance: how far apart are the two Gaussians with the means and covariances of real and synthetic rows?

||mu_1 - mu_2||^2 + Tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) (Dowson and Landau 1982), in standard deviations of the real rows:
the score of image generators (FID, Heusel et al. 2017, arXiv:1706.08500) on the columns themselves. It sees every mean,
spread and linear dependence, and nothing beyond them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.c2st import COLUMNS, points, sampled_pairs, standardised
from synth_pipeline.validation.metric import NUM_SPLITS, Measurement, floor_of

SAMPLE = 50_000
FEWEST = 2  # rows of a side that have a covariance
METRICS = tuple(f"frechet.{name}" for name in COLUMNS)
SOURCE = "Fréchet distance between Gaussians (Dowson and Landau 1982; Heusel et al. 2017) on z-scored columns"

Floats = npt.NDArray[np.float64]


def frechet(
    real: Dataset, synthetic: Transitions, *, sample: int = SAMPLE, splits: int = NUM_SPLITS, seed: int = 0
) -> list[Measurement]:
    """`frechet.sa`, `frechet.row`, with floors between real halves.

    Args:
        real: The real data.
        synthetic: What is judged; rows that are not finite are left out (the table contract counts them).
        sample: Rows of each side; fewer rows are farther apart by chance.
        splits: Pairs of real halves that the floor is made from.
        seed: Seed of the subsamples.
    """
    found: dict[str, list[float | None]] = {name: [] for name in COLUMNS}
    for a, b in sampled_pairs(real, synthetic, sample, splits, seed):
        for name, columns in COLUMNS.items():
            sides = points(a, columns), points(b, columns)
            found[name].append(distance(*standardised(*sides)) if min(map(len, sides)) >= FEWEST else None)
    return [_measurement(name, value, floors, sample) for name, (value, *floors) in found.items()]


def distance(real: Floats, synthetic: Floats) -> float:
    """The distance between the Gaussians of `[n, c]` and `[m, c]`, at least two rows each."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # sums of matrix products may depend on the number of threads
        moments = [(rows.mean(axis=0), np.atleast_2d(np.cov(rows, rowvar=False))) for rows in (real, synthetic)]
        return between(*moments[0], *moments[1])


def between(mean: Floats, covariance: Floats, other_mean: Floats, other_covariance: Floats) -> float:
    """The distance between two Gaussians with means `[c]` and covariances `[c, c]`, which may be rank-deficient.

    With S = F F^T, the non-zero eigenvalues of S_1 S_2 are the squared singular values of F_1^T F_2, so the trace of
    the root is their sum: no root of a product that is not symmetric, and of rounding errors, is ever taken.
    """
    first, second = _factor(covariance), _factor(other_covariance)
    shared = np.linalg.svd(first.T @ second, compute_uv=False).sum()
    moved = float(((mean - other_mean) ** 2).sum())
    return max(moved + float(np.trace(covariance) + np.trace(other_covariance) - 2 * shared), 0.0)


def _factor(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    factor: Floats = vectors * np.sqrt(np.maximum(values, 0.0))
    return factor


def _measurement(name: str, value: float | None, found: list[float | None], sample: int) -> Measurement:
    details: dict[str, Any] = {} if value is not None else {"why": f"fewer than {FEWEST} finite rows on a side"}
    floors = [floor for floor in found if floor is not None]
    floor = floor_of(floors, "lower") if floors and value is not None else None
    unit = "squared standard deviations of real rows, over all columns; 0 = the same mean and covariance"
    return Measurement(f"frechet.{name}", value, unit, "lower", (0.0, float("inf")), sample, SOURCE, floor, details)
