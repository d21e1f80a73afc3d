"""Has a training diverged? Asked at every evaluation: a diverged run is marked with its reason, never averaged."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from synth_pipeline.agents.base import Agent
from synth_pipeline.critics import Critics
from synth_pipeline.data.rows import Dataset
from synth_pipeline.evaluation.statistics import Diverged
from synth_pipeline.seeding import Stage, stream

ADDRESS = 1_001
ROWS = 4_096  # real rows that values are looked at
STARTS = 256  # real observations that actions are looked at


class Monitor:
    """Watches one agent.

    It has diverged when a weight, a value or an action is not finite, or when the mean of |Q| over real rows is beyond
    what rewards could ever sum to: `factor` * max |r| / (1 - gamma), in the agent's own scale of rewards, or what the
    method adds to them. Where all rewards are 0, a reward of 1 stands for the largest.

    Args:
        agent: After `begin`.
        data: The real rows that it learns from.
        factor: How many times the largest value that is possible.
    """

    def __init__(self, agent: Agent, data: Dataset, *, factor: float = 10.0) -> None:
        self._agent = agent
        rows = data.transitions()
        some = rows.take(np.unique(np.linspace(0, len(rows) - 1, ROWS).astype(np.int64)))
        scaling, device = agent.scaling, agent.device
        self._starts = np.asarray(some["observations"][:: max(1, len(some) // STARTS)], np.float32)
        self._observations = torch.from_numpy(scaling.observations(some["observations"])).to(device)
        self._actions = torch.from_numpy(scaling.actions(some["actions"])).to(device)
        largest = float(np.abs(scaling.rewards(rows["rewards"])).max()) or 1.0
        summed = largest * effective_horizon(agent.config.discount, data)
        self.limit = factor * max(summed, agent.invented_return())

    def check(self) -> Diverged | None:
        """What is wrong now, or None."""
        reason = next(self._reasons(), None)
        return None if reason is None else Diverged(self._agent.steps, reason)

    def _reasons(self) -> Iterator[str]:
        for name, network in self._agent.networks.items():
            if not all(bool(torch.isfinite(weight).all()) for weight in network.parameters()):
                yield f"weights of '{name}' are not finite"
        for name, network in self._agent.networks.items():
            if isinstance(network, Critics):
                yield from self._of_values(name, network)
        actor = self._agent.actor()
        actor.reset(len(self._starts))
        actions = actor.act(self._starts, stream(self._agent.seed, Stage.EVALUATE, ADDRESS))
        if not np.isfinite(actions).all():
            yield f"{int((~np.isfinite(actions)).any(axis=1).sum())} of {len(actions)} actions are not finite"

    @torch.inference_mode()
    def _of_values(self, name: str, critics: Critics) -> Iterator[str]:
        q: Tensor = critics(self._observations, self._actions)
        size = float(q.abs().mean())
        if not np.isfinite(size):
            yield f"values of '{name}' are not finite"
        elif size > self.limit:
            yield f"mean |Q| of '{name}' on real rows is {size:.3g}, beyond {self.limit:.3g} (scaled rewards)"


def effective_horizon(discount: float, data: Dataset) -> float:
    """1 / (1 - gamma), steps; without discount the longest episode, or all rows where there are no episodes."""
    if discount < 1:
        return 1 / (1 - discount)
    return float(len(data) if data.episodes is None else data.episodes.lengths.max())
