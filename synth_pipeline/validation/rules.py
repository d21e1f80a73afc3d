"""Rules of the user, for data without a simulator: what every row must obey, in YAML.

    columns:
      observations[3]: {low: 0.0, high: 10.0}
      rewards: {integer: true}
    kinematics:
      dt: 0.02
      tolerance: 0.001
      pairs: [{position: 0, velocity: 2}, {position: 1, velocity: 3, angle: true}]
    identities:
      - sum: {"next_observations[5]": 1, "observations[5]": -1}     # equal columns
        equals: 0
        tolerance: 0
      - sum: {"observations[6]": 1, "observations[7]": 1}
        equals: 1
        tolerance: 1.0e-6

A column is `name`, or `name[i]` for the i-th component of a row. Limits are compared in the precision of the column.
One set of rules serves three uses: samples are moved into them (`Rules.clipped`), rows that break them are rejected
(`Rules.violations`), and the gate counts them (`rules`). A value that is not finite breaks every rule on its column.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field as Setting
from pydantic import field_validator, model_validator

from synth_pipeline.config import Config, read_yaml
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Array
from synth_pipeline.data.rows import RowSource, chunks, over_parts
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.envs.base import KinematicPair
from synth_pipeline.errors import ConfigError, UnknownNameError, nearest, unknown_name
from synth_pipeline.validation.contract import CHUNK
from synth_pipeline.validation.kinematics import Kinematics, residuals
from synth_pipeline.validation.metric import Measurement
from synth_pipeline.validation.truth import Bools, Floats

COLUMN = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[(\d+)\])?")
FAMILIES = ("bounds", "integers", "kinematics", "identities")
METRICS = tuple(f"rules.{family}" for family in FAMILIES)
Check = Callable[[Transitions], Bools]  # rows -> [n], those that break a rule


def _known_form(name: str) -> str:
    if not COLUMN.fullmatch(name):
        raise ValueError(f"'{name}' is not a column: write name, or name[3] for one component")
    return name


class ColumnRule(Config):
    """Limits of one column."""

    low: float | None = Setting(None, allow_inf_nan=False, description="smallest value")
    high: float | None = Setting(None, allow_inf_nan=False, description="largest value")
    integer: bool = Setting(False, description="only whole numbers")

    @model_validator(mode="after")
    def _check(self) -> ColumnRule:
        if self.low is None and self.high is None and not self.integer:
            raise ValueError("a rule on a column needs low, high or integer")
        low, high = self.limits(whole=self.integer)
        if low > high:
            raise ValueError(f"no {'integer' if self.integer else 'number'} lies between {self.low} and {self.high}")
        return self

    def limits(self, *, whole: bool) -> tuple[float, float]:
        """Smallest and largest allowed value, infinite where there is none.

        Args:
            whole: Of the whole numbers.
        """
        low = -math.inf if self.low is None else math.ceil(self.low) if whole else self.low
        high = math.inf if self.high is None else math.floor(self.high) if whole else self.high
        return low, high


class KinematicRule(Config):
    """Positions that move as their velocities say: |p' - p - dt (v + v') / 2| <= tolerance."""

    dt: float = Setting(gt=0, description="seconds per step")
    tolerance: float = Setting(ge=0, description="largest residual, in the unit of the positions")
    pairs: tuple[KinematicPair, ...] = Setting(min_length=1, description="components of the observations")


class Identity(Config):
    """|sum of coefficient * column - constant| <= tolerance."""

    sum: dict[str, float] = Setting(min_length=1, description="column -> coefficient")
    equals: float = Setting(0.0, allow_inf_nan=False, description="the constant")
    tolerance: float = Setting(ge=0, description="largest deviation, in the unit of the sum")

    @field_validator("sum")
    @classmethod
    def _check(cls, terms: dict[str, float]) -> dict[str, float]:
        if not all(math.isfinite(coefficient) and coefficient for coefficient in terms.values()):
            raise ValueError("coefficients are finite numbers other than 0")
        return {_known_form(name): coefficient for name, coefficient in terms.items()}

    def __str__(self) -> str:
        terms = " ".join(f"{coefficient:+g} {name}" for name, coefficient in self.sum.items())
        return f"{terms} = {self.equals:g} within {self.tolerance:g}"


class Rules(Config):
    """Everything that every row must obey."""

    columns: dict[str, ColumnRule] = Setting({}, description="column -> its limits")
    kinematics: KinematicRule | None = Setting(None, description="positions with their velocities")
    identities: tuple[Identity, ...] = Setting((), description="sums of columns that are constant")

    @field_validator("columns")
    @classmethod
    def _known_forms(cls, columns: dict[str, ColumnRule]) -> dict[str, ColumnRule]:
        return {_known_form(name): rule for name, rule in columns.items()}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a YAML file.

        Raises:
            ConfigError: When the file cannot be read, on an unknown key (with the nearest known one), or a value out
                of range.
        """
        return cls.parse(read_yaml(path), where=str(path))

    def require(self, spec: DatasetSpec) -> None:
        """Fail when a rule names what the data does not have.

        Raises:
            UnknownNameError: For a column that does not exist, with the nearest one.
            ConfigError: For a component that does not exist, or a column of several components without one.
        """
        pairs = self.kinematics.pairs if self.kinematics else ()
        components = {component for pair in pairs for component in (pair.position, pair.velocity)}
        named = [name for identity in self.identities for name in identity.sum]
        moving = [f"{name}[{i}]" for i in components for name in ("observations", "next_observations")]
        for name in (*self.columns, *named, *moving):
            _require_column(name, spec)

    @property
    def system(self) -> Kinematics | None:
        """The kinematic pairs, for `kinematics.residual`."""
        return Kinematics(self.kinematics.pairs, self.kinematics.dt) if self.kinematics else None

    def clipped(self, rows: Transitions) -> Transitions:
        """Rows whose columns are rounded to integers and moved into their limits; nothing else is mended."""
        columns: dict[str, Array] = {}
        for name, rule in self.columns.items():
            base, component = _parsed(name)
            if base not in columns:
                columns[base] = rows[base].copy()
            values = _flat(columns[base])
            values[:, component or 0] = _moved(rule, values[:, component or 0])
        return rows.with_columns(**columns)

    def violations(self, rows: Transitions) -> Bools:
        """Rows `[n]` that break a rule.

        Raises:
            UnknownNameError: When a column is missing.
        """
        broken = np.zeros(len(rows), bool)
        for checks in self.checks().values():
            for check in checks.values():
                broken |= check(rows)
        return broken

    def checks(self) -> dict[str, dict[str, Check]]:
        """Family of `FAMILIES` -> rule in words -> which rows break it."""
        bounded = {n: r for n, r in self.columns.items() if r.low is not None or r.high is not None}
        integers = [name for name, rule in self.columns.items() if rule.integer]
        moving = [(self.kinematics, pair) for pair in self.kinematics.pairs] if self.kinematics else []
        return {
            "bounds": {name: partial(_out_of_bounds, name, rule) for name, rule in bounded.items()},
            "integers": {name: partial(_not_whole, name) for name in integers},
            "kinematics": {
                f"observations[{pair.position}] by observations[{pair.velocity}]": partial(_jumps, rule, pair)
                for rule, pair in moving
            },
            "identities": {str(identity): partial(_unequal, identity) for identity in self.identities},
        }


def rules(rows: RowSource, given: Rules | None) -> list[Measurement]:
    """`rules.bounds`, `rules.integers`, `rules.kinematics`, `rules.identities`: shares of rows that break a rule.

    Args:
        rows: Every row is read once, part by part and chunk by chunk; none without rules.
        given: The user's rules; None: there are none.

    Returns:
        With the value None for a family without rules, or with a rule on an optional column that the rows lack. The
        details count the rows that break each rule.

    Raises:
        ConfigError: When a rule names what the data does not have (see `Rules.require`).
    """
    given = given or Rules()
    given.require(rows.spec)
    counts: dict[str, Counter[str]] = {family: Counter() for family in FAMILIES}
    checks, broken = given.checks(), Counter[str]()
    lacking: dict[str, str] = {}
    for part in over_parts(rows, partial(_counted, given)) if any(checks.values()) else ():
        broken.update(part[0])
        lacking |= part[2]
        for family, found in part[1].items():
            counts[family].update(found)
    without = {family: f"no rule on {family} is given" for family in FAMILIES if not checks[family]}
    why = dict.fromkeys(FAMILIES, "there are no rows") if not len(rows) else lacking | without
    return [_measurement(name, broken[name], dict(counts[name]), len(rows), why.get(name)) for name in FAMILIES]


def _counted(given: Rules, rows: RowSource) -> tuple[dict[str, int], dict[str, dict[str, int]], dict[str, str]]:
    """By family: rows that break a rule, rows that break each rule, and which column is lacking."""
    counts: dict[str, dict[str, int]] = {family: {} for family in FAMILIES}
    checks, broken = given.checks(), dict.fromkeys(FAMILIES, 0)
    lacking: dict[str, str] = {}
    for chunk in chunks(rows, CHUNK):
        for family in FAMILIES:
            try:
                masks = {rule: check(chunk) for rule, check in checks[family].items()}
            except UnknownNameError as error:
                lacking[family] = error.what
                continue
            broken[family] += int(np.any([*masks.values(), np.zeros(len(chunk), bool)], axis=0).sum())
            for rule, mask in masks.items():
                counts[family][rule] = counts[family].get(rule, 0) + int(mask.sum())
    return broken, counts, lacking


def _measurement(family: str, broken: int, counts: dict[str, int], total: int, why: str | None) -> Measurement:
    details: dict[str, Any] = {"why": why}
    if why is None:
        worst = max(counts, key=counts.__getitem__) if broken else None
        details = {"worst": worst, "fields": counts, "rows": total}
    return Measurement(
        f"rules.{family}",
        None if why else broken / total,
        "share of rows that break a rule",
        "lower",
        (0.0, 1.0),
        total,
        "rules of the user",
        details=details,
    )


# --- columns ---------------------------------------------------------------------------------------------------------


def _parsed(name: str) -> tuple[str, int | None]:
    match = COLUMN.fullmatch(name)
    assert match is not None
    base, component = match.groups()
    return base, None if component is None else int(component)


def _require_column(name: str, spec: DatasetSpec) -> None:
    base, component = _parsed(name)
    known = [field.name for field in spec.fields]
    if base not in known:
        guess = nearest(base, known)
        fix = f"did you mean '{guess}{name.removeprefix(base)}'?" if guess else None
        raise unknown_name("column", base, known, fix=fix)
    field = spec.field(base)
    if (component is None) == bool(field.shape):
        what = f"the column '{base}' has {field.size} components" if field.shape else f"'{base}' has no components"
    elif component is not None and component >= field.size:
        what = f"the column '{base}' has no component {component}"
    else:
        return
    accepted = f"{base}[0] to {base}[{field.size - 1}]" if field.shape else base
    raise ConfigError(f"{what}: a rule cannot be about '{name}'", found=name, accepted=accepted)


def _component(rows: Transitions, name: str) -> Array:
    """`[n]`, a view of one component of a column."""
    base, component = _parsed(name)
    return _flat(rows[base])[:, component or 0]


def _flat(column: Array) -> Array:
    return column.reshape(len(column), math.prod(column.shape[1:]))


def _limits(rule: ColumnRule, values: Array) -> tuple[float, float]:
    """Limits of what a column can hold; NumPy compares a float32 column with a Python number in float32."""
    return rule.limits(whole=rule.integer or values.dtype.kind != "f")


def _moved(rule: ColumnRule, values: Array) -> Floats:
    numbers = values.astype(np.float64)
    return np.clip(np.rint(numbers) if rule.integer else numbers, *_limits(rule, values))


# --- checks: rows `[n]` that break a rule ----------------------------------------------------------------------------


def _out_of_bounds(name: str, rule: ColumnRule, rows: Transitions) -> Bools:
    values = _component(rows, name)
    low, high = _limits(rule, values)
    kept: Bools = np.isfinite(values) & (values >= low) & (values <= high)
    return ~kept


def _not_whole(name: str, rows: Transitions) -> Bools:
    values = _component(rows, name).astype(np.float64)
    whole: Bools = np.isfinite(values) & (np.rint(values) == values)
    return ~whole


def _jumps(rule: KinematicRule, pair: KinematicPair, rows: Transitions) -> Bools:
    with np.errstate(invalid="ignore"):  # infinities: their difference is NaN, which is not within any tolerance
        kept: Bools = residuals(rows, Kinematics((pair,), rule.dt))[:, 0] <= rule.tolerance
    return ~kept


def _unequal(identity: Identity, rows: Transitions) -> Bools:
    with np.errstate(invalid="ignore"):
        terms = [weight * _component(rows, name).astype(np.float64) for name, weight in identity.sum.items()]
        kept: Bools = np.abs(np.sum(terms, axis=0) - identity.equals) <= identity.tolerance
    return ~kept
