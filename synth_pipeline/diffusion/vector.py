"""A diffusion model of vectors, p(x) or p(x | y): an EDM (Karras et al. 2022, arXiv:2206.00364) from end to end.

Rows of a dataset, residuals of a regression, actions given a state: whatever is a vector is learned and sampled here,
as one configuration of the core: normalizer, network, parametrisation, trainer, solver.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field as Setting
from pydantic import model_validator
from torch import Tensor, nn

from synth_pipeline.config import Config
from synth_pipeline.data.fields import Array
from synth_pipeline.data.normalize import NORMALIZERS, Normalizer, Standard
from synth_pipeline.diffusion.device import Resolved, autocast, pick_device
from synth_pipeline.diffusion.grid import Grid, Spacing, make_grid
from synth_pipeline.diffusion.guidance import classifier_free
from synth_pipeline.diffusion.loop import Report, under
from synth_pipeline.diffusion.networks.mlp import ModulatedMLP, ResidualMLP
from synth_pipeline.diffusion.parametrisation import Denoiser, Parametrisation
from synth_pipeline.diffusion.sampler import Step, sample
from synth_pipeline.diffusion.schedules import EDM
from synth_pipeline.diffusion.steps import STEPS, Churn, Heun
from synth_pipeline.diffusion.trainer import Trainer, TrainerConfig
from synth_pipeline.errors import ConfigError
from synth_pipeline.seeding import Stage, integer_seed


class NetworkConfig(Config):
    """The denoiser."""

    kind: Literal["modulated", "residual"] = Setting("modulated", description="ours, or the published residual MLP")
    width: int = Setting(256, ge=8, description="units of the residual stream")
    depth: int = Setting(4, ge=1, description="residual blocks")
    expansion: int = Setting(2, ge=1, description="hidden units of a block, in widths (modulated only)")

    def require_condition(self) -> None:
        """Raises ValueError where the network cannot be told what its rows should be like."""
        if self.kind == "residual":
            raise ValueError("the published network (kind: residual) takes no condition; use kind: modulated")


class SamplerConfig(Config):
    """How samples are drawn."""

    step: Literal["dpmpp_2m", "heun", "euler"] = Setting("dpmpp_2m", description="solver")
    num_steps: int = Setting(20, ge=1, description="steps; heun calls the network 2 N - 1 times, the others N times")
    churn: float = Setting(0.0, ge=0, description="S_churn of the stochastic sampler (heun only)")
    spacing: Spacing = Setting("karras", description="spacing of the noise levels")
    sigma_min: float = Setting(0.002, gt=0, description="smallest noise level, in standard deviations of the data")
    sigma_max: float = Setting(80.0, gt=0, description="largest noise level")
    matched_start: bool = Setting(
        True, description="begin with the spread of data and noise together; false: with sigma_max alone, as published"
    )
    rows_per_call: int = Setting(1024, ge=1, description="rows that the network sees at once; part of the identity")

    @model_validator(mode="after")
    def _rising(self) -> SamplerConfig:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min:g} must be below sigma_max {self.sigma_max:g}")
        return self

    @property
    def calls(self) -> int:
        """Calls of the network for one sample."""
        return 2 * self.num_steps - 1 if self.step == "heun" else self.num_steps

    def solver(self) -> Step:
        """The solver step."""
        return Heun(Churn(self.churn)) if self.step == "heun" and self.churn else STEPS[self.step]


class VectorConfig(Config):
    """Every number of the model."""

    normalizer: Literal["standard", "min_max", "quantile"] = Setting("standard", description="fitted on real rows")
    p_mean: float = Setting(-1.2, description="mean of ln sigma in training")
    p_std: float = Setting(1.2, gt=0, description="standard deviation of ln sigma in training")
    network: NetworkConfig = Setting(NetworkConfig(), description="the denoiser")
    sampler: SamplerConfig = Setting(SamplerConfig(), description="how samples are drawn")
    trainer: TrainerConfig = Setting(TrainerConfig(), description="the optimisation")


class VectorDiffusion:
    """p(x | y) over vectors; y is optional.

    Args:
        config: Its numbers.
        device: `auto`, `cpu`, `cuda`, ...
    """

    def __init__(self, config: VectorConfig, *, device: str = "auto") -> None:
        self.config, self.device = config, pick_device(device)
        noise = config.sampler
        self._edm = Parametrisation("edm", EDM(horizon=noise.sigma_max, smallest=noise.sigma_min))

    def fit(
        self,
        x: Array,
        *,
        seed: int,
        address: int = 1,
        given: Array | None = None,
        dropout: float = 0.0,
        exempt: npt.NDArray[np.bool_] | None = None,
        report: Report | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        """Learn from rows; with a checkpoint file a killed run goes on where it was, to the same bytes.

        Args:
            x: `[n, c]`, physical units.
            seed: Seed of the run.
            address: Separates the initial weights of several models of one run.
            given: `[n, k]`, the condition y of every row.
            dropout: Share of rows that are learned without their condition, for guidance.
            exempt: `[c]`, channels that the normalizer passes unchanged.
            report: Called now and then with (step, total steps, values).
            checkpoint: File for resumable state.

        Raises:
            SourceError: Without rows, or with NaN in them.
            TrainingDivergedError: When loss or gradient stop being finite.
        """
        self._normalizer: Normalizer = NORMALIZERS.load(self.config.normalizer).fit(x, exempt=exempt)
        self._given = None if given is None else Standard.fit(given)
        network = self._network(integer_seed(seed, Stage.TRAIN, address))
        self._train(x, given, dropout, network, self.config.trainer, seed, report, checkpoint)

    def continue_on(
        self,
        x: Array,
        *,
        seed: int,
        share: float = 1.0,
        given: Array | None = None,
        dropout: float = 0.0,
        report: Report | None = None,
    ) -> None:
        """Train on from the present weights on rows that have grown or changed (warm start).

        An affine normalizer stays as it is; a quantile map is fitted anew, and its columns are marginally normal again.
        """
        self._normalizer = self._normalizer.updated(x)
        network = self._network(0)
        network.load_state_dict(self._model.state_dict())
        self._train(x, given, dropout, network, self.config.trainer.shortened(share), seed, report, None)

    def _train(
        self,
        x: Array,
        given: Array | None,
        dropout: float,
        network: nn.Module,
        trainer_config: TrainerConfig,
        seed: int,
        report: Report | None,
        checkpoint: Path | None,
    ) -> None:
        rows = [self._normalizer.encode(x)]
        if self._given is not None and given is not None:
            rows.append(self._given.encode(given))
        self._channels, self._dropout = rows[0].shape[1], dropout
        numbers = self.config.model_dump(mode="json", exclude={"trainer", "sampler"})
        objective = [numbers, self._channels, dropout]
        trainer = Trainer(network, self._loss, trainer_config, seed=seed, objective=objective, device=self.device)
        trainer.train(torch.from_numpy(np.concatenate(rows, axis=1)), checkpoint=checkpoint, report=report)
        self._model, self.precision = trainer.average, trainer.precision

    def _loss(self, network: nn.Module, batch: Tensor, rng: torch.Generator) -> Tensor:
        """Karras et al. 2022, eq. 2 with lambda(sigma) = 1 / c_out^2 and ln sigma ~ N(P_mean, P_std^2)."""
        x, y = torch.tensor_split(batch, [self._channels], dim=1)
        normal = torch.randn(len(x), generator=rng, device=x.device)
        sigma = torch.exp(self.config.p_mean + self.config.p_std * normal)
        noise = torch.randn(x.shape, generator=rng, device=x.device)
        told = {}
        if self._given is not None:
            kept = torch.rand(len(x), generator=rng, device=x.device) >= self._dropout
            told = {"condition": y, "given": kept}
        return self._edm.loss(network, x, sigma, noise, **told)[0]

    @property
    def network(self) -> nn.Module:
        """The averaged network F(x, c_noise), in model units."""
        return self._model

    @torch.no_grad()
    def sample(
        self,
        rows: int,
        rng: np.random.Generator,
        *,
        given: Array | None = None,
        guidance: float = 1.0,
    ) -> npt.NDArray[np.float32]:
        """Draw `[rows, c]` in physical units.

        Args:
            rows: How many.
            rng: The only source of randomness.
            given: `[rows, k]`, the condition of every row; a model that was trained with one needs it, unless
                `dropout` let it learn without.
            guidance: Weight of the condition: 1 samples p(x | y), more exaggerates y (Ho and Salimans 2022).

        Raises:
            ConfigError: For a condition that the model was not trained with.
        """
        if given is not None and self._given is None:
            raise ConfigError("this model was trained without a condition", fix="train it with one")
        y = None if given is None or self._given is None else torch.from_numpy(self._given.encode(given))
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**63)))
        size = self.config.sampler.rows_per_call
        grid = make_grid(self._edm.schedule, self.config.sampler.num_steps, spacing=self.config.sampler.spacing)
        parts = [np.zeros((0, self._channels), np.float32)]
        with autocast(self.device, self.precision):
            for start in range(0, rows, size):
                told = None if y is None else y[start : start + size].to(self.device)
                model = self._guided(told, guidance)
                parts.append(self._solve(model, min(size, rows - start), grid, generator))
        return self._normalizer.decode(np.concatenate(parts))

    def _solve(self, model: Denoiser, rows: int, grid: Grid, generator: torch.Generator) -> npt.NDArray[np.float32]:
        noise = torch.randn(rows, self._channels, generator=generator, device=self.device)
        config, scale = self.config.sampler, grid.start_scale
        if config.matched_start:  # what sigma_max alone leaves out, every column lacks: 1.4 % of its spread at sigma 6
            scale = torch.hypot(scale, torch.full_like(scale, self._edm.sigma_data))
        x = sample(model, noise * scale.to(noise), grid, step=config.solver(), rng=generator)
        drawn: npt.NDArray[np.float32] = x.float().cpu().numpy()
        return drawn

    def _guided(self, told: Tensor | None, guidance: float) -> Denoiser:
        free = self._edm.denoiser(self._model)
        if told is None:
            return free
        return classifier_free(free, [(self._edm.denoiser(self._model, condition=told), guidance)])

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Sizes and precision; normalizers and averaged weights."""
        arrays = {f"network.{name}": value.cpu().numpy() for name, value in self._model.state_dict().items()}
        arrays |= {f"normalizer.{name}": value for name, value in self._normalizer.arrays().items()}
        if self._given is not None:
            arrays |= {f"given.{name}": value for name, value in self._given.arrays().items()}
        return {"channels": self._channels, "precision": self.precision}, arrays

    def restore(self, values: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Inverse of `state`."""
        precision: Resolved = values["precision"]
        self._channels, self.precision, self._dropout = int(values["channels"]), precision, 0.0
        self._normalizer = NORMALIZERS.load(self.config.normalizer).from_arrays(under(arrays, "normalizer."))
        given = under(arrays, "given.")
        self._given = Standard.from_arrays(given) if given else None
        self._model = self._network(0).to(self.device).eval().requires_grad_(False)
        weights = {name: torch.from_numpy(value.copy()) for name, value in under(arrays, "network.").items()}
        self._model.load_state_dict(weights)

    def _network(self, seed: int) -> nn.Module:
        c, channels = self.config.network, self._normalizer.channels
        with torch.random.fork_rng(devices=[]):  # layers draw from the global generator; it is put back as it was
            torch.manual_seed(seed)
            if c.kind == "residual":
                return ResidualMLP(channels, width=c.width, depth=c.depth)
            condition = 0 if self._given is None else self._given.channels
            return ModulatedMLP(channels, width=c.width, depth=c.depth, expansion=c.expansion, condition=condition)
