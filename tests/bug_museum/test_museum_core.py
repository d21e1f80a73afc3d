"""Bugs of published diffusion code, each rebuilt small on our loop to show what it does, and ours beside it."""

import pytest
import torch
from analytic import gaussian, generator, mixture, moments, randn

from synth_pipeline.diffusion.grid import Grid, make_grid
from synth_pipeline.diffusion.guidance import classifier_free
from synth_pipeline.diffusion.parametrisation import Parametrisation
from synth_pipeline.diffusion.sampler import sample
from synth_pipeline.diffusion.schedules import EDM, VPSDE, Discrete, cosine_betas, linear_betas, vp_betas
from synth_pipeline.diffusion.steps import Churn, Heun, ddpm, heun
from synth_pipeline.errors import ConfigError


@pytest.mark.parametrize("num_steps", [5, 20, 100])
def test_no_index_of_a_grid_comes_twice(num_steps):
    """CleanDiffuser's default: linspace(0, T, S + 1) cut to integers in 0..T-1 has index 0 twice when S = T."""
    theirs = torch.cat([torch.zeros(1), torch.arange(num_steps)])  # its steps for T = S, e.g. 0 0 1 2 3 4
    assert len(theirs.unique()) == num_steps < len(theirs)
    schedule = Discrete(linear_betas(num_steps))
    with pytest.raises(ConfigError, match="fall strictly"):
        Grid(schedule, theirs.flip(0))
    times = make_grid(schedule, num_steps).times
    assert len(times.unique()) == len(times) == num_steps + 1


def test_no_step_is_wasted():
    """What the doubled index costs: the last of five calls does nothing, and the noise of the first level stays in."""
    schedule = Discrete(vp_betas(5))
    theirs = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 1.0], dtype=torch.float64)[:, None]
    left, moved = [], []
    for grid in (Grid(schedule, theirs), make_grid(schedule, 5)):
        steps = []
        x = sample(
            gaussian(schedule, 0.5, 0.0),
            randn(1, 1000),
            grid,
            step=ddpm,
            rng=generator(),
            callback=lambda x, ctx, steps=steps: steps.append(not torch.equal(x, ctx.x)),
        )
        moved.append(steps)
        left.append(float(x.std()))
    assert moved == [[True] * 4 + [False], [True] * 5]
    assert left[0] > 0.3
    assert left[1] == pytest.approx(0.0, abs=1e-12)


def test_a_given_condition_is_always_used():
    """CleanDiffuser's `w_cfg` defaults to 0: a condition that is passed says nothing. Here no weight has a default."""
    schedule, noise = VPSDE(), randn(64, 1)
    grid = make_grid(schedule, 20)

    def network(x, c_noise, goal=None):
        return torch.zeros_like(x) if goal is None else goal.expand_as(x)

    kind = Parametrisation("x0", schedule)
    goals = [kind.denoiser(network, goal=torch.tensor(value)) for value in (-1.0, 1.0)]
    low, high = (sample(goal, noise, grid, step=ddpm, rng=generator()) for goal in goals)
    assert float((high - low).min()) > 1.0
    free = kind.denoiser(network)
    with pytest.raises(TypeError):
        classifier_free(free, goals)
    guided = classifier_free(free, [(goals[1], 1.0)])
    assert torch.equal(sample(guided, noise, grid, step=ddpm, rng=generator()), high)


@pytest.mark.parametrize("w", [0.0, 2.0, 3.0])
@pytest.mark.parametrize("step", [heun, Heun(Churn(80.0))])
def test_both_slopes_of_heun_are_guided(w, step):
    """GTA and PGR guide Heun's first slope and leave the second one conditional: the two belong to different fields."""
    schedule, grid, noise = EDM(), make_grid(EDM(), 64), 80 * randn(500, 1)
    left, right = gaussian(schedule, -1.0, 0.4), gaussian(schedule, 1.0, 0.4)
    guided = classifier_free(left, [(right, w)])

    def legacy(model, x, ctx):
        slopes = iter((model, right))
        return step(lambda x, t: next(slopes)(x, t), x, ctx)

    start, end, ours, theirs = (
        float(sample(model, noise, grid, step=solver, rng=generator(2)).mean())
        for model, solver in ((left, step), (right, step), (guided, step), (guided, legacy))
    )
    assert (ours - start) / (end - start) == pytest.approx(w, abs=1e-3)
    assert abs((theirs - start) / (end - start) - w) > 0.2


@pytest.mark.parametrize("w", [1.0])
def test_weight_one_hides_the_unguided_corrector(w):
    """Why nobody saw it: at the published weight of GTA both are the same."""
    schedule, grid, noise = EDM(), make_grid(EDM(), 16), 80 * randn(8, 1)
    right = gaussian(schedule, 1.0, 0.4)
    guided = classifier_free(gaussian(schedule, -1.0, 0.4), [(right, w)])
    ours = sample(guided, noise, grid, step=heun, rng=generator())
    assert torch.equal(ours, sample(right, noise, grid, step=heun, rng=generator()))


def legacy_noise(model, x, ctx):
    """MTDiff: exp(1.0 * log_variance) where the standard deviation exp(0.5 * log_variance) belongs."""
    mean, std, carry = ddpm(model, x, ctx)
    return mean, std**2, carry


@pytest.mark.parametrize(
    "schedule", [Discrete(vp_betas(200)), Discrete(cosine_betas(100)), Discrete(linear_betas(400))]
)
@pytest.mark.parametrize("std", [0.3, 1.0])
def test_noise_has_the_standard_deviation_not_the_variance(schedule, std):
    grid = make_grid(schedule, int(schedule.horizon))
    ours, theirs = (moments(grid, step, 0.0, std)[1] for step in (ddpm, legacy_noise))
    assert ours == pytest.approx(std, rel=0.06)  # what so few steps allow
    assert theirs < 0.75 * std


def test_samples_of_the_legacy_noise_are_too_narrow():
    schedule = Discrete(vp_betas(200))
    grid, noise = make_grid(schedule, 200), randn(5000, 1)
    means = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    model = mixture(schedule, means, 0.3)
    ours, theirs = (sample(model, noise, grid, step=step, rng=generator()) for step in (ddpm, legacy_noise))
    spreads = [float(x[x > 0].std()) for x in (ours, theirs)]
    assert spreads[0] == pytest.approx(0.3, rel=0.05)
    assert spreads[1] < 0.2


@pytest.mark.parametrize("kind", ["eps", "x0", "v", "edm", "flow"])
def test_the_loss_is_blind_to_inpainted_entries(kind):
    """Diffuser with eps prediction: states are written over predicted noise at known entries, and judged there."""
    schedule, x0, noise = VPSDE(), randn(16, 4, 2), randn(16, 4, 2, seed=1)
    t = torch.linspace(0.1, 0.9, 16, dtype=torch.float64)
    known = torch.zeros(1, 4, 1, dtype=torch.bool)
    known[:, 0] = True

    def overwritten(x, c_noise):
        return torch.where(known, x0, torch.zeros_like(x0))

    def honest(x, c_noise):
        return torch.zeros_like(x0)

    loss = Parametrisation(kind, schedule).loss
    assert not torch.equal(loss(overwritten, x0, t, noise)[0], loss(honest, x0, t, noise)[0])
    blind = [loss(network, x0, t, noise, known=known)[0] for network in (overwritten, honest)]
    assert torch.equal(blind[0], blind[1])


def test_gradients_of_the_loss_are_zero_on_inpainted_entries():
    schedule, x0 = VPSDE(), randn(4, 3)
    known = torch.tensor([True, False, False])
    output = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    t = torch.full((4,), 0.5, dtype=torch.float64)
    loss, _ = Parametrisation("eps", schedule).loss(lambda x, c: output, x0, t, randn(4, 3, seed=1), known=known)
    (grad,) = torch.autograd.grad(loss, output)
    assert bool((grad[:, 0] == 0).all())
    assert bool((grad[:, 1:] != 0).all())
