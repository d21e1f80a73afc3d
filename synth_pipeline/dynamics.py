"""The probabilistic ensemble: what one step of the world looks like to a plain model (Chua et al. 2018, PETS).

Members are networks (s, a) -> mean and log-variance of (s' - s, r), all z-scored, trained at once as one batched
product. Loss: Gaussian likelihood, weighted by its own variance to the power beta (Seitzer et al. 2022,
arXiv:2203.09168): the plain likelihood neglects the mean of hard regions, contacts above all. Log-variances are
softly bounded by learned limits (Chua et al. 2018, app. A.1). Members differ in their initial weights only
(Lakshminarayanan et al. 2017); the averaged weights at the end of the cosine schedule are used. There is no early stop:
it would need a second hold-out, and a schedule of fixed length keeps training one pure function of data and seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field as Setting
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from synth_pipeline.config import Config
from synth_pipeline.data.fields import Array, Layout
from synth_pipeline.data.normalize import Standard
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.data.split import split_dataset
from synth_pipeline.diffusion.trainer import Report, Trainer, TrainerConfig
from synth_pipeline.errors import SourceError
from synth_pipeline.seeding import Stage, integer_seed
from synth_pipeline.validation.oracle import ERRORS, difference_scale, hold_against
from synth_pipeline.validation.truth import Answer, Oracle, Truth, known_truth

Floats = npt.NDArray[np.float64]
CHUNK = 8192


class EnsembleConfig(Config):
    """Every number of the ensemble."""

    members: int = Setting(5, ge=2, description="networks")
    width: int = Setting(200, ge=8, description="units of a hidden layer")
    depth: int = Setting(4, ge=1, description="hidden layers")
    beta: float = Setting(1.0, ge=0, le=1, description="0: plain likelihood; 1: the mean is fitted as by least squares")
    bound_penalty: float = Setting(0.01, ge=0, description="weight of the distance between the log-variance limits")
    trainer: TrainerConfig = Setting(
        TrainerConfig(gradient_steps=5_000, batch_size=512, learning_rate=6e-3, weight_decay=1e-4),
        description="the optimisation",
    )


@dataclass(frozen=True)
class Prediction:
    """What the ensemble expects, by row, in physical units.

    Attributes:
        next_observations: `[n, o]`, mean.
        rewards: `[n]`, mean.
        std: `[n, o + 1]`, standard deviation of (s', r): noise and disagreement together.
        disagreement: `[n]`, root mean square over (s', r) of the spread of the members' means, in standard deviations
            of (s' - s, r) in the data.
    """

    next_observations: Floats
    rewards: Floats
    std: Floats
    disagreement: Floats


class _Members(nn.Module):
    """`members` perceptrons side by side: every layer is one batched matrix product."""

    def __init__(self, inputs: int, outputs: int, config: EnsembleConfig, generator: torch.Generator) -> None:
        super().__init__()
        sizes = [inputs, *[config.width] * config.depth, 2 * outputs]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            weight = torch.randn(config.members, fan_in, fan_out, generator=generator) / fan_in**0.5
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(config.members * fan_out)))  # flat: the trainer decays matrices
        self.upper = nn.Parameter(torch.full((outputs,), 1.0))
        self.lower = nn.Parameter(torch.full((outputs,), -10.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[b, inputs]` -> means and log-variances, `[members, b, outputs]` each."""
        layers = list(zip(self.weights, self.biases, strict=True))
        h = x.expand(len(self.weights[0]), *x.shape)
        for weight, bias in layers[:-1]:
            h = silu(_affine(h, weight, bias))
        with torch.autocast(x.device.type, enabled=False):  # errors are a few percent of a mean: too fine for bfloat16
            mean, raw = _affine(h.float(), *layers[-1]).chunk(2, dim=-1)
        bounded = self.upper - softplus(self.upper - raw)
        return mean, self.lower + softplus(bounded - self.lower)


def _affine(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.baddbmm(bias.view(len(weight), 1, -1), h, weight)


class Ensemble:
    """The probabilistic ensemble.

    Args:
        config: Its numbers.
    """

    def __init__(self, config: EnsembleConfig | None = None) -> None:
        self.config = config or EnsembleConfig()

    def fit(self, data: Dataset, *, seed: int, report: Report | None = None, checkpoint: Path | None = None) -> None:
        """Train on all rows of `data`; what is held out must not be in it.

        Raises:
            SourceError: Without rows, or with NaN in them.
            TrainingDivergedError: When loss or gradient stop being finite.
        """
        rows = data.transitions()
        inputs, targets = self._prepare(data.spec).pack(rows.columns), _targets(rows.columns)
        self._inputs, self._outputs = Standard.fit(inputs), Standard.fit(targets)
        x = np.concatenate([self._inputs.encode(inputs), self._outputs.encode(targets)], axis=1)
        network = self._network(integer_seed(seed, Stage.TRAIN, 2))
        trainer = Trainer(network, self._loss, self.config.trainer, seed=seed)
        trainer.train(torch.from_numpy(x), checkpoint=checkpoint, report=report)
        self._model = trainer.average

    @torch.no_grad()
    def predict(self, observations: Array, actions: Array) -> Prediction:
        """Mixture of the members, moment-matched.

        Args:
            observations: `[n, o]`, physical units, finite.
            actions: `[n, a]`.
        """
        columns = {"observations": np.asarray(observations), "actions": np.asarray(actions)}
        x = torch.from_numpy(self._inputs.encode(self._layout.pack(columns)))
        parts = [self._model(chunk) for chunk in torch.tensor_split(x, list(range(CHUNK, len(x), CHUNK)))]
        means, log_variances = (torch.cat(side, dim=1).double() for side in zip(*parts, strict=True))
        spread = means.var(dim=0, correction=0)
        variance = log_variances.exp().mean(dim=0) + spread
        target = means.mean(dim=0).numpy() * self._outputs.scale + self._outputs.shift
        return Prediction(
            next_observations=np.asarray(observations, np.float64) + target[:, :-1],
            rewards=target[:, -1],
            std=np.sqrt(variance.numpy()) * self._outputs.scale,
            disagreement=spread.mean(dim=1).sqrt().numpy(),
        )

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Spec, normalizers, averaged weights."""
        arrays = {f"network.{name}": value.numpy() for name, value in self._model.state_dict().items()}
        for side, normalizer in (("inputs", self._inputs), ("outputs", self._outputs)):
            arrays |= {f"{side}.{name}": value for name, value in normalizer.arrays().items()}
        return {"spec": self._spec.plain()}, arrays

    def restore(self, values: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Inverse of `state`."""
        self._prepare(DatasetSpec.parse(values["spec"], where="saved spec"))
        self._inputs, self._outputs = (Standard.from_arrays(_under(arrays, f"{s}.")) for s in ("inputs", "outputs"))
        self._model = self._network(0).eval().requires_grad_(False)
        weights = {name: torch.from_numpy(value.copy()) for name, value in _under(arrays, "network.").items()}
        self._model.load_state_dict(weights)

    def _prepare(self, spec: DatasetSpec) -> Layout:
        self._spec = spec
        self._layout = Layout((spec.field("observations"), spec.field("actions")))
        return self._layout

    def _network(self, seed: int) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        return _Members(len(self._inputs.shift), len(self._outputs.shift), self.config, generator)

    def _loss(self, network: nn.Module, batch: Tensor, rng: torch.Generator) -> Tensor:
        """Sum over members of the mean of var^beta ((y - mu)^2 / var + log var) / 2, var^beta held constant."""
        inputs, y = torch.tensor_split(batch, [len(self._inputs.shift)], dim=1)
        mean, log_variance = network(inputs)
        likelihood = 0.5 * ((y - mean) ** 2 * (-log_variance).exp() + log_variance)
        weighted = (self.config.beta * log_variance.detach()).exp() * likelihood
        limits: Any = network
        penalty = self.config.bound_penalty * (limits.upper - limits.lower).mean()
        loss: Tensor = weighted.mean(dim=(1, 2)).sum() + penalty
        return loss


def learned_oracle(ensemble: Ensemble) -> Oracle:
    """The ensemble's mean as an oracle, for data without a simulator; it is as good as its own held-out error."""

    def oracle(observations: Array, actions: Array) -> Answer:
        judged = np.isfinite(np.concatenate([observations, actions], axis=1)).all(axis=1)
        next_observations, rewards = np.full(observations.shape, np.nan), np.full(len(observations), np.nan)
        if judged.any():
            expected = ensemble.predict(observations[judged], actions[judged])
            next_observations[judged], rewards[judged] = expected.next_observations, expected.rewards
        return Answer(next_observations, rewards, judged, "learned ensemble")

    return oracle


def learned_floor(
    dataset: Dataset, seed: int, *, config: EnsembleConfig | None = None, report: Report | None = None
) -> dict[str, float]:
    """Held-out error of an ensemble: what plain regression makes of these dynamics.

    Args:
        dataset: The whole dataset; the split is the one that generators of this seed train on.
        seed: Seed of the run.
        config: Numbers of the ensemble.
        report: Called now and then with (step, total steps, values).

    Returns:
        `mean`, `p95`, `p99`, `median` of the per-row error of `oracle.mean` on the held-out episodes.

    Raises:
        SourceError: When there are no two episodes, or no held-out row off the observation clip.
    """
    parts = split_dataset(dataset, seed=seed)
    if parts.held_out is None:
        raise SourceError("a learned floor needs held-out episodes", found="fewer than two episodes")
    ensemble = Ensemble(config)
    ensemble.fit(parts.train, seed=seed, report=report)
    errors = held_out_errors(ensemble, dataset, parts.held_out)
    return {name: summary(errors) for name, summary in ERRORS.items()}


def held_out_errors(ensemble: Ensemble, dataset: Dataset, held_out: Dataset) -> Floats:
    """`[rows off the clip]`, squared error of s' by row, in the units of `oracle.mean`.

    Args:
        ensemble: Fitted without the held-out part.
        dataset: Gives Var(s' - s), as for every generator that is compared.
        held_out: What the ensemble did not see.

    Raises:
        SourceError: When no held-out row is off the observation clip.
    """
    truth, rows = known_truth(dataset.spec), held_out.transitions()
    kept = np.flatnonzero(~truth.clipped(rows))
    if not len(kept):
        raise SourceError("no held-out row can be judged", found=f"{len(rows)} rows, all at the observation clip")
    scale = difference_scale(dataset.transitions(), truth)
    return hold_against(rows, kept, learned_oracle(ensemble), scale, Truth()).errors


def _targets(columns: Mapping[str, Array]) -> Floats:
    moved = np.asarray(columns["next_observations"], np.float64) - columns["observations"]
    return np.concatenate([moved, np.asarray(columns["rewards"], np.float64)[:, None]], axis=1)


def _under(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}
