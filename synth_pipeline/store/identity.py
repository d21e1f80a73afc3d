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

    def form(self, array: StoredArray) -> ShardForm:
        """How one array is cut."""
        plan = self.plan
        return ShardForm(
            array.shape, array.dtype, plan.rows_per_chunk, plan.chunks_per_shard, compressed=self.schema.compressed
        )

    def metadata(self) -> dict[str, bytes]:
        """Key -> Zarr metadata of the group (first, it marks the folder as a store) and of each array.

        The group also lists the arrays, so that Zarr opens them without searching the folder.
        """
        arrays = self._array_metadata()
        listed = {key.partition("/")[0]: json.loads(data) for key, data in arrays.items()}
        root = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {_MARK: self._body()},
            "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": listed},
        }
        root["attributes"] = {_MARK: {**self._body(), "check": content_hash(root)}}
        return {ROOT: json.dumps(root, indent=1, sort_keys=True).encode(), **arrays}

    def _array_metadata(self) -> dict[str, bytes]:
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
                compressors=[*([ZstdCodec(level=1)] if self.schema.compressed else []), Crc32cCodec()],
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
            "schema": json.loads(canonical(self.schema)),
            "plan": json.loads(canonical(self.plan)),
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
            "the configuration of a store must be plain values", found=str(error), fix="give JSON values"
        ) from None
    return plain


def load(folder: Folder) -> Identity | None:
    """The identity of the store in a folder; None when the folder is absent or empty.

    Raises:
        StoreError: When the folder is something else, of another version, or its metadata is damaged.
    """
    root = _root(folder)
    if root is None:
        return None
    stored = root["attributes"][_MARK]
    version = stored.get("format_version")
    if version != FORMAT_VERSION:
        raise StoreError(
            f"the store '{folder.url}' has another format version",
            found=version,
            accepted=FORMAT_VERSION,
            fix="use the synth-pipeline that wrote it, or generate into another folder",
        )
    check = stored.pop("check", None)
    if check != content_hash(root):
        raise StoreError(
            f"the metadata of the store '{folder.url}' is damaged",
            found=f"'{ROOT}' does not match its checksum",
            fix=f"restore '{ROOT}' from a copy, or generate into another folder",
        )
    schema, plan = Schema.parse(stored["schema"], where="schema"), Plan.parse(stored["plan"], where="plan")
    return Identity(schema, plan, stored["config"])


def altered_metadata(folder: Folder) -> list[str]:
    """Keys of the array metadata that is not as the group lists it, or is missing."""
    root = _root(folder) or {}
    listed = root["consolidated_metadata"]["metadata"]
    keys = [f"{name}/{ROOT}" for name in listed]
    found = zip(keys, folder.get_many(keys), listed.values(), strict=True)
    return [key for key, data, expected in found if _parsed(data) != expected]


def _root(folder: Folder) -> dict[str, Any] | None:
    data = folder.get(ROOT) if folder.exists() else None
    if data is None:
        keys = folder.list_keys() if folder.exists() else []
        foreign = [key for key in keys if key != LOCK and not key.endswith(PARTIAL)]
        if foreign:
            raise _foreign(folder, f"{len(foreign)} files, such as '{foreign[0]}'")
        return None
    root = _parsed(data)
    try:
        ours = isinstance(root["attributes"][_MARK], dict)
    except (KeyError, TypeError):
        ours = False
    if not ours:
        raise _foreign(folder, f"a '{ROOT}' that is not a store's")
    return dict(root)


def _parsed(data: bytes | None) -> Any:
    try:
        return json.loads(data or b"null")
    except ValueError:
        return None


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
