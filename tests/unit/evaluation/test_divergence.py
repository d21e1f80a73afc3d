"""When a training counts as diverged, and the sentence that says why."""

import numpy as np
import pytest
import torch
from toy_data import SPEC, random_episodes

from synth_pipeline.agents.base import build
from synth_pipeline.agents.replay import Mixture
from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import TrainingDivergedError
from synth_pipeline.evaluation.divergence import Monitor, effective_horizon
from synth_pipeline.evaluation.statistics import Diverged

SMALL = {"gradient_steps": 10, "batch_size": 8, "width": 8}


def data(rewards=None):
    episodes = random_episodes((20, 31, 12))
    columns = dict(episodes.columns)
    if rewards is not None:
        columns["rewards"] = np.full_like(columns["rewards"], rewards)
    return Dataset(SPEC, Episodes(episodes.observations, episodes.final_observations, episodes.starts, columns))


def watched(kind="td3_bc", rewards=None, **settings):
    real = data(rewards)
    agent = build({"kind": kind, **SMALL, **settings}, device="cpu").begin(Mixture(real), seed=0)
    return agent, Monitor(agent, real)


@pytest.mark.parametrize("kind", ["td3_bc", "iql", "bc"])
def test_a_healthy_agent_is_left_alone(kind):
    agent, monitor = watched(kind, scale_rewards=False)
    assert monitor.check() is None
    agent.train(10)
    assert monitor.check() is None


def test_the_limit_is_ten_times_what_rewards_can_sum_to():
    agent, monitor = watched(rewards=-3.0, discount=0.9)
    assert monitor.limit == pytest.approx(10 * 3 * 10)
    assert Monitor(agent, data(-3.0), factor=2.0).limit == pytest.approx(60)
    assert watched(rewards=0.0, discount=0.9)[1].limit == pytest.approx(100)
    assert effective_horizon(1.0, data()) == 31
    assert effective_horizon(1.0, Dataset(SPEC, rows=data().transitions())) == 63


def test_what_halting_costs_is_no_divergence():
    """With tiny rewards the return of HALT is far beyond what these could sum to."""
    agent, monitor = watched("morel", rewards=0.01, discount=0.9, model_share=0.0, terminations="never")
    assert agent.invented_return() == pytest.approx((1 - 0.01) / 0.1, rel=1e-5)
    assert monitor.limit == pytest.approx(10 * agent.invented_return())
    assert watched("morel", rewards=-50.0, discount=0.9, model_share=0.0, terminations="never")[
        1
    ].limit == pytest.approx(10 * 51 / 0.1)


def test_the_limit_is_in_the_scale_that_the_agent_learns_in():
    agent, monitor = watched("iql", scale_rewards=True, discount=0.9)
    largest = np.abs(data().transitions()["rewards"]).max()
    assert agent.scaling.reward_factor != 1
    assert monitor.limit == pytest.approx(10 * largest * agent.scaling.reward_factor * 10, rel=1e-5)


@pytest.mark.parametrize(("offset", "diverged"), [(0.9, False), (1.1, True), (-1.1, True)])
def test_values_beyond_the_limit_are_divergence(offset, diverged):
    agent, monitor = watched()
    critics = agent.networks["critics"]
    with torch.no_grad():
        critics.layers[-1].weight.zero_()
        critics.layers[-1].bias.fill_(offset * monitor.limit)
    found = monitor.check()
    assert (found is not None) == diverged
    if found is not None:
        assert found.step == agent.steps
        assert found.reason.startswith("mean |Q| of 'critics' on real rows is")


def test_weights_values_and_actions_that_are_not_finite_are_divergence(monkeypatch):
    agent, monitor = watched()
    with torch.no_grad():
        agent.networks["critics"].layers[0].weight.mul_(1e38)
    assert "values of 'critics' are not finite" in monitor.check().reason
    with torch.no_grad():
        agent.networks["actor"].vector[0] = float("nan")
    assert monitor.check() == Diverged(agent.steps, "weights of 'actor' are not finite")
    agent, monitor = watched("bc")
    monkeypatch.setattr(agent, "policy", lambda x: torch.full((len(x), 2), float("nan")))
    assert "actions are not finite" in monitor.check().reason


def test_an_error_that_ended_a_training_becomes_its_reason():
    error = TrainingDivergedError("training diverged", found="critic_loss nan at step 40")
    assert Diverged.by(error, 40) == Diverged(40, "training diverged: critic_loss nan at step 40")
