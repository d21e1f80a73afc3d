"""Relabelling at scale, a map over shards: the rows of one store, rewritten, fill another store of the same plan."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from synth_pipeline import store
from synth_pipeline.errors import ConfigError, StoreError
from synth_pipeline.run_config import LABELS
from synth_pipeline.scale.labels import Labels
from synth_pipeline.store import Commit, Schema, ShardTask, Store


def relabelled_schema(source: Store, labels: Labels) -> Schema:
    """The columns of the source; what is rewritten counts as derived."""
    return source.schema.replace(derived=tuple(sorted({*source.schema.derived, *labels.columns})))


def relabelled_config(source: Store, labels: Labels) -> dict[str, Any]:
    """All that the rows follow from: what made the source, its digest, and what is done to it, after what was before.

    Raises:
        StoreError: When shards of the source are missing.
    """
    steps = [*source.config.get(LABELS, ()), {"parent": source.digest(), **labels.plain()}]
    return {**source.config, LABELS: steps}


@dataclass(frozen=True)
class RelabelShard:
    """Rewrites one shard of a store into another store.

    Attributes:
        source: The store that is read.
        digest: Its digest.
        url: The store that is written.
        labels: What is rewritten, and how.
        drop: Leave out rows that cannot be labelled, instead of failing.
    """

    source: str
    digest: str
    url: str
    labels: Labels
    drop: bool = False

    def __call__(self, task: ShardTask) -> Commit:
        """Read, rewrite, write, commit.

        Raises:
            ConfigError: When rows cannot be labelled, and are not to be dropped, or none is left.
            StoreError: When the source is damaged, or has changed.
        """
        begin = time.perf_counter()
        source, seconds = _opened(self.source, self.digest)
        rows = source.read_shard(task.shard)
        labelled = self.labels(rows)
        unknown = len(rows) - len(labelled)
        if unknown and (not self.drop or not len(labelled)):
            raise ConfigError(
                "some rows cannot be labelled: their state does not follow from the observation",
                found=f"{unknown:,} of the {len(rows):,} rows of shard {task.shard}",
                accepted="rows off the observation clip (s, and the s' of the simulator), with a step that is finite",
                fix="add --drop-unknown, and rows at the clip are missing then" if len(labelled) else None,
            )
        current = replace(task, attempt=source.commits[task.shard].attempt)
        spent = round(seconds.get(task.shard, 0.0) + time.perf_counter() - begin, 3)
        return store.write_shard(self.url, current, labelled, sidecar={"seconds": spent})


@lru_cache(maxsize=2)
def _opened(source: str, digest: str) -> tuple[Store, dict[int, float]]:
    """A store, and the seconds that each of its shards has cost.

    Raises:
        StoreError: When it is not the one with that digest any more.
    """
    opened = store.open(source)
    if (found := opened.digest()) != digest:
        raise StoreError(
            f"the store '{source}' has changed while its rows were relabelled",
            found=f"digest {found[:12]}",
            accepted=f"digest {digest[:12]}",
            fix="run this again, into another folder",
        )
    return opened, {shard: note.get("seconds", 0.0) for shard, note in opened.sidecars().items()}
