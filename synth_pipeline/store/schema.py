"""The schema: which columns a store holds, and which arrays they become."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field as Setting
from pydantic import model_validator

from synth_pipeline.config import Config
from synth_pipeline.data.fields import Field
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.errors import unknown_name

FORMAT_VERSION = 1

# Integers are kind "index": row ids are integers, which a float32 would round.
_PROVENANCE = {
    field.name: field
    for field in (
        Field(name="source_episode", kind="index"),
        Field(name="source_step", kind="index"),
        Field(name="target_episode", kind="index"),
        Field(name="target_step", kind="index"),
        Field(name="segment", kind="index"),
        Field(name="segment_step", kind="index"),
        Field(name="attempt", kind="index"),
        Field(name="weight"),
        Field(name="residual"),
    )
}


def provenance(*names: str) -> tuple[Field, ...]:
    """The usual provenance columns by name: where a row comes from, its weight, its residual.

    Raises:
        UnknownNameError: With the nearest known column.
    """
    for name in names:
        if name not in _PROVENANCE:
            raise unknown_name("provenance column", name, _PROVENANCE)
    return tuple(_PROVENANCE[name] for name in names)


@dataclass(frozen=True)
class StoredArray:
    """One Zarr array of a store.

    Attributes:
        name: Its key.
        shape: Shape of one entry.
        dtype: How entries are held.
        by_episode: One entry an episode of its shard instead of one a row.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_episode: bool = False

    @property
    def entry_bytes(self) -> int:
        """Bytes of one entry."""
        return math.prod(self.shape) * self.dtype.itemsize


class Schema(Config):
    """What a store holds.

    `transitions` are independent rows with every column of the spec. `trajectories` are whole episodes: T rows
    without next observations, plus the final observation and the first row of each episode, by shard.
    """

    kind: Literal["transitions", "trajectories"] = Setting(description="independent rows, or whole episodes")
    format_version: int = Setting(FORMAT_VERSION, description="version of the layout on disk")
    spec: DatasetSpec = Setting(description="what the columns mean")
    provenance: tuple[Field, ...] = Setting((), description="further columns: where a row comes from")
    derived: tuple[str, ...] = Setting((), description="columns that a known function fills, not the generator")

    @model_validator(mode="after")
    def _check(self) -> Schema:
        names = [field.name for field in self.columns]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"columns stand twice: {', '.join(sorted(twice))}")
        reserved = {"final_observations", "episode_starts", "manifest", "sidecar"} & set(names)
        if reserved:
            raise ValueError(f"the store needs these names itself: {', '.join(sorted(reserved))}")
        unknown = sorted(set(self.derived) - set(names) - {"next_observations"})
        if unknown:
            raise ValueError(f"derived columns that are not stored: {', '.join(unknown)}")
        if self.kind == "trajectories" and not self.spec.has("observations"):
            raise ValueError("trajectories need a column called observations")
        return self

    @property
    def columns(self) -> tuple[Field, ...]:
        """Every stored column, one value a row."""
        if self.kind == "transitions":
            return (*self.spec.fields, *self.provenance)
        fields = [field for field in self.spec.fields if field.name != "next_observations"]
        if not self.spec.has("truncations"):
            fields.append(Field(name="truncations", kind="binary"))
        return (*fields, *self.provenance)

    @property
    def readable(self) -> tuple[Field, ...]:
        """Every column that rows are read with: trajectories give next observations too."""
        if self.kind == "transitions":
            return self.columns
        return (*self.columns, self.spec.field("observations").replace(name="next_observations"))

    @property
    def arrays(self) -> tuple[StoredArray, ...]:
        """The Zarr arrays, in the order in which they are written."""
        arrays = [StoredArray(field.name, field.shape, field.dtype) for field in self.columns]
        if self.kind == "trajectories":
            observations = self.spec.field("observations")
            arrays += [
                StoredArray("final_observations", observations.shape, observations.dtype, by_episode=True),
                StoredArray("episode_starts", (), np.dtype("int64"), by_episode=True),
            ]
        return tuple(arrays)

    @property
    def compressed(self) -> bool:
        """Chained trajectories compress well (about 1.8x); independent transitions do not (6-8 %)."""
        return self.kind == "trajectories"

    @property
    def row_bytes(self) -> int:
        """Bytes of one row before compression."""
        return sum(array.entry_bytes for array in self.arrays if not array.by_episode)
