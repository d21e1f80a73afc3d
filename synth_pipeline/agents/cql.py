"""CQL(H) (Kumar et al. 2020, arXiv:2006.04779): SAC whose critics are low where the data are not.

The numbers are CORL's for locomotion: a fixed weight of the penalty, no entropy in the targets, ten actions of each
kind with their densities. Ours: orthogonal weights of gain 1, and no further scale or offset on the policy's log-width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field as Setting
from torch import Tensor

from synth_pipeline.agents.actor_critic import SAC, SACConfig, Values
from synth_pipeline.agents.base import AgentConfig
from synth_pipeline.agents.replay import Batch, Rows
from synth_pipeline.critics import conservative_gap, squared_error, td_target


class CQLConfig(SACConfig):
    """Numbers of CORL (locomotion)."""

    depth: int = Setting(3, ge=1, description="hidden layers of every network")
    normalize_observations: bool = Setting(True, description="(s - mean) / (std + 1e-3) of the real rows")
    scale_rewards: bool | Literal["locomotion"] = Setting(
        "locomotion", description="rewards times 1000 / spread of the returns of the real episodes"
    )
    actor_learning_rate: float = Setting(3e-5, gt=0, description="step size of Adam for policy and temperature")
    alpha: float = Setting(10.0, ge=0, description="weight of the conservative penalty")
    sampled_actions: int = Setting(10, ge=1, description="actions a row of each kind: uniform, pi(s), pi(s')")


class CQL(SAC):
    """min alpha (log sum_a exp Q(s, a) - Q(s, a_data)) + the error of Q's targets (eq. 4)."""

    kind: ClassVar[str] = "cql"
    settings: ClassVar[type[AgentConfig]] = CQLConfig

    def build(self, generator: torch.Generator) -> None:
        """Policy, temperature, twin critics and their target network."""
        self.build_actor(generator, initial="orthogonal")
        self.build_critics(generator, initial="orthogonal")

    def step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of the critics, of the policy and its temperature, and of the target network."""
        values = self._learn_cautiously(batch.critic) | self.improve(batch.actor)
        self.update_target(self._target_critics, self._critics)
        self.steps += 1
        return values

    @torch.no_grad()
    def targets(self, rows: Rows) -> Tensor:
        """y = r + gamma min_i Q'_i(s', a'), a' ~ pi(s'), without the entropy."""
        actions = self._actor.sample(rows.next_observations, self.rng)[0][0]
        return td_target(rows.rewards, rows.discounts, self.target_q(rows.next_observations, actions))

    def _learn_cautiously(self, rows: Rows) -> Values:
        targets = self.targets(rows)
        sampled, log_densities = self.sampled_actions(rows)
        q = self._critics.of_samples(rows.observations, torch.cat([rows.actions[None], sampled]))
        error = squared_error(q[:, 0], targets)
        gap = conservative_gap(q[:, 1:], q[:, 0], log_densities)
        self.optimize("critics", error + self.config.alpha * gap.sum())
        return {"critic_loss": error.detach(), "gap": gap.detach().mean(), "q": q[:, 0].detach().mean()}

    @torch.no_grad()
    def sampled_actions(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Uniform, pi(s) and pi(s'), k of each: actions `[3 k, b, a]` and their log densities `[3 k, b]`."""
        k, (b, a) = self.config.sampled_actions, rows.actions.shape
        uniform = torch.rand((k, b, a), generator=self.rng, device=self.device) * 2 - 1
        here, log_here = self._actor.sample(rows.observations, self.rng, k)
        there, log_there = self._actor.sample(rows.next_observations, self.rng, k)
        log_uniform = torch.full((k, b), -a * math.log(2.0), device=self.device)
        return torch.cat([uniform, here, there]), torch.cat([log_uniform, log_here, log_there])
