"""The trainer of a network by one loss: EMA, warm-up and decay, clipping, bf16 autocast, on the loop of `loop.py`."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field as Setting
from torch import Tensor, nn

from synth_pipeline.config import Config, content_hash
from synth_pipeline.diffusion.device import Precision, autocast, resolve_precision
from synth_pipeline.diffusion.loop import Learner, Report, Values, load_optimizer, optimizer_tensors, under
from synth_pipeline.seeding import Stage, integer_seed

Loss = Callable[[nn.Module, Tensor, torch.Generator], Tensor]


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

    def shortened(self, share: float) -> TrainerConfig:
        """The same with a share of the gradient steps, at least one."""
        return self.replace(gradient_steps=max(1, round(share * self.gradient_steps)))


class Trainer(Learner):
    """A network, its average, its optimiser and its position in the run.

    Args:
        network: Trained in place.
        loss: `loss(network, batch, rng) -> scalar`; all randomness from `rng`.
        config: Numbers of the optimisation.
        seed: Seed of the run.
        objective: What the loss depends on besides the rows, hashable as JSON: a checkpoint of another one is refused.
        device: Where everything lives.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        config: TrainerConfig,
        *,
        seed: int,
        objective: Any = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.loss, self.device = config, loss, torch.device(device)
        self._objective, self._rows_digest = objective, ""
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
        self.seed = seed

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then cosine to zero or constant."""
        c = self.config
        if step < c.warmup_steps:
            return c.learning_rate * (step + 1) / c.warmup_steps
        if c.decay == "constant":
            return c.learning_rate
        progress = (step - c.warmup_steps) / max(1, c.gradient_steps - c.warmup_steps)
        return c.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def step(self, batch: Tensor) -> Values:
        """One optimiser step; returns loss, gradient norm and learning rate (no host sync)."""
        rate = self.learning_rate(self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with autocast(self.device, self.precision):
            loss = self.loss(self.network, batch, self.rng)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.steps += 1
        if self.steps % self.config.ema_every == 0:
            self._update_average()
        return {"loss": loss.detach(), "gradient_norm": norm, "learning_rate": rate}

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
            CheckpointError: When the checkpoint is of another run, or of other rows.
        """
        rows, c = data.to(self.device), self.config
        if checkpoint is not None:
            self._rows_digest = hashlib.sha256(data.cpu().contiguous().numpy().data).hexdigest()

        def draw(rng: torch.Generator) -> Tensor:
            return rows[torch.randint(len(rows), (c.batch_size,), generator=rng, device=self.device)]

        steps = {"until": c.gradient_steps, "total": c.gradient_steps, "log_every": c.log_every}
        seconds = c.checkpoint_seconds
        self.run(draw, **steps, checkpoint=checkpoint, checkpoint_seconds=seconds, report=report)

    @property
    def identity(self) -> str:
        """Hash of what a checkpoint must share with this run: rows, objective, network, numbers and seed."""
        shapes = {name: list(value.shape) for name, value in self.network.state_dict().items()}
        numbers = self.config.model_dump(mode="json", exclude={"checkpoint_seconds", "log_every"})
        return content_hash(numbers, shapes, self.seed, self._objective, self._rows_digest)

    def tensors(self) -> dict[str, Tensor]:
        """Weights, average, moments of the optimiser."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        return tensors | optimizer_tensors(self.optimizer, "optimizer.")

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `tensors`."""
        self.network.load_state_dict(under(tensors, "network."))
        self.average.load_state_dict(under(tensors, "average."))
        load_optimizer(self.optimizer, tensors, "optimizer.")


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
