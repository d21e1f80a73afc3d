"""One writer, a lock that names it, and a safe way past a dead one."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from synth_pipeline.errors import BusyError, StoreBusyError
from synth_pipeline.runs import Run
from synth_pipeline.store import lock as locks
from synth_pipeline.store.folder import LocalFolder
from synth_pipeline.store.lock import LOCK, RUN_LOCK, hold, working

HOLDER = """
import sys, time
from pathlib import Path
from synth_pipeline.store.folder import LocalFolder
from synth_pipeline.store.lock import hold
with hold(LocalFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    return LocalFolder(tmp_path)


@pytest.fixture
def other_process(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def leave(folder, **changes):
    """A lock as a crashed writer leaves it."""
    now = time.time()
    holder = {"token": "x", "since": now - 500, "heartbeat": now, **locks._process(), **changes}
    folder.update(LOCK, lambda present: json.dumps(holder).encode())  # whole, for a heartbeat may read beside it


def acquire(folder):
    with hold(folder):
        return json.loads((folder.local / LOCK).read_text())


def test_a_living_writer_is_named_and_a_killed_one_is_replaced(folder, other_process):
    with pytest.raises(StoreBusyError) as caught:
        acquire(folder)
    for part in (f"host {socket.gethostname()}", f"process {other_process.pid},", "last heartbeat 0 s ago"):
        assert part in caught.value.found
    other_process.send_signal(signal.SIGKILL)
    # Also while nobody has waited for it: a zombie writes nothing.
    deadline = time.monotonic() + 10
    while locks._started(other_process.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert acquire(folder)["pid"] == os.getpid()
    assert not (folder.local / LOCK).exists()


def test_a_reused_process_id_is_not_mistaken_for_the_writer(folder, other_process):
    leave(folder, pid=other_process.pid, started=1)
    assert acquire(folder)["pid"] == os.getpid()


def test_this_process_does_not_wait_for_a_lock_that_it_lost_by_an_exception(folder):
    leave(folder)
    assert acquire(folder)["pid"] == os.getpid()


def test_another_machine_is_judged_by_its_heartbeat(folder):
    leave(folder, machine="elsewhere", host="elsewhere", pid=1, heartbeat=time.time() - locks.STALE_SECONDS + 20)
    with pytest.raises(StoreBusyError, match="host elsewhere, process 1, for 500 s, last heartbeat 100 s ago"):
        acquire(folder)
    leave(folder, machine="elsewhere", heartbeat=time.time() - locks.STALE_SECONDS - 1)
    acquire(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"token": 3'])
def test_a_lock_that_was_cut_short_is_no_lock(folder, content):
    (folder.local / LOCK).write_bytes(content)
    assert acquire(folder)["pid"] == os.getpid()


def test_the_heartbeat_beats_and_notices_that_the_lock_is_gone(folder, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.01)
    with hold(folder) as lock:
        first = json.loads((folder.local / LOCK).read_text())["heartbeat"]
        deadline = time.monotonic() + 10
        while json.loads((folder.local / LOCK).read_text() or "{}").get("heartbeat", first) == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        lock.check()
        leave(folder, machine="elsewhere", host="usurper")
        while lock._lost is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(StoreBusyError, match="usurper"):
            lock.check()
    assert "usurper" in (folder.local / LOCK).read_text()


def test_a_lock_is_released_when_the_block_fails(folder):
    with pytest.raises(RuntimeError), hold(folder):
        raise RuntimeError
    assert not (folder.local / LOCK).exists()


def test_of_many_who_see_a_dead_writer_one_takes_over(folder):
    leave(folder, pid=2**22 + 1)
    winners, barrier = [], threading.Barrier(8)

    def contend():
        barrier.wait()
        try:
            with hold(folder):
                winners.append(threading.current_thread())
                barrier.wait()
        except StoreBusyError:
            barrier.wait()

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1


def test_updates_lose_nothing(tmp_path):
    """The step that the lock stands on: read, change, write, removed now and then, by many at once."""

    def count():
        folder = LocalFolder(tmp_path)
        for _ in range(50):
            folder.update("counter", lambda present: str(int(present or 0) + 1).encode())

    threads = [threading.Thread(target=count) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "counter").read_text() == "300"
    LocalFolder(tmp_path).update("counter", lambda present: None)
    assert not list(tmp_path.iterdir())


def test_one_process_a_run_and_a_dead_one_does_not_block(tmp_path):
    run, lock = Run(tmp_path), tmp_path / RUN_LOCK
    with working(run):
        with pytest.raises(BusyError, match="another process is working on the run") as caught, working(run):
            pass
        for part in (f"host {socket.gethostname()}", f"process {os.getpid()},"):
            assert part in caught.value.found
        assert caught.value.exit_code == 4
        with hold(LocalFolder(tmp_path / "store")):  # the lock of a store inside is another one
            pass
    assert not lock.exists()
    lock.write_text(json.dumps({"token": "x", **locks._process(), "pid": 2**22 + 1, "heartbeat": time.time()}))
    with working(run):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
