"""D4RL-style HDF5: flat columns at the root of one file, with `infos/` and `metadata/` groups beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from synth_pipeline.data.fields import Array
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.errors import SourceError
from synth_pipeline.sources import checks, flat
from synth_pipeline.sources.base import carried_spec, file_id, hash_files, readable, require_file

KIND_ATTRIBUTE = "synth_pipeline_kind"
SPEC_ATTRIBUTE = "synth_pipeline_spec"
_BLOCK_BYTES = 1 << 26


class D4RLSource:
    """One D4RL-style file (v0, v2, or our own flat export).

    Rows of a file with `next_observations` are exact; without it, next states are those of `data.d4rl`. A file whose
    root says `synth_pipeline_kind = "transitions"` holds single transitions. D4RL's environments are older than the
    ones this package simulates, so the environment stays unknown unless an export of ours names it.

    Args:
        path: The `.hdf5` file.
        dataset_id: Id of the dataset; by default from the file's name.
        horizon: Time limit in steps; needed for files without `timeouts` and `next_observations`.
        action_bounds: Lower and upper bound of actions; by default what the file's actions span.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        dataset_id: str | None = None,
        horizon: int | None = None,
        action_bounds: tuple[Any, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.dataset_id = dataset_id or file_id(self.path)
        self.horizon = horizon
        self.action_bounds = action_bounds

    def describe(self) -> dict[str, Any]:
        """Id, kind, rows and sizes, from the file's headers (see `Source`)."""
        with self._open() as file:
            keys = self._keys(file)
            shapes = {name: file[key].shape for name, key in keys.items()}
            checks.same_rows(shapes, f"'{self.path}'")
            spec = self._carried_spec(file)
            independent = self._independent(file)
        return {
            "id": spec.dataset_id if spec else self.dataset_id,
            "kind": "d4rl-hdf5",
            "path": str(self.path),
            "bytes": self.path.stat().st_size,
            "rows": shapes["observations"][0],
            "episodes": None,
            "independent": independent,
            "columns": sorted(keys),
            "observation_size": int(np.prod(shapes["observations"][1:])),
            "action_size": int(np.prod(shapes["actions"][1:])),
            "environment": spec.environment if spec else None,
            "horizon": spec.horizon if spec else self.horizon,
        }

    def load(self) -> Dataset:
        """Read the columns block by block (see `Source`)."""
        with self._open() as file:
            spec = self._carried_spec(file)
            keys = self._keys(file) | _further(file, spec)
            given = flat.Given(
                dataset_id=self.dataset_id,
                origin=f"'{self.path}'",
                horizon=self.horizon,
                action_bounds=self.action_bounds,
                independent=self._independent(file),
                spec=spec,
                provenance={"source": "d4rl-hdf5", "file": self.path.name, "metadata": _scalars(file)},
            )
            columns = {name: _column(name, file[key], f"'{self.path}'") for name, key in keys.items()}
        return flat.dataset(columns, given)

    def fingerprint(self) -> str:
        """Hash of the file (see `Source`)."""
        require_file(self.path)
        return hash_files([self.path])

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        require_file(self.path)
        with readable(self.path), h5py.File(self.path, "r") as file:
            yield file

    def _keys(self, file: h5py.File) -> dict[str, str]:
        datasets = [key for key, item in file.items() if isinstance(item, h5py.Dataset)]
        if "episode_0" in file and not datasets:
            raise SourceError(
                f"'{self.path}' is the data file of a Minari dataset, without its metadata.json",
                fix="name the dataset's folder or id, and keep metadata.json beside the file",
            )
        following = ("next_observations",) if self._independent(file) else ()  # no row to take them from
        return flat.canonical_keys(datasets, f"'{self.path}'", required=(*flat.REQUIRED, *following))

    @staticmethod
    def _independent(file: h5py.File) -> bool:
        return bool(file.attrs.get(KIND_ATTRIBUTE) == "transitions")

    def _carried_spec(self, file: h5py.File) -> DatasetSpec | None:
        text = file.attrs.get(SPEC_ATTRIBUTE)
        return None if text is None else carried_spec(text, f"'{self.path}', attribute {SPEC_ATTRIBUTE}")


def _further(file: h5py.File, spec: DatasetSpec | None) -> dict[str, str]:
    """In an export of ours: the other columns of its spec, and the provenance of rows under `infos/`."""
    if spec is None:
        return {}
    known = {*flat.REQUIRED, *flat.OPTIONAL}
    columns = {field.name: field.name for field in spec.fields if field.name not in known and field.name in file}
    return columns | {name: f"infos/{name}" for name in file.get("infos", ()) if name not in known}


def _column(name: str, stored: h5py.Dataset, origin: str) -> Array:
    """A column in memory; wide floats become float32 block by block, so they never stand here twice.

    Raises:
        SourceError: When what varies would not vary any more.
    """
    if stored.dtype.kind != "f" or stored.dtype == np.float32 or stored.ndim == 0:
        values: Array = stored[()]
        return values
    column = np.empty(stored.shape, np.float32)
    step = max(1, _BLOCK_BYTES // max(1, stored.dtype.itemsize * int(np.prod(stored.shape[1:]))))
    ends = []
    with np.errstate(over="ignore"):
        for start in range(0, len(stored), step):
            block = stored[start : start + step]
            column[start : start + step] = block
            ends.append((block.min(axis=0), block.max(axis=0)))
    if ends:
        lows, highs = zip(*ends, strict=True)
        checks.require_resolved(name, np.min(lows, axis=0), np.max(highs, axis=0), origin)
    return column


def _scalars(file: h5py.File) -> dict[str, Any]:
    """The numbers and texts of D4RL's `metadata` group; arrays (policy weights) are left out."""
    result: dict[str, Any] = {}
    group = file.get("metadata")
    for key, item in group.items() if isinstance(group, h5py.Group) else ():
        if isinstance(item, h5py.Dataset) and item.shape == ():
            value = item[()]
            plain = value.decode(errors="replace") if isinstance(value, bytes) else np.asarray(value).item()
            if isinstance(plain, (str, int, float, bool)):
                result[key] = plain
    return result
