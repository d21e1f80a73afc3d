"""The ensemble of the dynamics: (s, a) -> (s' - s, r), and what it says about data without a simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.fields import Array, Layout
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.data.split import HELD_OUT, HeldOut, split_dataset
from synth_pipeline.diffusion.loop import Report
from synth_pipeline.dynamics.regressor import Regressor, RegressorConfig
from synth_pipeline.errors import SourceError
from synth_pipeline.validation.oracle import ERRORS, difference_scale, hold_against
from synth_pipeline.validation.truth import Answer, Oracle, Truth, known_truth

Floats = npt.NDArray[np.float64]


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


class Ensemble:
    """The probabilistic ensemble of the dynamics.

    Args:
        config: Its numbers.
    """

    def __init__(self, config: RegressorConfig | None = None) -> None:
        self.config = config or RegressorConfig()

    def fit(self, data: Dataset, *, seed: int, report: Report | None = None, checkpoint: Path | None = None) -> None:
        """Train on all rows of `data`; what is held out must not be in it.

        Raises:
            SourceError: Without rows, or with NaN in them.
            TrainingDivergedError: When loss or gradient stop being finite.
        """
        columns = data.transitions().columns
        inputs = self._prepare(data.spec).pack(columns)
        self._regressor.fit(inputs, _targets(columns), seed=seed, report=report, checkpoint=checkpoint)

    def predict(self, observations: Array, actions: Array) -> Prediction:
        """Mixture of the members, moment-matched.

        Args:
            observations: `[n, o]`, physical units, finite.
            actions: `[n, a]`.
        """
        columns = {"observations": np.asarray(observations), "actions": np.asarray(actions)}
        found = self._regressor.predict(self._layout.pack(columns))
        return Prediction(
            next_observations=np.asarray(observations, np.float64) + found.mean[:, :-1],
            rewards=found.mean[:, -1],
            std=found.std,
            disagreement=found.disagreement,
        )

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Spec, normalizers, averaged weights."""
        return {"spec": self._spec.plain()}, self._regressor.arrays()

    def restore(self, values: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Inverse of `state`."""
        self._prepare(DatasetSpec.parse(values["spec"], where="saved spec"))
        self._regressor.restore(arrays)

    def _prepare(self, spec: DatasetSpec) -> Layout:
        self._spec, self._regressor = spec, Regressor(self.config)
        self._layout = Layout((spec.field("observations"), spec.field("actions")))
        return self._layout


def learned_oracle(ensemble: Ensemble) -> Oracle:
    """The ensemble's mean as an oracle, for data without a simulator; it is as good as its own held-out error."""

    def oracle(observations: Array, actions: Array) -> Answer:
        parts = [np.asarray(part).reshape(len(observations), -1) for part in (observations, actions)]
        judged = np.isfinite(np.concatenate(parts, axis=1)).all(axis=1)
        next_observations, rewards = np.full(observations.shape, np.nan), np.full(len(observations), np.nan)
        if judged.any():
            expected = ensemble.predict(observations[judged], actions[judged])
            next_observations[judged], rewards[judged] = expected.next_observations, expected.rewards
        return Answer(next_observations, rewards, judged, "learned ensemble")

    return oracle


def learned_floor(
    dataset: Dataset,
    seed: int,
    *,
    held_out: HeldOut = HELD_OUT,
    config: RegressorConfig | None = None,
    report: Report | None = None,
) -> dict[str, float]:
    """Held-out error of an ensemble: what plain regression makes of these dynamics.

    Args:
        dataset: The whole dataset.
        seed: Seed of the run.
        held_out: Share of the episodes, or ids of those, that the ensemble does not see: as generators of this seed.
        config: Numbers of the ensemble.
        report: Called now and then with (step, total steps, values).

    Returns:
        `mean`, `p95`, `p99`, `median` of the per-row error of `oracle.mean` on the held-out episodes.

    Raises:
        SourceError: When there are no two episodes, or no held-out row off the observation clip.
    """
    parts = split_dataset(dataset, held_out=held_out, seed=seed)
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
