"""When and why rows help the value probe, from the finished cells of E1 and E4: `utility.why`.

    python validation/utility_why.py            # of the cases whose cells are all there; makes rows that are missing

Thought of after the first cells were seen: it describes and suggests, and proves nothing. By case (kind of data and
real rows of a draw):

**Errors**: the median over the draws, a diverged run being the worst, and how many diverged.

**Contrasts**: paired differences between arms, of the error and of its logarithm, above 0 where the first is better,
with nominal 95 % intervals over five draws where all pairs are left; and in how many draws the first was better, a
diverged run being the worse. *Alike* but for what the name says, as nearly as can be: rows that the simulator cannot
label are missing from its arm, and SynthER's rewards have an ensemble of their own. *Rivals* differ in more than that.

**Facts** of the rows of an arm, means over the draws. *Reach*: distance of unseen real (s, a) to the nearest row of the
draw or of the arm, over the same to the draw alone, of medians and of 90 % quantiles: 1 is nothing new (noise of a few
thousandths of a deviation is nothing new by construction), fresh real rows show what can be had. *Of the policy*: the
same of (s, pi(s)) in unseen states, which is where values are judged. *Of targets*: the same of (s', pi(s')) of the
rows that are learned from, half of them the arm's, which is where their targets ask. *Error of s'*, mean and median,
over Var(s' - s), and of r, over its deviation: the simulator's answer, for the *judged share* of the rows.

And what the A/A arm found: when E1 was first there, arms of real rows again drew them **with replacement**. Those cells
are kept (`cells/utility.replacement.*`) and held against those of whole passes, of the same draws and agents' seeds.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import numpy as np
from cells_on_record import lines_of, unpack
from evidence import record_table
from utility import FOLDER, RESULTS, STUDIES, on_record

from synth_pipeline import envs
from synth_pipeline.data.containers import Transitions, concatenate
from synth_pipeline.data.split import split_dataset
from synth_pipeline.evaluation.cells import Task, drawn, lost_arm, make_arm, rows_of, source_of
from synth_pipeline.evaluation.monte_carlo import Policy, fixed_policy
from synth_pipeline.evaluation.statistics import Diverged, Outcomes, paired_difference, worst
from synth_pipeline.evaluation.study import Cell, StudyConfig
from synth_pipeline.evaluation.tables import BASELINE, Results, outcomes
from synth_pipeline.runs import read_json
from synth_pipeline.scale.studies import missing, tasks_of
from synth_pipeline.tracking import say
from synth_pipeline.validation.metric import subsample
from synth_pipeline.validation.neighbours import STATE_ACTION, Neighbours
from synth_pipeline.validation.oracle import difference_scale, hold_against
from synth_pipeline.validation.truth import Truth, known_truth

PROBED = ("values", "quality")
QUERIES, JUDGED = 1_000, 5_000
FAR = 0.9  # quantile of distances that tells of a tail
LEARNED, AGAIN, RIGHT = "real (s, a), learned labels", "real again", "synther, simulator labels"
ALIKE = {
    "right labels instead of an ensemble's": (RIGHT, "synther"),
    "new (s, a) instead of the real ones, all labelled by ensembles": ("synther", LEARNED),
    "new (s, a) with right labels instead of the real rows again": (RIGHT, AGAIN),
    "an ensemble's labels instead of the real ones": (LEARNED, AGAIN),
    "noise on the states instead of none, labelled by the ensemble": ("noise, learned labels", LEARNED),
    "fresh real rows instead of the real ones again": ("fresh real rows", AGAIN),
    "the real rows again instead of once (A/A)": (AGAIN, BASELINE),
    "weight decay instead of none": ("real, regularised", BASELINE),
}
RIVALS = {
    "SynthER instead of weight decay": ("synther", "real, regularised"),
    "SynthER instead of SMOTE": ("synther", "smote"),
    "SynthER instead of noise, labelled by an ensemble": ("synther", "noise, learned labels"),
    "fresh real rows instead of SynthER": ("fresh real rows", "synther"),
    "fresh real rows instead of SynthER with right labels": ("fresh real rows", RIGHT),
}


@dataclass(frozen=True)
class Judge:
    """What the rows of arms are held against.

    Attributes:
        unseen: Rows of episodes that no draw has.
        act: The fixed policy, clipped as the environment clips.
        truth: Of the environment.
    """

    unseen: Transitions
    act: Policy
    truth: Truth

    def near(self, *tables: Transitions) -> Neighbours:
        """Distances to rows of several tables, in deviations of the unseen rows."""
        return Neighbours(concatenate([points(table) for table in tables]), scored_by=self.unseen)

    def acted(self, states: Any) -> Transitions:
        """(s, pi(s))."""
        return Transitions({"observations": states, "actions": self.act(states)})


def judge_of(study: StudyConfig) -> Judge:
    """With the held-out episodes of a study."""
    held_out = split_dataset(source_of(study).load(), held_out=study.held_out, seed=study.seed).held_out
    assert held_out is not None, "collected data have episodes"
    environment = envs.make(str(held_out.spec.environment))
    policy = fixed_policy(environment, study.agents["fqe"]["policy"])

    def act(states: Any) -> Any:
        return environment.spec.action.clipped(np.asarray(policy(states), np.float32))

    return Judge(held_out.transitions(), act, known_truth(held_out.spec))


def points(rows: Transitions) -> Transitions:
    """(s, a) alone."""
    return Transitions({name: rows[name] for name in STATE_ACTION})


def facts(task: Task, judge: Judge) -> dict[str, float]:
    """Of the rows of one arm and draw."""
    make_arm(task)
    rows, real = rows_of(task), drawn(task)[0].transitions()
    return reaches(real, rows, judge) | errors(subsample(rows, JUDGED, seed=task.cell.draw, address=1), judge)


def reaches(real: Transitions, rows: Transitions, judge: Judge) -> dict[str, float]:
    """With the rows of an arm over without, three times."""
    some, alone, both = partial(subsample, seed=0, address=0), judge.near(real), judge.near(real, rows)
    seen = points(some(judge.unseen, QUERIES))
    before, after = some(real, QUERIES)["next_observations"], some(rows, QUERIES // 2)["next_observations"]
    mixed = np.concatenate([some(real, QUERIES // 2)["next_observations"], after])
    asked = {
        "reach": (seen, seen),
        "reach of the policy": (judge.acted(seen["observations"]),) * 2,
        "reach of targets": (judge.acted(mixed), judge.acted(before)),
    }
    found = {}
    for name, (ours, theirs) in asked.items():
        near, far = both.distances(ours), alone.distances(theirs)
        found[name] = float(np.median(near) / np.median(far))
        found[f"{name}, farthest tenth"] = float(np.quantile(near, FAR) / np.quantile(far, FAR))
    return found


def errors(rows: Transitions, judge: Judge) -> dict[str, float]:
    """What the simulator says of them."""
    assert judge.truth.oracle is not None, "the study is of simulators that can be reset"
    scale = difference_scale(judge.unseen, judge.truth)
    judged = hold_against(rows, np.arange(len(rows)), judge.truth.oracle, scale, judge.truth)
    of_rewards = np.abs(judged.reward_errors[judged.judged]).mean() / np.std(judge.unseen["rewards"])
    of_states = judged.errors[judged.judged]
    return {
        "error of s'": float(of_states.mean()),
        "median error of s'": float(np.median(of_states)),
        "error of r": float(of_rewards),
        "judged share": float(judged.judged.mean()),
    }


def mean_facts(tasks: list[Task], judge: Judge) -> dict[str, float]:
    """Over the draws of an arm whose rows could be made."""
    found = []
    for task in tasks:
        say("why", f"{task.study.dataset}, {task.cell.size:,} rows, {task.cell.arm}, draw {task.cell.draw}")
        if lost_arm(task) is None:
            found.append(facts(task, judge))
    return {name: round(float(np.mean([one[name] for one in found])), 6) for name in (found[0] if found else ())}


# --- cells against cells ----------------------------------------------------------------------------------------------


def difference(ours: Outcomes, theirs: Outcomes) -> dict[str, Any]:
    """Of the error and of its logarithm, and in how many draws ours is better."""
    of_logarithm = paired_difference({"": logarithm(ours)}, {"": logarithm(theirs)}).plain()
    return {
        **better_in(ours, theirs),
        **paired_difference({"": ours}, {"": theirs}).plain(),
        "of the logarithm": {name: of_logarithm[name] for name in ("value", "low", "high")},
    }


def logarithm(found: Outcomes) -> Outcomes:
    """Minus the logarithm of the error."""
    return {run: one if isinstance(one, Diverged) else -math.log(-one) for run, one in found.items()}


def better_in(ours: Outcomes, theirs: Outcomes) -> dict[str, int]:
    """Draws in which ours is better, or worse; both diverged is neither."""
    pairs = [(worst(ours[run]), worst(theirs[run])) for run in ours]
    return {"better in": sum(a > b for a, b in pairs), "worse in": sum(a < b for a, b in pairs), "draws": len(pairs)}


def contrasts(results: Results, pairs: Mapping[str, tuple[str, str]], size: int | None) -> dict[str, Any]:
    """Those whose arms are both in the study."""
    there = {cell.arm for cell in results}
    found = {}
    for name, (ours, theirs) in pairs.items():
        if {ours, theirs} <= there:
            one, other = (outcomes(results, None, size=size, arm=arm) for arm in (ours, theirs))
            found[name] = {"of": ours, "to": theirs, **difference(one, other)}
    return found


def medians(results: Results, size: int | None) -> dict[str, Any]:
    """Arm -> `error` (None: most runs diverged) and `diverged`."""
    found = {}
    for arm in dict.fromkeys(cell.arm for cell in results):
        values = [worst(one) for one in outcomes(results, None, size=size, arm=arm).values()]
        middle = float(np.median(values))
        found[arm] = {"error": -middle if math.isfinite(middle) else None, "diverged": values.count(-math.inf)}
    return found


def passes(results: Results, dataset: str, size: int | None) -> dict[str, Any]:
    """By arm of real rows again: against the cells of the same draws in which these came with replacement."""
    known = {Cell(**body["cell"]): body for body in lines_of(on_record("replacement", dataset)).values()}
    found = {}
    for arm in sorted({cell.arm for cell in known if cell.size == size}):
        found[arm] = difference(*(outcomes(some, None, size=size, arm=arm) for some in (results, known)))
    return found


# --- all of it --------------------------------------------------------------------------------------------------------


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
    """Errors, contrasts and facts of a case; None while cells are missing."""
    tasks = tasks_of(study, FOLDER, lambda cell: cell.size == size)
    if missing(tasks):
        return None
    results, judge = {task.cell: read_json(task.result_file) for task in tasks}, judge_of(study)
    found = {arm: mean_facts([t for t in tasks if t.cell.arm == arm and t.mixes], judge) for arm in study.arms}
    return {
        "errors": medians(results, size),
        "alike": contrasts(results, ALIKE, size),
        "rivals": contrasts(results, RIVALS, size),
        "facts": {arm: numbers for arm, numbers in found.items() if numbers},
        "whole passes instead of replacement": passes(results, study.dataset, size),
    }


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
