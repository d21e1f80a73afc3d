"""SynthER's fidelity and speed: our default against the published recipe at equal training seconds, and absolutely.

    python benchmarks/synther.py hopper              # fits, samples, measures, writes the claims of one environment
    python benchmarks/synther.py hopper --arms paper # of these arms only; compared once all arms are on record
    python benchmarks/synther.py long                # hopper: `paper` with 30,000 steps, two hours, beside the others

Arms: `default`, SynthER's own defaults (the preset of `make run` takes a third of their time); `paper` for as many
steps as fit into the seconds (its cosine ends there); `joint`, our recipe on whole rows, which is diffusion alone;
`control`, held-out real (s, a) with the default's model of what follows. The default draws rows again that its ensemble
cannot tell the outcome of, or that lie beside all real ones. So that nobody takes that for the generator's doing, two
more arms need no training: `undrawn`, the default with its first draws, and `paper_drawn`, the rows of `paper` that the
default would have kept; every ratio is stated for them too.

Seconds a step are clocked once, by `--plan` on an idle machine (the default's on another hour of it than the others');
what is trained afterwards does not depend on the load. Products are float32 where bfloat16 is not native (`precision`).
Fitted models and samples are kept in `runs/benchmark-synther/`, and a killed program goes on where it was. What every
arm came to is on record as `synther.arm.<arm>.<env>`, so that hours of training can be spread over days.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from evidence import RESULTS, record, record_table
from fitted import SEED, fitted_once, merged
from synther_limits import beyond, number, of_floor, use_at_novelty, use_of_coverage, use_of_terminations

from synth_pipeline import stages
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.split import SplitData, split_dataset
from synth_pipeline.dynamics.ensemble import Ensemble, held_out_errors
from synth_pipeline.generators import base as generators
from synth_pipeline.generators.base import build
from synth_pipeline.generators.synther import SynthER
from synth_pipeline.machine import cores
from synth_pipeline.run_config import load_run_config
from synth_pipeline.runs import read_json, write_json
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.sources.collect import CollectedSource
from synth_pipeline.validation import c2st, coverage, dependence, novelty
from synth_pipeline.validation.marginals import marginals
from synth_pipeline.validation.metric import Measurement
from synth_pipeline.validation.oracle import ERRORS
from synth_pipeline.validation.scorecard import against_truth
from synth_pipeline.validation.truth import known_truth

DATASETS = {
    "hopper": "hopper/medium-replay",
    "halfcheetah": "halfcheetah/medium-replay",
    "pointmaze": "pointmaze-medium/waypoint",
}
ROWS = 100_000
SECONDS = 900.0
LONG = 30_000  # steps of `paper_long`
DRAWN = {"default": 50_000, "undrawn": 10_000, "joint": 10_000, "paper": 5_000, "paper_long": 5_000, "control": 10_000}
ARMS = ("default", "joint", "paper")
COMPARED = ("default", "undrawn", "joint", "control", "paper", "paper_drawn")
FINE = {"num_steps": 20, "sigma_min": 0.002, "sigma_max": 80.0}  # s' - s has detail that (s, a) has not
CLOCKED, TURNS = 40, 4  # training steps that a rate is measured from, and how often
BLIND = 0.95  # an AUC between real halves from which nothing can be told apart from them
FOLDER = Path("runs/benchmark-synther")


class Bench:
    """One environment: its data, its split, its fitted arms.

    Args:
        name: Key of `DATASETS`.
        seconds: Training seconds of every arm.
    """

    def __init__(self, name: str, seconds: float = SECONDS) -> None:
        self.name, self.seconds, self.folder = name, seconds, FOLDER / name
        stages.collect(DATASETS[name], rows=ROWS, workers=cores())
        self.data: Dataset = CollectedSource(DATASETS[name], rows=ROWS).load()
        self.parts: SplitData = split_dataset(self.data, seed=SEED)
        assert self.parts.split is not None
        self.held_out = self.parts.split.held_out
        self.truth = known_truth(self.data.spec)

    def plan(self, arm: str) -> dict[str, Any]:
        """Settings of an arm and the seconds that its training takes on this machine, clocked once, when idle.

        `paper` and `joint` get as many steps as fit into the seconds: their learning rate falls to zero at the end.
        """
        path = self.folder / arm / "plan.json"
        if not path.exists():
            self._plan()
        found: dict[str, Any] = read_json(path)
        return found

    def _plan(self) -> None:
        default = {"kind": "synther"}
        published = merged(load_run_config("paper").generator, {"trainer": {"precision": "auto"}})
        joint = merged(default, {"rows": "joint", "normalizer": "standard", "sampler": FINE})
        arms = {"default": default, "paper": published, "joint": joint}
        for arm, seconds in self._clocked(arms).items():
            settings, path = arms[arm], self.folder / arm / "plan.json"
            if path.exists():
                continue  # what was trained by it stays comparable
            if arm != "default":
                steps = int(self.seconds / seconds["rows"])
                settings = merged(settings, {"trainer": {"gradient_steps": steps}})
            steps_of = build(settings).config.model_dump()
            counts = {"rows": steps_of["trainer"]["gradient_steps"]} | {
                name: steps_of[name]["regressor"]["trainer"]["gradient_steps"] for name in seconds if name != "rows"
            }
            total = sum(seconds[name] * counts[name] for name in seconds)
            path.parent.mkdir(parents=True, exist_ok=True)
            body = {"settings": settings, "seconds": total, "steps": counts, "seconds_a_step": seconds}
            write_json(path, body)

    def _clocked(self, arms: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
        """Seconds a step of every training of every arm: what a tenth of the steps keep.

        The arms take turns and slow steps do not count, so that other tenants of the machine favour none.
        """
        taken: dict[str, dict[str, list[float]]] = {arm: {} for arm in arms}
        for _ in range(TURNS):
            for arm, settings in arms.items():
                for name, ends in self._ends(settings).items():
                    # The first steps are slower.
                    taken[arm].setdefault(name, []).extend(np.diff(ends[CLOCKED // 4 :]).tolist())
        return {arm: {n: float(np.quantile(t, 0.1)) for n, t in of_arm.items()} for arm, of_arm in taken.items()}

    def _ends(self, settings: Mapping[str, Any]) -> dict[str, list[float]]:
        """When each of a few steps of every training ended."""
        few = {"trainer": {"gradient_steps": CLOCKED, "log_every": 1}}
        mean = {"residual": "none", "regressor": few}
        clock: dict[str, list[float]] = {}

        def report(step: int, total: int, values: Mapping[str, float]) -> None:
            clock.setdefault(next(iter(values)).partition(".")[0], []).append(time.perf_counter())

        build(merged(settings, {**few, "dynamics": mean, "rewards": mean})).fit(
            self.parts.train, seed=SEED, report=report
        )
        return clock

    def fitted(self, arm: str) -> SynthER:
        """The generator of an arm; fitted once."""
        return fitted_once(self.folder / arm, lambda: self.plan(arm)["settings"], self.parts.train)

    def sample(self, arm: str) -> Transitions:
        """Rows of an arm; drawn once."""
        path = self.folder / f"{arm}.npz"
        if not path.exists():
            columns: dict[str, Any] = dict(self._drawn(arm).columns)
            np.savez(path, **columns)
        with np.load(path) as file:
            return Transitions({name: file[name] for name in file.files})

    def _drawn(self, arm: str) -> Transitions:
        if arm == "paper_drawn":
            rows = self.sample("paper")
            return rows.take(np.flatnonzero(~self.drawn_again(rows)))
        rng, count = stream(SEED, Stage.GENERATE, 0, 0), DRAWN[arm]
        model = self.fitted("default" if arm in ("undrawn", "control") else arm)
        if arm == "control":
            assert self.parts.held_out is not None
            real = self.parts.held_out.transitions()
            return model.follow(real.take(rng.permutation(len(real))[:count]), rng)
        if arm == "undrawn":
            model._limit, model._support = math.inf, None
            model._post.ended = lambda states: np.zeros(len(states), bool)  # type: ignore[method-assign, assignment]
        return model.sample(count, rng)

    def drawn_again(self, rows: Transitions) -> npt.NDArray[np.bool_]:
        """`[n]`, rows that the default would not keep."""
        model = self.fitted("default")
        first = model._layout.pack(rows.columns)
        return model._strange(first, model._next.predict(first))

    def measure(self, rows: Transitions) -> dict[str, Measurement]:
        """Every metric of the ruler on some rows."""
        fields = generators.modelled_fields(self.data.spec)
        measured = [
            *against_truth(self.data, rows, self.truth, self.held_out, seed=SEED),
            *marginals(self.data, rows, fields, seed=SEED),
            *dependence.dependence(self.data, rows, fields, seed=SEED),
            *novelty.novelty(self.data, rows, self.held_out, seed=SEED),
            *c2st.c2st(self.data, rows, seed=SEED),
            *coverage.coverage(self.data, rows, seed=SEED),
        ]
        return {m.metric: m for m in measured}

    def floor(self) -> dict[str, Any]:
        """Held-out errors of the learned oracle and of the default's own ensemble; of that and of SMOTE by fifths of
        novelty.
        """
        path = self.folder / "floors.json"
        if not path.exists():
            ensemble = Ensemble()
            ensemble.fit(self.parts.train, seed=SEED, checkpoint=self.folder / "floor.safetensors")
            assert self.parts.held_out is not None
            errors = held_out_errors(ensemble, self.data, self.parts.held_out)
            smote = build({"kind": "smote"})
            smote.fit(self.parts.train, seed=SEED)
            drawn = smote.sample(100_000, stream(SEED, Stage.GENERATE, 1, 0))
            held = self.parts.held_out.transitions()
            expected = held.with_columns(**self.fitted("default").expected(held))
            kept = expected.take(np.flatnonzero(~self.drawn_again(held)))
            own = {m.metric.removeprefix("oracle."): m.value for m in judged(self, expected) if "oracle." in m.metric}
            body = {
                "learned_floor": {name: summary(errors) for name, summary in ERRORS.items()},
                "own": {name: own[name] for name in ERRORS},
                "ensemble": by_novelty(self, expected),
                "ensemble, rows that are kept": by_novelty(self, kept),
                "smote": by_novelty(self, drawn),
            }
            write_json(path, body)
        found: dict[str, Any] = read_json(path)
        return found


def by_novelty(bench: Bench, rows: Transitions) -> list[dict[str, Any]]:
    """Errors of s' by fifths of the distance to the training rows."""
    (mean,) = [m for m in judged(bench, rows) if m.metric == "oracle.mean"]
    fifths: list[dict[str, Any]] = mean.details["error_by_novelty"]
    return fifths


def judged(bench: Bench, rows: Transitions) -> list[Measurement]:
    """The oracle's metrics, on all of some rows."""
    return against_truth(bench.data, rows, bench.truth, bench.held_out, sample=len(rows), seed=SEED)


def values(measured: Mapping[str, Measurement], *prefixes: str) -> dict[str, float | None]:
    """Values by metric, of some families."""
    return {name: m.value for name, m in measured.items() if name.startswith(prefixes)}


def compare(bench: Bench, arms: Mapping[str, Any], began: float) -> None:
    """The four claims against `paper`, every arm in the details."""
    measured = {name: arm["measured"] for name, arm in arms.items()}
    bars = {"mean": ("oracle.mean", 0.25), "p95": ("oracle.p95", 0.25), "median": ("oracle.median", 0.05)}
    for claim, (metric, bar) in {**bars, "reward": ("oracle.reward_error", 0.5)}.items():
        details = {
            "first draws of ours": ratio(measured, "undrawn", "paper", metric),
            "paper drawn alike": ratio(measured, "default", "paper_drawn", metric),
            "rewards of ours are told the known termination": bench.truth.terminated is not None,
        }
        record(
            f"synther.{claim}_ratio.{bench.name}",
            measured["default"][metric] / measured["paper"][metric],
            bar=f"<= {bar}",
            unit=f"x {metric} of paper at equal training seconds",
            seconds=time.perf_counter() - began,
            details={**details, "arms": dict(arms)},
        )


def ratio(measured: Mapping[str, Any], ours: str, theirs: str, metric: str) -> float | None:
    """Of two arms; None where theirs makes no error."""
    return float(measured[ours][metric] / measured[theirs][metric]) if measured[theirs][metric] else None


def absolute(bench: Bench, ours: Mapping[str, Measurement], began: float) -> None:
    """The claims of the default alone."""
    floor = bench.floor()
    used, below = "largest share of its limits that is used", "below the floor's median"
    ratios = [beyond(number(ours, f"novelty.nn_ratio_{side}"), 0.8, 1.3) for side in ("sa", "row")]
    bias = [abs(number(ours, f"oracle.reward_bias{end}")) / limit for end, limit in (("", 0.02), ("_top5", 0.05))]
    marginal, linear = (of_floor(ours, m) - number(ours, m) for m in ("marginals.mean", "dependence.correlation"))
    apart = number(ours, "c2st.sa") - of_floor(ours, "c2st.sa", worst=True)
    least = min(floor["learned_floor"]["mean"], floor["own"]["mean"])
    error, fifths = number(ours, "oracle.mean") / least, ("fourth", "fifth")
    missed = [name for name, row in zip(fifths, floor["smote"][3:], strict=True) if not row["rows"]]
    claims: dict[str, tuple[float, str, str, tuple[str, ...]]] = {
        "learned_floor_ratio": (error, "<= 4", "x the held-out error of the better ensemble", ("oracle.",)),
        "error_at_novelty": (use_at_novelty(ours, floor), "<= 1", used, ("oracle.mean",)),
        "reward_bias": (max(bias), "<= 1", used, ("oracle.reward",)),
        "nn_ratio": (max(ratios), "<= 1", used, ("novelty.",)),
        "marginals": (marginal, "<= 0.01", below, ("marginals.",)),
        "correlation": (linear, "<= 0.01", below, ("dependence.",)),
        "c2st": (apart, "<= 0.1", "above the floor's 95 %", ("c2st.",)),
        "coverage": (use_of_coverage(ours), "<= 1", used, ("coverage.", "oracle.clipped")),
    }
    if ours["terminations.recall"].value is not None:
        claims["terminations"] = (use_of_terminations(ours), "<= 1", used, ("terminations.",))
    for claim, (value, bar, unit, families) in claims.items():
        shown_here = {name: m.to_json() for name, m in ours.items() if name.startswith(families)}
        details = {"measured": shown_here, "floor": floor, "fifths of novelty that SMOTE does not reach": missed}
        name, seconds = f"synther.{claim}.{bench.name}", time.perf_counter() - began
        if claim == "c2st" and of_floor(ours, "c2st.sa", worst=True) + 0.1 > BLIND:
            details["why"] = "not decidable: real halves are told apart as well as anything can be (goals of episodes)"
            record_table(name, details, complete=False, seconds=seconds)
            continue
        if claim == "terminations" and value > 1:
            details["why"] = (
                "states one step before an end fill so thin a layer that the diffusion blurs it: too few rows reach it"
                " (not among the bars, which ask this of hopper)"
            )
        record(name, value, bar=bar, unit=unit, seconds=seconds, details=details)


def described(bench: Bench, arm: str, measured: Mapping[str, Measurement] | None = None) -> dict[str, Any]:
    """Fit and sample one arm, and judge it unless that was done."""
    rows = bench.sample(arm)
    measured = measured or {m.metric: m for m in judged(bench, rows)}
    shown_here = values(measured, "oracle.", "terminations.")
    found: dict[str, Any] = {"rows": len(rows), "measured": shown_here}
    found["share that the default would draw again"] = float(bench.drawn_again(rows).mean())
    if arm not in ("control", "undrawn", "paper_drawn"):
        model, plan = bench.fitted(arm), bench.plan(arm)
        found |= {
            "training_seconds": round(plan["seconds"], 1),
            "seconds_a_step": plan["seconds_a_step"],
            "steps": plan["steps"],
            "batch": model.config.trainer.batch_size,
            "precision": model.precision,
            "calls": model.calls,
            "notes": model.notes(),
        }
    print(arm, found, flush=True)
    return found


def fidelity(name: str, seconds: float, arms: list[str]) -> None:
    """Measure some arms of an environment, the default absolutely too; compare them once all are on record."""
    began, bench, ours = time.perf_counter(), Bench(name, seconds), None
    if "default" in arms:
        rows = bench.sample("default")
        ours = bench.measure(rows) | {m.metric: m for m in judged(bench, rows)}
        absolute(bench, ours, began)
    for arm in arms:
        found = described(bench, arm, ours if arm == "default" else None)
        complete = found["measured"]["oracle.mean"] is not None
        record_table(on_record(arm, name), found, complete=complete, seconds=time.perf_counter() - began, seed=SEED)
    paths = {arm: RESULTS / f"{on_record(arm, name)}.json" for arm in COMPARED}
    if all(path.exists() for path in paths.values()):
        compare(bench, {arm: read_json(path)["details"] for arm, path in paths.items()}, began)


def on_record(arm: str, name: str) -> str:
    """The evidence that an arm of an environment is."""
    return f"synther.arm.{arm}.{name}"


def long() -> None:
    """The published recipe with more steps than the seconds allow, beside every other arm of hopper."""
    began, bench = time.perf_counter(), Bench("hopper")
    short = bench.plan("paper")
    if not (path := bench.folder / "paper_long" / "plan.json").exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = merged(short["settings"], {"trainer": {"gradient_steps": LONG}})
        seconds = LONG * short["seconds_a_step"]["rows"]
        write_json(path, {**short, "settings": settings, "seconds": seconds, "steps": {"rows": LONG}})
    arms = {arm: described(bench, arm) for arm in (*COMPARED, "paper_long")}
    complete = all(arm["measured"]["oracle.mean"] is not None for arm in arms.values())
    record_table("synther.paper_long.hopper", arms, complete=complete, seconds=time.perf_counter() - began, seed=SEED)


def main() -> None:
    """One environment, or the long training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*DATASETS, "long"])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="training seconds of each arm")
    parser.add_argument("--arms", nargs="+", choices=COMPARED, default=COMPARED, help="the arms to fit and judge now")
    parser.add_argument("--plan", action="store_true", help="only clock the steps of every arm")
    arguments = parser.parse_args()
    if arguments.plan:
        for name in [arguments.what] if arguments.what in DATASETS else DATASETS:
            bench = Bench(name, arguments.seconds)
            print({arm: {k: v for k, v in bench.plan(arm).items() if k != "settings"} for arm in ARMS})
    elif arguments.what == "long":
        long()
    else:
        fidelity(arguments.what, arguments.seconds, list(arguments.arms))


if __name__ == "__main__":
    main()
