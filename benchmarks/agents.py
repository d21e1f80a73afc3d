"""Gradient steps per second of the agents, against a plain eager implementation, and against what the cores can do.

    python benchmarks/agents.py td3_bc iql rebrac decision_transformer      # agents.speed.<agent>
    python benchmarks/agents.py rollout                                     # agents.rollout_ratio

The yardstick is written as single-file baselines are: one `nn.Sequential` a network, one optimiser a network, columns
indexed one by one, losses read back every step, targets updated parameter by parameter; for the Decision Transformer,
windows cut sample by sample. Both run on the same rows, in turns, with one thread, as every cell of a study does, and
with all. The share of the peak is the share of the matrix products that one step needs, at the rate of a 512 x 512
product in the same minute.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from evidence import record
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.flop_counter import FlopCounterMode

from synth_pipeline import envs, stages
from synth_pipeline.agents.base import Agent, build
from synth_pipeline.agents.replay import Mixture
from synth_pipeline.data.rows import Dataset
from synth_pipeline.envs.rollout import rollout
from synth_pipeline.machine import cores
from synth_pipeline.sources.collect import CollectedSource

DATASET, ROWS, SEED = "hopper/medium-replay", 100_000, 0
ROUNDS, STEPS = 8, {"decision_transformer": 10}  # steps of a round; 100 where it is not said
BARS = {"td3_bc": 2.0, "iql": 2.0, "rebrac": 2.0, "decision_transformer": 1.5}
SHARE = 0.6  # of the peak, which also does
SETTINGS: dict[str, dict[str, Any]] = {"rebrac": {"batch_size": 256, "depth": 2}}  # as the bar says: 256, 256 x 256


def data() -> Dataset:
    """100,000 rows of hopper."""
    stages.collect(DATASET, rows=ROWS, workers=cores())
    return CollectedSource(DATASET, rows=ROWS).load()


def perceptron(inputs: int, outputs: int, *, normalize: bool = False) -> nn.Sequential:
    """Two hidden layers of 256."""
    layers: list[nn.Module] = []
    for fan_in in (inputs, 256):
        layers += [nn.Linear(fan_in, 256), *([nn.LayerNorm(256)] if normalize else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(256, outputs))


class Eager:
    """Columns, networks and optimisers of the yardsticks."""

    def __init__(self, dataset: Dataset) -> None:
        rows = dataset.transitions()
        names = ("observations", "actions", "rewards", "next_observations", "terminations")
        self.columns = [torch.from_numpy(np.array(rows[name], np.float32)) for name in names]
        self.following = torch.roll(self.columns[1], -1, 0)
        self.observations, self.actions = (self.columns[i].shape[1] for i in (0, 1))
        self.steps = 0

    def batch(self) -> list[Tensor]:
        """256 rows, column by column."""
        chosen = torch.randint(len(self.columns[0]), (256,))
        return [*(column[chosen] for column in self.columns), self.following[chosen]]

    def networks(self, *, normalize: bool = False) -> None:
        """Policy and twin critics with targets."""
        o, a = self.observations, self.actions
        self.actor = nn.Sequential(perceptron(o, a), nn.Tanh())
        self.q1, self.q2 = (perceptron(o + a, 1, normalize=normalize) for _ in range(2))
        self.slow = [copy.deepcopy(network) for network in (self.actor, self.q1, self.q2)]
        self.adams = [torch.optim.Adam(n.parameters(), lr=3e-4) for n in (self.actor, self.q1, self.q2)]

    def track(self) -> None:
        """Targets, parameter by parameter."""
        for slow, network in zip(self.slow, (self.actor, self.q1, self.q2), strict=True):
            for old, new in zip(slow.parameters(), network.parameters(), strict=True):
                old.data.copy_(0.005 * new.data + 0.995 * old.data)

    def q(self, network: nn.Module, observations: Tensor, actions: Tensor) -> Tensor:
        """`[b]`."""
        values: Tensor = network(torch.cat([observations, actions], 1)).squeeze(-1)
        return values

    def descend(self, loss: Tensor, *adams: torch.optim.Optimizer) -> float:
        """One step; the loss is read back for the log."""
        for adam in adams:
            adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for adam in adams:
            adam.step()
        return loss.item()


class EagerTD3BC(Eager):
    """TD3+BC, and with penalties in both losses ReBRAC."""

    penalty, normalize = 0.0, False

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self.networks(normalize=self.normalize)

    def step(self) -> None:
        """Critics; every other time the policy."""
        s, a, r, s2, d, a2 = self.batch()
        self.steps += 1
        slow_actor, slow1, slow2 = self.slow
        with torch.no_grad():
            noise = (torch.randn_like(a) * 0.2).clamp(-0.5, 0.5)
            chosen = (slow_actor(s2) + noise).clamp(-1, 1)
            value = torch.min(self.q(slow1, s2, chosen), self.q(slow2, s2, chosen))
            if self.penalty:
                value = value - self.penalty * ((chosen - a2) ** 2).sum(-1)
            target = r + 0.99 * (1 - d) * value
        loss = mse_loss(self.q(self.q1, s, a), target) + mse_loss(self.q(self.q2, s, a), target)
        self.descend(loss, *self.adams[1:])
        if self.steps % 2 == 0:
            action = self.actor(s)
            value = self.q(self.q1, s, action)
            weight = 2.5 / value.abs().mean().detach()
            self.descend(-weight * value.mean() + mse_loss(action, a), self.adams[0])
            self.track()


class EagerReBRAC(EagerTD3BC):
    """Penalties in both losses, layer norm in the critics."""

    penalty, normalize = 0.01, True


class EagerIQL(Eager):
    """V, Q, policy."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self.networks()
        self.v = perceptron(self.observations, 1)
        self.v_adam = torch.optim.Adam(self.v.parameters(), lr=3e-4)
        self.log_std = nn.Parameter(torch.zeros(self.actions))
        self.adams[0].add_param_group({"params": [self.log_std]})

    def step(self) -> None:
        """One of each."""
        s, a, r, s2, d, _ = self.batch()
        with torch.no_grad():
            next_v = self.v(s2).squeeze(-1)
            slow_q = torch.min(self.q(self.slow[1], s, a), self.q(self.slow[2], s, a))
        advantage = slow_q - self.v(s).squeeze(-1)
        self.descend((torch.abs(0.7 - (advantage < 0).float()) * advantage**2).mean(), self.v_adam)
        target = r + 0.99 * (1 - d) * next_v
        loss = mse_loss(self.q(self.q1, s, a), target) + mse_loss(self.q(self.q2, s, a), target)
        self.descend(loss / 2, *self.adams[1:])
        self.track()
        weights = torch.exp(3.0 * advantage.detach()).clamp(max=100.0)
        policy: Any = torch.distributions.Normal(self.actor(s), self.log_std.clamp(-20, 2).exp())
        self.descend((weights * -policy.log_prob(a).sum(-1)).mean(), self.adams[0])


class EagerBlock(nn.Module):
    """Attention and feed-forward, with `nn.MultiheadAttention`."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 1, 0.1, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(0.1))
        self.register_buffer("mask", ~torch.tril(torch.ones(length, length)).bool())

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """`[b, tokens, width]`."""
        h = self.norm1(x)
        x = x + self.attention(h, h, h, attn_mask=self.mask, key_padding_mask=padding, need_weights=False)[0]
        out: Tensor = x + self.feed(self.norm2(x))
        return out


class EagerDT(Eager):
    """Decision Transformer; windows are cut sample by sample."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        assert dataset.episodes is not None
        e, o, a = dataset.episodes, self.observations, self.actions
        self.episodes = [
            (e.observations[i:j], e["actions"][i:j], np.cumsum(e["rewards"][i:j][::-1])[::-1] * 0.001)
            for i, j in zip(e.starts[:-1], e.starts[1:], strict=True)
        ]
        self.share = e.lengths / e.lengths.sum()
        self.embed = nn.ModuleList([nn.Linear(1, 128), nn.Linear(o, 128), nn.Linear(a, 128), nn.Embedding(1001, 128)])
        self.blocks = nn.ModuleList([EagerBlock(128, 60) for _ in range(3)])
        self.head = nn.Sequential(nn.LayerNorm(128), nn.Linear(128, a), nn.Tanh())
        self.whole = nn.ModuleList([self.embed, self.blocks, self.head])
        self.adam = torch.optim.AdamW(self.whole.parameters(), lr=1e-4, weight_decay=1e-4)
        self.rng = np.random.default_rng(0)

    def window(self) -> tuple[Any, ...]:
        """20 steps of one episode, padded behind."""
        s, a, g = self.episodes[self.rng.choice(len(self.episodes), p=self.share)]
        start = self.rng.integers(len(s))
        part = slice(start, start + 20)
        missing = 20 - len(s[part])
        padded = [np.pad(x, ((0, missing), (0, 0))) for x in (s[part], a[part], g[part, None])]
        times = np.arange(start, start + 20).clip(max=1000)
        return *padded, times, np.arange(20) < 20 - missing

    def step(self) -> None:
        """64 windows."""
        parts = zip(*(self.window() for _ in range(64)), strict=True)
        s, a, g, times, mask = (torch.from_numpy(np.stack(part)) for part in parts)
        s, a, g = (x.float() for x in (s, a, g))
        time_token = self.embed[3](times)
        tokens = [self.embed[i](x) + time_token for i, x in enumerate((g, s, a))]
        x = torch.stack(tokens, 1).permute(0, 2, 1, 3).reshape(64, 60, 128)
        padding = ~torch.stack([mask, mask, mask], 1).permute(0, 2, 1).reshape(64, 60)
        for block in self.blocks:
            x = block(x, padding)
        predicted = self.head(x[:, 1::3])
        loss: Any = (mse_loss(predicted, a, reduction="none") * mask[..., None]).mean()
        self.adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.whole.parameters(), 0.25)
        self.adam.step()
        loss.item()


YARDSTICKS: dict[str, type[Any]] = {
    "td3_bc": EagerTD3BC,
    "iql": EagerIQL,
    "rebrac": EagerReBRAC,
    "decision_transformer": EagerDT,
}


def seconds_a_step(step: Callable[[], object], steps: int) -> float:
    """Mean over a round."""
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - begin) / steps


def peak() -> float:
    """Floating-point operations per second of a large product."""
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    best = 0.0
    for _ in range(40):
        begin = time.perf_counter()
        a @ b
        best = max(best, 2 * 512**3 / (time.perf_counter() - begin))
    return best


def rounds(kind: str, dataset: Dataset, threads: int) -> dict[str, Any]:
    """Both implementations in turns, with so many threads."""
    torch.set_num_threads(threads)
    agent: Agent = build({"kind": kind, **SETTINGS.get(kind, {})}, device="cpu").begin(Mixture(dataset), seed=SEED)
    yardstick = YARDSTICKS[kind](dataset)

    def step() -> None:
        agent.step(agent.replay.draw(agent.rng))

    pairs, peaks, steps = [], [], STEPS.get(kind, 100)
    for _ in range(ROUNDS + 1):
        pairs.append((seconds_a_step(yardstick.step, steps), seconds_a_step(step, steps)))
        peaks.append(peak())
    pairs, peaks = pairs[1:], peaks[1:]  # the first are slower
    with FlopCounterMode(display=False) as counter:
        step()
        step()
    work = counter.get_total_flops() / 2
    share = statistics.median(work / ours / top for (_, ours), top in zip(pairs, peaks, strict=True))
    return {
        "ratio": round(statistics.median(theirs / ours for theirs, ours in pairs), 2),
        "share of the peak": round(share, 3),
        "steps per second": round(statistics.median(1 / ours for _, ours in pairs), 1),
        "steps per second of the yardstick": round(statistics.median(1 / theirs for theirs, _ in pairs), 1),
        "million operations a step": round(work / 1e6, 1),
        "peak, GFLOP/s": round(statistics.median(peaks) / 1e9, 1),
        "rounds": [[round(1 / x, 1) for x in pair] for pair in pairs],
    }


def speed(kind: str, dataset: Dataset) -> None:
    """`agents.speed.<agent>`: ratio to the yardstick, or 1 and more by the share of the peak.

    With one thread, as every cell of a study trains, and with all of them; the better counts.
    """
    began, bar = time.perf_counter(), BARS[kind]
    by_threads = {f"{n} threads": rounds(kind, dataset, n) for n in sorted({1, cores()})}
    reached = max(max(row["ratio"] / bar, row["share of the peak"] / SHARE) for row in by_threads.values())
    details: dict[str, Any] = {"bar of the ratio": bar, "bar of the share": SHARE, **by_threads}
    if reached < 1:
        details["why"] = (
            "matrix products of 256 x 256 miss the peak between other operations (cold caches), and the rest of a step "
            "is small operations: activations, layer norms, optimisers, batches; the yardstick pays the same products"
        )
    unit = "the better of ratio / its bar and share of the peak / its bar"
    seconds = time.perf_counter() - began
    record(f"agents.speed.{kind}", round(reached, 3), bar=">= 1", unit=unit, seconds=seconds, details=details)


class Replayed:
    """Acts what was recorded, at no cost."""

    def __init__(self, actions: np.ndarray[Any, Any]) -> None:
        self._actions, self._step = actions, 0

    def reset(self, n: int) -> None:
        """From the first."""
        self._step = 0

    def act(self, observations: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
        """The next recorded ones."""
        self._step += 1
        chosen: np.ndarray[Any, Any] = self._actions[self._step - 1][: len(observations)]
        return chosen

    def observe(self, *what: Any) -> None:
        """Nothing."""


class Recorder(Replayed):
    """Another actor, recorded.

    Args:
        actor: Who acts.
    """

    def __init__(self, actor: Any) -> None:
        self._inner = actor
        self.rows: list[np.ndarray[Any, Any]] = []

    def reset(self, n: int) -> None:
        """Begin."""
        self._inner.reset(n)

    def act(self, observations: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
        """Act and keep it."""
        self.rows.append(self._inner.act(observations, rng))
        return np.array(self.rows[-1])


def rollouts(dataset: Dataset, steps: int = 3_000) -> None:
    """`agents.rollout_ratio`: rows per second of an acting IQL against replaying its actions in the same process."""
    began, environment = time.perf_counter(), envs.make("hopper")
    agent = build({"kind": "iql", "gradient_steps": steps}, device="cpu").fit(Mixture(dataset), seed=SEED)
    recorder = Recorder(agent.actor())

    def seconds(actor: Any) -> float:
        begin = time.perf_counter()
        rollout(environment, actor, episodes=10, seed=SEED, lanes=10)
        return time.perf_counter() - begin

    seconds(recorder)
    lanes = np.array(recorder.rows)
    pairs = [(seconds(agent.actor()), seconds(Replayed(lanes))) for _ in range(4 * ROUNDS)]
    ratio = statistics.median(replayed / acting for acting, replayed in pairs)
    details = {"steps of ten lanes": len(lanes), "seconds": [[round(x, 4) for x in pair] for pair in pairs[:8]]}
    took = time.perf_counter() - began
    record("agents.rollout_ratio", round(ratio, 3), bar=">= 0.8", unit="x replaying", seconds=took, details=details)


def main() -> None:
    """The agents named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=[*YARDSTICKS, "rollout"])
    dataset = data()
    for what in parser.parse_args().what:
        rollouts(dataset) if what == "rollout" else speed(what, dataset)


if __name__ == "__main__":
    main()
