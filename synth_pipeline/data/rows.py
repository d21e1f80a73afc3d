"""The row-source protocol: anything with columns of known fields that can be read slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

from synth_pipeline.data.containers import Episodes, Integers, Transitions
from synth_pipeline.data.spec import DatasetSpec

Answer = TypeVar("Answer")


class RowSource(Protocol):
    """Rows that may be larger than memory. Stores, HDF5 files and arrays in memory all read this way."""

    @property
    def spec(self) -> DatasetSpec:
        """What the columns mean."""
        ...

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def read(self, start: int, stop: int) -> Transitions:
        """Rows `start <= i < stop`, all columns."""
        ...


@dataclass(frozen=True)
class Dataset:
    """A dataset in memory: its spec and either episodes or independent rows.

    Attributes:
        spec: What the columns mean.
        episodes: Ragged episodes, or None when the source has no episode structure.
        rows: Independent rows, only when there are no episodes.
        episode_ids: `[episodes]`, ids in the dataset that these episodes were split from; None: not split.
    """

    spec: DatasetSpec
    episodes: Episodes | None = None
    rows: Transitions | None = None
    episode_ids: Integers | None = None

    def __post_init__(self) -> None:
        if (self.episodes is None) == (self.rows is None):
            raise ValueError("a dataset has either episodes or rows")

    def __len__(self) -> int:
        return self.episodes.num_rows if self.episodes is not None else len(self._transitions)

    def transitions(self) -> Transitions:
        """All rows as independent transitions; next observations are put together once."""
        return self._transitions

    @cached_property
    def _transitions(self) -> Transitions:
        if self.episodes is not None:
            return self.episodes.transitions()
        assert self.rows is not None
        return self.rows

    def read(self, start: int, stop: int) -> Transitions:
        """Rows `start <= i < stop` (the row-source protocol)."""
        return self.transitions().take(slice(start, stop))


def chunks(source: RowSource, size: int) -> Iterator[Transitions]:
    """A source in consecutive parts of at most `size` rows."""
    for start in range(0, len(source), size):
        yield source.read(start, min(start + size, len(source)))


@dataclass(frozen=True)
class Parted:
    """A row source whose parts can be worked on apart, perhaps by other processes.

    Attributes:
        whole: All of its rows.
        over: Applies a picklable function to consecutive parts of the rows; its answers, in the order of the parts.
            How the rows are cut must not depend on who works.
    """

    whole: RowSource
    over: Callable[[Callable[[RowSource], Any]], Iterable[Any]]

    @property
    def spec(self) -> DatasetSpec:
        """What the columns mean."""
        return self.whole.spec

    def __len__(self) -> int:
        return len(self.whole)

    def read(self, start: int, stop: int) -> Transitions:
        """Rows `start <= i < stop` (the row-source protocol)."""
        return self.whole.read(start, stop)


def over_parts(source: RowSource, function: Callable[[RowSource], Answer]) -> Iterable[Answer]:
    """A picklable function of every part of a source, in the order of the rows; of the whole, when it is not parted."""
    return source.over(function) if isinstance(source, Parted) else [function(source)]
