"""The verb of `synthpipe` that follows a growing source."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from synth_pipeline.cli_options import (
    DryRun,
    Scheduler,
    Settings,
    Workers,
    Yes,
    planned_only,
    preset_names,
    workers_of,
)
from synth_pipeline.run_config import load_run_config
from synth_pipeline.tracking import say, short


def augment(
    preset: Annotated[
        str,
        typer.Argument(metavar="PRESET_OR_YAML", help="What each version is made from.", autocompletion=preset_names),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="ROOT", help="Folder of all versions.")],
    append: Annotated[
        bool, typer.Option("--append", help="Keep the generator, and add rows in the ratio in which the source grew.")
    ] = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    settings: Settings = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Follow a source that grows: a new version of its augmented dataset when it has changed, else nothing.

    Versions are run directories, ROOT/v0, v1, ...; ROOT/lineage.json says what was made from what. A source that was
    only added to trains the last generator on; other changes begin anew.
    """
    from synth_pipeline.augmenting import augment, planned

    config, chosen = load_run_config(preset, settings or []), workers_of(workers, scheduler)
    if dry_run:
        planned_only("augment", planned(out, config, append=append))
        return
    page = augment(out, config, append=append, workers=chosen, yes=yes)
    say("next", f"open {shlex.quote(short(page))} in a browser; when the source has grown, type the same again")
