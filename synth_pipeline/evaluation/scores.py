"""Scores: returns of whole episodes, raw and read against the references of the catalog; nothing is ever selected.

A cell of a comparison is evaluated at steps that are fixed before its training begins, and its final score is the mean
over the last of them: the best checkpoint of a training is a maximum over noise, and choosing it moves averages by more
than most methods do.

    steps = evaluation_steps(config.gradient_steps)
    for step in steps:
        agent.train(until=step, checkpoint=path)
        scores[step] = scale.score(evaluate_actor(environment, agent.actor(), seed=seed, address=(step,)))
    final = final_score({step: score.normalized for step, score in scores.items()}, steps)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Integers
from synth_pipeline.data.fields import Array
from synth_pipeline.envs.base import Bools, EnvironmentModel
from synth_pipeline.envs.rollout import Actor, rollout
from synth_pipeline.errors import ConfigError, EnvironmentModelError, SourceError, TrainingDivergedError, unknown_name
from synth_pipeline.seeding import Stage
from synth_pipeline.sources import catalog
from synth_pipeline.sources.catalog import D4rlConstants

Floats = npt.NDArray[np.float64]
LAST = 5  # evaluations that make a final score
SPACING = 0.02  # of the training between them: a few hundred steps apart they would judge one and the same policy
SUCCESS = "success"  # the column of infos that says whether the task is solved


@dataclass(frozen=True)
class Evaluation:
    """What an actor got.

    Attributes:
        environment: Name in the environment registry.
        horizon: Time limit of an episode, steps.
        returns: `[episodes]`, undiscounted.
        lengths: `[episodes]`, steps.
        terminations: `[episodes]`, true where the episode ended before its time limit or at it by itself.
        success: `[episodes]`, whether the task was solved at some step; None: the environment does not say.
    """

    environment: str
    horizon: int
    returns: Floats
    lengths: Integers
    terminations: Bools
    success: Bools | None = None

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    def plain(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "environment": self.environment,
            "horizon": self.horizon,
            "return": self.mean,
            "returns": self.returns.tolist(),
            "lengths": self.lengths.tolist(),
            "terminations": self.terminations.tolist(),
            "success": None if self.success is None else self.success.tolist(),
        }


def evaluate_actor(
    environment: EnvironmentModel,
    actor: Actor,
    *,
    episodes: int = 10,
    seed: int,
    address: tuple[int, ...] = (),
    lanes: int = 16,
) -> Evaluation:
    """Run whole episodes and take their returns.

    Args:
        environment: Where.
        actor: Who acts.
        episodes: How many, >= 1.
        seed: Seed of the run; with the same seed and address all actors start in the same states.
        address: Coordinates of this evaluation among others, e.g. `(draw, step)`.
        lanes: Episodes side by side; part of the result where the actor draws noise.

    Raises:
        TrainingDivergedError: When an action is not finite.
        EnvironmentModelError: When the actor gives actions of a wrong shape, or a reward is not finite.
    """
    watched, room = _Watched(actor), {"episodes": episodes, "lanes": lanes}
    found = rollout(environment, watched, seed=seed, stage=Stage.EVALUATE, address=address, **room)
    returns = found.returns
    if not np.isfinite(returns).all():
        raise EnvironmentModelError(
            f"{environment.spec.name}: an evaluation has returns that are not finite",
            found=f"{int((~np.isfinite(returns)).sum())} of {len(returns)} episodes",
        )
    success = np.logical_or.reduceat(found[SUCCESS], found.starts[:-1]) if SUCCESS in found else None
    name, ends = environment.spec.name, found["terminations"][found.starts[1:] - 1]
    return Evaluation(name, environment.spec.horizon, returns, found.lengths, ends, success)


class _Watched:
    """An actor whose first action that is not finite ends the evaluation as a divergence."""

    def __init__(self, actor: Actor) -> None:
        self.reset, self.observe, self._actor = actor.reset, actor.observe, actor

    def act(self, observations: Array, rng: np.random.Generator) -> Array:
        actions = np.asarray(self._actor.act(observations, rng))
        bad = actions.dtype.kind == "f" and not np.isfinite(actions).all()
        if bad:
            raise TrainingDivergedError(
                "the actor gave actions that are not finite",
                found=f"{int((~np.isfinite(actions)).sum())} of {actions.size} values",
                fix="lower the learning rate with --set and train again",
            )
        return actions


@dataclass(frozen=True)
class Score:
    """A mean return and what it means.

    Attributes:
        raw: Mean return.
        normalized: 0: uniform actions, 100: the best policy that the project ships.
        random: Return that scores 0.
        best: Return that scores 100.
        d4rl: D4RL's normalised score; None where returns do not mean the same there.
        d4rl_label: What that number is, for whoever prints it.
    """

    raw: float
    normalized: float
    random: float
    best: float
    d4rl: float | None
    d4rl_label: str | None

    def plain(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ScoreScale:
    """The returns that score 0 and 100 in one environment at one time limit.

    Attributes:
        environment: Name in the environment registry.
        horizon: Time limit that the references were measured at, steps.
        random: Mean return of uniform actions.
        best: Mean return of the best policy that the project ships, as it collects data.
        program: Command that measures both again.
        versions: Versions that they hold for.
        d4rl: D4RL's constants, where it has the environment.
    """

    environment: str
    horizon: int
    random: float
    best: float
    program: str
    versions: Mapping[str, str]
    d4rl: D4rlConstants | None = None

    def normalized(self, value: float) -> float:
        """A mean return, read against the references: 0 at `random`, 100 at `best`."""
        return 100 * (value - self.random) / (self.best - self.random)

    def score(self, evaluation: Evaluation) -> Score:
        """The score of an evaluation.

        Raises:
            EnvironmentModelError: When it is of another environment, or of another time limit.
        """
        theirs, ours = (evaluation.environment, evaluation.horizon), (self.environment, self.horizon)
        if theirs != ours:
            raise EnvironmentModelError(
                "returns are read against references of their own environment and time limit",
                found="{} at {} steps".format(*theirs),
                accepted="{} at {} steps".format(*ours),
            )
        raw, constants = evaluation.mean, self.d4rl
        d4rl = None if constants is None else constants.score(raw)
        label = None if d4rl is None or constants is None else f"D4RL's constants of {constants.dataset}"
        return Score(raw, self.normalized(raw), self.random, self.best, d4rl, label)


def score_scale(environment: str, horizon: int) -> ScoreScale:
    """The references of an environment at a time limit, from the catalog.

    Raises:
        UnknownNameError: When there are none for the environment.
        EnvironmentModelError: When they were measured at another time limit, or have no upper end.
    """
    known = {entry.environment: entry for entry in catalog.entries().values()}
    if environment not in known:
        raise unknown_name("environment with reference returns", environment, known)
    entry = known[environment]
    references = entry.references
    if horizon != entry.horizon:
        raise EnvironmentModelError(
            f"the reference returns of {environment} hold for another time limit",
            found=f"{horizon} steps",
            accepted=f"{entry.horizon} steps",
            fix="show raw returns, or measure references of your own",
        )
    if references.best is None:
        raise EnvironmentModelError(
            f"{environment} has no upper reference: no policy is shipped for it",
            found="the return of uniform actions alone",
            fix="show raw returns",
        )
    low, high = references.random.mean, references.best.mean
    return ScoreScale(environment, horizon, low, high, references.program, references.versions, entry.d4rl)


def evaluation_steps(total: int, *, count: int = LAST, spacing: int | None = None) -> tuple[int, ...]:
    """The gradient steps after which a training is evaluated for its final score: the last one, and those before it.

    Args:
        total: Gradient steps of the whole training.
        count: How many evaluations.
        spacing: Steps between them; None: 2 % of the training.

    Returns:
        Rising; the last is `total`.

    Raises:
        ConfigError: When the training is too short for them.
    """
    between = max(1, round(SPACING * total)) if spacing is None else spacing
    first = total - (count - 1) * between
    if count < 1 or between < 1 or first < 1:
        raise ConfigError(
            "a training is too short for its evaluations",
            found=f"{count} evaluations, {between:,} steps apart, in {total:,} steps",
            accepted=f"at least {max(count - 1, 0) * max(between, 1) + 1:,} steps, one evaluation, one step apart",
        )
    return tuple(range(first, total + 1, between))


def watched_steps(first: int, count: int) -> tuple[int, ...]:
    """Evenly spaced gradient steps before the first evaluation that counts, at most `count`: no part of a score."""
    return tuple(sorted({round(first * part / (count + 1)) for part in range(1, count + 1)} - {0, first}))


def final_score(scores: Mapping[int, float], steps: Sequence[int]) -> float:
    """Mean over the evaluations that were fixed beforehand; whatever else was evaluated has no part in it.

    Args:
        scores: Gradient step -> score.
        steps: As `evaluation_steps` gave them.

    Raises:
        SourceError: When one of them is missing, or not finite: a diverged training has no final score.
    """
    missing = [step for step in steps if step not in scores]
    bad = [step for step in steps if step not in missing and not np.isfinite(scores[step])]
    if missing or bad or not steps:
        raise SourceError(
            "a final score is the mean of all evaluations that were fixed for it",
            found=f"none at step {missing[0]:,}"
            if missing
            else f"{scores[bad[0]]} at step {bad[0]:,}"
            if bad
            else "no steps",
            accepted="finite scores at steps " + ", ".join(f"{step:,}" for step in steps),
            fix="train on, or mark the run as Diverged",
        )
    return float(np.mean([scores[step] for step in steps]))
