"""Scores of runs: spread, learning curves, differences of arms, and what an arm is worth in real rows.

A band is values `[k]` with the ends of their intervals, or None where there are none: too few runs. What has none is
drawn hollow, so that it cannot be mistaken for certain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from synth_pipeline.plots.style import EDGE, INK, MARKERS, REAL, SERIES, Floats, legend, single, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = "#e4e4e4"
DASHES = ("-", "--", "-.", ":")


class Band(NamedTuple):
    """Values and their intervals.

    Attributes:
        values: `[k]`.
        low: `[k]`, or None: no intervals.
        high: `[k]`, or None.
    """

    values: Floats
    low: Floats | None = None
    high: Floats | None = None


class Point(NamedTuple):
    """A value and its interval.

    Attributes:
        value: None: nothing was left to measure.
        low: None: no interval.
        high: None: no interval.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


class Worth(NamedTuple):
    """What an arm is worth in real rows.

    Attributes:
        rows: Real rows that it has.
        score: Its mean score.
        reached: Rows at which real data alone score as high; None: beyond the curve, or below it.
    """

    rows: int
    score: float
    reached: float | None


class _Style(NamedTuple):
    colour: str
    marker: str
    dashes: str


def _styles(names: Sequence[str], real: str | None) -> dict[str, _Style]:
    """Colour, marker and dashes by name: three ways to tell two series apart; real data alone are grey."""
    others = [name for name in names if name != real]
    looks: Iterator[tuple[str, str, str]] = zip(cycle(SERIES), cycle(MARKERS), cycle(DASHES), strict=False)
    found = {name: _Style(*look) for name, look in zip(others, looks, strict=False)}
    return {name: found.get(name, _Style(EDGE, "o", "-")) for name in names}


@styled
def performance_profiles(
    thresholds: Floats, profiles: Mapping[str, Band], *, real: str | None = None, unit: str = "score"
) -> Figure:
    """Share of runs above every threshold, one line an arm; one that lies above another is better everywhere.

    Args:
        thresholds: `[k]`, scores, rising.
        profiles: Arm -> shares in [0, 1].
        real: The arm of real data alone.
        unit: What the thresholds are.
    """
    figure, axes = single(2.9)
    for name, style in _styles(list(profiles), real).items():
        _band(axes, thresholds, profiles[name], style, name, steps=True)
    axes.set(xlabel=unit, ylabel="share of runs above", ylim=(-0.02, 1.02))
    _finish(figure, axes)
    return figure


@styled
def learning_curves(
    steps: Mapping[str, Sequence[int]],
    scores: Mapping[str, Band],
    *,
    counted: Sequence[int] = (),
    real: str | None = None,
    unit: str = "score",
) -> Figure:
    """Scores over the training, one line an arm.

    Args:
        steps: Arm -> gradient steps of its evaluations.
        scores: Arm -> mean score at each of them.
        counted: The steps whose mean is the final score, fixed beforehand; shaded.
        real: The arm of real data alone.
        unit: What the scores are.
    """
    figure, axes = single(2.9)
    if counted:
        axes.axvspan(min(counted), max(counted), color=REAL, alpha=0.35, linewidth=0, label="final score")
    for name, style in _styles(list(scores), real).items():
        _band(axes, np.asarray(steps[name], np.float64), scores[name], style, name, steps=False)
    axes.set(xlabel="gradient steps", ylabel=unit)
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.locator_params(axis="x", nbins=5)
    _finish(figure, axes)
    return figure


@styled
def paired_differences(differences: Mapping[str, Mapping[str, Point]], *, unit: str = "score") -> Figure:
    """Each arm against real data alone, one row an arm, one mark an agent.

    Filled: the 95 % interval excludes 0. Hollow with a line: it does not. Hollow without a line: too few runs.

    Args:
        differences: Arm -> agent -> mean of arm - real over pairs of runs.
        unit: What the differences are in.
    """
    agents = list(dict.fromkeys(agent for of_arm in differences.values() for agent in of_arm))
    figure, axes = single(1.0 + len(differences) * (0.16 + 0.14 * len(agents)))
    axes.axvline(0, color=INK, linewidth=0.8)
    for offset, (agent, style) in enumerate(_styles(agents, None).items()):
        shift = 0.7 * ((offset + 0.5) / len(agents) - 0.5)
        for row, of_arm in enumerate(differences.values()):
            if agent in of_arm:
                _mark(axes, of_arm[agent], row + shift, style)
        axes.plot([], [], color=style.colour, marker=style.marker, markersize=5, linestyle="", label=agent)
    axes.set_yticks(range(len(differences)), list(differences))
    axes.set_ylim(len(differences) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"difference to real rows alone\n({unit});\n95 % intervals, filled: it excludes 0")
    _finish(figure, axes, grid="x")
    return figure


@styled
def effective_samples(
    sizes: Sequence[int], measured: Band, curve: Sequence[float], arms: Mapping[str, Worth], *, unit: str = "score"
) -> Figure:
    """Scores of real data alone over their size, and each arm carried over to the size that scores as high.

    Args:
        sizes: `[k]`, rows, rising.
        measured: Mean scores of real data alone at these sizes.
        curve: `[k]`, the same, made monotone.
        arms: Arm -> what it is worth; an arm beyond the curve gets an arrow.
        unit: What the scores are.
    """
    figure, axes = single(2.9)
    axes.set_xscale("log")
    _errors(axes, sizes, measured)
    axes.plot(sizes, curve, color=EDGE, label="real rows alone")
    for name, style in _styles(list(arms), None).items():
        rows, score, reached = arms[name]
        axes.plot([rows], [score], marker=style.marker, markersize=7, color=style.colour, linestyle="", label=name)
        if reached is not None:
            axes.plot([rows, reached], [score, score], color=style.colour, linestyle=style.dashes, linewidth=1.2)
            continue
        end = sizes[-1] if score > curve[-1] else sizes[0]
        axes.annotate("", (end, score), (rows, score), arrowprops={"arrowstyle": "->", "color": style.colour})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set(xlabel="real rows", ylabel=unit)
    _finish(figure, axes)
    return figure


def _band(axes: Axes, x: Floats, band: Band, style: _Style, name: str, *, steps: bool) -> None:
    values, low, high = band
    look: dict[str, Any] = {"color": style.colour, "linestyle": style.dashes, "label": name}
    if low is not None and high is not None:
        axes.fill_between(x, low, high, color=style.colour, alpha=0.18, linewidth=0, step="post" if steps else None)
    if steps:
        axes.plot(x, values, drawstyle="steps-post", **look)
        return
    face = "white" if low is None else style.colour
    axes.plot(x, values, marker=style.marker, markersize=4, markerfacecolor=face, **look)


def _mark(axes: Axes, point: Point, place: float, style: _Style) -> None:
    value, low, high = point
    if value is None:
        return
    if low is not None and high is not None:
        axes.plot([low, high], [place, place], color=style.colour, linewidth=1.6, solid_capstyle="butt")
    excludes = low is not None and high is not None and (low > 0 or high < 0)
    axes.plot([value], [place], marker=style.marker, markersize=6, color=style.colour, linestyle="",
              markerfacecolor=style.colour if excludes else "white")  # fmt: skip


def _errors(axes: Axes, x: Sequence[int], band: Band) -> None:
    values, low, high = band
    if low is not None and high is not None:
        axes.vlines(x, low, high, color=EDGE, linewidth=1.2)
    axes.plot(x, values, color=EDGE, marker="o", markersize=5, linestyle="",
              markerfacecolor="white" if low is None else EDGE)  # fmt: skip


def _finish(figure: Figure, axes: Axes, grid: str = "y") -> None:
    axes.grid(axis="x" if grid == "x" else "y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    legend(figure, axes, handle=1.8)
