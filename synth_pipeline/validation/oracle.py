"""Dynamics: does s' follow from (s, a), and is r the reward of it? Judged by an injected oracle or a known kernel.

With an oracle, the error of a row is mean_d (s'_d - s'_oracle,d)^2 / Var_real(s'_d - s_d): 1 is what "nothing moves
but by its average" costs. Mean and tail (95 %, 99 %) are the headline; the median is flattered by easy rows. The floor
is the same error of real rows: how exactly the oracle replays them. It is about 0, so nothing is divided by it. A
simulator that does not replay them does not judge. A learned oracle has an error of its own, on rows that it did not
see: an error within twice of that is the oracle's as much as the rows', and not decidable.
With a kernel, u = F(s' | s, a) is uniform on [0, 1] for rows that are right: KS distance, worst component.
Sources: dynamic MSE of SynthER (arXiv:2303.06614) and MTDiff (arXiv:2305.18459); PIT: Rosenblatt 1952, Dawid 1984.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.metric import (
    Direction,
    Floor,
    Measurement,
    badness,
    chosen_rows,
    floor_of_rows,
    subsample,
)
from synth_pipeline.validation.truth import Answer, Bools, Floats, Kernel, Oracle, Truth

Ids = npt.NDArray[np.int64]
SAMPLE = 20_000
TOP = 0.05
# Real rows kept as float32 replay with a median error below 1e-11, rounded to four decimals below 1e-5; steps that are
# 1 % longer give 5e-5, gravity x1.2 gives 5e-4, another integrator 4e-4 (runners, mazes).
REPLAY_TOLERANCE = 1e-5
CONSTANT = 1e-12  # a component whose step is below this share of its own variance never moves
SOURCE = "dynamic MSE (SynthER, MTDiff), per component over Var(s' - s) of the real rows"
ERRORS: dict[str, Callable[[Floats], float]] = {
    "mean": lambda errors: float(errors.mean()),
    "p95": lambda errors: float(np.quantile(errors, 0.95)),
    "p99": lambda errors: float(np.quantile(errors, 0.99)),
    "median": lambda errors: float(np.median(errors)),
}


@dataclass(frozen=True)
class Judged:
    """Rows held against an oracle.

    Attributes:
        rows: All rows, judged or not.
        ids: `[n]`, their numbers in the table they were drawn from.
        answer: What should have followed.
        judged: `[n]`, rows that could be judged: known to the oracle, and finite.
        components: Components of s' that are compared; one that is constant in the real rows is not.
        scaled: `[n, components]`, s' - s'_oracle over the standard deviation of s' - s; NaN where not judged.
        reward_errors: `[n]`, r - r_oracle; NaN where not judged.
        why: Why no row is judged, where none is.
    """

    rows: Transitions
    ids: Ids
    answer: Answer
    judged: Bools
    components: Ids
    scaled: Floats
    reward_errors: Floats
    why: str = "the oracle can judge none of the rows"

    @property
    def rewards(self) -> Floats:
        """`[n]`, the rewards that the rows claim."""
        return np.asarray(self.rows["rewards"], np.float64)

    @property
    def errors(self) -> Floats:
        """`[n]`, squared error averaged over the components; NaN where not judged."""
        mean: Floats = (self.scaled**2).sum(axis=1) / max(len(self.components), 1)
        return mean

    def bias(self, rows: Bools) -> dict[str, float]:
        """By component, |mean error| of some judged rows: what does not average out."""
        means = np.abs(self.scaled[rows].mean(axis=0))
        return {f"next_observations[{i}]": float(mean) for i, mean in zip(self.components, means, strict=True)}

    @property
    def median(self) -> float | None:
        """Median error of the judged rows; None without any."""
        return ERRORS["median"](self.errors[self.judged]) if self.judged.any() else None

    def unjudged(self, why: str) -> Judged:
        """The same rows, none of them judged."""
        scaled, reward_errors = np.full_like(self.scaled, np.nan), np.full_like(self.reward_errors, np.nan)
        none = np.zeros_like(self.judged)
        return replace(self, judged=none, scaled=scaled, reward_errors=reward_errors, why=why)


def top_bias(rewards: Floats, errors: Floats) -> float:
    """Mean error of the rows with the highest 5 % of rewards: what an agent that maximises them would meet.

    Rows that tie at the threshold share the places that are left, so that the order of rows does not matter.
    """
    count = int(np.ceil(TOP * len(rewards)))
    threshold = np.partition(rewards, -count)[-count]
    above, at = rewards > threshold, rewards == threshold
    return float((errors[above].sum() + (count - above.sum()) * errors[at].mean()) / count)


RewardFormula = Callable[[Judged, Bools], float]
REWARDS: dict[str, RewardFormula] = {
    "reward_error": lambda side, rows: float(np.abs(side.reward_errors[rows]).mean()),
    "reward_bias": lambda side, rows: float(side.reward_errors[rows].mean()),
    "reward_bias_top5": lambda side, rows: top_bias(side.rewards[rows], side.reward_errors[rows]),
}
METRICS = tuple(f"oracle.{name}" for name in (*ERRORS, "bias", *REWARDS, "clipped_share_ratio", "pit_ks"))


def difference_scale(real: Transitions, truth: Truth) -> Floats:
    """`[o]`, Var(s' - s) of the real rows off the clip; Var(s') for a component that never moves; NaN for a constant.

    Goals are such components: they stand still within an episode, and a wrong one counts on the scale of goals.
    """
    kept = real.take(~truth.clipped(real))
    before, after = (np.asarray(kept[name], np.float64) for name in ("observations", "next_observations"))
    if not len(kept):
        return np.full(before.shape[1], np.nan)
    moved, spread = (after - before).var(axis=0), after.var(axis=0)
    scale = np.where(moved > CONSTANT * spread, moved, spread)
    return np.where(scale > 0, scale, np.nan)


def hold_against(table: Transitions, ids: Ids, oracle: Oracle, scale: Floats, truth: Truth) -> Judged:
    """Ask the oracle about rows, clipped as the environment clips observations.

    Args:
        table: With observations, actions, rewards and next_observations.
        ids: Numbers of the rows that are judged.
        oracle: Who is asked.
        scale: `[o]` of `difference_scale`; NaN: the component is left out.
        truth: Gives the clip.
    """
    rows = table.take(ids)
    before, after = truth.bounded(rows["observations"]), truth.bounded(rows["next_observations"])
    rewards = np.asarray(rows["rewards"], np.float64)
    answer = oracle(before, rows["actions"])
    judged = answer.judged & np.isfinite(after).all(axis=1) & np.isfinite(rewards)
    used = np.flatnonzero(np.isfinite(scale))
    judged &= len(used) > 0
    scaled = (after - answer.next_observations)[:, used] / np.sqrt(scale[used])
    scaled[~judged] = np.nan
    return Judged(rows, ids, answer, judged, used, scaled, np.where(judged, rewards - answer.rewards, np.nan))


def judge_sample(
    real: Dataset, synthetic: Transitions, truth: Truth, *, sample: int = SAMPLE, seed: int = 0
) -> tuple[Judged, Judged] | None:
    """Samples of the synthetic and of the real rows held against the oracle; None where no oracle is known.

    No synthetic row is judged by a simulator that does not replay the real rows.
    """
    if truth.oracle is None or not len(real) or not len(synthetic):
        return None
    rows = real.transitions()
    scale = difference_scale(rows, truth)
    ours = chosen_rows(len(synthetic), sample, seed=seed, address=1)
    theirs = chosen_rows(len(rows), sample, seed=seed, address=0)
    judged = hold_against(synthetic, ours, truth.oracle, scale, truth)
    replayed = hold_against(rows, theirs, truth.oracle, scale, truth)
    if replayed.answer.exact and replayed.median is not None and replayed.median > REPLAY_TOLERANCE:
        error = f"median error {replayed.median:.3g}, accepted {REPLAY_TOLERANCE:g}"
        why = f"the simulator does not replay the real rows ({error}): recorded with another version, or rounded?"
        judged = judged.unjudged(why)
    return judged, replayed


def dynamics(
    real: Dataset,
    pair: tuple[Judged, Judged] | None,
    *,
    sample: int = SAMPLE,
    learned_floor: Mapping[str, float] | None = None,
    by_novelty: list[dict[str, Any]] | None = None,
    seed: int = 0,
) -> list[Measurement]:
    """`oracle.mean`, `.p95`, `.p99`, `.median`, `.bias`, `.reward_error`, `.reward_bias`, `.reward_bias_top5`.

    Args:
        real: The real data, for floors by episode.
        pair: From `judge_sample`.
        sample: Rows that were asked for.
        learned_floor: Held-out errors of a learned model (`mean`, `p95`, `p99`): goes into the details.
        by_novelty: From `novelty.error_at_novelty`: goes into the details of the mean.
        seed: Seed of the floor's splits.

    Returns:
        With the value None when nothing can be judged, or when the oracle cannot see as far.
    """
    if pair is None or not pair[0].judged.any():
        why = _unknown(real) if pair is None else pair[0].why
        return [_nothing(name, why, sample) for name in (*ERRORS, "bias", *REWARDS)]
    ours, replayed = pair
    about = {
        "oracle": ours.answer.label,
        "judged share": round(float(ours.judged.mean()), 6),
        "median error of real rows": replayed.median,
    }
    measured = []
    for name, summary in ERRORS.items():
        details = {**about, "columns": _by_component(ours, summary)}
        if learned_floor and name in learned_floor:
            details["learned_floor"] = learned_floor[name]
        if by_novelty is not None and name == "mean":
            details["error_by_novelty"] = by_novelty
        floor = floor_of_rows(real, partial(_replayed, replayed, summary), "lower", seed)
        value = summary(ours.errors[ours.judged])
        measured.append(_measurement(name, value, "1 = variance of s' - s", sample, floor, details))
    measured.append(_bias(real, ours, replayed, about, sample, seed))
    measured += _rewards(real, ours, replayed, about, sample, seed)
    own_errors = ours.answer.own_errors
    return measured if own_errors is None else [_as_far_as_it_sees(found, own_errors) for found in measured]


def _unknown(real: Dataset) -> str:
    few = real.episodes is None or len(real.episodes) < 2
    return "no oracle is known for this data" + (", and learning one takes two episodes" if few else "")


def _as_far_as_it_sees(found: Measurement, own_errors: Mapping[str, float]) -> Measurement:
    """What a learned oracle measured, if it is beyond twice the oracle's own error.

    There is no floor beside it: the oracle has seen the real rows.
    """
    if found.value is None:
        return found
    own = own_errors[found.metric.removeprefix("oracle.")]
    error, details = badness(found.value, found.direction, found.target), {**found.details, "own error": own}
    if error > 2 * own:
        return replace(found, floor=None, details=details)
    why = f"error {error:.3g} is within twice the oracle's own error {own:.3g}: as good as it can see"
    return replace(found, value=None, floor=None, details={**details, "why": why})


def _replayed(replayed: Judged, summary: Callable[[Floats], float], half: Bools) -> float | None:
    rows = half[replayed.ids] & replayed.judged
    return summary(replayed.errors[rows]) if rows.any() else None


def _by_component(side: Judged, summary: Callable[[Floats], float]) -> dict[str, float]:
    columns = (side.scaled[side.judged] ** 2).T
    return {f"next_observations[{i}]": summary(column) for i, column in zip(side.components, columns, strict=True)}


def _bias(real: Dataset, ours: Judged, replayed: Judged, about: dict[str, Any], sample: int, seed: int) -> Measurement:
    """The largest mean error of a component: another gravity moves every row a little, and the same way."""

    def of_half(half: Bools) -> float | None:
        rows = half[replayed.ids] & replayed.judged
        return max(replayed.bias(rows).values()) if rows.any() else None

    columns = ours.bias(ours.judged)
    floor = floor_of_rows(real, of_half, "lower", seed)
    unit, details = "standard deviations of s' - s", {**about, "columns": columns}
    return _measurement("bias", max(columns.values()), unit, sample, floor, details)


def _rewards(
    real: Dataset, ours: Judged, replayed: Judged, about: dict[str, Any], sample: int, seed: int
) -> list[Measurement]:
    deviation = float(np.std(np.asarray(real.transitions()["rewards"], np.float64)))
    if deviation == 0.0:
        return [_nothing(name, "all real rewards are equal", sample) for name in REWARDS]
    measured = []
    for name, formula in REWARDS.items():

        def of_half(half: Bools, formula: RewardFormula = formula) -> float | None:
            rows = half[replayed.ids] & replayed.judged
            return formula(replayed, rows) / deviation if rows.any() else None

        value = formula(ours, ours.judged) / deviation
        direction, target = _direction(name)
        floor = floor_of_rows(real, of_half, direction, seed, target)
        measured.append(_measurement(name, value, "standard deviations of real rewards", sample, floor, about))
    return measured


def clipped_share(
    real: Dataset, synthetic: Transitions, truth: Truth, *, sample: int = SAMPLE, seed: int = 0
) -> list[Measurement]:
    """`oracle.clipped_share_ratio`: share of rows at or near the observation clip, synthetic over real; 1 is right."""
    name, rows = "clipped_share_ratio", real.transitions()
    if truth.clip is None or not len(rows) or not len(synthetic):
        return [_nothing(name, "the environment clips no observation, or there are no rows", sample)]
    at_clip = truth.clipped(rows)
    ours, theirs = truth.clipped(subsample(synthetic, sample, seed=seed, address=1)).mean(), at_clip.mean()
    if theirs == 0:
        return [_nothing(name, "no real row is at the clip", sample)]
    direction, target = _direction(name)
    floor = floor_of_rows(real, lambda half: float(at_clip[half].mean() / theirs), direction, seed, target)
    details = {"synthetic share": round(float(ours), 6), "real share": round(float(theirs), 6)}
    return [_measurement(name, float(ours / theirs), "1 = as often as real rows", sample, floor, details)]


def calibration(
    real: Dataset, synthetic: Transitions, kernel: Kernel | None, *, sample: int = SAMPLE, seed: int = 0
) -> list[Measurement]:
    """`oracle.pit_ks`: KS distance of F(s' | s, a) from the uniform distribution, worst component.

    Args:
        real: The real data, for the floor.
        synthetic: What is judged; rows that are not finite are left out (the table contract counts them).
        kernel: The known conditional CDF; None: not decidable.
        sample: Rows of each side.
        seed: Seed of the subsamples.
    """
    synthetic = subsample(synthetic, sample, seed=seed, address=1)
    kept = synthetic.take(_finite(synthetic)) if kernel is not None else synthetic
    if kernel is None or not len(kept):
        return [_nothing("pit_ks", "no kernel is known, or there are no finite rows", sample)]
    columns = ("observations", "actions", "next_observations")
    distances = ks_uniform(kernel(*(kept[name] for name in columns)))
    rows = real.transitions()
    chosen = chosen_rows(len(rows), sample, seed=seed, address=0)
    levels = kernel(*(rows[name][chosen] for name in columns))
    floor = floor_of_rows(real, lambda half: _worst(ks_uniform(levels[half[chosen]])), "lower", seed)
    details = {
        "columns": {f"next_observations[{i}]": round(float(d), 6) for i, d in enumerate(distances)},
        "judged share": len(kept) / len(synthetic),
    }
    source = "Rosenblatt 1952; Dawid 1984"
    value = _worst(distances)
    return [Measurement("oracle.pit_ks", value, "0 = the kernel", "lower", (0.0, 1.0), sample, source, floor, details)]


def ks_uniform(levels: Floats) -> Floats:
    """KS distance `[o]` of each column of `levels [n, o]` from the uniform distribution on [0, 1]; NaN without rows."""
    count = len(levels)
    if not count:
        return np.full(levels.shape[1], np.nan)
    ordered, ranks = np.sort(levels, axis=0), np.arange(1, count + 1)[:, None] / count
    distances: Floats = np.maximum(ranks - ordered, ordered - ranks + 1 / count).max(axis=0)
    return distances


def _worst(distances: Floats) -> float | None:
    return float(distances.max()) if np.isfinite(distances).all() else None


def _finite(rows: Transitions) -> Bools:
    parts = [np.isfinite(rows[name]).all(axis=1) for name in ("observations", "actions", "next_observations")]
    result: Bools = np.logical_and.reduce(parts)
    return result


def _nothing(name: str, why: str, sample: int) -> Measurement:
    return _measurement(name, None, "not decidable", sample, None, {"why": why})


def _direction(name: str) -> tuple[Direction, float | None]:
    if name == "clipped_share_ratio":
        return "nearest", 1.0
    return ("nearest", 0.0) if name.startswith("reward_bias") else ("lower", None)


def _measurement(
    name: str, value: float | None, unit: str, sample: int, floor: Floor | None, details: dict[str, Any]
) -> Measurement:
    direction, target = _direction(name)
    limits = (-float("inf") if name.startswith("reward_bias") else 0.0, float("inf"))
    return Measurement(f"oracle.{name}", value, unit, direction, limits, sample, SOURCE, floor, details, target)
