"""The report: one self-contained HTML page: three verdicts in plain words, then the numbers that they stand on, the
pictures, what was not checked, what it cost, and where it all comes from.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from synth_pipeline.config import dump_yaml
from synth_pipeline.run_config import LABELS, MIXED
from synth_pipeline.tracking import counted, duration
from synth_pipeline.validation.picture_files import Picture
from synth_pipeline.validation.report_scale import about, note_on_scores
from synth_pipeline.validation.report_style import items, number, page, pairs, section, small, span, table
from synth_pipeline.validation.sample import in_words

QUESTIONS = {
    "fidelity": "Do the rows look and behave like real ones?",
    "novelty": "Are the rows new, and not copies of training rows?",
    "utility": "Does offline RL get better with these rows?",
}
UNKNOWN = {
    "fidelity": "No rule decided it: whether the rows are like real ones is unknown.",
    "novelty": "No rule decided it: the rows may be near-copies of training rows.",
    "utility": "No agent was trained on these rows: whether they help is unknown.",
}
NOT_CHECKED = {
    "contract.": "The table contract was not checked.",
    "marginals.": "Single columns were not compared.",
    "dependence.": "Dependence between columns was not compared.",
    "frechet.": "Means and covariances were not compared.",
    "oracle.": "Dynamics were not checked: whether s' and r follow from (s, a) is unknown.",
    "terminations.": "Terminations were not judged by what would have happened.",
    "kinematics.": "Positions were not held against velocities.",
    "trajectories.": "Rows were not judged as trajectories.",
    "c2st.": "No classifier tried to tell synthetic rows from real ones.",
    "prdc.": "Precision and recall by neighbours were not measured.",
    "coverage.": "Coverage of the state-action space was not measured.",
    "novelty.": "Novelty was not judged: the rows may be near-copies of training rows.",
    "membership.": "Nobody tried to tell from these rows which real rows were trained on.",
    "utility.": "Utility was not measured: whether offline RL gets better with these rows is unknown.",
}
FLOOR = (
    "Real against real: the same metric between random halves of the real episodes. "
    "A value as good as that is as close as real data comes to itself."
)
UNJUDGED = "No rule of this suite looks at these: they neither passed nor failed, and a bad one stops no export."
LOOK = (
    "Grey is real, blue is synthetic. Pictures find what no number was made for, and prove nothing: "
    "no verdict depends on them."
)
WITHOUT_AIM = " Synthetic rows are those that are left when the aim is undone."
SCORES = (
    "Mean of the last evaluations, which were fixed beforehand; no checkpoint is selected. 0: uniform actions, 100: "
    "the best policy that the project ships, where both are known. IQM: the mean without the lowest and the highest "
    "quarter of the runs. In brackets: 95 % intervals; from fewer than five runs there are none. Differences are of "
    "the same draws and seeds; the probability is that of a run drawn with these rows to beat one drawn without."
)
VALUES = (
    "Fitted Q evaluation of a fixed policy, held against its true values in held-out states of the simulator. Error: "
    "root of the mean square, in standard deviations of the true values; 1 is what their mean would cost. Far less "
    "noisy than scores of agents, and no score: nothing is improved."
)

Numbers = Mapping[str, Any]


def render(
    scorecard: Mapping[str, Any], *, title: str, pictures: Sequence[Picture] = (), of_agents: Sequence[Picture] = ()
) -> str:
    """The page for one store.

    Args:
        scorecard: As the validate stage writes it: `verdict`, `measurements`, `store`, `provenance`; if any: `export`,
            label -> path from the page; `sensitivity`, see `judging.sensitivity`; `cost`, label -> seconds.
        title: What was judged; heading and page title say also by whom it is, and on which data.
        pictures: From `picture_files.read_pictures`; none: the page says so.
        of_agents: The same, of the agents' scores.
    """
    rules, measurements = scorecard["verdict"]["rules"], scorecard["measurements"]
    files, scores = scorecard.get("export"), scorecard.get("sensitivity") or {}
    store, provenance, aimed = scorecard["store"], scorecard["provenance"], in_words(scorecard)
    body = [
        _lead(store, provenance),
        _verdicts(rules, measurements, scorecard.get("utility")),
        f'<p class="note">{escape(aimed)}</p>' if aimed else "",
        _gate(scorecard["verdict"], measurements),
        section("Judged", _judged(rules, measurements, scores), note=FLOOR + note_on_scores(scores)),
        section("Measured, not judged", _measured(_unjudged(rules, measurements), scores), note=UNJUDGED),
        _pictures(pictures, WITHOUT_AIM if aimed else ""),
        _utility(scorecard.get("utility"), of_agents),
        section("Not checked", _not_checked(measurements, pictures, scorecard.get("utility"))),
        section("Files", _files(files) if files else "<p>Nothing was exported from this state of the store.</p>"),
        _cost(scorecard.get("cost") or {}),
        section("Origin", _origin(store, provenance)),
    ]
    return page(_heading(store, provenance, title), body)


def _heading(store: Numbers, provenance: Numbers, title: str) -> str:
    """`synther on hopper/medium-replay: run default`; the title alone where nobody knows who made the rows."""
    known = (store.get("generator") or {}).get("kind", "unknown") != "unknown"
    return f"{_kind(store)} on {provenance['real dataset']}: {title}" if known else title


def _lead(store: Numbers, provenance: Numbers) -> str:
    text = f"{store['rows']:,} rows by {_kind(store)}, "
    text += f"held against {provenance['real rows']:,} rows of {provenance['real dataset']}."
    return f'<p class="lead">{escape(text)}</p>'


def _kind(store: Numbers) -> str:
    kind = str((store.get("generator") or {}).get("kind", "an unknown generator"))
    return ", relabelled by ".join([kind, *(step["by"] for step in store.get(LABELS) or ())])


def _verdicts(rules: Sequence[Numbers], measurements: Sequence[Numbers], utility: Numbers | None) -> str:
    cards = [_verdict(name, [rule for rule in rules if rule["verdict"] == name], measurements) for name in QUESTIONS]
    if utility is not None:
        cards[list(QUESTIONS).index("utility")] = _card("utility", *_of_agents(utility))
    return f'<div class="verdicts">{"".join(cards)}</div>'


def _verdict(name: str, rules: Sequence[Numbers], measurements: Sequence[Numbers]) -> str:
    """One of three: passed or failed by its own rules, or not judged when none of them decided anything."""
    failed, decided = [r for r in rules if not r["passed"]], [r for r in rules if r["value"] is not None]
    if failed:
        state, mark = "failed", "✗"
        broken = [f"“{rule['why'] or rule['metric']}”" for rule in failed[:2]]
        broken += [f"{len(failed) - 2} more"] if len(failed) > 2 else []
        why = f"No. Of {counted(len(rules), 'rule')}, {len(failed)} failed: {', '.join(broken)}."
    elif decided:
        state, mark = "passed", "✓"
        why = f"Yes, as far as {counted(len(decided), 'rule')} can tell."
    else:
        state, mark, why = "not judged", "?", UNKNOWN[name]
        if any(m["metric"].startswith(f"{name}.") and m["value"] is not None for m in measurements):
            why = "It was measured, and no rule of this suite judges it: read the values below."
    return _card(name, state, mark, why)


def _of_agents(utility: Numbers) -> tuple[str, str, str]:
    """What agents say that were trained with the rows of the run: passed only when one got better, and none got worse
    or diverged more often. Controls have no say.
    """
    said = [row["difference"] for row in utility["table"] if row["arm"] == MIXED and row.get("difference")]
    verdicts = {difference["verdict"] for difference in said}
    if verdicts & {"worse", "outlasted"}:
        return "failed", "✗", utility["sentence"]
    lost = any(ours > theirs for ours, theirs in (difference["diverged"] for difference in said))
    good = "better" in verdicts and not lost
    return ("passed", "✓", utility["sentence"]) if good else ("not judged", "?", utility["sentence"])


def _card(name: str, state: str, mark: str, why: str) -> str:
    kind = "unknown" if state == "not judged" else state
    return (
        f'<div class="verdict {kind}"><h3>{name.capitalize()}</h3><b>{mark} {state}</b>'
        f"<p><small>{escape(QUESTIONS[name])}</small></p><p>{escape(why)}</p></div>\n"
    )


def _gate(verdict: Numbers, measurements: Sequence[Numbers]) -> str:
    failed = [rule for rule in verdict["rules"] if not rule["passed"]]
    count, suite = counted(len(verdict["rules"]), "rule"), escape(verdict["suite"])
    if failed:
        text = f"<b>Failed</b> {len(failed)} of {count} of the suite '{suite}'. Do not train on this data."
        return f'<div class="gate">{text}{items([rule["sentence"] for rule in failed])}</div>'
    decided = sum(rule["value"] is not None for rule in verdict["rules"])
    text = f"<b>Passed</b> all {counted(decided, 'rule')} of the suite '{suite}'"
    open_ones = len(verdict["rules"]) - decided
    text += f" that could be decided ({open_ones} could not). " if open_ones else ". "
    if beside := len(_unjudged(verdict["rules"], measurements)):
        were = "metric was measured and has" if beside == 1 else "metrics were measured and have"
        text += f"{beside} further {were} no rule in this suite: read them before you trust it."
    else:
        text += "Read what was not checked before you trust it."
    return f'<div class="gate">{text}</div>'


def _unjudged(rules: Sequence[Numbers], measurements: Sequence[Numbers]) -> list[Numbers]:
    judged = {rule["metric"] for rule in rules}
    return [m for m in measurements if m["value"] is not None and m["metric"] not in judged]


def _judged(rules: Sequence[Numbers], measurements: Sequence[Numbers], scores: Numbers) -> str:
    """Rules on one metric stand together, and what is known of the metric below the first of them."""
    by_name, place = {m["metric"]: m for m in measurements}, {rule["metric"]: n for n, rule in enumerate(rules)}
    ordered = sorted(rules, key=lambda rule: (list(QUESTIONS).index(rule["verdict"]), place[rule["metric"]]))
    rows = []
    for before, rule in zip([None, *ordered], ordered, strict=False):
        m = by_name.get(rule["metric"])
        first = before is None or before["metric"] != rule["metric"]
        told = about(m, scores) if m and first else ""
        rows.append(
            (
                _mark(rule),
                f"<b>{escape(rule['metric'])}</b>" + small(escape(rule["why"])) + told,
                number(rule["value"]) if rule["value"] is not None else "not decidable",
                span(escape(rule["threshold"].replace(">=", "≥").replace("<=", "≤"))),
                _floor(m) if m else "",
            )
        )
    return table(("", "rule", "value", "needs", "real against real"), rows)


def _mark(rule: Numbers) -> str:
    """A failed rule fails also when it could not be decided: then it was required."""
    if not rule["passed"]:
        return '<span class="fail whole">✗ FAIL</span>'
    if rule["value"] is None:
        return ""
    return '<span class="pass whole">✓ pass</span>'


def _measured(measurements: Sequence[Numbers], scores: Numbers) -> str:
    if not measurements:
        return "<p>Nothing.</p>"
    rows = [
        (
            f"<b>{escape(m['metric'])}</b>" + small(f"{escape(m['unit'])}; {_better(m)}") + about(m, scores),
            number(m["value"]),
            _floor(m),
        )
        for m in measurements
    ]
    return table(("metric", "value", "real against real"), rows)


def _better(measurement: Numbers) -> str:
    if measurement["direction"] == "nearest":
        return f"nearest to {measurement['target']:g} is best"
    return f"{measurement['direction']} is better"


def _floor(measurement: Numbers) -> str:
    floor = measurement["floor"]
    if not floor:
        return ""
    within = measurement["direction"] == "nearest"
    worst = f"within {number(floor['worst95'])} of {measurement['target']:g}" if within else number(floor["worst95"])
    return number(floor["median"]) + small(f"95 %: {worst}")


def _pictures(pictures: Sequence[Picture], note: str) -> str:
    drawn = [picture for picture in pictures if picture.svg]
    if not drawn:
        return section("Pictures", "<p>There are none of this state of the store.</p>")
    return section("Pictures", _figures(drawn), note=LOOK + note)


def _figures(drawn: Sequence[Picture]) -> str:
    figures = "".join(
        f'<figure><h3>{escape(p.title)}</h3><img alt="{escape(p.alt)}" '
        f'src="data:image/svg+xml;base64,{b64encode(p.svg.encode()).decode()}">'
        f"<figcaption>{escape(p.caption)}</figcaption></figure>\n"
        for p in drawn
    )
    return f'<div class="pictures">{figures}</div>' if drawn else ""


def _utility(utility: Numbers | None, pictures: Sequence[Picture]) -> str:
    """Scores of the agents, and errors of values where they were asked for."""
    if utility is None:
        return ""
    drawn = _figures([p for p in pictures if p.svg])
    what = "return" if utility.get("references") is None else "score"
    agents = section("Agents that learned from these rows", _learned(utility, what) + drawn, note=SCORES)
    values = utility.get("values")
    if values is None:
        return agents
    return agents + section("Values learned from these rows", _learned(values, "minus the error"), note=VALUES)


def _learned(utility: Numbers, what: str) -> str:
    """What was said, and a table with differences to real rows alone."""
    rows = [
        (
            f"<b>{escape(row['agent'])}</b> with {escape(row['arm'])}" + small(_of_runs(row)),
            _interval(row["score"]) + small(f"IQM {_interval(row['iqm'])}" if "iqm" in row else ""),
            "" if not row.get("difference") else _interval(row["difference"]) + small(_decided(row)),
        )
        for row in utility["table"]
    ]
    shown = table(("agent and rows", what, "difference to real alone"), rows)
    return f"<p>{escape(utility['sentence'])}</p>{shown}"


def _of_runs(row: Numbers) -> str:
    lost = f", {counted(row['score']['diverged'], 'run')} diverged and left out" if row["score"]["diverged"] else ""
    average = "" if row["return"] is None else f"mean return {row['return']:,.0f}, "
    return f"{average}{counted(row['runs'], 'run')}{lost}, {duration(row['seconds'] or 0)} each"


def _decided(row: Numbers) -> str:
    """The verdict, and how probable it is that a run with these rows beats one without."""
    said = str(row["difference"]["verdict"] or row["difference"]["why"])
    beats = row.get("improvement")
    return said if beats is None or beats["low"] is None else f"{said}; better with probability {_interval(beats)}"


def _interval(estimated: Numbers) -> str:
    if estimated["value"] is None:
        return "-"
    low, high = estimated["low"], estimated["high"]
    return number(estimated["value"]) + (f" [{number(low)}, {number(high)}]" if low is not None else "")


def _not_checked(measurements: Sequence[Numbers], pictures: Sequence[Picture], utility: Numbers | None) -> str:
    measured = [m["metric"] for m in measurements if m["value"] is not None]
    measured += ["utility.agents"] if utility is not None else []
    lines = [text for prefix, text in NOT_CHECKED.items() if not any(name.startswith(prefix) for name in measured)]
    reasons: dict[str, list[str]] = {}
    for m in measurements:
        if m["value"] is None:
            reasons.setdefault(str(m["details"].get("why", "not decidable")), []).append(m["metric"])
    lines += [f"{', '.join(names)}: {why}." for why, names in reasons.items()]
    lines += [f"No picture “{p.title}”: {p.caption}." for p in pictures if not p.svg]
    return items(lines) if lines else "<p>Nothing was left out.</p>"


def _files(files: Mapping[str, str]) -> str:
    return pairs({label: f'<a href="{escape(path)}">{escape(path)}</a>' for label, path in files.items()})


def _cost(seconds: Mapping[str, float]) -> str:
    return section("Cost", pairs({name: duration(value) for name, value in seconds.items()})) if seconds else ""


def _origin(store: Numbers, provenance: Numbers) -> str:
    facts = {
        "real dataset": provenance["real dataset"],
        "real rows": f"{provenance['real rows']:,}",
        "synthetic rows": f"{store['rows']:,}",
        "generator": _kind(store),
        "seed": provenance["seed"],
        "digest of the rows": store["digest"],
    }
    shown = {"path", "rows", "generator", "digest", "real dataset", "real rows", "seed"}
    rest = {name: value for name, value in {**store, **provenance}.items() if name not in shown}
    settings = f"<pre>{escape(dump_yaml(store['generator']))}</pre>" if store.get("generator") else ""
    return (
        pairs({name: f"<code>{escape(str(value))}</code>" for name, value in facts.items()})
        + (f"<details><summary>Settings of the generator</summary>{settings}</details>" if settings else "")
        + "<details><summary>Versions and the rest</summary>"
        + pairs({name: f"<code>{escape(str(value))}</code>" for name, value in rest.items()})
        + "</details>"
    )
