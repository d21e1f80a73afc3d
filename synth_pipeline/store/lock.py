"""One writer a store, one a run: a lock that names its holder, beats while it is held, and outlives no process."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synth_pipeline.errors import BusyError, StoreBusyError, SynthPipelineError
from synth_pipeline.runs import Run
from synth_pipeline.store.folder import Folder, LocalFolder

LOCK = "lock"
RUN_LOCK = ".lock"  # hidden: a folder that holds nothing else may still become a run
BEAT_SECONDS = 10.0
STALE_SECONDS = 120.0
_held: set[str] = set()
_log = logging.getLogger(__name__)


class Lock:
    """The right to write. Use `hold` for a store, `working` for a run."""

    def __init__(self, folder: Folder, key: str = LOCK) -> None:
        self._folder, self._key = folder, key
        self._me = {"token": uuid.uuid4().hex, "since": time.time(), **_process()}
        self._lost: dict[str, Any] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="store-lock", daemon=True)

    def check(self) -> None:
        """Fail when somebody took the lock over, which happens after a pause longer than two minutes.

        Raises:
            BusyError: Naming the new holder.
        """
        if self._lost is not None:
            raise self._busy(self._lost)

    def _acquire(self) -> None:
        def take(present: bytes | None) -> bytes:
            holder = _holder(present)
            if holder is not None and _alive(holder):
                raise self._busy(holder)
            return self._stamp()

        # Known before it is written: another thread of this process must not take it for one that was lost.
        _held.add(str(self._me["token"]))
        try:
            self._folder.update(self._key, take)
        except BaseException:
            _held.discard(str(self._me["token"]))
            raise
        self._thread.start()

    def _release(self) -> None:
        self._stop.set()
        self._thread.join()
        _held.discard(str(self._me["token"]))
        self._folder.update(self._key, lambda present: None if self._mine(present) else present)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                self._folder.update(self._key, self._renew)
            except (OSError, SynthPipelineError) as error:
                # The shards matter, not the beat; a lost lock is noticed at the next one.
                _log.warning("the lock of %s could not be renewed: %s", self._folder.url, error)

    def _renew(self, present: bytes | None) -> bytes | None:
        if self._mine(present):
            return self._stamp()
        self._lost = _holder(present) or {}
        self._stop.set()
        return present

    def _mine(self, present: bytes | None) -> bool:
        holder = _holder(present)
        return holder is not None and holder.get("token") == self._me["token"]

    def _stamp(self) -> bytes:
        return json.dumps({**self._me, "heartbeat": time.time()}).encode()

    def _busy(self, holder: dict[str, Any]) -> BusyError:
        now, url = time.time(), self._folder.url
        age, beat = now - float(holder.get("since", now)), now - float(holder.get("heartbeat", now))
        store = self._key == LOCK
        return (StoreBusyError if store else BusyError)(
            f"'{url}' is being written by another process"
            if store
            else f"another process is working on the run '{url}'",
            found=(
                f"host {holder.get('host', 'unknown')}, process {holder.get('pid', 'unknown')}, "
                f"for {age:,.0f} s, last heartbeat {beat:,.0f} s ago"
            ),
            accepted="one writer at a time",
            fix=f"wait for it, or stop it; its lock is taken over when it has been silent for {STALE_SECONDS:.0f} s",
        )


@contextmanager
def hold(folder: Folder) -> Iterator[Lock]:
    """Hold the lock of a store for the length of a block.

    Raises:
        StoreBusyError: When a living process holds it, naming host, process and age.
    """
    with _held_for(Lock(folder)) as lock:
        yield lock


@contextmanager
def working(run: Run) -> Iterator[None]:
    """Hold the lock of a run for the length of a stage: what one stage writes, no other may clear away.

    Raises:
        BusyError: When a living process holds it, naming host, process and age.
    """
    with _held_for(Lock(LocalFolder(run.directory.absolute()), RUN_LOCK)):
        yield


@contextmanager
def _held_for(lock: Lock) -> Iterator[Lock]:
    lock._acquire()
    try:
        yield lock
    finally:
        lock._release()


def _holder(present: bytes | None) -> dict[str, Any] | None:
    """Who holds the lock; None when nobody does, or when its last write was cut short by a crash."""
    try:
        holder = json.loads(present or b"null")
    except ValueError:
        return None
    return holder if isinstance(holder, dict) else None


def _alive(holder: dict[str, Any]) -> bool:
    """On this machine the process table decides, elsewhere the age of the heartbeat."""
    if holder.get("machine") != _machine():
        return bool(time.time() - float(holder.get("heartbeat", 0.0)) < STALE_SECONDS)
    pid = int(holder.get("pid", -1))
    if pid == os.getpid():
        return holder.get("token") in _held
    started = _started(pid)
    return started is not None and started == holder.get("started")


def _process() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "machine": _machine(), "pid": pid, "started": _started(pid)}


def _machine() -> str:
    """One kernel and one table of processes: containers of one host name must not judge each other's process ids."""
    parts = [socket.gethostname()]
    if Path("/proc/sys/kernel/random/boot_id").exists():
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return "/".join(parts)


def _started(pid: int) -> int | None:
    """When a process began, so that a reused id is not taken for it; None when there is none, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self").exists() else _answers(pid)
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])


def _answers(pid: int) -> int | None:
    """Where there is no /proc: whether the process takes a signal (0), which does nothing to it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0
    return 0
