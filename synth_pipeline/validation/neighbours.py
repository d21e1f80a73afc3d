"""Exact distances to the nearest training row, fast in few dimensions and in many."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from threadpoolctl import threadpool_limits

from synth_pipeline.data.containers import Transitions
from synth_pipeline.machine import usable_threads

Floats = npt.NDArray[np.float64]
STATE_ACTION = ("observations", "actions")
ROW = ("observations", "actions", "rewards", "next_observations")
MANY = 20  # dimensions from which a tree visits so many leaves that plain matrix products are faster
BLOCK = 32  # queries at once
SLACK = 1e-5  # relative error of a squared distance from float32 products, generously


class Neighbours:
    """Nearest-neighbour distances to training rows.

    Args:
        training: The rows that a generator has seen.
        columns: Columns that make up a point; each channel is z-scored.
        scored_by: Rows that it is z-scored with, so that distances to several tables are alike; None: the training
            rows.
    """

    def __init__(
        self, training: Transitions, columns: tuple[str, ...] = STATE_ACTION, *, scored_by: Transitions | None = None
    ) -> None:
        self.columns = columns
        points = self._points(training)
        known = points if scored_by is None else self._points(scored_by)
        self._shift, spread = known.mean(axis=0), known.std(axis=0)
        self._scale = np.where(spread > 0, spread, 1.0)
        scored = (points - self._shift) / self._scale
        self._search = _Tree(scored) if scored.shape[1] < MANY else _Products(scored)

    def distances(self, rows: Transitions) -> Floats:
        """`[n]`, z-scored Euclidean distance to the nearest training row; NaN for rows that are not finite."""
        points = (self._points(rows) - self._shift) / self._scale
        finite = np.isfinite(points).all(axis=1)
        result = np.full(len(points), np.nan)
        result[finite] = self._search(points[finite])
        return result

    def _points(self, rows: Transitions) -> Floats:
        parts = [np.asarray(rows[name], np.float64) for name in self.columns]
        return np.concatenate([part.reshape(len(part), int(np.prod(part.shape[1:]))) for part in parts], axis=1)


class _Tree:
    def __init__(self, points: Floats) -> None:
        self._tree = cKDTree(points)

    def __call__(self, queries: Floats) -> Floats:
        distances: Floats = self._tree.query(queries, workers=usable_threads())[0]
        return distances


class _Products:
    """|x - q|^2 = |x|^2 - 2 x.q + |q|^2 in float32 finds the candidates; their distances are computed in float64.

    Exact also for a million points: an approximate index takes longer to build than these few queries take.
    """

    def __init__(self, points: Floats) -> None:
        self._points = points
        squares = (points**2).sum(axis=1)
        self._rough = np.concatenate([-2 * points.T, squares[None]]).astype(np.float32)

    def __call__(self, queries: Floats) -> Floats:
        blocks = [queries[start : start + BLOCK] for start in range(0, len(queries), BLOCK)]
        with threadpool_limits(1), ThreadPoolExecutor(usable_threads()) as pool:
            parts = list(pool.map(self._block, blocks))
        return np.concatenate(parts) if parts else np.zeros(0)

    def _block(self, queries: Floats) -> Floats:
        rough = np.concatenate([queries, np.ones((len(queries), 1))], axis=1).astype(np.float32) @ self._rough
        nearest = rough.min(axis=1)
        own = (queries**2).sum(axis=1)
        slack = SLACK * (1 + own + np.maximum(nearest + own, 0))
        query, candidate = np.nonzero(rough <= (nearest + slack)[:, None].astype(np.float32))
        exact = ((self._points[candidate] - queries[query]) ** 2).sum(axis=1)
        best = np.full(len(queries), np.inf)
        np.minimum.at(best, query, exact)
        distances: Floats = np.sqrt(best)
        return distances
