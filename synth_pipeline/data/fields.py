"""Fields (what a column means) and layouts (how columns become one vector x, and back).

Axes: x is `[*lead, size]`, where `lead` is whatever precedes the channel (`batch`; `batch, time`; ...).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field as Setting
from pydantic import model_validator

from synth_pipeline.config import Config
from synth_pipeline.errors import ConfigError, SourceError, unknown_name

Array = npt.NDArray[Any]
Kind = Literal["continuous", "binary", "categorical", "token", "image", "index"]
_DTYPES: dict[str, str] = {
    "continuous": "float32",
    "binary": "bool",
    "categorical": "int64",
    "token": "int32",
    "image": "uint8",
    "index": "int64",
}


class Field(Config):
    """One named column of a dataset: its shape per row, its kind, its bounds."""

    name: str = Setting(min_length=1, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="column name")
    shape: tuple[int, ...] = Setting((), description="shape of one row; () for a scalar")
    kind: Kind = Setting("continuous", description="what the values are")
    low: tuple[float, ...] | None = Setting(None, description="lower bound per flat component, or none")
    high: tuple[float, ...] | None = Setting(None, description="upper bound per flat component, or none")
    clip: bool = Setting(False, description="samples are clipped into the bounds")
    optional: bool = Setting(False, description="a dataset may lack this column")
    num_categories: int | None = Setting(None, ge=2, description="number of classes of a categorical field")

    @model_validator(mode="after")
    def _check(self) -> Field:
        for bound in (self.low, self.high):
            if bound is not None and len(bound) != self.size:
                raise ValueError(f"{self.name}: bounds have {len(bound)} components, the shape has {self.size}")
        if any(not low <= high for low, high in zip(self.low or (), self.high or (), strict=False)):
            raise ValueError(f"{self.name}: a lower bound lies above its upper bound, or is not a number")
        if self.clip and (self.low is None or self.high is None):
            raise ValueError(f"{self.name}: clip needs both bounds")
        if (self.kind == "categorical") != (self.num_categories is not None):
            raise ValueError(f"{self.name}: num_categories belongs to categorical fields, and they need it")
        return self

    @property
    def size(self) -> int:
        """Number of components of one row."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """How containers and stores hold the column."""
        return np.dtype(_DTYPES[self.kind])

    @property
    def width(self) -> int:
        """Channels the field takes in x: a categorical is one-hot, everything else its components."""
        return self.size * self.num_categories if self.num_categories else self.size

    def clipped(self, values: Array) -> Array:
        """Values moved into the bounds, if the field clips; `[*lead, *shape]` -> the same shape."""
        if not self.clip:
            return values
        low = np.asarray(self.low, values.dtype).reshape(self.shape)
        high = np.asarray(self.high, values.dtype).reshape(self.shape)
        return np.clip(values, low, high)


class Layout:
    """Packs fields side by side into one channel axis, and unpacks samples to physical values.

    Args:
        fields: The columns in order; continuous, binary and categorical ones.

    Raises:
        ConfigError: For kinds that have no place in a vector (tokens, images, row ids), or a name that stands twice.
    """

    def __init__(self, fields: tuple[Field, ...]) -> None:
        names = [field.name for field in fields]
        if len(set(names)) != len(names):
            raise ConfigError("a layout holds each field once", found=", ".join(names))
        for field in fields:
            if field.kind in ("token", "image", "index"):
                raise ConfigError(
                    f"field '{field.name}' is a {field.kind} and cannot be packed into a vector",
                    accepted="continuous, binary and categorical fields",
                    fix="leave it out, or encode it into continuous columns before",
                )
        self.fields = fields

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Field name -> its channels in x."""
        ends = np.cumsum([field.width for field in self.fields])
        return {f.name: slice(int(end) - f.width, int(end)) for f, end in zip(self.fields, ends, strict=True)}

    @property
    def size(self) -> int:
        """Number of channels of x."""
        return sum(field.width for field in self.fields)

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def pack(self, columns: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        """Columns `[*lead, *shape]` -> x `[*lead, size]`, float32.

        Raises:
            UnknownNameError: When a field of the layout is missing from the columns.
            SourceError: When a column has another shape than its field, or a class that does not exist.
        """
        missing = [field.name for field in self.fields if field.name not in columns]
        if missing:
            raise unknown_name("column", missing[0], columns)
        parts = [self._encode(field, np.asarray(columns[field.name])) for field in self.fields]
        return np.concatenate(parts, axis=-1, dtype=np.float32)

    def unpack(self, x: Array, *, threshold: float = 0.5) -> dict[str, Array]:
        """x `[*lead, size]` -> physical columns `[*lead, *shape]`: clipped, flags boolean, classes as integers.

        Args:
            x: Packed rows in physical units (already decoded by the normalizer).
            threshold: A binary component is true above this value.
        """
        return {f.name: self._decode(f, x[..., self.slices[f.name]], threshold) for f in self.fields}

    @staticmethod
    def _encode(field: Field, values: Array) -> Array:
        lead = values.shape[: values.ndim - len(field.shape)]
        if values.shape[len(lead) :] != field.shape:
            raise SourceError(
                f"column '{field.name}' has the wrong shape", found=values.shape, accepted=("rows", *field.shape)
            )
        if field.num_categories:
            if np.any((values < 0) | (values >= field.num_categories)):
                raise SourceError(
                    f"column '{field.name}' holds a class that does not exist",
                    found=f"{values.min()} to {values.max()}",
                    accepted=f"0 to {field.num_categories - 1}",
                )
            return np.eye(field.num_categories, dtype=np.float32)[values].reshape(*lead, field.width)
        return np.asarray(values.reshape(*lead, field.width), np.float32)

    @staticmethod
    def _decode(field: Field, part: Array, threshold: float) -> Array:
        lead = part.shape[:-1]
        if field.num_categories:
            classes = part.reshape(*lead, field.size, field.num_categories).argmax(axis=-1)
            return np.asarray(classes.reshape(*lead, *field.shape), field.dtype)
        values = part.reshape(*lead, *field.shape)
        if field.kind == "binary":
            return np.asarray(values > threshold)
        return field.clipped(values.astype(field.dtype, copy=False))
