"""Whether the agents learn at all: each against behaviour cloning on real rows, `agents.baselines`.

    python benchmarks/agent_baselines.py            # runs what is missing (about five hours of a core), then the table
    python benchmarks/agent_baselines.py --bill

TD3+BC and IQL against BC on hopper `medium-replay` and halfcheetah `medium`: 100,000 rows less a tenth of the episodes,
50,000 steps, five seeds; the paired 95 % interval must exclude 0 on hopper. Decision Transformer against BC on hopper
`medium-expert`: 10,000 steps, three seeds, so points without intervals; its mean must be the higher one. Scores are
means of the last five evaluations of ten episodes. Cells lie in `runs/baselines/`; a killed program goes on where it
was. Finished ones are on record in `results/cells/`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cells_on_record import commits, core_seconds, refresh, run_on_record
from evidence import RESULTS, record_table

from synth_pipeline import stages
from synth_pipeline.evaluation.statistics import paired_difference
from synth_pipeline.evaluation.study import StudyConfig
from synth_pipeline.evaluation.tables import lines, outcomes, scale_of, table
from synth_pipeline.machine import cores
from synth_pipeline.scale.studies import bill
from synth_pipeline.tracking import duration

FOLDER, ROWS = Path("runs/baselines"), 100_000
LONG, SHORT = {"gradient_steps": 50_000}, {"gradient_steps": 10_000}
BASE = "bc"


def study(dataset: str, agents: dict[str, dict[str, Any]], seeds: int) -> StudyConfig:
    """Real rows alone."""
    return StudyConfig.parse({"dataset": dataset, "rows": ROWS, "agents": agents, "seeds": seeds}, where="study")


STUDIES = {
    "hopper/medium-replay": study("hopper/medium-replay", dict.fromkeys((BASE, "td3_bc", "iql"), LONG), 5),
    "halfcheetah/medium": study("halfcheetah/medium", dict.fromkeys((BASE, "td3_bc", "iql"), LONG), 5),
    "hopper/medium-expert": study("hopper/medium-expert", dict.fromkeys((BASE, "decision_transformer"), SHORT), 3),
}


def on_record(name: str) -> Path:
    """Where the finished cells of a dataset are kept."""
    return RESULTS / "cells" / f"baselines.{name.replace('/', '.')}.jsonl"


def measured(name: str, config: StudyConfig, workers: int) -> dict[str, Any]:
    """Scores of one dataset, and every agent against BC."""
    stages.collect(config.dataset, rows=ROWS, workers=workers)
    results = run_on_record(config, FOLDER, on_record(name), workers=workers)
    scale = scale_of(name.partition("/")[0], 1_000)
    rows = table(config, results, scale)
    print("\n".join([name, *lines(rows, scored=scale is not None)]), flush=True)
    base = {name: outcomes(results, scale, agent=BASE)}
    against = {
        agent: paired_difference({name: outcomes(results, scale, agent=agent)}, base).plain()
        for agent in config.agents
        if agent != BASE
    }
    return {"table": rows, f"against {BASE}": against, "cells by commit": commits(on_record(name))}


def shortfalls(found: dict[str, Any]) -> list[str]:
    """Which agents are not above BC as they should be, and what was found instead."""
    short = []
    for agent in ("td3_bc", "iql"):
        one = found["hopper/medium-replay"][f"against {BASE}"][agent]
        if one["verdict"] != "better":
            short.append(f"{agent} on hopper/medium-replay: {one['verdict'] or one['why']}")
    one = found["hopper/medium-expert"][f"against {BASE}"]["decision_transformer"]
    if one["value"] is None or one["value"] <= 0:
        short.append(f"decision_transformer on hopper/medium-expert: {one['value']} to {BASE}")
    return short


def main() -> None:
    """Everything, or the bill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--bill", action="store_true", help="only say what is left")
    given = parser.parse_args()
    if given.bill:
        for name, config in STUDIES.items():
            stages.collect(config.dataset, rows=ROWS, workers=given.workers)
            refresh(on_record(name), config, FOLDER)
            left = bill(config, FOLDER, workers=given.workers)
            print(f"{name}: {left.cells[0]} of {left.cells[1]} cells, {duration(left.seconds)}")
        return
    found = {name: measured(name, config, given.workers) for name, config in STUDIES.items()}
    verdicts = {
        f"{agent} on {name}": one["verdict"] or one["value"]
        for name, body in found.items()
        for agent, one in body[f"against {BASE}"].items()
    }
    short = shortfalls(found)
    details: dict[str, Any] = {"verdicts": verdicts, **found}
    if short:
        details["why"] = "; ".join(short)
    seconds = sum(core_seconds(on_record(name)) for name in STUDIES)
    record_table("agents.baselines", details, complete=not short, seconds=seconds)


if __name__ == "__main__":
    main()
