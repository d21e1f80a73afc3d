"""Stochastic policies over actions in [-1, 1]: of one width, and squashed by tanh; the weight of their entropy."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from synth_pipeline.diffusion.networks.ensemble_mlp import EnsembleMLP

LOG_STD = (-5.0, 2.0)  # limits of the constant width
WIDE_LOG_STD = (-20.0, 2.0)  # of the one that depends on the state (Haarnoja et al. 2018, arXiv:1812.05905, app. C)


class Gaussian(nn.Module):
    """pi(a | s) = N(tanh f(s), sigma) with one sigma a component.

    Args:
        mean: `[b, o]` -> `[1, b, a]`.
        actions: a.
    """

    def __init__(self, mean: EnsembleMLP, actions: int) -> None:
        super().__init__()
        self.network = mean
        self.log_std = nn.Parameter(torch.zeros(actions))

    def mean(self, observations: Tensor) -> Tensor:
        """`[b, o]` -> `[b, a]`, in [-1, 1]."""
        return torch.tanh(self.network(observations)[0])

    def limited_log_std(self) -> Tensor:
        """`[a]`, log sigma within its limits."""
        return self.log_std.clamp(*LOG_STD)

    def perturbed(self, observations: Tensor, noise: Tensor) -> Tensor:
        """mean + sigma noise, moved into the bounds; `[b, o]` and `[k, b or 1, a]` -> `[k, b, a]`; gradients pass."""
        return (self.mean(observations) + self.limited_log_std().exp() * noise).clamp(-1, 1)

    def sample(self, observations: Tensor, rng: torch.Generator, count: int = 1) -> Tensor:
        """`count` actions a row, `[count, b, a]`; gradients pass."""
        shape = (count, len(observations), len(self.log_std))
        return self.perturbed(observations, torch.randn(shape, generator=rng, device=observations.device))

    def log_density(self, observations: Tensor, actions: Tensor) -> Tensor:
        """`[b]`, log pi(a | s), of the Gaussian without bounds."""
        log_std = self.limited_log_std()
        scaled = (actions - self.mean(observations)) * (-log_std).exp()
        constant = 0.5 * actions.shape[1] * math.log(2 * math.pi)
        return -0.5 * scaled.square().sum(dim=1) - log_std.sum() - constant

    def divergence(self, other: Gaussian, observations: Tensor) -> Tensor:
        """`[b]`, KL(pi || other) in closed form, of the Gaussians without bounds."""
        ours, theirs = self.limited_log_std(), other.limited_log_std()
        apart = (self.mean(observations) - other.mean(observations)).square() + (2 * ours).exp()
        return (theirs - ours + 0.5 * apart * (-2 * theirs).exp() - 0.5).sum(dim=-1)


class SquashedGaussian(nn.Module):
    """a = tanh(u), u ~ N(mu(s), sigma(s)) (Haarnoja et al. 2018, arXiv:1812.05905, app. C).

    Args:
        network: `[b, o]` -> `[1, b, 2 a]`.
    """

    def __init__(self, network: EnsembleMLP) -> None:
        super().__init__()
        self.network = network

    def moments(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """mu and log sigma, `[b, a]` each."""
        mean, log_std = self.network(observations)[0].chunk(2, dim=-1)
        return mean, log_std.clamp(*WIDE_LOG_STD)

    def mean(self, observations: Tensor) -> Tensor:
        """tanh mu, `[b, a]`."""
        return torch.tanh(self.moments(observations)[0])

    def sample(self, observations: Tensor, rng: torch.Generator, count: int = 1) -> tuple[Tensor, Tensor]:
        """Actions `[count, b, a]` and their log densities `[count, b]`; gradients pass (eq. 11 and 26)."""
        mean, log_std = self.moments(observations)
        noise = torch.randn((count, *mean.shape), generator=rng, device=mean.device)
        u = mean + log_std.exp() * noise
        normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        return torch.tanh(u), (normal - _log_slope(u)).sum(dim=-1)

    def log_density(self, observations: Tensor, actions: Tensor) -> Tensor:
        """`[b]`, log pi(a | s); actions at the bounds are moved inside by 1e-6."""
        mean, log_std = self.moments(observations)
        u = torch.atanh(actions.clamp(-1 + 1e-6, 1 - 1e-6))
        scaled = (u - mean) * (-log_std).exp()
        normal = -0.5 * scaled.square() - log_std - 0.5 * math.log(2 * math.pi)
        return (normal - _log_slope(u)).sum(dim=-1)


class Temperature(nn.Module):
    """alpha, the weight of the entropy, kept so that the entropy stays at a target (Haarnoja et al. 2018, eq. 18)."""

    def __init__(self) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.zeros(1))

    def value(self) -> Tensor:
        """alpha, `[1]`, held constant."""
        return self.logarithm.detach().exp()

    def loss(self, log_densities: Tensor, target: float) -> Tensor:
        """Rises with alpha where the entropy lies above `target`, falls where it lies below.

        Args:
            log_densities: Of the policy's own actions, any shape.
            target: Entropy, nats.
        """
        return -(self.logarithm * (log_densities.detach() + target)).mean()


def _log_slope(u: Tensor) -> Tensor:
    """log(1 - tanh(u)^2), without loss of digits."""
    return 2 * (math.log(2) - u - softplus(-2 * u))
