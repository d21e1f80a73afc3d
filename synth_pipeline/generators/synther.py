"""SynthER: Synthetic Experience Replay (Lu et al., NeurIPS 2023, arXiv:2303.06614).

One transition is one vector [s, a, r, s', termination]; an EDM (Karras et al. 2022, arXiv:2206.00364) models it
unconditionally. The preset `paper` follows the paper and its code to the letter; the defaults here are our recipe.

Our differences, each a setting
  1. `next_observations: difference` models s' - s, whose scale is what dynamics errors are measured in.
  2. A pre-norm network modulated by the noise level, 13 times smaller than the published one.
  3. DPM-Solver++(2M) with 20 calls of the network instead of 255, in bfloat16.
  4. Terminations come from the environment's own function where it is known; otherwise they are modelled.
Always: actions and clipped observations inside their bounds, flags boolean, no global state.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field as Setting
from pydantic import model_validator
from torch import Tensor, nn

from synth_pipeline.config import Config
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Array, Field, Layout
from synth_pipeline.data.normalize import NORMALIZERS, Normalizer
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.diffusion.grid import Spacing, make_grid
from synth_pipeline.diffusion.networks.mlp import ModulatedMLP, ResidualMLP
from synth_pipeline.diffusion.parametrisation import Parametrisation
from synth_pipeline.diffusion.sampler import sample
from synth_pipeline.diffusion.schedules import EDM
from synth_pipeline.diffusion.steps import STEPS, Churn, Heun
from synth_pipeline.diffusion.trainer import Trainer, TrainerConfig
from synth_pipeline.generators.base import Postprocess, Report, derived_fields, modelled_fields
from synth_pipeline.seeding import Stage, integer_seed


class NetworkConfig(Config):
    """The denoiser."""

    kind: Literal["modulated", "residual"] = Setting("modulated", description="ours, or the published residual MLP")
    width: int = Setting(256, ge=8, description="units of the residual stream")
    depth: int = Setting(4, ge=1, description="residual blocks")
    expansion: int = Setting(2, ge=1, description="hidden units of a block, in widths (modulated only)")


class SamplerConfig(Config):
    """How samples are drawn."""

    step: Literal["dpmpp_2m", "heun", "euler"] = Setting("dpmpp_2m", description="solver")
    num_steps: int = Setting(20, ge=1, description="steps; heun calls the network 2 N - 1 times, the others N times")
    churn: float = Setting(0.0, ge=0, description="S_churn of the stochastic sampler (heun only)")
    spacing: Spacing = Setting("karras", description="spacing of the noise levels")
    sigma_min: float = Setting(0.002, gt=0, description="smallest noise level, in standard deviations of the data")
    sigma_max: float = Setting(80.0, gt=0, description="largest noise level")

    @model_validator(mode="after")
    def _rising(self) -> SamplerConfig:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min:g} must be below sigma_max {self.sigma_max:g}")
        return self


class SyntherConfig(Config):
    """Every number of the method."""

    next_observations: Literal["difference", "state"] = Setting("difference", description="model s' - s, or s' itself")
    derive_terminations: bool = Setting(True, description="leave flags to the environment's function where it is known")
    normalizer: Literal["standard", "min_max", "quantile"] = Setting("standard", description="fitted on real rows")
    p_mean: float = Setting(-1.2, description="mean of ln sigma in training")
    p_std: float = Setting(1.2, gt=0, description="standard deviation of ln sigma in training")
    network: NetworkConfig = Setting(NetworkConfig(), description="the denoiser")
    sampler: SamplerConfig = Setting(SamplerConfig(), description="how samples are drawn")
    trainer: TrainerConfig = Setting(TrainerConfig(), description="the optimisation")


class SynthER:
    """An unconditional EDM over whole transitions."""

    kind: ClassVar[str] = "synther"
    settings: ClassVar[type[Config]] = SyntherConfig
    provenance: ClassVar[tuple[Field, ...]] = ()

    def __init__(self, config: SyntherConfig | None = None, *, device: str = "auto") -> None:
        self.config = config or SyntherConfig()
        self.device = pick_device(device)

    @property
    def derives_terminations(self) -> bool:
        """As configured."""
        return self.config.derive_terminations

    def fit(self, data: Dataset, *, seed: int, report: Report | None = None, checkpoint: Path | None = None) -> None:
        """Train the denoiser; with a checkpoint file a killed run goes on where it was, to the same bytes."""
        self._prepare(data.spec)
        x = self._pack(data.transitions().columns)
        flags = np.zeros(x.shape[1], bool)
        for field in self._layout:
            flags[self._layout.slices[field.name]] = field.kind == "binary"
        # Flags stay 0 and 1, as published: their spread says nothing about the scale on which they matter.
        self._normalizer: Normalizer = NORMALIZERS.load(self.config.normalizer).fit(x, exempt=flags)
        network = self._network(torch.Generator().manual_seed(integer_seed(seed, Stage.TRAIN, 1)))
        trainer = Trainer(network, self._loss, self.config.trainer, seed=seed, device=self.device)
        trainer.train(torch.from_numpy(self._normalizer.encode(x)), checkpoint=checkpoint, report=report)
        self._model = trainer.average

    @torch.no_grad()
    def sample(self, rows: int, rng: np.random.Generator) -> Transitions:
        """Noise at the address of the shard, through the solver, back to physical units."""
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**63)))
        s, config = self._parametrisation, self.config.sampler
        grid = make_grid(s.schedule, config.num_steps, spacing=config.spacing)
        noise = torch.randn(rows, self._layout.size, generator=generator, device=self.device)
        step = Heun(Churn(config.churn)) if config.step == "heun" and config.churn else STEPS[config.step]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.trainer.autocast):
            model = s.denoiser(self._model)
            x = sample(model, noise * grid.start_scale.to(noise), grid, step=step, rng=generator)
        return self._unpack(self._normalizer.decode(x.float().cpu().numpy()))

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Spec, normalizer, averaged weights."""
        weights = {f"network.{name}": value.cpu().numpy() for name, value in self._model.state_dict().items()}
        arrays = {f"normalizer.{name}": value for name, value in self._normalizer.arrays().items()}
        return {"spec": self._spec.plain()}, {**arrays, **weights}

    def restore(self, values: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Inverse of `state`."""
        self._prepare(DatasetSpec.parse(values["spec"], where="saved spec"))
        self._normalizer = NORMALIZERS.load(self.config.normalizer).from_arrays(_under(arrays, "normalizer."))
        self._model = self._network(torch.Generator()).to(self.device).eval().requires_grad_(False)
        weights = {name: torch.from_numpy(value.copy()) for name, value in _under(arrays, "network.").items()}
        self._model.load_state_dict(weights)

    def _prepare(self, spec: DatasetSpec) -> None:
        derived = derived_fields(spec) if self.config.derive_terminations else ()
        fields = tuple(field for field in modelled_fields(spec) if field.name not in derived)
        if self.config.next_observations == "difference":  # which has other bounds than a state
            fields = tuple(f.replace(clip=False) if f.name == "next_observations" else f for f in fields)
        self._spec = spec
        self._layout = Layout(fields)
        self._post = Postprocess(spec, derive=self.config.derive_terminations)
        noise = self.config.sampler
        self._parametrisation = Parametrisation("edm", EDM(horizon=noise.sigma_max, smallest=noise.sigma_min))

    def _network(self, generator: torch.Generator) -> nn.Module:
        c = self.config.network
        with torch.random.fork_rng(devices=[]):  # layers draw from the global generator; it is put back as it was
            torch.manual_seed(generator.initial_seed())
            if c.kind == "residual":
                return ResidualMLP(self._layout.size, width=c.width, depth=c.depth, generator=generator)
            return ModulatedMLP(self._layout.size, width=c.width, depth=c.depth, expansion=c.expansion)

    def _loss(self, network: nn.Module, batch: Tensor, rng: torch.Generator) -> Tensor:
        """Karras et al. 2022, eq. 2 with lambda(sigma) = 1 / c_out^2 and ln sigma ~ N(P_mean, P_std^2)."""
        normal = torch.randn(len(batch), generator=rng, device=batch.device)
        sigma = torch.exp(self.config.p_mean + self.config.p_std * normal)
        noise = torch.randn(batch.shape, generator=rng, device=batch.device)
        return self._parametrisation.loss(network, batch, sigma, noise)[0]

    def _pack(self, columns: Mapping[str, Array]) -> Array:
        if self.config.next_observations == "state":
            return self._layout.pack(columns)
        change = columns["next_observations"] - columns["observations"]
        return self._layout.pack({**columns, "next_observations": change})

    def _unpack(self, x: Array) -> Transitions:
        columns = self._layout.unpack(x)
        if self.config.next_observations == "difference":
            columns["next_observations"] = columns["observations"] + columns["next_observations"]
        return self._post.from_columns(columns, {})


def pick_device(name: str) -> torch.device:
    """`auto` is the first CUDA device, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def _under(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}
