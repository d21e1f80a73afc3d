"""Performance profiles: how the scores of runs are spread, and not their mean alone (Agarwal et al. 2021, sec. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synth_pipeline.errors import SourceError
from synth_pipeline.evaluation.statistics import (
    ADDRESS,
    Floats,
    Runs,
    empty,
    expanded_levels,
    survivors,
    too_few,
    weights,
    worst,
)
from synth_pipeline.seeding import Stage, stream


@dataclass(frozen=True)
class Profile:
    """Share of runs above every threshold (a performance profile: Agarwal et al. 2021, sec. 4).

    Attributes:
        thresholds: `[k]`, scores.
        shares: `[k]`, mean over the tasks of the share of runs that score higher; a diverged one scores above nothing.
        low: `[k]`, lower ends of pointwise 95 % intervals; None: there are none.
        high: `[k]`, upper ends.
        runs: Runs behind it.
        diverged: Those of them that diverged.
        why: Why there are no intervals.
    """

    thresholds: Floats
    shares: Floats
    low: Floats | None
    high: Floats | None
    runs: int
    diverged: int
    why: str | None = None


def performance_profile(runs: Runs, thresholds: Sequence[float] | Floats, *, seed: int = 0) -> Profile:
    """How the scores of runs are spread.

    Args:
        runs: Scores.
        thresholds: `[k]`, rising.
        seed: Of the bootstrap.

    Raises:
        SourceError: On NaN or infinity, or without any run.
    """
    _, diverged = survivors(runs)
    parts = {task: np.array([worst(score) for score in found.values()]) for task, found in runs.items()}
    sizes = {task: len(part) for task, part in parts.items()}
    if why := empty(sizes):
        raise SourceError("there is no profile of a task without runs", found=why)
    levels = np.asarray(thresholds, np.float64)
    above = [(part[:, None] > levels).astype(np.float64) for part in parts.values()]
    shares: Floats = np.mean([part.mean(axis=0) for part in above], axis=0)
    why = too_few(sizes)
    if why is not None:
        return Profile(levels, shares, None, None, sum(sizes.values()), diverged, why)
    rng = stream(seed, Stage.EVALUATE, ADDRESS, 3)
    draws = np.mean([weights(len(part), rng) @ part for part in above], axis=0)
    low, high = np.quantile(draws, expanded_levels(list(sizes.values())), axis=0)
    return Profile(levels, shares, low, high, sum(sizes.values()), diverged)
