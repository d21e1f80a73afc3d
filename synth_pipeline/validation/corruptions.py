"""Corruptions: fresh real rows spoilt in one known way, at three strengths.

What a metric makes of them is its sensitivity: the only way to say what a value means. Each corruption names the metric
that is meant to catch it, and the strength from which a gate must. `validation/calibrate.py` measures them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from synth_pipeline import envs
from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.fields import Array
from synth_pipeline.envs.base import EnvironmentModel
from synth_pipeline.validation.metric import Direction, badness

MOVED = ("observations", "actions", "next_observations")


@dataclass(frozen=True)
class Fresh:
    """What there is to spoil.

    Attributes:
        episodes: Real episodes that neither the generator nor the floors have seen.
        training: Rows that a generator would have been trained on.
        environment: Its simulator.
        rng: Source of everything random.
    """

    episodes: Episodes
    training: Transitions
    environment: EnvironmentModel
    rng: np.random.Generator

    @property
    def rows(self) -> Transitions:
        """The episodes as transitions."""
        return self.episodes.transitions()

    def some(self, share: float) -> npt.NDArray[np.int64]:
        """Ids of a random share of the rows."""
        count = self.episodes.num_rows
        return np.sort(self.rng.choice(count, size=round(share * count), replace=False))


@dataclass(frozen=True)
class Corruption:
    """One way to spoil rows.

    Attributes:
        apply: (fresh rows, strength) -> spoilt rows.
        words: What is done, with a place for the strength.
        metrics: Metrics that are meant to catch it.
        strengths: Three, rising.
        stated: Smallest strength that a gate must catch.
    """

    apply: Callable[[Fresh, float], Transitions]
    words: str
    metrics: tuple[str, ...]
    strengths: tuple[float, float, float]
    stated: float

    @property
    def name(self) -> str:
        """Of the function."""
        return self.apply.__name__

    def label(self, strength: float) -> str:
        """What is done, at a strength."""
        return self.words.format(strength)


def shuffled_actions(fresh: Fresh, share: float) -> Transitions:
    """The actions of a share of the rows, permuted among them."""
    rows, chosen = fresh.rows, fresh.some(share)
    actions = rows["actions"].copy()
    actions[chosen] = actions[fresh.rng.permutation(chosen)]
    return rows.with_columns(actions=actions)


def noisy_next(fresh: Fresh, deviations: float) -> Transitions:
    """Gaussian noise on s', in standard deviations of s' - s."""
    rows = fresh.rows
    before, after = rows["observations"], rows["next_observations"]
    noise = fresh.rng.standard_normal(after.shape) * (after - before).std(axis=0)
    return rows.with_columns(next_observations=_like(after + deviations * noise, after))


def late_next(fresh: Fresh, share: float) -> Transitions:
    """s' from the step after, in a share of the rows."""
    rows, chosen = fresh.rows, fresh.some(share)
    last = fresh.episodes.starts[1:] - 1
    chosen = chosen[~np.isin(chosen, last)]
    after = rows["next_observations"].copy()
    after[chosen] = rows["next_observations"][chosen + 1]
    return rows.with_columns(next_observations=after)


def biased_rewards(fresh: Fresh, share: float) -> Transitions:
    """Rewards raised by a share of their standard deviation."""
    rows = fresh.rows
    return rows.with_columns(rewards=_like(rows["rewards"] + share * rows["rewards"].std(), rows["rewards"]))


def flipped_terminations(fresh: Fresh, share: float) -> Transitions:
    """The flags of a share of the rows, negated."""
    rows, chosen = fresh.rows, fresh.some(share)
    flags = rows["terminations"].copy()
    flags[chosen] = ~flags[chosen]
    return rows.with_columns(terminations=flags)


def without_ends(fresh: Fresh, share: float) -> Transitions:
    """A share of the rows that end left out; no other row is touched."""
    rows = fresh.rows
    ends = np.flatnonzero(rows["terminations"])
    lost = fresh.rng.choice(ends, size=round(share * len(ends)), replace=False)
    return rows.take(np.setdiff1d(np.arange(len(rows)), lost))


def near_copies(fresh: Fresh, share: float) -> Transitions:
    """A share of the rows replaced by training rows with noise of 1e-4 standard deviations."""
    rows, chosen = fresh.rows, fresh.some(share)
    copied = jittered(fresh.training, len(chosen), 1e-4, fresh.rng)
    columns = {name: column.copy() for name, column in rows.columns.items() if name in copied}
    for name, column in columns.items():
        column[chosen] = copied[name]
    return Transitions(columns)


def jittered(training: Transitions, count: int, deviations: float, rng: np.random.Generator) -> Transitions:
    """Random training rows with noise on (s, a, s'), in standard deviations of each column."""
    rows = training.take(rng.choice(len(training), size=count))
    noisy = {}
    for name in MOVED:
        noise = rng.standard_normal(rows[name].shape) * training[name].std(axis=0)
        noisy[name] = _like(rows[name] + deviations * noise, rows[name])
    noisy["actions"] = np.clip(noisy["actions"], training["actions"].min(axis=0), training["actions"].max(axis=0))
    return rows.with_columns(**noisy)


def without_the_best(fresh: Fresh, share: float) -> Transitions:
    """Without the episodes of the highest returns: a share of all rows."""
    order = np.argsort(fresh.episodes.returns)
    kept = np.cumsum(fresh.episodes.lengths[order]) <= (1 - share) * fresh.episodes.num_rows
    return fresh.episodes.take(np.sort(order[kept])).transitions()


def shrunk(fresh: Fresh, lost: float) -> Transitions:
    """(s, a, s') drawn in towards their mean, so that a share of the variance is lost."""
    rows, factor = fresh.rows, np.sqrt(1 - lost)
    centre = {"actions": rows["actions"].mean(axis=0)}
    centre["observations"] = centre["next_observations"] = rows["observations"].mean(axis=0)
    return rows.with_columns(
        **{name: _like(centre[name] + factor * (rows[name] - centre[name]), rows[name]) for name in MOVED}
    )


def actions_out_of_bounds(fresh: Fresh, share: float) -> Transitions:
    """The actions of a share of the rows, 5 % beyond their bound."""
    rows, chosen = fresh.rows, fresh.some(share)
    actions, high = rows["actions"].copy(), fresh.environment.spec.action.high
    assert high is not None
    actions[chosen, 0] = 1.05 * high[0]
    return rows.with_columns(actions=actions)


def self_loops(fresh: Fresh, share: float) -> Transitions:
    """s' = s in a share of the rows."""
    rows, chosen = fresh.rows, fresh.some(share)
    after = rows["next_observations"].copy()
    after[chosen] = rows["observations"][chosen]
    return rows.with_columns(next_observations=after)


def swapped_columns(fresh: Fresh, share: float) -> Transitions:
    """The last two components of s and of s' exchanged in a share of the rows."""
    rows, chosen = fresh.rows, fresh.some(share)
    changed = {}
    for name in ("observations", "next_observations"):
        changed[name] = rows[name].copy()
        changed[name][chosen, -2:] = rows[name][chosen, -2:][:, ::-1]
    return rows.with_columns(**changed)


def heavier(fresh: Fresh, factor: float) -> Transitions:
    """What follows where gravity is multiplied by a factor; rows at the observation clip stay as they are."""
    rows, world = fresh.rows, envs.make(fresh.environment.spec.name)
    bare = world.bare

    def scaled() -> object:
        environment = bare()
        environment.model.opt.gravity[:] *= factor  # type: ignore[attr-defined]
        return environment

    world.bare = scaled  # type: ignore[method-assign, assignment]
    known = world.resettable(rows["observations"])
    outcome = world.step(rows["observations"][known], rows["actions"][known])
    changed = {name: rows[name].copy() for name in ("next_observations", "rewards", "terminations")}
    changed["next_observations"][known] = outcome.next_observations
    changed["rewards"][known], changed["terminations"][known] = outcome.rewards, outcome.terminations
    return rows.with_columns(**changed)


def _like(values: Array, column: Array) -> Array:
    return values.astype(column.dtype)


CORRUPTIONS = (
    Corruption(shuffled_actions, "actions shuffled in {:.0%} of rows", ("oracle.mean",), (0.03, 0.1, 1.0), 0.1),
    Corruption(noisy_next, "noise of {:g} sd on s'", ("oracle.median", "oracle.mean"), (0.03, 0.1, 0.3), 0.1),
    Corruption(late_next, "s' from t + 2 in {:.0%} of rows", ("oracle.mean",), (0.03, 0.1, 1.0), 0.1),
    Corruption(biased_rewards, "rewards raised by {:.0%} of their sd", ("oracle.reward_bias",), (0.05, 0.1, 0.2), 0.1),
    Corruption(
        flipped_terminations, "flags flipped in {:.1%} of rows", ("contract.terminations",), (0.003, 0.01, 0.03), 0.01
    ),
    Corruption(without_ends, "{:.0%} of the ends left out", ("terminations.prevalence",), (0.2, 0.5, 0.8), 0.5),
    Corruption(near_copies, "{:.0%} near-copies", ("novelty.copies",), (0.03, 0.1, 0.3), 0.1),
    Corruption(
        without_the_best,
        "best {:.0%} of rows dropped",
        ("frechet.row", "coverage.distance", "coverage.rare"),
        (0.1, 0.25, 0.5),
        0.25,
    ),
    Corruption(shrunk, "{:.0%} of the variance lost", ("marginals.mean", "c2st.sa"), (0.05, 0.1, 0.2), 0.1),
    Corruption(
        actions_out_of_bounds, "{:.1%} of actions out of bounds", ("contract.bounds",), (0.001, 0.01, 0.05), 0.01
    ),
    Corruption(self_loops, "{:.0%} self-loops", ("kinematics.self_loops",), (0.02, 0.05, 0.15), 0.05),
    Corruption(
        swapped_columns,
        "two columns swapped in {:.0%} of rows",
        ("frechet.sa", "dependence.correlation", "c2st.row"),
        (0.1, 0.3, 1.0),
        0.3,
    ),
    Corruption(heavier, "gravity times {:g}", ("oracle.bias", "oracle.mean"), (1.1, 1.2, 1.5), 1.2),
)


def monotone(values: list[float], direction: Direction, target: float | None) -> bool:
    """Whether a metric worsens with the strength of a corruption."""
    bad = [badness(value, direction, target) for value in values]
    return all(a <= b for a, b in pairwise(bad))
