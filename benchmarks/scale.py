"""Scale: `scale.two_workers`, and the plan for 1e9 and 1e12 rows, `scale.plan_1e9_1e12`.

    python benchmarks/scale.py [RUN] [--only two_workers|plan]     # RUN: with a fitted generator; default: runs/default

Two workers: a Dask cluster of two processes of one thread against a cluster of one, the same shards, connecting and
writing included; twice each, in turns.

The plan, in words (numbers are in the result's details, measured in the same run):

1. *Work.* A shard is a task, of at most 262,144 rows; a task takes minutes. Cost is rows / (rows a second of a core),
   storage is rows x bytes a row. Both grow in proportion, and nothing in the pipeline grows faster but what follows.
2. *Scheduler.* It sees (workers / seconds of a task) tasks a second, whatever the number of rows, and holds two tasks a
   worker: a few kilobytes each. It is the limit when workers x its seconds a task reach the seconds of a task; then:
   faster generators are packed into larger shards first, and beyond that one scheduler a store.
3. *Scheduling.* The real window runs in a simulation with log-normal times, stragglers, deaths and the scheduler's
   measured time a task. What is lost beyond ideal is a tail of a few medians at the end, and per task nothing that
   grows: so the loss of a longer run is the tail over a longer time, and a twentieth of 1e12 is enough to measure it.
4. *Manifest.* The first to break. A commit is about a kilobyte and is read whole when a store is opened, by each worker
   once, and gathered at the end by one process. At 1e9 rows that is megabytes and seconds. At 1e12 it is gigabytes in
   memory, and gathering it takes hours: so 1e12 rows are a hundred stores of 1e10, with seeds of their own, which are
   made, validated and exported apart. Sixteen at a time, each with a scheduler and 256 workers: one after another on
   all workers, each would lose its tail, which is as long and is then a third of its time.
5. *Validation* reads every byte, by shards on the same workers, and merges counts; samples do not grow.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

from evidence import RESULTS, record, record_table
from scale_simulation import Simulation, World

from synth_pipeline import store
from synth_pipeline.run_config import RunConfig, open_run
from synth_pipeline.runs import Run
from synth_pipeline.scale import window
from synth_pipeline.scale.fitted import trained_model
from synth_pipeline.scale.generation import GenerateShard, Generation, ShippedModel, plan_run
from synth_pipeline.scale.tasks import map_tasks
from synth_pipeline.store import Commit, Plan, commits
from synth_pipeline.store.folder import open_folder
from synth_pipeline.store.plan import MAX_SHARD_ROWS

TASKS, TASK_S = 12, 5.0
SIZES = {
    "1e9 rows": (10**9, 64),
    "1e12 rows in one store": (10**12, 4096),
    "1e10 rows: a hundredth, on a sixteenth of the workers": (10**10, 256),
    "1e10 rows on all workers": (10**10, 4096),
}
SIMULATED = 200_000  # tasks at most
NO_TASKS, COMMITS = 2_000, 2_000


def cluster(workers: int) -> Any:
    """Worker processes of one thread on loopback, no pages."""
    from distributed import LocalCluster

    where = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    return LocalCluster(n_workers=workers, threads_per_worker=1, **where)


def filled(run: Run, config: RunConfig, planned: Generation, plan: Plan, scheduler: str, folder: Path) -> float:
    """Fill a new store; seconds, connecting and writing included."""
    target = store.create(folder, planned.schema, plan, planned.identity)
    model = ShippedModel.of(trained_model(run, config))
    make = GenerateShard(model, target.url, plan.micro_batch, config.generate.max_attempts)
    tasks = [plan.task(shard) for shard in range(plan.num_shards)]
    begin = time.perf_counter()
    made = list(map_tasks(make, tasks, workers=scheduler, shared=[folder]))
    seconds = time.perf_counter() - begin
    assert sum(commit.rows for _, commit in made) == plan.num_rows
    return seconds


def sized(planned: Generation, seed: int) -> Plan:
    """`TASKS` tasks of about `TASK_S` seconds."""
    rows = max(256, round(planned.rate() * TASK_S))
    chunk = min(rows, 16_384)
    shard = max(1, rows // chunk) * chunk
    sizes = {"rows_per_shard": shard, "rows_per_chunk": chunk, "micro_batch": min(4_096, chunk)}
    return Plan.parse({"num_rows": TASKS * shard, "seed": seed, **sizes}, where="plan")


def two_workers(run: Run, config: RunConfig) -> None:
    """Measure and record `scale.two_workers`."""
    begin, planned = time.perf_counter(), plan_run(run, config)
    plan, rates, digests = sized(planned, config.seed), {1: list[float](), 2: list[float]()}, set()
    with tempfile.TemporaryDirectory() as temporary:
        for number, workers in enumerate((1, 2, 2, 1)):
            with cluster(workers) as made:
                first = plan.replace(num_rows=workers * plan.rows_per_shard)
                filled(run, config, planned, first, made.scheduler_address, Path(temporary) / f"warm-{number}")
                folder = Path(temporary) / str(number)
                seconds = filled(run, config, planned, plan, made.scheduler_address, folder)
            rates[workers].append(plan.num_rows / seconds)
            digests.add(store.open(folder).digest())
            shutil.rmtree(folder)
    ratio = statistics.mean(rates[2]) / statistics.mean(rates[1])
    assert len(digests) == 1, "the number of workers changed the data"
    record(
        "scale.two_workers",
        ratio,
        bar=">= 1.8",
        unit="x rows/s of one Dask worker of one thread",
        seconds=time.perf_counter() - begin,
        seed=config.seed,
        details={
            "generator": planned.identity["generator"]["kind"],
            "rows_per_s": {str(workers): [round(rate, 1) for rate in found] for workers, found in rates.items()},
            "tasks": TASKS,
            "rows_per_task": plan.rows_per_shard,
            "digest": digests.pop(),
            **({} if ratio >= 1.8 else {"why": "not examined; rows_per_s has every run"}),
        },
    )


# --- the plan --------------------------------------------------------------------------------------------------------


def nothing(number: int) -> int:
    """The task of which only the overhead is measured."""
    return number


def overhead() -> dict[str, float]:
    """Seconds that client and scheduler take for a task, with so many in flight that they never wait."""
    with cluster(2) as made:
        usual, window.PER_WORKER = window.PER_WORKER, 100
        try:
            list(map_tasks(nothing, range(200), workers=made.scheduler_address))
            begin = time.perf_counter()
            assert len(list(map_tasks(nothing, range(NO_TASKS), workers=made.scheduler_address))) == NO_TASKS
            seconds = (time.perf_counter() - begin) / NO_TASKS
        finally:
            window.PER_WORKER = usual
    return {"seconds_per_task": seconds, "tasks_per_s": 1 / seconds}


def one_shard(run: Run, config: RunConfig, folder: Path) -> dict[str, float]:
    """A core's rows a second with writing, bytes of a row, and bytes and memory of a commit."""
    planned = plan_run(run, config)
    plan = sized(planned, config.seed)
    target = store.create(folder, planned.schema, plan.replace(num_rows=plan.rows_per_shard), planned.identity)
    make = GenerateShard(str(trained_model(run, config)), target.url, plan.micro_batch, config.generate.max_attempts)
    begin = time.perf_counter()
    commit = make(target.plan.task(0))
    rate = commit.rows / (time.perf_counter() - begin)
    return {
        "rows_per_s_a_core": rate,
        "bytes_per_row": sum(commit.sizes.values()) / commit.rows,
        "commit_bytes": (folder / "manifest" / "0.json").stat().st_size,
        **manifest(folder, commit),
    }


def manifest(folder: Path, commit: Commit) -> dict[str, float]:
    """Seconds and bytes a commit when many are gathered, and when a store of many is opened."""
    place = open_folder(folder / "many")
    for shard in range(COMMITS):
        body = Commit(shard, commit.rows, None, 0, commit.sizes, commit.checksums)
        commits.write(place, body, {"seconds": 1.0})
    begin = time.perf_counter()
    commits.compact(place)
    gathered = time.perf_counter() - begin
    tracemalloc.start()
    begin = time.perf_counter()
    assert len(commits.read(place)) == COMMITS
    opened = time.perf_counter() - begin
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found = {"finalise_s": gathered, "open_s_traced": opened, "memory_bytes": peak}
    return {f"{name}_per_commit": value / COMMITS for name, value in found.items()}


def planned_for(rows: int, workers: int, unit: dict[str, float], task: dict[str, float]) -> dict[str, Any]:
    """What a size takes, by arithmetic from what was measured, and the simulation of its scheduling."""
    shards = -(-rows // MAX_SHARD_ROWS)
    seconds = MAX_SHARD_ROWS / unit["rows_per_s_a_core"]
    opening = json.loads((RESULTS / "store.open_seconds.json").read_text())
    world = World(min(shards, SIMULATED), workers, seconds, task["seconds_per_task"])
    found = Simulation(world).run()
    alone = shards * seconds / workers
    return {
        "workers": workers,
        "shards": shards,
        "core_hours": round(rows / unit["rows_per_s_a_core"] / 3600),
        "terabytes": round(rows * unit["bytes_per_row"] / 1e12, 3),
        "seconds_per_task": round(seconds, 1),
        "days": round((alone + found["tail_s"]) / 86_400, 2),
        "scheduler_tasks_per_s": round(workers / seconds, 2),
        "scheduler_share": round(workers / seconds * task["seconds_per_task"], 4),
        "tasks_in_flight": window.PER_WORKER * workers,
        "manifest_mb": round(shards * unit["commit_bytes"] / 1e6, 1),
        "manifest_memory_gb": round(shards * unit["memory_bytes_per_commit"] / 1e9, 2),
        "finalise_s": round(shards * unit["finalise_s_per_commit"], 1),
        "open_s": round(shards * opening["value"] / opening["details"]["shards"], 2),
        "over_ideal": round(found["tail_s"] / alone, 5),
        "simulated": found,
    }


def plan(run: Run, config: RunConfig) -> None:
    """Measure, compute, simulate and record `scale.plan_1e9_1e12`."""
    begin, task = time.perf_counter(), overhead()
    with tempfile.TemporaryDirectory() as temporary:
        unit = one_shard(run, config, Path(temporary) / "store")
    sizes = {name: planned_for(rows, workers, unit, task) for name, (rows, workers) in SIZES.items()}
    record_table(
        "scale.plan_1e9_1e12",
        {
            "measured": {**unit, **{f"scheduler_{name}": value for name, value in task.items()}},
            "sizes": sizes,
            "second copies": second_copies(unit, task),
            "limits": {
                "workers of one scheduler": round(
                    MAX_SHARD_ROWS / unit["rows_per_s_a_core"] / task["seconds_per_task"]
                ),
                "rows of a store whose manifest takes 4 GB": round(
                    4e9 / unit["memory_bytes_per_commit"] * MAX_SHARD_ROWS
                ),
            },
            "breaks first": "the manifest: one process reads and gathers all commits of a store; 1e10 rows a store",
        },
        complete=all(size["simulated"]["tasks"] for size in sizes.values()),
        seconds=time.perf_counter() - begin,
        seed=config.seed,
    )


def second_copies(unit: dict[str, float], task: dict[str, float]) -> dict[str, Any]:
    """The tail at the end with and without second copies of late tasks, and that it does not grow with the tasks."""
    seconds, usual = MAX_SHARD_ROWS / unit["rows_per_s_a_core"], window.LATE_S
    found = {}
    for tasks in (SIMULATED // 8, SIMULATED // 4):
        for name, late in (("with", usual), ("without", float("inf"))):
            window.LATE_S = late
            tail = Simulation(World(tasks, 1024, seconds, task["seconds_per_task"])).run()["tail_s"]
            found[f"tail in medians, {tasks} tasks, {name}"] = round(tail / seconds, 2)
    window.LATE_S = usual
    return found


def main() -> None:
    """Both claims, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/default"), help="with a fitted generator")
    parser.add_argument("--only", choices=("two_workers", "plan"))
    arguments = parser.parse_args()
    run, config = open_run(arguments.run)
    if arguments.only != "plan":
        two_workers(run, config)
    if arguments.only != "two_workers":
        plan(run, config)


if __name__ == "__main__":
    main()
