"""Bugs found in other people's offline-RL agents: one short test each, that ours must pass."""

from dataclasses import replace

import numpy as np
import pytest
from point_mass_data import begun, tiny, weights
from toy_data import SPEC, random_episodes

from synth_pipeline.agents.replay import next_actions
from synth_pipeline.data.rows import Dataset

VALUE_LEARNERS = ["awac", "cql", "iql", "morel", "onestep", "rebrac", "td3_bc"]
AT_ONCE = {"onestep": {"behaviour_share": 0.01}, "morel": {"model_share": 0.0, "terminations": "never"}}


def ended(data):
    """Two episodes that were cut and one that terminated."""
    episodes = data.episodes
    flags = {name: np.zeros(episodes.num_rows, bool) for name in ("terminations", "truncations")}
    last = episodes.starts[1:] - 1
    flags["truncations"][last[:2]] = True
    flags["terminations"][last[2]] = True
    return replace(data, episodes=replace(episodes, columns={**episodes.columns, **flags}))


THREE = ended(Dataset(SPEC, random_episodes((6, 9, 4))))


@pytest.mark.parametrize("kind", VALUE_LEARNERS)
def test_target_critics_are_slow(kind):
    """CleanDiffuser, in nine pipelines: `0.995 * new + 0.005 * old`, so that the target is the network itself."""
    agent = begun(kind, target_rate=0.005, **AT_ONCE.get(kind, {}))
    before = weights(agent, "target_critics")
    agent.train(until=2)
    after, fast = weights(agent, "target_critics"), weights(agent, "critics")
    for name, old in before.items():
        moved, way = (after[name] - old).norm(), (fast[name] - old).norm()
        assert 0 < moved <= 0.011 * way  # one or two steps of 0.005


@pytest.mark.parametrize("kind", VALUE_LEARNERS)
def test_a_time_limit_is_bootstrapped_and_a_terminal_state_is_not(kind):
    """DIPO stores `terminated or truncated` as the one flag that stops the bootstrap."""
    agent = begun(kind, THREE, **AT_ONCE.get(kind, {}))
    rows = agent.replay.all_real()
    last = THREE.episodes.starts[1:] - 1
    assert rows.discounts[last].tolist() == pytest.approx([0.99, 0.99, 0.0])
    beyond = (agent.targets(rows) - rows.rewards)[last]
    assert (beyond != 0).tolist() == [True, True, False]


def test_cut_and_terminated_episodes_both_have_a_return_of_their_own():
    """CORL's `return_reward_range` adds up to the next terminal flag: cut episodes run into one another."""
    returns = THREE.episodes.returns
    agent = begun("iql", THREE, scale_rewards=True)
    assert len(returns) == 3
    assert agent.scaling.reward_factor == pytest.approx(1000 / (returns.max() - returns.min()))


@pytest.mark.parametrize("length", [100, 37])
def test_the_best_episodes_are_episodes_and_not_blocks_of_a_thousand_rows(length):
    """CORL's 10 % BC cuts every 1,000 rows: on pen, whose episodes have 100, it clones arbitrary slices."""
    episodes = random_episodes([length] * 30)
    rewards = np.repeat(np.arange(30.0) % 7, length).astype(np.float32)  # the best are strewn over the data
    data = Dataset(SPEC, replace(episodes, columns={**episodes.columns, "rewards": rewards}))
    cloned = begun("percent_bc", data).replay.all_real()
    assert len(cloned) == 3 * length
    assert (cloned.rewards == 6).all()
    assert cloned.continued.sum() == 3 * (length - 1)


def test_what_came_next_is_never_the_first_action_of_another_episode():
    """SARSA on a flat buffer: `actions[1:]` pairs the last step of an episode with the start of the next one."""
    following, known = next_actions(tiny())
    actions, last = tiny().transitions()["actions"], tiny().episodes.starts[1:] - 1
    assert not known[last].any()
    assert not (following[last[:-1]] == actions[last[:-1] + 1]).any()


def test_weights_of_the_critics_get_no_gradient_from_the_actors_step():
    """Q in the actor's loss without freezing: what is left in `.grad` goes into the next step of the critics."""
    for kind in ("td3_bc", "rebrac", "cql"):
        agent = begun(kind, policy_delay=1) if kind != "cql" else begun(kind)
        rows = agent.replay.all_real()
        (agent.improve if kind == "cql" else agent._improve)(rows)
        assert all(parameter.grad is None for parameter in agent.networks["critics"].parameters())
