"""Trajectories: do their rows hang together, do they return what real ones do, and do they follow the dynamics?

`trajectories.chain`: mean (s'_t - s_{t+1})^2 over Var(s' - s) of the real rows; 0 by construction where next
observations are not stored. `trajectories.returns`: KS distance of the undiscounted returns of windows.
`trajectories.error_growth`: an oracle starts where a window starts and applies the recorded actions; the value is its
squared distance from the recorded state at the window's end, over Var(s_{t+32} - s_t) of the real rows, averaged over
components and windows; unrelated trajectories have about 2. A window is left out when its start, or what the oracle
makes of it, is at or near the clip: what a generator claims on the way never decides whether it is judged. The floor
is how exactly the oracle replays real trajectories.

Windows have 32 steps, as those that generators of trajectories learn from (GTA, arXiv:2405.16907: 32; MTDiff,
arXiv:2305.18459: 20); shorter trajectories are judged on the longest of 16, 8, 4, 2, 1 steps that both sides have.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Episodes, Segments, Transitions
from synth_pipeline.data.fields import Array
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.windows import window_starts
from synth_pipeline.validation.marginals import ks_complement
from synth_pipeline.validation.metric import Floor, Measurement, chosen_rows, floor_of_rows
from synth_pipeline.validation.oracle import difference_scale
from synth_pipeline.validation.truth import Bools, Floats, Oracle, Truth

Ids = npt.NDArray[np.int64]
SAMPLE = 20_000  # rows of the chain, windows of the returns
ROLLED = 1_000  # windows that the oracle replays
STEPS = (1, 2, 4, 8, 16, 32)
UNITS = {
    "chain": "1 = variance of s' - s",
    "returns": "0 = returns are distributed alike",
    "error_growth": "1 = variance of the real change over a window",
}
METRICS = tuple(f"trajectories.{name}" for name in UNITS)
SOURCE = "chain consistency (MTDiff), KS distance of window returns, open-loop error growth"


def trajectories(
    real: Dataset,
    synthetic: Episodes | Segments | None,
    truth: Truth,
    *,
    sample: int = SAMPLE,
    rolled: int = ROLLED,
    seed: int = 0,
) -> list[Measurement]:
    """`trajectories.chain`, `trajectories.returns`, `trajectories.error_growth`, with floors by real episodes.

    Args:
        real: The real data.
        synthetic: What is judged; None: a table of independent rows, nothing is decidable.
        truth: Gives the oracle and the clip of observations.
        sample: Rows (chain) or windows (returns) of each side.
        rolled: Windows of each side that the oracle replays.
        seed: Seed of the subsamples and of the floors' splits.
    """
    sizes = {"chain": sample, "returns": sample, "error_growth": rolled}
    if synthetic is None:
        return [_nothing(name, "a table of independent rows", size) for name, size in sizes.items()]
    ours, after = (synthetic, synthetic.next_observations) if isinstance(synthetic, Episodes) else joined(synthetic)
    if not len(ours):
        return [_nothing(name, "there are no trajectories", size) for name, size in sizes.items()]
    measured = [chain(real, ours, after, truth, sample=sample, seed=seed)]
    if real.episodes is None or not len(real.episodes):
        why = "the real data has no episodes"
        return measured + [_nothing(name, why, sizes[name]) for name in ("returns", "error_growth")]
    reach = min(int(real.episodes.lengths.max()), int(ours.lengths.max()))
    horizon = max(steps for steps in STEPS if steps <= reach)
    return [
        *measured,
        returns(real, real.episodes, ours, horizon, sample=sample, seed=seed),
        error_growth(real, real.episodes, ours, horizon, truth, sample=rolled, seed=seed),
    ]


def joined(windows: Segments) -> tuple[Episodes, Array]:
    """Windows as episodes of their unmasked rows, and the next observations `[n, o]` that they claim.

    Where these are not stored, the last observation of a window is its end and not a row.
    """
    stored = "next_observations" in windows.columns
    rows = windows.mask if stored else np.pad(windows.mask[:, 1:], ((0, 0), (0, 1)))
    kept = np.flatnonzero(rows.any(axis=1))
    rows = rows[kept]
    columns = {name: column[kept][rows] for name, column in windows.columns.items()}
    observations, after = columns.pop("observations"), columns.pop("next_observations", None)
    lengths = rows.sum(axis=1)
    last = windows["next_observations"][kept, lengths - 1] if stored else windows["observations"][kept, lengths]
    episodes = Episodes(observations, last, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), columns)
    return episodes, episodes.next_observations if after is None else after


# --- chain -----------------------------------------------------------------------------------------------------------


def chain(real: Dataset, ours: Episodes, after: Array, truth: Truth, *, sample: int, seed: int) -> Measurement:
    """`trajectories.chain`: whether each row's next observation is the following row's observation.

    Args:
        real: Gives the scale, and the floor.
        ours: Trajectories.
        after: `[n, o]`, next observations that their rows claim.
        truth: Gives the clip: real rows at it are left out of the scale.
        sample: Rows of each side.
        seed: Seed of the subsamples.
    """
    scale = difference_scale(real.transitions(), truth)
    ids, squared = _gaps(ours, after, scale, sample=sample, seed=seed, address=1)
    if not squared.size:
        return _nothing("chain", "no finite row has a following row, or no component of real rows moves", sample)
    floor = None
    if real.episodes is not None:
        there = _gaps(
            real.episodes, real.transitions()["next_observations"], scale, sample=sample, seed=seed, address=0
        )
        floor = floor_of_rows(real, partial(_of_half, there[0], there[1].mean(axis=1)), "lower", seed)
    details = {"rows": len(ids), "columns": _by_component(squared, scale)}
    return _measurement("chain", float(squared.mean()), sample, floor, details)


def _gaps(
    episodes: Episodes, after: Array, scale: Floats, *, sample: int, seed: int, address: int
) -> tuple[Ids, Floats]:
    """Rows `[k]` with a following row, and (s'_t - s_{t+1})^2 / scale `[k, components]`."""
    inner = np.ones(episodes.num_rows, bool)
    inner[episodes.starts[1:] - 1] = False
    ids = np.flatnonzero(inner)
    ids = ids[chosen_rows(len(ids), sample, seed=seed, address=address)]
    squared = _squared(np.asarray(after[ids], np.float64), episodes.observations[ids + 1], scale)
    finite = np.isfinite(squared).all(axis=1)
    return ids[finite], squared[finite]


def _squared(claimed: Floats, following: Array, scale: Floats) -> Floats:
    """Squared differences `[n, components]` in units of the scale; components without a scale are left out."""
    used = np.isfinite(scale)
    squared: Floats = (claimed - following)[:, used] ** 2 / scale[used]
    return squared


# --- returns ---------------------------------------------------------------------------------------------------------


def returns(real: Dataset, theirs: Episodes, ours: Episodes, horizon: int, *, sample: int, seed: int) -> Measurement:
    """`trajectories.returns`: KS distance of the returns of windows of `horizon` steps.

    Every window counts alike, wherever it begins: so are those that generators of windows learn from.
    """
    if "rewards" not in theirs or "rewards" not in ours:
        return _nothing("returns", "one side has no rewards", sample)
    _, mine = window_returns(ours, horizon, sample=sample, seed=seed, address=1)
    starts, reference = window_returns(theirs, horizon, sample=sample, seed=seed, address=0)
    if not len(mine) or not len(reference):
        return _nothing("returns", "one side has no window with finite rewards", sample)

    def of_half(half: Bools) -> float | None:
        first = half[starts]
        return 1 - ks_complement(reference[first], reference[~first]) if 0 < first.sum() < len(first) else None

    details = {
        "steps": horizon,
        "windows": len(mine),
        "means": {"synthetic": float(mine.mean()), "real": float(reference.mean())},
    }
    value = 1 - ks_complement(reference, mine)
    return _measurement("returns", value, sample, floor_of_rows(real, of_half, "lower", seed), details)


def window_returns(episodes: Episodes, horizon: int, *, sample: int, seed: int, address: int) -> tuple[Ids, Floats]:
    """First rows `[k]` and undiscounted returns `[k]` of at most `sample` windows; only finite returns."""
    starts = _windows(episodes, horizon, sample, seed, address)
    totals = np.asarray(episodes["rewards"], np.float64)[starts[:, None] + np.arange(horizon)].sum(axis=1)
    finite = np.isfinite(totals)
    return starts[finite], totals[finite]


def _windows(episodes: Episodes, horizon: int, sample: int, seed: int, address: int) -> Ids:
    starts = window_starts(episodes, horizon)
    return starts[chosen_rows(len(starts), sample, seed=seed, address=address)]


# --- error growth ----------------------------------------------------------------------------------------------------


def error_growth(
    real: Dataset, theirs: Episodes, ours: Episodes, horizon: int, truth: Truth, *, sample: int, seed: int
) -> Measurement:
    """`trajectories.error_growth`: distance of recorded states from those of the oracle under the same actions.

    The value is the error after `horizon` steps; the details hold it after 1, 2, 4, ... steps, on the same windows.
    """
    if truth.oracle is None:
        return _nothing("error_growth", "no oracle is known for this data", sample)
    if "actions" not in theirs or "actions" not in ours:
        return _nothing("error_growth", "one side has no actions", sample)
    after = theirs.next_observations
    scales = {steps: _change(theirs, after, steps, truth, seed) for steps in STEPS if steps <= horizon}
    starts, mine, label = replay(ours, truth.oracle, scales, truth, sample=sample, seed=seed, address=1)
    if not mine[horizon].size:
        return _nothing("error_growth", "the oracle can follow none of the windows, or nothing real moves", sample)
    there, replayed, _ = replay(theirs, truth.oracle, scales, truth, sample=sample, seed=seed, address=0)
    details = {
        "oracle": label,
        "steps": horizon,
        "windows": len(starts),
        "real windows": len(there),
        "curve": {str(k): float(squared.mean()) for k, squared in mine.items()},
        "real curve": {str(k): float(squared.mean()) for k, squared in replayed.items() if squared.size},
        "columns": _by_component(mine[horizon], scales[horizon]),
    }
    floor = floor_of_rows(real, partial(_of_half, there, replayed[horizon].mean(axis=1)), "lower", seed)
    return _measurement("error_growth", float(mine[horizon].mean()), sample, floor, details)


def _change(episodes: Episodes, after: Array, steps: int, truth: Truth, seed: int) -> Floats:
    """`[o]`, Var(s_{t+steps} - s_t) of real trajectories, as `difference_scale`."""
    starts = _windows(episodes, steps, SAMPLE, seed, 2)
    ends = {"observations": episodes.observations[starts], "next_observations": after[starts + steps - 1]}
    return difference_scale(Transitions(ends), truth)


def replay(
    episodes: Episodes,
    oracle: Oracle,
    scales: Mapping[int, Floats],
    truth: Truth,
    *,
    sample: int,
    seed: int,
    address: int,
) -> tuple[Ids, dict[int, Floats], str]:
    """Windows from their first states on, under their own actions.

    Args:
        episodes: Trajectories with actions.
        oracle: Who is asked, step by step.
        scales: Steps -> `[o]` of the real change over so many steps; the largest is the length of a window.
        truth: Gives the clip.
        sample: Windows, at most.
        seed: Seed of the subsample.
        address: Where the subsample is drawn.

    Returns:
        First rows `[k]` of the windows that could be followed to their end, steps -> squared errors
        `[k, components]` over the scale, and what kind of oracle spoke.
    """
    starts = _windows(episodes, max(scales), sample, seed, address)
    recorded, actions = truth.bounded(episodes.next_observations), episodes["actions"]
    state, judged = truth.bounded(episodes.observations[starts]), np.ones(len(starts), bool)
    errors, label = {}, ""
    for step in range(max(scales)):
        answer = oracle(state, actions[starts + step])
        label, judged = answer.label, judged & answer.judged
        state = np.where(judged[:, None], answer.next_observations, np.nan)
        if step + 1 in scales:
            errors[step + 1] = _squared(state, recorded[starts + step], scales[step + 1])
            judged &= np.isfinite(errors[step + 1]).all(axis=1)
    return starts[judged], {steps: squared[judged] for steps, squared in errors.items()}, label


# --- measurements ----------------------------------------------------------------------------------------------------


def _of_half(ids: Ids, errors: Floats, half: Bools) -> float | None:
    chosen = errors[half[ids]]
    return float(chosen.mean()) if len(chosen) else None


def _by_component(squared: Floats, scale: Floats) -> dict[str, float]:
    means = squared.mean(axis=0)
    return {
        f"observations[{i}]": float(mean) for i, mean in zip(np.flatnonzero(np.isfinite(scale)), means, strict=True)
    }


def _nothing(name: str, why: str, sample: int) -> Measurement:
    return _measurement(name, None, sample, None, {"why": why})


def _measurement(
    name: str, value: float | None, sample: int, floor: Floor | None, details: dict[str, Any]
) -> Measurement:
    limits = (0.0, 1.0 if name == "returns" else float("inf"))
    return Measurement(f"trajectories.{name}", value, UNITS[name], "lower", limits, sample, SOURCE, floor, details)
