"""ReBRAC (Tarasov et al. 2023, arXiv:2305.09836): TD3+BC whose actor and critics have penalties of their own.

Three hidden layers, layer norm in the critics, batch 1024, step size 1e-3 and gamma 0.99 are the authors' for
locomotion. Ours: one pair of penalties for every dataset, where they pick a pair for each; all layers begin as torch's
do; the layer norm stands before the rectifier (theirs: after it); a row whose next action is not known (the end of an
episode, a generated row) has no penalty in its target.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field as Setting
from torch import Tensor

from synth_pipeline.agents.actor_critic import TD3, TD3Config
from synth_pipeline.agents.base import AgentConfig
from synth_pipeline.agents.replay import Rows
from synth_pipeline.critics import min_q, td3_bc_lambda, td_target


class ReBRACConfig(TD3Config):
    """Numbers of the paper (locomotion), but for the penalties."""

    batch_size: int = Setting(1024, ge=1, description="rows per step")
    learning_rate: float = Setting(1e-3, gt=0, description="step size of Adam")
    depth: int = Setting(3, ge=1, description="hidden layers of every network")
    normalize_critics: bool = Setting(True, description="layer norm in the critics")
    actor_penalty: float = Setting(0.01, ge=0, description="beta_1: of |pi(s) - a|^2 in the actor's loss")
    critic_penalty: float = Setting(0.01, ge=0, description="beta_2: of |a' - the data's a'|^2 in the target")


class ReBRAC(TD3):
    """max lambda Q(s, pi(s)) - beta_1 |pi(s) - a|^2, on values that count beta_2 |a' - the data's a'|^2 as a cost."""

    kind: ClassVar[str] = "rebrac"
    settings: ClassVar[type[AgentConfig]] = ReBRACConfig

    @torch.no_grad()
    def targets(self, rows: Rows) -> Tensor:
        """y = r + gamma (min_i Q'_i(s', a') - beta_2 |a' - the data's a'|^2), a' = pi'(s') + clipped noise."""
        actions = self.next_actions(rows)
        distance = rows.continued * (actions - rows.next_actions).square().sum(dim=-1)
        next_q = self.target_q(rows.next_observations, actions)
        return td_target(rows.rewards, rows.discounts, next_q - self.config.critic_penalty * distance)

    def actor_loss(self, rows: Rows, actions: Tensor) -> Tensor:
        """beta_1 |pi(s) - a|^2 - min_i Q_i / mean |min_i Q_i|, mean over the rows."""
        q = min_q(self._critics(rows.observations, actions))
        distance = (actions - rows.actions).square().sum(dim=-1)
        loss: Tensor = (self.config.actor_penalty * distance - td3_bc_lambda(q, 1.0) * q).mean()
        return loss
