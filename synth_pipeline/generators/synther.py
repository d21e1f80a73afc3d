"""SynthER: Synthetic Experience Replay (Lu et al., NeurIPS 2023, arXiv:2303.06614).

A diffusion model (EDM, Karras et al. 2022, arXiv:2206.00364) is fitted to single transitions and sampled without end.
The preset `paper` follows the paper and its code to the letter; the defaults here are our recipe.

Our differences, each a setting
  1. `rows: factorised` draws p(s, a) by diffusion, then p(s' | s, a) and p(r | s, a, s'): each is an ensemble's mean,
     plus a diffused residual where a calibration test finds noise (`dynamics/conditional.py`). `joint` draws the whole
     row [s, a, r, s', termination] at once, as published; then `next_observations: difference` models s' - s.
  2. (s, a) go through quantile maps, so that the network spends nothing on marginals. (Whole rows at once are better
     z-scored: the maps stretch s' - s where it is small.)
  3. A pre-norm network modulated by the noise level, 19 times smaller than the published one.
  4. DPM-Solver++(2M) with few calls of the network instead of 255, from a noise that keeps rows near the data.
  5. Terminations come from the environment's own function where it is known, and (s, a) that begin where it says that
     an episode has ended are drawn again, for no real row does; otherwise they are modelled.
  6. Values at a bound (clipped velocities, saturated actions) are spread beyond it to learn, and clipped when drawn.
  7. `familiar`: (s, a) on which the ensemble of the dynamics disagrees more than on nearly all real rows are drawn
     again: the model cannot tell what follows there (as MOReL's detector of unknown (s, a), Kidambi et al. 2020,
     arXiv:2005.05951, eq. 2). The price: real rows as uncertain as that, 2 %, have no counterpart.
  8. `supported`: so are (s, a) that in some plane of two columns lie farther from all real rows than unseen real ones
     do, inside the walls of a maze for instance (`support.py`).
  9. `condition`: a relevance of rows (return, reward, nearness to a termination, rarity) that samples can be aimed at
     (PGR, Wang et al. 2024, arXiv:2410.18082), with importance weights that undo it.
Always: actions and clipped observations inside their bounds, flags boolean, no global state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field as Setting
from pydantic import model_validator

from synth_pipeline.config import Config
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Array, Field, Layout
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.diffusion.loop import Phases, under
from synth_pipeline.diffusion.trainer import TrainerConfig
from synth_pipeline.diffusion.vector import SamplerConfig, VectorConfig, VectorDiffusion
from synth_pipeline.dynamics.conditional import FOLDS, SEEN_BY_ALL, Conditional, ConditionalConfig, absent_member
from synth_pipeline.dynamics.regressor import Moments, RegressorConfig
from synth_pipeline.errors import ConfigError
from synth_pipeline.generators.base import Postprocess, Report, derived_fields, modelled_fields, require_can_sample
from synth_pipeline.generators.relevance import NOWHERE, RELEVANCE, Aim, Levels
from synth_pipeline.generators.support import PlaneSupport
from synth_pipeline.seeding import Stage, stream

SMALL = RegressorConfig(
    members=3,
    width=96,
    depth=2,
    trainer=TrainerConfig(gradient_steps=3_000, batch_size=512, learning_rate=5e-3, weight_decay=1e-4),
)
REDRAWS = 4  # rounds in which strange rows are drawn again; what still is strange then is kept
BEYOND = 0.3  # standard deviations, mean distance to which values at a bound are spread


class SyntherConfig(VectorConfig):
    """Every number of the method; those of the diffusion of rows stand at the top."""

    rows: Literal["factorised", "joint"] = Setting("factorised", description="p(s, a) first, or whole rows at once")
    next_observations: Literal["difference", "state"] = Setting("difference", description="model s' - s, or s' itself")
    normalizer: Literal["standard", "min_max", "quantile"] = Setting("quantile", description="fitted on real rows")
    derive_terminations: bool = Setting(True, description="leave flags to the environment's function where it is known")
    spread_bounds: bool = Setting(True, description="spread values at a bound beyond it while learning")
    familiar: float = Setting(
        0.98, gt=0, le=1, description="share of real rows as uncertain as a drawn one may be; 1: any (factorised rows)"
    )
    supported: float = Setting(
        0.995,
        gt=0,
        le=1,
        description="share of unseen real rows that lie as near to others in every plane of two columns"
        " as drawn ones must; 1: any (factorised rows)",
    )
    condition: str = Setting("none", description="relevance that samples can be aimed at; none: unconditional")
    condition_dropout: float = Setting(0.2, ge=0, lt=1, description="share of rows learned without their condition")
    sampler: SamplerConfig = Setting(
        SamplerConfig(num_steps=7, sigma_min=0.1, sigma_max=10.0), description="how samples are drawn"
    )
    trainer: TrainerConfig = Setting(
        TrainerConfig(gradient_steps=8_400, batch_size=1024, learning_rate=3e-3), description="the optimisation"
    )
    dynamics: ConditionalConfig = Setting(ConditionalConfig(), description="p(s' | s, a) of factorised rows")
    rewards: ConditionalConfig = Setting(ConditionalConfig(regressor=SMALL), description="p(r | s, a, s') likewise")

    @model_validator(mode="after")
    def _can_be_told(self) -> SyntherConfig:
        if self.condition != "none":
            self.network.require_condition()
        return self


class SynthER:
    """An EDM over transitions, whole or factorised."""

    kind: ClassVar[str] = "synther"
    settings: ClassVar[type[Config]] = SyntherConfig

    def __init__(self, config: SyntherConfig | None = None, *, device: str = "auto") -> None:
        self.config, self._device = config or SyntherConfig(), device
        self._aim = NOWHERE
        self._limit = math.inf  # disagreement of the dynamics ensemble up to which a row is familiar
        self._support: PlaneSupport | None = None
        if self.config.condition != "none":
            RELEVANCE.load(self.config.condition)  # a wrong name is an error before anything is trained

    @property
    def derives_terminations(self) -> bool:
        """As configured."""
        return self.config.derive_terminations

    @property
    def provenance(self) -> tuple[Field, ...]:
        """The importance weight of a row that was aimed at something."""
        return () if self.config.condition == "none" else (Field(name="weight"),)

    def fit(self, data: Dataset, *, seed: int, report: Report | None = None, checkpoint: Path | None = None) -> None:
        """Train what follows from (s, a), then the diffusion; a killed run goes on where it was, to the same bytes."""
        self._prepare(data.spec)
        rows = data.transitions().columns
        phases = self._phases(report, checkpoint)
        if self._follows:
            self._fit_what_follows(data, seed, phases)
        x = self._spread(self._pack(rows), stream(seed, Stage.TRAIN, 9))
        discrete = np.zeros(x.shape[1], bool)
        for field in self._layout:
            discrete[self._layout.slices[field.name]] = field.kind != "continuous"
        self._levels = Levels.of(self.config.condition, data)
        # Flags (as published) and classes stay 0 and 1: their spread says nothing about the scale on which they matter.
        self._diffusion.fit(x, seed=seed, exempt=discrete, **self._told(), **phases.phase("rows"))

    def update(self, data: Dataset, *, seed: int, share: float = 1.0, report: Report | None = None) -> None:
        """Train on from the present weights, on a buffer that has grown (SynthER online, sec. 4.2 of the paper).

        What follows from (s, a) is learned anew, which is cheap; the diffusion keeps its weights.

        Args:
            data: The whole buffer, old rows and new.
            seed: Of this update; another one for each.
            share: Gradient steps of the diffusion, as a share of a whole fit.
            report: Called now and then with (step, total steps, values).
        """
        phases = self._phases(report, None, share)
        if self._follows:
            self._fit_what_follows(data, seed, phases)
        x = self._spread(self._pack(data.transitions().columns), stream(seed, Stage.TRAIN, 9))
        self._levels = Levels.of(self.config.condition, data)
        report = phases.phase("rows")["report"]
        self._diffusion.continue_on(x, seed=seed, share=share, report=report, **self._told())

    def aimed(self, aim: Aim) -> SynthER:
        """This generator, with samples aimed at the rows of highest relevance.

        Raises:
            ConfigError: When the model was not trained with that condition, or all rows are equally relevant.
        """
        aim.require(self.config.condition)
        if aim.where is not None:
            self._levels.highest(aim)
        other = SynthER(self.config, device=self._device)
        other.__dict__.update(self.__dict__)
        other._aim = aim
        return other

    def sample(self, rows: int, rng: np.random.Generator) -> Transitions:
        """Noise at the address of the shard, through the solver, back to physical units."""
        require_can_sample(self, rows)
        levels, weights = self._levels.draw(rows, self._aim, rng)
        columns = self._drawn(levels, rows, rng)
        if self._follows:
            columns, expected = self._audited(columns, levels, rng)
            columns |= self._what_follows(columns, rng, expected)
        elif self.config.next_observations == "difference":
            columns["next_observations"] = columns["observations"] + columns["next_observations"]
        return self._post.from_columns(columns, {} if weights is None else {"weight": weights})

    def follow(self, rows: Transitions, rng: np.random.Generator) -> Transitions:
        """Given rows with s', r and derived flags drawn anew: what this model says would have followed.

        Raises:
            ConfigError: When whole rows were learned at once, which gives no model of what follows.
        """
        if not self._follows:
            raise ConfigError("nothing says what follows from (s, a)", found="rows joint", accepted="rows factorised")
        return self._post.from_columns({**rows.columns, **self._what_follows(dict(rows.columns), rng)}, {})

    def expected(self, rows: Transitions) -> dict[str, Array]:
        """The mean `next_observations` at the (s, a) of given rows, whether or not it is what is sampled."""
        before = np.asarray(rows["observations"], np.float64)
        change = self._next.predict(self._layout.pack(rows.columns)).mean
        return {"next_observations": (before + change.reshape(before.shape)).astype(np.float32)}

    def _fit_what_follows(self, data: Dataset, seed: int, phases: Phases) -> None:
        """p(s' - s | first) and p(r | first, s' - s, derived flags)."""
        rows = data.transitions().columns
        first, groups = self._layout.pack(rows), _groups(data, seed)
        if "next_observations" in self._follows:
            change = _flat(np.asarray(rows["next_observations"], np.float64) - rows["observations"])
            self._next.fit(first, change, groups=groups, seed=seed, address=1, name="dynamics", phases=phases)
            self._audit_by(first, groups)
        if "rewards" in self._follows:
            told, rewards = self._told_to_rewards(rows), _flat(np.asarray(rows["rewards"], np.float64))
            self._reward.fit(told, rewards, groups=groups, seed=seed, address=2, name="rewards", phases=phases)

    def _drawn(self, levels: Array | None, rows: int, rng: np.random.Generator) -> dict[str, Array]:
        """What the diffusion is a model of, inside the bounds that hold for it."""
        x = self._diffusion.sample(rows, rng, given=levels, guidance=self._aim.guidance)
        columns = self._layout.unpack(x)
        return columns | self._post.bounded(columns) if self._follows else columns

    def _audit_by(self, first: Array, groups: npt.NDArray[np.int64]) -> None:
        """What `_strange` needs, from real (s, a); members agree more on those that all have learned from."""
        c = self.config
        self._limit, self._support = math.inf, None
        if c.familiar < 1:
            unseen = absent_member(groups, c.dynamics.regressor.members) != SEEN_BY_ALL
            self._limit = float(np.quantile(self._next.predict(first[unseen]).disagreement, c.familiar))
        if c.supported < 1:
            self._support = PlaneSupport.fit(first, groups, c.supported)

    def _strange(self, first: Array, expected: Moments) -> npt.NDArray[np.bool_]:
        """`[n]`, (s, a) that are not to be kept."""
        strange = expected.disagreement > self._limit
        strange |= self._post.ended(self._layout.unpack(first)["observations"])
        return strange if self._support is None else strange | ~self._support.covers(first)

    def _audited(
        self, columns: dict[str, Array], levels: Array | None, rng: np.random.Generator
    ) -> tuple[dict[str, Array], Moments | None]:
        """Rows without the strange ones, which are drawn again, and what the ensemble expects of each."""
        if "next_observations" not in self._follows:
            return columns, None
        first = self._layout.pack(columns)
        expected = self._next.predict(first)
        strange = np.flatnonzero(self._strange(first, expected))
        for _ in range(REDRAWS):
            if not len(strange):
                break
            again = self._drawn(None if levels is None else levels[strange], len(strange), rng)
            for name, values in again.items():
                columns[name][strange] = values
            first = self._layout.pack(again)
            moments = self._next.predict(first)
            expected.replace(strange, moments)
            strange = strange[self._strange(first, moments)]
        return columns, expected

    def _what_follows(
        self, columns: dict[str, Array], rng: np.random.Generator, expected: Moments | None = None
    ) -> dict[str, Array]:
        found: dict[str, Array] = {}
        if "next_observations" in self._follows:
            change = self._next.sample(self._layout.pack(columns), rng, expected=expected)
            before = columns["observations"]
            found["next_observations"] = (before + change.reshape(before.shape)).astype(np.float32)
            found |= self._post.bounded(found)
        if "rewards" in self._follows:
            rewards = self._reward.sample(self._told_to_rewards({**columns, **found}), rng)
            found["rewards"] = rewards[:, 0].astype(np.float32)
        return found

    def _told_to_rewards(self, columns: Mapping[str, Array]) -> Array:
        """What a reward may depend on: the row, the change of the state, and the termination that follows from it."""
        parts = [self._layout.pack(columns)]
        if self._spec.has("next_observations"):
            parts.append(_flat(np.asarray(columns["next_observations"], np.float64) - columns["observations"]))
            if self._derived:
                parts.append(self._post.terminated(columns["next_observations"])[:, None])
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def notes(self) -> list[str]:
        """What the fit decided, in words."""
        found = []
        for name, model in self._models().items():
            noisy, every = int(model.noisy.sum()), len(model.noisy)
            what = f"{noisy} of {every} components hold noise, which is sampled"
            found.append(f"{name}: {what if noisy else 'what is left looks like model error, so the mean is taken'}")
            if doubtful := int((model.doubtful & ~model.noisy).sum()):
                why = "its errors on rows that it has seen are far smaller, so noise cannot be told from model error"
                found.append(f"{name}: {doubtful} of {every} components are not decidable: {why}; the mean is taken")
        return found

    @property
    def precision(self) -> str:
        """In what the diffusion computes its matrix products."""
        return self._diffusion.precision

    @property
    def calls(self) -> int:
        """Calls of diffusion networks for one row."""
        return self.config.sampler.calls + sum(model.calls for model in self._models().values())

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Spec, what follows from (s, a), diffusion, levels of the condition."""
        values: dict[str, Any] = {"spec": self._spec.plain()}
        arrays = self._levels.arrays() | {"limit": np.array([self._limit])}
        if self._support is not None:
            arrays |= {f"support.{name}": value for name, value in self._support.arrays().items()}
        models: dict[str, VectorDiffusion | Conditional] = {"rows": self._diffusion, **self._models()}
        for name, model in models.items():
            values[name], own = model.state()
            arrays |= {f"{name}.{key}": value for key, value in own.items()}
        return values, arrays

    def restore(self, values: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Inverse of `state`."""
        self._prepare(DatasetSpec.parse(values["spec"], where="saved spec"))
        self._levels = Levels.from_arrays(self.config.condition, arrays)
        self._limit = float(arrays["limit"][0]) if self.config.familiar < 1 else math.inf
        audited = "next_observations" in self._follows and self.config.supported < 1
        self._support = PlaneSupport.from_arrays(under(arrays, "support.")) if audited else None
        self._diffusion.restore(values["rows"], under(arrays, "rows."))
        for name, model in self._models().items():
            model.restore(values[name], under(arrays, f"{name}."))

    def _prepare(self, spec: DatasetSpec) -> None:
        config = self.config
        self._spec, self._derived = spec, derived_fields(spec) if config.derive_terminations else ()
        present = {field.name for field in spec.fields}
        follows = {"next_observations", "rewards"} & present if config.rows == "factorised" else set()
        self._follows = frozenset(follows)
        fields = tuple(f for f in modelled_fields(spec) if f.name not in self._derived and f.name not in follows)
        if config.next_observations == "difference":  # which has other bounds than a state
            fields = tuple(f.replace(clip=False) if f.name == "next_observations" else f for f in fields)
        self._layout = Layout(fields)
        self._post = Postprocess(spec, derive=config.derive_terminations)
        self._diffusion = VectorDiffusion(config, device=self._device)
        self._next = Conditional(config.dynamics, device=self._device)
        self._reward = Conditional(config.rewards, device=self._device)

    def _models(self) -> dict[str, Conditional]:
        models = {"next_observations": ("dynamics", self._next), "rewards": ("rewards", self._reward)}
        return {name: model for field, (name, model) in models.items() if field in self._follows}

    def _phases(self, report: Report | None, checkpoint: Path | None, share: float = 1.0) -> Phases:
        steps: dict[str, int] = {}
        for name, model in self._models().items():
            steps |= model.phases(name)
        return Phases(steps | {"rows": self.config.trainer.shortened(share).gradient_steps}, report, checkpoint)

    def _told(self) -> dict[str, Any]:
        return {"given": self._levels.values, "dropout": self.config.condition_dropout}

    def _pack(self, columns: Mapping[str, Array]) -> Array:
        if "next_observations" in self._layout.slices and self.config.next_observations == "difference":
            change = columns["next_observations"] - columns["observations"]
            columns = {**columns, "next_observations": change}
        return self._layout.pack(columns)

    def _spread(self, x: Array, rng: np.random.Generator) -> Array:
        """Values at a bound that the environment clips to, moved beyond it: a density instead of an atom."""
        if not self.config.spread_bounds:
            return x
        low, high = self._post.limits(self._layout)
        change = self._layout.slices.get("next_observations", slice(0))
        if self.config.next_observations == "difference":  # which has other bounds than a state
            low[change], high[change] = -np.inf, np.inf
        far = BEYOND * x.std(axis=0) * rng.exponential(size=x.shape)
        return np.where(x >= high, high + far, np.where(x <= low, low - far, x)).astype(np.float32)


def _flat(values: Array) -> Array:
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _groups(data: Dataset, seed: int) -> Array:
    """`[n]`, rows that belong together, in random order: episodes, or single rows where there are none.

    Fewer than ten episodes are cut into stretches, so that no member of an ensemble leaves out all there is.
    """
    rng, episodes = stream(seed, Stage.TRAIN, 8), data.episodes
    if episodes is None:
        return rng.permutation(len(data))
    pieces = math.ceil(FOLDS / len(episodes))
    stretch = episodes.steps * pieces // episodes.lengths[episodes.episode_ids]
    return rng.permutation(len(episodes) * pieces)[episodes.episode_ids * pieces + stretch]
