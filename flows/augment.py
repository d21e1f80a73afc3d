"""The whole path, run again whenever the source may have grown: what is finished is skipped.

In one run directory, stage by stage; or (`versions`, `append`) as a line of versions of the augmented dataset.
"""

from pathlib import Path

import tasks
from common import Workers, flow, front, parallel
from showing import Progress, show

from synth_pipeline import stages
from synth_pipeline.run_config import load_run_config
from synth_pipeline.runs import Run

STAGES = ("collect", "train", "generate", "validate", "export", "report")


@flow
def augment(
    preset: str = "default",
    out: Path = Path("runs/default"),
    settings: list[str] = [],  # noqa: B006  (Prefect copies parameters)
    versions: bool = False,
    append: bool = False,
    workers: Workers = 1,
    scheduler: str | None = None,
    yes: bool = False,
) -> Path:
    """Augment a dataset: collect, train, generate, validate, export, report. An unchanged source: nothing to do.

    Args:
        preset: Preset (default, smoke), or a YAML file of a run.
        out: Run directory; with versions or append, the folder of all versions.
        settings: Overrides of the preset, e.g. generate.rows=50000 or dataset=mine.npz.
        versions: A source that has changed makes a new version v0, v1, ..., warm-started from the last one.
        append: As versions, but the generator is kept, and rows are added.
        workers: Processes.
        scheduler: Address of a Dask scheduler, e.g. tcp://host:8786, instead of processes.
        yes: Go ahead even when it takes more than an hour.

    Returns:
        The report; of the newest version, where there are versions.
    """
    what, where = (preset, settings), parallel(workers, scheduler)
    if versions or append:
        progress = Progress(out, "augment")
        page: Path = tasks.augment(out, *what, append, where, yes)
        show(page)
        progress.ended("augment")
        return page
    stages.check(Run(out), load_run_config(*what))
    progress = Progress(out, *STAGES)
    tasks.collect(*what, where)
    progress.ended("collect")
    tasks.train(out, *what)
    progress.ended("train")
    tasks.generate(out, *what, where, yes)
    progress.ended("generate")
    tasks.validate(out, *what)
    progress.ended("validate")
    try:
        tasks.export(out, *what)
        progress.ended("export")
    finally:  # also what failed the gate is reported
        page = tasks.report(out)
        show(page)
    progress.ended("report")
    return page


if __name__ == "__main__":
    front(augment)
