"""True values of a fixed policy in held-out states, by walking on from them in the simulator: what estimates are held
against.

Walks of all states go side by side: s -> pi(s) -> s'. A state with a component at its clip hides what the simulator
needs, so no walk starts there. On the way the runners keep the simulator's state whole: a good hopper is at its clip in
one step of six, and walked on from what is seen it falls where it never does. Other environments iterate the oracle
from observation to observation, and the share of steps from a clipped one is stated. Walks are cut after H steps with
gamma^H <= 0.01. Time limits end no walk: they are no terminations, and values look beyond.

Deterministic does not mean known: from two halfcheetahs that differ in the last bit of float32, walks drift apart until
their returns differ by a fifth of the spread between states. Several walks of one state start anywhere within that bit,
and their mean is what data can know of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from synth_pipeline import envs
from synth_pipeline.config import content_hash
from synth_pipeline.data.fields import Array
from synth_pipeline.data.rows import Dataset
from synth_pipeline.envs import behaviours
from synth_pipeline.envs.base import Bools, EnvironmentModel, Floats, Indices, Outcome
from synth_pipeline.envs.mujoco_locomotion import Locomotion
from synth_pipeline.envs.simulator import SimulatorLanes
from synth_pipeline.errors import ConfigError, SourceError, UnknownNameError
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.sources import catalog
from synth_pipeline.sources.base import hash_arrays
from synth_pipeline.sources.catalog import Share
from synth_pipeline.sources.collect import make_actor

Policy = Callable[[Array], Array]  # deterministic: `[n, o]` -> `[n, a]`, physical units
Which = Literal["best", "medium"] | int | None  # policy that is shipped; a number: snapshot; None: the usual one
ADDRESS = 1_002
TAIL = 0.01  # largest weight of what comes after a walk
ROUNDING = 2.0**-24  # of float32, relative
ROWS_AT_ONCE = 4_096


def fixed_policy(environment: EnvironmentModel, which: Which = "best") -> Policy:
    """A shipped policy acting by its mean.

    Args:
        environment: Where.
        which: `best`: the catalog's upper reference; `medium`: the snapshot of the level of this name; a number: the
            snapshot at so many training steps; None: `medium` where it is shipped, else `best`.

    Raises:
        UnknownNameError: When the project ships no such policy.
    """
    actor = make_actor(_share(environment.spec.name, which), environment)
    unused = stream(0, Stage.EVALUATE, ADDRESS)  # a mean draws nothing

    def policy(observations: Array) -> Array:
        starts = range(0, len(observations), ROWS_AT_ONCE)
        parts = [actor.act(observations[start : start + ROWS_AT_ONCE], unused) for start in starts]
        return np.concatenate(parts)

    return policy


def environments_with_policies() -> list[str]:
    """Environments of the catalog for which the project ships one that acts well."""
    return sorted({e.environment for e in catalog.entries().values() if e.references.best_policy is not None})


def policy_fingerprint(environment: str, which: Which = "best") -> str:
    """Hash of whose values are asked, and of the simulator whose word is the truth of them."""
    share, model = _share(environment, which), envs.make(environment)
    steps = share.environment_steps
    weights = "" if steps is None else hash_arrays(behaviours.parameters(environment, steps))
    return content_hash(share, weights, model.provenance())


def held_out_states(environment: EnvironmentModel, data: Dataset, *, count: int = 500, seed: int) -> Array:
    """Observations `[count, o]` to judge values in: rows of held-out episodes that the simulator can be reset to.

    Args:
        environment: Gives what can be reset.
        data: The held-out episodes.
        count: How many, drawn without replacement.
        seed: Seed of the draw; the same for all arms of a comparison.

    Raises:
        SourceError: When there are fewer.
    """
    observations = data.transitions()["observations"]
    rows = np.flatnonzero(environment.resettable(observations))
    if len(rows) < count:
        raise SourceError(
            f"{environment.spec.name}: too few held-out states can be reset",
            found=f"{len(rows):,} of {len(observations):,} rows",
            accepted=f"at least {count:,}",
            fix="hold out more episodes, or probe fewer states",
        )
    chosen = stream(seed, Stage.EVALUATE, ADDRESS, 0).choice(rows, count, replace=False)
    states: Array = observations[np.sort(chosen)]
    return states


@dataclass(frozen=True)
class MonteCarlo:
    """True values and how true they are.

    Attributes:
        states: `[n, o]`, those that a walk could start in.
        values: `[n]`, mean discounted return over the rollouts.
        errors: `[n]`, standard error of it over the rollouts; for one rollout, 0 where the dynamics are deterministic
            and NaN where they are not.
        discount: gamma.
        horizon: H, steps after which walks are cut.
        rollouts: Walks a state.
        left_out: States that no walk started in, or whose simulation diverged.
        truncated: Share of walks that were cut; each is short of at most `tail` of the largest value possible.
        clipped_steps: Share of steps that went on from an observation at its clip, without what it hides.
        clipped_walks: Share of walks with at least one of those.
    """

    states: Array
    values: Floats
    errors: Floats
    discount: float
    horizon: int
    rollouts: int
    left_out: int
    truncated: float
    clipped_steps: float
    clipped_walks: float

    @property
    def tail(self) -> float:
        """gamma^H, the weight of what comes after a walk."""
        return self.discount**self.horizon

    def plain(self) -> dict[str, Any]:
        """What a report states, as plain JSON."""
        names = ("discount", "horizon", "tail", "rollouts", "left_out", "truncated", "clipped_steps", "clipped_walks")
        facts = {name: getattr(self, name) for name in names}
        spread = {"mean": float(self.values.mean()), "std": float(self.values.std())}
        error = float(np.sqrt(np.mean(np.square(self.errors))))
        return {"states": len(self.values), **spread, "error": error if math.isfinite(error) else None, **facts}


def monte_carlo_values(
    environment: EnvironmentModel,
    states: Array,
    policy: Policy,
    *,
    discount: float = 0.99,
    horizon: int | None = None,
    rollouts: int = 1,
    seed: int = 0,
) -> MonteCarlo:
    """V(s) of a deterministic policy, which is Q(s, pi(s)).

    Args:
        environment: With an exact reset.
        states: `[n, o]`, physical units.
        policy: Who acts.
        discount: gamma, below 1.
        horizon: Steps of a walk; None: as many as bring gamma^H to 0.01.
        rollouts: Walks a state; of deterministic dynamics, one starts in it, several within the rounding of float32.
        seed: Of noise and rounding.

    Raises:
        ConfigError: When a walk would be cut too early, or for a count below 1.
        SourceError: When no state can be walked from.
        EnvironmentModelError: When the environment has no exact reset.
    """
    horizon = walk_length(discount, horizon)
    if rollouts < 1:
        raise ConfigError("a value needs at least one rollout", found=rollouts)
    rng = stream(seed, Stage.EVALUATE, ADDRESS, 1)
    kept = states[environment.resettable(states)]
    starts = np.repeat(kept, rollouts, axis=0).astype(np.float64)
    if rollouts > 1 and not environment.spec.stochastic:
        starts *= 1 + rng.uniform(-ROUNDING, ROUNDING, starts.shape)
    walkers = _walkers(environment, starts, rng)
    returns, running = _walk(
        walkers, environment, starts, policy, np.power(discount, np.arange(horizon), dtype=np.float64)
    )
    returns = returns.reshape(len(kept), rollouts)
    whole = np.isfinite(returns).all(axis=1)
    if not whole.any():
        raise SourceError(f"{environment.spec.name}: no state can be walked from", found=f"{len(states):,} states")
    found = returns[whole]
    unknown = np.nan if environment.spec.stochastic else 0.0
    errors = found.std(axis=1, ddof=1) / math.sqrt(rollouts) if rollouts > 1 else np.full(len(found), unknown)
    return MonteCarlo(
        kept[whole],
        found.mean(axis=1),
        errors,
        discount,
        horizon,
        rollouts,
        left_out=len(states) - len(found),
        truncated=float(running.mean()),
        clipped_steps=walkers.clipped_steps / max(walkers.steps, 1),
        clipped_walks=float(walkers.clipped.mean()),
    )


def walk_length(discount: float, horizon: int | None) -> int:
    """Steps of a walk.

    Raises:
        ConfigError: When what comes after has a weight above 0.01.
    """
    if not 0 < discount < 1:
        raise ConfigError("a walk of finite length needs a discount between 0 and 1", found=discount)
    needed = math.ceil(math.log(TAIL) / math.log(discount))
    if horizon is not None and horizon < needed:
        raise ConfigError(
            "walks would be cut while what comes after still counts",
            found=f"{horizon} steps, gamma^H = {discount**horizon:.2g}",
            accepted=f"at least {needed} steps, gamma^H <= {TAIL:g}",
        )
    return needed if horizon is None else horizon


class _Oracle:
    """The oracle step from observation to observation: exact where these show the whole state."""

    def __init__(self, environment: EnvironmentModel, starts: Floats, rng: np.random.Generator) -> None:
        self._environment, self._rng, self._observations = environment, rng, starts.copy()
        self.clipped = np.zeros(len(starts), np.bool_)
        self.steps, self.clipped_steps = 0, 0

    def step(self, active: Indices, actions: Array) -> Outcome:
        observations = self._observations[active]
        hidden = ~self._environment.resettable(observations)
        self.clipped[active] |= hidden
        self.steps += len(active)
        self.clipped_steps += int(hidden.sum())
        outcome = self._environment.step(observations, actions, self._rng)
        self._observations[active] = outcome.next_observations
        return outcome


class _Runners:
    """MuJoCo's runners, each with its simulator's state; x begins at 0, which no reward and no policy sees."""

    def __init__(self, environment: Locomotion, starts: Floats) -> None:
        self._environment, self._x = environment, np.zeros(len(starts))
        bare = environment.bare()
        self._lanes = SimulatorLanes(bare, len(starts))
        positions = len(environment.spec.kinematics)
        for lane, start in enumerate(starts):
            bare.set_state(np.append(0.0, start[:positions]), start[positions:])  # type: ignore[no-untyped-call]
            self._lanes.load(lane)
        self.clipped = np.zeros(len(starts), np.bool_)
        self.steps, self.clipped_steps = 0, 0

    def step(self, active: Indices, actions: Array) -> Outcome:
        self._lanes.advance(active, actions)
        qpos, qvel = self._lanes.state(active)
        outcome = self._environment.outcome(self._x[active], qpos, qvel, actions)
        self._x[active] = qpos[:, 0]
        return outcome


def _walk(
    walkers: _Oracle | _Runners, environment: EnvironmentModel, starts: Floats, policy: Policy, weights: Floats
) -> tuple[Floats, Bools]:
    """Discounted returns `[n]` (NaN: the simulation diverged), and which walks were still going at the end."""
    observations, returns, running = starts.copy(), np.zeros(len(starts)), np.ones(len(starts), np.bool_)
    for weight in weights:
        active = np.flatnonzero(running)
        if not active.size:
            break
        shown = observations[active].astype(np.float32)  # as a rollout shows them, and takes the actions
        actions = environment.spec.action.clipped(np.asarray(policy(shown), np.float32))
        outcome = walkers.step(active, actions)
        whole = np.isfinite(outcome.next_observations).all(axis=1)
        returns[active] += np.where(whole, weight * outcome.rewards, np.nan)
        observations[active] = outcome.next_observations
        running[active] = whole & ~outcome.terminations
    return returns, running


def _walkers(environment: EnvironmentModel, starts: Floats, rng: np.random.Generator) -> _Oracle | _Runners:
    return _Runners(environment, starts) if isinstance(environment, Locomotion) else _Oracle(environment, starts, rng)


def _share(environment: str, which: Which) -> Share:
    levels = behaviours.recipe(environment).levels() if environment in behaviours.names() else {}
    if which is None:
        which = "medium" if "medium" in levels else "best"
    if isinstance(which, int):
        return Share(behaviour="sac", environment_steps=which, stochastic=False)
    entries = [entry for entry in catalog.entries().values() if entry.environment == environment]
    if which == "medium":
        found = Share(behaviour="sac", environment_steps=levels["medium"][0]) if "medium" in levels else None
    else:
        found = entries[0].references.best_policy if entries else None
    if found is None:
        raise UnknownNameError(
            f"no policy '{which}' is shipped for {environment}, so nobody's values can be asked there",
            accepted=f"an environment with policies: {', '.join(environments_with_policies())}",
            fix="leave values out: synthpipe evaluate judges rows by the returns of agents",
        )
    return found.replace(stochastic=False) if found.behaviour == "sac" else found.replace(noise=0.0)
