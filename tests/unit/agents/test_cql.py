"""CQL: sampled actions and their densities, one critic call for all, caution outside of the data, temperature."""

import math

import pytest
import torch
from point_mass_data import SPEC, begun, guided, same, weights

from synth_pipeline.agents.replay import Batch
from synth_pipeline.critics import min_q
from synth_pipeline.data.rows import Dataset


def test_sampled_actions_are_uniform_and_the_policys_with_their_densities():
    agent = begun("cql", sampled_actions=4)
    rows = agent.replay.all_real()
    actions, log_densities = agent.sampled_actions(rows)
    assert actions.shape == (12, len(rows), 2)
    assert (log_densities[:4] == torch.tensor(-2 * math.log(2.0))).all()
    uniform = actions[:4].flatten()
    assert float(uniform.abs().max()) <= 1
    assert float(uniform.std()) == pytest.approx(3**-0.5, rel=0.05)
    policy = agent.networks["actor"]
    for kind, observations in ((slice(4, 8), rows.observations), (slice(8, 12), rows.next_observations)):
        for action, log_density in zip(actions[kind], log_densities[kind], strict=True):
            inside = (action.abs() < 0.999).all(dim=1)  # nearer to the bounds, float32 forgets where the action was
            known = policy.log_density(observations, action)
            assert inside.sum() > 100
            assert torch.allclose(known[inside], log_density[inside], atol=1e-2)


def test_all_actions_of_a_step_are_valued_in_one_call(monkeypatch):
    agent, calls = begun("cql", sampled_actions=10), []
    critics = agent.networks["critics"]
    forward = type(critics).forward

    def counted(self, observations, actions, first=None):
        if self is critics:
            calls.append(len(actions))
        return forward(self, observations, actions, first)

    monkeypatch.setattr(type(critics), "forward", counted)
    agent.step(agent.replay.draw(agent.rng))
    assert calls == [31 * 32, 32]  # the penalty and the error; the policy's improvement


def test_no_entropy_in_the_targets():
    agent = begun("cql")
    rows = agent.replay.all_real()
    agent.rng.manual_seed(3)
    targets = agent.targets(rows)
    agent.rng.manual_seed(3)
    drawn = agent.networks["actor"].sample(rows.next_observations, agent.rng)[0][0]
    next_q = min_q(agent.networks["target_critics"](rows.next_observations, drawn))
    assert torch.allclose(targets, rows.rewards + rows.discounts * next_q, atol=1e-5)


def test_actions_that_the_data_lack_are_valued_lower():
    """All data are of one controller; without the penalty nothing speaks against what it never does."""
    data, gaps = Dataset(SPEC, guided(10, seed=0)), []
    small = {"sampled_actions": 4, "learning_rate": 1e-2, "scale_rewards": False, "width": 32, "depth": 2}
    for alpha in (0.0, 10.0):
        agent = begun("cql", data, alpha=alpha, gradient_steps=40, **small)
        agent.train()
        rows, critics = agent.replay.all_real(), agent.networks["critics"]
        others = torch.rand(20, len(rows), 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
        q = critics.of_samples(rows.observations, torch.cat([rows.actions[None], others])).detach()
        gaps.append(float((q[:, 1:] - q[:, :1]).mean()))
    assert gaps[1] < min(gaps[0], 0) - 0.5


def test_the_temperature_follows_the_entropy_towards_minus_the_number_of_actions():
    agent = begun("cql", actor_learning_rate=1e-3)
    values = agent.step(agent.replay.draw(agent.rng))
    assert (float(agent._temperature.value()) > 1) == (float(values["entropy"]) < -2)
    assert float(values["temperature"]) == 1.0


def test_policy_and_critics_have_step_sizes_of_their_own():
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in begun("cql").optimizers.items()}
    assert rates == {"actor": 3e-5, "temperature": 3e-5, "critics": 3e-4}


def test_weights_begin_orthogonal():
    for weight in begun("cql", width=8).networks["critics"].layers[0].weight:
        assert torch.allclose(weight @ weight.T, torch.eye(len(weight)), atol=1e-5)


def test_the_critics_do_not_learn_from_the_actors_rows():
    agents = [begun("cql"), begun("cql")]
    batch = agents[0].replay.draw(torch.Generator().manual_seed(0))
    other = agents[0].replay.draw(torch.Generator().manual_seed(1))
    agents[0].step(batch)
    agents[1].step(Batch(batch.critic, other.actor))
    assert same(weights(agents[0], "critics"), weights(agents[1], "critics"))
    assert not same(weights(agents[0], "actor"), weights(agents[1], "actor"))
