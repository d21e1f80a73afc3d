"""Run directories that take a fraction of a second: arrays of short episodes, controls, no worker processes."""

import numpy as np
import toy_data

from synth_pipeline import stages
from synth_pipeline.run_config import RunConfig
from synth_pipeline.runs import Run

LENGTHS = [20] * 24
COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")
CONFIGURATION = {
    "dataset": "mine.npz",
    "held_out": 0.25,
    "generator": {"kind": "noise"},
    "generate": {"rows": 200, "rows_per_shard": 16_384, "micro_batch": 128},
    "validation": {"suite": "smoke", "learn_oracle": False},
}


def save_rows(path, seed=0):
    """Rows of a linear system as npz."""
    rows = toy_data.toy_dataset(LENGTHS, seed).transitions()
    np.savez(path, **{name: rows[name] for name in COLUMNS})


def fill_here(target, function, **_):
    """In place of `fill`: every shard in this process."""
    with target.writing() as writing:
        for task in writing.missing():
            function(task)
        writing.finalise()


def made(folder, patch, **settings):
    """A run that was trained and has generated; `mine.npz` is in the working directory."""
    patch.setattr(stages, "fill", fill_here)
    run, config = Run(folder), RunConfig.parse(CONFIGURATION | settings)
    stages.train(run, config)
    stages.generate(run, config)
    return run, config
