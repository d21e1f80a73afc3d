"""Arms of a comparison: what is mixed into the real rows. Real rows alone, generated ones, controls, an upper bound.

Every arm sees one subset of the real data and nothing else: what generates or labels its rows is trained on that
subset. Only `fresh` sees more, for it is the upper bound: real rows that the others did not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline.agents.replay import columns_of, followed
from synth_pipeline.agents.scaling import complete
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.diffusion.loop import Report
from synth_pipeline.dynamics.ensemble import Ensemble
from synth_pipeline.dynamics.regressor import RegressorConfig
from synth_pipeline.errors import SourceError, unknown_name
from synth_pipeline.generators.base import build
from synth_pipeline.generators.controls import Noise
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.validation.truth import Truth, simulated, with_flags

TOP = 0.1  # share of the episodes


@dataclass(frozen=True)
class Ground:
    """What an arm is made from.

    Attributes:
        subset: The real rows of this draw.
        rest: Real episodes that the subset does not touch (held-out ones, where it is all others); None: none.
        truth: What is known of the environment.
        rows: How many rows the arm mixes in; of real rows again as many whole passes as come nearest.
        seed: Seed of whatever is trained or drawn.
        generator: Kind and settings of the generator.
        labels: Numbers of the ensemble that labels rows.
        generated: Rows of that generator, where they are made already.
        folder: Where resumable state of trainings goes; None: not resumable.
        report: Told of the progress of trainings.
    """

    subset: Dataset
    rest: Dataset | None
    truth: Truth
    rows: int
    seed: int
    generator: Mapping[str, Any]
    labels: RegressorConfig
    generated: Transitions | None = None
    folder: Path | None = None
    report: Report | None = None

    def rng(self, address: int) -> np.random.Generator:
        """A source of random numbers of this arm."""
        return stream(self.seed, Stage.EVALUATE, 1, address)

    def checkpoint(self, name: str) -> Path | None:
        """Where a training keeps its state."""
        return None if self.folder is None else self.folder / f"{name}.safetensors"


def real(ground: Ground) -> None:
    """The subset alone."""


def generated(ground: Ground) -> Transitions:
    """Rows of the generator, trained on the subset."""
    return _sampled(ground, ground.generator) if ground.generated is None else ground.generated


def relabelled(ground: Ground) -> Transitions:
    """(s, a) of the generator, s' and r of the simulator: what perfect dynamics would add.

    Raises:
        SourceError: When no simulator is known.
    """
    if ground.truth.oracle is None:
        raise SourceError("no simulator can label these rows", found="no known oracle", fix="leave this arm out")
    return columns_of(simulated(generated(ground), ground.truth))


def learned(ground: Ground) -> Transitions:
    """Real (s, a) again, s' and r of a one-step ensemble: whether smooth labels alone explain a gain."""
    return _labelled(ground, _evenly(ground, ground.subset.transitions()))


def noise(ground: Ground) -> Transitions:
    """Real s with noise, real a, s' and r of the ensemble: no generator, but new states."""
    control = Noise()
    control.fit(ground.subset, seed=ground.seed)
    rows = control.disturbed(_evenly(ground, ground.subset.transitions()), ground.rng(1))
    return _labelled(ground, rows)


def smote(ground: Ground) -> Transitions:
    """Interpolation between neighbours."""
    return _sampled(ground, {"kind": "smote"})


def duplicate(ground: Ground) -> Transitions:
    """Real rows again, with what was done next: an A/A test."""
    return columns_of(_evenly(ground, followed(ground.subset)))


def top(ground: Ground) -> Transitions:
    """Rows of the tenth of the episodes with the highest return, again: whether weighting alone explains a gain.

    Raises:
        SourceError: When the data have no episodes.
    """
    episodes = ground.subset.episodes
    if episodes is None:
        raise SourceError("the best episodes are wanted, and there are none", fix="leave this arm out")
    whole = np.flatnonzero(complete(ground.subset))
    count = max(1, round(TOP * len(whole)))
    best = whole[np.argsort(episodes.returns[whole], kind="stable")[-count:]]
    return columns_of(_evenly(ground, followed(Dataset(ground.subset.spec, episodes.take(np.sort(best))))))


def fresh(ground: Ground) -> Transitions:
    """Real rows that the subset does not have: the upper bound.

    Raises:
        SourceError: When nothing is left of the data.
    """
    if ground.rest is None or len(ground.rest) < ground.rows:
        left = 0 if ground.rest is None else len(ground.rest)
        raise SourceError(
            "too few real rows are left for the upper bound",
            found=f"{left:,}",
            accepted=f"{ground.rows:,}",
            fix="draw the subsets from more data, or mix in fewer rows",
        )
    rows = followed(ground.rest)
    return columns_of(rows.take(ground.rng(3).permutation(len(rows))[: ground.rows]))


ARMS: dict[str, Callable[[Ground], Transitions | None]] = {
    "real": real,
    "generated": generated,
    "relabelled": relabelled,
    "learned": learned,
    "noise": noise,
    "smote": smote,
    "duplicate": duplicate,
    "top": top,
    "fresh": fresh,
}


def make_rows(name: str, ground: Ground) -> Transitions | None:
    """The rows of an arm; None: nothing is mixed in.

    Raises:
        UnknownNameError: For an unknown arm.
        SourceError: When the arm cannot be made from this data.
    """
    if name not in ARMS:
        raise unknown_name("arm", name, ARMS)
    return ARMS[name](ground)


def _evenly(ground: Ground, rows: Transitions) -> Transitions:
    """Every row equally often, in random order: as many whole passes as come nearest to what is asked, at least one.

    Drawn with replacement some would count several times and others never, which is no A/A test: it was worse than real
    rows alone (`validation/utility.py`).
    """
    rng, passes = ground.rng(0), max(1, round(ground.rows / len(rows)))
    return rows.take(np.concatenate([rng.permutation(len(rows)) for _ in range(passes)]))


def _sampled(ground: Ground, settings: Mapping[str, Any]) -> Transitions:
    generator = build(settings)
    generator.fit(ground.subset, seed=ground.seed, report=ground.report, checkpoint=ground.checkpoint("generator"))
    return columns_of(generator.sample(ground.rows, ground.rng(0)))


def _labelled(ground: Ground, rows: Transitions) -> Transitions:
    ensemble = Ensemble(ground.labels)
    ensemble.fit(ground.subset, seed=ground.seed, report=ground.report, checkpoint=ground.checkpoint("labels"))
    expected = ensemble.predict(rows["observations"], rows["actions"])
    labelled = rows.with_columns(
        next_observations=ground.truth.bounded(expected.next_observations).astype(np.float32),
        rewards=expected.rewards.astype(np.float32),
    )
    return _with_terminations(labelled, ground.truth)


def _with_terminations(rows: Transitions, truth: Truth) -> Transitions:
    """Flags of the known function; without one, those that the rows came with."""
    return columns_of(rows if truth.terminated is None else with_flags(rows, truth.terminated))
