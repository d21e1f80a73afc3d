"""What a study found, as the pictures of its report: differences, the spread of the runs, scores over the training."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from synth_pipeline.evaluation.profiles import performance_profile
from synth_pipeline.evaluation.scores import ScoreScale
from synth_pipeline.evaluation.statistics import averaged, estimate, mean
from synth_pipeline.evaluation.study import Cell, StudyConfig
from synth_pipeline.evaluation.tables import BASELINE, Results, final_evaluations, outcomes
from synth_pipeline.tracking import counted
from synth_pipeline.validation.picture_files import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from synth_pipeline.plots.evaluation import Band

LEVELS = 101  # thresholds of a profile
SPREAD = (
    "Share of the runs that score above every threshold: a line that lies above another is better everywhere, "
    "and a mean that a few runs make shows as a long tail. A run that diverged scores above none."
)
CURVES = (
    "Mean score at each evaluation. The final score is the mean of the shaded ones, fixed beforehand: "
    "a curve that peaks elsewhere gets nothing for it."
)
DIFFERENCES = (
    "Each agent with these rows against the same agent with real rows alone, in pairs of draws and seeds. "
    "Filled: the interval excludes 0."
)
BANDS = " Bands and lines: 95 % intervals, from five runs on."


def pictures(
    study: StudyConfig, results: Results, rows: Sequence[Mapping[str, Any]], scale: ScoreScale | None
) -> list[Picture]:
    """Draw returns of a study.

    Args:
        study: What was compared.
        results: Its cells.
        rows: Of `tables.table`.
        scale: References of the environment; None: raw returns.

    Returns:
        Differences, and for every agent and size the spread of its runs and the learning curves of those that did not
        diverge; what cannot be drawn has no `svg`, and says why in its caption.
    """
    unit = "return" if scale is None else "score"
    drawn = [_differences(rows, unit)]
    for agent, size in product(study.agents, study.sizes):
        of = agent if size is None else f"{agent} on {size:,} rows"
        arms = {arm: _cells(results, (size, arm, agent)) for arm in study.arms}
        there = {arm: cells for arm, cells in arms.items() if cells}
        drawn += [_spread(of, there, scale, unit, study.seed), _curves(of, there, scale, unit, study.seed)]
    return drawn


def _cells(results: Results, address: tuple[int | None, str, str]) -> dict[Cell, Mapping[str, Any]]:
    """Those of a size, arm and agent."""
    return {c: r for c, r in results.items() if (c.size, c.arm, c.agent) == address}


def _whole(cells: Results) -> dict[Cell, Mapping[str, Any]]:
    """Cells of runs that did not diverge; where several draws are the runs, of draws that are whole."""
    several = len({cell.draw for cell in cells}) > 1
    lost = {cell.draw if several else cell for cell, result in cells.items() if result["diverged"] is not None}
    return {c: r for c, r in cells.items() if (c.draw if several else c) not in lost}


def _differences(rows: Sequence[Mapping[str, Any]], unit: str) -> Picture:
    from synth_pipeline.plots.evaluation import Point, paired_differences

    title = "Difference to real rows alone"
    found: dict[str, dict[str, Point]] = {}
    for row in rows:
        if (difference := row.get("difference")) is not None:
            size = "" if row["size"] is None else f" on {row['size']:,}"
            point = Point(*(difference[end] for end in ("value", "low", "high")))
            found.setdefault(f"{row['arm']}{size}", {})[row["agent"]] = point
    if not found:
        return Picture(name="differences", title=title, caption="only real rows were trained on")
    said = ", ".join(
        f"{agent} with {arm} {p.value:.3g}" for arm, of in found.items() for agent, p in of.items() if p.value
    )
    return _picture("differences", title, DIFFERENCES + BANDS, said, paired_differences(found, unit=unit))


def _spread(of: str, arms: Mapping[str, Results], scale: ScoreScale | None, unit: str, seed: int) -> Picture:
    from synth_pipeline.plots.evaluation import Band, performance_profiles

    name, title = f"spread_{_slug(of)}", f"Spread of the runs: {of}"
    scores = {arm: outcomes(cells, scale) for arm, cells in arms.items()}
    values = [score for found in scores.values() for score in found.values() if isinstance(score, float)]
    if not values:
        return Picture(name=name, title=title, caption="every run diverged")
    margin = 0.05 * (max(values) - min(values)) or 1.0
    levels = np.linspace(min(values) - margin, max(values) + margin, LEVELS)
    profiles = {arm: performance_profile({"": found}, levels, seed=seed) for arm, found in scores.items()}
    bands = {arm: Band(p.shares, p.low, p.high) for arm, p in profiles.items()}
    said = ", ".join(
        f"{arm}: {counted(p.runs, 'run')}" + (f", {p.diverged} diverged" if p.diverged else "")
        for arm, p in profiles.items()
    )
    return _picture(name, title, SPREAD + BANDS, said, performance_profiles(levels, bands, real=BASELINE, unit=unit))


def _curves(of: str, arms: Mapping[str, Results], scale: ScoreScale | None, unit: str, seed: int) -> Picture:
    from synth_pipeline.plots.evaluation import learning_curves

    name, title = f"curves_{_slug(of)}", f"Scores over the training: {of}"
    whole = {arm: left for arm, cells in arms.items() if (left := _whole(cells))}
    if not whole:
        return Picture(name=name, title=title, caption="every run diverged")
    steps, bands = {}, {}
    for arm, cells in whole.items():
        result = next(iter(cells.values()))
        steps[arm] = [evaluation["step"] for evaluation in result["evaluations"]]
        several = len({cell.draw for cell in arms[arm]}) > 1
        bands[arm] = _band({cell: r["evaluations"] for cell, r in cells.items()}, scale, several, seed)
    counts = [evaluation["step"] for evaluation in final_evaluations(result)]
    figure = learning_curves(steps, bands, counted=counts, real=BASELINE, unit=unit)
    said = ", ".join(f"{arm} ends at {band.values[-1]:.3g}" for arm, band in bands.items())
    return _picture(name, title, CURVES + BANDS, said, figure)


def _band(
    cells: Mapping[Cell, Sequence[Mapping[str, Any]]], scale: ScoreScale | None, several: bool, seed: int
) -> Band:
    """Mean score at every evaluation, with intervals over the runs; over the draws, where there are or were several."""
    from synth_pipeline.plots.evaluation import Band

    found = []
    for index in range(len(next(iter(cells.values())))):
        returns = {(c.draw, c.seed): float(np.mean(evaluations[index]["returns"])) for c, evaluations in cells.items()}
        scores = {run: value if scale is None else scale.normalized(value) for run, value in returns.items()}
        found.append(estimate({"": averaged(scores, lambda run: run[0]) if several else scores}, mean, seed=seed))
    values, low, high = ([getattr(e, end) for e in found] for end in ("value", "low", "high"))
    sure = None not in low
    return Band(np.array(values), np.array(low) if sure else None, np.array(high) if sure else None)


def _picture(name: str, title: str, caption: str, said: str, figure: Figure) -> Picture:
    from synth_pipeline.plots.style import to_svg

    return Picture(name=name, title=title, caption=caption, alt=f"{title}. {said}", svg=to_svg(figure))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower())
