"""The first honest study of what synthetic rows are worth; written down before it ran (2026-11-26).

    python validation/utility.py values     # E1: utility.value_probe
    python validation/utility.py returns    # E2: utility.returns, .small_data_lift, .full_data_noninferior
    python validation/utility.py quality    # E4: utility.quality
    python validation/utility.py values --size 10000  # only these cells; tables and claims when all are there
    python validation/utility.py --bill     # what is left, and how long it takes

**E1.** Fitted Q evaluation of a fixed policy (hopper, halfcheetah: the shipped medium snapshot), 20,000 steps, its
values held against Monte-Carlo returns from 500 held-out states. Real rows: 3,000, 10,000 and 100,000 of hopper, 10,000
of halfcheetah, five draws each from a pool of 300,000. Every arm mixes 100,000 rows in, half of each batch; what
generates or labels them is trained on the draw alone. Outcome: error of the values in standard deviations of the true
ones; an arm is better where the paired 95 % interval over the draws excludes 0.

**E2.** Returns of TD3+BC after 30,000 steps on 10,000 and 100,000 rows of hopper, ten draws with one training each, for
real rows, SynthER, SMOTE and fresh real rows. Score: mean of the last five evaluations of ten episodes. Claims: at
10,000 rows the difference of SynthER to real rows has an interval above 0 and a mean above that of SMOTE, the best
control that needs no training; at 100,000 rows its lower limit is above -2 (0: uniform actions, 100: our best policy).

**E4.** The same value probe at 10,000 rows over kinds of data: replay, medium, narrow expert, nine parts medium and one
part expert; five draws, arms real, SynthER, SMOTE, learned labels, fresh.

SynthER is fitted as `make run` does it, a third of its own defaults, because 45 default trainings are twenty hours of a
core; that fit passes the gate on 100,000 rows (changed on 2026-11-27, before anything ran: it was 2,000 of the default
steps; learned labels, which had their own ensemble, come from one like SynthER's). Cells lie in `runs/utility/`,
finished ones on record in `results/cells/`; a killed program goes on where it was, with `--workers` processes of one
thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from cells_on_record import refresh, run_on_record
from evidence import record, record_table

from synth_pipeline import stages
from synth_pipeline.evaluation.statistics import paired_difference
from synth_pipeline.evaluation.study import Cell, StudyConfig
from synth_pipeline.evaluation.tables import BASELINE, outcomes, scale_of, sentence, table
from synth_pipeline.machine import cores
from synth_pipeline.run_config import load_run_config
from synth_pipeline.scale.studies import bill, missing, run_study, tasks_of
from synth_pipeline.tracking import duration

RESULTS = Path(__file__).resolve().parent / "results"
FOLDER = Path("runs/utility")
POOL, ROWS = 300_000, 100_000
MARGIN = 2.0  # of a score from 0 to 100 that may be lost on full data
SYNTHER = load_run_config("default").generator
GENERATED = {"kind": "generated", "generator": SYNTHER, "rows": ROWS}
LABELLED = {"labels": SYNTHER["dynamics"]["regressor"], "rows": ROWS}  # by the same ensemble that SynthER has
ARMS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "synther": GENERATED,
    "synther, simulator labels": {**GENERATED, "kind": "relabelled"},
    "real (s, a), learned labels": {"kind": "learned", **LABELLED},
    "noise, learned labels": {"kind": "noise", **LABELLED},
    "smote": {"kind": "smote", "rows": ROWS},
    "fresh real rows": {"kind": "fresh", "rows": ROWS},
    "real, regularised": {"agent": {"weight_decay": 0.1}},
}
PROBE = {"fqe": {"policy": "medium", "gradient_steps": 20_000}}
KINDS = ("hopper/medium-replay", "hopper/medium", "hopper/expert", "hopper/medium-expert-10")


def arms(*names: str) -> dict[str, dict[str, Any]]:
    """Some of them."""
    return {name: ARMS[name] for name in names}


def study(dataset: str, **given: Any) -> StudyConfig:
    """One study on a pool of collected rows."""
    return StudyConfig.parse({"dataset": dataset, "rows": POOL, "seeds": 1, **given}, where="study")


def values() -> dict[str, StudyConfig]:
    """E1."""
    given = {"arms": ARMS, "agents": PROBE, "outcome": "values", "draws": 5}
    return {
        "hopper": study("hopper/medium-replay", sizes=(3_000, 10_000, 100_000), **given),
        "halfcheetah": study("halfcheetah/medium-replay", sizes=(10_000,), **given),
    }


def returns() -> dict[str, StudyConfig]:
    """E2."""
    some = arms(BASELINE, "synther", "smote", "fresh real rows")
    agents = {"td3_bc": {"gradient_steps": 30_000}}
    return {"hopper": study("hopper/medium-replay", sizes=(10_000, 100_000), draws=10, arms=some, agents=agents)}


def quality() -> dict[str, StudyConfig]:
    """E4."""
    some = arms(BASELINE, "synther", "smote", "real (s, a), learned labels", "fresh real rows")
    given = {"arms": some, "agents": PROBE, "outcome": "values", "draws": 5, "sizes": (10_000,)}
    return {kind: study(kind, **given) for kind in KINDS}


STUDIES = {"values": values, "returns": returns, "quality": quality}
CLAIMS = {"values": "utility.value_probe", "returns": "utility.returns", "quality": "utility.quality"}


def on_record(what: str, name: str) -> Path:
    """Where the finished cells of a study are kept."""
    return RESULTS / "cells" / f"utility.{what}.{name.replace('/', '.')}.jsonl"


def measure(what: str, workers: int, size: int | None) -> None:
    """Run one of them, or its cells of one size; write what came out once every cell is there."""

    def wanted(cell: Cell) -> bool:
        return size is None or cell.size == size

    began, found, left = time.perf_counter(), {}, 0
    for name, config in STUDIES[what]().items():
        stages.collect(config.dataset, rows=POOL, workers=workers)
        run_on_record(config, FOLDER, on_record(what, name), workers=workers, only=wanted)
        if open_cells := len(missing(tasks_of(config, FOLDER))):
            left += open_cells
            continue
        results = run_study(config, FOLDER)  # of all sizes; they are there
        scale = scale_of(name, 1_000) if what == "returns" else None
        rows = table(config, results, scale)
        found[name] = {"study": config.plain(), "table": rows, "sentence": sentence(rows)}
        print(name, found[name]["sentence"], flush=True)
        if what == "returns":
            claims(config, results, scale, began)
    if left:
        print(f"{what}: {left} cells of other sizes are missing, so there is no table yet")
        return
    seconds = time.perf_counter() - began
    record_table(CLAIMS[what], found, complete=True, seconds=seconds, folder=RESULTS)


def claims(config: StudyConfig, results: Any, scale: Any, began: float) -> None:
    """The two claims of E2."""

    def scores(size: int, arm: str) -> dict[str, Any]:
        return {"hopper": outcomes(results, scale, size=size, arm=arm)}

    small, full = config.sizes
    assert small is not None
    assert full is not None
    lift = paired_difference(scores(small, "synther"), scores(small, BASELINE))
    control = paired_difference(scores(small, "smote"), scores(small, BASELINE))
    whole = paired_difference(scores(full, "synther"), scores(full, BASELINE))
    details = {"synther": lift.plain(), "smote": control.plain(), "rows": small}
    above = min(lift.low or -1e9, (lift.value or -1e9) - (control.value or 0.0))
    given: dict[str, Any] = {"seconds": time.perf_counter() - began, "folder": RESULTS}
    unit = "lower limit of the lift in points, or its lead on SMOTE where that is smaller"
    record("utility.small_data_lift", above, bar=">= 0", unit=unit, details=details, **given)
    unit = f"lower limit of the difference in points, {full:,} rows"
    low = -1e9 if whole.low is None else whole.low
    record("utility.full_data_noninferior", low, bar=f">= -{MARGIN:g}", unit=unit, details=whole.plain(), **given)


def main() -> None:
    """One of the studies, or the bill of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=list(STUDIES))
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--size", type=int, help="only cells with so many real rows")
    parser.add_argument("--bill", action="store_true", help="only say what is left")
    given = parser.parse_args()
    if given.bill or given.what is None:
        for name, make in STUDIES.items():
            for label, config in make().items():
                stages.collect(config.dataset, rows=POOL, workers=given.workers)
                refresh(on_record(name, label), config, FOLDER)
                left = bill(config, FOLDER, workers=given.workers)
                print(
                    f"{name} {label}: {left.cells[0]} of {left.cells[1]} cells, {duration(left.seconds)}; {left.arms}"
                )
        return
    measure(given.what, given.workers, given.size)


if __name__ == "__main__":
    main()
