"""AWAC (Nair et al. 2020, arXiv:2006.09359): an actor-critic whose actor only clones, weighted by the advantage.

The numbers are CORL's for locomotion. Ours: the mean of the Gaussian passes through tanh, and its log-width lies within
[-5, 2] instead of [-20, 2], as for every Gaussian here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field as Setting
from torch import Tensor

from synth_pipeline.agents.actor_critic import ValueLearner
from synth_pipeline.agents.base import AgentConfig
from synth_pipeline.agents.policies import Gaussian
from synth_pipeline.agents.replay import Batch, Rows
from synth_pipeline.critics import exponential_weights, min_q, td_target


class AWACConfig(AgentConfig):
    """Numbers of CORL (locomotion)."""

    depth: int = Setting(3, ge=1, description="hidden layers of every network")
    normalize_observations: bool = Setting(True, description="(s - mean) / (std + 1e-3) of the real rows")
    temperature: float = Setting(0.3333, gt=0, description="lambda of the weights exp(A / lambda)")
    weight_limit: float = Setting(100.0, gt=0, description="largest weight of a row")


class AWAC(ValueLearner):
    """max E[exp(A(s, a) / lambda) log pi(a | s)] over the data, on values of the policy itself."""

    kind: ClassVar[str] = "awac"
    settings: ClassVar[type[AgentConfig]] = AWACConfig

    def build(self, generator: torch.Generator) -> None:
        """Policy, twin critics and their target network."""
        mean = self.mlp(self.scaling.action_size, generator)
        self._actor = self.add("actor", Gaussian(mean, self.scaling.action_size))
        self.build_critics(generator)

    def policy(self, observations: Tensor) -> Tensor:
        """The mean."""
        return self._actor.mean(observations)

    def step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of the critics, of the policy, and of the target network."""
        values = self.learn_values(batch.critic, self.targets(batch.critic))
        rows = batch.actor
        loss = -(self.weights(rows) * self._actor.log_density(rows.observations, rows.actions)).mean()
        self.optimize("actor", loss)
        self.update_target(self._target_critics, self._critics)
        self.steps += 1
        return {"actor_loss": loss.detach(), **values}

    @torch.no_grad()
    def targets(self, rows: Rows) -> Tensor:
        """y = r + gamma min_i Q'_i(s', a'), a' ~ pi(s')."""
        actions = self._actor.sample(rows.next_observations, self.rng)[0]
        return td_target(rows.rewards, rows.discounts, self.target_q(rows.next_observations, actions))

    @torch.no_grad()
    def weights(self, rows: Rows) -> Tensor:
        """exp(A / lambda) up to the limit, `[b]`, with A = min_i Q_i(s, a) - min_i Q_i(s, a~), a~ ~ pi(s)."""
        actions = torch.cat([rows.actions[None], self._actor.sample(rows.observations, self.rng)])
        q, v = min_q(self._critics.of_samples(rows.observations, actions))
        return exponential_weights(q - v, 1 / self.config.temperature, limit=self.config.weight_limit)
