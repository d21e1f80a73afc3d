"""TorchRL sees exactly our transitions, also after a replay buffer and a slice sampler."""

import numpy as np
import pytest
import torch
from export_suite import counter_episodes, counter_rows
from torchrl.data import LazyTensorStorage, SliceSamplerWithoutReplacement, TensorDictReplayBuffer

from synth_pipeline.export.converters import to_torchrl

pytestmark = pytest.mark.interop


def check(steps, rows):
    count = len(rows)
    assert steps.batch_size == torch.Size([count])
    np.testing.assert_array_equal(steps["observation"].numpy(), rows["observations"])
    np.testing.assert_array_equal(steps["action"].numpy(), rows["actions"])
    np.testing.assert_array_equal(steps["next", "observation"].numpy(), rows["next_observations"])
    np.testing.assert_array_equal(steps["next", "reward"].numpy(), rows["rewards"][:, None])
    np.testing.assert_array_equal(steps["next", "terminated"].numpy(), rows["terminations"][:, None])
    np.testing.assert_array_equal(steps["next", "truncated"].numpy(), rows["truncations"][:, None])
    ends = (rows["terminations"] | rows["truncations"])[:, None]
    np.testing.assert_array_equal(steps["next", "done"].numpy(), ends)


def test_episodes_align():
    episodes = counter_episodes([3, 1, 4, 2])
    steps = to_torchrl(episodes)
    check(steps, episodes.transitions())
    np.testing.assert_array_equal(steps["episode"].numpy(), episodes.episode_ids)


def test_single_transitions_stand_alone():
    rows = counter_rows(7)
    steps = to_torchrl(rows)
    check(steps, rows.with_columns(truncations=~rows["terminations"]))
    assert steps["episode"].tolist() == list(range(7))


def test_discrete_actions_stay_integers():
    steps = to_torchrl(counter_rows(4).with_columns(actions=np.array([0, 3, 1, 2])))
    assert steps["action"].dtype == torch.int64
    assert steps["action"].tolist() == [0, 3, 1, 2]


def test_the_data_is_a_copy():
    rows = counter_rows(3)
    to_torchrl(rows)["observation"].zero_()
    assert rows["observations"][1, 0] == 10


def test_a_replay_buffer_keeps_rows_together():
    steps = to_torchrl(counter_rows(50))
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(50), batch_size=32)
    buffer.extend(steps)
    batch = buffer.sample()
    torch.testing.assert_close(batch["next", "observation"], batch["observation"] + 1)
    torch.testing.assert_close(batch["action"], -batch["observation"][:, :1] + torch.tensor([0.0, 0.5]))


def test_slices_stay_inside_episodes():
    episodes = counter_episodes([8, 12, 9])
    sampler = SliceSamplerWithoutReplacement(slice_len=4, traj_key="episode", strict_length=True)
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(29), sampler=sampler, batch_size=24)
    buffer.extend(to_torchrl(episodes))
    slices = buffer.sample().reshape(-1, 4)
    assert (slices["episode"] == slices["episode"][:, :1]).all()
    torch.testing.assert_close(slices["next", "observation"][:, :-1], slices["observation"][:, 1:])
