"""Projections: what x must satisfy after every step, in model units. They compose in the given order."""

from __future__ import annotations

import torch
from torch import Tensor

from synth_pipeline.diffusion.sampler import Context, Edit


def inpaint(mask: Tensor, value: Tensor) -> Edit:
    """Known entries take their clean values (replacement conditioning; Diffuser, arXiv:2205.09991, sec. 3.3).

    Args:
        mask: Broadcasts against x; true where the value is known.
        value: Broadcasts against x, in model units.
    """

    def project(x: Tensor, ctx: Context) -> Tensor:
        return torch.where(mask.to(x.device), value.to(x), x)

    return project


def clip(low: Tensor | float, high: Tensor | float) -> Edit:
    """x inside a box, at the end of the reverse process only: noised iterates are meant to leave it."""

    def project(x: Tensor, ctx: Context) -> Tensor:
        if bool((ctx.s > 0).any()):
            return x
        return torch.minimum(torch.maximum(x, torch.as_tensor(low).to(x)), torch.as_tensor(high).to(x))

    return project


def compose(*projections: Edit) -> Edit:
    """One after another; the last one has the last word."""

    def project(x: Tensor, ctx: Context) -> Tensor:
        for one in projections:
            x = one(x, ctx)
        return x

    return project
