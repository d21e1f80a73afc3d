"""The verb of `synthpipe` that rewrites labels."""

from __future__ import annotations

from typing import Annotated

import typer

from synth_pipeline.cli_options import (
    DryRun,
    Output,
    Repair,
    RunDirectory,
    Scheduler,
    Workers,
    planned_only,
    suggest,
    workers_of,
)
from synth_pipeline.run_config import open_run
from synth_pipeline.runs import Run
from synth_pipeline.tracking import short


def relabel(
    run_directory: RunDirectory,
    out: Output,
    by: Annotated[
        str | None, typer.Option("--with", metavar="LABELS", help="simulator, or FILE.py:FUNCTION of your own.")
    ] = None,
    goal: Annotated[str | None, typer.Option(metavar="X,Y", help="Another goal, where observations hold one.")] = None,
    drop: Annotated[
        bool, typer.Option("--drop-unknown", help="Leave out rows that the simulator cannot label.")
    ] = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    repair: Repair = False,
    dry_run: DryRun = False,
) -> None:
    """Write the rows of a run with other labels as a new run; nothing is generated, all other verbs work on it.

    A function takes a dict of columns (observations, actions, rewards, next_observations, terminations; a row each) and
    gives the rewards, or a dict of the columns that it rewrites.
    """
    from synth_pipeline.relabelling import choose_labels, relabel, require_other
    from synth_pipeline.scale.fill import filled_store

    run, config = open_run(run_directory)
    labels = choose_labels(run, config, by, goal)
    if dry_run:
        require_other(run, config, Run(out))
        rows = f"{len(filled_store(run, config)):,} rows of {short(run_directory)}"
        planned_only("relabel", f"{', '.join(labels.columns)} of {rows}, into {short(out)}")
        return
    relabel(run, config, Run(out), labels, drop=drop, workers=workers_of(workers, scheduler), repair=repair)
    suggest("validate", str(out))
