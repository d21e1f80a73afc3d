"""What the generator of a run was fitted on, and whether that is what is asked for now."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from synth_pipeline import sources
from synth_pipeline.config import flat
from synth_pipeline.data.containers import Integers
from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import CheckpointError, ConfigError
from synth_pipeline.generators import base as generators
from synth_pipeline.run_config import RunConfig
from synth_pipeline.runs import Run, read_json
from synth_pipeline.seeding import Stage, integer_seed
from synth_pipeline.sources import catalog
from synth_pipeline.sources.base import Source, hash_prefix, units


def source_of(config: RunConfig) -> Source:
    """Where the run's dataset comes from; a size is that of a dataset which is collected."""
    rows = config.collect.rows if config.dataset in catalog.entries() else None
    return sources.real_source(config.dataset, rows=rows)


def made_from(config: RunConfig) -> dict[str, Any]:
    """The settings that a fitted generator follows from, as plain values by dotted name, and the code of a plug-in."""
    generator = generators.build(config.generator)
    own = {f"generator.{name}": value for name, value in generator.config.plain().items()}
    if (code := generators.foreign_code(generator)) is not None:
        own["generator.code"] = code
    given = config.model_dump(mode="json", include={"dataset", "seed", "held_out"})
    return {**given, "generator.kind": generator.kind, **own}


def update_seed(config: RunConfig, fingerprint: str) -> int:
    """Of an update on data with this fingerprint: another one for other data."""
    return integer_seed(config.seed, Stage.TRAIN, 11, int(fingerprint[:8], 16))


def require_model(model: Path, config: RunConfig, data_key: str | None = None) -> None:
    """Check that a fitted generator is the one that the configuration describes.

    Args:
        model: Folder of the fitted generator.
        config: The configuration as it is now.
        data_key: Hash of the data and settings as they are now; None: the data is not looked at.

    Raises:
        ConfigError: Naming what differs.
        CheckpointError: When the folder does not say what it holds.
    """
    facts, wanted = fitted_facts(model, config), made_from(config)
    found = facts.made_from
    before, now = flat(found), flat(wanted)
    keys = [key for key in dict.fromkeys([*now, *before]) if before.get(key) != now.get(key)]
    if "generator.kind" in keys:  # then all of its settings are others
        keys = [key for key in keys if key == "generator.kind" or not key.startswith("generator.")]
    differences = [f"{key} {before.get(key)} -> {now.get(key)}" for key in keys]
    if not differences and data_key not in (None, facts.key):
        differences = [f"the rows of {config.dataset} are not those that it was fitted on"]
    if differences:
        raise ConfigError(
            f"the generator in '{model}' was fitted on other data or with other settings",
            found="; ".join([*differences[:4], *([f"{len(differences) - 4} more"] if len(differences) > 4 else [])]),
            accepted="the same data and settings as before, also where defaults of another version were other ones",
            fix="say it as it was (config.yaml or --set), or train anew in another run directory",
        )


class FittedFacts(BaseModel):
    """What the train stage noted beside a fitted generator.

    Attributes:
        made_from: Settings by dotted name.
        fingerprint: Of the data.
        key: Hash of both.
        spec: Of the data, as plain values.
        held_out_episodes: Ids; None: the data have no episodes.
        seconds: Of the training.
        units: How many episodes (rows, where there are none) the data had.
        history: Hash of these: whether other data begin with them.
        warm_from: Key of the generator that was trained on; None: it began anew.
    """

    made_from: dict[str, Any]
    fingerprint: str
    key: str
    spec: dict[str, Any]
    held_out_episodes: list[int] | None
    seconds: float
    units: int
    history: str
    warm_from: str | None = None

    def unseen(self, real: Dataset) -> Integers | None:
        """Ids of the episodes that it did not see, of those that the data have now; None: not known."""
        if self.held_out_episodes is None:
            return None
        return np.union1d(np.array(self.held_out_episodes, np.int64), np.arange(self.units, units(real)))

    def require_same(self, source: Source, name: str) -> None:
        """Check that data are those that it was fitted on, or these with more behind them.

        Args:
            source: Where they come from.
            name: What the user calls them.

        Raises:
            ConfigError: When they are others: rows made from the ones would be judged by, or stand beside, the others.
        """
        if (fingerprint := source.fingerprint()) == self.fingerprint or self._begins(source.load()):
            return
        raise ConfigError(
            f"the rows of {name} are not those that the generator was fitted on",
            found=f"data with digest {fingerprint[:12]}, not {self.fingerprint[:12]}",
            accepted="the data as they were, or with more behind them",
            fix="bring them back, or train anew in another run directory",
        )

    def _begins(self, real: Dataset) -> bool:
        return units(real) >= self.units and hash_prefix(real, self.units) == self.history


class _State(BaseModel):
    extra: FittedFacts


def fitted_facts(model: Path, config: RunConfig) -> FittedFacts:
    """What the train stage noted beside a fitted generator: settings, data, held-out episodes.

    Args:
        model: Folder of the fitted generator, `RUN/model/generator`.
        config: For the command that fits it again.

    Raises:
        CheckpointError: When the notes are missing, or of another shape.
    """
    try:
        return _State.model_validate(read_json(model / "state.json")).extra
    except (ConfigError, ValidationError) as error:
        problem = error.errors()[0] if isinstance(error, ValidationError) else None
        place = ".".join(map(str, problem["loc"])) if problem else ""
        again = shlex.join(["synthpipe", "train", config.dataset, "-o", str(model.parent.parent)])
        raise CheckpointError(
            f"'{model / 'state.json'}' does not say what the generator was fitted on",
            found=f"{place}: {problem['msg'].lower()}" if problem else error,
            accepted="the file that `synthpipe train` wrote, as it wrote it",
            fix=f"{shlex.join(['rm', '-r', str(model)])} && {again}",
        ) from None


def trained_model(run: Run, config: RunConfig) -> Path:
    """Folder of the fitted generator of a run.

    Raises:
        CheckpointError: When nothing was trained.
    """
    model = run.generator
    if not model.exists():
        raise CheckpointError(
            f"no generator was trained in '{run.directory}' yet",
            found=f"no folder '{model}'",
            fix=shlex.join(["synthpipe", "train", config.dataset, "-o", str(run.directory)]),
        )
    return model
