"""What every metric says of rows that are known to be bad, and of rows that are known to be good.

    python validation/calibrate.py corruptions     # validation.calibration, and validation/sensitivity.yaml
    python validation/calibrate.py cheaters        # validation.cheaters

`corruptions`: fresh hopper rows (a fifth of the episodes, which no floor has seen) are spoilt in thirteen ways at three
strengths. Each must be caught by the metric that is meant for it (worse than 95 % of real splits), the more the
stronger, and must fail the gate from its stated strength on. `cheaters`: methods that look good on some metric and are
not must each fail the gate; fresh real rows must pass it in at least 19 of 20 deals, others than the twenty on which
the margins of the suite were set. What was measured is kept in `runs/calibration/`, so that a killed program goes on
where it was; it is judged anew by the suite as it is now.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from evidence import record_table

from synth_pipeline import envs, stages
from synth_pipeline.cheaters import CHEATERS, Material
from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.split import split_episodes
from synth_pipeline.generators.base import modelled_fields
from synth_pipeline.machine import cores
from synth_pipeline.runs import read_json, write_bytes, write_json
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.sources.collect import CollectedSource
from synth_pipeline.validation.corruptions import CORRUPTIONS, Corruption, Fresh, monotone
from synth_pipeline.validation.gate import judge, load_suite
from synth_pipeline.validation.metric import Floor, Measurement, badness
from synth_pipeline.validation.scorecard import Reference, scorecard
from synth_pipeline.validation.truth import known_truth

RESULTS = Path(__file__).resolve().parent / "results"
SENSITIVITY = Path(__file__).resolve().parent / "sensitivity.yaml"
FOLDER = Path("runs/calibration")
ROWS, SPLITS, FRESH = 100_000, 20, 0.2
SUITE = "default"
TRACE = 0.01  # of what the worst corruption does to a metric
DETERMINISTIC, STOCHASTIC = "hopper/medium-replay", "toy-bimodal-slip/random"


class Study:
    """One dataset, dealt into fresh episodes and those that a generator and the floors may use.

    Args:
        dataset: Catalog id.
        deal: Number of the deal.
    """

    def __init__(self, dataset: str, deal: int = 0) -> None:
        stages.collect(dataset, rows=ROWS, workers=cores())
        data = CollectedSource(dataset, rows=ROWS).load()
        assert data.episodes is not None
        order = stream(deal, Stage.VALIDATE, 12).permutation(len(data.episodes))
        count = round(FRESH * len(order))
        self.fresh: Episodes = data.episodes.take(np.sort(order[:count]))
        self.real = Dataset(data.spec, data.episodes.take(np.sort(order[count:])))
        self.folder = FOLDER / dataset.replace("/", "-") / str(deal)

    def held_out(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Ids of the real episodes that the generators do not see."""
        assert self.real.episodes is not None
        return split_episodes(len(self.real.episodes), seed=0).held_out

    def training(self) -> Dataset:
        """What the generators see."""
        assert self.real.episodes is not None
        rest = np.setdiff1d(np.arange(len(self.real.episodes)), self.held_out())
        return Dataset(self.real.spec, self.real.episodes.take(rest))

    def spoilt(self, name: str, strength: float, deal: int = 0) -> Fresh:
        """Fresh rows to spoil, with a generator of their own."""
        assert self.real.spec.environment is not None
        address = (13, sum(name.encode()), round(1000 * strength), deal)
        environment = envs.make(self.real.spec.environment)
        return Fresh(self.fresh, self.training().transitions(), environment, stream(0, Stage.VALIDATE, *address))

    def judged(self, name: str, make: Callable[[], Transitions]) -> dict[str, Any]:
        """The scorecard of some rows; measured once."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            floors = {} if name == "fresh" else self.floors()
            fields = modelled_fields(self.real.spec)
            truth = known_truth(self.real.spec)
            reference = Reference(self.real, fields, fields, truth, self.held_out(), floors=floors)
            rows = make()
            columns = {field.name: rows[field.name] for field in fields}
            begin = time.perf_counter()
            table = Dataset(self.real.spec, rows=Transitions(columns))
            _, card = scorecard(table, reference, load_suite(SUITE))
            write_json(path, {**card, "seconds": time.perf_counter() - begin})
            print(f"{self.folder.name}/{name}: {time.perf_counter() - begin:.0f} s", flush=True)
        found: dict[str, Any] = read_json(path)
        return found

    def floors(self) -> dict[str, Floor]:
        """Measured once, with the fresh rows as they are."""
        card = self.judged("fresh", self.fresh.transitions)
        return {m["metric"]: Floor(**m["floor"]) for m in card["measurements"] if m["floor"]}


def values(card: Mapping[str, Any]) -> dict[str, Any]:
    """Measurement by metric."""
    return {m["metric"]: m for m in card["measurements"]}


def failed(card: Mapping[str, Any]) -> list[str]:
    """Sentences of the rules that what was measured fails today, whatever the suite was when it was measured."""
    measured = [Measurement.from_json(one) for one in card["measurements"]]
    return [rule.sentence() for rule in judge(measured, load_suite(SUITE)).failures()]


def study_of(corruption: Corruption, study: Study) -> dict[str, Any]:
    """What one corruption does: values of its metrics by strength, and which rules fail."""
    cards = {}
    for strength in corruption.strengths:
        name = f"{corruption.name}-{strength:g}"

        def make(strength: float = strength) -> Transitions:
            return corruption.apply(study.spoilt(corruption.name, strength), strength)

        cards[strength] = study.judged(name, make)
    fresh = values(study.judged("fresh", study.fresh.transitions))
    rows: dict[str, Any] = {"stated from": corruption.stated, "metrics": {}}
    for metric in corruption.metrics:
        one = fresh[metric]
        scale = [values(card)[metric]["value"] for card in cards.values()]
        floor = one["floor"]
        worst = badness(one["value"], one["direction"], one["target"]) if floor is None else floor["worst95"]
        worst = worst if floor is None or one["target"] is not None else badness(worst, one["direction"])
        stated = list(cards).index(corruption.stated)
        rows["metrics"][metric] = {
            "fresh": one["value"],
            "by strength": dict(zip(map(str, cards), scale, strict=True)),
            "real 95 %": worst,
            "caught": all(badness(v, one["direction"], one["target"]) > worst for v in scale[stated:]),
            "monotone": monotone(scale, one["direction"], one["target"]),
        }
    rows["failed rules"] = {str(strength): failed(card) for strength, card in cards.items()}
    stopped = all(rows["failed rules"][str(s)] for s in corruption.strengths if s >= corruption.stated)
    caught = any(m["caught"] and m["monotone"] for m in rows["metrics"].values())
    return {**rows, "caught": caught, "stopped by the gate": stopped}


def corruptions() -> None:
    """`validation.calibration`, and what every metric makes of every corruption for the report."""
    began, study = time.perf_counter(), Study(DETERMINISTIC)
    table = {corruption.name: study_of(corruption, study) for corruption in CORRUPTIONS}
    complete = all(row["caught"] and row["stopped by the gate"] for row in table.values())
    missed = [name for name, row in table.items() if not (row["caught"] and row["stopped by the gate"])]
    details = {"dataset": DETERMINISTIC, "fresh rows": study.fresh.num_rows, "corruptions": table}
    details |= {"why": f"missed: {', '.join(missed)}"} if missed else {}
    write_bytes(SENSITIVITY, yaml.safe_dump(sensitivity(study), sort_keys=True, allow_unicode=True).encode())
    seconds = time.perf_counter() - began
    record_table("validation.calibration", details, complete=complete, seconds=seconds, folder=RESULTS)


def sensitivity(study: Study) -> dict[str, Any]:
    """The scores, and what they were measured on: elsewhere the same corruption has others."""
    environment = study.real.spec.environment
    return {"dataset": DETERMINISTIC, "environment": environment, "rows": ROWS, "scores": scores(study)}


def scores(study: Study) -> dict[str, list[list[Any]]]:
    """Metric -> the corruptions of stated strength that it notices, the mildest first; traces are left out."""
    fresh = values(study.judged("fresh", study.fresh.transitions))
    found: dict[str, list[tuple[float, str, float]]] = {}
    for corruption in CORRUPTIONS:
        card = read_json(study.folder / f"{corruption.name}-{corruption.stated:g}.json")
        for metric, one in values(card).items():
            floor = fresh[metric]["floor"] if metric in fresh else None
            if one["value"] is None or floor is None:
                continue
            worst = floor["worst95"] if one["target"] is not None else badness(floor["worst95"], one["direction"])
            unspoilt = badness(fresh[metric]["value"], one["direction"], one["target"])
            excess = badness(one["value"], one["direction"], one["target"]) - max(worst, unspoilt)
            row = (excess, corruption.label(corruption.stated), float(f"{one['value']:.4g}"))
            found.setdefault(metric, []).append(row)
    scales: dict[str, list[list[Any]]] = {}
    for metric, rows in found.items():
        least = TRACE * max(excess for excess, _, _ in rows)
        scale = [[label, value] for excess, label, value in sorted(rows) if excess > max(least, 0)]
        scales |= {metric: scale} if scale else {}
    return scales


def cheating(study: Study) -> dict[str, Callable[[], Transitions]]:
    """Cheaters on one dataset: name -> rows. They draw from one generator, in the order in which they are made."""
    rows = study.fresh.transitions()
    material = Material(study.training(), rows, len(rows), stream(0, Stage.VALIDATE, 14))
    return {name: partial(make, material) for name, make in CHEATERS.items()}


def mean_regressor(study: Study) -> Transitions:
    """Fresh (s, a) of stochastic dynamics with the true mean of s': the best that a mean regressor can do."""
    assert study.real.spec.environment is not None
    rows, toy = study.fresh.transitions(), envs.make(study.real.spec.environment)
    mean = toy.mean_and_covariance(rows["observations"], rows["actions"])[0]  # type: ignore[attr-defined]
    return rows.with_columns(next_observations=mean.astype(np.float32))


def deals(numbers: range) -> dict[str, list[str]]:
    """Rules that fresh hopper rows fail, by the number of the deal."""
    studies = {str(deal): Study(DETERMINISTIC, deal) for deal in numbers}
    return {deal: failed(study.judged("fresh", study.fresh.transitions)) for deal, study in studies.items()}


def cheaters() -> None:
    """`validation.cheaters`."""
    began, study, noisy = time.perf_counter(), Study(DETERMINISTIC), Study(STOCHASTIC)
    cards = {name: study.judged(name.replace(" ", "-"), make) for name, make in cheating(study).items()}
    cards["mean regressor on stochastic dynamics"] = noisy.judged("mean-regressor", lambda: mean_regressor(noisy))
    table: dict[str, Any] = {name: failed(card) for name, card in cards.items()}
    margins_set_on, fresh = deals(range(SPLITS)), deals(range(SPLITS, 2 * SPLITS))
    toy = failed(noisy.judged("fresh", noisy.fresh.transitions))
    passed = sum(not sentences for sentences in fresh.values())
    caught = all(table.values())
    details = {"cheaters": table, "fresh real rows": fresh, "passed": passed, "of": SPLITS, "fresh toy rows": toy}
    details["deals on which the margins were set"] = margins_set_on
    complete = caught and passed >= SPLITS - 1 and not toy
    if not complete:
        missed = [name for name, sentences in table.items() if not sentences]
        details["why"] = f"not caught: {missed}; fresh rows passed {passed} of {SPLITS}; fresh toy rows: {toy}"
    seconds = time.perf_counter() - began
    record_table("validation.cheaters", details, complete=complete, seconds=seconds, folder=RESULTS)


def main() -> None:
    """One of the studies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=["corruptions", "cheaters"])
    {"corruptions": corruptions, "cheaters": cheaters}[parser.parse_args().study]()


if __name__ == "__main__":
    main()
