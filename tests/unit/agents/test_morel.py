"""What is unknown, what HALT pays, what is imagined, and a model whose fit can be interrupted."""

import math
from types import MappingProxyType

import numpy as np
import point_mass_data
import pytest
import torch
from sklearn.metrics import roc_auc_score
from toy_data import toy_dataset

from synth_pipeline.agents.base import build
from synth_pipeline.agents.morel import MOReLConfig, Pessimistic, terminations_of
from synth_pipeline.agents.replay import Mixture
from synth_pipeline.data.normalize import Quantile
from synth_pipeline.dynamics.regressor import Members, Regressor
from synth_pipeline.errors import ConfigError, SourceError

MODEL = {"members": 3, "width": 32, "depth": 2, "trainer": {"gradient_steps": 20, "batch_size": 64, "log_every": 5}}
QUICK = {
    "kind": "morel",
    "model": MODEL,
    "width": 16,
    "depth": 1,
    "batch_size": 16,
    "gradient_steps": 12,
    "rollouts": 30,
    "rollout_length": 4,
    "refresh_every": 5,
    "kept_refreshes": 2,
    "model_share": 0.5,
    "discount": 0.9,
}


def begun(data=None, seed=0, **settings):
    return build({**QUICK, **settings}, device="cpu").begin(data or Mixture(point_mass_data.tiny()), seed=seed)


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def never(x):
    return torch.zeros(len(x), dtype=torch.bool)


def pessimistic(o=2, a=1, worst=-2.0, terminations=never, changes=MappingProxyType({}), **settings):
    """An untrained model in units that are no model units."""
    config = MOReLConfig(**{"model": MODEL, "discount": 0.9, "halt_offset": 0.5, **settings})
    network = Members(2 * (o + a), o + 1, config.model, random())
    arrays = {f"network.{name}": value.numpy() for name, value in network.state_dict().items()}
    scales = {"inputs": o + a, "outputs": o + 1}
    for side, size in scales.items():
        arrays |= {f"{side}.shift": np.full(size, 0.1), f"{side}.scale": np.arange(1.0, size + 1) / 2}
    maps = Quantile.fit(np.random.default_rng(0).normal(size=(200, o + a))).arrays()
    arrays |= {f"maps.{name}": value for name, value in maps.items()} | changes
    regressor = Regressor(config.model, device="cpu")
    regressor.restore(arrays)
    return Pessimistic(config, regressor, worst=worst, terminations=terminations, device=torch.device("cpu"))


def some_rows(n=40, o=2, a=1):
    return torch.randn(n, o, generator=random(1)), torch.randn(n, a, generator=random(2))


@pytest.fixture(scope="module")
def fitted():
    """A model of the point mass that is as good as a second makes it."""
    trainer = {"gradient_steps": 250, "batch_size": 128}
    model = {"members": 3, "width": 32, "depth": 2, "trainer": trainer}
    agent = begun(Mixture(point_mass_data.half_good()), model=model)
    agent.replay.learn_model()
    return agent


# What is unknown


def test_disagreement_is_the_largest_distance_between_members_on_the_same_row():
    means = torch.tensor(
        [[[0.0, 0.0, 9.0], [1.0, 1.0, 0.0]], [[3.0, 4.0, -9.0], [1.0, 1.0, 0.0]], [[0.0, 1.0, 0.0], [1.0, 3.0, 5.0]]]
    )
    found = pessimistic().disagreement(means)
    assert found.tolist() == [5.0, 2.0]  # the last column is the reward


def test_disagreement_never_compares_rows():
    """Trap: differences across inputs are large wherever dynamics differ, and nothing would ever be unknown."""
    same = torch.randn(1, 50, 3, generator=random()).expand(4, -1, -1)
    assert not pessimistic().disagreement(same).any()
    model, (observations, actions) = pessimistic(), some_rows()
    order = torch.randperm(40, generator=random(3))
    found = model.disagreement(model.members(observations, actions)[0])
    shuffled = model.disagreement(model.members(observations[order], actions[order])[0])
    torch.testing.assert_close(shuffled, found[order])
    alone = torch.cat(
        [model.disagreement(model.members(*(p[i : i + 1] for p in (observations, actions)))[0]) for i in range(40)]
    )
    torch.testing.assert_close(alone, found)


def test_the_threshold_is_mean_and_deviations_over_the_data():
    model, (observations, actions) = pessimistic(threshold_stds=2.0), some_rows(5000)
    model.calibrate(observations, actions)
    found = model.disagreement(model.members(observations, actions)[0]).double().numpy()
    assert model.threshold == pytest.approx(found.mean() + 2.0 * found.std(), rel=1e-5)


def test_what_the_data_do_not_know_is_unknown_and_what_they_know_is_not(fitted):
    model, rows = fitted.replay.model, fitted.replay.all_real()
    far = 20 * (2 * torch.rand(rows.observations.shape, generator=random()) - 1)
    actions = 2 * torch.rand(rows.actions.shape, generator=random()) - 1
    here = model.disagreement(model.members(rows.observations, rows.actions)[0])
    there = model.disagreement(model.members(far, actions)[0])
    labels = np.repeat([0, 1], len(rows))
    assert roc_auc_score(labels, torch.cat([here, there]).numpy()) >= 0.9
    assert (here > model.threshold).float().mean() < 0.05
    assert (there > model.threshold).float().mean() > 0.9
    assert model.step(far, actions, random()).unknown.float().mean() > 0.9
    assert not model.step(rows.observations, rows.actions, random()).unknown.float().mean() > 0.05


def test_what_overflows_is_unknown():
    model, (observations, actions) = pessimistic(), some_rows()
    assert model.step(observations, actions, random()).unknown.all()  # no threshold yet
    model.threshold = 1e6
    observations[3], observations[5] = 1e30, torch.inf
    outcome = model.step(observations, actions, random())
    assert torch.nonzero(outcome.unknown).flatten().tolist() == [3, 5]
    assert torch.isfinite(outcome.rewards).all()


# What HALT pays


def test_halting_is_absorbing_and_pays_less_than_anything_known():
    """The told value is that of a chain that stays in HALT for ever; nothing is bootstrapped behind it."""
    model, (observations, actions) = pessimistic(worst=-2.0, halt_offset=0.5, discount=0.9), some_rows()
    model.threshold = -1.0
    outcome = model.step(observations, actions, random())
    assert outcome.unknown.all()
    stays = sum(0.9**k * (-2.0 - 0.5) for k in range(400))
    torch.testing.assert_close(outcome.rewards, torch.full((40,), stays), rtol=1e-5, atol=0)
    assert not outcome.discounts.any()
    model.threshold = math.inf
    known = model.step(observations, actions, random())
    assert not known.unknown.any()
    assert (known.discounts == 0.9).all()
    assert (known.rewards != outcome.rewards).all()


def test_the_worst_reward_is_that_of_the_data():
    agent = begun(scale_rewards=True)
    model = agent.replay.learn_model()
    worst = point_mass_data.tiny().episodes["rewards"].min() * agent.scaling.reward_factor
    assert model.halt_return * (1 - 0.9) == pytest.approx(worst - 1.0, rel=1e-5)


def test_critics_learn_the_value_of_halting():
    agent = begun()
    rows = agent.replay._rows(agent.replay._ring[0])  # zeros: discounts of 0
    assert torch.equal(agent.targets(rows), rows.rewards)


# Steps


def test_a_step_is_a_draw_of_one_member():
    model, (observations, actions) = pessimistic(), some_rows(1)
    model.threshold = math.inf
    many = [part.expand(30_000, -1) for part in (observations, actions)]
    outcome = model.step(*many, random(5))
    means, log_variances = (part[:, 0].double() for part in model.members(observations, actions))
    scale, shift = (part.double() for part in (model._out_scale, model._out_shift))
    mean = means.mean(dim=0) * scale + shift
    variance = (log_variances.exp().mean(dim=0) + means.var(dim=0, correction=0)) * scale**2
    moved = (outcome.next_observations - observations).double()
    torch.testing.assert_close(moved.mean(dim=0), mean[:2], atol=0.05, rtol=0)
    torch.testing.assert_close(moved.var(dim=0), variance[:2], rtol=0.05, atol=0)
    expected = (means[:, 2] * scale[2] + shift[2]).sort().values
    torch.testing.assert_close(outcome.rewards.double().unique(), expected, atol=2e-6, rtol=0)


def test_the_model_predicts_the_environment(fitted):
    rows = fitted.replay.all_real()
    outcome = fitted.replay.model.step(rows.observations, rows.actions, random())
    for column in range(4):
        moved = torch.stack([rows_of.next_observations[:, column] for rows_of in (outcome, rows)])
        assert torch.corrcoef(moved - rows.observations[:, column])[0, 1] > 0.5
    known = ~outcome.unknown & (rows.discounts > 0)
    assert (outcome.rewards - rows.rewards)[known].abs().mean() < 0.1


def test_constant_columns_stay_constant():
    model = pessimistic(changes={f"{side}.scale": np.array([0.0, 1.0, 1.5]) for side in ("inputs", "outputs")})
    model.threshold = math.inf
    observations, actions = some_rows()
    assert torch.allclose(model.step(observations, actions, random()).next_observations[:, 0], observations[:, 0] + 0.1)
    moved = observations + torch.tensor([5.0, 0.0])
    assert torch.equal(model.members(moved, actions)[0], model.members(observations, actions)[0])


# Terminations


def test_imagined_episodes_end_where_those_of_the_environment_do():
    agent = begun()
    ends = terminations_of(point_mass_data.SPEC, agent.scaling, "environment")
    physical = np.array([[0.7, 0.7, 0.0, 0.0], [0.0, -0.8, 0.0, 0.0]], np.float32)
    assert ends(torch.from_numpy(agent.scaling.observations(physical))).tolist() == [True, False]
    model, (observations, actions) = pessimistic(terminations=lambda x: x[:, 0] > 0), some_rows()
    model.threshold = math.inf
    outcome = model.step(observations, actions, random())
    assert torch.equal(outcome.discounts == 0, outcome.next_observations[:, 0] > 0)
    assert (outcome.rewards > model.halt_return).all()


def test_unknown_terminations_are_asked_for():
    with pytest.raises(SourceError, match="no environment says where") as caught:
        begun(Mixture(toy_dataset()))
    assert "terminations=never" in caught.value.fix
    agent = begun(Mixture(toy_dataset()), terminations="never")
    assert not agent.replay._terminations(torch.zeros(4, 3)).any()


# What is imagined


def imagined(agent):
    return agent.replay._ring.view(2, 4, 30, -1)


def test_lanes_go_on_until_they_end_and_then_begin_at_data():
    agent = begun(threshold_stds=0.0)  # about half of the data are unknown
    agent.replay.draw(agent.rng)
    columns = torch.split(imagined(agent)[0], [4, 2, 4, 1, 1], dim=-1)
    states, actions, following, rewards, discounts = (part.squeeze(-1) for part in columns)
    known = agent.replay.all_real().observations
    at_data = (states[:, :, None] == known).all(dim=-1).any(dim=-1)
    went_on = (states[1:] == following[:-1]).all(dim=-1)
    over = discounts == 0
    assert at_data[0].all()
    assert torch.equal(went_on & ~at_data[1:], ~over[:-1])
    assert torch.equal(at_data[1:], over[:-1])
    assert 0 < over.float().mean() < 1
    assert actions.abs().max() <= 1
    assert (rewards[over] <= rewards[~over].min()).all()


def test_the_oldest_refresh_is_replaced_by_the_current_policy():
    agent = begun()
    agent.train(until=5)
    first = imagined(agent).clone()
    assert first[0].any()
    assert not first[1].any()
    agent.train(until=6)
    second = imagined(agent).clone()
    assert torch.equal(second[0], first[0])
    assert second[1].any()
    agent.train(until=11)
    third = imagined(agent)
    assert torch.equal(third[1], second[1])
    assert (third[0] != second[0]).any()


def test_a_batch_is_given_rows_and_then_imagined_ones():
    agent = begun(model_share=0.75)
    batch = agent.replay.draw(agent.rng)
    assert batch.actor is batch.critic
    tables = [agent.replay.all_real().observations, imagined(agent)[0].flatten(0, 1)[:, :4]]
    member = [(batch.critic.observations[:, None] == table).all(dim=-1).any(dim=-1) for table in tables]
    assert member[0][:4].all()
    assert member[1][4:].all()
    given = begun(model_share=0.0)
    assert len(given.replay.draw(given.rng).critic) == 16
    assert given.replay.model is None


def test_a_batch_without_given_rows_is_refused():
    with pytest.raises(ConfigError, match="leaves none"):
        begun(model_share=0.99)


@pytest.mark.parametrize(
    ("use_in", "share", "near", "far"),
    [("both", 1.0, 0, 1), ("both", 0.25, 1, 1), ("critic", 0.5, 1, 0), ("actor", 0.5, 1, 0)],
)
def test_the_model_learns_from_every_given_row_once(use_in, share, near, far):
    """An arm with synthetic rows must not lose real ones to them: a model of two thirds of the data is another arm."""
    real, made = point_mass_data.tiny(), point_mass_data.tiny().transitions()
    made = made.with_columns(observations=made["observations"] + 100)
    agent = begun(Mixture(real, made, share=share, use_in=use_in), normalize_observations=False)
    known = agent.replay._known.observations
    assert [int((known[:, 0] < 50).sum()), int((known[:, 0] > 50).sum())] == [near * len(made), far * len(made)]
    assert torch.equal(agent.replay.all_real().observations, known[: len(made)]) or not near


def test_halt_pays_by_the_real_rewards_whatever_the_synthetic_ones_are():
    made = point_mass_data.tiny().transitions()
    mixture = Mixture(point_mass_data.tiny(), made.with_columns(rewards=made["rewards"] - 1000), share=0.5)
    assert begun(mixture).replay.learn_model().halt_return == begun().replay.learn_model().halt_return


# Going on


def contents(agent):
    return {name: value.numpy().tobytes() for name, value in agent.tensors().items()}


class StopError(Exception):
    pass


def stop_at(step):
    def report(at, total, values):
        if at >= step:
            raise StopError

    return report


def test_a_fit_of_the_model_that_was_interrupted_goes_on(tmp_path):
    settings = {"model": {**MODEL, "trainer": {**MODEL["trainer"], "checkpoint_seconds": 1e-9}}}
    path, whole, seen = tmp_path / "agent.safetensors", begun(), []
    whole.train()
    with pytest.raises(StopError):
        begun(**settings).train(checkpoint=path, report=stop_at(10))
    assert not path.exists()
    rest = begun(**settings)
    rest.train(checkpoint=path, report=lambda step, total, values: seen.append((step, total, *values)))
    assert contents(rest) == contents(whole)
    assert seen[0][:3] == (10, 32, "model.loss")  # not 5 again
    assert seen[-1][:2] == (32, 32)
    assert seen[-1][2].startswith("policy.")


def test_a_model_of_other_data_is_not_taken_up(tmp_path):
    settings = {"model": {**MODEL, "trainer": {**MODEL["trainer"], "checkpoint_seconds": 1e-9}}}
    path, other = tmp_path / "agent.safetensors", Mixture(point_mass_data.half_good())
    with pytest.raises(StopError):
        begun(**settings).train(checkpoint=path, report=stop_at(10))
    assert list(tmp_path.iterdir())
    ours, alone = begun(other, **settings), begun(other)
    ours.train(until=1, checkpoint=path)
    alone.train(until=1)
    assert contents(ours) == contents(alone)


def test_a_checkpoint_holds_the_model_and_what_was_imagined(tmp_path):
    path, whole = tmp_path / "agent.safetensors", begun()
    whole.train()
    begun().train(until=7, checkpoint=path)
    for file in tmp_path.iterdir():
        if file != path:
            file.unlink()
    rest = begun()
    rest.train(checkpoint=path)
    assert contents(rest) == contents(whole)


def test_values_are_soft():
    """y = r + gamma (min Q' - alpha log pi) by hand, from the same draws."""
    agent, again = begun(), begun()
    rows = agent.replay.all_real()
    agent._temperature.logarithm.data.fill_(0.7)
    actions, log_densities = (part[0].detach() for part in again._actor.sample(rows.next_observations, again.rng))
    q = agent._target_critics(rows.next_observations, actions).amin(dim=0)
    expected = rows.rewards + rows.discounts * (q - math.exp(0.7) * log_densities)
    torch.testing.assert_close(agent.targets(rows), expected)


def test_more_critics_are_more_cautious():
    agent = begun(critics=5)
    rows = agent.replay.all_real()
    assert agent._target_critics(rows.observations, rows.actions).shape[0] == 5
    lowest = agent._target_critics(rows.observations, rows.actions).amin(dim=0)
    assert torch.equal(agent.target_q(rows.observations, rows.actions), lowest)
