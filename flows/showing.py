"""Artifacts of a run, for the pages of Prefect: progress, scorecard, pictures, and where the report is."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common  # noqa: F401  (settings, before Prefect is imported)
from prefect import artifacts

from synth_pipeline.runs import Run, read_json
from synth_pipeline.validation.judging import CARD
from synth_pipeline.validation.picture_files import read_pictures


def key(run: Path, name: str) -> str:
    """What an artifact is called: the versions of one name are a history, so every run has names of its own."""
    return re.sub(r"[^a-z0-9]+", "-", f"{run.parent.name}-{run.name}-{name}".lower()).strip("-")


class Progress:
    """Which stages of a flow have ended.

    Args:
        run: Run directory.
        stages: Their names, in order.
    """

    def __init__(self, run: Path, *stages: str) -> None:
        self._stages, self._ended = stages, 0
        self._id = artifacts.create_progress_artifact(0.0, key=key(run, "progress"), description=self._words)

    @property
    def _words(self) -> str:
        ended, next_ones = self._stages[: self._ended], self._stages[self._ended :]
        return "  \n".join([*(f"{name}: ended" for name in ended), *(f"{name}" for name in next_ones)])

    def ended(self, stage: str) -> None:
        """Note that a stage, and so everything before it, has ended."""
        self._ended = self._stages.index(stage) + 1
        share = 100.0 * self._ended / len(self._stages)
        artifacts.update_progress_artifact(self._id, share, description=self._words)


def show(page: Path) -> None:
    """Scorecard, pictures and report of a run.

    Args:
        page: Its `report.html`.
    """
    run = page.parent
    card = read_json(run / "validation" / CARD)
    artifacts.create_table_artifact(rules(card), key=key(run, "scorecard"), description=_verdict(card))
    for picture in read_pictures(run / "validation" / "pictures", digest=card["store"]["digest"]):
        if picture.svg:
            about = f"{picture.title}. {picture.caption}"
            artifacts.create_image_artifact(_inline(picture.svg), key=key(run, picture.name), description=about)
    if utility := Run(run).record("evaluation"):
        show_table(run, "utility", utility["table"], utility["outcome"])
    show_link(run, "report", page)


def show_table(run: Path, name: str, rows: Sequence[Mapping[str, Any]], about: str) -> None:
    """Rows of plain values; nested ones are left to the files."""
    plain = [{k: v for k, v in row.items() if not isinstance(v, dict | list)} for row in rows]
    artifacts.create_table_artifact(plain, key=key(run, name), description=about)


def show_link(run: Path, name: str, page: Path) -> None:
    """Where a page is: browsers follow such a link from a page of Prefect only when it is copied."""
    where = page.resolve()
    words = f"[{page.name}]({where.as_uri()})\n\n`{where}`"
    artifacts.create_markdown_artifact(words, key=key(run, name), description=f"{page.name} of {run.name}")


def rules(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for every rule of a scorecard, those that failed first."""
    found = [
        {
            "rule": rule["metric"],
            "value": "not decidable" if rule["value"] is None else f"{rule['value']:.4g}",
            "threshold": rule["threshold"],
            "passed": "yes" if rule["passed"] else "NO",
            "why": rule["why"],
        }
        for rule in card["verdict"]["rules"]
    ]
    return sorted(found, key=lambda row: row["passed"])


def _verdict(card: Mapping[str, Any]) -> str:
    verdict = card["verdict"]
    return f"{'passed' if verdict['passed'] else 'FAILED'}: suite '{verdict['suite']}', {card['store']['rows']:,} rows"


def _inline(svg: str) -> str:
    """A picture as an address that needs no server: pages of Prefect may not read files."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
