"""Controls: the baselines that every leaderboard shows beside a generative model.

- `duplicate`: real rows again, drawn with replacement as generators draw. Any "gain" from it is a confound of batch or
  step counts. (The arm `duplicate` of an evaluation has each row equally often: the stricter A/A test.)
- `noise`: S4RL (Sinha et al. 2021, arXiv:2103.06326) and RAD (Laskin et al. 2020, arXiv:2004.14990) on states.
- `smote`: interpolation between neighbours of different episodes (Chawla et al. 2002, "SMOTE", sec. 4.2).
- `copula`: Gaussian copula: every column through its quantiles, one correlation matrix, no conditional structure.

None of them knows dynamics beyond what neighbouring rows share; a generator that does not beat them has
learned nothing that is worth its cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field as Setting
from pydantic import model_validator

from synth_pipeline.config import Config
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Array, Field, Layout
from synth_pipeline.data.normalize import Quantile, Standard
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.errors import ConfigError
from synth_pipeline.generators.base import (
    SOURCE_FIELDS,
    TARGET_FIELDS,
    Postprocess,
    Report,
    modelled_fields,
    require_can_sample,
    source_columns,
)
from synth_pipeline.tracking import counted

DEEPEST = 1280  # neighbours looked at before other episodes get a tree of their own
SPOKEN = 8_192  # rows between two reports
BLOCK = 4_000_000  # neighbour candidates held at once, about 100 MB


class _RowKeeper:
    """Base of the controls that rework real rows: keeps the rows and where each came from."""

    provenance: ClassVar[tuple[Field, ...]] = SOURCE_FIELDS
    derives_terminations = True

    def fit(self, data: Dataset, *, seed: int, report: Report | None = None, checkpoint: Path | None = None) -> None:
        """Keep the training rows."""
        rows = data.transitions()
        self._spec = data.spec
        # C order, as they are when loaded: sums over a column depend on the order in memory in their last bit.
        self._rows = {f.name: np.asarray(rows[f.name], f.dtype, order="C") for f in modelled_fields(data.spec)}
        self._source = source_columns(data)
        self._prepare()

    def _prepare(self) -> None:
        self._post = Postprocess(self._spec)

    def _origin(self, chosen: Array) -> dict[str, Array]:
        return {name: column[chosen] for name, column in self._source.items()}

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Spec, rows and their origin."""
        rows = {f"row.{name}": column for name, column in self._rows.items()}
        return {"spec": self._spec.plain()}, {**rows, **self._source}

    def restore(self, values: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Inverse of `state`."""
        self._spec = DatasetSpec.parse(values["spec"], where="saved spec")
        self._rows = {field.name: arrays[f"row.{field.name}"] for field in modelled_fields(self._spec)}
        self._source = {field.name: arrays[field.name] for field in SOURCE_FIELDS}
        self._prepare()

    @property
    def _count(self) -> int:
        return len(self._source["source_step"])


class DuplicateConfig(Config):
    """Nothing to set."""


class Duplicate(_RowKeeper):
    """Real rows drawn uniformly with replacement."""

    kind: ClassVar[str] = "duplicate"
    settings: ClassVar[type[Config]] = DuplicateConfig
    derives_terminations = False

    def __init__(self, config: DuplicateConfig | None = None) -> None:
        self.config = config or DuplicateConfig()

    def sample(self, rows: int, rng: np.random.Generator) -> Transitions:
        """Draw rows; nothing is changed, recorded terminations included."""
        require_can_sample(self, rows)
        chosen = rng.integers(self._count, size=rows)
        return Transitions({name: c[chosen] for name, c in self._rows.items()} | self._origin(chosen))


class NoiseConfig(Config):
    """S4RL's Gaussian and uniform state noise, RAD's amplitude scaling."""

    mode: Literal["gaussian", "uniform", "amplitude"] = Setting("gaussian", description="kind of augmentation")
    scale: float = Setting(3e-3, gt=0, le=10, description="noise in standard deviations of each component")
    amplitude: tuple[float, float] = Setting((0.8, 1.2), description="range of the factor per row (mode amplitude)")

    @model_validator(mode="after")
    def _rising(self) -> NoiseConfig:
        if not self.amplitude[0] <= self.amplitude[1]:
            raise ValueError("amplitude has its smaller value first")
        return self


class Noise(_RowKeeper):
    """S4RL: s~ = s + eps, s'~ = s' + eps', independent per row; RAD: both times one factor per row."""

    kind: ClassVar[str] = "noise"
    settings: ClassVar[type[Config]] = NoiseConfig

    def __init__(self, config: NoiseConfig | None = None) -> None:
        self.config = config or NoiseConfig()

    def sample(self, rows: int, rng: np.random.Generator) -> Transitions:
        """Draw rows and disturb their observations; actions and rewards stay as recorded."""
        require_can_sample(self, rows)
        chosen = rng.integers(self._count, size=rows)
        drawn = Transitions({name: column[chosen] for name, column in self._rows.items()})
        return self.disturbed(drawn, rng).with_columns(**self._origin(chosen))

    def disturbed(self, rows: Transitions, rng: np.random.Generator) -> Transitions:
        """Given real rows with noise on their observations, before and after."""
        names = ("observations", "next_observations")
        if self.config.mode == "amplitude":
            factor = rng.uniform(*self.config.amplitude, size=(len(rows), 1))
            noisy = {name: rows[name] * factor for name in names}
        else:
            scale = self.config.scale * self._rows["observations"].std(axis=0)
            noisy = {name: rows[name] + scale * self._draw(rows[name].shape, rng) for name in names}
        return self._post.from_columns({**rows.columns, **noisy}, {})

    def _draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        if self.config.mode == "uniform":
            return rng.uniform(-1.0, 1.0, size=shape)
        return rng.standard_normal(shape)


class SmoteConfig(Config):
    """Interpolation between neighbours."""

    neighbours: int = Setting(5, ge=1, le=100, description="nearest rows of other episodes to choose from")
    skip_clipped: bool = Setting(True, description="leave out rows whose observation is clipped by the environment")


class Smote(_RowKeeper):
    """SMOTE between (s, a) neighbours of different episodes: x = x_i + u (x_j - x_i), u ~ U(0, 1), one u per row."""

    kind: ClassVar[str] = "smote"
    settings: ClassVar[type[Config]] = SmoteConfig
    provenance: ClassVar[tuple[Field, ...]] = SOURCE_FIELDS + TARGET_FIELDS

    def __init__(self, config: SmoteConfig | None = None) -> None:
        self.config = config or SmoteConfig()

    def fit(self, data: Dataset, *, seed: int, report: Report | None = None, checkpoint: Path | None = None) -> None:
        """Keep the rows and find the neighbours of each, exactly.

        Raises:
            ConfigError: When a row has fewer than `neighbours` rows of other episodes, or every row is clipped.
        """
        super().fit(data, seed=seed)
        if self.config.skip_clipped and data.spec.environment is not None:
            self._keep(_unclipped(data.spec, self._rows))
        episode = self._source["source_episode"]
        without = np.arange(self._count)  # without episodes every row is one of its own
        self._neighbours = _other_neighbours(
            self._features(), np.where(episode < 0, without, episode), self.config.neighbours, report
        )

    def _keep(self, mask: Array) -> None:
        self._rows = {name: column[mask] for name, column in self._rows.items()}
        self._source = {name: column[mask] for name, column in self._source.items()}

    def _features(self) -> Array:
        fields = tuple(f for f in modelled_fields(self._spec) if f.name in ("observations", "actions"))
        x = Layout(fields).pack(self._rows)
        return Standard.fit(x).encode(x) if len(x) else x

    def sample(self, rows: int, rng: np.random.Generator) -> Transitions:
        """Interpolate; flags and classes are those of the nearer end, then terminations by the known function."""
        require_can_sample(self, rows)
        first = rng.integers(self._count, size=rows)
        second = self._neighbours[first, rng.integers(self.config.neighbours, size=rows)]
        u = rng.random(rows)
        columns = {}
        for field in self._post.layout:
            a, b = self._rows[field.name][first], self._rows[field.name][second]
            weight = u.reshape(rows, *[1] * (a.ndim - 1))
            columns[field.name] = a + weight * (b - a) if field.kind == "continuous" else np.where(weight < 0.5, a, b)
        target = {f"target_{name[7:]}": column for name, column in self._origin(second).items()}
        return self._post.from_columns(columns, self._origin(first) | target)

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Rows and neighbours."""
        values, arrays = super().state()
        return values, {**arrays, "neighbours": self._neighbours}

    def restore(self, values: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Inverse of `state`."""
        super().restore(values, arrays)
        self._neighbours = arrays["neighbours"]


class CopulaConfig(Config):
    """Gaussian copula."""

    shrinkage: float = Setting(1e-6, ge=0, le=1, description="weight of the identity in the correlation matrix")


class Copula:
    """Gaussian copula: z ~ N(0, C) in normal scores, columns back through their empirical quantiles."""

    kind: ClassVar[str] = "copula"
    settings: ClassVar[type[Config]] = CopulaConfig
    provenance: ClassVar[tuple[Field, ...]] = ()
    derives_terminations = True

    def __init__(self, config: CopulaConfig | None = None) -> None:
        self.config = config or CopulaConfig()

    def fit(self, data: Dataset, *, seed: int, report: Report | None = None, checkpoint: Path | None = None) -> None:
        """Quantiles of each channel and the correlation of their normal scores."""
        self._spec = data.spec
        x = Layout(modelled_fields(data.spec)).pack(data.transitions().columns)
        self._marginals = Quantile.fit(x)
        scores = self._marginals.encode(x).astype(np.float64)
        scores /= np.where(scores.std(axis=0) < 1e-9, 1.0, scores.std(axis=0))
        correlation = (1 - self.config.shrinkage) * (scores.T @ scores / len(scores))
        values, vectors = np.linalg.eigh(correlation + self.config.shrinkage * np.eye(len(correlation)))
        self._root = vectors * np.sqrt(np.clip(values, 0.0, None))
        self._post = Postprocess(self._spec)

    def sample(self, rows: int, rng: np.random.Generator) -> Transitions:
        """Correlated normal scores through the inverse marginals."""
        require_can_sample(self, rows)
        z = rng.standard_normal((rows, len(self._root))) @ self._root.T
        return self._post.from_vectors(self._marginals.decode(z), {})

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Spec, quantiles, root of the correlation."""
        return {"spec": self._spec.plain()}, {**self._marginals.arrays(), "root": self._root}

    def restore(self, values: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Inverse of `state`."""
        self._spec = DatasetSpec.parse(values["spec"], where="saved spec")
        self._marginals = Quantile.from_arrays(arrays)
        self._root = arrays["root"]
        self._post = Postprocess(self._spec)


def _other_neighbours(x: Array, episode: Array, k: int, report: Report | None = None) -> Array:
    """`[n, k]`, the nearest rows of `x [n, channels]` that belong to another episode, nearest first; exact.

    `report` is told how many rows have their neighbours.
    """
    from scipy.spatial import cKDTree

    _require_others(np.unique(episode, return_counts=True)[1], k)
    tree, found = cKDTree(x), np.full((len(x), k), -1, np.int64)
    missing, depth = np.arange(len(x)), 4 * k
    while len(missing) and depth <= DEEPEST:
        columns = np.arange(1, min(depth, len(x)) + 1)
        for rows in np.array_split(missing, 1 + len(missing) * depth // BLOCK + len(missing) // SPOKEN):
            near = tree.query(x[rows], k=columns, workers=-1)[1]
            other = episode[near] != episode[rows, None]
            rank = np.cumsum(other, axis=1)
            full = rank[:, -1] >= k
            found[rows[full]] = near[full][other[full] & (rank[full] <= k)].reshape(-1, k)
            if report is not None:
                report(int((found[:, 0] >= 0).sum()), len(x), {})
        missing, depth = missing[found[missing, 0] < 0], 4 * depth
    for own in np.unique(episode[missing]):  # only episodes of about DEEPEST rows and more, so there are few
        rows, outside = missing[episode[missing] == own], np.flatnonzero(episode != own)
        found[rows] = outside[cKDTree(x[outside]).query(x[rows], k=np.arange(1, k + 1), workers=-1)[1]]
    return found


def _require_others(lengths: Array, k: int) -> None:
    """Check that every row has `k` rows outside its episode.

    Args:
        lengths: Usable rows of each episode that has any.
        k: Neighbours asked for.

    Raises:
        ConfigError: With the way out that there is: one episode has no neighbours, whatever their number.
    """
    rows = int(lengths.sum())
    room = rows - int(lengths.max(initial=0))
    if room >= k:
        return
    if not rows:
        fix = "--set generator.skip_clipped=false, or another generator, e.g. -g copula"
    elif not room:
        fix = "use data of two episodes or more, or another generator, e.g. -g copula"
    else:
        fix = f"--set generator.neighbours={room}, or use more episodes"
    raise ConfigError(
        "smote needs neighbours from other episodes",
        found=f"{counted(len(lengths), 'episode')}, {counted(rows, 'usable row')}",
        accepted=f"at least {counted(k, 'row')} outside every episode",
        fix=fix,
    )


def _unclipped(spec: DatasetSpec, rows: Mapping[str, Array]) -> Array:
    from synth_pipeline import envs

    assert spec.environment is not None
    return envs.make(spec.environment).resettable(rows["observations"], rows["next_observations"])
