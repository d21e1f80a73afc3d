"""The one sampling loop. Every method of this project is a configuration of it.

Per step: `edit_x` before the model (Diffuser's move, TREBI, warm starts), one solver `step`, `edit_mean` at the
posterior mean (gradients), noise, `project` (inpainting, clipping, barriers). Nothing here calls `no_grad`: gradients
flow through the whole loop when the caller wants them (Diffusion-QL).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from synth_pipeline.diffusion.grid import Grid
from synth_pipeline.diffusion.parametrisation import Denoiser
from synth_pipeline.diffusion.schedules import Schedule


@dataclass
class Context:
    """What a step, an edit and a projection may know.

    Attributes:
        schedule: alpha and sigma.
        t: Time before the step, `[]` or `[lead]`.
        s: Time after the step.
        index: Number of the step in the whole grid, from 0.
        num_steps: How many the whole grid has.
        rng: Where noise is drawn.
        x: The iterate that the step begins with (after `edit_x`); None when `project` is called for the start.
        x0_hat: The step's estimate of the data; None before the step.
        std: Standard deviation of the step's noise; None when the step returned a sample itself.
        carry: Whatever the solver handed on from its step before.
    """

    schedule: Schedule
    t: Tensor
    s: Tensor
    index: int
    num_steps: int
    rng: torch.Generator
    x: Tensor | None = None
    x0_hat: Tensor | None = None
    std: Tensor | None = None
    carry: Any = None

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal noise of the shape, type and device of `like`."""
        return torch.randn(like.shape, generator=self.rng, dtype=like.dtype, device=like.device)

    def shrink(self) -> Tensor:
        """r = rho_s / rho_t: how much of the noise is left after the step; 1 where a row rests (s = t)."""
        return torch.where(self.s < self.t, self.schedule.rho(self.s) / self.schedule.rho(self.t), 1.0)

    def ancestral_std(self) -> Tensor:
        """Standard deviation of q(x_s | x_t, x_0) (Ho et al. 2020, eq. 7); known before the step, unlike `std`."""
        return self.schedule.sigma(self.s) * (1 - self.shrink() ** 2).sqrt()


class Step(Protocol):
    """A solver: from x at time t to the mean (and noise) at time s; it may call the model more than once."""

    def __call__(self, model: Denoiser, x: Tensor, ctx: Context, /) -> tuple[Tensor, Tensor | None, Any]:
        """Returns mean, std (None: the mean is the sample) and what the next step gets as `ctx.carry`."""
        ...


Edit = Callable[[Tensor, Context], Tensor]
EditMean = Callable[[Tensor, Tensor | None, Context], Tensor]


def sample(  # noqa: PLR0913  the three edits, the projection and the callback are the interface
    model: Denoiser,
    noise: Tensor,
    grid: Grid,
    *,
    step: Step,
    rng: torch.Generator,
    edit_x: Edit | None = None,
    edit_mean: EditMean | None = None,
    project: Edit | None = None,
    temperature: float = 1.0,
    callback: Callable[[Tensor, Context], None] | None = None,
) -> Tensor:
    """Run a reverse process.

    Args:
        model: `model(x, t) -> x0_hat`, composed once with guidance and parametrisation; every call of every solver
            stage goes through it.
        noise: `[b, *axes, channel]`, x at the first time: `grid.start_scale * N(0, I)`, or a noised x to start
            part-way.
        grid: Times.
        step: The solver.
        rng: Source of all noise; same state, same samples.
        edit_x: Changes x before the model is called.
        edit_mean: Changes the step's mean before noise is added.
        project: Changes x after noise is added, and once at the start.
        temperature: Factor on the noise of steps that return a std (DDPM, DDIM with eta > 0); 1 samples the model,
            less trades diversity for plausibility. Churn has its own `inflation`.
        callback: Called after every step with x and the context.

    Returns:
        Samples, shaped like `noise`.
    """
    first, total = grid.skipped, grid.skipped + len(grid)
    x, carry = noise, None
    if project is not None:
        x = project(x, Context(grid.schedule, grid.times[0], grid.times[0], first, total, rng))
    for index, (t, s) in enumerate(grid, first):
        ctx = Context(grid.schedule, t, s, index, total, rng, carry=carry)
        if edit_x is not None:
            x = edit_x(x, ctx)
        ctx.x = x
        mean, ctx.std, carry = step(model, x, ctx)
        if edit_mean is not None:
            mean = edit_mean(mean, ctx.std, ctx)
        x = mean if ctx.std is None else mean + temperature * ctx.std * ctx.noise(mean)
        if project is not None:
            x = project(x, ctx)
        if callback is not None:
            callback(x, ctx)
    return x
