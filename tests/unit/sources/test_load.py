"""What a user types, and which source it means."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from synth_pipeline import sources, store
from synth_pipeline.data.fields import Field
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.errors import ConfigError, SourceError, SynthPipelineError, UnknownNameError
from synth_pipeline.sources import catalog
from synth_pipeline.sources.base import file_id
from synth_pipeline.sources.d4rl_hdf5 import D4RLSource
from synth_pipeline.sources.load import SOURCES
from synth_pipeline.sources.minari import MinariSource
from synth_pipeline.sources.npz import NpzSource
from synth_pipeline.sources.stored import StoreSource
from synth_pipeline.store import Plan, Schema

COLUMNS = {
    "observations": np.arange(12, dtype=np.float32).reshape(6, 2),
    "actions": np.linspace(-1, 1, 6, dtype=np.float32)[:, None],
    "rewards": np.ones(6, np.float32),
    "terminals": np.zeros(6, bool),
}
TIMEOUTS = {"timeouts": np.arange(6) % 3 == 2}
BOX = json.dumps({"type": "Box", "dtype": "float32", "shape": [1], "low": [-1], "high": [1]})


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setattr(catalog, "entries", lambda: {"hopper/medium": None, "hopper/medium-replay": None})


def minari_dataset(folder, dataset_id):
    data = folder / "data"
    data.mkdir(parents=True)
    metadata = {"dataset_id": dataset_id, "minari_version": "0.5.4", "data_format": "hdf5", "total_episodes": 1,
                "total_steps": 2, "observation_space": BOX, "action_space": BOX}  # fmt: skip
    (data / "metadata.json").write_text(json.dumps(metadata))
    with h5py.File(data / "main_data.hdf5", "w") as file:
        file["episode_0/observations"] = np.zeros((3, 1))
        file["episode_0/actions"] = np.zeros((2, 1))
        for name in ("rewards", "terminations", "truncations"):
            file[f"episode_0/{name}"] = np.zeros(2)


def hdf5_file(path, columns):
    with h5py.File(path, "w") as file:
        for name, column in columns.items():
            file[name] = column


@pytest.mark.parametrize(
    ("name", "dataset_id"),
    [
        ("\u00fcn\u00efcode.npz", "unicode"),
        ("Stra\u00dfe \u00c5r\u00f8.npz", "Strasse_Aro"),
        ("a.b c.npz", "a_b_c"),
        ("\u6570\u636e.npz", "dataset"),
    ],
)
def test_ids_from_the_names_of_files(name, dataset_id):
    assert file_id(Path(name)) == dataset_id


@pytest.mark.parametrize("name", ["data.hdf5", "data.h5", "DATA.HDF5", "a folder/my data.hdf5", "d\u00e4t\u00e4.hdf5"])
def test_hdf5_files(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    hdf5_file(tmp_path / name, COLUMNS | TIMEOUTS)
    for typed in (name, tmp_path / name, f"./{name}"):
        assert isinstance(sources.resolve(typed), D4RLSource)
        assert len(sources.load(typed)) == 4


def test_npz_files(tmp_path):
    np.savez("data.npz", **COLUMNS, **TIMEOUTS)
    assert isinstance(sources.resolve("data.npz"), NpzSource)
    assert len(sources.load(tmp_path / "data.npz")) == 4


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
def test_a_horizon_for_files_without_time_limits(suffix):
    np.savez("data.npz", **COLUMNS)
    hdf5_file("data.hdf5", COLUMNS)
    dataset = sources.load(f"data.{suffix}", horizon=3)
    assert dataset.spec.horizon == 3
    assert dataset.episodes.lengths.tolist() == [2, 2]
    with pytest.raises(SourceError, match="pass horizon="):
        sources.load(f"data.{suffix}")


def test_minari_by_id_folder_and_file(tmp_path):
    folder = tmp_path / "minari" / "made" / "walk-v0"
    minari_dataset(folder, "made/walk-v0")
    for typed in ("made/walk-v0", folder, str(folder), folder / "data" / "main_data.hdf5", "minari/made/walk-v0"):
        source = sources.resolve(typed)
        assert isinstance(source, MinariSource)
        assert source.describe()["id"] == "made/walk-v0"
        assert len(sources.load(typed)) == 2


def test_stores(tmp_path):
    action = Field(name="actions", shape=(1,), low=(-1,), high=(1,), clip=True)
    schema = Schema(kind="transitions", spec=DatasetSpec(dataset_id="made", fields=transition_fields(2, action)))
    store.create(tmp_path / "my store", schema, Plan(num_rows=6, rows_per_shard=16, rows_per_chunk=16), {})
    source = sources.resolve("my store")
    assert isinstance(source, StoreSource)
    assert source.describe()["rows"] == 0
    assert isinstance(sources.resolve("s3://bucket/store"), StoreSource)


def test_catalog_ids_are_collected(monkeypatch):
    typed = []
    monkeypatch.setattr("synth_pipeline.sources.collect.CollectedSource", typed.append, raising=False)
    sources.resolve("hopper/medium-replay")
    assert typed == ["hopper/medium-replay"]


def test_what_is_on_disk_comes_before_the_catalog(tmp_path):
    minari_dataset(tmp_path / "hopper" / "medium", "hopper/medium-v0")
    assert isinstance(sources.resolve("hopper/medium"), MinariSource)


def test_a_horizon_where_the_data_state_it(tmp_path):
    minari_dataset(tmp_path / "minari" / "walk-v0", "walk-v0")
    for typed in ("walk-v0", "hopper/medium"):
        with pytest.raises(ConfigError, match=r"states its time limits itself(?s:.*)leave the horizon out"):
            sources.resolve(typed, horizon=1000)


NAMES = {
    "hopper/medium-repaly": "did you mean 'hopper/medium-replay'",
    "Hopper/Medium": "did you mean 'hopper/medium'",
    "hopper-medium-replay-v2": "did you mean 'hopper/medium-replay'",
    "made/wakl-v0": "did you mean 'made/walk-v0'",
    "nothing like that": "hopper/medium, hopper/medium-replay, made/walk-v0",
    "../walk-v0": "there is no dataset called",
    "": "a folder without a dataset",
}


@pytest.mark.parametrize("typed", NAMES)
def test_unknown_names_get_the_nearest_one(tmp_path, typed):
    minari_dataset(tmp_path / "minari" / "made" / "walk-v0", "made/walk-v0")
    with pytest.raises(SynthPipelineError) as caught:
        sources.load(typed)
    assert NAMES[typed] in str(caught.value)


def paths(folder):
    hdf5_file(folder / "good.hdf5", COLUMNS | TIMEOUTS)
    whole = (folder / "good.hdf5").read_bytes()
    (folder / "cut.hdf5").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("hello")
    (folder / "table.csv").write_text("1,2")
    (folder / "empty").mkdir()
    hdf5_file(folder / "main_data.hdf5", {"episode_0/observations": np.zeros((2, 2))})


PATHS = {
    "goood.hdf5": ("there is no file", "did you mean 'good.hdf5'"),
    "/nowhere/at/all.npz": ("there is no file", "does not exist"),
    "cut.hdf5": ("cannot be read", "truncated"),
    "table.csv": ("is not a dataset file", ".hdf5, .h5, .npz"),
    ".": ("a folder without a dataset", "did you mean 'cut.hdf5'"),
    "empty": ("a folder without a dataset", "an empty folder"),
    "main_data.hdf5": ("data file of a Minari dataset", "metadata.json"),
}


@pytest.mark.parametrize("typed", PATHS)
def test_wrong_paths_are_explained(tmp_path, typed):
    paths(tmp_path)
    with pytest.raises(SourceError) as caught:
        sources.load(typed)
    for part in PATHS[typed]:
        assert part in str(caught.value)


def test_only_what_may_be_a_dataset_is_suggested(tmp_path):
    (tmp_path / "shadow").write_text("secret")
    (tmp_path / "shadowy").mkdir()
    for typed in (tmp_path / "shadowx.h5", tmp_path / "shadowx"):
        with pytest.raises(SourceError) as caught:
            sources.load(typed)
        assert caught.value.fix == "check the path"
    minari_dataset(tmp_path / "shadowed", "shadowed-v0")
    with pytest.raises(SourceError) as caught:
        sources.load(tmp_path / "shadowe")
    assert caught.value.fix == f"did you mean '{tmp_path / 'shadowed'}'?"


def test_a_file_that_may_not_be_read(monkeypatch):
    hdf5_file("data.hdf5", COLUMNS | TIMEOUTS)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(SourceError, match=r"Permission denied(?s:.*)check the path and its permissions"):
        sources.load("data.hdf5")


def test_a_minari_dataset_that_is_not_here_says_how_to_get_it():
    with pytest.raises(UnknownNameError, match="minari download D4RL/door/human-v2"):
        sources.load("D4RL/door/human-v2")


def test_every_registered_source_imports():
    for name in SOURCES.names():
        assert callable(SOURCES.load(name))
