"""The rows that metrics look at: a sample of the table and, where rows were aimed at something, what is left of it
without the aim.

A generator that is aimed gives each row the importance weight w = p / q that undoes the aim. A row is kept with
probability w / max w (rejection sampling, von Neumann 1951): what is left follows the distribution of the data, and no
row is in it twice, which neighbours would take for a copy. What compares two distributions is measured on these rows,
and what holds each row against a truth on all, so that what was aimed at is judged too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Transitions, concatenate
from synth_pipeline.data.rows import Dataset, RowSource
from synth_pipeline.seeding import Stage, stream

BLOCK = 256
WEIGHT = "weight"
MOST = 10  # times as many rows are read, at most, for as many to be left
# Rows that have to be left: with as few, the Fréchet distance of 26 independent columns is 0.05 by chance, which is the
# margin of the suites. Floors are of halves of the real data: as many rows as these have are enough.
FEWEST = 5_000
UNDONE = "aim undone"  # of a scorecard

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Rows of a table.

    Attributes:
        rows: As they are.
        accepted: What rejection sampling by their weights keeps, as if they had not been aimed; None: they were not.
        drawn: Rows that it chose from.
        needed: As many have to be accepted for distributions to be compared.
    """

    rows: Transitions
    accepted: Transitions | None = None
    drawn: int = 0
    needed: int = 0

    @property
    def unaimed(self) -> Transitions:
        """Rows that should be distributed like the real ones."""
        return self.rows if self.accepted is None else self.accepted

    @property
    def too_few(self) -> str | None:
        """Why distributions cannot be compared, if so."""
        if self.accepted is None or len(self.accepted) >= self.needed:
            return None
        left = f"{len(self.accepted):,} of {self.drawn:,} rows are left when the aim is undone"
        return f"{left}, {self.needed:,} are needed: generate more rows, or aim a smaller share of them"

    def facts(self) -> dict[str, Any]:
        """For the scorecard; nothing where rows were not aimed."""
        if self.accepted is None:
            return {}
        return {UNDONE: {"drawn": self.drawn, "left": len(self.accepted), "needed": self.needed}}


def draw(rows: RowSource, size: int, *, real: Dataset, seed: int) -> Sample:
    """About `size` rows of a table, and about as many without their aim, if the table has them.

    Args:
        rows: The table.
        size: How many.
        real: The real data; where they have a column `weight` of their own, that is no importance.
        seed: Seed of the sample.
    """
    sample = read_sample(rows, size, seed=seed)
    weights = None if real.spec.has(WEIGHT) else importance(sample)
    if weights is None:
        return Sample(sample)
    more = sample
    if len(rows) > size:
        share = max(float(weights.mean() / weights.max()), 1 / MOST)
        more = read_sample(rows, math.ceil(size / share), seed=seed)
    return Sample(sample, rejection_sample(more, seed=seed), len(more), min(FEWEST, len(real) // 2))


def importance(rows: Transitions) -> Floats | None:
    """`[n]`, weights that are not all the same; None: the rows were not aimed.

    A weight that is negative or not finite is 0, for nobody knows what such a row stands for.
    """
    if WEIGHT not in rows or rows[WEIGHT].ndim != 1 or not len(rows):
        return None
    found = np.asarray(rows[WEIGHT], np.float64)
    weights = np.where(np.isfinite(found) & (found > 0), found, 0.0)
    return weights if weights.min() < weights.max() else None


def rejection_sample(rows: Transitions, *, seed: int) -> Transitions:
    """What is left of aimed rows, each kept with a probability in proportion to its weight."""
    weights = importance(rows)
    if weights is None:
        return rows
    return rows.take(stream(seed, Stage.VALIDATE, 17).random(len(rows)) * weights.max() < weights)


def read_sample(rows: RowSource, size: int, *, seed: int) -> Transitions:
    """About `size` rows from all over the table, as blocks of neighbours: few reads, whatever the table's size.

    Rows of a generated table are independent, so blocks are as good as single rows.
    """
    if len(rows) <= size:
        return rows.read(0, len(rows))
    count = size // BLOCK
    starts = np.sort(stream(seed, Stage.VALIDATE, 2).choice(len(rows) // BLOCK, size=count, replace=False)) * BLOCK
    return concatenate([rows.read(int(start), int(start) + BLOCK) for start in starts])


def in_words(card: Mapping[str, Any]) -> str | None:
    """What a scorecard has to say about aimed rows; None: there were none."""
    facts = card.get(UNDONE)
    if facts is None:
        return None
    where = (card.get("store", {}).get("aim") or {}).get("where")
    aimed = f"Rows were aimed at {where}" if where else "Rows were aimed"
    left = f"{facts['left']:,} rows (of {facts['drawn']:,}) that are left when the aim is undone by their weights"
    judged = f"distributions are judged on the {left}"
    if facts["left"] < facts["needed"]:
        judged = f"distributions are not judged, since {facts['needed']:,} rows are needed for it, not the {left}"
    return f"{aimed}: {judged}. All else is judged on the rows as they are."
