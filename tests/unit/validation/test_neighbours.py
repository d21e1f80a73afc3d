import numpy as np
import pytest

from synth_pipeline.data.containers import Transitions
from synth_pipeline.validation.neighbours import MANY, Neighbours


def table(points):
    return Transitions({"observations": points, "actions": np.zeros((len(points), 1), np.float32)})


def test_distances_by_hand():
    training = Transitions({"observations": np.array([[0.0, 7], [2, 7]]), "actions": np.array([[0.0], [4]])})
    rows = Transitions({"observations": np.array([[0, 8], [3, 7], [np.nan, 7]]), "actions": np.array([[0], [4], [0]])})
    # standard deviations 1 and 2; the constant column keeps its own unit
    np.testing.assert_allclose(Neighbours(training).distances(rows), [1, 1, np.nan])


def test_distances_to_several_tables_are_alike_when_scored_by_one():
    scored_by, queries = table(np.array([[0.0], [10]])), table(np.array([[1.0]]))
    near, far = (Neighbours(table(np.array(points)), scored_by=scored_by) for points in ([[0.0], [1.5]], [[0.0], [6]]))
    np.testing.assert_allclose([near.distances(queries), far.distances(queries)], [[0.1], [0.2]])


@pytest.mark.parametrize("size", [3, MANY - 2, MANY - 1, 40])
@pytest.mark.parametrize("far", [0.0, 1e3])
def test_distances_are_exact_in_few_and_in_many_dimensions(size, far):
    """Copies and near-copies too, and beside a training row a thousand deviations away."""
    rng = np.random.default_rng(size)
    training = rng.standard_normal((700, size))
    training[0] += far
    queries = np.concatenate([rng.standard_normal((300, size)), training[:50], training[:50] + 1e-6, 3 * training[:9]])
    shift, scale = training.mean(axis=0), training.std(axis=0)
    a, b = (training - shift) / scale, (queries - shift) / scale
    expected = np.sqrt(((b[:, None] - a[None]) ** 2).sum(axis=-1)).min(axis=1)
    np.testing.assert_allclose(Neighbours(table(training)).distances(table(queries)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [3, 40])
def test_no_rows_have_no_distances(size):
    index = Neighbours(table(np.random.default_rng(0).standard_normal((5, size))))
    assert index.distances(table(np.zeros((0, size)))).shape == (0,)
