"""Precision, recall, density, coverage: is every synthetic row where real rows are, and are all of them reached?

Around every row lies an open ball that ends at its k-th nearest row of its own side. With as many rows on both sides
(Naeem et al. 2020, arXiv:2002.09797, sections 2 and 3; k = 5):

    precision   share of the synthetic rows that lie in a real ball
    recall      share of the real rows that lie in a synthetic ball
    density     real balls that hold a synthetic row, mean over these rows, over k
    coverage    share of the real balls that hold a synthetic row

Density is best near 1, its expectation where both sides have one distribution: below it rows lie off the data, and
above it they are heaped up where balls overlap, as those of a generator that only makes the typical row. One outlier
makes a large ball, which flatters precision and recall; coverage and density hardly notice it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.c2st import points, sampled_pairs, standardised
from synth_pipeline.validation.metric import NUM_SPLITS, Direction, Measurement, chosen_rows, floor_of, over_cores
from synth_pipeline.validation.neighbours import ROW

SAMPLE = 5_000
K = 5
NAMES = ("precision", "recall", "density", "coverage")
METRICS = tuple(f"prdc.{name}" for name in NAMES)
UNITS = {
    "precision": "share of synthetic rows near real ones",
    "recall": "share of real rows near synthetic ones",
    "density": "1 = as dense around real rows as real rows are",
    "coverage": "share of real rows with a synthetic neighbour; 0.97 is expected of fresh real rows",
}
SOURCE = "precision, recall, density, coverage (Naeem et al. 2020), k = 5, whole rows, z-scored"
BLOCK = 32  # rows at once
GROUPS = 64  # of columns: their least values bound the K-th least one, faster than a partition of all values
SLACK = 1e-12  # relative error of a squared distance from products, generously

Floats = npt.NDArray[np.float64]
Scores = dict[str, float]
Pairs = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]


def prdc(
    real: Dataset, synthetic: Transitions, *, sample: int = SAMPLE, splits: int = NUM_SPLITS, seed: int = 0
) -> list[Measurement]:
    """`prdc.precision`, `prdc.recall`, `prdc.density`, `prdc.coverage`, with floors between real halves.

    Args:
        real: The real data.
        synthetic: What is judged; rows that are not finite are left out (the table contract counts them).
        sample: Rows of each side at most; both sides get as many as the smaller one has.
        splits: Pairs of real halves that the floor is made from.
        seed: Seed of the subsamples.

    Returns:
        All with the value None when a side has no k-th neighbours.
    """

    def scored(pair: tuple[Transitions, Transitions]) -> Scores | None:
        sides = [points(rows, ROW) for rows in pair]
        count = min(map(len, sides))
        if count <= K:
            return None
        return scores(*standardised(*(x[chosen_rows(len(x), count, seed=seed, address=2)] for x in sides)))

    value, *floors = over_cores(scored, sampled_pairs(real, synthetic, sample, splits, seed))
    return [_measurement(name, value, floors, sample) for name in NAMES]


def scores(real: Floats, synthetic: Floats) -> Scores:
    """All four of `[n, c]` and `[m, c]`, by name, exactly; more than K rows each."""
    real_radius, synthetic_radius = _radius(real), _radius(synthetic)
    holders = np.zeros(len(synthetic))  # real balls around each synthetic row
    covered, reached = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, below in _lower_bounds(real, synthetic):
        i, j = _closer(real[rows], synthetic, below, real_radius[rows, None])
        covered[rows.start + i] = True
        holders += np.bincount(j, minlength=len(synthetic))
        i, _ = _closer(real[rows], synthetic, below, synthetic_radius)
        reached[rows.start + i] = True
    values = ((holders > 0).mean(), reached.mean(), holders.mean() / K, covered.mean())
    return {name: float(value) for name, value in zip(NAMES, values, strict=True)}


def _radius(x: Floats) -> Floats:
    """`[n]`, squared distance to the K-th nearest other row."""
    radius, groups = np.empty(len(x)), len(x) // max(len(x) // GROUPS, 1)
    for rows, below in _lower_bounds(x, x):
        # K + 1 groups have a bound up to `least`, hence K + 1 rows (one may be the row itself) do; their squared
        # distances exceed the bounds by no more than the slack says, as |x_j|^2 <= 2 |x_i|^2 + 2 d^2.
        least = below[:, : len(x) // groups * groups].reshape(len(below), -1, groups).min(axis=1)
        least = np.partition(least, K, axis=1)[:, K]
        limit = least + 10 * SLACK * ((x[rows] ** 2).sum(axis=1) + np.abs(least))
        i, j = _where(below <= limit[:, None])
        exact = _squares(x[rows][i], x[j])
        by_distance = exact[np.lexsort((exact, i))]
        radius[rows] = by_distance[np.searchsorted(i, np.arange(len(below))) + K]
    return radius


def _closer(first: Floats, second: Floats, below: Floats, radius: Floats) -> Pairs:
    """Pairs (i, j) of rows whose squared distance is less than a radius that broadcasts to `[n, m]`."""
    i, j = _where(below < radius)
    inside = _squares(first[i], second[j]) < np.broadcast_to(radius, below.shape)[i, j]
    return i[inside], j[inside]


def _where(mask: npt.NDArray[np.bool_]) -> Pairs:
    """`np.nonzero` of two dimensions, several times faster."""
    i, j = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return i, j


def _lower_bounds(first: Floats, second: Floats) -> Iterator[tuple[slice, Floats]]:
    """Blocks of rows of the first side, with bounds `[block, m]` that no squared distance is below.

    |x - y|^2 = |x|^2 - 2 x.y + |y|^2 is fast and wrong in the last digits: it says which distances are worth computing.
    """
    squares = (1 - SLACK) * (second**2).sum(axis=1)
    for start in range(0, len(first), BLOCK):
        rows = slice(start, min(start + BLOCK, len(first)))
        below = (-2 * first[rows]) @ second.T
        below += squares
        below += (1 - SLACK) * (first[rows] ** 2).sum(axis=1)[:, None]
        yield rows, below


def _squares(first: Floats, second: Floats) -> Floats:
    squares: Floats = ((first - second) ** 2).sum(axis=1)
    return squares


def _measurement(name: str, value: Scores | None, others: list[Scores | None], sample: int) -> Measurement:
    direction: Direction = "nearest" if name == "density" else "higher"
    target = 1.0 if name == "density" else None
    floors = [floor[name] for floor in others if floor is not None]
    return Measurement(
        f"prdc.{name}",
        value[name] if value is not None else None,
        UNITS[name],
        direction,
        (0.0, float("inf") if name == "density" else 1.0),
        sample,
        SOURCE,
        floor_of(floors, direction, target) if floors and value is not None else None,
        {} if value is not None else {"why": f"{K + 1} finite rows on each side are needed"},
        target,
    )
