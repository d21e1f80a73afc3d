"""Functions that worker processes import: what a task may do to its worker."""

import os
import signal
import time
from pathlib import Path

from synth_pipeline.errors import StoreError


def wait_until(condition, seconds=60):
    """Whether it came true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def square(number):
    return number * number


def process_and_threads(number):
    time.sleep(0.05)
    return number, os.getpid(), os.environ.get("OMP_NUM_THREADS"), os.environ.get("OPENBLAS_NUM_THREADS")


def library_threads(number):
    from threadpoolctl import threadpool_info

    return [library["num_threads"] for library in threadpool_info()]


def _count(folder, name):
    """How often this was called for `name`, over all processes."""
    Path(folder, f"{name}.{os.getpid()}.{time.monotonic_ns()}").touch()
    return calls(folder, name)


def calls(folder, name):
    return len(list(Path(folder).glob(f"{name}.*")))


def die_at_first(task):
    """Task `(folder, name, deaths)`: SIGKILL of the worker in the first `deaths` calls."""
    folder, name, deaths = task
    if _count(folder, name) <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return name


def slow_or_deadly(task):
    """Task `(folder, name, deaths)`: the harmless one is still running whenever the deadly one dies."""
    folder, name, deaths = task
    seen = _count(folder, name)
    if not deaths:
        time.sleep(1.0)
    elif seen <= deaths:
        while not calls(folder, "innocent"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return name


def fail(number):
    """A user's mistake in task 2 (after a moment), a bug in task 3."""
    if number == 2:
        time.sleep(0.3)
        raise StoreError("shard 2 is damaged", found=[1, 2], accepted="a whole shard", fix="write it again")
    if number == 3:
        raise ZeroDivisionError("a bug")
    return number


def fail_when_told(task):
    """Task `(folder, number)`: `fail`, but task 2 waits until a file "told" is there; what ended is counted there."""
    folder, number = task
    if number == 2:
        wait_until(Path(folder, "told").exists)
    fail(number)
    _count(folder, "ended")
    return number


def sample_digest(task):
    """Task `(directory, rows, seed, shard, attempt)`: what a saved generator draws there, as bytes by column."""
    from synth_pipeline.generators.base import load
    from synth_pipeline.seeding import Stage, stream

    directory, rows, *address = task
    generator, _ = load(Path(directory))
    sample = generator.sample(rows, stream(address[0], Stage.GENERATE, *address[1:]))
    return [(name, str(column.dtype), column.shape, column.tobytes()) for name, column in sample.columns.items()]


def visible_device(number):
    time.sleep(0.3)
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


def named_pair(task):
    """A named tuple that comes back with what it is called, where the task ran, and how many threads it had."""
    from threadpoolctl import threadpool_info

    threads = {library["num_threads"] for library in threadpool_info()}
    return type(task).__name__, os.getcwd(), os.environ["SYNTHPIPE_DATA"], threads, os.environ["OMP_NUM_THREADS"]


def slow_once(task):
    """Task `(folder, name, seconds)`: only the first call is slow."""
    folder, name, seconds = task
    if _count(folder, name) == 1:
        time.sleep(seconds)
    return name


def stay(task):
    """Task `(folder, name)`: long enough to be killed or interrupted, the first time."""
    folder, name = task
    first = _count(folder, name) == 1
    Path(folder, f"pid-{name}").write_text(str(os.getpid()))
    time.sleep(100 if first else 0)
    return name


def one_at_a_time(task):
    """Task `(folder, name)`: whether another one ran in this process meanwhile."""
    mark = Path(task[0], f"running-{os.getpid()}")
    alone = not mark.exists()
    mark.touch()
    time.sleep(0.2)
    mark.unlink(missing_ok=True)
    return alone
