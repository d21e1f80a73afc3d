"""Judging a table of rows, whoever made it: scorecard, Great Expectations, pictures, all into one folder. No torch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth_pipeline import resources
from synth_pipeline.config import read_yaml
from synth_pipeline.data.containers import Episodes, Segments, Transitions
from synth_pipeline.data.rows import RowSource
from synth_pipeline.runs import environment, write_json
from synth_pipeline.tracking import Parts, duration, say, short
from synth_pipeline.validation.expectations import store_expectations
from synth_pipeline.validation.gate import Suite, Verdict
from synth_pipeline.validation.marginals import SAMPLE
from synth_pipeline.validation.picture_files import Picture, write_pictures
from synth_pipeline.validation.pictures import pictures
from synth_pipeline.validation.sample import draw, in_words
from synth_pipeline.validation.scorecard import FAMILIES, Reference, scorecard
from synth_pipeline.validation.statistics import edges_of, statistics

CARD = "scorecard.json"
SENSITIVITY = "validation/sensitivity.yaml"
Fifths = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Table:
    """What is judged.

    Attributes:
        rows: All of its rows.
        about: `path`, `digest`, `rows` and `generator`, for the card.
        episodes: Its trajectories (a sample of them); None: its rows are independent.
        spent: Seconds that the rows have cost, by what for.
    """

    rows: RowSource
    about: Mapping[str, Any]
    episodes: Episodes | Segments | None = None
    spent: Mapping[str, float] = field(default_factory=dict)


def judge_table(
    table: Table,
    reference: Reference,
    suite: Suite,
    folder: Path,
    *,
    controls: Mapping[str, Fifths] | None = None,
    expectations: bool = True,
    drawn: bool = True,
    seed: int = 0,
) -> Verdict:
    """Judge rows, and write `scorecard.json`, `expectations/` and `pictures/`; a failed rule is a verdict, no error.

    Args:
        table: What is judged.
        reference: What it is held against.
        suite: The rules.
        folder: Where to.
        controls: Name of a control -> its errors by fifths of novelty, drawn beside those of the rows.
        expectations: Also keep the gate as Great Expectations suites and Data Docs.
        drawn: Draw the pictures of the report.
        seed: Seed of the subsamples.

    Raises:
        UnknownNameError: When a rule names a metric that does not exist.
    """
    begin, rows, real = time.perf_counter(), table.rows, reference.real
    with Parts("validate", len(FAMILIES) + 2) as parts:
        verdict, card = scorecard(rows, reference, suite, episodes=table.episodes, seed=seed, progress=parts)
        sample = draw(rows, SAMPLE, real=real, seed=seed)
        parts("expectations")
        if expectations:
            card["expectations"] = _expected(
                table, sample.rows, card, reference, suite, verdict, folder / "expectations"
            )
        parts("pictures")
        shown = _drawn(table, sample.unaimed, card, reference, controls, seed) if drawn else []
        write_pictures(folder / "pictures", shown, digest=table.about["digest"])
    seconds = time.perf_counter() - begin
    origin = {"real dataset": real.spec.dataset_id, "real rows": len(real), "seed": seed}
    card |= {"store": dict(table.about), "provenance": {**origin, **environment()["versions"]}}
    card |= {
        "sensitivity": sensitivity(real.spec.environment),
        "cost": {**table.spent, "validation": round(seconds, 1)},
    }
    write_json(folder / CARD, card)
    _tell(verdict, seconds, folder / CARD, in_words(card))
    return verdict


def _expected(
    table: Table,
    sample: Transitions,
    card: Mapping[str, Any],
    reference: Reference,
    suite: Suite,
    verdict: Verdict,
    folder: Path,
) -> dict[str, Any]:
    rows, fields = table.rows, reference.fields
    return store_expectations(
        suite,
        verdict,
        card["measurements"],
        statistics=statistics(rows, fields, edges_of(reference.real.transitions(), fields)),
        sample=sample,
        fields=fields,
        rows=len(rows),
        folder=folder,
    )


def _drawn(
    table: Table,
    sample: Transitions,
    card: Mapping[str, Any],
    reference: Reference,
    controls: Mapping[str, Fifths] | None,
    seed: int,
) -> list[Picture]:
    episodes = table.episodes if isinstance(table.episodes, Episodes) else None
    name, fields = table.about["generator"]["kind"], reference.compared
    return pictures(reference.real, sample, card, fields, name=name, controls=controls, episodes=episodes, seed=seed)


def sensitivity(environment: str | None) -> dict[str, Any]:
    """What `validation/calibrate.py` found, and on which `dataset`, `environment` and number of `rows`.

    Args:
        environment: Of the data that are judged; None: not known.

    Returns:
        `scores`: metric -> (corruption, value), the mildest first. There are none for data of another environment,
        where the same corruption has other scores, and some metrics have no meaning.
    """
    found: dict[str, Any] = read_yaml(resources.path(SENSITIVITY))
    return found if environment == found["environment"] else {**found, "scores": {}}


def outcome(verdict: Verdict) -> str:
    """`PASS 25/25 rules, 5 not decidable`: an optional rule that could not be decided did not pass anything."""
    undecided = sum(rule.passed and rule.value is None for rule in verdict.rules)
    judged = len(verdict.rules) - undecided
    text = f"{'PASS' if verdict.passed else 'FAIL'} {judged - len(verdict.failures())}/{judged} rules"
    return text + (f", {undecided} not decidable" if undecided else "")


def _tell(verdict: Verdict, seconds: float, path: Path, aimed: str | None) -> None:
    say("validate", f"{outcome(verdict)}, by '{verdict.suite}', {duration(seconds)}: {short(path)}")
    if aimed:
        say("", aimed)
    for rule in verdict.failures():
        say("", rule.sentence())
