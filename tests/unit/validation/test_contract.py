import numpy as np
import pytest
from toy_data import SPEC, toy_rows

from synth_pipeline import envs
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation import contract as contract_module
from synth_pipeline.validation.contract import contract

FIELDS = (
    *SPEC.fields,
    Field(name="gear", kind="categorical", num_categories=3),
    Field(name="costs", optional=True),
    Field(name="source_step", kind="index"),
)


def good(n=100):
    rows = toy_rows().transitions().take(slice(0, n))
    return rows.with_columns(gear=np.arange(n) % 3, source_step=np.arange(n))


def counts(rows, terminated=None, fields=FIELDS):
    """Metric without its family -> offending rows by field."""
    measured = contract(Dataset(SPEC, rows=rows), fields, terminated)
    assert all(m.value == sum(m.details["fields"].values()) for m in measured)
    return {m.metric.removeprefix("contract."): m.details["fields"] for m in measured}


def changed(name, change):
    column = good()[name].copy()
    change(column)
    return good().with_columns(**{name: column})


def test_good_rows_break_nothing():
    assert counts(good()) == {"schema": {}, "finite": {}, "bounds": {}}
    measured = contract(Dataset(SPEC, rows=good()), FIELDS)
    assert all((m.value, m.direction, m.unit, m.sample) == (0, "lower", "rows", 100) for m in measured)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite(value):
    def spoil(column):
        column[3] = value
        column[7, 1] = value

    found = counts(changed("observations", spoil))
    assert found["finite"] == {"observations": 2}
    assert found["schema"] == {}


def test_not_finite_in_a_bounded_column_and_in_a_scalar():
    assert counts(changed("actions", lambda c: c.__setitem__(0, np.nan)))["finite"] == {"actions": 1}
    assert counts(changed("rewards", lambda c: c.__setitem__(slice(0, 5), np.inf)))["finite"] == {"rewards": 5}


def test_rows_outside_their_bounds():
    def spoil(column):
        column[0] = (1.5, -1.5)
        column[1, 0] = -1.0001
        column[2] = (1.0, -1.0)

    assert counts(changed("actions", spoil))["bounds"] == {"actions": 2}


def test_classes_that_do_not_exist():
    def spoil(column):
        column[:3] = (-1, 3, 2)

    assert counts(changed("gear", spoil))["bounds"] == {"gear": 2}


def test_bounds_that_float32_cannot_hold_exactly():
    field = SPEC.field("actions").replace(low=(-0.4, -0.4), high=(0.4, 0.4))
    edge = np.tile(np.array([[0.4, -0.4]], np.float32), (5, 1))
    rows = Transitions({"actions": edge})
    assert counts(rows, fields=(field,))["bounds"] == {}
    assert counts(Transitions({"actions": field.clipped(edge * 2)}), fields=(field,))["bounds"] == {}


def test_missing_column_counts_every_row_unless_it_is_optional():
    rows = Transitions({name: column for name, column in good().columns.items() if name != "rewards"})
    assert counts(rows)["schema"] == {"rewards": 100}


@pytest.mark.parametrize(
    "column",
    [np.zeros((100, 2), np.float32), np.zeros((100, 3, 1), np.float32), np.zeros(100, np.float32)],
)
def test_misshapen_column(column):
    assert counts(good().with_columns(observations=column))["schema"] == {"observations": 100}


def test_misshapen_optional_column_is_wrong_too():
    assert counts(good().with_columns(costs=np.zeros((100, 2), np.float32)))["schema"] == {"costs": 100}
    assert counts(good().with_columns(costs=np.full(100, np.nan, np.float32)))["finite"] == {"costs": 100}


@pytest.mark.parametrize("kind", [np.float64, np.int32, "U4", object])
def test_column_of_another_type(kind):
    found = counts(good().with_columns(actions=np.zeros((100, 2)).astype(kind)))
    assert found["schema"] == {"actions": 100}


def test_flags_as_floats():
    assert counts(good().with_columns(terminations=np.zeros(100, np.float32)))["schema"] == {"terminations": 100}


def test_column_of_another_type_is_still_held_against_its_bounds():
    rows = good().with_columns(actions=np.full((100, 2), 3, np.int64))
    assert counts(rows)["bounds"] == {"actions": 100}


def test_no_rows_at_all():
    found = counts(good(0))
    assert found["schema"] == {"(rows)": 1}


def test_every_chunk_counts(monkeypatch):
    monkeypatch.setattr(contract_module, "CHUNK", 7)

    def spoil(column):
        column[::10] = np.nan

    assert counts(changed("rewards", spoil))["finite"] == {"rewards": 10}


def test_terminations_are_held_against_the_known_function():
    def terminated(next_observations):
        return next_observations[:, 0] > 0.5

    rows = good()
    right = rows.with_columns(terminations=terminated(rows["next_observations"]))
    assert counts(right, terminated)["terminations"] == {}
    flipped = right["terminations"].copy()
    flipped[[3, 50]] ^= True
    assert counts(right.with_columns(terminations=flipped), terminated)["terminations"] == {"terminations": 2}
    assert "terminations" not in counts(right)


def test_terminations_beside_rows_that_are_not_finite():
    """An environment refuses NaN; the contract must count such rows, not fall over them."""
    model = envs.make("hopper")
    n = 10
    next_observations = np.zeros((n, 11), np.float32)
    next_observations[:5, 0] = 1.25
    next_observations[2] = np.nan
    fields = (Field(name="next_observations", shape=(11,)), Field(name="terminations", kind="binary"))
    rows = Transitions({"next_observations": next_observations, "terminations": np.arange(n) >= 5})
    found = counts(rows, model.terminated, fields)
    assert found["finite"] == {"next_observations": 1}
    assert found["terminations"] == {}


def test_terminations_of_another_shape_are_not_broadcast():
    rows = good().with_columns(terminations=np.zeros((100, 1), bool))
    found = counts(rows, lambda next_observations: np.zeros(len(next_observations), bool))
    assert found["schema"] == {"terminations": 100}
    assert found["terminations"] == {}


def test_rows_are_not_changed():
    rows = good()
    before = {name: column.copy() for name, column in rows.columns.items()}
    counts(rows)
    assert all(np.array_equal(rows[name], column) for name, column in before.items())
