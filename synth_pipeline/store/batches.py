"""Shuffled batches from rows that do not fit into memory: random chunks into a buffer, random rows out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Array

Columns = dict[str, Array]


def shuffled(
    spans: Sequence[tuple[int, int]],
    allocate: Callable[[int], Columns],
    fill: Callable[[Columns, int], None],
    batch_size: int,
    buffer_chunks: int,
    rng: np.random.Generator,
) -> Iterator[Transitions]:
    """Every row exactly once; memory is the buffer, whatever the number of rows.

    Args:
        spans: First row and end of every chunk.
        allocate: Makes uninitialised columns for so many rows.
        fill: Reads rows from a first row on into columns.
        batch_size: Rows a batch; the last one may be smaller.
        buffer_chunks: Chunks that are mixed row by row at a time.
        rng: Decides the order of chunks and rows.
    """
    order = rng.permutation(len(spans))
    groups = [[spans[i] for i in order[k : k + buffer_chunks]] for k in range(0, len(order), buffer_chunks)]
    largest = max((sum(stop - start for start, stop in group) for group in groups), default=0)
    pool = allocate(largest + batch_size)
    kept = 0
    for group in groups:
        filled = kept
        for start, stop in group:
            fill({name: column[filled : filled + stop - start] for name, column in pool.items()}, start)
            filled += stop - start
        rows = rng.permutation(filled)
        whole = filled - filled % batch_size
        for first in range(0, whole, batch_size):
            yield _taken(pool, rows[first : first + batch_size])
        # What is left over joins the next group, so that only the last batch of an epoch is short.
        kept = filled - whole
        for column in pool.values():
            column[:kept] = column[rows[whole:]]
    if kept:
        yield _taken(pool, np.arange(kept))


def _taken(pool: Columns, rows: npt.NDArray[np.int64]) -> Transitions:
    return Transitions({name: np.take(column, rows, axis=0) for name, column in pool.items()})
