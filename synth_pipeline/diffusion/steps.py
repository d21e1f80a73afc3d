"""Solver steps: one function each, from x_t to x_s, all written in the estimate x0_hat of the data.

In y = x / alpha and rho = sigma / alpha the probability-flow ODE is dy/drho = (y - x0_hat) / rho for every schedule,
so Euler, Heun and DPM-Solver need no special case for VP, EDM or flow paths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from synth_pipeline.diffusion.parametrisation import Denoiser, expand
from synth_pipeline.diffusion.sampler import Context

Result = tuple[Tensor, Tensor | None, Any]


def ddpm(model: Denoiser, x: Tensor, ctx: Context) -> Result:
    """Ancestral step: the Gaussian posterior q(x_s | x_t, x0_hat) (Ho et al. 2020, arXiv:2006.11239, eq. 7)."""
    ctx.x0_hat = model(x, ctx.t)
    alpha_t, sigma_t, alpha_s, sigma_s = ctx.scales(x)
    ratio = alpha_t / alpha_s
    added = (sigma_t**2 - ratio**2 * sigma_s**2).clamp_min(0.0)  # variance that the forward process adds from s to t
    mean = (ratio * sigma_s**2 * x + alpha_s * added * ctx.x0_hat) / sigma_t**2
    return mean, (added * sigma_s**2).sqrt() / sigma_t, None


@dataclass(frozen=True)
class DDIM:
    """x_s = alpha_s x0_hat + sqrt(sigma_s^2 - std^2) eps_hat + std z (Song et al. 2021, arXiv:2010.02502, eq. 12).

    Attributes:
        eta: 0 is deterministic, 1 has the ancestral step's noise.
    """

    eta: float = 0.0

    def __call__(self, model: Denoiser, x: Tensor, ctx: Context) -> Result:
        """One step."""
        ctx.x0_hat = model(x, ctx.t)
        alpha_t, sigma_t, alpha_s, sigma_s = ctx.scales(x)
        added = (sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2).clamp_min(0.0)
        std = self.eta * added.sqrt() * sigma_s / sigma_t
        eps = (x - alpha_t * ctx.x0_hat) / sigma_t
        mean = alpha_s * ctx.x0_hat + (sigma_s**2 - std**2).clamp_min(0.0).sqrt() * eps
        return mean, std if self.eta else None, None


@dataclass(frozen=True)
class Churn:
    """Noise that is added and removed again within a step (Karras et al. 2022, Algorithm 2).

    Attributes:
        amount: S_churn; divided by the number of steps, capped at sqrt(2) - 1.
        smallest: S_tmin, ratio below which nothing is added.
        largest: S_tmax.
        inflation: S_noise, factor on the added noise.
    """

    amount: float = 0.0
    smallest: float = 0.05
    largest: float = 50.0
    inflation: float = 1.003

    def gamma(self, rho: float, num_steps: int) -> float:
        """Relative increase of the noise level."""
        inside = self.smallest <= rho <= self.largest
        return min(self.amount / num_steps, math.sqrt(2) - 1) if inside else 0.0


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
        alpha_t, sigma_t, alpha_s, sigma_s = ctx.scales(x)
        y, rho, t = x / alpha_t, sigma_t / alpha_t, ctx.t
        if self.churn is not None:
            y, rho, t = self._churned(y, rho, ctx)
        rho_s = sigma_s / alpha_s
        ctx.x0_hat = model(expand(ctx.schedule.alpha(t), x) * y, t)
        slope = (y - ctx.x0_hat) / rho
        ahead = y + (rho_s - rho) * slope
        if self.correct and bool((rho_s > 0).all()):
            second = (ahead - model(alpha_s * ahead, ctx.s)) / rho_s
            ahead = y + (rho_s - rho) * (slope + second) / 2
        return alpha_s * ahead, None, None

    def _churned(self, y: Tensor, rho: Tensor, ctx: Context) -> tuple[Tensor, Tensor, Tensor]:
        assert self.churn is not None
        level = ctx.schedule.rho(ctx.t)
        gamma = self.churn.gamma(float(level.max()), ctx.num_steps)
        if not gamma:
            return y, rho, ctx.t
        raised = rho * (1 + gamma)
        y = y + (raised**2 - rho**2).sqrt() * self.churn.inflation * ctx.noise(y)
        return y, raised, ctx.schedule.time(level * (1 + gamma))


euler = Heun(correct=False)
heun = Heun()


def dpmpp_1(model: Denoiser, x: Tensor, ctx: Context) -> Result:
    """DPM-Solver++(1) (Lu et al. 2022, arXiv:2211.01095, eq. 9 of order 1); equals deterministic DDIM."""
    ctx.x0_hat = model(x, ctx.t)
    return _exponential(x, ctx.x0_hat, ctx), None, None


def dpmpp_2m(model: Denoiser, x: Tensor, ctx: Context) -> Result:
    """DPM-Solver++(2M): order 2 with one call a step, from the last two estimates (Lu et al. 2022, Algorithm 2).

    The first step, and the last one to rho = 0 where lambda is infinite, are of order 1.
    """
    ctx.x0_hat = model(x, ctx.t)
    current = ctx.schedule.rho(ctx.t)
    carry = (ctx.x0_hat, current)
    if ctx.carry is None or bool((ctx.s <= 0).any()):
        return _exponential(x, ctx.x0_hat, ctx), None, carry
    before, earlier = ctx.carry
    # lambda = -log rho; r = (lambda_t - lambda_before) / (lambda_s - lambda_t)
    ratio = (earlier / current).log() / (current / ctx.schedule.rho(ctx.s)).log()
    weight = expand(1 / (2 * ratio), x)
    return _exponential(x, (1 + weight) * ctx.x0_hat - weight * before, ctx), None, carry


def _exponential(x: Tensor, estimate: Tensor, ctx: Context) -> Tensor:
    alpha_t, sigma_t, alpha_s, sigma_s = ctx.scales(x)
    # exp(-h) = (sigma_s alpha_t) / (sigma_t alpha_s), with h = lambda_s - lambda_t
    shrink = sigma_s * alpha_t / (sigma_t * alpha_s)
    return sigma_s / sigma_t * x + alpha_s * (1 - shrink) * estimate


STEPS = {"ddpm": ddpm, "ddim": DDIM(), "euler": euler, "heun": heun, "dpmpp_1": dpmpp_1, "dpmpp_2m": dpmpp_2m}
