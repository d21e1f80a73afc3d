import numpy as np
import pytest
from toy_data import SPEC, toy_dataset

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.errors import SourceError, UnknownNameError
from synth_pipeline.validation.marginals import column_scores, ks_complement, marginals, tv_complement


def test_ks_by_hand():
    assert ks_complement(np.array([1.0, 2, 3, 4]), np.array([3.0, 4, 5, 6])) == 0.5
    assert ks_complement(np.array([1.0, 2]), np.array([3.0, 4, 5])) == 0
    assert ks_complement(np.array([1.0, 2, 2]), np.array([2.0, 1, 2])) == 1


def test_tv_by_hand():
    assert tv_complement(np.array([True, False, False, False]), np.array([True, False])) == pytest.approx(0.75)
    assert tv_complement(np.array([0, 0]), np.array([1, 2])) == 0
    assert tv_complement(np.array([0, 1, 2, 3]), np.array([3, 2, 1, 0])) == 1


def test_scores_are_labelled_by_channel():
    rows = toy_dataset().transitions()
    scores = column_scores(rows, rows, SPEC.fields)
    assert set(scores) == {
        *(f"observations[{i}]" for i in range(3)),
        "actions[0]",
        "actions[1]",
        "rewards",
        *(f"next_observations[{i}]" for i in range(3)),
        "terminations",
    }
    assert set(scores.values()) == {1.0}


def test_worst_channel_is_named():
    dataset = toy_dataset()
    rows = dataset.transitions()
    spoilt = rows["observations"].copy()
    spoilt[:, 1] += 100
    mean, worst = marginals(dataset, rows.with_columns(observations=spoilt), SPEC.fields)
    assert (mean.metric, worst.metric) == ("marginals.mean", "marginals.worst")
    assert worst.value == 0
    assert mean.value == pytest.approx(9 / 10)
    assert min(mean.details["columns"], key=mean.details["columns"].get) == "observations[1]"


def test_fixed_sample_size():
    """The same number of rows of each side, whatever the store's size: scores of stores compare."""
    dataset = toy_dataset()
    rows = dataset.transitions()
    twice = Transitions({name: np.concatenate([column] * 5) for name, column in rows.columns.items()})
    for measured in marginals(dataset, twice, SPEC.fields, sample=30):
        assert measured.sample == 30
        assert measured.value < 1


def test_optional_column_that_one_side_lacks_is_left_out():
    dataset = toy_dataset()
    rows = dataset.transitions()
    fields = (*SPEC.fields, Field(name="costs", optional=True))
    assert "costs" not in marginals(dataset, rows, fields)[0].details["columns"]
    with pytest.raises(UnknownNameError, match="costs"):
        marginals(dataset, rows, (*SPEC.fields, Field(name="costs")))


@pytest.mark.parametrize("size", [2, 4])
def test_columns_of_another_size_are_not_compared(size):
    dataset = toy_dataset()
    other = dataset.transitions().with_columns(observations=np.zeros((len(dataset), size), np.float32))
    with pytest.raises(SourceError, match="column 'observations' has the wrong shape"):
        marginals(dataset, other, SPEC.fields)


def test_nothing_to_compare_is_not_decidable():
    dataset = toy_dataset()
    for measured in marginals(dataset, dataset.transitions().take(slice(0, 0)), SPEC.fields):
        assert measured.value is None
        assert measured.floor is None
        assert measured.details["why"] == "147 real and 0 synthetic rows"


def test_nan_in_a_column_costs_score_and_does_not_hide():
    real = np.linspace(0, 1, 100)
    half = np.where(np.arange(100) < 50, real, np.nan)
    assert ks_complement(real, half) == pytest.approx(0.5)
