"""One look for every figure: real rows are grey, synthetic rows are blue, and every text is readable on a phone.

Colours are those of Okabe and Ito ("Color universal design", 2008), which the colour-blind can tell apart; what tells
two series apart is never the colour alone. Figures never touch pyplot and its global state.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, REAL, EDGE = "#222222", "#c4c4c4", "#6e6e6e"
SYNTHETIC, STRAYED = "#0072b2", "#d55e00"
SERIES = (SYNTHETIC, "#e69f00", "#009e73", "#cc79a7", STRAYED, "#56b4e9", INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH = 4.5  # inches: 432 px on a screen, and not much less on a phone
CHARACTER, BESIDE_LABEL = 0.07, 0.48  # inches of a legend's font; of a mark and the gap before the next one
LOOK: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": EDGE,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.formatter.limits": (-3, 4),
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "synth-pipeline",
}

P = ParamSpec("P")
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@contextmanager
def look() -> Iterator[None]:
    """Matplotlib's own defaults and `LOOK`, whatever the user has set; what was set before comes back."""
    import matplotlib.style

    with matplotlib.style.context(["default", LOOK]):
        yield


def styled(plot: Callable[P, Figure]) -> Callable[P, Figure]:
    """A function that draws, in our look."""

    @wraps(plot)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with look():
            return plot(*args, **kwargs)

    return wrapper


def panels(count: int, *, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `count` small plots, `columns` beside one another, each `height` inches high."""
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, rows * height), layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    return figure, [figure.add_subplot(grid[divmod(index, columns)]) for index in range(count)]


def single(height: float) -> tuple[Figure, Axes]:
    """A figure of one plot, `height` inches high."""
    figure, (axes,) = panels(1, columns=1, height=height)
    return figure, axes


def legend(figure: Figure, source: Axes, *, handle: float = 1.4) -> None:
    """One legend above everything, in as many columns as there is room for; `handle` is the length of its marks."""
    handles, labels = source.get_legend_handles_labels()
    look: dict[str, Any] = {"loc": "outside upper left", "columnspacing": 1.2, "handlelength": handle}
    figure.legend(handles, labels, ncols=_columns([len(label) for label in labels]), **look)


def _columns(lengths: list[int]) -> int:
    """How many columns of labels of so many characters fit side by side; the first ones are filled first."""
    for columns in range(len(lengths), 1, -1):
        widest = [max(of_one) for of_one in np.array_split(lengths, columns)]
        if sum(widest) * CHARACTER + columns * BESIDE_LABEL <= WIDTH:
            return columns
    return 1


def percent(value: float, digits: int = 1) -> str:
    """A share as people write it, `1.5 %`, with a space that no line breaks at."""
    return f"{100 * value:.{digits}f}\u00a0%"


def to_svg(figure: Figure) -> str:
    """The figure as SVG: the same bytes for the same figure, text as outlines, nothing that has to be loaded."""
    buffer = io.StringIO()
    with look():
        figure.savefig(buffer, format="svg", dpi=150, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return buffer.getvalue()
