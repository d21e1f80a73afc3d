"""Bugs found in other people's code about data: one short test each, that ours must pass."""

import numpy as np
from toy_data import random_episodes, toy_dataset

from synth_pipeline import envs
from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.normalize import MinMax, Standard
from synth_pipeline.data.split import split_episodes
from synth_pipeline.data.windows import returns_to_go, segments
from synth_pipeline.validation.metric import real_halves


def test_a_constant_column_does_not_widen_the_others():
    """MTDiff, `SafeLimitsNormalizer`: one constant column shifted the limits of every column by one."""
    x = np.stack([np.linspace(0, 0.1, 50), np.full(50, 3.0)], axis=1)
    z = MinMax.fit(x).encode(x)
    assert (z[:, 0].min(), z[:, 0].max()) == (-1, 1)
    assert (z[:, 1] == 0).all()


def test_padding_is_masked_and_never_normalised_as_data():
    """DiffStitch and MTDiff: episodes were padded with zeros before the normaliser was fitted, and trained on."""
    episodes = random_episodes([7, 3])
    shifted = Episodes(episodes.observations + 100, episodes.final_observations + 100, episodes.starts)
    windows = segments(shifted, 5, pad=True)
    assert (windows["observations"][~windows.mask] == 0).all()
    assert (windows["observations"][windows.mask] > 50).all()
    fitted = Standard.fit(windows["observations"][windows.mask])
    assert (fitted.shift > 50).all()


def test_a_time_limit_is_not_a_terminal():
    """DIPO, CORL's %BC and `return_reward_range`: timeouts were stored as terminals, or ended no trajectory at all."""
    episodes = random_episodes([4, 5, 6])  # terminated, truncated, terminated
    rows = episodes.transitions()
    assert np.flatnonzero(rows["terminations"]).tolist() == [3, 14]
    assert np.flatnonzero(rows["truncations"]).tolist() == [8]
    assert len(episodes.returns) == 3


def test_episodes_keep_their_own_length():
    """CORL's %BC cut trajectories every 1,000 steps, whatever the environment's horizon."""
    episodes = random_episodes([100] * 12)
    assert episodes.lengths.tolist() == [100] * 12
    assert len(segments(episodes, 100)) == 12


def test_the_next_row_of_a_last_step_is_not_the_next_episode():
    """d3rlpy and TorchRL read Minari files one row off at the end of an episode."""
    episodes = random_episodes([4, 5])
    assert np.array_equal(episodes.next_observations[3], episodes.final_observations[0])
    assert not np.array_equal(episodes.next_observations[3], episodes.observations[4])


def test_windows_keep_the_order_of_time():
    """diffusion-relative-rewards: a reshape interleaved the steps of neighbouring windows."""
    time = np.arange(12, dtype=np.float32)[:, None]
    windows = segments(Episodes(time, time[:2], np.array([0, 5, 12])), 3)
    assert (np.diff(windows["observations"][:, :, 0], axis=1) == 1).all()


def test_episodes_need_not_be_equally_long():
    """MTDiff found a task's windows by dividing the number of episodes, as if all had one length."""
    windows = segments(random_episodes([2, 9, 4]), 4)
    assert windows.episode_ids.tolist() == [1] * 6 + [2]
    assert windows.steps.tolist() == [0, 1, 2, 3, 4, 5, 0]


def test_returns_to_go_look_forward_only():
    """SfBC took a maximum over the same index twice: a three-step chain with known values."""
    episodes = Episodes(np.zeros((3, 1)), np.zeros((1, 1)), np.array([0, 3]), {"rewards": np.array([1.0, 10.0, 100.0])})
    assert returns_to_go(episodes, 0.1).tolist() == [3.0, 20.0, 100.0]


def test_what_is_held_out_is_not_the_tail():
    """DiffStitch's ensemble was validated on the last tenth, unshuffled: all expert rows in medium-expert."""
    tails = [split_episodes(100, seed=seed).held_out.min() >= 90 for seed in range(20)]
    assert not any(tails)


def test_replaced_columns_are_really_replaced():
    """DIPO wrote relabelled actions with `np.copyto` into a fancy-indexed copy, which changed nothing."""
    rows = Transitions({"actions": np.zeros(5)}).take(np.array([0, 2, 4]))
    assert rows.with_columns(actions=np.ones(3))["actions"].tolist() == [1, 1, 1]


def test_floors_do_not_depend_on_global_random_states():
    """rliable 1.2 drew its bootstrap from NumPy's global state, whatever `random_state` said."""
    sizes = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        sizes.append([len(first) for first, _ in real_halves(toy_dataset())])
    assert sizes[0] == sizes[1]


def test_hopper_falls_on_both_sides():
    """DiffStitch: `abs(x < 100)` instead of `abs(x) < 100` left the lower bound unchecked."""
    upright = np.zeros((3, 11))
    upright[:, 0] = 1.25
    upright[1, 5], upright[2, 5] = 150, -150
    assert envs.make("hopper").terminated(upright).tolist() == [False, True, True]
