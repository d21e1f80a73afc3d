"""Exact denoisers E[x_0 | x_t] of distributions whose every marginal is known, and what their samplers must return."""

import math

import torch

from synth_pipeline.diffusion.parametrisation import expand
from synth_pipeline.diffusion.sampler import Context
from synth_pipeline.diffusion.schedules import EDM, VPSDE, Cosine, Discrete, Flow, cosine_betas, linear_betas, vp_betas

CONTINUOUS = {"edm": EDM(), "vp_sde": VPSDE(), "cosine": Cosine(), "flow": Flow()}
DISCRETE = {
    "linear": Discrete(linear_betas(1000)),
    "cosine_betas": Discrete(cosine_betas(100)),
    "vp_betas": Discrete(vp_betas(200)),
}
SCHEDULES = CONTINUOUS | DISCRETE


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def gaussian(schedule, mean=0.0, std=1.0):
    """x_0 ~ N(mean, std^2); numbers, or tensors that broadcast against x."""
    mean, std = torch.as_tensor(mean), torch.as_tensor(std)

    def model(x, t):
        alpha, sigma = expand(schedule.alpha(t), x), expand(schedule.sigma(t), x)
        return mean + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (x - alpha * mean)

    return model


def mixture(schedule, means, std):
    """Equal parts of N(means[k], std^2 I); means `[k, channel]`."""

    def model(x, t):
        alpha, sigma = expand(schedule.alpha(t), x), expand(schedule.sigma(t), x)
        variance = alpha**2 * std**2 + sigma**2
        score = -((x - alpha * means.reshape(-1, *[1] * (x.ndim - 1), x.shape[-1])) ** 2).sum(-1, keepdim=True)
        parts = (score / (2 * variance)).softmax(0)  # [k, b, *axes, 1]
        each = torch.stack([gaussian(schedule, mean, std)(x, t) for mean in means])
        return (parts * each).sum(0)

    return model


def marginal_cdf(schedule, means, std, x, t):
    """P(X_t <= x) of the one-dimensional mixture."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    scale = (2 * (alpha**2 * std**2 + sigma**2)).sqrt()
    return torch.stack([0.5 * (1 + torch.erf((x - alpha * mean) / scale)) for mean in means]).mean(0)


def exact_flow(schedule, means, std, x, t, s):
    """Where the probability-flow ODE takes x from t to s: in one dimension it keeps the value of the CDF."""
    level = marginal_cdf(schedule, means, std, x, t)
    low, high = torch.full_like(x, -1e5), torch.full_like(x, 1e5)
    for _ in range(80):
        middle = (low + high) / 2
        below = marginal_cdf(schedule, means, std, middle, s) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def order(errors):
    """Order of convergence between the last two of runs that double their steps."""
    return math.log2(errors[-2] / errors[-1])


class Counted:
    """A denoiser that counts its calls and keeps the times of them."""

    def __init__(self, model):
        self.model, self.times = model, []

    def __call__(self, x, t):
        self.times.append(t)
        return self.model(x, t)


def moments(grid, step, mean, std, *, temperature=1.0):
    """Exact mean and standard deviation of what a one-step solver makes of N(mean, std^2), with no sampling.

    With an exact Gaussian denoiser a step is affine in x and in its noise, so three rows of it say everything.
    """
    schedule, model = grid.schedule, gaussian(grid.schedule, mean, std)
    alpha, sigma = schedule.alpha(grid.times[0]), schedule.sigma(grid.times[0])
    first, variance = float(alpha * mean), float(alpha**2 * std**2 + sigma**2)
    x, noise = torch.tensor([[[0.0], [1.0], [0.0]], [[0.0], [0.0], [1.0]]], dtype=torch.float64)
    for index, (t, s) in enumerate(grid):
        ctx = Context(schedule, t, s, index, len(grid), generator())
        ctx.noise = lambda like: noise
        out, spread, _ = step(model, x, ctx)
        offset, slope, inner = float(out[0]), float(out[1] - out[0]), float(out[2] - out[0])
        outer = 0.0 if spread is None else temperature * float(spread)
        first, variance = slope * first + offset, slope**2 * variance + inner**2 + outer**2
    return first, math.sqrt(variance)
