"""Writing: the store's folder, the lock, whole shards, and last of all a commit each."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.fields import Array
from synth_pipeline.errors import ConfigError, StoreError
from synth_pipeline.runs import require_space
from synth_pipeline.store import commits
from synth_pipeline.store import identity as identities
from synth_pipeline.store.commits import Commit
from synth_pipeline.store.folder import PARTIAL, Folder, Part, open_folder
from synth_pipeline.store.identity import Identity, shard_key
from synth_pipeline.store.lock import Lock, hold
from synth_pipeline.store.plan import Plan, ShardTask
from synth_pipeline.store.schema import FORMAT_VERSION, Schema, StoredArray
from synth_pipeline.store.shards import encode
from synth_pipeline.store.verify import maker

_HASHING_THREADS = 2  # besides those that wait for the disk


def prepare(folder: Folder, schema: Schema, plan: Plan, config: Mapping[str, Any]) -> Identity:
    """Make the store, or check that the one that is there is the same one, perhaps with fewer rows.

    Raises:
        StoreError: When the folder holds another store, or something else.
        StoreBusyError: When rows are to be added while another process writes.
    """
    if schema.format_version != FORMAT_VERSION:
        raise ConfigError("this format version cannot be written", found=schema.format_version, accepted=FORMAT_VERSION)
    wanted = Identity(schema, plan, identities.checked_config(config))
    present = identities.load(folder)
    if present is not None:
        _require_same(folder, present, wanted)
    if present != wanted or identities.altered_metadata(folder):
        with hold(folder):
            latest = identities.load(folder)
            if latest is not None:
                _require_same(folder, latest, wanted)
            # The group comes first: with it the folder is a store, and a crash after it is resumed, not refused.
            for key, data in wanted.metadata().items():
                folder.put(key, data)
    return wanted


def _require_same(folder: Folder, present: Identity, wanted: Identity) -> None:
    extended = wanted.plan == present.plan or wanted.plan.extends(present.plan)
    if extended and wanted.schema == present.schema and wanted.config == present.config:
        return
    differences = present.differences(wanted)
    shown = "; ".join(differences[:6]) + (f"; and {len(differences) - 6} more" if len(differences) > 6 else "")
    raise StoreError(
        f"the store '{folder.url}' was made with other settings",
        found=shown,
        accepted=f"the same schema, plan and configuration, or more rows than {present.plan.num_rows:,}",
        fix="go back to the old settings to continue it, or generate into another folder",
    )


class Writing:
    """A store while its lock is held. Use `Store.writing()`."""

    def __init__(self, folder: Folder, identity: Identity, lock: Lock) -> None:
        self._folder, self._identity, self._lock = folder, identity, lock

    def missing(self) -> list[ShardTask]:
        """The tasks whose shards are not committed, in order.

        Raises:
            StoreBusyError: When the lock was lost.
        """
        self._lock.check()
        present = commits.read(self._folder)
        plan = self._identity.plan
        return [plan.task(shard) for shard in range(plan.num_shards) if shard not in present]

    def finalise(self) -> None:
        """Gather the commits into one manifest and clear what crashes left behind.

        Raises:
            StoreError: When shards are missing.
            StoreBusyError: When the lock was lost.
        """
        missing = self.missing()
        if missing:
            raise StoreError(
                f"the store '{self._folder.url}' is not complete",
                found=f"{len(missing)} of {self._identity.plan.num_shards} shards are missing",
                fix=f"{maker(self._folder, self._identity)}   # makes the missing ones",
            )
        commits.compact(self._folder)
        arrays = self._identity.schema.arrays
        shards = range(self._identity.plan.num_shards)
        ours = {shard_key(array, shard) for array in arrays for shard in shards}
        ours |= {f"{array.name}/{identities.ROOT}" for array in arrays}
        names = {array.name for array in arrays}
        for key in self._folder.list_keys():
            if key.endswith(PARTIAL) or (key.partition("/")[0] in names and key not in ours):
                self._folder.delete(key)

    def drop(self, *shards: int) -> None:
        """Forget shards, so that `missing` names them again."""
        self._lock.check()
        commits.drop(self._folder, shards)


@contextmanager
def writing(folder: Folder, identity: Identity) -> Iterator[Writing]:
    """Hold the lock of a store; leftovers of crashed writers are cleared and the disk is checked first.

    Raises:
        StoreBusyError: When another process writes.
        ResourceError: When the disk cannot hold the missing rows.
    """
    with hold(folder) as lock:
        session = Writing(folder, identity, lock)
        for key in folder.list_keys():
            if key.endswith(PARTIAL):
                folder.delete(key)
        if folder.local is not None:  # by what compressed rows take uncompressed: how well they pack is not known yet
            rows = sum(task.rows for task in session.missing())
            require_space(folder.local, rows * identity.schema.row_bytes)
        yield session


def write_shard(
    url: str | Path,
    task: ShardTask,
    rows: Transitions | Episodes,
    *,
    sidecar: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Commit:
    """Write one shard whole and commit it; for worker processes, under the lock that their coordinator holds.

    A shard that is committed already is left alone. Two workers that write the same shard do no harm, since
    the same task gives the same bytes.

    Args:
        url: Where the store is.
        task: Which shard, and the attempt that gave the rows.
        rows: `Transitions` or `Episodes` with exactly the columns of the schema; at most `task.rows` rows.
        sidecar: Plain values to note beside the shard and outside the digest, e.g. `{"seconds": 41.0}`.
        storage_options: For s3fs.

    Returns:
        The commit, also when it was there before.

    Raises:
        StoreError: When there is no store, or the task or the rows do not fit it.
        ResourceError: When the disk is full; nothing is lost, and the same command goes on.
    """
    folder = open_folder(url, storage_options)
    identity = identities.load(folder)
    if identity is None:
        raise StoreError(f"there is no store at '{folder.url}'", fix="call store.create first")
    _require_planned(identity.plan, task)
    present = commits.find(folder, task.shard)
    if present is not None:
        return present
    entries = _entries(identity.schema, rows)
    count, episodes = (rows.num_rows, len(rows)) if isinstance(rows, Episodes) else (len(rows), None)
    if count > task.rows:
        raise _misfit(f"shard {task.shard} holds too many rows", count, f"at most {task.rows}")
    begin = time.perf_counter()
    sizes, checksums = _write_arrays(folder, identity, task.shard, entries)
    seconds = round(time.perf_counter() - begin, 3)
    commit = Commit(task.shard, count, episodes, task.attempt, sizes, checksums)
    note = {"host": socket.gethostname(), "pid": os.getpid(), "write_seconds": seconds, **(sidecar or {})}
    commits.write(folder, commit, note)
    return commit


def _require_planned(plan: Plan, task: ShardTask) -> None:
    """A task of another plan comes from a worker that outlived its store, or from a mistaken address."""
    planned = plan.task(task.shard) if 0 <= task.shard < plan.num_shards else None
    if planned is None or (planned.rows, planned.seed) != (task.rows, task.seed):
        raise StoreError(
            "the task is not of this store's plan",
            found=task,
            accepted=planned or f"shards 0 to {plan.num_shards - 1}",
            fix="take tasks from `session.missing()` of the same store",
        )


def _write_arrays(
    folder: Folder, identity: Identity, shard: int, entries: Mapping[str, Array]
) -> tuple[dict[str, int], dict[str, str]]:
    """The disk takes in one array while the next is written; all are hashed while it takes in the last."""
    arrays = identity.schema.arrays
    parts: dict[str, list[Part]] = {}
    synced: list[Future[None]] = []
    with ThreadPoolExecutor(len(arrays) + _HASHING_THREADS) as pool:
        for array in arrays:
            key, parts[array.name] = shard_key(array, shard), encode(entries[array.name], identity.form(array))
            folder.write(key, parts[array.name])
            synced.append(pool.submit(folder.sync, key))
        checksums = dict(zip(parts, pool.map(_sha256, parts.values()), strict=True))
        for sync in synced:
            sync.result()
    return {name: sum(map(len, written)) for name, written in parts.items()}, checksums


def _sha256(parts: Sequence[Part]) -> str:
    checksum = hashlib.sha256()
    for part in parts:
        checksum.update(part)
    return checksum.hexdigest()


def _entries(schema: Schema, rows: Transitions | Episodes) -> dict[str, Array]:
    """Array name -> its entries, checked against the schema."""
    if isinstance(rows, Episodes) != (schema.kind == "trajectories"):
        accepted = "Episodes" if schema.kind == "trajectories" else "Transitions"
        raise _misfit(f"a store of {schema.kind} holds something else", type(rows).__name__, accepted)
    given = dict(rows.columns)
    if isinstance(rows, Episodes):
        given |= {
            "observations": rows.observations,
            "final_observations": rows.final_observations,
            "episode_starts": rows.starts[:-1],
        }
    wanted = {array.name: array for array in schema.arrays}
    if given.keys() != wanted.keys():
        raise _misfit("the columns are not those of the store", ", ".join(sorted(given)), ", ".join(sorted(wanted)))
    for name, array in wanted.items():
        _require_form(array, np.asarray(given[name]))
    return {name: np.asarray(given[name]) for name in wanted}


def _require_form(array: StoredArray, values: Array) -> None:
    if values.dtype != array.dtype or values.shape[1:] != array.shape:
        raise _misfit(
            f"column '{array.name}' has another form than the store's",
            f"{values.dtype} {values.shape[1:]}",
            f"{array.dtype} {array.shape}",
        )


def _misfit(what: str, found: object, accepted: object) -> StoreError:
    return StoreError(what, found=found, accepted=accepted, fix="make the rows fit the schema before writing them")
