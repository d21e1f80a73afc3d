"""Onestep RL (Brandfonbrener et al. 2021, arXiv:2106.08909): the behaviour's values, then one improvement of it.

Three phases in one run of gradient steps: the behaviour beta by cloning, its values by SARSA, one improvement. Nothing
is evaluated again, so the improved policy's own actions are never bootstrapped. One critic, as the authors have: a
fixed policy is evaluated, and no maximum is taken that a second one would have to dampen.

Ours: sizes and step sizes of the other agents here (the authors' networks are wider); one operator and one strength for
every dataset, where the paper picks both for each; the improved policy starts as beta; "easy BCQ" draws the noise of
its candidates once, so that acting is a function of the observation; a' ~ beta(s') where the data's a' is not known.
The score is a mean over the last evaluations, as of every agent: most of them fall into the improvement, none before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field as Setting
from pydantic import model_validator
from torch import Tensor

from synth_pipeline.agents.actor_critic import ValueLearner
from synth_pipeline.agents.base import AgentConfig
from synth_pipeline.agents.policies import Gaussian
from synth_pipeline.agents.replay import Batch, Rows
from synth_pipeline.critics import exponential_weights, frozen, min_q, td_target

Phase = Literal["behaviour", "values", "improvement"]


class OneStepConfig(AgentConfig):
    """Phases and operators; the phases' shares are about the authors' (5e5, 2e6 and 1e5 steps)."""

    behaviour_share: float = Setting(0.2, gt=0, lt=1, description="share of the steps that clone the behaviour")
    value_share: float = Setting(0.7, gt=0, lt=1, description="share of the steps that learn its values")
    operator: Literal["exponential", "reverse_kl", "easy_bcq"] = Setting("exponential", description="the improvement")
    temperature: float = Setting(1.0, gt=0, description="exponential: tau of the weights exp((Q - V) / tau)")
    weight_limit: float = Setting(100.0, gt=0, description="exponential: largest weight of a row")
    value_samples: int = Setting(10, ge=1, description="exponential: actions of beta that V is the mean over")
    divergence_weight: float = Setting(0.1, ge=0, description="reverse_kl: of KL(pi || beta) against Q")
    candidates: int = Setting(10, ge=1, description="easy_bcq: actions of beta that the best is picked from")

    @model_validator(mode="after")
    def _steps_are_left(self) -> Self:
        if self.behaviour_share + self.value_share >= 1:
            shares = f"behaviour_share {self.behaviour_share:g} and value_share {self.value_share:g}"
            raise ValueError(f"{shares} leave no step for the improvement: their sum must be below 1")
        return self


class OneStep(ValueLearner):
    """beta, then Q of beta, then pi."""

    kind: ClassVar[str] = "onestep"
    settings: ClassVar[type[AgentConfig]] = OneStepConfig

    def build(self, generator: torch.Generator) -> None:
        """beta, its critic and the target network; pi, or the noise of the candidates."""
        c, size = self.config, self.scaling.action_size
        self._behaviour = self.add("behaviour", Gaussian(self.mlp(size, generator), size))
        self.build_critics(generator, members=1)
        if c.operator == "easy_bcq":
            noise = torch.randn(c.candidates, 1, size, generator=generator)
            self._behaviour.register_buffer("candidates", noise.to(self.device))
        else:
            self._actor = self.add("actor", Gaussian(self.mlp(size, generator), size))

    def phase(self, steps: int) -> Phase:
        """What is learned after so many steps; picking candidates needs no step of its own."""
        c = self.config
        if steps < round(c.behaviour_share * c.gradient_steps):
            return "behaviour"
        shares = 1.0 if c.operator == "easy_bcq" else c.behaviour_share + c.value_share
        return "values" if steps < round(shares * c.gradient_steps) else "improvement"

    def policy(self, observations: Tensor) -> Tensor:
        """The mean of pi once it is improved, or the best candidate once there are values; until then beta's mean."""
        phase = self.phase(self.steps)
        if self.config.operator == "easy_bcq":
            return self._behaviour.mean(observations) if phase == "behaviour" else self._best_candidate(observations)
        return self._actor.mean(observations) if phase == "improvement" else self._behaviour.mean(observations)

    def step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One step of what the phase learns."""
        phase = self.phase(self.steps)
        values: Mapping[str, Tensor | float]
        if phase == "behaviour":
            values = {"behaviour_loss": self._clone(batch.actor)}
        elif phase == "values":
            values = self.learn_values(batch.critic, self.targets(batch.critic))
            self.update_target(self._target_critics, self._critics)
        else:
            values = {"actor_loss": self._improve(batch.actor)}
        self.steps += 1
        if phase != "improvement" and self.phase(self.steps) == "improvement" and self.config.operator != "easy_bcq":
            self._actor.load_state_dict(self._behaviour.state_dict())
        return values

    @torch.no_grad()
    def targets(self, rows: Rows) -> Tensor:
        """y = r + gamma Q'(s', a'), a' what the data did next; where that is not known, a' ~ beta(s')."""
        drawn = self._behaviour.sample(rows.next_observations, self.rng)[0]
        actions = torch.where(rows.continued[:, None] > 0, rows.next_actions, drawn)
        return td_target(rows.rewards, rows.discounts, self.target_q(rows.next_observations, actions))

    @torch.no_grad()
    def weights(self, rows: Rows) -> Tensor:
        """exp((Q(s, a) - V(s)) / tau) up to the limit, `[b]`; V is the mean of Q over actions of beta."""
        c = self.config
        drawn = self._behaviour.sample(rows.observations, self.rng, c.value_samples)
        q = min_q(self._critics.of_samples(rows.observations, torch.cat([rows.actions[None], drawn])))
        return exponential_weights(q[0] - q[1:].mean(dim=0), 1 / c.temperature, limit=c.weight_limit)

    def _clone(self, rows: Rows) -> Tensor:
        loss = -self._behaviour.log_density(rows.observations, rows.actions).mean()
        self.optimize("behaviour", loss)
        return loss.detach()

    def _improve(self, rows: Rows) -> Tensor:
        if self.config.operator == "exponential":
            loss = -(self.weights(rows) * self._actor.log_density(rows.observations, rows.actions)).mean()
        else:
            loss = self._regularized_loss(rows.observations)
        self.optimize("actor", loss)
        return loss.detach()

    def _regularized_loss(self, observations: Tensor) -> Tensor:
        """-E[Q(s, a)] + weight KL(pi || beta), a ~ pi(s)."""
        actions = self._actor.sample(observations, self.rng)[0]
        with frozen(self._critics), frozen(self._behaviour):
            q = min_q(self._critics(observations, actions))
            divergence = self._actor.divergence(self._behaviour, observations)
        loss: Tensor = (self.config.divergence_weight * divergence - q).mean()
        return loss

    def _best_candidate(self, observations: Tensor) -> Tensor:
        actions = self._behaviour.perturbed(observations, self._behaviour.get_buffer("candidates"))
        best = min_q(self._critics.of_samples(observations, actions)).argmax(dim=0)
        return actions[best, torch.arange(len(observations), device=self.device)]
