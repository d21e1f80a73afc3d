import math

import pytest
import torch
from analytic import (
    CONTINUOUS,
    DISCRETE,
    SCHEDULES,
    Counted,
    exact_flow,
    gaussian,
    generator,
    mixture,
    moments,
    order,
    randn,
)

from synth_pipeline.diffusion.grid import Grid, make_grid
from synth_pipeline.diffusion.sampler import Context, sample
from synth_pipeline.diffusion.schedules import EDM, VPSDE, Discrete, vp_betas
from synth_pipeline.diffusion.steps import DDIM, STEPS, Churn, Heun, ddpm, dpmpp_1, dpmpp_2m, euler, heun
from synth_pipeline.errors import ConfigError

ORDERS = {"euler": 1, "ddim": 1, "dpmpp_1": 1, "heun": 2, "dpmpp_2m": 2}
DETERMINISTIC = tuple(ORDERS)
PUBLISHED = Heun(Churn(80.0))
STOCHASTIC = {"ddpm": ddpm, "ddim_half": DDIM(0.5), "ddim_one": DDIM(1.0), "churned": PUBLISHED}
TARGETS = {"gaussian": ([0.7], 0.5), "mixture": ([-1.0, 1.2], 0.4)}


def column(values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def interior(schedule, num_steps):
    """A grid that stops at the smallest time: the step to 0 is of order 1 in every solver."""
    if isinstance(schedule, Discrete):
        low, high = schedule.horizon / 20, schedule.horizon
        return Grid(schedule, torch.linspace(high, low, num_steps + 1, dtype=torch.float64).round())
    return Grid(schedule, make_grid(schedule, num_steps + 1, spacing="log_snr").times[:-1])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [*CONTINUOUS, "table"])
@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_measured_order_of_every_solver_on_every_schedule(solver, name, target):
    schedule = Discrete(vp_betas(3040)) if name == "table" else CONTINUOUS[name]
    means, std = TARGETS[target]
    model, errors = mixture(schedule, column(means), std), []
    for num_steps in (76, 152):
        grid = interior(schedule, num_steps)
        x = column(torch.linspace(-2, 2, 21).tolist()) * grid.start_scale
        out = sample(model, x, grid, step=STEPS[solver], rng=generator())
        exact = exact_flow(schedule, means, std, x, grid.times[0], grid.times[-1])
        errors.append(float((out - exact).abs().max()))
    assert errors[-1] < (0.05 if ORDERS[solver] == 1 else 0.003)
    assert order(errors) == pytest.approx(ORDERS[solver], abs=0.15)


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize(
    ("step", "claim"), [(ddpm, 1), (DDIM(0.5), 1), (DDIM(1.0), 1), (Heun(Churn(10.0, 0.0, 1e9, 1.0)), 2)]
)
def test_measured_weak_order_of_the_stochastic_solvers(name, step, claim):
    """Of the standard deviation they make. The published churn has none: S_noise = 1.003 adds noise at any N."""
    schedule, errors = CONTINUOUS[name], []
    for num_steps in (128, 256):
        grid = interior(schedule, num_steps)
        alpha, sigma = schedule.alpha(grid.times[-1]), schedule.sigma(grid.times[-1])
        exact = float((alpha**2 * 0.25 + sigma**2).sqrt())
        errors.append(abs(moments(grid, step, 0.7, 0.5)[1] - exact))
    assert order(errors) == pytest.approx(claim, abs=0.15)


@pytest.mark.parametrize("name", DISCRETE)
def test_ddpm_is_the_posterior_of_the_paper(name):
    """Ho et al. 2020, eq. 7, in their symbols, between neighbouring steps."""
    schedule, x, noise = DISCRETE[name], randn(4, 2), randn(4, 2, seed=2)
    bar = schedule.alpha(torch.arange(schedule.horizon + 1, dtype=torch.float64)) ** 2
    for t in (1, 2, int(schedule.horizon) // 2, int(schedule.horizon)):
        beta = 1 - bar[t] / bar[t - 1]
        kept = bar[t - 1].sqrt() * beta / (1 - bar[t])
        drift = (1 - beta).sqrt() * (1 - bar[t - 1]) / (1 - bar[t])
        variance = (1 - bar[t - 1]) / (1 - bar[t]) * beta
        ctx = Context(schedule, torch.tensor(float(t)).double(), torch.tensor(t - 1.0).double(), 0, 1, generator())
        mean, std, _ = ddpm(lambda x, t: noise, x, ctx)
        torch.testing.assert_close(mean, kept * noise + drift * x, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(std, variance.sqrt(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_is_equation_12_of_the_paper(eta):
    schedule, x, x0 = DISCRETE["linear"], randn(4, 2), randn(4, 2, seed=2)
    t, s = torch.tensor(700.0).double(), torch.tensor(650.0).double()
    bar_t, bar_s = schedule.alpha(t) ** 2, schedule.alpha(s) ** 2
    std = eta * ((1 - bar_s) / (1 - bar_t)).sqrt() * (1 - bar_t / bar_s).sqrt()
    eps = (x - bar_t.sqrt() * x0) / (1 - bar_t).sqrt()
    expected = bar_s.sqrt() * x0 + (1 - bar_s - std**2).sqrt() * eps
    mean, found, _ = DDIM(eta)(lambda x, t: x0, x, Context(schedule, t, s, 0, 1, generator()))
    torch.testing.assert_close(mean, expected)
    assert float(found or 0.0) == pytest.approx(float(std))


@pytest.mark.parametrize("amount", [0.0, 20.0, 80.0])
def test_heun_is_algorithm_2_of_the_paper(amount):
    """Karras et al. 2022, Algorithm 2, written out, with the same noise."""
    model = mixture(EDM(), column([-1.0, 1.2]), 0.4)
    grid, rng, x = make_grid(EDM(), 18), generator(5), randn(6, 1) * 80
    found = sample(model, x, grid, step=Heun(Churn(amount)), rng=generator(5))
    for t, s in grid:
        gamma = min(amount / 18, math.sqrt(2) - 1) if 0.05 <= t <= 50 else 0.0
        raised = t + gamma * t
        if gamma:
            z = torch.randn(x.shape, generator=rng, dtype=x.dtype)
            x = x + (raised**2 - t**2).sqrt() * 1.003 * z
        slope = (x - model(x, raised)) / raised
        ahead = x + (s - raised) * slope
        if s != 0:
            ahead = x + (s - raised) * (slope / 2 + (ahead - model(ahead, s)) / s / 2)
        x = ahead
    torch.testing.assert_close(found, x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_2m_is_algorithm_2_of_the_paper(name):
    """Lu et al. 2022, Algorithm 2, in lambda and h."""
    schedule = CONTINUOUS[name]
    model, grid = mixture(schedule, column([-1.0, 1.2]), 0.4), make_grid(schedule, 9)
    x = randn(6, 1) * grid.start_scale
    found = sample(model, x, grid, step=dpmpp_2m, rng=generator())
    before = None
    for i, (t, s) in enumerate(grid):
        x0 = model(x, t)
        if s == 0:
            x = x0
            break
        now, after = (-schedule.rho(time).log() for time in (t, s))
        h, estimate = after - now, x0
        if before is not None:
            r = (now + schedule.rho(grid.times[i - 1]).log()) / h
            estimate = (1 + 1 / (2 * r)) * x0 - before / (2 * r)
        x = schedule.sigma(s) / schedule.sigma(t) * x - schedule.alpha(s) * torch.expm1(-h) * estimate
        before = x0
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_three_names_of_the_same_first_order_solver(name):
    schedule = SCHEDULES[name]
    grid = make_grid(schedule, 30)
    model = mixture(schedule, column([-1.0, 1.2]), 0.4)
    x = randn(8, 1) * grid.start_scale
    results = [sample(model, x, grid, step=step, rng=generator()) for step in (DDIM(0.0), dpmpp_1, euler)]
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(results[0], results[2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_with_full_noise_is_ddpm(name):
    schedule = SCHEDULES[name]
    grid = make_grid(schedule, 30)
    model = mixture(schedule, column([-1.0, 1.2]), 0.4)
    x = randn(8, 1) * grid.start_scale
    results = [sample(model, x, grid, step=step, rng=generator(3)) for step in (DDIM(1.0), ddpm)]
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-6)


def test_number_of_calls():
    grid = make_grid(EDM(), 128)
    for step, calls in ((heun, 255), (PUBLISHED, 255), (euler, 128), (dpmpp_2m, 128), (ddpm, 128)):
        model = Counted(gaussian(EDM()))
        sample(model, torch.zeros(1, 1), grid, step=step, rng=generator())
        assert len(model.times) == calls


def test_churn_is_active_on_96_of_128_steps_and_capped():
    grid, churn = make_grid(EDM(), 128), Churn(80.0)
    gamma = churn.gamma(grid.times[:-1], 128)
    assert int((gamma > 0).sum()) == 96
    assert float(gamma.max()) == math.sqrt(2) - 1  # 80 / 128 is more
    assert float(Churn(20.0).gamma(torch.tensor(1.0), 128)) == pytest.approx(20 / 128)
    model = Counted(gaussian(EDM()))
    sample(model, torch.zeros(1, 1), grid, step=PUBLISHED, rng=generator())
    inside = set(grid.times.tolist())
    assert sum(float(t) not in inside for t in model.times) == 96


def test_churn_part_way_is_that_of_the_whole_grid():
    whole, times = make_grid(EDM(), 128), []
    model = Counted(gaussian(EDM()))
    sample(model, torch.zeros(1, 1), whole.part(64), step=Heun(Churn(20.0)), rng=generator())
    times = [float(t) for t in model.times]
    assert max(times) == pytest.approx(float(whole.times[64]) * (1 + 20 / 128))


def test_churn_leaves_rows_outside_of_its_range_at_their_time():
    schedule = VPSDE()
    t = schedule.time(torch.cat([torch.ones(1), torch.linspace(1e-3, 0.049, 99)]).double())
    model = Counted(gaussian(schedule))
    PUBLISHED(model, randn(100, 1), Context(schedule, t, t / 2, 0, 128, generator()))
    assert float(model.times[0][0]) > float(t[0])
    assert torch.equal(model.times[0][1:], t[1:])


@pytest.mark.parametrize("t", [50, 137, 200])
def test_churn_on_a_table_raises_x_to_the_level_that_the_model_is_told(t):
    """The nearest step of the table, not the level that was asked for; at its end there is none above."""
    schedule, seen, count = DISCRETE["vp_betas"], [], 20_000

    def model(x, time):
        seen.append((float((x / schedule.alpha(time)).std()), float(time)))
        return x

    ends = (torch.tensor(float(value), dtype=torch.float64) for value in (t, t - 1))
    ctx = Context(schedule, *ends, 0, 128, generator())
    noise = schedule.sigma(ctx.t) * randn(count, 1, seed=2)
    Heun(Churn(10.0, 0.0, 1e9, 1.0), correct=False)(model, noise, ctx)
    ((level, time),) = seen
    assert time > t or t == 200
    assert level == pytest.approx(float(schedule.rho(torch.tensor(time, dtype=torch.float64))), rel=0.015)


@pytest.mark.parametrize("name", DISCRETE)
def test_churn_on_a_table_adds_what_lies_between_its_steps(name):
    """Noise level and time of the model agree, also where rounding or the table's end changes the level."""
    schedule = DISCRETE[name]
    grid = make_grid(schedule, 50)
    mean, std = moments(grid, Heun(Churn(80.0, 0.0, 1e9, 1.0)), 0.3, 0.6)
    assert mean == pytest.approx(0.3, abs=0.02)
    assert std == pytest.approx(moments(grid, heun, 0.3, 0.6)[1], rel=0.05)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_heun_reproduces_a_gaussian_within_a_percent(name):
    mean, std = moments(make_grid(CONTINUOUS[name], 128), heun, 0.7, 0.5)
    assert mean == pytest.approx(0.7, rel=0.01)
    assert std == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("solver", STOCHASTIC)
def test_stochastic_solvers_make_the_gaussian_that_their_grid_allows(solver, name):
    """Samples against exact moments of the same grid (4 standard errors), and these against the target."""
    schedule, step, count = CONTINUOUS[name], STOCHASTIC[solver], 20_000
    grid = make_grid(schedule, 32)
    start = schedule.alpha(grid.times[0]) * 0.7
    spread = (schedule.alpha(grid.times[0]) ** 2 * 0.25 + grid.start_scale**2).sqrt()
    x = sample(gaussian(schedule, 0.7, 0.5), start + spread * randn(count, 1), grid, step=step, rng=generator(1))
    mean, std = moments(grid, step, 0.7, 0.5)
    assert float(x.mean()) == pytest.approx(mean, abs=4 * std / count**0.5)
    assert float(x.std()) == pytest.approx(std, rel=4 / (2 * count) ** 0.5)


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("solver", ["ddpm", "ddim_half"])
def test_ancestral_solvers_reach_the_gaussian_with_enough_steps(solver, name):
    mean, std = moments(make_grid(CONTINUOUS[name], 512), STOCHASTIC[solver], 0.7, 0.5)
    assert mean == pytest.approx(0.7, rel=0.01)
    assert std == pytest.approx(0.5, rel=0.03)


def test_published_churn_is_too_wide_by_one_percent():
    """EDM's 128 steps with S_churn 80 on unit data: 0.8 % from the grid, 0.3 % from S_noise = 1.003."""
    grid = make_grid(EDM(), 128)
    assert moments(grid, PUBLISHED, 0.0, 1.0)[1] == pytest.approx(1.0115, abs=3e-4)
    assert moments(grid, Heun(Churn(80.0, inflation=1.0)), 0.0, 1.0)[1] == pytest.approx(1.0085, abs=3e-4)


@pytest.mark.parametrize("solver", STEPS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_last_step_returns_the_estimate_itself(name, solver):
    schedule = SCHEDULES[name]
    for num_steps in (1, 5):
        last = []
        x = sample(
            mixture(schedule, column([-1.0, 1.2]), 0.4),
            randn(4, 1),
            make_grid(schedule, num_steps),
            step=STEPS[solver],
            rng=generator(),
            callback=lambda x, ctx, last=last: last.append(ctx.x0_hat),
        )
        assert torch.equal(x, last[-1])


@pytest.mark.parametrize("eta", [-0.1, 1.5, math.nan])
def test_eta_out_of_range_is_refused(eta):
    with pytest.raises(ConfigError, match="eta of DDIM"):
        DDIM(eta)
