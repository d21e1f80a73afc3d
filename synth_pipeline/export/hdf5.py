"""HDF5 files that appear whole or not at all, also when the disk fills up or a write fails half-way.

HDF5 buffers its metadata. When a write fails, every later flush fails again, the file cannot be closed, and the
process ends with thousands of messages and a segmentation fault (`tests/bug_museum/test_museum_export.py`). So
HDF5 writes through a Python file that remembers the first failure, lets HDF5 close in peace, and raises afterwards.
"""

from __future__ import annotations

import io
import os
import uuid
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from synth_pipeline.data.fields import Array
from synth_pipeline.errors import ExportError
from synth_pipeline.runs import friendly_os_errors, fsync_directory

FLUSH_BYTES = 32 << 20
"""The disk is kept busy from behind in steps of this size, so that little is left to wait for at the end."""


class GuardedFile(io.FileIO):
    """A new file whose writes never fail while HDF5 holds it; the first failure is kept in `error`.

    Args:
        path: Where to write; must not exist.
    """

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self._unflushed = 0
        self._flusher = ThreadPoolExecutor(1)
        self._flushes: list[Future[None]] = []
        super().__init__(path, "x+")

    def write(self, data: Any) -> int:
        """Write everything, or remember why not and drop the rest."""
        view = memoryview(data).cast("B")
        size = len(view)
        try:
            while len(view) and self.error is None:
                view = view[self.put(view) :]
        except OSError as error:
            self.error = error
        self._unflushed += size
        if self._unflushed >= FLUSH_BYTES:
            self.flush_behind()
        return size

    def put(self, view: memoryview) -> int:
        """The one call that reaches the disk; returns how many bytes it took."""
        return super().write(view)

    def flush_behind(self) -> None:
        """Start to bring what was written to the disk, without waiting."""
        self._unflushed = 0
        self._flushes.append(self._flusher.submit(os.fsync, self.fileno()))

    def flushed(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            OSError: When it could not be brought there.
        """
        self.flush_behind()
        for flush in self._flushes:
            flush.result()

    def close(self) -> None:
        """Close the file, once nothing is under way any more."""
        self._flusher.shutdown()
        super().close()

    def check(self) -> None:
        """Raise the failure that was kept, if any.

        Raises:
            OSError: The first error of any write.
        """
        if self.error is not None:
            raise self.error


class Writer:
    """An HDF5 file being written, and the guard under it.

    Attributes:
        file: The open file.
        check: Raises the first write error so far; call it now and then so that a full disk is noticed early.
        verify: Called when the file is complete and closed, while the disk is still busy with it.
    """

    def __init__(self, file: h5py.File, guard: GuardedFile) -> None:
        self.file = file
        self.check = guard.check
        self.verify: Callable[[], None] = _nothing


def _nothing() -> None:
    """Nothing to verify."""


@contextmanager
def create(path: Path) -> Iterator[Writer]:
    """A new HDF5 file, closed, verified and fsynced when the block ends.

    Args:
        path: Must not exist.

    Raises:
        OSError: When any write failed, with the operating system's number (no space, I/O error, ...).
    """
    with GuardedFile(path) as guard:
        try:
            with h5py.File(guard, "w", libver=("v108", "latest")) as file:
                writer = Writer(file, guard)
                yield writer
        finally:
            guard.check()
        guard.flush_behind()
        writer.verify()
        guard.flushed()


@contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """A path that becomes `target` in one rename when the block succeeds and vanishes when it fails.

    Raises:
        ExportError: When `target` exists already.
        ResourceError: When the disk is full or read-only.
    """
    if target.exists():
        raise ExportError(f"'{target}' exists already", fix="choose another name or delete it first")
    staged = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    with friendly_os_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield staged
            os.replace(staged, target)
        finally:
            staged.unlink(missing_ok=True)
        fsync_directory(target.parent)


def checksum(values: Array) -> int:
    """CRC-32 over the bytes of an array in C order (bit patterns, so NaN equals NaN)."""
    return zlib.crc32(np.ascontiguousarray(values).data)
