"""The scorecard: every measurement of one table of rows against real data, judged by one suite. Plain JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from synth_pipeline.data.containers import Episodes, Integers, Segments, Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset, RowSource
from synth_pipeline.errors import unknown_name
from synth_pipeline.validation import (
    c2st,
    coverage,
    dependence,
    frechet,
    kinematics,
    membership,
    novelty,
    oracle,
    prdc,
    rules,
    terminations,
    trajectories,
)
from synth_pipeline.validation.contract import contract
from synth_pipeline.validation.gate import Suite, Verdict, judge
from synth_pipeline.validation.marginals import SAMPLE, marginals
from synth_pipeline.validation.metric import NUM_SPLITS, Floor, Measurement, subsample
from synth_pipeline.validation.neighbours import Neighbours
from synth_pipeline.validation.rules import Rules
from synth_pipeline.validation.sample import Sample, draw
from synth_pipeline.validation.truth import Truth

FAMILIES = (
    "contract",
    "rules",
    "marginals",
    "dependence",
    "frechet",
    "oracle",
    "kinematics",
    "trajectories",
    "c2st",
    "prdc",
    "coverage",
    "novelty",
    "membership",
)
METRICS = (
    *(f"contract.{name}" for name in ("schema", "finite", "bounds", "terminations")),
    *rules.METRICS,
    *(f"marginals.{name}" for name in ("mean", "worst")),
    *dependence.METRICS,
    *frechet.METRICS,
    *oracle.METRICS,
    *terminations.METRICS,
    *kinematics.METRICS,
    *trajectories.METRICS,
    *c2st.METRICS,
    *prdc.METRICS,
    *coverage.METRICS,
    *novelty.METRICS,
    *membership.METRICS,
)
# What compares two distributions: the same rows, more often in one place than the real ones, change its value.
DISTRIBUTIONS = (
    *(f"marginals.{name}" for name in ("mean", "worst")),
    *dependence.METRICS,
    *frechet.METRICS,
    "oracle.clipped_share_ratio",
    "terminations.prevalence",
    *kinematics.DISTRIBUTIONS,
    *c2st.METRICS,
    *prdc.METRICS,
    *coverage.METRICS,
    *novelty.DISTRIBUTIONS,
)


@dataclass(frozen=True)
class Reference:
    """What rows are held against.

    Attributes:
        real: The data that they should be like.
        fields: What every column of the rows must be.
        compared: Columns that are compared with the real ones.
        truth: What is known of the environment, injected; `Truth()`: nothing, then dynamics are not judged.
        held_out: Ids of the episodes of `real` that the generator did not see; None: novelty is not decidable.
        rules: The user's rules.
        learned_floor: Held-out errors of a learned model, for the details of the oracle's; None: not asked for.
        floors: By metric, from an earlier judgement against the same data with the same seed; missing: measured.
        splits: Pairs of real halves behind each floor that is costly.
    """

    real: Dataset
    fields: tuple[Field, ...]
    compared: tuple[Field, ...]
    truth: Truth = field(default_factory=Truth)
    held_out: Integers | None = None
    rules: Rules | None = None
    learned_floor: Mapping[str, float] | None = None
    floors: Mapping[str, Floor] = field(default_factory=dict)
    splits: int = NUM_SPLITS

    def families(
        self,
        rows: RowSource,
        synthetic: Transitions,
        episodes: Episodes | Segments | None,
        seed: int,
        unaimed: Transitions | None = None,
    ) -> dict[str, Callable[[], list[Measurement]]]:
        """Every family of metrics over a sample, by name; rules are exact. `unaimed`: the sample without its aim."""
        unaimed = synthetic if unaimed is None else unaimed
        real, held_out, truth, learned = self.real, self.held_out, self.truth, self.learned_floor
        plain = Dataset(real.spec, rows=real.transitions()) if self.floors else real  # no episodes: no floors
        splits = 0 if self.floors else self.splits
        system = kinematics.known_kinematics(real.spec) or (self.rules.system if self.rules else None)
        return {
            "rules": lambda: rules.rules(rows, self.rules),
            "marginals": lambda: marginals(plain, unaimed, self.compared, seed=seed),
            "dependence": lambda: dependence.dependence(plain, unaimed, self.compared, seed=seed),
            "frechet": lambda: frechet.frechet(real, unaimed, splits=splits, seed=seed),
            "oracle": lambda: against_truth(
                real, synthetic, truth, held_out, unaimed=unaimed, learned_floor=learned, seed=seed
            ),
            "kinematics": lambda: kinematics.kinematics(plain, synthetic, system, truth, unaimed=unaimed, seed=seed),
            "trajectories": lambda: trajectories.trajectories(real, episodes, truth, seed=seed),
            "c2st": lambda: c2st.c2st(real, unaimed, splits=splits, seed=seed),
            "prdc": lambda: prdc.prdc(real, unaimed, splits=splits, seed=seed),
            "coverage": lambda: coverage.coverage(real, unaimed, splits=splits, seed=seed),
            "novelty": lambda: novelty.novelty(real, synthetic, held_out, unaimed=unaimed, splits=splits, seed=seed),
            "membership": lambda: membership.membership(real, synthetic, held_out, splits=splits, seed=seed),
        }


def scorecard(
    rows: RowSource,
    reference: Reference,
    suite: Suite,
    *,
    episodes: Episodes | Segments | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda family: None,
) -> tuple[Verdict, dict[str, Any]]:
    """Measure and judge.

    Args:
        rows: What is judged; all rows are streamed once, a sample is compared.
        reference: What they are held against.
        suite: The rules of the gate.
        episodes: Trajectories of the table (a sample of them); None: its rows are independent.
        seed: Seed of the subsamples.
        progress: Called with the name of each family of `FAMILIES` before it is measured.

    Returns:
        The verdict, and `{"verdict": ..., "measurements": [...]}` as plain JSON; `sample.UNDONE`: of how many rows the
        distributions were judged, where the rows were aimed.

    Raises:
        UnknownNameError: When a rule names a metric that does not exist.
    """
    for rule in suite.rules:
        if rule.metric not in METRICS:
            raise unknown_name("metric", rule.metric, METRICS)
    progress("contract")
    measurements = contract(rows, reference.fields, reference.truth.terminated)
    facts: dict[str, Any] = {}
    if not any(m.value for m in measurements if m.metric == "contract.schema"):
        sample = draw(rows, SAMPLE, real=reference.real, seed=seed)
        facts = sample.facts()
        for family, measure in reference.families(rows, sample.rows, episodes, seed, sample.unaimed).items():
            progress(family)
            measurements += [_decidable(_with_floor(m, reference.floors), sample) for m in measure()]
    verdict = judge(measurements, suite)
    return verdict, {"verdict": verdict.to_json(), "measurements": [m.to_json() for m in measurements], **facts}


def _with_floor(found: Measurement, floors: Mapping[str, Floor]) -> Measurement:
    known = floors.get(found.metric)
    return replace(found, floor=known) if known is not None and found.value is not None else found


def _decidable(found: Measurement, sample: Sample) -> Measurement:
    """Nothing is said of distributions where too few rows are left: chance alone would move them past their floors."""
    if sample.too_few is None or found.metric not in DISTRIBUTIONS:
        return found
    return replace(found, value=None, floor=None, details={"why": sample.too_few})


def against_truth(
    real: Dataset,
    synthetic: Transitions,
    truth: Truth,
    held_out: Integers | None = None,
    *,
    unaimed: Transitions | None = None,
    learned_floor: Mapping[str, float] | None = None,
    sample: int = oracle.SAMPLE,
    seed: int = 0,
) -> list[Measurement]:
    """Dynamics, rewards and terminations against what is known; the oracle is asked once for all of them.

    Args:
        real: The whole dataset.
        synthetic: What is judged.
        truth: What is known of the environment.
        held_out: Ids of the episodes that the generator did not see: then errors are also told by novelty.
        unaimed: Rows that should be distributed like the real ones, see `sample.Sample`; None: all that are judged.
        learned_floor: Held-out errors of a learned model, see `dynamics.ensemble.learned_floor`.
        sample: Rows of each side that the oracle is asked about.
        seed: Seed of the subsamples.
    """
    pair, parts = oracle.judge_sample(real, synthetic, truth, sample=sample, seed=seed), novelty.divided(real, held_out)
    by_novelty, unaimed = None, synthetic if unaimed is None else unaimed
    if pair is not None and parts is not None:
        training, unseen = (subsample(part, novelty.TRAINING, seed=seed, address=4) for part in parts)
        index, reference = Neighbours(training), subsample(unseen, novelty.SAMPLE, seed=seed, address=0)
        distances = index.distances(pair[0].rows), index.distances(reference)
        by_novelty = novelty.error_at_novelty(pair[0].errors, *distances)
    return [
        *oracle.dynamics(real, pair, sample=sample, learned_floor=learned_floor, by_novelty=by_novelty, seed=seed),
        *oracle.clipped_share(real, unaimed, truth, seed=seed),
        *oracle.calibration(real, synthetic, truth.kernel, seed=seed),
        *terminations.terminations(real, pair, truth.terminated, sample=sample, seed=seed),
        *terminations.prevalence(real, unaimed, truth.terminated, seed=seed),
    ]
