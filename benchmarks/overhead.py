"""What a long job spends on anything but its work: `run.overhead_share`.

    python benchmarks/overhead.py [-o RUN]

`synthpipe run` with settings for an hour or more (a longer fit, a million rows, five seeds of each agent), from an
empty folder for collected data. Work is what the contract counts as such: steps of the simulator while collecting,
training steps (their checkpoints are not work), sampling, the oracle, and the cells of the agents. Overhead is the rest
of the wall time: imports, reading and writing, workers that begin, wait or run dry, every metric but the oracle,
floors, pictures, exports, the report.

The timers are put around functions from here, in this process and in every worker. For tasks that run side by side,
work is the sum of their seconds over the number of workers.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evidence import record

from synth_pipeline import evaluating, stages
from synth_pipeline.diffusion.loop import Learner
from synth_pipeline.dynamics import twofold
from synth_pipeline.evaluation import cells
from synth_pipeline.machine import cores
from synth_pipeline.run_config import load_run_config
from synth_pipeline.runs import Run
from synth_pipeline.scale import local
from synth_pipeline.scale.generation import GenerateShard
from synth_pipeline.sources.collect import Collection
from synth_pipeline.validation import oracle

JOB = {
    "generator.trainer.gradient_steps": 60_000,
    "generator.dynamics.regressor.trainer.gradient_steps": 12_000,
    "generate.rows": 1_000_000,
    "evaluation.gradient_steps": 40_000,
    "evaluation.seeds": 5,
}
WORK: dict[str, tuple[Any, str]] = {
    "collecting": (Collection, "collect_shard"),
    "training": (Learner, "run"),
    "checkpoints": (Learner, "save"),  # within training, and taken off it
    "sampling": (GenerateShard, "_sample"),
    "oracle": (oracle, "hold_against"),
    "learning an oracle": (twofold, "learned_truth"),
    "arms": (cells, "make_arm"),
    "agents": (cells, "run_cell"),
}
STAGES = ("collect", "train", "generate", "validate", "export", "report")

spent: defaultdict[str, float] = defaultdict(float)
inside: list[str] = []


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its seconds counted, unless it runs within other work."""

    @functools.wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        if inside and not (name == "checkpoints" and inside == ["training"]):
            return function(*args, **kwargs)
        inside.append(name)
        begin = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name] += time.perf_counter() - begin
            inside.pop()

    return measured


def put_timers() -> None:
    """Around every kind of work in this process, once, wherever a module holds the function."""
    for name, (owner, attribute) in WORK.items():
        function = getattr(owner, attribute)
        if hasattr(function, "__wrapped__"):
            return
        wrapper = timed(name, function)
        holders = [m for key, m in list(sys.modules.items()) if key.startswith("synth_pipeline")]
        for holder in [owner, *holders]:
            if getattr(holder, attribute, None) is function:
                setattr(holder, attribute, wrapper)


class InWorker:
    """A task's function that answers with the seconds of work as well."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, task: Any) -> tuple[Any, dict[str, float]]:
        """Run it with timers."""
        put_timers()
        spent.clear()
        function = self.function
        if (kind := getattr(function, "__name__", "")) in ("run_cell", "make_arm"):
            function = getattr(cells, kind)  # what was sent is the function without a timer
        return function(task), dict(spent)


def put_timers_into_workers() -> None:
    """Every local pool, whichever stage opens it."""
    plain = local.map_tasks

    def map_tasks(
        function: Callable[[Any], Any], tasks: Sequence[Any], *, workers: int = 1, threads: int = 1
    ) -> Iterator[tuple[Any, Any]]:
        for task, (result, seconds) in plain(InWorker(function), tasks, workers=workers, threads=threads):
            for name, value in seconds.items():
                spent[name] += value / workers
            yield task, result

    local.map_tasks = map_tasks


def time_stages() -> dict[str, dict[str, float]]:
    """Around every stage of this process: its wall time, and the work within, filled as they end."""
    found: dict[str, dict[str, float]] = {}

    def around(name: str, stage: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any, **kwargs: Any) -> Any:
            before, begin = spent.copy(), time.perf_counter()
            try:
                return stage(*args, **kwargs)
            finally:
                work = {key: value - before[key] for key, value in spent.items() if value > before[key]}
                found[name] = {"wall": time.perf_counter() - begin, **work}

        return measured

    for name in STAGES:
        setattr(stages, name, around(name, getattr(stages, name)))
    evaluating.evaluate_where_known = around("evaluate", evaluating.evaluate_where_known)
    return found


def rounded(numbers: dict[str, float]) -> dict[str, float]:
    """For people."""
    return {name: round(value, 1) for name, value in numbers.items()}


def main() -> None:
    """One job, watched from inside."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/hour"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another job")
    given = parser.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)  # what was done before would not be measured
    settings = [*(f"{key}={value}" for key, value in JOB.items()), *given.set]
    with tempfile.TemporaryDirectory(prefix="data-") as data:
        os.environ["SYNTHPIPE_DATA"] = data
        begin = time.perf_counter()
        by_stage = time_stages()
        put_timers()
        put_timers_into_workers()
        stages.run_all(Run(given.out), load_run_config("default", settings), workers=cores(), yes=True)
        seconds = time.perf_counter() - begin
    work = sum(spent.values()) - 2 * spent["checkpoints"]
    by_stage = {name: rounded(numbers) for name, numbers in by_stage.items()}
    details = {
        "seconds of work": rounded(spent),
        "stages": by_stage,
        "settings": settings,
        "minutes": round(seconds / 60, 1),
    }
    print(f"{seconds / 60:.1f} minutes, of which {work / 60:.1f} of work")
    for name, numbers in by_stage.items():
        print(f"{name:<22}{numbers}")
    if given.set:
        return
    share = round(1 - work / seconds, 4)
    record("run.overhead_share", share, bar="<= 0.05", unit="of the wall time", seconds=seconds, details=details)


if __name__ == "__main__":
    main()
