"""Filling a store: every missing shard is one task, and a task is a pure function of its address."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from synth_pipeline import store
from synth_pipeline.errors import StoreError
from synth_pipeline.run_config import RunConfig, store_url
from synth_pipeline.runs import Run
from synth_pipeline.scale.reading import damaged_shards, local_folder
from synth_pipeline.scale.tasks import map_tasks
from synth_pipeline.store import Commit, ShardTask, Store
from synth_pipeline.tracking import Progress, counted, duration, human, say, short


def fill(
    target: Store, function: Callable[[ShardTask], Commit], *, rows: int, label: str, workers: int | str, note: str = ""
) -> None:
    """Make every missing shard of a store; what is committed stays, whatever happens to the rest.

    Args:
        target: The store.
        function: Makes, writes and commits one shard; picklable.
        rows: About how many rows there will be: what progress is measured against.
        label: What the progress is called.
        workers: Processes, or a Dask scheduler.
        note: Shown beside the progress.
    """
    shared: dict[str, Any] = {"threads": target.plan.threads, "shared": local_folder(target)}
    with target.writing() as writing:
        tasks, committed = writing.missing(), len(target)
        if committed:
            say(label, f"going on: {committed:,} of {rows:,} rows are there")
        with Progress(label, rows, "rows", start=committed) as progress:
            for _, commit in map_tasks(function, tasks, workers=workers, **shared):
                progress.advance(commit.rows, note)
        writing.finalise()
    about = f"{human(progress.rate)} rows/s, {duration(progress.seconds)}" if tasks else "all there before"
    about += f", {note}" if note and tasks else ""
    say(label, f"{len(target):,} rows in {counted(target.plan.num_shards, 'shard')}, {about}: {short(target.url)}")


def repair_shards(target: Store, *, label: str, workers: int | str = 1) -> None:
    """Check every byte, and forget damaged shards so that `fill` makes them again.

    Args:
        target: The store.
        label: What the progress is called.
        workers: Processes, or a Dask scheduler.
    """
    damaged = damaged_shards(target, workers)
    if damaged:
        target.drop(*damaged)
    say(label, f"{counted(len(damaged), 'damaged shard')} found in {short(target.url)}")


def filled_store(run: Run, config: RunConfig) -> Store:
    """The store of a run, every shard of it there.

    Raises:
        StoreError: When nothing was generated, or not to the end, with the command that does it.
    """
    fix, url = shlex.join(["synthpipe", "generate", str(run.directory)]), store_url(run, config)
    if not store.exists(url):
        raise StoreError(f"nothing was generated in '{run.directory}' yet", found="no store", fix=fix)
    target = store.open(url)
    if not target.complete:
        missing = f"{target.num_missing} of {counted(target.plan.num_shards, 'shard')} are missing"
        raise StoreError(f"the store of '{run.directory}' is not complete", found=missing, fix=f"{fix}   # goes on")
    return target
