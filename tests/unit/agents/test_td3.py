"""TD3+BC and ReBRAC: targets, penalties, delay, target networks."""

from dataclasses import replace

import pytest
import torch
from point_mass_data import begun, same, weights

from synth_pipeline.critics import min_q


def rows_of(agent):
    return agent.replay.all_real()


def noiseless(kind, **settings):
    return begun(kind, policy_noise=0.0, **settings)


def test_targets_take_the_smaller_slow_critic_at_the_target_actors_action():
    agent = noiseless("td3_bc")
    rows = rows_of(agent)
    slow = agent.networks["target_critics"](rows.next_observations, agent.policy(rows.next_observations))
    expected = rows.rewards + rows.discounts * torch.minimum(slow[0], slow[1])
    assert torch.allclose(agent.targets(rows), expected, atol=1e-5)
    with torch.no_grad():  # the fast ones are not asked
        for name in ("actor", "critics"):
            for parameter in agent.networks[name].parameters():
                parameter.add_(1.0)
    assert torch.allclose(agent.targets(rows), expected, atol=1e-5)


def test_noise_on_target_actions_is_clipped_and_so_are_the_actions():
    agent = begun("td3_bc", policy_noise=0.2, noise_clip=0.1)
    rows = rows_of(agent)
    moved = agent.next_actions(rows) - agent.policy(rows.next_observations).detach()
    assert float(moved.abs().max()) == pytest.approx(0.1, abs=1e-5)
    assert float(moved.std()) > 0.05
    wild = begun("td3_bc", policy_noise=50.0, noise_clip=100.0)
    assert float(wild.next_actions(rows).abs().max()) == 1.0


def test_the_actor_and_the_target_networks_move_every_other_step_only():
    agent = begun("td3_bc")
    for step in range(1, 5):
        before = {name: weights(agent, name) for name in agent.networks}
        values = agent.step(agent.replay.draw(agent.rng))
        moved = {name for name, were in before.items() if not same(were, weights(agent, name))}
        assert moved == ({"critics"} if step % 2 else {"actor", "critics", "target_actor", "target_critics"})
        assert ("actor_loss" in values) == (step % 2 == 0)


def test_td3_bc_trades_value_for_distance_at_the_rate_lambda():
    """Equation 5: mean |pi(s) - a|^2 - alpha Q_1 / mean |Q_1|, on the first critic alone."""
    agent = begun("td3_bc", alpha=2.5)
    rows = rows_of(agent)
    actions = agent.policy(rows.observations)
    q = agent.networks["critics"](rows.observations, actions)[0]
    expected = ((actions - rows.actions) ** 2).mean() - 2.5 * q.mean() / q.abs().mean()
    assert torch.allclose(agent.actor_loss(rows, actions), expected, atol=1e-5)


def test_without_weight_on_the_value_td3_bc_clones():
    agent = begun("td3_bc", alpha=0.0, learning_rate=1e-2, gradient_steps=400, policy_delay=1)
    rows = rows_of(agent)
    before = (agent.policy(rows.observations) - rows.actions).square().mean()
    agent.train(until=100)
    assert (agent.policy(rows.observations) - rows.actions).square().mean() < 0.9 * before


def test_rebrac_penalises_targets_only_where_the_next_action_is_known():
    free, bound = noiseless("rebrac", critic_penalty=0.0), noiseless("rebrac", critic_penalty=2.0)
    rows = rows_of(free)
    distance = (free.policy(rows.next_observations) - rows.next_actions).square().sum(dim=1)
    known = rows.continued > 0
    cut = ~known & (rows.discounts > 0)
    assert known.any()
    assert cut.any()
    lowered = free.targets(rows) - bound.targets(rows)
    assert torch.allclose(lowered[known], (0.99 * 2.0 * distance)[known], atol=1e-4)
    assert (lowered[~known] == 0).all()


def test_rebrac_does_not_penalise_synthetic_rows():
    agent = noiseless("rebrac", critic_penalty=2.0)
    rows = rows_of(agent)
    unknown = replace(rows, continued=torch.zeros(len(rows)), next_actions=torch.zeros_like(rows.next_actions))
    unpenalised = noiseless("rebrac", critic_penalty=0.0).targets(rows)
    assert torch.allclose(agent.targets(unknown), unpenalised, atol=1e-5)


def test_rebracs_actor_pays_for_distance_and_earns_the_smaller_value():
    agent = begun("rebrac", actor_penalty=0.3)
    rows = rows_of(agent)
    actions = agent.policy(rows.observations)
    q = min_q(agent.networks["critics"](rows.observations, actions))
    expected = (0.3 * (actions - rows.actions).square().sum(dim=1) - q / q.abs().mean()).mean()
    assert torch.allclose(agent.actor_loss(rows, actions), expected, atol=1e-5)


def test_only_rebracs_critics_are_normalised_by_default():
    assert [begun(kind).networks["critics"].layers[0].norm is None for kind in ("td3_bc", "rebrac")] == [True, False]
    assert begun("rebrac").networks["actor"].layers[0].norm is None
