"""The leaderboard: several tables judged by one ruler, side by side; three verdicts and the cost, never one number.

Among them always stand rows that must fail (cheaters), rows that must pass (fresh real ones) and baselines (controls).
When a cheater passes or the fresh rows fail, the ruler tells nothing on this dataset, and the leaderboard says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from synth_pipeline.tracking import counted, duration
from synth_pipeline.validation.report_style import items, page, pairs, section, span, table
from synth_pipeline.validation.sample import in_words

FIDELITY = ("oracle.mean", "oracle.p95", "oracle.pit_ks", "c2st.sa", "marginals.mean", "coverage.distance")
NOVELTY = ("novelty.nn_ratio_sa", "novelty.nn_ratio_row", "membership.auc")
KINDS = {
    "given": "what you named",
    "control": "a baseline that needs no model",
    "cheater": "made to look good, must fail",
    "fresh": "real rows that nothing has seen, must pass",
}
TRAINING, GENERATION = "training", "generation, all workers"
MEASURED, NOT_MEASURED = "measured", "not measured"
FEW_EPISODES = 100  # fresh ones, below which chance alone may fail them: floors are of halves of all others
READ = (
    "Compare values down a column: all were held against the same real rows. ✗ fails a rule of the suite; ? is not "
    "decidable; - is not known. Nothing is summed up in one number."
)
OPEN = "Open are rules that could not be decided."
COSTS = {"training": TRAINING, "generation": GENERATION}
MARGIN = 100  # columns of a line of text
WIDEST = 24  # of a name: as long as the longest of ours

Numbers = Mapping[str, Any]


def entry(card: Numbers, *, name: str, kind: str, about: str, spent: Numbers, utility: str | None) -> dict[str, Any]:
    """A row of the leaderboard, as plain JSON.

    Args:
        card: Its scorecard.
        name: What it is called.
        kind: One of `KINDS`.
        about: What it is, in words.
        spent: Seconds by what for (`TRAINING`, `GENERATION`); empty: not known.
        utility: What the evaluation found, as a sentence; None: nothing was evaluated with these rows.
    """
    rules = card["verdict"]["rules"]
    failed = [rule for rule in rules if not rule["passed"]]
    return {
        "name": name,
        "kind": kind,
        "about": about,
        "rows": card["store"]["rows"],
        "digest": card["store"]["digest"],
        "passed": card["verdict"]["passed"],
        "rules failed": len(failed),
        "rules judged": sum(not rule["passed"] or rule["value"] is not None for rule in rules),
        "rules not decidable": sum(rule["passed"] and rule["value"] is None for rule in rules),
        "failed": list(dict.fromkeys(rule["metric"] for rule in failed)),
        "why failed": [rule["sentence"] for rule in failed],
        "metrics": {m["metric"]: _measured(m) for m in card["measurements"]},
        "utility": utility,
        "aimed": in_words(card),
        "seconds": dict(spent),
    }


def _measured(measurement: Numbers) -> dict[str, Any]:
    kept = {name: measurement[name] for name in ("value", "unit", "direction", "target", "floor")}
    return kept | ({"why": measurement["details"].get("why", "not decidable")} if kept["value"] is None else {})


def ordered(entries: Iterable[Numbers]) -> list[Numbers]:
    """Given tables first, those that fail fewest rules (of most) before the others; then controls, cheaters, fresh."""
    kinds = list(KINDS)

    def place(entry: Numbers) -> tuple[int, ...]:
        given = entry["kind"] == "given"
        return kinds.index(entry["kind"]), *((entry["rules failed"], -entry["rules judged"]) if given else ())

    return sorted(entries, key=place)


def self_test(entries: Sequence[Numbers], suite: str, fresh_episodes: int) -> dict[str, Any]:
    """Whether the suite tells good from bad here: every cheater fails, fresh real rows pass.

    Returns:
        `holds`, the `sentence` that says it, the `cheaters that passed`, whether the `fresh rows failed`.
    """
    cheaters = [e for e in entries if e["kind"] == "cheater"]
    slipped = [e["name"] for e in cheaters if e["passed"]]
    broken = [e for e in entries if e["kind"] == "fresh" and not e["passed"]]
    found = {"holds": not slipped and not broken, "cheaters that passed": slipped, "fresh rows failed": bool(broken)}
    if found["holds"]:
        text = (
            f"The ruler holds: all {len(cheaters)} cheaters fail '{suite}' on this dataset, and fresh real rows pass."
        )
        return {**found, "sentence": text}
    text = f"DO NOT TRUST THIS TABLE: '{suite}' cannot tell good from bad on this dataset."
    if slipped:
        text += f" Cheaters passed ({_listed(slipped)}), so a PASS proves nothing: judge by a stricter suite."
    if broken:
        text += f" Fresh real rows failed ({', '.join(broken[0]['failed'])}), so a FAIL may be no fault of the rows."
        if fresh_episodes < FEW_EPISODES:
            only = counted(fresh_episodes, "fresh episode")
            text += f" With only {only} chance alone can do that: use more episodes, or hold out more of them."
    return {**found, "sentence": text}


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def shown(board: Numbers, metrics: Sequence[str]) -> list[str]:
    """Those of some metrics that at least one row has a value of."""
    return [m for m in metrics if any(e["metrics"].get(m, {}).get("value") is not None for e in board["entries"])]


def remarks(board: Numbers) -> list[str]:
    """What a reader has to know beside the columns: which are missing, which no rule judges, what evaluations said."""
    headline = (*FIDELITY, *NOVELTY)
    there = shown(board, headline)
    unjudged = [metric for metric in there if metric not in board["judged metrics"]]
    unknown = [e["name"] for e in board["entries"] if not e["origin known"]]
    lines = []
    if missing := [metric for metric in headline if metric not in there]:
        lines.append(f"Not decidable on these data: {', '.join(missing)}.")
    if unjudged:
        lines.append(f"No rule of '{board['suite']}' judges {', '.join(unjudged)}: a bad value fails nothing.")
    if unknown:
        lines.append(
            f"Novelty of {_listed(unknown)} is not decidable: nobody knows which episodes they were made from. "
            "Name the run directory, if there is one."
        )
    lines += [f"{e['name']}: {e['aimed']}" for e in board["entries"] if e["aimed"]]
    lines += [f"Utility of {e['name']}: {e['utility']}" for e in board["entries"] if e["utility"]]
    return lines


# --- text ------------------------------------------------------------------------------------------------------------


def blocks(board: Numbers) -> list[list[str]]:
    """The leaderboard as lines of text, at most 100 columns wide: two lines of head and the rows of each table.

    Gate and fidelity; novelty, utility and cost. Then, without a head, which rules failed.
    """
    entries = board["entries"]
    names = _Column("", "", [_shortened(e["name"]) for e in entries], left=True)
    kinds = _Column("", "kind", [e["kind"] for e in entries], left=True)
    gate = _Column("", "gate", [_gate(e) for e in entries], left=True)
    undecided = _Column("", "open ", [f"{e['rules not decidable'] or '-'} " for e in entries])
    utility = _Column("", "utility", [_utility(e) for e in entries], left=True)
    costs = [_Column("", f"{label} ", [f"{_seconds(e, name)} " for e in entries]) for label, name in COSTS.items()]
    return [
        _side_by_side([names, kinds, gate, undecided, *_columns(board, FIDELITY)]),
        _side_by_side([names, *_columns(board, NOVELTY), utility, *costs]),
        [_failures(e, len(max(names.cells, key=len))) for e in entries if e["failed"]],
    ]


@dataclass(frozen=True)
class _Column:
    """A column of text: two lines of head, and a cell for each row."""

    family: str
    name: str
    cells: list[str]
    left: bool = False

    def lines(self) -> list[str]:
        lines = [self.family, self.name, *self.cells]
        width = max(map(len, lines))
        return [f"{line:<{width + 1}}" if self.left else f"{line:>{width}}" for line in lines]


def _columns(board: Numbers, metrics: Sequence[str]) -> list[_Column]:
    """Values end with a mark or a space, and so do their heads."""
    columns = []
    for metric in shown(board, metrics):
        family, name = metric.split(".")
        columns.append(_Column(f"{family} ", f"{name} ", [f"{_value(e, metric):<1}" for e in board["entries"]]))
    return columns


def _side_by_side(columns: Sequence[_Column]) -> list[str]:
    return [" ".join(parts).rstrip() for parts in zip(*(column.lines() for column in columns), strict=True)]


def _shortened(name: str) -> str:
    """Its end, where names differ."""
    return name if len(name) <= WIDEST else f"…{name[1 - WIDEST :]}"


def _gate(entry: Numbers) -> str:
    judged = entry["rules judged"]
    return f"{'PASS' if entry['passed'] else 'FAIL'} {judged - entry['rules failed']}/{judged}"


def _value(entry: Numbers, metric: str) -> str:
    """The value, then whether a rule failed on it: a mark, so that no colour is needed."""
    value = entry["metrics"].get(metric, {}).get("value")
    return ("?" if value is None else _number(value)) + ("✗" if metric in entry["failed"] else " ")


def _number(value: float) -> str:
    """Three digits, or two and an exponent: seven characters at most, where values are not negative."""
    if value == 0:
        return "0"
    return f"{value:#.3g}".rstrip(".") if 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"


def _seconds(entry: Numbers, name: str) -> str:
    return duration(entry["seconds"][name]) if name in entry["seconds"] else "-"


def _utility(entry: Numbers) -> str:
    return MEASURED if entry["utility"] else NOT_MEASURED


def _failures(entry: Numbers, width: int) -> str:
    """Which rules failed, as many as a line holds."""
    failed, room = entry["failed"], MARGIN - width - len("  fails , and 99 more")
    kept = [metric for n, metric in enumerate(failed, 1) if len(", ".join(failed[:n])) <= room]
    rest = len(failed) - len(kept)
    return f"{_shortened(entry['name']):<{width}}  fails {', '.join(kept)}" + (f", and {rest} more" if rest else "")


# --- page ------------------------------------------------------------------------------------------------------------


def render(board: Numbers) -> str:
    """The leaderboard as one self-contained page."""
    real, test = board["real"], board["self-test"]
    tables, rows = counted(len(board["entries"]), "table"), counted(real["rows"], "real row")
    lead = f"{tables}, held against {rows} of {real['dataset']} by the suite '{board['suite']}'."
    kind, mark = ("pass", "✓") if test["holds"] else ("fail", "✗")
    body = [
        f'<p class="lead">{escape(lead)}</p>',
        f'<div class="gate"><span class="{kind}">{mark} {escape(test["sentence"])}</span></div>',
        section("Gate and fidelity", _fidelity_table(board), note=READ),
        section("Novelty, utility, cost", _other_table(board)),
        section("Beside the columns", items(remarks(board))) if remarks(board) else "",
        section("Rules that failed", _failed_sentences(board)),
        section("Origin", _origin(board)),
    ]
    return page("Leaderboard", body)


def _fidelity_table(board: Numbers) -> str:
    metrics = shown(board, FIDELITY)
    rows = []
    for e in board["entries"]:
        undecided = f"<br><small>{e['rules not decidable']} not decidable</small>" if e["rules not decidable"] else ""
        mark = ("pass", "✓") if e["passed"] else ("fail", "✗")
        gate = f'<span class="{mark[0]} whole">{mark[1]} {_gate(e)}</span>{undecided}'
        rows.append((_named(e), gate, *(_html_value(e, metric) for metric in metrics)))
    return table(("rows", "gate", *metrics), rows, numbers=metrics)


def _other_table(board: Numbers) -> str:
    metrics, costs = shown(board, NOVELTY), list(COSTS)
    rows = [
        (
            f"<b>{escape(e['name'])}</b>",
            *(_html_value(e, metric) for metric in metrics),
            _utility(e),
            *(span(_seconds(e, name)) for name in COSTS.values()),
        )
        for e in board["entries"]
    ]
    return table(("rows", *metrics, "utility", *costs), rows, numbers=(*metrics, "utility", *costs))


def _named(entry: Numbers) -> str:
    about = f"{entry['kind']}: {entry['about']}; {entry['rows']:,} rows"
    return f"<b>{escape(entry['name'])}</b><br><small>{escape(about)}</small>"


def _html_value(entry: Numbers, metric: str) -> str:
    text, failed = _value(entry, metric).rstrip(" ✗"), metric in entry["failed"]
    return f'<span class="fail whole">✗ {text}</span>' if failed else span(text)


def _failed_sentences(board: Numbers) -> str:
    parts = []
    for e in board["entries"]:
        if e["failed"]:
            head = f"{escape(e['name'])}: {counted(e['rules failed'], 'rule')}"
            parts.append(f"<details><summary>{head}</summary>{items(e['why failed'])}</details>")
    return "".join(parts) or "<p>Nothing.</p>"


def _origin(board: Numbers) -> str:
    real = board["real"]
    facts = {
        "real dataset": real["dataset"],
        "its digest": real["fingerprint"],
        "episodes held out and judged against": real["held-out episodes"],
        "episodes set aside as fresh rows": real["fresh episodes"],
        "seed": board["seed"],
        "pairs of real halves behind each costly floor": board["splits"],
    }
    cards = {
        e["name"]: f'<a href="{escape(e["card"])}">{escape(e["card"])}</a><br><code>{escape(e["digest"])}</code>'
        for e in board["entries"]
    }
    told = pairs({name: f"<code>{escape(str(value))}</code>" for name, value in facts.items()})
    return f"{told}<details><summary>Scorecards, and digests of the rows</summary>{pairs(cards)}</details>"
