"""The one trainer: EMA, warm-up and decay, clipping, bf16 autocast, bit-exact resume, divergence guard.

Training is a pure function of (configuration, seed, data): a run that is killed and started again ends with the same
bytes as one that was not. State is safetensors and JSON, never a pickle.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field as Setting
from torch import Tensor, nn

from synth_pipeline.config import Config, content_hash
from synth_pipeline.diffusion.device import Precision, autocast, resolve_precision
from synth_pipeline.errors import CheckpointError
from synth_pipeline.runs import write_bytes
from synth_pipeline.seeding import Stage, integer_seed

T = TypeVar("T")
Loss = Callable[[nn.Module, Tensor, torch.Generator], Tensor]
Report = Callable[[int, int, Mapping[str, float]], None]


class TrainerConfig(Config):
    """Every number of the optimisation."""

    gradient_steps: int = Setting(20_000, ge=1, description="optimiser steps")
    batch_size: int = Setting(512, ge=1, description="rows per step")
    learning_rate: float = Setting(1e-3, gt=0, description="peak step size of Adam")
    beta_2: float = Setting(0.99, gt=0, lt=1, description="decay of Adam's second moment")
    weight_decay: float = Setting(0.0, ge=0, description="decoupled decay of weight matrices")
    warmup_steps: int = Setting(200, ge=0, description="steps of linear warm-up")
    decay: Literal["cosine", "constant"] = Setting("cosine", description="learning rate after the warm-up")
    clip_norm: float = Setting(1.0, gt=0, description="largest gradient norm")
    ema_decay: float = Setting(0.999, ge=0, lt=1, description="decay of the averaged weights per update")
    ema_every: int = Setting(1, ge=1, description="steps between updates of the average")
    precision: Precision = Setting("auto", description="of matrix products; auto: bfloat16 where it is native")
    log_every: int = Setting(100, ge=1, description="steps between log lines")
    checkpoint_seconds: float = Setting(60.0, gt=0, description="time between checkpoints; never changes the result")


class TrainingDivergedError(CheckpointError):
    """The loss or the gradient stopped being finite."""


class Trainer:
    """A network, its average, its optimiser and its position in the run.

    Args:
        network: Trained in place.
        loss: `loss(network, batch, rng) -> scalar`; all randomness from `rng`.
        config: Numbers of the optimisation.
        seed: Seed of the run.
        device: Where everything lives.
    """

    def __init__(
        self, network: nn.Module, loss: Loss, config: TrainerConfig, *, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.loss, self.device = config, loss, torch.device(device)
        self.precision = resolve_precision(config.precision, self.device)
        self.network = network.to(self.device).train()
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        matrices = [p for p in self.network.parameters() if p.requires_grad and p.ndim > 1]
        others = [p for p in self.network.parameters() if p.requires_grad and p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(0.9, config.beta_2),
            fused=True,
        )
        self.rng = torch.Generator(self.device).manual_seed(integer_seed(seed, Stage.TRAIN))
        self.seed, self.steps = seed, 0

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then cosine to zero or constant."""
        c = self.config
        if step < c.warmup_steps:
            return c.learning_rate * (step + 1) / c.warmup_steps
        if c.decay == "constant":
            return c.learning_rate
        progress = (step - c.warmup_steps) / max(1, c.gradient_steps - c.warmup_steps)
        return c.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def step(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """One optimiser step; returns loss and gradient norm as tensors (no host sync)."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.steps)
        with autocast(self.device, self.precision):
            loss = self.loss(self.network, batch, self.rng)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.steps += 1
        if self.steps % self.config.ema_every == 0:
            self._update_average()
        return loss.detach(), norm

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on the average forgets faster, or the random start would stay in it for thousands of steps.
        updates = self.steps / self.config.ema_every
        decay = min(self.config.ema_decay, (1 + updates) / (10 + updates))
        soft_update(self.average, self.network, 1 - decay)

    def train(self, data: Tensor, *, checkpoint: Path | None = None, report: Report | None = None) -> None:
        """Run to the end on rows of `data`, from a checkpoint if there is one.

        Args:
            data: `[n, ...]` in model units; moved to the device whole.
            checkpoint: File for resumable state; None: not resumable.
            report: Called with (step, total, values) every `log_every` steps.

        Raises:
            TrainingDivergedError: When loss or gradient is not finite at a log line.
            CheckpointError: When the checkpoint is of another run.
        """
        if checkpoint is not None and checkpoint.exists():
            self.restore(checkpoint)
        rows = data.to(self.device)
        saved = time.monotonic()
        while self.steps < self.config.gradient_steps:
            chosen = torch.randint(len(rows), (self.config.batch_size,), generator=self.rng, device=self.device)
            loss, norm = self.step(rows[chosen])
            if self.steps % self.config.log_every == 0 or self.steps == self.config.gradient_steps:
                self._log(float(loss), float(norm), report)
            finished = self.steps == self.config.gradient_steps
            if checkpoint is not None and (finished or time.monotonic() - saved > self.config.checkpoint_seconds):
                self.save(checkpoint)
                saved = time.monotonic()

    def _log(self, loss: float, norm: float, report: Report | None) -> None:
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise TrainingDivergedError(
                "training diverged",
                found=f"loss {loss}, gradient norm {norm} at step {self.steps:,}",
                fix="lower the generator's learning rate with --set and train again",
            )
        if report is not None:
            values = {"loss": loss, "gradient_norm": norm, "learning_rate": self.learning_rate(self.steps)}
            report(self.steps, self.config.gradient_steps, values)

    @property
    def identity(self) -> str:
        """Hash of what a checkpoint must share with this run."""
        shapes = {name: list(value.shape) for name, value in self.network.state_dict().items()}
        numbers = self.config.model_dump(mode="json", exclude={"checkpoint_seconds", "log_every"})
        return content_hash(numbers, shapes, self.seed)

    def save(self, path: Path) -> None:
        """Write everything that the rest of the run depends on, in one file that appears whole."""
        from safetensors.torch import save as to_bytes

        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        tensors["rng"] = self.rng.get_state()
        header = {"steps": str(self.steps), "identity": self.identity}
        write_bytes(path, to_bytes({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata=header))

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            CheckpointError: When it is damaged, or of another configuration, seed or network.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt", device=str(self.device)) as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
        except SafetensorError as error:
            raise CheckpointError(
                f"the checkpoint '{path}' is damaged", found=str(error), fix="delete it and train again"
            ) from None
        if header.get("identity") != self.identity:
            raise CheckpointError(
                f"the checkpoint '{path}' belongs to another run",
                accepted="the same network, seed and training settings",
                fix="delete it, or go back to the settings it was made with",
            )
        self.network.load_state_dict(under(tensors, "network."))
        self.average.load_state_dict(under(tensors, "average."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in under(tensors, "optimizer.").items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.rng.set_state(tensors["rng"].cpu())
        self.steps = int(header["steps"])


@dataclass
class Phases:
    """Several trainings in a row that are reported and resumed as one.

    Attributes:
        steps: Name of a phase -> its steps, in order; a phase that turns out not to be needed is taken out.
        report: Gets (step of all, steps of all, values under the phase's name).
        checkpoint: Each phase keeps its state beside this file, under its name.
    """

    steps: dict[str, int]
    report: Report | None = None
    checkpoint: Path | None = None

    def phase(self, name: str) -> dict[str, Any]:
        """Keyword arguments of `Trainer.train` (and of every `fit`) for one phase."""
        names, path, report = list(self.steps), self.checkpoint, self.report
        before, whole = sum(self.steps[n] for n in names[: names.index(name)]), sum(self.steps.values())

        def forward(step: int, total: int, values: Mapping[str, float]) -> None:
            assert report is not None
            report(before + step, whole, {f"{name}.{key}": value for key, value in values.items()})

        return {
            "report": None if report is None else forward,
            "checkpoint": None if path is None else path.with_name(f"{path.stem}-{name}{path.suffix}"),
        }


@torch.no_grad()
def soft_update(target: nn.Module, source: nn.Module, weight: float) -> None:
    """target <- (1 - weight) target + weight source; `weight` is that of the new parameters. Buffers are copied.

    Args:
        target: Changed in place.
        source: Same architecture.
        weight: In [0, 1]; 0 leaves the target as it is.
    """
    ours: list[Tensor] = list(target.parameters())
    theirs: list[Tensor] = list(source.parameters())
    torch._foreach_lerp_(ours, theirs, weight)
    for ours_buffer, theirs_buffer in zip(target.buffers(), source.buffers(), strict=True):
        ours_buffer.copy_(theirs_buffer)


def under(arrays: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The arrays whose name begins with `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}
