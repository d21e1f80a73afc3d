import errno
import os

import numpy as np
import pytest
from toy_data import SPEC, toy_dataset, toy_rows

from synth_pipeline.data.fields import Field
from synth_pipeline.data.spec import transition_fields
from synth_pipeline.data.split import split_dataset
from synth_pipeline.errors import CheckpointError, ConfigError, ResourceError, UnknownNameError
from synth_pipeline.generators import base
from synth_pipeline.generators.base import (
    Postprocess,
    build,
    derived_fields,
    known_termination,
    load,
    modelled_fields,
    save,
    source_columns,
)
from synth_pipeline.generators.controls import Copula, DuplicateConfig

HOPPER = SPEC.replace(environment="hopper")


class Awkward:
    """A generator whose arrays have every awkward form."""

    kind = "duplicate"
    config = DuplicateConfig()
    arrays = {  # noqa: RUF012
        "scalar": np.array(3.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "column_major": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "strided": np.arange(10)[::2],
        "flags": np.array([True, False]),
    }

    def state(self):
        return {"a": None}, self.arrays

    def restore(self, values, arrays):
        self.values, self.arrays = values, arrays


def test_arrays_come_back_as_they_were(tmp_path, monkeypatch):
    save(Awkward(), tmp_path / "model", extra={})
    monkeypatch.setattr(base, "build", lambda settings: Awkward())
    loaded, _ = load(tmp_path / "model")
    assert loaded.values == {"a": None}
    for name, array in Awkward.arrays.items():
        assert loaded.arrays[name].shape == array.shape
        assert loaded.arrays[name].dtype == array.dtype
        assert np.array_equal(loaded.arrays[name], array)


def test_a_full_disk_leaves_no_half_model(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="no space left"):
        save(Awkward(), tmp_path / "model", extra={})
    assert list(tmp_path.iterdir()) == []


def test_nothing_trained_says_what_to_type(tmp_path):
    with pytest.raises(CheckpointError, match="synthpipe train"):
        load(tmp_path / "model")


def test_unknown_kind_and_no_kind():
    with pytest.raises(UnknownNameError, match="did you mean 'smote'"):
        build({"kind": "smotte"})
    with pytest.raises(UnknownNameError, match="copula"):
        build({})


def test_settings_are_checked_under_the_generators_name():
    with pytest.raises(ConfigError, match="generator 'noise': 'scale' cannot be used"):
        build({"kind": "noise", "scale": -1})


def test_truncations_are_never_guessed():
    spec = SPEC.replace(fields=(*SPEC.fields, Field(name="truncations", kind="binary")))
    assert modelled_fields(spec) == SPEC.fields


def test_terminations_are_derived_exactly_where_the_environment_is_known():
    assert known_termination(SPEC) is None
    assert derived_fields(SPEC) == ()
    assert derived_fields(HOPPER) == ("terminations",)
    assert derived_fields(HOPPER.replace(fields=SPEC.fields[:3])) == ()
    healthy = np.zeros((2, 11))
    healthy[0, 0] = 1.25
    assert known_termination(HOPPER)(healthy).tolist() == [False, True]


def test_samples_leave_clipped_typed_and_in_the_order_of_the_spec():
    columns = {field.name: np.full((2, *field.shape), 7.0) for field in reversed(SPEC.fields)}
    rows = Postprocess(SPEC).from_columns(columns, {"source_step": np.array([1, 2])})
    assert list(rows.columns) == [*(field.name for field in SPEC.fields), "source_step"]
    assert rows["actions"].tolist() == [[1, 1], [1, 1]]
    assert rows["terminations"].dtype == bool
    assert rows["rewards"].tolist() == [7, 7]


@pytest.mark.parametrize("turned", [False, True])
def test_known_terminations_need_no_column_and_no_order(turned):
    fields = transition_fields(11, Field(name="actions", shape=(3,)))
    spec = HOPPER.replace(fields=fields[::-1] if turned else fields)
    columns = {f.name: np.zeros((2, *f.shape)) for f in fields if f.name != "terminations"}
    columns["next_observations"][0, 0] = 1.25
    rows = Postprocess(spec).from_columns(columns, {})
    assert rows["terminations"].tolist() == [False, True]
    assert list(rows.columns) == [field.name for field in spec.fields]


def test_known_terminations_of_data_without_them():
    fields = tuple(field for field in transition_fields(11, Field(name="actions")) if field.name != "terminations")
    rows = Postprocess(HOPPER.replace(fields=fields)).from_columns(
        {f.name: np.zeros((2, *f.shape)) for f in fields}, {}
    )
    assert "terminations" not in rows


def test_vectors_and_columns_leave_alike():
    post = Postprocess(SPEC)
    columns = post.layout.unpack(np.random.default_rng(0).standard_normal((5, post.layout.size)))
    direct = post.from_vectors(post.layout.pack(columns), {})
    assert all(np.array_equal(direct[name], column) for name, column in columns.items())


def test_sources_are_named_by_the_ids_of_the_whole_dataset():
    whole = toy_dataset()
    train = split_dataset(whole, held_out=0.4, seed=2).train
    columns = source_columns(train)
    rows = whole.episodes.starts[columns["source_episode"]] + columns["source_step"]
    assert np.array_equal(whole.episodes.observations[rows], train.episodes.observations)
    assert source_columns(whole)["source_episode"].tolist() == whole.episodes.episode_ids.tolist()
    without = source_columns(toy_rows())
    assert set(without["source_episode"]) == {-1}
    assert without["source_step"].tolist() == list(range(147))


def test_a_model_of_another_configuration_does_not_load(tmp_path):
    copula = Copula()
    copula.fit(toy_dataset(), seed=0)
    save(copula, tmp_path / "model", extra={})
    text = (tmp_path / "model" / "config.json").read_text()
    (tmp_path / "model" / "config.json").write_text(
        text.replace("copula", "smote").replace('"shrinkage": 1e-06', '"neighbours": 5')
    )
    with pytest.raises(CheckpointError, match="does not hold a complete 'smote'"):
        load(tmp_path / "model")
