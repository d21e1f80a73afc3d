"""Speed of the simulator oracle against Gymnasium's own `set_state` and `step`, row after row on one core.

Claim: `validation.oracle_ratio`, per core that the oracle uses. Rows are those of hopper's shipped medium policy, off
the observation clip; every round times the oracle on all usable cores, the loop, and the oracle on one core.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is imported: the arms differ in the simulator's threads alone

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from evidence import record

from synth_pipeline import envs
from synth_pipeline.data.fields import Array
from synth_pipeline.envs import behaviours
from synth_pipeline.envs.rollout import rollout_rows
from synth_pipeline.machine import usable_threads
from synth_pipeline.validation.truth import Oracle, simulator_oracle

SEED = 0


def recorded(rows: int) -> tuple[Array, Array]:
    """Observations and actions of the medium policy that the oracle can judge."""
    model, recipe = envs.make("hopper"), behaviours.recipe("hopper")
    actor = behaviours.SacActor(behaviours.parameters("hopper", recipe.levels()["medium"][0]))
    found = rollout_rows(model, actor, rows=2 * rows, capacity=2 * rows + 1000, seed=SEED, address=(0,)).transitions()
    known = simulator_oracle(model)(found["observations"], found["actions"]).judged
    return found["observations"][known][:rows], found["actions"][known][:rows]


def oracle_on(threads: int, observations: Array, actions: Array) -> Oracle:
    """An oracle whose simulator is compiled and has `threads` threads."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    oracle = simulator_oracle(envs.make("hopper"))
    oracle(observations[:1000], actions[:1000])
    return oracle


def loop(environment: Any, observations: Array, actions: Array) -> Array:
    """The yardstick: every row set and stepped in Gymnasium."""
    after = np.empty(observations.shape)
    for row, (observation, action) in enumerate(zip(observations.astype(np.float64), actions, strict=True)):
        environment.set_state(np.concatenate([[0.0], observation[:5]]), observation[5:])
        after[row] = environment.step(action)[0]
    return after


def measure(rows: int, rounds: int, threads: int) -> tuple[dict[str, dict[str, list[float]]], float]:
    """Rows per second and per second of processor time of each arm, and the largest difference between answers."""
    observations, actions = recorded(rows)
    environment = gymnasium.make("Hopper-v5", disable_env_checker=True).unwrapped
    environment.reset(seed=SEED)
    arms: dict[str, Callable[[Array, Array], Any]] = {
        "oracle": oracle_on(threads, observations, actions),
        "loop": lambda *given: loop(environment, *given),
        "oracle_one_thread": oracle_on(1, observations, actions),
    }
    speeds: dict[str, dict[str, list[float]]] = {
        "wall": {name: [] for name in arms},
        "cpu": {name: [] for name in arms},
    }
    answers = {}
    for _ in range(rounds):
        for name, arm in arms.items():
            wall, cpu = time.perf_counter(), time.process_time()
            answers[name] = arm(observations, actions)
            speeds["wall"][name].append(len(actions) / (time.perf_counter() - wall))
            speeds["cpu"][name].append(len(actions) / (time.process_time() - cpu))
    return speeds, float(np.abs(answers["oracle"].next_observations - answers["loop"]).max())


def ratio(speeds: dict[str, list[float]], arm: str) -> float:
    """Median over the rounds of an arm's speed over the loop's."""
    return statistics.median(a / b for a, b in zip(speeds[arm], speeds["loop"], strict=True))


def main() -> None:
    """Measure and write the claim."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="rows that are judged")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds")
    options = parser.parse_args()
    begin, threads, load = time.perf_counter(), usable_threads(), os.getloadavg()[0]
    speeds, difference = measure(options.rows, options.rounds, threads)
    details = {
        "threads": threads,
        "rows": options.rows,
        "wall_clock_ratio": {name: round(ratio(speeds["wall"], name), 3) for name in ("oracle", "oracle_one_thread")},
        "processor_time_ratio": round(ratio(speeds["cpu"], "oracle"), 3),
        "rows_per_second": {name: [round(value) for value in values] for name, values in speeds["wall"].items()},
        "largest_difference": difference,
        "load_before": round(load, 2),
    }
    record(
        "validation.oracle_ratio",
        round(ratio(speeds["wall"], "oracle") / threads, 3),
        bar=">= 1.8",
        unit="x one core's set_state + step loop, per core used",
        seconds=time.perf_counter() - begin,
        seed=SEED,
        details=details,
    )


if __name__ == "__main__":
    main()
