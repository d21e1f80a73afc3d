import numpy as np
import pytest
from toy_data import random_episodes

from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.windows import gather, returns_to_go, segments, window_starts
from synth_pipeline.errors import ConfigError, UnknownNameError

FIVE_AND_TWO = random_episodes([5, 2])


def test_the_picture_of_the_docstring():
    assert window_starts(FIVE_AND_TWO, 3).tolist() == [0, 1, 2]
    assert window_starts(FIVE_AND_TWO, 3, pad=True).tolist() == [0, 1, 2, 3, 4, 5, 6]
    windows = segments(FIVE_AND_TWO, 3, pad=True)
    assert windows.mask.astype(int).tolist() == [
        [1, 1, 1],
        [1, 1, 1],
        [1, 1, 1],
        [1, 1, 0],
        [1, 0, 0],
        [1, 1, 0],
        [1, 0, 0],
    ]
    assert windows.episode_ids.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert windows.steps.tolist() == [0, 1, 2, 3, 4, 0, 1]


def test_stride_counts_from_the_start_of_each_episode():
    assert window_starts(random_episodes([5, 4]), 2, stride=2).tolist() == [0, 2, 5, 7]


def test_no_window_fits():
    windows = segments(FIVE_AND_TWO, 6)
    assert len(windows) == 0
    assert windows["observations"].shape == (0, 6, 3)


def test_masked_entries_are_zero_even_beside_infinity():
    episodes = Episodes(
        np.array([[np.inf], [1.0]]),
        np.array([[2.0]]),
        np.array([0, 2]),
        {"flag": np.ones(2, bool), "k": np.array([3, 4])},
    )
    windows = gather(episodes, np.array([0, 1]), 3)
    assert windows["observations"][0, :, 0].tolist() == [np.inf, 1, 0]
    assert windows["observations"][1, :, 0].tolist() == [1, 0, 0]
    assert windows["flag"].tolist() == [[True, True, False], [True, False, False]]
    assert windows["k"].tolist() == [[3, 4, 0], [4, 0, 0]]
    assert (windows["flag"].dtype, windows["k"].dtype) == (bool, np.int64)


def test_next_observations_of_a_window_end_in_the_final_one():
    windows = segments(FIVE_AND_TWO, 2)
    assert np.array_equal(windows["next_observations"][3, 1], FIVE_AND_TWO.final_observations[0])
    assert np.array_equal(windows["next_observations"][4, 1], FIVE_AND_TWO.final_observations[1])


@pytest.mark.parametrize(("horizon", "stride"), [(0, 1), (-1, 1), (1, 0)])
def test_impossible_windows(horizon, stride):
    with pytest.raises(ConfigError, match="at least 1"):
        window_starts(FIVE_AND_TWO, horizon, stride=stride)


def test_returns_to_go_by_hand():
    episodes = Episodes(
        np.zeros((5, 1)), np.zeros((2, 1)), np.array([0, 3, 5]), {"rewards": np.array([1, 2, 4, 8, 16], np.float32)}
    )
    assert returns_to_go(episodes).tolist() == [7, 6, 4, 24, 16]
    assert returns_to_go(episodes, 0.5).tolist() == [3, 4, 4, 16, 16]
    assert returns_to_go(episodes, 0.0).tolist() == [1, 2, 4, 8, 16]


def test_returns_to_go_of_nothing():
    assert returns_to_go(FIVE_AND_TWO.take(np.array([], np.int64))).shape == (0,)


@pytest.mark.parametrize("discount", [-0.1, 1.1, float("nan")])
def test_impossible_discounts(discount):
    with pytest.raises(ConfigError, match=r"\[0, 1\]"):
        returns_to_go(FIVE_AND_TWO, discount)


def test_returns_to_go_need_rewards():
    with pytest.raises(UnknownNameError):
        returns_to_go(Episodes(np.zeros((2, 1)), np.zeros((1, 1)), np.array([0, 2])))
