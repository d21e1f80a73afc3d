"""Generating at scale: which shards a run has, and the task that makes one of them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from synth_pipeline import store
from synth_pipeline.data.containers import Transitions, concatenate
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.errors import TaskError
from synth_pipeline.generators import base as generators
from synth_pipeline.run_config import GenerateSettings
from synth_pipeline.runs import file_hash
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.store import Commit, Plan, Schema, ShardTask


@dataclass(frozen=True)
class Generation:
    """What a store of generated rows is made from.

    Attributes:
        schema: Its columns.
        plan: Its shards.
        identity: What else the bytes follow from: generator, settings, hash of the weights.
        rate: Measured rows per second of one process.
    """

    schema: Schema
    plan: Plan
    identity: dict[str, Any]
    rate: float


def plan_generation(model: Path, url: str, settings: GenerateSettings, *, seed: int, workers: int) -> Generation:
    """Plan a store: the existing one with the rows asked for, or a new one.

    Args:
        model: Folder of the fitted generator.
        url: Where the store is or will be.
        settings: Size and cut.
        seed: Seed of the run.
        workers: Processes that will work.

    Raises:
        CheckpointError: When nothing was trained.
        StoreError: When the place holds something else.
    """
    generator, extra = generators.load(model)
    schema = generated_schema(DatasetSpec.parse(extra["spec"], where="saved spec"), generator)
    rate = measured_rate(generator, min(settings.micro_batch, settings.rows))
    identity = {
        "generator": {"kind": generator.kind, **generator.config.plain()},
        "model": file_hash(model / "arrays.safetensors"),
        "max_attempts": settings.max_attempts,
    }
    fixed: dict[str, Any] = {"seed": seed, "micro_batch": settings.micro_batch}
    if settings.rows_per_shard is not None:
        fixed["rows_per_shard"] = settings.rows_per_shard
    if store.exists(url):
        plan = store.open(url).plan.replace(**fixed)  # what differs is refused, by name, when the store is created
        plan = plan if settings.rows <= plan.num_rows else plan.extended(settings.rows)
    elif settings.rows_per_shard is not None:
        plan = Plan(num_rows=settings.rows, **fixed)
    else:
        plan = Plan.choose(settings.rows, schema.row_bytes, rows_per_second=rate, workers=workers, **fixed)
    return Generation(schema, plan, identity, rate)


def generated_schema(spec: DatasetSpec, generator: generators.Generator) -> Schema:
    """Columns of a store of generated transitions: all fields that are modelled, and the method's provenance."""
    fields = generators.modelled_fields(spec)
    return Schema(
        kind="transitions",
        spec=spec.replace(fields=[field.model_dump() for field in fields]),
        provenance=generator.provenance,
        derived=generators.derived_fields(spec),
    )


def measured_rate(generator: generators.Generator, micro_batch: int) -> float:
    """Rows per second of one process, from one micro-batch that is thrown away."""
    begin = time.perf_counter()
    generator.sample(micro_batch, stream(0, Stage.GENERATE, 0, 0))
    return micro_batch / max(time.perf_counter() - begin, 1e-6)


@dataclass(frozen=True)
class GenerateShard:
    """Makes one shard of synthetic transitions: attempts until it is full or the limit is reached.

    Attributes:
        model: Folder of the fitted generator.
        url: The store.
        micro_batch: Rows per sampling call.
        max_attempts: Limit for generators that reject rows.
    """

    model: str
    url: str
    micro_batch: int
    max_attempts: int

    def __call__(self, task: ShardTask) -> Commit:
        """Sample, write, commit.

        Raises:
            TaskError: When every row of every attempt was rejected.
        """
        begin = time.perf_counter()
        parts: list[Transitions] = []
        count = 0
        for attempt in range(self.max_attempts):
            current = replace(task, attempt=attempt)
            parts.append(self._sample(current, task.rows - count))
            count += len(parts[-1])
            if count >= task.rows:
                break
        if not count:
            raise TaskError(
                f"shard {task.shard} stayed empty: the generator rejected every row of {self.max_attempts} attempts",
                fix="loosen its qualification, or --set generate.max_attempts=...",
            )
        seconds = time.perf_counter() - begin
        return store.write_shard(self.url, current, concatenate(parts), sidecar={"seconds": round(seconds, 3)})

    def _sample(self, task: ShardTask, rows: int) -> Transitions:
        generator, rng = _loaded(self.model), task.rng(Stage.GENERATE)
        sizes = [min(self.micro_batch, rows - start) for start in range(0, rows, self.micro_batch)]
        return concatenate([generator.sample(size, rng) for size in sizes])


@lru_cache(maxsize=2)
def _loaded(model: str) -> generators.Generator:
    return generators.load(Path(model))[0]
