"""Critics: networks of Q(s, a), and every loss and target of value learning once.

Shapes: m critics, b rows. A target is held constant. `discounts` are gamma where an episode went on and 0 where it
terminated; a time limit is no termination, and its value is bootstrapped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from synth_pipeline.diffusion.networks.ensemble_mlp import EnsembleMLP


class Critics(EnsembleMLP):
    """Q_i(s, a), i < members."""

    def forward(self, observations: Tensor, actions: Tensor, first: int | None = None) -> Tensor:  # type: ignore[override]
        """`[b, o]` and `[b, a]` (or `[m, b, ...]`) -> `[m, b]`."""
        return super().forward(torch.cat([observations, actions], dim=-1), first).squeeze(-1)

    def of_samples(self, observations: Tensor, actions: Tensor) -> Tensor:
        """k actions a row in one call: `[b, o]` and `[k, b, a]` -> `[m, k, b]`."""
        k, b, size = actions.shape
        repeated = observations.expand(k, *observations.shape).reshape(k * b, -1)
        values: Tensor = self(repeated, actions.reshape(k * b, size))
        return values.view(self.members, k, b)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass through a network and do not reach its weights: a third of the work of a backward pass."""
    parameters = list(network.parameters())
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def td_target(rewards: Tensor, discounts: Tensor, next_values: Tensor) -> Tensor:
    """y = r + gamma (1 - terminal) V(s'), `[b]`."""
    return torch.addcmul(rewards, discounts, next_values)


def min_q(q: Tensor) -> Tensor:
    """min_i Q_i, `[m, b]` -> `[b]` (clipped double Q-learning: Fujimoto et al. 2018, arXiv:1802.09477, eq. 10)."""
    return q.amin(dim=0)


def squared_error(q: Tensor, targets: Tensor) -> Tensor:
    """Sum over the critics of the mean over the rows of (Q_i - y)^2; `[m, b]`, `[b]` -> scalar."""
    return mse_loss(q, targets.expand_as(q)) * len(q)


def expectile_loss(error: Tensor, expectile: float) -> Tensor:
    """Mean of |expectile - 1(u < 0)| u^2 for u = Q - V (Kostrikov et al. 2022, arXiv:2110.06169, eq. 5)."""
    weights = torch.where(error < 0, 1 - expectile, expectile)
    return (weights * error.square()).mean()


def exponential_weights(advantages: Tensor, inverse_temperature: float, *, limit: float = 100.0) -> Tensor:
    """min(exp(beta A), limit), `[b]`: advantage-weighted regression (Peng et al. 2019, arXiv:1910.00177)."""
    return (inverse_temperature * advantages).exp().clamp_max(limit)


def td3_bc_lambda(q: Tensor, alpha: float) -> Tensor:
    """lambda = alpha / mean |Q|, held constant (Fujimoto and Gu 2021, arXiv:2106.06860, eq. 5); `[b]` -> scalar."""
    weight: Tensor = alpha / q.detach().abs().mean().clamp_min(1e-8)
    return weight


def conservative_gap(q_sampled: Tensor, q_data: Tensor, log_densities: Tensor, *, temperature: float = 1.0) -> Tensor:
    """log sum_a exp Q(s, a) - Q(s, a_data) by importance sampling, per critic (Kumar et al. 2020, arXiv:2006.04779).

    Equation 4 and appendix F: log of the mean over samples of exp(Q / T - log density) times T.

    Args:
        q_sampled: `[m, k, b]`, values of k sampled actions a row.
        q_data: `[m, b]`.
        log_densities: `[k, b]`, of the samples under what they were drawn from.
        temperature: T.

    Returns:
        `[m]`, mean over the rows.
    """
    weighted = q_sampled / temperature - log_densities
    count = torch.tensor(float(q_sampled.shape[1]), device=q_sampled.device)
    soft = temperature * (torch.logsumexp(weighted, dim=1) - count.log())
    return (soft - q_data).mean(dim=-1)
