"""The flat file: keys, time limits, provenance, labels, attributes."""

import json

import h5py
import numpy as np
import pytest
from export_suite import SPEC, contents, counter_episodes, counter_rows

from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.errors import ExportError, ResourceError, SynthPipelineError
from synth_pipeline.export import d4rl_hdf5
from synth_pipeline.export.d4rl_hdf5 import Labelled, write_flat


def rows(count=6, *, spec=SPEC, **extra):
    return Dataset(spec, rows=counter_rows(count).with_columns(**extra))


def episodes(lengths=(4, 3)):
    return Dataset(SPEC, episodes=counter_episodes(list(lengths)))


def write(folder, *parts, spec=SPEC, **options):
    path = write_flat(folder / "flat.hdf5", parts, spec=spec, metadata={"seed": 3}, **options)
    with h5py.File(path) as file:
        columns = {}
        file.visititems(lambda name, item: columns.update({name: item[:]}) if isinstance(item, h5py.Dataset) else None)
        return columns, dict(file.attrs)


def test_keys_are_those_of_d4rl(tmp_path):
    columns, _ = write(tmp_path, episodes(), rows())
    assert sorted(columns) == ["actions", "next_observations", "observations", "rewards", "terminals", "timeouts"]
    assert columns["terminals"].dtype == columns["timeouts"].dtype == np.bool_
    assert {len(values) for values in columns.values()} == {13}


def test_time_limits_are_kept_and_rows_that_stand_alone_end_at_once(tmp_path):
    columns, _ = write(tmp_path, episodes(), rows(3))
    assert columns["terminals"].tolist() == [False] * 3 + [True] + [False] * 3 + [True, False, False]
    assert columns["timeouts"].tolist() == [False] * 4 + [False, False, True] + [False, True, True]


def test_a_reader_that_pairs_neighbours_meets_no_strangers(tmp_path):
    """D4RL's `qlearning_dataset` takes the next row's observation as the next state unless a mark says otherwise."""
    columns, _ = write(tmp_path, episodes(), rows(), episodes((2, 5)))
    neighbours = ~(columns["terminals"] | columns["timeouts"])
    followers = columns["observations"][1:][neighbours[:-1]]
    np.testing.assert_array_equal(followers, columns["next_observations"][:-1][neighbours[:-1]])
    assert neighbours.sum() == 3 + 2 + 1 + 4


def test_chunks_do_not_show(tmp_path, monkeypatch):
    whole, _ = write(tmp_path, episodes((7, 2)), rows(8))
    monkeypatch.setattr(d4rl_hdf5, "CHUNK_ROWS", 3)
    (tmp_path / "flat.hdf5").unlink()
    chunked, _ = write(tmp_path, episodes((7, 2)), rows(8))
    assert whole.keys() == chunked.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(values, chunked[name])


def test_root_attributes(tmp_path):
    _, attributes = write(tmp_path, rows(), spec=SPEC.replace(licence="CC-BY-4.0"))
    assert attributes["synth_pipeline_kind"] == "transitions"
    assert attributes["synth_pipeline_schema"] == 1
    assert json.loads(attributes["synth_pipeline_provenance"]) == {"seed": 3}
    assert DatasetSpec.parse(json.loads(attributes["synth_pipeline_spec"])).licence == "CC-BY-4.0"
    assert (attributes["synth_pipeline_reference_min"], attributes["synth_pipeline_reference_max"]) == (0.0, 10.0)


def test_long_provenance_fits(tmp_path):
    """HDF5 keeps at most 64 KB in an object header; lists of held-out episodes are longer."""
    metadata = {"held out": list(range(50_000))}
    path = write_flat(tmp_path / "flat.hdf5", [rows()], spec=SPEC, metadata=metadata)
    with h5py.File(path) as file:
        assert json.loads(file.attrs["synth_pipeline_provenance"]) == metadata


def test_provenance_columns_are_infos_and_absent_ones_are_marked(tmp_path):
    made = rows(2, source_episode=np.int32([4, 5]), residual=np.float32([0.5, 0.25]), derived=np.array([True, True]))
    columns, _ = write(tmp_path, episodes((2,)), made)
    assert columns["infos/source_episode"].tolist() == [-1, -1, 4, 5]
    np.testing.assert_array_equal(columns["infos/residual"], np.float32([np.nan, np.nan, 0.5, 0.25]))
    assert columns["infos/derived"].tolist() == [False, False, True, True]
    with h5py.File(tmp_path / "flat.hdf5") as file:
        assert file["infos/source_episode"].attrs["missing_value"] == -1
        assert "missing_value" not in file["rewards"].attrs


def test_labels(tmp_path):
    columns, _ = write(tmp_path, Labelled(episodes((2,)), synthetic=False), Labelled(rows(3), synthetic=True))
    assert columns["infos/synthetic"].tolist() == [False, False, True, True, True]
    assert Labelled(rows(3), synthetic=True).spec == SPEC


def test_rows_are_never_labelled_by_default(tmp_path):
    with pytest.raises(ExportError, match="others do not"):
        write(tmp_path, episodes(), Labelled(rows(3), synthetic=True))
    assert contents(tmp_path) == {}


def test_further_columns_of_the_spec_stand_at_the_root(tmp_path):
    spec = SPEC.replace(fields=(*SPEC.fields, Field(name="costs"), Field(name="weather", optional=True)))
    columns, _ = write(tmp_path, rows(2, spec=spec, costs=np.float32([1, 2])), spec=spec)
    assert columns["costs"].tolist() == [1, 2]
    assert "weather" not in columns
    with pytest.raises(ExportError, match="part 1 of the export lacks the column 'costs'"):
        write_flat(tmp_path / "b", [rows(2, spec=spec, costs=np.float32([1, 2])), rows(2)], spec=spec, metadata={})


def test_discrete_actions(tmp_path):
    spec = SPEC.replace(fields=transition_fields(3, Field(name="actions", kind="categorical", num_categories=4)))
    columns, _ = write(tmp_path, rows(4, spec=spec, actions=np.arange(4)), spec=spec)
    assert columns["actions"].dtype == np.int64
    assert columns["actions"].shape == (4,)


def test_parts_must_agree_in_type(tmp_path):
    wide = rows(3, rewards=np.zeros(3))
    with pytest.raises(ExportError, match="'rewards' changes between parts"):
        write(tmp_path, rows(), wide)
    assert contents(tmp_path) == {}


def test_a_source_whose_type_changes_half_way_is_noticed(tmp_path):
    class Drifting(Dataset):
        def read(self, start, stop):
            part = super().read(start, stop)
            return part.with_columns(rewards=part["rewards"].astype(np.float64)) if stop > 1 else part

    with pytest.raises(ExportError, match="'rewards' changes between parts"):
        write(tmp_path, Drifting(SPEC, rows=counter_rows(4)))
    assert contents(tmp_path) == {}


def test_metadata_must_be_plain_json(tmp_path):
    with pytest.raises(ExportError, match="plain JSON"):
        write_flat(tmp_path / "flat.hdf5", [rows()], spec=SPEC, metadata={"x": np.float32(1)})


def test_empty_parts_are_skipped(tmp_path):
    columns, _ = write(tmp_path, rows(0), rows(2))
    assert len(columns["rewards"]) == 2


def test_a_disk_that_is_too_small_is_found_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 100})())
    with pytest.raises(ResourceError, match="too small"):
        write(tmp_path, rows(1000))
    assert contents(tmp_path) == {}


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "taken").write_text("x")
    with pytest.raises(SynthPipelineError, match="stands in the way"):
        write_flat(tmp_path / "taken" / "flat.hdf5", [rows()], spec=SPEC, metadata={})
