"""The whole path, run again whenever the source may have grown: what is finished is skipped.

In one run directory, stage by stage; or (`versions`, `append`) as a line of versions of the augmented dataset.
"""

from pathlib import Path

import tasks
from common import Workers, flow, front
from generate import made
from showing import Progress, show

from synth_pipeline import stages
from synth_pipeline.augmenting import history
from synth_pipeline.cli_options import workers_of
from synth_pipeline.run_config import load_run_config
from synth_pipeline.runs import Run

STAGES = ("collect", "train", "generate", "validate", "export", "evaluate", "report")
REPORT = "report.html"


@flow
def augment(
    preset: str = "default",
    out: Path | None = None,
    settings: list[str] = [],
    versions: bool = False,
    append: bool = False,
    workers: Workers = None,
    scheduler: str | None = None,
    over_an_hour: bool = False,
) -> Path:
    """Augment a dataset: collect, train, generate, validate, export, report. An unchanged source: nothing to do.

    Args:
        preset: Preset (default, paper, smoke), or a YAML file of a run.
        out: Run directory, or folder of all versions; none: runs/PRESET.
        settings: Overrides of the preset, e.g. generate.rows=50000 or dataset=mine.npz.
        versions: A source that has changed makes a new version v0, v1, ..., warm-started from the last one.
        append: As versions, but the generator is kept, and rows are added.
        workers: Processes; none: 1.
        scheduler: Address of a Dask scheduler, e.g. tcp://host:8786, instead of processes.
        over_an_hour: Go ahead even when it takes more than an hour.

    Returns:
        The report; of the newest version, where there are versions.
    """
    run, where = out or Path("runs") / Path(preset).stem, workers_of(workers, scheduler)
    if versions or append:
        return _as_versions(run, preset, settings, append, where, over_an_hour)
    config = load_run_config(preset, settings)
    stages.check(Run(run), config)
    in_run = config.evaluation.in_run
    progress = Progress(run, *[stage for stage in STAGES if stage != "evaluate" or in_run])
    tasks.collect(preset, settings, where)
    progress.ended("collect")
    tasks.train(run, preset, settings)
    progress.ended("train")
    return made(run, preset, settings, where, over_an_hour, progress, judge_use=in_run)


def _as_versions(root: Path, preset: str, settings: list[str], append: bool, where: int | str, yes: bool) -> Path:
    """One step of `augmenting.augment`, which knows by itself what is to be made."""
    progress = Progress(root, "augment")
    try:
        page: Path = tasks.augment(root, preset, settings, append, where, yes)
    finally:  # also what failed the gate is reported
        line = history(root)
        newest = root / line[-1]["version"] / REPORT if line else None
        if newest is not None and newest.exists():
            show(newest)
    progress.ended("augment")
    return page


if __name__ == "__main__":
    front(augment)
