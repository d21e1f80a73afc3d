"""When and why rows help the value probe, from the finished cells of E1 and E4: `utility.why`.

    python validation/utility_why.py            # of the cases whose cells are all there; makes rows that are missing

Thought of after the first cells were seen: it explains, and proves nothing. Two kinds of numbers, by case (kind of data
and real rows of a draw).

**Contrasts**: paired differences of the error of values between arms that differ in one thing alone, above 0 where the
first is better; nominal 95 % intervals over five draws, where all pairs are left. *Better in*: draws in which the first
has the smaller error, one that diverged being worse than any that did not.

**Facts** of the rows of an arm, means over the draws. *Reach*: median distance of unseen real (s, a) to the nearest row
of the draw or of the arm, over the same to the draw alone: 1 is nothing new, fresh real rows show what can be had. *Of
the policy*: the same of (s, pi(s)), where the policy whose values are asked goes. *Error of s'*, mean and median, over
Var(s' - s), and of r, over its deviation: the simulator's answer for the rows of the arm.

And what the A/A arm found: when E1 was first there, arms of real rows again drew them **with replacement**. Those cells
are kept (`cells/utility.replacement.*`) and held against those of every row as often as any other, of the same draws
and seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import numpy as np
from cells_on_record import unpack
from evidence import record_table
from utility import FOLDER, RESULTS, STUDIES, on_record

from synth_pipeline import envs
from synth_pipeline.data.containers import Transitions, concatenate
from synth_pipeline.data.split import split_dataset
from synth_pipeline.evaluation.cells import Task, drawn, lost_arm, make_arm, rows_of, source_of
from synth_pipeline.evaluation.monte_carlo import fixed_policy
from synth_pipeline.evaluation.statistics import Diverged, Outcomes, paired_difference
from synth_pipeline.evaluation.study import Cell, StudyConfig
from synth_pipeline.evaluation.tables import Results, outcomes
from synth_pipeline.runs import read_json
from synth_pipeline.scale.studies import missing, tasks_of
from synth_pipeline.tracking import say
from synth_pipeline.validation.metric import subsample
from synth_pipeline.validation.neighbours import STATE_ACTION, Neighbours
from synth_pipeline.validation.oracle import difference_scale, hold_against
from synth_pipeline.validation.truth import Truth, known_truth

PROBED = ("values", "quality")
QUERIES, JUDGED = 1_000, 5_000
CONTRASTS = {
    "right labels instead of the ensemble's": ("synther, simulator labels", "synther"),
    "new states with right labels instead of the real rows again": ("synther, simulator labels", "real again"),
    "the ensemble's labels instead of the real ones": ("real (s, a), learned labels", "real again"),
    "states with noise instead of the real ones, both labelled by the ensemble": (
        "noise, learned labels",
        "real (s, a), learned labels",
    ),
    "the real rows again instead of once (A/A)": ("real again", "real"),
    "weight decay instead of none": ("real, regularised", "real"),
    "SynthER instead of weight decay": ("synther", "real, regularised"),
    "SynthER instead of SMOTE": ("synther", "smote"),
    "fresh real rows instead of SynthER": ("fresh real rows", "synther"),
}


@dataclass(frozen=True)
class Unseen:
    """What the rows of arms are held against: episodes that no draw has.

    Attributes:
        rows: All of them.
        queries: Some of their (s, a); and (s, pi(s)) of the fixed policy.
        truth: Of the environment.
    """

    rows: Transitions
    queries: dict[str, Transitions]
    truth: Truth


def unseen_of(study: StudyConfig) -> Unseen:
    """Of the held-out episodes of a study."""
    held_out = split_dataset(source_of(study).load(), held_out=study.held_out, seed=study.seed).held_out
    assert held_out is not None, "collected data have episodes"
    rows = held_out.transitions()
    some = points(subsample(rows, QUERIES, seed=study.seed, address=0))
    asked = {"reach": some, "reach of the policy": some.with_columns(actions=acted(study, some))}
    return Unseen(rows, asked, known_truth(held_out.spec))


def acted(study: StudyConfig, rows: Transitions) -> Any:
    """What the fixed policy does in these states."""
    environment = envs.make(study.dataset.partition("/")[0])
    policy = fixed_policy(environment, study.agents["fqe"]["policy"])
    return environment.spec.action.clipped(np.asarray(policy(rows["observations"]), np.float32))


def points(rows: Transitions) -> Transitions:
    """(s, a) alone."""
    return Transitions({name: rows[name] for name in STATE_ACTION})


def facts(task: Task, unseen: Unseen) -> dict[str, float]:
    """Of the rows of one arm and draw."""
    make_arm(task)
    rows, real = rows_of(task), drawn(task.study, task.cell)[0].transitions()
    alone = Neighbours(points(real), scored_by=unseen.rows)
    both = Neighbours(concatenate([points(real), points(rows)]), scored_by=unseen.rows)
    reach = {
        name: float(np.median(both.distances(asked)) / np.median(alone.distances(asked)))
        for name, asked in unseen.queries.items()
    }
    return reach | errors(subsample(rows, JUDGED, seed=task.cell.draw, address=1), unseen)


def errors(rows: Transitions, unseen: Unseen) -> dict[str, float]:
    """What the simulator says of them."""
    assert unseen.truth.oracle is not None, "the study is of simulators that can be reset"
    scale = difference_scale(unseen.rows, unseen.truth)
    judged = hold_against(rows, np.arange(len(rows)), unseen.truth.oracle, scale, unseen.truth)
    of_rewards = np.abs(judged.reward_errors[judged.judged]).mean() / np.std(unseen.rows["rewards"])
    of_states = judged.errors[judged.judged]
    return {
        "error of s'": float(of_states.mean()),
        "median error of s'": float(np.median(of_states)),
        "error of r": float(of_rewards),
    }


def mean_facts(tasks: list[Task], unseen: Unseen) -> dict[str, float]:
    """Over the draws of an arm whose rows could be made."""
    found = []
    for task in tasks:
        say("why", f"{task.study.dataset}, {task.cell.size:,} rows, {task.cell.arm}, draw {task.cell.draw}")
        if lost_arm(task) is None:
            found.append(facts(task, unseen))
    return {name: round(float(np.mean([one[name] for one in found])), 6) for name in (found[0] if found else ())}


def contrasts(results: Results, arms: Mapping[str, Any], size: int | None) -> dict[str, Any]:
    """Those whose arms are both in the study."""
    found: dict[str, Any] = {}
    for name, (ours, theirs) in CONTRASTS.items():
        if ours in arms and theirs in arms:
            one, other = ({"": outcomes(results, None, size=size, arm=arm)} for arm in (ours, theirs))
            more = {"better in": better_in(one[""], other[""])}
            found[name] = {"of": ours, "to": theirs, **more, **paired_difference(one, other).plain()}
    return found


def evenly(results: Results, dataset: str, size: int | None) -> dict[str, Any]:
    """By arm of real rows again: against the cells of the same draws in which these came with replacement."""
    path = on_record("replacement", dataset)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    known = {Cell(**body["cell"]): body for body in map(json.loads, lines)}
    found = {}
    for arm in sorted({cell.arm for cell in known if cell.size == size}):
        now, then = (outcomes(some, None, size=size, arm=arm) for some in (results, known))
        found[arm] = {"better in": better_in(now, then), **paired_difference({"": now}, {"": then}).plain()}
    return found


def better_in(ours: Outcomes, theirs: Outcomes) -> str:
    """`4 of 5` draws."""

    def value(found: float | Diverged) -> float:
        return -math.inf if isinstance(found, Diverged) else found

    better = sum(value(ours[run]) > value(theirs[run]) for run in ours)
    return f"{better} of {len(ours)}"


def cases() -> dict[str, tuple[StudyConfig, int | None]]:
    """Kind of data and size -> where it is studied with the most arms."""
    found: dict[str, tuple[StudyConfig, int | None]] = {}
    for what in PROBED:
        for name, study in STUDIES[what]().items():
            unpack(on_record(what, name), FOLDER)
            for size in study.sizes:
                found.setdefault(f"{study.dataset}, {size:,} rows", (study, size))
    return found


def explained(study: StudyConfig, size: int | None) -> dict[str, Any] | None:
    """Contrasts and facts of a case; None while cells are missing."""
    tasks = tasks_of(study, FOLDER, lambda cell: cell.size == size)
    if missing(tasks):
        return None
    results, unseen = {task.cell: read_json(task.result_file) for task in tasks}, unseen_of(study)
    found = {arm: mean_facts([t for t in tasks if t.cell.arm == arm and t.mixes], unseen) for arm in study.arms}
    body = {"contrasts": contrasts(results, study.arms, size), "facts": {a: f for a, f in found.items() if f}}
    drawn_evenly = evenly(results, study.dataset, size)
    return body | ({"evenly instead of with replacement": drawn_evenly} if drawn_evenly else {})


def main() -> None:
    """Every case of the value probe, once."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    begin = time.perf_counter()
    found = {label: explained(study, size) for label, (study, size) in cases().items()}
    left = [label for label, body in found.items() if body is None]
    for label in left:
        print(f"{label}: cells are missing")
    seconds = time.perf_counter() - begin
    record_table("utility.why", found, complete=not left, seconds=seconds, folder=RESULTS)


if __name__ == "__main__":
    main()
