"""Speed of collecting against one process that replays the same actions through plain Gymnasium without a policy.

Claims: `collect.speed_ratio` (one process) and `collect.two_process_ratio` (two processes, same yardstick). Collecting
runs the shipped medium policy of hopper through `rollout_rows`; the yardstick resets and steps
`gymnasium.make("Hopper-v5")` from the same seeds with the recorded actions: the same physics, step for step.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is imported, and inherited by the workers

import argparse
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import gymnasium
from evidence import record

from synth_pipeline import envs, seeding
from synth_pipeline.data.containers import Episodes
from synth_pipeline.envs import behaviours
from synth_pipeline.envs.base import EnvironmentModel
from synth_pipeline.envs.rollout import rollout_rows
from synth_pipeline.seeding import Stage

SEED = 0


@cache
def _prepared() -> tuple[EnvironmentModel, behaviours.SacActor]:
    recipe = behaviours.recipe("hopper")
    snapshot = recipe.levels().get("medium", recipe.levels()["expert"])[0]
    return envs.make("hopper"), behaviours.SacActor(behaviours.parameters("hopper", snapshot))


def collect(task: int, rows: int) -> Episodes:
    """One task, as the pipeline runs it."""
    environment, actor = _prepared()
    return rollout_rows(environment, actor, rows=rows, capacity=rows + 1000, seed=SEED, address=(task,))


def count(task: int, rows: int) -> int:
    """One task in a worker; its rows stay there, as they do when a worker writes its own shard."""
    return collect(task, rows).num_rows


def replay(task: int, episodes: Episodes) -> None:
    """The yardstick: plain Gymnasium, recorded actions, resets included."""
    environment = gymnasium.make("Hopper-v5")
    actions = episodes["actions"]
    for episode in range(len(episodes)):
        environment.reset(seed=seeding.integer_seed(SEED, Stage.COLLECT, task, 0, episode))
        for row in range(episodes.starts[episode], episodes.starts[episode + 1]):
            environment.step(actions[row])


def measure(rows: int, repetitions: int) -> dict[str, list[float]]:
    """Steps per second of each arm, interleaved."""
    speeds: dict[str, list[float]] = {"replay": [], "one_process": [], "two_processes": []}
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(count, (0, 1), (1000, 1000)))  # start the workers and load the model
        collect(0, 1000)
        for repetition in range(repetitions):
            first, second = 2 * repetition, 2 * repetition + 1
            start = time.perf_counter()
            episodes = collect(first, rows)
            middle = time.perf_counter()
            replay(first, episodes)
            end = time.perf_counter()
            total = sum(pool.map(count, (first, second), (rows, rows)))
            speeds["one_process"].append(episodes.num_rows / (middle - start))
            speeds["replay"].append(episodes.num_rows / (end - middle))
            speeds["two_processes"].append(total / (time.perf_counter() - end))
    return speeds


def main() -> None:
    """Measure and write both claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000, help="rows of one task")
    parser.add_argument("--repetitions", type=int, default=7, help="interleaved repetitions")
    options = parser.parse_args()
    start = time.perf_counter()
    speeds = measure(options.rows, options.repetitions)
    details = {"steps_per_second": {name: [round(value) for value in values] for name, values in speeds.items()}}
    for claim, arm, bar in (
        ("collect.speed_ratio", "one_process", ">= 0.7"),
        ("collect.two_process_ratio", "two_processes", ">= 1.3"),
    ):
        ratio = statistics.median(a / b for a, b in zip(speeds[arm], speeds["replay"], strict=True))
        seconds = time.perf_counter() - start
        record(claim, round(ratio, 3), bar=bar, unit="x one replaying process", seconds=seconds, details=details)


if __name__ == "__main__":
    main()
