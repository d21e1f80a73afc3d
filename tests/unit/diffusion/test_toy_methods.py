"""Every kind of method that is to come, written small on the public loop, each with what must be true of it."""

import math

import pytest
import torch
from analytic import CONTINUOUS, DISCRETE, Counted, gaussian, generator, mixture, order, randn
from scipy.optimize import minimize

from synth_pipeline.diffusion.grid import Grid, make_grid
from synth_pipeline.diffusion.guidance import classifier_free, gradient
from synth_pipeline.diffusion.projection import clip, compose, inpaint
from synth_pipeline.diffusion.sampler import sample
from synth_pipeline.diffusion.schedules import EDM, VPSDE, Flow
from synth_pipeline.diffusion.steps import STEPS, Churn, Heun, ddpm, dpmpp_2m, heun

COSINE = DISCRETE["cosine_betas"]


def modes(*rows):
    return torch.tensor(rows, dtype=torch.float64)


# SynthER and its relatives: churned Heun, and the same distribution with few calls of 2M.


def test_churned_heun_and_2m_sample_the_same_mixture():
    schedule, means = EDM(), modes([-1.0, 0.0], [1.0, 0.5])
    found = {}
    for name, step, num_steps in (("churned", Heun(Churn(80.0, inflation=1.0)), 64), ("2m", dpmpp_2m, 30)):
        x = sample(
            mixture(schedule, means, 0.3),
            80 * randn(4000, 2),
            make_grid(schedule, num_steps),
            step=step,
            rng=generator(1),
        )
        right = x[:, 0] > 0
        found[name] = torch.stack([right.double().mean(), x[right, 0].mean(), x[right, 1].mean(), x[right, 1].std()])
    for values in found.values():
        torch.testing.assert_close(values, modes(0.5, 1.0, 0.5, 0.3), atol=0.03, rtol=0)


# Decision Diffuser, MADiff: a weighted list of conditions, seen by both stages of Heun.


def test_a_weighted_list_of_conditions_inside_heun():
    schedule = EDM()

    def conditioned(x, y):  # three classes that differ in the mean
        return gaussian(schedule, modes(x, y), 0.4)

    base = Counted(conditioned(0.0, 0.0))
    model = classifier_free(
        base, [(conditioned(1.0, 0.0), 1.5), (conditioned(0.0, 1.0), 2.0), (conditioned(0.0, 4.0), -0.5)]
    )
    grid = make_grid(schedule, 40)
    x = sample(model, 80 * randn(2000, 2), grid, step=heun, rng=generator())
    assert len(base.times) == 79
    torch.testing.assert_close(x.mean(0), modes(1.5, 0.0), atol=0.04, rtol=0)
    torch.testing.assert_close(x.std(0), modes(0.4, 0.4), atol=0.02, rtol=0)


# Diffuser, TREBI: move the iterate along a value gradient, inpaint again, then step from where it was moved to.


def diffuser(model, value, known, first, noise, grid, *, scale, repeats=2, t_stop=2, rng=None, seen=None):
    pin = inpaint(known, first)

    def move(x, ctx):
        for _ in range(repeats):
            if ctx.t >= t_stop:
                x = pin(x + scale * ctx.ancestral_std() ** 2 * gradient(value, x, ctx.t), ctx)
        return x

    return sample(model, noise, grid, step=ddpm, rng=rng or generator(), edit_x=move, project=pin, callback=seen)


def plan(scale, seen=None, t_stop=2):
    """Plans of 6 states of 2 numbers, the first state known, guided towards large first numbers."""
    known = torch.zeros(1, 6, 2, dtype=torch.bool)
    known[:, 0] = True
    first = torch.full((1, 1, 2), 0.7, dtype=torch.float64)
    return diffuser(
        gaussian(COSINE, 0.0, 0.5),
        lambda x, t: x[..., 0].sum(-1),
        known,
        first,
        randn(200, 6, 2),
        make_grid(COSINE, 100),
        scale=scale,
        t_stop=t_stop,
        seen=seen,
    )


def test_diffuser_keeps_the_first_state_and_follows_the_value():
    plans = [plan(scale) for scale in (0.0, 0.1, 0.4, 1.6)]
    for x in plans:
        assert bool((x[:, 0] == 0.7).all())
    returns = [float(x[..., 0].sum(-1).mean()) for x in plans]
    assert returns == sorted(returns)
    assert returns[3] > returns[0] + 1
    torch.testing.assert_close(plans[3][..., 1], plans[0][..., 1])  # the value says nothing about the second number


def test_diffuser_steps_from_the_moved_iterate_and_stops_moving():
    """The mean of a Gaussian model obeys a recursion that is written here in the paper's order."""
    scale, centre = 0.8, 0.0
    t = torch.arange(101, dtype=torch.float64)
    bar = COSINE.alpha(t) ** 2
    for i in range(100, 0, -1):
        beta = 1 - bar[i] / bar[i - 1]
        variance = beta * (1 - bar[i - 1]) / (1 - bar[i])
        centre = centre + (2 * scale * variance if i >= 2 else 0.0)
        estimate = bar[i].sqrt() * 0.25 / (bar[i] * 0.25 + 1 - bar[i]) * centre
        centre = (
            bar[i - 1].sqrt() * beta / (1 - bar[i]) * estimate
            + (1 - beta).sqrt() * (1 - bar[i - 1]) / (1 - bar[i]) * centre
        )
    shift = plan(scale)[:, 1:, 0] - plan(0.0)[:, 1:, 0]
    torch.testing.assert_close(shift, centre.expand_as(shift))
    torch.testing.assert_close(plan(scale, t_stop=101), plan(0.0))
    moved = []
    plan(scale, seen=lambda x, ctx: moved.append(float(ctx.x[:, 0].sub(0.7).abs().max())))
    assert max(moved) == 0.0  # inpainted again after the move


# Gradient at the posterior mean (Dhariwal & Nichol, Algorithm 1), here with the exact tilt of a Gaussian.


@pytest.mark.parametrize("force", [-1.0, 2.0])
def test_a_gradient_at_the_posterior_mean_tilts_the_distribution(force):
    """p(x) exp(force x) is N(mean + force std^2, std^2); the shift is reached with an error of order 1."""
    schedule, std, errors = VPSDE(), 0.5, []
    model = gaussian(schedule, 0.3, std)

    def tilt(mean, spread, ctx):
        return mean + spread**2 * gradient(lambda x, t: force * model(x, t)[:, 0], mean, ctx.t)

    for num_steps in (200, 400):
        grid, noise = make_grid(schedule, num_steps), randn(100, 1)
        x = sample(model, noise, grid, step=ddpm, rng=generator(), edit_mean=tilt)
        shift = x - sample(model, noise, grid, step=ddpm, rng=generator())
        torch.testing.assert_close(shift, shift.mean().expand_as(shift))
        errors.append(abs(float(shift.mean()) / (force * std**2) - 1))
    assert errors[-1] < 0.06
    assert order(errors) == pytest.approx(1.0, abs=0.1)


# SafeDiffuser: the nearest step inside the half-planes of two barriers, for all rows and waypoints at once.

CENTRES, RADII = modes([0.4, 0.1], [-0.5, -0.4]), modes(0.35, 0.3)


def barriers(x):
    """b >= 0 outside of the discs, and its gradient: `[..., 2]`, `[..., 2, 2]`."""
    apart = x.unsqueeze(-2) - CENTRES
    return (apart**2).sum(-1) / RADII**2 - 1, 2 * apart / RADII[:, None] ** 2


def nearest_allowed(wanted, b, a):
    """argmin |u - wanted| subject to a_i u + b_i >= 0: free, on one line, or in the corner of both."""
    slack = (a @ wanted.unsqueeze(-1)).squeeze(-1) + b
    on_one = wanted.unsqueeze(-2) - a * (slack / (a**2).sum(-1)).unsqueeze(-1)
    corner = torch.linalg.solve(a, -b.unsqueeze(-1)).squeeze(-1)
    candidates = torch.cat([wanted.unsqueeze(-2), on_one, corner.unsqueeze(-2)], dim=-2)  # [..., 4, 2]
    allowed = (candidates @ a.mT + b.unsqueeze(-2) >= -1e-9).all(-1)
    distance = ((candidates - wanted.unsqueeze(-2)) ** 2).sum(-1).masked_fill(~allowed, torch.inf)
    best = distance.argmin(-1)[..., None, None].expand(*wanted.shape[:-1], 1, 2)
    return candidates.gather(-2, best).squeeze(-2)


def barrier(start):
    if bool((barriers(start)[0] < 0).any()):
        raise ValueError("the plan starts inside an obstacle")  # else inpainting would void the guarantee

    def project(x, ctx):
        if ctx.x is None:
            return x
        return ctx.x + nearest_allowed(x - ctx.x, *barriers(ctx.x))

    return project


def safe_plans(start, rows, *, protect, noise=None):
    known = torch.zeros(1, 8, 2, dtype=torch.bool)
    known[:, 0] = True
    pin = inpaint(known, start)
    x = randn(rows, 8, 2, seed=4) if noise is None else noise
    project = compose(barrier(start), pin) if protect else pin
    step = STEPS["ddim"] if noise is not None else ddpm
    return sample(gaussian(COSINE, 0.0, 0.5), x, make_grid(COSINE, 50), step=step, rng=generator(), project=project)


def test_a_barrier_with_two_obstacles_is_never_violated():
    start = modes(-0.9, 0.8)
    assert float((barriers(safe_plans(start, 200, protect=False))[0].amin(-1) < 0).any(-1).double().mean()) > 0.5
    safe = safe_plans(start, 200, protect=True)
    assert float(barriers(safe)[0].min()) >= -1e-6
    assert bool((safe[:, 0] == start).all())


def test_a_barrier_changes_each_plan_as_if_it_were_alone():
    noise = randn(8, 8, 2)
    together = safe_plans(modes(-0.9, 0.8), 8, protect=True, noise=noise)
    for i in range(8):
        torch.testing.assert_close(
            together[i : i + 1], safe_plans(modes(-0.9, 0.8), 1, protect=True, noise=noise[i : i + 1])
        )


def test_a_plan_that_starts_inside_an_obstacle_is_refused():
    with pytest.raises(ValueError, match="inside an obstacle"):
        safe_plans(modes(0.4, 0.2), 1, protect=True)


def test_the_nearest_allowed_step_is_that_of_a_general_solver():
    wanted, (b, a) = randn(20, 2, seed=1), barriers(randn(20, 2))
    for one, limit, slope, found in zip(wanted, b, a, nearest_allowed(wanted, b, a), strict=True):
        constraint = {"type": "ineq", "fun": lambda u, s=slope, c=limit: (s @ torch.as_tensor(u) + c).numpy()}
        best = minimize(
            lambda u, w=one: float(((torch.as_tensor(u) - w) ** 2).sum()), one.numpy(), constraints=constraint
        )
        torch.testing.assert_close(found, torch.as_tensor(best.x), atol=1e-4, rtol=0)


# PolyGRAD: actions follow a policy evaluated at the predicted clean states while the states are denoised.


def polygrad(policy_gain, policy_std, noise, grid, *, rounds=1):
    """x = [state, action]; log lambda is learned so that standardised actions have standard deviation 1."""
    states, log_rate, actions = gaussian(COSINE, 0.5, 1.0), math.log(0.02), slice(1, 2)

    def model(x, t):
        return torch.cat([states(x[:, :1], t), torch.zeros_like(x[:, 1:])], dim=-1)

    def follow(x, ctx):
        if ctx.x is None:
            return x
        centre, a = policy_gain * ctx.x0_hat[:, :1], ctx.x[:, actions]
        a = centre + (a - centre).clamp(-3 * policy_std, 3 * policy_std)
        a = a + math.exp(log_rate) * (centre - a) / policy_std**2 + ctx.std * ctx.noise(a)  # grad log pi, then noise
        bounded = centre + (a - centre).clamp(-3 * policy_std, 3 * policy_std)
        return torch.cat([x[:, :1], bounded], dim=-1)

    for _ in range(rounds):
        x = sample(model, noise, grid, step=ddpm, rng=generator(), project=follow)
        deviation = (x[:, actions] - policy_gain * x[:, :1]) / policy_std
        log_rate += 0.5 * (float(deviation.std()) - 1)
    return x, deviation


def test_actions_follow_the_policy_with_its_spread():
    grid, noise = make_grid(COSINE, 100), randn(2000, 2)
    x, deviation = polygrad(0.8, 0.2, noise, grid, rounds=15)
    assert float(deviation.std()) == pytest.approx(1.0, abs=0.1)
    assert float(deviation.abs().max()) <= 3 + 1e-9
    assert float(deviation.mean()) == pytest.approx(0.0, abs=0.1)
    assert float(torch.corrcoef(x.T)[0, 1]) > 0.9
    other, _ = polygrad(-0.8, 0.2, noise, grid)  # another policy, the same model
    assert float(torch.corrcoef(other.T)[0, 1]) < -0.9
    torch.testing.assert_close(other[:, 0], x[:, 0])


# Discrete tokens: an absorbing mask (D3PM, MaskGIT); the schedule's sigma is the share that is still masked.

MASK = 3
JOINT = torch.tensor([[0.30, 0.02, 0.08], [0.05, 0.25, 0.0], [0.0, 0.10, 0.20]], dtype=torch.float64)


def unmask(model, x, ctx):
    """Each masked token is revealed with probability (sigma_t - sigma_s) / sigma_t; the result is a sample, no mean."""
    probabilities = model(x, ctx.t)
    drawn = torch.multinomial(probabilities.flatten(0, 1), 1, generator=ctx.rng).reshape(x.shape)
    still = ctx.schedule.sigma(ctx.s) / ctx.schedule.sigma(ctx.t)
    reveal = torch.rand(x.shape, generator=ctx.rng, dtype=torch.float64) >= still
    return torch.where((x == MASK) & reveal, drawn, x), None, None


def two_tokens(x, t):
    """Exact p(token | what is visible) `[b, 2, 3]` of the joint distribution above."""
    first, second = x[:, 0, 0], x[:, 1, 0]
    given_second = torch.cat([JOINT / JOINT.sum(0), JOINT.sum(1, keepdim=True)], dim=1).T
    given_first = torch.cat([JOINT / JOINT.sum(1, keepdim=True), JOINT.sum(0, keepdim=True)], dim=0)
    return torch.stack([given_second[second], given_first[first]], dim=1)


def test_absorbing_tokens_reach_their_joint_distribution():
    rows, grid = 20_000, make_grid(Flow(horizon=0.9999), 64, spacing="uniform")
    x = sample(two_tokens, torch.full((rows, 2, 1), MASK), grid, step=unmask, rng=generator(), temperature=0.3)
    assert x.dtype == torch.int64
    assert int(x.max()) < MASK
    counts = torch.zeros(3, 3, dtype=torch.float64).index_put_((x[:, 0, 0], x[:, 1, 0]), torch.ones(()).double(), True)
    assert float((counts / rows - JOINT).abs().sum()) / 2 < 0.02
    together = JOINT.sum(1, keepdim=True) * JOINT.sum(0)
    assert float((together - JOINT).abs().sum()) / 2 > 0.3  # independent tokens would be far off


def test_known_tokens_are_inpainted_and_condition_the_rest():
    rows, grid = 20_000, make_grid(Flow(horizon=0.9999), 16, spacing="uniform")
    known = torch.tensor([[True], [False]])
    x = sample(
        two_tokens,
        torch.full((rows, 2, 1), MASK),
        grid,
        step=unmask,
        rng=generator(),
        project=inpaint(known, torch.tensor(1)),
    )
    assert bool((x[:, 0] == 1).all())
    share = torch.bincount(x[:, 1, 0], minlength=3) / rows
    torch.testing.assert_close(share.double(), JOINT[1] / JOINT[1].sum(), atol=0.01, rtol=0)


# GTA, retrieval, warm starts: part of the grid, from real rows that are noised.


@pytest.mark.parametrize(("share", "start", "correlation"), [(0.25, 96, 0.988), (0.5, 64, 0.38), (0.75, 32, 0.058)])
def test_starting_part_way_keeps_as_much_of_the_source_as_published(share, start, correlation):
    whole, source = make_grid(EDM(), 128), randn(2000, 1)
    grid = whole.part(math.floor(128 * (1 - share)))
    assert grid.skipped == start
    model = Counted(gaussian(EDM()))
    x = sample(model, source + grid.start_scale * randn(2000, 1, seed=1), grid, step=Heun(Churn(0.0)), rng=generator())
    assert len(model.times) == 2 * (128 - start) - 1
    assert float(torch.corrcoef(torch.cat([source, x], 1).T)[0, 1]) == pytest.approx(correlation, abs=0.04)
    assert float(x.std()) == pytest.approx(1.0, abs=0.05)


def test_starting_part_way_with_a_guide_moves_part_of_the_way():
    """The later the start, the less a condition can change."""
    whole, source = make_grid(EDM(), 64), randn(2000, 1)
    moved = []
    for start in (0, 32, 48):
        grid = whole.part(start)
        x = source + grid.start_scale * randn(2000, 1, seed=1)
        x = sample(gaussian(EDM(), 2.0, 1.0), x, grid, step=heun, rng=generator())
        moved.append(float((x - source).mean()))
    assert moved[0] == pytest.approx(2.0, abs=0.1)
    assert moved[0] > moved[1] > moved[2]
    assert moved[2] == pytest.approx(0.0, abs=0.1)


# Diffusion forcing, ragged histories: times by row and by token.


def test_a_pyramid_of_times_denoises_the_near_future_first():
    """Token k waits k steps; known history is clean from the start and never changes."""
    schedule = VPSDE()
    line = make_grid(schedule, 40).times
    late = torch.stack([torch.cat([line[:1].expand(k), line, line[-1:].expand(10 - k)]) for k in (0, 5, 10)], dim=1)
    history = torch.zeros(len(late), 2, dtype=torch.float64)
    times = torch.cat([history, late], dim=1)[:, None].expand(-1, 500, -1)  # [N + 1, b, token]
    x = torch.cat([torch.full((500, 2, 1), 0.25, dtype=torch.float64), randn(500, 3, 1)], dim=1)
    noisy = []
    out = sample(
        gaussian(schedule, 0.3, 0.5),
        x,
        Grid(schedule, times),
        step=heun,
        rng=generator(),
        callback=lambda x, ctx: noisy.append((ctx.s[0] > 0).tolist()),
    )
    assert bool((out[:, :2] == 0.25).all())
    assert [sum(column) for column in zip(*noisy, strict=True)] == [0, 0, 39, 44, 49]
    assert float(out[:, 2:].mean()) == pytest.approx(0.3, abs=0.04)
    assert float(out[:, 2:].std()) == pytest.approx(0.5, rel=0.05)


# MADiff: an agent axis between batch and time; one agent squeezes away exactly.


@pytest.mark.parametrize("step", [*STEPS.values(), Heun(Churn(80.0))])
def test_one_agent_squeezes_exactly(step):
    schedule = CONTINUOUS["vp_sde"]
    grid, noise = make_grid(schedule, 10), randn(4, 6, 2)
    known = torch.zeros(1, 6, 2, dtype=torch.bool)
    known[:, 0] = True

    def run(noise, known, times):
        model = classifier_free(gaussian(schedule, 0.0, 0.5), [(gaussian(schedule, 1.0, 0.5), 1.5)])
        project = compose(clip(-1.0, 1.0), inpaint(known, torch.tensor(0.7)))
        return sample(model, noise, Grid(schedule, times), step=step, rng=generator(3), project=project)

    alone = run(noise, known, grid.times)
    agent = run(noise[:, None], known[:, None], grid.times)
    assert torch.equal(agent[:, 0], alone)
    by_row = run(noise[:, None], known[:, None], grid.times[:, None].expand(-1, 4))
    torch.testing.assert_close(by_row[:, 0], alone)
    by_agent = run(noise[:, None], known[:, None], grid.times[:, None, None].expand(-1, 4, 1))
    assert torch.equal(by_agent, by_row)
