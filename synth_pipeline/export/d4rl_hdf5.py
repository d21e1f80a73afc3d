"""One flat HDF5 file of transitions in D4RL's keys, of any size, in constant memory: the file to train on.

Root: `observations`, `actions`, `rewards`, `next_observations`, `terminals`, `timeouts`, further columns of the spec
under their own names, and provenance under `infos/` (`infos/synthetic` tells real from synthetic rows). Every row is
exact: `next_observations` is stored, not implied by the following row. Rows of a source without `truncations` stand
alone, so their `timeouts` are true unless they terminate: a reader that pairs neighbouring rows (D4RL's own
`qlearning_dataset`) then drops them instead of pairing strangers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.d4rl import breaks
from synth_pipeline.data.fields import Array
from synth_pipeline.data.rows import RowSource
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.errors import ExportError, unknown_name
from synth_pipeline.export import hdf5
from synth_pipeline.export.readback import Block, check_flat
from synth_pipeline.runs import require_space
from synth_pipeline.tracking import Advance, silent

SCHEMA = 1
CHUNK_ROWS = 262_144
CHUNK_BYTES = 64 << 20
_D4RL_NAMES = {"terminations": "terminals", "truncations": "timeouts"}


@dataclass(frozen=True)
class Labelled:
    """A row source with the column `synthetic`, constant over its rows.

    Attributes:
        rows: What to read from.
        synthetic: Whether a generator made the rows.
    """

    rows: RowSource
    synthetic: bool

    @property
    def spec(self) -> DatasetSpec:
        """What the columns mean."""
        return self.rows.spec

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, start: int, stop: int) -> Transitions:
        """Rows `start <= i < stop`, labelled."""
        rows = self.rows.read(start, stop)
        return rows.with_columns(synthetic=np.full(len(rows), self.synthetic))


def label_episodes(part: Episodes, *, synthetic: bool) -> Episodes:
    """Episodes with the column `synthetic`, constant over their rows."""
    flags = np.full(part.num_rows, synthetic)
    return Episodes(part.observations, part.final_observations, part.starts, {**part.columns, "synthetic": flags})


@dataclass(frozen=True)
class _Column:
    """One dataset of the file: where it stands, which column it comes from, what rows without it get."""

    path: str
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    missing: float | None = None

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def values(self, rows: Transitions) -> Array:
        """The column's values for these rows, C-contiguous."""
        if self.name in rows:
            values = rows[self.name]
            _same(self, values)
            return np.ascontiguousarray(values)
        if self.name == "truncations":
            return ~np.asarray(rows["terminations"], bool)
        return np.full((len(rows), *self.shape), self.missing, self.dtype)


def write_flat(
    path: Path,
    parts: Sequence[RowSource],
    *,
    spec: DatasetSpec,
    metadata: Mapping[str, Any],
    kind: Literal["transitions", "episodes"] = "transitions",
    advance: Advance = silent,
) -> Path:
    """Write sources below one another into one flat file, and read it back before it appears.

    Provenance columns that only some parts have are NaN, -1 or False elsewhere (attribute `missing_value`), except
    `synthetic`, which all parts have or none (see `Labelled`).

    Args:
        path: The file; must not exist.
        parts: Row sources, in order; each is read once, chunk by chunk.
        spec: Which columns the file has; stored with it.
        metadata: Provenance as plain JSON values, stored as the root attribute `synth_pipeline_provenance`.
        kind: `episodes` promises that every row is followed by its successor unless it ends an episode.
        advance: Told of the rows that were written, and again when they were read back.

    Returns:
        `path`.

    Raises:
        ExportError: When the file exists, a column is missing or changes type, `episodes` do not chain, or the file
            does not read back as written.
        ResourceError: When the disk is too small or full.
    """
    filled = [part for part in parts if len(part)]
    if not filled:
        raise ExportError("there is nothing to export", found="0 rows", fix="generate data first")
    columns = _columns(filled, spec)
    total = sum(len(part) for part in filled)
    attributes = _attributes(spec, metadata, kind)
    with hdf5.staged_file(path) as staged:
        require_space(path.parent, total * sum(column.row_bytes for column in columns))
        with hdf5.create(staged) as writer:
            writer.reserve(sum(len(str(value)) for value in attributes.values()))
            writer.file.attrs.update(attributes)
            blocks = _write(writer, filled, columns, total, advance, chained=kind == "episodes")
            writer.verify = partial(check_flat, staged, blocks, rows=total, advance=advance)
    return path


def _write(
    writer: hdf5.Writer,
    parts: Sequence[RowSource],
    columns: Sequence[_Column],
    total: int,
    advance: Advance,
    *,
    chained: bool,
) -> list[Block]:
    datasets = {}
    writer.reserve(total * sum(column.row_bytes for column in columns))
    for column in columns:
        shape = (total, *column.shape)
        datasets[column.path] = writer.file.create_dataset(
            column.path, shape, column.dtype, fill_time="never", track_times=False
        )
        if column.missing is not None:
            datasets[column.path].attrs["missing_value"] = column.missing
    blocks: list[Block] = []
    at = 0
    for rows in _chained(parts, columns) if chained else _chunks(parts, columns):
        stop = at + len(rows)
        writer.reserve(0)
        for column in columns:
            values = column.values(rows)
            datasets[column.path].write_direct(values, dest_sel=np.s_[at:stop])
            blocks.append(Block(column.path, at, stop, column.dtype, column.shape, hdf5.checksum(values)))
        at = stop
        advance(len(rows), "flat file")
    return blocks


def _chunks(parts: Sequence[RowSource], columns: Sequence[_Column]) -> Iterator[Transitions]:
    step = max(1, min(CHUNK_ROWS, CHUNK_BYTES // sum(column.row_bytes for column in columns)))
    for part in parts:
        for start in range(0, len(part), step):
            yield part.read(start, min(start + step, len(part)))


def _chained(parts: Sequence[RowSource], columns: Sequence[_Column]) -> Iterator[Transitions]:
    """The chunks, once it is sure that they chain."""
    at, expected = 0, None
    for rows in _chunks(parts, columns):
        ended = np.asarray(rows["terminations"], bool) | np.asarray(rows["truncations"], bool)
        observations, next_observations = rows["observations"], rows["next_observations"]
        wrong = breaks(observations, next_observations) & ~ended
        wrong[-1] = False  # its successor comes with the next chunk
        if expected is not None and not np.array_equal(expected, observations[0]):
            raise _broken(at - 1)
        if wrong.any():
            raise _broken(at + int(wrong.argmax()))
        at += len(rows)
        expected = None if ended[-1] else next_observations[-1]
        yield rows
    if expected is not None:
        raise _broken(at - 1)


def _broken(row: int) -> ExportError:
    return ExportError(
        f"row {row:,} does not end an episode, and the row after it is not its successor",
        accepted="episodes whose last row is terminal or truncated",
        fix='write the file with kind="transitions"',
    )


def _columns(parts: Sequence[RowSource], spec: DatasetSpec) -> list[_Column]:
    heads = [part.read(0, 1) for part in parts]
    names = [field.name for field in spec.fields if not field.optional or any(field.name in head for head in heads)]
    for name in names:
        for position, head in enumerate(heads):
            if name not in head and name != "truncations":
                raise _missing(name, position, head)
    if "truncations" not in names:
        names.append("truncations")
    columns = [_column(_D4RL_NAMES.get(name, name), name, heads) for name in names]
    extra = dict.fromkeys(name for head in heads for name in head.columns if name not in names)
    columns += [_column(f"infos/{name}", name, heads) for name in extra]
    return columns


def _column(path: str, name: str, heads: Sequence[Transitions]) -> _Column:
    having = [head[name] for head in heads if name in head]
    if not having:
        return _Column(path, name, np.dtype(bool), ())
    column = _Column(path, name, having[0].dtype, having[0].shape[1:])
    for values in having:
        _same(column, values)
    if len(having) == len(heads) or name == "truncations":
        return column
    if name == "synthetic":
        raise ExportError(
            "some parts say which of their rows are synthetic, and others do not",
            found=f"{len(having)} of {len(heads)} parts have the column 'synthetic'",
            accepted="all parts, or none",
            fix="wrap each part: Labelled(part, synthetic=True)",
        )
    missing = {"f": np.nan, "i": -1, "b": False}.get(column.dtype.kind)
    if missing is None:
        raise _missing(name, next(i for i, head in enumerate(heads) if name not in head), heads[0])
    return _Column(path, name, column.dtype, column.shape, missing)


def _same(column: _Column, values: Array) -> None:
    if (values.dtype, values.shape[1:]) != (column.dtype, column.shape):
        raise ExportError(
            f"the column '{column.name}' changes between parts",
            found=f"{values.dtype} {values.shape[1:]}",
            accepted=f"{column.dtype} {column.shape}, as in the first part",
            fix="convert the column with .astype before exporting",
        )


def _missing(name: str, position: int, head: Transitions) -> ExportError:
    reason = unknown_name("column", name, head.columns)
    return ExportError(f"part {position} of the export lacks the column '{name}'", found=reason.accepted)


def _attributes(spec: DatasetSpec, metadata: Mapping[str, Any], kind: str) -> dict[str, Any]:
    try:
        provenance = json.dumps(dict(metadata), allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ExportError(
            "the metadata of a dataset must be plain JSON", found=str(error), fix="convert the value first"
        ) from None
    references = {"reference_min": spec.reference_min, "reference_max": spec.reference_max}
    return {
        "synth_pipeline_kind": kind,
        "synth_pipeline_schema": SCHEMA,
        "synth_pipeline_spec": spec.model_dump_json(),
        "synth_pipeline_provenance": provenance,
        **{f"synth_pipeline_{name}": value for name, value in references.items() if value is not None},
    }
