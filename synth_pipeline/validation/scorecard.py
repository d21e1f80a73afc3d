"""The scorecard: every measurement of one table of rows against real data, judged by one suite. Plain JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from synth_pipeline.data.containers import Integers, Transitions, concatenate
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset, RowSource
from synth_pipeline.errors import unknown_name
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.validation import c2st, coverage, dependence, novelty, oracle, terminations
from synth_pipeline.validation.contract import contract
from synth_pipeline.validation.gate import Suite, Verdict, judge
from synth_pipeline.validation.marginals import SAMPLE, marginals
from synth_pipeline.validation.metric import Measurement, subsample
from synth_pipeline.validation.neighbours import Neighbours
from synth_pipeline.validation.truth import Truth

BLOCK = 256
FAMILIES = ("contract", "marginals", "dependence", "oracle", "c2st", "coverage", "novelty")
METRICS = (
    *(f"contract.{name}" for name in ("schema", "finite", "bounds", "terminations")),
    *(f"marginals.{name}" for name in ("mean", "worst")),
    *dependence.METRICS,
    *oracle.METRICS,
    *terminations.METRICS,
    *c2st.METRICS,
    *coverage.METRICS,
    *novelty.METRICS,
)


def scorecard(  # noqa: PLR0913  what is judged, by what, and who is told how far it is
    rows: RowSource,
    real: Dataset,
    suite: Suite,
    *,
    fields: tuple[Field, ...],
    compared: tuple[Field, ...],
    truth: Truth,
    held_out: Integers | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda family: None,
) -> tuple[Verdict, dict[str, Any]]:
    """Measure and judge.

    Args:
        rows: What is judged; all rows are streamed once, a sample is compared.
        real: The data it should be like.
        suite: The rules.
        fields: What every column of `rows` must be.
        compared: Columns that are compared with the real ones.
        truth: What is known of the environment, injected; `Truth()`: nothing, then dynamics are not judged.
        held_out: Ids of the episodes of `real` that the generator did not see; None: novelty is not decidable.
        seed: Seed of the subsamples.
        progress: Called with the name of each family of `FAMILIES` before it is measured.

    Returns:
        The verdict, and `{"verdict": ..., "measurements": [...]}` as plain JSON.

    Raises:
        UnknownNameError: When a rule names a metric that does not exist.
    """
    for rule in suite.rules:
        if rule.metric not in METRICS:
            raise unknown_name("metric", rule.metric, METRICS)
    progress("contract")
    measurements = contract(rows, fields, truth.terminated)
    if not any(m.value for m in measurements if m.metric == "contract.schema"):
        synthetic = read_sample(rows, SAMPLE, seed=seed)
        families: dict[str, Callable[[], list[Measurement]]] = {
            "marginals": lambda: marginals(real, synthetic, compared, seed=seed),
            "dependence": lambda: dependence.dependence(real, synthetic, compared, seed=seed),
            "oracle": lambda: against_truth(real, synthetic, truth, held_out, seed=seed),
            "c2st": lambda: c2st.c2st(real, synthetic, seed=seed),
            "coverage": lambda: coverage.coverage(real, synthetic, seed=seed),
            "novelty": lambda: novelty.novelty(real, synthetic, held_out, seed=seed),
        }
        for family, measure in families.items():
            progress(family)
            measurements += measure()
    verdict = judge(measurements, suite)
    return verdict, {"verdict": verdict.to_json(), "measurements": [m.to_json() for m in measurements]}


def against_truth(
    real: Dataset,
    synthetic: Transitions,
    truth: Truth,
    held_out: Integers | None = None,
    *,
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
        learned_floor: Held-out errors of a learned model, see `dynamics.ensemble.learned_floor`.
        sample: Rows of each side that the oracle is asked about.
        seed: Seed of the subsamples.
    """
    pair, parts = oracle.judge_sample(real, synthetic, truth, sample=sample, seed=seed), novelty.divided(real, held_out)
    by_novelty = None
    if pair is not None and parts is not None:
        training, unseen = (subsample(part, novelty.TRAINING, seed=seed, address=4) for part in parts)
        index, reference = Neighbours(training), subsample(unseen, novelty.SAMPLE, seed=seed, address=0)
        distances = index.distances(pair[0].rows), index.distances(reference)
        by_novelty = novelty.error_at_novelty(pair[0].errors, *distances)
    return [
        *oracle.dynamics(real, pair, sample=sample, learned_floor=learned_floor, by_novelty=by_novelty, seed=seed),
        *oracle.clipped_share(real, synthetic, truth, seed=seed),
        *oracle.calibration(real, synthetic, truth.kernel, seed=seed),
        *terminations.terminations(real, pair, truth.terminated, sample=sample, seed=seed),
    ]


def read_sample(rows: RowSource, size: int, *, seed: int) -> Transitions:
    """About `size` rows from all over the table, as blocks of neighbours: few reads, whatever the table's size.

    Rows of a generated table are independent, so blocks are as good as single rows.
    """
    if len(rows) <= size:
        return rows.read(0, len(rows))
    count = size // BLOCK
    starts = np.sort(stream(seed, Stage.VALIDATE, 2).choice(len(rows) // BLOCK, size=count, replace=False)) * BLOCK
    return concatenate([rows.read(int(start), int(start) + BLOCK) for start in starts])
