"""The episode split: a tenth of the episodes is held out, so that novelty can be judged at all.

Row-wise halves leak neighbours of the same episode into both sides; floors and novelty use episodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synth_pipeline.data.containers import Integers
from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import ConfigError
from synth_pipeline.seeding import Stage, stream

HELD_OUT = 0.1


@dataclass(frozen=True)
class Split:
    """Episode ids of both sides, each sorted.

    Attributes:
        train: Episodes that generators and agents may see.
        held_out: Episodes that only validation sees.
    """

    train: Integers
    held_out: Integers


def split_episodes(num_episodes: int, *, fraction: float = HELD_OUT, seed: int = 0) -> Split:
    """Hold out a seeded share of the episodes, at least one.

    Args:
        num_episodes: How many there are.
        fraction: Share to hold out, in (0, 1).
        seed: Seed of the run.

    Raises:
        ConfigError: With fewer than two episodes, where nothing can be held out, or a share outside (0, 1).
    """
    if not 0.0 < fraction < 1.0:
        raise ConfigError("the held-out share must lie between 0 and 1", found=fraction, fix="--set held_out=0.1")
    if num_episodes < 2:
        raise ConfigError(
            "one episode cannot be split",
            found=f"{num_episodes} episodes",
            accepted="at least 2",
            fix="use more episodes, or train without a held-out part (novelty is then not decidable)",
        )
    count = min(max(1, round(fraction * num_episodes)), num_episodes - 1)
    order = stream(seed, Stage.SPLIT).permutation(num_episodes)
    return Split(np.sort(order[count:]), np.sort(order[:count]))


@dataclass(frozen=True)
class SplitData:
    """Both sides of a dataset; `held_out` and `split` are None when there are no episodes to split by."""

    train: Dataset
    held_out: Dataset | None
    split: Split | None


def split_dataset(dataset: Dataset, *, fraction: float = HELD_OUT, seed: int = 0) -> SplitData:
    """A part to train on and a part held out by episode.

    Data without episodes, or with a single one, is not split: every row trains, and novelty is not decidable.
    """
    episodes = dataset.episodes
    if episodes is None or len(episodes) < 2:
        return SplitData(dataset, None, None)
    split = split_episodes(len(episodes), fraction=fraction, seed=seed)
    original = np.arange(len(episodes)) if dataset.episode_ids is None else dataset.episode_ids
    train, held_out = (
        Dataset(dataset.spec, episodes.take(ids), episode_ids=original[ids]) for ids in (split.train, split.held_out)
    )
    return SplitData(train, held_out, split)
