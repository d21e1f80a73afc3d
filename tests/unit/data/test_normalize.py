import numpy as np
import pytest

from synth_pipeline.data.normalize import NORMALIZERS, MinMax, Quantile, Standard
from synth_pipeline.errors import CheckpointError, SourceError

KINDS = [NORMALIZERS.load(name) for name in NORMALIZERS.names()]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
RNG = np.random.default_rng(0)


def test_registered_names_are_the_classes_own():
    assert {kind.name: kind for kind in KINDS} == {"standard": Standard, "min_max": MinMax, "quantile": Quantile}


def test_standard_by_hand():
    normalizer = Standard.fit(np.array([[1.0, 5.0], [3.0, 5.0]]))
    assert normalizer.encode(np.array([[1.0, 5.0], [3.0, 6.0]])).tolist() == [[-1, 0], [1, 0]]


def test_min_max_by_hand():
    normalizer = MinMax.fit(np.array([[0.0, 5.0], [1.0, 5.0], [4.0, 5.0]]))
    assert normalizer.encode(np.array([[0.0, 5.0], [1.0, 5.0], [4.0, 6.0]])).tolist() == [[-1, 0], [-0.5, 0], [1, 0]]


def test_quantile_scores_are_standard_normal():
    x = RNG.gamma(0.5, size=(50_000, 1))
    z = Quantile.fit(x).encode(x)
    assert abs(z.mean()) < 0.01
    assert abs(z.std() - 1) < 0.01
    assert np.all(np.diff(z[np.argsort(x[:, 0]), 0]) >= 0)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_normal_scores_decode_to_an_atom_as_often_as_the_data_hold_it(share):
    """Interpolating between the two values of a flag made 1 % of terminations into 8 %."""
    n = 200_000
    x = (np.arange(n) < share * n).astype(np.float32)[:, None]
    decoded = Quantile.fit(x).decode(RNG.standard_normal((n, 1)))
    assert np.mean(decoded > 0.5) == pytest.approx(share, abs=1.5e-3)
    assert np.isin(decoded, (0, 1)).mean() > 0.997  # between them lies one step of the quantile grid


def test_atoms_come_back_exactly():
    x = np.concatenate([np.zeros(700), np.full(100, 0.3), np.ones(200), RNG.normal(0.5, 1, 500)]).astype(np.float32)
    normalizer = Quantile.fit(x[:, None])
    atoms = np.array([[0.0], [0.3], [1.0]], np.float32)
    assert np.array_equal(normalizer.decode(normalizer.encode(atoms)), atoms)
    z = normalizer.encode(np.sort(x)[:, None])[:, 0]
    assert np.all(np.diff(z) >= 0)
    assert len(np.unique(normalizer.encode(np.zeros((5, 1))))) == 1


@every_kind
@pytest.mark.parametrize("value", [0.0, 1e-12, 1.0, -3.5, 12345.678, 1e30])
def test_a_constant_channel_decodes_to_its_constant_whatever_a_model_makes_of_it(kind, value):
    x = np.full((100, 1), value, np.float32)
    normalizer = kind.fit(x)
    assert np.abs(normalizer.encode(x)).max() < 0.01  # not the amplified rounding of its mean
    assert np.array_equal(normalizer.decode(np.linspace(-3, 3, 100)[:, None]), x)


@pytest.mark.parametrize("kind", [Standard, MinMax])
def test_rounding_of_a_large_constant_is_not_amplified(kind):
    x = np.float32(1000) + np.spacing(np.float32(1000)) * RNG.integers(0, 2, (500, 1)).astype(np.float32)
    assert np.abs(kind.fit(x).encode(x)).max() == 0


@every_kind
def test_small_units_are_no_constants(kind):
    x = RNG.standard_normal((500, 1)).astype(np.float32) * np.float32(1e-9)
    normalizer = kind.fit(x)
    assert 0.1 < normalizer.encode(x).std() < 2
    assert np.allclose(normalizer.decode(normalizer.encode(x)) * 1e9, x * 1e9, atol=1e-4)


@every_kind
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_tiny_data(kind, rows):
    x = np.array([[1.0, -5.0], [2.0, -5.0], [4.0, 9.0]])[:rows]
    normalizer = kind.fit(x)
    assert np.allclose(normalizer.decode(normalizer.encode(x)), x, atol=1e-5)
    assert np.isfinite(normalizer.encode(x + 100)).all()


@every_kind
def test_extremes_of_float32(kind):
    largest = np.finfo(np.float32).max / 2
    x = np.array([[largest, 1e-30], [-largest, 2e-30], [0.0, 3e-30]], np.float32)
    normalizer = kind.fit(x)
    z = normalizer.encode(x)
    assert np.isfinite(z).all()
    assert np.allclose(normalizer.decode(z)[:, 0] / largest, x[:, 0] / largest, atol=1e-6)


@every_kind
def test_no_rows_and_rows_that_are_not_finite(kind):
    with pytest.raises(SourceError, match="at least one row"):
        kind.fit(np.zeros((0, 3)))
    for bad in (np.nan, np.inf):
        with pytest.raises(SourceError, match="NaN or infinity") as caught:
            kind.fit(np.array([[0.0, bad, 1.0], [0.0, 1.0, 2.0]]))
        assert caught.value.found == "channels 1"


@every_kind
def test_exempt_channels_pass_unchanged(kind):
    x = RNG.normal(5, 3, (200, 3)).astype(np.float32)
    normalizer = kind.fit(x, exempt=np.array([False, True, False]))
    assert np.array_equal(normalizer.encode(x)[:, 1], x[:, 1])
    assert np.array_equal(normalizer.decode(x)[:, 1], x[:, 1])
    assert not np.allclose(normalizer.encode(x)[:, 0], x[:, 0])
    other = kind.from_arrays(normalizer.arrays())
    assert np.array_equal(other.encode(x), normalizer.encode(x))


@every_kind
def test_inputs_are_not_changed_and_nan_stays_visible(kind):
    x = RNG.standard_normal((50, 2)).astype(np.float32)
    normalizer, before = kind.fit(x), x.copy()
    normalizer.encode(x)
    normalizer.decode(x)
    assert np.array_equal(x, before)
    bad = np.array([[np.nan, 0.0]], np.float32)
    for fitted in (normalizer, kind.fit(np.ones((3, 2)))):
        assert np.isnan(fitted.encode(bad)[0, 0])
        assert np.isnan(fitted.decode(bad)[0, 0])


@every_kind
def test_incomplete_arrays(kind):
    arrays = kind.fit(np.zeros((3, 2))).arrays()
    name = sorted(arrays)[0]
    del arrays[name]
    with pytest.raises(CheckpointError, match=name):
        kind.from_arrays(arrays)


def test_quantile_decodes_into_the_observed_range_only():
    x = RNG.standard_normal((1000, 1)).astype(np.float32)
    decoded = Quantile.fit(x).decode(np.array([[-50.0], [50.0]]))
    assert decoded[:, 0].tolist() == [x.min(), x.max()]


def test_ranks_are_the_scores_of_the_data_without_jumps_beside_atoms():
    """For inputs of a network: an atom owns an interval of scores, and a value next to it stood at its far end."""
    rng = np.random.default_rng(0)
    x = np.where(rng.random(4000) < 0.4, 1.0, rng.normal(1.0, 1.0, 4000))[:, None]
    quantile = Quantile.fit(x)
    same = x[(x == 1.0) | (np.abs(x - 1.0) > 0.01)][:, None]
    np.testing.assert_allclose(quantile.ranks(same), quantile.encode(same), atol=1e-6)
    near = np.array([[1.0 - 1e-6], [1.0], [1.0 + 1e-6]])
    assert np.ptp(quantile.encode(near)) > 0.5
    assert np.ptp(quantile.ranks(near)) < 1e-2
    assert np.diff(quantile.ranks(np.linspace(-5, 7, 2001)[:, None])[:, 0]).min() >= 0


@every_kind
def test_units_of_a_growing_buffer(kind):
    """Lines stay; quantile maps follow, since the old one gives every new row its outermost score."""
    x = RNG.standard_normal((500, 2)).astype(np.float32)
    grown = np.concatenate([x, x + np.float32(8)])
    first = kind.fit(x, exempt=np.array([False, True]))
    later = first.updated(grown)
    if kind.is_affine:
        assert later is first
        return
    assert len(np.unique(first.encode(grown)[500:, 0])) == 1
    assert abs(later.encode(grown)[:, 0].mean()) < 0.01
    assert np.array_equal(later.encode(grown)[:, 1], grown[:, 1])
