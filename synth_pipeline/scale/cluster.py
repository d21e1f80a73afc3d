"""An existing Dask cluster: map a picklable function over tasks, by the contract of `local.map_tasks`.

Workers are started by others, one process a core or a GPU, from the same lock as this process:

    dask worker tcp://host:8786 --nworkers 8 --nthreads 1
    CUDA_VISIBLE_DEVICES=0 dask worker tcp://host:8786 --nthreads 1        # and so on: one process a GPU

A process computes one task at a time, however many threads it was started with. Tasks are pure functions that write
whole files atomically, so whatever runs twice (a worker died, the scheduler was restarted, a task was late) leaves
the same bytes. This process connects to the scheduler alone, and listens nowhere.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from synth_pipeline.errors import ConfigError, TaskError
from synth_pipeline.runs import friendly_os_errors
from synth_pipeline.scale.remote import Item, Job, answer, make_job, require, run, same, warn_of_kinds
from synth_pipeline.scale.window import Window
from synth_pipeline.tracking import duration, say

Task = TypeVar("Task")
Result = TypeVar("Result")

CONNECT_S = 10.0  # until a scheduler answers, and has a worker
RETURN_S = 150.0  # until a scheduler that was lost, or its workers, are back
TICK_S = 1.0
ADDRESS = re.compile(r"(tcp|tls)://([^:/\s\[\]]+|\[[0-9a-fA-F:]+\]):\d+")


def map_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    scheduler: str,
    threads: int = 1,
    shared: Sequence[Path] = (),
) -> Iterator[tuple[Task, Result]]:
    """Run `function` on every task and yield `(task, result)` as they finish (see `tasks.map_tasks`).

    A few tasks a worker are in flight; workers that join are used. Those that die are Dask's to replace, and it runs
    their tasks elsewhere. When the scheduler is restarted, what was in flight is submitted again.

    Raises:
        ConfigError: When the scheduler cannot be reached, has no workers, or has some that do not fit.
        TaskError: When a task killed its workers again and again, or the cluster stays away.
        Exception: What a task raised, unchanged; tasks already finished have been yielded.
    """
    if threads < 1:
        raise ConfigError("a worker needs at least one thread", found=threads, accepted="1 or more")
    window = Window(len(tasks))
    if not tasks:
        return
    from distributed import KilledWorker

    with _tokens(shared) as tokens, closing(_Session(scheduler, make_job(function, threads, tokens))) as session:
        while window.left:
            try:
                for index in window.wanted(session.workers(), time.monotonic()):
                    session.submit(index, tasks[index])
                finished, failed = session.ended()
            except _LostError:
                window.lost()
                session.again()
                continue
            for index, (result, seconds) in finished.items():
                if window.ended(index, seconds):
                    yield tasks[index], result
            for index, error in failed.items():
                if not isinstance(error, KilledWorker):
                    raise error
                if window.killed(index):
                    raise _deadly(tasks[index]) from None


def count_workers(scheduler: str) -> int:
    """How many worker processes a scheduler has.

    Raises:
        ConfigError: When it cannot be reached, or has none.
    """
    client = connected(scheduler, CONNECT_S)
    try:
        return len(client.nthreads())
    finally:
        client.close()


class _LostError(Exception):
    """The scheduler has forgotten what was in flight."""


def _deadly(task: object) -> TaskError:
    return TaskError(
        "worker processes died again and again on the same task",
        found=f"task {task}",
        fix="out of memory? start fewer workers a machine; finished parts are kept, run the command again",
    )


# --- on the side of the client ---------------------------------------------------------------------------------------


class _Session:
    """A connection to the scheduler, and what is in flight on it.

    Args:
        address: Of the scheduler.
        job: What is the same for all tasks.

    Raises:
        ConfigError: See `map_tasks`.
    """

    def __init__(self, address: str, job: Job) -> None:
        self._address, self._job = address, job
        self._open(CONNECT_S)

    def _open(self, seconds: float) -> None:
        import dask

        self._ended: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self._copies: dict[int, list[Any]] = {}
        self._client = connected(self._address, seconds)
        try:
            self._name, self._workers = self._identity()
            self._asked = self._there = time.monotonic()
            answers = self._client.run(answer, self._job.asked, on_error="return")
            require(self._job.asked, answers)
            warn_of_kinds(self._job.asked, answers)
            # A task that returns the job, and no data that is placed on a worker: when that worker dies, it runs again.
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 GiB"}):  # a model may be in it
                self._shipped = self._send(same, self._job)
        except BaseException:
            self._client.close()
            raise

    def workers(self) -> int:
        """How many there were within the last second.

        Raises:
            TaskError: When there were none for a long time.
            _LostError: When the scheduler is gone.
        """
        now, before = time.monotonic(), self._workers
        if now - self._asked >= TICK_S:
            name, self._workers = self._identity()
            if name != self._name:  # another one has taken its place
                raise _LostError
            self._asked = now
        if before and not self._workers:
            say("cluster", f"no worker is left; waiting for one, up to {duration(RETURN_S)}")
        self._there = now if self._workers else self._there
        if now - self._there > RETURN_S:
            raise TaskError(
                f"the scheduler at {self._address} has no workers any more",
                found=f"none for {duration(RETURN_S)}",
                fix=f"dask worker {self._address} --nthreads 1   # then the same command again: it goes on",
            )
        return self._workers

    def _identity(self) -> tuple[str, int]:
        """What the scheduler calls itself, and its workers: asked, because one that was stopped in order says no word.

        Raises:
            _LostError: When there is no answer.
        """
        if self._client.status != "running":
            raise _LostError
        try:
            about = self._client.sync(self._client.scheduler.identity, n_workers=0)
        except (OSError, CancelledError) as error:
            raise _LostError from error
        return about["id"], about["n_workers"]

    def submit(self, index: int, task: object) -> None:
        """Send a task; of one that is in flight, a second copy to a worker that idles."""
        copies = self._copies.setdefault(index, [])
        idle = [worker for worker, keys in self._client.processing().items() if not keys] if copies else []
        future = self._send(run, self._shipped, Item(task), workers=idle or None, allow_other_workers=bool(idle))
        copies.append(future)
        future.add_done_callback(lambda ended: self._ended.put((index, ended)))

    def ended(self) -> tuple[dict[int, tuple[Any, float]], dict[int, BaseException]]:
        """Results (and the seconds that each took) and failures, by index; neither after a second without any.

        Raises:
            _LostError: When the scheduler is gone.
        """
        found: list[tuple[int, Any]] = []
        with suppress(Empty):
            found.append(self._ended.get(timeout=TICK_S))
            while True:
                found.append(self._ended.get_nowait())
        ours = {index: future for index, future in found if future in self._copies.get(index, ())}  # first copies
        finished = [index for index, future in ours.items() if future.status == "finished"]
        failed = [index for index, future in ours.items() if future.status == "error"]
        if len(finished) + len(failed) < len(ours):
            raise _LostError
        try:
            results = self._client.gather([ours[index] for index in finished])
            errors = [ours[index].exception().with_traceback(ours[index].traceback()) for index in failed]
        except (CancelledError, OSError) as error:
            raise _LostError from error
        for index in ours:
            self._forget(index)
        return dict(zip(finished, results, strict=True)), dict(zip(failed, errors, strict=True))

    def again(self) -> None:
        """Connect to the scheduler when it is back.

        Raises:
            TaskError: When it stays away.
        """
        say("cluster", f"lost the scheduler at {self._address}; waiting for it, up to {duration(RETURN_S)}")
        self._client.close(timeout=TICK_S)
        try:
            self._open(RETURN_S)
        except NoClusterError as error:
            raise TaskError(
                f"the scheduler at {self._address} was lost, and did not come back",
                found=error.found,
                fix="start it and its workers, then run the same command again: finished parts are kept",
            ) from None
        say("cluster", "it is back; what was in flight is submitted again")

    def close(self) -> None:
        """Cancel what is in flight (a worker still ends the task that it is at), and leave."""
        with suppress(OSError, CancelledError):
            if self._client.status == "running":
                self._client.cancel([future for copies in self._copies.values() for future in copies], force=True)
        self._client.close(timeout=TICK_S)

    def _send(self, function: Callable[..., Any], *arguments: object, **where: Any) -> Any:
        return self._client.submit(
            function, *arguments, key=f"{function.__name__}-{uuid.uuid4().hex}", pure=False, **where
        )

    def _forget(self, index: int) -> None:
        """Also the other copy of a task, which nobody needs any more."""
        late = [future for future in self._copies.pop(index) if not future.done()]
        if late:
            self._client.cancel(late, force=True)


class NoClusterError(ConfigError):
    """No scheduler, or none with workers."""


def require_address(text: str) -> None:
    """Check the form of an address; nobody is asked.

    Raises:
        ConfigError: When a scheduler cannot have it.
    """
    if not ADDRESS.fullmatch(text):
        raise ConfigError(
            "this is not the address of a Dask scheduler",
            found=repr(text),
            accepted="tcp://HOST:PORT, or tls://HOST:PORT",
            fix="--scheduler tcp://127.0.0.1:8786",
        )


def connected(address: str, seconds: float) -> Any:
    """A client of a scheduler that has a worker.

    Raises:
        ConfigError: When the address is none, or nobody answers, or there are no workers.
    """
    require_address(address)
    import distributed

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what it has to say is said in our words
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(address, timeout=seconds, set_as_default=False, direct_to_workers=False)
    except (OSError, ValueError) as error:
        port = address.rpartition(":")[2]
        raise NoClusterError(
            f"no Dask scheduler answers at {address}",
            found=f"{type(error).__name__} within {duration(seconds)}",
            fix=f"dask scheduler --port {port}   # on that machine, and workers: dask worker {address} --nthreads 1",
        ) from error
    try:
        client.wait_for_workers(1, timeout=seconds)
    except (TimeoutError, OSError, CancelledError) as error:
        client.close()
        raise NoClusterError(
            f"the scheduler at {address} has no workers",
            found=f"none within {duration(seconds)}",
            accepted="one process a core or a GPU",
            fix=f"dask worker {address} --nworkers 8 --nthreads 1",
        ) from error
    return client


@contextmanager
def _tokens(shared: Sequence[Path]) -> Iterator[tuple[str, ...]]:
    """A file in each folder, by whose name a worker knows that it sees the same folder; gone after the block."""
    name = f".{uuid.uuid4().hex}.partial"  # what a crash leaves is cleared like all that is partial
    tokens = [folder.absolute() / name for folder in dict.fromkeys(shared)]
    try:
        for token in tokens:
            with friendly_os_errors(token):
                token.parent.mkdir(parents=True, exist_ok=True)
                token.touch()
        yield tuple(map(str, tokens))
    finally:
        for token in tokens:
            token.unlink(missing_ok=True)
