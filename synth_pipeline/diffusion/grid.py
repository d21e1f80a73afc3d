"""Time grids: which times a sampler visits, with everything the solvers need to know about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from synth_pipeline.diffusion.schedules import Discrete, Schedule
from synth_pipeline.errors import ConfigError

Spacing = Literal["karras", "log_snr", "uniform"]


@dataclass(frozen=True)
class Grid:
    """Strictly falling times t_0 > t_1 > ... > t_N; the last one is 0, where a sampler returns its estimate of x_0.

    Attributes:
        schedule: Where alpha and sigma come from.
        times: `[N + 1]`, or `[N + 1, *lead]` when rows (or tokens) have times of their own.
    """

    schedule: Schedule
    times: Tensor

    def __post_init__(self) -> None:
        steps = self.times[:-1] - self.times[1:]
        if len(self.times) < 2 or bool((steps < 0).any()) or (self.times.ndim == 1 and bool((steps == 0).any())):
            raise ConfigError("the times of a grid must fall strictly", found=f"{self.times.tolist()[:8]}")

    def __len__(self) -> int:
        return len(self.times) - 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.times[:-1], self.times[1:], strict=True)

    @property
    def start_scale(self) -> Tensor:
        """sigma at the first time: what unit noise is multiplied with to begin."""
        return self.schedule.sigma(self.times[0])

    def part(self, start: int) -> Grid:
        """The grid from its `start`-th time on: to begin part-way from a noised x (GTA, warm starts)."""
        return Grid(self.schedule, self.times[start:])


def make_grid(
    schedule: Schedule,
    num_steps: int,
    *,
    spacing: Spacing = "karras",
    rho: float = 7.0,
    largest: float | None = None,
    smallest: float | None = None,
    device: torch.device | None = None,
) -> Grid:
    """A grid of `num_steps` steps that ends at 0.

    Args:
        schedule: The noise schedule.
        num_steps: N >= 1; the last of them goes to t = 0.
        spacing: `karras`: equal steps in (sigma/alpha)^(1/rho) (Karras et al. 2022, eq. 5); `log_snr`: equal steps in
            lambda (DPM-Solver); `uniform`: equal steps in t (DDPM, DDIM).
        rho: Exponent of `karras`.
        largest: First time; default the schedule's horizon.
        smallest: Last time before 0; default the schedule's smallest.
        device: Of the times.

    Raises:
        ConfigError: For fewer than one step, or more steps than a discrete schedule has.
    """
    if num_steps < 1:
        raise ConfigError("a sampler needs at least one step", found=num_steps)
    first, last = largest or schedule.horizon, smallest or schedule.smallest
    ends = torch.tensor([first, last], dtype=torch.float64)
    if isinstance(schedule, Discrete):
        times = _discrete(num_steps, first)
    elif spacing == "uniform":
        times = torch.linspace(first, last, num_steps, dtype=torch.float64)
    else:
        ratio = schedule.rho(ends)
        path = torch.linspace(0.0, 1.0, num_steps, dtype=torch.float64)
        warped = ratio ** (1 / rho) if spacing == "karras" else ratio.log()
        between = warped[0] + path * (warped[1] - warped[0])
        times = schedule.time(between**rho if spacing == "karras" else between.exp())
        times[0] = first
    return Grid(schedule, torch.cat([times, times.new_zeros(1)]).to(device=device, dtype=torch.float64))


def _discrete(num_steps: int, first: float) -> Tensor:
    if num_steps > first:
        raise ConfigError("more steps than the schedule has", found=num_steps, accepted=f"at most {first:.0f}")
    # From T down in equal strides, every index once.
    return torch.linspace(first, first / num_steps, num_steps, dtype=torch.float64).round()
