"""Draws of a smaller dataset: whole episodes in random order, so that small data are what little collecting gives.

Where the data say by whom an episode was collected (the column `behaviour` of ours), a draw has all of them in the
shares of the whole, as far as whole episodes allow: a tenth of expert rows is one long episode of twenty, and left to
chance one draw in three has none.
"""

from __future__ import annotations

import numpy as np

from synth_pipeline.data.containers import Episodes, Integers, concatenate_episodes
from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import ConfigError, SourceError
from synth_pipeline.seeding import Stage, stream


def draw_subset(data: Dataset, rows: int | None, *, draw: int, seed: int = 0) -> tuple[Dataset, Dataset | None]:
    """A subset of exactly `rows` rows, and the episodes that it does not touch.

    Args:
        data: Where from; its episodes are independent.
        rows: Size; None: everything, and nothing is left.
        draw: Number of the draw; draws are independent, and nested over sizes: the smaller lies within the larger.
        seed: Seed of the study.

    Returns:
        The subset, whose last episode is cut to fit and ends in a truncation, and the rest (None: no episode).

    Raises:
        SourceError: When the data have no episodes.
        ConfigError: When they have fewer rows.
    """
    if rows is None:
        return data, None
    episodes = data.episodes
    if episodes is None:
        raise SourceError("subsets are drawn by episode", found="rows without episodes", fix="use all rows")
    if not 1 <= rows <= episodes.num_rows:
        raise ConfigError(
            "there are not so many rows to draw from", found=f"{rows:,}", accepted=f"1 to {episodes.num_rows:,}"
        )
    order = _order(episodes, stream(seed, Stage.EVALUATE, 0, draw))
    ends = np.cumsum(episodes.lengths[order])
    count = int(np.searchsorted(ends, rows)) + 1
    whole, last = order[: count - 1], order[count - 1]
    left = rows - (int(ends[count - 2]) if count > 1 else 0)
    parts = [episodes.take(whole)] if count > 1 else []
    subset = concatenate_episodes([*parts, cut(episodes.take(np.array([last])), left)])
    rest = order[count:]
    found = Dataset(data.spec, subset)
    return found, Dataset(data.spec, episodes.take(np.sort(rest))) if len(rest) else None


def _order(episodes: Episodes, rng: np.random.Generator) -> Integers:
    """Episodes at random; of n of one behaviour, the i-th stands at (i + u) / n of the way, with one u for all."""
    order = rng.permutation(len(episodes))
    if "behaviour" not in episodes.columns:
        return order
    behaviours = episodes["behaviour"][episodes.starts[:-1]][order]
    places = np.empty(len(order))
    for behaviour in np.unique(behaviours):
        own = np.flatnonzero(behaviours == behaviour)
        places[own] = (np.arange(len(own)) + rng.random()) / len(own)
    return order[np.argsort(places, kind="stable")]


def cut(episode: Episodes, steps: int) -> Episodes:
    """The first steps of a single episode; a shorter one ends in a truncation."""
    if steps >= episode.num_rows:
        return episode
    columns = {name: column[:steps].copy() for name, column in episode.columns.items()}
    columns |= {"truncations": np.arange(steps) == steps - 1} if "truncations" in columns else {}
    final = episode.observations[steps : steps + 1]
    return Episodes(episode.observations[:steps], final, np.array([0, steps]), columns)
