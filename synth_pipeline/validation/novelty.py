"""Novelty: are the rows new, and as close to the data as unseen real rows are?

Ratio = median distance of synthetic rows to their nearest training row, over the same for held-out real rows. About 1
(0.9 to 1.2) is right; well below 1 is copying, well above is straying. Columns are z-scored with the training rows.
Source: distance to closest record (DCR) against a hold-out set (Platzer and Reutterer 2021, arXiv:2104.00635).
Without held-out episodes novelty is not decidable: dense data and copies look the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Integers, Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.metric import NUM_SPLITS, Direction, Measurement, floor_of, real_halves, subsample
from synth_pipeline.validation.neighbours import ROW, STATE_ACTION, Neighbours

SAMPLE = 10_000  # queries of each side
TRAINING = 1_000_000  # training rows in the index; copies of what lies beyond would be missed
FLOOR_SAMPLE, FLOOR_TRAINING = 500, 20_000  # the same two numbers of each side of a real split
COPY = 1e-3  # of the median held-out distance
SOURCE = "distance to closest record against held-out rows (Platzer and Reutterer 2021)"
DISTRIBUTIONS = ("novelty.nn_ratio_sa", "novelty.nn_ratio_row")  # what is rare is far from all other rows
METRICS = (*DISTRIBUTIONS, "novelty.copies")

Floats = npt.NDArray[np.float64]


def divided(real: Dataset, held_out: Integers | None) -> tuple[Transitions, Transitions] | None:
    """Training rows and held-out rows; None when nothing was held out.

    Args:
        real: The whole dataset.
        held_out: Ids of the episodes that the generator did not see.
    """
    if held_out is None or real.episodes is None or not 0 < len(held_out) < len(real.episodes):
        return None
    outside = np.zeros(len(real.episodes), bool)
    outside[held_out] = True
    return real.episodes.take(~outside).transitions(), real.episodes.take(outside).transitions()


def novelty(
    real: Dataset,
    synthetic: Transitions,
    held_out: Integers | None,
    *,
    unaimed: Transitions | None = None,
    sample: int = SAMPLE,
    splits: int = NUM_SPLITS,
    seed: int = 0,
) -> list[Measurement]:
    """`novelty.nn_ratio_sa`, `novelty.nn_ratio_row`, `novelty.copies`.

    Args:
        real: The whole dataset.
        synthetic: What is judged; rows that are not finite are left out (the table contract counts them).
        held_out: Ids of the episodes that the generator did not see; None: not decidable.
        unaimed: Rows that should be distributed like the real ones, see `sample.Sample`; None: all that are judged.
        sample: Rows of each side that are held against all training rows.
        splits: Pairs of real halves that the floor is made from.
        seed: Seed of the subsamples.
    """
    parts = divided(real, held_out)
    if parts is None or not len(synthetic):
        why = "no episodes were held out" if parts is None else "there are no rows"
        return [_measurement(name, None, [], {"why": why}, sample) for name in METRICS]
    training, unseen = parts
    training = subsample(training, TRAINING, seed=seed, address=4)
    unseen = subsample(unseen, sample, seed=seed, address=0)
    every = subsample(synthetic, sample, seed=seed, address=1)
    spread = every if unaimed is None or unaimed is synthetic else subsample(unaimed, sample, seed=seed, address=1)
    measured = []
    for name, columns in zip(DISTRIBUTIONS, (STATE_ACTION, ROW), strict=True):
        index = Neighbours(training, columns)
        ours, theirs = index.distances(spread), index.distances(unseen)
        floors = list(_floor_ratios(real, columns, splits, seed))
        measured.append(_ratio(name, ours, theirs, floors, sample))
    return [*measured, _copies(ours if spread is every else index.distances(every), theirs, len(training), sample)]


def _ratio(name: str, ours: Floats, theirs: Floats, floors: list[float], sample: int) -> Measurement:
    reference = float(np.median(theirs))
    ours = ours[np.isfinite(ours)]
    if reference == 0.0 or not len(ours):
        why = "held-out rows are copies of training rows" if len(ours) else "no row is finite"
        return _measurement(name, None, [], {"why": why}, sample)
    details = {"synthetic median": float(np.median(ours)), "held-out median": reference, "held-out rows": len(theirs)}
    return _measurement(name, float(np.median(ours)) / reference, floors, details, sample)


def _copies(ours: Floats, theirs: Floats, training: int, sample: int) -> Measurement:
    threshold = COPY * float(np.median(theirs))
    details: dict[str, Any] = {"threshold": threshold, "training rows": training}
    details["real against real"] = float(np.mean(theirs <= threshold))
    value = float(np.mean(ours[np.isfinite(ours)] <= threshold)) if np.isfinite(ours).any() else None
    return _measurement("novelty.copies", value, [], details, sample)


def _floor_ratios(real: Dataset, columns: tuple[str, ...], splits: int, seed: int) -> Iterator[float]:
    """Between real halves, each is once the training part: ratio of the two median distances."""
    for halves in real_halves(real, splits=splits, seed=seed):
        training = [subsample(half, FLOOR_TRAINING, seed=seed, address=2) for half in halves]
        queries = [subsample(half, FLOOR_SAMPLE, seed=seed, address=3) for half in halves]
        there = np.median(Neighbours(training[0], columns).distances(queries[1]))
        back = np.median(Neighbours(training[1], columns).distances(queries[0]))
        if back > 0:
            yield float(there / back)


def error_at_novelty(errors: Floats, distances: Floats, reference: Floats) -> list[dict[str, Any]]:
    """Errors by fifths of novelty, so that methods are compared at equal novelty.

    Args:
        errors: `[n]`; NaN: not judged, left out.
        distances: `[n]`, distance to the nearest training row of the same rows.
        reference: `[m]`, the same distances of held-out real rows: their quintiles are the edges, whatever is judged.

    Returns:
        For each fifth, nearest first: `up_to` (distance; None: no limit), `rows`, `mean`, `p99` (None without rows).
    """
    edges = np.quantile(reference, [0.2, 0.4, 0.6, 0.8])
    known = np.isfinite(errors) & np.isfinite(distances)
    fifth = np.searchsorted(edges, distances, side="left")
    result = []
    for index, edge in enumerate([*edges.tolist(), None]):
        chosen = errors[known & (fifth == index)]
        mean, p99 = (float(chosen.mean()), float(np.quantile(chosen, 0.99))) if len(chosen) else (None, None)
        result.append({"up_to": edge, "rows": len(chosen), "mean": mean, "p99": p99})
    return result


def _measurement(
    name: str, value: float | None, floors: list[float], details: dict[str, Any], sample: int
) -> Measurement:
    copies = name == "novelty.copies"
    direction: Direction = "lower" if copies else "nearest"
    target = None if copies else 1.0
    return Measurement(
        name,
        value,
        "share of rows" if copies else "1 = as far from the training rows as held-out rows",
        direction,
        (0.0, 1.0 if copies else float("inf")),
        sample,
        SOURCE,
        floor_of(floors, direction, target) if floors else None,
        details,
        target,
    )
