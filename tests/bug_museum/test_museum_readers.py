"""Bugs of other readers of offline data, each kept as the input that shows it and what ours makes of it."""

import json
import warnings

import h5py
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box
from minari.data_collector import EpisodeBuffer

from synth_pipeline.errors import SourceError
from synth_pipeline.sources import minari_root
from synth_pipeline.sources.d4rl_hdf5 import D4RLSource
from synth_pipeline.sources.minari import MinariSource

LENGTHS = (4, 3, 2)


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


def buffers():
    """Observation of episode e and step t is 10 e + t."""
    for episode, steps in enumerate(LENGTHS):
        yield EpisodeBuffer(
            observations=10.0 * episode + np.arange(steps + 1)[:, None],
            actions=np.zeros((steps, 1)),
            rewards=np.zeros(steps),
            terminations=np.zeros(steps, bool),
            truncations=np.arange(steps) == steps - 1,
            infos={},
        )


def create(buffer):
    space = Box(-np.inf, np.inf, (1,), np.float64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(`.*` is set to None|env_spec is None)", UserWarning)
        return minari.create_dataset_from_buffers("made/walk-v0", buffer, observation_space=space, action_space=space)


def d4rl_file(path, **columns):
    with h5py.File(path, "w") as file:
        for name, column in columns.items():
            file[name] = column
    return D4RLSource(path)


def test_observations_shift_by_one_per_episode():
    """d3rlpy (2.6.2, 2.8.1) joins T+1 observations of each episode against T actions: from the second episode on,
    every row shows the observation of an earlier step, and its first row the end of the episode before."""
    theirs = np.concatenate([episode.observations for episode in create(buffers())])[:, 0]
    rows = MinariSource.from_id("made/walk-v0").load().transitions()
    assert theirs[4] == 4  # what stands in row 4 that way: the end of episode 0
    assert rows["observations"][4, 0] == 10
    assert rows["next_observations"][[3, 6, 8], 0].tolist() == [4, 13, 22]


def test_terminal_steps_point_into_the_following_episode(tmp_path):
    """D4RL#145: `qlearning_dataset` pairs a terminal step with the first observation of the next episode, and never
    reads the very last row."""
    observations = np.array([[0.0], [1.0], [10.0], [11.0]], np.float32)
    terminals = np.array([False, True, False, True])
    columns = {"observations": observations, "actions": np.zeros((4, 1)), "rewards": np.zeros(4)}
    rows = d4rl_file(tmp_path / "x.hdf5", **columns, terminals=terminals, timeouts=np.zeros(4, bool)).load()
    assert rows.transitions()["next_observations"][:, 0].tolist() == [1, 1, 11, 11]


def test_time_limits_of_replay_files_are_not_always_marked(tmp_path):
    """D4RL#162: in medium-replay some time limits have no mark; pairs made from flags alone cross episodes there."""
    observations = np.array([[0.0], [1.0], [10.0], [11.0], [12.0]], np.float32)
    columns = {"observations": observations, "actions": np.zeros((5, 1)), "rewards": np.zeros(5)}
    flags = {"terminals": np.zeros(5, bool), "timeouts": np.zeros(5, bool)}
    dataset = d4rl_file(tmp_path / "x.hdf5", **columns, **flags, next_observations=observations + 1).load()
    assert dataset.episodes.starts.tolist() == [0, 2, 5]
    assert dataset.transitions()["next_observations"][1, 0] == 2


def test_one_malformed_folder_hides_all_datasets(tmp_path):
    """Minari's listing raises for the whole root when one folder's name has no version."""
    create(buffers())
    (tmp_path / "made" / "noversion" / "data").mkdir(parents=True)
    with pytest.raises(TypeError):
        minari.list_local_datasets()
    assert minari_root.local_ids() == ["made/walk-v0"]


def test_an_interrupted_recording_loads_as_an_empty_dataset():
    """Minari writes in place: after an exception its dataset lists, loads, and has no episodes (also Minari#220)."""

    def failing():
        yield from buffers()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create(failing())
    assert len(minari.load_dataset("made/walk-v0")) == 0
    with pytest.raises(SourceError, match=r"is empty(?s:.*)0 episodes"):
        MinariSource.from_id("made/walk-v0").load()


def test_metadata_that_lag_behind_the_data_hide_episodes():
    """Minari believes `total_episodes`: an update that was interrupted leaves episodes that nobody reads."""
    create(buffers())
    path = minari_root.datasets_root() / "made/walk-v0/data/metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "total_episodes": 2}))
    assert len(list(minari.load_dataset("made/walk-v0"))) == 2
    with pytest.raises(SourceError, match=r"holds other episodes than its metadata state(?s:.*)3 episodes"):
        MinariSource.from_id("made/walk-v0").load()


def test_files_do_not_run_code(tmp_path):
    """NumPy unpickles object arrays on request; a dataset from a stranger must not be able to ask for it."""
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (ran.write_text, ("boom",))

    from synth_pipeline.sources.npz import NpzSource

    np.savez(tmp_path / "x.npz", observations=np.array([Bomb()], object), actions=0, rewards=0, terminations=0)
    with pytest.raises(SourceError, match="object array"):
        NpzSource(tmp_path / "x.npz").load()
    assert not ran.exists()
