"""The three containers: `Transitions` (rows), `Episodes` (ragged), `Segments` (fixed horizon + mask).

Names are Gymnasium's and Minari's. All are frozen, check themselves when built, and hold NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.fields import Array
from synth_pipeline.errors import SourceError, unknown_name

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class Transitions:
    """Independent rows: every column has the same length.

    Attributes:
        columns: Name -> array `[n, *shape]`.
    """

    columns: Mapping[str, Array]

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise SourceError("columns differ in length", found=", ".join(f"{k}: {v}" for k, v in lengths.items()))

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __getitem__(self, name: str) -> Array:
        try:
            return self.columns[name]
        except KeyError:
            raise unknown_name("column", name, self.columns) from None

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def take(self, rows: npt.NDArray[Any] | slice) -> Transitions:
        """The chosen rows (an index array, a mask, or a slice, which does not copy)."""
        return Transitions({name: column[rows] for name, column in self.columns.items()})

    def with_columns(self, **columns: Array) -> Transitions:
        """A copy with columns added or replaced."""
        return Transitions({**self.columns, **columns})

    def __repr__(self) -> str:
        return f"Transitions({len(self):,} rows: {_shapes(self.columns)})"


def concatenate(parts: Sequence[Transitions]) -> Transitions:
    """Rows of several parts below one another; the columns of the first part are kept.

    Raises:
        UnknownNameError: When a later part lacks a column of the first.
    """
    return Transitions({name: np.concatenate([part[name] for part in parts]) for name in parts[0].columns})


@dataclass(frozen=True, repr=False)
class Episodes:
    """Ragged episodes, flat: T rows plus one final observation each.

    Row t of episode e stands at `starts[e] + t`; its next observation is the following row's observation, or
    `final_observations[e]` for the last row. A time limit is a truncation, never a termination.

    Attributes:
        observations: `[n, *observation shape]`.
        final_observations: `[episodes, *observation shape]`.
        starts: `[episodes + 1]`, row of each episode's first step; the last entry is n.
        columns: Further columns by row: `actions`, `rewards`, `terminations`, `truncations`, ...
    """

    observations: Array
    final_observations: Array
    starts: Integers
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        starts = self.starts
        if len(starts) < 1 or starts[0] != 0 or starts[-1] != len(self.observations) or np.any(np.diff(starts) < 1):
            raise SourceError("episode starts must rise from 0 to the number of rows", found=f"starts {starts}")
        if len(self.final_observations) != len(starts) - 1:
            raise SourceError(
                "every episode needs one final observation",
                found=f"{len(self.final_observations)} for {len(starts) - 1} episodes",
            )
        for name, column in self.columns.items():
            if name in ("observations", "next_observations"):
                raise SourceError(
                    f"'{name}' cannot be a further column of episodes",
                    fix="give observations and final_observations; next observations follow from them",
                )
            if len(column) != len(self.observations):
                raise SourceError(
                    f"column '{name}' has another length than the observations",
                    found=f"{len(column)} against {len(self.observations)}",
                )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, name: str) -> Array:
        if name == "observations":
            return self.observations
        if name == "next_observations":
            return self.next_observations
        try:
            return self.columns[name]
        except KeyError:
            raise unknown_name("column", name, [*self.columns, "observations", "next_observations"]) from None

    def __contains__(self, name: object) -> bool:
        return name in ("observations", "next_observations") or name in self.columns

    @property
    def num_rows(self) -> int:
        """Number of transitions of all episodes."""
        return len(self.observations)

    @property
    def lengths(self) -> Integers:
        """`[episodes]`, steps of each episode."""
        return np.diff(self.starts)

    @property
    def episode_ids(self) -> Integers:
        """`[n]`, the episode that each row belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    @property
    def steps(self) -> Integers:
        """`[n]`, the time step of each row in its episode."""
        return np.arange(self.num_rows, dtype=np.int64) - np.repeat(self.starts[:-1], self.lengths)

    @property
    def next_observations(self) -> Array:
        """`[n, *observation shape]`."""
        shifted = np.empty_like(self.observations)
        shifted[:-1] = self.observations[1:]
        shifted[self.starts[1:] - 1] = self.final_observations
        return shifted

    @property
    def returns(self) -> npt.NDArray[np.float64]:
        """`[episodes]`, undiscounted sum of rewards."""
        if not len(self):
            return np.zeros(0)
        return np.add.reduceat(np.asarray(self["rewards"], np.float64), self.starts[:-1])

    def transitions(self) -> Transitions:
        """All rows as independent transitions (observations, actions, rewards, next_observations, ...)."""
        rest = {name: column for name, column in self.columns.items() if name not in ("actions", "rewards")}
        head = {name: self.columns[name] for name in ("actions", "rewards") if name in self.columns}
        return Transitions(
            {"observations": self.observations, **head, "next_observations": self.next_observations, **rest}
        )

    def take(self, episodes: npt.NDArray[Any]) -> Episodes:
        """The chosen episodes, in the given order (integer ids or a mask)."""
        chosen = np.arange(len(self))[episodes]
        lengths = self.lengths[chosen]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = np.arange(starts[-1]) + np.repeat(self.starts[:-1][chosen] - starts[:-1], lengths)
        return Episodes(
            self.observations[rows],
            self.final_observations[chosen],
            starts,
            {name: column[rows] for name, column in self.columns.items()},
        )

    def __repr__(self) -> str:
        return (
            f"Episodes({len(self):,} episodes, {self.num_rows:,} rows: observations "
            f"{self.observations.shape[1:]}, {_shapes(self.columns)})"
        )


def concatenate_episodes(parts: Sequence[Episodes]) -> Episodes:
    """Episodes of several parts one after another; the columns of the first part are kept."""
    offsets = np.cumsum([0] + [part.num_rows for part in parts])
    starts = [part.starts[:-1] + offset for part, offset in zip(parts, offsets, strict=False)]
    return Episodes(
        np.concatenate([part.observations for part in parts]),
        np.concatenate([part.final_observations for part in parts]),
        np.concatenate([*starts, offsets[-1:]]).astype(np.int64),
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0].columns},
    )


@dataclass(frozen=True, repr=False)
class Segments:
    """Windows of a fixed horizon; rows past the end of an episode are masked, never borrowed from the next one.

    Attributes:
        columns: Name -> `[n, horizon, *shape]`; masked entries are zero.
        mask: `[n, horizon]`, true where a row is real.
        episode_ids: `[n]`, source episode.
        steps: `[n]`, step of the window's first row in its episode.
    """

    columns: Mapping[str, Array]
    mask: npt.NDArray[np.bool_]
    episode_ids: Integers
    steps: Integers

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, name: str) -> Array:
        try:
            return self.columns[name]
        except KeyError:
            raise unknown_name("column", name, self.columns) from None

    @property
    def horizon(self) -> int:
        """Steps per window."""
        return int(self.mask.shape[1])

    def __repr__(self) -> str:
        return f"Segments({len(self):,} x {self.horizon}: {_shapes(self.columns)})"


def _shapes(columns: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} {tuple(column.shape[1:])} {column.dtype}" for name, column in columns.items())
