"""Stochastic dynamics: the default SynthER against known transition kernels: `core.stochastic_kernels`.

    python benchmarks/kernels.py
    python benchmarks/kernels.py --only toy-jumps    # fit and judge this one, record nothing

Every toy is collected, fitted and sampled; u = F(s' | s, a) of 20,000 drawn rows must be uniform (KS <= 0.02), its
modes must have their mass (within 0.02), its conditional spread must be right (ratio 0.9 to 1.1). The same model with
its mean alone must fail. Only steps of the diffusion of (s, a) are fewer than the default's: three to five dimensions.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from evidence import record_table
from fitted import SEED, fitted_once

from synth_pipeline import envs, stages
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.split import split_dataset
from synth_pipeline.envs.toys import MixtureToy
from synth_pipeline.generators.synther import SynthER
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.sources.collect import CollectedSource
from synth_pipeline.validation.oracle import ks_uniform

Floats = npt.NDArray[np.float64]
TOYS = ("toy-linear-gaussian", "toy-bimodal-slip", "toy-heteroscedastic", "toy-jumps")
ROWS, DRAWN, STEPS = 100_000, 20_000, 3_000
FOLDER = Path("runs/benchmark-kernels")  # of fitted models; a killed program goes on where it was


def fitted(toy: str) -> SynthER:
    """The default on a toy."""
    stages.collect(f"{toy}/random", rows=ROWS)
    data = CollectedSource(f"{toy}/random", rows=ROWS).load()
    settings = {"kind": "synther", "trainer": {"gradient_steps": STEPS}}
    return fitted_once(FOLDER / toy, lambda: settings, split_dataset(data, seed=SEED).train)


def mode_mass(toy: MixtureToy, rows: Transitions) -> dict[str, float]:
    """Mass of the rarer mode, drawn and true: rows nearer to its mean than to the other's."""
    before, actions = rows["observations"].astype(np.float64), rows["actions"].astype(np.float64)
    mixture = toy.kernel(before, np.clip(actions, -1, 1))
    if len(mixture.weights) < 2:
        return {}
    apart = np.linalg.norm(mixture.means[0] - mixture.means[1], axis=1)
    clear = apart > 6 * 0.05  # elsewhere the modes overlap
    distances = np.linalg.norm(rows["next_observations"] - mixture.means, axis=2)
    return {"drawn": float((distances[1] < distances[0])[clear].mean()), "true": float(mixture.weights[1])}


def spread_ratio(toy: MixtureToy, rows: Transitions) -> list[float]:
    """Standard deviation of s' about its true mean over the true one, by fifths of the true one, worst component."""
    mean, covariance = toy.mean_and_covariance(rows["observations"], rows["actions"])
    true = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    scored = (rows["next_observations"] - mean) / true
    fifth = np.argsort(np.argsort(true.mean(axis=1))) * 5 // len(true)
    ratios = np.array([scored[fifth == i].std(axis=0) for i in range(5)])
    worst: list[float] = ratios[np.arange(5), np.abs(ratios - 1).argmax(axis=1)].round(4).tolist()
    return worst


def distance(toy: MixtureToy, rows: Transitions) -> float:
    """KS distance of F(s' | s, a) from uniform, worst component."""
    columns = (rows[name] for name in ("observations", "actions", "next_observations"))
    return float(ks_uniform(toy.conditional_cdf(*columns)).max())


def judged(name: str) -> dict[str, Any]:
    """Everything about one toy."""
    toy, model = envs.make(name), fitted(name)
    assert isinstance(toy, MixtureToy)
    rows = model.sample(DRAWN, stream(SEED, Stage.GENERATE, 0, 0))
    mean = rows.with_columns(next_observations=model.expected(rows)["next_observations"])
    found: dict[str, Any] = {
        "pit_ks": distance(toy, rows),
        "pit_ks of the mean alone": distance(toy, mean),
        "spread ratio by fifths": spread_ratio(toy, rows),
        "rarer mode": mode_mass(toy, rows),
        "notes": model.notes(),
    }
    right = found["pit_ks"] <= 0.02 < found["pit_ks of the mean alone"]
    right &= all(0.9 <= ratio <= 1.1 for ratio in found["spread ratio by fifths"])
    if mass := found["rarer mode"]:
        right &= abs(mass["drawn"] - mass["true"]) <= 0.02
    return {**found, "holds": bool(right)}


def main() -> None:
    """Every toy, one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TOYS, help="these; nothing is recorded")
    only, began = parser.parse_args().only, time.monotonic()
    table = {name: judged(name) for name in only or TOYS}
    if only:
        print(table)
        return
    complete = all(row["holds"] for row in table.values())
    record_table("core.stochastic_kernels", table, complete=complete, seconds=time.monotonic() - began, seed=SEED)


if __name__ == "__main__":
    main()
