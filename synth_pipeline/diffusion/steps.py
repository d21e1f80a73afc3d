"""Solver steps: one function each, from x_t to x_s, all written in the estimate x0_hat of the data.

With y = x / alpha, rho = sigma / alpha and r = rho_s / rho_t, every step on every schedule is an average,

    y_s = c y_t + (1 - c) x0_hat,

with c = r for the probability-flow ODE dy/drho = (y - x0_hat) / rho, whether Euler, DDIM or DPM-Solver++(1) solves it,
and c = r^2 for the ancestral step. Methods of order 2 keep c = r and better the estimate. At s = 0 every step returns
x0_hat itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from synth_pipeline.diffusion.parametrisation import Denoiser, expand
from synth_pipeline.diffusion.sampler import Context, Step
from synth_pipeline.errors import ConfigError

Result = tuple[Tensor, Tensor | None, Any]


def average(x: Tensor, estimate: Tensor, weight: Tensor, ctx: Context) -> Tensor:
    """x_s with y_s = c y_t + (1 - c) estimate, c = `weight`."""
    alpha_t, alpha_s = ctx.schedule.alpha(ctx.t), ctx.schedule.alpha(ctx.s)
    return expand(alpha_s / alpha_t * weight, x) * x + expand(alpha_s * (1 - weight), x) * estimate


def ddpm(model: Denoiser, x: Tensor, ctx: Context) -> Result:
    """Ancestral step: the Gaussian posterior q(x_s | x_t, x0_hat) (Ho et al. 2020, arXiv:2006.11239, eq. 7)."""
    ctx.x0_hat = model(x, ctx.t)
    return average(x, ctx.x0_hat, ctx.shrink() ** 2, ctx), expand(ctx.ancestral_std(), x), None


@dataclass(frozen=True)
class DDIM:
    """x_s = alpha_s x0_hat + sqrt(sigma_s^2 - std^2) eps_hat + std z (Song et al. 2021, arXiv:2010.02502, eq. 12).

    Attributes:
        eta: In [0, 1]; 0 is deterministic, 1 is the ancestral step.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta <= 1.0:
            raise ConfigError("eta of DDIM is out of range", found=self.eta, accepted="0 (deterministic) to 1 (DDPM)")

    def __call__(self, model: Denoiser, x: Tensor, ctx: Context) -> Result:
        """One step."""
        ctx.x0_hat = model(x, ctx.t)
        r = ctx.shrink()
        mean = average(x, ctx.x0_hat, r * (1 - self.eta**2 * (1 - r**2)).sqrt(), ctx)
        return mean, expand(self.eta * ctx.ancestral_std(), x) if self.eta else None, None


@dataclass(frozen=True)
class Churn:
    """Noise that is added and removed again within a step (Karras et al. 2022, Algorithm 2).

    Attributes:
        amount: S_churn; divided by the number of steps of the whole grid, capped at sqrt(2) - 1.
        smallest: S_tmin, ratio below which nothing is added.
        largest: S_tmax.
        inflation: S_noise, factor on the added noise.
    """

    amount: float = 0.0
    smallest: float = 0.05
    largest: float = 50.0
    inflation: float = 1.003

    def gamma(self, rho: Tensor, num_steps: int) -> Tensor:
        """Relative increase of the noise level, shaped like `rho`."""
        inside = (rho >= self.smallest) & (rho <= self.largest)
        return inside.to(rho.dtype) * min(self.amount / num_steps, math.sqrt(2) - 1)


@dataclass(frozen=True)
class Heun:
    """Heun's method with optional churn; the last step, to rho = 0, is Euler's (Karras et al. 2022, Algorithms 1, 2).

    Order 2 without churn; 2 N - 1 calls of the model for N steps.

    Attributes:
        churn: Stochasticity; None for the deterministic solver.
        correct: False leaves out the second call, which is Euler's method (order 1).
    """

    churn: Churn | None = None
    correct: bool = True

    def __call__(self, model: Denoiser, x: Tensor, ctx: Context) -> Result:
        """One step."""
        x, raised = self._churned(x, ctx)
        ctx.x0_hat = estimate = model(x, raised.t)
        r = raised.shrink()
        ahead = average(x, estimate, r, raised)
        later = ctx.s > 0
        if not self.correct or not bool(later.any()):
            return ahead, None, None
        # The mean of both slopes, (y_t - estimate) / rho_t and (y_s - second) / rho_s, is the slope to this estimate:
        second = model(ahead, ctx.s)
        better = estimate + expand(torch.where(later, 1 / (2 * r), 0.0), x) * (second - estimate)
        return average(x, better, r, raised), None, None

    def _churned(self, x: Tensor, ctx: Context) -> tuple[Tensor, Context]:
        if self.churn is None:
            return x, ctx
        rho = ctx.schedule.rho(ctx.t)
        gamma = self.churn.gamma(rho, ctx.num_steps) * (ctx.s < ctx.t)
        if not bool(gamma.any()):
            return x, ctx
        raised = replace(ctx, t=torch.where(gamma > 0, ctx.schedule.time(rho * (1 + gamma)), ctx.t))
        alpha_t, alpha_raised = ctx.schedule.alpha(ctx.t), ctx.schedule.alpha(raised.t)
        # The level that is reached: a schedule of steps has only those of its table.
        added = (ctx.schedule.rho(raised.t) ** 2 - rho**2).clamp_min(0.0).sqrt() * self.churn.inflation
        return expand(alpha_raised / alpha_t, x) * x + expand(alpha_raised * added, x) * ctx.noise(x), raised


euler = Heun(correct=False)
heun = Heun()


def dpmpp_1(model: Denoiser, x: Tensor, ctx: Context) -> Result:
    """DPM-Solver++(1) (Lu et al. 2022, arXiv:2211.01095, eq. 9 of order 1); equals deterministic DDIM."""
    ctx.x0_hat = model(x, ctx.t)
    return average(x, ctx.x0_hat, ctx.shrink(), ctx), None, None


def dpmpp_2m(model: Denoiser, x: Tensor, ctx: Context) -> Result:
    """DPM-Solver++(2M): order 2 with one call a step, from the last two estimates (Lu et al. 2022, Algorithm 2).

    The first step, and the last one to rho = 0 where lambda is infinite, are of order 1.
    """
    ctx.x0_hat = estimate = model(x, ctx.t)
    rho = ctx.schedule.rho(ctx.t)
    if ctx.carry is not None:
        before, earlier = ctx.carry
        # lambda = -log rho; 1 / (2 r_i) = (lambda_s - lambda_t) / 2 (lambda_t - lambda_before)
        forward, back = -ctx.shrink().log(), (earlier / rho).log()
        weight = torch.where((ctx.s > 0) & (earlier > rho), forward / (2 * back), 0.0)
        estimate = estimate + expand(weight, x) * (estimate - before)
    return average(x, estimate, ctx.shrink(), ctx), None, (ctx.x0_hat, rho)


STEPS: dict[str, Step] = {
    "ddpm": ddpm,
    "ddim": DDIM(),
    "euler": euler,
    "heun": heun,
    "dpmpp_1": dpmpp_1,
    "dpmpp_2m": dpmpp_2m,
}
