"""Statistics of final scores over runs: aggregates and differences of arms, each with its interval or the reason why
there is none.

Input is always `Runs`: task -> run -> final score, or `Diverged`. A run is what arms share (seed and draw of the data);
arms are paired by it, never by position. Diverged runs are counted and left out, a pair with one of them as a whole;
NaN is an error, so that no failure is averaged in silence.

Aggregates and probability of improvement: Agarwal et al. 2021 (arXiv:2108.13264), with intervals by a bootstrap that is
stratified by task. Percentile intervals of few runs are too narrow: those of five normal runs hold the mean
in 84 % of all cases, not in 95 %. Their levels are therefore moved outwards, to where Student's t would have them
(expanded percentile interval: Hesterberg 2014, arXiv:1411.5279), which makes it 92 %, and 95 % from eight runs on.
Runs count as independent. Several agents that were trained on one draw of the data are not: give every seed a draw of
its own, or take the draws as runs (`averaged`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtrit

from synth_pipeline.errors import SourceError, SynthPipelineError
from synth_pipeline.seeding import Stage, stream

Floats = npt.NDArray[np.float64]
LEVEL = 0.95
LEAST_RUNS = 5  # with fewer, points are shown without intervals
RESAMPLES = 10_000
ADDRESS = 1_000  # of the bootstrap among what the stage draws
CELLS = 10_000_000  # numbers that a bootstrap holds at once


@dataclass(frozen=True)
class Diverged:
    """A run whose training diverged: it has no score.

    Attributes:
        step: Gradient step at which it was seen.
        reason: What was seen.
    """

    step: int
    reason: str

    @classmethod
    def by(cls, error: SynthPipelineError, step: int) -> Diverged:
        """From the error that ended a run."""
        return cls(step, f"{error.what}: {error.found}")


Outcomes = Mapping[Any, float | Diverged]
Runs = Mapping[str, Outcomes]
Statistic = Callable[[Floats], Floats]
Verdict = Literal["better", "worse", "undecided", "outlasts", "outlasted"]


def averaged(outcomes: Outcomes, unit: Callable[[Any], Any]) -> Outcomes:
    """Runs that belong together as one: their mean, or diverged when one of them has.

    Args:
        outcomes: Run -> score.
        unit: Run -> what it belongs to, e.g. the draw of `(draw, seed)`.
    """
    groups: dict[Any, list[float | Diverged]] = {}
    for run, score in outcomes.items():
        groups.setdefault(unit(run), []).append(score)
    found: dict[Any, float | Diverged] = {}
    for name, scores in groups.items():
        numbers = [score for score in scores if not isinstance(score, Diverged)]
        bad = next((score for score in scores if isinstance(score, Diverged)), None)
        found[name] = math.fsum(numbers) / len(numbers) if bad is None else bad
    return found


@dataclass(frozen=True)
class Estimate:
    """An aggregate of runs.

    Attributes:
        value: None where nothing is left to aggregate.
        low: Lower end of the 95 % interval; None: there is no interval.
        high: Upper end.
        runs: Runs behind it.
        diverged: Runs that were left out.
        why: Why there is no interval, or no value.
    """

    value: float | None
    low: float | None
    high: float | None
    runs: int
    diverged: int
    why: str | None = None

    def plain(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def interquartile_mean(scores: Floats) -> Floats:
    """Mean of what is left without the lowest and the highest quarter, `[..., n]` -> `[...]`.

    Of each end floor(n / 4) scores are dropped, as a 25 % trimmed mean does.
    """
    count = scores.shape[-1]
    cut = count // 4
    kept: Floats = np.sort(scores, axis=-1)[..., cut : count - cut]
    return np.asarray(kept.mean(axis=-1))


def mean(scores: Floats) -> Floats:
    """`[..., n]` -> `[...]`."""
    return np.asarray(scores.mean(axis=-1))


def estimate(runs: Runs, statistic: Statistic = interquartile_mean, *, seed: int = 0) -> Estimate:
    """An aggregate over the runs of all tasks together.

    Args:
        runs: Scores; tasks with more runs weigh more, so give every task as many.
        statistic: `[..., n]` -> `[...]`.
        seed: Of the bootstrap.

    Raises:
        SourceError: On NaN or infinity, or without any run.
    """
    parts, diverged = survivors(runs)
    sizes = {task: len(part) for task, part in parts.items()}
    if why := empty(sizes):
        return Estimate(None, None, None, sum(sizes.values()), diverged, why)
    value = float(statistic(np.concatenate(list(parts.values()))))
    low, high, why = None, None, too_few(sizes)
    if why is None:
        low, high = interval(_resampled(list(parts.values()), statistic, seed), list(sizes.values()))
    return Estimate(value, low, high, sum(sizes.values()), diverged, why)


def probability_of_improvement(ours: Runs, theirs: Runs, *, seed: int = 0) -> Estimate:
    """P(a run of ours scores higher than a run of theirs), ties counting half, averaged over the tasks.

    Runs are not paired (Agarwal et al. 2021, sec. 4). Where every run of ours beats every run of theirs the interval
    has no width: no resampling of these runs says otherwise.

    Args:
        ours: Scores of one arm.
        theirs: Scores of the other, on the same tasks.
        seed: Of the bootstrap.

    Returns:
        In [0, 1]; `runs` are those of both arms.

    Raises:
        SourceError: On NaN or infinity, or other tasks.
    """
    _same(ours, theirs, "tasks")
    (mine, lost), (other, gone) = survivors(ours), survivors(theirs)
    sizes = {task: min(len(mine[task]), len(other[task])) for task in mine}
    total = sum(len(part) for part in (*mine.values(), *other.values()))
    if why := empty(sizes):
        return Estimate(None, None, None, total, lost + gone, why)
    wins = [_wins(mine[task], other[task]) for task in mine]
    low, high, why = None, None, too_few(sizes)
    if why is None:
        rng = stream(seed, Stage.EVALUATE, ADDRESS, 1)
        draws = np.mean([_bilinear(matrix, rng) for matrix in wins], axis=0)
        low, high = interval(draws, list(sizes.values()))
    return Estimate(float(np.mean([matrix.mean() for matrix in wins])), low, high, total, lost + gone, why)


@dataclass(frozen=True)
class Difference:
    """One arm against another on the same runs.

    Attributes:
        value: Mean of ours - theirs over the pairs of a task, then over the tasks; None: no pair is left.
        low: Lower end of the 95 % interval; None: there is no interval.
        high: Upper end.
        pairs: Pairs behind it.
        wins: Pairs in which ours scored higher.
        losses: Pairs in which theirs did.
        sign_p: Exact two-sided p of the sign test: of so uneven a split of wins and losses, or a more uneven one, when
            both are as likely; 1 without either. Five wins of five give 0.0625.
        diverged: Diverged runs of ours and of theirs; their pairs are left out, so the rest is of those that survived.
        why: Why there is no interval.
    """

    value: float | None
    low: float | None
    high: float | None
    pairs: int
    wins: int
    losses: int
    sign_p: float
    diverged: tuple[int, int]
    why: str | None = None

    @property
    def verdict(self) -> Verdict | None:
        """What may be said; None: too few runs.

        By the interval: `better` when it is above 0 and ours diverged no more often than theirs, `worse` when it is
        below, else `undecided`. Where divergence has left too few pairs for one: `outlasts` when ours came through
        every run and won each pair that is left, of five runs or more; `outlasted` when theirs did. (The interval of
        five wins in a row is always above 0, so this asks for no less.)
        """
        ours, theirs = self.diverged
        if self.low is not None and self.high is not None:
            return "worse" if self.high < 0 else "better" if self.low > 0 and ours <= theirs else "undecided"
        if theirs and not ours and self.wins == self.pairs >= LEAST_RUNS - theirs:
            return "outlasts"
        return "outlasted" if ours and not theirs and self.losses == self.pairs >= LEAST_RUNS - ours else None

    def plain(self) -> dict[str, Any]:
        """Plain JSON, with the verdict."""
        return {**asdict(self), "diverged": list(self.diverged), "verdict": self.verdict}


def paired_difference(ours: Runs, theirs: Runs, *, seed: int = 0) -> Difference:
    """Ours - theirs, run by run; the bootstrap resamples pairs within each task.

    Args:
        ours: Scores of one arm.
        theirs: Scores of the other, of the same runs.
        seed: Of the bootstrap.

    Raises:
        SourceError: On NaN or infinity, other tasks or other runs.
    """
    _same(ours, theirs, "tasks")
    lost, gone = survivors(ours)[1], survivors(theirs)[1]
    parts = {task: _pairs(task, ours[task], theirs[task]) for task in ours}
    sizes = {task: len(part) for task, part in parts.items()}
    every = np.concatenate(list(parts.values()))
    wins, losses = int((every > 0).sum()), int((every < 0).sum())
    counts = {"pairs": len(every), "wins": wins, "losses": losses, "sign_p": sign_test(wins, losses)}
    if why := empty(sizes):
        return Difference(None, None, None, **counts, diverged=(lost, gone), why=why)  # type: ignore[arg-type]
    low, high, why = None, None, too_few(sizes)
    if why is None:
        rng = stream(seed, Stage.EVALUATE, ADDRESS, 2)
        draws = np.mean([weights(len(part), rng) @ part for part in parts.values()], axis=0)
        low, high = interval(draws, list(sizes.values()))
    value = float(np.mean([part.mean() for part in parts.values()]))
    return Difference(value, low, high, **counts, diverged=(lost, gone), why=why)  # type: ignore[arg-type]


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided p of the sign test, ties left out."""
    count = wins + losses
    tail = sum(math.comb(count, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2.0 * tail / float(2**count))


# --- parts ------------------------------------------------------------------------------------------------------------


def survivors(runs: Runs) -> tuple[dict[str, Floats], int]:
    """Scores by task, without the diverged runs, and how many those are.

    Raises:
        SourceError: On NaN or infinity, or without any run.
    """
    if not any(len(outcomes) for outcomes in runs.values()):
        raise SourceError("there are no runs to aggregate", found=f"{len(runs)} tasks without runs")
    parts, diverged = {}, 0
    for task, outcomes in runs.items():
        kept = {run: score for run, score in outcomes.items() if not isinstance(score, Diverged)}
        for run, score in kept.items():
            if not math.isfinite(score):
                raise SourceError(
                    f"run {run} of '{task}' has a score that is not finite",
                    found=score,
                    accepted="a number, or Diverged(step, reason), which is counted and left out",
                )
        parts[task] = np.array([*kept.values()], np.float64)
        diverged += len(outcomes) - len(kept)
    return parts, diverged


def worst(score: float | Diverged) -> float:
    """A score; of a run that diverged, what lies below all others."""
    return -math.inf if isinstance(score, Diverged) else score


def too_few(sizes: Mapping[str, int]) -> str | None:
    """Why there is no interval: some task has fewer than five runs."""
    few = min(sizes, key=lambda task: sizes[task])
    if sizes[few] >= LEAST_RUNS:
        return None
    task = f" of '{few}'" if few else ""  # a study of one task has no name for it
    return f"{sizes[few]} runs{task}; an interval needs {LEAST_RUNS}"


def expanded_levels(sizes: Sequence[int]) -> tuple[float, float]:
    """Quantiles of a bootstrap between which lies the 95 % interval of a mean over strata of these sizes.

    The spread of resampled means is too small by sqrt((n - 1) / n), and normal where Student's t with n - 1 degrees of
    freedom is meant; n and n - 1 are summed over the strata.
    """
    total, freedom = sum(sizes), sum(sizes) - len(sizes)
    student = stdtrit(freedom, 0.5 + LEVEL / 2)
    tail = float(ndtr(-math.sqrt(total / freedom) * student))
    return tail, 1 - tail


def interval(draws: Floats, sizes: Sequence[int]) -> tuple[float, float]:
    """The 95 % interval from resampled values `[resamples]`; infinite ones count as what lies beyond all others."""
    low, high = np.quantile(draws, expanded_levels(sizes), method="inverted_cdf")
    return float(low), float(high)


def weights(count: int, rng: np.random.Generator) -> Floats:
    """`[resamples, count]`: how often each run is drawn, as shares; the resampled mean is their product with it."""
    drawn: Floats = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    return drawn


def _resampled(parts: Sequence[Floats], statistic: Statistic, seed: int) -> Floats:
    """`[resamples]`, the statistic of runs drawn again within each task."""
    rng = stream(seed, Stage.EVALUATE, ADDRESS, 0)
    at_once = max(1, CELLS // sum(len(part) for part in parts))
    found = []
    for start in range(0, RESAMPLES, at_once):
        shape = min(at_once, RESAMPLES - start)
        drawn = [part[rng.integers(len(part), size=(shape, len(part)))] for part in parts]
        found.append(statistic(np.concatenate(drawn, axis=1)))
    return np.concatenate(found)


def _wins(ours: Floats, theirs: Floats) -> Floats:
    """`[n, m]`: 1 where ours is higher, 1/2 at a tie."""
    gap = ours[:, None] - theirs
    found: Floats = np.heaviside(gap, 0.5)
    return found


def _bilinear(matrix: Floats, rng: np.random.Generator) -> Floats:
    """`[resamples]`, the mean of a matrix over rows and columns that are drawn again, each on their own."""
    rows, columns = (weights(size, rng) for size in matrix.shape)
    found: Floats = np.einsum("bi,bi->b", rows @ matrix, columns)
    return found


def _pairs(task: str, ours: Outcomes, theirs: Outcomes) -> Floats:
    _same(ours, theirs, f"runs of '{task}'")
    both = [(ours[run], theirs[run]) for run in ours]
    return np.array([a - b for a, b in both if not isinstance(a, Diverged) and not isinstance(b, Diverged)], np.float64)


def _same(ours: Mapping[Any, Any], theirs: Mapping[Any, Any], what: str) -> None:
    if ours.keys() != theirs.keys():
        alone = [str(key) for key in {**ours, **theirs} if (key in ours) != (key in theirs)]
        raise SourceError(
            f"two arms are compared on the same {what}",
            found=f"in one arm only: {', '.join(alone[:5])}{' ...' if len(alone) > 5 else ''}",
            fix="finish the runs that are missing",
        )


def empty(sizes: Mapping[str, int]) -> str | None:
    """Which task has no run left."""
    gone = [task for task, size in sizes.items() if not size]
    return f"no run of '{gone[0]}' is left" if gone else None
