"""What a metric is: a value with a direction, a range, a source, and a floor that makes it readable.

The floor is the same metric between two episode-wise halves of the real data (median and 95 % of 20 splits): a
value as good as the floor means that the synthetic rows differ from the real ones no more than real rows do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.machine import usable_threads
from synth_pipeline.seeding import Stage, stream

NUM_SPLITS = 20
T = TypeVar("T")
U = TypeVar("U")
Direction = Literal["higher", "lower", "nearest"]  # nearest: to a target, from both sides


@dataclass(frozen=True)
class Floor:
    """The metric between real halves.

    Attributes:
        median: Over the splits.
        worst95: The value that 95 % of the splits are at least as good as; where nearest to a target is best, the
            distance from it that 95 % of the splits do not exceed.
    """

    median: float
    worst95: float


@dataclass(frozen=True)
class Measurement:
    """One metric on one store.

    Attributes:
        metric: Name, `family.name`.
        value: What was measured; None when not decidable, then `details["why"]` says so.
        unit: Unit of the value.
        direction: Which way is better.
        limits: Smallest and largest possible value.
        sample: Rows used of each side (fixed, so that values compare between stores).
        source: Where the definition comes from.
        floor: The same metric between real halves, where that has a meaning.
        details: Per field or column, plain JSON.
        target: The best value there is, where nearest to it is best.
    """

    metric: str
    value: float | None
    unit: str
    direction: Direction
    limits: tuple[float, float]
    sample: int
    source: str
    floor: Floor | None = None
    details: dict[str, Any] = field(default_factory=dict)
    target: float | None = None

    def __post_init__(self) -> None:
        if (self.direction == "nearest") != (self.target is not None):
            raise ValueError(f"'{self.metric}': a target belongs to the direction 'nearest', which needs it")

    def to_json(self) -> dict[str, Any]:
        """Plain values that strict JSON can hold; an open limit is None."""
        limits = [limit if math.isfinite(limit) else None for limit in self.limits]
        return {**asdict(self), "limits": limits}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Measurement:
        """Inverse of `to_json`."""
        low, high = values["limits"]
        limits = (-math.inf if low is None else low, math.inf if high is None else high)
        floor = None if values["floor"] is None else Floor(**values["floor"])
        return cls(**{**values, "limits": limits, "floor": floor})


def badness(value: float, direction: Direction, target: float | None = None) -> float:
    """A number that is smaller for a better value; the distance from the target, where there is one."""
    if direction == "nearest":
        assert target is not None
        return abs(value - target)
    return value if direction == "lower" else -value


def floor_of(values: list[float], direction: Direction, target: float | None = None) -> Floor:
    """Median and the value that 95 % of the splits reach; with a target, the distance from it that they keep."""
    worst = float(np.quantile([badness(value, direction, target) for value in values], 0.95))
    return Floor(float(np.median(values)), -worst if direction == "higher" else worst)


def real_halves(real: Dataset, *, splits: int = NUM_SPLITS, seed: int = 0) -> Iterator[tuple[Transitions, Transitions]]:
    """Random episode-wise halves of the real data, for floors, one pair in memory at a time.

    There are none when there are fewer than two episodes.
    """
    if real.episodes is None or len(real.episodes) < 2:
        return
    for split in range(splits):
        order = stream(seed, Stage.VALIDATE, 0, split).permutation(len(real.episodes))
        middle = len(order) // 2
        first, second = real.episodes.take(order[:middle]), real.episodes.take(order[middle:])
        yield first.transitions(), second.transitions()


def half_rows(real: Dataset, *, splits: int = NUM_SPLITS, seed: int = 0) -> Iterator[npt.NDArray[np.bool_]]:
    """Masks `[n]` of the rows in the first half of each pair of `real_halves`, for floors over scores by row."""
    if real.episodes is None or len(real.episodes) < 2:
        return
    for split in range(splits):
        first = np.zeros(len(real.episodes), bool)
        order = stream(seed, Stage.VALIDATE, 0, split).permutation(len(first))
        first[order[: len(first) // 2]] = True
        yield np.repeat(first, real.episodes.lengths)


def floor_of_rows(
    real: Dataset,
    statistic: Callable[[npt.NDArray[np.bool_]], float | None],
    direction: Direction,
    seed: int,
    target: float | None = None,
) -> Floor | None:
    """The floor of a metric that compares rows with a truth, not with other rows.

    Args:
        real: The real data.
        statistic: The metric on the rows of a mask `[n]`; None where it is not decidable.
        direction: Which way is better.
        seed: Seed of the splits.
        target: The best value, where nearest to it is best.

    Returns:
        None without two episodes, or when no half can be judged.
    """
    values = [value for rows in half_rows(real, seed=seed) if (value := statistic(rows)) is not None]
    return floor_of(values, direction, target) if values else None


def over_cores(function: Callable[[T], U], items: Iterable[T]) -> list[U]:
    """`function` of every item, in order, on all cores; each computes with one thread, whatever their number.

    For floors: what is slow there runs outside of Python.
    """
    from threadpoolctl import threadpool_limits

    pool = ThreadPoolExecutor(usable_threads(), initializer=threadpool_limits, initargs=(1,))
    with threadpool_limits(1), pool:  # BLAS has one limit for all threads, OpenMP one for each
        return list(pool.map(function, items))


def subsample(rows: Transitions, size: int, *, seed: int, address: int) -> Transitions:
    """At most `size` rows, drawn without replacement at an address."""
    return rows if len(rows) <= size else rows.take(chosen_rows(len(rows), size, seed=seed, address=address))


def chosen_rows(count: int, size: int, *, seed: int, address: int) -> npt.NDArray[np.int64]:
    """Sorted ids of at most `size` of `count` rows, drawn without replacement at an address."""
    if count <= size:
        return np.arange(count, dtype=np.int64)
    return np.sort(stream(seed, Stage.VALIDATE, 1, address).choice(count, size=size, replace=False))
