"""From the cells of a study to numbers that a sceptic accepts: scores with intervals, paired differences to real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from synth_pipeline.errors import EnvironmentModelError, UnknownNameError
from synth_pipeline.evaluation.effective import multiplier_of
from synth_pipeline.evaluation.scores import ScoreScale, final_score, score_scale
from synth_pipeline.evaluation.statistics import (
    Diverged,
    Outcomes,
    averaged,
    estimate,
    interquartile_mean,
    mean,
    paired_difference,
    probability_of_improvement,
)
from synth_pipeline.evaluation.study import Cell, StudyConfig
from synth_pipeline.tracking import counted

BASELINE = "real"
VERDICTS = {
    "better": "better",
    "outlasts": "outlasts real rows alone, which diverged",
    "worse": "worse",
    "outlasted": "outlasted by real rows alone, because it diverged",
    "undecided": "undecided",
    None: "too few runs",
}
CHANCE = 1.0  # error of values, in their standard deviations, that their mean alone costs
Results = Mapping[Cell, Mapping[str, Any]]


def final_outcome(result: Mapping[str, Any]) -> float | Diverged:
    """What a cell found, higher is better; or that it diverged.

    Of returns: their mean over the last evaluations, which were fixed beforehand. Of values: minus the error of the
    estimates, in standard deviations of the true values.
    """
    if result["diverged"] is not None:
        return Diverged(**result["diverged"])
    if "values" in result:
        return -float(result["values"]["rmse"])
    means = {evaluation["step"]: float(np.mean(evaluation["returns"])) for evaluation in final_evaluations(result)}
    return final_score(means, list(means))


def final_evaluations(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those that count, of a cell's; not those that are only watched."""
    return [evaluation for evaluation in result.get("evaluations", ()) if evaluation.get("counts", True)]


def scale_of(environment: str, horizon: int) -> ScoreScale | None:
    """References of an environment; None: returns stay raw."""
    try:
        return score_scale(environment, horizon)
    except (EnvironmentModelError, UnknownNameError):
        return None


def outcomes(results: Results, scale: ScoreScale | None, **where: Any) -> Outcomes:
    """(draw, seed) -> score x 100 (raw return without references) of the cells that match.

    Where there are several draws, draw -> mean over its seeds: seeds of one draw share their data, and are no
    independent runs.
    """
    found: dict[Any, float | Diverged] = {}
    for cell, result in results.items():
        if all(getattr(cell, name) == value for name, value in where.items()):
            value = final_outcome(result)
            if scale is not None and isinstance(value, float):
                value = scale.normalized(value)
            found[(cell.draw, cell.seed)] = value
    several = len({draw for draw, _ in found}) > 1
    return averaged(found, lambda run: run[0]) if several else found


def table(study: StudyConfig, results: Results, scale: ScoreScale | None) -> list[dict[str, Any]]:
    """One row for every size, agent and arm of which there are cells.

    Returns:
        `size`, `agent`, `arm`, `score` (mean with interval), `iqm` (interquartile mean with interval), `return` (raw
        mean), `d4rl`, `difference` to the arm `real` and `improvement` (not for that arm), `multiplier` (how many times
        its real rows the arm is worth, where the real arm has several sizes), `runs`, `draws` (of the real rows, and of
        what is mixed in), `seconds` (mean of a training), `mixed_rows`
        and `arm_seconds` (means: what was mixed in, and the time to make it); of values `spearman` and `bias` (means),
        and `usable`, whether their error is below what the mean of the true values costs; of agents that are asked for
        a return `by_target`, what they got for each (the first is the one that is judged).
    """
    there = {(cell.size, cell.agent, cell.arm) for cell in results}
    wanted = [key for key in product(study.sizes, study.agents, study.arms) if key in there]
    rows = [_row(results, scale, study.seed, size=size, agent=agent, arm=arm) for size, agent, arm in wanted]
    return [row | _worth(results, scale, study.seed, row) for row in rows]


def _row(results: Results, scale: ScoreScale | None, seed: int, **where: Any) -> dict[str, Any]:
    ours = {"": outcomes(results, scale, **where)}
    raw = [value for value in outcomes(results, None, **where).values() if isinstance(value, float)]
    row: dict[str, Any] = {**where, "score": estimate(ours, mean, seed=seed).plain()}
    row["iqm"] = estimate(ours, interquartile_mean, seed=seed).plain()
    average = float(np.mean(raw)) if raw else None
    constants = None if scale is None else scale.d4rl
    row |= {"return": average, "d4rl": None if constants is None or average is None else constants.score(average)}
    theirs = {"": outcomes(results, scale, **{**where, "arm": BASELINE})}
    if where["arm"] != BASELINE and theirs[""]:
        row["difference"] = paired_difference(ours, theirs, seed=seed).plain()
        row["improvement"] = probability_of_improvement(ours, theirs, seed=seed).plain()
    there = [c for c in results if all(getattr(c, name) == v for name, v in where.items())]
    cells = [results[c] for c in there]
    row |= {"runs": len(cells), "draws": len({c.draw for c in there})}
    for name in ("seconds", "mixed_rows", "arm_seconds"):
        row[name] = round(float(np.mean([r[name] for r in cells])), 1)
    row |= _of_values([r["values"] for r in cells if r.get("values")])
    asked = _by_target(cells, scale)
    return {**row, "by_target": asked} if asked else row


def _worth(results: Results, scale: ScoreScale | None, seed: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """How many times its real rows an arm is worth, by the learning curve of real rows alone; empty without one."""
    agent, size = row["agent"], row["size"]
    if row["arm"] == BASELINE or size is None:
        return {}
    sizes = {c.size for c in results if c.agent == agent and c.arm == BASELINE and c.size is not None}
    curve = {n: outcomes(results, scale, agent=agent, arm=BASELINE, size=n) for n in sizes}
    ours = outcomes(results, scale, agent=agent, arm=row["arm"], size=size)
    found = multiplier_of(curve, ours, size, seed=seed)
    return {} if found is None else {"multiplier": found.plain()}


def _of_values(found: list[Mapping[str, Any]]) -> dict[str, Any]:
    """How values rank states, how far they are off on the whole, and whether they say more than their mean would."""
    if not found:
        return {}
    means = {name: float(np.mean([values[name] for values in found])) for name in ("spearman", "bias", "rmse")}
    return {"usable": means.pop("rmse") < CHANCE, **means}


def _by_target(cells: list[Mapping[str, Any]], scale: ScoreScale | None) -> list[dict[str, float]]:
    """Mean target and mean score, of cells that did not diverge; targets follow the data, so they are told by place."""
    asked = [e["by_target"] for r in cells if r["diverged"] is None for e in final_evaluations(r) if "by_target" in e]
    found = []
    for of_place in zip(*asked, strict=True):
        got = float(np.mean([np.mean(one["returns"]) for one in of_place]))
        target = float(np.mean([one["target"] for one in of_place]))
        found.append({"target": target, "score": got if scale is None else scale.normalized(got)})
    return found


def lines(rows: list[dict[str, Any]], *, scored: bool) -> list[str]:
    """The table for people, one line a row under a heading."""
    what = "score" if scored else "return"
    wide = [max([12, *(len(row[name]) for row in rows)]) for name in ("agent", "arm")]
    names = f"{'agent':<{wide[0]}} {'arm':<{wide[1]}}"
    head = f"{names} {'rows':>8}  {what:>22}  {'IQM':>6}  {'to real':>28}  {'runs':>4}  time"
    asked = [_asked(row) for row in rows if "by_target" in row]
    sure = [row for row in rows if row.get("multiplier", {}).get("low") is not None]
    return [head, *(_line(row, wide) for row in rows), *asked, *(_times(row) for row in sure)]


def _times(row: Mapping[str, Any]) -> str:
    worth, who = row["multiplier"], f"{row['agent']} with {row['arm']} on {row['size']:,} rows"
    return f"{who} scores like {worth['value']} [{worth['low']}, {worth['high']}] its real rows"


def _asked(row: Mapping[str, Any]) -> str:
    said = ", ".join(f"{_number(one['score'])} of {one['target']:,.0f}" for one in row["by_target"])
    return f"{row['agent']} with {row['arm']}, by the return it is asked for: {said}; the first is judged"


def _line(row: Mapping[str, Any], wide: Sequence[int]) -> str:
    score, difference = row["score"], row.get("difference")
    size = "all" if row["size"] is None else f"{row['size']:,}"
    verdict = "" if difference is None else f"{_interval(difference)} {difference['verdict'] or ''}".rstrip()
    lost = f" ({score['diverged']} diverged)" if score["diverged"] else ""
    time = f"{row['seconds']:,.0f} s" + (f" + {row['arm_seconds']:,.0f} s" if row["arm_seconds"] >= 1 else "")
    middle = "-" if row["iqm"]["value"] is None else _number(row["iqm"]["value"])
    names = f"{row['agent']:<{wide[0]}} {row['arm']:<{wide[1]}}"
    start = f"{names} {size:>8}  {_interval(score):>22}  {middle:>6}  {verdict:>28}"
    return f"{start}  {row['runs']:>4}  {time}{lost}"


def _interval(estimated: Mapping[str, Any]) -> str:
    if estimated["value"] is None:
        return "-"
    if estimated["low"] is None:
        return _number(estimated["value"])
    return f"{_number(estimated['value'])} [{_number(estimated['low'])}, {_number(estimated['high'])}]"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def sentence(rows: list[dict[str, Any]]) -> str:
    """The verdict on utility in plain words; nothing is claimed that neither intervals nor divergence support."""
    mixed = [row for row in rows if row.get("difference") is not None]
    if not mixed:
        return "Only real rows were trained on: nothing is said about synthetic ones."
    judged = [row for row in mixed if row["difference"]["verdict"] is not None]
    several = len({row["size"] for row in mixed}) > 1
    if not judged:
        fewest = min(row["difference"]["pairs"] for row in mixed)
        lost = "".join(f"; {_named(row, several)}" for row in mixed if any(row["difference"]["diverged"]))
        there = f"{counted(fewest, 'pair')}; 5 are the least{lost}"
        return f"Too few runs to tell ({there}): points are shown, no verdict is given."
    parts = []
    for verdict, said in VERDICTS.items():
        named = [_named(row, several) for row in mixed if row["difference"]["verdict"] == verdict]
        parts += [f"{said}: {', '.join(named)}"] if named else []
    one = max(row["draws"] for row in judged) == 1
    of = " over the agents' seeds (other data, or another fit of the generator, may do otherwise)" if one else ""
    return f"Against real rows alone, by paired 95 % intervals{of}: {'; '.join(parts)}."


def _named(row: Mapping[str, Any], several: bool) -> str:
    size = "all rows" if row["size"] is None else f"{row['size']:,} rows"
    said = f"{row['agent']} with {row['arm']}" + (f" on {size}" if several else "")
    ours, theirs = row["difference"]["diverged"]
    notes = [f"{ours} diverged, {theirs} of real rows alone"] if ours or theirs else []
    notes += [] if row.get("usable", True) else ["values no better than their mean"]
    return f"{said} ({', '.join(notes)})" if notes else said
