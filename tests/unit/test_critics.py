"""Losses and targets of value learning against closed forms, and against direct integrals."""

import math

import pytest
import torch

from synth_pipeline.critics import (
    Critics,
    conservative_gap,
    expectile_loss,
    exponential_weights,
    frozen,
    min_q,
    squared_error,
    td3_bc_lambda,
    td_target,
)


def critics(sizes, members=2, seed=0):
    return Critics(sizes, members=members, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("expectile", [0.1, 0.5, 0.9])
def test_the_expectile_of_a_coin_is_its_weight(expectile):
    """For values 0 and 1 the minimum solves tau (1 - v) = (1 - tau) v, so v = tau; 0.5 gives the mean."""
    values, grid = torch.tensor([0.0, 1.0]), torch.linspace(0, 1, 1001)
    losses = torch.stack([expectile_loss(values - v, expectile) for v in grid])
    assert float(grid[losses.argmin()]) == pytest.approx(expectile, abs=1e-3)


def test_the_expectile_loss_weighs_values_above_v_by_tau():
    assert float(expectile_loss(torch.tensor([-1.0, 2.0]), 0.7)) == pytest.approx((0.3 * 1 + 0.7 * 4) / 2)


def test_the_smaller_critic_counts_and_errors_add_over_critics():
    q = torch.tensor([[1.0, 5.0], [2.0, 3.0]])
    assert min_q(q).tolist() == [1.0, 3.0]
    assert float(squared_error(q, torch.tensor([1.0, 3.0]))) == pytest.approx((0 + 4) / 2 + (1 + 0) / 2)


@pytest.mark.parametrize(("last_discount", "expected"), [(0.0, [2.75, 3.5, 3.0]), (0.5, [4.25, 6.5, 9.0])])
def test_a_chain_of_three_states_gets_its_exact_values(last_discount, expected):
    """Rewards 1, 2, 3, gamma 0.5; the last state ends in a terminal one, or is cut and goes on to one worth 12."""
    q, value_beyond = critics([4, 1]), 12.0
    with torch.no_grad():
        for parameter in q.parameters():
            parameter.zero_()
    states, actions = torch.eye(3), torch.zeros(3, 1)
    rewards, discounts = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.5, last_discount])
    optimizer = torch.optim.SGD(q.parameters(), lr=0.5)
    for _ in range(200):
        with torch.no_grad():
            following = torch.cat([min_q(q(states, actions))[1:], torch.tensor([value_beyond])])
            targets = td_target(rewards, discounts, following)
        optimizer.zero_grad()
        squared_error(q(states, actions), targets).backward()
        optimizer.step()
    for member in q(states, actions):
        assert member.tolist() == pytest.approx(expected, abs=1e-3)


def test_weights_are_exponential_up_to_the_limit():
    weights = exponential_weights(torch.tensor([0.0, 1.0, -1.0, 5.0, 1e6]), 2.0, limit=100.0)
    assert weights.tolist() == pytest.approx([1.0, math.exp(2), math.exp(-2), 100.0, 100.0])


def test_the_value_weighs_alpha_whatever_its_scale():
    """TD3+BC, equation 5: lambda mean |Q| is alpha, and no gradient flows through lambda."""
    q = torch.tensor([1.0, -3.0], requires_grad=True)
    assert float(td3_bc_lambda(q, 2.5)) == pytest.approx(2.5 / 2)
    assert float(td3_bc_lambda(1000 * q, 2.5)) == pytest.approx(2.5 / 2000)
    (td3_bc_lambda(q, 2.5) * q.mean()).backward()
    assert q.grad.tolist() == pytest.approx([0.625, 0.625])
    assert torch.isfinite(td3_bc_lambda(torch.zeros(2), 2.5))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_gap_is_the_log_of_the_integral_minus_the_value_of_the_data(temperature):
    def value(a):
        return 3 * a - 2 * a**2

    grid = torch.linspace(-1, 1, 20001)
    integral = torch.trapezoid((value(grid) / temperature).exp(), grid)
    uniform = torch.rand(20000, 1, generator=torch.Generator().manual_seed(0)) * 2 - 1
    data = torch.tensor([0.3])
    gap = conservative_gap(
        value(uniform)[None], value(data)[None], torch.full((20000, 1), -math.log(2.0)), temperature=temperature
    )
    assert gap.shape == (1,)
    assert float(gap) == pytest.approx(float(temperature * integral.log() - value(data)), abs=0.02)


def test_the_gap_does_not_depend_on_what_the_samples_are_drawn_from():
    """Importance sampling: half the samples uniform, half from a triangle, one integral."""
    rng = torch.Generator().manual_seed(0)
    uniform = torch.rand(40000, generator=rng) * 2 - 1
    triangle = torch.rand(40000, generator=rng) + torch.rand(40000, generator=rng) - 1
    samples = torch.cat([uniform, triangle])
    densities = torch.cat([torch.full((40000,), 0.5), 1 - triangle.abs()])
    grid = torch.linspace(-1, 1, 20001)
    exact = torch.trapezoid(grid.mul(2).exp(), grid).log()
    gap = conservative_gap((2 * samples)[None, :, None], torch.zeros(1, 1), densities.log()[:, None])
    assert float(gap) == pytest.approx(float(exact), abs=0.02)


def test_the_gap_pushes_sampled_actions_down_most_where_they_are_high_and_the_datas_up():
    q_sampled = torch.tensor([[[0.0], [1.0], [2.0]]], requires_grad=True)
    q_data = torch.tensor([[0.5]], requires_grad=True)
    log_densities = torch.log(torch.tensor([[0.5], [0.5], [0.25]]))
    conservative_gap(q_sampled, q_data, log_densities).sum().backward()
    expected = torch.softmax(torch.tensor([0.0, 1.0, 2.0]) - log_densities[:, 0], dim=0)
    assert torch.allclose(q_sampled.grad[0, :, 0], expected)
    assert q_data.grad.tolist() == [[-1.0]]


def test_many_actions_a_row_are_valued_as_one_by_one():
    q, rng = critics([5, 8, 1]), torch.Generator().manual_seed(1)
    observations, actions = torch.randn(4, 3, generator=rng), torch.randn(6, 4, 2, generator=rng)
    together = q.of_samples(observations, actions)
    assert together.shape == (2, 6, 4)
    one_by_one = torch.stack([q(observations, each) for each in actions], dim=1)
    assert torch.allclose(together, one_by_one, atol=1e-6)
    assert not torch.allclose(together[0], together[1])


def test_gradients_pass_through_frozen_critics_and_not_into_them():
    q, action = critics([5, 8, 1]), torch.zeros(4, 2, requires_grad=True)
    with frozen(q):
        q(torch.ones(4, 3), action).sum().backward()
    assert action.grad.abs().min() > 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in q.parameters())
    with pytest.raises(ZeroDivisionError), frozen(q):
        raise ZeroDivisionError
    assert all(parameter.requires_grad for parameter in q.parameters())
