"""Rewards, returns, and trajectories over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from synth_pipeline.plots.columns import histogram
from synth_pipeline.plots.style import EDGE, SYNTHETIC, Floats, legend, panels, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def distributions(sides: Mapping[str, tuple[Floats, Floats]]) -> Figure:
    """Shares of rows or episodes on a log scale, so that the tails are seen: real as an area, synthetic as a line.

    Args:
        sides: Name of the quantity -> its real values `[n]` and its synthetic values `[m]`.
    """
    figure, axes = panels(len(sides), columns=1, height=2.4)
    for panel, (name, (real, synthetic)) in zip(axes, sides.items(), strict=True):
        histogram(panel, real, synthetic)
        panel.set_yscale("log")
        panel.set(xlabel=name, ylabel="share")
        panel.locator_params(axis="x", nbins=5)
    legend(figure, axes[0])
    return figure


@styled
def trajectories(real: Sequence[Mapping[str, Floats]], synthetic: Sequence[Mapping[str, Floats]]) -> Figure:
    """Some channels of a few episodes over time: real grey, synthetic blue.

    Args:
        real: Episodes: channel -> values `[steps]`.
        synthetic: The same of generated episodes; every episode has the channels of the first one.
    """
    names = list(synthetic[0])
    figure, axes = panels(len(names), columns=1, height=1.2)
    sides = (("real", real, EDGE, 0.8), ("synthetic", synthetic, SYNTHETIC, 1.3))
    for panel, channel in zip(axes, names, strict=True):
        for label, episodes, colour, width in sides:
            for number, episode in enumerate(episodes):
                values = episode[channel]
                shown = label if number == 0 else None
                panel.plot(np.arange(len(values)), values, color=colour, linewidth=width, alpha=0.8, label=shown)
        panel.set_title(channel, pad=3)
        panel.tick_params(labelbottom=panel is axes[-1])
        panel.locator_params(axis="y", nbins=3)
    axes[-1].set_xlabel("step")
    legend(figure, axes[0])
    return figure
