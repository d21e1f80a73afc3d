"""The pictures of a report: what each figure needs is gathered here, and said in words beside it.

A picture that cannot be drawn says why, like a metric that is not decidable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from synth_pipeline.data.containers import Episodes, Integers, Transitions
from synth_pipeline.data.fields import Array, Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.windows import window_starts
from synth_pipeline.validation.c2st import points
from synth_pipeline.validation.marginals import ks_complement
from synth_pipeline.validation.metric import real_halves, subsample
from synth_pipeline.validation.neighbours import STATE_ACTION
from synth_pipeline.validation.picture_files import Picture
from synth_pipeline.validation.trajectories import window_returns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLE = 20_000  # rows of each side behind the overlays, the correlations and the rewards
FEW = 5  # episodes of each side that are drawn over time
MOST = 60  # columns in one picture
CHANNELS = 4  # components of an observation that are drawn over time
DRAWN = ("continuous", "binary", "categorical")


@dataclass(frozen=True)
class _Shown:
    """What the pictures are made from; see `pictures`."""

    real: Dataset
    synthetic: Transitions
    fields: tuple[Field, ...]
    measurements: Mapping[str, Mapping[str, Any]]
    name: str
    controls: Mapping[str, Sequence[Mapping[str, Any]]]
    episodes: Episodes | None
    seed: int

    @property
    def theirs(self) -> Transitions:
        return self.real.transitions()

    @cached_property
    def sampled(self) -> tuple[Transitions, Transitions]:
        """Real and synthetic rows of which a sample is enough."""
        real, synthetic = self.theirs, self.synthetic
        return (
            subsample(real, SAMPLE, seed=self.seed, address=0),
            subsample(synthetic, SAMPLE, seed=self.seed, address=1),
        )

    @cached_property
    def columns(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Column -> finite values of the same samples."""
        real, synthetic = self.sampled
        return _channels(real, self.fields), _channels(synthetic, self.fields)

    def details(self, metric: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.measurements.get(metric, {}).get("details", {})
        return found


Drawing = tuple["Figure", str, str]  # figure, caption, alternative text


def pictures(
    real: Dataset,
    synthetic: Transitions,
    scorecard: Mapping[str, Any],
    fields: tuple[Field, ...],
    *,
    name: str = "synthetic",
    controls: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    episodes: Episodes | None = None,
    seed: int = 0,
) -> list[Picture]:
    """Draw everything that can be drawn.

    Args:
        real: The real data.
        synthetic: A sample of what was judged.
        scorecard: With its `measurements`, as plain JSON.
        fields: Columns that were compared.
        name: What the generator is called.
        controls: Name of a control -> its errors by fifths of novelty, see `novelty.error_at_novelty`.
        episodes: Generated episodes, for tables that hold trajectories.
        seed: Seed of the subsamples.

    Returns:
        In the order of the report; those that could not be drawn have no `svg`, and say why in their caption.
    """
    from synth_pipeline.plots.style import to_svg

    measured = {m["metric"]: m for m in scorecard["measurements"]}
    if not len(real) or not len(synthetic) or measured.get("contract.schema", {}).get("value"):
        why = "one side has no rows, or columns of another shape than they should have"
        return [Picture(name=key, title=title, caption=why) for key, (title, _) in PICTURES.items()]
    shown = _Shown(real, synthetic, fields, measured, name, controls or {}, episodes, seed)
    result = []
    for key, (title, draw) in PICTURES.items():
        drawn = draw(shown)
        if isinstance(drawn, str):
            result.append(Picture(name=key, title=title, caption=drawn))
        else:
            figure, caption, alt = drawn
            result.append(Picture(name=key, title=title, caption=caption, alt=alt, svg=to_svg(figure)))
    return result


def _channels(rows: Transitions, fields: tuple[Field, ...]) -> dict[str, Array]:
    """Column by column, `name` or `name[i]` -> finite values; floats for what is continuous."""
    result = {}
    for f in fields:
        if f.name not in rows or f.kind not in DRAWN:
            continue
        flat = rows[f.name].reshape(len(rows), f.size)
        for channel in range(f.size):
            values = flat[:, channel]
            kept = values[np.isfinite(values)]
            label = f"{f.name}[{channel}]" if f.shape else f.name
            result[label] = kept.astype(np.float64) if f.kind == "continuous" else kept
    return result


def _marginals(shown: _Shown) -> Drawing | str:
    from synth_pipeline.plots.columns import marginals

    real, synthetic = shown.columns
    both = [name for name in real if len(real[name]) and len(synthetic.get(name, ()))]
    if not both:
        return "no column has finite values on both sides"
    scores = shown.details("marginals.mean").get("columns", {})
    least = sorted(both, key=lambda name: scores.get(name, 1.0))[:MOST]
    chosen = f" Of {len(both)} columns, the {MOST} that agree least." if len(both) > MOST else ""
    both = [name for name in both if name in least]
    figure = marginals({n: real[n] for n in both}, {n: synthetic[n] for n in both}, scores=scores)
    caption = (
        "Good: the blue line follows the edge of the grey area. Bad: a missing peak, a shifted or a narrower curve. "
        "The number is the agreement, 1 when identical. "
        f"Values out of view are counted in the first or last bar.{chosen}"
    )
    return figure, caption, f"Distributions of {len(both)} columns, real and synthetic over one another"


def _correlation(shown: _Shown) -> Drawing | str:
    from synth_pipeline.plots.columns import correlation_difference

    fields = [f for f in shown.fields if f.kind in ("continuous", "binary") and f.name in shown.synthetic]
    names = tuple(f.name for f in fields)
    sides = [points(rows, names) for rows in shown.sampled]
    if min(len(side) for side in sides) < 2 or sides[0].shape[1] < 2:
        return "there are not two columns with two finite rows on both sides"
    with np.errstate(all="ignore"):
        theirs, ours = (np.corrcoef(side, rowvar=False) for side in sides)
    difference = np.asarray(np.nan_to_num(ours) - theirs)
    figure = correlation_difference(difference, [(f.name, f.size) for f in fields])
    largest = np.nanmax(np.abs(difference)) if np.isfinite(difference).any() else 0.0
    caption = (
        "Each square is a pair of columns. White: they move together as in real rows. Bad: a coloured square, a "
        f"relation that was lost or made up. The largest difference is {largest:.3f}, of 2 that are possible."
    )
    return figure, caption, f"Matrix of differences between correlations; the largest is {largest:.3f}"


def _embedding(shown: _Shown) -> Drawing | str:
    from synth_pipeline.plots.space import embedding, principal_axes, strayed
    from synth_pipeline.plots.style import percent

    real, ours = points(shown.theirs, STATE_ACTION), points(shown.synthetic, STATE_ACTION)
    if not len(real) or not len(ours) or real.shape[1] < 2:
        return "there are no finite rows, or only one column of states and actions"
    axes = principal_axes(real)
    here, there = axes.project(ours), axes.project(real)
    outside = strayed(there, here)
    figure = embedding(there, here, outside, axes.explained)
    alike = ""
    for halves in real_halves(shown.real, splits=1, seed=shown.seed):
        first, second = (axes.project(points(half, STATE_ACTION)) for half in halves)
        alike = f" (half of the real episodes against the other half: {percent(strayed(first, second).mean())})"
    caption = (
        "States and actions, seen along the two directions in which real rows differ most; what differs along others "
        "is not seen. Bad: grey places without blue, which were left out. Crosses lie where no real row does: "
        f"{percent(outside.mean())} of the synthetic rows{alike}. They are an expansion when the dynamics "
        "hold there, and made up when they do not."
    )
    return figure, caption, f"Map of real and synthetic states and actions; {percent(outside.mean())} lie outside"


def _novelty(shown: _Shown) -> Drawing | str:
    from synth_pipeline.plots.dynamics import error_by_novelty

    fifths = shown.details("oracle.mean").get("error_by_novelty")
    if not fifths:
        return "errors by novelty need an oracle of the dynamics and held-out episodes"
    figure = error_by_novelty({shown.name: fifths, **shown.controls})
    beside = f" Bad: {shown.name} no lower than {' and '.join(shown.controls)}." if shown.controls else ""
    caption = (
        "Rows by how far they are from the nearest training row, cut at the fifths of unseen real rows. What only "
        f"imitates its neighbours rises to the right; what knows the dynamics stays low.{beside} Hollow marks stand "
        "for fewer than 100 rows."
    )
    return figure, caption, f"Error against novelty for {', '.join((shown.name, *shown.controls))}"


def _components(shown: _Shown) -> Drawing | str:
    from synth_pipeline.plots.dynamics import error_by_component

    mean, p99 = (shown.details(f"oracle.{name}").get("columns") for name in ("mean", "p99"))
    if not mean or not p99:
        return "no oracle of the dynamics could judge these rows"
    floor = shown.measurements["oracle.mean"].get("floor")
    references = {"real rows replayed": floor["median"]} if floor else {}
    if (learned := shown.details("oracle.mean").get("learned_floor")) is not None:
        references["learned model"] = learned
    figure = error_by_component(mean, p99, references)
    caption = (
        "Each component of the next state against what the oracle says follows from state and action. 1: as wrong as "
        "to guess the average change. Bad: a full dot far to the right of the others or of the lines."
    )
    worst = max(mean, key=mean.__getitem__)
    return figure, caption, f"Errors of {len(mean)} components; the largest mean is {mean[worst]:.2g}, of {worst}"


def _terminations(shown: _Shown) -> Drawing | str:
    from synth_pipeline.plots.space import terminations
    from synth_pipeline.plots.style import percent

    sides = []
    for rows in (shown.theirs, shown.synthetic):
        if "terminations" not in rows or "next_observations" not in rows:
            return "there are no termination flags"
        flat = np.asarray(rows["next_observations"], np.float64).reshape(len(rows), -1)
        finite = np.isfinite(flat).all(axis=1)
        sides.append((flat[finite], np.asarray(rows["terminations"], bool)[finite]))
    (real, flags), (_, synthetic) = sides
    if not flags.any() or flags.all() or not len(synthetic) or real.shape[1] < 2:
        return "no real row ends its episode, or all do, or there are not two components and finite rows on both sides"
    agreement = [ks_complement(column[flags], column[~flags]) for column in real.T]
    first, second = np.argsort(agreement, kind="stable")[:2]
    maps = [(points[:, [first, second]], ends) for points, ends in sides]
    labels = (f"next_observations[{first}]", f"next_observations[{second}]")
    figure = terminations(maps[0], maps[1], labels)
    caption = (
        "The two components of the next state that tell best where real episodes end. Bad: crosses among the rows that "
        "go on, dots where real episodes always end, or another share of ends."
    )
    return (
        figure,
        caption,
        f"Map of ends: {percent(flags.mean(), 2)} of real rows, {percent(synthetic.mean(), 2)} of others",
    )


def _rewards(shown: _Shown) -> Drawing | str:
    from synth_pipeline.plots.episodes import distributions

    real, synthetic = (side.get("rewards", np.zeros(0)) for side in shown.columns)
    if not len(real) or not len(synthetic):
        return "there are no finite rewards on both sides"
    sides = {"reward of a step": (real, synthetic)}
    steps = shown.details("trajectories.returns").get("steps")
    if steps and shown.episodes is not None and shown.real.episodes is not None:
        both = (shown.real.episodes, 0), (shown.episodes, 1)
        theirs, ours = (window_returns(e, steps, sample=SAMPLE, seed=shown.seed, address=a)[1] for e, a in both)
        sides[f"return of {steps} steps"] = (theirs, ours)
    figure = distributions(sides)
    top = [float(np.quantile(side, 0.95)) for side in (real, synthetic)]
    caption = (
        "On a log scale, since the best and the worst rows are rare. Bad: a blue tail that ends early (the best rows "
        "are left out), or that goes on where grey ends (rewards are made up). The highest 5 % begin at "
        f"{top[0]:.3g} in real and at {top[1]:.3g} in synthetic rows."
    )
    return figure, caption, f"Distribution of {' and '.join(sides)}, real and synthetic over one another"


def _trajectories(shown: _Shown) -> Drawing | str:
    from synth_pipeline.plots.episodes import trajectories

    if shown.episodes is None or shown.real.episodes is None or not len(shown.episodes):
        return "one side holds single transitions, not episodes"
    real, ours = shown.real.episodes, shown.episodes
    length = int(min(ours.lengths.max(), real.lengths.max()))
    theirs = _over_time(real, window_starts(real, length), length)
    caption = (
        "Synthetic episodes, and parts of real ones that are as long. Bad: blue lines that jump, freeze or drift away "
        "where grey ones are smooth; blue lines that are all alike."
    )
    figure = trajectories(theirs, _over_time(ours, ours.starts[:-1], length))
    return figure, caption, f"A few real and synthetic episodes over {length} steps"


def _over_time(episodes: Episodes, starts: Integers, length: int) -> list[dict[str, Array]]:
    """Channel -> values of a few parts, evenly spaced among those that begin at these rows; none crosses an episode."""
    chosen = starts[np.linspace(0, len(starts) - 1, min(FEW, len(starts))).astype(int)]
    ends = episodes.starts[np.searchsorted(episodes.starts, chosen, side="right")]
    result = []
    for start, end in zip(chosen, ends, strict=True):
        rows = slice(start, min(start + length, end))
        flat = episodes.observations[rows].reshape(rows.stop - start, -1)
        shown = {f"observations[{i}]": flat[:, i] for i in range(min(CHANNELS, flat.shape[1]))}
        result.append({**shown, "rewards": episodes["rewards"][rows]} if "rewards" in episodes else shown)
    return result


def _growth(shown: _Shown) -> Drawing | str:
    from synth_pipeline.plots.dynamics import error_growth

    details = shown.details("trajectories.error_growth")
    if "curve" not in details:
        return str(details.get("why", "no trajectories were followed"))
    ours, real = ({int(k): error for k, error in details[name].items()} for name in ("curve", "real curve"))
    figure = error_growth(ours, real, name=shown.name)
    caption = (
        "How far a generated trajectory is from what its own actions lead to, after 1 step and after several (1: "
        "the variance of the real change over as many steps). Bad: far above the real rows, or rising steeply."
    )
    return figure, caption, f"Error of {shown.name} and of real rows after {', '.join(map(str, ours))} steps"


PICTURES: dict[str, tuple[str, Callable[[_Shown], Drawing | str]]] = {
    "marginals": ("Every column by itself", _marginals),
    "correlation": ("How columns move together", _correlation),
    "embedding": ("Where the rows lie", _embedding),
    "components": ("Error of the next state, by component", _components),
    "novelty": ("Error against novelty", _novelty),
    "growth": ("How errors grow", _growth),
    "terminations": ("Where episodes end", _terminations),
    "rewards": ("Rewards", _rewards),
    "trajectories": ("Episodes over time", _trajectories),
}
