"""TD3+BC (Fujimoto and Gu 2021, arXiv:2106.06860): TD3 whose actor stays near the actions of the data."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field as Setting
from torch import Tensor

from synth_pipeline.agents.actor_critic import TD3, TD3Config
from synth_pipeline.agents.base import AgentConfig
from synth_pipeline.agents.replay import Rows
from synth_pipeline.critics import td3_bc_lambda, td_target


class TD3BCConfig(TD3Config):
    """Numbers of the paper, table 3."""

    normalize_observations: bool = Setting(True, description="(s - mean) / (std + 1e-3) of the real rows")
    alpha: float = Setting(2.5, ge=0, description="weight of the value against cloning")


class TD3BC(TD3):
    """max lambda Q_1(s, pi(s)) - |pi(s) - a|^2 with lambda = alpha / mean |Q_1| (eq. 5)."""

    kind: ClassVar[str] = "td3_bc"
    settings: ClassVar[type[AgentConfig]] = TD3BCConfig

    @torch.no_grad()
    def targets(self, rows: Rows) -> Tensor:
        """y = r + gamma min_i Q'_i(s', pi'(s') + clipped noise) (TD3, eq. 10 and 14)."""
        next_q = self.target_q(rows.next_observations, self.next_actions(rows))
        return td_target(rows.rewards, rows.discounts, next_q)

    def actor_loss(self, rows: Rows, actions: Tensor) -> Tensor:
        """Mean over rows and components of the distance, minus lambda times the mean value."""
        q = self._critics(rows.observations, actions, first=1)[0]
        loss: Tensor = (actions - rows.actions).square().mean() - td3_bc_lambda(q, self.config.alpha) * q.mean()
        return loss
