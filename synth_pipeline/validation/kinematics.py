"""Kinematics: do positions move as velocities say, does anything move, and do rows stay where real rows are?

`kinematics.residual`: |p' - p - dt (v + v') / 2|, the trapezoidal rule, averaged over rows and divided by the same of
the real rows, then averaged over the pairs. The mean of the rows sees both noise, which is in every row, and
teleports, which are in few; the median (in the details) is blind to teleports, and sees less noise where contacts
dominate the mean. The rule's own error, large where steps are coarse, hides noise that is smaller.
`kinematics.self_loops`: share of rows that act and stay within 1e-3 real standard deviations; real rows may do so too
(at a wall), so it is read against the floor. `kinematics.outside`: share of rows with a component beyond the real
range widened by 5 %; components that are constant in the real rows have no range and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from synth_pipeline import envs
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.envs.base import KinematicPair
from synth_pipeline.validation.metric import Direction, Floor, Measurement, chosen_rows, floor_of_rows, subsample
from synth_pipeline.validation.neighbours import ROW
from synth_pipeline.validation.truth import Bools, Floats, Truth

SAMPLE = 50_000
STILL = 1e-3  # real standard deviations
WIDER = 0.05  # of the real range
UNITS = {
    "residual": "1 = as real rows",
    "self_loops": "share of rows that act and stay",
    "outside": "share of rows beyond the real range",
}
METRICS = tuple(f"kinematics.{name}" for name in UNITS)
DISTRIBUTIONS = ("kinematics.residual",)  # contacts break the rule, so it matters how often rows are near them
SOURCE = "trapezoidal rule between position and velocity; self-loops and ranges against real rows"


@dataclass(frozen=True)
class Kinematics:
    """Which components of an observation are the velocities of which others.

    Attributes:
        pairs: Positions with their velocities.
        dt: Seconds per step.
    """

    pairs: tuple[KinematicPair, ...]
    dt: float


def known_kinematics(spec: DatasetSpec) -> Kinematics | None:
    """The pairs of the environment of a dataset; None where it has none, or is not known."""
    if spec.environment is None:
        return None
    environment = envs.make(spec.environment).spec
    return Kinematics(environment.kinematics, environment.dt) if environment.kinematics else None


def residuals(rows: Transitions, system: Kinematics) -> Floats:
    """`[n, pairs]`, |p' - p - dt (v + v') / 2| in the units of the position; differences of angles wrap into [0, pi].

    Args:
        rows: With finite observations and next observations.
        system: The pairs.
    """
    before, after = (np.asarray(rows[name], np.float64) for name in ("observations", "next_observations"))
    p, v = [pair.position for pair in system.pairs], [pair.velocity for pair in system.pairs]
    gap: Floats = after[:, p] - before[:, p] - 0.5 * system.dt * (before[:, v] + after[:, v])
    angles = [pair.angle for pair in system.pairs]
    gap[:, angles] = (gap[:, angles] + np.pi) % (2 * np.pi) - np.pi
    return np.abs(gap)


def kinematics(
    real: Dataset,
    synthetic: Transitions,
    system: Kinematics | None,
    truth: Truth,
    *,
    unaimed: Transitions | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
) -> list[Measurement]:
    """`kinematics.residual`, `kinematics.self_loops`, `kinematics.outside`, with floors between real halves.

    Args:
        real: The real data.
        synthetic: What is judged; rows that are not finite are left out (the table contract counts them).
        system: Positions with their velocities, from the environment or from the user's rules; None: not decidable.
        truth: Gives the clip of observations: rows at or near it hide velocities and have no residual.
        unaimed: Rows that should be distributed like the real ones, see `sample.Sample`; None: all that are judged.
        sample: Rows of each side.
        seed: Seed of the subsamples.
    """
    rows = real.transitions()
    columns = tuple(name for name in ROW if name in rows and name in synthetic)
    ids = chosen_rows(len(rows), sample, seed=seed, address=0)
    ids = ids[_finite(rows.take(ids), columns)]

    def beside(ours: Transitions) -> _Sides:
        ours = subsample(ours, sample, seed=seed, address=1)
        return _Sides(real, ids, rows.take(ids), ours.take(_finite(ours, columns)), columns, sample, seed)

    sides = beside(synthetic)
    spread = sides if unaimed is None or unaimed is synthetic else beside(unaimed)
    return [_residual(spread, system, truth), _self_loops(sides), _outside(sides)]


@dataclass(frozen=True)
class _Sides:
    """Finite rows of both sides; `ids [n]` are the numbers of `theirs` in the real table."""

    real: Dataset
    ids: npt.NDArray[np.int64]
    theirs: Transitions
    ours: Transitions
    columns: tuple[str, ...]
    sample: int
    seed: int

    def undecidable(self, *needed: str) -> str | None:
        """Why nothing can be said, if so."""
        lacking = [name for name in needed if name not in self.columns]
        if lacking:
            return f"one side has no column {lacking[0]}"
        return None if len(self.theirs) and len(self.ours) else "one side has no finite rows"

    def nothing(self, name: str, why: str) -> Measurement:
        return _measurement(name, None, None, {"why": why}, self.sample)

    def measured(
        self, name: str, value: float, of_half: Callable[[Bools], float | None], details: dict[str, Any]
    ) -> Measurement:
        direction, target = _direction(name)
        floor = floor_of_rows(self.real, of_half, direction, self.seed, target)
        return _measurement(name, value, floor, details, self.sample)


def _residual(sides: _Sides, system: Kinematics | None, truth: Truth) -> Measurement:
    if system is None:
        return sides.nothing("residual", "no position with its velocity is known")
    if why := sides.undecidable("observations", "next_observations"):
        return sides.nothing("residual", why)
    kept, judged = ~truth.clipped(sides.theirs), ~truth.clipped(sides.ours)
    if not kept.any() or not judged.any():
        return sides.nothing("residual", "one side has no finite rows off the clip")
    theirs, ids = sides.theirs.take(kept), sides.ids[kept]
    reference, claimed = residuals(theirs, system), residuals(sides.ours.take(judged), system)
    positions = [pair.position for pair in system.pairs]
    # What a stored position cannot resolve is rounding: added to both sides, it cancels where both are exact.
    rounding = np.spacing(np.abs(theirs["observations"][:, positions]).max(axis=0).astype(np.float32)).astype(float)

    def of_half(half: Bools) -> float | None:
        first = half[ids]
        if first.all() or not first.any():
            return None
        return float(_multiples(reference[first].mean(axis=0), reference[~first].mean(axis=0), rounding).mean())

    multiples = _multiples(claimed.mean(axis=0), reference.mean(axis=0), rounding)
    medians = _multiples(np.median(claimed, axis=0), np.median(reference, axis=0), rounding)
    details = {
        "columns": _labelled([f"observations[{position}]" for position in positions], multiples),
        "median": float(medians.mean()),
        "judged share": float(judged.mean()),
    }
    return sides.measured("residual", float(multiples.mean()), of_half, details)


def _multiples(claimed: Floats, reference: Floats, rounding: Floats) -> Floats:
    return (claimed + rounding) / (reference + rounding)


def _self_loops(sides: _Sides) -> Measurement:
    if why := sides.undecidable("observations", "next_observations", "actions"):
        return sides.nothing("self_loops", why)
    deviation = _table(sides.theirs, ("observations",)).std(axis=0)
    stays = still(sides.theirs, deviation)

    def of_half(half: Bools) -> float | None:
        chosen = half[sides.ids]
        return float(stays[chosen].mean()) if chosen.any() else None

    details = {"real share": float(stays.mean())}
    return sides.measured("self_loops", float(still(sides.ours, deviation).mean()), of_half, details)


def still(rows: Transitions, deviation: Floats) -> Bools:
    """Rows `[n]` that act (an action that is not 0) and whose state stays.

    Args:
        rows: Finite rows.
        deviation: `[o]`, real standard deviations of the observations; components with 0 do not count.
    """
    moved = _table(rows, ("next_observations",)) - _table(rows, ("observations",))
    used = deviation > 0
    stays: Bools = np.linalg.norm(moved[:, used] / deviation[used], axis=1) < STILL
    stays &= (_table(rows, ("actions",)) != 0).any(axis=1)
    return stays


def _outside(sides: _Sides) -> Measurement:
    if why := sides.undecidable():
        return sides.nothing("outside", why)
    episodes = sides.real.episodes
    starts = np.zeros(1, np.int64) if episodes is None else episodes.starts[:-1]
    low, high = _extremes(sides.real.transitions(), sides.columns, starts)
    theirs = _table(sides.theirs, sides.columns)

    def of_half(half: Bools) -> float | None:
        rows, other = theirs[half[sides.ids]], ~half[starts]
        return float(beyond(rows, low[other], high[other]).any(axis=1).mean()) if len(rows) else None

    found = beyond(_table(sides.ours, sides.columns), low, high)
    details = {"columns": _labelled(_labels(sides.ours, sides.columns), found.mean(axis=0))}
    return sides.measured("outside", float(found.any(axis=1).mean()), of_half, details)


def beyond(x: Floats, low: Floats, high: Floats) -> Bools:
    """Which values of `x [n, c]` lie beyond the range of all parts, widened by 5 % of it; never where it is one value.

    Args:
        x: Finite values.
        low: `[parts, c]`, smallest values.
        high: `[parts, c]`, largest values.
    """
    bottom: Floats = np.fmin.reduce(low, axis=0)
    top: Floats = np.fmax.reduce(high, axis=0)
    room = WIDER * (top - bottom)
    return ((x < bottom - room) | (x > top + room)) & (room > 0)


def _extremes(rows: Transitions, columns: Sequence[str], starts: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Smallest and largest finite values `[parts, c]` of the rows from each start on."""
    low, high = [], []
    for name in columns:
        x = _table(rows, (name,))
        x[~np.isfinite(x)] = np.nan
        low.append(np.fmin.reduceat(x, starts))
        high.append(np.fmax.reduceat(x, starts))
    return np.concatenate(low, axis=1), np.concatenate(high, axis=1)


def _table(rows: Transitions, columns: Sequence[str]) -> Floats:
    """`[n, c]`, a copy of some columns side by side."""
    parts = [np.asarray(rows[name], np.float64) for name in columns]
    return np.concatenate([part.reshape(len(rows), int(np.prod(part.shape[1:]))) for part in parts], axis=1)


def _finite(rows: Transitions, columns: Sequence[str]) -> Bools:
    if not columns:
        return np.zeros(len(rows), bool)
    finite: Bools = np.all(np.isfinite(_table(rows, columns)), axis=1)
    return finite


def _labels(rows: Transitions, columns: Sequence[str]) -> list[str]:
    shapes = {name: rows[name].shape[1:] for name in columns}
    return [f"{name}[{i}]" if shape else name for name, shape in shapes.items() for i in range(int(np.prod(shape)))]


def _labelled(labels: list[str], values: Floats) -> dict[str, float]:
    return {label: round(float(value), 6) for label, value in zip(labels, values, strict=True)}


def _direction(name: str) -> tuple[Direction, float | None]:
    return ("nearest", 1.0) if name == "residual" else ("lower", None)


def _measurement(
    name: str, value: float | None, floor: Floor | None, details: dict[str, Any], sample: int
) -> Measurement:
    direction, target = _direction(name)
    limits, unit = (0.0, float("inf") if target else 1.0), UNITS[name]
    return Measurement(f"kinematics.{name}", value, unit, direction, limits, sample, SOURCE, floor, details, target)
