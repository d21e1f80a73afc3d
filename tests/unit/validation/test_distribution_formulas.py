"""Each metric against a closed form, or against the naive computation of its definition."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.special import ndtr
from scipy.stats import ortho_group
from threadpoolctl import threadpool_limits
from toy_data import SPEC, random_episodes, toy_dataset, toy_rows

from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.c2st import METRICS, apart, area, c2st, network, residuals, standardised
from synth_pipeline.validation.frechet import between, distance, frechet
from synth_pipeline.validation.membership import membership
from synth_pipeline.validation.novelty import divided
from synth_pipeline.validation.prdc import K, prdc, scores

REAL = Dataset(SPEC, random_episodes([30] * 40))
FRESH = random_episodes([30] * 40, seed=7).transitions()
HELD_OUT = np.arange(0, 40, 4)


def spoilt(rows, name):
    return rows.with_columns(**{name: np.full_like(rows[name], np.nan)})


# PRDC


def naive(real, synthetic):
    """Word by word, one pair of rows at a time."""

    def radius(side):
        return [sorted(np.linalg.norm(x - y) for y in side)[K] for x in side]

    real_balls, synthetic_balls = (list(zip(side, radius(side), strict=True)) for side in (real, synthetic))
    holders = [sum(np.linalg.norm(y - x) < r for x, r in real_balls) for y in synthetic]
    return {
        "precision": np.mean([count > 0 for count in holders]),
        "recall": np.mean([any(np.linalg.norm(x - y) < r for y, r in synthetic_balls) for x in real]),
        "density": np.mean(holders) / K,
        "coverage": np.mean([any(np.linalg.norm(y - x) < r for y in synthetic) for x, r in real_balls]),
    }


@pytest.mark.parametrize(
    ("count", "others", "columns"), [(6, 6, 1), (40, 40, 3), (70, 70, 25), (33, 90, 2), (90, 7, 5)]
)
def test_prdc_is_its_definition(count, others, columns):
    rng = np.random.default_rng(count)
    for shift, far in ((0.0, 0.0), (0.7, 0.0), (0.3, 1e6)):
        real, synthetic = rng.standard_normal((count, columns)), shift + rng.standard_normal((others, columns))
        synthetic[0] += far
        assert scores(real + 100, synthetic + 100) == pytest.approx(naive(real + 100, synthetic + 100), abs=1e-12)


def test_prdc_of_copies_is_one_though_rows_lie_on_the_edges_of_balls():
    x = np.random.default_rng(0).standard_normal((300, 8))
    order = np.random.default_rng(1).permutation(300)
    assert scores(x, x[order]) == dict.fromkeys(("precision", "recall", "density", "coverage"), 1.0)


def test_prdc_of_one_distribution_is_what_naeem_et_al_expect():
    """Density 1, coverage 1 - (n - 1)...(n - k) / ((2 n - 1)...(2 n - k)), whatever the distribution."""
    n, places = 1000, np.arange(1, K + 1)
    for columns in (2, 12):
        rng = np.random.default_rng(columns)
        found = [scores(*rng.standard_normal((2, n, columns))) for _ in range(4)]
        assert np.mean([f["density"] for f in found]) == pytest.approx(1.0, abs=0.05)
        expected = 1 - np.prod((n - places) / (2 * n - places))
        assert np.mean([f["coverage"] for f in found]) == pytest.approx(expected, abs=0.01)


def test_rows_heaped_up_at_the_centre_lie_in_nearly_all_balls():
    """In many dimensions the centre is nearer to every row than the rows are to each other."""
    rng = np.random.default_rng(0)
    found = scores(rng.standard_normal((500, 20)), 1e-3 * rng.standard_normal((500, 20)))
    assert found["precision"] == 1.0
    assert found["density"] > 20
    assert found["recall"] == 0.0


def test_prdc_takes_as_many_rows_of_both_sides():
    """100 rows of 1,200 lie in 5 balls each, and would cover no more than 5 of 12."""
    assert prdc(REAL, FRESH.take(np.arange(100)), splits=2)[3].value > 0.7


def test_prdc_without_finite_rows_is_not_decidable():
    found = prdc(REAL, spoilt(FRESH, "rewards"), splits=2)
    assert [m.value for m in found] == [None] * 4
    assert all(m.details["why"] and m.floor is None for m in found)


# Fréchet distance


def test_frechet_of_commuting_gaussians():
    """||m_1 - m_2||^2 + sum of (sigma_1 - sigma_2)^2 along the common axes."""
    axes = ortho_group.rvs(4, random_state=0)
    first, second = np.array([1.0, 2, 3, 0]), np.array([2.0, 0, 3, 0.5])
    covariances = [axes @ np.diag(sigma**2) @ axes.T for sigma in (first, second)]
    shift = np.array([1.0, 0, -2, 0])
    expected = 5 + ((first - second) ** 2).sum()
    assert between(shift, covariances[0], np.zeros(4), covariances[1]) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_frechet_is_the_formula_with_the_root_of_the_product(seed):
    rng = np.random.default_rng(seed)
    first, second = (a @ a.T for a in rng.standard_normal((2, 5, 7)))
    gap = rng.standard_normal(5)
    expected = gap @ gap + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert between(gap, first, np.zeros(5), second) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_constant_and_repeated_columns():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 2))
    real = np.column_stack([x, x[:, 0], np.full(500, 7.0)])
    assert distance(*standardised(real, real)) == pytest.approx(0.0, abs=1e-7)
    moved = real + np.array([0.0, 0, 0, 2])
    assert distance(*standardised(real, moved)) == pytest.approx(4.0, abs=1e-7)
    collapsed = np.tile(real.mean(axis=0), (500, 1))
    assert distance(*standardised(real, collapsed)) == pytest.approx(3 * 500 / 499, abs=1e-7)


def test_frechet_of_rows_that_cannot_be_compared():
    assert [m.value for m in frechet(REAL, FRESH.take(np.arange(1)))] == [None, None]
    of_sa, of_rows = frechet(REAL, spoilt(FRESH, "rewards"), splits=2)
    assert of_sa.value < 0.5
    assert of_rows.value is None
    assert of_rows.details["why"]


# Membership inference


def test_copies_of_half_of_the_training_episodes_reach_three_quarters():
    """Copied rows are told for certain, the others by chance: 1/2 + 1/2 * 1/2."""
    training, _ = divided(REAL, HELD_OUT)
    copied = training.take(slice(0, len(training) // 2))
    assert membership(REAL, copied, HELD_OUT, splits=1)[0].value == pytest.approx(0.75, abs=0.05)
    assert membership(REAL, training, HELD_OUT, splits=1)[0].value == 1.0


def test_fresh_rows_give_nothing_away():
    (found,) = membership(REAL, FRESH, HELD_OUT)
    assert 0.5 <= found.floor.median < 0.56
    assert found.value <= found.floor.worst95 + 0.03


@pytest.mark.parametrize("held_out", [None, np.zeros(0, int), np.arange(40)])
def test_without_a_held_out_part_membership_is_not_decidable(held_out):
    (found,) = membership(REAL, FRESH, held_out)
    assert found.value is None
    assert found.details == {"why": "no episodes were held out"}
    assert membership(toy_rows(), FRESH, HELD_OUT)[0].value is None


def test_one_training_episode_has_a_value_and_no_floor():
    (found,) = membership(REAL, FRESH, np.arange(39))
    assert found.value is not None
    assert found.floor is None


def test_rows_that_are_not_finite_are_left_out_of_membership():
    (found,) = membership(REAL, spoilt(FRESH, "rewards"), HELD_OUT)
    assert found.value is None
    half = FRESH["rewards"].copy()
    half[::2] = np.inf
    kept = FRESH.take(np.arange(1, len(FRESH), 2))
    values = [membership(REAL, rows, HELD_OUT, splits=1)[0].value for rows in (FRESH.with_columns(rewards=half), kept)]
    assert values[0] == values[1]


# C2ST


def test_residuals_reach_the_area_of_the_best_classifier():
    """s'[0] moved by one standard deviation of its noise is told with area Phi(1 / sqrt 2) by who knows the mean."""
    real, other = (Dataset(SPEC, random_episodes([50] * 160, seed=seed)) for seed in (0, 1))
    rows = other.transitions()
    moved = rows["next_observations"] + np.array([0.02, 0, 0], np.float32)
    found = {m.metric: m.value for m in c2st(real, rows.with_columns(next_observations=moved), splits=0)}
    assert found["c2st.residual"] == pytest.approx(ndtr(1 / np.sqrt(2)), abs=0.03)
    assert found["c2st.row"] < found["c2st.residual"] - 0.05


def test_the_mean_is_taken_away():
    told = residuals(REAL.transitions())
    left = told(FRESH)
    np.testing.assert_allclose(left[:, :5], np.concatenate([FRESH["observations"], FRESH["actions"]], axis=1))
    np.testing.assert_allclose(left[:, 5:].std(axis=0), 0.02, rtol=0.1)  # the toy's noise
    assert abs(left[:, 5:].mean(axis=0)).max() < 0.003
    assert len(told(spoilt(FRESH, "actions"))) == 0


def test_the_mean_is_fitted_on_episodes_that_are_not_compared():
    fitted, compared = apart(REAL, seed=0)
    assert len(fitted) == 8 * 30
    assert len(compared.episodes) == 32
    both = np.concatenate([fitted["observations"], compared.transitions()["observations"]])
    assert len(np.unique(both, axis=0)) == len(REAL)
    for few in (toy_rows(), toy_dataset(lengths=(20, 30))):
        fitted, compared = apart(few, seed=0)
        assert len(fitted) == round(len(few) / 5)
        assert len(fitted) + len(compared) == len(few)


def test_no_finite_row_to_fit_a_mean_on():
    left = residuals(spoilt(FRESH, "rewards").take(slice(0, 0)))(FRESH)
    np.testing.assert_allclose(left[:, 5:], FRESH["next_observations"].astype(float) - FRESH["observations"])
    assert [m.value for m in c2st(Dataset(SPEC, rows=FRESH.take(slice(0, 1))), FRESH)] == [None] * len(METRICS)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")  # its epochs are few on purpose
def test_a_network_finds_what_is_oblique_and_not_what_is_not_there():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3000, 8))
    turned = b + 0.25  # a little in every column: along the diagonal
    best = ndtr(0.25 * np.sqrt(8) / np.sqrt(2))
    assert best - 0.06 < area(a, turned, classifier=network) < best + 0.02
    assert area(a, b, classifier=network) < 0.54


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")  # its epochs are few on purpose
def test_a_network_does_not_depend_on_threads():
    a, b = np.random.default_rng(0).standard_normal((2, 600, 20))
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(area(a, b + 0.1, classifier=network))
    assert found[0] == found[1]
