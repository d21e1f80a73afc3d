"""Speed and memory of the store against `numpy.save` and `numpy.load`, measured in one run on one machine.

Yardstick and store are interleaved; the median of the paired ratios counts. Both read from the page cache and write to
the same disk. numpy works in one thread; the store encodes in one thread, hashes and waits for the disk in others.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from evidence import RESULTS, record

from synth_pipeline import store
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.spec import DatasetSpec, transition_fields

ROWS = 5_000_000
SHARD_ROWS = 262_144
SPEC = DatasetSpec(dataset_id="benchmark/hopper", fields=transition_fields(11, Field(name="actions", shape=(3,))))
SCHEMA = store.Schema(kind="transitions", spec=SPEC)


def block(rows: int) -> Transitions:
    """Random rows of hopper's size, 105 bytes each."""
    rng = np.random.default_rng(0)
    values = {f.name: rng.standard_normal((rows, *f.shape)).astype(f.dtype) for f in SCHEMA.columns}
    return Transitions({**values, "terminations": rng.random(rows) < 0.005})


def write_store(folder: Path, rows: int, part: Transitions) -> None:
    """Write a whole store, shard by shard, from one block of rows."""
    plan = store.Plan(num_rows=rows, rows_per_shard=SHARD_ROWS)
    target = store.create(folder, SCHEMA, plan, {"program": "benchmarks/store.py"})
    with target.writing() as session:
        for task in session.missing():
            store.write_shard(folder, task, part.take(slice(0, task.rows)))
        session.finalise()


def save_numpy(folder: Path, full: dict[str, np.ndarray]) -> None:
    """The yardstick of writing: one `.npy` a column, fsynced."""
    folder.mkdir()
    for name, column in full.items():
        with (folder / f"{name}.npy").open("wb") as file:
            np.save(file, column, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())


def load_numpy(folder: Path) -> dict[str, np.ndarray]:
    """The yardstick of reading."""
    return {f.name: np.load(folder / f"{f.name}.npy", allow_pickle=False) for f in SCHEMA.columns}


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call; its result is freed outside the clock."""
    gc.collect()
    begin = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - begin
    del result
    return seconds


def measure_writing(folder: Path, rows: int, repetitions: int) -> tuple[list[float], list[float]]:
    """Seconds of numpy and of the store; the last pair stays on disk."""
    part = block(SHARD_ROWS)
    full = {name: np.resize(column, (rows, *column.shape[1:])) for name, column in part.columns.items()}
    yardstick: list[float] = []
    ours: list[float] = []
    for _ in range(repetitions):
        for place, seconds, work in (
            (folder / "numpy", yardstick, lambda: save_numpy(folder / "numpy", full)),
            (folder / "store", ours, lambda: write_store(folder / "store", rows, part)),
        ):
            shutil.rmtree(place, ignore_errors=True)
            os.sync()
            seconds.append(timed(work))
    return yardstick, ours


def measure_reading(folder: Path, repetitions: int) -> tuple[list[float], list[float]]:
    """Seconds of numpy and of the store, both warm; opening the store is a claim of its own."""
    os.sync()
    target = store.open(folder / "store")
    target.read(0, 1)
    yardstick: list[float] = []
    ours: list[float] = []
    for repetition in range(repetitions + 1):
        pair = timed(lambda: load_numpy(folder / "numpy")), timed(target.read_all)
        if repetition:
            yardstick.append(pair[0])
            ours.append(pair[1])
    return yardstick, ours


def measure_opening(folder: Path, shards: int) -> dict[str, float]:
    """Seconds to open a store of many small shards and read its first row, before and after it is finalised."""
    plan = store.Plan(num_rows=16 * shards, rows_per_shard=16, rows_per_chunk=16)
    target = store.create(folder, SCHEMA, plan, {})
    part = block(16)
    seconds = {}
    with target.writing() as session:
        for task in session.missing():
            store.write_shard(folder, task, part)
        seconds["before_finalise"] = statistics.median(timed(lambda: store.open(folder).read(0, 1)) for _ in range(5))
        session.finalise()
    seconds["finalised"] = statistics.median(timed(lambda: store.open(folder).read(0, 1)) for _ in range(5))
    return seconds


def measure_batches(folder: Path) -> float:
    """Shuffled batches of 4,096 rows a second over one epoch."""
    begin = time.perf_counter()
    count = sum(1 for _ in store.open(folder).batches(4_096, seed=0))
    return count / (time.perf_counter() - begin)


def peak_memory(folder: Path, rows: int) -> float:
    """Peak resident memory (MB) of a process that writes a store of this size."""
    command = [sys.executable, __file__, "--only-write", str(folder), "--rows", str(rows)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(answer.stdout.split()[-1])


def main() -> None:
    """Measure everything and write the claims; a run with fewer rows writes nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--shards", type=int, default=2_000, help="shards of the store that is opened")
    parser.add_argument("--only-write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only_write:
        write_store(arguments.only_write, arguments.rows, block(SHARD_ROWS))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = RESULTS if arguments.rows == ROWS else folder / "results"
        # First, while this process is small: a child begins with the peak of the parent it was forked from.
        memory = peak_memory(folder / "memory", arguments.rows)
        write = measure_writing(folder, arguments.rows, arguments.repetitions)
        read = measure_reading(folder, arguments.repetitions)
        batches = measure_batches(folder / "store")
        opening = measure_opening(folder / "many", arguments.shards)
        seconds = time.perf_counter() - begin
        for claim, pair, bar, unit in (
            ("store.write_ratio", write, ">= 0.5", "x numpy.save + fsync"),
            ("store.read_ratio", read, ">= 0.7", "x numpy.load"),
        ):
            # Ratios of neighbours in time: what this disk takes for the same work drifts by a factor of five.
            ratio = statistics.median(numpy_s / store_s for numpy_s, store_s in zip(*pair, strict=True))
            details = {"rows": arguments.rows, "numpy_seconds": pair[0], "store_seconds": pair[1]}
            record(claim, ratio, bar=bar, unit=unit, seconds=seconds, details=details, folder=results)
        rows = {"rows": arguments.rows}
        for claim, value, bar, unit, details in (
            ("store.batches_per_s", batches, ">= 200", "batches of 4,096 rows a second", rows),
            ("store.peak_memory_mb", memory, "< 1000", "MB", rows),
            ("store.open_seconds", opening["finalised"], "< 0.5", "s", {"shards": arguments.shards, **opening}),
        ):
            record(claim, value, bar=bar, unit=unit, seconds=seconds, details=details, folder=results)


if __name__ == "__main__":
    main()
