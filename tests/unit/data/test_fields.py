import numpy as np
import pytest

from synth_pipeline.data.fields import Field, Layout
from synth_pipeline.errors import ConfigError, SourceError, UnknownNameError

OBSERVATIONS = Field(name="observations", shape=(2,))
ACTIONS = Field(name="actions", shape=(2,), low=(-1, -0.4), high=(1, 0.4), clip=True)
FLAG = Field(name="terminations", kind="binary")
GEAR = Field(name="gear", kind="categorical", num_categories=3)
GEARS = Field(name="gears", shape=(2,), kind="categorical", num_categories=3)
GRID = Field(name="grid", shape=(2, 2))


def test_sizes_widths_and_types():
    assert (FLAG.size, FLAG.width, FLAG.dtype) == (1, 1, np.dtype(bool))
    assert (GEARS.size, GEARS.width, GEARS.dtype) == (2, 6, np.dtype("int64"))
    assert (GRID.size, GRID.width, GRID.dtype) == (4, 4, np.dtype("float32"))
    assert Field(name="tokens", shape=(7,), kind="token").dtype == np.dtype("int32")
    assert Field(name="camera", shape=(8, 8, 3), kind="image").dtype == np.dtype("uint8")


@pytest.mark.parametrize(
    "values",
    [
        {"name": ""},
        {"name": "two words"},
        {"name": "../x"},
        {"name": "x\n"},
        {"name": "x", "shape": [2], "low": [0]},
        {"name": "x", "clip": True},
        {"name": "x", "clip": True, "low": [0]},
        {"name": "x", "low": [1], "high": [0]},
        {"name": "x", "low": [float("nan")], "high": [0]},
        {"name": "x", "kind": "categorical"},
        {"name": "x", "num_categories": 3},
        {"name": "x", "kind": "categorical", "num_categories": 1},
    ],
)
def test_impossible_fields(values):
    with pytest.raises(ConfigError):
        Field.parse(values)


def test_clipping_is_by_component_and_only_where_asked_for():
    values = np.array([[-3.0, -0.3], [0.5, 0.5]], np.float32)
    assert np.array_equal(ACTIONS.clipped(values), np.array([[-1, -0.3], [0.5, 0.4]], np.float32))
    assert ACTIONS.clipped(values).dtype == np.float32
    assert ACTIONS.replace(clip=False).clipped(values) is values


def test_clipping_keeps_extra_axes_and_inner_shapes():
    field = Field(name="grid", shape=(2, 2), low=(0, 0, 0, 0), high=(1, 2, 3, 4), clip=True)
    values = np.full((3, 5, 2, 2), 9.0)
    assert np.array_equal(field.clipped(values), np.broadcast_to([[1, 2], [3, 4]], (3, 5, 2, 2)))


def test_slices_stand_side_by_side():
    layout = Layout((OBSERVATIONS, GEAR, FLAG))
    assert layout.slices == {"observations": slice(0, 2), "gear": slice(2, 5), "terminations": slice(5, 6)}
    assert layout.size == 6
    assert [field.name for field in layout] == ["observations", "gear", "terminations"]


def test_pack_by_hand():
    x = Layout((OBSERVATIONS, GEAR, FLAG)).pack(
        {
            "observations": np.array([[1.0, 2.0], [3.0, 4.0]]),
            "gear": np.array([2, 0]),
            "terminations": np.array([True, False]),
            "unused": np.zeros(7),
        }
    )
    assert x.dtype == np.float32
    assert x.tolist() == [[1, 2, 0, 0, 1, 1], [3, 4, 1, 0, 0, 0]]


def test_unpack_by_hand():
    x = np.array([[0.1, 5.0, -5.0, 0.4, 0.2, 0.3, 0.51], [0.2, -5.0, 0.0, 0.1, 0.2, 0.15, 0.5]])
    columns = Layout((Field(name="rewards"), ACTIONS, GEAR, FLAG)).unpack(x)
    assert columns["rewards"].dtype == np.float32
    assert np.array_equal(columns["actions"], np.array([[1, -0.4], [-1, 0]], np.float32))
    assert columns["gear"].tolist() == [0, 1]
    assert columns["gear"].dtype == np.int64
    assert columns["terminations"].tolist() == [True, False]  # a component is true above the threshold
    assert columns["terminations"].dtype == bool


def test_threshold_of_flags():
    layout = Layout((FLAG,))
    x = np.array([[0.2], [0.6], [0.9]])
    assert layout.unpack(x, threshold=0.1)["terminations"].tolist() == [True, True, True]
    assert layout.unpack(x, threshold=0.8)["terminations"].tolist() == [False, False, True]


def test_unpack_leaves_its_input_alone():
    x = np.full((2, 2), 9.0, np.float32)
    Layout((ACTIONS,)).unpack(x)
    assert (x == 9).all()


@pytest.mark.parametrize("kind", ["token", "image", "index"])
def test_kinds_that_have_no_place_in_a_vector(kind):
    with pytest.raises(ConfigError, match=f"is a {kind}"):
        Layout((OBSERVATIONS, Field(name="other", kind=kind)))


def test_a_field_stands_once():
    with pytest.raises(ConfigError, match="each field once"):
        Layout((OBSERVATIONS, FLAG, OBSERVATIONS))


def test_missing_column_gets_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'observation'"):
        Layout((OBSERVATIONS,)).pack({"observation": np.zeros((3, 2)), "actions": np.zeros((3, 2))})


@pytest.mark.parametrize("shape", [(3, 4), (3,), (3, 1), (6, 1), ()])
def test_column_of_another_shape_is_not_reshaped(shape):
    with pytest.raises(SourceError, match="column 'observations' has the wrong shape"):
        Layout((OBSERVATIONS,)).pack({"observations": np.zeros(shape)})


@pytest.mark.parametrize("bad", [-1, 3])
def test_class_that_does_not_exist(bad):
    with pytest.raises(SourceError, match="a class that does not exist"):
        Layout((GEAR,)).pack({"gear": np.array([0, bad, 1])})
