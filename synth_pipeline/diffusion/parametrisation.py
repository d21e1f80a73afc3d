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
    """c_skip, c_out, c_in and c_noise at one time; shapes broadcast against x, except c_noise `[lead]`."""

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
            x: `[b, *axes, channel]`; gives shape and dtype.
        """
        alpha, sigma = (expand(value, x) for value in (self.schedule.alpha(t), self.schedule.sigma(t)))
        one = torch.ones_like(alpha)
        noise = t.to(x.dtype)
        if self.kind == "eps":
            return Coefficients(one / alpha, -sigma / alpha, one, noise)
        if self.kind == "x0":
            return Coefficients(0 * one, one, one, noise)
        if self.kind == "v":  # Salimans & Ho 2022, arXiv:2202.00512: v = alpha eps - sigma x_0
            norm = alpha**2 + sigma**2
            return Coefficients(alpha / norm, -sigma / norm, one, noise)
        if self.kind == "flow":  # F = eps - x_0, the velocity of the straight path
            total = alpha + sigma
            return Coefficients(one / total, -sigma / total, one, noise)
        rho, data = sigma / alpha, self.sigma_data
        norm = (rho**2 + data**2).sqrt()
        c_noise = 0.25 * self.schedule.rho(t).log().to(x.dtype)
        return Coefficients(data**2 / norm**2 / alpha, rho * data / norm, one / norm / alpha, c_noise)

    def denoiser(self, network: Network, **conditions: Tensor) -> Denoiser:
        """`model(x, t) -> x0_hat` around a network `F(x, c_noise, **conditions)`."""

        def model(x: Tensor, t: Tensor) -> Tensor:
            c = self.coefficients(t, x)
            return c.skip * x + c.out * network(
                c.scale * x, c.noise.expand(x.shape[: max(c.noise.ndim, 1)]), **conditions
            )

        return model

    def loss(
        self,
        network: Network,
        x0: Tensor,
        t: Tensor,
        noise: Tensor,
        *,
        mask: Tensor | None = None,
        weight: Tensor | None = None,
        **conditions: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Squared error of F against its target.

        Args:
            network: `F(x, c_noise, **conditions)`.
            x0: `[b, *axes, channel]`, data in model units.
            t: `[b]` (or per token), times of training.
            noise: Like `x0`, standard normal.
            mask: Broadcasts against `x0`; entries that are known (inpainted) or padded are 0 and do not count.
            weight: `[b]`, weight of each row.
            **conditions: Passed to the network.

        Returns:
            The mean over counted entries, and `x0_hat` like `x0` (with its graph).
        """
        x = expand(self.schedule.alpha(t), x0) * x0 + expand(self.schedule.sigma(t), x0) * noise
        if mask is not None:  # known entries are shown clean and never judged
            x = torch.where(mask.bool(), x, x0)
        c = self.coefficients(t, x0)
        output = network(c.scale * x, c.noise, **conditions)
        error = (output - (x0 - c.skip * x) / c.out) ** 2
        counted = torch.ones_like(error) if mask is None else mask.to(error.dtype).expand_as(error)
        if weight is not None:
            counted = counted * expand(weight, error)
        return (error * counted).sum() / counted.sum().clamp_min(1e-8), c.skip * x + c.out * output


def expand(value: Tensor, x: Tensor) -> Tensor:
    """A value of shape `[]`, `[b]` or `[b, *axes]` with the trailing axes that it needs to broadcast against x."""
    return value.to(x.dtype).reshape(*value.shape, *[1] * (x.ndim - value.ndim)) if value.ndim else value.to(x.dtype)
