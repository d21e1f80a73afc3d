"""The only rollout: actors act, environments step in lock-step lanes, whole episodes come out.

A call is a pure function of its arguments: episode e starts from the seed at `(stage, *address, 0, e)` and the actor
draws from the stream at `(stage, *address, 1)`. A task of a parallel run is one call with its own address, so the data
do not depend on how many processes share the tasks. One thing lies outside: BLAS rounds differently with another number
of threads, so processes that collect must pin it (`scale.local` does), which is also several times faster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from synth_pipeline import seeding
from synth_pipeline.data.containers import Episodes, concatenate_episodes
from synth_pipeline.data.fields import Array, Field
from synth_pipeline.envs.base import EnvironmentModel, EnvironmentSpec, Floats, Outcome
from synth_pipeline.errors import EnvironmentModelError
from synth_pipeline.seeding import Stage


class Actor(Protocol):
    """What acts in an environment: agents, planners and policies alike; history, plan and budget live inside."""

    def reset(self, n: int, /) -> None:
        """Begin n new episodes, one a lane."""
        ...

    def act(self, observations: Array, rng: np.random.Generator, /) -> Array:
        """Actions `[n, a]` for observations `[n, o]` (float32); rows of finished lanes are ignored."""
        ...

    def observe(self, rewards: Array, costs: Array | None, infos: Mapping[str, Array], /) -> None:
        """What the last actions gave, `[n]` each; zero in finished lanes; costs are None where there are none."""
        ...


class RandomActor:
    """Uniform actions inside the bounds.

    Args:
        action: The action field of an environment's spec.
    """

    def __init__(self, action: Field) -> None:
        self._low, self._high = np.asarray(action.low), np.asarray(action.high)

    def reset(self, n: int) -> None:
        """Nothing to begin."""

    def act(self, observations: Array, rng: np.random.Generator) -> Array:
        """Independent draws for every row."""
        return rng.uniform(self._low, self._high, (len(observations), len(self._low)))

    def observe(self, rewards: Array, costs: Array | None, infos: Mapping[str, Array]) -> None:
        """Nothing to learn."""


def rollout(
    environment: EnvironmentModel,
    actor: Actor,
    *,
    episodes: int,
    seed: int,
    stage: Stage = Stage.COLLECT,
    address: tuple[int, ...] = (),
    lanes: int = 16,
    max_steps: int | None = None,
) -> Episodes:
    """Run whole episodes.

    Args:
        environment: Where.
        actor: Who acts.
        episodes: How many, >= 1.
        seed: Seed of the run.
        stage: Which stage draws.
        address: Coordinates of this call among others of the stage, e.g. `(task,)`.
        lanes: Episodes that run side by side; part of the result where the actor draws noise.
        max_steps: A time limit below the environment's own.

    Returns:
        Columns `actions`, `rewards` (float32), `terminations`, `truncations` and the environment's infos by row.

    Raises:
        EnvironmentModelError: On a count below 1, and when the actor gives actions of a wrong shape or not finite.
    """
    _at_least_one(episodes=episodes, lanes=lanes, max_steps=1 if max_steps is None else max_steps)
    run = _Run(environment, actor, seed, (stage, address), min(lanes, episodes), max_steps)
    parts = [run.batch(first, min(lanes, episodes - first)) for first in range(0, episodes, lanes)]
    return concatenate_episodes(parts)


def rollout_rows(
    environment: EnvironmentModel,
    actor: Actor,
    *,
    rows: int,
    capacity: int,
    seed: int,
    stage: Stage = Stage.COLLECT,
    address: tuple[int, ...] = (),
    lanes: int = 16,
) -> Episodes:
    """Run whole episodes until there are at least `rows` rows, but never more than `capacity`.

    The last episode is left out when it would not fit; with `capacity >= rows + horizon - 1` this never happens.
    Other arguments, result and errors as in `rollout`.

    Raises:
        EnvironmentModelError: When not even one episode of full length fits.
    """
    _at_least_one(rows=rows, lanes=lanes)
    horizon = environment.spec.horizon
    if capacity < max(rows, horizon):
        raise EnvironmentModelError(
            f"{environment.spec.name}: a task cannot hold its rows and one whole episode",
            found=f"capacity {capacity}, rows {rows}",
            accepted=f"a capacity of at least {max(rows, horizon)}",
        )
    run = _Run(environment, actor, seed, (stage, address), lanes, None)
    parts: list[Episodes] = []
    count, total, mean_length = 0, 0, float(horizon)
    while total < rows:
        # As many episodes as the rest will need by the lengths so far: few are run in vain.
        part = run.batch(count, min(lanes, math.ceil((rows - total) / mean_length)))
        ends = total + part.starts[1:]
        enough, fitting = int(np.searchsorted(ends, rows)) + 1, int(np.searchsorted(ends, capacity, side="right"))
        parts.append(part.take(np.arange(min(len(part), enough, fitting))))
        count, total = count + len(part), int(ends[-1])
        mean_length = total / count
    return concatenate_episodes(parts)


def _at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise EnvironmentModelError(f"a rollout cannot have {name} below 1", found=count, accepted="1 or more")


class _Run:
    """One call of a rollout: its lanes, its seeds, its actor."""

    def __init__(
        self,
        environment: EnvironmentModel,
        actor: Actor,
        seed: int,
        place: tuple[Stage, tuple[int, ...]],
        lanes: int,
        max_steps: int | None,
    ) -> None:
        self._spec = environment.spec
        self._actor = actor
        self._lanes = environment.lanes(lanes)
        self._limit = self._spec.horizon if max_steps is None else min(self._spec.horizon, max_steps)
        self._seed, (self._stage, self._address) = seed, place
        self._rng = seeding.stream(seed, self._stage, *self._address, 1)

    def batch(self, first: int, count: int) -> Episodes:
        """The episodes `first <= e < first + count`, side by side, each to its end."""
        record = _Record(self._spec, self._limit, count)
        observations = np.array([self._start(lane, first + lane) for lane in range(count)], np.float32)
        active = np.arange(count)
        self._actor.reset(count)
        for step in range(self._limit):
            actions = self._act(observations)
            outcome = self._lanes.step(active, actions[active])
            record.add(step, observations, actions)
            self._actor.observe(*record.outcome(step, active, outcome))
            observations = observations.copy()  # the actor may keep what it was given
            observations[active] = outcome.next_observations
            active = active[~outcome.terminations]
            if not active.size:
                break
        return record.episodes(observations)

    def _start(self, lane: int, episode: int) -> Floats:
        return self._lanes.reset(lane, seeding.integer_seed(self._seed, self._stage, *self._address, 0, episode))

    def _act(self, observations: Array) -> Array:
        actions = np.asarray(self._actor.act(observations, self._rng), np.float32)
        expected = (len(observations), self._spec.action_size)
        if actions.shape != expected or not np.isfinite(actions).all():
            raise EnvironmentModelError(
                f"{self._spec.name}: the actor gave actions that cannot be used",
                found=f"shape {actions.shape}, {int((~np.isfinite(actions)).sum())} values not finite",
                accepted=f"finite numbers of shape {expected}",
            )
        return self._spec.action.clipped(actions)


class _Record:
    """Lock-step rows `[time, lane, ...]` of one batch, and each lane's length."""

    def __init__(self, spec: EnvironmentSpec, limit: int, count: int) -> None:
        self._infos = [field.name for field in spec.infos]
        infos = {field.name: np.zeros((limit, count, *field.shape), field.dtype) for field in spec.infos}
        self._observations = np.empty((limit, count, spec.observation_size), np.float32)
        self._columns = {
            "actions": np.empty((limit, count, spec.action_size), np.float32),
            "rewards": np.zeros((limit, count), np.float32),
            "terminations": np.zeros((limit, count), np.bool_),
            **infos,
        }
        self._lengths = np.zeros(count, np.int64)

    def add(self, step: int, observations: Array, actions: Array) -> None:
        """What went into a step, all lanes."""
        self._observations[step] = observations
        self._columns["actions"][step] = actions

    def outcome(self, step: int, active: Array, outcome: Outcome) -> tuple[Array, None, dict[str, Array]]:
        """What came out of a step in the active lanes; returns rewards, costs and infos of all lanes."""
        self._lengths[active] += 1
        self._columns["rewards"][step, active] = outcome.rewards
        self._columns["terminations"][step, active] = outcome.terminations
        for name in self._infos:
            self._columns[name][step, active] = outcome.infos[name]
        return self._columns["rewards"][step], None, {name: self._columns[name][step] for name in self._infos}

    def episodes(self, final_observations: Array) -> Episodes:
        """The rows lane after lane; an episode without termination ends in a truncation."""
        lengths = self._lengths
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        flat = {name: self._cut(column) for name, column in self._columns.items()}
        truncations = np.zeros(starts[-1], np.bool_)
        last = starts[1:] - 1
        truncations[last] = ~flat["terminations"][last]
        return Episodes(
            self._cut(self._observations), final_observations.copy(), starts, {**flat, "truncations": truncations}
        )

    def _cut(self, values: Array) -> Array:
        return np.concatenate([values[:length, lane] for lane, length in enumerate(self._lengths)])
