"""The scorecard: every measurement of one table of rows against real data, judged by one suite. Plain JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from synth_pipeline.data.containers import Transitions, concatenate
from synth_pipeline.data.fields import Array, Field
from synth_pipeline.data.rows import Dataset, RowSource
from synth_pipeline.errors import unknown_name
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.validation.contract import contract
from synth_pipeline.validation.gate import Suite, Verdict, judge
from synth_pipeline.validation.marginals import SAMPLE, marginals

BLOCK = 256
METRICS = (
    *(f"contract.{name}" for name in ("schema", "finite", "bounds", "terminations")),
    *(f"marginals.{name}" for name in ("mean", "worst")),
)


def scorecard(
    rows: RowSource,
    real: Dataset,
    suite: Suite,
    *,
    fields: tuple[Field, ...],
    compared: tuple[Field, ...],
    terminated: Callable[[Array], Array] | None = None,
    seed: int = 0,
) -> tuple[Verdict, dict[str, Any]]:
    """Measure and judge.

    Args:
        rows: What is judged; all rows are streamed once, a sample is compared.
        real: The data it should be like.
        suite: The rules.
        fields: What every column of `rows` must be.
        compared: Columns that are compared with the real ones.
        terminated: The environment's termination function of next observations, injected; None: not checked.
        seed: Seed of the subsamples.

    Returns:
        The verdict, and `{"verdict": ..., "measurements": [...]}` as plain JSON.

    Raises:
        UnknownNameError: When a rule names a metric that does not exist.
    """
    for rule in suite.rules:
        if rule.metric not in METRICS:
            raise unknown_name("metric", rule.metric, METRICS)
    measurements = contract(rows, fields, terminated)
    if not any(m.value for m in measurements if m.metric == "contract.schema"):
        measurements += marginals(real, read_sample(rows, SAMPLE, seed=seed), compared, seed=seed)
    verdict = judge(measurements, suite)
    return verdict, {"verdict": verdict.to_json(), "measurements": [m.to_json() for m in measurements]}


def read_sample(rows: RowSource, size: int, *, seed: int) -> Transitions:
    """About `size` rows from all over the table, as blocks of neighbours: few reads, whatever the table's size.

    Rows of a generated table are independent, so blocks are as good as single rows.
    """
    if len(rows) <= size:
        return rows.read(0, len(rows))
    count = size // BLOCK
    starts = np.sort(stream(seed, Stage.VALIDATE, 2).choice(len(rows) // BLOCK, size=count, replace=False)) * BLOCK
    return concatenate([rows.read(int(start), int(start) + BLOCK) for start in starts])
