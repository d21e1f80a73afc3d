"""Real data, wherever they are asked for: a source that refuses rows which a generator made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import SourceError
from synth_pipeline.sources.base import Source
from synth_pipeline.sources.load import resolve

MARK = "synthetic"  # column of our exports: whether a generator made the row


class RealSource:
    """A source whose rows nobody generated.

    Args:
        source: Where they come from.
        name: What the user typed.
    """

    def __init__(self, source: Source, name: str) -> None:
        self._source, self._name = source, name

    def describe(self) -> dict[str, Any]:
        """Facts (see `Source`)."""
        return self._source.describe()

    def fingerprint(self) -> str:
        """Hash of the contents (see `Source`)."""
        return self._source.fingerprint()

    def load(self) -> Dataset:
        """Read everything (see `Source`).

        Raises:
            SourceError: When rows are marked as synthetic, or a generator filled the store that they lie in.
        """
        if (generator := self.describe().get("generator")) is not None:
            self._refuse(f"a store that the generator '{generator}' filled")
        data = self._source.load()
        if (made := _marked(data)) is not None and made.any():
            self._refuse(f"{int(made.sum()):,} of {len(data):,} rows are marked as synthetic")
        return data

    def _refuse(self, found: str) -> None:
        raise SourceError(
            f"'{self._name}' is asked for as real data, and holds rows that a generator made",
            found=found,
            accepted="data without synthetic rows",
            fix="name the dataset that they were made from; to judge rows: synthpipe audit FILE --real DATASET",
        )


def real_source(name: str, *, rows: int | None = None) -> RealSource:
    """What `sources.resolve` finds, as real data."""
    return RealSource(resolve(name, rows=rows), name)


def synthetic_rows(data: Dataset) -> Dataset | None:
    """The rows that are marked as synthetic, where some are and others are not; None: all rows are of one kind."""
    made = _marked(data)
    if made is None or made.all() or not made.any():
        return None
    if data.episodes is None:
        return replace(data, rows=data.transitions().take(np.flatnonzero(made)))
    return replace(data, episodes=data.episodes.take(np.flatnonzero(made[data.episodes.starts[:-1]])))


def _marked(data: Dataset) -> Any:
    rows = data.transitions()
    return np.asarray(rows[MARK], np.bool_) if MARK in rows else None
