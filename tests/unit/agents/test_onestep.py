"""Onestep RL: three phases in one run, SARSA on the data's next actions, the three operators."""

import numpy as np
import pytest
import torch
from point_mass_data import begun, same, tiny, weights

from synth_pipeline.agents.replay import Mixture
from synth_pipeline.errors import ConfigError

OPERATORS = ["exponential", "reverse_kl", "easy_bcq"]


def agent_with(operator="exponential", **settings):
    return begun("onestep", operator=operator, behaviour_share=0.25, value_share=0.5, **settings)


def test_each_phase_moves_its_own_networks():
    """20 steps: 5 of cloning, 10 of values, 5 of improvement, which begins as the behaviour."""
    agent = agent_with()
    moved = []
    for step in range(20):
        before = {name: weights(agent, name) for name in agent.networks}
        agent.train(until=step + 1)
        moved.append({name for name, were in before.items() if not same(were, weights(agent, name))})
        if step == 14:
            assert same(weights(agent, "behaviour"), weights(agent, "actor"))
    assert moved[:5] == [{"behaviour"}] * 5
    assert moved[5:14] == [{"critics", "target_critics"}] * 9
    assert moved[14] == {"critics", "target_critics", "actor"}
    assert moved[15:] == [{"actor"}] * 5


def test_picking_candidates_needs_no_steps_of_its_own():
    agent = agent_with("easy_bcq")
    assert [agent.phase(step) for step in (0, 4, 5, 19, 20)] == [
        *["behaviour"] * 2,
        *["values"] * 2,
        "improvement",
    ]
    assert "actor" not in agent.networks


def test_shares_that_leave_no_improvement_are_refused():
    with pytest.raises(ConfigError, match="no step for the improvement"):
        begun("onestep", behaviour_share=0.5, value_share=0.5)


def test_sarsa_follows_the_data_and_the_behaviour_where_the_data_end():
    agent = agent_with()
    rows, critic = agent.replay.all_real(), agent.networks["target_critics"]
    agent.rng.manual_seed(3)
    targets = agent.targets(rows)
    agent.rng.manual_seed(3)
    drawn = agent.networks["behaviour"].sample(rows.next_observations, agent.rng)[0]
    known = rows.continued > 0
    cut = ~known & (rows.discounts > 0)
    assert cut.sum() == 8  # the episodes that end at a limit
    following = torch.where(known[:, None], rows.next_actions, drawn)
    expected = rows.rewards + rows.discounts * critic(rows.next_observations, following)[0]
    assert torch.allclose(targets, expected, atol=1e-5)
    following_row = torch.from_numpy(np.flatnonzero(known.numpy()) + 1)
    assert torch.equal(rows.next_actions[known], rows.actions[following_row])


def test_synthetic_rows_follow_the_behaviour():
    agent = agent_with()
    mixture = Mixture(tiny(), tiny().transitions(), share=0.5)
    rows = agent.begin(mixture, seed=0).replay.draw(agent.rng).critic
    one, other = agent.targets(rows), agent.targets(rows)
    known = rows.continued > 0
    assert torch.equal(one[known], other[known])
    assert (one != other)[~known & (rows.discounts > 0)].all()


def test_there_is_one_critic():
    assert agent_with().networks["critics"].members == 1


def test_rows_are_weighed_by_their_advantage_over_the_behaviour():
    agent = agent_with(temperature=0.05, value_samples=6, weight_limit=2.0)
    rows, critic = agent.replay.all_real(), agent.networks["critics"]
    agent.rng.manual_seed(3)
    found = agent.weights(rows)
    agent.rng.manual_seed(3)
    drawn = agent.networks["behaviour"].sample(rows.observations, agent.rng, 6)
    v = torch.stack([critic(rows.observations, each)[0] for each in drawn]).mean(dim=0)
    expected = ((critic(rows.observations, rows.actions)[0] - v) / 0.05).exp()
    assert torch.allclose(found, expected.clamp_max(2.0), rtol=1e-3)
    assert (found == 2.0).any()
    assert (found < 2.0).any()


def test_easy_bcq_picks_the_candidate_of_highest_value():
    agent = agent_with("easy_bcq", candidates=7)
    agent.train()
    observations = agent.replay.all_real().observations[:30]
    behaviour = agent.networks["behaviour"]
    candidates = behaviour.perturbed(observations, behaviour.get_buffer("candidates"))
    assert candidates.shape == (7, 30, 2)
    values = torch.stack([agent.networks["critics"](observations, each)[0] for each in candidates])
    chosen = agent.networks["critics"](observations, agent.policy(observations))[0]
    assert torch.allclose(chosen, values.max(dim=0).values, atol=1e-5)
    assert (values.max(dim=0).values > values.mean(dim=0)).all()


def test_a_large_weight_on_the_divergence_keeps_the_policy_at_the_behaviour():
    """Without it the policy leaves for higher values."""
    apart, values = [], []
    for weight in (0.0, 1e4):
        agent = agent_with("reverse_kl", divergence_weight=weight, learning_rate=1e-2)
        agent.train(until=15)
        rows = agent.replay.all_real()
        before = agent.networks["critics"](rows.observations, agent.networks["behaviour"].mean(rows.observations))
        agent.train()
        after = agent.networks["critics"](rows.observations, agent.policy(rows.observations))
        apart.append(
            float(agent.networks["actor"].divergence(agent.networks["behaviour"], rows.observations).mean().detach())
        )
        values.append(float((after - before).mean().detach()))
    assert apart[1] < 0.05 * apart[0]
    assert values[0] > 0


@pytest.mark.parametrize("operator", OPERATORS)
def test_until_it_is_improved_it_acts_as_the_behaviour(operator):
    """Candidates are picked by values as soon as there are some: none of the evaluations that count is of beta."""
    agent = agent_with(operator)
    agent.train(until=3 if operator == "easy_bcq" else 12)
    observations = agent.replay.all_real().observations
    mean = agent.networks["behaviour"].mean(observations)
    assert torch.equal(agent.policy(observations), mean)
    agent.train()
    assert not torch.allclose(agent.policy(observations), mean, atol=1e-4)


@pytest.mark.parametrize("operator", ["reverse_kl", "easy_bcq"])
@pytest.mark.parametrize("stop", [3, 12, 15, 18])
def test_every_operator_resumes_in_every_phase(operator, stop, tmp_path):
    whole = agent_with(operator)
    whole.train()
    agent_with(operator).train(until=stop, checkpoint=tmp_path / "state")
    resumed = agent_with(operator)
    resumed.train(checkpoint=tmp_path / "state")
    for name in whole.networks:
        assert same(weights(whole, name), weights(resumed, name))


def test_a_restored_easy_bcq_has_the_same_candidates():
    agent = agent_with("easy_bcq")
    agent.train()
    restored = type(agent)(agent.config)
    restored.restore_from(*agent.state())
    observations = tiny().episodes.observations
    assert np.array_equal(restored.act(observations), agent.act(observations))
