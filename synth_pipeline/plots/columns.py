"""Columns alone and in pairs: overlays of the marginals, and the difference of the correlations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from synth_pipeline.plots.style import EDGE, REAL, SYNTHETIC, Floats, legend, panels, percent, single, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 40
SHOWN = (0.001, 0.999)  # quantiles of the real values between which a panel is drawn
RARE = 0.1  # a bar below this share is too low to be read, so its share is written above it
LEAST = 0.2  # smallest end of the scale of correlation differences


@styled
def marginals(
    real: Mapping[str, Floats], synthetic: Mapping[str, Floats], *, scores: Mapping[str, float] | None = None
) -> Figure:
    """Small multiples of every column: shares of rows, real as a grey area, synthetic as a blue line.

    Args:
        real: Column -> finite values `[n]`; flags and classes are drawn as bars when their type is not floating.
        synthetic: The same columns -> finite values `[m]`.
        scores: Column -> agreement, written into its panel.
    """
    figure, axes = panels(len(real), columns=3, height=1.15)
    for panel, (name, values) in zip(axes, real.items(), strict=True):
        draw = histogram if np.issubdtype(values.dtype, np.floating) else _bars
        draw(panel, values, synthetic[name])
        panel.set_title(name, fontsize=8, pad=3)
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
        panel.margins(y=0.25)
        if scores and name in scores:
            panel.text(0.99, 0.98, f"{scores[name]:.2f}", transform=panel.transAxes, ha="right", va="top", fontsize=8)
    legend(figure, axes[0])
    return figure


def histogram(axes: Axes, real: Floats, synthetic: Floats) -> None:
    """Shares of rows in 40 bins that span the real values; values beyond are counted in the outermost bins."""
    low, high = np.quantile(real, SHOWN)
    margin = 0.1 * (high - low) or 0.5
    edges = np.linspace(low - margin, high + margin, BINS + 1)
    ours, theirs = (np.histogram(np.clip(x, edges[0], edges[-1]), edges)[0] / len(x) for x in (synthetic, real))
    axes.stairs(theirs, edges, fill=True, color=REAL, label="real rows")
    axes.stairs(ours, edges, color=SYNTHETIC, linewidth=1.3, label="synthetic rows")
    axes.locator_params(axis="x", nbins=2)


def _bars(axes: Axes, real: Floats, synthetic: Floats) -> None:
    flags = real.dtype == bool
    classes = np.array([False, True]) if flags else np.union1d(real, synthetic)
    sides = (("real rows", real, REAL, REAL), ("synthetic rows", synthetic, "none", SYNTHETIC))
    for shift, (label, values, face, edge) in zip((-0.25, 0.25), sides, strict=True):
        shares = [float(np.mean(values == value)) for value in classes]
        places = np.arange(len(classes)) + shift
        bars = axes.bar(places, shares, 0.46, facecolor=face, edgecolor=edge, linewidth=1.3, label=label)
        if len(classes) == 2:
            axes.bar_label(bars, [percent(share) if share < RARE else "" for share in shares], fontsize=7, padding=1)
    axes.set_xticks(np.arange(len(classes)), ["no", "yes"] if flags else [str(name) for name in classes])


@styled
def correlation_difference(difference: Floats, groups: Sequence[tuple[str, int]]) -> Figure:
    """Correlations among synthetic rows minus those among real rows, as a square of squares.

    Args:
        difference: `[c, c]`; NaN: a constant column, which has no correlation; left grey.
        groups: Name and number of columns of each field, in order; the numbers sum to c.
    """
    figure, axes = single(3.5)
    known = np.abs(difference[np.isfinite(difference)])
    limit = max(float(known.max(initial=0.0)), LEAST)
    axes.set_facecolor(REAL)
    image = axes.imshow(difference, cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
    ends = np.cumsum([size for _, size in groups])
    middles = [end - size / 2 - 0.5 for end, (_, size) in zip(ends, groups, strict=True)]
    for end in ends[:-1]:
        axes.axhline(end - 0.5, color=EDGE, linewidth=0.6)
        axes.axvline(end - 0.5, color=EDGE, linewidth=0.6)
    names = [name for name, _ in groups]
    axes.set_yticks(middles, names)
    axes.set_xticks(middles, names, rotation=90)
    axes.tick_params(length=0)
    axes.spines[["top", "right"]].set_visible(True)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=25)
    bar.outline.set_linewidth(0.5)
    bar.set_label("synthetic - real correlation")
    return figure
