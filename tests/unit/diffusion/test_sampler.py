"""Properties of the one loop that hold for every solver: randomness, types, gradients, times of rows, hooks."""

import pytest
import torch
from analytic import DISCRETE, SCHEDULES, Counted, gaussian, generator, moments, randn

from synth_pipeline.diffusion.grid import Grid, make_grid
from synth_pipeline.diffusion.parametrisation import Parametrisation
from synth_pipeline.diffusion.projection import clip, compose, inpaint
from synth_pipeline.diffusion.sampler import Context, sample
from synth_pipeline.diffusion.schedules import EDM, VPSDE
from synth_pipeline.diffusion.steps import DDIM, STEPS, Churn, Heun, ddpm, dpmpp_1, dpmpp_2m, euler, heun

COSINE = DISCRETE["cosine_betas"]
DETERMINISTIC = ("euler", "ddim", "dpmpp_1", "heun", "dpmpp_2m")
PUBLISHED = Heun(Churn(80.0))
STOCHASTIC = (ddpm, DDIM(0.5), DDIM(1.0), PUBLISHED)


def test_temperature_scales_the_noise_of_the_steps():
    schedule = DISCRETE["vp_betas"]
    grid, x = make_grid(schedule, 100), randn(10_000, 1)
    for temperature in (0.0, 0.5, 1.0):
        out = sample(gaussian(schedule, 0.0, 0.5), x, grid, step=ddpm, rng=generator(), temperature=temperature)
        expected = moments(grid, ddpm, 0.0, 0.5, temperature=temperature)[1]
        assert float(out.std()) == pytest.approx(expected, rel=0.03)


def test_ddim_with_temperature_zero_is_deterministic():
    schedule = DISCRETE["vp_betas"]
    grid, x = make_grid(schedule, 20), randn(8, 1)
    for step in (DDIM(0.0), ddpm):
        runs = [sample(gaussian(schedule), x, grid, step=step, rng=generator(seed), temperature=0.0) for seed in (1, 2)]
        assert torch.equal(runs[0], runs[1])
    warm = [sample(gaussian(schedule), x, grid, step=ddpm, rng=generator(seed)) for seed in (1, 2)]
    assert not torch.equal(warm[0], warm[1])


@pytest.mark.parametrize("step", [*STOCHASTIC, dpmpp_2m])
def test_same_generator_state_same_samples(step):
    grid, x = make_grid(VPSDE(), 12), randn(8, 3)
    torch.manual_seed(1)
    first = sample(gaussian(VPSDE()), x, grid, step=step, rng=generator(7))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = sample(gaussian(VPSDE()), x, grid, step=step, rng=generator(7))
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_deterministic_solvers_draw_nothing(solver):
    rng = generator(7)
    sample(gaussian(VPSDE()), randn(2, 1), make_grid(VPSDE(), 5), step=STEPS[solver], rng=rng)
    assert torch.equal(rng.get_state(), generator(7).get_state())


@pytest.mark.parametrize("solver", DETERMINISTIC)
@pytest.mark.parametrize("name", SCHEDULES)
def test_an_item_does_not_depend_on_its_batch(name, solver):
    schedule = SCHEDULES[name]
    grid = make_grid(schedule, 10)
    x = randn(8, 3) * grid.start_scale
    whole = sample(gaussian(schedule, 0.2, 0.5), x, grid, step=STEPS[solver], rng=generator())
    for i in range(8):
        alone = sample(gaussian(schedule, 0.2, 0.5), x[i : i + 1], grid, step=STEPS[solver], rng=generator())
        assert torch.equal(alone[0], whole[i])


@pytest.mark.parametrize("step", [*STEPS.values(), PUBLISHED, DDIM(0.5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("own_times", [False, True])
def test_samples_keep_the_type_of_the_noise(step, dtype, own_times):
    grid = make_grid(VPSDE(), 12)
    if own_times:
        grid = Grid(grid.schedule, grid.times[:, None].expand(-1, 4))
    model = Counted(Parametrisation("x0", VPSDE()).denoiser(lambda x, c: 0.5 * x))
    seen = []
    x = sample(
        model,
        randn(4, 3, dtype=dtype),
        grid,
        step=step,
        rng=generator(),
        callback=lambda x, ctx: seen.append(x.dtype),
    )
    assert {x.dtype, *seen} == {dtype}


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "heun"])
@pytest.mark.parametrize("own_times", [False, True])
def test_half_precision_x_does_not_spoil_the_coefficients(solver, own_times):
    """Differences of noise levels are taken before anything is rounded to bfloat16, where 0.5 - 0.49 is noise."""
    schedule = DISCRETE["linear"]
    t, s = torch.tensor(400.0).double(), torch.tensor(399.0).double()
    if own_times:
        t, s = t.expand(64), s.expand(64)
    x, x0 = randn(64, 2).bfloat16(), randn(64, 2, seed=1).bfloat16()
    ctx = Context(schedule, t, s, 0, 1000, generator())
    mean, std, _ = STEPS[solver](lambda x, t: x0, x, ctx)
    exact, exact_std, _ = STEPS[solver](lambda x, t: x0.double(), x.double(), ctx)
    assert float((mean.double() - exact).abs().max()) < 0.02 * float(exact.abs().max())
    if std is not None:
        torch.testing.assert_close(std.double(), exact_std, rtol=4e-3, atol=0)


@pytest.mark.parametrize("step", [*STEPS.values(), PUBLISHED])
@pytest.mark.parametrize("name", ["edm", "vp_sde", "vp_betas"])
def test_gradients_flow_through_the_whole_loop(step, name):
    """Gradient of samples with respect to a parameter of the network, against central differences (Diffusion-QL)."""
    schedule = SCHEDULES[name]
    grid, kind = make_grid(schedule, 5), Parametrisation("edm", schedule)
    x = randn(4, 2) * grid.start_scale

    def value(gain):
        model = kind.denoiser(lambda x, c: (gain * x).tanh())
        return sample(model, x, grid, step=step, rng=generator(2)).square().sum()

    gain, small = torch.tensor(0.7, dtype=torch.float64, requires_grad=True), 1e-5
    (grad,) = torch.autograd.grad(value(gain), gain)
    numeric = (value(gain.detach() + small) - value(gain.detach() - small)) / (2 * small)
    assert float(grad) == pytest.approx(float(numeric), rel=1e-5)
    assert abs(float(grad)) > 1e-3


def test_no_step_waits_for_the_device():
    """On the meta device nothing can be read back: times stay on the CPU, x anywhere."""
    kind = Parametrisation("edm", EDM())
    model = kind.denoiser(lambda x, c_noise: x * c_noise[:, None].sin())
    for step in (heun, euler, dpmpp_1, dpmpp_2m, DDIM(0.0)):
        x = sample(model, torch.zeros(8, 3, device="meta"), make_grid(EDM(), 5), step=step, rng=generator())
        assert x.shape == (8, 3)
        assert x.device.type == "meta"


@pytest.mark.parametrize("solver", DETERMINISTIC)
@pytest.mark.parametrize("name", SCHEDULES)
def test_rows_with_times_of_their_own_are_rows_sampled_alone(name, solver):
    schedule = SCHEDULES[name]
    grids = [make_grid(schedule, 8, largest=schedule.horizon * share) for share in (1.0, 0.5, 0.24)]
    together = Grid(schedule, torch.stack([grid.times for grid in grids], dim=1))
    model = gaussian(schedule, 0.2, 0.5)
    x = randn(3, 4, 2)
    whole = sample(model, x, together, step=STEPS[solver], rng=generator())
    for row, grid in enumerate(grids):
        alone = sample(model, x[row : row + 1], grid, step=STEPS[solver], rng=generator())
        torch.testing.assert_close(whole[row : row + 1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("step", [*STEPS.values(), PUBLISHED])
@pytest.mark.parametrize("name", SCHEDULES)
def test_tokens_rest_until_the_grid_reaches_them(name, step):
    """Each token starts at its own time, clean ones at 0: they come out bit for bit, the others as if alone."""
    schedule, grid = SCHEDULES[name], make_grid(SCHEDULES[name], 8)
    model, x = gaussian(schedule, 0.2, 0.5), randn(2, 3, 1)
    starts = torch.stack([grid.times[0], grid.times[4], grid.times[-1]]).expand(2, 3)
    times = torch.minimum(grid.times[:, None, None], starts)
    resting = []

    def watch(after, ctx):
        resting.append(torch.equal(after[ctx.s == ctx.t], ctx.x[ctx.s == ctx.t]))

    out = sample(model, x, Grid(schedule, times), step=step, rng=generator(), callback=watch)
    assert all(resting)
    assert torch.equal(out[:, 2], x[:, 2])
    assert bool(out.isfinite().all())
    if step in (ddpm, PUBLISHED):  # their noise is another draw
        return
    alone = sample(model, x[:, 1:2], grid.part(4), step=step, rng=generator())
    torch.testing.assert_close(out[:, 1:2], alone, rtol=1e-9, atol=1e-12)


def test_projections_compose_and_clip_only_the_result():
    schedule, outside = EDM(), []
    known = torch.tensor([False, True])
    x = sample(
        gaussian(schedule, 0.0, 2.0),
        80 * randn(100, 2),
        make_grid(schedule, 12),
        step=heun,
        rng=generator(),
        project=compose(clip(-1.0, torch.tensor([1.0, 0.5])), inpaint(known, torch.tensor(5.0))),
        callback=lambda x, ctx: outside.append(float(x[:, 0].abs().max())),
    )
    assert max(outside[:-1]) > 10  # noised iterates are meant to leave the box
    assert float(x[:, 0].abs().max()) == 1.0
    assert bool((x[:, 1] == 5.0).all())  # the last one has the last word


def test_every_hook_sees_the_step_it_belongs_to():
    schedule, calls = DISCRETE["vp_betas"], []

    def edit_x(x, ctx):
        assert ctx.x is None
        assert ctx.x0_hat is None
        assert ctx.std is None
        calls.append(("edit_x", ctx.index))
        return x + 1.0

    def edit_mean(mean, std, ctx):
        assert torch.equal(std, ctx.ancestral_std())
        assert ctx.x0_hat is not None
        calls.append(("edit_mean", ctx.index))
        return mean

    def project(x, ctx):
        calls.append(("project", ctx.index if ctx.x is not None else "start"))
        return x

    start = randn(2, 1)
    sample(
        gaussian(schedule),
        start,
        make_grid(schedule, 2),
        step=ddpm,
        rng=generator(),
        edit_x=edit_x,
        edit_mean=edit_mean,
        project=project,
        callback=lambda x, ctx: calls.append((float(ctx.t), float(ctx.s), ctx.num_steps)),
    )
    assert calls == [
        ("project", "start"),
        *[("edit_x", 0), ("edit_mean", 0), ("project", 0), (200.0, 100.0, 2)],
        *[("edit_x", 1), ("edit_mean", 1), ("project", 1), (100.0, 0.0, 2)],
    ]


def test_low_temperature_is_the_narrower_distribution():
    """Decision Diffuser and MADiff: half the noise, also at the start: half the spread, exactly."""
    grid = make_grid(COSINE, 100)
    x = sample(gaussian(COSINE, 0.0, 0.5), 0.5 * randn(20_000, 1), grid, step=ddpm, rng=generator(), temperature=0.5)
    warm = moments(grid, ddpm, 0.0, 0.5)[1]
    assert float(x.std()) == pytest.approx(0.5 * warm, rel=0.02)
