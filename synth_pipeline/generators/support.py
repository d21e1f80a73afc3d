"""Where real rows lie, plane by plane: a drawn row has to lie near real ones in every two of its columns.

A diffusion model leaks a little between modes: into walls of a maze, between the goals of episodes. An ensemble of the
dynamics does not notice where the motion that it extrapolates is smooth, and in many columns at once every row is far
from all others. In two columns data are dense, and two suffice for such gaps. Samples audited one by one: Alaa et al.
2022 (arXiv:2102.08921).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.fields import Array

CELLS = 128  # of a column
TAIL = 5e-4  # share of rows beyond the cells on each side; they count into the outermost ones
MARGIN = 0.05  # of the range between the tails, on each side
FOLDS = 5  # one of them is held against the others
CHUNK = 4096  # rows whose cells fit the cache

Bools = npt.NDArray[np.bool_]
Cells = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PlaneSupport:
    """Cells of every plane of two columns that are near enough to a real row.

    How near is near enough each plane says itself: as near as the rows of some episodes lie to those of all others.

    Attributes:
        low: `[c]`, where the cells of a column begin.
        size: `[c]`, of one cell.
        covered: `[planes, CELLS^2 / 8]`, a bit for each cell, planes in the order of `itertools.combinations`.
    """

    low: npt.NDArray[np.float64]
    size: npt.NDArray[np.float64]
    covered: npt.NDArray[np.uint8]

    @classmethod
    def fit(cls, x: Array, groups: npt.NDArray[np.int64], share: float) -> PlaneSupport:
        """Learn from rows; time and memory grow with the square of the columns (14 ms and 2 KB a plane).

        Args:
            x: `[n, c]`.
            groups: `[n]`, rows that belong together (episodes).
            share: Of unseen real rows that are to be covered in all planes at once, in (0, 1].
        """
        low, high = np.quantile(x.astype(np.float64), [TAIL, 1 - TAIL], axis=0)
        margin = MARGIN * (high - low)
        size = (high - low + 2 * margin) / CELLS
        empty = cls(low - margin, np.where(size > 0, size, 1.0), np.zeros((0, CELLS**2 // 8), np.uint8))
        cells, unseen = empty._cells(x), _fold(groups)
        planes = list(combinations(range(x.shape[1]), 2))
        level = 1 - (1 - share) / max(len(planes), 1)
        covered = [_near(cells[i] * CELLS + cells[j], unseen, level) for i, j in planes]
        return cls(empty.low, empty.size, np.array(covered, np.uint8).reshape(len(planes), CELLS**2 // 8))

    def covers(self, x: Array) -> Bools:
        """`[n, c]` -> `[n]`, rows that lie near real ones in every plane."""
        parts = [self._covers(x[start : start + CHUNK]) for start in range(0, len(x), CHUNK)]
        return np.concatenate([np.zeros(0, bool), *parts])

    def _covers(self, x: Array) -> Bools:
        cells, found = self._cells(x), np.ones(len(x), bool)
        for bits, (i, j) in zip(self.covered, combinations(range(len(cells)), 2), strict=True):
            cell = cells[i] * CELLS + cells[j]
            found &= (bits[cell >> 3] >> (cell & 7) & 1).astype(bool)
        return found

    def _cells(self, x: Array) -> Cells:
        """`[c, n]`, the cell of every value in its column."""
        cells: Cells = np.clip((x.T - self.low[:, None]) / self.size[:, None], 0, CELLS - 1).astype(np.int64)
        return cells

    def arrays(self) -> dict[str, Array]:
        """What `from_arrays` needs."""
        return {"low": self.low, "size": self.size, "covered": self.covered}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> PlaneSupport:
        """Inverse of `arrays`."""
        return cls(*(np.array(arrays[name]) for name in ("low", "size", "covered")))


def _fold(groups: npt.NDArray[np.int64]) -> Bools:
    """`[n]`, rows of a fifth of the groups, or every fifth row where there are too few groups."""
    number = np.unique(groups, return_inverse=True)[1]
    fold: Bools = (number if number.max() >= FOLDS else np.arange(len(groups))) % FOLDS == 0
    return fold


def _near(cells: Cells, unseen: Bools, level: float) -> npt.NDArray[np.uint8]:
    """Bits of the cells of one plane that lie as near to a row as unseen rows do to the others."""
    others = cells[~unseen] if not unseen.all() else cells
    limit = max(1.0, float(np.quantile(_distances(others)[cells[unseen]], level)))  # the next cell is always near
    return np.packbits(_distances(cells) <= limit, bitorder="little")


def _distances(cells: Cells) -> npt.NDArray[np.float64]:
    """`[CELLS^2]`, distance of every cell to the nearest of some, in cells."""
    from scipy.ndimage import distance_transform_edt

    free = np.ones(CELLS**2, bool)
    free[cells] = False
    distances: npt.NDArray[np.float64] = distance_transform_edt(free.reshape(CELLS, CELLS)).ravel()
    return distances
