"""What agents are given: next actions, weights, shares, scales, and what a mixture refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_data import SPEC, toy_dataset, toy_rows

from synth_pipeline.agents.base import build, on_locomotion
from synth_pipeline.agents.replay import Mixture, Replay, next_actions, synthetic_rows
from synth_pipeline.agents.scaling import Scaling, complete
from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import ConfigError, SourceError, UnknownNameError

DATA = toy_dataset()
ROWS = DATA.transitions()


def replay(mixture, batch_size=8, **scales):
    scaling = Scaling.fit(mixture.real, **{"normalize_observations": False, "scale_rewards": False, **scales})
    return Replay(mixture, scaling, batch_size=batch_size, discount=0.9, device=torch.device("cpu"))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_next_action_is_known_inside_an_episode_only():
    following, known = next_actions(DATA)
    last = DATA.episodes.starts[1:] - 1
    assert not known[last].any()
    assert known.sum() == len(DATA) - len(DATA.episodes)
    rows = np.flatnonzero(known)
    assert np.array_equal(following[rows], ROWS["actions"][rows + 1])
    assert not following[last].any()


def test_rows_without_episodes_have_no_next_action():
    following, known = next_actions(toy_rows())
    assert not known.any()
    assert not following.any()


def test_every_row_is_packed_in_order():
    rows = replay(Mixture(DATA)).all_real()
    following, known = next_actions(DATA)
    assert np.array_equal(rows.observations.numpy(), ROWS["observations"])
    assert np.array_equal(rows.next_observations.numpy(), ROWS["next_observations"])
    assert np.allclose(rows.actions.numpy(), ROWS["actions"])
    assert np.allclose(rows.next_actions.numpy(), following)
    assert np.array_equal(rows.continued.numpy(), known)
    assert np.allclose(rows.rewards.numpy(), ROWS["rewards"])
    assert np.allclose(rows.discounts.numpy(), np.where(ROWS["terminations"], 0, 0.9))


def test_synthetic_rows_never_know_what_came_next():
    batch = replay(Mixture(DATA, ROWS, share=0.5)).draw(rng())
    assert not batch.critic.continued[4:].any()
    assert batch.critic.continued[:4].any()


def test_rows_are_drawn_in_proportion_to_their_weights():
    made = ROWS.take(np.arange(4)).with_columns(weight=np.array([0.0, 1.0, 0.0, 3.0]))
    table = replay(Mixture(DATA, made, share=1.0), batch_size=4000)
    drawn = table.draw(rng()).critic.observations.numpy()
    counts = [(drawn == made["observations"][row]).all(axis=1).sum() for row in range(4)]
    assert counts[0] == counts[2] == 0
    assert sum(counts) == 4000
    assert counts[3] / 4000 == pytest.approx(0.75, abs=0.03)


def test_real_rows_are_drawn_in_proportion_to_their_weights_too():
    kept = ROWS.take(np.arange(4)).with_columns(weight=np.array([0.0, 1.0, 0.0, 3.0]))
    batch = replay(Mixture(Dataset(SPEC, rows=kept)), batch_size=4_000).draw(rng()).critic
    counts = [int((batch.rewards == float(reward)).sum()) for reward in np.asarray(kept["rewards"], np.float32)]
    assert counts[0] == counts[2] == 0
    assert counts[3] / counts[1] == pytest.approx(3, rel=0.15)


def test_the_lowest_level_does_not_draw_a_row_of_weight_zero(monkeypatch):
    made = ROWS.take(np.arange(3)).with_columns(weight=np.array([0.0, 1.0, 2.0]))
    table = replay(Mixture(DATA, made, share=1.0))
    monkeypatch.setattr(torch, "rand", lambda *shape, generator, **kind: torch.zeros(shape, **kind))
    assert (table.draw(rng()).critic.observations.numpy() == made["observations"][1]).all()


def test_real_rows_are_drawn_uniformly():
    drawn = replay(Mixture(DATA), batch_size=20_000).draw(rng()).critic.observations.numpy()
    counts = np.array([(drawn[:, 0] == x).sum() for x in ROWS["observations"][:, 0]])
    assert counts.sum() == 20_000
    assert counts.min() > 0.5 * counts.mean()


@pytest.mark.parametrize("weights", [np.zeros(4), np.array([1.0, -1.0, 1.0, 1.0]), np.array([1.0, np.nan, 1, 1])])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(SourceError, match="weights of rows"):
        replay(Mixture(DATA, ROWS.take(np.arange(4)).with_columns(weight=weights)))


def test_a_share_is_a_whole_number_of_rows():
    assert [synthetic_rows(share, 256) for share in (0.0, 0.25, 0.5, 1.0)] == [0, 64, 128, 256]
    assert synthetic_rows(0.3, 10) == 3
    for share, size in ((0.001, 256), (0.999, 256), (0.4, 1)):
        with pytest.raises(ConfigError, match="too small"):
            synthetic_rows(share, size)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_outside_of_0_and_1_are_refused(share):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Mixture(DATA, share=share)


def test_a_side_without_any_row_is_refused():
    with pytest.raises(ConfigError, match="leave the other nothing"):
        Mixture(DATA, ROWS, share=1.0, use_in="critic")


def test_synthetic_rows_are_checked_like_real_ones():
    bad = ROWS["rewards"].copy()
    bad[5] = np.inf
    with pytest.raises(SourceError, match=r"'rewards'[^$]*row 5"):
        Mixture(DATA, ROWS.with_columns(rewards=bad))
    with pytest.raises(SourceError, match="0 rows"):
        Mixture(DATA, ROWS.take(slice(0, 0)))
    with pytest.raises(SourceError, match="other shapes in 'actions'"):
        Mixture(DATA, ROWS.with_columns(actions=ROWS["actions"][:, :1]))
    with pytest.raises(UnknownNameError, match="actions"):
        Mixture(DATA, type(ROWS)({name: ROWS[name] for name in ROWS.columns if name != "actions"}))


def test_every_number_that_can_be_learned_from_is_in_the_digest():
    mixtures = [
        Mixture(DATA),
        Mixture(toy_rows()),
        Mixture(DATA, ROWS),
        Mixture(DATA, ROWS, share=0.25),
        Mixture(DATA, ROWS, use_in="critic"),
        Mixture(DATA, ROWS.with_columns(rewards=ROWS["rewards"] + 1)),
        Mixture(DATA, ROWS.with_columns(weight=np.arange(len(ROWS)))),
        Mixture(replace(DATA, spec=SPEC.replace(fields=(SPEC.fields[0], wider(), *SPEC.fields[2:])))),
        Mixture(replace(DATA, spec=SPEC.replace(horizon=7))),  # which episodes are complete, and so scaled rewards
        Mixture(replace(DATA, spec=SPEC.replace(environment="hopper"))),  # whether they are scaled at all
    ]
    assert len({mixture.digest() for mixture in mixtures}) == len(mixtures)
    assert Mixture(DATA).digest() == Mixture(toy_dataset()).digest()


def wider():
    return Field(name="actions", shape=(2,), low=(-2.0, -3.0), high=(2.0, 1.0), clip=True)


# Scaling


def scaling(data=DATA, *, observations=False, rewards=False):
    return Scaling.fit(data, normalize_observations=observations, scale_rewards=rewards)


def test_actions_fill_their_bounds_and_come_back():
    scales = scaling(replace(DATA, spec=SPEC.replace(fields=(SPEC.fields[0], wider(), *SPEC.fields[2:]))))
    actions = np.array([[-2.0, 1.0], [0.0, -1.0], [9.0, -9.0]])
    assert scales.actions(actions).tolist() == [[-1, 1], [0, 0], [1, -1]]
    assert scales.physical_actions(scales.actions(actions)).tolist() == [[-2, 1], [0, -1], [2, -3]]


def test_actions_without_bounds_fill_the_range_of_the_data():
    free = Field(name="actions", shape=(2,))
    scales = scaling(replace(DATA, spec=SPEC.replace(fields=(SPEC.fields[0], free, *SPEC.fields[2:]))))
    assert np.abs(scales.actions(ROWS["actions"])).max(axis=0) == pytest.approx([1, 1])
    assert np.allclose(scales.physical_actions(scales.actions(ROWS["actions"])), ROWS["actions"], atol=1e-6)


def test_observations_are_scaled_by_the_real_rows_alone():
    x = ROWS["observations"].astype(np.float64)
    expected = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-3)
    assert np.allclose(scaling(observations=True).observations(x), expected, atol=1e-5)
    far = ROWS.with_columns(observations=ROWS["observations"] + 100)
    mixed, alone = (
        replay(mixture, normalize_observations=True).all_real() for mixture in (Mixture(DATA, far), Mixture(DATA))
    )
    assert torch.equal(mixed.observations, alone.observations)
    assert np.array_equal(scaling().observations(x), x.astype(np.float32))


def test_returns_are_scaled_to_a_spread_of_a_thousand():
    scaled = scaling(rewards=True).rewards(ROWS["rewards"])
    returns = np.add.reduceat(scaled.astype(np.float64), DATA.episodes.starts[:-1])
    assert np.ptp(returns) == pytest.approx(1000, rel=1e-5)


def test_an_episode_that_was_cut_off_has_no_return_yet():
    """The last episode of a subset is cut to fit: a scale by its return would change with the draw."""
    columns = {"rewards": np.ones(35, np.float32), "terminations": np.arange(35) == 9}
    columns |= {"actions": np.zeros((35, 2), np.float32), "truncations": np.isin(np.arange(35), [29, 34])}
    episodes = Episodes(np.zeros((35, 3), np.float32), np.zeros((3, 3), np.float32), np.array([0, 10, 30, 35]), columns)
    data = Dataset(SPEC.replace(horizon=20), episodes)
    assert complete(data).tolist() == [True, True, False]
    assert scaling(data, rewards=True).reward_factor == pytest.approx(1000 / (20 - 10))
    assert complete(Dataset(SPEC.replace(horizon=None), episodes)).all(), "without a limit nobody knows"
    assert complete(Dataset(SPEC.replace(horizon=50), episodes.take(np.array([1, 2])))).all(), "all there is"


def test_returns_that_give_no_scale_are_refused():
    with pytest.raises(SourceError, match="no episodes"):
        scaling(toy_rows(), rewards=True)
    flat = DATA.episodes.columns | {"rewards": np.zeros(len(DATA), np.float32)}
    with pytest.raises(SourceError, match="all returns are equal"):
        scaling(Dataset(SPEC, replace(DATA.episodes, columns=flat)), rewards=True)


@pytest.mark.parametrize(("name", "scaled"), [("hopper", True), ("toy-point-mass", False), (None, False)])
def test_rewards_are_scaled_where_the_paper_scales_them(name, scaled):
    """On locomotion: returns of a maze are 0 or 1, and would be multiplied by a thousand."""
    assert on_locomotion(SPEC.replace(environment=name)) is scaled
    assert build({"kind": "iql"}).config.scale_rewards == "locomotion"
