"""Filling a store: every missing shard is one task, and a task is a pure function of its address."""

from __future__ import annotations

from collections.abc import Callable

from synth_pipeline.scale.local import map_tasks
from synth_pipeline.store import Commit, ShardTask, Store
from synth_pipeline.tracking import Progress, duration, human, say


def fill(target: Store, function: Callable[[ShardTask], Commit], *, rows: int, label: str, workers: int) -> None:
    """Make every missing shard of a store; what is committed stays, whatever happens to the rest.

    Args:
        target: The store.
        function: Makes, writes and commits one shard; picklable.
        rows: About how many rows there will be: what progress is measured against.
        label: What the progress is called.
        workers: Processes.
    """
    with target.writing() as writing:
        tasks, committed = writing.missing(), len(target)
        if committed:
            say(label, f"resuming: {committed:,} of {rows:,} rows are committed")
        with Progress(label, rows, "rows", start=committed) as progress:
            for _, commit in map_tasks(function, tasks, workers=workers, threads=target.plan.threads):
                progress.advance(commit.rows)
        writing.finalise()
    about = f"{human(progress.rate)} rows/s, {duration(progress.seconds)}"
    say(label, f"{len(target):,} rows in {target.plan.num_shards} shards, {about}: {target.url}")
