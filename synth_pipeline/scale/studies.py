"""Running a study: arms first, then cells, each a task of a process; what is there is never made again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth_pipeline.agents.replay import Mixture
from synth_pipeline.config import content_hash
from synth_pipeline.errors import ConfigError
from synth_pipeline.evaluation.cells import Task, agent_of, data_of, drawn, lost_arm, make_arm, run_cell
from synth_pipeline.evaluation.costs import arms_seconds, cell_seconds
from synth_pipeline.evaluation.study import Cell, StudyConfig, cells
from synth_pipeline.runs import read_object
from synth_pipeline.scale.estimate import HOUR_S
from synth_pipeline.scale.tasks import at_once, map_tasks
from synth_pipeline.sources.collect import data_folder
from synth_pipeline.tracking import Progress, counted, duration, say

Results = dict[Cell, dict[str, Any]]
Wanted = Callable[[Cell], bool]


@dataclass(frozen=True)
class Bill:
    """What is left of a study.

    Attributes:
        cells: Cells without a result, and in all.
        arms: Rows to be made: arm by arm, how often.
        seconds: Of the cells' trainings and evaluations, on the workers asked for; at most, as episodes may end early.
        arm_seconds: Of what is trained to make or label rows, on as many workers.
    """

    cells: tuple[int, int]
    arms: dict[str, int]
    seconds: float
    arm_seconds: float


def tasks_of(study: StudyConfig, folder: Path, only: Wanted = lambda cell: True) -> list[Task]:
    """Every cell of a study that is wanted."""
    data = data_of(study)
    return [Task(study, cell, folder, data[cell.arm]) for cell in cells(study) if only(cell)]


def missing(tasks: Sequence[Task]) -> list[Task]:
    """Those without a result."""
    return [task for task in tasks if not task.result_file.exists()]


def bill(study: StudyConfig, folder: Path, *, workers: int | str, only: Wanted = lambda cell: True) -> Bill:
    """What a study still takes, by the rates of first steps, here and now."""
    every = tasks_of(study, folder, only)
    left = missing(every)
    arms: dict[str, int] = {}
    for task in _arms(left):
        arms[task.cell.arm] = arms.get(task.cell.arm, 0) + 1
    took: dict[str, float] = {}
    for task in left:
        if task.cell.agent not in took:
            took[task.cell.agent] = cell_seconds(task)
    hands = at_once(workers)
    seconds = sum(took[task.cell.agent] for task in left)
    return Bill((len(left), len(every)), arms, seconds / hands, arms_seconds(left) / hands)


def run_study(
    study: StudyConfig,
    folder: Path,
    *,
    workers: int | str = 1,
    yes: bool = False,
    only: Wanted = lambda cell: True,
    finished: Callable[[Task], None] = lambda task: None,
) -> Results:
    """Every cell of a study, from what is there.

    Args:
        study: What is compared.
        folder: Where rows, states and results lie; several studies may share it.
        workers: Processes of one thread each, or a Dask scheduler; they change nothing but the time.
        yes: Go ahead even when it takes more than an hour.
        only: Which cells are wanted.
        finished: Told of every cell whose result has come.

    Raises:
        ConfigError: When it takes more than an hour.
        SourceError: When an agent cannot learn from the real rows of a draw, before anything is trained.
    """
    every = tasks_of(study, folder, only)
    left = missing(every)
    if not left:
        say("evaluate", f"nothing to do: {counted(len(every), 'cell')} are there")
    else:
        if not yes:
            _confirm(bill(study, folder, workers=workers, only=only))
        _begin_each(left)
        begin = time.monotonic()
        for wave in ([task.base for task in left], left):  # what is labelled anew is there before two ask for it
            _run("arms", make_arm, _arms(wave), "arms", workers=workers)
        there = len(every) - len(left)
        _run("evaluate", run_cell, left, "cells", workers=workers, there=there, finished=finished)
        say("evaluate", f"{counted(len(left), 'cell')} in {duration(time.monotonic() - begin)}")
    return {task.cell: _result_of(task) for task in every}


def _result_of(task: Task) -> dict[str, Any]:
    fix = f"rm '{task.result_file}'   # then the same command again: the cell is made anew"
    result = read_object(task.result_file, "the result of a cell", fix=fix)
    if "diverged" not in result:
        raise ConfigError(f"'{task.result_file}' is not the result of a cell", found=", ".join(result), fix=fix)
    return result


def _begin_each(tasks: Sequence[Task]) -> None:
    """Every agent on the real rows of every draw, without a step: what it refuses is said now, not hours later."""
    others = {(content_hash(task.settings), task.cell.size, _data_of(task)): task for task in tasks}
    for task in others.values():
        real, _ = drawn(task)
        agent_of(task, real).begin(Mixture(real), seed=0)


def _data_of(task: Task) -> int:
    """Which draw a cell's real rows are of: all rows are one, unless parts of them are held out in turn."""
    return task.cell.draw if task.cell.size or task.study.crossed else 0


def _arms(tasks: Sequence[Task]) -> list[Task]:
    """One task for every set of rows that is not there."""
    files = {task.rows_file: task for task in tasks if task.mixes}
    return [task for path, task in files.items() if not path.exists() and lost_arm(task) is None]


def _run(
    label: str,
    function: Callable[[Task], Any],
    tasks: Sequence[Task],
    unit: str,
    *,
    workers: int | str,
    there: int = 0,
    finished: Callable[[Task], None] = lambda task: None,
) -> None:
    if not tasks:
        return
    with Progress(label, len(tasks) + there, unit, start=there) as progress:
        shared = (Path.cwd(), tasks[0].folder, data_folder())
        for task, _ in map_tasks(function, tasks, workers=workers, shared=shared):
            progress.advance(1, task.cell.label)
            finished(task)


def _confirm(expected: Bill) -> None:
    seconds = expected.seconds + expected.arm_seconds
    if seconds > HOUR_S:
        raise ConfigError(
            f"this takes about {seconds / HOUR_S:,.1f} hours",
            found=f"{expected.cells[0]} of {counted(expected.cells[1], 'cell')} without a result",
            accepted="less than an hour without asking",
            fix="add --yes, or more --workers, or ask for fewer steps or runs",
        )
