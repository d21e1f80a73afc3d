"""Several perceptrons that predict mean and variance of y from x: the probabilistic ensemble (Chua et al. 2018, PETS).

Members are pre-norm residual networks. They see every input twice: z-scored, and through a quantile map, which spreads
what is dense. Loss: Gaussian likelihood, weighted by its own variance to the power beta (Seitzer et al. 2022,
arXiv:2203.09168): the plain likelihood neglects the mean of hard regions, contacts above all; least squares, that of
easy ones. Log-variances are softly bounded by learned limits (Chua et al. 2018, app. A.1). Members differ in their
initial weights (Lakshminarayanan et al. 2017) and, on request, in the groups of rows that each leaves out; the
averaged weights at the end of the cosine schedule are used. There is no early stop: it would need a second hold-out,
and a schedule of fixed length keeps training one pure function of data and seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field as Setting
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu, softplus

from synth_pipeline.config import Config
from synth_pipeline.data.fields import Array
from synth_pipeline.data.normalize import Normalizer, Quantile, Standard
from synth_pipeline.diffusion.device import pick_device
from synth_pipeline.diffusion.loop import Report, under
from synth_pipeline.diffusion.trainer import Trainer, TrainerConfig
from synth_pipeline.seeding import Stage, integer_seed

Floats = npt.NDArray[np.float64]
CHUNK = 2048  # rows that are predicted at once: their hidden units fit the cache
EXPANSION = 2  # hidden units of a block, in widths


class RegressorConfig(Config):
    """Every number of the ensemble."""

    members: int = Setting(3, ge=2, description="networks")
    width: int = Setting(192, ge=8, description="units of the residual stream")
    depth: int = Setting(3, ge=1, description="residual blocks, twice as wide inside")
    beta: float = Setting(0.25, ge=0, le=1, description="0: plain likelihood; 1: least squares for the mean")
    bound_penalty: float = Setting(0.01, ge=0, description="weight of the distance between the log-variance limits")
    trainer: TrainerConfig = Setting(
        TrainerConfig(gradient_steps=12_000, batch_size=256, learning_rate=5e-3, weight_decay=1e-4),
        description="the optimisation",
    )


@dataclass(frozen=True)
class Moments:
    """What the ensemble expects, by row, in physical units.

    Attributes:
        mean: `[n, o]`.
        std: `[n, o]`, noise and disagreement together.
        disagreement: `[n]`, root mean square over the outputs of the spread of the members' means, in standard
            deviations of y in the data.
    """

    mean: Floats
    std: Floats
    disagreement: Floats

    def replace(self, rows: npt.NDArray[np.int64], others: Moments) -> None:
        """Put those of other inputs in the place of some rows."""
        for mine, other in ((self.mean, others.mean), (self.std, others.std), (self.disagreement, others.disagreement)):
            mine[rows] = other


class Members(nn.Module):
    """Residual networks that give a mean and a bounded log-variance, side by side.

    Weights begin with standard deviation 1/sqrt(fan-in), biases and the second layers of the blocks at zero.
    """

    def __init__(self, inputs: int, outputs: int, config: RegressorConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.members = config.members
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        sizes = [inputs, *[config.width, EXPANSION * config.width] * config.depth, config.width, 2 * outputs]
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            weight = torch.randn(config.members, fan_in, fan_out, generator=generator) / fan_in**0.5
            closes_block = layer % 2 == 0 and 0 < layer <= 2 * config.depth
            self.weights.append(nn.Parameter(torch.zeros_like(weight) if closes_block else weight))
            # Flat: the trainer decays matrices, and biases are none.
            self.biases.append(nn.Parameter(torch.zeros(config.members * fan_out)))
        self.upper = nn.Parameter(torch.full((outputs,), 1.0))
        self.lower = nn.Parameter(torch.full((outputs,), -10.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[b, inputs]` -> means and log-variances, `[members, b, outputs]` each."""
        biases = [bias.view(self.members, 1, -1) for bias in self.biases]
        if torch.is_grad_enabled() or x.device.type != "cpu":
            outputs = _perceptron(torch.baddbmm, x.expand(self.members, *x.shape), list(self.weights), biases)
        else:  # many rows on a CPU: one member after another is 1.7 times as fast as a batched product
            sides = [([w[m] for w in self.weights], [b[m] for b in biases]) for m in range(self.members)]
            outputs = torch.stack([_perceptron(torch.addmm, x, *side) for side in sides])
        mean, raw = outputs.chunk(2, dim=-1)
        bounded = self.upper - softplus(self.upper - raw)
        return mean, self.lower + softplus(bounded - self.lower)


def _perceptron(product: Callable[..., Tensor], x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    """Residual blocks between two affine maps; `product(bias, input, weight)` is one map, of one member or of all."""
    h = product(biases[0], x, weights[0])
    for layer in range(1, len(weights) - 1, 2):
        hidden = silu(product(biases[layer], layer_norm(h, h.shape[-1:]), weights[layer]))
        h = h + product(biases[layer + 1], hidden, weights[layer + 1])
    with torch.autocast(x.device.type, enabled=False):  # errors are a few percent of a mean: too fine for bfloat16
        return product(biases[-1], layer_norm(h.float(), h.shape[-1:]), weights[-1])


class Regressor:
    """y | x as an ensemble of Gaussians, both z-scored.

    Args:
        config: Its numbers.
        device: `auto`, `cpu`, `cuda`, ...
    """

    def __init__(self, config: RegressorConfig | None = None, *, device: str = "auto") -> None:
        self.config, self.device = config or RegressorConfig(), pick_device(device)

    def fit(
        self,
        x: Array,
        y: Array,
        *,
        seed: int,
        address: int = 2,
        left_out: npt.NDArray[np.int64] | None = None,
        report: Report | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        """Train on rows.

        Args:
            x: `[n, i]`, physical units.
            y: `[n, o]`.
            seed: Seed of the run.
            address: Separates the initial weights of several regressors of one run.
            left_out: `[n]`, the member that does not see a row, -1 where all do; None: all see all.
            report: Called now and then with (step, total steps, values).
            checkpoint: File for resumable state.

        Raises:
            SourceError: Without rows, or with NaN in them.
            TrainingDivergedError: When loss or gradient stop being finite.
        """
        self._inputs, self._maps, self._outputs = Standard.fit(x), Quantile.fit(x), Standard.fit(y)
        absent = np.full(len(x), -1) if left_out is None else left_out
        rows = [self._encoded(x), self._outputs.encode(y), absent[:, None].astype(np.float32)]
        network = self._network(integer_seed(seed, Stage.TRAIN, address))
        c = self.config
        objective = [c.beta, c.bound_penalty]
        trainer = Trainer(network, self._loss, c.trainer, seed=seed, objective=objective, device=self.device)
        trainer.train(torch.from_numpy(np.concatenate(rows, axis=1)), checkpoint=checkpoint, report=report)
        self._model = trainer.average

    def _loss(self, network: nn.Module, batch: Tensor, rng: torch.Generator) -> Tensor:
        """Sum over members of the mean of var^beta ((y - mu)^2 / var + log var) / 2, var^beta held constant."""
        inputs, y, absent = torch.tensor_split(batch, [2 * self._inputs.channels, batch.shape[1] - 1], dim=1)
        mean, log_variance = network(inputs)
        likelihood = 0.5 * ((y - mean) ** 2 * (-log_variance).exp() + log_variance)
        weighted = (self.config.beta * log_variance.detach()).exp() * likelihood
        members = torch.arange(len(mean), device=batch.device)[:, None, None]
        seen = (absent != members).to(weighted)
        limits: Any = network
        penalty = self.config.bound_penalty * (limits.upper - limits.lower).mean()
        mean_by_member = (weighted.mean(dim=2, keepdim=True) * seen).sum(dim=(1, 2)) / seen.sum(dim=(1, 2)).clamp_min(1)
        loss: Tensor = mean_by_member.sum() + penalty
        return loss

    @torch.no_grad()
    def members(self, x: Array) -> tuple[Floats, Floats]:
        """Means and log-variances of every member, `[members, n, o]` each, in standard deviations of y."""
        encoded = torch.from_numpy(self._encoded(x)).to(self.device)
        parts = [self._model(chunk) for chunk in torch.split(encoded, CHUNK)]
        means, log_variances = (torch.cat(side, dim=1).double().cpu().numpy() for side in zip(*parts, strict=True))
        return means, log_variances

    def predict(self, x: Array) -> Moments:
        """Mixture of the members, moment-matched, at `x [n, i]`."""
        means, log_variances = self.members(x)
        spread = means.var(axis=0)
        variance = np.exp(log_variances).mean(axis=0) + spread
        return Moments(
            mean=means.mean(axis=0) * self._outputs.scale + self._outputs.shift,
            std=np.sqrt(variance) * self._outputs.scale,
            disagreement=np.sqrt(spread.mean(axis=1)),
        )

    def errors(self, x: Array, y: Array) -> Floats:
        """`[members, n, o]`, y minus each member's mean, in standard deviations of y."""
        found: Floats = self._outputs.encode(y) - self.members(x)[0]
        return found

    def _encoded(self, x: Array) -> npt.NDArray[np.float32]:
        """`[n, 2 i]`, every input in two scales; a constant is 0 in both, for its rounding means nothing."""
        ranks = np.where(self._inputs.scale > 0, self._maps.ranks(x), np.float32(0))
        return np.concatenate([self._inputs.encode(x), ranks], axis=1)

    def arrays(self) -> dict[str, Array]:
        """Normalizers and averaged weights."""
        arrays = {f"network.{name}": value.cpu().numpy() for name, value in self._model.state_dict().items()}
        sides: dict[str, Normalizer] = {"inputs": self._inputs, "maps": self._maps, "outputs": self._outputs}
        for side, normalizer in sides.items():
            arrays |= {f"{side}.{name}": value for name, value in normalizer.arrays().items()}
        return arrays

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Inverse of `arrays`."""
        self._inputs, self._outputs = (Standard.from_arrays(under(arrays, f"{s}.")) for s in ("inputs", "outputs"))
        self._maps = Quantile.from_arrays(under(arrays, "maps."))
        self._model = self._network(0).to(self.device).eval().requires_grad_(False)
        weights = {name: torch.from_numpy(value.copy()) for name, value in under(arrays, "network.").items()}
        self._model.load_state_dict(weights)

    def _network(self, seed: int) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        return Members(2 * self._inputs.channels, self._outputs.channels, self.config, generator)
