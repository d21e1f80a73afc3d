"""Minari datasets (0.4 and 0.5; HDF5, Arrow, Parquet), local or downloaded on request.

Minari's files are read directly, in the layout of its 0.5 storages: several times faster than through its API with
many short episodes, and without the simulator that recorded them.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.errors import SourceError
from synth_pipeline.sources import checks
from synth_pipeline.sources.base import carried_spec, hash_files
from synth_pipeline.sources.minari_environments import Origin, origin_of
from synth_pipeline.sources.minari_episodes import assemble
from synth_pipeline.sources.minari_files import FORMATS, data_files, read_episodes
from synth_pipeline.sources.minari_root import obtain, read_metadata
from synth_pipeline.sources.minari_spaces import Column, column

VERSIONS = ("0.4.", "0.5.")
_CARRIED = ("algorithm_name", "author", "author_email", "code_permalink", "description", "requirements")


class MinariSource:
    """One Minari dataset on this machine.

    Args:
        folder: The dataset's folder, which holds `data/`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @classmethod
    def from_id(cls, dataset_id: str, *, download: bool = False) -> MinariSource:
        """The dataset with an id, under `MINARI_DATASETS_PATH` or Minari's default folder.

        Args:
            dataset_id: Full id with its version, e.g. `mujoco/hopper/medium-v0`.
            download: Fetch it from Minari's server when it is not here.

        Raises:
            UnknownNameError: When it is not here (or, with `download`, nowhere).
            SourceError: When it cannot be downloaded, or arrives empty.
        """
        return cls(obtain(dataset_id, allow_download=download))

    def describe(self) -> dict[str, Any]:
        """Id, format, episodes, rows, sizes, environment, references, from the metadata (see `Source`)."""
        metadata, spec = self._metadata, self._spec
        return {
            "id": spec.dataset_id,
            "kind": "minari",
            "path": str(self.folder),
            "bytes": sum(file.stat().st_size for file in data_files(self.folder / "data")),
            "format": metadata["data_format"],
            "rows": metadata["total_steps"],
            "episodes": metadata["total_episodes"],
            "observation_size": self._observations.size,
            "action_size": self._actions.size,
            "environment": spec.environment,
            "horizon": spec.horizon,
            "reference_min": spec.reference_min,
            "reference_max": spec.reference_max,
            "licence": spec.licence,
        }

    def load(self) -> Dataset:
        """Read every episode (see `Source`)."""
        metadata = self._metadata
        if not metadata["total_episodes"]:
            raise SourceError(
                f"{self._name} is empty", found="0 episodes", fix="its recording or download was interrupted: repeat it"
            )
        raw = read_episodes(
            self.folder / "data",
            metadata["data_format"],
            metadata["total_episodes"],
            self._observations,
            self._actions,
        )
        episodes, notes = assemble(raw, self._observations, self._actions, metadata["total_steps"], self._name)
        columns, bounds_from = self._fields(episodes)
        provenance = {**self._spec.provenance, **notes, "action_bounds": bounds_from, "next_observations": "exact"}
        return Dataset(self._spec.replace(fields=columns, provenance=provenance), episodes=episodes)

    def fingerprint(self) -> str:
        """Hash of every file in `data/`, with its name (see `Source`)."""
        data = self.folder / "data"
        read_metadata(self.folder)
        return hash_files(data_files(data), data)

    @property
    def _name(self) -> str:
        return f"the Minari dataset '{self._metadata['dataset_id']}'"

    @cached_property
    def _metadata(self) -> dict[str, Any]:
        metadata = read_metadata(self.folder)
        version, data_format = str(metadata["minari_version"]), metadata["data_format"]
        if not version.startswith(VERSIONS) or data_format not in FORMATS:
            raise SourceError(
                f"'{self.folder}' was written by another Minari",
                found=f"version {version}, format {data_format}",
                accepted=f"versions {', '.join(v + 'x' for v in VERSIONS)}; formats {', '.join(FORMATS)}",
                fix="download its newest version",
            )
        return metadata

    @cached_property
    def _origin(self) -> Origin:
        return origin_of(self._metadata, self._name)

    @cached_property
    def _observations(self) -> Column:
        return column(self._space("observation_space"), "observations", self._name, self._origin.observation_keys)

    @cached_property
    def _actions(self) -> Column:
        space = self._space("action_space")
        if space.get("type") not in ("Box", "Discrete"):
            raise SourceError(
                f"{self._name}: the space of actions cannot be read", found=space.get("type"), accepted="Box, Discrete"
            )
        return column(space, "actions", self._name)

    def _space(self, key: str) -> dict[str, Any]:
        text = self._metadata.get(key)
        try:
            space = json.loads(text if text is not None else self._space_of_environment(key))
        except ValueError as error:
            raise SourceError(f"{self._name}: its {key} is damaged", found=str(error)) from error
        return dict(space)

    def _space_of_environment(self, key: str) -> str:
        """Datasets of Minari 0.4 may leave their spaces to the environment: Minari makes it and asks."""
        from minari import MinariDataset
        from minari.serialization import serialize_space

        try:
            return str(serialize_space(getattr(MinariDataset(self.folder / "data"), key)))
        except Exception as error:
            raise SourceError(
                f"{self._name} states no {key}, and its environment cannot be made",
                found=f"{type(error).__name__}: {error}",
                fix="install the packages of its environment",
            ) from error

    @cached_property
    def _spec(self) -> DatasetSpec:
        """Everything but the columns, which are known when the data are."""
        metadata = self._metadata
        own = metadata.get("synth_pipeline") or {}
        carried = carried_spec(own["spec"], f"{self._name}, key synth_pipeline.spec") if "spec" in own else None
        provenance: dict[str, Any] = {
            **(carried.provenance if carried else {}),
            "source": "minari",
            "minari_version": metadata["minari_version"],
            **self._origin.provenance,
            **{key: metadata[key] for key in _CARRIED if metadata.get(key)},
        }
        if slices := self._observations.slices():
            provenance["observation_slices"] = slices
        if own:
            provenance["synth_pipeline"] = {key: value for key, value in own.items() if key != "spec"}
        return DatasetSpec(
            dataset_id=metadata["dataset_id"],
            fields=(),
            environment=carried.environment if carried else self._origin.environment,
            horizon=carried.horizon if carried else self._origin.horizon,
            reference_min=metadata.get("ref_min_score"),
            reference_max=metadata.get("ref_max_score"),
            licence=carried.licence if carried else metadata.get("license") or metadata.get("licence"),
            provenance=provenance,
        )

    def _fields(self, episodes: Episodes) -> tuple[tuple[Field, ...], str]:
        """The columns, and where the action bounds come from."""
        states, choices = self._observations, self._actions
        observations = Field(name="observations", shape=states.shape)
        if states.classes:
            every = np.concatenate([episodes.observations, episodes.final_observations])
            observations = checks.class_field("observations", every, states.classes, self._name)
        if choices.classes:
            actions = checks.class_field("actions", episodes["actions"], choices.classes, self._name)
            return checks.columns_of(observations, actions), "declared"
        actions, origin = checks.action_field(episodes["actions"], (choices.low, choices.high))
        return checks.columns_of(observations, actions), origin
