"""Guidance: edits of the estimate x0_hat, composed once around the parametrised network.

x0_hat and eps_hat are affine in one another at fixed x and t, so classifier-free combinations are the same in either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from synth_pipeline.diffusion.parametrisation import Denoiser, expand
from synth_pipeline.diffusion.schedules import Schedule


def classifier_free(unconditional: Denoiser, conditions: Sequence[tuple[Denoiser, float]]) -> Denoiser:
    """x0_hat = x0(none) + sum_i w_i (x0(y_i) - x0(none)) (Ho & Salimans 2022, arXiv:2207.12598; Liu et al. 2022).

    A weight below zero negates a condition. One condition of weight 1 is that condition alone, bit for bit, and no
    condition (or weight 0) is the unconditional model; neither calls a network it does not need.

    Args:
        unconditional: The model with every condition at its null.
        conditions: Models with one condition each, and their weights.
    """
    active = [(model, weight) for model, weight in conditions if weight != 0.0]
    if not active:
        return unconditional
    if len(active) == 1 and active[0][1] == 1.0:
        return active[0][0]

    def model(x: Tensor, t: Tensor) -> Tensor:
        base = unconditional(x, t)
        moved = base
        for conditional, weight in active:
            moved = moved + weight * (conditional(x, t) - base)
        return moved

    return model


def classifier(
    model: Denoiser, log_probability: Callable[[Tensor, Tensor], Tensor], schedule: Schedule, *, scale: float
) -> Denoiser:
    """x0_hat + scale sigma^2 / alpha grad_x log p(y | x_t) (Dhariwal & Nichol 2021, arXiv:2105.05233, Algorithm 2).

    Args:
        model: What is guided.
        log_probability: `[b, ...], t -> [b]`, of noised x.
        schedule: alpha and sigma.
        scale: Weight of the gradient.
    """

    def guided(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = expand(schedule.alpha(t), x), expand(schedule.sigma(t), x)
        return model(x, t) + scale * sigma**2 / alpha * gradient(log_probability, x, t)

    return guided


def gradient(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor) -> Tensor:
    """grad_x of `function(x, t)` `[b]`, also under `no_grad`; differentiable itself where gradients are enabled."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = x if x.requires_grad else x.detach().requires_grad_(True)
        return torch.autograd.grad(function(leaf, t).sum(), leaf, create_graph=keep)[0]
