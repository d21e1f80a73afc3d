"""Checks that every source makes before anyone may use its data: names, shapes, flags, finite values, bounds."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.fields import Array, Field
from synth_pipeline.data.spec import transition_fields
from synth_pipeline.errors import SourceError, nearest

LEAST_STEPS = 64  # of float32 that a column which varies spans
MOST_CLASSES = 1_024
_BLOCK_VALUES = 1 << 22
# What others call our columns. Errors say so; nothing is read under these names, which mean other things elsewhere.
HINTS = {
    **dict.fromkeys(("obs", "observation", "state", "states"), "observations"),
    **dict.fromkeys(("act", "acts", "action"), "actions"),
    **dict.fromkeys(("rew", "rews", "reward"), "rewards"),
    **dict.fromkeys(("done", "dones", "terminal", "terminated", "termination"), "terminations"),
    **dict.fromkeys(("timeout", "truncated", "truncation"), "truncations"),
    **dict.fromkeys(("next_obs", "next_observation", "next_state", "next_states"), "next_observations"),
    "cost": "costs",
}
MIXED = ("done", "dones")  # often ends of the task and time limits in one column


def require_columns(
    names: Collection[str], present: Iterable[str], origin: str, *, read: Mapping[str, str] | None = None
) -> None:
    """Raise for the first column that is not there, with the key that may be meant by it.

    Args:
        names: The columns that are needed.
        present: The keys as they stand in the data.
        origin: Name of the data, for the error.
        read: Column -> key, for those that were recognised under another name.
    """
    keys, recognised = sorted(present), read or {}
    missing = next((name for name in names if name not in keys and name not in recognised), None)
    if missing is None:
        return
    taken = {*names, *HINTS.values(), *recognised.values()}
    guess = _meant(missing, [key for key in keys if key not in taken])
    raise SourceError(
        f"{origin} has no column '{missing}'",
        found=", ".join(keys) or "no columns at all",
        accepted=missing,
        fix=_renaming(missing, guess) if guess else f"add the column '{missing}'",
    )


def _meant(name: str, unread: list[str]) -> str | None:
    """The key that is another library's name of a column, else one spelt like it and not like another column."""
    hinted = [key for key in unread if HINTS.get(key.casefold()) == name]
    others = set(HINTS.values()) - {name}
    spelt = [k for k in unread if k.casefold() not in HINTS and nearest(k, [name, *sorted(others)]) not in others]
    return hinted[0] if hinted else nearest(name, spelt)


def _renaming(name: str, key: str) -> str:
    apart = ", and mark time limits in 'truncations' instead" if key.casefold() in MIXED else ""
    return f"did you mean '{name}' by '{key}'? rename it{apart}"


def reject_typos(present: Iterable[str], optional: Collection[str], origin: str) -> None:
    """Raise when a key that nobody reads looks like an optional column that is absent, or is another name of it."""
    for key in present:
        hint = HINTS.get(key.casefold())
        match = [hint] if hint else difflib.get_close_matches(key, optional, n=1, cutoff=0.7)
        if match and match[0] in optional:
            raise SourceError(
                f"{origin}: the column '{key}' is not known",
                found=repr(key),
                accepted=", ".join(sorted(optional)),
                fix=f"did you mean '{match[0]}'? rename it",
            )


def as_float32(name: str, values: Array, origin: str) -> Array:
    """Values as float32; what overflows becomes inf and is refused by `require_finite`.

    Raises:
        SourceError: When what varies would not vary any more.
    """
    wide = np.asarray(values)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32, copy=False)
    if wide.dtype != np.float32 and len(wide):
        require_resolved(name, wide.min(axis=0), wide.max(axis=0), origin)
    return narrow


def require_resolved(name: str, low: Array, high: Array, origin: str) -> None:
    """Raise when the range of a component is too small, beside its size, for float32 to tell its values apart.

    Args:
        name: The column.
        low: Smallest value of each component, wide.
        high: Largest.
        origin: Name of the file or dict.
    """
    low, high = (np.asarray(end, np.float64).reshape(-1) for end in (low, high))
    step = np.maximum(np.abs(low), np.abs(high)) * np.finfo(np.float32).eps
    lost = np.flatnonzero((high > low) & (high - low < LEAST_STEPS * step))
    if len(lost):
        first = lost[0]
        raise SourceError(
            f"{origin}: float32, in which rows are kept, cannot hold how '{name}' varies",
            found=f"component {first} between {low[first]:.9g} and {high[first]:.9g}",
            accepted=f"a range of at least {LEAST_STEPS} steps of float32 ({LEAST_STEPS * step[first]:.2g} there)",
            fix="subtract an offset before the column is saved",
        )


def require_finite(name: str, values: Array, origin: str) -> None:
    """Raise when a column holds NaN or inf, with the first row and the number of rows."""
    step = max(1, _BLOCK_VALUES // max(1, int(np.prod(values.shape[1:]))))
    axes = tuple(range(1, values.ndim))
    bad, first = 0, -1
    for start in range(0, len(values), step):
        rows = ~np.isfinite(values[start : start + step]).all(axis=axes)
        count = int(rows.sum())
        if count and first < 0:
            first = start + int(rows.argmax())
        bad += count
    if bad:
        raise SourceError(
            f"{origin}: column '{name}' holds NaN or inf",
            found=f"{bad:,} of {len(values):,} rows, first in row {first}",
            accepted="numbers that are finite in float32",
            fix="remove those rows or their episodes",
        )


def flags(name: str, values: Array, origin: str) -> npt.NDArray[np.bool_]:
    """A column of flags as booleans `[n]`; numbers must be 0 or 1."""
    array = np.asarray(values)
    if array.dtype == np.bool_:
        return array
    wrong = np.flatnonzero((array != 0) & (array != 1))
    if array.dtype.kind not in "iuf" or len(wrong):
        where = f"{array[wrong[0]]} in row {wrong[0]}" if len(wrong) else f"dtype {array.dtype}"
        raise SourceError(
            f"{origin}: column '{name}' does not hold flags",
            found=where,
            accepted="booleans, or numbers 0 and 1",
            fix=f"save {name} as booleans",
        )
    return array.astype(np.bool_)


def action_field(actions: Array, declared: tuple[Array, Array] | None) -> tuple[Field, str]:
    """The action column with finite bounds that hold every row, and where the bounds come from.

    Args:
        actions: `[n, a]` float32.
        declared: Lower and upper bound, `[a]` each, as the dataset states them; None or infinite: not stated.

    Returns:
        The field, and "declared", "declared, widened to the data" or "observed".
    """
    low, high, origin = actions.min(axis=0), actions.max(axis=0), "observed"
    if declared is not None and all(np.isfinite(bound).all() for bound in declared):
        # Compared in the data's precision: float32(-0.4) lies below -0.4.
        floor, ceiling = (np.asarray(bound, actions.dtype) for bound in declared)
        if np.all(low >= floor) and np.all(high <= ceiling):
            low, high, origin = *declared, "declared"
        else:
            low, high, origin = np.minimum(low, floor), np.maximum(high, ceiling), "declared, widened to the data"
    bounds: dict[str, Any] = {"low": tuple(low.tolist()), "high": tuple(high.tolist())}
    return Field(name="actions", shape=actions.shape[1:], clip=True, **bounds), origin


def class_field(name: str, values: Array, classes: int, origin: str) -> Field:
    """A categorical column; raises when a value lies outside 0..classes-1."""
    wrong = np.flatnonzero((values < 0) | (values >= min(classes, MOST_CLASSES)))
    if len(wrong) or classes < 2:
        raise SourceError(
            f"{origin}: column '{name}' does not hold classes",
            found=f"{values[wrong[0]]} in row {wrong[0]}" if len(wrong) else f"{classes} class",
            accepted=f"integers 0 to {min(classes, MOST_CLASSES) - 1:,}",
            fix=f"number the classes from 0; or, if these are numbers, save '{name}' as floats of shape (rows, 1)",
        )
    return Field(name=name, kind="categorical", num_categories=classes)


def columns_of(observations: Field, actions: Field, extra: tuple[Field, ...] = ()) -> tuple[Field, ...]:
    """The columns of transitions whose observations may be classes."""
    usual = transition_fields(observations.size, actions, extra=extra)
    states = ("observations", "next_observations")
    return tuple(observations.replace(name=field.name) if field.name in states else field for field in usual)


def same_rows(shapes: Mapping[str, tuple[int, ...]], origin: str) -> None:
    """Raise when a column has another number of rows than the observations, or is a single value."""
    for name, shape in shapes.items():
        if not shape:
            raise SourceError(
                f"{origin}: column '{name}' is a single value",
                accepted="one entry a row",
                fix="save one entry a row, or leave it out",
            )
    rows = shapes["observations"][0]
    for name, shape in shapes.items():
        if shape[0] != rows:
            raise SourceError(
                f"{origin}: column '{name}' has another number of rows than the observations",
                found=f"{shape[0]:,} against {rows:,}",
                accepted=f"{rows:,} rows in every column",
                fix="check how the columns were cut before they were saved",
            )
