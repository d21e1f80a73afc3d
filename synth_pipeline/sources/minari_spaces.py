"""Minari's serialised Gymnasium spaces -> flat columns: Box, Discrete, and a flat Dict of Box.

The JSON is read as it stands in `metadata.json`, so that a dataset loads without Gymnasium and without its simulator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from synth_pipeline.data.fields import Array
from synth_pipeline.errors import SourceError

ACCEPTED = "Box, Discrete, or a flat Dict of Box (no images)"


@dataclass(frozen=True)
class Part:
    """Where one Box of a space stands in the flat column.

    Attributes:
        key: Its key in a Dict space; None when the space is the Box itself.
        start: First component.
        size: Number of components.
    """

    key: str | None
    start: int
    size: int


@dataclass(frozen=True)
class Column:
    """How a space becomes one column `[n, size]` (Box, Dict) or `[n]` of classes (Discrete).

    Attributes:
        parts: The Boxes in order; empty for Discrete.
        low: `[size]` lower bounds, -inf where there are none.
        high: `[size]` upper bounds.
        classes: Number of classes of a Discrete space, else None.
        first_class: The value of class 0.
    """

    parts: tuple[Part, ...]
    low: Array
    high: Array
    classes: int | None = None
    first_class: int = 0

    @property
    def size(self) -> int:
        """Components of one row."""
        return sum(part.size for part in self.parts) if self.parts else 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return () if self.classes else (self.size,)

    def fill(self, target: Array, values: Mapping[str | None, Array]) -> None:
        """Write the arrays of one episode, by key of their part, into rows of the column."""
        if self.classes:
            target[...] = values[None].reshape(len(target)) - self.first_class
            return
        for part in self.parts:
            target[:, part.start : part.start + part.size] = values[part.key].reshape(len(target), part.size)

    def slices(self) -> dict[str, list[int]]:
        """Key of a Dict space -> [first, last + 1] component, for provenance."""
        return {part.key: [part.start, part.start + part.size] for part in self.parts if part.key is not None}


def column(space: Mapping[str, Any], name: str, origin: str, keys: Sequence[str] | None = None) -> Column:
    """The column that a serialised space becomes.

    Args:
        space: Minari's JSON of the space.
        name: `observations` or `actions`, for errors.
        origin: Name of the dataset, for errors.
        keys: The keys of a Dict space to take, in order; None: all of them, in the order of the space.

    Raises:
        SourceError: For images, nested Dicts, Text and every other space.
    """
    kind = space.get("type")
    if kind == "Discrete":
        nothing = np.zeros(0)
        return Column((), nothing, nothing, classes=int(space["n"]), first_class=int(space.get("start", 0)))
    if kind == "Box":
        return _boxes({None: space}, name, origin)
    if kind != "Dict":
        _refuse(name, str(kind), origin)
    subspaces: Mapping[str, Any] = space["subspaces"]
    # Gymnasium sorts the keys of a Dict space; an older file may hold them in another order.
    return _boxes({key: subspaces[key] for key in keys or sorted(subspaces)}, name, origin)


def _boxes(boxes: Mapping[Any, Mapping[str, Any]], name: str, origin: str) -> Column:
    parts: list[Part] = []
    lows, highs = [], []
    start = 0
    for key, box in boxes.items():
        label = name if key is None else f"{name}['{key}']"
        if box.get("type") != "Box":
            _refuse(label, f"{box.get('type')} inside a Dict", origin)
        shape = tuple(box["shape"])
        if len(shape) > 1 and np.dtype(box["dtype"]) == np.uint8:
            _refuse(label, f"an image, Box{shape} of uint8", origin)
        size = math.prod(shape)
        parts.append(Part(key, start, size))
        lows.append(np.broadcast_to(np.asarray(box["low"], np.float64), shape).reshape(size))
        highs.append(np.broadcast_to(np.asarray(box["high"], np.float64), shape).reshape(size))
        start += size
    if start == 0:
        _refuse(name, "a space without components", origin)
    return Column(tuple(parts), np.concatenate(lows), np.concatenate(highs))


def _refuse(name: str, found: str, origin: str) -> NoReturn:
    raise SourceError(
        f"{origin}: the space of {name} cannot be read as a vector",
        found=found,
        accepted=ACCEPTED,
        fix="flatten it with a Gymnasium wrapper and record the dataset again, or use another dataset",
    )
