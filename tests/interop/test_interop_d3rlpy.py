"""d3rlpy sees exactly our transitions: counter datasets whose correct answer is known."""

import d3rlpy
import numpy as np
import pytest
from export_suite import counter_episodes, counter_rows

from synth_pipeline.export.converters import to_d3rlpy

pytestmark = pytest.mark.interop


def transitions(dataset):
    """Every transition that d3rlpy can sample, by its own picker."""
    picker = d3rlpy.dataset.BasicTransitionPicker()
    return [picker(episode, index) for episode in dataset.buffer.episodes for index in range(episode.transition_count)]


def check(found, rows, kept):
    """The found transitions are the rows `kept`, in order; a terminal one has no next state."""
    assert len(found) == len(kept)
    for transition, row in zip(found, kept, strict=True):
        np.testing.assert_array_equal(transition.observation, rows["observations"][row])
        np.testing.assert_array_equal(transition.action, np.atleast_1d(rows["actions"][row]))
        np.testing.assert_array_equal(transition.reward, rows["rewards"][row : row + 1])
        assert transition.terminal == rows["terminations"][row]
        if not transition.terminal:
            np.testing.assert_array_equal(transition.next_observation, rows["next_observations"][row])


def test_episodes_align():
    """The last step before a time limit is the one that d3rlpy cannot use."""
    episodes = counter_episodes([3, 4, 2, 5])
    dataset = to_d3rlpy(episodes)
    lost = [6, 13]
    check(transitions(dataset), episodes.transitions(), [row for row in range(14) if row not in lost])
    assert [episode.size() for episode in dataset.buffer.episodes] == [3, 4, 2, 5]
    assert [episode.compute_return() for episode in dataset.buffer.episodes] == episodes.returns.tolist()


def test_an_episode_that_ends_without_a_mark_is_kept():
    """d3rlpy drops rows after the last mark; every end is marked here."""
    episodes = counter_episodes([3, 4])
    episodes["truncations"][:] = False
    assert [episode.size() for episode in to_d3rlpy(episodes).buffer.episodes] == [3, 4]


def test_a_step_that_terminates_at_the_time_limit_terminates():
    """d3rlpy refuses both flags on one step."""
    episodes = counter_episodes([3])
    episodes["truncations"][-1] = True
    assert [episode.terminated for episode in to_d3rlpy(episodes).buffer.episodes] == [True]


@pytest.mark.parametrize("count", [1, 2, 10])
def test_single_transitions_are_all_there(count):
    rows = counter_rows(count)
    check(transitions(to_d3rlpy(rows)), rows, range(count))


def test_single_transitions_that_all_terminate_or_none():
    rows = counter_rows(4)
    for flag in (True, False):
        same = rows.with_columns(terminations=np.full(4, flag))
        check(transitions(to_d3rlpy(same)), same, range(4))


def test_discrete_actions():
    rows = counter_rows(6).with_columns(actions=np.array([0, 2, 1, 0, 2, 1]))
    dataset = to_d3rlpy(rows, num_actions=4)
    assert dataset.dataset_info.action_space == d3rlpy.ActionSpace.DISCRETE
    assert dataset.dataset_info.action_size == 4
    assert to_d3rlpy(rows).dataset_info.action_size == 3
    check(transitions(dataset), rows, range(6))


def test_whole_numbers_do_not_make_continuous_actions_discrete():
    """Left alone, d3rlpy takes float actions that happen to be integers for discrete ones."""
    rows = counter_rows(5).with_columns(actions=np.float32([[1], [-1], [1], [0], [1]]))
    assert to_d3rlpy(rows).dataset_info.action_space == d3rlpy.ActionSpace.CONTINUOUS


def test_an_algorithm_trains(tmp_path):
    dataset = to_d3rlpy(counter_rows(64))
    algorithm = d3rlpy.algos.TD3PlusBCConfig(batch_size=16).create(device="cpu:0")
    algorithm.build_with_dataset(dataset)
    losses = algorithm.update(dataset.sample_transition_batch(16))
    assert all(np.isfinite(value) for value in losses.values())
