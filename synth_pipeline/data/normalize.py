"""Normalizers: fitted on real rows, saved with the model, inverted on every sample.

All work on the last axis of x `[*lead, channels]`. `is_affine` says whether half-spaces stay half-spaces, which methods
with barriers or value gradients in physical units need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.fields import Array
from synth_pipeline.errors import CheckpointError, SourceError
from synth_pipeline.registry import Registry

Floats = npt.NDArray[np.float64]
CONSTANT = 1e-6  # a channel whose spread is at most this share of its size is constant up to float32 rounding


class Normalizer(Protocol):
    """Maps physical channels to model channels and back."""

    name: ClassVar[str]
    is_affine: ClassVar[bool]

    @classmethod
    def fit(cls, x: Array, *, exempt: npt.NDArray[np.bool_] | None = None) -> Self:
        """Fit on real rows `[n, channels]`; `exempt` channels pass unchanged.

        Raises:
            SourceError: Without rows, or with NaN or infinity in them.
        """
        ...

    def encode(self, x: Array) -> npt.NDArray[np.float32]:
        """Physical `[*lead, channels]` -> model units."""
        ...

    def decode(self, z: Array) -> npt.NDArray[np.float32]:
        """Model units `[*lead, channels]` -> physical."""
        ...

    def updated(self, x: Array) -> Self:
        """The normalizer for a model that trains on, on rows `[n, channels]` that have grown or moved."""
        ...

    @property
    def channels(self) -> int:
        """How many channels it was fitted on."""
        ...

    def arrays(self) -> dict[str, Array]:
        """What has to be saved."""
        ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """Inverse of `arrays`."""
        ...


@dataclass(frozen=True)
class Affine:
    """z = (x - shift) / scale, the common form of `Standard` and `MinMax`.

    A constant channel has scale 0: it is encoded as 0, and whatever a model makes of it decodes to the constant.

    Attributes:
        shift: `[channels]`.
        scale: `[channels]`, >= 0.
    """

    shift: Floats
    scale: Floats
    is_affine: ClassVar[bool] = True

    def encode(self, x: Array) -> npt.NDArray[np.float32]:
        """Physical -> model units, computed in float64."""
        centred = np.asarray(x, np.float64) - self.shift
        constant = np.where(np.isfinite(centred), 0.0, np.nan)  # NaN stays visible, in a constant channel too
        return np.divide(centred, self.scale, out=constant, where=self.scale > 0).astype(np.float32)

    def decode(self, z: Array) -> npt.NDArray[np.float32]:
        """Model units -> physical, computed in float64."""
        return (np.asarray(z, np.float64) * self.scale + self.shift).astype(np.float32)

    def updated(self, x: Array) -> Self:
        """Itself, so that the model's weights mean what they meant: a line has no end that new rows could pass."""
        return self

    @property
    def channels(self) -> int:
        """How many channels it was fitted on."""
        return len(self.shift)

    def arrays(self) -> dict[str, Array]:
        """Shift and scale."""
        return {"shift": self.shift, "scale": self.scale}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """Inverse of `arrays`.

        Raises:
            CheckpointError: When an array is missing.
        """
        return cls(*_required(arrays, "shift", "scale"))


@dataclass(frozen=True)
class Standard(Affine):
    """Zero mean, unit variance per channel."""

    name: ClassVar[str] = "standard"

    @classmethod
    def fit(cls, x: Array, *, exempt: npt.NDArray[np.bool_] | None = None) -> Self:
        """Mean and standard deviation of `[n, channels]`."""
        values = _checked(x)
        return cls(*_exempted(values.mean(axis=0), _spread(values.std(axis=0), values), exempt))


@dataclass(frozen=True)
class MinMax(Affine):
    """The observed range of each channel to [-1, 1]; a constant channel leaves the others alone."""

    name: ClassVar[str] = "min_max"

    @classmethod
    def fit(cls, x: Array, *, exempt: npt.NDArray[np.bool_] | None = None) -> Self:
        """Middle and half range of `[n, channels]`."""
        values = _checked(x)
        low, high = values.min(axis=0), values.max(axis=0)
        return cls(*_exempted((low + high) / 2, _spread((high - low) / 2, values), exempt))


@dataclass(frozen=True)
class Quantile:
    """Each channel through its empirical quantiles to N(0, 1); the inverse stays inside the observed range.

    An atom (rewards of 0 and 1, flags, clipped velocities) is a run of equal knots: it owns an interval of scores as
    wide as its share, so that N(0, 1) decodes to it as often as the data hold it; it is encoded as the run's mean.

    Attributes:
        knots: `[channels, k]`, physical values at equally spaced probabilities, minimum to maximum.
        normal: `[k]`, standard normal quantiles of the knots' probabilities, strictly rising.
        passed: `[channels]`, true where a channel passes unchanged.
    """

    knots: Floats
    normal: Floats
    passed: npt.NDArray[np.bool_]
    name: ClassVar[str] = "quantile"
    is_affine: ClassVar[bool] = False
    NUM_KNOTS: ClassVar[int] = 1025

    @classmethod
    def fit(cls, x: Array, *, exempt: npt.NDArray[np.bool_] | None = None) -> Self:
        """Empirical quantiles of `[n, channels]`."""
        from scipy.special import ndtri

        values = _checked(x)
        probability = np.linspace(0.0, 1.0, min(cls.NUM_KNOTS, len(values)))
        knots = np.ascontiguousarray(np.quantile(values, probability, axis=0).T)
        half_rank = 0.5 / len(values)  # the extremes stand half a rank inside (0, 1), so their scores are finite
        normal = ndtri(half_rank + (1 - 2 * half_rank) * probability)
        passed = np.zeros(values.shape[1], bool) if exempt is None else np.asarray(exempt, bool)
        return cls(knots, normal, passed)

    def encode(self, x: Array) -> npt.NDArray[np.float32]:
        """Physical -> normal scores; values outside the knots get the outermost score."""
        return self._map(x, self._scores)

    def ranks(self, x: Array) -> npt.NDArray[np.float32]:
        """`encode` without its jumps beside atoms: continuous, for inputs that nothing has to be decoded to."""
        return self._map(x, lambda values, knots: np.interp(values, knots, self._scores(knots, knots)))

    def decode(self, z: Array) -> npt.NDArray[np.float32]:
        """Normal scores -> physical, inside the observed range."""
        return self._map(z, lambda scores, knots: np.interp(scores, self.normal, knots))

    def updated(self, x: Array) -> Self:
        """Fitted anew: rows beyond the old knots would all have the outermost score, and never be reached."""
        return self.fit(x, exempt=self.passed)

    def _scores(self, values: Floats, knots: Floats) -> Floats:
        first, last = np.searchsorted(knots, values, "left"), np.searchsorted(knots, values, "right")
        sums = np.concatenate([[0.0], np.cumsum(self.normal)])
        mean = (sums[last] - sums[first]) / np.maximum(last - first, 1)
        # Beside an atom the interpolation starts at the edge of its run, which keeps the map monotone and invertible.
        return np.where(last - first > 1, mean, np.interp(values, knots, self.normal))

    def _map(self, x: Array, function: Callable[[Floats, Floats], Floats]) -> npt.NDArray[np.float32]:
        values = np.asarray(x, np.float64)
        result = values.copy()
        for channel in np.flatnonzero(~self.passed):
            result[..., channel] = function(values[..., channel], self.knots[channel])
        return result.astype(np.float32)

    @property
    def channels(self) -> int:
        """How many channels it was fitted on."""
        return len(self.knots)

    def arrays(self) -> dict[str, Array]:
        """Knots, scores and the channels that pass."""
        return {"knots": self.knots, "normal": self.normal, "passed": self.passed}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """Inverse of `arrays`."""
        knots, normal, passed = _required(arrays, "knots", "normal", "passed")
        return cls(knots, normal, passed.astype(bool))


NORMALIZERS = Registry(
    "normalizer",
    {kind.name: f"{__name__}:{kind.__name__}" for kind in (Standard, MinMax, Quantile)},
)


def _checked(x: Array) -> Floats:
    values = np.asarray(x, np.float64)
    if not len(values):
        raise SourceError("a normalizer needs at least one row", found="no rows")
    bad = ~np.isfinite(values).all(axis=0)
    if bad.any():
        raise SourceError(
            "a normalizer cannot be fitted on NaN or infinity",
            found=f"channels {', '.join(map(str, np.flatnonzero(bad)))}",
            accepted="finite numbers",
        )
    return values


def _spread(scale: Floats, values: Floats) -> Floats:
    return np.where(scale <= CONSTANT * np.abs(values).max(axis=0), 0.0, scale)


def _exempted(shift: Floats, scale: Floats, exempt: npt.NDArray[np.bool_] | None) -> tuple[Floats, Floats]:
    if exempt is None:
        return shift, scale
    return np.where(exempt, 0.0, shift), np.where(exempt, 1.0, scale)


def _required(arrays: Mapping[str, Array], *names: str) -> list[Array]:
    missing = [name for name in names if name not in arrays]
    if missing:
        raise CheckpointError("the saved normalizer is incomplete", found=", ".join(arrays), accepted=", ".join(names))
    return [np.asarray(arrays[name]) for name in names]
