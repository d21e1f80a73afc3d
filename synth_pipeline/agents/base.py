"""What every agent shares: data into tensors, networks with their optimisers, the loop, acting, saving.

A method's file gives its settings, `build` (networks), `step` (losses) and `policy` (how it acts).
"""

from __future__ import annotations

import copy
import math
import time
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import torch
from pydantic import Field as Setting
from torch import Tensor, nn

from synth_pipeline import envs
from synth_pipeline.agents import AGENTS
from synth_pipeline.agents.replay import Batch, Mixture, Replay
from synth_pipeline.agents.scaling import Scaling
from synth_pipeline.config import Config, content_hash
from synth_pipeline.critics import Critics
from synth_pipeline.data.fields import Array
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.diffusion.device import pick_device
from synth_pipeline.diffusion.loop import Learner, Report, load_optimizer, optimizer_tensors, under
from synth_pipeline.diffusion.networks.ensemble_mlp import EnsembleMLP, Initial
from synth_pipeline.diffusion.trainer import soft_update
from synth_pipeline.envs.rollout import Actor
from synth_pipeline.seeding import Stage, integer_seed

N = TypeVar("N", bound=nn.Module)
ROWS_AT_ONCE = 4096  # of a table that a network looks at


class AgentConfig(Config):
    """What all agents have; a method changes the defaults to those of its paper."""

    gradient_steps: int = Setting(1_000_000, ge=1, description="gradient steps of the whole training")
    batch_size: int = Setting(256, ge=1, description="rows per step")
    discount: float = Setting(0.99, gt=0, le=1, description="gamma")
    learning_rate: float = Setting(3e-4, gt=0, description="step size of Adam")
    weight_decay: float = Setting(0.0, ge=0, description="decoupled decay of all weights")
    width: int = Setting(256, ge=8, description="units of a hidden layer")
    depth: int = Setting(2, ge=1, description="hidden layers of every network")
    target_rate: float = Setting(0.005, gt=0, le=1, description="weight of the new parameters in a target network")
    normalize_observations: bool = Setting(False, description="(s - mean) / (std + 1e-3) of the real rows")
    scale_rewards: bool | Literal["locomotion"] = Setting(
        False, description="rewards times 1000 / spread of the returns of the real episodes; or on locomotion alone"
    )
    log_every: int = Setting(1_000, ge=1, description="steps between log lines")
    checkpoint_seconds: float = Setting(60.0, gt=0, description="time between checkpoints; never changes the result")


class Agent(Learner):
    """Base of the agents: a learner on a replay of rows.

    Args:
        config: Its numbers.
        device: `auto`, `cpu`, `cuda`, ...
    """

    kind: ClassVar[str]
    settings: ClassVar[type[AgentConfig]] = AgentConfig
    revision: ClassVar[int] = 1  # one more when the same numbers learn otherwise: what is on record is asked for anew
    needs_episodes: ClassVar[bool] = False  # single rows cannot be mixed in

    def __init__(self, config: AgentConfig | None = None, *, device: str = "auto") -> None:
        self.config: Any = config or self.settings()
        self.device = pick_device(device)
        self.networks: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    # --- what a method gives ------------------------------------------------------------------------------------------

    @abstractmethod
    def build(self, generator: torch.Generator) -> None:
        """Make the networks, each by `add` or `add_target`; `generator` draws their initial weights."""

    @abstractmethod
    def step(self, batch: Batch) -> Mapping[str, Tensor | float]:
        """One gradient step; adds 1 to `steps`."""

    def invented_return(self) -> float:
        """Size of a return that the method adds to those of the data, in scaled rewards: what halting costs, say."""
        return 0.0

    @abstractmethod
    def policy(self, observations: Tensor) -> Tensor:
        """How the agent acts when it is judged: `[b, o]` in model units -> `[b, a]` in [-1, 1]."""

    # --- learning -----------------------------------------------------------------------------------------------------

    def begin(self, data: Mixture, *, seed: int) -> Self:
        """Take the data, make the networks; nothing is trained yet.

        Raises:
            SourceError: When the agent cannot learn from the data, and why.
        """
        c = self.config
        scaled = on_locomotion(data.real.spec) if c.scale_rewards == "locomotion" else c.scale_rewards
        self.scaling = Scaling.fit(data.real, normalize_observations=c.normalize_observations, scale_rewards=scaled)
        self.seed, self.steps, self.seconds, self._digest = seed, 0, 0.0, data.digest()
        self.rng = torch.Generator(self.device).manual_seed(integer_seed(seed, Stage.TRAIN, 20))
        self.replay = self.make_replay(data)
        self._build(torch.Generator().manual_seed(integer_seed(seed, Stage.TRAIN, 21)))
        return self

    def make_replay(self, data: Mixture) -> Any:
        """Where batches are drawn from: something with `draw(rng)`."""
        c = self.config
        return Replay(data, self.scaling, batch_size=c.batch_size, discount=c.discount, device=self.device)

    def train(self, until: int | None = None, *, report: Report | None = None, checkpoint: Path | None = None) -> None:
        """Gradient steps up to a step of the training, from a checkpoint if there is one that has come further.

        Args:
            until: Step to stop after; None: the last one.
            report: Called with (step, total, values).
            checkpoint: File for resumable state.

        Raises:
            TrainingDivergedError: When a loss is not finite at a log line.
            CheckpointError: When the checkpoint is of another run.
        """
        c = self.config
        last = c.gradient_steps if until is None else until
        limits = {"until": last, "total": c.gradient_steps, "log_every": c.log_every}
        seconds = c.checkpoint_seconds
        self.run(self.replay.draw, **limits, checkpoint=checkpoint, checkpoint_seconds=seconds, report=report)

    def fit(self, data: Mixture, *, seed: int, report: Report | None = None, checkpoint: Path | None = None) -> Self:
        """`begin` and `train` to the end."""
        self.begin(data, seed=seed).train(report=report, checkpoint=checkpoint)
        return self

    def expected_seconds(self, data: Mixture, steps: int) -> float:
        """What a whole training on `data` will take here, judged by a few steps."""
        return extrapolated_seconds(self.begin(data, seed=0), steps)

    def add(self, name: str, network: N, *, learning_rate: float | None = None) -> N:
        """A trained network and its Adam."""
        moved = network.to(self.device)
        rate = learning_rate or self.config.learning_rate
        self.optimizers[name] = torch.optim.AdamW(
            moved.parameters(), lr=rate, weight_decay=self.config.weight_decay, fused=True
        )
        self.networks[name] = moved
        return moved

    def add_target(self, name: str, network: N) -> N:
        """A target network of a network; `update_target` moves it."""
        copied = copy.deepcopy(network).requires_grad_(False)
        self.networks[name] = copied
        return copied

    def update_target(self, target: nn.Module, network: nn.Module) -> None:
        """target <- (1 - rate) target + rate network."""
        soft_update(target, network, self.config.target_rate)

    def optimize(self, name: str, loss: Tensor) -> None:
        """One step of the named optimiser."""
        optimizer = self.optimizers[name]
        for parameter in self.networks[name].parameters():
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def set_rate(self, name: str, learning_rate: float) -> None:
        """Another step size from now on."""
        for group in self.optimizers[name].param_groups:
            group["lr"] = learning_rate

    def cosine(self, peak: float) -> float:
        """A step size that falls from `peak` to zero at the last step."""
        return peak * 0.5 * (1 + math.cos(math.pi * self.steps / self.config.gradient_steps))

    def mlp(self, outputs: int, generator: torch.Generator, **given: Any) -> EnsembleMLP:
        """One network of the observations, `[b, o]` -> `[1, b, outputs]`."""
        hidden = [self.config.width] * self.config.depth
        return EnsembleMLP([self.scaling.observation_size, *hidden, outputs], generator=generator, **given)

    def critics(
        self, generator: torch.Generator, *, members: int = 2, initial: Initial = "uniform", normalize: bool = False
    ) -> Critics:
        """Networks of (s, a)."""
        inputs = self.scaling.observation_size + self.scaling.action_size
        sizes = [inputs, *[self.config.width] * self.config.depth, 1]
        return Critics(sizes, members=members, generator=generator, initial=initial, normalize=normalize)

    @property
    def identity(self) -> str:
        """Hash of method and revision, numbers, data and seed."""
        numbers = self.config.model_dump(mode="json", exclude={"checkpoint_seconds", "log_every"})
        return content_hash(self.kind, self.revision, numbers, self.seed, self._digest)

    def tensors(self) -> dict[str, Tensor]:
        """Weights and moments."""
        found: dict[str, Tensor] = {}
        for name, network in self.networks.items():
            found |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            found |= optimizer_tensors(optimizer, f"optimizer:{name}.")
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `tensors`."""
        for name, network in self.networks.items():
            network.load_state_dict(under(tensors, f"{name}."))
        for name, optimizer in self.optimizers.items():
            load_optimizer(optimizer, tensors, f"optimizer:{name}.")

    def _build(self, generator: torch.Generator) -> None:
        self.networks, self.optimizers = {}, {}
        self.build(generator)

    # --- acting and saving --------------------------------------------------------------------------------------------

    def actor(self) -> Actor:
        """What acts in an environment."""
        return PolicyActor(self)

    def actors(self) -> dict[float | None, Actor]:
        """What acts in an environment, by the return that it is asked for, if it is; the first is judged."""
        return {None: self.actor()}

    @torch.inference_mode()
    def act(self, observations: Array) -> Array:
        """`[n, o]` in physical units -> `[n, a]`, as it is judged: without exploration noise."""
        x = torch.from_numpy(self.scaling.observations(observations)).to(self.device)
        if len(x) <= ROWS_AT_ONCE:  # a step of a rollout: every microsecond is paid a thousand times
            return self.scaling.physical_actions(self.policy(x).cpu().numpy())
        parts = [self.policy(part) for part in torch.split(x, ROWS_AT_ONCE)]
        return self.scaling.physical_actions(torch.cat(parts).cpu().numpy())

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Steps taken; scaling and weights."""
        arrays = {f"scaling.{name}": value.copy() for name, value in self.scaling.arrays().items()}
        for name, network in self.networks.items():
            weights = network.state_dict()
            arrays |= {f"{name}.{key}": np.array(value.cpu().numpy()) for key, value in weights.items()}
        return {"steps": self.steps}, arrays

    def restore_from(self, values: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Inverse of `state`: the agent can act; it cannot go on learning, for which `checkpoint` is there."""
        self.steps = int(values["steps"])
        self.scaling = Scaling.from_arrays(under(arrays, "scaling."))
        self._build(torch.Generator().manual_seed(0))
        for name, network in self.networks.items():
            weights = {key: torch.from_numpy(np.array(value)) for key, value in under(arrays, f"{name}.").items()}
            network.load_state_dict(weights)


def extrapolated_seconds(agent: Agent, steps: int) -> float:
    """Seconds of all gradient steps of an agent that has begun, from a few after the first."""
    agent.step(agent.replay.draw(agent.rng))
    begin = time.perf_counter()
    for _ in range(steps):
        agent.step(agent.replay.draw(agent.rng))
    return float((time.perf_counter() - begin) / steps * agent.config.gradient_steps)


def on_locomotion(spec: DatasetSpec) -> bool:
    """Whether data come from one of the runners: on their rewards the published scales were chosen."""
    return spec.environment is not None and envs.make(spec.environment).spec.family == "locomotion"


class PolicyActor:
    """An agent without memory, acting.

    Args:
        agent: A trained one.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def reset(self, n: int) -> None:
        """Nothing to begin."""

    def act(self, observations: Array, rng: np.random.Generator) -> Array:
        """The agent's actions; no noise."""
        return self._agent.act(observations)

    def observe(self, rewards: Array, costs: Array | None, infos: Mapping[str, Array]) -> None:
        """Nothing to learn."""


def build(settings: Mapping[str, Any], *, device: str = "auto") -> Agent:
    """An untrained agent from `{"kind": name, **settings}`.

    Raises:
        UnknownNameError: For an unknown kind.
        ConfigError: For an unknown or impossible setting.
    """
    kind: type[Agent] = AGENTS.load(str(settings.get("kind", "")))
    rest = {name: value for name, value in settings.items() if name != "kind"}
    return kind(kind.settings.parse(rest, where=f"agent '{settings['kind']}'"), device=device)
