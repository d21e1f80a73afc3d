"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps, eps ~ N(0, I), for t from 0 (data) to `horizon` (noise).

Everything that solvers need follows from alpha and sigma: the noise-to-signal ratio rho = sigma / alpha and
lambda = -log rho (half the log signal-to-noise ratio). `rho` is strictly rising in t, and `time` is its inverse.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from synth_pipeline.errors import ConfigError


class Schedule(ABC):
    """alpha(t), sigma(t), the inverse of their ratio, and the range of t."""

    horizon: float
    smallest: float = 0.0

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the data at time t."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise at time t."""

    @abstractmethod
    def time(self, rho: Tensor) -> Tensor:
        """The time at which sigma / alpha equals rho."""

    def rho(self, t: Tensor) -> Tensor:
        """Noise-to-signal ratio sigma / alpha at time t."""
        return self.sigma(t) / self.alpha(t)


@dataclass(frozen=True)
class EDM(Schedule):
    """alpha = 1, sigma = t (Karras et al. 2022, arXiv:2206.00364, Table 1, "Ours")."""

    horizon: float = 80.0
    smallest: float = 0.002

    def alpha(self, t: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """The time itself."""
        return t

    def time(self, rho: Tensor) -> Tensor:
        """The ratio itself."""
        return rho


@dataclass(frozen=True)
class VPSDE(Schedule):
    """log alpha = -t^2 (beta_1 - beta_0) / 4 - t beta_0 / 2 (Song et al. 2021, arXiv:2011.13456, eq. 33)."""

    beta_0: float = 0.1
    beta_1: float = 20.0
    horizon: float = 1.0
    smallest: float = 1e-3

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.25 * t**2 * (self.beta_1 - self.beta_0) - 0.5 * t * self.beta_0

    def alpha(self, t: Tensor) -> Tensor:
        """exp of the integrated drift."""
        return self._log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha^2), without cancellation at small t."""
        return (-torch.expm1(2 * self._log_alpha(t))).sqrt()

    def time(self, rho: Tensor) -> Tensor:
        """Root of the quadratic in t."""
        # log(1 + rho^2) = -2 log alpha = t^2 (b1 - b0) / 2 + t b0
        value = torch.log1p(rho**2)
        slope = self.beta_1 - self.beta_0
        return 2 * value / (self.beta_0 + (self.beta_0**2 + 2 * slope * value).sqrt())


@dataclass(frozen=True)
class Cosine(Schedule):
    """alpha = cos(theta) / cos(theta_0), theta = (t + s) / (1 + s) pi / 2 (Nichol & Dhariwal 2021, eq. 17).

    Normalised so that alpha(0) = 1; `horizon` stays below 1, where the signal would be exactly zero.
    """

    offset: float = 0.008
    horizon: float = 0.9946
    smallest: float = 1e-3

    @property
    def _speed(self) -> float:
        return math.pi / 2 / (1 + self.offset)

    @property
    def _first(self) -> float:
        return self.offset * self._speed

    def alpha(self, t: Tensor) -> Tensor:
        """cos(theta) / cos(theta_0)."""
        turned = t * self._speed  # theta - theta_0
        return turned.cos() - turned.sin() * math.tan(self._first)

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha^2), without cancellation at small t."""
        turned = t * self._speed
        return (turned.sin() * (turned + 2 * self._first).sin()).sqrt() / math.cos(self._first)

    def time(self, rho: Tensor) -> Tensor:
        """From tan(theta)^2 = (rho^2 + sin(theta_0)^2) / cos(theta_0)^2."""
        theta = ((rho**2 + math.sin(self._first) ** 2).sqrt() / math.cos(self._first)).atan()
        return (theta - self._first) / self._speed


@dataclass(frozen=True)
class Flow(Schedule):
    """alpha = 1 - t, sigma = t: the straight path of rectified flow (arXiv:2209.03003) and flow matching."""

    horizon: float = 1.0 - 1e-4
    smallest: float = 1e-3

    def alpha(self, t: Tensor) -> Tensor:
        """1 - t."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """The time itself."""
        return t

    def time(self, rho: Tensor) -> Tensor:
        """rho / (1 + rho)."""
        return rho / (1 + rho)


class Discrete(Schedule):
    """T steps with given betas: alpha_i = prod sqrt(1 - beta), i = 1..T; t = i is the step, t = 0 the data.

    Args:
        betas: `[T]`, in (0, 1).
    """

    def __init__(self, betas: Tensor) -> None:
        values = betas.to(torch.float64)
        if values.ndim != 1 or not bool(((values > 0) & (values < 1)).all()):
            raise ConfigError(
                "betas must be one row of numbers between 0 and 1",
                found=f"shape {tuple(betas.shape)}, values {betas.flatten()[:8].tolist()}",
            )
        log_alpha = 0.5 * torch.cat([values.new_zeros(1), torch.log1p(-values).cumsum(0)])
        self._log_alpha = log_alpha
        self.horizon = float(len(values))
        self.smallest = 1.0

    def _at(self, t: Tensor) -> Tensor:
        value = self._log_alpha.to(t.device)[t.round().long()]
        return value.to(t.dtype) if t.is_floating_point() else value

    def alpha(self, t: Tensor) -> Tensor:
        """Product of sqrt(1 - beta) up to step t (rounded to a step)."""
        return self._at(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha^2)."""
        return (-torch.expm1(2 * self._at(t))).sqrt()

    def time(self, rho: Tensor) -> Tensor:
        """The step whose ratio is nearest."""
        table = (-torch.expm1(2 * self._log_alpha)).sqrt() / self._log_alpha.exp()
        return (rho.unsqueeze(-1) - table.to(rho.device, rho.dtype)).abs().argmin(-1).to(rho.dtype)


def linear_betas(num_steps: int, low: float = 1e-4, high: float = 2e-2) -> Tensor:
    """Linear betas (Ho et al. 2020, arXiv:2006.11239, sec. 4)."""
    return torch.linspace(low, high, num_steps, dtype=torch.float64)


def cosine_betas(num_steps: int, offset: float = 0.008, largest: float = 0.999) -> Tensor:
    """Betas of the cosine schedule, clipped (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17)."""
    t = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    square = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return (1 - square[1:] / square[:-1]).clamp(max=largest)


def vp_betas(num_steps: int, low: float = 0.1, high: float = 10.0) -> Tensor:
    """The "vp" betas of Diffusion-QL: 1 - exp(-low/T - (high - low)(2i - 1) / (2 T^2)) (arXiv:2208.06193, app. B)."""
    i = torch.arange(1, num_steps + 1, dtype=torch.float64)
    return 1 - torch.exp(-low / num_steps - 0.5 * (high - low) * (2 * i - 1) / num_steps**2)
