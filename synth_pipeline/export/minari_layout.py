"""Minari 0.5.4's HDF5 layout, written with as few HDF5 objects and calls as its reader needs.

One group an episode (`episode_<i>`, attributes `id` and `total_steps`) with the datasets `observations` (T + 1),
`actions`, `rewards`, `terminations`, `truncations` (T) and a group `infos` (T + 1; empty when there are none, since
without it `EpisodeData` cannot even be printed). Small datasets are kept inside
their object header ("compact"), which saves a seek each. Datasets are not resizable: Minari can append episodes to
the file, not steps to an episode. Source of the layout: `minari.dataset._storages`.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5p, h5s, h5t

from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.fields import Array
from synth_pipeline.errors import ExportError
from synth_pipeline.export.hdf5 import checksum

STANDARD = ("observations", "actions", "rewards", "terminations", "truncations")
COMPACT_BYTES = 4096
"""Datasets up to this size are stored in their object header (HDF5's own limit is 64 KB)."""


@dataclass(frozen=True)
class Column:
    """One dataset of every episode group.

    Attributes:
        name: Path inside the group: `actions`, `infos/costs`, ...
        dtype: Element type.
        shape: Shape of one step.
        final: Whether it has T + 1 entries.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    final: bool

    def full_shape(self, steps: int) -> tuple[int, ...]:
        """Shape of the dataset of an episode of `steps` steps."""
        return (steps + self.final, *self.shape)


@functools.cache
def hdf5_type(dtype: np.dtype[Any]) -> Any:
    """HDF5's type for a NumPy type (flags are the enumeration that h5py reads as bool)."""
    return h5t.py_create(dtype, logical=True)


class Ledger:
    """What went in: columns, and length and checksums of every episode; about 30 bytes an episode.

    Reading back is compared with this, so that the source is streamed only once.
    """

    def __init__(self) -> None:
        self.tables: list[tuple[Column, ...]] = []
        self._table, self._steps, self._sums = array("B"), array("q"), array("I")

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def total_steps(self) -> int:
        """Steps of all episodes."""
        return sum(self._steps)

    def add(self, columns: tuple[Column, ...], arrays: tuple[Array, ...]) -> None:
        """Note one episode."""
        if columns not in self.tables:
            self.tables.append(columns)
        self._table.append(self.tables.index(columns))
        self._steps.append(len(arrays[1]))
        self._sums.extend(checksum(values) for values in arrays)

    def __iter__(self) -> Iterator[tuple[int, tuple[Column, ...], list[int]]]:
        """Episode by episode: steps, columns, checksums."""
        at = 0
        for table, steps in zip(self._table, self._steps, strict=True):
            columns = self.tables[table]
            yield steps, columns, list(self._sums[at : at + len(columns)])
            at += len(columns)


class EpisodeWriter:
    """Appends episodes to an open, empty HDF5 file.

    Args:
        file: Open for writing.
    """

    def __init__(self, file: h5py.File) -> None:
        self._file = file.id
        self._count = 0
        self._spaces: dict[tuple[int, ...], Any] = {}
        self._scalar = h5s.create(h5s.SCALAR)
        text = h5py.string_dtype()
        self._text_type, self._text_memory = h5t.py_create(text, logical=True), h5t.py_create(text)
        self._compact, self._contiguous = self._creation(h5d.COMPACT), self._creation(h5d.CONTIGUOUS)

    @staticmethod
    def _creation(layout: int) -> Any:
        properties = h5p.create(h5p.DATASET_CREATE)
        properties.set_layout(layout)
        properties.set_fill_time(h5d.FILL_TIME_NEVER)
        properties.set_obj_track_times(False)
        return properties

    def write(self, columns: tuple[Column, ...], arrays: tuple[Array, ...], source: str | None) -> None:
        """Write the next episode.

        Args:
            columns: What the arrays are.
            arrays: C-contiguous, one a column.
            source: `real`, `synthetic` or `mixed`: kept as an attribute of the group.
        """
        group = h5g.create(self._file, b"episode_%d" % self._count)
        self._integer(group, b"id", self._count)
        self._integer(group, b"total_steps", len(arrays[1]))
        if source is not None:
            attribute = h5a.create(group, b"source", self._text_type, self._scalar)
            attribute.write(np.array(source, dtype=h5py.string_dtype()), self._text_memory)
        h5g.create(group, b"infos")
        for column, values in zip(columns, arrays, strict=True):
            self._dataset(group, column, values)
        self._count += 1

    def _integer(self, group: Any, name: bytes, value: int) -> None:
        h5a.create(group, name, h5t.NATIVE_INT64, self._scalar).write(np.array(value))

    def _dataset(self, group: Any, column: Column, values: Array) -> None:
        kind = hdf5_type(column.dtype)
        space = self._spaces.get(values.shape)
        if space is None:
            # Lengths of episodes vary without end; shapes worth keeping are the few that repeat.
            space = h5s.create_simple(values.shape)
            if len(self._spaces) < 1024:
                self._spaces[values.shape] = space
        creation = self._compact if values.nbytes <= COMPACT_BYTES else self._contiguous
        h5d.create(group, column.name.encode(), kind, space, creation).write(h5s.ALL, h5s.ALL, values, kind)


def as_episodes(rows: Transitions) -> Episodes:
    """Independent rows as one-step episodes `[s, s']`, truncated unless they terminate.

    Raises:
        UnknownNameError: When a column that this needs is missing.
    """
    rest = {name: column for name, column in rows.columns.items() if name not in ("observations", "next_observations")}
    return Episodes(
        observations=rows["observations"],
        final_observations=rows["next_observations"],
        starts=np.arange(len(rows) + 1, dtype=np.int64),
        columns={**rest, "truncations": ~np.asarray(rows["terminations"], bool)},
    )


def with_truncations(part: Episodes) -> Episodes:
    """Episodes with a `truncations` column; where there is none, the last row of an episode that does not terminate."""
    if "truncations" in part:
        return part
    truncations = np.zeros(part.num_rows, bool)
    truncations[part.starts[1:] - 1] = True
    truncations &= ~np.asarray(part["terminations"], bool)
    columns = {**part.columns, "truncations": truncations}
    return Episodes(part.observations, part.final_observations, part.starts, columns)


def columns_of(part: Episodes, infos: tuple[str, ...]) -> tuple[Column, ...]:
    """The datasets that episodes of this part become.

    Args:
        part: Episodes with every standard column.
        infos: Further columns to keep under `infos/`.

    Raises:
        ExportError: When a standard column is missing.
    """
    missing = [name for name in STANDARD if name not in part]
    if missing:
        raise ExportError(
            f"Minari episodes need the column '{missing[0]}'",
            found=", ".join(["observations", *part.columns]),
            accepted=", ".join(STANDARD),
            fix="export the flat HDF5 file instead, which takes datasets without it",
        )
    if part.final_observations.dtype != part.observations.dtype:
        raise ExportError(
            "final observations differ in type from the observations",
            found=f"{part.final_observations.dtype} against {part.observations.dtype}",
            fix="convert one of them with .astype",
        )
    kept = [(name, name) for name in STANDARD] + [(f"infos/{name}", name) for name in infos]
    return tuple(
        Column(path, part[name].dtype, part[name].shape[1:], path == "observations" or path.startswith("infos/"))
        for path, name in kept
    )


def episode_arrays(part: Episodes, columns: tuple[Column, ...]) -> Iterator[tuple[Array, ...]]:
    """The arrays of each episode of a part, in the order of `columns`, C-contiguous.

    Infos have T + 1 entries in Minari, since a reset gives one too; ours come from steps, so entry t + 1 belongs to
    step t and entry 0 is NaN (floating) or 0.
    """
    for episode in range(len(part)):
        rows = slice(int(part.starts[episode]), int(part.starts[episode + 1]))
        yield tuple(_entries(part, column, episode, rows) for column in columns)


def _entries(part: Episodes, column: Column, episode: int, rows: slice) -> Array:
    name = column.name.removeprefix("infos/")
    values = part.observations[rows] if name == "observations" else part.columns[name][rows]
    if not column.final:
        return np.ascontiguousarray(values)
    full = np.empty((len(values) + 1, *column.shape), column.dtype)
    if name == "observations":
        full[:-1], full[-1] = values, part.final_observations[episode]
    else:
        full[0], full[1:] = np.nan if column.dtype.kind == "f" else 0, values
    return full


def source_of(columns: Mapping[str, Array], rows: slice) -> str | None:
    """`real`, `synthetic` or `mixed` by the column `synthetic`, or None without it."""
    if "synthetic" not in columns:
        return None
    flags = columns["synthetic"][rows]
    return "synthetic" if flags.all() else "mixed" if flags.any() else "real"
