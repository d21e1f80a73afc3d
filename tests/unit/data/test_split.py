import numpy as np
import pytest
from toy_data import toy_dataset, toy_rows

from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.split import Fold, folded_episodes, split_dataset, split_episodes
from synth_pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("episodes", "fraction", "held_out"), [(2, 0.1, 1), (10, 0.1, 1), (100, 0.1, 10), (3, 0.99, 2), (7, 0.5, 4)]
)
def test_how_many_are_held_out(episodes, fraction, held_out):
    split = split_episodes(episodes, fraction=fraction)
    assert len(split.held_out) == held_out
    assert len(split.train) == episodes - held_out


def test_the_choice_is_seeded_and_spread():
    assert split_episodes(100, seed=1).held_out.tolist() == split_episodes(100, seed=1).held_out.tolist()
    chosen = {tuple(split_episodes(100, seed=seed).held_out.tolist()) for seed in range(20)}
    assert len(chosen) == 20
    share = np.bincount(np.concatenate([split_episodes(10, seed=s).held_out for s in range(1000)]), minlength=10)
    assert share.min() > 60  # every episode is held out about a hundred times in a thousand


def test_the_choice_never_changes():
    """Held-out episodes are part of the identity of every trained model."""
    assert split_episodes(30, seed=5).held_out.tolist() == [7, 10, 18]


@pytest.mark.parametrize(("episodes", "parts"), [(5, 5), (17, 5), (100, 2)])
def test_every_episode_is_held_out_in_one_part(episodes, parts):
    folds = [folded_episodes(episodes, Fold(part, parts), seed=2) for part in range(parts)]
    assert sorted(np.concatenate([fold.held_out for fold in folds])) == list(range(episodes))
    sizes = [len(fold.held_out) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for fold in folds:
        assert sorted([*fold.train, *fold.held_out]) == list(range(episodes))
        assert np.array_equal(fold.held_out, np.sort(fold.held_out))
    assert episodes < 10 or folds[0].held_out.tolist() != list(range(0, episodes, parts)), "in random order"


def test_a_dataset_is_split_by_a_part():
    dataset = toy_dataset()
    parts = split_dataset(dataset, held_out=Fold(1, 2), seed=3)
    assert parts.split.held_out.tolist() == folded_episodes(len(dataset.episodes), Fold(1, 2), seed=3).held_out.tolist()
    assert parts.held_out.episode_ids.tolist() == parts.split.held_out.tolist()


@pytest.mark.parametrize(("episodes", "parts"), [(4, 5), (5, 1), (0, 2)])
def test_parts_that_cannot_be_held_out_in_turn(episodes, parts):
    with pytest.raises(ConfigError, match="cannot be held out in turn"):
        folded_episodes(episodes, Fold(0, parts))


def test_rows_without_episodes_have_no_parts():
    rows = toy_rows()
    assert split_dataset(rows).held_out is None
    with pytest.raises(ConfigError, match="without episodes"):
        split_dataset(rows, held_out=Fold(0, 5))


@pytest.mark.parametrize("episodes", [0, 1])
def test_what_cannot_be_split(episodes):
    with pytest.raises(ConfigError, match="cannot be split"):
        split_episodes(episodes)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_impossible_shares(fraction):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split_episodes(10, fraction=fraction)


def test_both_sides_hold_whole_episodes():
    dataset = toy_dataset()
    parts = split_dataset(dataset, held_out=0.4, seed=3)
    assert len(parts.train) + len(parts.held_out) == len(dataset)
    for side, ids in ((parts.train, parts.split.train), (parts.held_out, parts.split.held_out)):
        assert side.spec is dataset.spec
        assert side.episode_ids.tolist() == ids.tolist()
        for position, episode in enumerate(ids):
            expected = dataset.episodes.take(np.array([episode]))
            found = side.episodes.take(np.array([position]))
            assert np.array_equal(found.observations, expected.observations)
            assert np.array_equal(found.final_observations, expected.final_observations)
            assert np.array_equal(found["rewards"], expected["rewards"])


def test_splitting_a_part_keeps_the_ids_of_the_whole():
    first = split_dataset(toy_dataset(), held_out=0.4, seed=3)
    second = split_dataset(first.train, held_out=0.4, seed=4)
    assert set(second.train.episode_ids) | set(second.held_out.episode_ids) == set(first.split.train)


def test_without_episodes_nothing_is_held_out():
    for dataset in (toy_rows(), toy_dataset(lengths=(9,))):
        parts = split_dataset(dataset)
        assert parts.train is dataset
        assert parts.held_out is None
        assert parts.split is None


def test_a_split_shares_no_memory_with_the_dataset():
    dataset = toy_dataset()
    parts = split_dataset(dataset)
    assert not np.shares_memory(parts.train.episodes.observations, dataset.episodes.observations)
    assert isinstance(parts.train, Dataset)
