"""Make rows with a generator that is fitted: generate -> validate -> export -> report."""

from pathlib import Path
from typing import Annotated

import tasks
from common import Workers, flow, front
from pydantic import Field
from showing import Progress, show

from synth_pipeline.cli_options import workers_of
from synth_pipeline.run_config import CONFIG, open_run

STAGES = ("generate", "validate", "export", "report")


@flow
def generate(
    run: Path,
    rows: Annotated[int | None, Field(ge=1)] = None,
    where: str | None = None,
    settings: list[str] = [],
    workers: Workers = None,
    scheduler: str | None = None,
    over_an_hour: bool = False,
) -> Path:
    """Fill the store of a trained run, judge it, and export it when it passes.

    Args:
        run: Run directory with a fitted generator.
        rows: Synthetic transitions in all; none: as the run is configured. More rows extend the store.
        where: Relevance that half of the rows are aimed at, e.g. near_terminal.
        settings: Overrides of the run's configuration, e.g. validation.suite=smoke.
        workers: Processes; none: 1.
        scheduler: Address of a Dask scheduler, e.g. tcp://host:8786, instead of processes.
        over_an_hour: Go ahead even when it takes more than an hour.

    Returns:
        The report.
    """
    asked = {"rows": rows, "where": where}
    changes = settings + [f"generate.{name}={value}" for name, value in asked.items() if value is not None]
    open_run(run, changes)
    return made(run, str(run / CONFIG), changes, workers_of(workers, scheduler), over_an_hour, Progress(run, *STAGES))


def made(
    run: Path,
    preset: str,
    settings: list[str],
    workers: int | str,
    yes: bool,
    progress: Progress,
    judge_use: bool = False,
) -> Path:
    """From a fitted generator to the report, which is written also for what failed the gate."""
    what = (run, preset, settings)
    tasks.generate(*what, workers, yes)
    progress.ended("generate")
    tasks.validate(*what, workers)
    progress.ended("validate")
    try:
        tasks.export(*what)
        progress.ended("export")
        if judge_use:
            tasks.evaluate_where_known(*what, workers, yes)
            progress.ended("evaluate")
    finally:
        page: Path = tasks.report(run)
        show(page)
    progress.ended("report")
    return page


if __name__ == "__main__":
    front(generate)
