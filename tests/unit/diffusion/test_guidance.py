import pytest
import torch
from analytic import CONTINUOUS, SCHEDULES, Counted, gaussian, generator, mixture, order, randn

from synth_pipeline.diffusion.grid import Grid, make_grid
from synth_pipeline.diffusion.guidance import classifier, classifier_free, gradient
from synth_pipeline.diffusion.parametrisation import Parametrisation, expand
from synth_pipeline.diffusion.sampler import sample
from synth_pipeline.diffusion.schedules import EDM, VPSDE
from synth_pipeline.diffusion.steps import DDIM, ddpm, dpmpp_2m, heun

STD = 0.3


def modes(*rows):
    return torch.tensor(rows, dtype=torch.float64)


LEFT, RIGHT = modes([-1.0, -1.0], [-1.0, 1.0]), modes([1.0, -1.0], [1.0, 1.0])  # the label is the sign of x, not of y


@pytest.fixture(params=["edm", "vp_sde", "vp_betas"])
def schedule(request):
    return SCHEDULES[request.param]


@pytest.fixture
def models(schedule):
    """Exact: no label, label left, label right."""
    return [mixture(schedule, means, STD) for means in (torch.cat([LEFT, RIGHT]), LEFT, RIGHT)]


def middle(schedule):
    return make_grid(schedule, 9).times[4]


def test_weight_one_is_the_condition_bit_for_bit(schedule, models):
    free, left, _ = models
    counted = Counted(free)
    x, t = randn(16, 2), middle(schedule)
    assert torch.equal(classifier_free(counted, [(left, 1.0)])(x, t), left(x, t))
    assert not counted.times  # nor is the other network called


def test_weight_zero_and_no_condition_are_unconditional_bit_for_bit(schedule, models):
    free, left, right = models
    counted = Counted(left)
    x, t = randn(16, 2), middle(schedule)
    assert torch.equal(classifier_free(free, [(counted, 0.0), (right, 0.0)])(x, t), free(x, t))
    assert torch.equal(classifier_free(free, [])(x, t), free(x, t))
    assert not counted.times


@pytest.mark.parametrize("w", [-1.0, 0.5, 1.2, 4.0])
def test_guided_estimate_is_the_formula_of_the_papers_in_x0_and_in_eps(schedule, models, w):
    free, left, _ = models
    x, t = randn(16, 2), middle(schedule)
    found = classifier_free(free, [(left, w)])(x, t)
    torch.testing.assert_close(found, (1 - w) * free(x, t) + w * left(x, t))

    def eps(x0):
        return (x - schedule.alpha(t) * x0) / schedule.sigma(t)

    torch.testing.assert_close(eps(found), eps(free(x, t)) + w * (eps(left(x, t)) - eps(free(x, t))))


def test_a_list_of_conditions_adds_up_and_negation_takes_away(schedule, models):
    free, left, right = models
    x, t = randn(16, 2), middle(schedule)
    base = free(x, t)
    both = classifier_free(free, [(left, 1.5), (right, -0.5)])(x, t)
    torch.testing.assert_close(both, base + 1.5 * (left(x, t) - base) - 0.5 * (right(x, t) - base))
    undone = classifier_free(free, [(left, 2.0), (left, -2.0)])(x, t)
    torch.testing.assert_close(undone, base)


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("step", [heun, dpmpp_2m, DDIM(0.0), ddpm])
def test_mean_of_samples_shifts_linearly_with_the_weight(name, step):
    """From the left class to the right one, whose modes in y must stay where they are."""
    schedule = CONTINUOUS[name]
    base, condition = mixture(schedule, LEFT, STD), mixture(schedule, RIGHT, STD)
    grid, centres, spread = make_grid(schedule, 40), [], []
    for w in (-1.0, 0.0, 0.5, 1.0, 2.0, 3.0):
        noise = randn(500, 2) * grid.start_scale
        x = sample(classifier_free(base, [(condition, w)]), noise, grid, step=step, rng=generator(1))
        centres.append(x[:, 0].mean())
        spread.append(x[:, 1])
    shifts = (torch.stack(centres) - centres[1]) / (centres[3] - centres[1])
    torch.testing.assert_close(shifts, modes(-1.0, 0.0, 0.5, 1.0, 2.0, 3.0), rtol=1e-6, atol=1e-6)
    assert float(centres[3] - centres[1]) == pytest.approx(2.0, rel=0.02)
    for values in spread[1:]:
        torch.testing.assert_close(values, spread[0], rtol=1e-6, atol=1e-6)


def test_guided_heun_keeps_its_order():
    """On the curved field of a true mixture with weight 2, against a fine solution by another solver."""
    schedule = EDM()
    model = classifier_free(mixture(schedule, torch.cat([LEFT, RIGHT]), STD), [(mixture(schedule, RIGHT, STD), 2.0)])

    def solve(step, num_steps):
        grid = Grid(schedule, make_grid(schedule, num_steps + 1, spacing="log_snr").times[:-1])
        return sample(model, randn(32, 2) * 80, grid, step=step, rng=generator())

    reference = solve(dpmpp_2m, 1500)
    errors = [float((solve(heun, n) - reference).abs().max()) for n in (100, 200)]
    assert order(errors) == pytest.approx(2.0, abs=0.15)


def test_composition_is_exact_on_a_factorised_distribution(schedule):
    """y_1 acts on x_1, y_2 on x_2: AND of both is the joint condition at every noise level, NOT takes one back."""
    first, second = modes([-1.0], [0.5]), modes([2.0], [-0.3])

    def factorised(one, two):
        left, right = mixture(schedule, one, 0.4), mixture(schedule, two, 0.2)
        return lambda x, t: torch.cat([left(x[:, :1], t), right(x[:, 1:], t)], dim=-1)

    free = factorised(first, second)
    only_1, only_2, both = (
        factorised(first[:1], second),
        factorised(first, second[1:]),
        factorised(first[:1], second[1:]),
    )
    for t in make_grid(schedule, 7).times[:-1]:
        x = schedule.alpha(t) * randn(16, 2) + schedule.sigma(t) * randn(16, 2, seed=1)
        composed = classifier_free(free, [(only_1, 1.0), (only_2, 1.0)])
        torch.testing.assert_close(composed(x, t), both(x, t))
        torch.testing.assert_close(classifier_free(free, [(both, 1.0), (only_2, -1.0)])(x, t), only_1(x, t))
    grid = make_grid(schedule, 100)
    noise = randn(1000, 2) * grid.start_scale
    x = sample(classifier_free(free, [(only_1, 1.0), (only_2, 1.0)]), noise, grid, step=heun, rng=generator())
    torch.testing.assert_close(x.mean(0), modes(-1.0, -0.3), atol=0.05, rtol=0)
    torch.testing.assert_close(x.std(0), modes(0.4, 0.2), atol=0.0, rtol=0.08)


def test_composition_is_only_an_approximation_on_coupled_data(schedule):
    """Two overlapping conditions of one mixture: their AND is not what the sum says while t > 0."""
    means = torch.cat([LEFT, RIGHT])
    top, right, corner = means[[1, 3]], RIGHT, means[[3]]
    means = torch.cat([means, modes([1.0, 1.2])])  # breaks the independence of both coordinates
    free = mixture(schedule, means, STD)
    composed = classifier_free(free, [(mixture(schedule, top, STD), 1.0), (mixture(schedule, right, STD), 1.0)])
    x, t = randn(16, 2), middle(schedule)
    assert not torch.allclose(composed(x, t), mixture(schedule, corner, STD)(x, t), atol=1e-3)


def linear_observation(schedule, scale=1.0):
    """x_0 ~ N(mean, diag(std^2)), y = h x_0 + N(0, 0.2^2): exact log p(y | x_t) and E[x_0 | x_t, y]."""
    mean, std, h = modes(0.5, -1.0, 0.0), modes(1.0, 0.5, 2.0), modes(1.0, -2.0, 0.3)
    prior = gaussian(schedule, mean, std)

    def posterior(x, t):
        alpha, sigma = expand(schedule.alpha(t), x), expand(schedule.sigma(t), x)
        spread = std**2 * sigma**2 / (alpha**2 * std**2 + sigma**2) * torch.ones_like(x)
        return prior(x, t), spread, (spread * h**2).sum(-1) + 0.04

    def log_probability(x, t):
        centre, _, variance = posterior(x, t)
        return -0.5 * (1.3 - centre @ h) ** 2 / variance * scale

    def conditional(x, t):
        centre, spread, variance = posterior(x, t)
        return centre + spread * h * ((1.3 - centre @ h) / variance)[:, None]

    return prior, log_probability, conditional


@pytest.mark.parametrize("grad", [False, True])
def test_classifier_guidance_is_exact_on_a_linear_gaussian_observation(schedule, grad):
    prior, log_probability, conditional = linear_observation(schedule)
    guided = classifier(prior, log_probability, schedule, scale=1.0)
    with torch.set_grad_enabled(grad):
        for t in make_grid(schedule, 7).times[:-1]:
            x = schedule.alpha(t) * randn(16, 3) + schedule.sigma(t) * randn(16, 3, seed=1)
            torch.testing.assert_close(guided(x, t).detach(), conditional(x, t), rtol=1e-7, atol=1e-7)
        own = make_grid(schedule, 20).times[2:18]  # a time a row
        torch.testing.assert_close(guided(x, own).detach(), conditional(x, own), rtol=1e-7, atol=1e-7)


def test_samples_of_the_guided_model_are_the_conditional_distribution():
    schedule = VPSDE()
    prior, log_probability, conditional = linear_observation(schedule)
    grid, noise = make_grid(schedule, 40), randn(64, 3)
    guided = classifier(prior, log_probability, schedule, scale=1.0)
    with torch.no_grad():
        found = sample(guided, noise, grid, step=heun, rng=generator())
    assert not found.requires_grad
    torch.testing.assert_close(found, sample(conditional, noise, grid, step=heun, rng=generator()))
    unguided = classifier(prior, log_probability, schedule, scale=0.0)
    torch.testing.assert_close(unguided(noise, grid.times[3]).detach(), prior(noise, grid.times[3]))


@pytest.mark.parametrize("step", [heun, dpmpp_2m, ddpm])
@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_reach_the_parameters_of_a_guide(step, frozen):
    """Through every step of the loop, the first one included, where x has no graph of its own yet."""
    schedule = VPSDE()
    grid, noise = make_grid(schedule, 4), randn(4, 3)
    kind = Parametrisation("v", schedule)

    def value(scale, gain):
        _, log_probability, _ = linear_observation(schedule, scale)
        model = kind.denoiser(lambda x, c: (gain * x).sin())
        return (
            sample(classifier(model, log_probability, schedule, scale=0.3), noise, grid, step=step, rng=generator(1))
            .square()
            .sum()
        )

    scale, small = torch.tensor(0.8, dtype=torch.float64, requires_grad=True), 1e-6
    gain = torch.tensor(0.5, dtype=torch.float64, requires_grad=not frozen)
    (grad,) = torch.autograd.grad(value(scale, gain), scale)
    with torch.no_grad():
        numeric = (value(scale + small, gain) - value(scale - small, gain)) / (2 * small)
    assert float(grad) == pytest.approx(float(numeric), rel=1e-5)


def test_gradient_is_a_gradient_per_row():
    x, t = randn(5, 2), torch.tensor(0.3)
    with torch.no_grad():
        found = gradient(lambda x, t: (x**3).sum(-1) + t, x, t)
    assert not found.requires_grad
    torch.testing.assert_close(found, 3 * x**2)
    assert not x.requires_grad
