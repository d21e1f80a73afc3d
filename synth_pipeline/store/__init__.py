"""The Zarr store: plan, whole shards, commit objects, verified reading. Torch-free.

zarr.json                 the Zarr group; its attributes hold schema, plan and configuration
observations/zarr.json    one Zarr array a column (trajectories: and two by episode)
observations/c.3.0        one file a shard: whole, checksummed, never changed
manifest/3.json           the commit of shard 3, written last: without it the shard does not exist
manifest.json             all commits, once the store is finalised
sidecar.json              who wrote what, when and how fast: outside the digest
lock                      only while somebody writes
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synth_pipeline.errors import StoreError
from synth_pipeline.store import identity as _identity
from synth_pipeline.store.commits import Commit
from synth_pipeline.store.folder import open_folder
from synth_pipeline.store.plan import Plan, ShardTask
from synth_pipeline.store.reader import Store
from synth_pipeline.store.schema import Schema, provenance
from synth_pipeline.store.writer import Writing, prepare, write_shard

__all__ = [
    "Commit",
    "Plan",
    "Schema",
    "ShardTask",
    "Store",
    "Writing",
    "create",
    "exists",
    "open",
    "provenance",
    "write_shard",
]


def create(
    url: str | Path,
    schema: Schema,
    plan: Plan,
    config: Mapping[str, Any],
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Store:
    """A new store, or the one that is there when it is the same one (or is to get more rows).

    Args:
        url: A local folder or `s3://bucket/prefix`.
        schema: Which columns.
        plan: How many rows, how they are cut, the seed. `plan.extended(n)` adds rows to an existing store.
        config: Everything else that the bytes follow from, as plain values.
        storage_options: For s3fs; `AWS_*` in the environment works as well.

    Raises:
        StoreError: When the place holds another store, one of another version, or something else.
        StoreBusyError: When rows are to be added while another process writes.
        ConfigError: When the address or the configuration cannot be used.
        MissingExtraError: When s3fs is not installed.
    """
    folder = open_folder(url, storage_options)
    return Store(folder, prepare(folder, schema, plan, config))


def open(url: str | Path, *, storage_options: Mapping[str, Any] | None = None) -> Store:
    """The store at an address.

    Raises:
        StoreError: When there is none, or it is of another version, or its metadata is damaged.
    """
    folder = open_folder(url, storage_options)
    identity = _identity.load(folder)
    if identity is None:
        raise StoreError(
            f"there is no store at '{folder.url}'",
            accepted="a folder that `synthpipe generate` wrote",
            fix="check the path, or run `synthpipe generate RUN -n ROWS` first",
        )
    return Store(folder, identity)


def exists(url: str | Path, *, storage_options: Mapping[str, Any] | None = None) -> bool:
    """Whether there is a store at an address; something else there is an error, as in `open`."""
    return _identity.load(open_folder(url, storage_options)) is not None
