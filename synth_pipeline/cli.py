"""`synthpipe`: the verbs of the pipeline, each one function of `stages`.

Exit codes: 0 fine, 1 other errors, 2 wrong use, 3 source, 4 store, 5 machine, 6 checkpoint, 7 gate, 8 export, 9 task,
130 interrupted. Running a command again resumes it, or says `nothing to do` and why.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

# Telemetry of our dependencies is off before any of them is imported.
for _name, _value in (
    ("DO_NOT_TRACK", "1"),
    ("PREFECT_SERVER_ANALYTICS_ENABLED", "false"),
    ("GX_ANALYTICS_ENABLED", "false"),
):
    os.environ.setdefault(_name, _value)

import typer  # noqa: E402

from synth_pipeline import __version__  # noqa: E402
from synth_pipeline.errors import ConfigError, SynthPipelineError  # noqa: E402
from synth_pipeline.run_config import RunConfig, load_run_config  # noqa: E402
from synth_pipeline.runs import Run  # noqa: E402
from synth_pipeline.tracking import console, duration, human, say  # noqa: E402

app = typer.Typer(
    name="synthpipe",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Diffusion-made data for offline RL: generated at scale, proved, judged honestly.",
)

RunDirectory = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, e.g. runs/first.")]
Output = Annotated[Path, typer.Option("-o", "--out", metavar="RUN", help="Run directory; made when absent.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes. Never changes the data.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print plan, disk and time; do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Go ahead even when it takes more than an hour.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. generator.neighbours=3.")
]


@app.command()
def datasets() -> None:
    """List the datasets that can be collected here, and the Minari datasets on this machine."""
    from rich.table import Table

    from synth_pipeline.sources import catalog, minari_root
    from synth_pipeline.sources.collect import CollectedSource

    table = Table("id", "rows", "collected", "references (random, best)", "what", box=None)
    table.columns[0].no_wrap = True
    for entry in catalog.entries().values():
        references = entry.references
        best = f"{references.best.mean:,.0f}" if references.best else "-"
        collected = "yes" if CollectedSource(entry.id).describe()["collected"] else ""
        about = f"{references.random.mean:,.0f}, {best}"
        table.add_row(entry.id, f"{entry.rows:,}", collected, about, entry.description)
    console.print(table)
    local = minari_root.local_ids()
    say("minari", ", ".join(local) if local else "no local datasets")
    say("next", "synthpipe collect hopper/medium-replay")


@app.command()
def collect(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Catalog id, e.g. hopper/medium-replay.")],
    rows: Annotated[int | None, typer.Option(min=1, help="Transitions; default: the recipe's size.")] = None,
    workers: Workers = 1,
    dry_run: DryRun = False,
) -> None:
    """Collect a catalog dataset by running its behaviour policies in the simulator."""
    from synth_pipeline import stages
    from synth_pipeline.sources.collect import collection

    if dry_run:
        plan = collection(dataset, rows=rows)
        _plan_line(
            "collect",
            f"{plan.rows:,} rows of {dataset} in {plan.plan.num_shards} shards",
            plan.rows * plan.schema.row_bytes,
        )
        say("", f"into {plan.folder}")
        return
    stages.collect(dataset, rows=rows, workers=workers)
    say("next", f"synthpipe train {dataset} -g smote -o runs/first")


@app.command()
def train(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Catalog id, Minari id, or HDF5 or npz file.")],
    out: Output,
    generator: Annotated[str, typer.Option("-g", "--generator", help="Generator, e.g. smote, copula, vae.")] = "smote",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the whole run.")] = 0,
    rows: Annotated[int | None, typer.Option(min=1, help="Size of a collected dataset; default: the recipe's.")] = None,
    settings: Settings = None,
    track: Annotated[str, typer.Option(help="jsonl or tensorboard.")] = "jsonl",
    dry_run: DryRun = False,
) -> None:
    """Fit a generator on the training episodes of a dataset (a tenth of the episodes is held out)."""
    from synth_pipeline import stages
    from synth_pipeline.config import override
    from synth_pipeline.generators.base import build

    values = {"dataset": dataset, "seed": seed, "generator": {"kind": generator}, "collect": {"rows": rows}}
    config = RunConfig.parse(override(values, settings or []), where="options")
    build(config.generator)
    if dry_run:
        say("train", f"{generator} on {dataset}, seed {seed}, into {out}/model; nothing was done")
        return
    run = Run(out)
    stages.source_of(config).fingerprint()
    stages.start(run, config)
    stages.train(run, config, tracker=track)
    say("next", f"synthpipe generate {out} -n 200000")


@app.command()
def generate(
    run_directory: RunDirectory,
    rows: Annotated[int | None, typer.Option("-n", "--rows", min=1, help="Synthetic transitions in all.")] = None,
    workers: Workers = 1,
    settings: Settings = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Fill the store: any size, constant memory, resumable, the same bytes for any number of workers."""
    from synth_pipeline import stages

    changes = [*(settings or []), *([f"generate.rows={rows}"] if rows else [])]
    run, config = _open(run_directory, changes)
    if dry_run:
        planned = stages.plan_run(run, config, workers)
        plan, seconds = planned.plan, duration(planned.plan.num_rows / planned.rate / workers)
        what = f"{plan.num_rows:,} rows in {plan.num_shards} shards"
        _plan_line("generate", what, plan.num_rows * planned.schema.row_bytes)
        say("", f"about {human(planned.rate)} rows/s a worker, {seconds} in all; into {run.folder('store')}")
        return
    stages.generate(run, config, workers=workers, yes=yes)
    stages.start(run, config)
    say("next", f"synthpipe validate {run_directory}")


@app.command()
def validate(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN_OR_STORE", help="Run directory, or a store.")],
    real: Annotated[str | None, typer.Option(metavar="DATASET", help="Dataset to hold a store against.")] = None,
    suite: Annotated[str | None, typer.Option(help="Suite by name, or a YAML file.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Judge the store against the real data; exit code 7 when a rule fails."""
    from synth_pipeline import sources, stages, store
    from synth_pipeline.errors import GateError
    from synth_pipeline.runs import read_json
    from synth_pipeline.validation.gate import load_suite

    if real is not None:
        folder = run_directory.parent / f"{run_directory.name}-validation"
        rules, target = load_suite(suite or "default"), store.open(str(run_directory))
        path = folder / "scorecard.json"
        if not dry_run:
            stages.validate_store(target, sources.load(real), rules, path)
    else:
        run, config = _open(run_directory, [f"validation.suite={suite}"] if suite else [])
        rules, target = load_suite(config.validation.suite), store.open(str(run.folder("store")))
        path = run.folder("validation") / "scorecard.json"
        if not dry_run:
            stages.validate(run, config)
            stages.report(run)
    if dry_run:
        say("validate", f"{len(rules.rules)} rules of '{rules.name}' on {len(target):,} rows of {target.url}")
        return
    verdict = read_json(path)["verdict"]
    if not verdict["passed"]:
        failed = [rule["sentence"] for rule in verdict["rules"] if not rule["passed"]]
        raise GateError(f"'{target.url}' did not pass the suite '{rules.name}'", found="; ".join(failed))
    say("next", f"synthpipe export {run_directory}" if real is None else "train on it, or export the run it belongs to")


@app.command()
def export(
    run_directory: RunDirectory,
    minari_id: Annotated[str | None, typer.Option("--id", help="Minari id; default: DATASET-GENERATOR-vN.")] = None,
    one_step: Annotated[int | None, typer.Option(min=0, help="Synthetic rows in the Minari dataset.")] = None,
    allow_failed: Annotated[bool, typer.Option(help="Export what failed the gate; the card says so.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Write the augmented dataset (Minari, flat HDF5, card) and read it back."""
    from synth_pipeline import stages, store

    changes = [f"export.minari_id={minari_id}"] if minari_id else []
    changes += [f"export.one_step={one_step}"] if one_step is not None else []
    run, config = _open(run_directory, changes)
    if dry_run:
        target = store.open(str(run.folder("store")))
        bytes_flat = (len(target) + len(stages.source_of(config).load())) * target.schema.row_bytes
        _plan_line("export", f"Minari and flat HDF5 of {len(target):,} synthetic rows and the real ones", bytes_flat)
        return
    folder = stages.export(run, config, allow_failed=allow_failed)
    stages.report(run)
    say("next", f"MINARI_DATASETS_PATH={folder / 'minari'} minari list local")


@app.command()
def report(run_directory: RunDirectory) -> None:
    """Write report.html from what the run has measured so far."""
    from synth_pipeline import stages

    run, _ = _open(run_directory, [])
    path = stages.report(run)
    say("next", f"open {path} in a browser")


@app.command()
def run(
    preset: Annotated[
        str, typer.Argument(metavar="PRESET_OR_YAML", help="default, smoke, or a YAML file.")
    ] = "default",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="RUN", help="Run directory; default: runs/PRESET.")
    ] = None,
    workers: Workers = 1,
    settings: Settings = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Everything: collect, train, generate, validate, export, report. Again: resumes, or says nothing to do."""
    from synth_pipeline import stages

    config = load_run_config(preset, settings or [])
    directory = out or Path("runs") / Path(preset).stem
    if dry_run:
        for label, text in stages.plan_all(config):
            say(label, text)
        say("", f"into {directory}; nothing was done")
        return
    page = stages.run_all(Run(directory), config, workers=workers, yes=yes)
    say("next", f"open {page}, or: synthpipe generate {directory} -n {4 * config.generate.rows}")


@app.callback(invoke_without_command=True)
def version_option(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Diffusion-made data for offline RL: generated at scale, proved, judged honestly."""
    if version:
        console.print(f"synth-pipeline {__version__}")
        raise typer.Exit


def _open(directory: Path, changes: list[str]) -> tuple[Run, RunConfig]:
    """An existing run and its configuration with changes."""
    path = directory / "config.yaml"
    if not directory.is_dir() or not path.exists():
        raise ConfigError(
            f"'{directory}' is not a run directory",
            found="no config.yaml" if directory.is_dir() else "no such folder",
            accepted="what `synthpipe train` or `synthpipe run` made",
            fix=f"synthpipe train DATASET -o {directory}",
        )
    return Run(directory), load_run_config(str(path.absolute()), changes)


def _plan_line(label: str, text: str, size: int) -> None:
    say(label, f"{text}, {size / 1e6:,.1f} MB")


def main() -> None:
    """Entry point: user errors in the one form without a traceback, Ctrl-C as 130."""
    try:
        app()
    except SynthPipelineError as error:
        sys.stdout.flush()
        typer.echo(error.render(), err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to go on", err=True)
        sys.exit(130)
