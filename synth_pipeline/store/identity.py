"""What makes a store this store: schema, plan and configuration, in the attributes of its Zarr group."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import zarr
from zarr.abc.buffer import Buffer
from zarr.codecs import Crc32cCodec, ZstdCodec

from synth_pipeline.config import canonical, content_hash
from synth_pipeline.errors import ConfigError, StoreError
from synth_pipeline.store.folder import PARTIAL, Folder
from synth_pipeline.store.lock import LOCK
from synth_pipeline.store.plan import Plan
from synth_pipeline.store.schema import FORMAT_VERSION, Schema, StoredArray
from synth_pipeline.store.shards import ShardForm

ROOT = "zarr.json"
_MARK = "synth_pipeline"


@dataclass(frozen=True)
class Identity:
    """Schema, plan and configuration: with the seed in the plan, all that the bytes of a store follow from."""

    schema: Schema
    plan: Plan
    config: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """The metadata of the Zarr group."""
        body = self._body()
        attributes = {_MARK: {**body, "identity": content_hash(body)}}
        document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        return json.dumps(document, indent=1, sort_keys=True).encode()

    def form(self, array: StoredArray) -> ShardForm:
        """How one array is cut."""
        plan = self.plan
        return ShardForm(
            array.shape, array.dtype, plan.rows_per_chunk, plan.chunks_per_shard, compressed=self.schema.compressed
        )

    def array_metadata(self) -> dict[str, bytes]:
        """Key -> the Zarr metadata of each array, as Zarr itself writes it."""
        memory: dict[str, Buffer] = {}
        shards = self.plan.num_shards
        rows = (shards - 1) * self.plan.rows_per_shard + self.plan.task(shards - 1).rows
        for array in self.schema.arrays:
            zarr.create_array(
                memory,
                name=array.name,
                shape=(rows, *array.shape),
                dtype=array.dtype,
                chunks=(self.plan.rows_per_chunk, *array.shape),
                shards=(self.plan.rows_per_shard, *array.shape),
                filters=None,
                compressors=[ZstdCodec(level=1, checksum=True) if self.schema.compressed else Crc32cCodec()],
                fill_value=self.form(array).fill,
                chunk_key_encoding={"name": "default", "separator": "."},
            )
        return {key: memory[key].to_bytes() for key in sorted(memory) if key.count("/") == 1}

    def differences(self, other: Identity) -> list[str]:
        """`key: ours -> theirs`, for every setting that differs."""
        ours, theirs = _flat(self._body()), _flat(other._body())
        keys = sorted(ours.keys() | theirs.keys())
        return [f"{key}: {ours.get(key)} -> {theirs.get(key)}" for key in keys if ours.get(key) != theirs.get(key)]

    def _body(self) -> dict[str, Any]:
        return {
            "format_version": self.schema.format_version,
            "schema": self.schema.plain(),
            "plan": self.plan.plain(),
            "config": json.loads(canonical(dict(self.config))),
        }


def shard_key(array: StoredArray, shard: int) -> str:
    """The key of one shard of one array (Zarr's default encoding with dots)."""
    return ".".join([f"{array.name}/c", str(shard), *("0" for _ in array.shape)])


def checked_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as plain JSON values.

    Raises:
        ConfigError: When a value is not plain.
    """
    try:
        plain: dict[str, Any] = json.loads(canonical(dict(config)))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "the configuration of a store must be plain values", found=str(error), fix="use `config.plain()`"
        ) from None
    return plain


def load(folder: Folder) -> Identity | None:
    """The identity of the store in a folder; None when the folder is absent or empty.

    Raises:
        StoreError: When the folder is something else, of another version, or its metadata is damaged.
    """
    data = folder.get(ROOT) if folder.exists() else None
    if data is None:
        foreign = (
            [key for key in folder.list_keys() if key != LOCK and not key.endswith(PARTIAL)] if folder.exists() else []
        )
        if foreign:
            raise _foreign(folder, f"{len(foreign)} files, such as '{foreign[0]}'")
        return None
    try:
        document = json.loads(data)
        stored = document["attributes"][_MARK]
    except (ValueError, KeyError, TypeError):
        raise _foreign(folder, f"a '{ROOT}' that is not a store's") from None
    return _parsed(folder, stored)


def _parsed(folder: Folder, stored: dict[str, Any]) -> Identity:
    version = stored.get("format_version")
    if version != FORMAT_VERSION:
        raise StoreError(
            f"the store '{folder.url}' has another format version",
            found=version,
            accepted=FORMAT_VERSION,
            fix="use the synth-pipeline that wrote it, or generate into another folder",
        )
    body = {key: value for key, value in stored.items() if key != "identity"}
    if stored.get("identity") != content_hash(body):
        raise StoreError(
            f"the metadata of the store '{folder.url}' is damaged",
            found=f"'{ROOT}' does not match its checksum",
            fix=f"restore '{ROOT}' from a copy, or generate into another folder",
        )
    return Identity(
        Schema.parse(body["schema"], where="schema"), Plan.parse(body["plan"], where="plan"), body["config"]
    )


def _foreign(folder: Folder, found: str) -> StoreError:
    return StoreError(
        f"'{folder.url}' is not a store of synth-pipeline",
        found=found,
        accepted="a store, or an empty or new folder",
        fix="choose another folder",
    )


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, dict):
        items: Any = values.items()
    elif isinstance(values, list):
        items = ((str(index), value) for index, value in enumerate(values))
    else:
        return {prefix: values}
    return {key: value for name, part in items for key, value in _flat(part, f"{prefix}.{name}".strip(".")).items()}
