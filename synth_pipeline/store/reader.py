"""`Store`: a store that is open. Every chunk that is read is checked; a missing row is an error, never a fill value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from synth_pipeline import seeding
from synth_pipeline.config import content_hash
from synth_pipeline.data.containers import Episodes, Integers, Transitions, concatenate_episodes
from synth_pipeline.data.fields import Array
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.errors import StoreError, unknown_name
from synth_pipeline.seeding import Stage
from synth_pipeline.store import commits as manifest
from synth_pipeline.store import verify, writer
from synth_pipeline.store.batches import shuffled
from synth_pipeline.store.commits import Commit
from synth_pipeline.store.folder import Folder
from synth_pipeline.store.identity import Identity, shard_key
from synth_pipeline.store.lock import LOCK
from synth_pipeline.store.plan import Plan
from synth_pipeline.store.schema import Schema
from synth_pipeline.store.shards import DamageError, read_rows


class Store:
    """An open store, and a row source. Use `store.create` or `store.open`.

    Commits are looked up when they are first needed, and again after `writing`, `drop` and `refresh`.
    """

    def __init__(self, folder: Folder, identity: Identity) -> None:
        self._folder, self._identity = folder, identity
        self._arrays = {array.name: array for array in identity.schema.arrays}
        self._forms = {array.name: identity.form(array) for array in identity.schema.arrays}
        self._fields = {field.name: field for field in identity.schema.readable}
        self._commits: dict[int, Commit] | None = None

    def __repr__(self) -> str:
        return f"Store('{self.url}', {len(self):,} rows, {len(self.commits)} of {self.plan.num_shards} shards)"

    @property
    def url(self) -> str:
        """Where it is."""
        return self._folder.url

    @property
    def schema(self) -> Schema:
        """Which columns it holds."""
        return self._identity.schema

    @property
    def plan(self) -> Plan:
        """How it is cut."""
        return self._identity.plan

    @property
    def config(self) -> Mapping[str, Any]:
        """What made it."""
        return self._identity.config

    @property
    def maker(self) -> str:
        """The command that makes its rows, as far as the store and its place tell."""
        return verify.maker(self._folder, self._identity)

    @property
    def spec(self) -> DatasetSpec:
        """What the columns mean."""
        return self.schema.spec

    @property
    def commits(self) -> Mapping[int, Commit]:
        """Shard -> commit, in rising order."""
        if self._commits is None:
            found = manifest.read(self._folder)
            self._commits = {shard: commit for shard, commit in found.items() if shard < self.plan.num_shards}
        return self._commits

    @property
    def num_missing(self) -> int:
        """Shards that are planned and not committed."""
        return self.plan.num_shards - len(self.commits)

    @property
    def complete(self) -> bool:
        """Whether every shard is committed."""
        return self.num_missing == 0

    @property
    def finalised(self) -> bool:
        """Whether its writer came to the end: complete, the commits in one file, the lock given back."""
        return self.complete and not self._folder.list_keys("manifest") and self._folder.get(LOCK) is None

    def __len__(self) -> int:
        """Rows that are committed."""
        return sum(commit.rows for commit in self.commits.values())

    def __bool__(self) -> bool:
        """An open store is true, also while it holds no rows."""
        return True

    def refresh(self) -> None:
        """Look at the commits again, after another process has written."""
        self._commits = None

    @contextmanager
    def writing(self) -> Iterator[writer.Writing]:
        """Hold the lock: `with store.writing() as session: session.missing() ... session.finalise()`.

        Raises:
            StoreBusyError: When another process writes, naming host, process and age.
            ResourceError: When the disk cannot hold the missing rows.
        """
        try:
            with writer.writing(self._folder, self._identity) as session:
                yield session
        finally:
            self.refresh()

    def drop(self, *shards: int) -> None:
        """Forget damaged shards, so that the same command makes them again."""
        with self.writing() as session:
            session.drop(*shards)

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> Transitions:
        """Rows `start <= i < stop`.

        Args:
            start: First row, >= 0.
            stop: End, at most the number of rows.
            columns: Which columns; by default all, provenance included.

        Raises:
            StoreError: When shards are missing or damaged, naming the shard and the fix.
            IndexError: When there are no such rows.
            UnknownNameError: For a column that is not stored.
        """
        self._require_complete()
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start}:{stop} of a store with {len(self)}")
        result = self._allocate(stop - start, columns)
        self._fill(result, start)
        return Transitions(result)

    def read_all(self, columns: Sequence[str] | None = None) -> Transitions:
        """Every row, in memory."""
        return self.read(0, len(self), columns)

    def read_shard(self, shard: int) -> Transitions:
        """The rows of one committed shard, every column.

        Raises:
            StoreError: When shards are missing or damaged.
        """
        start = sum(commit.rows for other, commit in self.commits.items() if other < shard)
        return self.read(start, start + self.commits[shard].rows)

    def iter_episodes(self) -> Iterator[Episodes]:
        """Whole episodes, one shard at a time.

        Raises:
            StoreError: When the store holds independent rows, or shards are missing or damaged.
        """
        if self.schema.kind != "trajectories":
            raise StoreError(
                f"the store '{self.url}' holds independent rows, not episodes",
                found=self.schema.kind,
                accepted="trajectories",
                fix="read rows with `read` or `batches`",
            )
        self._require_complete()
        for commit in self.commits.values():
            if commit.rows:
                yield self._episodes(commit)

    def episodes(self) -> Episodes:
        """Every episode, in memory."""
        return concatenate_episodes(list(self.iter_episodes()))

    def batches(
        self,
        batch_size: int,
        seed: int,
        epoch: int = 0,
        *,
        buffer_chunks: int = 64,
        columns: Sequence[str] | None = None,
    ) -> Iterator[Transitions]:
        """Shuffled batches: each row exactly once an epoch, in an order that follows from `(seed, epoch)`.

        Args:
            batch_size: Rows a batch; only the last one may be smaller.
            seed: Seed of the order.
            epoch: Which pass over the rows.
            buffer_chunks: Chunks that are mixed at a time; memory is this many chunks.
            columns: Which columns; by default all.

        Raises:
            StoreError: When shards are missing or damaged.
        """
        if batch_size < 1 or buffer_chunks < 1:
            raise ValueError("batch_size and buffer_chunks must be at least 1")
        self._require_complete()
        rng = seeding.stream(seed, Stage.SHUFFLE, epoch)
        return shuffled(
            self._chunk_spans(), lambda rows: self._allocate(rows, columns), self._fill, batch_size, buffer_chunks, rng
        )

    def digest(self) -> str:
        """What the data is: SHA-256 (hex) over schema, plan, configuration and the checksums of all rows.

        Raises:
            StoreError: When shards are missing.
        """
        self._require_complete()
        payload = [
            [commit.shard, commit.rows, commit.episodes, commit.attempt, dict(commit.checksums)]
            for commit in self.commits.values()
        ]
        return content_hash(self.schema, self.plan, dict(self.config), payload)

    def damaged(self, *shards: int) -> dict[int, list[str]]:
        """Shard -> what is wrong with its files; reads every byte, of all shards by default. For `drop`."""
        asked = {shard: self.commits[shard] for shard in shards} if shards else self.commits
        return verify.damaged_shards(self._folder, self._identity, asked)

    def verify(self, damaged: Callable[[Store], Mapping[int, list[str]]] = lambda store: store.damaged()) -> None:
        """Check every byte of every file.

        Args:
            damaged: How the files of shards are checked, e.g. by several processes.

        Raises:
            StoreError: Naming the missing or damaged shards and how to mend them.
        """
        self.refresh()
        verify.require_sound(self._folder, self._identity, self.commits, lambda: damaged(self))

    def info(self) -> dict[str, Any]:
        """Plain values for a card: what it holds, how large it is, what made it."""
        episodes = [commit.episodes for commit in self.commits.values() if commit.episodes is not None]
        return {
            "url": self.url,
            "dataset_id": self.spec.dataset_id,
            "kind": self.schema.kind,
            "format_version": self.schema.format_version,
            "rows": len(self),
            "episodes": sum(episodes) if self.schema.kind == "trajectories" else None,
            "shards": self.plan.num_shards,
            "missing_shards": self.num_missing,
            "bytes": sum(size for commit in self.commits.values() for size in commit.sizes.values()),
            "columns": {name: [str(field.dtype), *field.shape] for name, field in self._fields.items()},
            "provenance": [field.name for field in self.schema.provenance],
            "derived": list(self.schema.derived),
            "plan": self.plan.model_dump(mode="json"),
            "config": dict(self.config),
            "digest": self.digest() if self.complete else None,
        }

    def sidecars(self) -> dict[int, dict[str, Any]]:
        """Shard -> seconds, host and what else its writer noted; no part of the digest."""
        return manifest.sidecars(self._folder)

    @property
    def seconds(self) -> float:
        """What making the rows took, all workers together; shards whose writers noted nothing count as none."""
        return float(sum(note.get("seconds", 0.0) for note in self.sidecars().values()))

    def _require_complete(self) -> None:
        verify.require_complete(self._folder, self._identity, self.commits)

    def _allocate(self, rows: int, columns: Sequence[str] | None) -> dict[str, Array]:
        names = list(self._fields) if columns is None else list(columns)
        for name in names:
            if name not in self._fields:
                raise unknown_name("column", name, self._fields)
        return {name: np.empty((rows, *self._fields[name].shape), self._fields[name].dtype) for name in names}

    def _chunk_spans(self) -> list[tuple[int, int]]:
        spans, first, step = [], 0, self.plan.rows_per_chunk
        for commit in self.commits.values():
            end = first + commit.rows
            spans += [(low, min(low + step, end)) for low in range(first, end, step)]
            first = end
        return spans

    def _fill(self, columns: Mapping[str, Array], start: int) -> None:
        """Read rows from `start` on into columns of one length; shards are found by cumulative counts."""
        stop = start + len(next(iter(columns.values()), ()))
        parts, first = [], 0
        for commit in self.commits.values():
            low, high = max(start, first), min(stop, first + commit.rows)
            if low < high:
                parts.append((commit, low - first, slice(low - start, high - start)))
            first += commit.rows
        for name, column in columns.items():
            for commit, begin, rows in parts:
                if name in self._arrays:
                    self._read_array(commit, name, begin, column[rows])
                else:
                    self._fill_next(commit, column[rows], begin)

    def _fill_next(self, commit: Commit, out: Array, start: int) -> None:
        """Next observations: the following row's observation, or the final one where an episode ends."""
        stop = start + len(out)
        self._read_array(commit, "observations", start + 1, out[: min(stop + 1, commit.rows) - start - 1])
        ends = np.append(self._array(commit, "episode_starts")[1:], commit.rows)
        first, last = np.searchsorted(ends, [start, stop], side="right")
        finals = self._allocate(int(last - first), ["next_observations"])["next_observations"]
        self._read_array(commit, "final_observations", int(first), finals)
        out[ends[first:last] - 1 - start] = finals

    def _episodes(self, commit: Commit) -> Episodes:
        names = [name for name, array in self._arrays.items() if not array.by_episode and name != "observations"]
        starts: Integers = np.append(self._array(commit, "episode_starts"), commit.rows).astype(np.int64)
        return Episodes(
            self._array(commit, "observations"),
            self._array(commit, "final_observations"),
            starts,
            {name: self._array(commit, name) for name in names},
        )

    def _array(self, commit: Commit, name: str) -> Array:
        array = self._arrays[name]
        entries = (commit.episodes or 0) if array.by_episode else commit.rows
        out = np.empty((entries, *array.shape), array.dtype)
        self._read_array(commit, name, 0, out)
        return out

    def _read_array(self, commit: Commit, name: str, start: int, out: Array) -> None:
        key = shard_key(self._arrays[name], commit.shard)
        try:
            read_rows(self._folder, key, self._forms[name], start, out)
        except DamageError as error:
            raise StoreError(
                f"shard {commit.shard} of the store '{self.url}' is damaged",
                found=f"'{key}': {error}",
                fix=verify.mend(self._folder, self._identity),
            ) from None
