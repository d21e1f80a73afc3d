"""Local processes: map a picklable function over tasks, whatever order they end in, with one thread each.

Results do not depend on the number of workers: a task is a pure function of its argument, and every process
computes with the same number of threads. A worker that dies (out of memory, kill -9) is replaced; the tasks it
held are run again, one at a time, up to `MAX_TRIES` times each. Where there are GPUs, every worker sees one of them:
the first worker the first, and so on, from the start when there are more workers. Workers never outlive this process,
and Ctrl-C is heard by this process alone, which stops them at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from synth_pipeline.errors import ConfigError, TaskError

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_TRIES = 3
_SLOW_TO_IMPORT = ("torch", "torch._dynamo", "zarr", "scipy.spatial", "mujoco", "gymnasium", "h5py")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def map_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int = 1, threads: int = 1
) -> Iterator[tuple[Task, Result]]:
    """Run `function` on every task and yield `(task, result)` as they finish.

    Args:
        function: A module-level (picklable) function.
        tasks: Picklable arguments.
        workers: Processes; also 1 runs in a process of its own, so that threads are pinned the same way.
        threads: Threads that numerical libraries may use in each process.

    Raises:
        ConfigError: With fewer than one worker or thread.
        TaskError: When a task killed its worker `MAX_TRIES` times.
        Exception: What a task raised, unchanged; tasks already finished have been yielded.
    """
    if workers < 1:
        raise ConfigError("at least one worker is needed", found=workers, fix="--workers 1")
    if threads < 1:
        raise ConfigError("a worker needs at least one thread", found=threads, accepted="1 or more")
    tries = dict.fromkeys(range(len(tasks)), 0)
    pending = list(tries)
    while pending:
        # A task that ran while a worker died runs alone: the next death is its own, and no other task is blamed.
        batch = [index for index in pending if tries[index]][:1] or pending
        finished: set[int] = set()
        try:
            for index, result in _one_pool(function, tasks, batch, min(workers, len(batch)), threads):
                finished.add(index)
                yield tasks[index], result
        except BrokenProcessPool:
            suspects = [index for index in batch if index not in finished][:workers]  # started in this order
            _count_tries(tries, suspects, tasks)
        pending = [index for index in pending if index not in finished]


def _count_tries(tries: dict[int, int], suspects: list[int], tasks: Sequence[Any]) -> None:
    for index in suspects:
        tries[index] += 1
        if tries[index] >= MAX_TRIES:
            raise TaskError(
                f"a worker process died {MAX_TRIES} times on the same task",
                found=f"task {tasks[index]}",
                fix="out of memory? use fewer --workers; a script of your own? begin its work under "
                "`if __name__ == '__main__':`; finished parts are kept, run it again",
            ) from None


def _one_pool(
    function: Callable[[Task], Result], tasks: Sequence[Task], pending: list[int], workers: int, threads: int
) -> Iterator[tuple[int, Result]]:
    with pinned_threads(threads), _pool(workers, threads, preload=function.__module__) as pool:
        waiting = iter(pending)
        running: dict[Future[Result], int] = {}
        try:
            while True:
                # Two tasks a worker in flight: none idles, and a failure is seen before much more is started.
                for index in waiting:
                    with _interrupts_held_back():  # worker processes begin here, and inherit it
                        running[pool.submit(function, tasks[index])] = index
                    if len(running) >= 2 * workers:
                        break
                if not running:
                    return
                ended = wait(running, return_when=FIRST_COMPLETED).done
                # Results before failures: what finished is handed over, also when its neighbour raised or died.
                for future in sorted(ended, key=lambda future: (future.exception() is not None, running[future])):
                    yield running.pop(future), future.result()
        except Exception:
            for future in running:
                future.cancel()
            raise
        except BaseException:  # Ctrl-C, or nobody wants the rest: what is under way may take minutes to end
            for process in list(pool._processes.values()):
                process.kill()
            raise


def _pool(workers: int, threads: int, *, preload: str) -> ProcessPoolExecutor:
    """Workers of one thread fork from a server that has imported what this process has, once for all pools.

    How many threads its libraries use is settled when they are imported: workers of more than one begin from nothing.
    """
    forks = threads == 1 and "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    context.set_forkserver_preload([preload, *(name for name in _SLOW_TO_IMPORT if name in sys.modules)])
    shared = (dict(os.environ), threads, _devices(), context.Value("i", 0))
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=shared)


def _devices() -> list[str]:
    """The GPUs that this process sees, as `CUDA_VISIBLE_DEVICES` names them; none where torch is not in use."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def _begin(environment: dict[str, str], threads: int, devices: list[str], begun: Any) -> None:
    """A worker has the environment of this process, not of the server, and ends with it, also when it is killed."""
    os.environ.clear()
    os.environ.update(environment)
    with begun.get_lock():
        number, begun.value = begun.value, begun.value + 1
    if devices:  # CUDA begins with the first task, and reads it then
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    threadpool_limits(threads)  # the server may be older than this pool: somebody else's, with other limits
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """SIGINT waits until the block ends; processes that begin within never get it (a terminal sends it to all)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def pinned_threads(threads: int) -> AbstractContextManager[None]:
    """Children inherit the limits before they import any numerical library; this process is left as it was."""
    return variables(dict.fromkeys(_THREAD_VARIABLES, str(threads)))


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the length of a block."""
    before: dict[str, Any] = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
