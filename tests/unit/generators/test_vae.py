import numpy as np
import pytest
import torch
from toy_data import SPEC, toy_dataset

from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import TrainingDivergedError
from synth_pipeline.generators.vae import VAE, VAEConfig, _Network
from synth_pipeline.seeding import Stage, stream


def test_evidence_lower_bound_by_hand():
    """With all weights zero: q = N(0, I), decoder 0, so the bound is half the squared error plus the log scale."""
    network = _Network(2, VAEConfig(latent=3, width=8))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.log_scale.copy_(torch.tensor([0.0, np.log(2.0)]))
        x = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
        bound = network(x, torch.randn(2, 3))
    expected = np.mean([0.5 * (1 + 1), 0.5 * (0 + 4)]) + np.log(2)
    assert float(bound) == pytest.approx(expected, rel=1e-6)


def test_divergence_from_the_prior_by_hand():
    network = _Network(1, VAEConfig(latent=1, width=8))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.encoder[-1].bias.copy_(torch.tensor([3.0, np.log(4.0)]))  # q = N(3, 4)
        bound = network(torch.zeros(5, 1), torch.zeros(5, 1))
    assert float(bound) == pytest.approx(0.5 * (9 + 4 - 1 - np.log(4)), rel=1e-6)


def test_it_learns_more_than_the_marginals():
    """A line in the observations: a model of single columns would leave it."""
    random = np.random.default_rng(0)
    line = random.uniform(-1, 1, (1000, 1)) * np.array([1.0, -1.0, 2.0])
    columns = {**toy_dataset((1000,)).episodes.columns}
    episodes = Episodes(line.astype(np.float32), line[:1].astype(np.float32), np.array([0, 1000]), columns)
    vae = VAE(VAEConfig(gradient_steps=400, width=32, batch_size=64, learning_rate=5e-3, latent=8))
    vae.fit(Dataset(SPEC, episodes), seed=0)
    sample = vae.sample(2000, stream(0, Stage.GENERATE, 0, 0))["observations"]
    assert np.corrcoef(sample.T)[0, 1] < -0.7
    assert np.corrcoef(sample.T)[0, 2] > 0.7


def test_another_seed_is_another_model():
    weights = []
    for seed in (0, 1):
        vae = VAE(VAEConfig(gradient_steps=1, width=8, batch_size=8))
        vae.fit(toy_dataset(), seed=seed)
        weights.append(vae.state()[1]["network.encoder.0.weight"])
    assert not np.array_equal(*weights)


def test_a_diverging_fit_says_what_to_change():
    vae = VAE(VAEConfig(gradient_steps=100, width=8, batch_size=8, learning_rate=1e30))
    with pytest.raises(TrainingDivergedError, match="learning rate"):
        vae.fit(toy_dataset(), seed=0)


def test_progress_is_told_every_hundred_steps_and_at_the_end():
    calls = []
    vae = VAE(VAEConfig(gradient_steps=250, width=8, batch_size=8))
    vae.fit(toy_dataset(), seed=0, report=lambda step, total, values: calls.append((step, total, "loss" in values)))
    assert calls == [(100, 250, True), (200, 250, True), (250, 250, True)]
