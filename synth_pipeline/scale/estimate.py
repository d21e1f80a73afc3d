"""How long generating takes: from the shards that are there, else from one micro-batch that is thrown away."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from synth_pipeline import store
from synth_pipeline.errors import ConfigError
from synth_pipeline.scale.generation import Generation
from synth_pipeline.scale.tasks import at_once
from synth_pipeline.store import Commit, Plan, Store
from synth_pipeline.tracking import human

HOUR_S = 3600.0
START_S = 2.5  # until worker processes are there and have imported what they need
STORE_BYTES_S = 100e6  # hashed, written and synced by one worker; a slow disk


@dataclass(frozen=True)
class Estimate:
    """What is still to be made, and how long that takes.

    Attributes:
        rows: Rows that are missing.
        rate: Rows per second of one worker, writing included.
        seconds: In all, the start of the workers included.
    """

    rows: int
    rate: float
    seconds: float


def missing_rows(plan: Plan, url: str) -> int:
    """How many rows of a plan are still to be made; 0 when every shard of it is there."""
    present = store.open(url).commits if store.exists(url) else {}
    return plan.num_rows - sum(plan.task(shard).rows for shard in present)


def estimate(planned: Generation, url: str, *, workers: int | str) -> Estimate:
    """How long the missing rows of a store take.

    Args:
        planned: What is to be made.
        url: Where the store is or will be.
        workers: Processes, of which more than there are cores make nothing faster; or a Dask scheduler.
    """
    tasks = _missing(planned.plan, url)
    rate = (_noted_rate(store.open(url)) if store.exists(url) else None) or 1 / (
        1 / max(planned.rate(), 1e-9) + planned.schema.row_bytes / STORE_BYTES_S
    )
    ends = [0.0] * at_once(workers)  # of each worker; a shard goes to the first that is free
    for rows in tasks:
        heapq.heapreplace(ends, ends[0] + rows / rate)
    return Estimate(sum(tasks), rate, START_S + max(ends) if tasks else 0.0)


def _missing(plan: Plan, url: str) -> list[int]:
    present = store.open(url).commits if store.exists(url) else {}
    return [plan.task(shard).rows for shard in range(plan.num_shards) if shard not in present]


def _noted_rate(target: Store) -> float | None:
    """Rows per second of one worker by what the writers of the present shards noted; None when they noted nothing."""
    notes, rows, seconds = target.sidecars(), 0, 0.0
    for shard, commit in target.commits.items():
        took = notes.get(shard, {}).get("seconds")
        if isinstance(took, int | float):
            rows, seconds = rows + commit.rows, seconds + took + _writing(notes[shard].get("write_seconds"), commit)
    return rows / seconds if seconds > 0 else None


def _writing(noted: object, commit: Commit) -> float:
    return noted if isinstance(noted, int | float) else sum(commit.sizes.values()) / STORE_BYTES_S


def confirm_hours(expected: Estimate) -> None:
    """Ask before a long wait.

    Raises:
        ConfigError: When it takes more than an hour.
    """
    if expected.seconds > HOUR_S:
        raise ConfigError(
            f"this takes about {expected.seconds / HOUR_S:,.1f} hours",
            found=f"{expected.rows:,} rows at {human(expected.rate)} rows/s a worker",
            accepted="less than an hour without asking",
            fix="add --yes, more --workers, or ask for fewer rows",
        )
