import numpy as np
import pytest
from toy_data import SPEC, toy_dataset, toy_rows

from synth_pipeline.validation.dependence import dependence, pair_scores


def test_scores_by_hand():
    x = np.array([1.0, 2, 3, 4])
    real = np.stack([x, x, -x], axis=1)  # rho 1, -1, -1
    synthetic = np.stack([x, -x, -x], axis=1)  # rho -1, -1, 1
    np.testing.assert_allclose(pair_scores(real, synthetic), [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(pair_scores(real, real), 1)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_numpys_correlation(seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal((200, 4)) @ rng.standard_normal((4, 4)) + 100 for _ in range(2))
    upper = np.triu_indices(4, k=1)
    expected = 1 - np.abs(np.corrcoef(a.T)[upper] - np.corrcoef(b.T)[upper]) / 2
    np.testing.assert_allclose(pair_scores(a, b), expected, atol=1e-12)


def test_constant_columns():
    x = np.array([[1.0, 5], [2, 5], [3, 5]])
    assert np.isnan(pair_scores(x, x[:, ::-1])).all()
    collapsed = x.copy()
    np.testing.assert_allclose(pair_scores(np.stack([x[:, 0], x[:, 0]], axis=1), collapsed), 0.5)


def test_shuffling_one_column_is_seen_where_it_happened():
    real = toy_dataset()
    rows = real.transitions()
    order = np.random.default_rng(0).permutation(len(rows))
    (found,) = dependence(real, rows.with_columns(next_observations=rows["next_observations"][order]), SPEC.fields)
    assert found.value < dependence(real, rows, SPEC.fields)[0].value == 1.0
    worst = min(found.details["columns"], key=found.details["columns"].get)
    assert "next_observations" in worst
    assert list(found.details["columns"].values()) == sorted(found.details["columns"].values())


def test_nothing_to_compare_is_not_decidable():
    real = toy_rows()
    rows = real.transitions()
    spoilt = rows.with_columns(rewards=np.full(len(rows), np.nan))
    for synthetic in (rows.take(slice(0, 0)), spoilt):
        (found,) = dependence(real, synthetic, SPEC.fields)
        assert found.value is None
        assert found.details["why"]
