import pytest
import torch
from analytic import SCHEDULES, gaussian, mixture, randn

from synth_pipeline.diffusion.parametrisation import Parametrisation, expand
from synth_pipeline.diffusion.projection import inpaint
from synth_pipeline.diffusion.schedules import EDM, VPSDE, Discrete, Flow, linear_betas

KINDS = ("eps", "x0", "v", "edm", "flow")
DATA = 0.7  # sigma_data


def times(schedule, *shape, seed=3):
    """Times from the range in which networks are trained."""
    share = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    t = schedule.smallest + share * (0.9 * schedule.horizon - schedule.smallest)
    return t.round() if isinstance(schedule, Discrete) else t


def network_of(kind, schedule, denoiser):
    """The network that a perfect student of `denoiser` would be, in the words of each paper."""

    def network(scaled, c_noise):
        t = schedule.time(torch.exp(4 * c_noise)) if kind == "edm" else c_noise
        alpha, sigma = expand(schedule.alpha(t), scaled), expand(schedule.sigma(t), scaled)
        if kind == "edm":  # Karras et al. 2022, Table 1, of y = x / alpha
            rho = sigma / alpha
            y = scaled * (rho**2 + DATA**2).sqrt()
            x0 = denoiser(alpha * y, t)
            c_skip, c_out = DATA**2 / (rho**2 + DATA**2), rho * DATA / (rho**2 + DATA**2).sqrt()
            return (x0 - c_skip * y) / c_out
        x0 = denoiser(scaled, t)
        eps = (scaled - alpha * x0) / sigma
        return {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0, "flow": eps - x0}[kind]

    return network


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_an_exact_denoiser_is_the_same_through_every_parametrisation(name, kind):
    schedule = SCHEDULES[name]
    exact = mixture(schedule, torch.tensor([[-1.0, 0.5], [0.8, 0.0]], dtype=torch.float64), 0.4)
    model = Parametrisation(kind, schedule, DATA).denoiser(network_of(kind, schedule, exact))
    for t in times(schedule, 5):
        x = schedule.alpha(t) * randn(6, 2) + schedule.sigma(t) * randn(6, 2, seed=1)
        torch.testing.assert_close(model(x, t), exact(x, t), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_loss_of_the_exact_network_is_zero(name, kind):
    """Data in one point: the denoiser knows it, whatever the noise."""
    schedule = SCHEDULES[name]
    point = torch.tensor([0.3, -1.2], dtype=torch.float64)
    network = network_of(kind, schedule, gaussian(schedule, point, 0.0))
    x0 = point.expand(16, 2)
    loss, x0_hat = Parametrisation(kind, schedule, DATA).loss(network, x0, times(schedule, 16), randn(16, 2))
    assert float(loss) < 1e-12
    torch.testing.assert_close(x0_hat, x0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_loss_weights_are_the_published_ones(name, kind):
    """Of x_0 errors: SNR for eps, 1 for x0, lambda(sigma) for EDM; of any network, at one t."""
    schedule, x0, noise = SCHEDULES[name], randn(32, 3), randn(32, 3, seed=1)
    for t in times(schedule, 4):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        rho = sigma / alpha
        published = {
            "eps": rho**-2,
            "x0": torch.ones(()),
            "v": (alpha**2 + sigma**2) ** 2 / sigma**2,
            "flow": (alpha + sigma) ** 2 / sigma**2,
            "edm": (rho**2 + DATA**2) / (rho * DATA) ** 2,
        }[kind]
        loss, x0_hat = Parametrisation(kind, schedule, DATA).loss(
            lambda x, c_noise: 0.3 * x.sin(), x0, t.expand(32), noise
        )
        torch.testing.assert_close(loss, published * ((x0_hat - x0) ** 2).mean(), rtol=1e-9, atol=0)


def test_eps_loss_is_the_error_of_the_noise():
    schedule, x0, noise = VPSDE(), randn(8, 2), randn(8, 2, seed=1)
    loss, _ = Parametrisation("eps", schedule).loss(lambda x, c: 0.1 * x, x0, times(schedule, 8), noise)
    t = times(schedule, 8)[:, None]
    x = schedule.alpha(t) * x0 + schedule.sigma(t) * noise
    torch.testing.assert_close(loss, ((noise - 0.1 * x) ** 2).mean())


@pytest.mark.parametrize("sigma", [0.002, 0.5, 80.0])
def test_edm_coefficients_are_equation_7_and_table_1(sigma):
    c = Parametrisation("edm", EDM(), 0.5).coefficients(torch.tensor(sigma, dtype=torch.float64), randn(2, 1))
    root = (sigma**2 + 0.25) ** 0.5
    assert float(c.skip) == pytest.approx(0.25 / root**2)
    assert float(c.out) == pytest.approx(sigma * 0.5 / root)
    assert float(c.scale) == pytest.approx(1 / root)
    torch.testing.assert_close(c.noise, torch.full((2,), sigma, dtype=torch.float64).log() / 4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_edm_shows_the_network_unit_variance(name):
    """Whatever the schedule: Var(c_in x) = 1 and Var(F*) = 1 where Var(x_0) = sigma_data^2."""
    schedule = SCHEDULES[name]
    for t in times(schedule, 4):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        c = Parametrisation("edm", schedule, DATA).coefficients(t, randn(2, 1))
        assert float(c.scale**2 * (alpha**2 * DATA**2 + sigma**2)) == pytest.approx(1)
        target = ((1 - c.skip * alpha) ** 2 * DATA**2 + c.skip**2 * sigma**2) / c.out**2
        assert float(target) == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_does_not_see_what_the_network_says_about_known_entries(kind):
    """The mask of `inpaint` also reduces the loss; known entries are shown clean."""
    x0, noise, seen = randn(4, 5, 3), randn(4, 5, 3, seed=1), []
    known = torch.zeros(4, 5, 3, dtype=torch.bool)
    known[:, 0, :2] = True
    parametrisation, t = Parametrisation(kind, VPSDE()), times(VPSDE(), 4)

    def network(x, c_noise, wrong=0.0):
        seen.append(x)
        return torch.where(known, wrong, 0.3 * x)

    losses = [parametrisation.loss(network, x0, t, noise, known=known, wrong=value)[0] for value in (0.0, 1e6)]
    assert torch.equal(losses[0], losses[1])
    scale = parametrisation.coefficients(t, x0).scale
    shown = inpaint(known, x0)(torch.zeros_like(x0), None)
    assert torch.equal((seen[0] / scale)[known], shown[known])
    assert not torch.isclose(seen[0] / scale, x0)[~known].any()


def test_the_loss_without_the_mask_would_see_them():
    x0, noise, t = randn(4, 2), randn(4, 2, seed=1), times(VPSDE(), 4)
    wrong = torch.tensor([0.0, 1e3], dtype=torch.float64)
    losses = [Parametrisation("eps", VPSDE()).loss(lambda x, c, v=v: v * wrong, x0, t, noise)[0] for v in (0.0, 1.0)]
    assert float(losses[1]) > 1e4 * float(losses[0])


def test_a_loss_over_nothing_is_zero():
    known = torch.ones(4, 2, dtype=torch.bool)
    loss, _ = Parametrisation("v", Flow()).loss(lambda x, c: x, randn(4, 2), times(Flow(), 4), randn(4, 2), known=known)
    assert float(loss) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_times_may_differ_by_row_and_by_token(kind):
    schedule = VPSDE()
    parametrisation = Parametrisation(kind, schedule, DATA)
    network = network_of(kind, schedule, gaussian(schedule, 0.4, 0.6))
    model, x, t = parametrisation.denoiser(network), randn(3, 4, 2), times(schedule, 3, 4)
    by_token = model(x, t)
    by_row = model(x, t[:, 0])
    for row in range(3):
        torch.testing.assert_close(by_row[row], model(x[row : row + 1], t[row, 0])[0])
        for token in range(4):
            one = model(x[row : row + 1, token : token + 1], t[row, token])
            torch.testing.assert_close(by_token[row, token], one[0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_rows_with_times_of_their_own_is_their_mean(kind):
    schedule, x0, noise, t = Flow(), randn(3, 4, 2), randn(3, 4, 2, seed=1), times(Flow(), 3, 4)
    parametrisation = Parametrisation(kind, schedule)

    def network(x, c_noise):
        return 0.5 * x + c_noise.unsqueeze(-1)

    whole = parametrisation.loss(network, x0, t, noise)[0]
    parts = [
        parametrisation.loss(network, x0[i : i + 1, j : j + 1], t[i : i + 1, j : j + 1], noise[i : i + 1, j : j + 1])[0]
        for i in range(3)
        for j in range(4)
    ]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


@pytest.mark.parametrize("t", [torch.tensor(0.5), torch.tensor([0.5, 0.2, 0.9])])
@pytest.mark.parametrize("kind", KINDS)
def test_the_network_always_gets_one_noise_level_a_row(kind, t):
    def network(x, c_noise):
        assert c_noise.shape == (3,)
        assert c_noise.dtype == x.dtype
        return x

    x = randn(3, 2, dtype=torch.float32)
    Parametrisation(kind, Flow()).denoiser(network)(x, t)
    Parametrisation(kind, Flow()).loss(network, x, t, x)


def test_weights_of_rows_tokens_and_entries():
    schedule, x0, noise, t = VPSDE(), randn(3, 2, 2), randn(3, 2, 2, seed=1), times(VPSDE(), 3)

    def loss(weight):
        return Parametrisation("x0", schedule).loss(lambda x, c: 0.0 * x, x0, t, noise, weight=weight)[0]

    square = x0**2
    rows = torch.tensor([1.0, 0.0, 3.0])
    torch.testing.assert_close(loss(rows), (square[0].mean() + 3 * square[2].mean()) / 4)
    tokens = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])  # padding
    torch.testing.assert_close(loss(tokens), torch.stack([square[0, 0], square[0, 1], square[1, 0]]).mean())
    entries = torch.ones(3, 2, 2)
    entries[:, 0, 0] = 10.0  # Diffuser: the first action counts ten times
    torch.testing.assert_close(loss(entries), (square * entries).sum() / entries.sum())
    torch.testing.assert_close(loss(torch.tensor([[True, True], [True, False], [False, False]])), loss(tokens))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_flow_to_the_network_and_through_the_estimate(kind):
    gain = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    x0, noise, t = randn(8, 2), randn(8, 2, seed=1), times(VPSDE(), 8)
    parametrisation = Parametrisation(kind, VPSDE(), DATA)

    def value(factor):
        loss, x0_hat = parametrisation.loss(lambda x, c: factor * x.tanh(), x0, t, noise)
        return loss + (x0_hat**2).mean()

    (grad,) = torch.autograd.grad(value(gain), gain)
    step = 1e-6
    numeric = (value(gain.detach() + step) - value(gain.detach() - step)) / (2 * step)
    assert float(grad) == pytest.approx(float(numeric), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lead", [(), (4,), (4, 3)])
def test_a_network_sees_and_gives_the_type_of_x(kind, dtype, lead):
    """Also when it computes in another type inside (autocast) and when times are in double precision."""
    schedule = Discrete(linear_betas(100))
    t = torch.full(lead, 50.0, dtype=torch.float64)
    x = randn(4, 3, 2).to(dtype)

    def network(scaled, c_noise):
        assert scaled.dtype == dtype
        return scaled.to(torch.bfloat16)

    estimate = Parametrisation(kind, schedule).denoiser(network)(x, t)
    assert estimate.dtype == dtype
    exact = Parametrisation(kind, schedule).denoiser(lambda scaled, c: scaled)(x.double(), t)
    torch.testing.assert_close(estimate.double(), exact, rtol=0.05, atol=0.05)


def test_half_precision_networks_are_combined_in_the_precision_of_x():
    kind, x, t = Parametrisation("edm", EDM(), DATA), randn(64, 2, dtype=torch.float32), torch.tensor(0.4).double()
    c = kind.coefficients(t, x)
    found = kind.denoiser(lambda scaled, c_noise: scaled.bfloat16())(x, t)
    assert torch.equal(found, c.skip * x + c.out * (c.scale * x).bfloat16().float())


def test_scalars_keep_their_precision_and_do_not_change_the_type_of_x():
    x, value = torch.ones(4, 2, dtype=torch.bfloat16), torch.tensor(0.123456789, dtype=torch.float64)
    assert float(expand(value, x)) == 0.123456789
    assert (expand(value, x) * x).dtype == torch.bfloat16
    assert expand(value.expand(4), x).shape == (4, 1)
    assert expand(value.expand(4), x).dtype == torch.bfloat16


def test_clean_tokens_are_what_they_are():
    """At t = 0 EDM's estimate is x itself, and its network is shown a finite noise level."""
    x, t = randn(2, 3, 1), torch.tensor([[0.0, 0.5, 0.0], [1.0, 0.0, 2.0]], dtype=torch.float64)

    def network(scaled, c_noise):
        assert bool(c_noise.isfinite().all())
        return scaled.sin()

    for kind in ("eps", "edm", "v", "flow"):
        estimate = Parametrisation(kind, EDM()).denoiser(network)(x, t)
        assert torch.equal(estimate[t == 0], x[t == 0])


def test_conditions_reach_the_network():
    x, t = randn(2, 1), torch.tensor(0.5)
    model = Parametrisation("x0", Flow()).denoiser(lambda x, c, goal: goal.expand_as(x), goal=torch.tensor(7.0))
    assert float(model(x, t)[0]) == 7.0
    _, estimate = Parametrisation("x0", Flow()).loss(
        lambda x, c, goal: goal.expand_as(x), x, t, x, goal=torch.tensor(7.0)
    )
    assert float(estimate[0]) == 7.0
