"""Decision Transformer (Chen et al. 2021, arXiv:2106.01345): actions that continue a sequence of returns-to-go.

A time step is three tokens in this order: return-to-go, observation, action; the token of the observation predicts the
action. Returns are not discounted and belong to one episode; a time limit ends the sum as a termination does, since
what would have followed is not known. Nothing is bootstrapped.

Differences from the authors' code (kzl/decision-transformer@e2d82e6, gym)
  1. Windows are padded at their end, not at their start. A token's place in time is the learned embedding of its step
     in the episode, not its slot, and attention is causal: both paddings give the same predictions and losses, but
     behind the end no mask is needed.
  2. The last block works for the observations' tokens only: the others predict nothing.
  3. The table of time steps is as long as the longest episode that may come, steps beyond it share its last row. All
     weights start from N(0, 0.02^2), as GPT-2's, those of the embeddings too.
  4. The warm-up is at most a share of the training, so that short trainings have more than a warm-up.
  5. Actions are predicted inside the bounds that the data name, not always inside of [-1, 1].
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field as Setting
from torch import Tensor, nn
from torch.nn.functional import embedding

from synth_pipeline.agents.base import Agent, AgentConfig
from synth_pipeline.agents.replay import Mixture, RowSampler, synthetic_rows, weights_of
from synth_pipeline.agents.scaling import Scaling, complete
from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.fields import Array
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.windows import returns_to_go
from synth_pipeline.diffusion.networks.transformer import Form, Transformer, dense, kept
from synth_pipeline.envs.rollout import Actor
from synth_pipeline.errors import SourceError

OBSERVATIONS = slice(1, None, 3)  # among the tokens of a window
NEWEST = slice(-2, None, 3)  # the last of them


class DecisionTransformerConfig(AgentConfig):
    """Numbers of the authors' code (locomotion)."""

    gradient_steps: int = Setting(100_000, ge=1, description="gradient steps of the whole training")
    batch_size: int = Setting(64, ge=1, description="windows per step")
    learning_rate: float = Setting(1e-4, gt=0, description="peak step size of AdamW")
    width: int = Setting(128, ge=8, description="components of a token")
    depth: int = Setting(3, ge=1, description="layers")
    heads: int = Setting(1, ge=1, description="heads of the attention; they divide the width")
    context: int = Setting(20, ge=1, description="K: time steps that are seen at once")
    dropout: float = Setting(0.1, ge=0, le=0.9, description="share of units that is dropped in training")
    weight_decay: float = Setting(1e-4, ge=0, description="decoupled decay of all weights")
    clip_norm: float = Setting(0.25, gt=0, description="largest gradient norm")
    warmup_steps: int = Setting(10_000, ge=0, description="steps of linear warm-up, but at most `warmup_share`")
    warmup_share: float = Setting(0.1, ge=0, le=1, description="largest part of the training that is warm-up")
    normalize_observations: bool = Setting(True, description="(s - mean) / (std + 1e-3) of the real rows")
    return_scale: float = Setting(1e-3, gt=0, description="what returns-to-go are multiplied with as tokens")
    targets: tuple[float, ...] = Setting(
        (),
        description="returns that are asked for when it acts, the first by default; none: the best return of the "
        "data, and half of it (where that is no less: halfway down to the worst)",
    )


@dataclass(frozen=True)
class Windows:
    """A batch in model units, b windows of K steps; what lies behind the end of an episode is not valid.

    Attributes:
        returns: `[b, K]`, scaled returns-to-go.
        observations: `[b, K, o]`.
        actions: `[b, K, a]`, in [-1, 1].
        steps: `[b, K]`, time steps in the episode.
        valid: `[b, K]`, bool.
    """

    returns: Tensor
    observations: Tensor
    actions: Tensor
    steps: Tensor
    valid: Tensor


class WindowTable:
    """Episodes on the device, as one flat table that windows are cut out of.

    Args:
        episodes: Where to take windows from; with a column `weight`, windows begin in proportion to it.
        scaling: Fitted on the real rows.
        return_scale: Factor on returns-to-go after the scaling of rewards.
        context: K.
        device: Where the table lives.

    Raises:
        SourceError: When weights are negative or all zero.
    """

    def __init__(
        self, episodes: Episodes, scaling: Scaling, *, return_scale: float, context: int, device: torch.device
    ) -> None:
        returns = returns_to_go(episodes) * (scaling.reward_factor * return_scale)
        columns = [
            scaling.observations(episodes.observations),
            scaling.actions(episodes["actions"]),
            returns[:, None].astype(np.float32),
        ]
        self._sizes = [scaling.observation_size, scaling.action_size, 1]
        self._table = torch.from_numpy(np.concatenate(columns, axis=1)).to(device)
        lasts = np.repeat(episodes.starts[1:] - 1, episodes.lengths)
        self._places = torch.from_numpy(np.stack([episodes.steps, lasts], axis=1)).to(device)
        self._offsets = torch.arange(context, device=device)
        self._sampler = RowSampler(len(self._table), weights_of(episodes), device)

    def draw(self, count: int, rng: torch.Generator) -> Windows:
        """Windows that begin at rows drawn with replacement: episodes in proportion to their length, then uniformly."""
        return self.at(self._sampler.draw(count, rng))

    def at(self, first: Tensor) -> Windows:
        """The windows that begin at the rows `first [b]`."""
        steps, lasts = (column[:, None] for column in self._places.index_select(0, first).unbind(1))
        rows = first[:, None] + self._offsets
        inside = torch.minimum(rows, lasts)
        slab = self._table.index_select(0, inside.flatten()).view(*rows.shape, -1)
        observations, actions, returns = torch.split(slab, self._sizes, dim=-1)
        return Windows(returns[..., 0], observations, actions, steps + inside - first[:, None], rows <= lasts)


class WindowReplay:
    """Windows of real episodes, and of synthetic ones behind them in the mixture's share.

    Raises:
        SourceError: Without episodes, and when synthetic rows are no episodes.
    """

    def __init__(self, data: Mixture, batch_size: int, **table: Any) -> None:
        made, count = data.synthetic_episodes, 0
        if data.synthetic is not None and made is None and data.share > 0:
            raise SourceError(
                "a decision transformer learns from episodes, and synthetic rows have no return-to-go: what was "
                "earned after a single step is not known",
                found=f"{len(data.synthetic):,} synthetic rows of one step",
                accepted="synthetic episodes",
                fix="an agent that learns from rows (td3_bc, iql, ...), or a generator of trajectories",
            )
        if made is not None and data.use_in != "critic":  # there is no critic: real windows alone are learned from
            count = synthetic_rows(data.share, batch_size)
        self._tables = [(WindowTable(_episodes(data.real), **table), batch_size - count)]
        if made is not None and count:
            self._tables.append((WindowTable(made, **table), count))

    def draw(self, rng: torch.Generator) -> Windows:
        """One batch."""
        parts = [vars(table.draw(count, rng)) for table, count in self._tables if count]
        return Windows(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


class DecisionNetwork(nn.Module):
    """Tokens, transformer, read-out.

    Args:
        observation_size: o.
        action_size: a.
        horizon: Time steps that have an embedding.
        form: Of the blocks.
        depth: Blocks.
        generator: Source of the initial weights.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        horizon: int,
        form: Form,
        *,
        depth: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        width = form.width
        self.form = form
        self.told = nn.ModuleList(dense(size, width, generator) for size in (1, observation_size, action_size))
        self.times = nn.Parameter(torch.empty(horizon, width).normal_(std=0.02, generator=generator))
        self.norm = nn.LayerNorm(width)
        self.transformer = Transformer(form, depth=depth, generator=generator)
        self.output = dense(width, action_size, generator)

    def forward(self, windows: Windows, *, read: slice = OBSERVATIONS, rng: torch.Generator | None = None) -> Tensor:
        """What is done at each step, `[b, K, a]`; with `read` at the steps of these tokens only.

        A prediction depends on returns and observations up to its own step and on actions before it.
        """
        parts = (windows.returns[..., None], windows.observations, windows.actions)
        told = torch.stack([layer(part) for layer, part in zip(self.told, parts, strict=True)], dim=2)
        times = embedding(windows.steps.clamp_max(len(self.times) - 1), self.times)
        tokens = self.norm(told + times[:, :, None]).flatten(1, 2)
        if rng is not None and self.form.dropout:
            tokens = tokens * kept(tokens, self.form.dropout, rng)
        return torch.tanh(self.output(self.transformer(tokens, read=read, rng=rng)))


class DecisionTransformer(Agent):
    """min |a_t - f(R_1, s_1, a_1, ..., R_t, s_t)|^2 over windows of K steps."""

    kind: ClassVar[str] = "decision_transformer"
    needs_episodes: ClassVar[bool] = True
    settings: ClassVar[type[AgentConfig]] = DecisionTransformerConfig

    def make_replay(self, data: Mixture) -> WindowReplay:
        """Windows of episodes."""
        c, episodes = self.config, _episodes(data.real)
        made = data.synthetic_episodes
        longest = max(int(e.lengths.max()) for e in (episodes, made) if e is not None)
        self.horizon = max(longest, data.real.spec.horizon or 0)
        self.targets = c.targets or _targets(episodes.returns[complete(data.real)])
        table = {"return_scale": c.return_scale, "context": c.context, "device": self.device}
        return WindowReplay(data, c.batch_size, scaling=self.scaling, **table)

    def build(self, generator: torch.Generator) -> None:
        """The network; its weights decay, all of them, as in the authors' code."""
        c, sizes = self.config, (self.scaling.observation_size, self.scaling.action_size, self.horizon)
        form = Form(c.width, heads=c.heads, dropout=c.dropout)
        self._network = self.add("network", DecisionNetwork(*sizes, form, depth=c.depth, generator=generator))

    def step(self, batch: Windows) -> Mapping[str, Tensor | float]:  # type: ignore[override]
        """One regression step on the valid steps of the windows."""
        predicted = self._network(batch, rng=self.rng)
        error = (predicted - batch.actions).square().mean(dim=-1)
        loss = (error * batch.valid).sum() / batch.valid.sum()
        norm = self._optimize(loss)
        self.steps += 1
        return {"actor_loss": loss.detach(), "gradient_norm": norm}

    def _optimize(self, loss: Tensor) -> Tensor:
        c, optimizer = self.config, self.optimizers["network"]
        warmup = max(1, min(c.warmup_steps, round(c.warmup_share * c.gradient_steps)))
        self.set_rate("network", c.learning_rate * min(1.0, (self.steps + 1) / warmup))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._network.parameters(), c.clip_norm)
        optimizer.step()
        return norm

    def policy(self, observations: Tensor) -> Tensor:
        """What it does without a past: at the first step of an episode, asked for the first target."""
        returns = torch.full((len(observations), 1), self.return_token(self.targets[0]), device=observations.device)
        actions = observations.new_zeros(len(observations), 1, self.scaling.action_size)
        return self.predict(returns, observations[:, None], actions, 0)

    def predict(self, returns: Tensor, observations: Tensor, actions: Tensor, first_step: int) -> Tensor:
        """The newest action `[n, a]` of windows `[n, k, ...]` in model units; the last of `actions` is not seen."""
        steps = torch.arange(first_step, first_step + returns.shape[1], device=returns.device).expand(returns.shape)
        windows = Windows(returns, observations, actions, steps, torch.ones_like(steps, dtype=torch.bool))
        newest: Tensor = self._network(windows, read=NEWEST)[:, 0]
        return newest

    def return_token(self, value: float | npt.NDArray[np.float64]) -> Any:
        """A return in physical units as it is told to the network."""
        return value * (self.scaling.reward_factor * self.config.return_scale)

    def actor(self, target: float | None = None) -> HistoryActor:
        """What acts in an environment.

        Args:
            target: Return that is asked for, in physical units; None: the first of `targets`. A score belongs to one
                target: the best over several would be chosen after the fact.
        """
        return HistoryActor(self, self.targets[0] if target is None else target)

    def actors(self) -> dict[float | None, Actor]:
        """One for every target."""
        return {target: self.actor(target) for target in self.targets}

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Also the embedded time steps and the targets."""
        values, arrays = super().state()
        return {**values, "horizon": self.horizon, "targets": list(self.targets)}, arrays

    def restore_from(self, values: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Inverse of `state`."""
        self.horizon, self.targets = int(values["horizon"]), tuple(float(x) for x in values["targets"])
        super().restore_from(values, arrays)


class HistoryActor:
    """The agent with the last K steps of every lane, asked for a target less what was earned.

    Args:
        agent: A trained one.
        target: Return that is asked for, in physical units.
    """

    def __init__(self, agent: DecisionTransformer, target: float) -> None:
        self._agent, self._target = agent, float(target)
        self.reset(0)

    def reset(self, n: int) -> None:
        """Forget everything; n lanes."""
        context = self._agent.config.context
        self._to_go, self._time = np.full(n, self._target), 0
        self._returns, self._observations, self._actions = (deque[Tensor](maxlen=context) for _ in range(3))

    @torch.inference_mode()
    def act(self, observations: Array, rng: np.random.Generator) -> Array:
        """The predicted actions `[n, a]`; no noise."""
        agent = self._agent
        token = np.asarray(agent.return_token(self._to_go), np.float32)
        self._returns.append(torch.from_numpy(token).to(agent.device))
        self._observations.append(torch.from_numpy(agent.scaling.observations(observations)).to(agent.device))
        self._actions.append(torch.zeros(len(token), agent.scaling.action_size, device=agent.device))
        returns, states, actions = (
            torch.stack(list(p), dim=1) for p in (self._returns, self._observations, self._actions)
        )
        self._time += 1
        self._actions[-1] = agent.predict(returns, states, actions, self._time - returns.shape[1])
        return agent.scaling.physical_actions(self._actions[-1].cpu().numpy())

    def observe(self, rewards: Array, costs: Array | None, infos: Mapping[str, Array]) -> None:
        """What was earned is no longer to go."""
        self._to_go = self._to_go - rewards


def _episodes(data: Dataset) -> Episodes:
    if data.episodes is None:
        raise SourceError(
            "a decision transformer learns from episodes: single rows have no return-to-go",
            found=f"{len(data):,} rows without episodes",
            accepted="data with episodes",
        )
    return data.episodes


def _targets(returns: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """The best return and half of it; where that is no less (returns below 0), halfway from the best to the worst."""
    best, worst = float(returns.max()), float(returns.min())
    return best, best / 2 if best > 0 else (best + worst) / 2
