import numpy as np
import pytest

from synth_pipeline.data.d4rl import breaks, qlearning_transitions, starts_of, to_episodes
from synth_pipeline.errors import SourceError


def flat(lengths, *, terminal=(), timeout=(), following=False):
    """Episodes of the given lengths; observations are 10 e + t. `terminal` and `timeout` name episodes."""
    rows = [(e, t) for e, length in enumerate(lengths) for t in range(length)]
    observations = np.array([[10.0 * e + t] for e, t in rows], np.float32)
    last = np.cumsum(lengths) - 1
    terminals, timeouts = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    terminals[last[list(terminal)]] = True
    timeouts[last[list(timeout)]] = True
    columns = {"observations": observations, "rewards": np.arange(len(rows), dtype=np.float32)}
    if following:
        columns["next_observations"] = observations + 1
    return {**columns, "terminals": terminals, "timeouts": timeouts}


def pairs(transitions):
    return list(zip(transitions["observations"][:, 0], transitions["next_observations"][:, 0], strict=True))


def test_pairs_stay_inside_their_episode():
    rows = qlearning_transitions(flat([3, 2, 3], timeout=[0, 1, 2]))
    assert pairs(rows) == [(0, 1), (1, 2), (10, 11), (20, 21), (21, 22)]


def test_the_last_step_of_a_time_limit_is_dropped_with_its_reward():
    rows = qlearning_transitions(flat([3, 2], timeout=[0], terminal=[1]))
    np.testing.assert_array_equal(rows["rewards"], [0, 1, 3, 4])


def test_terminal_steps_are_kept_and_never_point_into_the_following_episode():
    rows = qlearning_transitions(flat([2, 2], terminal=[0, 1]))
    assert pairs(rows) == [(0, 1), (1, 1), (10, 11), (11, 11)]
    np.testing.assert_array_equal(rows["terminations"], [False, True, False, True])
    assert not rows["truncations"].any()


def test_the_unfinished_episode_at_the_end_is_a_truncation():
    episodes = to_episodes(flat([2, 3], terminal=[0]))
    np.testing.assert_array_equal(episodes["truncations"], [False, False, False, True])
    np.testing.assert_array_equal(episodes["terminations"], [False, True, False, False])
    np.testing.assert_array_equal(episodes.final_observations[:, 0], [1, 12])


def test_an_episode_of_one_step_that_is_cut_leaves_nothing():
    episodes = to_episodes(flat([1, 3, 1, 1], timeout=[0, 1, 2], terminal=[3]))
    assert pairs(episodes.transitions()) == [(10, 11), (11, 12), (30, 30)]
    np.testing.assert_array_equal(episodes.starts, [0, 2, 3])


def test_a_terminal_on_the_time_limit_counts_as_terminal():
    episodes = to_episodes(flat([2, 2], terminal=[0], timeout=[0, 1]))
    assert pairs(episodes.transitions()) == [(0, 1), (1, 1), (10, 11)]
    np.testing.assert_array_equal(episodes["truncations"], [False, True, True])


def test_with_next_observations_nothing_is_dropped():
    episodes = to_episodes(flat([3, 1, 2], timeout=[0, 1], following=True))
    assert pairs(episodes.transitions()) == [(0, 1), (1, 2), (2, 3), (10, 11), (20, 21), (21, 22)]
    np.testing.assert_array_equal(episodes.starts, [0, 3, 4, 6])
    np.testing.assert_array_equal(episodes["truncations"], [False, False, True, True, False, True])


def test_next_observations_show_time_limits_that_are_not_marked():
    episodes = to_episodes(flat([3, 2, 2], terminal=[1], following=True))
    np.testing.assert_array_equal(episodes.starts, [0, 3, 5, 7])
    np.testing.assert_array_equal(episodes["truncations"], [False, False, True, False, False, False, True])


def test_the_horizon_marks_the_time_limits_of_old_files():
    columns = flat([4, 2, 4, 3], terminal=[1])
    del columns["timeouts"]
    episodes = to_episodes(columns, horizon=4)
    assert pairs(episodes.transitions()) == [(0, 1), (1, 2), (2, 3), (10, 11), (11, 11), (20, 21), (21, 22), (22, 23),
                                             (30, 31), (31, 32)]  # fmt: skip


def test_unmarked_time_limits_are_not_guessed():
    columns = flat([4, 4])
    del columns["timeouts"]
    with pytest.raises(SourceError, match=r"marks the time limits(?s:.*)pass horizon="):
        to_episodes(columns)


def test_nothing_left_is_an_error():
    with pytest.raises(SourceError, match="single step"):
        to_episodes(flat([1, 1], timeout=[0, 1]))
    with pytest.raises(SourceError, match="no rows"):
        to_episodes({name: column[:0] for name, column in flat([2]).items()})


def test_the_arrays_are_not_changed():
    columns = flat([3, 2], timeout=[0])
    before = {name: column.copy() for name, column in columns.items()}
    to_episodes(columns)
    to_episodes({**columns, "next_observations": columns["observations"] + 1})
    for name, column in before.items():
        np.testing.assert_array_equal(columns[name], column)


def test_breaks_are_found_across_blocks(monkeypatch):
    monkeypatch.setattr("synth_pipeline.data.d4rl._BLOCK", 3)
    columns = flat([4, 1, 5, 2], following=True)
    found = breaks(columns["observations"], columns["next_observations"])
    np.testing.assert_array_equal(starts_of(found), [0, 4, 5, 10, 12])
