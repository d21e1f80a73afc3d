import numpy as np
import pytest
from toy_data import SPEC, random_episodes

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.novelty import METRICS, divided, error_at_novelty, novelty

REAL = Dataset(SPEC, random_episodes([30] * 40))
HELD_OUT = np.arange(0, 40, 4)


def by_name(measurements):
    return {m.metric: m for m in measurements}


def test_held_out_rows_themselves_have_ratio_one():
    found = by_name(novelty(REAL, divided(REAL, HELD_OUT)[1], HELD_OUT))
    assert found["novelty.nn_ratio_sa"].value == 1.0
    assert found["novelty.nn_ratio_row"].value == 1.0
    assert found["novelty.copies"].value == 0.0
    assert tuple(found) == METRICS


def test_copies_and_near_copies_are_counted():
    train, unseen = divided(REAL, HELD_OUT)
    half = Transitions({name: np.concatenate([train[name][:300], unseen[name][:100]]) for name in train.columns})
    found = by_name(novelty(REAL, half, HELD_OUT))
    assert found["novelty.copies"].value == 0.75
    assert found["novelty.nn_ratio_row"].value == 0.0
    rng = np.random.default_rng(0)
    jittered = train.with_columns(
        observations=train["observations"] + np.float32(0.02) * rng.standard_normal(train["observations"].shape)
    )
    found = by_name(novelty(REAL, jittered, HELD_OUT))
    assert 0 < found["novelty.nn_ratio_sa"].value < 0.5


def test_straying_rows_are_seen():
    unseen = divided(REAL, HELD_OUT)[1]
    far = unseen.with_columns(observations=unseen["observations"] + 5)
    assert by_name(novelty(REAL, far, HELD_OUT))["novelty.nn_ratio_sa"].value > 5


def test_floor_lies_about_one():
    floor = by_name(novelty(REAL, REAL.transitions(), HELD_OUT))["novelty.nn_ratio_row"].floor
    assert 0.7 < floor.median < 1.4
    assert abs(floor.median - 1) <= floor.worst95 < 0.4


@pytest.mark.parametrize("held_out", [None, np.zeros(0, int), np.arange(40)])
def test_without_a_held_out_part_novelty_is_not_decidable(held_out):
    found = novelty(REAL, REAL.transitions(), held_out)
    assert [m.value for m in found] == [None] * 3
    assert {m.details["why"] for m in found} == {"no episodes were held out"}
    rows = Dataset(SPEC, rows=REAL.transitions())
    assert novelty(rows, REAL.transitions(), HELD_OUT)[0].value is None


def test_rows_that_are_not_finite_are_left_out():
    rows = divided(REAL, HELD_OUT)[1]
    spoilt = rows.with_columns(rewards=np.full(len(rows), np.nan))
    found = by_name(novelty(REAL, spoilt, HELD_OUT))
    assert found["novelty.nn_ratio_sa"].value == 1.0
    assert found["novelty.nn_ratio_row"].value is None
    assert found["novelty.copies"].value is None


def test_error_at_novelty_by_hand():
    reference = np.arange(1.0, 101)  # quintile edges 20.8, 40.6, 60.4, 80.2
    distances = np.array([0.0, 20.0, 50.0, 90.0, 500.0, 90.0])
    errors = np.array([1.0, 3.0, 5.0, 2.0, 4.0, np.nan])
    found = error_at_novelty(errors, distances, reference)
    assert [part["rows"] for part in found] == [2, 0, 1, 0, 2]
    assert [part["mean"] for part in found] == [2.0, None, 5.0, None, 3.0]
    assert [part["p99"] for part in found] == [pytest.approx(2.98), None, 5.0, None, pytest.approx(3.98)]
    assert [part["up_to"] for part in found] == [pytest.approx(e) for e in (20.8, 40.6, 60.4, 80.2)] + [None]
