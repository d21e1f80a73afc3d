"""One shard of one array: Zarr v3's `sharding_indexed` bytes, written whole and read straight into memory.

The bytes are what Zarr writes for the same array (a test compares them), so any Zarr reads them. Encoding and
reading here costs one copy and one checksum instead of Zarr's several copies a chunk, which is what keeps both
near the speed of `numpy.save` and `numpy.load`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs.zstd import Zstd

from synth_pipeline.data.fields import Array
from synth_pipeline.store.folder import Folder

_ABSENT = 2**64 - 1
_CRC_BYTES = 4
_ZSTD = Zstd(level=1)
Bytes = npt.NDArray[np.uint8]


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

    @property
    def entry_bytes(self) -> int:
        """Bytes of one entry."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk before encoding."""
        return self.chunk_rows * self.entry_bytes

    @property
    def fill(self) -> float | bool | int:
        """What Zarr shows where nothing was written; our reader never does."""
        return math.nan if self.dtype.kind == "f" else False if self.dtype.kind == "b" else 0

    @property
    def index_bytes(self) -> int:
        """Bytes of the index at the end of a shard."""
        return 16 * self.num_chunks + _CRC_BYTES


def encode(values: Array, form: ShardForm) -> bytes:
    """The whole shard as bytes; the last chunk is padded with the fill value.

    Args:
        values: `[n, *shape]` of the form's type, n at most the shard's capacity.
        form: How the array is cut.
    """
    parts: list[bytes | memoryview] = []
    index = np.full((form.num_chunks, 2), _ABSENT, dtype="<u8")
    offset = 0
    for number, start in enumerate(range(0, len(values), form.chunk_rows)):
        chunk = _as_bytes(_padded(values[start : start + form.chunk_rows], form))
        if form.compressed:
            chunk = np.frombuffer(_ZSTD.encode(chunk), np.uint8)
        parts += [chunk.data, _crc(chunk)]
        index[number] = offset, len(chunk) + _CRC_BYTES
        offset += len(chunk) + _CRC_BYTES
    tail = index.tobytes()
    return b"".join([*parts, tail, _crc(np.frombuffer(tail, np.uint8))])


def read_rows(folder: Folder, key: str, form: ShardForm, start: int, out: Array) -> None:
    """Fill `out` with the entries from `start` on, every touched chunk checked.

    Args:
        folder: Where the shard is.
        key: Its name.
        form: How the array is cut.
        start: First entry, counted in the shard.
        out: `[n, *shape]`, contiguous; receives n entries.

    Raises:
        DamageError: When the shard is missing, truncated or altered.
    """
    if not len(out):
        return
    if folder.local is None:
        _read_blob(lambda first, last: _remote_range(folder, key, first, last), form, start, out)
        return
    try:
        descriptor = os.open(folder.local / key, os.O_RDONLY)
    except FileNotFoundError:
        raise DamageError("the file is missing") from None
    try:
        if form.compressed:
            _read_blob(lambda first, last: _local_range(descriptor, first, last), form, start, out)
        else:
            _read_direct(descriptor, form, start, out)
    finally:
        os.close(descriptor)


def _read_direct(descriptor: int, form: ShardForm, start: int, out: Array) -> None:
    """Plain chunks from a local file: the kernel copies into `out`, the checksum runs while the chunk is in cache."""
    raw, size, chunk_bytes = _as_bytes(out), form.entry_bytes, form.chunk_bytes
    index = _index(lambda first, last: _local_range(descriptor, first, last), form)
    crc = bytearray(_CRC_BYTES)
    stop = start + len(out)
    for number in _chunks(form, start, stop):
        offset, length = index[number]
        if length != chunk_bytes + _CRC_BYTES:
            raise DamageError(f"chunk {number} is absent")
        first = number * form.chunk_rows
        whole = start <= first and first + form.chunk_rows <= stop
        target = raw[(first - start) * size :][:chunk_bytes] if whole else np.empty(chunk_bytes, np.uint8)
        if os.preadv(descriptor, [target.data, crc], offset) != length:
            raise DamageError("the file is truncated")
        if _crc(target) != crc:
            raise DamageError(f"chunk {number} does not match its checksum")
        if not whole:
            _copy_overlap(target, first, raw, start, stop, size)


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
        _copy_overlap(chunk, number * form.chunk_rows, raw, start, stop, form.entry_bytes)


def _decoded(encoded: bytes, number: int, form: ShardForm) -> Bytes:
    data = np.frombuffer(encoded, np.uint8)
    chunk = data[:-_CRC_BYTES]
    if _crc(chunk) != data[-_CRC_BYTES:].tobytes():
        raise DamageError(f"chunk {number} does not match its checksum")
    return np.frombuffer(_ZSTD.decode(chunk), np.uint8) if form.compressed else chunk


def _copy_overlap(chunk: Bytes, first: int, raw: Bytes, start: int, stop: int, size: int) -> None:
    low, high = max(start, first), min(stop, first + len(chunk) // size)
    raw[(low - start) * size : (high - start) * size] = chunk[(low - first) * size : (high - first) * size]


def _chunks(form: ShardForm, start: int, stop: int) -> range:
    return range(start // form.chunk_rows, -(-stop // form.chunk_rows))


def _index(fetch: Callable[[int, int], bytes], form: ShardForm) -> list[list[int]]:
    data = fetch(-form.index_bytes, 0)
    body = data[:-_CRC_BYTES]
    if len(data) != form.index_bytes or _crc(np.frombuffer(body, np.uint8)) != data[-_CRC_BYTES:]:
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


def _crc(data: Bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(_CRC_BYTES, "little")
