"""How much of its limits SynthER uses up, for `synther.py`: 1 is all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synth_pipeline.validation.metric import Measurement


def number(measured: Mapping[str, Measurement], name: str) -> float:
    """A value that must be there."""
    value = measured[name].value
    assert value is not None, f"{name}: {measured[name].details}"
    return value


def beyond(value: float, low: float, high: float) -> float:
    """How far a value uses up its range: at most 1 inside [low, high]."""
    return max(low / value, value / high)


def use_at_novelty(ours: Mapping[str, Measurement], floor: Mapping[str, Any]) -> float:
    """In the two most novel fifths: mean and 99 % against SMOTE's, where it reaches there, mean against twice the
    ensemble's.
    """
    used = []
    fifths = zip(ours["oracle.mean"].details["error_by_novelty"], floor["smote"], floor["ensemble"], strict=True)
    for row, smote, ensemble in list(fifths)[3:]:
        used += [row[name] / smote[name] for name in ("mean", "p99") if smote["rows"]]
        used.append(row["mean"] / (2 * ensemble["mean"]))
    return float(max(used))


def use_of_coverage(ours: Mapping[str, Measurement]) -> float:
    """Distance over cells against 1.25 times the floor, rare cells against 90 %, share at the clip within 20 %."""
    used = [number(ours, "coverage.distance") / (1.25 * of_floor(ours, "coverage.distance"))]
    used.append(0.9 / max(number(ours, "coverage.rare"), 1e-9))
    if (clipped := ours["oracle.clipped_share_ratio"].value) is not None:
        used.append(beyond(max(clipped, 1e-9), 0.8, 1.2))
    return max(used)


def use_of_terminations(ours: Mapping[str, Measurement]) -> float:
    """Recall and precision against 0.85, prevalence within 0.8 and 1.25."""
    recall, precision, prevalence = (number(ours, f"terminations.{n}") for n in ("recall", "precision", "prevalence"))
    return max(0.85 / recall, 0.85 / precision, beyond(prevalence, 0.8, 1.25))


def of_floor(measured: Mapping[str, Measurement], name: str, *, worst: bool = False) -> float:
    """The metric between real halves: the median of the splits, or what 95 % of them reach."""
    floor = measured[name].floor
    assert floor is not None
    return floor.worst95 if worst else floor.median
