"""`synthpipe`: the verbs of the pipeline, each one function of `stages` or of its neighbours.

Exit codes: 0 fine, 1 a fault of ours, 2 wrong use, 3 source, 4 store, 5 machine, 6 checkpoint, 7 gate, 8 export,
9 task, 10 training diverged, 130 interrupted. Running a command again resumes it, or says `nothing to do` and why.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

from synth_pipeline.doctor import TELEMETRY

# Telemetry of our dependencies is off before any of them is imported.
for _name, _value in TELEMETRY.items():
    os.environ.setdefault(_name, _value)

import typer  # noqa: E402
from typer.core import TyperGroup  # noqa: E402

from synth_pipeline import (  # noqa: E402
    __version__,
    cli_augment,
    cli_compare,
    cli_evaluate,
    cli_judge,
    cli_lists,
    cli_relabel,
)
from synth_pipeline.cli_options import (  # noqa: E402
    PRESETS,
    DryRun,
    Output,
    Repair,
    RunDirectory,
    Scheduler,
    Settings,
    Track,
    Workers,
    Yes,
    dataset_ids,
    generator_names,
    planned_only,
    preset_names,
    suggest,
    workers_of,
)
from synth_pipeline.errors import ConfigError, SynthPipelineError, typable, unknown_name  # noqa: E402
from synth_pipeline.run_config import CONFIG, RunConfig, load_run_config, open_run, overridden, store_url  # noqa: E402
from synth_pipeline.runs import Run  # noqa: E402
from synth_pipeline.tracking import console, counted, duration, human, require_backend, say, short  # noqa: E402

UsageError: Any = typer.BadParameter.__base__  # typer brings a click of its own, or uses the installed one


class _Verbs(TyperGroup):
    """A wrong verb gets the nearest right one; Ctrl-C is a sentence and 130."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if args[0] not in known and not ctx.resilient_parsing:
            raise unknown_name("command", args[0], known)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted; type the same command again to go on where it stopped", err=True)
            raise typer.Exit(130) from None


EPILOG = """
Exit codes: 0 fine, 1 a fault of ours, 2 wrong use, 3 source, 4 store, 5 machine, 6 checkpoint, 7 gate, 8 export,
9 task, 10 training diverged, 130 interrupted. The same command again goes on, or says that there is nothing to do.

Completion of verbs, options, datasets, presets, generators and agents: synthpipe --install-completion, and a new shell.
"""
app = typer.Typer(cls=_Verbs, name="synthpipe", rich_markup_mode="rich", pretty_exceptions_enable=False, epilog=EPILOG)


@app.command()
def doctor() -> None:
    """Check this machine: versions against their ranges, torch, GPU, physics, memory, disk, folders, Prefect, Dask.

    A line each with ok, warn or fail; exit code 5 when one failed.
    """
    from synth_pipeline.doctor import examine

    examine()


app.command()(cli_lists.datasets)
app.command()(cli_lists.settings)


@app.command()
def collect(
    dataset: Annotated[
        str,
        typer.Argument(metavar="DATASET", help="Catalog id, e.g. hopper/medium-replay.", autocompletion=dataset_ids),
    ],
    rows: Annotated[int | None, typer.Option(min=1, help="Transitions; default: the recipe's size.")] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    repair: Repair = False,
    dry_run: DryRun = False,
) -> None:
    """Collect a catalog dataset by running its behaviour policies in the simulator."""
    from synth_pipeline import stages
    from synth_pipeline.sources.collect import collection

    chosen = workers_of(workers, scheduler)
    if dry_run:
        plan = collection(dataset, rows=rows)
        size = plan.rows * plan.schema.row_bytes
        planned_only("collect", f"{plan.rows:,} rows of {dataset}, {size / 1e6:,.1f} MB, into {short(plan.folder)}")
        return
    stages.collect(dataset, rows=rows, workers=chosen, repair=repair)
    sized = ["--rows", str(rows)] if rows else []
    suggest("train", dataset, *sized, "-g", "synther", "-o", "runs/first")


@app.command()
def train(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET", help="Catalog id, Minari id, or HDF5 or npz file.", autocompletion=dataset_ids
        ),
    ],
    out: Output,
    generator: Annotated[
        str | None,
        typer.Option(
            "-g",
            "--generator",
            help="Generator: synther (the default), or a control, e.g. smote.",
            autocompletion=generator_names,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the whole run; default: 0.")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Size of a collected dataset; default: the recipe's.")] = None,
    settings: Settings = None,
    track: Track = "jsonl",
    dry_run: DryRun = False,
) -> None:
    """Fit a generator on the training episodes of a dataset (a tenth of the episodes is held out)."""
    from synth_pipeline import stages
    from synth_pipeline.config import flat
    from synth_pipeline.scale.fitted import source_of
    from synth_pipeline.sources import catalog

    run, place = Run(out), out / CONFIG
    there = load_run_config(str(place)).model_dump(mode="json") if place.exists() else {}
    config, alone = (_asked(base, dataset, generator, seed, rows, settings) for base in (there, {}))
    stages.check(run, config)
    require_backend(track)
    if rows is not None and dataset not in catalog.entries():
        what = f"'{dataset}' is not collected, so its size is what it is"
        accepted = "--rows with an id of `synthpipe datasets`"
        raise ConfigError(what, found=f"--rows {rows}", accepted=accepted, fix="leave --rows out")
    if dry_run:
        source_of(config).load()
        method = f"{config.generator['kind']} on {dataset}, seed {config.seed}"
        planned_only("train", f"{method}, {config.held_out_in_words} held out, into {short(out / 'model')}")
        return
    kept, given = flat(config.model_dump(mode="json")), flat(alone.model_dump(mode="json"))
    if more := [f"{key} {value}" for key, value in kept.items() if given.get(key) != value]:
        say("train", f"settings that {short(place)} has beside those typed: {', '.join(more)}")
    stages.train(run, config, tracker=track)
    suggest("generate", str(out), "-n", str(config.generate.rows))


@app.command()
def generate(
    run_directory: RunDirectory,
    rows: Annotated[int | None, typer.Option("-n", "--rows", min=1, help="Synthetic transitions in all.")] = None,
    where: Annotated[
        str | None, typer.Option(metavar="RELEVANCE", help="Aim half of the rows, e.g. at near_terminal or rarity.")
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    settings: Settings = None,
    repair: Repair = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Fill the store: any size, constant memory, resumable, the same bytes for any number of workers."""
    from synth_pipeline import stages
    from synth_pipeline.scale.estimate import estimate
    from synth_pipeline.scale.generation import plan_run

    changes = [*(settings or []), *([f"generate.rows={rows}"] if rows else [])]
    changes += [f"generate.where={where}"] if where else []
    run, config = open_run(run_directory, changes)
    chosen = workers_of(workers, scheduler)
    if dry_run:
        planned, url = plan_run(run, config), store_url(run, config)
        left = estimate(planned, url, workers=chosen)
        size, there = left.rows * planned.schema.row_bytes, planned.plan.num_rows - left.rows
        beside = f" ({there:,} are there)" if there else ""
        planned_only("generate", f"{left.rows:,} rows{beside}, {size / 1e6:,.1f} MB, into {short(url)}")
        if left.rows:
            say("", f"about {human(left.rate)} rows/s a worker, {duration(left.seconds)} in all")
        return
    stages.generate(run, config, workers=chosen, yes=yes, repair=repair)
    suggest("validate", str(run_directory))


app.command()(cli_relabel.relabel)
app.command()(cli_augment.augment)
app.command()(cli_judge.validate)
app.command()(cli_judge.audit)
app.command()(cli_compare.compare)
app.command()(cli_compare.diff)
app.command()(cli_evaluate.evaluate)
app.command()(cli_evaluate.advise)


@app.command()
def export(
    run_directory: RunDirectory,
    minari_id: Annotated[str | None, typer.Option("--id", help="Minari id; default: DATASET-GENERATOR-vN.")] = None,
    one_step: Annotated[int | None, typer.Option(min=0, help="Synthetic rows in the Minari dataset.")] = None,
    allow_failed: Annotated[bool, typer.Option(help="Export what failed the gate; the card says so.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Write the augmented dataset (Minari, flat HDF5, card) and read it back."""
    from synth_pipeline import stages
    from synth_pipeline.export.augmented import export_bytes
    from synth_pipeline.scale.fill import filled_store
    from synth_pipeline.scale.fitted import source_of

    changes = [f"export.minari_id={minari_id}"] if minari_id else []
    changes += [f"export.one_step={one_step}"] if one_step is not None else []
    run, config = open_run(run_directory, changes)
    if dry_run:
        stages.exportable(run, config, allow_failed=allow_failed)
        target, real = filled_store(run, config), source_of(config).load()
        size = export_bytes(real, target, config.export.one_step) / 1e6
        what = f"{len(real):,} real rows and {len(target):,} synthetic ones, {size:,.1f} MB"
        planned_only("export", f"{what}, as Minari and flat HDF5 into {short(run.folder('export'))}")
        return
    folder = stages.export(run, config, allow_failed=allow_failed)
    stages.report(run)
    say("next", typable(f"MINARI_DATASETS_PATH={shlex.quote(str(folder / 'minari'))} minari list local"))


@app.command()
def report(run_directory: RunDirectory) -> None:
    """Write report.html from what the run has measured so far."""
    from synth_pipeline import stages

    page = stages.report(open_run(run_directory)[0])
    say("next", f"open {shlex.quote(short(page))} in a browser")


@app.command()
def run(
    preset: Annotated[
        str,
        typer.Argument(metavar="PRESET_OR_YAML", help=PRESETS, autocompletion=preset_names),
    ] = "default",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="RUN", help="Run directory; default: runs/PRESET.")
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    settings: Settings = None,
    track: Track = "jsonl",
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Everything: collect, train, generate, validate, export, report, and agents where the preset says so.

    Again: it goes on where it was, or says nothing to do.
    """
    from synth_pipeline import stages

    config, chosen = load_run_config(preset, settings or []), workers_of(workers, scheduler)
    require_backend(track)
    folder = Path(preset).parent
    own = folder if Path(preset).name == CONFIG and (folder / "environment.json").exists() else None  # a run's own YAML
    directory = out or own or Path("runs") / Path(preset).stem
    if dry_run:
        stages.check(Run(directory), config)
        _plan_whole(config)
        planned_only("report", f"into {directory}")
        return
    page = stages.run_all(Run(directory), config, workers=chosen, yes=yes, tracker=track)
    say("next", f"open {shlex.quote(short(page))} in a browser, or make more rows:")
    more = ["synthpipe", "generate", str(directory), "-n", str(4 * config.generate.rows)]
    say("", typable(shlex.join(more)))


@app.callback(invoke_without_command=True)
def top(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Diffusion-made data for offline RL: generated at scale, proved, judged honestly."""
    if version:
        console.print(f"synth-pipeline {__version__}")
    elif ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        say("next", typable("synthpipe run smoke   (the whole path in seconds), then synthpipe datasets"))


def _asked(
    base: dict[str, Any],
    dataset: str,
    generator: str | None,
    seed: int | None,
    rows: int | None,
    settings: list[str] | None,
) -> RunConfig:
    """What `train` is told, over the settings that a run has already."""
    values = {**base, "dataset": dataset} | ({} if seed is None else {"seed": seed})
    if generator not in (None, values.get("generator", {}).get("kind")):
        values["generator"] = {"kind": generator}
    if rows is not None:
        values["collect"] = {"rows": rows}
    return RunConfig.parse(overridden(values, settings or []), where="options")


def _plan_whole(config: RunConfig) -> None:
    """One line a stage of what `run` would do."""
    from synth_pipeline.config import flat
    from synth_pipeline.generators.base import build
    from synth_pipeline.scale.fitted import source_of
    from synth_pipeline.scale.generation import generated_schema
    from synth_pipeline.sources import catalog
    from synth_pipeline.sources.collect import collection
    from synth_pipeline.validation.gate import load_suite

    if config.dataset in catalog.entries():
        wanted = collection(config.dataset, rows=config.collect.rows)
        spec, size = wanted.spec, wanted.rows * wanted.schema.row_bytes
        say("collect", f"{wanted.rows:,} rows of {config.dataset}, {size / 1e6:,.1f} MB, into {short(wanted.folder)}")
    else:
        spec = source_of(config).load().spec
    generator, suite, rows = build(config.generator), load_suite(config.validation.suite), config.generate.rows
    say("train", f"{generator.kind}, {config.held_out_in_words} held out")
    defaults = flat(build({"kind": generator.kind}).config.plain())
    for name, value in flat(generator.config.plain()).items():
        if value != defaults.get(name):
            say("", f"generator.{name} {value}, by default {defaults.get(name)}")
    say("generate", f"{rows:,} rows, {rows * generated_schema(spec, generator).row_bytes / 1e6:,.1f} MB")
    say("validate", f"{len(suite.rules)} rules of '{suite.name}'")
    say("export", f"Minari (real episodes and {min(config.export.one_step, rows):,} samples) and flat HDF5 (all rows)")
    if config.evaluation.in_run:
        who, pairs = ", ".join(config.evaluation.agents), counted(config.evaluation.seeds, "seed")
        say("evaluate", f"{who}, with and without these rows, {pairs}")


def _usage(error: Any) -> ConfigError:
    ctx = error.ctx
    return ConfigError(
        error.format_message().rstrip("."),
        found=shlex.join(["synthpipe", *sys.argv[1:]]),
        accepted=ctx.get_usage().removeprefix("Usage: ") if ctx else None,
        fix=f"{ctx.command_path if ctx else 'synthpipe'} --help",
    )


def main() -> None:
    """Entry point: user errors in the one form without a traceback, Ctrl-C as 130."""
    try:
        sys.exit(app(prog_name="synthpipe", standalone_mode=False))
    except UsageError as error:
        _fail(_usage(error))
    except SynthPipelineError as error:
        _fail(error)


def _fail(error: SynthPipelineError) -> None:
    sys.stdout.flush()
    typer.echo(error.render(), err=True)
    sys.exit(error.exit_code)
