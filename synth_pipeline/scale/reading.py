"""What is asked of every row of a store, shard by shard on workers; answers come back in the order of the shards."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from synth_pipeline import store
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Parted, RowSource
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.scale.tasks import map_tasks
from synth_pipeline.store import Store

Answer = TypeVar("Answer")
Span = tuple[int, int]


def by_shards(target: Store, workers: int | str) -> Parted:
    """The rows of a store, in parts of one shard that are worked on by processes, or on a Dask cluster.

    Args:
        target: A complete store.
        workers: Processes, or a Dask scheduler; 1 is this process.
    """
    ends = [0]
    for commit in target.commits.values():
        ends.append(ends[-1] + commit.rows)
    spans = [(start, stop) for start, stop in pairwise(ends) if start < stop]
    return Parted(target, partial(_over_spans, target, spans, workers))


def _over_spans(target: Store, spans: list[Span], workers: int | str, function: Callable[[RowSource], Any]) -> Any:
    if workers == 1:
        return (function(_Part(target, *span)) for span in spans)
    return _in_order(target, _OnPart(function, target.url, uuid.uuid4().hex), spans, workers)


def damaged_shards(target: Store, workers: int | str) -> dict[int, list[str]]:
    """What `Store.damaged` finds; every byte is read.

    Args:
        target: The store.
        workers: Processes, or a Dask scheduler; 1 is this process.
    """
    if workers == 1:
        return target.damaged()
    shards = list(target.commits)
    found = _in_order(target, partial(_damage, target.url, uuid.uuid4().hex), shards, workers)
    return {shard: problems for damaged in found for shard, problems in damaged.items()}


def local_folder(target: Store) -> tuple[Path, ...]:
    """The folder that workers must share to reach a store: none when it lives in a bucket."""
    return () if "://" in target.url else (Path(target.url),)


def _in_order(
    target: Store, function: Callable[[Any], Answer], tasks: list[Any], workers: int | str
) -> Iterator[Answer]:
    """Answers by rising task; one that comes early waits."""
    early: dict[Any, Answer] = {}
    expected = iter(tasks)
    wanted = next(expected, None)
    for task, answer in map_tasks(function, tasks, workers=workers, shared=local_folder(target)):
        early[task] = answer
        while wanted in early:
            yield early.pop(wanted)
            wanted = next(expected, None)


@dataclass(frozen=True)
class _Part:
    """Rows `start <= i < stop` of a store, as a row source."""

    whole: Store
    start: int
    stop: int

    @property
    def spec(self) -> DatasetSpec:
        return self.whole.spec

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self, start: int, stop: int) -> Transitions:
        return self.whole.read(self.start + start, self.start + stop)


@dataclass(frozen=True)
class _OnPart:
    """A function of rows as one of spans, for workers."""

    function: Callable[[RowSource], Any]
    url: str
    call: str

    def __call__(self, span: Span) -> Any:
        return self.function(_Part(_opened(self.url, self.call), *span))


def _damage(url: str, call: str, shard: int) -> dict[int, list[str]]:
    return _opened(url, call).damaged(shard)


@lru_cache(maxsize=1)
def _opened(url: str, call: str) -> Store:
    """Once a process and call: its manifest may be large, and another call may meet other rows."""
    return store.open(url)
