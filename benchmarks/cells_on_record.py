"""Finished cells of a study beside the evidence, so that days of training outlive the folder they ran in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from synth_pipeline.evaluation.study import Cell, StudyConfig
from synth_pipeline.runs import read_json, write_bytes, write_json
from synth_pipeline.scale.studies import Results, run_study, tasks_of


def unpack(record: Path, folder: Path) -> None:
    """Put the cells on record where a study looks for them; what is there stays."""
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    for line in lines:
        body: dict[str, Any] = json.loads(line)
        path = folder / "cells" / body.pop("file")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, body)


def pack(record: Path, study: StudyConfig, folder: Path) -> None:
    """Put every finished cell of a study on record, a line each; cells of another study or data leave it."""
    files = sorted({task.result_file for task in tasks_of(study, folder) if task.result_file.exists()})
    if not files and not record.exists():
        return
    lines = [json.dumps({"file": path.name, **read_json(path)}, sort_keys=True) for path in files]
    record.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(record, "".join(f"{line}\n" for line in lines).encode())


def refresh(record: Path, study: StudyConfig, folder: Path) -> None:
    """Bring both places to the same cells."""
    unpack(record, folder)
    pack(record, study, folder)


def run_on_record(
    study: StudyConfig, folder: Path, record: Path, *, workers: int, only: Callable[[Cell], bool] = lambda cell: True
) -> Results:
    """`run_study` from what is on record; what it finishes gets there, also when it is interrupted."""
    unpack(record, folder)
    try:
        return run_study(study, folder, workers=workers, yes=True, only=only)
    finally:
        pack(record, study, folder)
