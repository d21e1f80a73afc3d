"""Minari's data files, read episode by episode in Minari's layout: HDF5, Arrow, Parquet.

HDF5 holds a group `episode_<i>` per episode; Arrow and Parquet a folder `<i>` with table files. An episode has T+1
observations and T of everything else (Arrow pads the rest to T+1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from synth_pipeline.data.fields import Array
from synth_pipeline.errors import SourceError
from synth_pipeline.sources.base import readable
from synth_pipeline.sources.checks import require_columns
from synth_pipeline.sources.minari_spaces import Column

MAIN_FILE = "main_data.hdf5"
SCALARS = ("rewards", "terminations", "truncations")
FORMATS = ("hdf5", "arrow", "parquet")
Values = dict[str | None, Array]


@dataclass(frozen=True)
class RawEpisode:
    """One episode as it stands in the file: T+1 observations, T actions and scalars, by key of their part."""

    observations: Values
    actions: Values
    scalars: dict[str, Array]


def read_episodes(
    data: Path, data_format: str, count: int, observations: Column, actions: Column
) -> Iterator[RawEpisode]:
    """All episodes in order.

    Args:
        data: The dataset's `data` folder.
        data_format: One of `FORMATS`.
        count: Number of episodes that the metadata state.
        observations: Layout of the observations.
        actions: Layout of the actions.

    Raises:
        SourceError: When a file is damaged, or holds other episodes than the metadata state.
    """
    if data_format == "hdf5":
        return _read_hdf5(data / MAIN_FILE, count, observations, actions)
    return _read_tables(data, data_format, count, observations, actions)


def data_files(data: Path) -> list[Path]:
    """Every file of the dataset, in the order of names."""
    return sorted(file for file in data.rglob("*") if file.is_file() and not file.name.startswith("."))


def _read_hdf5(path: Path, count: int, observations: Column, actions: Column) -> Iterator[RawEpisode]:
    with readable(path), h5py.File(path, "r") as file:
        _require_count(path, sum(name.startswith("episode_") for name in file), count)
        for index in range(count):
            # h5py's low-level calls: half the time of `file[name][()]`, which counts with many short episodes.
            try:
                group = h5py.h5g.open(file.id, f"episode_{index}".encode())
                yield RawEpisode(
                    _hdf5_values(group, b"observations", observations),
                    _hdf5_values(group, b"actions", actions),
                    {name: _hdf5_array(group, name.encode()) for name in SCALARS},
                )
            except KeyError:
                _explain_missing(file.get(f"episode_{index}", {}), index, (observations, actions), path)
                raise


def _explain_missing(group: Mapping[str, Any], index: int, spaces: tuple[Column, Column], path: Path) -> None:
    """Raise for the first column that an episode lacks."""
    origin = f"'{path}', episode {index}"
    for name, space in zip(("observations", "actions"), spaces, strict=True):
        require_columns([name], group, origin)
        if None not in _keys(space):
            require_columns([str(key) for key in _keys(space)], group[name], f"{origin}, {name}")
    require_columns(SCALARS, group, origin)


def _hdf5_values(group: Any, name: bytes, column: Column) -> Values:
    return {key: _hdf5_array(group, name if key is None else name + b"/" + key.encode()) for key in _keys(column)}


def _hdf5_array(group: Any, name: bytes) -> Array:
    stored = h5py.h5d.open(group, name)
    array: Array = np.empty(stored.shape, stored.dtype)
    stored.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
    return array


def _read_tables(
    data: Path, data_format: str, count: int, observations: Column, actions: Column
) -> Iterator[RawEpisode]:
    folders = {entry.name for entry in data.iterdir() if entry.is_dir() and entry.name.isdigit()}
    _require_count(data, len(folders), count)
    for index in range(count):
        files = sorted((data / str(index)).glob(f"*.{data_format}"))
        if not files:
            raise SourceError(f"'{data}': episode {index} is missing", found=f"no {data_format} file in '{index}/'")
        tables = [_read_table(file, data_format) for file in files]
        require_columns(("observations", "actions", *SCALARS), tables[0].column_names, f"'{data}', episode {index}")
        padded = sum(len(table) for table in tables)
        if padded == 0:
            raise SourceError(f"'{data}': episode {index} is empty", accepted="at least the first observation")
        yield RawEpisode(
            _table_values(tables, "observations", observations, padded),
            {key: values[:-1] for key, values in _table_values(tables, "actions", actions, padded).items()},
            {name: np.concatenate([np.asarray(table[name]) for table in tables])[:-1] for name in SCALARS},
        )


def _read_table(file: Path, data_format: str) -> Any:
    import pyarrow.ipc

    with readable(file):
        if data_format == "parquet":
            import pyarrow.parquet

            return pyarrow.parquet.ParquetFile(file).read()
        with pyarrow.memory_map(str(file)) as source:
            return pyarrow.ipc.open_file(source).read_all()


def _table_values(tables: Sequence[Any], name: str, column: Column, rows: int) -> Values:
    values: Values = {}
    for key in _keys(column):
        parts = []
        for table in tables:
            array = table[name].combine_chunks()
            array = array if key is None else array.field(key)
            parts.append(np.asarray(array if column.classes else array.flatten()))
        values[key] = np.concatenate(parts).reshape(rows, -1)
    return values


def _keys(column: Column) -> list[str | None]:
    return [part.key for part in column.parts] or [None]


def _require_count(path: Path, found: int, count: int) -> None:
    if found != count:
        raise SourceError(
            f"'{path}' holds other episodes than its metadata state",
            found=f"{found:,} episodes",
            accepted=f"{count:,}, as metadata.json says",
            fix="writing or downloading it was interrupted: make the dataset again",
        )
