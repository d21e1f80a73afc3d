"""p(y | x) as the mean of an ensemble, plus a sampled residual where what is left is noise.

A regression that misses y can do so for two reasons: y is not a function of x (noise), or the function is hard (model
error). Adding a random residual is right in the first case and makes the second worse. Two questions tell them apart,
by component of y; both are asked about errors e of members of the ensemble on rows that they have not seen.
- Who misses? Noise is missed by all members alike: `shared` = E[e_unseen e_others] / E[e_unseen^2] is about 1. Errors
  of models have different signs and sizes, above all at contacts in many dimensions, and share less.
- Do neighbours agree? Where all members are too coarse in the same way, the next row in x, of another group, is missed
  in the same direction; noise has no direction: `smooth` = E[e e_neighbour] / E[e^2] is about 0 (lack of fit by near
  replicates, Daniel and Wood 1980, ch. 7).
A component is noise when it is shared and not smooth; its residual is learned by a small conditional diffusion.
Where members know the rows that they have seen by heart, noise is not shared either: with few rows, and much that the
mean does not explain, the first question has no answer, and that is said (`doubtful`).
A component with few values in the data (a sparse reward, a goal that stands still) is drawn as the nearest of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field as Setting
from pydantic import model_validator

from synth_pipeline.config import Config
from synth_pipeline.data.fields import Array
from synth_pipeline.data.normalize import Standard
from synth_pipeline.diffusion.loop import Phases, under
from synth_pipeline.diffusion.trainer import TrainerConfig
from synth_pipeline.diffusion.vector import NetworkConfig, SamplerConfig, VectorConfig, VectorDiffusion
from synth_pipeline.dynamics.regressor import Floats, Moments, Regressor, RegressorConfig
from synth_pipeline.errors import SourceError
from synth_pipeline.seeding import Stage, stream

EXACT = 1e-6  # share of the variance of y below which an error is rounding, not noise
BLOCK = 128  # rows at once whose neighbours are looked for
FOLDS = 10  # of the groups; every member leaves out one: what it has not seen judges it, what it has seen makes it good
BY_HEART = 0.7  # squared error on seen rows over that on unseen ones, below which members know rows by heart
NOTABLE = 0.1  # share of the variance of y that the mean does not explain, from which it matters what that is
FEW = 10  # values that a discrete component takes at most
SEEN_BY_ALL = -1
ROWS_A_VALUE = 100  # mean number of rows that take each: in fewer rows, few values say nothing


class ConditionalConfig(Config):
    """Every number of the model."""

    residual: Literal["auto", "none", "diffusion"] = Setting(
        "auto", description="sampled residual: by the calibration test, never (the mean alone), or always"
    )
    least_shared: float = Setting(0.9, gt=0, le=1, description="an error that members share less is the model's")
    most_smooth: float = Setting(0.1, gt=0, le=1, description="an error that neighbours share more is the model's")
    regressor: RegressorConfig = Setting(RegressorConfig(), description="the mean")
    diffusion: VectorConfig = Setting(
        VectorConfig(
            p_mean=0.0,  # a rare mode far out is won or lost at noise as large as its distance: often visited, and wide
            p_std=1.5,
            network=NetworkConfig(width=128, depth=3),
            sampler=SamplerConfig(num_steps=32, sigma_max=20.0),
            trainer=TrainerConfig(gradient_steps=6_000, batch_size=1024),
        ),
        description="the residual",
    )

    @model_validator(mode="after")
    def _can_be_told(self) -> ConditionalConfig:
        self.diffusion.network.require_condition()
        return self


class Conditional:
    """p(y | x).

    Args:
        config: Its numbers.
        device: `auto`, `cpu`, `cuda`, ...
    """

    def __init__(self, config: ConditionalConfig | None = None, *, device: str = "auto") -> None:
        self.config, self._device = config or ConditionalConfig(), device

    def phases(self, name: str) -> dict[str, int]:
        """Names and steps of the trainings of `fit` that are needed for sure; `fit` inserts that of the residual."""
        return {name: self.config.regressor.trainer.gradient_steps}

    def fit(
        self,
        x: Array,
        y: Array,
        *,
        groups: npt.NDArray[np.int64],
        seed: int,
        address: int,
        name: str,
        phases: Phases,
    ) -> None:
        """Learn the mean, decide what is noise, and learn its residual.

        Args:
            x: `[n, i]`, physical units.
            y: `[n, o]`.
            groups: `[n]`, rows that belong together (episodes): a member leaves out whole groups.
            seed: Seed of the run.
            address: Separates the initial weights of several models of one run.
            name: Name of the phases.
            phases: Where progress and state go.

        Raises:
            SourceError: Without rows, or with NaN in them.
            TrainingDivergedError: When loss or gradient stop being finite.
        """
        self._values = [few_values(column) for column in y.T]
        left_out = absent_member(groups, self.config.regressor.members)
        self._mean = self._regressor()
        self._mean.fit(x, y, seed=seed, address=2 * address, left_out=left_out, **phases.phase(name))
        self._test(x, y, groups, left_out, stream(seed, Stage.TRAIN, 10, address))
        self.noisy = self._decide()
        if not self.noisy.any():
            return
        phases.insert(f"{name}_residual", self.config.diffusion.trainer.gradient_steps, after=name)
        rest = (y - self._mean.predict(x).mean)[:, self.noisy]
        self._rest = self._diffusion()
        self._rest.fit(rest, given=x, seed=seed, address=2 * address + 1, **phases.phase(f"{name}_residual"))

    def _test(
        self,
        x: Array,
        y: Array,
        groups: npt.NDArray[np.int64],
        left_out: npt.NDArray[np.int64],
        rng: np.random.Generator,
    ) -> None:
        """Ask both questions about the rows that a member has not seen."""
        rows = np.flatnonzero(left_out != SEEN_BY_ALL)
        errors, absent = self._mean.errors(x[rows], y[rows]), left_out[rows]
        self.shared, self.doubtful = shared_error(errors, absent), known_by_heart(errors, absent)
        self.smooth = smooth_error(errors[absent, np.arange(len(rows))], x[rows], groups[rows], rng)

    def _decide(self) -> npt.NDArray[np.bool_]:
        if self.config.residual == "auto":
            return (self.shared >= self.config.least_shared) & (self.smooth <= self.config.most_smooth)
        return (self.shared > 0) & (self.config.residual == "diffusion")

    def predict(self, x: Array) -> Moments:
        """What the ensemble of the mean expects at `x [n, i]`, and how far its members disagree."""
        return self._mean.predict(x)

    def sample(self, x: Array, rng: np.random.Generator, *, expected: Moments | None = None) -> Floats:
        """A draw of y `[n, o]` for every row of `x [n, i]`; `expected` is `predict(x)` where that is known already."""
        y = (expected or self.predict(x)).mean.copy()
        if self.noisy.any():
            y[:, self.noisy] += self._rest.sample(len(x), rng, given=x)
        for column, values in enumerate(self._values):
            if len(values):
                y[:, column] = nearest(y[:, column], values)
        return y

    @property
    def calls(self) -> int:
        """Calls of the residual's network for one row."""
        return self.config.diffusion.sampler.calls if self.noisy.any() else 0

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """What the test found and decided; both models."""
        found = {"shared": self.shared, "smooth": self.smooth, "doubtful": self.doubtful, "noisy": self.noisy}
        values: dict[str, Any] = {name: array.tolist() for name, array in found.items()}
        arrays = {f"mean.{name}": array for name, array in self._mean.arrays().items()}
        arrays |= {f"values.{column}": array for column, array in enumerate(self._values)}
        if self.noisy.any():
            values["residual"], rest = self._rest.state()
            arrays |= {f"residual.{name}": array for name, array in rest.items()}
        return values, arrays

    def restore(self, values: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Inverse of `state`."""
        self.shared, self.smooth = (np.array(values[name], np.float64) for name in ("shared", "smooth"))
        self.doubtful, self.noisy = (np.array(values[name], bool) for name in ("doubtful", "noisy"))
        self._values = [np.array(arrays[f"values.{column}"], np.float64) for column in range(len(self.noisy))]
        self._mean = self._regressor()
        self._mean.restore(under(arrays, "mean."))
        if self.noisy.any():
            self._rest = self._diffusion()
            self._rest.restore(values["residual"], under(arrays, "residual."))

    def _regressor(self) -> Regressor:
        return Regressor(self.config.regressor, device=self._device)

    def _diffusion(self) -> VectorDiffusion:
        return VectorDiffusion(self.config.diffusion, device=self._device)


def absent_member(groups: npt.NDArray[np.int64], members: int) -> npt.NDArray[np.int64]:
    """`[n]`, the member that does not learn from a row; -1 where all do.

    Raises:
        SourceError: When some member would leave out everything.
    """
    if len(groups) and len(np.unique(groups)) < 2:
        raise SourceError("an ensemble is tested on groups of rows", found="one group", accepted="at least two")
    fold = np.unique(groups, return_inverse=True)[1] % max(FOLDS, members)
    return np.where(fold < members, fold, SEEN_BY_ALL)


def few_values(column: Array) -> Floats:
    """The values of a discrete column `[n]`, rising; none for a continuous one."""
    values = np.unique(column).astype(np.float64)
    return values if len(values) <= min(FEW, len(column) // ROWS_A_VALUE) else values[:0]


def nearest(y: Floats, values: Floats) -> Floats:
    """Every element of y `[n]` as the nearest of some rising values; the lower one where two are as near."""
    found: Floats = values[np.searchsorted((values[1:] + values[:-1]) / 2, y)]
    return found


def shared_error(errors: Floats, left_out: npt.NDArray[np.int64]) -> Floats:
    """`[o]`, the share of a member's squared error on unseen rows that the other members make too.

    Args:
        errors: `[members, n, o]`, y minus the mean of each member, in standard deviations of y.
        left_out: `[n]`, the member that has not seen a row.
    """
    rows = np.arange(errors.shape[1])
    unseen = errors[left_out, rows]
    others = (errors.sum(axis=0) - unseen) / (len(errors) - 1)
    power = (unseen**2).mean(axis=0)
    shared = (unseen * others).mean(axis=0)
    return np.where(power > EXACT, np.clip(shared / np.maximum(power, EXACT), 0.0, 1.0), 0.0)


def known_by_heart(errors: Floats, left_out: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """`[o]`, whether errors on unseen rows are notable, and those of members that have seen them far smaller.

    Args:
        errors: As in `shared_error`.
        left_out: `[n]`, the member that has not seen a row.
    """
    rows = np.arange(errors.shape[1])
    unseen = (errors[left_out, rows] ** 2).mean(axis=0)
    seen = ((errors**2).sum(axis=(0, 1)) - unseen * len(rows)) / ((len(errors) - 1) * len(rows))
    found: npt.NDArray[np.bool_] = (unseen > NOTABLE) & (seen < BY_HEART * unseen)
    return found


def smooth_error(
    errors: Floats, x: Array, groups: npt.NDArray[np.int64], rng: np.random.Generator, *, sample: int = 10_000
) -> Floats:
    """`[o]`, correlation of errors `[n, o]` about 0 with those of the nearest row of another group in z-scored `x`."""
    if len(np.unique(groups)) < 2:
        return np.zeros(errors.shape[1])
    rows = rng.permutation(len(x))[:sample]
    near = nearest_of_others(Standard.fit(x).encode(x), groups, rows)
    power = np.sqrt((errors[rows] ** 2).mean(axis=0) * (errors[near] ** 2).mean(axis=0))
    agreed: Floats = (errors[rows] * errors[near]).mean(axis=0) / np.maximum(power, EXACT)
    return agreed


def nearest_of_others(x: Array, groups: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """`[k]`, the row of `x [n, i]` nearest to each of `rows [k]` that belongs to another group.

    By matrix products: in dozens of dimensions a tree would visit nearly every leaf.
    """
    points, of = torch.from_numpy(np.ascontiguousarray(x, np.float32)), torch.from_numpy(groups)
    squares, found = (points**2).sum(dim=1), [torch.zeros(0, dtype=torch.int64)]
    for block in torch.split(torch.from_numpy(rows), BLOCK):
        distance = torch.addmm(squares, points[block], points.T, alpha=-2)
        found.append(distance.masked_fill_(of == of[block][:, None], torch.inf).argmin(dim=1))
    return torch.cat(found).numpy()
