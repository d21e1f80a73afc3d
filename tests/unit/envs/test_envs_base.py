"""The registry, the spec and the parts of an environment model that no family overrides."""

import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from synth_pipeline import envs
from synth_pipeline.data.fields import Field
from synth_pipeline.envs.base import EnvironmentSpec, box, dataset_fields
from synth_pipeline.envs.toys import LinearGaussian
from synth_pipeline.errors import ConfigError, EnvironmentModelError, UnknownNameError


def spec(**changes):
    return EnvironmentSpec(name="x", family="toy", observation_size=3, action=box(2), horizon=5, dt=0.1).replace(
        **changes
    )


def test_an_unknown_environment_gets_the_nearest_name():
    with pytest.raises(UnknownNameError, match="did you mean 'hopper'") as caught:
        envs.make("hoper")
    assert "pointmaze-large" in str(caught.value)


def test_importing_the_room_imports_no_simulator():
    code = "import sys, synth_pipeline.envs; print([m for m in ('mujoco', 'gymnasium', 'torch') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_box_is_symmetric_and_clips():
    field = box(2, 3.0)
    assert (field.low, field.high) == ((-3.0, -3.0), (3.0, 3.0))
    np.testing.assert_array_equal(field.clipped(np.array([[-9.0, 1.0]])), [[-3.0, 1.0]])


def test_dataset_fields_are_the_columns_of_a_transition():
    names = [field.name for field in dataset_fields(spec())]
    assert names == ["observations", "actions", "rewards", "next_observations", "terminations"]
    assert dataset_fields(spec())[3].shape == (3,)
    assert dataset_fields(spec())[1] == box(2)


@pytest.mark.parametrize(
    "changes",
    [
        {"observation_clip": (1.0, None)},
        {"action": Field(name="actions", shape=(2,))},
        {"action": box(2).replace(name="torques")},
        {"horizon": 0},
        {"dt": 0.0},
        {"reset": "perhaps"},
        {"horizons": 3},
    ],
)
def test_an_impossible_spec_is_refused(changes):
    with pytest.raises((ValidationError, ConfigError)):
        spec(**changes)


def test_without_exact_reset_there_is_no_oracle():
    toy = LinearGaussian()
    toy.spec = toy.spec.replace(reset="none")
    assert toy.resettable(np.zeros((2, 3))).tolist() == [False, False]
    with pytest.raises(EnvironmentModelError, match="cannot be set to an observation"):
        toy.step(np.zeros((2, 3)), np.zeros((2, 2)), np.random.default_rng(0))


def test_resettable_applies_the_margin_to_both_sides():
    toy = LinearGaussian()
    toy.spec = toy.spec.replace(observation_clip=(None, 10.0, None))
    rows = np.array([[50.0, 9.89, 0.0], [0.0, 9.91, 0.0], [0.0, -9.91, 0.0]])
    assert toy.resettable(rows).tolist() == [True, False, False]
    assert toy.resettable(rows[[0, 0]], rows[[0, 1]]).tolist() == [True, False]


def test_integer_rows_are_accepted():
    toy = LinearGaussian()
    assert toy.terminated(np.zeros((2, 3), int)).tolist() == [False, False]
