"""The ensemble finds a system that is known in closed form, says how sure it is, and is a pure function."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from worlds import linear_gaussian, roll

from synth_pipeline import envs
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.split import split_dataset
from synth_pipeline.dynamics.ensemble import Ensemble, held_out_errors, learned_floor, learned_oracle
from synth_pipeline.dynamics.regressor import Regressor, RegressorConfig
from synth_pipeline.errors import ConfigError, SourceError
from synth_pipeline.validation.oracle import dynamics, judge_sample
from synth_pipeline.validation.truth import Truth


def config(steps, **changes):
    trainer = RegressorConfig().trainer.replace(
        gradient_steps=steps, batch_size=256, warmup_steps=20, precision="float32"
    )
    return RegressorConfig(**{"members": 3, "width": 64, "depth": 2, "trainer": trainer, **changes})


def fitted(data, steps, seed=0, **changes):
    ensemble = Ensemble(config(steps, **changes))
    ensemble.fit(data, seed=seed)
    return ensemble


@pytest.fixture(scope="module")
def data():
    return linear_gaussian(episodes=100, steps=60)


@pytest.fixture(scope="module")
def ensemble(data):
    return fitted(data, 900)


def test_linear_gaussian_is_recovered(ensemble):
    toy, rng = envs.make("toy-linear-gaussian"), np.random.default_rng(1)
    states, actions = rng.uniform(-0.5, 0.5, (2000, 3)), rng.uniform(-1, 1, (2000, 2))
    found = ensemble.predict(states, actions)
    design = np.concatenate([states, actions, np.ones((2000, 1))], axis=1)
    matrix = np.linalg.lstsq(design, found.next_observations, rcond=None)[0].T
    np.testing.assert_allclose(matrix[:, :3], toy.A, atol=0.03)
    np.testing.assert_allclose(matrix[:, 3:5], toy.B, atol=0.03)
    deviation = np.sqrt(np.diag(toy.L @ toy.L.T))
    np.testing.assert_allclose(found.std[:, :3].mean(axis=0), deviation, rtol=0.1)
    expected = -np.sum((states @ toy.A.T + actions @ toy.B.T) ** 2, axis=1) - 0.1 * np.sum(actions**2, axis=1)
    assert np.corrcoef(found.rewards, expected)[0, 1] > 0.99


def test_dense_and_sparse_regions_of_an_input_are_both_resolved():
    """Half of the inputs in a hundredth of the range: standard deviations alone leave a step there unseen."""
    rng = np.random.default_rng(0)
    x = np.where(rng.random((4000, 1)) < 0.5, rng.normal(0, 0.002, (4000, 1)), rng.uniform(-1, 1, (4000, 1)))
    model = Regressor(config(600, members=2, width=32), device="cpu")
    model.fit(x, np.tanh(x / 0.001), seed=0)
    probe = np.linspace(-0.004, 0.004, 201)[:, None]
    assert np.sqrt(np.mean((model.predict(probe).mean - np.tanh(probe / 0.001)) ** 2)) < 0.1


def test_rounding_of_a_constant_input_means_nothing():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(500, 1)), np.full((500, 1), 7.0)], axis=1)
    model = Regressor(config(20), device="cpu")
    model.fit(x, x[:, :1], seed=0)
    np.testing.assert_array_equal(model.predict(x).mean, model.predict(x + np.array([0.0, 1e-6])).mean)


def test_members_agree_on_the_data_and_not_far_from_it(ensemble):
    states, actions = np.zeros((50, 3)), np.zeros((50, 2))
    near, far = ensemble.predict(states, actions), ensemble.predict(states + 8, actions)
    assert near.disagreement.max() < 0.1
    assert far.disagreement.min() > 5 * near.disagreement.max()


def test_it_learns_where_the_noise_is():
    found = fitted(roll("toy-heteroscedastic", episodes=100, steps=60), 400)
    toy, states = envs.make("toy-heteroscedastic"), np.linspace(-0.8, 0.8, 33)[:, None] * np.ones(2)
    std = found.predict(states, np.zeros((33, 1))).std[:, :2]
    assert np.corrcoef(std.ravel(), toy.deviation(states).ravel())[0, 1] > 0.8


def test_a_saved_ensemble_predicts_the_same_bytes(ensemble):
    values, arrays = ensemble.state()
    other = Ensemble(ensemble.config)
    other.restore(json.loads(json.dumps(values)), load(save({k: np.ascontiguousarray(v) for k, v in arrays.items()})))
    states, actions = np.full((5, 3), 0.3), np.full((5, 2), -0.2)
    for name, values in vars(ensemble.predict(states, actions)).items():
        np.testing.assert_array_equal(values, getattr(other.predict(states, actions), name))


def test_the_seed_alone_decides(data):
    small = Dataset(data.spec, data.episodes.take(np.arange(5)))
    weights = []
    for torch_seed, seed in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(torch_seed)
        state = torch.get_rng_state()
        weights.append(fitted(small, 3, seed=seed, width=8).state()[1]["network.weights.0"])
        assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_a_killed_training_goes_on_to_the_same_bytes(data, tmp_path, monkeypatch):
    from synth_pipeline.diffusion.trainer import Trainer

    small, file = Dataset(data.spec, data.episodes.take(np.arange(5))), tmp_path / "training.safetensors"
    whole = fitted(small, 12, width=8).state()[1]
    step = Trainer.step

    def dies(self, batch):
        result = step(self, batch)
        if self.steps == 7:
            self.save(file)
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Trainer, "step", dies)
    with pytest.raises(KeyboardInterrupt):
        Ensemble(config(12, width=8)).fit(small, seed=0, checkpoint=file)
    monkeypatch.setattr(Trainer, "step", step)
    resumed = Ensemble(config(12, width=8))
    resumed.fit(small, seed=0, checkpoint=file)
    for name, values in resumed.state()[1].items():
        np.testing.assert_array_equal(values, whole[name])


def test_the_floor_is_the_noise_over_the_variance_of_the_step(data):
    """Nothing predicts below the noise: mean_d Var(noise_d) / Var(s'_d - s_d)."""
    found = learned_floor(data, 0, config=config(400))
    toy, rows = envs.make("toy-linear-gaussian"), data.transitions()
    moved = (rows["next_observations"] - rows["observations"]).astype(float)
    noise = float(np.mean(np.diag(toy.L @ toy.L.T) / moved.var(axis=0)))
    assert found["mean"] == pytest.approx(noise, rel=0.15)
    assert found["median"] < found["mean"] < found["p95"] < found["p99"]


def test_the_floor_is_measured_on_what_was_not_trained_on(data, monkeypatch):
    seen = []
    fit = Ensemble.fit
    monkeypatch.setattr(Ensemble, "fit", lambda self, part, **rest: (seen.append(part), fit(self, part, **rest))[1])
    found = learned_floor(data, 3, config=config(2))
    parts = split_dataset(data, seed=3)
    assert seen[0].episode_ids.tolist() == parts.split.train.tolist()
    errors = held_out_errors(fitted(parts.train, 2, seed=3), data, parts.held_out)
    assert found["mean"] == pytest.approx(errors.mean())
    assert len(errors) == len(parts.held_out)
    learned_floor(data, 3, held_out=(0, 2), config=config(2))
    assert seen[-1].episode_ids[:3].tolist() == [1, 3, 4]


def test_clipped_rows_have_no_floor():
    real = roll("hopper", episodes=4, steps=30)
    parts = split_dataset(real)
    fast = parts.held_out.episodes
    at_clip = type(fast)(np.full_like(fast.observations, 10), fast.final_observations, fast.starts, fast.columns)
    ensemble = fitted(real, 2, width=8)
    with pytest.raises(SourceError, match="no held-out row can be judged"):
        held_out_errors(ensemble, real, Dataset(real.spec, at_clip))


def test_without_episodes_there_is_no_floor(data):
    with pytest.raises(SourceError, match="needs held-out episodes"):
        learned_floor(Dataset(data.spec, rows=data.transitions()), 0)


def test_it_serves_as_an_oracle(ensemble, data):
    fresh = linear_gaussian(episodes=20, steps=60, seed=5).transitions()
    truth = Truth(oracle=learned_oracle(ensemble))
    pair = judge_sample(data, fresh, truth)
    assert pair[0].answer.label == "learned ensemble"
    (right, *_) = dynamics(data, pair)
    shuffled = fresh.with_columns(actions=fresh["actions"][::-1])
    (wrong, *_) = dynamics(data, judge_sample(data, shuffled, truth))
    assert wrong.value > 2 * right.value
    spoilt = fresh.with_columns(actions=np.full_like(fresh["actions"], np.nan))
    assert dynamics(data, judge_sample(data, spoilt, truth))[0].value is None


def test_one_member_is_no_ensemble():
    with pytest.raises(ConfigError, match="members"):
        RegressorConfig.parse({"members": 1})
