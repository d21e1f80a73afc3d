"""How wrong the next state is: by component, by novelty, and over several steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from synth_pipeline.plots.style import EDGE, INK, MARKERS, SERIES, SYNTHETIC, legend, single, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAR = 1e-3  # a reference this much below the smallest error would only press the errors together
ERROR = "error of the next state (1 = variance of its change)"


@styled
def error_by_component(
    mean: Mapping[str, float], p99: Mapping[str, float], references: Mapping[str, float] | None = None
) -> Figure:
    """Mean and 99 % quantile of the error of each component, one line of dots a component, on a log scale.

    Args:
        mean: Component -> mean error.
        p99: The same components -> 99 % quantile.
        references: Name -> mean error of something to read the means against; drawn as a line, or named in the legend
            when it is too far to the left.
    """
    figure, axes = single(0.9 + 0.2 * len(mean))
    places = range(len(mean))
    tails = [p99[name] for name in mean]
    axes.set_xscale("log")
    axes.hlines(places, list(mean.values()), tails, color=EDGE, linewidth=0.8)
    axes.scatter(list(mean.values()), places, s=26, color=SYNTHETIC, zorder=3, label="mean")
    axes.scatter(tails, places, s=26, facecolor="white", edgecolor=SYNTHETIC, zorder=3, label="99 %")
    smallest = min((value for value in mean.values() if value > 0), default=1.0)
    for (name, value), dashes in zip((references or {}).items(), cycle(("--", ":", "-.")), strict=False):
        if value > FAR * smallest:
            axes.axvline(value, color=INK, linestyle=dashes, linewidth=1.2, label=name)
        else:
            axes.plot([], [], color=INK, linestyle=dashes, linewidth=1.2, label=f"{name}: {value:.0e}, far left")
    axes.set_yticks(places, list(mean))
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(ERROR)
    legend(figure, axes)
    return figure


@styled
def error_by_novelty(series: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Mean error by fifths of novelty, one line a series, on a log scale.

    Args:
        series: Name -> five mappings with `mean` and `rows`, nearest first, as `novelty.error_at_novelty` gives them;
            a fifth without rows leaves a gap, and one with fewer than 100 is drawn hollow.
    """
    figure, axes = single(2.9)
    for (name, fifths), colour, marker in zip(series.items(), cycle(SERIES), cycle(MARKERS), strict=False):
        values = [float("nan") if part["mean"] is None else part["mean"] for part in fifths]
        axes.plot(range(1, 6), values, color=colour, marker=marker, markersize=6, label=name)
        few = [place for place, part in enumerate(fifths) if 0 < part["rows"] < 100]
        axes.plot([place + 1 for place in few], [values[place] for place in few], linestyle="", marker=marker,
                  markersize=6, markerfacecolor="white", markeredgecolor=colour)  # fmt: skip
    axes.set_yscale("log")
    axes.set_xticks(range(1, 6), ["nearest\nfifth", "2", "3", "4", "farthest\nfifth"])
    axes.set_xlabel("distance to the nearest training row")
    axes.set_ylabel("mean error of the next state")
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    legend(figure, axes)
    return figure


@styled
def error_growth(ours: Mapping[int, float], real: Mapping[int, float], *, name: str = "synthetic") -> Figure:
    """Error after several steps from the same start, on log scales.

    Args:
        ours: Steps -> error of generated trajectories.
        real: The same of real ones that are replayed.
        name: What the generated ones are called.
    """
    figure, axes = single(2.9)
    for label, values, colour, marker in (
        ("real rows replayed", real, EDGE, MARKERS[1]),
        (name, ours, SYNTHETIC, MARKERS[0]),
    ):
        axes.plot(list(values), list(values.values()), color=colour, marker=marker, markersize=5, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(list(ours), [str(steps) for steps in ours])
    axes.minorticks_off()
    axes.set(xlabel="steps from the same start", ylabel="error of the state")
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    legend(figure, axes)
    return figure
