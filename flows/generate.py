"""Make rows with a generator that is fitted: generate -> validate -> export -> report."""

from pathlib import Path

import tasks
from common import Workers, flow, front, parallel
from showing import Progress, show

from synth_pipeline.run_config import CONFIG, open_run


@flow
def generate(
    run: Path,
    rows: int | None = None,
    where: str | None = None,
    settings: list[str] = [],  # noqa: B006  (Prefect copies parameters)
    workers: Workers = 1,
    scheduler: str | None = None,
    yes: bool = False,
) -> Path:
    """Fill the store of a trained run, judge it, and export it when it passes.

    Args:
        run: Run directory with a fitted generator.
        rows: Synthetic transitions in all; none: as the run is configured. More rows extend the store.
        where: Relevance that half of the rows are aimed at, e.g. near_terminal.
        settings: Overrides of the run's configuration, e.g. validation.suite=smoke.
        workers: Processes.
        scheduler: Address of a Dask scheduler, e.g. tcp://host:8786, instead of processes.
        yes: Go ahead even when it takes more than an hour.

    Returns:
        The report.
    """
    changes = [*settings, *([f"generate.rows={rows}"] if rows else []), *([f"generate.where={where}"] if where else [])]
    open_run(run, changes)
    what = (run, str(run / CONFIG), changes)
    progress = Progress(run, "generate", "validate", "export", "report")
    tasks.generate(*what, parallel(workers, scheduler), yes)
    progress.ended("generate")
    tasks.validate(*what)
    progress.ended("validate")
    try:
        tasks.export(*what)
        progress.ended("export")
    finally:  # also what failed the gate is reported
        page: Path = tasks.report(run)
        show(page)
    progress.ended("report")
    return page


if __name__ == "__main__":
    front(generate)
