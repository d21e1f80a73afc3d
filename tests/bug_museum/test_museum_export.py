"""Why the exporters are as they are: what other tools do to a careless one.

Each test asserts the bug as it stands today, so that a fixed version shows up here and the remedy can go.
"""

import subprocess
import sys

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

SPACES = {
    "observation_space": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "action_space": spaces.Box(-1, 1, (1,), np.float32),
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def buffer(steps=3):
    return EpisodeBuffer(
        observations=np.zeros((steps + 1, 2), np.float32), actions=np.zeros((steps, 1), np.float32),
        rewards=np.zeros(steps), terminations=np.zeros(steps, bool), truncations=np.ones(steps, bool), infos={},
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_minari_lists_and_loads_a_dataset_whose_writing_failed(root):
    """Remedy: write into a hidden sibling folder, rename at the end."""

    def episodes():
        yield buffer()
        raise RuntimeError("the simulator crashed")

    with pytest.raises(RuntimeError, match="the simulator crashed"):
        minari.create_dataset_from_buffers("toy/half-v0", episodes(), **SPACES)
    assert "toy/half-v0" in minari.list_local_datasets()
    assert minari.load_dataset("toy/half-v0").total_episodes == 0


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_malformed_folder_hides_every_dataset_of_minari(root):
    """Remedy: ids are checked before the first folder is made."""
    minari.create_dataset_from_buffers("toy/good-v0", [buffer()], **SPACES)
    (root / "toy" / "without-version" / "data").mkdir(parents=True)
    with pytest.raises(TypeError):
        minari.list_local_datasets()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_minari_drops_reference_scores_without_an_environment(root):
    """Remedy: our metadata carries them either way, where `get_normalized_score` finds them."""
    dataset = minari.create_dataset_from_buffers(
        "toy/scores-v0", [buffer()], ref_min_score=0.0, ref_max_score=10.0, **SPACES
    )
    with pytest.raises(ValueError, match="Reference score"):
        minari.get_normalized_score(dataset, 5.0)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_minari_cannot_print_an_episode_without_an_infos_group(root):
    """Remedy: an empty group for every episode."""
    dataset = minari.create_dataset_from_buffers("toy/infos-v0", [buffer()], **SPACES)
    with h5py.File(root / "toy/infos-v0/data/main_data.hdf5", "r+") as file:
        del file["episode_0/infos"]
    with pytest.raises(AttributeError):
        repr(dataset[0])


FULL = """
import resource, sys, h5py, numpy as np
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    with h5py.File(sys.argv[1], "w") as file:
        for index in range(5_000):
            file.create_group(f"episode_{index}")["rewards"] = np.zeros(20)
except Exception:
    print("noticed")
"""


def test_hdf5_cannot_close_a_file_on_a_full_disk(tmp_path):
    """Thousands of messages, then a crash at exit. Remedy: `export.hdf5` reserves space first."""
    answer = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "a.hdf5")], capture_output=True, text=True, timeout=400
    )
    assert answer.stdout == "noticed\n"
    assert answer.stderr.count("Can't decrement id ref count") > 10
    assert answer.returncode != 0
