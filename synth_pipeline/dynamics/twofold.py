"""A learned oracle for data without a simulator, and how far it can be trusted.

Two ensembles are fitted, each on one half of the episodes; the oracle answers with the mean of both. Its own error is
what each of them makes of the half that it did not see (two-fold cross-validation by episode, Stone 1974): rows cannot
be told right from wrong below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Array
from synth_pipeline.data.rows import Dataset
from synth_pipeline.diffusion.loop import Phases, Report
from synth_pipeline.diffusion.trainer import TrainerConfig
from synth_pipeline.dynamics.ensemble import Ensemble, learned_oracle
from synth_pipeline.dynamics.regressor import RegressorConfig
from synth_pipeline.errors import SourceError
from synth_pipeline.seeding import Stage, integer_seed
from synth_pipeline.validation.metric import chosen_rows, real_halves
from synth_pipeline.validation.oracle import ERRORS, SAMPLE, Judged, difference_scale, hold_against, top_bias
from synth_pipeline.validation.truth import Answer, Oracle, Truth

# Fewer members, rows and steps than an ensemble has alone: about a minute on two cores, whatever the number of rows.
CONFIG = RegressorConfig(
    members=2,
    width=128,
    depth=2,
    trainer=TrainerConfig(gradient_steps=3_000, batch_size=256, learning_rate=6e-3, weight_decay=1e-4),
)
LABEL = "learned, two-fold"


def learned_truth(
    real: Dataset, truth: Truth, *, seed: int, config: RegressorConfig = CONFIG, report: Report | None = None
) -> Truth:
    """What is known, and a learned oracle where neither simulator nor kernel is.

    Args:
        real: The real data; every row is used, by one ensemble or the other.
        truth: What is known of its environment.
        seed: Seed of the run.
        config: Numbers of each of the two ensembles.
        report: Called now and then with (step, total steps of both, values).

    Returns:
        `truth` as it is where nothing needs to be learned, where fewer than two episodes allow no own error, and where
        observations are classes, which the ensembles do not predict.

    Raises:
        SourceError: When no real row can be judged.
        TrainingDivergedError: When a loss stops being finite.
    """
    numbers = real.spec.field("observations").kind == "continuous"
    halves = next(real_halves(real, splits=1, seed=seed), None) if numbers and not truth.of_dynamics else None
    if halves is None:
        return truth
    steps = config.trainer.gradient_steps
    phases, ensembles = Phases({"first_half": steps, "second_half": steps}, report), []
    for index, (name, half) in enumerate(zip(phases.steps, halves, strict=True)):
        ensembles.append(Ensemble(config))
        address = integer_seed(seed, Stage.VALIDATE, 9, index)
        ensembles[-1].fit(Dataset(real.spec, rows=half), seed=address, **phases.phase(name))
    own_errors = _own_errors(real, halves, [learned_oracle(ensemble) for ensemble in ensembles], truth, seed)
    return replace(truth, oracle=two_fold_oracle(ensembles, own_errors))


def two_fold_oracle(ensembles: Sequence[Ensemble], own_errors: dict[str, float]) -> Oracle:
    """The mean of the ensembles' means.

    Args:
        ensembles: Fitted.
        own_errors: What they make of rows that they did not see, by the name of the metric.
    """
    oracles = [learned_oracle(ensemble) for ensemble in ensembles]

    def oracle(observations: Array, actions: Array) -> Answer:
        with np.errstate(over="ignore", invalid="ignore"):  # rows so far off that the networks overflow: not judged
            answers = [ask(observations, actions) for ask in oracles]
            next_observations = np.mean([answer.next_observations for answer in answers], axis=0)
            rewards = np.mean([answer.rewards for answer in answers], axis=0)
        judged = np.isfinite(next_observations).all(axis=1) & np.isfinite(rewards)
        return Answer(next_observations, rewards, judged, LABEL, own_errors=own_errors)

    return oracle


def _own_errors(
    real: Dataset, halves: tuple[Transitions, Transitions], oracles: Sequence[Oracle], truth: Truth, seed: int
) -> dict[str, float]:
    """The metrics of the oracle's errors where each half is judged by what was fitted on the other."""
    scale, sides = difference_scale(real.transitions(), truth), []
    for half, other in zip(halves, reversed(oracles), strict=True):
        ids = chosen_rows(len(half), SAMPLE // 2, seed=seed, address=9)
        sides.append(hold_against(half, ids, other, scale, truth))
    errors, rewards, reward_errors = (np.concatenate([part[i] for part in map(_judged, sides)]) for i in range(3))
    if not len(errors):
        raise SourceError("no real row can be judged by a learned oracle", found="observations that never change")
    absolute = np.abs(reward_errors) / (np.std(np.asarray(real.transitions()["rewards"], np.float64)) or 1.0)
    # Also the bias is told no finer than the error: over other rows than these, errors may all point one way.
    found = {name: summary(errors) for name, summary in ERRORS.items()}
    found["bias"] = float(np.mean([max(side.bias(side.judged).values()) for side in sides if side.judged.any()]))
    found |= dict.fromkeys(("reward_error", "reward_bias"), float(absolute.mean()))
    return found | {"reward_bias_top5": top_bias(rewards, absolute)}


def _judged(side: Judged) -> tuple[Array, Array, Array]:
    return side.errors[side.judged], side.rewards[side.judged], side.reward_errors[side.judged]
