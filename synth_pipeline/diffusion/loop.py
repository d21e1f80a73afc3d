"""The one training loop: log lines, divergence guard, and checkpoints from which a run goes on with the same bytes.

What is trained (a network by one loss, or an agent with several networks and optimisers) is a `Learner`; a learner is a
pure function of (configuration, seed, data), stopped and resumed at any step. State is safetensors, never a pickle.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from synth_pipeline.errors import CheckpointError, TrainingDivergedError
from synth_pipeline.runs import write_bytes

T = TypeVar("T")
Report = Callable[[int, int, Mapping[str, float]], None]
Values = Mapping[str, Tensor | float]


class Learner(ABC):
    """Something that takes gradient steps.

    Attributes:
        steps: Gradient steps taken.
        seconds: What they took, all processes that went on from a checkpoint together.
        rng: All of its randomness.
        device: Where it lives.
    """

    steps: int = 0
    seconds: float = 0.0
    rng: torch.Generator
    device: torch.device

    @property
    @abstractmethod
    def identity(self) -> str:
        """Hash of what a checkpoint must share with this run."""

    @abstractmethod
    def step(self, batch: Any) -> Values:
        """One gradient step; values to log, as tensors (no host sync)."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Everything that the rest of the run depends on, but `rng` and `steps`."""

    @abstractmethod
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `tensors`."""

    def run(
        self,
        draw: Callable[[torch.Generator], Any],
        *,
        until: int,
        total: int,
        log_every: int = 100,
        checkpoint: Path | None = None,
        checkpoint_seconds: float = 60.0,
        report: Report | None = None,
    ) -> None:
        """Take steps, from a checkpoint if there is one that has come further.

        Args:
            draw: `draw(rng) -> batch`.
            until: Step to stop after.
            total: Steps of the whole training, for the report.
            log_every: Steps between reports.
            checkpoint: File for resumable state; None: not resumable.
            checkpoint_seconds: Time between checkpoints; never changes the result.
            report: Called with (step, total, values).

        Raises:
            TrainingDivergedError: When a value is not finite at a log line or before a checkpoint.
            CheckpointError: When the checkpoint is of another run.
        """
        if checkpoint is not None and checkpoint.exists():
            self.restore(checkpoint)
        saved = begin = time.monotonic()
        before = self.seconds
        while self.steps < until:
            values = self.step(draw(self.rng))
            if self.steps % log_every == 0 or self.steps == total:
                found = self._finite(values)
                if report is not None:
                    report(self.steps, total, found)
            now = time.monotonic()
            self.seconds = before + now - begin
            due = self.steps == until or now - saved > checkpoint_seconds
            if checkpoint is not None and due:
                self._finite(values)  # or a training that diverged would go on from there
                self.save(checkpoint)
                saved = time.monotonic()

    def _finite(self, logged: Values) -> dict[str, float]:
        values = {name: float(value) for name, value in logged.items()}
        if not all(math.isfinite(value) for value in values.values()):
            raise TrainingDivergedError(
                "training diverged",
                found=f"{', '.join(f'{name} {value:g}' for name, value in values.items())} at step {self.steps:,}",
                fix="lower the learning rate with --set and train again",
            )
        return values

    def save(self, path: Path) -> None:
        """Write everything that the rest of the run depends on, in one file that appears whole."""
        from safetensors.torch import save as to_bytes

        tensors = {**self.tensors(), "rng": self.rng.get_state()}
        header = {"steps": str(self.steps), "seconds": str(self.seconds), "identity": self.identity}
        write_bytes(path, to_bytes({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata=header))

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint, unless it is behind.

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
                accepted="the same data, network, seed and training settings",
                fix="delete it, or go back to the settings it was made with",
            )
        if int(header["steps"]) <= self.steps:
            return
        self.rng.set_state(tensors.pop("rng").cpu())
        self.load(tensors)
        self.steps, self.seconds = int(header["steps"]), float(header["seconds"])


@dataclass
class Phases:
    """Several trainings in a row that are reported and resumed as one.

    Attributes:
        steps: Name of a phase -> its steps, in order.
        report: Gets (step of all, steps of all, values under the phase's name).
        checkpoint: Each phase keeps its state beside this file, under its name.
    """

    steps: dict[str, int]
    report: Report | None = None
    checkpoint: Path | None = None

    def insert(self, name: str, steps: int, *, after: str) -> None:
        """A phase that turned out to be needed."""
        order = list(self.steps)
        if name not in order:
            order.insert(order.index(after) + 1, name)
            self.steps = {n: self.steps.get(n, steps) for n in order}

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


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """An optimiser's state as named tensors."""
    state: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return {f"{prefix}{index}.{name}": value for index, of_one in state.items() for name, value in of_one.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Inverse of `optimizer_tensors`; settings stay as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in under(tensors, prefix).items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def under(arrays: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The arrays whose name begins with `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}
