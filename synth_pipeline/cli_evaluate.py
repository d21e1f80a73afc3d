"""The verbs of `synthpipe` that train agents, or critics of a fixed policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synth_pipeline.cli_options import (
    DryRun,
    ProbeSettings,
    Scheduler,
    Settings,
    Workers,
    Yes,
    agent_names,
    dataset_ids,
    planned_only,
    suggest,
    workers_of,
)
from synth_pipeline.config import override
from synth_pipeline.errors import ConfigError
from synth_pipeline.run_config import RunConfig, open_run
from synth_pipeline.tracking import say, short


def evaluate(
    run_directory: Annotated[Path | None, typer.Argument(metavar="RUN", help="Run with a filled store.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET", help="Instead of a run: agents on this dataset alone.", autocompletion=dataset_ids
        ),
    ] = None,
    agents: Annotated[
        str | None, typer.Option(help="Names with commas, e.g. iql,td3_bc.", autocompletion=agent_names)
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="DIR", help="Folder (with --dataset).")] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    settings: Settings = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Train offline-RL agents on real rows and on real and synthetic ones, and compare them pair by pair.

    Seeds, steps, further arms: --set with evaluation.seeds=10, evaluation.gradient_steps=100000, or
    evaluation.controls and a list of arms, e.g. smote and duplicate, in square brackets. Errors of the values of a
    fixed policy beside the scores: evaluation.values=true.
    """
    from synth_pipeline import evaluating, stages
    from synth_pipeline.validation.judging import CARD

    if (run_directory is None) == (dataset is None):
        raise ConfigError(
            "either a run is evaluated, or agents on a dataset alone",
            found="both" if dataset else "neither",
            fix="synthpipe evaluate runs/default, or synthpipe evaluate --dataset hopper/medium-replay --agents iql",
        )
    if run_directory is not None and out is not None:
        what = "what is found of a run lies in the run"
        raise ConfigError(what, found=f"--out {out}", accepted="--out beside --dataset", fix="leave --out out")
    if run_directory is not None:
        run, config = open_run(run_directory, settings or [])
        folder = run.folder("evaluation")
    else:
        run, config = None, RunConfig.parse(override({"dataset": dataset}, settings or []), where="options")
        folder = out or evaluating.default_folder(config.dataset)
    if agents is not None:
        named = {name: config.evaluation.agents.get(name, {}) for name in map(str.strip, agents.split(","))}
        config = config.replace(evaluation=config.evaluation.replace(agents=named))
    chosen = workers_of(workers, scheduler)
    if dry_run:
        planned_only("evaluate", evaluating.plan(run, config, folder, workers=chosen))
    elif run is None:
        say("evaluate", short(evaluating.evaluate_alone(config, folder, workers=chosen, yes=yes)))
    else:
        evaluating.evaluate(run, config, workers=chosen, yes=yes)
        if (run.folder("validation") / CARD).exists():
            stages.report(run)
        else:
            suggest("validate", str(run_directory))


def advise(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="Catalog id, Minari id, or file, of a known environment.",
            autocompletion=dataset_ids,
        ),
    ],
    rows: Annotated[int | None, typer.Option(min=1, help="Size of a collected dataset; default: the recipe's.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Default: runs/advise-DATASET.")
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    settings: ProbeSettings = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Say whether to augment a dataset, with what and at which ratio, by a value probe; about ten minutes.

    The probe: critics of a fixed policy, held against its true values in held-out states of the simulator.
    """
    from synth_pipeline import advising
    from synth_pipeline.evaluating import default_folder
    from synth_pipeline.evaluation.advice import AdviceConfig

    config = AdviceConfig.parse(override({}, settings or []), where="advice")
    folder = out or default_folder(dataset, "advise")
    chosen = workers_of(workers, scheduler)
    if dry_run:
        planned_only("advise", advising.plan(dataset, rows, config, folder, workers=chosen))
        return
    advising.advise(dataset, rows, config, folder, workers=chosen, yes=yes)
    say("advise", short(folder / advising.ADVICE))
