"""The first honest study of what synthetic rows are worth; written down before it ran (2026-11-26).

    python validation/utility.py values     # E1: utility.value_probe
    python validation/utility.py returns    # E2: utility.returns, .small_data_lift, .full_data_noninferior
    python validation/utility.py longer     # E3: utility.returns_longer
    python validation/utility.py quality    # E4: utility.quality
    python validation/utility.py values --size 10000  # only these cells; tables and claims when all are there
    python validation/utility.py --bill     # what is left, and how long it takes

**E1.** Fitted Q evaluation of a fixed policy (hopper, halfcheetah: the shipped medium snapshot), 20,000 steps, its
values held against Monte-Carlo returns from 500 held-out states. Real rows: 3,000, 10,000 and 100,000 of hopper, 10,000
of halfcheetah, five draws each. Every arm but the two of real rows alone mixes 100,000 rows in, half of each batch,
less those that the simulator cannot label (`mixed_rows`); what generates or labels them is trained on the draw alone.
Outcome: error of the values in standard deviations of the true ones; an arm is better where the paired interval over
the draws excludes 0. Halfcheetah is chaotic: its true values are means of eight walks that begin within the rounding of
float32, and `truth.error` says how far they are known. **Primary: SynthER against real rows on 10,000 rows of hopper.**
The other comparisons, some forty with E4, are exploratory: nominal 95 % intervals of five draws hold 92 % of the time,
so one or two of forty are "better" by chance. The A/A arm (real rows again) shows whether that is what they do. An arm
whose error is above 1, what the mean of the true values costs, is of no use however much better it is than another
(`usable`).

**E2.** Returns of TD3+BC after 30,000 steps on 10,000 and 100,000 rows of hopper, ten draws with one training each, for
real rows, SynthER, SMOTE and fresh real rows. Score: mean of the last five evaluations of ten episodes. Claims: at
10,000 rows the paired difference of SynthER to real rows has an interval above 0, and so has that to SMOTE, the best
control that needs no training; at 100,000 rows the lower limit of the first is above -2 (0: uniform actions, 100: our
best policy). A claim fails where more runs of SynthER diverged than of what it is held against. Scores of runs vary so
much that ten pairs may well not show the second, also where nothing is lost: then it is inconclusive, which is no proof
of a loss. After 30,000 steps critics have looked some 75 steps ahead, so this is about early training.

**E3**, added on 2026-11-29, before it ran and after E2 was there for 10,000 rows and half there for 100,000: in E2 ten
times the real rows bring a point or two, and fresh ones no more, so after 30,000 steps it is not data that TD3+BC
lacks, and E2 cannot show what rows are worth. E3 trains it for 100,000 steps on 10,000 rows: draws 0 to 4 of E2, arms
real, SynthER, fresh and weight decay. No claim hangs on it. Expected: fresh rows get ahead of real ones alone, which
fall behind where they were, and SynthER lies between the two. If fresh rows do not get ahead here either, then on this
task and at this size no rows help TD3+BC, whoever makes them. Found: fresh rows get ahead (31 against 23), real ones
alone do not fall behind but rise more slowly, and SynthER, at 33, is where fresh rows are.

**E4.** The same value probe at 10,000 rows over kinds of data: replay (the cells of E1), medium, narrow expert, nine
parts medium and one part expert; five draws, arms real, SynthER, SMOTE, learned labels, fresh, two more (below). The
fixed policy stays the medium snapshot, so with the data also change how far they are from what it does, the states that
are judged and the deviation that errors are counted in: arms are compared within a kind, not between kinds.

Draws are episodes of one pool: a million rows of hopper's replay, of which two draws of 100,000 share a tenth, and
300,000 of the others, of which two of 10,000 share a thirtieth; every behaviour of the pool is in a draw by its share.
Intervals speak of draws from that pool.

SynthER is fitted as `make run` does it, a third of its own defaults, because 45 default trainings are twenty hours of a
core; that fit passes the gate on 100,000 rows. Changed before anything ran: on 2026-11-27 the fit (it was 2,000 of the
default steps) and learned labels (from an ensemble like SynthER's); on 2026-11-28, after a review, the pool (300,000
for all), the A/A arm, the primary comparison, `usable`, the lead on SMOTE (it was one of means) and divergence; after a
review of the agents, on the same day, four evaluations on the way that count for nothing, and rewards scaled by whole
episodes alone; after a third review, again before anything ran, draws by behaviour (none of the five of 90/10 had an
expert row) and halfcheetah's eight walks.

**Changed after E1 was there** (2026-11-28), because its A/A arm found a fault: real rows again were worse than real
rows once, on 100,000 of hopper by 0.074 [0.019, 0.175] deviations. Arms of real rows again drew them with replacement;
with every row equally often the five errors are 0.006 lower [-0.008, 0.018] than those of real rows once. So real
again, learned labels and noise are made anew in E1, and E4 draws learned labels alike; all other cells stand. At 3,000
and 10,000 rows replacement can hardly matter (an effective sample of 0.99 and 0.98), so there the new cells tell how
much a second training differs. The old ones are kept, and `utility.why` holds them against the new. Expected: if
replacement itself costs 0.07, learned labels at 100,000 fall from 0.30 to about 0.23; if they stay, it is particular to
exact copies. Found, with all cells there: they stay (0.32 on average, 0.30 before), and real again comes down to 0.29
from 0.37, which is what real rows once have; so replacement cost exact copies and nothing else that was drawn so.

**Added on the same day**, after a fourth review, before E4 and E2 at 100,000 rows began and before an outcome of E2 was
looked at: *real again* in E4, so that an A/A arm stands beside it too, and *real, regularised* in E4 and E2, because in
E1 weight decay was a stronger control than SMOTE (0.48 and none diverged, 0.55 and one). In E4 it is exploratory.
**Made stricter** the same evening, when four arms of E2 at 10,000 rows were there and this one was not: a lift must
also beat real rows with weight decay, since the best control is meant and nobody knows which that is. Secondary in all
of E1 and E4 (`utility.why`): medians with a diverged run as the worst, and in how many draws an arm was better, because
five differences of one sign have an interval off 0 whatever their size, and where errors have heavy tails 92 % does not
hold. Draws 0 to 4 of E2 have the very fits of E1: values and returns confirm each other less than two studies would.
With ten pairs, whose differences vary by four or five points, E2 will probably not show non-inferiority where nothing
is lost, nor a lift below four points; as many runs that diverged on either side pass its rule, on whatever draws, and
the interval is of the pairs that are left. SMOTE still draws its base rows with replacement, as any generator draws: an
effective sample of 0.8 at 100,000 rows.

Since the evening of 2026-11-28 the keys of cells also hold the revision of the code that learned and whose values were
asked; the 220 cells that were there got their new file names, and no number in them changed.

Cells lie in `runs/utility/`, finished ones on record in `results/cells/` with their commit; a killed program goes on
where it was, with `--workers` processes of one thread.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from cells_on_record import commits, core_seconds, refresh, run_on_record
from evidence import record, record_table

from synth_pipeline import stages
from synth_pipeline.evaluation.statistics import Difference, paired_difference
from synth_pipeline.evaluation.study import Cell, StudyConfig
from synth_pipeline.evaluation.tables import BASELINE, outcomes, scale_of, sentence, table
from synth_pipeline.machine import cores
from synth_pipeline.run_config import load_run_config
from synth_pipeline.scale.studies import Results, bill, missing, run_study, tasks_of
from synth_pipeline.tracking import duration

RESULTS = Path(__file__).resolve().parent / "results"
FOLDER = Path("runs/utility")
ROWS = 100_000
POOLS = {"hopper/medium-replay": 1_000_000}
POOL = 300_000  # of the others
CONTROLS = {"SMOTE": "smote", "real rows with weight decay": "real, regularised"}  # of E2
MARGIN = 2.0  # of a score from 0 to 100 that may be lost on full data
NOTHING = -1e9  # a lower limit where nothing can be said
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
    "real again": {"kind": "duplicate", "rows": ROWS},
    "fresh real rows": {"kind": "fresh", "rows": ROWS},
    "real, regularised": {"agent": {"weight_decay": 0.1}},
}
FQE = {"policy": "medium", "gradient_steps": 20_000}
WALKS = 8  # a state of halfcheetah; of hopper one is exact to a hundredth of the spread
KINDS = ("hopper/medium-replay", "hopper/medium", "hopper/expert", "hopper/medium-expert-10")


def arms(*names: str) -> dict[str, dict[str, Any]]:
    """Some of them."""
    return {name: ARMS[name] for name in names}


def study(dataset: str, **given: Any) -> StudyConfig:
    """One study on a pool of collected rows."""
    given = {"dataset": dataset, "rows": POOLS.get(dataset, POOL), "seeds": 1, **given}
    return StudyConfig.parse(given, where="study")


def values() -> dict[str, StudyConfig]:
    """E1."""
    given: dict[str, Any] = {"arms": ARMS, "outcome": "values", "draws": 5}
    walked = {"fqe": {**FQE, "rollouts": WALKS}}
    return {
        "hopper": study("hopper/medium-replay", sizes=(3_000, 10_000, 100_000), agents={"fqe": FQE}, **given),
        "halfcheetah": study("halfcheetah/medium-replay", sizes=(10_000,), agents=walked, **given),
    }


def returns() -> dict[str, StudyConfig]:
    """E2."""
    some = arms(BASELINE, "synther", "smote", "fresh real rows", "real, regularised")
    agents = {"td3_bc": {"gradient_steps": 30_000}}
    return {"hopper": study("hopper/medium-replay", sizes=(10_000, 100_000), draws=10, arms=some, agents=agents)}


def longer() -> dict[str, StudyConfig]:
    """E3."""
    some = arms(BASELINE, "synther", "fresh real rows", "real, regularised")
    agents = {"td3_bc": {"gradient_steps": 100_000}}
    given: dict[str, Any] = {"sizes": (10_000,), "draws": 5, "watched": 9}
    return {"hopper": study("hopper/medium-replay", arms=some, agents=agents, **given)}


def quality() -> dict[str, StudyConfig]:
    """E4."""
    names = ("synther", "smote", "real (s, a), learned labels", "real again", "fresh real rows", "real, regularised")
    some, agents = arms(BASELINE, *names), {"fqe": FQE}
    given = {"arms": some, "agents": agents, "outcome": "values", "draws": 5, "sizes": (10_000,)}
    return {kind: study(kind, **given) for kind in KINDS}


STUDIES = {"values": values, "returns": returns, "longer": longer, "quality": quality}
CLAIMS = {
    "values": "utility.value_probe",
    "returns": "utility.returns",
    "longer": "utility.returns_longer",
    "quality": "utility.quality",
}


def on_record(what: str, name: str) -> Path:
    """Where the finished cells of a study are kept."""
    return RESULTS / "cells" / f"utility.{what}.{name.replace('/', '.')}.jsonl"


def measure(what: str, workers: int, size: int | None) -> None:
    """Run one of them, or its cells of one size; write what came out once every cell is there."""

    def wanted(cell: Cell) -> bool:
        return size is None or cell.size == size

    found, left, seconds = {}, 0, 0.0
    for name, config in STUDIES[what]().items():
        stages.collect(config.dataset, rows=config.rows, workers=workers)
        run_on_record(config, FOLDER, on_record(what, name), workers=workers, only=wanted)
        if open_cells := len(missing(tasks_of(config, FOLDER))):
            left += open_cells
            continue
        results = run_study(config, FOLDER)  # of all sizes; they are there
        require_one_truth(name, results)
        took = core_seconds(on_record(what, name))
        scale = scale_of(name, 1_000) if config.outcome == "returns" else None
        rows = table(config, results, scale)
        found[name] = {"study": config.plain(), "table": rows, "sentence": sentence(rows)}
        found[name]["cells by commit"] = commits(on_record(what, name))
        print(name, found[name]["sentence"], flush=True)
        seconds += took
        if what == "returns":
            claims(config, results, scale, took)
    if left:
        print(f"{what}: {left} cells of other sizes are missing, so there is no table yet")
        return
    record_table(CLAIMS[what], found, complete=True, seconds=seconds, folder=RESULTS)


def require_one_truth(name: str, results: Results) -> None:
    """Cells that another machine made may be held against walks that went another way."""
    found = {body["values"]["truth"]["mean"] for body in results.values() if body.get("values")}
    if len(found) > 1:
        raise SystemExit(
            f"{name}: cells are held against different true values, of mean {sorted(found)}: make them anew"
        )


def claims(config: StudyConfig, results: Results, scale: Any, seconds: float) -> None:
    """The two claims of E2."""
    assert scale is not None, "the margin is in points between two references"
    small, full = config.sizes
    assert small is not None
    assert full is not None

    def against(size: int, arm: str) -> Difference:
        ours, theirs = (outcomes(results, scale, size=size, arm=name) for name in ("synther", arm))
        return paired_difference({"hopper": ours}, {"hopper": theirs})

    rivals = {"real rows": against(small, BASELINE), **{name: against(small, arm) for name, arm in CONTROLS.items()}}
    lift, whole = min(map(lower, rivals.values())), against(full, BASELINE)
    details: dict[str, Any] = {f"to {name}": difference.plain() for name, difference in rivals.items()}
    details["rows"] = small
    if lift <= 0:
        details["why"] = "; ".join(f"against {name}: {outcome(difference, 0)}" for name, difference in rivals.items())
    unit = "points; the lowest of the lower limits of the differences to real rows and to every control"
    given: dict[str, Any] = {"seconds": seconds, "folder": RESULTS}
    record("utility.small_data_lift", lift, bar="> 0", unit=unit, details=details, **given)
    unit = f"points; lower limit of the difference to real rows, {full:,} of them"
    details = {"to real rows": whole.plain()}
    if lower(whole) <= -MARGIN:
        details["why"] = outcome(whole, -MARGIN)
    record("utility.full_data_noninferior", lower(whole), bar=f"> {-MARGIN:g}", unit=unit, details=details, **given)


def lower(difference: Difference) -> float:
    """Lower limit; NOTHING where there is none, or where more runs of ours diverged than of theirs."""
    ours, theirs = difference.diverged
    return NOTHING if difference.low is None or ours > theirs else difference.low


def outcome(difference: Difference, limit: float) -> str:
    """What the interval says of a limit: one that reaches below it is no proof that anything is worse."""
    if difference.low is None or difference.high is None:
        return difference.why or "no interval"
    ours, theirs = difference.diverged
    lost = f", {ours} runs diverged where {theirs} did" if ours > theirs else ""
    side = "above" if difference.low > limit else "below" if difference.high < limit else "inconclusive about"
    return f"[{difference.low:.1f}, {difference.high:.1f}] is {side} {limit:g}{lost}"


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
                stages.collect(config.dataset, rows=config.rows, workers=given.workers)
                refresh(on_record(name, label), config, FOLDER)
                left = bill(config, FOLDER, workers=given.workers)
                took = f"{duration(left.seconds)}; {left.arms}, {duration(left.arm_seconds)}"
                print(f"{name} {label}: {left.cells[0]} of {left.cells[1]} cells, {took}")
        return
    measure(given.what, given.workers, given.size)


if __name__ == "__main__":
    main()
