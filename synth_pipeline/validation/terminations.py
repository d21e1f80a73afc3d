"""Terminations by recall, precision and prevalence: accuracy means nothing at half a percent.

For recall and precision the truth is the environment's termination function applied to the oracle's next state: what
would have happened. Prevalence needs no truth: it asks whether rows end as often as real ones. A generator that never
falls has neither a missed flag nor a wrong one. A row that begins where an episode has ended is no end: real data do
not go on there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Array
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.metric import Floor, Measurement, floor_of_rows
from synth_pipeline.validation.oracle import SAMPLE, Judged
from synth_pipeline.validation.truth import Bools

ENOUGH = 20
NAMES = ("recall", "precision")
METRICS = (*(f"terminations.{name}" for name in NAMES), "terminations.prevalence")
UNITS = {"recall": "share of true terminations that are flagged", "precision": "share of flags that are true"}


def terminations(
    real: Dataset,
    pair: tuple[Judged, Judged] | None,
    terminated: Callable[[Array], Array] | None,
    *,
    sample: int = SAMPLE,
    seed: int = 0,
) -> list[Measurement]:
    """`terminations.recall` and `terminations.precision`, on rows that the oracle can judge.

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

        floor = floor_of_rows(real, of_half, "higher", seed)
        measured.append(_measurement(name, value, floor, details, sample))
    return measured


def prevalence(
    real: Dataset, synthetic: Transitions, terminated: Callable[[Array], Array] | None = None, *, seed: int = 0
) -> list[Measurement]:
    """`terminations.prevalence`: the share of rows that end over that of the real ones.

    Args:
        real: The real data.
        synthetic: What is judged.
        terminated: The termination function of observations, where it is known: rows that begin after an end count as
            rows that do not end.
        seed: Seed of the floor's splits.

    Returns:
        With the value None when a side has no flags to look at, or fewer than 20 real rows end.
    """
    rows = real.transitions()
    if "terminations" not in rows or "terminations" not in synthetic or not len(synthetic):
        return [_prevalence(None, None, {"why": "no flags"}, len(synthetic))]
    (ends, after), (flagged, beyond) = (_ends(side, terminated) for side in (rows, synthetic))
    details: dict[str, Any] = {"real": _counts(ends, after), "generated": _counts(flagged, beyond)}
    if ends.sum() < ENOUGH:
        details["why"] = f"{int(ends.sum())} of the real rows end, {ENOUGH} are needed"
        return [_prevalence(None, None, details, len(synthetic))]

    def of_half(half: Bools) -> float | None:
        rest = ends[~half]
        return float(ends[half].mean() / rest.mean()) if rest.any() else None

    floor = floor_of_rows(real, of_half, "nearest", seed, target=1.0)
    return [_prevalence(float(flagged.mean() / ends.mean()), floor, details, len(synthetic))]


def _ends(rows: Transitions, terminated: Callable[[Array], Array] | None) -> tuple[Bools, Bools]:
    """Rows that end, and rows that begin where an episode has ended."""
    flagged = np.asarray(rows["terminations"], bool)
    after = np.zeros(len(rows), bool) if terminated is None else np.asarray(terminated(rows["observations"]), bool)
    return flagged & ~after, after


def _counts(ends: Bools, after: Bools) -> dict[str, int]:
    return {"rows": len(ends), "ends": int(ends.sum()), "begin after an end": int(after.sum())}


def rates(true: Bools, flagged: Bools) -> tuple[float | None, float | None]:
    """Recall and precision of two masks `[n]`; None where nothing is true, or nothing flagged."""
    hits, positives, flags = int((true & flagged).sum()), int(true.sum()), int(flagged.sum())
    return hits / positives if positives else None, hits / flags if flags else None


def _outcomes(side: Judged, terminated: Callable[[Array], Array]) -> tuple[Bools, Bools]:
    true = np.asarray(terminated(side.answer.next_observations[side.judged]), bool)
    return true, np.asarray(side.rows["terminations"][side.judged], bool)


def _measurement(
    name: str, value: float | None, floor: Floor | None, details: dict[str, Any], sample: int
) -> Measurement:
    if value is None and "why" not in details:
        details = {"why": "no row is flagged", **details}
    source = "known termination function of the oracle's next state"
    return Measurement(f"terminations.{name}", value, UNITS[name], "higher", (0.0, 1.0), sample, source, floor, details)


def _prevalence(value: float | None, floor: Floor | None, details: dict[str, Any], sample: int) -> Measurement:
    unit, source, limits = "1 = as often as real rows", "flags of the table and of the real data", (0.0, float("inf"))
    return Measurement("terminations.prevalence", value, unit, "nearest", limits, sample, source, floor, details, 1.0)
