"""What a crash does to a store: nothing. Real SIGKILLs and in-process faults against an unbroken run.

`store.kill_resume`: a writing process is killed (SIGKILL) at a random moment, the same command is run again, and
the digest and every array file must equal the unbroken run's. Every other run writes with two worker processes, of
which only the coordinator is killed. `store.faults`: the k-th I/O call of a run in this process fails (no space, or
any exception, before or after it acted, or half-way through a file); again the same call must end at the same bytes.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from evidence import record

from synth_pipeline import store
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.errors import SynthPipelineError
from synth_pipeline.scale.local import map_tasks
from synth_pipeline.seeding import Stage
from synth_pipeline.store.folder import LocalFolder

SPEC = DatasetSpec(dataset_id="benchmark/faults", fields=transition_fields(11, Field(name="actions", shape=(3,))))
SCHEMA = store.Schema(kind="transitions", spec=SPEC, provenance=store.provenance("source_episode"))
# What may differ between two runs of the same recipe: who wrote which shard, and when.
OUTSIDE = ("sidecar", "lock")


def rows_of(task: store.ShardTask) -> Transitions:
    """Rows that follow from the task alone."""
    rng = task.rng(Stage.GENERATE)
    values = {f.name: rng.standard_normal((task.rows, *f.shape)).astype(f.dtype) for f in SCHEMA.columns}
    return Transitions(
        {**values, "terminations": rng.random(task.rows) < 0.1, "source_episode": rng.integers(0, 99, task.rows)}
    )


class WriteShard:
    """The task of a worker process: write one shard of the store in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, task: store.ShardTask) -> None:
        """Make and write the rows of one task."""
        store.write_shard(self.folder, task, rows_of(task))


def write(folder: Path, plan: store.Plan, workers: int = 0) -> str:
    """The command that is killed and run again; without workers it writes in this process. Returns the digest."""
    target = store.create(folder, SCHEMA, plan, {"program": "store_faults"})
    work = WriteShard(folder)
    with target.writing() as session:
        tasks = session.missing()
        for _ in map_tasks(work, tasks, workers=workers) if workers else map(work, tasks):
            pass
        session.finalise()
    return target.digest()


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a store that its recipe decides."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in named.items() if not name.startswith(OUTSIDE)}


class Writer:
    """The command in a process group of its own."""

    def __init__(self, folder: Path, workers: int, shards: int) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--write", str(folder)]
        command += ["--workers", str(workers), "--shards", str(shards)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            lines.readline()
        self._begin = time.perf_counter()

    def finish(self) -> float:
        """Wait for the end; seconds since the writing began."""
        if self._process.wait() != 0:
            raise RuntimeError("the writing process failed")
        return time.perf_counter() - self._begin

    def kill_after(self, seconds: float) -> bool:
        """SIGKILL at a moment after the writing began; false when it had ended before."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
        return self._process.wait() == -signal.SIGKILL

    def clear(self) -> None:
        """End worker processes that outlived their coordinator."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def kills_survived(folder: Path, count: int, shards: int, *, workers: tuple[int, ...] = (0, 2), seed: int = 0) -> int:
    """Of `count` killed runs, how many end like an unbroken one; the numbers of workers take turns."""
    chance = random.Random(seed)
    expected, seconds = {}, {}
    for number in workers:
        unbroken = folder / f"unbroken-{number}"
        seconds[number] = Writer(unbroken, number, shards).finish()
        expected[number] = files(unbroken)
    equal = 0
    for run in range(count):
        number = workers[run % len(workers)]
        target = _killed(folder / str(run), number, shards, chance, seconds[number])
        equal += files(target) == expected[number] == expected[workers[0]]
    return equal


def _killed(folder: Path, workers: int, shards: int, chance: random.Random, seconds: float) -> Path:
    """A store whose writer was killed at a random moment and run again; its stray workers are still there then."""
    for attempt in itertools.count():
        target = folder / str(attempt)
        writer = Writer(target, workers, shards)
        # A run that ends before its kill proves nothing, and is drawn again.
        if writer.kill_after(chance.uniform(0, seconds)):
            Writer(target, workers, shards).finish()
            writer.clear()
            return target
    raise AssertionError("unreachable")


class InjectedFaultError(Exception):
    """What an injected fault raises when it is not an error of the operating system."""


class Faults:
    """Counts the I/O calls of a run and lets one of them fail."""

    def __init__(self, at: int | None = None) -> None:
        self.calls, self._at, self._kind = 0, at, (at or 0) % 4

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, failing when its turn comes: before it acts, or after."""

        def wrapped(*arguments: Any, **options: Any) -> Any:
            turn = self.calls
            self.calls += 1
            if turn != self._at:
                return call(*arguments, **options)
            if self._kind >= 2:
                call(*arguments, **options)
            raise self._error()

        return wrapped

    def torn(self, replace: Callable[..., Any]) -> Callable[..., Any]:
        """The write of a file, leaving half of it behind under the temporary name when its turn comes."""

        def wrapped(folder: LocalFolder, path: Path, parts: Any, **options: Any) -> Any:
            turn = self.calls
            self.calls += 1
            if turn != self._at:
                return replace(folder, path, parts, **options)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.torn.partial").write_bytes(b"".join(parts[: len(parts) // 2 + 1])[:-1])
            raise self._error()

        return wrapped

    @contextmanager
    def injected(self) -> Iterator[None]:
        """Put the wrappers around the folder and the operating system's calls."""
        names = ("get", "get_many", "put", "write", "sync", "delete", "list_keys", "update")
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(mock.patch.object(LocalFolder, name, self.wrap(getattr(LocalFolder, name))))
            for name in ("fsync", "replace", "pwrite", "ftruncate"):
                stack.enter_context(mock.patch.object(os, name, self.wrap(getattr(os, name))))
            stack.enter_context(mock.patch.object(LocalFolder, "_replace", self.torn(LocalFolder._replace)))
            yield

    def _error(self) -> Exception:
        return OSError(errno.ENOSPC, "No space left on device") if self._kind % 2 else InjectedFaultError()


def faults_survived(folder: Path, count: int, plan: store.Plan) -> int:
    """Of `count` faults, spread over all I/O calls of a run, after how many the same call ends like an unbroken run."""
    unbroken = folder / "unbroken"
    counting = Faults()
    with counting.injected():
        write(unbroken, plan)
    expected = files(unbroken)
    equal = 0
    for run in range(count):
        target = folder / str(run)
        faults = Faults(at=run * counting.calls // count)
        raised = False
        with faults.injected():
            try:
                write(target, plan)
            except (InjectedFaultError, OSError, SynthPipelineError):
                raised = True
        write(target, plan)
        equal += raised and files(target) == expected
    return equal


def main() -> None:
    """Kill and break as often as asked; write the claims when it is as often as they say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--shards", type=int, default=48)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        print("writing", flush=True)
        write(arguments.write, store.Plan(num_rows=arguments.shards * 16_384 - 99), arguments.workers)
        return
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        survived = kills_survived(Path(name), arguments.kills, arguments.shards)
    seconds = time.perf_counter() - begin
    record("store.kill_resume", survived, bar=">= 20", unit="killed runs equal to an unbroken one", seconds=seconds)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        survived = faults_survived(Path(name), arguments.faults, store.Plan(num_rows=60_000))
    seconds = time.perf_counter() - begin
    record("store.faults", survived, bar=">= 200", unit="broken runs equal to an unbroken one", seconds=seconds)


if __name__ == "__main__":
    main()
