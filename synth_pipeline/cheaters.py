"""Cheaters: rows that look good by some metric and are not. A gate that lets one of them pass proves nothing.

None of them has learned what follows from (s, a): near copies of training rows, points between neighbours (whose
error may be as small as 0.01 of the variance), right columns with linear dependence only, right columns with none.
`validation/calibrate.py` measures what the shipped suites make of them; every comparison has them in its leaderboard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.generators import base as generators
from synth_pipeline.validation.corruptions import jittered

JITTER = 1e-3  # standard deviations of each column


@dataclass(frozen=True)
class Material:
    """What a cheater works with.

    Attributes:
        training: What generators see.
        shuffled: Real rows whose columns are shuffled.
        rows: How many rows to make; shuffled ones are as many as there are.
        rng: Source of everything random.
    """

    training: Dataset
    shuffled: Transitions
    rows: int
    rng: np.random.Generator


def jittered_copies(material: Material) -> Transitions:
    """Training rows with noise that nobody sees."""
    return jittered(material.training.transitions(), material.rows, JITTER, material.rng)


def shuffled_columns(material: Material) -> Transitions:
    """Real rows, every column in an order of its own."""
    rows, rng = material.shuffled, material.rng
    return Transitions({name: column[rng.permutation(len(column))] for name, column in rows.columns.items()})


def _fitted(kind: str, material: Material) -> Transitions:
    generator = generators.build({"kind": kind})
    generator.fit(material.training, seed=0)  # neither of the two draws anything to be fitted
    return generator.sample(material.rows, material.rng)


CHEATERS: dict[str, Callable[[Material], Transitions]] = {
    "jittered copies": jittered_copies,
    "SMOTE between neighbours": lambda material: _fitted("smote", material),
    "copula": lambda material: _fitted("copula", material),
    "shuffled columns": shuffled_columns,
}
