"""What runs on the workers of a cluster: one task at a time, as it would run here, on workers that fit."""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import chdir, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from threadpoolctl import threadpool_limits

from synth_pipeline.errors import ConfigError
from synth_pipeline.runs import environment
from synth_pipeline.scale.local import pinned_threads, variables
from synth_pipeline.sources.collect import data_folder
from synth_pipeline.tracking import say

_LOCKED = ("torch", "numpy", "zarr")
_ONE_TASK = threading.Lock()
_FIT: set[str] = set()  # jobs that this worker process was found fit for


class Asked(NamedTuple):
    """What a worker must have: versions, a use of torch, folders by their tokens."""

    versions: dict[str, str]
    torch: bool
    tokens: tuple[str, ...]


class Answer(NamedTuple):
    """What a worker has: versions, the kind of its processor, the folders that it does not see."""

    versions: dict[str, str]
    kind: str
    unseen: list[str]


def versions() -> dict[str, str]:
    """What the bytes are promised for."""
    about = environment()
    return {
        "synth_pipeline": about["synth_pipeline"],
        "python": about["python"],
        **{name: about["versions"][name] for name in _LOCKED},
    }


def answer(asked: Asked) -> Answer:
    """What this process has."""
    kind = platform.machine()
    if asked.torch:
        import torch

        kind += f" {torch.backends.cpu.get_cpu_capability()}"
    return Answer(versions(), kind, [os.path.dirname(t) for t in asked.tokens if not os.path.exists(t)])


def require(asked: Asked, answers: Mapping[str, Any]) -> None:
    """Check that workers have what this process has.

    Raises:
        ConfigError: Naming the workers, and what is different.
    """
    differ, unseen = [], []
    for worker, answer in answers.items():
        if isinstance(answer, Exception):
            differ.append(f"{worker}: {type(answer).__name__}: {answer}")
            continue
        other = [
            f"{n} {answer.versions.get(n)} (here {v})" for n, v in asked.versions.items() if answer.versions[n] != v
        ]
        differ += [f"{worker}: {', '.join(other)}"] if other else []
        unseen += [f"{worker} does not see '{folder}'" for folder in answer.unseen]
    if differ:
        raise ConfigError(
            "workers have other versions than this process",
            found=_few(differ),
            accepted="one lock on every machine: the bytes are promised for it alone",
            fix="pip install -r requirements.lock where the workers are, and start them again",
        )
    if unseen:
        raise ConfigError(
            "workers do not see the folders of this process, or see others of the same name",
            found=_few(unseen),
            accepted="folders that all machines share, under one path",
            fix="work in a shared folder, or keep the rows in a bucket: s3://BUCKET/PREFIX",
        )


def _few(lines: list[str]) -> str:
    return "; ".join(lines[:4]) + (f"; and {len(lines) - 4} more" if len(lines) > 4 else "")


def warn_of_kinds(asked: Asked, answers: Mapping[str, Answer]) -> None:
    """Say when workers compute with other instructions than this process."""
    here = answer(asked._replace(tokens=())).kind
    others = sorted({answer.kind for answer in answers.values()} - {here})
    if others:
        kinds = ", ".join(others)
        say("cluster", f"warning: processors of other kinds ({kinds}; here {here}): their bytes may differ")


@dataclass(frozen=True)
class Job:
    """What is the same for all tasks of a call; it reaches every worker once.

    Attributes:
        function: What is run on a task.
        threads: Threads of one task.
        asked: What a worker must have.
        folder: Working directory of the tasks; None: the worker's own.
        environment: Where data lie.
        name: Of this call.
    """

    function: Callable[[Any], Any]
    threads: int
    asked: Asked
    folder: str | None
    environment: dict[str, str]
    name: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Item:
    """A task as Dask must not look into it: it would take tuples apart."""

    task: Any


def make_job(function: Callable[[Any], Any], threads: int, tokens: tuple[str, ...]) -> Job:
    """What workers need to run `function` as this process would."""
    here = os.getcwd()
    places = {"SYNTHPIPE_DATA": str(data_folder().absolute())}
    if minari := os.environ.get("MINARI_DATASETS_PATH"):
        places["MINARI_DATASETS_PATH"] = os.path.abspath(minari)
    seen = here if here in map(os.path.dirname, tokens) else None
    return Job(function, threads, Asked(versions(), "torch" in sys.modules, tokens), seen, places)


def same(job: Job) -> Job:
    """The task that brings a job to a worker."""
    return job


def run(job: Job, item: Item) -> tuple[Any, float]:
    """One task, and the seconds that it took; never two at a time in a process."""
    with _ONE_TASK:
        if job.name not in _FIT:  # a worker that joined after the others were asked
            from distributed import get_worker

            require(job.asked, {get_worker().address: answer(job.asked)})
            _FIT.add(job.name)
        begin = time.perf_counter()
        there = nullcontext() if job.folder is None else chdir(job.folder)
        with there, variables(job.environment), pinned_threads(job.threads), threadpool_limits(job.threads):
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(job.threads)
            return job.function(item.task), time.perf_counter() - begin
