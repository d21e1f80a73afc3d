"""Support in planes: gaps are seen, unseen rows of the same law are covered, arrays bring it back."""

import numpy as np
import pytest

from synth_pipeline.generators.support import CELLS, PlaneSupport


def ring(count, seed, columns=3):
    """Columns 0 and 1 on a ring of radius 2 and width 0.1, the others normal."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, columns))
    angle, radius = rng.uniform(0, 2 * np.pi, count), 2 + 0.1 * rng.normal(size=count)
    x[:, 0], x[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
    return x.astype(np.float32)


def groups(count, size=50):
    return np.arange(count) // size


@pytest.fixture(scope="module")
def support():
    return PlaneSupport.fit(ring(20_000, 0), groups(20_000), 0.99)


def test_unseen_rows_of_the_same_law_are_covered(support):
    assert support.covers(ring(20_000, 1)).mean() == pytest.approx(0.99, abs=0.008)


def test_every_row_that_was_learned_is_covered(support):
    assert support.covers(ring(20_000, 0)).all()


def test_a_hole_in_one_plane_is_seen_though_every_column_is_common_there(support):
    inside = ring(5_000, 2)
    inside[:, :2] *= 0.4
    common = np.abs(inside[:, :2]) < np.quantile(np.abs(ring(20_000, 0)[:, :2]), 0.9)
    assert common.all(axis=1).mean() > 0.9
    assert support.covers(inside).mean() < 0.01


def test_rows_far_outside_count_into_the_outermost_cells(support):
    far = np.full((4, 3), 1e9, np.float32)
    far[1::2] *= -1
    assert not support.covers(far).any()


def test_a_share_of_one_asks_for_the_farthest_unseen_row():
    x = ring(5_000, 3)
    strict, free = (PlaneSupport.fit(x, groups(5_000), share) for share in (0.9, 1.0))
    fresh = ring(5_000, 4)
    assert strict.covers(fresh).sum() < free.covers(fresh).sum()
    assert free.covers(fresh).mean() > 0.99


def test_episodes_with_places_of_their_own_widen_what_is_near():
    """A goal stands still within an episode: unseen episodes have others, and the limit must know."""
    rng = np.random.default_rng(0)
    goals = np.repeat(rng.uniform(-1, 1, size=(200, 2)), 100, axis=0)
    others = rng.uniform(-1, 1, size=(2_000, 2))
    by_episode = PlaneSupport.fit(goals, np.repeat(np.arange(200), 100), 0.99)
    by_row = PlaneSupport.fit(goals, np.arange(len(goals)), 0.99)
    assert by_episode.covers(others).mean() > 0.95
    assert by_row.covers(others).mean() < 0.5


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("columns", [1, 2, 4])
def test_few_rows_single_columns_and_constants_are_no_trouble(rows, columns):
    x = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    x[:, 0] = 3.0
    found = PlaneSupport.fit(x, np.zeros(rows, np.int64), 0.99)
    assert found.covers(x).all()
    assert found.covers(x[:0]).shape == (0,)


def test_arrays_bring_it_back(support):
    again = PlaneSupport.from_arrays(support.arrays())
    x = ring(5_000, 5) + np.random.default_rng(6).normal(scale=0.3, size=(5_000, 3))
    assert np.array_equal(again.covers(x), support.covers(x))
    assert 0.1 < support.covers(x).mean() < 0.9
    assert support.covered.shape == (3, CELLS**2 // 8)
