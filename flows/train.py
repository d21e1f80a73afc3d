"""Fit a generator: collect -> train."""

from pathlib import Path
from typing import Literal

import tasks
from common import Workers, flow, front
from showing import Progress

from synth_pipeline import stages
from synth_pipeline.cli_options import workers_of
from synth_pipeline.run_config import load_run_config
from synth_pipeline.runs import Run


@flow
def train(
    preset: str = "default",
    out: Path | None = None,
    settings: list[str] = [],
    track: Literal["jsonl", "tensorboard"] = "jsonl",
    workers: Workers = None,
    scheduler: str | None = None,
) -> Path:
    """Fit a generator on a dataset, which is collected first where it is one of the catalog's.

    Args:
        preset: Preset (default, paper, smoke), or a YAML file of a run.
        out: Run directory; none: runs/PRESET.
        settings: Overrides of the preset, e.g. generator.kind=vae or seed=1.
        track: Where losses go; tensorboard: beside jsonl.
        workers: Processes that collect; none: 1.
        scheduler: Address of a Dask scheduler, e.g. tcp://host:8786, instead of processes.

    Returns:
        The folder of the fitted generator.
    """
    run = out or Path("runs") / Path(preset).stem
    stages.check(Run(run), load_run_config(preset, settings))
    progress = Progress(run, "collect", "train")
    tasks.collect(preset, settings, workers_of(workers, scheduler))
    progress.ended("collect")
    model: Path = tasks.train(run, preset, settings, track)
    progress.ended("train")
    return model


if __name__ == "__main__":
    front(train)
