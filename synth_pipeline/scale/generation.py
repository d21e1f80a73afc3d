"""Generating at scale: which shards a run has, and the task that makes one of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from synth_pipeline import store
from synth_pipeline.config import content_hash
from synth_pipeline.data.containers import Transitions, concatenate
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.errors import StoreError, TaskError
from synth_pipeline.generators import base as generators
from synth_pipeline.generators.relevance import NOWHERE, Aim
from synth_pipeline.run_config import LABELS, GenerateSettings, RunConfig, store_url
from synth_pipeline.runs import Run, file_hash, write_bytes
from synth_pipeline.scale.fitted import require_model, trained_model
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.store import Commit, Plan, Schema, ShardTask, Store
from synth_pipeline.validation.rules import Rules

TYPICAL_WORKERS = 8


@dataclass(frozen=True)
class Generation:
    """What a store of generated rows is made from.

    Attributes:
        schema: Its columns.
        plan: Its shards.
        identity: What else the bytes follow from: generator, settings, hash of the weights.
        rate: Measures rows per second that one process samples.
    """

    schema: Schema
    plan: Plan
    identity: dict[str, Any]
    rate: Callable[[], float]
    note: str = ""


def plan_run(run: Run, config: RunConfig) -> Generation:
    """What `generate` would make; nothing is written.

    Raises:
        CheckpointError: When nothing was trained.
        ConfigError: When the generator was fitted with other settings.
    """
    model = trained_model(run, config)
    require_model(model, config)
    return plan_generation(model, store_url(run, config), config.generate, seed=config.seed, rules=rules_of(config))


def rules_of(config: RunConfig) -> Rules | None:
    """The user's rules; None: there are none.

    Raises:
        ConfigError: On an unknown key, or a value out of range.
    """
    return Rules.parse(config.rules, where="rules") if config.rules else None


def plan_generation(
    model: Path, url: str, settings: GenerateSettings, *, seed: int, rules: Rules | None = None
) -> Generation:
    """Plan a store: the existing one with the rows asked for, or a new one.

    Args:
        model: Folder of the fitted generator.
        url: Where the store is or will be.
        settings: Size and cut.
        seed: Seed of the run.
        rules: The user's rules.

    Raises:
        CheckpointError: When nothing was trained.
        ConfigError: When a rule names what the data do not have.
        StoreError: When the place holds something else.
    """
    generator, extra = generators.load(model)
    aim = aim_of(settings)
    generator = generators.aimed(generator, aim)
    spec = DatasetSpec.parse(extra["spec"], where="saved spec")
    if rules is not None:
        rules.require(spec)
    schema = generated_schema(spec, generator)
    rate = cache(partial(measured_rate, generator, min(settings.micro_batch, settings.rows)))
    identity = {
        "generator": {"kind": generator.kind, **generator.config.plain()},
        "model": file_hash(model / "arrays.safetensors"),
        "max_attempts": settings.max_attempts,
        **({} if aim.where is None else {"aim": asdict(aim)}),
        **({} if rules is None else {"rules": rules.plain()}),
    }
    fixed: dict[str, Any] = {"seed": seed, "micro_batch": settings.micro_batch}
    if settings.rows_per_shard is not None:
        fixed["rows_per_shard"] = settings.rows_per_shard
    if store.exists(url):
        plan = store.open(url).plan.replace(**fixed)  # what differs is refused, by name, when the store is created
        plan = plan if settings.rows <= plan.num_rows else plan.extended(settings.rows)
    else:
        if settings.rows_per_shard is None:  # cut for a fixed number of workers: it must not change the data
            fixed |= {"rows_per_second": rate(), "workers": TYPICAL_WORKERS}
        plan = Plan.choose(settings.rows, schema.row_bytes, **fixed)
    calls = f"{generator.calls} network calls a row" if isinstance(generator, generators.Noted) else ""
    planned = Generation(schema, plan, identity, rate, calls)
    return _with_labels(store.open(url), planned) if store.exists(url) else planned


def _with_labels(present: Store, planned: Generation) -> Generation:
    """The same for a store that was relabelled: it can be told apart from others, and must not grow.

    Raises:
        StoreError: When there is something to generate.
    """
    if not (labels := present.config.get(LABELS)):
        return planned
    if planned.plan.num_rows > present.plan.num_rows or not present.complete:
        require_generated(present)
    schema = planned.schema.replace(derived=present.schema.derived)
    return replace(planned, schema=schema, identity={**planned.identity, LABELS: labels})


def require_generated(present: Store) -> None:
    """Fail before rows of the generator are mixed with relabelled ones.

    Raises:
        StoreError: When the rows of the store were relabelled.
    """
    if present.config.get(LABELS):
        raise StoreError(
            f"the rows of the store '{present.url}' were relabelled: the generator must not add to them",
            found=f"{len(present):,} of at most {present.plan.num_rows:,} rows",
            accepted="a run whose rows are the generator's own",
            fix=f"{present.maker} --repair   # for more rows: generate there, and relabel into another folder",
        )


def aim_of(settings: GenerateSettings) -> Aim:
    """Where generation is aimed."""
    return Aim(settings.where, settings.aimed_share, settings.top, settings.guidance)


def generated_schema(spec: DatasetSpec, generator: generators.Generator) -> Schema:
    """Columns of a store of generated transitions: all fields that are modelled, and the method's provenance."""
    fields = generators.modelled_fields(spec)
    return Schema(
        kind="transitions",
        spec=spec.replace(fields=[field.model_dump() for field in fields]),
        provenance=generator.provenance,
        derived=generators.derived_fields(spec) if generator.derives_terminations else (),
    )


def measured_rate(generator: generators.Generator, micro_batch: int) -> float:
    """Rows per second of one process, from one micro-batch that is thrown away, after one row that warms up."""
    generator.sample(1, stream(0, Stage.GENERATE, 0, 0))
    begin = time.perf_counter()
    generator.sample(micro_batch, stream(0, Stage.GENERATE, 0, 0))
    return micro_batch / max(time.perf_counter() - begin, 1e-6)


@dataclass(frozen=True)
class ShippedModel:
    """A fitted generator by its bytes: it goes with the tasks, once to every worker of a cluster.

    Attributes:
        digest: Hash of the files, by which it is recognised.
        files: Relative path -> bytes.
    """

    digest: str
    files: Mapping[str, bytes] = field(compare=False, repr=False)

    @classmethod
    def of(cls, folder: Path) -> ShippedModel:
        """The fitted generator in a folder."""
        paths = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
        digest = content_hash({name: file_hash(path) for name, path in paths.items()})
        return cls(digest, {name: path.read_bytes() for name, path in paths.items()})


@dataclass(frozen=True)
class GenerateShard:
    """Makes one shard of synthetic transitions: attempts until it is full or the limit is reached.

    Attributes:
        model: Folder of the fitted generator, or what is in it, for workers that do not see it.
        url: The store.
        micro_batch: Rows per sampling call.
        max_attempts: Limit for generators that reject rows.
        aim: Where the rows are aimed.
        rules: Rows are moved into their limits, and rejected where they still break one.
    """

    model: str | ShippedModel
    url: str
    micro_batch: int
    max_attempts: int
    aim: Aim = NOWHERE
    rules: Rules | None = None

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
                f"shard {task.shard} stayed empty: every row was rejected",
                found=f"0 of {task.rows:,} rows after {self.max_attempts} attempts",
                fix="loosen what rows must be like, or --set generate.max_attempts=...",
            )
        seconds = time.perf_counter() - begin
        return store.write_shard(self.url, current, concatenate(parts), sidecar={"seconds": round(seconds, 3)})

    def _sample(self, task: ShardTask, rows: int) -> Transitions:
        generator, rng = generators.aimed(_loaded(self.model), self.aim), task.rng(Stage.GENERATE)
        sizes = [min(self.micro_batch, rows - start) for start in range(0, rows, self.micro_batch)]
        return concatenate([self._qualified(generator.sample(size, rng)) for size in sizes])

    def _qualified(self, rows: Transitions) -> Transitions:
        if self.rules is None:
            return rows
        rows = self.rules.clipped(rows)
        return rows.take(~self.rules.violations(rows))


@lru_cache(maxsize=2)
def _loaded(model: str | ShippedModel) -> generators.Generator:
    if isinstance(model, str):
        return generators.load(Path(model))[0]
    with TemporaryDirectory() as folder:
        for name, data in model.files.items():
            write_bytes(Path(folder) / name, data)
        return generators.load(Path(folder))[0]
