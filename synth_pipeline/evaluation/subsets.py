"""Draws of a smaller dataset: whole episodes in random order, so that small data are what little collecting gives."""

from __future__ import annotations

import numpy as np

from synth_pipeline.data.containers import Episodes, concatenate_episodes
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
    order = stream(seed, Stage.EVALUATE, 0, draw).permutation(len(episodes))
    ends = np.cumsum(episodes.lengths[order])
    count = int(np.searchsorted(ends, rows)) + 1
    whole, last = order[: count - 1], order[count - 1]
    left = rows - (int(ends[count - 2]) if count > 1 else 0)
    parts = [episodes.take(whole)] if count > 1 else []
    subset = concatenate_episodes([*parts, cut(episodes.take(np.array([last])), left)])
    rest = order[count:]
    found = Dataset(data.spec, subset)
    return found, Dataset(data.spec, episodes.take(np.sort(rest))) if len(rest) else None


def cut(episode: Episodes, steps: int) -> Episodes:
    """The first steps of a single episode; a shorter one ends in a truncation."""
    if steps >= episode.num_rows:
        return episode
    columns = {name: column[:steps].copy() for name, column in episode.columns.items()}
    columns |= {"truncations": np.arange(steps) == steps - 1} if "truncations" in columns else {}
    final = episode.observations[steps : steps + 1]
    return Episodes(episode.observations[:steps], final, np.array([0, steps]), columns)
