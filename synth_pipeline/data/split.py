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


@dataclass(frozen=True)
class Fold:
    """One of several parts of the episodes that are held out in turn, so that each is once.

    Attributes:
        part: Which, from 0.
        parts: How many.
    """

    part: int
    parts: int


HeldOut = float | tuple[int, ...] | Fold  # a share of the episodes, their ids, or a part of them in its turn


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


def chosen_episodes(num_episodes: int, held_out: tuple[int, ...]) -> Split:
    """Hold out the episodes with given ids.

    Raises:
        ConfigError: When there is no such episode, or none is left to train on.
    """
    ids = np.unique(np.array(held_out, np.int64))
    if not len(ids) or len(ids) >= num_episodes or ids[0] < 0 or ids[-1] >= num_episodes:
        raise ConfigError(
            "these episodes cannot be held out",
            found=f"{len(ids)} ids{f' from {ids[0]} to {ids[-1]}' if len(ids) else ''}",
            accepted=f"some of the ids 0 to {num_episodes - 1}, not all",
            fix="--set held_out=0.1",
        )
    return Split(np.setdiff1d(np.arange(num_episodes), ids), ids)


def folded_episodes(num_episodes: int, fold: Fold, *, seed: int = 0) -> Split:
    """Hold out one of equal parts of the episodes, dealt in random order.

    Raises:
        ConfigError: With fewer episodes than parts, or fewer than two parts.
    """
    if not 2 <= fold.parts <= num_episodes:
        raise ConfigError(
            f"{fold.parts} parts of the episodes cannot be held out in turn",
            found=f"{num_episodes} episodes",
            accepted="2 parts or more, and no more than episodes",
            fix="collect more episodes, or ask for fewer draws",
        )
    ids = np.sort(stream(seed, Stage.SPLIT, 1).permutation(num_episodes)[fold.part :: fold.parts])
    return Split(np.setdiff1d(np.arange(num_episodes), ids), ids)


def grown_split(
    held_out: Integers, before: int, num_episodes: int, *, fraction: float = HELD_OUT, seed: int = 0
) -> Split:
    """The split of episodes that were added to: old ones stay on their side, a share of the new ones is held out.

    Args:
        held_out: Ids that were held out of the first `before` episodes.
        before: How many episodes there were.
        num_episodes: How many there are.
        fraction: Share of the new ones to hold out; one new episode is trained on.
        seed: Seed of the run.
    """
    new = num_episodes - before
    fresh = split_episodes(new, fraction=fraction, seed=seed).held_out if new > 1 else np.zeros(0, np.int64)
    ids = np.union1d(held_out, before + fresh)
    return Split(np.setdiff1d(np.arange(num_episodes), ids), ids)


def split_dataset(dataset: Dataset, *, held_out: HeldOut = HELD_OUT, seed: int = 0) -> SplitData:
    """A part to train on and a part held out by episode.

    Data without episodes, or with a single one, is not split: every row trains, and novelty is not decidable. They
    have no parts that take turns: each training would be of the same rows.

    Args:
        dataset: What is split.
        held_out: Share of the episodes, drawn by the seed; their ids; or a part of them in its turn.
        seed: Seed of the run.

    Raises:
        ConfigError: When these episodes cannot be held out.
    """
    episodes = dataset.episodes
    if not isinstance(held_out, Fold) and (episodes is None or len(episodes) < 2):
        return SplitData(dataset, None, None)
    if episodes is None:
        raise ConfigError("rows without episodes have no parts to hold out in turn", fix="data with whole episodes")
    if isinstance(held_out, Fold):
        split = folded_episodes(len(episodes), held_out, seed=seed)
    elif isinstance(held_out, tuple):
        split = chosen_episodes(len(episodes), held_out)
    else:
        split = split_episodes(len(episodes), fraction=held_out, seed=seed)
    original = np.arange(len(episodes)) if dataset.episode_ids is None else dataset.episode_ids
    train, unseen = (
        Dataset(dataset.spec, episodes.take(ids), episode_ids=original[ids]) for ids in (split.train, split.held_out)
    )
    return SplitData(train, unseen, split)
