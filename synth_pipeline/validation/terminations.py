"""Terminations by recall, precision and prevalence: accuracy means nothing at half a percent.

The truth is the environment's termination function applied to the oracle's next state: what would have happened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from synth_pipeline.data.fields import Array
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.metric import Direction, Floor, Measurement, floor_of_rows
from synth_pipeline.validation.oracle import SAMPLE, Judged
from synth_pipeline.validation.truth import Bools

ENOUGH = 20
NAMES = ("recall", "precision", "prevalence")
METRICS = tuple(f"terminations.{name}" for name in NAMES)
UNITS = {
    "recall": "share of true terminations that are flagged",
    "precision": "share of flags that are true",
    "prevalence": "1 = flagged as often as true",
}


def terminations(
    real: Dataset,
    pair: tuple[Judged, Judged] | None,
    terminated: Callable[[Array], Array] | None,
    *,
    sample: int = SAMPLE,
    seed: int = 0,
) -> list[Measurement]:
    """`terminations.recall`, `terminations.precision`, `terminations.prevalence`, on rows that the oracle can judge.

    Args:
        real: The real data, for floors by episode.
        pair: From `oracle.judge_sample`.
        terminated: The termination function of next observations.
        sample: Rows that were asked for.
        seed: Seed of the floor's splits.

    Returns:
        With the value None when there are fewer than 20 true terminations, and for a precision without any flag.
    """
    if pair is None or terminated is None or "terminations" not in pair[0].rows:
        why = {"why": "no oracle, no termination function, or no flags"}
        return [_measurement(name, None, None, why, sample) for name in NAMES]
    ours, replayed = (_outcomes(side, terminated) for side in pair)
    judged, true = len(ours[0]), int(ours[0].sum())
    details: dict[str, Any] = {"judged rows": judged, "true": true, "flagged": int(ours[1].sum())}
    if true < ENOUGH:
        why = {**details, "why": f"{true} true terminations in {judged} judged rows, {ENOUGH} are needed"}
        return [_measurement(name, None, None, why, sample) for name in NAMES]
    ids, measured = pair[1].ids[pair[1].judged], []
    for name, value in zip(NAMES, rates(*ours), strict=True):

        def of_half(half: Bools, name: str = name) -> float | None:
            true, flagged = (values[half[ids]] for values in replayed)
            return rates(true, flagged)[NAMES.index(name)]

        direction, target = _direction(name)
        floor = floor_of_rows(real, of_half, direction, seed, target)
        measured.append(_measurement(name, value, floor, details, sample))
    return measured


def rates(true: Bools, flagged: Bools) -> tuple[float | None, float | None, float | None]:
    """Recall, precision and flags per true one of two masks `[n]`; None where nothing is true, or nothing flagged."""
    hits, positives, flags = int((true & flagged).sum()), int(true.sum()), int(flagged.sum())
    recall, prevalence = (hits / positives, flags / positives) if positives else (None, None)
    return recall, hits / flags if flags else None, prevalence


def _outcomes(side: Judged, terminated: Callable[[Array], Array]) -> tuple[Bools, Bools]:
    true = np.asarray(terminated(side.answer.next_observations[side.judged]), bool)
    return true, np.asarray(side.rows["terminations"][side.judged], bool)


def _direction(name: str) -> tuple[Direction, float | None]:
    return ("nearest", 1.0) if name == "prevalence" else ("higher", None)


def _measurement(
    name: str, value: float | None, floor: Floor | None, details: dict[str, Any], sample: int
) -> Measurement:
    if value is None and "why" not in details:
        details = {"why": "no row is flagged", **details}
    limits = (0.0, float("inf") if name == "prevalence" else 1.0)
    source = "known termination function of the oracle's next state"
    direction, target = _direction(name)
    unit = UNITS[name]
    return Measurement(f"terminations.{name}", value, unit, direction, limits, sample, source, floor, details, target)
