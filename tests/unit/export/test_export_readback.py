"""Reading back finds every kind of difference and names it."""

import h5py
import numpy as np
import pytest
from export_suite import SPEC, counter_episodes, counter_rows

from synth_pipeline.errors import ExportError
from synth_pipeline.export import hdf5, minari
from synth_pipeline.export.minari_layout import EpisodeWriter, Ledger, as_episodes, columns_of, episode_arrays
from synth_pipeline.export.readback import Block, check_flat, check_minari
from synth_pipeline.runs import write_json


@pytest.fixture
def dataset(tmp_path):
    """A Minari data folder and the ledger of what went into it."""
    ledger = Ledger()
    with hdf5.create(tmp_path / "main_data.hdf5") as file:
        writer = EpisodeWriter(file.file)
        for part in (counter_episodes([3, 2]), as_episodes(counter_rows(3))):
            columns = columns_of(part, ())
            for arrays in episode_arrays(part, columns):
                writer.write(columns, arrays, None)
                ledger.add(columns, arrays)
    values = minari._metadata("counter/mixed-v0", SPEC, {}) | minari._spaces(SPEC, ledger.tables[0])
    write_json(tmp_path / "metadata.json", values | {"total_episodes": 5, "total_steps": 8})
    return tmp_path, ledger


def test_an_equal_dataset_passes(dataset):
    check_minari(*dataset)
    assert len(dataset[1]) == 5
    assert dataset[1].total_steps == 8


def change_value(file):
    file["episode_1/rewards"][1] += 1


def change_type(file):
    values = file["episode_1/rewards"][:]
    del file["episode_1/rewards"]
    file["episode_1/rewards"] = values.astype(np.float64)


def change_length(file):
    values = file["episode_1/rewards"][:]
    del file["episode_1/rewards"]
    file["episode_1/rewards"] = values[:1]


def remove_column(file):
    del file["episode_1/rewards"]


def rename_episode(file):
    file.move("episode_1", "episode_9")


def add_episode(file):
    file.create_group("episode_5")


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        (change_value, "episode 1, column 'rewards'"),
        (change_type, "episode 1, column 'rewards'"),
        (change_length, "episode 1, column 'rewards'"),
        (remove_column, "episode 1, column 'rewards'"),
        (rename_episode, "episode 1"),
        (add_episode, "number of episodes"),
    ],
)
def test_the_first_difference_is_named(dataset, damage, where):
    data, ledger = dataset
    with h5py.File(data / "main_data.hdf5", "r+") as file:
        damage(file)
    with pytest.raises(ExportError, match=where):
        check_minari(data, ledger)


def test_minaris_own_count_is_checked(dataset):
    data, ledger = dataset
    text = (data / "metadata.json").read_text()
    (data / "metadata.json").write_text(text.replace('"total_steps": 8', '"total_steps": 9'))
    with pytest.raises(ExportError, match="as Minari counts them"):
        check_minari(data, ledger)


def test_what_minari_reads_is_checked(dataset, monkeypatch):
    data, ledger = dataset
    monkeypatch.setattr("minari.dataset._storages.hdf5_storage.HDF5Storage._decode_space", lambda *_: np.zeros(3))
    with pytest.raises(ExportError, match="column 'observations', as Minari reads it"):
        check_minari(data, ledger)


def test_a_truncated_file_is_damaged(dataset):
    data, ledger = dataset
    path = data / "main_data.hdf5"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ExportError, match="damaged"):
        check_minari(data, ledger)


@pytest.fixture
def flat(tmp_path):
    values = np.arange(6, dtype=np.float32)
    with h5py.File(tmp_path / "flat.hdf5", "w") as file:
        file["rewards"] = values
    blocks = [
        Block("rewards", start, start + 3, values.dtype, (), hdf5.checksum(values[start : start + 3]))
        for start in (0, 3)
    ]
    return tmp_path / "flat.hdf5", blocks


def test_an_equal_file_passes(flat):
    path, blocks = flat
    check_flat(path, blocks, rows=6)


@pytest.mark.parametrize("stored", [[0, 1, 2, 3, 9, 5], [0, 1, 2, 3, 4], None])
def test_the_first_differing_rows_are_named(flat, stored):
    path, blocks = flat
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        if stored is not None:
            file["rewards"] = np.float32(stored)
    rows = "3 to 5" if stored is not None and len(stored) == 6 else "0 to 2"
    with pytest.raises(ExportError, match=f"column 'rewards', rows {rows}"):
        check_flat(path, blocks, rows=6)
