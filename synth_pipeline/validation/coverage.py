"""Coverage: is every part of the state-action space visited, and as often as real rows visit it?

The real (s, a), z-scored, are cut into cells by k-means. `coverage.distance` is the total variation between the shares
of rows that fall into them; `coverage.rare` is the share of the rarest fifth of the cells that synthetic rows visit
between half and twice as often: what a generator drops first. Source: recall by clusters (Sajjadi et al. 2018,
arXiv:1806.00035), without their reduction to one curve.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.seeding import Stage, integer_seed
from synth_pipeline.validation.c2st import points
from synth_pipeline.validation.metric import NUM_SPLITS, Measurement, floor_of, real_halves, subsample
from synth_pipeline.validation.neighbours import STATE_ACTION

SAMPLE = 50_000
CELLS = 200
ROWS_A_CELL = 50  # at least, on average: fewer, and a share is noise
FITTED = 20_000  # real rows that the cells are fitted on
RARE = 0.2
METRICS = ("coverage.distance", "coverage.rare")
SOURCE = "occupancy of k-means cells (after Sajjadi et al. 2018)"

Floats = npt.NDArray[np.float64]


class Cells:
    """A partition of the state-action space.

    Args:
        rows: Real rows.
        count: Number of cells; fewer when there are fewer than 50 rows a cell.
        seed: Seed of the k-means.
    """

    def __init__(self, rows: Transitions, *, count: int = CELLS, seed: int = 0) -> None:
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        fitted = points(subsample(rows, FITTED, seed=seed, address=5), STATE_ACTION)
        spread = fitted.std(axis=0)
        self._shift, self._scale = fitted.mean(axis=0), np.where(spread > 0, spread, 1.0)
        state = integer_seed(seed, Stage.VALIDATE, 5) % 2**32
        means = KMeans(min(count, max(len(fitted) // ROWS_A_CELL, 1)), n_init=1, max_iter=20, random_state=state)
        with threadpool_limits(1):  # its sums, and with them its cells, depend on the number of threads
            self._tree = cKDTree(means.fit((fitted - self._shift) / self._scale).cluster_centers_)

    def shares(self, rows: Transitions) -> Floats:
        """`[cells]`, share of the finite rows in each cell."""
        x = (points(rows, STATE_ACTION) - self._shift) / self._scale
        counts = np.bincount(self._tree.query(x)[1], minlength=self._tree.n)
        shares: Floats = counts / max(len(x), 1)
        return shares


def coverage(
    real: Dataset, synthetic: Transitions, *, sample: int = SAMPLE, splits: int = NUM_SPLITS, seed: int = 0
) -> list[Measurement]:
    """`coverage.distance` and `coverage.rare`, with floors between real halves.

    Args:
        real: The real data.
        synthetic: What is judged; rows that are not finite are left out (the table contract counts them).
        sample: Rows of each side.
        splits: Pairs of real halves that the floor is made from.
        seed: Seed of the cells and the subsamples.
    """
    rows, ours = real.transitions(), subsample(synthetic, sample, seed=seed, address=1)
    if not len(points(rows, STATE_ACTION)) or not len(points(ours, STATE_ACTION)):
        why = {"why": f"{len(rows)} real and {len(ours)} synthetic rows, not both with finite ones"}
        return [_measurement(name, None, [], why, sample) for name in ("distance", "rare")]
    cells = Cells(rows, seed=seed)
    theirs, generated = cells.shares(subsample(rows, sample, seed=seed, address=0)), cells.shares(ours)
    rare = np.argsort(theirs, kind="stable")[: max(int(RARE * len(theirs)), 1)]
    halves = [
        [cells.shares(subsample(half, sample, seed=seed, address=2 + i)) for i, half in enumerate(pair)]
        for pair in real_halves(real, splits=splits, seed=seed)
    ]
    details = {"cells": len(theirs), "empty cells": int((generated == 0).sum()), "rare cells": len(rare)}
    far, seen = [distance(a, b) for a, b in halves], [visited(a[rare], b[rare]) for a, b in halves]
    return [
        _measurement("distance", distance(theirs, generated), far, details, sample),
        _measurement("rare", visited(theirs[rare], generated[rare]), seen, details, sample),
    ]


def distance(first: Floats, second: Floats) -> float:
    """Total variation of two distributions over the same cells."""
    return float(0.5 * np.abs(first - second).sum())


def visited(real: Floats, synthetic: Floats) -> float:
    """Share of cells whose share is between half and twice the real one; cells that real rows lack do not count."""
    there = real > 0
    ratio = synthetic[there] / real[there]
    return float(((ratio >= 0.5) & (ratio <= 2.0)).mean()) if there.any() else 1.0


def _measurement(
    name: str, value: float | None, floors: list[float], details: dict[str, Any], sample: int
) -> Measurement:
    direction: Literal["higher", "lower"] = "lower" if name == "distance" else "higher"
    unit = "0 = as often everywhere" if name == "distance" else "share of rare cells visited 0.5 to 2 times as often"
    floor = floor_of(floors, direction) if floors else None
    return Measurement(f"coverage.{name}", value, unit, direction, (0.0, 1.0), sample, SOURCE, floor, details)
