"""p(y | x): noise is told from model error and sampled with its shape; a function stays a function."""

import numpy as np
import pytest

from synth_pipeline.diffusion.loop import Phases
from synth_pipeline.dynamics.conditional import (
    Conditional,
    ConditionalConfig,
    absent_member,
    few_values,
    known_by_heart,
    nearest,
    shared_error,
    smooth_error,
)
from synth_pipeline.errors import SourceError

FEW = {"gradient_steps": 400, "batch_size": 256, "warmup_steps": 20, "learning_rate": 3e-3, "precision": "float32"}
CONFIG = {
    "regressor": {"members": 3, "width": 48, "depth": 2, "trainer": FEW},
    "diffusion": {
        "network": {"width": 64, "depth": 2},
        "sampler": {"num_steps": 12, "sigma_max": 20},
        "trainer": {**FEW, "gradient_steps": 900, "learning_rate": 3e-3},
    },
}


def rows(n=6000, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 3)).astype(np.float32)


def hard(x):
    """A function with a kink and a jump, which a small network misses."""
    return np.stack([np.abs(x[:, 0]) * np.sign(x[:, 1]), np.sin(8 * x[:, 2])], axis=1)


def fitted(y, x, **changes):
    model = Conditional(ConditionalConfig.parse({**CONFIG, **changes}))
    phases = Phases(model.phases("y"))
    model.fit(x, y, groups=np.arange(len(x)), seed=0, address=1, name="y", phases=phases)
    return model


@pytest.fixture(scope="module")
def two_sided():
    """The second component is noise with two modes, whose distance depends on x; the first is a function."""
    x, rng = rows(), np.random.default_rng(1)
    side = rng.choice([-1.0, 1.0], len(x)) * (0.5 + 0.4 * x[:, 0]) + 0.05 * rng.standard_normal(len(x))
    return fitted(np.stack([hard(x)[:, 0], side], axis=1), x)


def test_model_error_is_not_taken_for_noise():
    x = rows()
    model = fitted(hard(x), x)
    assert not model.noisy.any()
    assert model.calls == 0
    assert np.array_equal(model.sample(x, np.random.default_rng(0)), model.predict(x).mean)


def test_noise_is_found_where_it_is(two_sided):
    assert two_sided.noisy.tolist() == [False, True]
    assert two_sided.shared[1] > 0.95
    assert two_sided.smooth[0] > 0.3
    assert two_sided.calls == 12


def test_the_noise_has_its_modes_at_every_x(two_sided):
    for place in (-0.8, 0.0, 0.8):
        x = np.tile(np.float32([place, 0.5, 0.2]), (4000, 1))
        drawn = two_sided.sample(x, np.random.default_rng(2))
        assert np.ptp(drawn[:, 0]) < 1e-6
        assert np.abs(drawn[:, 1]).mean() == pytest.approx(0.5 + 0.4 * place, abs=0.06)
        assert (drawn[:, 1] > 0).mean() == pytest.approx(0.5, abs=0.06)
        assert np.abs(np.abs(drawn[:, 1]) - 0.5 - 0.4 * place).mean() < 0.12


def test_the_mean_alone_is_where_nothing_is():
    x, rng = rows(2000), np.random.default_rng(1)
    y = rng.choice([-1.0, 1.0], (len(x), 1)) + 0.01 * rng.standard_normal((len(x), 1))
    model = fitted(y, x, residual="none")
    assert np.abs(model.sample(x, rng)).mean() < 0.3


def test_a_residual_is_counted_from_when_it_is_needed():
    x, rng = rows(2000), np.random.default_rng(1)
    noise = rng.choice([-1.0, 1.0], (len(x), 2))
    for y, needed in ((hard(x), False), (noise, True)):
        counted, model = [], Conditional(ConditionalConfig.parse(CONFIG))
        phases = Phases(model.phases("y") | {"next": 10}, lambda *line, to=counted: to.append(line))
        model.fit(x, y, groups=np.arange(len(x)), seed=0, address=1, name="y", phases=phases)
        phases.phase("next")["report"](10, 10, {"loss": 1.0})
        mean, rest = (CONFIG[part]["trainer"]["gradient_steps"] for part in ("regressor", "diffusion"))
        assert list(phases.steps) == (["y", "y_residual", "next"] if needed else ["y", "next"])
        assert counted[0][1] == mean + 10
        assert counted[-1][:2] == (mean + rest * needed + 10,) * 2


def test_a_component_of_few_values_takes_no_others():
    """A sparse reward beside a continuous column and one that never changes; all of it survives saving."""
    x = rows()
    sparse = np.where(x[:, 0] + x[:, 1] > 1, 1.0, np.where(x[:, 2] > 0.5, -0.1, 0.0))
    y = np.stack([sparse, hard(x)[:, 0], np.zeros(len(x))], axis=1)
    model = fitted(y, x, residual="none")
    other = Conditional(model.config)
    other.restore(*model.state())
    fresh = rows(seed=5)
    drawn, again = (m.sample(fresh, np.random.default_rng(0)) for m in (model, other))
    assert np.unique(drawn[:, 0]).tolist() == [-0.1, 0.0, 1.0]
    assert len(np.unique(drawn[:, 1])) > 1000
    assert not drawn[:, 2].any()
    assert np.array_equal(drawn, again)


def test_few_values_in_few_rows_say_nothing():
    column = np.arange(3.0)
    assert few_values(np.tile(column, 200)).tolist() == [0, 1, 2]
    assert not len(few_values(np.tile(column, 20)))
    assert not len(few_values(np.tile(np.arange(11.0), 1000)))


def test_nearest_values():
    values = np.array([-1.0, 0.0, 4.0])
    assert nearest(np.array([-9.0, -0.6, -0.4, 1.9, 2.1, 9.0]), values).tolist() == [-1, -1, 0, 0, 4, 4]
    assert nearest(np.array([2.0, -3.0]), np.array([7.0])).tolist() == [7, 7]


def test_it_is_saved_with_what_it_decided(two_sided):
    values, arrays = two_sided.state()
    other = Conditional(two_sided.config)
    other.restore(values, arrays)
    x = rows(50, seed=3)
    ours, theirs = (model.sample(x, np.random.default_rng(4)) for model in (two_sided, other))
    assert np.array_equal(ours, theirs)
    assert values["noisy"] == [False, True]


def test_shares_of_constructed_errors():
    """Members that err alike share all; members that err independently share nothing; an exact one counts as exact."""
    rng = np.random.default_rng(0)
    left_out = rng.integers(3, size=20_000)
    alike = np.broadcast_to(rng.standard_normal(20_000), (3, 20_000))
    apart = rng.standard_normal((3, 20_000))
    shares = shared_error(np.stack([alike, apart, np.zeros((3, 20_000))], axis=2), left_out)
    assert shares[0] == pytest.approx(1.0)
    assert shares[1] < 0.05
    assert shares[2] == 0.0


def test_errors_that_are_far_smaller_on_seen_rows_are_told():
    rng, left_out = np.random.default_rng(0), np.arange(9000) % 3
    noise = rng.standard_normal(9000)
    seen = np.arange(3)[:, None] != left_out
    by_heart = np.where(seen, 0.6 * noise, noise)
    told = known_by_heart(np.stack([by_heart, np.tile(noise, (3, 1)), 0.1 * by_heart], axis=2), left_out)
    assert told.tolist() == [True, False, False], "of what is not notable it does not matter"


def test_neighbours_agree_on_what_is_smooth_and_not_on_noise():
    """Only neighbours of other groups count: rows of one episode resemble each other anyway."""
    x, rng = rows(5000), np.random.default_rng(0)
    errors = np.stack([np.sin(3 * x[:, 0]), rng.standard_normal(len(x))], axis=1)
    smooth = smooth_error(errors, x, np.arange(len(x)), rng)
    assert smooth[0] > 0.9
    assert abs(smooth[1]) < 0.06
    twins = np.repeat(np.arange(2500), 2)
    alike = np.repeat(rng.standard_normal((2500, 1)), 2, axis=0)
    assert abs(smooth_error(alike, np.repeat(x[:2500], 2, axis=0), twins, rng)[0]) < 0.1
    assert smooth_error(alike, np.repeat(x[:2500], 2, axis=0), np.zeros(5000, int), rng)[0] == 0.0


def test_a_member_does_not_learn_the_rows_it_leaves_out():
    """Random labels can only be known by heart: errors on unseen rows are larger."""
    x, rng = rows(60), np.random.default_rng(0)
    y = rng.standard_normal((60, 1))
    model = fitted(y, x, residual="none", regressor={**CONFIG["regressor"], "trainer": {**FEW, "batch_size": 64}})
    errors, left_out = model._mean.errors(x, y)[..., 0], absent_member(np.arange(60), 3)
    few = np.flatnonzero(left_out >= 0)
    unseen = (errors[left_out[few], few] ** 2).mean()
    assert unseen > 2 * (errors[(left_out[few] + 1) % 3, few] ** 2).mean()
    assert unseen > 2 * (errors[:, left_out < 0] ** 2).mean()


def test_every_member_leaves_out_its_own_tenth_of_the_groups():
    groups = np.repeat(np.arange(7, 207), 3)  # names of groups mean nothing
    left_out = absent_member(groups, 3)
    assert [int((left_out == member).sum()) for member in (-1, 0, 1, 2)] == [420, 60, 60, 60]
    assert all(len(np.unique(left_out[groups == group])) == 1 for group in np.unique(groups))
    with pytest.raises(SourceError, match="at least two"):
        absent_member(np.zeros(5, int), 3)
    assert absent_member(np.array([5, 9, 5]), 2).tolist() == [0, 1, 0]
    assert absent_member(np.arange(30), 30).tolist() == list(range(30))
