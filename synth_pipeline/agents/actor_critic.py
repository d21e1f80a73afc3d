"""What several agents with critics share: twin Q with a target network; on it TD3's and SAC's actors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field as Setting
from torch import Tensor

from synth_pipeline.agents.base import Agent, AgentConfig
from synth_pipeline.agents.policies import SquashedGaussian, Temperature
from synth_pipeline.agents.replay import Batch, Rows
from synth_pipeline.critics import frozen, min_q, squared_error
from synth_pipeline.diffusion.networks.ensemble_mlp import Initial

Values = dict[str, Tensor | float]


class ValueLearner(Agent):
    """Critics and their target network."""

    @abstractmethod
    def targets(self, rows: Rows) -> Tensor:
        """What Q(s, a) is regressed on, `[b]`, held constant."""

    def build_critics(self, generator: torch.Generator, **given: Any) -> None:
        """Make them; `given` as in `critics`."""
        self._critics = self.add("critics", self.critics(generator, **given))
        self._target_critics = self.add_target("target_critics", self._critics)

    @torch.no_grad()
    def target_q(self, observations: Tensor, actions: Tensor) -> Tensor:
        """min_i Q'_i(s, a), `[b]`."""
        return min_q(self._target_critics(observations, actions))

    def learn_values(self, rows: Rows, targets: Tensor) -> Values:
        """One step of the critics."""
        q = self._critics(rows.observations, rows.actions)
        loss = squared_error(q, targets)
        self.optimize("critics", loss)
        return {"critic_loss": loss.detach(), "q": q.detach().mean()}


class TD3Config(AgentConfig):
    """Numbers of TD3 (Fujimoto et al. 2018, arXiv:1802.09477)."""

    policy_noise: float = Setting(0.2, ge=0, description="standard deviation of the noise on target actions")
    noise_clip: float = Setting(0.5, ge=0, description="largest noise on target actions")
    policy_delay: int = Setting(2, ge=1, description="critic steps per actor step")
    normalize_critics: bool = Setting(False, description="layer norm in the critics")


class TD3(ValueLearner):
    """A deterministic actor, learned less often than the critics; target networks of both."""

    @abstractmethod
    def actor_loss(self, rows: Rows, actions: Tensor) -> Tensor:
        """Of the policy's actions `[b, a]` at the rows' observations; the critics are frozen."""

    def build(self, generator: torch.Generator) -> None:
        """Policy, twin critics, and a target network of each."""
        self._actor = self.add("actor", self.mlp(self.scaling.action_size, generator))
        self._target_actor = self.add_target("target_actor", self._actor)
        self.build_critics(generator, normalize=self.config.normalize_critics)

    def policy(self, observations: Tensor) -> Tensor:
        """tanh of the network."""
        return torch.tanh(self._actor(observations)[0])

    def step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of the critics; every `policy_delay` also of the actor and the target networks."""
        values = self.learn_values(batch.critic, self.targets(batch.critic))
        self.steps += 1
        if self.steps % self.config.policy_delay == 0:
            values["actor_loss"] = self._improve(batch.actor)
            self.update_target(self._target_actor, self._actor)
            self.update_target(self._target_critics, self._critics)
        return values

    @torch.no_grad()
    def next_actions(self, rows: Rows) -> Tensor:
        """pi'(s') + clipped noise, `[b, a]` (TD3, eq. 14)."""
        c = self.config
        noise: Tensor = torch.randn(rows.actions.shape, generator=self.rng, device=self.device) * c.policy_noise
        actions: Tensor = torch.tanh(self._target_actor(rows.next_observations)[0])
        return (actions + noise.clamp_(-c.noise_clip, c.noise_clip)).clamp_(-1, 1)

    def _improve(self, rows: Rows) -> Tensor:
        actions = self.policy(rows.observations)
        with frozen(self._critics):
            loss = self.actor_loss(rows, actions)
        self.optimize("actor", loss)
        return loss.detach()


class SACConfig(AgentConfig):
    """Numbers of SAC (Haarnoja et al. 2018, arXiv:1812.05905)."""

    actor_learning_rate: float = Setting(3e-4, gt=0, description="step size of Adam for policy and temperature")


class SAC(ValueLearner):
    """A squashed Gaussian that maximises value and entropy; the entropy's weight holds it at -|A|; acts by its mean."""

    def build_actor(self, generator: torch.Generator, *, initial: Initial = "uniform") -> None:
        """Policy and temperature."""
        size, rate = self.scaling.action_size, self.config.actor_learning_rate
        network = self.mlp(2 * size, generator, initial=initial)
        self._actor = self.add("actor", SquashedGaussian(network), learning_rate=rate)
        self._temperature = self.add("temperature", Temperature(), learning_rate=rate)

    def policy(self, observations: Tensor) -> Tensor:
        """The mean."""
        return self._actor.mean(observations)

    def improve(self, rows: Rows) -> Values:
        """One step of the policy, max E[min_i Q_i(s, a) - alpha log pi(a | s)] (eq. 7), and one of alpha."""
        actions, log_densities = (drawn[0] for drawn in self._actor.sample(rows.observations, self.rng))
        with frozen(self._critics):
            q = min_q(self._critics(rows.observations, actions))
        alpha = self._temperature.value()
        loss = (alpha * log_densities - q).mean()
        self.optimize("actor", loss)
        self.optimize("temperature", self._temperature.loss(log_densities, -float(self.scaling.action_size)))
        return {"actor_loss": loss.detach(), "entropy": -log_densities.detach().mean(), "temperature": alpha[0]}
