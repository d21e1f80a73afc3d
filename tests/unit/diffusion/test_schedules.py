import math

import pytest
import torch
from analytic import CONTINUOUS, DISCRETE, SCHEDULES, Counted, gaussian, generator
from hypothesis import given, settings
from hypothesis import strategies as st

from synth_pipeline.diffusion.grid import Grid, make_grid
from synth_pipeline.diffusion.sampler import sample
from synth_pipeline.diffusion.schedules import (
    EDM,
    VPSDE,
    Cosine,
    Discrete,
    Flow,
    cosine_betas,
    linear_betas,
    vp_betas,
)
from synth_pipeline.diffusion.steps import STEPS
from synth_pipeline.errors import ConfigError

SPACINGS = ("karras", "log_snr", "uniform")
fraction = st.floats(0.0, 1.0)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def inner_time(schedule, share):
    """A time of the schedule: any in its range, or a step of its table."""
    t = schedule.smallest + share * (schedule.horizon - schedule.smallest)
    return doubles(round(t) if isinstance(schedule, Discrete) else t)


@pytest.mark.parametrize(
    ("schedule", "t", "alpha", "sigma"),
    [
        (EDM(), 80.0, 1.0, 80.0),
        (VPSDE(), 1.0, math.exp(-5.025), math.sqrt(1 - math.exp(-10.05))),
        (VPSDE(), 0.5, math.exp(-0.25 * 0.25 * 19.9 - 0.025), math.sqrt(1 - math.exp(-2 * (0.0625 * 19.9 + 0.025)))),
        (Cosine(), 0.5, math.cos(0.508 / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2), None),
        (Flow(), 0.25, 0.75, 0.25),
    ],
)
def test_continuous_schedules_are_their_formulas(schedule, t, alpha, sigma):
    sigma = math.sqrt(1 - alpha**2) if sigma is None else sigma
    assert float(schedule.alpha(doubles(t))) == pytest.approx(alpha, rel=1e-12)
    assert float(schedule.sigma(doubles(t))) == pytest.approx(sigma, rel=1e-12)


@pytest.mark.parametrize(
    ("betas", "signal"), [(vp_betas(200), 0.0064), (cosine_betas(100), 2.4e-7), (linear_betas(1000), 4.04e-5)]
)
def test_discrete_schedules_end_where_published(betas, signal):
    schedule = Discrete(betas)
    last = schedule.alpha(doubles(schedule.horizon)) ** 2
    assert float(last) == pytest.approx(signal, rel=0.02)
    assert float(last) == pytest.approx(float(torch.prod(1 - betas)), rel=1e-9)


def test_vp_betas_are_those_of_the_paper():
    """alpha_i = exp(-b_min / T - (b_max - b_min)(2 i - 1) / (2 T^2)) with b_min 0.1 and b_max 10."""
    i = torch.arange(1, 6, dtype=torch.float64)
    torch.testing.assert_close(1 - vp_betas(5), torch.exp(-0.1 / 5 - 0.5 * 9.9 * (2 * i - 1) / 25))


def test_cosine_betas_are_clipped():
    assert float(cosine_betas(100).max()) == 0.999


def test_cosine_table_and_continuous_cosine_agree_inside():
    table, smooth = Discrete(cosine_betas(1000)), Cosine()
    i = torch.arange(1.0, 990.0, dtype=torch.float64)
    torch.testing.assert_close(table.alpha(i), smooth.alpha(i / 1000), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["vp_sde", "cosine", *DISCRETE])
@given(share=fraction)
@settings(max_examples=40)
def test_variance_preserving_schedules_preserve_variance(name, share):
    schedule = SCHEDULES[name]
    t = inner_time(schedule, share)
    assert float(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2) == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("name", SCHEDULES)
@given(share=fraction)
@settings(max_examples=60)
def test_time_is_the_inverse_of_rho(name, share):
    schedule = SCHEDULES[name]
    t = inner_time(schedule, share)
    assert float(schedule.time(schedule.rho(t))) == pytest.approx(float(t), rel=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_noise_to_signal_ratio_rises_from_zero(name):
    schedule = SCHEDULES[name]
    count = int(schedule.horizon) if isinstance(schedule, Discrete) else 1000
    t = torch.linspace(0, schedule.horizon, count + 1, dtype=torch.float64)
    rho = schedule.rho(t)
    assert float(rho[0]) == 0.0
    assert float(schedule.alpha(t[0])) == 1.0
    assert bool((rho.diff() > 0).all())
    assert bool(rho.isfinite().all())


@pytest.mark.parametrize("name", ["vp_sde", "cosine"])
def test_single_precision_keeps_small_noise_levels(name):
    """1 - alpha^2 taken literally loses three digits of sigma at the smallest time."""
    schedule = CONTINUOUS[name]
    t = doubles(schedule.smallest)
    literal = (1 - schedule.alpha(t.float()) ** 2).sqrt()
    exact = float(schedule.sigma(t))
    assert float(schedule.sigma(t.float())) == pytest.approx(exact, rel=1e-6)
    assert abs(float(literal) / exact - 1) > 1e-5


def test_discrete_table_is_indexed_by_steps_of_any_type():
    betas = doubles(0.1, 0.2, 0.5)
    schedule = Discrete(betas)
    expected = torch.cat([doubles(1.0), (1 - betas).cumprod(0)]).sqrt()
    t = torch.arange(4)
    torch.testing.assert_close(schedule.alpha(t), expected)
    torch.testing.assert_close(schedule.alpha(t.float()), expected.float())
    torch.testing.assert_close(schedule.alpha(t.reshape(2, 2).double()), expected.reshape(2, 2))
    assert schedule.horizon == 3


@pytest.mark.parametrize("betas", [[0.0, 0.1], [0.1, 1.0], [[0.1], [0.2]], [float("nan")]])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(ConfigError, match="between 0 and 1") as error:
        Discrete(torch.tensor(betas))
    assert "found" in str(error.value)


def test_edm_grid_has_the_published_numbers():
    times = make_grid(EDM(), 128).times
    golden = {0: 80.0, 16: 38.785, 32: 17.295, 64: 2.428, 96: 0.157, 112: 0.023, 127: 0.002, 128: 0.0}
    assert len(times) == 129
    for index, sigma in golden.items():
        assert float(times[index]) == pytest.approx(sigma, abs=6e-4)
    assert float(times[0]) == 80.0


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", CONTINUOUS)
@given(num_steps=st.integers(1, 200))
@settings(max_examples=15)
def test_grids_fall_strictly_from_the_horizon_to_zero(name, spacing, num_steps):
    schedule = CONTINUOUS[name]
    grid = make_grid(schedule, num_steps, spacing=spacing)
    assert len(grid) == num_steps
    assert bool((grid.times.diff() < 0).all())
    assert float(grid.times[0]) == schedule.horizon
    assert float(grid.times[-1]) == 0.0
    if num_steps > 1:
        assert float(grid.times[-2]) == pytest.approx(schedule.smallest, rel=1e-9)


@given(total=st.integers(1, 300), data=st.data())
@settings(max_examples=60)
def test_discrete_grids_visit_every_index_once_from_the_last(total, data):
    num_steps = data.draw(st.integers(1, total))
    times = make_grid(Discrete(linear_betas(total)), num_steps).times
    steps = times[:-1]
    assert len(set(steps.tolist())) == num_steps
    assert bool((steps.diff() < 0).all())
    assert float(steps[0]) == total
    assert float(steps[-1]) >= 1
    assert bool((steps == steps.round()).all())
    assert float(times[-1]) == 0


def test_spacings_are_even_in_what_they_promise():
    for schedule in CONTINUOUS.values():
        log = make_grid(schedule, 9, spacing="log_snr").times[:-1]
        curved = make_grid(schedule, 9, spacing="karras", rho=3.0).times[:-1]
        even = make_grid(schedule, 9, spacing="uniform").times[:-1]
        for path in (schedule.rho(log).log(), schedule.rho(curved) ** (1 / 3), even):
            steps = path.diff()
            torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-7, atol=0)


def test_ends_of_a_grid_can_be_chosen():
    grid = make_grid(EDM(), 10, largest=20.0, smallest=0.01)
    assert float(grid.times[0]) == 20.0
    assert float(grid.times[-2]) == pytest.approx(0.01)
    assert float(grid.start_scale) == 20.0
    assert float(make_grid(Discrete(linear_betas(100)), 10, largest=50).times[0]) == 50


def test_part_of_a_grid_knows_where_it_stands():
    grid = make_grid(EDM(), 128).part(32).part(32)
    assert len(grid) == 64
    assert float(grid.start_scale) == pytest.approx(2.428, abs=1e-3)
    seen = []
    sample(
        gaussian(EDM()),
        torch.zeros(1, 1),
        grid,
        step=STEPS["euler"],
        rng=generator(),
        callback=lambda x, ctx: seen.append((ctx.index, ctx.num_steps)),
    )
    assert seen == [(index, 128) for index in range(64, 128)]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: make_grid(EDM(), 0), "at least one step"),
        (lambda: make_grid(EDM(), 5, largest=0.0), "out of range"),
        (lambda: make_grid(EDM(), 5, largest=100.0), "out of range"),
        (lambda: make_grid(EDM(), 5, smallest=-1.0), "out of range"),
        (lambda: make_grid(Flow(), 5, smallest=0.5, largest=0.4), "out of range"),
        (lambda: make_grid(Flow(), 5, smallest=0.5, largest=0.5), "fall strictly"),
        (lambda: make_grid(Discrete(linear_betas(5)), 6), "more steps"),
        (lambda: make_grid(Discrete(linear_betas(5)), 5, spacing="karras"), "equal strides"),
        (lambda: make_grid(Discrete(linear_betas(5)), 5, smallest=1.0), "equal strides"),
        (lambda: make_grid(EDM(), 5).part(5), "no such step"),
        (lambda: make_grid(EDM(), 5).part(-1), "no such step"),
        (lambda: Grid(EDM(), doubles(1.0)), "fall strictly"),
        (lambda: Grid(EDM(), doubles(1.0, 1.0, 0.0)), "fall strictly"),
        (lambda: Grid(EDM(), doubles(1.0, 2.0)[:, None]), "fall strictly"),
        (lambda: Grid(EDM(), doubles(1.0, math.nan, 0.0)), "fall strictly"),
    ],
)
def test_impossible_grids_are_refused_in_the_form_of_errors(build, message):
    with pytest.raises(ConfigError, match=message) as error:
        build()
    assert "found" in str(error.value)


def test_every_solver_calls_the_model_at_the_times_of_the_grid_only():
    for schedule in SCHEDULES.values():
        grid = make_grid(schedule, 7)
        for name, step in STEPS.items():
            model = Counted(gaussian(schedule))
            sample(model, torch.zeros(1, 1), grid, step=step, rng=generator())
            assert len(model.times) == (13 if name == "heun" else 7)
            assert {float(t) for t in model.times} == set(grid.times[:-1].tolist())
