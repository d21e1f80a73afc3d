"""Every stage as a Prefect task: paths and strings in, a path out.

A stage knows itself what it has finished, so nothing of Prefect's cache or stored results is used: a task that is run
again goes on where it was, and the whole flow may be run again at any time.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import common  # noqa: F401  (settings, before Prefect is imported)
import prefect
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from synth_pipeline import augmenting, comparison, evaluating, stages
from synth_pipeline.errors import BusyError, TaskError
from synth_pipeline.run_config import load_run_config
from synth_pipeline.runs import Run
from synth_pipeline.sources import catalog
from synth_pipeline.tracking import say

RETRY_AFTER_S = [10, 60]


class _Lines(io.TextIOBase):
    """What a stage prints, line by line into the log of its task."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._rest = write, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._write(line.rstrip())
        return len(text)

    def close(self) -> None:
        if self._rest:
            self._write(self._rest)
        super().close()


def may_help(task: Any, task_run: Any, state: Any) -> bool:
    """Whether trying again may help: after trouble with disks, networks, workers, or another process at work.

    Never after wrong use, a failed gate, damage, or a bug.
    """
    return isinstance(state.data, OSError | TaskError | BusyError)


def task(stage: Callable[..., Path | str]) -> Any:
    """Prefect's task, tried three times where that may help, with what it prints in its log."""

    @wraps(stage)
    def logged(*args: Any, **kwargs: Any) -> Path | str:
        with _Lines(get_run_logger().info) as lines, contextlib.redirect_stdout(lines):
            return stage(*args, **kwargs)

    again = {"retries": len(RETRY_AFTER_S), "retry_delay_seconds": RETRY_AFTER_S, "retry_condition_fn": may_help}
    return prefect.task(name=stage.__name__, cache_policy=NO_CACHE, persist_result=False, **again)(logged)


@task
def collect(preset: str, settings: Sequence[str], workers: int | str) -> Path:
    """Collect the dataset where it is one of the catalog's; others are there."""
    config = load_run_config(preset, settings)
    if config.dataset not in catalog.entries():
        say("collect", f"nothing to do: {config.dataset} is no dataset of the catalog")
        return Path(config.dataset)
    return stages.collect(config.dataset, rows=config.collect.rows, workers=workers)


@task
def train(run: Path, preset: str, settings: Sequence[str], track: str = "jsonl") -> Path:
    """Fit the generator."""
    return stages.train(Run(run), load_run_config(preset, settings), tracker=track)


@task
def generate(run: Path, preset: str, settings: Sequence[str], workers: int | str, yes: bool) -> str:
    """Fill the store, which may lie elsewhere."""
    return stages.generate(Run(run), load_run_config(preset, settings), workers=workers, yes=yes)


@task
def validate(run: Path, preset: str, settings: Sequence[str], workers: int | str) -> Path:
    """Judge the store."""
    return stages.validate(Run(run), load_run_config(preset, settings), workers=workers)


@task
def export(run: Path, preset: str, settings: Sequence[str]) -> Path:
    """Write the augmented dataset; refuses what has not passed."""
    return stages.export(Run(run), load_run_config(preset, settings))


@task
def evaluate(run: Path, preset: str, settings: Sequence[str], workers: int | str, yes: bool) -> Path:
    """Train agents with and without the rows."""
    return evaluating.evaluate(Run(run), load_run_config(preset, settings), workers=workers, yes=yes)


@task
def evaluate_where_known(run: Path, preset: str, settings: Sequence[str], workers: int | str, yes: bool) -> Path:
    """As `evaluate`; left out where no agent can act in the environment."""
    evaluating.evaluate_where_known(Run(run), load_run_config(preset, settings), workers=workers, yes=yes)
    return run


@task
def report(run: Path) -> Path:
    """Write the page."""
    return stages.report(Run(run))


@task
def augment(root: Path, preset: str, settings: Sequence[str], append: bool, workers: int | str, yes: bool) -> Path:
    """Bring a line of versions up to its source."""
    return augmenting.augment(root, load_run_config(preset, settings), append=append, workers=workers, yes=yes)


@task
def compare(runs: Sequence[str], out: Path) -> Path:
    """Judge runs by one ruler, with controls, cheaters and fresh real rows beside them."""
    comparison.compare(comparison.plan(runs, None, comparison.Choices()), out)
    return out / comparison.BOARD
