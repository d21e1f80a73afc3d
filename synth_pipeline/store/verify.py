"""Verification: every file of a store against what was committed."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from synth_pipeline.errors import StoreError
from synth_pipeline.run_config import CONFIG, lineage_of
from synth_pipeline.store.commits import Commit
from synth_pipeline.store.folder import Folder
from synth_pipeline.store.identity import Identity, altered_metadata, shard_key


def maker(folder: Folder, identity: Identity | None = None) -> str:
    """The command that makes the rows of a store, as far as the store and its place tell."""
    config = identity.config if identity is not None else {}
    if identity is not None and identity.schema.kind == "trajectories" and {"dataset", "rows"} <= config.keys():
        return shlex.join(["synthpipe", "collect", str(config["dataset"]), "--rows", str(config["rows"])])
    run = folder.local.parent if folder.local is not None and folder.local.name == "store" else None
    if run is None or not (run / CONFIG).is_file():
        return "synthpipe generate RUN"
    if (origin := lineage_of(run)) is not None:
        return shlex.join(["synthpipe", "relabel", _typed(Path(origin.parent)), "-o", _typed(run), *origin.options])
    return shlex.join(["synthpipe", "generate", _typed(run)])


def _typed(run: Path) -> str:
    here = Path.cwd()
    return str(run.relative_to(here) if run.is_relative_to(here) else run)


def mend(folder: Folder, identity: Identity) -> str:
    """What to type about damaged shards."""
    return f"{maker(folder, identity)} --repair   # makes them again, byte for byte (Python: Store.drop(shard))"


def damaged_shards(folder: Folder, identity: Identity, commits: Mapping[int, Commit]) -> dict[int, list[str]]:
    """Shard -> what is wrong with its files, for every committed shard that is not as it was written."""
    problems: dict[int, list[str]] = {}
    for commit in commits.values():
        for array in identity.schema.arrays:
            key = shard_key(array, commit.shard)
            problem = _problem(folder, key, commit.sizes[array.name], commit.checksums[array.name])
            if problem:
                problems.setdefault(commit.shard, []).append(f"'{key}' {problem}")
    return problems


def _problem(folder: Folder, key: str, size: int, checksum: str) -> str | None:
    try:
        data = folder.get(key)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if data is None:
        return "is missing"
    if len(data) != size:
        return f"has {len(data):,} bytes, not {size:,}"
    return None if hashlib.sha256(data).hexdigest() == checksum else "does not match its checksum"


def require_sound(
    folder: Folder,
    identity: Identity,
    commits: Mapping[int, Commit],
    damaged: Callable[[], Mapping[int, list[str]]],
) -> None:
    """Check every byte; `damaged` finds what `damaged_shards` finds, once it is known that all shards are there.

    Raises:
        StoreError: Naming the missing or damaged shards and files, and how to mend them.
    """
    require_complete(folder, identity, commits)
    problems = damaged()
    if problems:
        shards = list(problems)
        raise StoreError(
            f"{_named(shards)} of the store '{folder.url}' {'is' if len(shards) == 1 else 'are'} damaged",
            found="; ".join(line for lines in problems.values() for line in lines[:3]),
            fix=mend(folder, identity),
        )
    _require_metadata(folder, identity)


def require_complete(folder: Folder, identity: Identity, commits: Mapping[int, Commit]) -> None:
    """Check that every planned shard is committed.

    Raises:
        StoreError: Naming the missing shards.
    """
    missing = [shard for shard in range(identity.plan.num_shards) if shard not in commits]
    if missing:
        raise StoreError(
            f"the store '{folder.url}' is not complete",
            found=f"{len(missing)} of {identity.plan.num_shards} shards are not committed: {_named(missing)}",
            fix=f"{maker(folder, identity)}   # makes only what is missing",
        )


def _require_metadata(folder: Folder, identity: Identity) -> None:
    altered = altered_metadata(folder)
    if altered:
        raise StoreError(
            f"the metadata of an array of the store '{folder.url}' is missing or altered",
            found=", ".join(altered),
            fix=f"{maker(folder, identity)}   # writes it anew, and no row is lost",
        )


def _named(shards: list[int]) -> str:
    shown = ", ".join(str(shard) for shard in shards[:10]) + (", ..." if len(shards) > 10 else "")
    return f"shard {shown}" if len(shards) == 1 else f"shards {shown}"
