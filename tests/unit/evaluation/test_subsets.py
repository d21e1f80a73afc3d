"""Subsets: exact sizes, whole episodes, nesting over sizes, nothing shared with the rest."""

import numpy as np
import pytest
from toy_data import SPEC, random_episodes, toy_dataset, toy_rows

from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.errors import ConfigError, SourceError
from synth_pipeline.evaluation.subsets import draw_subset


def keys(data):
    return {row.tobytes() for row in data.transitions()["observations"]}


@pytest.mark.parametrize("rows", [1, 20, 57, 146, 147])
def test_a_subset_has_the_size_asked_for_and_shares_nothing_with_the_rest(rows):
    data = toy_dataset()
    subset, rest = draw_subset(data, rows, draw=3)
    assert len(subset) == rows
    assert keys(subset) <= keys(data)
    if rest is not None:
        assert not keys(subset) & keys(rest)
        assert all(length in data.episodes.lengths for length in rest.episodes.lengths)


def test_only_the_last_episode_is_cut_and_it_ends_in_a_truncation_with_the_right_next_state():
    data = toy_dataset()
    subset, _ = draw_subset(data, 50, draw=0)
    whole = {tuple(e) for e in data.episodes.observations[data.episodes.starts[:-1]]}
    assert {tuple(e) for e in subset.episodes.observations[subset.episodes.starts[:-1]]} <= whole
    *before, last = subset.episodes.lengths
    assert set(before) <= set(data.episodes.lengths)
    found = {
        row.tobytes(): n
        for row, n in zip(data.transitions()["observations"], data.transitions()["next_observations"], strict=True)
    }
    for row, following in zip(
        subset.transitions()["observations"], subset.transitions()["next_observations"], strict=True
    ):
        assert np.array_equal(found[row.tobytes()], following)
    if last not in data.episodes.lengths:
        assert subset.episodes["truncations"][-1]
        assert not subset.episodes["terminations"][-1]


def test_draws_differ_and_the_smaller_lies_in_the_larger():
    data = toy_dataset()
    small, large = (draw_subset(data, rows, draw=1)[0] for rows in (30, 90))
    assert keys(small) < keys(large)
    assert keys(small) != keys(draw_subset(data, 30, draw=2)[0])


def test_all_rows_are_the_data_themselves():
    data = toy_dataset()
    assert draw_subset(data, None, draw=0) == (data, None)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ConfigError, match="1 to 147"):
        draw_subset(toy_dataset(), 148, draw=0)
    with pytest.raises(SourceError, match="by episode"):
        draw_subset(toy_rows(), 10, draw=0)


def test_a_draw_has_every_behaviour_in_its_share():
    """30 episodes of one behaviour among 600 of another: a draw of 21 has one, or two where the last is cut."""
    kinds = np.random.default_rng(0).permutation(np.repeat([3, 8], [600, 30]))
    plain = random_episodes(np.full(630, 4))
    columns = {**plain.columns, "behaviour": np.repeat(kinds, 4)}
    spec = DatasetSpec(dataset_id="toy/mixed", fields=(*SPEC.fields, Field(name="behaviour", kind="index")))
    data = Dataset(spec, Episodes(plain.observations, plain.final_observations, plain.starts, columns))
    counts, first = [], []
    for draw in range(20):
        subset, rest = draw_subset(data, 21 * 4, draw=draw)
        counts.append(np.sum(subset.episodes["behaviour"] == 8) / 4)
        first.append(int(np.flatnonzero(subset.episodes["behaviour"] == 8)[0] // 4))
        assert len(subset) + len(rest) == len(data)
        assert not keys(subset) & keys(rest)
    assert counts == [1] * 20
    assert len(set(first)) > 5, "where it stands is drawn"
