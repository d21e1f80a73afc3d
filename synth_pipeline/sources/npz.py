"""Arrays without an environment: an npz file, or a dict in memory."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline.data.fields import Array
from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import SourceError
from synth_pipeline.sources import checks, flat
from synth_pipeline.sources.base import file_id, hash_arrays, hash_files, readable, require_file


class NpzSource:
    """Flat columns in Gymnasium's or D4RL's names (see `sources.flat`).

    Args:
        data: The `.npz` file, or a mapping of column names to arrays.
        dataset_id: Id of the dataset; by default from the file's name.
        horizon: Time limit in steps; needed without `truncations` and `next_observations`.
        action_bounds: Lower and upper bound of actions; by default what the actions span.
    """

    def __init__(
        self,
        data: str | Path | Mapping[str, Array],
        *,
        dataset_id: str | None = None,
        horizon: int | None = None,
        action_bounds: tuple[Any, Any] | None = None,
    ) -> None:
        self.path = Path(data) if isinstance(data, (str, Path)) else None
        self._arrays = {} if isinstance(data, (str, Path)) else data
        self.dataset_id = dataset_id or (file_id(self.path) if self.path else "arrays")
        self.horizon = horizon
        self.action_bounds = action_bounds

    def describe(self) -> dict[str, Any]:
        """Id, kind, rows and sizes (see `Source`); an npz file is read to know them."""
        columns = self._columns()
        checks.same_rows({name: np.shape(column) for name, column in columns.items()}, self._origin)
        observations, actions = columns["observations"], columns["actions"]
        return {
            "id": self.dataset_id,
            "kind": "npz" if self.path else "arrays",
            "path": str(self.path) if self.path else None,
            "bytes": self.path.stat().st_size if self.path else sum(column.nbytes for column in columns.values()),
            "rows": len(observations),
            "episodes": None,
            "columns": sorted(columns),
            "observation_size": int(np.prod(observations.shape[1:])),
            "action_size": int(np.prod(actions.shape[1:])),
            "environment": None,
            "horizon": self.horizon,
        }

    def load(self) -> Dataset:
        """Read and check all columns (see `Source`)."""
        provenance = {"source": "npz", "file": self.path.name} if self.path else {"source": "arrays"}
        given = flat.Given(
            dataset_id=self.dataset_id,
            origin=self._origin,
            horizon=self.horizon,
            action_bounds=self.action_bounds,
            provenance=provenance,
        )
        return flat.dataset(self._columns(), given)

    def fingerprint(self) -> str:
        """Hash of the file, or of the arrays (see `Source`)."""
        if self.path is None:
            return hash_arrays(self._arrays)
        require_file(self.path)
        return hash_files([self.path])

    @property
    def _origin(self) -> str:
        return f"'{self.path}'" if self.path else "the dict of arrays"

    def _columns(self) -> dict[str, Array]:
        if self.path is None:
            keys = flat.canonical_keys(self._arrays, self._origin)
            return {name: self._array(key) for name, key in keys.items()}
        require_file(self.path)
        with readable(self.path):
            if not zipfile.is_zipfile(self.path):
                raise SourceError(
                    f"'{self.path}' is not an npz file",
                    accepted="an archive written by numpy.savez",
                    fix="write it again with numpy.savez(path, observations=..., ...)",
                )
            with np.load(self.path, allow_pickle=False) as archive:
                keys = flat.canonical_keys(archive.files, self._origin)
                return {name: self._member(archive, key) for name, key in keys.items()}

    def _array(self, key: str) -> Array:
        try:
            return np.asarray(self._arrays[key])
        except ValueError as error:
            raise SourceError(f"{self._origin}: column '{key}' is not rectangular", found=str(error)) from error

    def _member(self, archive: Any, key: str) -> Array:
        try:
            array: Array = archive[key]
        except ValueError as error:
            if "Object arrays" not in str(error):
                raise
            raise SourceError(
                f"{self._origin}: column '{key}' is an object array, which would need pickle",
                found="dtype object",
                accepted="numeric arrays of one shape",
                fix="save rectangular arrays; concatenate ragged episodes and mark their ends in 'truncations'",
            ) from error
        return array
