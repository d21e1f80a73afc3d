"""One shard of one array: Zarr v3's `sharding_indexed` bytes, written whole and read straight into memory.

The bytes are what Zarr writes for the same array (a test compares them), so any Zarr reads them. Encoding and
reading here costs one checksum and at most one copy, where Zarr makes several copies a chunk: that keeps both near the
speed of `numpy.save` and `numpy.load`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from fastcrc.crc32 import iscsi as crc32c
from numcodecs.zstd import Zstd

from synth_pipeline.data.fields import Array
from synth_pipeline.store.folder import MAX_PARTS, Folder, Part

Bytes = npt.NDArray[np.uint8]

_ABSENT = 2**64 - 1
_CRC_BYTES = 4
# Chunks up to this many bytes together are read by one call, and checked before they leave the processor's cache.
_CACHED_BYTES = 2 << 20
_ZSTD = Zstd(level=1)


class DamageError(Exception):
    """A shard that is not what was written; the reader says which one and how to mend it."""


@dataclass(frozen=True)
class ShardForm:
    """How one array is cut and encoded.

    Attributes:
        shape: Shape of one entry.
        dtype: Little-endian type of the values.
        chunk_rows: Entries a chunk.
        num_chunks: Chunks of a full shard.
        compressed: Chunks are zstd frames instead of plain values; a CRC-32C follows either.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_rows: int
    num_chunks: int
    compressed: bool

    @cached_property
    def entry_bytes(self) -> int:
        """Bytes of one entry."""
        return math.prod(self.shape) * self.dtype.itemsize

    @cached_property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk before encoding."""
        return self.chunk_rows * self.entry_bytes

    @property
    def fill(self) -> float | bool | int:
        """What Zarr shows where nothing was written; our reader never does."""
        return math.nan if self.dtype.kind == "f" else False if self.dtype.kind == "b" else 0

    @cached_property
    def index_bytes(self) -> int:
        """Bytes of the index at the end of a shard."""
        return 16 * self.num_chunks + _CRC_BYTES


def encode(values: Array, form: ShardForm) -> list[Part]:
    """The whole shard, as parts to be written one after another; plain values are not copied.

    The last chunk is padded with the fill value.

    Args:
        values: `[n, *shape]` of the form's type, n at most the shard's capacity.
        form: How the array is cut.
    """
    parts: list[Part] = []
    index = np.full((form.num_chunks, 2), _ABSENT, dtype="<u8")
    offset = 0
    for number, start in enumerate(range(0, len(values), form.chunk_rows)):
        plain = _as_bytes(_padded(values[start : start + form.chunk_rows], form))
        chunk: Part = _ZSTD.encode(plain) if form.compressed else plain.data
        parts += [chunk, _crc(chunk)]
        index[number] = offset, len(chunk) + _CRC_BYTES
        offset += len(chunk) + _CRC_BYTES
    tail = index.tobytes()
    return [*parts, tail, _crc(tail)]


def read_rows(folder: Folder, key: str, form: ShardForm, start: int, out: Array) -> None:
    """Fill `out` with the entries from `start` on, every touched chunk checked.

    Args:
        folder: Where the shard is.
        key: Its name.
        form: How the array is cut.
        start: First entry, counted in the shard.
        out: `[n, *shape]`, contiguous; receives n entries.

    Raises:
        DamageError: When the shard is missing, truncated, altered, or the disk does not give it back.
    """
    if not len(out):
        return
    if folder.local is None:
        _read_blob(lambda first, last: _remote_range(folder, key, first, last), form, start, out)
        return
    try:
        descriptor = os.open(f"{folder.local}/{key}", os.O_RDONLY)
        try:
            if form.compressed:
                _read_blob(lambda first, last: _local_range(descriptor, first, last), form, start, out)
            else:
                _read_direct(descriptor, form, start, out)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise DamageError("the file is missing") from None
    except OSError as error:
        raise DamageError(f"the file cannot be read: {error.strerror}") from error


def _read_direct(descriptor: int, form: ShardForm, start: int, out: Array) -> None:
    """Plain chunks from a local file: the kernel copies them into `out`, and they are checked while in cache."""
    raw, size = _as_bytes(out), form.chunk_bytes
    numbers = _chunks(form, start, start + len(out))
    spans = _index(lambda first, last: _local_range(descriptor, first, last), form)[numbers.start : numbers.stop]
    offset, encoded = spans[0][0], size + _CRC_BYTES
    if spans != [[offset + k * encoded, encoded] for k in range(len(numbers))]:
        raise DamageError("a chunk is absent")
    before = (numbers.start * form.chunk_rows - start) * form.entry_bytes
    begins = range(before, before + len(numbers) * size, size)
    step = min(max(_CACHED_BYTES // size, 1), MAX_PARTS // 2)
    for first in range(0, len(begins), step):
        group = begins[first : first + step]
        inside = group[0] >= 0 and group[-1] + size <= len(raw)
        memory = raw.data if inside else memoryview(bytearray(len(group) * size))
        origin = 0 if inside else group[0]
        targets = [memory[begin - origin : begin - origin + size] for begin in group]
        stored = np.empty(len(group), "<u4")
        checks = _as_bytes(stored).data
        buffers = [part for k, target in enumerate(targets) for part in (target, checks[4 * k : 4 * k + 4])]
        if os.preadv(descriptor, buffers, offset + first * encoded) != encoded * len(group):
            raise DamageError("the file is truncated")
        if [crc32c(target) for target in targets] != stored.tolist():
            raise DamageError(f"chunks {numbers[first]} to {numbers[first] + len(group) - 1} fail their checksums")
        if not inside:
            _copy_overlap(np.frombuffer(memory, np.uint8), group[0], raw)


def _read_blob(fetch: Callable[[int, int], bytes], form: ShardForm, start: int, out: Array) -> None:
    """Any chunks from anywhere: one request for the index, one for all chunks that are needed."""
    raw, stop = _as_bytes(out), start + len(out)
    index = _index(fetch, form)
    numbers = _chunks(form, start, stop)
    if any(index[number][0] == _ABSENT for number in numbers):
        raise DamageError("a chunk is absent")
    base = min(index[number][0] for number in numbers)
    blob = fetch(base, max(sum(index[number]) for number in numbers))
    for number in numbers:
        offset, length = index[number]
        chunk = _decoded(blob[offset - base : offset - base + length], number, form)
        _copy_overlap(chunk, (number * form.chunk_rows - start) * form.entry_bytes, raw)


def _decoded(encoded: bytes, number: int, form: ShardForm) -> Bytes:
    data = np.frombuffer(encoded, np.uint8)
    chunk = data[:-_CRC_BYTES]
    if _crc(chunk) != data[-_CRC_BYTES:].tobytes():
        raise DamageError(f"chunk {number} does not match its checksum")
    return np.frombuffer(_ZSTD.decode(chunk), np.uint8) if form.compressed else chunk


def _copy_overlap(chunk: Bytes, begin: int, raw: Bytes) -> None:
    """Copy what of a chunk lies inside `raw`, where its first byte belongs at `begin`, perhaps before the start."""
    low, high = max(begin, 0), min(begin + len(chunk), len(raw))
    raw[low:high] = chunk[low - begin : high - begin]


def _chunks(form: ShardForm, start: int, stop: int) -> range:
    return range(start // form.chunk_rows, -(-stop // form.chunk_rows))


def _index(fetch: Callable[[int, int], bytes], form: ShardForm) -> list[list[int]]:
    data = fetch(-form.index_bytes, 0)
    body = data[:-_CRC_BYTES]
    if len(data) != form.index_bytes or _crc(body) != data[-_CRC_BYTES:]:
        raise DamageError("the index does not match its checksum; the file is altered or truncated")
    index: list[list[int]] = np.frombuffer(body, "<u8").reshape(-1, 2).tolist()
    return index


def _local_range(descriptor: int, first: int, last: int) -> bytes:
    """Bytes `first <= i < last`; a negative `first` counts from the end."""
    if first < 0:
        size = os.fstat(descriptor).st_size
        first, last = max(size + first, 0), size
    return os.pread(descriptor, last - first, first)


def _remote_range(folder: Folder, key: str, first: int, last: int) -> bytes:
    data = folder.tail(key, -first) if first < 0 else folder.get(key, first, last)
    if data is None:
        raise DamageError("the file is missing")
    return data


def _padded(chunk: Array, form: ShardForm) -> Array:
    if len(chunk) == form.chunk_rows:
        return np.ascontiguousarray(chunk)
    full = np.full((form.chunk_rows, *form.shape), form.fill, form.dtype)
    full[: len(chunk)] = chunk
    return full


def _as_bytes(values: Array) -> Bytes:
    return values.reshape(-1).view(np.uint8)


def _crc(data: bytes | Bytes | memoryview) -> bytes:
    # Arrays are buffers; NumPy only says so to type checkers from Python 3.12 on.
    return crc32c(data).to_bytes(_CRC_BYTES, "little")  # type: ignore[arg-type]
