"""MOReL (Kidambi et al. 2020, arXiv:2005.05951): a policy learned in a model that halts where it does not know.

An ensemble of dynamics is learned from the data. A pair (s, a) is unknown when two members disagree about it by more
than a threshold; it leads to an absorbing state HALT, which pays less than anything in the data. The policy is improved
in this pessimistic MDP. Members are compared on one and the same (s, a), never across rows.

Ours, and other than in the paper
  1. SAC on batches of imagined and given rows, where the paper takes natural policy gradients from a cloned start.
  2. Four members by default, for cost (`model.members`).
  3. The step into HALT pays what HALT pays, since the reward of an unknown pair is as little known as its next state.
     All that HALT ever pays is the sum of a geometric series: critics are told it as such, HALT needs no encoding.
  4. Members predict means and variances of (s' - s, r). A step is drawn from one of them, chosen anew each time; the
     disagreement is the distance of their means, in standard deviations of s' - s.
  5. A lane that ends begins again at another state of the data, so that every refresh gives as many rows.
  6. The threshold is mean + 5 standard deviations of the disagreement on the data. Whatever its distribution, at most
     1 / (1 + 5^2) < 4 % of the data lie above (Cantelli's inequality).
  7. The model learns from every given row once, synthetic ones too, whatever their share of a batch; where these are
     kept from critic or actor, from real ones alone. What HALT pays always follows from the real rows.
  8. Two critics, where later work on pessimistic models takes ten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field as Setting
from torch import Tensor

from synth_pipeline import envs
from synth_pipeline.agents.actor_critic import SAC, SACConfig
from synth_pipeline.agents.base import AgentConfig, extrapolated_seconds
from synth_pipeline.agents.replay import Batch, Mixture, Replay, Rows
from synth_pipeline.agents.scaling import Scaling
from synth_pipeline.critics import td_target
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.diffusion.loop import Phases, Report, under
from synth_pipeline.dynamics.regressor import CHUNK, Regressor, RegressorConfig
from synth_pipeline.errors import ConfigError, SourceError

Terminations = Callable[[Tensor], Tensor]
Policy = Callable[[Tensor, torch.Generator], Tensor]


class MOReLConfig(SACConfig):
    """Every number of the method."""

    discount: float = Setting(0.99, gt=0, lt=1, description="gamma; HALT has a value only below 1")
    normalize_observations: bool = Setting(True, description="(s - mean) / (std + 1e-3) of the real rows")
    critics: int = Setting(2, ge=1, description="N: their minimum counts")
    model: RegressorConfig = Setting(RegressorConfig(members=4), description="the ensemble of the dynamics")
    threshold_stds: float = Setting(
        5.0, ge=0, description="beta: an unknown pair's disagreement exceeds mean + beta std of the data's"
    )
    halt_offset: float = Setting(
        1.0, ge=0, description="HALT pays the smallest reward of the real data less this, a step and for ever"
    )
    terminations: Literal["environment", "never"] = Setting(
        "environment", description="where imagined episodes end: as the data's environment says, or never"
    )
    rollouts: int = Setting(2_000, ge=1, description="imagined lanes of a refresh")
    rollout_length: int = Setting(5, ge=1, description="h: steps of an imagined lane")
    refresh_every: int = Setting(1_000, ge=1, description="gradient steps between refreshes by the current policy")
    kept_refreshes: int = Setting(10, ge=1, description="refreshes whose rows are kept")
    model_share: float = Setting(0.95, ge=0, lt=1, description="share of a batch that is imagined")

    @property
    def imagined_rows(self) -> int:
        """Of a batch."""
        return round(self.model_share * self.batch_size)

    @property
    def refresh_rows(self) -> int:
        """Rows of a refresh."""
        return self.rollouts * self.rollout_length


@dataclass(frozen=True)
class Outcome:
    """What a step of the pessimistic MDP gives, n rows in model units.

    Attributes:
        next_observations: `[n, o]`; those of the pair itself where it is unknown.
        rewards: `[n]`; where the pair is unknown, all that HALT ever pays, discounted.
        discounts: `[n]`, gamma; 0 where the episode ended or halted.
        unknown: `[n]`, bool.
    """

    next_observations: Tensor
    rewards: Tensor
    discounts: Tensor
    unknown: Tensor


def halt_return(config: MOReLConfig, worst: float) -> float:
    """What an episode that halts is worth: `halt_offset` below the smallest reward of the data, for ever."""
    return (worst - config.halt_offset) / (1 - config.discount)


class Pessimistic:
    """The learned dynamics, halting where they are not known.

    Args:
        config: Numbers of the method.
        regressor: Fitted on (s, a) -> (s' - s, r), in the agent's units.
        worst: Smallest reward of the real data.
        terminations: Next observations `[n, o]` to where an episode ends `[n]`.
        device: Where it lives.
    """

    def __init__(
        self,
        config: MOReLConfig,
        regressor: Regressor,
        *,
        worst: float,
        terminations: Terminations,
        device: torch.device,
    ) -> None:
        self.config, self.regressor, self._terminations, self._device = config, regressor, terminations, device
        self.halt_return = halt_return(config, worst)
        arrays = regressor.arrays()
        self._out_shift, self._out_scale = (
            torch.as_tensor(arrays[f"outputs.{name}"]).float().to(device) for name in ("shift", "scale")
        )
        self.threshold = float("nan")  # nothing is known before it is found

    def calibrate(self, observations: Tensor, actions: Tensor) -> None:
        """Set the threshold to mean + beta standard deviations of the disagreement on these rows."""
        parts = zip(torch.split(observations, CHUNK), torch.split(actions, CHUNK), strict=True)
        found = torch.cat([self.disagreement(self.members(*part)[0]) for part in parts]).double()
        self.threshold = float(found.mean() + self.config.threshold_stds * found.std(correction=0))

    def members(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances of every member, `[m, n, o + 1]` each, in standard deviations of (s' - s, r)."""
        x = torch.cat([observations, actions], dim=1).cpu().numpy()  # the encoding of inputs lives there
        means, log_variances = (torch.from_numpy(side).float().to(self._device) for side in self.regressor.members(x))
        return means * (self._out_scale > 0), log_variances

    def disagreement(self, means: Tensor) -> Tensor:
        """max_{i, j} |f_i(s, a) - f_j(s, a)| over the members' means of s' - s, `[m, n, o + 1]` -> `[n]`."""
        moved = means[..., :-1]
        first, second = torch.triu_indices(len(moved), len(moved), offset=1)
        farthest: Tensor = torch.linalg.vector_norm(moved[first] - moved[second], dim=-1).amax(dim=0)
        return farthest

    @torch.no_grad()
    def step(self, observations: Tensor, actions: Tensor, rng: torch.Generator) -> Outcome:
        """One step from `observations [n, o]` by `actions [n, a]`."""
        means, log_variances = self.members(observations, actions)
        unknown = ~(self.disagreement(means) <= self.threshold)  # what overflows is not known either
        member = torch.randint(len(means), (len(observations),), generator=rng, device=rng.device)
        rows = torch.arange(len(observations), device=rng.device)
        mean, deviation = means[member, rows], (0.5 * log_variances[member, rows]).exp()
        noise = torch.randn(mean.shape, generator=rng, device=rng.device)
        drawn = torch.addcmul(mean, deviation, noise) * self._out_scale + self._out_shift
        # The mean is what is expected of a reward; critics would average its noise out.
        rewards = mean[:, -1] * self._out_scale[-1] + self._out_shift[-1]
        following = torch.where(unknown[:, None], observations, observations + drawn[:, :-1])
        ended = unknown | self._terminations(following)
        return Outcome(
            following,
            torch.where(unknown, self.halt_return, rewards),
            torch.where(ended, 0.0, self.config.discount),
            unknown,
        )


class Imagination:
    """Batches of given and imagined rows; the imagined ones are renewed as the policy changes.

    Args:
        given: Real and synthetic rows.
        known: What the model learns from, and what imagined lanes begin at.
        config: Numbers of the method.
        policy: Observations `[n, o]` and a generator to drawn actions `[n, a]`.
        terminations: As for `Pessimistic`.
        seed: Seed of the run.
    """

    def __init__(
        self, given: Replay, known: Rows, config: MOReLConfig, *, policy: Policy, terminations: Terminations, seed: int
    ) -> None:
        self.config, self._policy, self._terminations, self._seed = config, policy, terminations, seed
        self._given, self._known, self._device = given, known, known.rewards.device
        o, a = known.observations.shape[1], known.actions.shape[1]
        self._sizes = [o, a, o, 1, 1]
        self._ring = torch.zeros(config.kept_refreshes, config.refresh_rows, 2 * o + a + 2, device=self._device)
        self._draws = 0
        self.model: Pessimistic | None = None

    def learn_model(self, *, report: Report | None = None, checkpoint: Path | None = None) -> Pessimistic:
        """Fit the ensemble and find the threshold, if that has not been done."""
        if self.model is None:
            rows, regressor = self._known, Regressor(self.config.model, device=str(self._device))
            x = torch.cat([rows.observations, rows.actions], dim=1)
            y = torch.cat([rows.next_observations - rows.observations, rows.rewards[:, None]], dim=1)
            tables = [part.cpu().numpy() for part in (x, y)]
            regressor.fit(*tables, seed=self._seed, address=22, report=report, checkpoint=checkpoint)
            self.model = self._halting(regressor)
            self.model.calibrate(rows.observations, rows.actions)
        return self.model

    def draw(self, rng: torch.Generator) -> Batch:
        """Given rows first, imagined ones behind them; every so many draws the oldest of these are replaced before."""
        given, count = self._given.draw(rng), self.config.imagined_rows
        if not count:
            return given
        refresh, late = divmod(self._draws, self.config.refresh_every)
        if not late:
            self._ring[refresh % len(self._ring)] = self._imagine(self.learn_model(), rng)
        self._draws += 1
        filled = min(refresh + 1, len(self._ring)) * self.config.refresh_rows
        chosen = torch.randint(filled, (count,), generator=rng, device=self._device)
        imagined = self._rows(self._ring.flatten(0, 1).index_select(0, chosen))
        critic = _below(given.critic, imagined)
        return Batch(critic, critic if given.actor is given.critic else _below(given.actor, imagined))

    def all_real(self) -> Rows:
        """Every real row, in the order of the data."""
        return self._given.all_real()

    @torch.no_grad()
    def _imagine(self, model: Pessimistic, rng: torch.Generator) -> Tensor:
        """Rows of one refresh, step after step of all lanes, `[lanes * steps, columns]`."""
        slabs, states = [], self._starts(rng)
        for _ in range(self.config.rollout_length):
            actions = self._policy(states, rng)
            outcome = model.step(states, actions, rng)
            rest = [outcome.rewards[:, None], outcome.discounts[:, None]]
            slabs.append(torch.cat([states, actions, outcome.next_observations, *rest], dim=1))
            over = outcome.discounts[:, None] == 0
            states = torch.where(over, self._starts(rng), outcome.next_observations)
        return torch.cat(slabs)

    def _starts(self, rng: torch.Generator) -> Tensor:
        known = self._known.observations
        return known[torch.randint(len(known), (self.config.rollouts,), generator=rng, device=self._device)]

    def _rows(self, slab: Tensor) -> Rows:
        observations, actions, following, rewards, discounts = torch.split(slab, self._sizes, dim=1)
        unknown = torch.zeros_like(rewards[:, 0])
        return Rows(
            observations, actions, rewards[:, 0], following, discounts[:, 0], torch.zeros_like(actions), unknown
        )

    def _halting(self, regressor: Regressor) -> Pessimistic:
        ends, device = self._terminations, self._device
        return Pessimistic(self.config, regressor, worst=self.worst, terminations=ends, device=device)

    @property
    def worst(self) -> float:
        """Smallest reward of the real rows; those of synthetic ones may lie anywhere."""
        return float(self._given.all_real().rewards.min())

    def tensors(self) -> dict[str, Tensor]:
        """Imagined rows and, once it is fitted, the model."""
        found = {"ring": self._ring, "draws": torch.tensor(self._draws)}
        if self.model is not None:
            found["threshold"] = torch.tensor(self.model.threshold, dtype=torch.float64)
            arrays = self.model.regressor.arrays()
            found |= {f"model.{name}": torch.as_tensor(array) for name, array in arrays.items()}
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `tensors`."""
        self._ring, self._draws = tensors["ring"], int(tensors["draws"])
        if "threshold" in tensors:
            regressor = Regressor(self.config.model, device=str(self._device))
            regressor.restore({name: array.cpu().numpy() for name, array in under(tensors, "model.").items()})
            self.model = self._halting(regressor)
            self.model.threshold = float(tensors["threshold"])


class MOReL(SAC):
    """SAC in the pessimistic MDP."""

    kind: ClassVar[str] = "morel"
    settings: ClassVar[type[AgentConfig]] = MOReLConfig

    def make_replay(self, data: Mixture) -> Imagination:
        """Given and imagined rows."""
        c: MOReLConfig = self.config
        if c.imagined_rows == c.batch_size:
            raise ConfigError(
                "a batch is too small for this share of imagined rows",
                found=f"model_share {c.model_share:g} of {c.batch_size} rows, which leaves none for the data",
                fix="a larger batch_size, or a smaller model_share",
            )
        size = c.batch_size - c.imagined_rows
        given = Replay(data, self.scaling, batch_size=size, discount=c.discount, device=self.device)
        known = given.every_row() if data.use_in == "both" else given.all_real()
        ends = terminations_of(data.real.spec, self.scaling, c.terminations)
        return Imagination(given, known, c, policy=self._explore, terminations=ends, seed=self.seed)

    def invented_return(self) -> float:
        """That of HALT."""
        return abs(halt_return(self.config, self.replay.worst))

    def build(self, generator: torch.Generator) -> None:
        """Policy, temperature, critics and their target network."""
        self.build_actor(generator)
        self.build_critics(generator, members=self.config.critics)

    def train(self, until: int | None = None, *, report: Report | None = None, checkpoint: Path | None = None) -> None:
        """The model first, unless it is there; then gradient steps as every agent takes them."""
        if checkpoint is not None and checkpoint.exists():
            self.restore(checkpoint)
        # A model is of one run: the name of its state tells which, so that a changed run does not go on with it.
        own = None if checkpoint is None else checkpoint.with_stem(f"{checkpoint.stem}-{self.identity[:12]}")
        c: MOReLConfig = self.config
        first = {"model": c.model.trainer.gradient_steps} if c.imagined_rows else {}
        phases = Phases({**first, "policy": c.gradient_steps}, report, own)
        if first and self.replay.model is None:
            begin = time.perf_counter()
            self.replay.learn_model(**phases.phase("model"))
            self.seconds += time.perf_counter() - begin
        super().train(until, report=phases.phase("policy")["report"], checkpoint=checkpoint)

    def expected_seconds(self, data: Mixture, steps: int) -> float:
        """Those of the model, judged by two short trainings of it, and those of the policy in the shorter one's."""
        if not self.config.imagined_rows:
            return super().expected_seconds(data, steps)
        long, short = (_shortened(self.config, count) for count in (2 * steps, steps))
        quick, took = [], []
        for config in (long, short):
            quick.append(MOReL(config, device=str(self.device)).begin(data, seed=0))
            begin = time.perf_counter()
            quick[-1].replay.learn_model()
            took.append(time.perf_counter() - begin)
        of_model: int = self.config.model.trainer.gradient_steps
        apart = took[0] - took[1]  # what both pay once is no step
        a_step = apart / steps if apart > 0 else took[0] / (2 * steps)  # a busy moment must not make it free
        return a_step * of_model + extrapolated_seconds(quick[-1], steps)

    def step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of the critics, of the policy and its temperature, and of the target network."""
        values = self.learn_values(batch.critic, self.targets(batch.critic)) | self.improve(batch.actor)
        self.update_target(self._target_critics, self._critics)
        self.steps += 1
        return values

    @torch.no_grad()
    def targets(self, rows: Rows) -> Tensor:
        """y = r + gamma (min_i Q'_i(s', a') - alpha log pi(a' | s')), a' ~ pi(s'): SAC's soft value."""
        actions, log_densities = (drawn[0] for drawn in self._actor.sample(rows.next_observations, self.rng))
        soft = self.target_q(rows.next_observations, actions) - self._temperature.value() * log_densities
        return td_target(rows.rewards, rows.discounts, soft)

    def tensors(self) -> dict[str, Tensor]:
        """Also imagined rows and model."""
        return super().tensors() | {f"imagined.{name}": value for name, value in self.replay.tensors().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `tensors`."""
        super().load(tensors)
        self.replay.load(under(tensors, "imagined."))

    def _explore(self, observations: Tensor, rng: torch.Generator) -> Tensor:
        actions: Tensor = self._actor.sample(observations, rng)[0][0]
        return actions


def _shortened(config: MOReLConfig, steps: int) -> MOReLConfig:
    """With so many steps of the model."""
    trainer = config.model.trainer.replace(gradient_steps=steps)
    return config.replace(model=config.model.replace(trainer=trainer))


def terminations_of(spec: DatasetSpec, scaling: Scaling, choice: Literal["environment", "never"]) -> Terminations:
    """Where an episode ends, `[n, o]` in the agent's units -> `[n]` bool.

    Raises:
        SourceError: When the environment should say so and the data name none.
    """
    if choice == "never":
        return lambda x: torch.zeros(len(x), dtype=torch.bool, device=x.device)
    if spec.environment is None:
        raise SourceError(
            "imagined episodes must end where real ones do, and no environment says where",
            found=f"'{spec.dataset_id}' names no environment",
            fix="--set terminations=never for this agent, where episodes never end before their time limit",
        )
    environment = envs.make(spec.environment)

    def ended(x: Tensor) -> Tensor:
        physical = x.double().cpu().numpy() * scaling.std + scaling.mean
        return torch.from_numpy(environment.terminated(physical)).to(x.device)

    return ended


def _below(upper: Rows, lower: Rows) -> Rows:
    columns = vars(lower)
    return Rows(**{name: torch.cat([column, columns[name]]) for name, column in vars(upper).items()})
