"""Windows, returns-to-go, what a prediction may depend on, and acting with a history."""

import numpy as np
import pytest
import torch
from toy_data import ACTION, random_episodes, toy_dataset, toy_rows

from synth_pipeline.agents.base import build
from synth_pipeline.agents.decision_transformer import DecisionTransformer, Windows
from synth_pipeline.agents.replay import Mixture
from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.data.windows import returns_to_go
from synth_pipeline.envs.base import EnvironmentModel, EnvironmentSpec, Outcome, box
from synth_pipeline.envs.rollout import rollout
from synth_pipeline.errors import ConfigError, SourceError

QUICK = {
    "kind": "decision_transformer",
    "width": 16,
    "depth": 2,
    "context": 5,
    "batch_size": 8,
    "gradient_steps": 6,
    "normalize_observations": False,
    "return_scale": 1.0,
}


def make(mixture, seed=0, **settings):
    return build({**QUICK, **settings}, device="cpu").begin(mixture, seed=seed)


def agent(seed=0, **settings):
    return make(Mixture(toy_dataset()), seed, **settings)


def coded(lengths, first=0):
    """Observations tell episode and step, actions the step, rewards are 1: every window can be read."""
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    steps = np.concatenate([np.arange(n) for n in lengths]).astype(np.float32)
    ids = np.repeat(np.arange(len(lengths)), lengths).astype(np.float32) + first
    observations = np.stack([ids, steps, ids * 0], axis=1)
    ends = np.zeros(len(steps), bool)
    ends[starts[1:] - 1] = True
    columns = {
        "actions": np.stack([steps, ids], axis=1) / 100,
        "rewards": np.ones(len(steps), np.float32),
        "terminations": ends & (ids % 2 == 0),
        "truncations": ends & (ids % 2 == 1),
    }
    return Episodes(observations, observations[starts[1:] - 1] + [0, 1, 0], starts, columns)


def coded_dataset(lengths):
    return Dataset(DatasetSpec(dataset_id="toy/coded", fields=transition_fields(3, ACTION)), coded(lengths))


# Windows


def test_windows_are_steps_of_one_episode_in_their_order():
    lengths = np.array([3, 9, 1, 30])
    windows = make(Mixture(coded_dataset(lengths)), batch_size=500).replay.draw(torch.Generator().manual_seed(0))
    ids, steps = windows.observations[:, 0, 0].long(), windows.steps
    expected = steps[:, :1] + torch.arange(5)
    assert torch.equal(windows.valid, expected < torch.from_numpy(lengths)[ids][:, None])
    assert torch.equal(windows.observations[..., 0], ids[:, None].expand(-1, 5).float())  # valid or not
    v = windows.valid
    assert torch.equal(steps[v], expected[v])
    assert torch.equal(windows.observations[..., 1][v], expected[v].float())
    torch.testing.assert_close(windows.actions[..., 0][v], expected[v].float() / 100)
    togo = torch.from_numpy(lengths)[ids][:, None] - expected  # rewards of 1: what is left of the episode
    assert torch.equal(windows.returns[v], togo[v].float())  # whether it ends by termination or by a time limit


def test_windows_begin_at_every_row_alike():
    lengths = [3, 9, 1, 30]
    data = coded_dataset(lengths)
    windows = make(Mixture(data), batch_size=43_000).replay.draw(torch.Generator().manual_seed(0))
    first = data.episodes.starts[windows.observations[:, 0, 0].long().numpy()] + windows.steps[:, 0].numpy()
    counts = np.bincount(first, minlength=43)
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_returns_are_scaled_as_tokens_and_rewards_as_for_all_agents():
    data = toy_dataset()
    scaled = make(Mixture(data), return_scale=0.01, scale_rewards=True)
    windows = scaled.replay.draw(torch.Generator().manual_seed(1))
    factor = 1000 / np.ptp(data.episodes.returns)
    known = torch.from_numpy(returns_to_go(data.episodes) * factor * 0.01).float()
    assert torch.isin(windows.returns[:, 0], known).all()
    assert scaled.return_token(2.0) == pytest.approx(2.0 * factor * 0.01)


# The mixture


def test_a_share_of_the_windows_is_synthetic():
    made = coded([7, 8], first=100)
    mixture = Mixture(coded_dataset([20, 20]), synthetic_episodes=made, share=0.25)
    windows = make(mixture).replay.draw(torch.Generator().manual_seed(0))
    assert (windows.observations[:, 0, 0] >= 100).tolist() == [False] * 6 + [True] * 2
    alone = Mixture(coded_dataset([20, 20]), synthetic_episodes=made, share=1.0)
    windows = make(alone).replay.draw(torch.Generator().manual_seed(0))
    assert (windows.observations[:, 0, 0] >= 100).all()
    kept_back = Mixture(coded_dataset([20, 20]), synthetic_episodes=made, share=0.25, use_in="critic")
    windows = make(kept_back).replay.draw(torch.Generator().manual_seed(0))
    assert (windows.observations[:, 0, 0] < 100).tolist() == [True] * 8


def test_weights_of_synthetic_rows_say_where_windows_begin():
    made = coded([7, 8], first=100)
    weights = np.zeros(15)
    weights[[2, 9]] = 1.0, 3.0
    made = Episodes(made.observations, made.final_observations, made.starts, {**made.columns, "weight": weights})
    mixture = Mixture(coded_dataset([20]), synthetic_episodes=made, share=1.0)
    windows = make(mixture, batch_size=4000).replay.draw(torch.Generator().manual_seed(0))
    first = windows.observations[:, 0, :2].long()
    assert torch.equal(first.unique(dim=0), torch.tensor([[100, 2], [101, 2]]))
    assert (first[:, 0] == 101).float().mean() == pytest.approx(0.75, abs=0.04)


def test_synthetic_rows_of_one_step_are_refused():
    with pytest.raises(SourceError, match="no return-to-go") as caught:
        make(Mixture(toy_dataset(), toy_rows().transitions(), share=0.5))
    assert caught.value.accepted == "synthetic episodes"
    make(Mixture(toy_dataset(), toy_rows().transitions(), share=0.0))


def test_data_without_episodes_are_refused():
    with pytest.raises(SourceError, match="learns from episodes"):
        make(Mixture(toy_rows()))


def test_rows_of_synthetic_episodes_serve_other_agents():
    made = coded([7, 8], first=100)
    mixture = Mixture(coded_dataset([20, 20]), synthetic_episodes=made, share=0.5)
    drawn = build({"kind": "bc", "batch_size": 8, "normalize_observations": False}).begin(mixture, seed=0)
    rows = drawn.replay.draw(torch.Generator().manual_seed(0)).actor
    assert (rows.observations[:, 0] >= 100).tolist() == [False] * 4 + [True] * 4
    split = Mixture(coded_dataset([20, 20]), synthetic_episodes=coded([15], first=100), share=0.5)
    assert split.digest() != mixture.digest()
    with pytest.raises(ConfigError, match="not the same data"):
        Mixture(coded_dataset([20]), coded([3]).transitions(), synthetic_episodes=made)


# The network


def windows_of(b=4, k=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    steps = torch.arange(3, 3 + k).expand(b, k)
    parts = (torch.randn(b, k, generator=g), torch.randn(b, k, 3, generator=g), torch.randn(b, k, 2, generator=g))
    return Windows(*parts, steps, torch.ones(b, k, dtype=torch.bool))


def with_part(windows, **parts):
    return Windows(**{**vars(windows), **parts})


@pytest.mark.parametrize("name", ["returns", "observations", "actions"])
def test_an_action_depends_on_what_came_before_it_and_nothing_else(name):
    network, windows = agent()._network, windows_of()
    changed = getattr(windows, name).clone()
    changed[:, 2] += 5.0
    before, after = network(windows), network(with_part(windows, **{name: changed}))
    moved = (before != after).any(dim=-1).all(dim=0)
    assert moved.tolist() == [False, False, name != "actions", True, True]


def test_the_order_in_time_is_part_of_a_token():
    network, windows = agent()._network, windows_of()
    later = network(with_part(windows, steps=windows.steps + 1))
    assert (later != network(windows)).any(dim=-1).all()
    network.times.data[-1] = 0.7
    far = network(with_part(windows, steps=windows.steps + 10_000))
    assert torch.equal(far, network(with_part(windows, steps=windows.steps * 0 + len(network.times) - 1)))


def test_padding_changes_neither_losses_nor_gradients():
    found = []
    for padding in (0.0, 7.0):
        learner = agent(dropout=0.2)
        windows = windows_of()
        windows.valid[:2, 3:] = False
        for name in ("returns", "observations", "actions"):
            getattr(windows, name)[:2, 3:] = padding
        loss = learner.step(windows)["actor_loss"]
        found.append((loss, [p.grad for p in learner._network.parameters()]))
    assert torch.equal(found[0][0], found[1][0])
    for ours, theirs in zip(*(gradients for _, gradients in found), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_loss_is_the_mean_over_valid_steps():
    learner, windows = agent(dropout=0.0), windows_of()
    windows.valid[:2, 3:] = False
    predicted = learner._network(windows)
    expected = (predicted - windows.actions)[windows.valid].square().mean().detach()
    assert float(learner.step(windows)["actor_loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_one_window_predicts_as_in_a_batch():
    network, windows = agent()._network, windows_of(b=8)
    alone = Windows(**{name: part[:1] for name, part in vars(windows).items()})
    torch.testing.assert_close(network(alone), network(windows)[:1], rtol=1e-5, atol=1e-6)


# Training


def test_warm_up_is_linear_and_at_most_a_share():
    learner = agent(learning_rate=1e-2, gradient_steps=40, warmup_share=0.1)
    rates = []
    for _ in range(6):
        learner.step(learner.replay.draw(learner.rng))
        rates.append(learner.optimizers["network"].param_groups[0]["lr"])
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])


def test_gradients_are_clipped_and_all_weights_decay():
    learner = agent(clip_norm=1e-3, weight_decay=0.5, dropout=0.0)
    learner.step(learner.replay.draw(learner.rng))
    total = sum(float(p.grad.square().sum()) for p in learner._network.parameters()) ** 0.5
    assert total == pytest.approx(1e-3, rel=1e-2)
    (group,) = learner.optimizers["network"].param_groups
    assert (group["weight_decay"], len(group["params"])) == (0.5, len(list(learner._network.parameters())))


def test_a_training_goes_on_with_the_same_bytes(tmp_path):
    whole = agent(dropout=0.2)
    whole.train()
    part = agent(dropout=0.2)
    part.train(3, checkpoint=tmp_path / "state.safetensors")
    torch.manual_seed(5)
    rest = agent(dropout=0.2)
    rest.train(checkpoint=tmp_path / "state.safetensors")
    assert rest.steps == 6
    for name, value in whole.tensors().items():
        assert torch.equal(value, rest.tensors()[name]), name


# Acting


class Counter(EnvironmentModel):
    """The state counts steps; the reward is the first action, 0.25 a step on top; it ends after 3 + its id steps."""

    def __init__(self):
        self.spec = EnvironmentSpec(
            name="counter", family="toy", observation_size=3, action=box(2), horizon=12, dt=1.0, stochastic=False
        )

    def bare(self):
        raise NotImplementedError

    def lanes(self, count):
        return self

    def reset(self, lane, seed):
        self.states = getattr(self, "states", {})
        self.states[lane] = np.array([0.0, lane, 1.0])
        return self.states[lane]

    def _step(self, observations, actions, rng):
        raise NotImplementedError

    def step(self, active, actions):
        for lane in active:
            self.states[lane] = self.states[lane] + [1.0, 0.0, 0.1]
        after = np.array([self.states[lane] for lane in active])
        return Outcome(after, actions[:, 0] + 0.25, after[:, 0] >= 3 + 4 * after[:, 1])


def test_acting_is_predicting_from_the_last_steps_of_each_lane():
    """Every action of a rollout from its recorded window, lanes of different length side by side."""
    learner = agent(context=4)
    episodes = rollout(Counter(), learner.actor(target=3.5), episodes=3, seed=0, lanes=3)
    assert episodes.lengths.tolist() == [3, 7, 11]
    rewards = np.asarray(episodes["rewards"], np.float64)
    for start, end in zip(episodes.starts, episodes.starts[1:], strict=False):
        to_go = 3.5 - np.concatenate([[0.0], np.cumsum(rewards[start:end])])
        for t in range(end - start):
            rows = np.arange(start + max(0, t - 3), start + t + 1)
            steps = torch.from_numpy(rows - start)[None]
            windows = Windows(
                torch.from_numpy(to_go[rows - start]).float()[None],
                torch.from_numpy(episodes.observations[rows])[None],
                torch.from_numpy(episodes["actions"][rows])[None],
                steps,
                torch.ones_like(steps, dtype=torch.bool),
            )
            expected = learner._network(windows)[0, -1].detach().numpy()
            np.testing.assert_allclose(episodes["actions"][start + t], expected, atol=2e-6)


def test_what_was_earned_is_subtracted_once():
    actor = agent().actor(target=10.0)
    actor.reset(2)
    for reward in ([1.0, 2.0], [3.0, 0.0]):
        actor.act(np.zeros((2, 3), np.float32), np.random.default_rng(0))
        actor.observe(np.array(reward), None, {})
    actor.act(np.zeros((2, 3), np.float32), np.random.default_rng(0))
    told = torch.stack(list(actor._returns)).numpy()
    np.testing.assert_array_equal(told, [[10.0, 10.0], [9.0, 8.0], [6.0, 8.0]])
    actor.reset(1)
    actor.act(np.zeros((1, 3), np.float32), np.random.default_rng(0))
    assert [x.tolist() for x in actor._returns] == [[10.0]]


def test_the_stateless_policy_is_the_first_step_towards_the_first_target():
    learner, observations = agent(targets=(3.0, 1.0)), np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    actor = learner.actor()
    actor.reset(4)
    np.testing.assert_allclose(learner.act(observations), actor.act(observations, np.random.default_rng(0)), atol=1e-6)
    other = learner.actor(target=1.0)
    other.reset(4)
    assert not np.allclose(learner.act(observations), other.act(observations, np.random.default_rng(0)), atol=1e-6)


@pytest.mark.parametrize(
    ("returns", "targets"), [((40.0, 10.0), (40.0, 20.0)), ((-1.0, -9.0), (-1.0, -5.0)), ((0.0, -8.0), (0.0, -4.0))]
)
def test_targets_are_the_best_return_of_the_data_and_half_of_it(returns, targets):
    episodes = random_episodes((4, 4))
    rewards = np.repeat(np.array(returns, np.float32) / 4, 4)
    columns = {**episodes.columns, "rewards": rewards}
    found = Episodes(episodes.observations, episodes.final_observations, episodes.starts, columns)
    learner = make(Mixture(Dataset(toy_dataset().spec, found)))
    assert learner.targets == targets
    assert make(Mixture(Dataset(toy_dataset().spec, found)), targets=(7.0,)).targets == (7.0,)


def test_a_restored_agent_acts_as_before():
    learner = agent()
    values, arrays = learner.state()
    other = DecisionTransformer(learner.config, device="cpu")
    other.restore_from(values, arrays)
    assert other.targets == learner.targets
    first, second = (rollout(Counter(), a.actor(), episodes=2, seed=0) for a in (learner, other))
    np.testing.assert_array_equal(first["actions"], second["actions"])


# Learning


def two_ways(episodes=200, length=10, seed=0):
    """Half of the episodes do 0.8 and earn 1 a step, the others do -0.8 and earn 0; observations tell nothing."""
    rng = np.random.default_rng(seed)
    good = rng.permutation(np.arange(episodes) % 2 == 0)
    rows = np.repeat(good, length)
    total = episodes * length
    observations = rng.normal(size=(total, 3)).astype(np.float32)
    ends = np.arange(total) % length == length - 1
    actions = np.where(rows, 0.8, -0.8)[:, None] * np.ones(2)
    columns = {
        "actions": (actions + 0.05 * rng.normal(size=(total, 2))).astype(np.float32),
        "rewards": rows.astype(np.float32),
        "terminations": np.zeros(total, bool),
        "truncations": ends,
    }
    starts = np.arange(0, total + 1, length)
    return Episodes(observations, observations[starts[1:] - 1], starts, columns)


class Paying(Counter):
    """Pays 1 for a positive first action, 0 else."""

    def step(self, active, actions):
        after = np.array([self.states[lane] for lane in active])
        return Outcome(after, (actions[:, 0] > 0).astype(np.float64), np.zeros(len(active), bool))


def test_it_gets_what_it_is_asked_for():
    data = Dataset(DatasetSpec(dataset_id="toy/ways", fields=transition_fields(3, ACTION)), two_ways())
    settings = {"width": 32, "depth": 1, "batch_size": 32, "learning_rate": 3e-3, "return_scale": 0.1}
    learner = make(Mixture(data), gradient_steps=150, **settings)
    learner.train()
    returns = {
        target: rollout(Paying(), learner.actor(target=target), episodes=4, seed=1, max_steps=10).returns.mean()
        for target in (10.0, 0.0)
    }
    assert returns[10.0] > 9
    assert returns[0.0] < 1
    assert learner.act(np.zeros((1, 3), np.float32))[0, 0] == pytest.approx(0.8, abs=0.15)


def test_registered():
    assert build({"kind": "decision_transformer"}).config.context == 20
