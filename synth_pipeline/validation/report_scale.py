"""What stands below a metric in the report: its worst columns, and the scores of corruptions to read it by."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from synth_pipeline.validation.metric import badness
from synth_pipeline.validation.report_style import number, share, small

SHOWN = 3  # corruptions that are shown at once

Numbers = Mapping[str, Any]


def about(measurement: Numbers, scores: Numbers) -> str:
    """The worst columns of a measurement and the scores of corruptions.

    Args:
        measurement: As the scorecard holds it.
        scores: See `judging.sensitivity`; empty: nothing is known.
    """
    return _worst(measurement) + _corrupted(measurement, scores)


def note_on_scores(scores: Numbers) -> str:
    """What corruptions are, and on which data they were measured; that there are none for other environments."""
    if "scores" not in scores:
        return ""
    if not scores["scores"]:
        return (
            f" No corruption has been measured for these data, only {_place(scores)}, which is another environment: "
            "values are read beside those of real halves."
        )
    return (
        f" Corrupted: the same metric of real rows that were spoilt on purpose, {_place(scores)}, the mildest first. "
        "It is a scale for orientation: on other data of this environment the same corruption has another value."
    )


def _place(scores: Numbers) -> str:
    return f"on {scores['dataset']}, {scores['rows']:,} rows"


def _worst(measurement: Numbers) -> str:
    details = measurement["details"]
    if columns := details.get("columns"):
        ordered = sorted(columns.items(), key=lambda item: _badness(measurement, item[1]), reverse=True)
        shown = ", ".join(f"{escape(name)} {share(value)}" for name, value in ordered[:3])
    else:
        counts = sorted(details.get("fields", {}).items(), key=lambda item: -item[1])
        shown = ", ".join(f"{escape(name)} {value:,}" for name, value in counts[:3])
    return small(f"worst: {shown}") if shown else ""


def _corrupted(measurement: Numbers, scores: Numbers) -> str:
    """The scale that a value is read on: the mildest corruptions, and the others behind a click."""
    values = scores.get("scores", {}).get(measurement["metric"], ()) if measurement["value"] is not None else ()
    ordered = sorted(values, key=lambda pair: _badness(measurement, pair[1]))
    shown = [f"{escape(name)}: {number(value)}" for name, value in ordered]
    if not shown:
        return ""
    rest = shown[SHOWN:]
    more = f"<details><summary>{len(rest)} more</summary>{', '.join(rest)}</details>" if rest else ""
    return f'<div class="scale">corrupted: {", ".join(shown[:SHOWN])}{more}</div>'


def _badness(measurement: Numbers, value: float) -> float:
    return badness(value, measurement["direction"], measurement.get("target"))
