"""Where rows lie: a map of states and actions, and a map of the ends of episodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from synth_pipeline.plots.style import (
    REAL,
    STRAYED,
    SYNTHETIC,
    Bools,
    Floats,
    legend,
    panels,
    percent,
    single,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T", bound=np.generic)
CELLS = 40  # cells a side between the 1 % and the 99 % quantile of the real rows
VIEW = (0.001, 0.999)  # quantiles of the real rows that are in view, with a margin around them
MARGIN = 0.25
DOT, CROSS = ("o", 2.0), ("x", 16.0)  # shape and area
FARTHEST = 10_000  # cells from the origin; beyond it all is one cell


class PrincipalAxes(NamedTuple):
    """The two directions in which real rows differ most.

    Attributes:
        shift: `[d]`, mean of the real points.
        scale: `[d]`, their standard deviation; 1 for a constant.
        directions: `[d, 2]`, orthonormal, the larger variance first.
        explained: `[2]`, share of the variance of the z-scored points along each.
    """

    shift: Floats
    scale: Floats
    directions: Floats
    explained: Floats

    def project(self, points: Floats) -> Floats:
        """Points `[n, d]` -> `[n, 2]`."""
        projected: Floats = (points - self.shift) / self.scale @ self.directions
        return projected


def principal_axes(points: Floats) -> PrincipalAxes:
    """The first two principal components of z-scored points `[n, d]`, d >= 2 (Pearson 1901).

    The largest entry of each direction is positive, so that the map does not depend on the solver's choice of sign.
    """
    spread = points.std(axis=0)
    shift, scale = points.mean(axis=0), np.where(spread > 0, spread, 1.0)
    scored = (points - shift) / scale
    variances, vectors = np.linalg.eigh(scored.T @ scored / len(points))
    directions = vectors[:, :-3:-1]
    directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), [0, 1]])
    return PrincipalAxes(shift, scale, directions, variances[:-3:-1] / max(variances.sum(), 1e-300))


def strayed(real: Floats, points: Floats) -> Bools:
    """Which of the points `[m, 2]` lie in a cell of the map that none of the real points `[n, 2]` visits: `[m]`."""
    low, high = np.quantile(real, [0.01, 0.99], axis=0)
    size = np.where(high > low, (high - low) / CELLS, 1.0)

    def cells(x: Floats) -> Floats:
        number = np.clip(np.floor((x - low) / size), -FARTHEST, FARTHEST)
        key: Floats = number[:, 0] * (2 * FARTHEST + 1) + number[:, 1]
        return key

    return ~np.isin(cells(points), cells(real))


@styled
def embedding(real: Floats, synthetic: Floats, outside: Bools, explained: Floats, *, limit: int = 4_000) -> Figure:
    """The map: real density in grey, synthetic rows as points, those where no real row lies in another colour.

    Args:
        real: `[n, 2]`.
        synthetic: `[m, 2]`; what lies out of view is drawn at the border.
        outside: `[m]`, from `strayed`.
        explained: `[2]`, share of the real variance along each direction.
        limit: Synthetic rows are drawn up to this many.
    """
    figure, axes = single(4.2)
    (left, bottom), (right, top) = _view(real)
    counts, *edges = np.histogram2d(real[:, 0], real[:, 1], 2 * CELLS, np.array([[left, right], [bottom, top]]))
    shade = np.log1p(counts).T
    axes.pcolormesh(*edges, shade, cmap="Greys", vmax=1.4 * shade.max(), rasterized=True)
    axes.scatter([], [], marker="s", s=30, color=REAL, label="real")
    inside, outside = spaced(np.clip(synthetic, [left, bottom], [right, top]), limit), spaced(outside, limit)
    _points(axes, "synthetic", inside[~outside], DOT, SYNTHETIC)
    _points(axes, "where no real row lies", inside[outside], CROSS, STRAYED)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.set_xlabel(f"direction 1 ({percent(explained[0], 0)} of the variance)")
    axes.set_ylabel(f"direction 2 ({percent(explained[1], 0)})")
    legend(figure, axes)
    return figure


def spaced(rows: npt.NDArray[T], limit: int) -> npt.NDArray[T]:
    """At most `limit` of the rows `[n, ...]`, evenly spaced, since neighbours in a table are often alike."""
    return rows if len(rows) <= limit else rows[np.linspace(0, len(rows) - 1, limit).astype(int)]


def _view(real: Floats) -> tuple[Floats, Floats]:
    low, high = np.quantile(real, VIEW, axis=0)
    margin = np.where(high > low, MARGIN * (high - low), 0.5)
    return low - margin, high + margin


@styled
def terminations(
    real: tuple[Floats, Bools], synthetic: tuple[Floats, Bools], labels: tuple[str, str], *, limit: int = 2_000
) -> Figure:
    """Two maps side by side, real and synthetic: rows that go on, and rows that end their episode.

    Args:
        real: Points `[n, 2]` and flags `[n]`.
        synthetic: Points `[m, 2]` and flags `[m]`; what lies out of view is drawn at the border.
        labels: Names of the two coordinates.
        limit: Rows that go on are drawn up to this many, and as many that end.
    """
    figure, axes = panels(2, columns=2, height=2.7)
    low, high = _view(real[0])
    for panel, (points, flags), title in zip(axes, (real, synthetic), ("real", "synthetic"), strict=True):
        panel.set_title(f"{title}: {percent(flags.mean(), 2)} end")
        inside = np.clip(points, low, high)
        _points(panel, "goes on", spaced(inside[~flags], limit), DOT, REAL)
        _points(panel, "ends", spaced(inside[flags], limit), CROSS, STRAYED)
        panel.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel=labels[0])
        panel.locator_params(nbins=4)
    axes[0].set_ylabel(labels[1])
    axes[1].tick_params(labelleft=False)
    legend(figure, axes[0])
    return figure


def _points(axes: Axes, label: str, points: Floats, marker: tuple[str, float], colour: str) -> None:
    shape, size = marker
    axes.scatter(points[:, 0], points[:, 1], size, colour, marker=shape, alpha=0.7, linewidths=0.7, rasterized=True)
    axes.scatter([], [], 20, colour, marker=shape, label=label)
