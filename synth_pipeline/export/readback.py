"""Opens what was just written and compares it with what went in; what differs is never kept.

Every value of every column is read again and compared by checksum. Minari datasets are opened with Minari itself as
well, and a spread of episodes goes through its own reader, whose half a millisecond an episode is too slow for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5g, h5s
from minari import MinariDataset

from synth_pipeline.errors import ExportError
from synth_pipeline.export.hdf5 import checksum, limit_cache
from synth_pipeline.export.minari_layout import STANDARD, Column, Ledger, hdf5_type
from synth_pipeline.tracking import Advance, silent

MINARI_SAMPLE = 64
"""Episodes that are read through Minari's own reader."""


@dataclass(frozen=True)
class Block:
    """A run of rows of one column of a flat file, with the checksum of what went in."""

    column: str
    start: int
    stop: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    checksum: int


def check_flat(path: Path, blocks: Sequence[Block], *, rows: int, advance: Advance = silent) -> None:
    """Compare a flat HDF5 file with what was written into it.

    Args:
        path: The file.
        blocks: Every block of every column.
        rows: How many rows the file must have.
        advance: Told of the rows whose first column was read.

    Raises:
        ExportError: Naming the first column and rows that differ.
    """
    with _opened(path) as file:
        for block in blocks:
            where = f"column '{block.column}', rows {block.start:,} to {block.stop - 1:,}"
            dataset = file.get(block.column)
            if not isinstance(dataset, h5py.Dataset):
                raise _difference(path, where, "nothing", "a dataset")
            expected = (block.dtype, (rows, *block.shape))
            if (dataset.dtype, dataset.shape) != expected:
                raise _difference(path, where, (dataset.dtype, dataset.shape), expected)
            _compare(path, where, checksum(dataset[block.start : block.stop]), block.checksum)
            if block.column == blocks[0].column:
                advance(block.stop - block.start, "reading the flat file back")


def check_minari(data: Path, ledger: Ledger, advance: Advance = silent) -> None:
    """Compare a Minari dataset with what was written into it.

    Args:
        data: The dataset's `data` folder.
        ledger: What went in.
        advance: Told of each episode that was read.

    Raises:
        ExportError: Naming the first episode and column that differ.
    """
    path = data / "main_data.hdf5"
    with _opened(path) as file:
        if len(file) != len(ledger):
            raise _difference(path, "number of episodes", len(file), len(ledger))
        for episode, (steps, columns, sums) in enumerate(ledger):
            name = b"episode_%d" % episode
            if name not in file.id:
                raise _difference(path, f"episode {episode}", "nothing", name.decode())
            group = h5g.open(file.id, name)
            for column, expected in zip(columns, sums, strict=True):
                where = f"episode {episode}, column '{column.name}'"
                _compare(path, where, _checksum_of(path, where, group, column, steps), expected)
            advance(1, "reading Minari back")
    _check_with_minari(data, ledger)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            limit_cache(file)
            yield file
    except (OSError, KeyError, RuntimeError, ValueError) as error:  # what h5py raises for damaged files
        raise _difference(path, "it is damaged", error, "a sound HDF5 file") from error


def _checksum_of(path: Path, where: str, group: Any, column: Column, steps: int) -> int:
    kind, shape = hdf5_type(column.dtype), column.full_shape(steps)
    try:
        dataset = h5d.open(group, column.name.encode())
    except KeyError as error:
        raise _difference(path, where, error, "a dataset") from None
    # Comparing HDF5 types is five times cheaper than making a NumPy type of each.
    if dataset.shape != shape or not dataset.get_type().equal(kind):
        raise _difference(path, where, f"{dataset.dtype} {dataset.shape}", f"{column.dtype} {shape}")
    values = np.empty(shape, column.dtype)
    dataset.read(h5s.ALL, h5s.ALL, values, kind)
    return checksum(values)


def _check_with_minari(data: Path, ledger: Ledger) -> None:
    dataset = MinariDataset(data)
    found, expected = (dataset.total_episodes, dataset.total_steps), (len(ledger), ledger.total_steps)
    if found != expected:
        raise _difference(data, "episodes and steps as Minari counts them", found, expected)
    chosen = set(np.linspace(0, len(ledger) - 1, min(MINARI_SAMPLE, len(ledger)), dtype=int).tolist())
    read = dataset.iterate_episodes(sorted(chosen))
    for episode, (_, columns, sums) in enumerate(ledger):
        if episode not in chosen:
            continue
        values = next(read)
        for column, expected_sum in zip(columns, sums, strict=True):
            if column.name in STANDARD:
                where = f"episode {episode}, column '{column.name}', as Minari reads it"
                _compare(data, where, checksum(np.asarray(getattr(values, column.name))), expected_sum)


def _compare(path: Path, where: str, found: int, expected: int) -> None:
    if found != expected:
        raise _difference(path, where, f"checksum {found:08x}", f"checksum {expected:08x}")


def _difference(path: Path, where: str, found: object, expected: object) -> ExportError:
    return ExportError(
        f"'{path.name}' does not read back as written: {where}",
        found=found,
        accepted=expected,
        fix="nothing was kept; check the disk (dmesg, smartctl) and export again",
    )
