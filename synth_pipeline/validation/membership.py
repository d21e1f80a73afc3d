"""Membership inference: do the synthetic rows give away which real rows the generator was trained on?

The attack of someone who holds only synthetic rows (GAN-Leaks, Chen et al. 2020, arXiv:1909.03935, full black box): a
real row that is closer to its nearest synthetic row is rather taken for a training row. The value is the area under the
ROC curve of this guess over training and held-out rows; at 0.5 nothing leaks.

Floor: episodes are dealt into "training", "held-out" (as many as were held out) and, in place of synthetic rows, fresh
real ones, which can give nothing away. What is left of the area above 0.5 is chance: of the episodes that happened to
be held out, and of the rows drawn. A value that is not above it is no evidence of a leak.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Episodes, Integers, Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.validation.metric import NUM_SPLITS, Measurement, floor_of, subsample
from synth_pipeline.validation.neighbours import ROW, Neighbours
from synth_pipeline.validation.novelty import divided

SAMPLE = 5_000  # training rows, and held-out rows
SYNTHETIC = 50_000  # rows that the attacker holds: the more, the more they give away
FLOOR_SYNTHETIC = 5_000  # of the floor: where no row gives anything away, their number does not matter
METRICS = ("membership.auc",)
SOURCE = "distance to the nearest synthetic row (GAN-Leaks, Chen et al. 2020), area under the ROC curve"

Groups = tuple[Transitions, Transitions, Transitions]


def membership(
    real: Dataset,
    synthetic: Transitions,
    held_out: Integers | None,
    *,
    sample: int = SAMPLE,
    splits: int = NUM_SPLITS,
    seed: int = 0,
) -> list[Measurement]:
    """`membership.auc`.

    Args:
        real: The whole dataset.
        synthetic: What is judged; rows that are not finite are left out (the table contract counts them).
        held_out: Ids of the episodes that the generator did not see; None: not decidable.
        sample: Training rows, and held-out rows, that the attacker guesses about.
        splits: Deals of the episodes that the floor is made from.
        seed: Seed of the deals and the subsamples.
    """
    parts = divided(real, held_out)
    if parts is None:
        return [_measurement(None, [], {"why": "no episodes were held out"}, sample)]
    assert real.episodes is not None
    assert held_out is not None
    value = _attacked((*parts, synthetic), sample, SYNTHETIC, seed)
    if value is None:
        why = "no training, no held-out or no synthetic row is finite"
        return [_measurement(None, [], {"why": why}, sample)]
    deals = _deals(real.episodes, len(held_out), splits, seed)
    floors = [_attacked(groups, sample, FLOOR_SYNTHETIC, seed) for groups in deals]
    details = {"training rows": len(parts[0]), "held-out rows": len(parts[1]), "synthetic rows": len(synthetic)}
    return [_measurement(value, [floor for floor in floors if floor is not None], details, sample)]


def area(training: Transitions, held_out: Transitions, synthetic: Transitions) -> float:
    """Area under the ROC curve of "closer to a synthetic row, so it was trained on"; never below 0.5; finite rows.

    The attacker knows the synthetic rows alone, so these set the scale of the columns.
    """
    from sklearn.metrics import roc_auc_score

    index = Neighbours(synthetic, ROW)
    distances = [index.distances(rows) for rows in (training, held_out)]
    trained_on = np.repeat([1, 0], [len(part) for part in distances])
    return max(float(roc_auc_score(trained_on, -np.concatenate(distances))), 0.5)


def _attacked(groups: Groups, sample: int, size: int, seed: int) -> float | None:
    """The area on samples of training, held-out and synthetic rows; None when one of them has no finite row."""
    sizes = (sample, sample, size)
    drawn = [
        subsample(rows.take(_finite(rows)), limit, seed=seed, address=i)
        for i, (rows, limit) in enumerate(zip(groups, sizes, strict=True))
    ]
    return area(*drawn) if all(len(rows) for rows in drawn) else None


def _finite(rows: Transitions) -> npt.NDArray[np.bool_]:
    checks = [np.isfinite(rows[name]).all(axis=tuple(range(1, rows[name].ndim))) for name in ROW]
    mask: npt.NDArray[np.bool_] = np.logical_and.reduce(checks)
    return mask


def _deals(episodes: Episodes, held_out: int, splits: int, seed: int) -> Iterator[Groups]:
    """Training, held-out and fresh rows; none where the episodes that were not held out do not make two groups."""
    middle = (len(episodes) + held_out) // 2
    for split in range(splits if middle > held_out else 0):
        order = stream(seed, Stage.VALIDATE, 6, split).permutation(len(episodes))
        training, unseen, fresh = order[held_out:middle], order[:held_out], order[middle:]
        first, second, third = (episodes.take(ids).transitions() for ids in (training, unseen, fresh))
        yield first, second, third


def _measurement(value: float | None, floors: list[float], details: dict[str, Any], sample: int) -> Measurement:
    return Measurement(
        METRICS[0],
        value,
        "0.5 = training rows are as far from synthetic rows as held-out ones",
        "lower",
        (0.5, 1.0),
        sample,
        SOURCE,
        floor_of(floors, "lower") if floors else None,
        details,
    )
