"""Behaviour cloning: a deterministic policy by least squares on the actions of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field as Setting
from torch import Tensor

from synth_pipeline.agents.base import Agent, AgentConfig
from synth_pipeline.agents.replay import Batch


class BCConfig(AgentConfig):
    """Numbers of CORL's BC."""

    normalize_observations: bool = Setting(True, description="(s - mean) / (std + 1e-3) of the real rows")


class BC(Agent):
    """min |pi(s) - a|^2."""

    kind: ClassVar[str] = "bc"
    settings: ClassVar[type[AgentConfig]] = BCConfig

    def build(self, generator: torch.Generator) -> None:
        """The policy."""
        self._actor = self.add("actor", self.mlp(self.scaling.action_size, generator))

    def policy(self, observations: Tensor) -> Tensor:
        """tanh of the network."""
        return torch.tanh(self._actor(observations)[0])

    def step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One regression step."""
        rows = batch.actor
        loss = (self.policy(rows.observations) - rows.actions).square().mean()
        self.optimize("actor", loss)
        self.steps += 1
        return {"actor_loss": loss.detach()}
