"""Every generator on hopper/medium-replay, by one ruler: the table of the README, `generators.hopper`.

    python benchmarks/generators.py [-o FOLDER]

Each is fitted on the same 100,000 rows with seed 0 (SynthER as in `make run`; controls and the VAE by their own
defaults) and writes 100,000 rows; `synthpipe compare` judges them, with its cheaters and fresh real rows. As many rows
again are held out: with a tenth of that, chance alone makes fresh real rows fail. What is finished is kept in the
folder, so it can be interrupted.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from evidence import record_table

from synth_pipeline import comparison, stages
from synth_pipeline.generators import GENERATORS
from synth_pipeline.machine import cores
from synth_pipeline.run_config import load_run_config
from synth_pipeline.runs import Run

ROWS = 100_000
TOLD = (
    "oracle.mean",
    "oracle.median",
    "c2st.sa",
    "marginals.mean",
    "dependence.correlation",
    "novelty.nn_ratio_sa",
    "membership.auc",
)


def made(kind: str, folder: Path) -> Path:
    """The run of a generator, fitted and sampled."""
    data = [f"collect.rows={2 * ROWS}", "held_out=0.5"]
    settings = [*data, f"generate.rows={ROWS}", *([] if kind == "synther" else [f"generator={{kind: {kind}}}"])]
    run, config = Run(folder / kind), load_run_config("default", settings)
    stages.collect(config.dataset, rows=config.collect.rows, workers=cores())
    stages.train(run, config)
    stages.generate(run, config, workers=cores())
    return run.directory


def line(entry: dict[str, Any]) -> dict[str, Any]:
    """What the table tells of a contestant."""
    values = {name: entry["metrics"].get(name, {}).get("value") for name in TOLD}
    about = {key: entry[key] for key in ("kind", "passed", "rules failed", "rules judged", "failed", "seconds")}
    return {**about, **{name: None if value is None else round(value, 5) for name, value in values.items()}}


def main() -> None:
    """Fit, sample, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/generators"))
    folder, begin = parser.parse_args().out, time.perf_counter()
    runs = [str(made(kind, folder)) for kind in GENERATORS.names()]
    board = comparison.compare(comparison.plan(runs, None, comparison.Choices()), folder / "board")
    entries = {entry["name"]: line(entry) for entry in board["entries"]}
    for name, numbers in entries.items():
        print(f"{name:<28}{numbers}")
    record_table(
        "generators.hopper",
        {"rows": ROWS, "suite": board["suite"], "ruler": board["self-test"]["sentence"], "entries": entries},
        complete=board["self-test"]["holds"] and all(numbers["c2st.sa"] is not None for numbers in entries.values()),
        seconds=time.perf_counter() - begin,
    )


if __name__ == "__main__":
    main()
