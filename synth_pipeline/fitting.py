"""Fitting the generator of a run: anew, from its last checkpoint, or on from an earlier one; saved with its facts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from synth_pipeline.config import content_hash
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.split import SplitData
from synth_pipeline.diffusion.loop import Report
from synth_pipeline.generators import base as generators
from synth_pipeline.run_config import RunConfig
from synth_pipeline.runs import Run, clear_partials, read_json, write_json
from synth_pipeline.scale.fitted import FittedFacts, fitted_facts, made_from, update_seed
from synth_pipeline.sources.base import hash_prefix, units
from synth_pipeline.tracking import FitProgress, duration, say, short, tracking

NOTED_S = 2.0  # between notes of the time that a fit takes


def fit_generator(
    run: Run,
    config: RunConfig,
    dataset: Dataset,
    parts: SplitData,
    fingerprint: str,
    *,
    tracker: str,
    warm_from: Path | None,
) -> None:
    """Fit on the training part and save.

    Args:
        run: Where the state of the training and the model go.
        config: The run's configuration.
        dataset: All rows.
        parts: Those that are trained on, and those that are held out.
        fingerprint: Of the dataset.
        tracker: Name of the tracker.
        warm_from: Folder of a generator that is trained on; None: fit anew.
    """
    settings = made_from(config)
    key = content_hash(fingerprint, settings)
    with tracking(run.folder("model"), tracker) as metrics, FitProgress(metrics) as bar:
        progress = Spent(bar, run.training_state(key).with_suffix(".json"))
        if warm_from is not None:
            new, share = update_seed(config, fingerprint), config.augment.share
            generator = generators.updated(warm_from, parts.train, seed=new, share=share, report=progress)
        else:
            if run.began_training(key):
                say("", "a training that was cut short goes on from its last checkpoint")
            generator = generators.build(config.generator)
            generator.fit(parts.train, seed=config.seed, report=progress, checkpoint=run.training_state(key))
    seconds = progress.seconds
    facts = FittedFacts(
        made_from=settings,
        fingerprint=fingerprint,
        key=key,
        spec=dataset.spec.plain(),
        held_out_episodes=parts.split.held_out.tolist() if parts.split else None,
        seconds=seconds,
        units=units(dataset),
        history=hash_prefix(dataset, units(dataset)),
        warm_from=None if warm_from is None else fitted_facts(warm_from, config).key,
    )
    clear_partials(run.generator)
    generators.save(generator, run.generator, extra=facts.model_dump())
    run.drop_training_states()
    for note in generator.notes() if isinstance(generator, generators.Noted) else []:
        say("", note)
    say("train", f"fitted in {duration(seconds)}: {short(run.generator)}")


class Spent:
    """A progress report that keeps on disk how long a fit takes, so that killed processes are counted too.

    Args:
        report: What is told of every step.
        path: File of the seconds; those in it were spent before.
    """

    def __init__(self, report: Report, path: Path) -> None:
        self._report, self._path = report, path
        self._before = float(read_json(path)["seconds"]) if path.exists() else 0.0
        self._begin = self._kept = time.monotonic()

    @property
    def seconds(self) -> float:
        """Of all processes together; what one did after its last report is lost with it."""
        return self._before + time.monotonic() - self._begin

    def __call__(self, step: int, total: int, values: Mapping[str, float]) -> None:
        """Pass it on; note the time now and then."""
        self._report(step, total, values)
        if time.monotonic() - self._kept > NOTED_S:
            write_json(self._path, {"seconds": round(self.seconds, 2)})
            self._kept = time.monotonic()
