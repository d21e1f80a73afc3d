"""BC and BC on the best episodes: which rows are cloned, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from point_mass_data import begun
from toy_data import SPEC, random_episodes, toy_dataset, toy_rows

from synth_pipeline.agents.base import build
from synth_pipeline.agents.percent_bc import best_episodes
from synth_pipeline.agents.replay import Batch, Mixture
from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import SourceError


def episodes_of_return(returns, lengths):
    """Episodes whose rewards are equal steps of their return."""
    episodes = random_episodes(lengths)
    rewards = np.repeat(np.divide(returns, lengths), lengths).astype(np.float32)
    return replace(episodes, columns={**episodes.columns, "rewards": rewards})


@pytest.mark.parametrize(
    ("share", "count", "kept"), [(0.1, 1, 1), (0.1, 10, 1), (0.1, 11, 2), (0.1, 70, 7), (0.07, 100, 7)]
)
def test_a_share_of_the_episodes_rounded_up(share, count, kept):
    assert len(best_episodes(episodes_of_return(range(count), [2] * count), share)) == kept


def test_the_sum_of_rewards_counts_not_their_mean_nor_the_length():
    episodes = episodes_of_return([5.0, 9.0, 1.0, 9.0, 8.0], [1, 30, 100, 2, 3])
    best = best_episodes(episodes, 0.4)
    assert best.lengths.tolist() == [30, 2]
    assert best.returns == pytest.approx([9, 9])
    assert np.array_equal(best.observations[:30], episodes.observations[1:31])
    assert best_episodes(episodes, 0.2).lengths.tolist() == [30]  # of equal ones the earlier
    assert len(best_episodes(episodes, 1.0)) == 5


def test_only_the_best_episodes_are_cloned_and_all_of_them_give_the_scale():
    data = Dataset(SPEC, episodes_of_return(range(20), [10] * 20))
    agent = begun("percent_bc", data)
    assert np.unique(agent.replay.all_real().rewards) == pytest.approx([1.8, 1.9])
    assert np.array_equal(agent.scaling.mean, begun("bc", data).scaling.mean)


def test_of_synthetic_episodes_the_best_are_cloned_too():
    real, made = (episodes_of_return(range(*ends), [10] * 20) for ends in ((0, 20), (100, 120)))
    agent = build({"kind": "percent_bc", "batch_size": 8, "width": 8})
    agent.begin(Mixture(Dataset(SPEC, real), share=0.25, synthetic_episodes=made), seed=0)
    drawn = torch.cat([agent.replay.draw(agent.rng).actor.rewards for _ in range(40)])
    assert np.unique(drawn) == pytest.approx([1.8, 1.9, 11.8, 11.9])
    assert (drawn > 10).sum() == 2 * 40


def test_rows_without_returns_are_refused():
    with pytest.raises(SourceError, match="none") as caught:
        begun("percent_bc", toy_rows())
    assert "rows without episodes" in caught.value.found
    data = toy_dataset()
    with pytest.raises(SourceError, match="none") as caught:
        build({"kind": "percent_bc"}).begin(Mixture(data, data.transitions(), share=0.5), seed=0)
    assert "synthetic rows" in caught.value.found
    build({"kind": "percent_bc"}).begin(Mixture(data, data.transitions(), share=0.0), seed=0)


def test_bc_goes_to_the_least_squares_solution():
    """Where two actions were taken in one state, it takes their mean."""
    agent = begun("bc", gradient_steps=300, learning_rate=1e-2)
    rows = agent.replay.all_real()
    origin = torch.zeros_like(rows.observations)
    rows = replace(rows, observations=origin)
    for _ in range(150):
        agent.step(Batch(rows, rows))
    assert torch.allclose(agent.policy(origin[:1])[0], rows.actions.mean(dim=0), atol=1e-3)
