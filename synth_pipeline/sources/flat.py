"""Flat columns from any file or dict -> a checked `Dataset`. The D4RL and npz sources differ only in how they read.

Keys are Gymnasium's or D4RL's: `observations, actions, rewards, terminations | terminals`, and if there are any
`truncations | timeouts, next_observations, costs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import Any, NoReturn

import numpy as np

from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.d4rl import breaks, to_episodes
from synth_pipeline.data.fields import Array, Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.errors import ConfigError, SourceError
from synth_pipeline.sources import checks

ALIASES = {"terminals": "terminations", "timeouts": "truncations"}
REQUIRED = ("observations", "actions", "rewards", "terminations")
OPTIONAL = ("next_observations", "truncations", "costs")
_STATES = ("observations", "next_observations")
_VECTORS = (*_STATES, "actions")


@dataclass(frozen=True)
class Given:
    """What the caller or the file states beside the columns.

    Attributes:
        dataset_id: Id of the dataset.
        origin: Name of the file or dict, for errors.
        horizon: Time limit in steps; needed when nothing marks the time limits.
        action_bounds: Lower and upper bound of actions (numbers, or one per component); None: what was observed.
        independent: The rows are single transitions, without episodes; their next observations are there.
        spec: The spec that an export of ours carries, which wins over what is derived.
        provenance: Plain JSON for `DatasetSpec.provenance`.
    """

    dataset_id: str
    origin: str
    horizon: int | None = None
    action_bounds: tuple[Any, Any] | None = None
    independent: bool = False
    spec: DatasetSpec | None = None
    provenance: Mapping[str, Any] = attribute(default_factory=dict)


def canonical_keys(keys: Iterable[str], origin: str, *, required: Sequence[str] = REQUIRED) -> dict[str, str]:
    """Gymnasium's name -> key of the file, for every column that is read.

    Args:
        keys: The keys of the file or dict.
        origin: Its name, for errors.
        required: Columns that it must have.

    Raises:
        SourceError: When a required column is missing, stands twice, or an optional one is misspelt.
    """
    present = list(keys)
    found: dict[str, str] = {}
    for key in present:
        name = ALIASES.get(key, key)
        if name in found:
            raise SourceError(
                f"{origin}: '{found[name]}' and '{key}' are two names of one column", found="both", fix="keep one"
            )
        if name in REQUIRED + OPTIONAL:
            found[name] = key
    checks.require_columns(required, present, origin, read=found)
    unread = [key for key in present if key not in found.values()]
    checks.reject_typos(unread, [name for name in OPTIONAL if name not in found], origin)
    return found


def dataset(columns: Mapping[str, Array], given: Given) -> Dataset:
    """Check flat columns and build the dataset; the arrays are not changed.

    Args:
        columns: Gymnasium's names -> `[n, ...]`; columns of other names go along as they are.
        given: Facts beside the columns.

    Raises:
        SourceError: On wrong shapes, NaN or inf, bad flags, an empty dataset, or unmarked time limits.
        ConfigError: For a horizon below 1, or action bounds of another size than the actions.
    """
    if given.horizon is not None and given.horizon < 1:
        raise ConfigError("a horizon has at least one step", found=given.horizon, fix="e.g. horizon=1000")
    clean = _checked(columns, given)
    independent = given.independent or _unconnected(clean)
    container = _rows(clean) if independent else _episodes(clean, given)
    spec = given.spec or _spec(clean, given)
    _require_spec(spec, clean, given.origin)
    if isinstance(container, Episodes):
        return Dataset(spec, episodes=container)
    return Dataset(spec, rows=container)


def _spec(clean: Mapping[str, Array], given: Given) -> DatasetSpec:
    observations = Field(name="observations", shape=clean["observations"].shape[1:])
    if not observations.shape:
        observations = _classes("observations", [clean[name] for name in _STATES if name in clean], given.origin)
    actions, bounds_from = _action_field(clean["actions"], given)
    following = "following row; a terminal row repeats its own observation, its next one is not in the data"
    return DatasetSpec(
        dataset_id=given.dataset_id,
        fields=checks.columns_of(observations, actions, (Field(name="costs"),) if "costs" in clean else ()),
        horizon=given.horizon,
        provenance={
            **given.provenance,
            "action_bounds": bounds_from,
            "next_observations": "exact" if "next_observations" in clean else following,
        },
    )


def _checked(columns: Mapping[str, Array], given: Given) -> dict[str, Array]:
    origin = given.origin
    checks.same_rows({name: np.shape(column) for name, column in columns.items()}, origin)
    clean = {name: _shaped(name, np.asarray(column), origin) for name, column in columns.items()}
    if len(clean["observations"]) == 0:
        raise SourceError(
            f"{origin} holds no rows",
            found="0 rows",
            accepted="at least one step",
            fix="check the program that wrote it",
        )
    if "next_observations" in clean and clean["next_observations"].shape != clean["observations"].shape:
        _wrong_shape("next_observations", clean["next_observations"], str(clean["observations"].shape), origin)
    for name, column in clean.items():
        if name in ("terminations", "truncations"):
            clean[name] = checks.flags(name, column, origin)
        elif name in _VECTORS and column.ndim == 1:
            clean[name] = column.astype(np.int64, copy=False)
        elif name in REQUIRED + OPTIONAL:
            clean[name] = checks.as_float32(name, column, origin)
            checks.require_finite(name, clean[name], origin)
    return clean


def _shaped(name: str, column: Array, origin: str) -> Array:
    if column.dtype.kind not in "fiub":
        raise SourceError(
            f"{origin}: column '{name}' is not numeric",
            found=f"dtype {column.dtype}",
            accepted="floats, integers, booleans",
            fix="convert the column before it is saved",
        )
    if name in _VECTORS:
        classes = column.ndim == 1 and column.dtype.kind in "iu"
        if not classes and (column.ndim != 2 or column.shape[1] == 0):
            _wrong_shape(name, column, "(rows, components), or integers of shape (rows,)", origin)
        return column
    if name not in REQUIRED + OPTIONAL:
        return column
    if column.ndim == 2 and column.shape[1] == 1:
        return column[:, 0]
    if column.ndim != 1:
        _wrong_shape(name, column, "(rows,)", origin)
    return column


def _wrong_shape(name: str, column: Array, accepted: str, origin: str) -> NoReturn:
    raise SourceError(
        f"{origin}: column '{name}' has the wrong shape",
        found=f"{column.shape}, {column.dtype}",
        accepted=accepted,
        fix="reshape the column before it is saved",
    )


def _action_field(actions: Array, given: Given) -> tuple[Field, str]:
    if actions.ndim == 1:
        return _classes("actions", [actions], given.origin), "observed"
    declared = None
    if given.action_bounds is not None:
        low, high = (np.asarray(bound, np.float64) for bound in given.action_bounds)
        if not all(bound.shape in ((), actions.shape[1:]) for bound in (low, high)):
            raise ConfigError(
                f"{given.origin}: the action bounds do not fit the actions",
                found=f"{low.size} and {high.size} numbers",
                accepted=f"1 or {actions.shape[1]}",
            )
        declared = (np.broadcast_to(low, actions.shape[1:]), np.broadcast_to(high, actions.shape[1:]))
    return checks.action_field(actions, declared)


def _classes(name: str, columns: Sequence[Array], origin: str) -> Field:
    values = np.concatenate(columns)
    return checks.class_field(name, values, max(2, int(values.max()) + 1), origin)


def _unconnected(clean: Mapping[str, Array]) -> bool:
    """Whether the rows are single transitions: most neither end an episode nor continue in the following row."""
    if "next_observations" not in clean:
        return False
    marked = clean["terminations"] | clean.get("truncations", np.False_)
    unmarked = breaks(clean["observations"], clean["next_observations"]) & ~marked
    return len(unmarked) > 1 and float(unmarked.mean()) > 0.5


def _rows(clean: Mapping[str, Array]) -> Transitions:
    order = dict.fromkeys((*REQUIRED[:3], "next_observations", *clean))
    return Transitions({name: clean[name] for name in order})


def _episodes(clean: Mapping[str, Array], given: Given) -> Episodes:
    names = {canonical: alias for alias, canonical in ALIASES.items()}
    episodes = to_episodes({names.get(k, k): column for k, column in clean.items()}, horizon=given.horizon)
    longest = int(episodes.lengths.max())
    if given.horizon is not None and longest > given.horizon:
        raise SourceError(
            f"{given.origin} has an episode longer than the horizon",
            found=f"{longest:,} steps",
            accepted=f"at most {given.horizon:,}",
            fix="pass the right horizon, or mark the time limits in 'truncations'",
        )
    return episodes


def _require_spec(spec: DatasetSpec, clean: Mapping[str, Array], origin: str) -> None:
    for field in spec.fields:
        if field.name in clean and field.shape != clean[field.name].shape[1:]:
            accepted = f"(rows, {', '.join(map(str, field.shape))})"
            _wrong_shape(field.name, clean[field.name], f"{accepted} as its spec says", origin)
