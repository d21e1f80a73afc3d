"""Parametrisations: what the network predicts, as four coefficients around it.

`x0_hat = c_skip x + c_out F(c_in x, c_noise)` (Karras et al. 2022, eq. 7) covers all of them, so conversions between
eps, x0, v, EDM and flow stand in one place, and the training target is F* = (x_0 - c_skip x) / c_out with weight 1.
Weight 1 on F* is each paper's own loss: ||eps - eps_hat||^2 for eps, lambda(sigma) for EDM, and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from synth_pipeline.diffusion.schedules import Schedule

Kind = Literal["eps", "x0", "v", "edm", "flow"]
Network = Callable[..., Tensor]
Denoiser = Callable[[Tensor, Tensor], Tensor]  # model(x, t) -> x0_hat


@dataclass(frozen=True)
class Coefficients:
    """c_skip, c_out, c_in and c_noise at one time; shapes broadcast against x, except c_noise `[b]` or `[b, *axes]`."""

    skip: Tensor
    out: Tensor
    scale: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Parametrisation:
    """What F means.

    Attributes:
        kind: `eps`, `x0`, `v`, `edm` or `flow`.
        schedule: Where alpha and sigma come from.
        sigma_data: Standard deviation of the data (EDM only).
    """

    kind: Kind
    schedule: Schedule
    sigma_data: float = 1.0

    def coefficients(self, t: Tensor, x: Tensor) -> Coefficients:
        """The four coefficients at times t.

        Args:
            t: `[]`, `[b]` or `[b, *axes]`.
            x: `[b, *axes, channel]`; gives shape, dtype and device.
        """
        skip, out, scale = (expand(value, x) for value in self._skip_out_in(t))
        # EDM's c_noise stays finite for clean tokens.
        noise = 0.25 * self.schedule.rho(t).clamp_min(1e-8).log() if self.kind == "edm" else t
        return Coefficients(skip, out, scale, noise.to(x).expand(x.shape[: max(t.ndim, 1)]))

    def _skip_out_in(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        one = torch.ones_like(alpha)
        if self.kind == "eps":
            return one / alpha, -sigma / alpha, one
        if self.kind == "x0":
            return 0 * one, one, one
        if self.kind == "v":  # Salimans & Ho 2022, arXiv:2202.00512: v = alpha eps - sigma x_0
            norm = alpha**2 + sigma**2
            return alpha / norm, -sigma / norm, one
        if self.kind == "flow":  # F = eps - x_0, the velocity of the straight path
            total = alpha + sigma
            return one / total, -sigma / total, one
        rho, data = sigma / alpha, self.sigma_data  # Karras et al. 2022, Table 1, of x / alpha
        norm = (rho**2 + data**2).sqrt()
        return data**2 / norm**2 / alpha, rho * data / norm, one / norm / alpha

    def denoiser(self, network: Network, **conditions: Tensor) -> Denoiser:
        """`model(x, t) -> x0_hat` around a network `F(x, c_noise, **conditions)`."""

        def model(x: Tensor, t: Tensor) -> Tensor:
            c = self.coefficients(t, x)
            return c.skip * x + c.out * network(c.scale * x, c.noise, **conditions).to(x.dtype)

        return model

    def loss(
        self,
        network: Network,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        *,
        known: Tensor | None = None,
        weight: Tensor | None = None,
        **conditions: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Squared error of F against its target.

        Args:
            network: `F(x, c_noise, **conditions)`.
            x0: `[b, *axes, channel]`, data in model units.
            t: `[b]` or `[b, *axes]`, times of training, above 0.
            noise: Like `x0`, standard normal.
            known: The mask of `projection.inpaint`: entries where it is true are shown clean and do not count.
            weight: `[b]`, `[b, *axes]` or like `x0`: of rows, of tokens (0 for padding), of entries.
            **conditions: Passed to the network.

        Returns:
            The weighted mean over entries that count, and `x0_hat` like `x0` (with its graph).
        """
        x = expand(self.schedule.alpha(t), x0) * x0 + expand(self.schedule.sigma(t), x0) * noise
        counted = torch.ones_like(x0) if weight is None else expand(weight, x0).expand_as(x0)
        if known is not None:
            x, counted = torch.where(known, x0, x), counted.masked_fill(known, 0.0)
        c = self.coefficients(t, x0)
        output = network(c.scale * x, c.noise, **conditions)
        error = (output - (x0 - c.skip * x) / c.out) ** 2
        return (error * counted).sum() / counted.sum().clamp_min(1e-8), c.skip * x + c.out * output


def expand(value: Tensor, x: Tensor) -> Tensor:
    """A value of shape `[]`, `[b]` or `[b, *axes]`, ready to be multiplied with x of shape `[b, *axes, channel]`.

    A scalar is returned as it is: it never changes the type of x, and keeps its own precision.
    """
    return value.to(x).reshape(*value.shape, *[1] * (x.ndim - value.ndim)) if value.ndim else value
