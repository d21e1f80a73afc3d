"""The relabel stage: the rows of a run with other labels, as a run of its own; nothing is generated.

The new run has the configuration and the fitted generator of the old one, and a store whose identity names the digest
of the old store and what was rewritten. Every other stage works on it; no rows are ever added to it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from synth_pipeline import store
from synth_pipeline.errors import ConfigError
from synth_pipeline.run_config import (
    CONFIG,
    RELABELLED,
    Lineage,
    RunConfig,
    keep_config,
    load_run_config,
    require_place,
)
from synth_pipeline.runs import Run, clear_partials, require_space, staged_directory, write_json
from synth_pipeline.scale.fill import fill, filled_store, repair_shards
from synth_pipeline.scale.fitted import trained_model
from synth_pipeline.scale.labels import PROBE_ROWS, FunctionLabels, GoalLabels, Labels, SimulatorLabels
from synth_pipeline.scale.relabel import RelabelShard, relabelled_config, relabelled_schema
from synth_pipeline.store import Store
from synth_pipeline.store.lock import working
from synth_pipeline.tracking import say, short


def choose_labels(run: Run, config: RunConfig, by: str | None, goal: str | None) -> Labels:
    """Labels for the rows of a run.

    Args:
        run: Run directory with a filled store.
        config: Its configuration.
        by: `simulator`, or `FILE.py:FUNCTION`.
        goal: Numbers with commas; either this or `by`.

    Raises:
        ConfigError: When both or neither are given, or they cannot label these rows.
        EnvironmentModelError: When the environment cannot have that goal.
        StoreError: When nothing was generated, or not to the end.
    """
    if (by is None) == (goal is None):
        raise ConfigError(
            "labels come either from --with or from --goal",
            found="neither" if by is None else "both",
            accepted="--with simulator, --with FILE.py:FUNCTION, or --goal X,Y",
            fix="--with simulator",
        )
    source = filled_store(run, config)
    if goal is not None:
        return GoalLabels.of(source.schema, goal)
    assert by is not None
    if by == "simulator":
        return SimulatorLabels.of(source.schema)
    return FunctionLabels.of(source.schema, by, source.read(0, min(PROBE_ROWS, len(source))))


def relabel(
    run: Run,
    config: RunConfig,
    out: Run,
    labels: Labels,
    *,
    drop: bool = False,
    workers: int | str = 1,
    repair: bool = False,
) -> Path:
    """Write the rows of a run with other labels into another run; what is there already stays.

    Args:
        run: Run directory with a filled store.
        config: Its configuration.
        out: The new run directory.
        labels: What is rewritten, and how.
        drop: Leave out rows that cannot be labelled; their number is said.
        workers: Processes, or the address of a Dask scheduler; they change nothing but the time it takes.
        repair: Check every byte of the new store, and make damaged shards again.

    Returns:
        The new store's folder.

    Raises:
        ConfigError: When rows cannot be labelled and are not to be dropped, or the new run is something else.
        StoreError: When nothing was generated, a shard is damaged, or the new run holds other rows.
        BusyError: When another process is working on the new run.
    """
    source, url = filled_store(run, config), out.folder("store")
    require_other(run, config, out)
    require_space(out.directory, len(source) * source.schema.row_bytes)
    schema, identity = relabelled_schema(source, labels), relabelled_config(source, labels)
    if store.exists(url):
        store.create(url, schema, source.plan, identity)  # refused before anything is written when it holds other rows
    with working(out):
        out.create()
        keep_config(out, _at_home(config))
        write_json(out.directory / RELABELLED, _lineage(run, labels, drop=drop).plain())
        _copy_model(trained_model(run, config), out.generator)
        target = store.create(url, schema, source.plan, identity)
        if repair:
            repair_shards(target, label="relabel", workers=workers)
        if target.finalised:
            say("relabel", f"nothing to do: the rows of {short(run.directory)} with these labels are in {short(url)}")
            return url
        make_shard = RelabelShard(source.url, source.digest(), str(url), labels, drop)
        fill(target, make_shard, rows=len(source), label="relabel", workers=workers)
    _tell(source, target)
    return url


def require_other(run: Run, config: RunConfig, out: Run) -> None:
    """Fail before anything is written when the new run cannot be there.

    Raises:
        ConfigError: When it is the old run, a run with other settings, or no run at all.
    """
    require_place(out)
    same = out.directory.resolve() == run.directory.resolve()
    there = load_run_config(str(out.directory / CONFIG)) if (out.directory / CONFIG).exists() else config
    if same or _at_home(there) != _at_home(config):
        raise ConfigError(
            f"relabelled rows cannot be written into '{out.directory}'",
            found="the run that they come from" if same else "a run with other settings",
            accepted="a path that does not exist yet, or a relabelling that goes on",
            fix="choose another folder with -o",
        )


def _at_home(config: RunConfig) -> RunConfig:
    """The configuration of the new run: its rows are in its own folder, wherever the old ones are."""
    return config.replace(generate=config.generate.replace(store=None))


def _lineage(run: Run, labels: Labels, *, drop: bool) -> Lineage:
    options = (*labels.options, *(["--drop-unknown"] if drop else []))
    return Lineage(parent=str(run.directory.resolve()), options=options)


def _copy_model(model: Path, target: Path) -> None:
    if not target.exists():
        clear_partials(target)
        with staged_directory(target) as staged:
            shutil.copytree(model, staged, dirs_exist_ok=True)


def _tell(source: Store, target: Store) -> None:
    if unknown := len(source) - len(target):
        say(
            "",
            f"{unknown:,} of {len(source):,} rows were left out ({unknown / len(source):.2%}): not known to the labels",
        )
