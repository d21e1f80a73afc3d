"""IQL and AWAC: targets, advantages, and the weights of the rows that they clone."""

import math
from dataclasses import replace

import pytest
import torch
from point_mass_data import begun, same, weights

from synth_pipeline.agents.replay import Batch
from synth_pipeline.critics import min_q


@pytest.mark.parametrize("kind", ["iql", "awac"])
def test_the_policy_is_judged_by_its_mean(kind):
    agent = begun(kind)
    observations = agent.replay.all_real().observations
    assert torch.equal(agent.policy(observations), agent.networks["actor"].mean(observations))


def test_iql_bootstraps_from_v():
    agent = begun("iql")
    rows = agent.replay.all_real()
    expected = rows.rewards + rows.discounts * agent.networks["value"](rows.next_observations)[0, :, 0]
    assert torch.allclose(agent.targets(rows), expected)


def test_iqls_policy_and_q_learn_from_the_new_v():
    """The authors' order: V, then the policy by its advantage, then Q by its value of the next states."""
    agent, order = begun("iql"), []

    def told(name, function):
        return lambda *given: (order.append(name or given[0]), function(*given))[1]

    agent.optimize, agent.targets = told(None, agent.optimize), told("targets", agent.targets)
    v = agent._v
    agent._v = told("v", v)
    agent.step(agent.replay.draw(agent.rng))
    assert order == ["v", "value", "v", "actor", "targets", "v", "critics"]


def test_iqls_value_learns_the_expectile_of_the_target_critics():
    """With frozen critics and one state, V goes to the 0.9-expectile of Q over the actions of the data."""
    agent = begun("iql", expectile=0.9, learning_rate=3e-2, gradient_steps=1000, target_rate=1e-9)
    rows = agent.replay.all_real()
    origin = torch.zeros_like(rows.observations)
    agent.networks["critics"].layers[0].weight.data.mul_(10)  # actions must matter
    agent.networks["target_critics"].load_state_dict(agent.networks["critics"].state_dict())
    rows = replace(rows, observations=origin)
    q = min_q(agent.networks["target_critics"](origin, rows.actions)).detach()
    for _ in range(100):
        agent.step(Batch(rows, rows))
    v = float(agent.networks["value"](origin[:1])[0, 0, 0].detach())
    above, below = (q - v).clamp_min(0).sum(), (v - q).clamp_min(0).sum()
    assert float(0.9 * above / (0.1 * below)) == pytest.approx(1.0, rel=0.1)


def test_iqls_rate_of_the_policy_falls_to_zero():
    agent = begun("iql", gradient_steps=4)
    rates = []
    for _ in range(4):
        agent.train(until=agent.steps + 1)
        rates.append(agent.optimizers["actor"].param_groups[0]["lr"] / 3e-4)
    assert rates == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)])


def test_awacs_targets_follow_a_sampled_action():
    agent = begun("awac")
    rows = agent.replay.all_real()
    agent.rng.manual_seed(3)
    targets = agent.targets(rows)
    agent.rng.manual_seed(3)
    drawn = agent.networks["actor"].sample(rows.next_observations, agent.rng)[0]
    next_q = min_q(agent.networks["target_critics"](rows.next_observations, drawn))
    assert torch.allclose(targets, rows.rewards + rows.discounts * next_q, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.3333, 0.01])
def test_awac_weighs_by_the_advantage_over_its_own_action(temperature):
    agent = begun("awac", temperature=temperature)
    rows = agent.replay.all_real()
    agent.rng.manual_seed(3)
    found = agent.weights(rows)
    agent.rng.manual_seed(3)
    drawn = agent.networks["actor"].sample(rows.observations, agent.rng)[0]
    q, v = (min_q(agent.networks["critics"](rows.observations, a)) for a in (rows.actions, drawn))
    expected = ((q - v) / temperature).exp()
    assert torch.allclose(found, expected.clamp_max(100.0), rtol=1e-3)
    assert (expected.max() > 100) == (temperature == 0.01)  # so that the limit is met


@pytest.mark.parametrize("kind", ["iql", "awac"])
def test_what_the_actor_sees_does_not_move_the_critics(kind):
    """Synthetic rows for the actor alone: the critics end as if they were not there."""
    agents = [begun(kind), begun(kind)]
    batch = agents[0].replay.draw(torch.Generator().manual_seed(0))
    other = agents[0].replay.draw(torch.Generator().manual_seed(1))
    agents[0].step(batch)
    agents[1].step(Batch(batch.critic, other.actor))
    assert same(weights(agents[0], "critics"), weights(agents[1], "critics"))
    assert not same(weights(agents[0], "actor"), weights(agents[1], "actor"))
