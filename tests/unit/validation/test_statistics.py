import json
import tracemalloc
from dataclasses import fields as attributes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from toy_data import SPEC, toy_rows

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation import statistics as module
from synth_pipeline.validation.statistics import BINS, ColumnStatistics, components, edges_of, labels, statistics

VALUES = arrays(
    np.float32,
    st.integers(1, 40),
    elements=st.floats(-1000, 1000, width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0]),
)
EDGES = np.linspace(-500, 500, BINS - 1)
ROUNDED = {"mean": 1e-9, "squares": 1e-6}  # beside values of 1000


def differences(one, other):
    """Names of the attributes that are not the same, or not up to rounding."""
    names = [attribute.name for attribute in attributes(one)]
    return [name for name in names if not same(name, getattr(one, name), getattr(other, name))]


def same(name, a, b):
    if name == "types":
        return a == b
    return np.allclose(a, b, rtol=1e-9, atol=ROUNDED[name]) if name in ROUNDED else np.array_equal(a, b, equal_nan=True)


@given(VALUES)
def test_they_are_what_numpy_says(values):
    found = ColumnStatistics.of(values, EDGES)
    finite = values[np.isfinite(values)].astype(np.float64)
    numbers = values[~np.isnan(values)]
    assert (found.count, found.finite, found.non_finite) == (len(values), len(finite), len(values) - len(finite))
    assert found.mean == pytest.approx(finite.mean() if len(finite) else 0.0, abs=1e-9)
    assert found.std == pytest.approx(finite.std() if len(finite) else 0.0, abs=1e-6)
    extremes = (numbers.min(), numbers.max()) if len(numbers) else (np.nan, np.nan)
    np.testing.assert_array_equal((found.minimum, found.maximum), extremes)
    below = [np.sum(numbers < edge) for edge in EDGES]
    assert np.cumsum(found.histogram).tolist() == [*below, len(numbers)]


@given(st.lists(VALUES, min_size=3, max_size=6), st.randoms(use_true_random=False))
def test_any_grouping_merges_to_the_same(parts, random):
    whole = ColumnStatistics.of(np.concatenate(parts), EDGES)
    merged = [ColumnStatistics.of(part, EDGES) for part in parts]
    while len(merged) > 1:
        at = random.randrange(len(merged) - 1)
        merged[at : at + 2] = [merged[at].merge(merged[at + 1])]
    assert differences(whole, merged[0]) == []


@given(VALUES, VALUES)
def test_the_order_of_the_parts_does_not_matter(a, b):
    one, other = ColumnStatistics.of(a, EDGES), ColumnStatistics.of(b, EDGES)
    assert differences(one.merge(other), other.merge(one)) == []


def test_a_small_spread_beside_a_large_mean_keeps_its_digits():
    """The mean of squares less the square of the mean has no digit left here."""
    values = 1e8 + np.random.default_rng(0).standard_normal(10_000)
    parts = [ColumnStatistics.of(part) for part in np.array_split(values, 7)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    assert merged.std == pytest.approx(values.std(), rel=1e-9)
    naive = np.mean(values**2) - np.mean(values) ** 2
    assert abs(naive - values.var()) > 0.1


def test_values_beyond_the_square_root_of_the_largest_number():
    found = ColumnStatistics.of(np.array([1e200, -1e200, 1.7e308, 1.7e308]))
    merged = found.merge(found)
    assert merged.maximum == 1.7e308
    json.dumps(merged.to_json(), allow_nan=False)


def test_outer_bins_hold_all_that_no_real_value_reached():
    real = Transitions({"rewards": np.array([-2.0, 0.0, 3.0, np.nan, np.inf], np.float32)})
    fields = (Field(name="rewards"),)
    edges = edges_of(real, fields)
    within = ColumnStatistics.of(real["rewards"][:3], edges["rewards"]).histogram
    assert (within[0], within[-1], within.sum()) == (0, 0, 3)
    beyond = np.array([-2.001, -np.inf, 3.001, 1e30, np.inf, np.nan])
    outside = ColumnStatistics.of(beyond, edges["rewards"]).histogram
    assert (outside[0], outside[-1], outside.sum()) == (2, 3, 5)


def test_a_constant_column_has_one_inner_bin():
    edges = edges_of(Transitions({"rewards": np.full(5, 0.1, np.float32)}), (Field(name="rewards"),))["rewards"]
    assert np.all(np.diff(edges) >= 0)
    value = float(np.float32(0.1))
    found = ColumnStatistics.of(np.array([value, value, 0.0, 0.2]), edges).histogram
    assert (found[0], found[-1], found.max()) == (1, 1, 2)


def test_a_column_without_finite_real_values_has_no_histogram():
    rows = Transitions({"rewards": np.full(3, np.nan, np.float32)})
    fields = (Field(name="rewards"),)
    assert edges_of(rows, fields) == {}
    found = statistics(Dataset(SPEC, rows=rows), fields, {})["rewards"]
    assert found.histogram is None
    assert (found.non_finite, found.mean, found.std) == (3, 0.0, 0.0)
    assert found.to_json()["min"] is None


def test_one_row_for_every_component_in_the_order_of_the_fields():
    found = statistics(toy_rows(), SPEC.fields)
    assert list(found) == [
        *(f"observations[{i}]" for i in range(3)),
        *(f"actions[{i}]" for i in range(2)),
        "rewards",
        *(f"next_observations[{i}]" for i in range(3)),
        "terminations",
    ]
    rows = toy_rows().transitions()
    assert found["actions[1]"].mean == pytest.approx(rows["actions"][:, 1].astype(float).mean())
    assert found["terminations"].types == {"bool"}
    assert found["terminations"].mean == pytest.approx(rows["terminations"].mean())


def test_what_cannot_be_counted_is_left_out_and_an_image_is_one_column():
    fields = (
        Field(name="missing"),
        Field(name="misshapen", shape=(2,)),
        Field(name="text"),
        Field(name="pixels", shape=(2, 2), kind="image"),
        Field(name="matrix", shape=(2, 2)),
    )
    rows = Transitions(
        {
            "misshapen": np.zeros((3, 4), np.float32),
            "text": np.array(["a", "b", "c"]),
            "pixels": np.arange(12, dtype=np.uint8).reshape(3, 2, 2),
            "matrix": np.arange(12, dtype=np.float32).reshape(3, 2, 2),
        }
    )
    assert [label for _, label, _, _ in components(rows, fields)] == ["pixels", *labels(fields[-1])]
    found = statistics(Dataset(SPEC, rows=rows), fields)
    assert (found["pixels"].count, found["pixels"].finite, found["pixels"].maximum) == (3, 12, 11)
    assert (found["matrix[3]"].count, found["matrix[3]"].minimum) == (3, 3)


def test_parts_of_different_types_are_told():
    one, other = ColumnStatistics.of(np.zeros(2, np.float32)), ColumnStatistics.of(np.zeros(2, np.int64))
    assert one.merge(other).to_json()["types"] == ["float32", "int64"]


class Endless:
    """Rows that exist only while they are read."""

    spec = SPEC

    def __init__(self, rows):
        self.rows, self.read_rows = rows, []

    def __len__(self):
        return self.rows

    def read(self, start, stop):
        self.read_rows += [start, stop]
        return Transitions({"rewards": np.arange(start, stop, dtype=np.float32)})


def peak(source):
    tracemalloc.start()
    found = statistics(source, SPEC.fields, {"rewards": EDGES})
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found["rewards"], most


def test_rows_are_read_once_in_constant_memory(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 10_000)
    few, many = Endless(20_000), Endless(500_001)
    _, little = peak(few)
    found, most = peak(many)
    assert most < 2 * little  # of 25 times as many rows
    starts, stops = many.read_rows[::2], many.read_rows[1::2]
    assert starts == [0, *stops[:-1]]
    assert stops[-1] == 500_001
    assert found.count == found.histogram.sum() == 500_001
    assert found.mean == pytest.approx(250_000)
