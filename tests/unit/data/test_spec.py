import json

import pytest

from synth_pipeline.config import content_hash
from synth_pipeline.data.fields import Field
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.errors import ConfigError, UnknownNameError

ACTION = Field(name="whatever", shape=(2,), low=(-1, -1), high=(1, 1), clip=True)
SPEC = DatasetSpec(
    dataset_id="hopper/medium-replay", fields=transition_fields(3, ACTION, extra=(Field(name="costs", optional=True),))
)


def test_usual_columns_in_order():
    names = [field.name for field in SPEC.fields]
    assert names == ["observations", "actions", "rewards", "next_observations", "terminations", "costs"]
    assert SPEC.field("actions").high == (1, 1)
    assert SPEC.field("terminations").kind == "binary"
    assert (SPEC.observation_size, SPEC.action_size) == (3, 2)


def test_a_discrete_action_has_one_component():
    action = Field(name="actions", kind="categorical", num_categories=4)
    assert DatasetSpec(dataset_id="x", fields=transition_fields(3, action)).action_size == 1


def test_has_and_unknown_column():
    assert SPEC.has("costs")
    assert not SPEC.has("infos")
    with pytest.raises(UnknownNameError, match="did you mean 'rewards'"):
        SPEC.field("reward")


def test_survives_json_with_infinite_bounds():
    spec = SPEC.replace(fields=(Field(name="observations", low=(float("-inf"),), high=(float("inf"),)),))
    text = json.dumps(spec.plain(), allow_nan=False)
    assert DatasetSpec.parse(json.loads(text)) == spec
    assert content_hash(DatasetSpec.parse(json.loads(text))) == content_hash(spec)


@pytest.mark.parametrize("identifier", ["a", "hopper/medium-replay", "D4RL/hopper/medium-v2", "a_b"])
def test_ids(identifier):
    assert SPEC.replace(dataset_id=identifier).dataset_id == identifier


@pytest.mark.parametrize("identifier", ["", "../x", "a/../b", "/a", "a/", "a//b", "a b", "a\n", "a.b", "é"])
def test_ids_that_could_escape_a_folder(identifier):
    with pytest.raises(ConfigError, match="dataset_id"):
        SPEC.replace(dataset_id=identifier)


def test_wrong_key_in_a_column():
    values = SPEC.plain()
    values["fields"][1]["hihg"] = [1, 1]
    with pytest.raises(ConfigError, match=r"did you mean 'fields\.1\.high'"):
        DatasetSpec.parse(values)
