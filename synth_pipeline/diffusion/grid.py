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
        times: `[N + 1]`, or `[N + 1, *lead]` when rows (or tokens) have times of their own; those may also rest.
        skipped: Steps of the whole grid that `part` left out.
    """

    schedule: Schedule
    times: Tensor
    skipped: int = 0

    def __post_init__(self) -> None:
        steps = self.times[:-1] - self.times[1:]
        falls = bool((steps >= 0).all()) if self.times.ndim > 1 else bool((steps > 0).all())
        if len(self.times) < 2 or not falls:
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
        """The grid from its `start`-th time on: to begin part-way from a noised x (GTA, warm starts).

        Raises:
            ConfigError: When no such step is left.
        """
        if not 0 <= start < len(self):
            raise ConfigError("a grid has no such step", found=start, accepted=f"0 to {len(self) - 1}")
        return Grid(self.schedule, self.times[start:], self.skipped + start)


def make_grid(
    schedule: Schedule,
    num_steps: int,
    *,
    spacing: Spacing | None = None,
    rho: float = 7.0,
    largest: float | None = None,
    smallest: float | None = None,
) -> Grid:
    """A grid of `num_steps` steps that ends at 0; on the CPU, which serves x on any device without waiting for it.

    Args:
        schedule: The noise schedule.
        num_steps: N >= 1; the last of them goes to t = 0.
        spacing: `karras`: equal steps in (sigma/alpha)^(1/rho) (Karras et al. 2022, eq. 5), the default; `log_snr`:
            equal steps in lambda (DPM-Solver); `uniform`: equal steps in t (DDPM, DDIM), all that a discrete schedule
            has.
        rho: Exponent of `karras`.
        largest: First time; default the schedule's horizon.
        smallest: Last time before 0; default the schedule's smallest. A discrete schedule ends one stride above 0.

    Raises:
        ConfigError: For fewer than one step, more steps than a discrete schedule has, times out of range or a spacing
            that a discrete schedule does not have.
    """
    if num_steps < 1:
        raise ConfigError("a sampler needs at least one step", found=num_steps)
    first = schedule.horizon if largest is None else largest
    last = schedule.smallest if smallest is None else smallest
    if not 0 < last <= first <= schedule.horizon:
        raise ConfigError(
            "the times of a grid are out of range",
            found=f"from {first:g} to {last:g}",
            accepted=f"0 < smallest <= largest <= {schedule.horizon:g}, the schedule's horizon",
        )
    if not isinstance(schedule, Discrete):
        times = _continuous(schedule, torch.tensor([first, last], dtype=torch.float64), num_steps, spacing, rho)
    elif spacing in (None, "uniform") and smallest is None:
        times = _discrete(num_steps, round(first))
    else:
        raise ConfigError(
            "a discrete schedule is visited in equal strides",
            found=f"spacing {spacing}, smallest {smallest}",
            accepted="spacing uniform, and no smallest",
        )
    return Grid(schedule, torch.cat([times, times.new_zeros(1)]).to(torch.float64))


def _continuous(schedule: Schedule, ends: Tensor, num_steps: int, spacing: Spacing | None, rho: float) -> Tensor:
    path = torch.linspace(0.0, 1.0, num_steps, dtype=torch.float64)
    if spacing == "uniform":
        return ends[0] + path * (ends[1] - ends[0])
    ratio = schedule.rho(ends)
    warped = ratio.log() if spacing == "log_snr" else ratio ** (1 / rho)
    between = warped[0] + path * (warped[1] - warped[0])
    times = schedule.time(between.exp() if spacing == "log_snr" else between**rho)
    times[0] = ends[0]
    return times


def _discrete(num_steps: int, first: int) -> Tensor:
    if num_steps > first:
        raise ConfigError("more steps than the schedule has", found=num_steps, accepted=f"at most {first}")
    # From T down in equal strides, every index once.
    return torch.linspace(first, first / num_steps, num_steps, dtype=torch.float64).round()
