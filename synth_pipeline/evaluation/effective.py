"""How many real rows an arm is worth: the multiplier of the sample size that real data alone would need.

Scores of real-only training at several sizes are made monotone (isotonic regression) and read between the sizes on a
logarithmic axis; n* is the smallest size at which they reach the arm's score, and n* / n the multiplier. Scores beyond
the curve are censored: "at least" its largest size, "at most" its smallest. Sizes of which a run diverged are left out
where two others are there, because the runs that are left flatter them. Between two sizes of which the larger is near
the best that any number of rows reaches, a straight line is a guess: read the multiplier as an order of magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from synth_pipeline.errors import ConfigError
from synth_pipeline.evaluation.statistics import (
    ADDRESS,
    Diverged,
    Floats,
    Outcomes,
    expanded_levels,
    survivors,
    too_few,
    weights,
)
from synth_pipeline.seeding import Stage, stream

Relation = Literal["=", ">=", "<="]


@dataclass(frozen=True)
class Multiple:
    """A multiplier, or the bound that is known of it.

    Attributes:
        value: n* / n.
        relation: `>=`: the curve ends before it reaches the score; `<=`: it begins above it.
    """

    value: float
    relation: Relation = "="

    def __str__(self) -> str:
        return f"{'' if self.relation == '=' else self.relation + ' '}{self.value:.3g}x"


@dataclass(frozen=True)
class Multiplier:
    """The effective-sample multiplier of an arm.

    Attributes:
        value: At the mean scores.
        low: Lower end of the 95 % interval; None: there is no interval.
        high: Upper end.
        sizes: `[k]`, rows of the real-only curve, rising.
        curve: `[k]`, its mean scores, made monotone.
        score: Mean score of the arm.
        rows: Real rows that the arm has.
        diverged: Runs of these sizes and of the arm that diverged.
        why: Why there is no interval.
    """

    value: Multiple
    low: Multiple | None
    high: Multiple | None
    sizes: tuple[int, ...]
    curve: tuple[float, ...]
    score: float
    rows: int
    diverged: int
    why: str | None = None

    def plain(self) -> dict[str, Any]:
        """Plain JSON; the multiples as text."""
        texts = {name: None if (end := getattr(self, name)) is None else str(end) for name in ("value", "low", "high")}
        numbers = {name: getattr(self, name) for name in ("score", "rows", "diverged", "why")}
        return {**texts, **numbers, "sizes": list(self.sizes), "curve": list(self.curve)}


def effective_multiplier(curve: Mapping[int, Outcomes], arm: Outcomes, rows: int, *, seed: int = 0) -> Multiplier:
    """Rows of real data alone that would score as the arm does, over the real rows that the arm has.

    Where all sizes and the arm have the same runs, those that diverged anywhere are left out everywhere, for draws of
    the data differ by more than arms do, and the bootstrap resamples runs jointly; else each on its own. Where none is
    left so, there is no interval.

    Args:
        curve: Rows -> run -> final score of training on that many real rows alone.
        arm: Run -> final score of the arm.
        rows: Real rows that the arm has.
        seed: Of the bootstrap.

    Raises:
        ConfigError: With fewer than two sizes, or when no run is left of a size or of the arm.
        SourceError: On NaN or infinity.
    """
    if len(curve) < 2 or min(curve) < 1 or rows < 1:
        raise ConfigError(
            "a learning curve needs at least two sizes, of at least one row",
            found=f"sizes {sorted(curve)}, {rows} rows of the arm",
        )
    whole = {size: found for size, found in curve.items() if not lost(found)}
    sizes = tuple(sorted(whole if len(whole) > 1 else curve))
    runs = {**{f"{size:,} real rows": curve[size] for size in sizes}, "the arm": arm}
    diverged, shared = sum(map(lost, runs.values())), _shared(runs)
    if shared:  # in one order, so that one draw of runs holds for all
        runs = {name: {run: outcomes[run] for run in shared} for name, outcomes in runs.items()}
    parts, _ = survivors(runs)
    counts = {name: len(part) for name, part in parts.items()}
    _require_survivors(counts)
    means, share = np.array([part.mean() for part in parts.values()]), np.array([*counts.values()][:-1], np.float64)
    fitted, logs = isotonic(means[:-1], share), np.log(sizes)
    value = _multiple(float(size_reaching(fitted, logs, means[-1])), sizes, rows)
    low, high, why = None, None, too_few(counts)
    if shared == []:
        why = "no run came through at every size"
    if why is None:
        draws = _resampled_means(parts, bool(shared), seed)
        reached = size_reaching(isotonic(draws[:, :-1], share), logs, draws[:, -1])
        ends = np.quantile(reached, expanded_levels([min(counts.values())]), method="inverted_cdf")
        low, high = (_multiple(float(end), sizes, rows) for end in ends)
    curve_means = tuple(float(mean) for mean in fitted)
    return Multiplier(value, low, high, sizes, curve_means, float(means[-1]), rows, diverged, why)


def isotonic(values: Floats, shares: Floats) -> Floats:
    """Weighted least squares under the condition that values do not fall, `[..., k]` -> `[..., k]`.

    The value at k is max over i <= k of min over j >= k of the mean of values i .. j (the max-min formula of isotonic
    regression: Robertson, Wright and Dykstra 1988, Order Restricted Statistical Inference, ch. 1).

    Args:
        values: `[..., k]`.
        shares: `[k]`, weights, > 0.
    """
    count = values.shape[-1]
    fitted = np.empty_like(values, dtype=np.float64)
    means = {(i, j): np.average(values[..., i : j + 1], axis=-1, weights=shares[i : j + 1])
             for i in range(count) for j in range(i, count)}  # fmt: skip
    for k in range(count):
        lowest = [np.min([means[i, j] for j in range(k, count)], axis=0) for i in range(k + 1)]
        fitted[..., k] = np.max(lowest, axis=0)
    return fitted


def size_reaching(fitted: Floats, logs: Floats, scores: Floats | float) -> Floats:
    """Logarithm of the smallest size at which a rising curve reaches a score.

    Args:
        fitted: `[..., k]`, not falling.
        logs: `[k]`, logarithms of the sizes.
        scores: `[...]`.

    Returns:
        `[...]`; inf: beyond the curve; -inf: below it.
    """
    scores = np.asarray(scores)
    fitted = np.broadcast_to(fitted, (*np.broadcast_shapes(fitted.shape[:-1], scores.shape), fitted.shape[-1]))
    reached = fitted >= scores[..., None]
    right = np.clip(reached.argmax(axis=-1), 1, None)
    upper, lower = (np.take_along_axis(fitted, index[..., None], axis=-1)[..., 0] for index in (right, right - 1))
    rise = np.where(upper > lower, upper - lower, 1.0)
    between = logs[right - 1] + (scores - lower) / rise * (logs[right] - logs[right - 1])
    first = fitted[..., 0]
    found = np.where(scores == first, logs[0], np.where(scores < first, -np.inf, between))
    return np.where(reached[..., -1], found, np.inf)


def _multiple(log_size: float, sizes: tuple[int, ...], rows: int) -> Multiple:
    if log_size == np.inf:
        return Multiple(sizes[-1] / rows, ">=")
    if log_size == -np.inf:
        return Multiple(sizes[0] / rows, "<=")
    return Multiple(float(np.exp(log_size)) / rows)


def lost(outcomes: Outcomes) -> int:
    """How many of the runs diverged."""
    return sum(isinstance(score, Diverged) for score in outcomes.values())


def multiplier_of(curve: Mapping[int, Outcomes], arm: Outcomes, rows: int, *, seed: int = 0) -> Multiplier | None:
    """`effective_multiplier`; None where there is no curve to read: fewer than two sizes with a run that is left."""
    known = {size: found for size, found in curve.items() if lost(found) < len(found)}
    return effective_multiplier(known, arm, rows, seed=seed) if len(known) > 1 and lost(arm) < len(arm) else None


def _shared(runs: Mapping[str, Outcomes]) -> list[Any] | None:
    """The runs that diverged nowhere; None: the sizes and the arm have not the same ones."""
    first, *others = runs.values()
    if any(outcomes.keys() != first.keys() for outcomes in others):
        return None
    return [run for run in first if not any(isinstance(outcomes[run], Diverged) for outcomes in runs.values())]


def _resampled_means(parts: Mapping[str, Floats], joint: bool, seed: int) -> Floats:
    """`[resamples, parts]`."""
    rng = stream(seed, Stage.EVALUATE, ADDRESS, 4)
    if joint:
        return weights(len(next(iter(parts.values()))), rng) @ np.stack([*parts.values()], axis=1)
    return np.stack([weights(len(part), rng) @ part for part in parts.values()], axis=1)


def _require_survivors(counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        if not count:
            raise ConfigError(f"there is no multiplier: no run of {name} is left", fix="leave this size out")
