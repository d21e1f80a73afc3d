"""HDF5 files that appear whole or not at all, also when the disk fills up.

HDF5 buffers its metadata. When a write fails for lack of space, every later flush fails again, the file cannot be
closed, and the process ends with thousands of messages and a segmentation fault
(`tests/bug_museum/test_museum_export.py`). So space is reserved before HDF5 writes: the refusal comes from our own
call, at a moment when everything can still be closed and removed. (A Python file object under HDF5 would catch the
failure too, but garbage collected inside its callbacks deadlocks h5py.)
"""

from __future__ import annotations

import os
import uuid
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from synth_pipeline.data.fields import Array
from synth_pipeline.errors import ExportError
from synth_pipeline.runs import friendly_os_errors, fsync_directory

SLACK_BYTES = 4 << 20
"""Reserved beyond what is asked for: HDF5's own structures grow in steps of up to 64 KB."""
STEP_BYTES = 16 << 20
"""Space is reserved in steps of at least this size."""
FLUSH_BYTES = 32 << 20
"""The disk is kept busy from behind in steps of this size, so that little is left to wait for at the end."""
CACHE_BYTES = 1 << 20
"""HDF5's metadata cache. Its default grows to 32 MB on disk, which takes hundreds of megabytes of memory."""


class Writer:
    """An HDF5 file being written.

    Attributes:
        file: The open file.
        verify: Called when the file is complete and closed, while the disk is still busy with it.
    """

    def __init__(self, file: h5py.File, descriptor: int) -> None:
        self.file = file
        self.verify: Callable[[], None] = _nothing
        self._descriptor = descriptor
        self._reserved = self._flushed = 0
        self._flusher = ThreadPoolExecutor(1)
        self._flushes: list[Future[None]] = []

    def reserve(self, num_bytes: int) -> None:
        """Make sure that the disk takes this many bytes more; call it before each write to the file.

        Raises:
            OSError: When it does not.
        """
        written = self.file.id.get_filesize()
        wanted = written + num_bytes + SLACK_BYTES
        if wanted > self._reserved and hasattr(os, "posix_fallocate"):
            wanted = max(wanted, self._reserved + STEP_BYTES)
            os.posix_fallocate(self._descriptor, self._reserved, wanted - self._reserved)
            self._reserved = wanted
        if written - self._flushed >= FLUSH_BYTES:
            self._flushed = written
            self.flush_behind()

    def flush_behind(self) -> None:
        """Start to bring what was written to the disk, without waiting."""
        self._flushes.append(self._flusher.submit(os.fsync, self._descriptor))

    def trim(self, size: int) -> None:
        """Give back what was reserved and not used, once HDF5 has closed the file."""
        if os.fstat(self._descriptor).st_size > size:
            os.ftruncate(self._descriptor, size)

    def finish(self) -> None:
        """Verify the closed file and wait until all of it is on the disk.

        Raises:
            OSError: When it could not be brought there.
        """
        self.flush_behind()
        self.verify()
        for flush in self._flushes:
            flush.result()

    def stop(self) -> None:
        """Wait for what is under way, whatever comes of it."""
        self._flusher.shutdown()


def _nothing() -> None:
    """Nothing to verify."""


def limit_cache(file: h5py.File) -> None:
    """Keep HDF5's memory constant over any number of objects."""
    config = file.id.get_mdc_config()
    config.set_initial_size = True
    config.initial_size = config.min_size = config.max_size = CACHE_BYTES
    file.id.set_mdc_config(config)


@contextmanager
def create(path: Path) -> Iterator[Writer]:
    """A new HDF5 file, closed, verified and fsynced when the block ends.

    Args:
        path: Must not exist.

    Raises:
        OSError: When the disk is full (see `Writer.reserve`) or cannot keep the file.
    """
    with h5py.File(path, "x", libver=("v108", "latest")) as file:
        limit_cache(file)
        descriptor = os.open(path, os.O_RDWR)
        writer = Writer(file, descriptor)
        try:
            yield writer
            file.flush()
            size = file.id.get_filesize()
            file.close()
            writer.trim(size)
            writer.finish()
        finally:
            writer.stop()
            os.close(descriptor)


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
