"""Commit objects: a shard exists when, and only when, its commit does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from synth_pipeline.config import content_hash
from synth_pipeline.errors import StoreError
from synth_pipeline.store.folder import PARTIAL, Folder

MANIFEST = "manifest.json"
SIDECAR = "sidecar.json"


@dataclass(frozen=True)
class Commit:
    """One shard that was written whole.

    Attributes:
        shard: Which shard.
        rows: Rows it holds.
        episodes: Episodes it holds; None for independent rows.
        attempt: The attempt that gave the rows.
        sizes: Array name -> bytes of the shard's file.
        checksums: Array name -> SHA-256 (hex) of the shard's file.
    """

    shard: int
    rows: int
    episodes: int | None
    attempt: int
    sizes: Mapping[str, int]
    checksums: Mapping[str, str]


def write(folder: Folder, commit: Commit, sidecar: Mapping[str, Any]) -> None:
    """Write a commit, and before it what is worth knowing but not part of the data (seconds, host)."""
    folder.write(_key("sidecar", commit.shard), [json.dumps(dict(sidecar), sort_keys=True).encode()])
    folder.put(_key("manifest", commit.shard), _sealed({"commits": [asdict(commit)]}))


def read(folder: Folder) -> dict[int, Commit]:
    """Shard -> commit, of every committed shard in rising order.

    Raises:
        StoreError: When a commit is damaged.
    """
    keys = [key for key in folder.list_keys("manifest") if key.endswith(".json")]
    found = dict(zip([MANIFEST, *keys], folder.get_many([MANIFEST, *keys]), strict=True))
    commits = [Commit(**values) for key, data in found.items() if data for values in _opened(folder, key, data)]
    return {commit.shard: commit for commit in sorted(commits, key=lambda commit: commit.shard)}


def find(folder: Folder, shard: int) -> Commit | None:
    """The commit of one shard, or None when it is not committed."""
    keys = [_key("manifest", shard), MANIFEST]
    for key, data in zip(keys, folder.get_many(keys), strict=True):
        for values in _opened(folder, key, data) if data else []:
            if values["shard"] == shard:
                return Commit(**values)
    return None


def compact(folder: Folder) -> None:
    """Gather single commits and sidecars into one file each; a crash at any point loses none."""
    commits = read(folder)
    _replace(folder, MANIFEST, _sealed({"commits": [asdict(commit) for commit in commits.values()]}))
    notes = sidecars(folder)
    _replace(folder, SIDECAR, json.dumps({str(k): note for k, note in notes.items()}, sort_keys=True).encode())
    for key in [*folder.list_keys("manifest"), *folder.list_keys("sidecar")]:
        if not key.endswith(PARTIAL):
            folder.delete(key)


def drop(folder: Folder, shards: Iterable[int]) -> None:
    """Forget shards, so that the next run makes them again."""
    gone = set(shards)
    for shard in gone:
        folder.delete(_key("manifest", shard))
    data = folder.get(MANIFEST)
    if data is not None:
        kept = [values for values in _opened(folder, MANIFEST, data) if values["shard"] not in gone]
        _replace(folder, MANIFEST, _sealed({"commits": kept}))


def sidecars(folder: Folder) -> dict[int, dict[str, Any]]:
    """Shard -> seconds, host and whatever else its writer noted; never part of the digest."""
    notes = {int(shard): note for shard, note in _note(folder.get(SIDECAR)).items() if shard.isdigit()}
    keys = [key for key in folder.list_keys("sidecar") if key.endswith(".json")]
    for key, single in zip(keys, folder.get_many(keys), strict=True):
        notes[int(key.removeprefix("sidecar/").removesuffix(".json"))] = _note(single)
    return dict(sorted(notes.items()))


def _key(kind: str, shard: int) -> str:
    return f"{kind}/{shard}.json"


def _note(data: bytes | None) -> dict[str, Any]:
    try:
        return dict(json.loads(data or b"{}"))
    except ValueError:
        return {"unreadable": True}


def _replace(folder: Folder, key: str, data: bytes) -> None:
    if folder.get(key) != data:
        folder.put(key, data)


def _sealed(body: dict[str, Any]) -> bytes:
    return json.dumps({**body, "check": content_hash(body)}, sort_keys=True).encode()


def _opened(folder: Folder, key: str, data: bytes) -> list[dict[str, Any]]:
    try:
        document = json.loads(data)
        commits: list[dict[str, Any]] = document["commits"]
        if document["check"] != content_hash({"commits": commits}):
            raise ValueError("the checksum does not match")
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"a commit of the store '{folder.url}' is damaged",
            found=f"'{key}': {error}",
            fix=f"delete '{key}' and run `synthpipe generate RUN` again; it makes the shards that are not committed",
        ) from None
    return commits
