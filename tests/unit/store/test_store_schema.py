"""Columns and arrays of a store."""

import json

import numpy as np
import pytest
from store_samples import SPEC, TRAJECTORIES, TRANSITIONS

from synth_pipeline import store
from synth_pipeline.config import canonical
from synth_pipeline.data.fields import Field
from synth_pipeline.errors import ConfigError, UnknownNameError
from synth_pipeline.store import Schema


def test_transitions_store_every_column():
    names = [field.name for field in TRANSITIONS.columns]
    assert names == [*(field.name for field in SPEC.fields), "source_episode", "weight"]
    assert [array.name for array in TRANSITIONS.arrays] == names
    assert TRANSITIONS.readable == TRANSITIONS.columns
    assert TRANSITIONS.row_bytes == 4 * (3 + 2 + 1 + 3) + 1 + 4 + 8 + 4
    assert not TRANSITIONS.compressed


def test_trajectories_store_no_state_twice():
    names = [array.name for array in TRAJECTORIES.arrays]
    assert "next_observations" not in names
    assert names[-4:] == ["truncations", "attempt", "final_observations", "episode_starts"]
    assert [array.name for array in TRAJECTORIES.arrays if array.by_episode] == names[-2:]
    assert TRAJECTORIES.readable[-1].name == "next_observations"
    assert TRAJECTORIES.compressed


def test_provenance_holds_integers():
    source, weight = store.provenance("source_step", "weight")
    assert (source.dtype, weight.dtype) == (np.dtype("int64"), np.dtype("float32"))
    with pytest.raises(UnknownNameError, match="source_step"):
        store.provenance("source_stap")


def test_a_plain_copy_is_the_same_schema():
    bounded = SPEC.replace(fields=(*SPEC.fields, Field(name="costs", low=(0.0,), high=(float("inf"),))))
    schema = TRAJECTORIES.replace(spec=bounded)
    assert Schema.parse(json.loads(canonical(schema))) == schema


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"provenance": (Field(name="rewards"),)}, "stand twice: rewards"),
        ({"provenance": (Field(name="manifest"),)}, "itself: manifest"),
        ({"derived": ("costs",)}, "not stored: costs"),
        ({"kind": "trajectory"}, "did you mean 'trajectories'"),
        ({"kind": "trajectories", "spec": SPEC.replace(fields=(Field(name="rewards"),))}, "observations"),
    ],
)
def test_schemas_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Schema.parse({"kind": "transitions", "spec": SPEC, **settings})
