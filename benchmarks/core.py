"""Measured order of convergence of every solver on every schedule: `core.solver_orders`.

The denoiser is exact, so all error is the solver's. Deterministic solvers are compared with the exact solution of the
probability-flow ODE, on a Gaussian and on two modes; stochastic ones by the standard deviation they make of a
Gaussian, which is computed and not sampled. The last step, to t = 0, is of order 1 in every solver and left out.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from evidence import record_table
from torch import Tensor

from synth_pipeline.diffusion.grid import Grid, make_grid
from synth_pipeline.diffusion.parametrisation import Denoiser
from synth_pipeline.diffusion.sampler import Context, Step, sample
from synth_pipeline.diffusion.schedules import EDM, VPSDE, Cosine, Discrete, Flow, Schedule, vp_betas
from synth_pipeline.diffusion.steps import DDIM, STEPS, Churn, Heun, ddpm

STEPS_TRIED = (76, 152, 304)
TOLERANCE = 0.15
SCHEDULES: dict[str, Schedule] = {
    "edm": EDM(),
    "vp_sde": VPSDE(),
    "cosine": Cosine(),
    "flow": Flow(),
    "vp_betas (3040 steps)": Discrete(vp_betas(3040)),
}
TARGETS = {"gaussian": ([0.7], 0.5), "two modes": ([-1.0, 1.2], 0.4)}
STRONG = {"euler": 1, "ddim": 1, "dpmpp_1": 1, "heun": 2, "dpmpp_2m": 2}
WEAK: dict[str, tuple[Step, int]] = {
    "ddpm": (ddpm, 1),
    "ddim, eta 0.5": (DDIM(0.5), 1),
    "heun, S_churn 10, S_noise 1": (Heun(Churn(10.0, 0.0, 1e9, 1.0)), 2),
}


def denoiser(schedule: Schedule, means: list[float], std: float) -> Denoiser:
    """E[x_0 | x_t] of equal parts of N(mean, std^2)."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        variance = alpha**2 * std**2 + sigma**2
        apart = torch.stack([x - alpha * mean for mean in means])
        each = torch.tensor(means).reshape(-1, 1, 1) + alpha * std**2 / variance * apart
        return ((-(apart**2) / (2 * variance)).softmax(0) * each).sum(0)

    return model


def below(schedule: Schedule, means: list[float], std: float, x: Tensor, t: Tensor) -> Tensor:
    """P(X_t <= x)."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    scale = (2 * (alpha**2 * std**2 + sigma**2)).sqrt()
    return torch.stack([torch.erf((x - alpha * mean) / scale) for mean in means]).mean(0) / 2 + 0.5


def exact(schedule: Schedule, means: list[float], std: float, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Where the ODE takes x from t to s: in one dimension it keeps the value of the distribution function."""
    level = below(schedule, means, std, x, t)
    low, high = torch.full_like(x, -1e5), torch.full_like(x, 1e5)
    for _ in range(80):
        middle = (low + high) / 2
        short = below(schedule, means, std, middle, s) < level
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return (low + high) / 2


def interior(schedule: Schedule, num_steps: int) -> Grid:
    """A grid that stops short of 0; strides of whole steps on a table."""
    if isinstance(schedule, Discrete):
        times = torch.linspace(schedule.horizon, schedule.horizon / 20, num_steps + 1, dtype=torch.float64)
        return Grid(schedule, times.round())
    return Grid(schedule, make_grid(schedule, num_steps + 1, spacing="log_snr").times[:-1])


def strong_error(step: Step, schedule: Schedule, target: str, num_steps: int) -> float:
    """Largest distance from the exact solution over starts within two standard deviations."""
    means, std = TARGETS[target]
    grid = interior(schedule, num_steps)
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None] * grid.start_scale
    found = sample(denoiser(schedule, means, std), x, grid, step=step, rng=torch.Generator())
    return float((found - exact(schedule, means, std, x, grid.times[0], grid.times[-1])).abs().max())


@dataclass
class Probe(Context):
    """A step's surroundings whose noise is a chosen number."""

    value: float = 0.0

    def noise(self, like: Tensor) -> Tensor:
        """The chosen number."""
        return torch.full_like(like, self.value)


def made_std(step: Step, grid: Grid, std: float) -> float:
    """Standard deviation of samples of N(0, std^2): with its denoiser a step is linear in x and in the noise."""
    schedule, model = grid.schedule, denoiser(grid.schedule, [0.0], std)
    variance = float(schedule.alpha(grid.times[0]) ** 2 * std**2 + schedule.sigma(grid.times[0]) ** 2)
    for index, (t, s) in enumerate(grid):

        def respond(
            x: float, noise: float, t: Tensor = t, s: Tensor = s, index: int = index
        ) -> tuple[float, Tensor | None]:
            ctx = Probe(schedule, t, s, index, len(grid), torch.Generator(), value=noise)
            mean, spread, _ = step(model, torch.full((1, 1), x, dtype=torch.float64), ctx)
            return float(mean), spread

        (slope, spread), (inner, _) = respond(1.0, 0.0), respond(0.0, 1.0)
        variance = slope**2 * variance + inner**2 + float(0.0 if spread is None else spread) ** 2
    return math.sqrt(variance)


def weak_error(step: Step, schedule: Schedule, num_steps: int) -> float:
    """Error of the standard deviation made of N(0, 0.5^2)."""
    grid = interior(schedule, num_steps)
    alpha, sigma = schedule.alpha(grid.times[-1]), schedule.sigma(grid.times[-1])
    return abs(made_std(step, grid, 0.5) - float((alpha**2 * 0.25 + sigma**2).sqrt()))


def entry(errors: list[float], claim: int) -> dict[str, Any]:
    """Order between the two finest runs, the claim, and the last error."""
    return {"order": round(math.log2(errors[-2] / errors[-1]), 3), "claim": claim, "error": errors[-1]}


def main() -> None:
    """Measure and record."""
    began = time.monotonic()
    strong = {
        f"{solver} | {name} | {target}": entry(
            [strong_error(STEPS[solver], schedule, target, n) for n in STEPS_TRIED], claim
        )
        for solver, claim in STRONG.items()
        for name, schedule in SCHEDULES.items()
        for target in TARGETS
    }
    weak = {
        f"{solver} | {name}": entry([weak_error(step, schedule, n) for n in STEPS_TRIED], claim)
        for solver, (step, claim) in WEAK.items()
        for name, schedule in SCHEDULES.items()
        # A table has no levels between its steps, so small churn cannot be put on it.
        if not (isinstance(schedule, Discrete) and isinstance(step, Heun))
    }
    usual: dict[str, Step] = {"heun": Heun(), "heun, S_churn 80": Heun(Churn(80.0)), "ddpm": ddpm}
    ratios = {
        f"{name}, {n} steps": round(made_std(step, make_grid(EDM(), n), 1.0), 5)
        for name, step in usual.items()
        for n in (18, 32, 64, 128, 512)
    }
    worst = max(abs(row["order"] - row["claim"]) for row in (strong | weak).values())
    details = {
        "steps": STEPS_TRIED,
        "largest_deviation": round(worst, 3),
        "strong": strong,
        "weak": weak,
        "std_of_unit_gaussian_on_edm_grid": ratios,
    }
    record_table("core.solver_orders", details, complete=worst <= TOLERANCE, seconds=time.monotonic() - began)


if __name__ == "__main__":
    main()
