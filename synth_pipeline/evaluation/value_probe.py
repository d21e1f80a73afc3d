"""What data say about values: fitted Q evaluation of a fixed policy, held against its true values in the simulator.

The policy is not learned, so this measures rows as a source of values and nothing else: no exploration, no optimism of
a maximum, far less noise than the score of an agent. FQE: Le, Voloshin and Yue 2019 (arXiv:1903.08261), alg. 3; a slow
copy of the critics stands in the place of their regression anew in every iteration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field as Setting
from scipy.stats import rankdata
from torch import Tensor

from synth_pipeline.agents.base import ROWS_AT_ONCE, Agent, AgentConfig
from synth_pipeline.agents.replay import Batch, Mixture, Replay, Rows
from synth_pipeline.config import content_hash
from synth_pipeline.critics import squared_error, td_target
from synth_pipeline.data.fields import Array
from synth_pipeline.diffusion.loop import Report
from synth_pipeline.envs.base import Floats
from synth_pipeline.errors import ConfigError, SourceError, TrainingDivergedError
from synth_pipeline.evaluation.monte_carlo import MonteCarlo, Policy, Which
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.sources.base import hash_arrays

ADDRESS = 1_003
RESAMPLES = 1_000
LEAST_STATES = 100  # that an error of values is measured in
IMPOSSIBLE = 2.0  # times the largest value that the rewards of the data could sum to


class FQEConfig(AgentConfig):
    """Numbers of the probe: with target networks as slow as agents have them it would take ten times the steps."""

    gradient_steps: int = Setting(10_000, ge=1, description="gradient steps of the whole training")
    learning_rate: float = Setting(1e-3, gt=0, description="step size of Adam at the first step")
    target_rate: float = Setting(0.05, gt=0, le=1, description="weight of the new parameters in a target network")
    normalize_observations: bool = Setting(True, description="(s - mean) / (std + 1e-3) of the real rows")
    members: int = Setting(2, ge=1, description="critics; their mean is the estimate and the target")
    normalize_critics: bool = Setting(False, description="layer norm in the critics")


class ProbeConfig(FQEConfig):
    """Numbers of the probe, and what it is held against."""

    policy: Which = Setting(
        None, description="whose values: best, medium, a snapshot's steps; none: medium where it is shipped, else best"
    )
    states: int = Setting(500, ge=LEAST_STATES, description="held-out states that values are judged in")
    rollouts: int = Setting(1, ge=1, description="walks a state that its true value is the mean of")


class FQE(Agent):
    """min E[(Q(s, a) - r - gamma Q'(s', pi(s')))^2] for a fixed pi.

    Targets are the mean over the critics: a policy that nothing maximises needs no pessimism. The learning rate falls
    to zero along a cosine, and the target network is what is read: both take noise out of the estimate. Rewards are
    scaled so that values are about 1, and back.

    Args:
        policy: `[n, o]` -> `[n, a]`, physical units; deterministic.
        config: Numbers.
        device: `auto`, `cpu`, `cuda`, ...
    """

    kind: ClassVar[str] = "fqe"
    settings: ClassVar[type[AgentConfig]] = FQEConfig

    def __init__(self, policy: Policy, config: FQEConfig | None = None, *, device: str = "auto") -> None:
        super().__init__(config, device=device)
        self._fixed = policy

    def make_replay(self, data: Mixture) -> Replay:
        """A replay whose next actions are the policy's."""
        c = self.config
        rewards = np.asarray(data.real.transitions()["rewards"], np.float64)
        size = float(np.sqrt(np.mean(np.square(rewards)))) or 1.0
        self.scaling = replace(self.scaling, reward_factor=(1 - c.discount if c.discount < 1 else 1.0) / size)
        given = {"batch_size": c.batch_size, "discount": c.discount, "device": self.device}
        replay = Replay(data, self.scaling, **given, policy=self._fixed)
        self._policy_digest = hash_arrays({"next_actions": replay.all_real().next_actions.cpu().numpy()})
        return replay

    @property
    def identity(self) -> str:
        """Hash of method, numbers, data, seed and policy, which is known by what it does in the data."""
        return content_hash(super().identity, self._policy_digest)

    def build(self, generator: torch.Generator) -> None:
        """The critics and their target network."""
        c = self.config
        critics = self.critics(generator, members=c.members, normalize=c.normalize_critics)
        self._critics = self.add("critics", critics)
        self._target_critics = self.add_target("target_critics", self._critics)

    def policy(self, observations: Tensor) -> Tensor:
        """The fixed policy, in model units."""
        physical = observations.cpu().numpy() * self.scaling.std + self.scaling.mean
        actions = self.scaling.actions(self._fixed(physical.astype(np.float32)))
        return torch.from_numpy(actions).to(observations.device)

    def step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One regression step."""
        rows = batch.critic
        target = self._target(rows)
        q = self._critics(rows.observations, rows.actions)
        loss = squared_error(q, target)
        self.set_rate("critics", self.cosine(self.config.learning_rate))
        self.optimize("critics", loss)
        self.update_target(self._target_critics, self._critics)
        self.steps += 1
        return {"critic_loss": loss.detach(), "q": q.detach().mean()}

    @torch.no_grad()
    def _target(self, rows: Rows) -> Tensor:
        next_q = self._target_critics(rows.next_observations, rows.next_actions).mean(dim=0)
        return td_target(rows.rewards, rows.discounts, next_q)

    @torch.inference_mode()
    def values(self, observations: Array) -> Floats:
        """Q(s, pi(s)) in the units of the rewards, `[n, o]` -> `[n]`; mean over the critics."""
        x = torch.from_numpy(self.scaling.observations(observations)).to(self.device)
        a = torch.from_numpy(self.scaling.actions(self._fixed(observations))).to(self.device)
        pairs = zip(torch.split(x, ROWS_AT_ONCE), torch.split(a, ROWS_AT_ONCE), strict=True)
        q = torch.cat([self._target_critics(*pair).mean(dim=0) for pair in pairs])
        return q.cpu().numpy().astype(np.float64) / self.scaling.reward_factor


class Measured(NamedTuple):
    """A number and its standard error, by a bootstrap over states."""

    value: float
    error: float


@dataclass(frozen=True)
class Agreement:
    """How estimated values agree with true ones.

    Attributes:
        pearson: Correlation, in [-1, 1].
        spearman: Correlation of ranks.
        rmse: Root of the mean squared error, in standard deviations of the true values; 1 is what their mean costs.
        bias: Mean of estimate - truth, in the same unit; above 0 is optimistic.
        spread: That standard deviation, in units of the rewards.
        states: How many states.
    """

    pearson: Measured
    spearman: Measured
    rmse: Measured
    bias: Measured
    spread: float
    states: int

    def plain(self) -> dict[str, Any]:
        """Plain JSON: every measure with its `..._error`."""
        found: dict[str, Any] = {"states": self.states, "spread": self.spread}
        for name in ("pearson", "spearman", "rmse", "bias"):
            found[name], found[f"{name}_error"] = getattr(self, name)
        return found


def agreement(estimates: Floats, truth: Floats, *, seed: int = 0) -> Agreement:
    """Hold estimates against the truth.

    Args:
        estimates: `[n]`.
        truth: `[n]`.
        seed: Of the bootstrap; the same for all arms, so that they are judged on the same draws of states.

    Raises:
        SourceError: When a value is not finite, or one side does not vary.
    """
    pairs = np.stack([estimates, truth])
    if not np.isfinite(pairs).all() or not (pairs.std(axis=1) > 0).all():
        raise SourceError(
            "values cannot be compared",
            found=f"{int((~np.isfinite(pairs)).sum())} values not finite, spreads {pairs.std(axis=1)}",
            accepted="finite values that vary from state to state",
        )
    spread = float(truth.std())
    draws = stream(seed, Stage.EVALUATE, ADDRESS).integers(len(truth), size=(RESAMPLES, len(truth)))
    whole, resampled = _measures(pairs[:, None], spread), _measures(pairs[:, draws], spread)
    # A draw of one and the same state has no correlation; among hundreds of states there is none.
    measured = (Measured(float(w[0]), float(np.nanstd(r))) for w, r in zip(whole, resampled, strict=True))
    pearson, spearman, rmse, bias = measured
    return Agreement(pearson, spearman, rmse, bias, spread, len(truth))


def _measures(pairs: Floats, spread: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Pearson, Spearman, scaled RMSE and bias of `[2, draws, n]`, `[draws]` each."""
    gap = pairs[0] - pairs[1]
    rmse = np.sqrt(np.mean(np.square(gap), axis=-1))
    return _correlation(pairs), _correlation(rankdata(pairs, axis=-1)), rmse / spread, gap.mean(axis=-1) / spread


def _correlation(pairs: Floats) -> Floats:
    centred = pairs - pairs.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        found: Floats = np.prod(centred, axis=0).sum(axis=-1) / np.sqrt(
            np.prod(np.square(centred).sum(axis=-1), axis=0)
        )
    return found


@dataclass(frozen=True)
class Probe:
    """One value probe.

    Attributes:
        agreement: Of the estimates with the truth.
        estimates: `[n]`, Q(s, pi(s)).
        truth: What they were held against.
    """

    agreement: Agreement
    estimates: Floats
    truth: MonteCarlo

    def plain(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**self.agreement.plain(), "truth": self.truth.plain()}


def probe_values(
    fqe: FQE,
    data: Mixture,
    truth: MonteCarlo,
    *,
    seed: int,
    report: Report | None = None,
    checkpoint: Path | None = None,
) -> Probe:
    """Train FQE on a mixture and hold its values against the truth.

    Args:
        fqe: Untrained, of the policy whose values `truth` holds.
        data: Real rows, and what is mixed in.
        truth: Made once for all mixtures that are compared.
        seed: Seed of the training.
        report: Called with (step, total, values).
        checkpoint: File for resumable state.

    Raises:
        TrainingDivergedError: When a loss is not finite at a log line, or the values are such as no rewards sum to.
        ConfigError: When truth and estimates discount differently.
    """
    if fqe.config.discount != truth.discount:
        raise ConfigError("values are compared at one discount", found=fqe.config.discount, accepted=truth.discount)
    fqe.fit(data, seed=seed, report=report, checkpoint=checkpoint)
    estimates = fqe.values(truth.states)
    _require_possible(estimates, data, truth.discount)
    return Probe(agreement(estimates, truth.values, seed=seed), estimates, truth)


def _require_possible(estimates: Floats, data: Mixture, discount: float) -> None:
    """Values that exploded to a finite size must not be averaged with others; nor is a constant an estimate."""
    largest = float(np.abs(data.real.transitions()["rewards"]).max()) or 1.0
    limit = IMPOSSIBLE * largest / (1 - discount)
    worst = float(np.abs(estimates).max())
    if not worst <= limit or estimates.std() == 0:
        raise TrainingDivergedError(
            "the values are none that these rewards could sum to" if not worst <= limit else "all values are equal",
            found=f"up to {worst:.3g} in size",
            accepted=f"up to {limit:.3g}: {IMPOSSIBLE:g} max |r| / (1 - discount)",
        )
