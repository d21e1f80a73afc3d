"""A small variational autoencoder over whole rows (Kingma & Welling 2014, arXiv:1312.6114): the learned control.

Row-wise density model of the kind that SynthER's paper compares with: smooth marginals, blurred dynamics.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field as Setting
from torch import Tensor, nn

from synth_pipeline.config import Config
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Array, Field, Layout
from synth_pipeline.data.normalize import Standard
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.diffusion.trainer import Trainer, TrainerConfig
from synth_pipeline.generators.base import Postprocess, Report, modelled_fields, require_can_sample
from synth_pipeline.seeding import Stage, integer_seed


class VAEConfig(Config):
    """Every number of the method."""

    latent: int = Setting(16, ge=1, le=512, description="latent dimensions")
    width: int = Setting(256, ge=8, le=4096, description="units per hidden layer (two layers each way)")
    gradient_steps: int = Setting(3000, ge=1, description="training steps")
    batch_size: int = Setting(512, ge=2, description="rows per step")
    learning_rate: float = Setting(1e-3, gt=0, description="Adam step size")


class _Network(nn.Module):
    def __init__(self, channels: int, config: VAEConfig) -> None:
        super().__init__()
        w = config.width
        # Left uninitialised: PyTorch's own initialisation would draw from the global random state.
        linear = partial(nn.utils.skip_init, nn.Linear)
        self.encoder = nn.Sequential(
            linear(channels, w), nn.SiLU(), linear(w, w), nn.SiLU(), linear(w, 2 * config.latent)
        )
        self.decoder = nn.Sequential(linear(config.latent, w), nn.SiLU(), linear(w, w), nn.SiLU(), linear(w, channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))  # one learned output deviation per channel

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Mean over the batch of -log p(x|z) + KL(q(z|x) || N(0, I)), up to constants; eq. 10 of the paper."""
        mean, log_variance = self.encoder(x).chunk(2, dim=-1)
        z = mean + (0.5 * log_variance).exp() * noise
        error = ((x - self.decoder(z)) * (-self.log_scale).exp()) ** 2
        reconstruction = (0.5 * error + self.log_scale).sum(-1)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1)
        bound: Tensor = (reconstruction + divergence).mean()
        return bound


class VAE:
    """Variational autoencoder with Gaussian output and learned scales; a control, trained on the CPU in a minute."""

    kind: ClassVar[str] = "vae"
    settings: ClassVar[type[Config]] = VAEConfig
    provenance: ClassVar[tuple[Field, ...]] = ()
    derives_terminations = True

    def __init__(self, config: VAEConfig | None = None) -> None:
        self.config = config or VAEConfig()

    def fit(self, data: Dataset, *, seed: int, report: Report | None = None, checkpoint: Path | None = None) -> None:
        """Adam on the evidence lower bound.

        Raises:
            TrainingDivergedError: When the loss stops being finite.
        """
        self._spec, c = data.spec, self.config
        x = Layout(modelled_fields(data.spec)).pack(data.transitions().columns)
        self._normalizer = Standard.fit(x)
        network = _initialised(x.shape[1], c, torch.Generator().manual_seed(integer_seed(seed, Stage.TRAIN, 1)))
        numbers = TrainerConfig(
            gradient_steps=c.gradient_steps,
            batch_size=c.batch_size,
            learning_rate=c.learning_rate,
            beta_2=0.999,
            warmup_steps=0,
            decay="constant",
            clip_norm=10.0,
            ema_decay=0.0,
            precision="float32",
        )
        trainer = Trainer(network, self._loss, numbers, seed=seed)
        trainer.train(torch.from_numpy(self._normalizer.encode(x)), checkpoint=checkpoint, report=report)
        self._network = network.requires_grad_(False)
        self._post = Postprocess(self._spec)

    def _loss(self, network: nn.Module, batch: Tensor, rng: torch.Generator) -> Tensor:
        noise = torch.randn(len(batch), self.config.latent, generator=rng)
        bound: Tensor = network(batch, noise)
        return bound

    @torch.no_grad()
    def sample(self, rows: int, rng: np.random.Generator) -> Transitions:
        """z ~ N(0, I) through the decoder, plus output noise."""
        require_can_sample(self, rows)
        z = torch.from_numpy(rng.standard_normal((rows, self.config.latent), dtype=np.float32))
        mean = self._network.decoder(z).numpy()
        noise = rng.standard_normal(mean.shape, dtype=np.float32) * np.exp(self._network.log_scale.numpy())
        return self._post.from_vectors(self._normalizer.decode(mean + noise), {})

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Spec, normalizer, weights."""
        weights = {f"network.{name}": value.numpy() for name, value in self._network.state_dict().items()}
        return {"spec": self._spec.plain()}, {**self._normalizer.arrays(), **weights}

    def restore(self, values: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Inverse of `state`."""
        self._spec = DatasetSpec.parse(values["spec"], where="saved spec")
        self._normalizer = Standard.from_arrays(arrays)
        self._network = _Network(len(self._normalizer.shift), self.config)
        prefix = "network."
        weights = {k[len(prefix) :]: torch.from_numpy(v.copy()) for k, v in arrays.items() if k.startswith(prefix)}
        self._network.load_state_dict(weights)
        self._post = Postprocess(self._spec)


def _initialised(channels: int, config: VAEConfig, generator: torch.Generator) -> _Network:
    network = _Network(channels, config)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
            nn.init.zeros_(module.bias)
    return network
