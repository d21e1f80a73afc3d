"""What a metric is: a value with a direction, a range, a source, and a floor that makes it readable.

The floor is the same metric between two episode-wise halves of the real data (median and 95 % of 20 splits): a
value as good as the floor means that the synthetic rows differ from the real ones no more than real rows do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.seeding import Stage, stream

NUM_SPLITS = 20


@dataclass(frozen=True)
class Floor:
    """The metric between real halves.

    Attributes:
        median: Over the splits.
        worst95: The value that 95 % of the splits are at least as good as.
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
    """

    metric: str
    value: float | None
    unit: str
    direction: Literal["higher", "lower"]
    limits: tuple[float, float]
    sample: int
    source: str
    floor: Floor | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values that strict JSON can hold; an open limit is None."""
        limits = [limit if math.isfinite(limit) else None for limit in self.limits]
        return {**asdict(self), "limits": limits}


def floor_of(values: list[float], direction: Literal["higher", "lower"]) -> Floor:
    """Median and the value that 95 % of the splits reach."""
    worst = np.quantile(values, 0.05 if direction == "higher" else 0.95)
    return Floor(float(np.median(values)), float(worst))


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


def subsample(rows: Transitions, size: int, *, seed: int, address: int) -> Transitions:
    """At most `size` rows, drawn without replacement at an address."""
    if len(rows) <= size:
        return rows
    chosen = stream(seed, Stage.VALIDATE, 1, address).choice(len(rows), size=size, replace=False)
    return rows.take(np.sort(chosen))
