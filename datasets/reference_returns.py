"""Measures what the catalog's normalised scores are read against: uniform actions and the best shipped policy.

    python datasets/reference_returns.py hopper walker2d      # no name: every environment

100 episodes each, deterministic by seed. The upper reference is the best policy as it collects data (sampled
actions, for the maze controller with its noise); its mean action is measured beside it. Writes
`benchmarks/results/catalog.reference_returns.<environment>.json`; nothing else is changed: a test holds the numbers
in `datasets/catalog/*.yaml` against these files.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is imported: batches of 16 rows are too small to share

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from evidence import record_table

from synth_pipeline import envs
from synth_pipeline.envs import behaviours
from synth_pipeline.envs.base import EnvironmentModel
from synth_pipeline.envs.rollout import Actor, rollout
from synth_pipeline.errors import SynthPipelineError
from synth_pipeline.seeding import Stage
from synth_pipeline.sources.catalog import Share
from synth_pipeline.sources.collect import make_actor

EPISODES, SEED = 100, 0
MAZE_NOISE = 0.5


def best_share(model: EnvironmentModel) -> Share | None:
    """The best policy that the project ships for an environment, or None when it ships none."""
    name = model.spec.name
    if name in behaviours.names():
        recipe = behaviours.recipe(name)
        return Share(behaviour="sac", environment_steps=recipe.snapshots[recipe.best].environment_steps)
    return Share(behaviour="waypoint", noise=MAZE_NOISE) if model.spec.family == "pointmaze" else None


def without_noise(share: Share) -> Share:
    """The same policy acting by its mean."""
    return share.replace(stochastic=False) if share.behaviour == "sac" else share.replace(noise=0.0)


def measure(model: EnvironmentModel, actor: Actor, place: int) -> dict[str, Any]:
    """Mean, spread and number of returns, and the mean length."""
    found = rollout(model, actor, episodes=EPISODES, seed=SEED, stage=Stage.EVALUATE, address=(place,))
    return {
        "mean": round(float(found.returns.mean()), 3),
        "std": round(float(found.returns.std()), 3),
        "episodes": EPISODES,
        "length": round(float(found.lengths.mean()), 1),
    }


def reference_returns(environment: str) -> dict[str, Any]:
    """The `references` of one environment's YAML, with mean lengths beside.

    Raises:
        UnknownNameError: When there is no such environment.
    """
    model = envs.make(environment)
    shares = {"random": Share(behaviour="uniform")}
    best = best_share(model)
    if best is not None:
        shares |= {"best": best, "best_without_noise": without_noise(best)}
    table: dict[str, Any] = {"versions": model.provenance()["packages"], "horizon": model.spec.horizon}
    for place, (name, share) in enumerate(shares.items()):
        table[name] = {"policy": share.label, **measure(model, make_actor(share, model), place)}
    if best is not None:
        table["best_policy"] = best.model_dump()
    return table


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environments", nargs="*", metavar="ENV", help=", ".join(envs.ENVIRONMENTS.names()))
    chosen = parser.parse_args().environments or envs.ENVIRONMENTS.names()
    try:
        for environment in chosen:
            start = time.monotonic()
            table = reference_returns(environment)
            sys.argv[1:] = [environment]  # the command that the evidence names measures this one again
            seconds = time.monotonic() - start
            record_table(f"catalog.reference_returns.{environment}", table, complete=True, seconds=seconds, seed=SEED)
    except SynthPipelineError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
