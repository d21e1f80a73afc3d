"""Relevance of rows, aims, and importance weights that undo them."""

import numpy as np
import pytest
from scipy.stats import rankdata
from toy_data import toy_dataset, toy_rows

from synth_pipeline.errors import ConfigError, SourceError, UnknownNameError
from synth_pipeline.generators.relevance import RELEVANCE, Aim, Levels, near_terminal, rarity, return_to_go, reward


@pytest.mark.parametrize("name", RELEVANCE.names())
def test_every_relevance_is_a_number_a_row(name):
    data = toy_dataset()
    values = RELEVANCE.load(name)(data)
    assert values.shape == (len(data),)
    assert np.isfinite(values).all()


def test_nearness_to_a_termination_falls_with_the_steps_to_it():
    data = toy_dataset()
    values, starts = near_terminal(data), data.episodes.starts
    assert values[starts[1] - 1] == 1.0  # the even episodes terminate
    assert values[starts[1] - 3] == pytest.approx(0.81)
    assert (values[starts[1] : starts[2]] == 0).all()  # the odd ones are cut


def test_returns_and_rewards_are_those_of_the_data():
    data = toy_dataset()
    rewards = data.transitions()["rewards"].astype(float)
    assert np.array_equal(reward(data), rewards)
    last = data.episodes.starts[1] - 1
    assert return_to_go(data)[last - 1] == pytest.approx(rewards[last - 1] + 0.99 * rewards[last])
    with pytest.raises(SourceError, match="episodes"):
        return_to_go(toy_rows())


def test_what_follows_a_cut_counts_as_going_on():
    """A reward of c for ever is worth c / (1 - 0.99) wherever its episode was cut; a termination ends it."""
    data = toy_dataset()
    data.episodes.columns["rewards"][:] = -2.0
    found, starts = return_to_go(data), data.episodes.starts
    np.testing.assert_allclose(found[starts[1] : starts[2]], -200)
    np.testing.assert_allclose(found[starts[1] - 3 : starts[1]], [-2 * (1 + 0.99 + 0.99**2), -2 * 1.99, -2])
    data.episodes.columns["rewards"][starts[2] - 1] = 5.0
    recent = np.r_[np.full(30, -2.0), 5.0] @ 0.99 ** np.arange(30, -1, -1) / np.sum(0.99 ** np.arange(31))
    assert found.shape == return_to_go(data).shape
    assert return_to_go(data)[starts[2] - 1] == pytest.approx(5 + 0.99 * recent / 0.01)


def test_a_lonely_row_is_rare():
    data = toy_dataset()
    data.episodes.observations[7] += 50
    assert rarity(data).argmax() == 7


def ranks(values):
    return (rankdata(values) / len(values)).astype(np.float32)[:, None]


def test_without_an_aim_levels_are_those_of_the_data():
    levels = Levels.of("reward", toy_dataset())
    drawn, weights = levels.draw(50_000, Aim(), np.random.default_rng(0))
    assert abs(drawn.mean() - levels.values.mean()) < 0.005
    assert (weights == 1).all()
    assert Levels.of("none", toy_dataset()).draw(5, Aim(), np.random.default_rng(0)) == (None, None)


@pytest.mark.parametrize("name", ["reward", "near_terminal"])
def test_weights_undo_the_aim(name):
    levels = Levels.of(name, toy_dataset((200, 300, 150, 250)))
    aim = Aim(where=name, share=0.6, top=0.1)
    drawn, weights = levels.draw(200_000, aim, np.random.default_rng(0))
    threshold = np.quantile(levels.values, 0.9, method="lower")
    top = levels.values >= threshold
    assert (drawn >= threshold).mean() == pytest.approx(0.6 + 0.4 * top.mean(), abs=0.01)
    assert weights.mean() == pytest.approx(1.0, abs=0.01)
    for moment in (1, 2):
        undone = (weights * drawn[:, 0] ** moment).mean()
        assert undone == pytest.approx((levels.values**moment).mean(), abs=0.01)


@pytest.mark.parametrize("rare", [0.01, 0.05, 0.3])
def test_a_sparse_relevance_is_aimed_at_where_it_is(rare):
    """A tie of all that have none must not count as top: aiming would move nothing, and no weight would say so."""
    values = np.zeros(1000)
    values[: round(1000 * rare)] = 1.0
    levels = Levels(ranks(values))
    aim = Aim(where="reward", share=0.5, top=0.1)
    assert levels.highest(aim).mean() == pytest.approx(rare)
    drawn, weights = levels.draw(100_000, aim, np.random.default_rng(0))
    top = drawn[:, 0] == levels.values.max()
    assert top.mean() == pytest.approx(0.5 + 0.5 * rare, abs=0.01)
    assert (weights * top).mean() == pytest.approx(rare, abs=0.01)


def test_what_is_equally_relevant_everywhere_is_no_aim():
    with pytest.raises(ConfigError, match="same in every row"):
        Levels(ranks(np.ones(50))).highest(Aim(where="near_terminal"))


def test_an_aim_that_was_not_learned_is_refused():
    Aim().require("none")
    Aim(where="reward").require("reward")
    with pytest.raises(ConfigError, match=r"generator\.condition=reward"):
        Aim(where="reward").require("none")
    with pytest.raises(UnknownNameError, match="rewrad"):
        Aim(where="rewrad").require("none")
