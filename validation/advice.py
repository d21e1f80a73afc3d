"""Whether `synthpipe advise` says what the long study found: `advise.hit_rate`.

    python validation/advice.py            # asks for every case of E1 and E4 (ten minutes each), then the rate
    python validation/advice.py --case hopper/medium-replay:10000

A case is a dataset of a kind and size of which `utility.py` measured what arms are worth by 20,000 steps of the value
probe and five draws. There, augmenting is right when an arm that a user could have (SynthER, SMOTE, learned labels;
not fresh rows, nor simulator labels) has an interval above 0. The advice is a hit when it says the same; where both say
yes, the arm that it names must be of a kind that helped. Answers lie in `runs/advice/`, and on record in
`results/advice.cases.jsonl`, so that they can be asked for on several days.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from evidence import record

from synth_pipeline import stages, utility
from synth_pipeline.evaluation.advice import AdviceConfig
from synth_pipeline.machine import cores
from synth_pipeline.runs import read_json, write_bytes

RESULTS = Path(__file__).resolve().parent / "results"
FOLDER, ANSWERS = Path("runs/advice"), RESULTS / "advice.cases.jsonl"
STUDIES = ("utility.value_probe", "utility.quality")
KIND_OF = {"synther": "synther", "smote": "smote", "real (s, a), learned labels": "learned labels"}
BAR = 0.8


def truth() -> dict[str, dict[str, str]]:
    """Case -> arm that a user could have -> verdict of the long study."""
    found: dict[str, dict[str, str]] = {}
    for study in STUDIES:
        for body in read_json(RESULTS / f"{study}.json")["details"].values():
            for row in body["table"]:
                if row["arm"] in KIND_OF:
                    case = f"{body['study']['dataset']}:{row['size']}"
                    verdict = row["difference"]["verdict"] or "undecided"
                    found.setdefault(case, {}).setdefault(KIND_OF[row["arm"]], verdict)
    return found


def answers() -> dict[str, dict[str, Any]]:
    """Case -> the advice that is on record."""
    lines = ANSWERS.read_text(encoding="utf-8").splitlines() if ANSWERS.exists() else []
    return {body["case"]: body["advice"] for body in map(json.loads, lines)}


def ask(case: str, workers: int) -> dict[str, Any]:
    """The advice for one case, as the verb gives it."""
    dataset, _, size = case.rpartition(":")
    stages.collect(dataset, rows=int(size), workers=workers)
    folder = FOLDER / case.replace("/", "-").replace(":", "-")
    return utility.advise(dataset, int(size), AdviceConfig(), folder, workers=workers, yes=True).plain()


def hit(advice: dict[str, Any], verdicts: dict[str, str]) -> bool:
    """Whether the advice agrees with what the long study found."""
    helped = [kind for kind, verdict in verdicts.items() if verdict == "better"]
    if not advice["augment"]:
        return not helped
    return any(advice["arm"].startswith(kind) for kind in helped)


def main() -> None:
    """Ask what is not on record, then count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--case", help="this one alone; nothing is counted")
    given = parser.parse_args()
    began, known = time.perf_counter(), answers()
    cases = [given.case] if given.case else list(truth())
    for case in cases:
        if case not in known:
            known[case] = ask(case, given.workers)
            lines = [json.dumps({"case": name, "advice": known[name]}, sort_keys=True) for name in sorted(known)]
            write_bytes(ANSWERS, "".join(f"{line}\n" for line in lines).encode())
    if given.case:
        return
    held_against = truth()
    table: dict[str, dict[str, Any]] = {
        case: {"long study": held_against[case], "advice": known[case], "hit": hit(known[case], held_against[case])}
        for case in cases
    }
    rate = sum(row["hit"] for row in table.values()) / len(table)
    seconds, unit = time.perf_counter() - began, f"of {len(table)} cases in which the advice is what the study found"
    record("advise.hit_rate", rate, bar=f">= {BAR}", unit=unit, seconds=seconds, details=table, folder=RESULTS)


if __name__ == "__main__":
    main()
