"""Distributions in the plane: learned, sampled alike by all solvers, guided as asked: `core.toy_distributions`.

Eight Gaussians on a circle and a Swiss roll are learned by the modern network and sampled by four solvers. Closeness is
the squared maximum mean discrepancy (MMD, Gretton et al. 2012, sum of five Gaussian kernels) to fresh data, held
against the same between two fresh draws of the data.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from evidence import record_table

from synth_pipeline.diffusion.grid import make_grid
from synth_pipeline.diffusion.guidance import classifier, classifier_free
from synth_pipeline.diffusion.parametrisation import Denoiser, Parametrisation, expand
from synth_pipeline.diffusion.sampler import Step, sample
from synth_pipeline.diffusion.schedules import EDM, VPSDE, Schedule
from synth_pipeline.diffusion.steps import DDIM, STEPS, Churn, Heun, ddpm
from synth_pipeline.diffusion.trainer import TrainerConfig
from synth_pipeline.diffusion.vector import NetworkConfig, VectorConfig, VectorDiffusion

Floats = npt.NDArray[np.float64]
ROWS, DRAWN, MODES = 20_000, 4_000, 8
CIRCLE = 4 * np.stack([np.cos(np.arange(MODES) * np.pi / 4), np.sin(np.arange(MODES) * np.pi / 4)], axis=1)
SPREAD = 0.3
CONFIG = VectorConfig(
    network=NetworkConfig(width=128, depth=3),
    trainer=TrainerConfig(gradient_steps=8_000, batch_size=512, log_every=1000),
)
SOLVERS: dict[str, tuple[Schedule, Step, int]] = {
    "ddpm, 200 calls, VP-SDE": (VPSDE(), ddpm, 200),
    "ddim, 20 calls, VP-SDE": (VPSDE(), DDIM(), 20),
    "dpmpp_2m, 20 calls, EDM": (EDM(), STEPS["dpmpp_2m"], 20),
    "heun with churn, 63 calls, EDM": (EDM(), Heun(Churn(40.0)), 32),
}


def eight(count: int, rng: np.random.Generator) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Eight Gaussians on a circle of radius 4, with their labels."""
    label = rng.integers(MODES, size=count)
    return CIRCLE[label] + SPREAD * rng.standard_normal((count, 2)), label


def roll(count: int, rng: np.random.Generator) -> Floats:
    """A Swiss roll of one and a half turns with a little noise."""
    angle = 1.5 * np.pi * (1 + 2 * rng.random(count))
    return np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=1) / 3 + 0.1 * rng.standard_normal((count, 2))


def mmd(a: Floats, b: Floats) -> float:
    """Unbiased estimate of the squared MMD, `[n, 2]` against `[m, 2]`."""

    def kernel(x: Floats, y: Floats) -> Floats:
        squared = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
        total: Floats = sum((np.exp(-squared / (2 * width**2)) for width in (0.2, 0.5, 1.0, 2.0, 4.0)), np.zeros(()))
        return total

    def within(x: Floats) -> float:
        return float((kernel(x, x).sum() - 5 * len(x)) / (len(x) * (len(x) - 1)))

    return within(a) + within(b) - 2 * float(kernel(a, b).mean())


class Plane:
    """A fitted model of points in the plane, sampled on any schedule by any solver.

    Args:
        points: `[n, 2]`, data.
        given: `[n, k]`, conditions.
    """

    def __init__(self, points: Floats, given: Floats | None = None) -> None:
        self._shift, self._scale = points.mean(axis=0), points.std(axis=0)
        self.model = VectorDiffusion(CONFIG, device="cpu")
        self.model.fit(
            (points - self._shift) / self._scale, seed=0, given=given, dropout=0.2 if given is not None else 0
        )

    def denoiser(self, schedule: Schedule, condition: torch.Tensor | None = None) -> Denoiser:
        """x0_hat on a schedule: an EDM sees only sigma / alpha."""
        told = {} if condition is None else {"condition": condition}
        return Parametrisation("edm", schedule).denoiser(self.model.network, **told)

    @torch.no_grad()
    def draw(self, model: Denoiser, schedule: Schedule, step: Step, calls: int, seed: int = 0) -> Floats:
        """`[DRAWN, 2]` points."""
        rng = torch.Generator().manual_seed(seed)
        grid = make_grid(schedule, calls)
        start = (schedule.sigma(grid.times[0]) ** 2 + schedule.alpha(grid.times[0]) ** 2).sqrt()
        noise = torch.randn(DRAWN, 2, generator=rng) * start.to(torch.float32)
        points: Floats = sample(model, noise, grid, step=step, rng=rng).numpy() * self._scale + self._shift
        return points


def solvers(plane: Plane, fresh: Floats, other: Floats) -> dict[str, Any]:
    """MMD of each solver's samples to fresh data, over that between two fresh draws."""
    floor = max(mmd(fresh, other), 0.0) + 1e-4
    found: dict[str, Any] = {"floor": floor}
    for name, (schedule, step, calls) in SOLVERS.items():
        drawn = plane.draw(plane.denoiser(schedule), schedule, step, calls)
        found[name] = {"mmd": mmd(fresh, drawn), "over floor": max(mmd(fresh, drawn), 0.0) / floor}
    return found


def shares(points: Floats) -> Floats:
    """`[8]`, share of points nearest to each mode."""
    nearest = ((points[:, None] - CIRCLE) ** 2).sum(-1).argmin(1)
    return np.bincount(nearest, minlength=MODES) / len(points)


def one_hot(label: npt.NDArray[np.int64]) -> Floats:
    """`[n, 8]`."""
    return np.eye(MODES)[label]


def guided(plane: Plane) -> dict[str, Any]:
    """Accuracy of labels by weight; what weights 0 and 1 are; a classifier on the exact noised density."""
    schedule, step = EDM(), STEPS["dpmpp_2m"]
    label = np.arange(DRAWN) % MODES
    assert plane.model._given is not None
    told = torch.from_numpy(plane.model._given.encode(one_hot(label)))
    free, conditional = plane.denoiser(schedule), plane.denoiser(schedule, told)

    def accuracy(model: Denoiser) -> float:
        drawn = plane.draw(model, schedule, step, 20)
        return float((((drawn[:, None] - CIRCLE) ** 2).sum(-1).argmin(1) == label).mean())

    def log_probability(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """log p(y | x_t) of the true mixture, in model units."""
        centres = torch.from_numpy((CIRCLE - plane._shift) / plane._scale).to(x)
        variance = torch.from_numpy((SPREAD / plane._scale) ** 2).to(x) + expand(t.to(x) ** 2, x)
        logits = -((x[:, None] - centres) ** 2 / (2 * variance)).sum(-1)
        return logits.log_softmax(-1)[torch.arange(len(x)), torch.from_numpy(label)]

    by_weight = {w: accuracy(classifier_free(free, [(conditional, w)])) for w in (0.0, 0.5, 1.0, 2.0)}
    draws = {
        name: plane.draw(model, schedule, step, 20)
        for name, model in {
            "0": classifier_free(free, [(conditional, 0.0)]),
            "free": free,
            "1": classifier_free(free, [(conditional, 1.0)]),
            "conditional": conditional,
        }.items()
    }
    return {
        "accuracy by weight": by_weight,
        "weight 0 is unconditional": bool(np.array_equal(draws["0"], draws["free"])),
        "weight 1 is conditional": bool(np.array_equal(draws["1"], draws["conditional"])),
        "accuracy by classifier": accuracy(classifier(free, log_probability, schedule, scale=1.0)),
    }


def holds(
    gaussians: dict[str, Any], swiss: dict[str, Any], modes: dict[str, list[float]], guide: dict[str, Any]
) -> bool:
    """Every criterion."""
    near = all(found[name]["over floor"] < 1.5 for found in (gaussians, swiss) for name in SOLVERS)
    balanced = all(abs(share - 0.125) <= 0.04 for row in modes.values() for share in row)
    by_weight = list(guide["accuracy by weight"].values())
    rises = all(a < b + 1e-9 for a, b in pairwise(by_weight))
    exact = guide["weight 0 is unconditional"] and guide["weight 1 is conditional"]
    right = guide["accuracy by weight"][1.0] >= 0.95 and guide["accuracy by classifier"] >= 0.95
    return bool(near and balanced and rises and exact and right)


def main() -> None:
    """Fit, sample, record."""
    began, rng = time.monotonic(), np.random.default_rng(0)
    points, label = eight(ROWS, rng)
    labelled, plain, spiral = Plane(points, one_hot(label)), Plane(points), Plane(roll(ROWS, rng))
    gaussians = solvers(plain, eight(DRAWN, rng)[0], eight(DRAWN, rng)[0])
    swiss = solvers(spiral, roll(DRAWN, rng), roll(DRAWN, rng))
    modes = {
        name: shares(plain.draw(plain.denoiser(schedule), schedule, step, calls)).round(4).tolist()
        for name, (schedule, step, calls) in SOLVERS.items()
    }
    guide = guided(labelled)
    details = {"eight gaussians": gaussians, "swiss roll": swiss, "mode shares": modes, "guidance": guide}
    complete = holds(gaussians, swiss, modes, guide)
    record_table("core.toy_distributions", details, complete=complete, seconds=time.monotonic() - began)


if __name__ == "__main__":
    main()
