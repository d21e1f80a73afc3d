"""Implicit Q-learning (Kostrikov et al. 2022, arXiv:2110.06169): values by expectiles, no action outside of the data.

The rules are the original ones, without exceptions for single datasets: rewards scaled on locomotion, observations as
they are, a policy of constant width whose mean acts when it is judged; V first, the others by the new V.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field as Setting
from torch import Tensor

from synth_pipeline.agents.actor_critic import ValueLearner
from synth_pipeline.agents.base import AgentConfig
from synth_pipeline.agents.policies import Gaussian
from synth_pipeline.agents.replay import Batch, Rows
from synth_pipeline.critics import expectile_loss, exponential_weights, td_target


class IQLConfig(AgentConfig):
    """Numbers of the paper, appendix B (locomotion)."""

    scale_rewards: bool | Literal["locomotion"] = Setting(
        "locomotion", description="rewards times 1000 / spread of the returns of the real episodes"
    )
    expectile: float = Setting(0.7, gt=0, lt=1, description="tau: of Q over actions that V is")
    inverse_temperature: float = Setting(3.0, ge=0, description="beta of the weights exp(beta A)")
    weight_limit: float = Setting(100.0, gt=0, description="largest weight of a row")


class IQL(ValueLearner):
    """V by expectiles of Q, Q by V, the policy by advantage-weighted regression."""

    kind: ClassVar[str] = "iql"
    settings: ClassVar[type[AgentConfig]] = IQLConfig

    def build(self, generator: torch.Generator) -> None:
        """V, twin Q, their target network, the policy."""
        mean = self.mlp(self.scaling.action_size, generator)
        self._actor = self.add("actor", Gaussian(mean, self.scaling.action_size))
        self._value = self.add("value", self.mlp(1, generator))
        self.build_critics(generator)

    def policy(self, observations: Tensor) -> Tensor:
        """The mean."""
        return self._actor.mean(observations)

    def step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of V, then of the policy and of Q by the new V, in the authors' order."""
        rows, c = batch.critic, self.config
        q = self.target_q(rows.observations, rows.actions)
        value_loss = expectile_loss(q - self._v(rows.observations), c.expectile)
        self.optimize("value", value_loss)
        actor_loss = self._regress(batch.actor, q if batch.actor is rows else None)
        values = self.learn_values(rows, self.targets(rows))
        self.update_target(self._target_critics, self._critics)
        self.steps += 1
        return {"value_loss": value_loss.detach(), "actor_loss": actor_loss.detach(), **values}

    @torch.no_grad()
    def targets(self, rows: Rows) -> Tensor:
        """y = r + gamma V(s') (eq. 6)."""
        return td_target(rows.rewards, rows.discounts, self._v(rows.next_observations))

    def _v(self, observations: Tensor) -> Tensor:
        v: Tensor = self._value(observations)[0, :, 0]
        return v

    def _regress(self, rows: Rows, q: Tensor | None) -> Tensor:
        """Maximise E[exp(beta A) log pi(a | s)] (eq. 7), A = Q' - V; `q` is Q' of these rows where it is there."""
        c = self.config
        with torch.no_grad():
            q = self.target_q(rows.observations, rows.actions) if q is None else q
            weights = exponential_weights(q - self._v(rows.observations), c.inverse_temperature, limit=c.weight_limit)
        loss = -(weights * self._actor.log_density(rows.observations, rows.actions)).mean()
        self.set_rate("actor", self.cosine(c.learning_rate))
        self.optimize("actor", loss)
        return loss
