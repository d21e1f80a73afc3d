"""The stages of the pipeline: paths in, paths out, no orchestrator.

`collect -> train -> generate -> validate -> export -> evaluate -> report`. Each stage reads what the one before wrote,
writes its own folder of the run, and when called again with the same inputs says `nothing to do` and why.
Whoever writes holds the run's lock; who finds nothing to do needs none. Workers change nothing but the time it takes.
"""

from __future__ import annotations

import shlex
import time
from functools import partial
from pathlib import Path
from typing import Any

from synth_pipeline import store
from synth_pipeline.config import content_hash
from synth_pipeline.data.split import Split, split_dataset
from synth_pipeline.errors import ConfigError
from synth_pipeline.export.augmented import free_id
from synth_pipeline.export.stage import write_export, written
from synth_pipeline.fitting import fit_generator
from synth_pipeline.generators import base as generators
from synth_pipeline.judgement import Against, judge_store, verify
from synth_pipeline.run_config import RunConfig, keep_config, require_place, store_url
from synth_pipeline.runs import Run, require_space, write_bytes
from synth_pipeline.scale.estimate import confirm_hours, estimate, missing_rows
from synth_pipeline.scale.fill import fill, filled_store, repair_shards
from synth_pipeline.scale.fitted import fitted_facts, made_from, require_model, source_of, trained_model
from synth_pipeline.scale.generation import GenerateShard, ShippedModel, aim_of, plan_run, require_generated, rules_of
from synth_pipeline.sources import catalog
from synth_pipeline.sources import collect as collecting
from synth_pipeline.store import Commit, ShardTask
from synth_pipeline.store.lock import working
from synth_pipeline.tracking import counted, say, short
from synth_pipeline.validation.gate import load_suite, require_passed
from synth_pipeline.validation.judging import CARD, outcome
from synth_pipeline.validation.leaderboard import GENERATION, TRAINING
from synth_pipeline.validation.picture_files import read_pictures
from synth_pipeline.validation.record import is_scorecard, read_scorecard
from synth_pipeline.validation.report import render
from synth_pipeline.validation.scorecard import DISTRIBUTIONS, METRICS

# --- collect ---------------------------------------------------------------------------------------------------------


def collect(dataset_id: str, *, rows: int | None = None, workers: int | str = 1, repair: bool = False) -> Path:
    """Collect a catalog dataset by running its behaviour policies in the simulator.

    Args:
        dataset_id: Catalog id, e.g. `"hopper/medium-replay"`.
        rows: Transitions to collect; None: the recipe's size.
        workers: Processes, or the address of a Dask scheduler.
        repair: Check every byte, and make damaged shards again.

    Returns:
        The folder of the collected trajectories (a Zarr store).
    """
    collection = collecting.collection(dataset_id, rows=rows)
    target = store.create(str(collection.folder), collection.schema, collection.plan, collection.config)
    if repair:
        repair_shards(target, label="collect", workers=workers)
    if target.finalised:
        say("collect", f"nothing to do: {len(target):,} rows of {dataset_id} are in {short(collection.folder)}")
        return collection.folder
    fill(
        target, partial(_collect_shard, collection, target.url), rows=collection.rows, label="collect", workers=workers
    )
    return collection.folder


def _collect_shard(collection: collecting.Collection, url: str, task: ShardTask) -> Commit:
    begin = time.perf_counter()
    episodes = collection.collect_shard(task)
    seconds = time.perf_counter() - begin
    return store.write_shard(url, task, episodes, sidecar={"seconds": seconds})


# --- train -----------------------------------------------------------------------------------------------------------


def train(run: Run, config: RunConfig, *, tracker: str = "jsonl", warm_from: Path | None = None) -> Path:
    """Fit the generator on the training episodes of the dataset.

    Args:
        run: Run directory.
        config: The run's configuration.
        tracker: `jsonl` or `tensorboard`.
        warm_from: Folder of a generator that is trained on, with equal settings and fewer steps (`augment.share`).

    Returns:
        The folder of the fitted generator.

    Raises:
        ConfigError: When the run holds a generator that was fitted on other data or with other settings.
        BusyError: When another process is working on the run.
    """
    source, kind = source_of(config), generators.build(config.generator).kind
    fingerprint, settings = source.fingerprint(), made_from(config)
    key = content_hash(fingerprint, settings)
    folder = run.generator
    if folder.exists():
        require_model(folder, config, key)
        say("train", f"nothing to do: {kind} is fitted on this data with these settings")
        return folder
    dataset = source.load()
    parts = split_dataset(dataset, held_out=config.held_out, seed=config.seed)
    require_place(run)
    with working(run):
        if folder.exists():  # by another process, between the look above and the lock
            return train(run, config, tracker=tracker, warm_from=warm_from)
        start(run, config)
        say("train", f"{kind} on {len(parts.train):,} rows of {config.dataset} {_held_out(parts.split)}")
        fit_generator(run, config, dataset, parts, fingerprint, tracker=tracker, warm_from=warm_from)
    return folder


def _held_out(split: Split | None) -> str:
    if split is None:
        return "(no episodes to hold out: novelty will not be decidable)"
    return f"({counted(len(split.train), 'episode')}; {len(split.held_out):,} held out)"


# --- generate --------------------------------------------------------------------------------------------------------


def generate(run: Run, config: RunConfig, *, workers: int | str = 1, yes: bool = False, repair: bool = False) -> str:
    """Fill the store with synthetic transitions: constant memory, any size, the same bytes for any worker count.

    Args:
        run: Run directory with a fitted generator.
        config: The run's configuration; more rows than before extend the store, fewer change nothing.
        workers: Processes, or the address of a Dask scheduler.
        yes: Go ahead even when it takes more than an hour.
        repair: Check every byte, and make damaged shards again.

    Returns:
        Where the store is: a folder, or an `s3://` address.

    Raises:
        CheckpointError: When nothing was trained.
        ConfigError: When the generator was fitted with other settings, or it takes more than an hour.
        StoreError: When the store was made with other settings, or another process is working on the run.
        TaskError: When a generator rejects so many rows that a shard stays empty.
    """
    planned = plan_run(run, config)
    url, plan = store_url(run, config), planned.plan
    if "://" not in url:  # refused before the store is made, or is planned to be larger
        require_space(Path(url), missing_rows(plan, url) * planned.schema.row_bytes)
    if not yes and missing_rows(plan, url):
        confirm_hours(estimate(planned, url, workers=workers))
    with working(run):
        target = store.create(url, planned.schema, plan, planned.identity)
        kept = config.generate.replace(rows=plan.num_rows, rows_per_shard=plan.rows_per_shard)
        keep_config(run, config.replace(generate=kept))
        if repair:
            require_generated(target)
            repair_shards(target, label="generate", workers=workers)
        if target.finalised:
            asked = f" ({config.generate.rows:,} were asked for)" if config.generate.rows < plan.num_rows else ""
            say("generate", f"nothing to do: {len(target):,} rows of this generator are in {short(url)}{asked}")
            return url
        folder = run.generator
        model = ShippedModel.of(folder) if isinstance(workers, str) else str(folder)
        aim = aim_of(config.generate)
        make_shard = GenerateShard(
            model, target.url, plan.micro_batch, config.generate.max_attempts, aim, rules_of(config)
        )
        fill(target, make_shard, rows=plan.num_rows, label="generate", workers=workers, note=planned.note)
        return url


# --- validate --------------------------------------------------------------------------------------------------------


def validate(run: Run, config: RunConfig, *, workers: int | str = 1) -> Path:
    """Judge the store against the dataset; a failed gate is a verdict here, and an error when exporting.

    Every byte of the store is checked, also when it was judged before.

    Args:
        run: Run directory with a filled store.
        config: The run's configuration.
        workers: Processes that read all rows, or the address of a Dask scheduler.

    Returns:
        The scorecard (JSON).
    """
    target = filled_store(run, config)
    require_model(trained_model(run, config), config)
    source, settings = source_of(config), config.validation
    suite, rules = load_suite(settings.suite), rules_of(config)
    made = (target.digest(), source.fingerprint(), suite, rules, settings, config.seed)
    undoing = [DISTRIBUTIONS] if "aim" in target.config else []
    key = content_hash(*made, METRICS, *undoing)  # more metrics, or on other rows: judge again
    path = run.folder("validation") / CARD
    if (record := run.finished("validation", key)) and is_scorecard(path):
        verify(target, workers)
        say("validate", f"nothing to do: this store was judged by '{suite.name}' before: {record['outcome']}")
        return path
    facts = fitted_facts(run.generator, config)
    spent = {TRAINING: facts.seconds, GENERATION: target.seconds}
    with working(run):
        chosen = settings.model_dump(include={"learn_oracle", "learn_floor", "expectations", "pictures", "splits"})
        facts.require_same(source, config.dataset)
        real = source.load()
        against = Against(real, suite, facts.unseen(real), rules, seed=config.seed, **chosen)
        verdict = judge_store(target, against, run.folder("validation"), spent=spent, workers=workers)
        run.finish("validation", key, {"outcome": outcome(verdict), "digest": target.digest()})
    return path


# --- export ----------------------------------------------------------------------------------------------------------


def exportable(run: Run, config: RunConfig, *, allow_failed: bool = False) -> tuple[store.Store, dict[str, Any]]:
    """The store of a run and its scorecard, if they may be exported; arguments and errors as of `export`."""
    target, path = filled_store(run, config), run.folder("validation") / CARD
    if config.export.minari_id is not None:
        free_id(run.folder("export"), config.export.minari_id)
    return target, require_passed(path, target.digest(), str(run.directory), allow_failed=allow_failed)


def export(run: Run, config: RunConfig, *, allow_failed: bool = False) -> Path:
    """Write the augmented dataset: Minari (real episodes and one-step samples), flat HDF5 (all rows), card.

    Args:
        run: Run directory with a validated store.
        config: The run's configuration.
        allow_failed: Export also what failed the gate; the card then says so.

    Returns:
        The export folder.

    Raises:
        GateError: When the store failed the gate, or was not validated as it is now.
        BusyError: When another process is working on the run.
    """
    target, card = exportable(run, config, allow_failed=allow_failed)
    source, folder = source_of(config), run.folder("export")
    key = content_hash(target.digest(), source.fingerprint(), config.export, card["verdict"])
    if record := written(run, key):
        say("export", f"nothing to do: {record['minari_id']} was written from this store")
        return folder
    with working(run):
        if not written(run, key):  # by another process, between the look above and the lock
            fitted_facts(trained_model(run, config), config).require_same(source, config.dataset)
            write_export(
                run,
                key,
                config.export,
                real=source.load(),
                fingerprint=source.fingerprint(),
                synthetic=target,
                card=card,
                allow_failed=allow_failed,
            )
    return folder


# --- report and run --------------------------------------------------------------------------------------------------


def report(run: Run) -> Path:
    """Write `report.html` from what the run has measured so far.

    Raises:
        ConfigError: When nothing was validated yet.
    """
    path, fix = run.folder("validation") / CARD, shlex.join(["synthpipe", "validate", str(run.directory)])
    if not path.exists():
        raise ConfigError(f"there is nothing to report in '{run.directory}'", found="no scorecard", fix=fix)
    card = read_scorecard(path, fix=fix)
    digest = card["store"]["digest"]
    # What belongs to an earlier state of the store is left out.
    exported, evaluated = (r if r.get("digest") == digest else {} for r in map(run.record, ("export", "evaluation")))
    files = {label: f"export/{file}" for label, file in exported["files"].items()} if exported else None
    utility = {**evaluated, "sentence": evaluated["outcome"]} if evaluated else None
    drawn, learned = (read_pictures(run.folder(of) / "pictures", digest=digest) for of in ("validation", "evaluation"))
    whole = {**card, "export": files, "utility": utility}
    title = f"run {run.directory.resolve().name}"  # not its path: the page is the same wherever it is made
    page = render(whole, title=title, pictures=drawn, of_agents=learned).encode()
    target = run.directory / "report.html"
    if target.exists() and target.read_bytes() == page:
        say("report", f"nothing to do: {short(target)} is up to date")
        return target
    with working(run):
        write_bytes(target, page)
    say("report", short(target))
    return target


def start(run: Run, config: RunConfig) -> None:
    """Create the run directory and write its configuration.

    Raises:
        ConfigError: When the directory is something else.
    """
    require_place(run)
    run.create()
    keep_config(run, config)


def check(run: Run, config: RunConfig) -> None:
    """Find everything that would be refused later, before any work begins; nothing is written.

    Raises:
        ConfigError: For what cannot be used, or does not fit what the run directory holds.
    """
    require_place(run)
    made_from(config)
    load_suite(config.validation.suite)
    rules_of(config)
    source_of(config)
    if config.export.minari_id is not None:
        free_id(run.folder("export"), config.export.minari_id)
    if (model := run.generator).exists():
        require_model(model, config)


def run_all(
    run: Run,
    config: RunConfig,
    *,
    workers: int | str = 1,
    yes: bool = False,
    tracker: str = "jsonl",
    warm_from: Path | None = None,
    keep_model: bool = False,
) -> Path:
    """Every stage in order; what is finished is skipped, what failed the gate is reported and goes no further.

    Args:
        run: Run directory.
        config: The run's configuration.
        workers: Processes, or the address of a Dask scheduler.
        yes: Go ahead even when generating or evaluating takes more than an hour.
        tracker: `jsonl` or `tensorboard`.
        warm_from: Folder of a generator that is trained on (see `train`).
        keep_model: Train nothing: the data have grown since the run's generator was fitted.

    Returns:
        The report.

    Raises:
        GateError: When the store failed the gate; the report is written, nothing is exported.
    """
    check(run, config)
    if config.dataset in catalog.entries():
        collect(config.dataset, rows=config.collect.rows, workers=workers)
    if not keep_model:
        train(run, config, tracker=tracker, warm_from=warm_from)
    generate(run, config, workers=workers, yes=yes)
    validate(run, config, workers=workers)
    try:
        export(run, config)
        if config.evaluation.in_run:
            from synth_pipeline.evaluating import evaluate_where_known  # torch: seconds that other verbs save

            evaluate_where_known(run, config, workers=workers, yes=yes)
    finally:  # also what failed the gate is reported
        page = report(run)
    return page
