"""Minari datasets: episodes streamed in constant memory into a folder that appears whole or not at all."""

from __future__ import annotations

import copy
import importlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from minari.serialization import serialize_space

from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.fields import Array, Field
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.errors import ConfigError, ExportError
from synth_pipeline.export import hdf5
from synth_pipeline.export.minari_layout import (
    STANDARD,
    Column,
    EpisodeWriter,
    Ledger,
    as_episodes,
    columns_of,
    episode_arrays,
    source_of,
    with_truncations,
)
from synth_pipeline.export.readback import check_minari
from synth_pipeline.runs import safe_parts, staged_directory, write_json
from synth_pipeline.tracking import Advance, silent

LAYOUT_VERSION = "0.5.4"
SCHEMA = 1
MAX_ONE_STEP = 50_000
"""One-step episodes cost six HDF5 objects each; above this Minari's reader takes minutes."""

GYMNASIUM_IDS = {
    "hopper": "Hopper-v5",
    "halfcheetah": "HalfCheetah-v5",
    "walker2d": "Walker2d-v5",
    "pendulum": "Pendulum-v1",
    "pointmaze-umaze": None,
    "pointmaze-medium": None,
    "pointmaze-large": None,
}
"""Gymnasium ids of our environments; the mazes have none, since our observations are Gymnasium's flattened."""

_MINARI_KEYS = (
    "algorithm_name",
    "author",
    "author_email",
    "code_permalink",
    "description",
    "num_episodes_average_score",
    "requirements",
)
_ID = re.compile(r"^(?:[A-Za-z0-9_-]{2,}/)*[A-Za-z0-9_-]+-v\d+$")


def write_minari(
    dataset_id: str,
    *,
    spec: DatasetSpec,
    episodes: Iterable[Episodes],
    one_step: Iterable[Transitions] | Transitions | None = None,
    root: Path,
    metadata: Mapping[str, Any],
    advance: Advance = silent,
) -> Path:
    """Write a dataset that `minari.load_dataset` reads, and read it back before it appears.

    Memory is that of one part. Columns beyond Minari's own become infos; the column `synthetic` becomes the
    attribute `source` (`real`, `synthetic`, `mixed`) of each episode, and an info where a part has both. One-step
    episodes keep only the infos that the spec names and are `synthetic` unless their column says otherwise: their
    provenance is in the flat file.

    Args:
        dataset_id: `(namespace/)*name-v<version>`, e.g. `hopper/medium-replay-synther-v0`.
        spec: Columns, environment and reference returns.
        episodes: Parts of one or more episodes, e.g. one shard at a time.
        one_step: Independent rows, each of which becomes the episode `[s, s']`; at most 50,000.
        root: Folder of Minari datasets (what `MINARI_DATASETS_PATH` points to).
        metadata: Plain JSON values. Keys of Minari (`description`, `author`, ...) stand at its top level, all others
            under `synth_pipeline`.
        advance: Told of each episode that was written, and again when it was read back.

    Returns:
        The dataset's folder.

    Raises:
        ConfigError: For an id that Minari would not accept or that leaves the folder.
        ExportError: When the id exists, columns are missing or change type, there are too many one-step episodes,
            or the dataset does not read back as written.
        ResourceError: When the disk is full.
    """
    _check_id(dataset_id, root)
    if isinstance(one_step, Transitions):
        _check_count(len(one_step))
        one_step = [one_step]
    values = _metadata(dataset_id, spec, metadata)
    target = root / dataset_id
    with staged_directory(target) as staged:
        data = staged / "data"
        data.mkdir()
        with hdf5.create(data / "main_data.hdf5") as writer:
            ledger = _write_episodes(writer, spec, episodes, one_step or (), advance)
            writer.verify = partial(_complete, data, values | _spaces(spec, ledger.tables[0]), ledger, advance)
    _declare_namespaces(root, dataset_id)
    return target


def next_version(dataset_id: str, root: Path) -> str:
    """The id itself while no version as high exists, else the id with the next version above all that exist.

    Raises:
        ConfigError: For an id that Minari would not accept or that leaves the folder.
    """
    _check_form(dataset_id)
    stem, _, version = dataset_id.rpartition("-v")
    pattern = re.compile(re.escape(Path(stem).name) + r"-v(\d+)")
    folder = (root / dataset_id).parent
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    taken = [int(match[1]) for name in names if (match := pattern.fullmatch(name))]
    return f"{stem}-v{max([int(version), *(number + 1 for number in taken)])}"


def _check_form(dataset_id: str) -> None:
    parts = safe_parts(dataset_id, kind="Minari dataset id")
    if not _ID.match(dataset_id) or "data" in parts:
        raise ConfigError(
            f"'{dataset_id}' cannot be used as a Minari dataset id",
            found=repr(dataset_id),
            accepted="(namespace/)name-v<version> of letters, digits, '_', '-'; namespaces of 2 or more, not 'data'",
            fix="e.g. hopper/medium-replay-synther-v0",
        )


def _check_id(dataset_id: str, root: Path) -> None:
    _check_form(dataset_id)
    for parent in Path(dataset_id).parents[:-1]:
        if (root / parent / "data").exists():
            raise ConfigError(f"'{parent}' is a dataset and cannot be a namespace", fix="choose another namespace")
    if (root / dataset_id).exists():
        raise ExportError(
            f"the Minari dataset '{dataset_id}' exists already",
            found=root / dataset_id,
            accepted="an id that is free",
            fix=f"use '{next_version(dataset_id, root)}'",
        )


def _check_count(rows: int) -> None:
    if rows > MAX_ONE_STEP:
        raise ExportError(
            "too many single transitions for a Minari dataset",
            found=f"{rows:,} or more",
            accepted=f"at most {MAX_ONE_STEP:,}: Minari stores every episode as a group of files within the file",
            fix="write them to the flat HDF5 file (write_flat), which takes any number",
        )


def _complete(data: Path, values: dict[str, Any], ledger: Ledger, advance: Advance) -> None:
    """Write the metadata and read everything back."""
    size = round((data / "main_data.hdf5").stat().st_size / 1e6, 1)
    totals = {"total_episodes": len(ledger), "total_steps": ledger.total_steps, "dataset_size": size}
    write_json(data / "metadata.json", values | totals)
    check_minari(data, ledger, advance)


def _write_episodes(
    writer: hdf5.Writer,
    spec: DatasetSpec,
    episodes: Iterable[Episodes],
    one_step: Iterable[Transitions],
    advance: Advance,
) -> Ledger:
    ledger, out = Ledger(), EpisodeWriter(writer.file)
    for part, columns, default in _parts(spec, episodes, one_step):
        if ledger.tables:
            _check_columns(ledger.tables[0], columns)
        for episode, arrays in enumerate(episode_arrays(part, columns)):
            rows = slice(int(part.starts[episode]), int(part.starts[episode + 1]))
            writer.reserve(sum(values.nbytes for values in arrays))
            out.write(columns, arrays, source_of(part.columns, rows) or default)
            ledger.add(columns, arrays)
            advance(1, "Minari")
    if not len(ledger):
        raise ExportError("there is nothing to export", found="0 episodes", fix="generate data first")
    return ledger


def _parts(
    spec: DatasetSpec, episodes: Iterable[Episodes], one_step: Iterable[Transitions]
) -> Iterator[tuple[Episodes, tuple[Column, ...], str | None]]:
    for part in episodes:
        full = with_truncations(part)
        labels = full.columns.get("synthetic")
        told = labels is None or labels.all() or not labels.any()  # by the attribute alone
        infos = (name for name in full.columns if name not in STANDARD and not (told and name == "synthetic"))
        yield full, columns_of(full, tuple(infos)), None
    count = 0
    for rows in one_step:
        count += len(rows)
        _check_count(count)
        full = as_episodes(rows)
        infos = (name for name in full.columns if name not in STANDARD and spec.has(name))
        yield full, columns_of(full, tuple(infos)), "synthetic"


def _check_columns(first: tuple[Column, ...], columns: tuple[Column, ...]) -> None:
    for expected, found in zip(first[: len(STANDARD)], columns, strict=False):
        if expected != found:
            raise ExportError(
                f"the column '{found.name}' changes between parts",
                found=f"{found.dtype} {found.shape}",
                accepted=f"{expected.dtype} {expected.shape}, as in the first part",
                fix="convert the column with .astype before exporting",
            )


def _metadata(dataset_id: str, spec: DatasetSpec, metadata: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in metadata.items() if key not in _MINARI_KEYS}
    values: dict[str, Any] = {
        "dataset_id": dataset_id,
        "minari_version": LAYOUT_VERSION,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        **{key: metadata[key] for key in _MINARI_KEYS if key in metadata},
        "synth_pipeline": {**own, "schema": SCHEMA, "spec": spec.plain()},
    }
    for key, reference in (("ref_min_score", spec.reference_min), ("ref_max_score", spec.reference_max)):
        if reference is not None:
            values[key] = reference
    environment, omitted = _environment(spec)
    if environment is not None:
        values["env_spec"] = environment
    if omitted is not None:
        values["synth_pipeline"]["env_spec_omitted"] = omitted
    for key in ("author", "author_email"):
        if isinstance(values.get(key), str):
            values[key] = [values[key]]
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ExportError(
            "the metadata of a dataset must be plain JSON", found=str(error), fix="convert the value first"
        ) from None
    return values


def _environment(spec: DatasetSpec) -> tuple[str | None, str | None]:
    """The environment spec as JSON, or None and, if an environment was named, why it is left out."""
    origin = spec.provenance
    known = spec.environment in GYMNASIUM_IDS
    name = GYMNASIUM_IDS[str(spec.environment)] if known else origin.get("gymnasium_id", origin.get("environment_id"))
    if name is None:
        return None, None
    if "observation_slices" in origin:
        return None, f"the observations of '{name}' are a Dict, and those of this dataset are flat"
    try:
        found = copy.deepcopy(_registered(name))
    except (gymnasium.error.Error, ImportError) as error:
        return None, f"'{name}' is not installed where this dataset was exported: {error}"
    found.kwargs.update(origin.get("gymnasium_kwargs", origin.get("environment_kwargs", {})))
    return str(found.to_json()), None


def _registered(name: str) -> EnvSpec:
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error:
        importlib.import_module("gymnasium_robotics")  # registers its environments
        return gymnasium.spec(name)


def _spaces(spec: DatasetSpec, columns: tuple[Column, ...]) -> dict[str, str]:
    dtypes = {column.name: column.dtype for column in columns}
    return {
        f"{name.removesuffix('s')}_space": serialize_space(_space(spec.field(name), dtypes[name]))
        for name in ("observations", "actions")
    }


def _space(field: Field, dtype: np.dtype[Any]) -> spaces.Space[Any]:
    if field.num_categories:
        if field.shape == ():
            return spaces.Discrete(field.num_categories)
        return spaces.MultiDiscrete(np.full(field.shape, field.num_categories))
    if field.kind == "image":
        return spaces.Box(0, 255, field.shape, np.uint8)
    if dtype == np.bool_:
        return spaces.Box(0, 1, field.shape, np.int8)
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    low = _bound(field, field.low, limits.min if limits else -np.inf, dtype)
    high = _bound(field, field.high, limits.max if limits else np.inf, dtype)
    return spaces.Box(low, high, field.shape, dtype.type)


def _bound(field: Field, values: tuple[float, ...] | None, default: float, dtype: np.dtype[Any]) -> Array:
    return np.full(field.shape, default, dtype) if values is None else np.array(values, dtype).reshape(field.shape)


def _declare_namespaces(root: Path, dataset_id: str) -> None:
    for parent in Path(dataset_id).parents[:-1]:
        path = root / parent / "namespace_metadata.json"
        if not os.path.lexists(path):
            write_json(path, {})
