import numpy as np
import pytest
from toy_data import random_episodes

from synth_pipeline.data.containers import Episodes, Segments, Transitions, concatenate, concatenate_episodes
from synth_pipeline.errors import SourceError, UnknownNameError

# Two episodes of 3 and 2 steps; observations count up, final observations are negative.
BY_HAND = Episodes(
    np.array([[0.0], [1], [2], [10], [11]]),
    np.array([[-3.0], [-12]]),
    np.array([0, 3, 5]),
    {"actions": np.arange(5), "rewards": np.array([1, 2, 3, 4, 5.0]), "terminations": np.zeros(5, bool)},
)


def test_transitions_lengths_must_agree():
    with pytest.raises(SourceError, match="actions: 2"):
        Transitions({"observations": np.zeros((3, 1)), "actions": np.zeros(2)})


def test_transitions_access():
    rows = Transitions({"observations": np.zeros((3, 4), np.float32), "rewards": np.arange(3)})
    assert len(rows) == 3
    assert "rewards" in rows
    assert "actions" not in rows
    with pytest.raises(UnknownNameError, match="did you mean 'rewards'"):
        rows["reward"]
    assert repr(rows).startswith("Transitions(3 rows: observations (4,) float32, rewards ()")
    assert len(Transitions({})) == 0


def test_take_by_slice_index_and_mask():
    rows = Transitions({"a": np.arange(5)})
    assert rows.take(slice(1, 3))["a"].tolist() == [1, 2]
    assert rows.take(np.array([4, 0, 4]))["a"].tolist() == [4, 0, 4]
    assert rows.take(np.arange(5) > 2)["a"].tolist() == [3, 4]
    assert np.shares_memory(rows.take(slice(1, 3))["a"], rows["a"])


def test_with_columns_leaves_the_original():
    rows = Transitions({"a": np.arange(2)})
    assert set(rows.with_columns(b=np.ones(2), a=np.zeros(2)).columns) == {"a", "b"}
    assert rows["a"].tolist() == [0, 1]
    assert "b" not in rows


def test_concatenate_keeps_the_columns_of_the_first():
    first, second = Transitions({"a": np.array([1])}), Transitions({"a": np.array([2, 3]), "b": np.zeros(2)})
    assert concatenate([first, second])["a"].tolist() == [1, 2, 3]
    with pytest.raises(UnknownNameError):
        concatenate([second, first])


@pytest.mark.parametrize("starts", [[0, 3, 4], [1, 3, 5], [0, 3, 3, 5], [0, 4, 3, 5], [0], [], [0, 5, 4]])
def test_starts_that_do_not_partition_the_rows(starts):
    with pytest.raises(SourceError, match="episode starts"):
        Episodes(np.zeros((5, 1)), np.zeros((max(len(starts) - 1, 0), 1)), np.array(starts, np.int64))


def test_episodes_need_one_final_observation_each_and_full_columns():
    with pytest.raises(SourceError, match="1 for 2 episodes"):
        Episodes(np.zeros((5, 1)), np.zeros((1, 1)), np.array([0, 3, 5]))
    with pytest.raises(SourceError, match="column 'rewards'"):
        Episodes(np.zeros((5, 1)), np.zeros((2, 1)), np.array([0, 3, 5]), {"rewards": np.zeros(4)})


@pytest.mark.parametrize("name", ["observations", "next_observations"])
def test_episodes_hold_no_second_version_of_observations(name):
    with pytest.raises(SourceError, match=f"'{name}' cannot be"):
        Episodes(np.zeros((2, 1)), np.zeros((1, 1)), np.array([0, 2]), {name: np.ones((2, 1))})


def test_next_observations_end_in_the_final_one():
    assert BY_HAND.next_observations[:, 0].tolist() == [1, 2, -3, 11, -12]
    assert BY_HAND["next_observations"].tolist() == BY_HAND.next_observations.tolist()
    assert "next_observations" in BY_HAND
    assert BY_HAND.observations[:, 0].tolist() == [0, 1, 2, 10, 11]


def test_lengths_ids_steps_returns():
    assert len(BY_HAND) == 2
    assert BY_HAND.num_rows == 5
    assert BY_HAND.lengths.tolist() == [3, 2]
    assert BY_HAND.episode_ids.tolist() == [0, 0, 0, 1, 1]
    assert BY_HAND.steps.tolist() == [0, 1, 2, 0, 1]
    assert BY_HAND.returns.tolist() == [6, 9]


def test_returns_are_summed_in_float64():
    rewards = np.full(100_000, 0.1, np.float32)
    episodes = Episodes(np.zeros((100_000, 1)), np.zeros((1, 1)), np.array([0, 100_000]), {"rewards": rewards})
    assert episodes.returns[0] == pytest.approx(float(np.float32(0.1)) * 100_000, rel=1e-12)


def test_transitions_of_episodes():
    rows = BY_HAND.transitions()
    assert list(rows.columns) == ["observations", "actions", "rewards", "next_observations", "terminations"]
    assert rows["next_observations"][:, 0].tolist() == [1, 2, -3, 11, -12]


def test_take_by_hand():
    taken = BY_HAND.take(np.array([1, 0, 1]))
    assert taken.observations[:, 0].tolist() == [10, 11, 0, 1, 2, 10, 11]
    assert taken.final_observations[:, 0].tolist() == [-12, -3, -12]
    assert taken.starts.tolist() == [0, 2, 5, 7]
    assert taken["rewards"].tolist() == [4, 5, 1, 2, 3, 4, 5]
    assert len(BY_HAND.take(np.array([False, True]))) == 1


def test_take_nothing():
    empty = BY_HAND.take(np.array([], np.int64))
    assert (len(empty), empty.num_rows) == (0, 0)
    assert empty.returns.shape == (0,)
    assert len(empty.transitions()) == 0


def test_concatenate_episodes_keeps_ends_apart():
    both = concatenate_episodes([BY_HAND, BY_HAND.take(np.array([1]))])
    assert both.starts.tolist() == [0, 3, 5, 7]
    assert both.next_observations[:, 0].tolist() == [1, 2, -3, 11, -12, 11, -12]
    assert both["rewards"].tolist() == [1, 2, 3, 4, 5, 4, 5]


def test_column_that_does_not_exist():
    with pytest.raises(UnknownNameError, match="did you mean 'observations'"):
        BY_HAND["observation"]


def test_reprs_explain_themselves():
    episodes = random_episodes([3, 4])
    assert repr(episodes).startswith("Episodes(2 episodes, 7 rows: observations (3,), actions (2,) float32")
    segments = Segments({"a": np.zeros((2, 5))}, np.ones((2, 5), bool), np.zeros(2, int), np.zeros(2, int))
    assert (len(segments), segments.horizon) == (2, 5)
    assert repr(segments).startswith("Segments(2 x 5: a")
    with pytest.raises(UnknownNameError):
        segments["b"]
