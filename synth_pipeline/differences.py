"""What differs between two runs: configuration, data, versions, store, scorecard, export, utility, cost.

Everything is read from what the runs have written down: nothing is computed anew, and the real data need not be there.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth_pipeline import store
from synth_pipeline.config import flat
from synth_pipeline.export.stage import BEGUN
from synth_pipeline.run_config import LABELS, RunConfig, open_run, store_url
from synth_pipeline.runs import Run, read_object
from synth_pipeline.scale.fitted import FittedFacts, fitted_facts
from synth_pipeline.store import Store
from synth_pipeline.tracking import duration
from synth_pipeline.validation.judging import CARD
from synth_pipeline.validation.leaderboard import GENERATION, TRAINING
from synth_pipeline.validation.record import read_scorecard

MISSING = {
    "data": "not trained",
    "versions": "versions not noted",
    "store": "nothing generated",
    "scorecard": "not validated",
    "export": "not exported",
    "utility": "not evaluated",
}
SIDES = ("A", "B")
PARTIAL = (
    "data",
    "cost",
)  # a key of one run alone only says that a stage of the other is missing, which is said anyway
HELD_OUT = "held-out episodes"
ORDER = ("config", "data", "versions", "store", "scorecard", "export", "utility", "cost")
KEY, CELL = 42, 22  # columns of text: a key, and a value of each side
JUDGED, SHORT = 34, 18  # the same beside floors

Plain = Mapping[str, Any]
Pair = dict[str, Any]  # side -> value


@dataclass(frozen=True)
class Side:
    """What one run has written down.

    Attributes:
        sections: By name, dotted key -> plain value; None: the run has not come to it.
        generator: Every setting of the fitted generator, defaults included; empty: not trained.
        card: Its scorecard; None: not validated.
        notes: What is unfinished, or belongs to another state of the store.
    """

    sections: dict[str, dict[str, Any] | None]
    generator: dict[str, Any] = field(default_factory=dict)
    card: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    def missing(self) -> list[str]:
        """What the run has not come to, in words."""
        there = self.sections | {"scorecard": self.card}
        return [words for name, words in MISSING.items() if there[name] is None]


def difference(first: Path, second: Path) -> dict[str, Any]:
    """Two runs, compared.

    Args:
        first: Run directory, called A.
        second: Run directory, called B.

    Returns:
        Plain JSON: `runs`, `differences` (section -> key -> value by side), `scorecard` (`verdict`, the `rules` that
        changed their mind, the `metrics` with other values; empty where equal), names of `equal` sections, `missing`
        and `notes` by side.

    Raises:
        ConfigError: When one is not a run, or what it has written is damaged.
        CheckpointError: When a trained generator does not say what it was fitted on.
        StoreError: When a store is damaged.
    """
    a, b = side(first), side(second)
    changed, equal = {}, []
    for section, values in _both(a, b).items():
        if found := _changed(*values, everywhere=section in PARTIAL):
            changed[section] = found
        else:
            equal.append(section)
    judged = _judgements(a.card, b.card) if a.card and b.card else {}
    if a.card and b.card and not judged:
        equal.append("scorecard")
    return {
        "runs": _pair(str(first), str(second)),
        "differences": changed,
        "scorecard": judged,
        "equal": equal,
        "missing": _pair(a.missing(), b.missing()),
        "notes": _pair(a.notes, b.notes),
    }


def _pair(a: Any, b: Any) -> Pair:
    return dict(zip(SIDES, (a, b), strict=True))


# --- what a run has written down -------------------------------------------------------------------------------------


def side(directory: Path) -> Side:
    """Read what a run has written down (see `difference`)."""
    run, config = open_run(directory)
    model, url = run.generator, store_url(run, config)
    facts = fitted_facts(model, config) if model.exists() else None
    target = store.open(url) if store.exists(url) else None
    digest = target.digest() if target is not None and target.complete else None
    card, exported, evaluated = _card(run), run.record("export"), run.record("evaluation")
    whole = bool(exported) and exported.get("key") != BEGUN
    sections = {
        "config": flat(config.model_dump(mode="json")),
        "data": None if facts is None else _data(config, facts, card),
        "versions": _versions(run),
        "store": None if target is None else _store(target, digest),
        "export": flat({name: exported.get(name) for name in ("minari_id", "files")}) if whole else None,
        "utility": _utility(evaluated) if evaluated else None,
        "cost": _cost(facts, target, card),
    }
    notes = [f"{target.num_missing} of {target.plan.num_shards} shards are missing"] if target and not digest else []
    notes += ["validated in another state of its store"] if card and card["store"]["digest"] != digest else []
    notes += ["exported in another state of its store"] if whole and exported.get("digest") != digest else []
    notes += ["evaluated in another state of its store"] if evaluated and evaluated.get("digest") != digest else []
    notes += ["its export was not finished"] if exported and not whole else []
    generator = {} if facts is None else {k: v for k, v in flat(facts.made_from).items() if k.startswith("generator.")}
    return Side(sections, generator, card, notes)


def _card(run: Run) -> dict[str, Any] | None:
    path = run.folder("validation") / CARD
    again = shlex.join(["synthpipe", "validate", str(run.directory)])
    return read_scorecard(path, fix=again) if path.exists() else None


def _data(config: RunConfig, facts: FittedFacts, card: Plain | None) -> dict[str, Any]:
    rows = {} if card is None else {"rows": card["provenance"]["real rows"]}
    return {"dataset": config.dataset, "fingerprint": facts.fingerprint, **rows, HELD_OUT: facts.held_out_episodes}


def _versions(run: Run) -> dict[str, Any] | None:
    path = run.directory / "environment.json"
    if not path.exists():
        return None
    fix = "delete the file; the run itself does not need it"
    noted = read_object(path, "the note of the versions that made the run", fix=fix)
    return flat({**{k: v for k, v in noted.items() if k != "versions"}, **dict(noted.get("versions") or {})})


def _store(target: Store, digest: str | None) -> dict[str, Any]:
    weights = {"weights": target.config["model"]} if "model" in target.config else {}  # the rest stands in the config
    labels = {LABELS: ", then ".join(step["by"] for step in target.config.get(LABELS, ())) or None}
    return {"digest": digest, "rows": len(target), **weights, **labels, **flat({"plan": target.plan.plain()})}


def _utility(record: Plain) -> dict[str, Any]:
    """What was said, and by agent and arm (and size) what was scored and gained."""
    found = {"outcome": record.get("outcome")}
    rows = record.get("table")
    for row in rows if isinstance(rows, list) else []:
        name = ".".join(str(row[key]) for key in ("agent", "arm", "size") if row.get(key) is not None)
        for what in ("score", "difference"):
            if isinstance(row.get(what), Mapping):
                found[f"{name}.{what}"] = row[what].get("value")
    return found


def _cost(facts: FittedFacts | None, target: Store | None, card: Plain | None) -> dict[str, float]:
    """Seconds by what for."""
    spent = {} if facts is None else {TRAINING: facts.seconds}
    if target is not None:
        spent[GENERATION] = target.seconds
    measured = (card or {}).get("cost") or {}
    return spent | {name: seconds for name, seconds in measured.items() if name == "validation"}


# --- what differs ----------------------------------------------------------------------------------------------------


def _both(a: Side, b: Side) -> dict[str, tuple[Plain, Plain]]:
    """The sections that both runs have come to. A setting that was left out counts as its default, where one is."""
    kinds = [one.generator.get("generator.kind") for one in (a, b)]
    found: dict[str, tuple[Plain, Plain]] = {}
    for section, mine in a.sections.items():
        theirs = b.sections[section]
        if mine is None or theirs is None:
            continue
        if section == "config" and kinds[0] == kinds[1]:
            mine, theirs = a.generator | mine, b.generator | theirs
        found[section] = (mine, theirs)
    return found


def _changed(mine: Plain, theirs: Plain, *, everywhere: bool) -> dict[str, Pair]:
    """Key -> value by side, where they differ; a side that lacks the key is left out, or with `everywhere` the key."""
    found = {}
    for key in dict.fromkeys([*mine, *theirs]):
        values = {name: values[key] for name, values in zip(SIDES, (mine, theirs), strict=True) if key in values}
        same = len(values) == len(SIDES) and values["A"] == values["B"]
        if not same and (len(values) == len(SIDES) or not everywhere):
            found[key] = values
    return found


def _judgements(a: Plain, b: Plain) -> dict[str, Any]:
    """Verdicts, rules that changed their mind, metrics with other values; empty when nothing differs."""
    rules, measured = [_rules(card) for card in (a, b)], [_metrics(card) for card in (a, b)]
    minds = [
        {"metric": key[0], **_pair(rules[0].get(key, "no such rule"), rules[1].get(key, "no such rule"))}
        for key in dict.fromkeys([*rules[0], *rules[1]])
        if rules[0].get(key) != rules[1].get(key)
    ]
    values = [
        {"metric": name, **_pair(*(m.get(name, {}).get("value") for m in measured)), "floor": _floors(name, measured)}
        for name in dict.fromkeys([*measured[0], *measured[1]])
        if measured[0].get(name, {}).get("value") != measured[1].get(name, {}).get("value")
    ]
    suites = [card["verdict"]["suite"] for card in (a, b)]
    if not minds and not values and suites[0] == suites[1]:
        return {}
    return {"verdict": _pair(_verdict(a), _verdict(b)), "rules": minds, "metrics": values}


def _verdict(card: Plain) -> str:
    verdict = card["verdict"]
    failed = sum(not rule["passed"] for rule in verdict["rules"])
    return f"PASS '{verdict['suite']}'" if verdict["passed"] else f"FAIL '{verdict['suite']}' ({failed})"


def _rules(card: Plain) -> dict[tuple[str, int], str]:
    """(metric, which of its rules) -> what the rule said."""
    seen: Counter[str] = Counter()
    found = {}
    for rule in card["verdict"]["rules"]:
        said = "FAIL" if not rule["passed"] else "pass" if rule["value"] is not None else "not decidable"
        found[rule["metric"], seen[rule["metric"]]] = said
        seen[rule["metric"]] += 1
    return found


def _metrics(card: Plain) -> dict[str, Plain]:
    return {measurement["metric"]: measurement for measurement in card["measurements"]}


def _floors(name: str, measured: Sequence[Mapping[str, Plain]]) -> Pair:
    floors = [(side.get(name, {}).get("floor") or {}).get("median") for side in measured]
    return _pair(*floors)


# --- text ------------------------------------------------------------------------------------------------------------


def lines(found: Plain) -> list[tuple[str, str]]:
    """What `difference` found, as lines of a label and a text, at most 100 columns wide in all."""
    told = [(name, found["runs"][name]) for name in SIDES]
    parts = {section: _rows(section, changed) for section, changed in found["differences"].items()}
    if found["scorecard"]:
        parts["scorecard"] = _judged_rows(found["scorecard"])
    for section in sorted(parts, key=ORDER.index):
        told += [(section if number == 0 else "", row.rstrip()) for number, row in enumerate(parts[section])]
    told += [("equal", ", ".join(sorted(found["equal"], key=ORDER.index)) or "nothing")]
    absent = {name: [*found["missing"][name], *found["notes"][name]] for name in SIDES}
    shared = [words for words in absent["A"] if words in absent["B"]]
    for label, words in (("both", shared), *((name, [w for w in absent[name] if w not in shared]) for name in SIDES)):
        told += [("missing", f"{label}: {', '.join(words)}")] if words else []
    return told


def _rows(section: str, changed: Mapping[str, Plain]) -> list[str]:
    return [_row("", *SIDES), *(_row(key, *_words(section, key, values)) for key, values in changed.items())]


def _judged_rows(judged: Plain) -> list[str]:
    """The verdict, then the rules that changed their mind, then every metric with another value."""
    texts = [("", *SIDES, "floor"), ("verdict", *judged["verdict"].values(), "")]
    texts += [(f"rule on {rule['metric']}", rule["A"], rule["B"], "") for rule in judged["rules"]]
    texts += [(m["metric"], *_numbers(m["A"], m["B"]), _floor(m["floor"])) for m in judged["metrics"]]
    return [f"{_row(key, a, b, JUDGED, SHORT)} {floor}" for key, a, b, floor in texts]


def _row(key: str, a: str, b: str, wide: int = KEY, cell: int = CELL) -> str:
    key = key if len(key) <= wide else f"…{key[1 - wide :]}"  # keys differ at their ends
    a, b = _excerpts(a, b, cell)
    return f"{key:<{wide}} {a:<{cell}} {b:<{cell}}"


def _excerpts(a: str, b: str, width: int) -> tuple[str, str]:
    """Two different texts cut to a width, around where they begin to differ."""
    if max(len(a), len(b)) <= width:
        return a, b
    first = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = 0 if first < width // 2 else first - width // 4
    return _excerpt(a, start, width), _excerpt(b, start, width)


def _excerpt(text: str, start: int, width: int) -> str:
    text = text if start == 0 else f"…{text[start:]}"
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _words(section: str, key: str, values: Plain) -> tuple[str, str]:
    """Both values as text; what one side lacks is a dash."""
    if section == "cost":
        a, b = (duration(values[name]) for name in SIDES)
        return (a, b) if a != b else (f"{values['A']:.2f} s", f"{values['B']:.2f} s")
    if key == HELD_OUT and all(isinstance(values.get(name), list) for name in SIDES):
        shared = len(set(values["A"]) & set(values["B"]))
        return str(len(values["A"])), f"{len(values['B'])} ({shared} in common)"
    if all(isinstance(values.get(name), float) for name in SIDES):
        return _numbers(values["A"], values["B"])
    a, b = (_plain(values[name]) if name in values else "-" for name in SIDES)
    return a, b


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value)


def _numbers(a: float | None, b: float | None) -> tuple[str, str]:
    """Four digits, or as many as it takes to tell them apart."""
    for digits in range(4, 18):
        found = ["not decidable" if value is None else f"{value:.{digits}g}" for value in (a, b)]
        if found[0] != found[1]:
            break
    return found[0], found[1]


def _floor(floors: Plain) -> str:
    """Of both where they differ: floors follow from the number of splits and the real data."""
    shown = dict.fromkeys("-" if value is None else f"{value:.4g}" for value in floors.values())
    return " / ".join(shown)
