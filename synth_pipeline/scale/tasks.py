"""The one entrance to workers: processes of this machine, or those of a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from synth_pipeline.machine import cores
from synth_pipeline.scale import local

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    workers: int | str = 1,
    threads: int = 1,
    shared: Sequence[Path] = (),
) -> Iterator[tuple[Task, Result]]:
    """Run `function` on every task and yield `(task, result)` as they finish, whoever the workers are.

    Args:
        function: A module-level (picklable) function.
        tasks: Picklable arguments.
        workers: Processes of this machine, or the address of a Dask scheduler, e.g. `"tcp://host:8786"`.
        threads: Threads that numerical libraries may use in each process.
        shared: Folders that tasks read or write: every worker of a cluster must see the same ones. Tasks run in the
            working directory of this process when it is one of them.

    Raises:
        ConfigError: With fewer than one worker or thread, or a cluster that cannot be used.
        TaskError: When a task killed its workers again and again, or a cluster is gone for good.
        Exception: What a task raised, unchanged; tasks already finished have been yielded.
    """
    if isinstance(workers, str):
        from synth_pipeline.scale import cluster

        return cluster.map_tasks(function, tasks, scheduler=workers, threads=threads, shared=shared)
    return local.map_tasks(function, tasks, workers=workers, threads=threads)


def at_once(workers: int | str) -> int:
    """How many tasks run at the same time: more processes than there are cores make nothing faster.

    Raises:
        ConfigError: When a scheduler cannot be reached, or has no workers.
    """
    if isinstance(workers, str):
        from synth_pipeline.scale import cluster

        return cluster.count_workers(workers)
    return min(workers, cores())
