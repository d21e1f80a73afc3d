"""Rows per second of SynthER's default over `paper`, both fitted on hopper, in one run: `synther.speed_ratio`.

    python benchmarks/synther_speed.py               # a quarter of an hour on an idle machine

Single rounds scatter by a tenth; the claim is the median of the rounds, the quartiles stand beside it. Both compute in
the precision that is native (`precision`); shares of the peak are of float32's, as measured in the same minute.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from agents import peak
from evidence import record
from synther import Bench
from torch.utils.flop_counter import FlopCounterMode

from synth_pipeline.generators.synther import SynthER

ROUNDS, MANY, FEW = 8, 65_536, 1_024  # rows of ours and of paper


def main() -> None:
    """Ours before and after every paper, so that a slow minute favours none."""
    began, bench = time.perf_counter(), Bench("hopper")
    ours, paper = bench.fitted("default"), bench.fitted("paper")
    rng, rates = np.random.default_rng(0), []
    for model in (ours, paper):
        model.sample(64, rng)
    for _ in range(ROUNDS):
        took = [_seconds(model, count, rng) for model, count in ((ours, MANY), (paper, FEW), (ours, MANY))]
        rates.append([2 * MANY / (took[0] + took[2]), FEW / took[1]])
    ratio = float(np.median([a / b for a, b in rates]))
    quartiles = np.quantile([a / b for a, b in rates], (0.25, 0.75)).round(1).tolist()
    details = {"rows_per_second": rates, "quartiles of the ratio": quartiles, "threads": torch.get_num_threads()}
    details |= {"calls": [ours.calls, paper.calls], "precision": [ours.precision, paper.precision]}
    details["share of the float32 peak"] = [_share(ours, MANY // 4, rng), _share(paper, FEW // 4, rng)]
    seconds = time.perf_counter() - began
    record("synther.speed_ratio", ratio, bar=">= 500", unit="x rows/s of paper", seconds=seconds, details=details)


def _seconds(model: SynthER, rows: int, rng: np.random.Generator) -> float:
    began = time.perf_counter()
    model.sample(rows, rng)
    return time.perf_counter() - began


def _share(model: SynthER, rows: int, rng: np.random.Generator) -> float:
    """Floating-point operations a second over those of a plain matrix product, same threads and minute."""
    with FlopCounterMode(display=False) as counter:
        model.sample(rows, rng)
    return round(float(counter.get_total_flops()) / _seconds(model, rows, rng) / peak(), 3)


if __name__ == "__main__":
    main()
