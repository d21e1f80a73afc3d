"""The classifier finds what is different, cannot find what is not, and does not depend on threads."""

import numpy as np
import pytest
from scipy.special import ndtr
from toy_data import toy_dataset

from synth_pipeline.data.containers import Transitions
from synth_pipeline.validation.c2st import METRICS, area, c2st, points
from synth_pipeline.validation.coverage import distance, visited


def test_two_gaussians_reach_the_area_of_the_best_classifier():
    """Shifted by d, they are told apart with area Phi(d / sqrt 2) (Green and Swets 1966); trees come close to it."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4000, 2)), rng.standard_normal((4000, 2))
    b[:, 0] += 1.0
    best = ndtr(1 / np.sqrt(2))
    assert best - 0.04 < area(a, b) < best + 0.015


def test_the_same_distribution_cannot_be_told_apart():
    rng = np.random.default_rng(1)
    assert area(rng.standard_normal((3000, 3)), rng.standard_normal((3000, 3))) < 0.53


def test_dependence_alone_is_found():
    rng = np.random.default_rng(2)
    a = rng.standard_normal((3000, 2))
    b = np.stack([a[:, 0], a[:, 0] * 0.8 + 0.6 * rng.standard_normal(3000)], axis=1)
    assert area(a, b) > 0.65


def test_nothing_finite_is_not_decidable():
    real = toy_dataset()
    rows = real.transitions()
    broken = rows.with_columns(observations=np.full_like(rows["observations"], np.nan))
    assert [m.value for m in c2st(real, broken)] == [None] * len(METRICS)
    assert all(m.details["why"] for m in c2st(real, broken))


def test_points_are_the_finite_rows():
    rows = Transitions({"observations": np.array([[1.0, 2], [np.inf, 0]]), "actions": np.array([[3.0], [4]])})
    assert points(rows, ("observations", "actions")).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(("first", "second", "value"), [([1, 0], [0, 1], 1.0), ([0.5, 0.5], [0.25, 0.75], 0.25)])
def test_total_variation(first, second, value):
    assert distance(np.array(first), np.array(second)) == value


def test_a_cell_counts_when_visited_half_to_twice_as_often():
    real = np.array([0.1, 0.1, 0.1, 0.1, 0.0])
    assert visited(real, np.array([0.05, 0.2, 0.04, 0.21, 0.3])) == 0.5
