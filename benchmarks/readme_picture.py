"""The README's picture: hopper, real against synthetic, drawn from a run.

    python benchmarks/readme_picture.py [RUN]                       # default: runs/default, as `make run` leaves it

Above the real rows, below as many synthetic ones, by the same hand: how they are spread over the torso's angle and the
forward velocity, and the poses of nine of each, every one at a fixed quantile of the torso's height. Nobody chose them:
whoever runs it again gets the same rows.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
from evidence import RESULTS

from synth_pipeline import store
from synth_pipeline.envs.mujoco_locomotion import Hopper
from synth_pipeline.plots.style import INK, SYNTHETIC, Floats, styled, to_svg
from synth_pipeline.run_config import open_run
from synth_pipeline.scale.fitted import source_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE = RESULTS / "real_against_synthetic.svg"
HEIGHT, ANGLE, VELOCITY = 0, 1, 5  # of the torso, among Hopper's observations: metres, rad, m/s
POSES, APART = 9, 0.85  # metres between two of them
ROWS = 100_000


def poses(observations: Floats) -> Floats:
    """Rows `[POSES, o]` at fixed quantiles of the torso's height."""
    order = np.argsort(observations[:, HEIGHT], kind="stable")
    chosen: Floats = observations[order[(np.linspace(0.02, 0.98, POSES) * (len(order) - 1)).astype(int)]]
    return chosen


def limbs(environment: Any, observation: Floats) -> list[tuple[Floats, Floats, float]]:
    """Ends `[2]` (x, z) and radius of every capsule of a hopper that stands at x = 0, in metres."""
    model, data = environment.model, environment.data
    data.qpos[:] = [0.0, *observation[: model.nq - 1]]
    mujoco.mj_kinematics(model, data)
    found = []
    for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE):
        radius, half = model.geom_size[geom, :2]
        along = data.geom_xmat[geom].reshape(3, 3)[:, 2] * half
        centre = data.geom_xpos[geom]
        found.append(((centre - along)[[0, 2]], (centre + along)[[0, 2]], float(radius)))
    return found


def draw_poses(axes: Axes, rows: Floats, colour: str) -> None:
    """Side by side on the ground."""
    from matplotlib.patches import Circle, Polygon

    environment = Hopper().bare()
    for place, row in enumerate(poses(rows)):
        shift = np.array([place * APART, 0.0])
        for first, second, radius in limbs(environment, row):
            first, second = first + shift, second + shift
            along = (second - first) / np.linalg.norm(second - first)
            across = radius * np.array([-along[1], along[0]])
            body = Polygon(np.array([first + across, second + across, second - across, first - across]), closed=True)
            for shape in (body, Circle(tuple(first), radius), Circle(tuple(second), radius)):
                shape.set(facecolor=colour, edgecolor="none", alpha=1.0)
                axes.add_patch(shape)
    axes.axhline(0.0, color=INK, linewidth=0.7)
    axes.set(xlim=(-1.1, (POSES - 1) * APART + 0.45), ylim=(-0.06, 1.75), aspect="equal")
    axes.set_axis_off()


@styled
def picture(real: Floats, synthetic: Floats) -> Figure:
    """Two rows: real, synthetic; `[n, o]` observations each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 3.9), layout="constrained")
    figure.patch.set_facecolor("white")
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 3.1))
    low, high = np.quantile(real[:, [ANGLE, VELOCITY]], [0.001, 0.999], axis=0)
    view = np.array([[low[0], high[0]], [low[1], high[1]]])
    colours = {"real": ("Greys", "#6e6e6e", real), "synthetic": ("Blues", SYNTHETIC, synthetic)}
    for line, (name, (shades, colour, rows)) in enumerate(colours.items()):
        axes = figure.add_subplot(grid[line, 0])
        counts, *edges = np.histogram2d(rows[:, ANGLE], rows[:, VELOCITY], 60, view)
        axes.pcolormesh(*edges, np.log1p(counts).T, cmap=shades, rasterized=True)
        axes.set(title=name, ylabel="velocity, m/s", xlabel="torso angle, rad" if line else "")
        axes.tick_params(labelbottom=bool(line))
        beside = figure.add_subplot(grid[line, 1])
        draw_poses(beside, rows, colour)
        if not line:
            beside.set_title("poses, from the lowest torso to the highest")
    return figure


def main() -> None:
    """Read, draw, write."""
    run, config = open_run(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/default"))
    rows = source_of(config).load().transitions()["observations"].astype(np.float64)
    made = store.open(run.folder("store"))
    count = min(ROWS, len(rows), len(made))
    synthetic = made.read(0, count)["observations"].astype(np.float64)
    PICTURE.write_text(to_svg(picture(rows[:: len(rows) // count][:count], synthetic)))
    print(f"{PICTURE}: {count:,} rows of each")


if __name__ == "__main__":
    main()
