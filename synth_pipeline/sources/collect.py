"""Collecting a catalog dataset: its recipe cut into tasks, each a pure function of (recipe, seed, shard).

A task rolls out whole episodes of one behaviour in the simulator and becomes one shard of a store of trajectories.
The stage `collect` runs the tasks; here is what they do, where the result lives, and the source that reads it.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline import envs, store
from synth_pipeline.config import content_hash
from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.envs import behaviours
from synth_pipeline.envs.base import EnvironmentModel, dataset_fields
from synth_pipeline.envs.rollout import Actor, RandomActor, rollout_rows
from synth_pipeline.errors import ConfigError, SourceError
from synth_pipeline.seeding import Stage
from synth_pipeline.sources import catalog
from synth_pipeline.sources.base import hash_arrays
from synth_pipeline.sources.catalog import CatalogEntry, Share
from synth_pipeline.sources.stored import StoreSource
from synth_pipeline.store import Plan, Schema, ShardTask, Store
from synth_pipeline.store.plan import CHUNK_ROWS

PROVENANCE = (Field(name="behaviour", kind="index"),)
LANES = 16


def data_folder() -> Path:
    """Where collected datasets live: `$SYNTHPIPE_DATA`, else `synth-pipeline` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if chosen := os.environ.get("SYNTHPIPE_DATA"):
        return Path(chosen).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "relative")
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "synth-pipeline"  # as its specification says


def make_actor(share: Share, model: EnvironmentModel) -> Actor:
    """The actor of one share of a recipe.

    Raises:
        UnknownNameError: For a SAC snapshot that is not shipped.
        ConfigError: For the maze controller outside a maze.
    """
    if share.behaviour == "sac":
        assert share.environment_steps is not None
        parameters = behaviours.parameters(model.spec.name, share.environment_steps)
        action = model.spec.action
        return behaviours.SacActor(parameters, low=action.low, high=action.high, stochastic=share.stochastic)
    if share.behaviour == "waypoint":
        from synth_pipeline.envs.pointmaze import PointMaze
        from synth_pipeline.envs.waypoints import WaypointActor

        if not isinstance(model, PointMaze):
            raise ConfigError("the waypoint controller walks in mazes only", found=f"environment '{model.spec.name}'")
        return WaypointActor(model, noise=share.noise)
    return RandomActor(model.spec.action)


@dataclass(frozen=True)
class Collection:
    """One catalog dataset of one size and seed: what to collect, in which tasks, into which folder.

    Small and picklable: worker processes get it whole.

    Attributes:
        entry: The recipe.
        rows: Rows to collect; whole episodes, so a few more come out.
        seed: Seed of every episode.
    """

    entry: CatalogEntry
    rows: int
    seed: int

    @property
    def shards(self) -> tuple[tuple[int, int], ...]:
        """Of each shard, the index of its behaviour in the recipe and the rows that it collects at least."""
        total = sum(part.share for part in self.entry.recipe)
        longest = CHUNK_ROWS - self.entry.horizon + 1  # so that the last episode fits into one chunk whole
        shards = []
        for index, part in enumerate(self.entry.recipe):
            rows = math.ceil(self.rows * part.share / total)
            count = math.ceil(rows / longest)
            shards += [(index, math.ceil(rows / count))] * count
        return tuple(shards)

    @property
    def plan(self) -> Plan:
        """One chunk a shard, with room for the last episode of its behaviour to end."""
        capacity = max(rows for _, rows in self.shards) + self.entry.horizon - 1
        values = {"num_rows": capacity * len(self.shards), "rows_per_shard": capacity, "rows_per_chunk": capacity}
        return Plan.parse({**values, "seed": self.seed}, where="plan of the collection")

    @property
    def schema(self) -> Schema:
        """Trajectories with one more column, `behaviour`: who acted, as an index into the recipe."""
        return Schema(kind="trajectories", spec=self.spec, provenance=PROVENANCE)

    @cached_property
    def spec(self) -> DatasetSpec:
        """What the columns mean, with the references measured by this project."""
        entry, model = self.entry, envs.make(self.entry.environment)
        return DatasetSpec(
            dataset_id=entry.id,
            fields=dataset_fields(model.spec),
            environment=entry.environment,
            horizon=entry.horizon,
            reference_min=entry.references.random.mean,
            reference_max=entry.references.best.mean if entry.references.best else None,
            licence=entry.licence,
            provenance={
                "description": entry.description,
                "behaviours": entry.behaviours(),
                "seed": self.seed,
                **model.provenance(),
            },
        )

    @cached_property
    def config(self) -> dict[str, Any]:
        """All that the bytes follow from beside schema and plan: recipe, weights, versions."""
        recipe = self.entry.recipe
        weights = {
            str(part.environment_steps): hash_arrays(
                behaviours.parameters(self.entry.environment, part.environment_steps)
            )
            for part in recipe
            if part.environment_steps is not None
        }
        return {
            "dataset": self.entry.id,
            "recipe": [part.model_dump(mode="json") for part in recipe],
            "rows": self.rows,
            "lanes": LANES,
            "weights": weights,
            **envs.make(self.entry.environment).provenance(),
        }

    @property
    def folder(self) -> Path:
        """Where the store is; another recipe, version, size or seed lives in another folder."""
        identity = content_hash(self.schema, self.plan, self.config)
        return data_folder() / "collected" / self.entry.environment / self.entry.level / f"{self.rows}-{identity[:12]}"

    def collect_shard(self, task: ShardTask) -> Episodes:
        """Roll out one shard: the same bytes wherever and in whichever order it is made.

        Args:
            task: A task of `plan`.

        Returns:
            Whole episodes with the columns of `schema`, at most `task.rows` rows.
        """
        index, rows = self.shards[task.shard]
        model = envs.make(self.entry.environment)
        actor = make_actor(self.entry.recipe[index], model)
        room = {"rows": rows, "capacity": task.rows, "lanes": LANES}
        found = rollout_rows(model, actor, seed=task.seed, stage=Stage.COLLECT, address=(task.shard,), **room)
        wanted = {field.name for field in self.schema.columns}
        columns = {name: column for name, column in found.columns.items() if name in wanted}
        columns["behaviour"] = np.full(found.num_rows, index, np.int64)
        return Episodes(found.observations, found.final_observations, found.starts, columns)


def collection(dataset_id: str, *, rows: int | None = None, seed: int | None = None) -> Collection:
    """The collection of a catalog dataset.

    Args:
        dataset_id: Catalog id, e.g. `"hopper/medium-replay"`.
        rows: How many rows; None: the recipe's size.
        seed: Another seed than the recipe's, for fresh data of the same kind.

    Raises:
        UnknownNameError: With the nearest id.
        ConfigError: For fewer rows than one.
    """
    entry = catalog.get(dataset_id)
    if rows is not None and rows < 1:
        raise ConfigError("a dataset has at least one row", found=rows, fix="--rows 10000")
    return Collection(entry, entry.rows if rows is None else rows, entry.seed if seed is None else seed)


class CollectedSource:
    """A catalog dataset that was collected on this machine.

    Args:
        dataset_id: Catalog id.
        rows: The size that was collected; None: the recipe's.
        seed: The seed that it was collected with; None: the recipe's.

    Raises:
        UnknownNameError: With the nearest id.
    """

    def __init__(self, dataset_id: str, *, rows: int | None = None, seed: int | None = None) -> None:
        self.collection = collection(dataset_id, rows=rows, seed=seed)

    def describe(self) -> dict[str, Any]:
        """Facts as plain JSON (see `Source`); before it is collected, `rows` are those asked for."""
        plan, entry = self.collection, self.collection.entry
        facts: dict[str, Any] = {"rows": plan.rows, "episodes": None, "bytes": None, "missing_shards": None}
        if store.exists(plan.folder):
            info = store.open(plan.folder).info()
            facts = {name: info[name] for name in facts}
        return {
            "id": entry.id,
            "kind": "collect",
            "path": str(plan.folder),
            **facts,
            "observation_size": plan.spec.observation_size,
            "action_size": plan.spec.action_size,
            "environment": entry.environment,
            "horizon": entry.horizon,
            "description": entry.description,
            "behaviours": entry.behaviours(),
            "seed": plan.seed,
            "licence": entry.licence,
            "reference_min": plan.spec.reference_min,
            "reference_max": plan.spec.reference_max,
            "collected": facts["missing_shards"] == 0,
        }

    def load(self) -> Dataset:
        """Every episode, in memory.

        Raises:
            SourceError: When it was not collected yet, or not to the end.
            StoreError: When the collected files are damaged.
        """
        return StoreSource(self.open().url).load()

    def fingerprint(self) -> str:
        """The store's digest (see `Source`)."""
        return self.open().digest()

    def other_sizes(self) -> list[Path]:
        """Folders of the same dataset, collected in another size or with another seed."""
        mine = self.collection.folder
        return sorted(path for path in mine.parent.glob("*") if path != mine and store.exists(path))

    def open(self) -> Store:
        """The store of trajectories.

        Raises:
            SourceError: When it was not collected yet, or not to the end.
        """
        plan = self.collection
        command = f"synthpipe collect {plan.entry.id}"
        if plan.rows != plan.entry.rows:
            command += f" --rows {plan.rows}"
        if not store.exists(plan.folder):
            others = self.other_sizes()
            beside = f"; other sizes or seeds, which can be named: {', '.join(map(str, others))}" if others else ""
            raise SourceError(
                f"the dataset '{plan.entry.id}' has not been collected on this machine yet",
                found=f"nothing in '{plan.folder}'{beside}",
                fix=command,
            )
        opened = store.open(plan.folder)
        if not opened.complete:
            raise SourceError(
                f"the dataset '{plan.entry.id}' was not collected to its end",
                found=f"{opened.num_missing} of {opened.plan.num_shards} shards are missing in '{plan.folder}'",
                fix=f"{command} (it goes on where it stopped)",
            )
        return opened
