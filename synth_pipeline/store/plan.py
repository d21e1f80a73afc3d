"""The plan: which shards there are, how many rows each is asked for, and where its randomness lives."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from pydantic import Field as Setting
from pydantic import model_validator

from synth_pipeline import seeding
from synth_pipeline.config import Config
from synth_pipeline.errors import ConfigError
from synth_pipeline.seeding import Stage

CHUNK_ROWS = 16_384
MAX_SHARD_ROWS = 262_144
# 64 chunks are the buffer of shuffled reading, so this bounds it to 256 MiB however wide the rows are.
_CHUNK_BYTES = 4 << 20
_SHARD_BYTES = 256 << 20
_TASK_SECONDS = 60.0


@dataclass(frozen=True)
class ShardTask:
    """The work of making one shard; small, picklable, the same on every machine.

    Attributes:
        shard: Which shard, from 0.
        attempt: Which try of a generator that rejects rows, from 0.
        rows: Rows asked for; a shard may hold fewer, never more.
        seed: Seed of the plan.
    """

    shard: int
    attempt: int
    rows: int
    seed: int

    def rng(self, stage: Stage) -> np.random.Generator:
        """The random numbers of this shard and attempt in one stage."""
        return seeding.stream(self.seed, stage, self.shard, self.attempt)

    def integer_seed(self, stage: Stage) -> int:
        """A 63-bit seed at the same address, for libraries that take integers."""
        return seeding.integer_seed(self.seed, stage, self.shard, self.attempt)

    def retry(self) -> ShardTask:
        """The next attempt at the same shard."""
        return replace(self, attempt=self.attempt + 1)


class Plan(Config):
    """How a dataset is cut into shards; part of its identity, because each of these settings can change bytes."""

    num_rows: int = Setting(ge=1, description="rows asked for in total")
    rows_per_shard: int = Setting(
        CHUNK_ROWS, ge=1, le=MAX_SHARD_ROWS, description="capacity of a shard, a multiple of rows_per_chunk"
    )
    rows_per_chunk: int = Setting(CHUNK_ROWS, ge=1, le=CHUNK_ROWS, description="rows that are read and checked at once")
    seed: int = Setting(0, ge=0, description="seed of every shard")
    dtype: Literal["float32", "bfloat16", "float16"] = Setting("float32", description="precision of generation")
    threads: int = Setting(1, ge=1, le=1024, description="threads of one task")
    micro_batch: int = Setting(4_096, ge=1, description="rows that a generator samples at once")
    compile: bool = Setting(False, description="whether networks are compiled, which changes bytes")
    earlier: tuple[int, ...] = Setting((), description="num_rows of the plans that this one extends, rising")

    @model_validator(mode="after")
    def _check(self) -> Plan:
        if self.rows_per_shard % self.rows_per_chunk:
            raise ValueError(f"rows_per_shard must be a multiple of rows_per_chunk ({self.rows_per_chunk:,})")
        totals = (0, *self.earlier, self.num_rows)
        if any(low >= high for low, high in pairwise(totals)):
            raise ValueError(f"extensions must add rows: {totals[1:]}")
        return self

    @classmethod
    def choose(
        cls, num_rows: int, row_bytes: int, *, rows_per_second: float = 50_000.0, workers: int = 1, **settings: Any
    ) -> Plan:
        """A plan whose tasks take about a minute and keep every worker busy.

        Args:
            num_rows: Rows asked for.
            row_bytes: Bytes of one stored row (`Schema.row_bytes`).
            rows_per_second: Measured rate of one worker.
            workers: Processes that will work; each gets at least two tasks when there are enough rows.
            settings: Further settings of the plan, e.g. `seed`, `micro_batch`.

        Raises:
            ConfigError: When a setting is out of range.
        """
        chunk = CHUNK_ROWS
        while chunk > 1 and chunk * row_bytes > _CHUNK_BYTES:
            chunk //= 2
        unit = CHUNK_ROWS if CHUNK_ROWS * row_bytes <= _SHARD_BYTES else chunk
        largest = min(MAX_SHARD_ROWS, _SHARD_BYTES // max(row_bytes, 1))
        wanted = min(rows_per_second * _TASK_SECONDS, num_rows / (2 * max(workers, 1)))
        shard = max(min(math.ceil(wanted / unit), largest // unit), 1) * unit
        return cls.parse(
            {"num_rows": num_rows, "rows_per_shard": shard, "rows_per_chunk": chunk, **settings}, where="plan"
        )

    def extended(self, num_rows: int) -> Plan:
        """The plan for more rows: every shard of this plan stays as it is, new ones follow.

        Raises:
            ConfigError: When fewer rows are asked for than are planned already.
        """
        if num_rows == self.num_rows:
            return self
        if num_rows < self.num_rows:
            raise ConfigError(
                "a store cannot shrink",
                found=f"{num_rows:,} rows asked for",
                accepted=f"{self.num_rows:,} or more",
                fix="choose another folder for a smaller dataset",
            )
        return self.replace(num_rows=num_rows, earlier=(*self.earlier, self.num_rows))

    def extends(self, other: Plan) -> bool:
        """Whether this plan is `other` with rows added, so that its existing shards can stay."""
        totals = (*self.earlier, self.num_rows)
        return any(self.replace(num_rows=n, earlier=totals[:k]) == other for k, n in enumerate(totals[:-1]))

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return sum(math.ceil(rows / self.rows_per_shard) for rows in self._stretches())

    @property
    def chunks_per_shard(self) -> int:
        """Number of chunks in a full shard."""
        return self.rows_per_shard // self.rows_per_chunk

    def task(self, shard: int) -> ShardTask:
        """The first attempt at a shard.

        Raises:
            IndexError: When there is no such shard.
        """
        first = 0
        for rows in self._stretches():
            shards = math.ceil(rows / self.rows_per_shard)
            if first <= shard < first + shards:
                asked = min(self.rows_per_shard, rows - (shard - first) * self.rows_per_shard)
                return ShardTask(shard, 0, asked, self.seed)
            first += shards
        raise IndexError(f"shard {shard} of a plan with {first}")

    def _stretches(self) -> list[int]:
        totals = (0, *self.earlier, self.num_rows)
        return [high - low for low, high in pairwise(totals)]
