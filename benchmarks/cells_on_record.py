"""Finished cells of a study beside the evidence, so that days of training outlive the folder they ran in.

Each has the commit at which it came: a study that runs for days shows whether its code stood still.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evidence import COMMIT

from synth_pipeline.evaluation.study import Cell, StudyConfig
from synth_pipeline.runs import Run, read_json, write_bytes, write_json
from synth_pipeline.scale.studies import Results, run_study, tasks_of
from synth_pipeline.store.lock import working


def unpack(record: Path, folder: Path) -> None:
    """Put the cells on record where a study looks for them; what is there stays."""
    for name, body in lines_of(record).items():
        path = folder / "cells" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {key: value for key, value in body.items() if key not in ("file", "commit")})


def pack(record: Path, study: StudyConfig, folder: Path) -> None:
    """Put every finished cell of a study on record, a line each; cells of another study or data leave it."""
    files = sorted({task.result_file for task in tasks_of(study, folder) if task.result_file.exists()})
    if not files and not record.exists():
        return
    known = lines_of(record)
    lines = [known.get(path.name) or {"file": path.name, "commit": COMMIT, **read_json(path)} for path in files]
    record.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(record, "".join(f"{json.dumps(line, sort_keys=True)}\n" for line in lines).encode())


def commits(record: Path) -> dict[str, int]:
    """Commit -> cells on record that were put there at it."""
    return dict(Counter(body["commit"] for body in lines_of(record).values()))


def core_seconds(record: Path) -> float:
    """Of all cells on record, and of the rows made for them: once an arm and draw, so that of two arms which share a
    generator both count it. In cells of before 2026-11-29 judging is part of `seconds`.
    """
    bodies = list(lines_of(record).values())
    arms = {tuple(body["cell"][name] for name in ("size", "draw", "arm")): body["arm_seconds"] for body in bodies}
    spent = sum(max(body["seconds"], body.get("process_seconds", 0.0)) for body in bodies)
    return float(spent + sum(arms.values()))


def lines_of(record: Path) -> dict[str, dict[str, Any]]:
    """File of a cell -> what is on record of it; empty without a record."""
    text = record.read_text(encoding="utf-8") if record.exists() else ""
    return {body["file"]: body for body in map(json.loads, text.splitlines())}


def refresh(record: Path, study: StudyConfig, folder: Path) -> None:
    """Bring both places to the same cells."""
    unpack(record, folder)
    pack(record, study, folder)


def run_on_record(
    study: StudyConfig, folder: Path, record: Path, *, workers: int, only: Callable[[Cell], bool] = lambda cell: True
) -> Results:
    """`run_study` from what is on record; each cell gets there as it comes, so that its commit is that of its code.

    Raises:
        BusyError: While another process works in the folder: both would make the rows that their studies share.
    """
    with working(Run(folder)):
        refresh(record, study, folder)
        return run_study(
            study, folder, workers=workers, yes=True, only=only, finished=lambda _: pack(record, study, folder)
        )
