"""The report: one self-contained HTML page: the verdict in plain words, then what was judged, what was measured and not
judged, what was not checked, and where it all comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from synth_pipeline.config import dump_yaml
from synth_pipeline.tracking import counted
from synth_pipeline.validation.metric import badness

STYLE = """
:root { color-scheme: light dark; --good: #0072b2; --bad: #c04a00; --line: #8885; --soft: #8882; }
@media (prefers-color-scheme: dark) { :root { --good: #56b4e9; --bad: #ff8c42; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 0 auto; padding: 1rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
p.lead, p.note { margin: .25rem 0 1rem; opacity: .85; }
.verdict { border-left: .5rem solid var(--good); background: var(--soft); padding: .75rem 1rem; font-size: 1.1rem; }
.verdict.failed { border-color: var(--bad); }
.verdict ul { margin: .5rem 0 0; padding-left: 1.2rem; font-size: 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-size: .9rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.unit { min-width: 13rem; } .number:last-child { min-width: 8.5rem; } .whole { white-space: nowrap; }
.pass { color: var(--good); } .fail { color: var(--bad); font-weight: 600; }
td, code, a { overflow-wrap: anywhere; } td:first-child { overflow-wrap: normal; }
code { font-size: .9em; } small { opacity: .8; }
summary { cursor: pointer; padding: .6rem; } pre { margin: 0 .6rem; overflow-x: auto; font-size: .9em; }
@media (max-width: 40rem) {
  table.wide thead { display: none; }
  table.wide tr { display: block; padding: .6rem 0; border-bottom: 1px solid var(--line); }
  table.wide td { display: block; border: 0; padding: .05rem 0; text-align: left; min-width: 0; }
  table.wide td:empty { display: none; }
  table.wide td[data-label]::before { content: attr(data-label) ": "; opacity: .7; }
}
"""

NOT_CHECKED = {
    "contract.": "The table contract was not checked.",
    "marginals.": "Single columns were not compared.",
    "dependence.": "Dependence between columns was not compared.",
    "oracle.": "Dynamics were not checked: whether s' and r follow from (s, a) is unknown.",
    "terminations.": "Terminations were not judged by what would have happened.",
    "c2st.": "No classifier tried to tell synthetic rows from real ones.",
    "coverage.": "Coverage of the state-action space was not measured.",
    "novelty.": "Novelty was not judged: the rows may be near-copies of training rows.",
    "utility.": "Utility was not measured: whether offline RL gets better with these rows is unknown.",
}
NUMBERS = ("value", "needs", "real against real")
CLASSES = {**dict.fromkeys(NUMBERS, ' class="number"'), "unit": ' class="unit"'}
FLOOR = (
    "Real against real: the same metric between random halves of the real episodes. "
    "A value as good as that is as close as real data comes to itself."
)
UNJUDGED = "No rule of this suite looks at these: they neither passed nor failed, and a bad one stops no export."


def render(scorecard: Mapping[str, Any], *, title: str) -> str:
    """The page for one store.

    Args:
        scorecard: As the validate stage writes it: `verdict`, `measurements`, `store`, `provenance`; `export` if any:
            label -> path from the page.
        title: Heading and page title.
    """
    verdict, measurements = scorecard["verdict"], scorecard["measurements"]
    files, unjudged = scorecard.get("export"), _unjudged(verdict["rules"], measurements)
    sections = [
        _lead(scorecard["store"], scorecard["provenance"]),
        _verdict(verdict, measurements),
        _section("Judged", f'<p class="note">{FLOOR}</p>\n{_judged(verdict["rules"], measurements)}'),
        _section("Measured, not judged", f'<p class="note">{UNJUDGED}</p>\n{_measured(unjudged)}'),
        _section("Not checked", _not_checked(measurements)),
        _section("Files", _files(files) if files else "<p>Nothing was exported from this state of the store.</p>"),
        _section("Origin", _origin(scorecard["store"], scorecard["provenance"])),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def _lead(store: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    text = f"{store['rows']:,} rows by {store['generator']['kind']}, "
    text += f"held against {provenance['real rows']:,} rows of {provenance['real dataset']}."
    return f'<p class="lead">{escape(text)}</p>'


def _verdict(verdict: Mapping[str, Any], measurements: Sequence[Mapping[str, Any]]) -> str:
    failed = [rule for rule in verdict["rules"] if not rule["passed"]]
    count, suite = counted(len(verdict["rules"]), "rule"), escape(verdict["suite"])
    if not failed:
        beside = len(_unjudged(verdict["rules"], measurements))
        text = f"<b>Passed</b> all {count} of the suite '{suite}'. "
        if beside:
            were = "metric was measured and has" if beside == 1 else "metrics were measured and have"
            text += f"{beside} further {were} no rule in this suite: read them before you trust it."
        else:
            text += "Read what was not checked before you trust it."
        return f'<div class="verdict">{text}</div>'
    lines = "".join(f"<li>{escape(rule['sentence'])}</li>" for rule in failed)
    text = f"<b>Failed</b> {len(failed)} of {count} of the suite '{suite}'. Do not train on this data."
    return f'<div class="verdict failed">{text}<ul>{lines}</ul></div>'


def _unjudged(rules: Sequence[Mapping[str, Any]], measurements: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    judged = {rule["metric"] for rule in rules}
    return [m for m in measurements if m["value"] is not None and m["metric"] not in judged]


def _section(heading: str, body: str) -> str:
    return f"<h2>{escape(heading)}</h2>\n{body}"


def _judged(rules: Sequence[Mapping[str, Any]], measurements: Sequence[Mapping[str, Any]]) -> str:
    by_name = {m["metric"]: m for m in measurements}
    rows = []
    for rule in rules:
        m, word = by_name.get(rule["metric"]), "pass" if rule["passed"] else "fail"
        why = f"<br><small>{escape(rule['why'])}</small>" if rule["why"] else ""
        rows.append(
            (
                f'<span class="{word}">{word if rule["passed"] else "FAIL"}</span>',
                escape(rule["metric"]) + why + (_worst(m) if m else ""),
                _number(rule["value"]) if rule["value"] is not None else "not decidable",
                _span(escape(rule["threshold"].replace(">=", "≥").replace("<=", "≤"))),
                _floor(m) if m else "",
            )
        )
    return _table(("", "rule", "value", "needs", "real against real"), rows)


def _measured(measurements: Sequence[Mapping[str, Any]]) -> str:
    if not measurements:
        return "<p>Nothing.</p>"
    rows = [
        (escape(m["metric"]) + _worst(m), _number(m["value"]), f"{escape(m['unit'])}; {_better(m)}", _floor(m))
        for m in measurements
    ]
    return _table(("metric", "value", "unit", "real against real"), rows)


def _better(measurement: Mapping[str, Any]) -> str:
    if measurement["direction"] == "nearest":
        return f"nearest to {measurement['target']:g} is best"
    return f"{measurement['direction']} is better"


def _floor(measurement: Mapping[str, Any]) -> str:
    floor = measurement["floor"]
    if not floor:
        return ""
    within = measurement["direction"] == "nearest"
    worst = f"within {_number(floor['worst95'])} of {measurement['target']:g}" if within else _number(floor["worst95"])
    return f"{_number(floor['median'])}<br><small>95 %: {worst}</small>"


def _worst(measurement: Mapping[str, Any]) -> str:
    details, direction, target = measurement["details"], measurement["direction"], measurement.get("target")
    if columns := details.get("columns"):
        ordered = sorted(columns.items(), key=lambda item: badness(item[1], direction, target), reverse=True)
        shown = ", ".join(f"{escape(name)} {_share(value)}" for name, value in ordered[:3])
    else:
        counts = sorted(details.get("fields", {}).items(), key=lambda item: -item[1])
        shown = ", ".join(f"{escape(name)} {value:,}" for name, value in counts[:3])
    return f"<br><small>worst: {shown}</small>" if shown else ""


def _not_checked(measurements: Sequence[Mapping[str, Any]]) -> str:
    measured = [m["metric"] for m in measurements if m["value"] is not None]
    missing = [text for prefix, text in NOT_CHECKED.items() if not any(name.startswith(prefix) for name in measured)]
    reasons: dict[str, list[str]] = {}
    for m in measurements:
        if m["value"] is None:
            reasons.setdefault(str(m["details"].get("why", "not decidable")), []).append(m["metric"])
    items = [escape(text) for text in missing]
    items += [f"{escape(', '.join(names))}: {escape(why)}." for why, names in reasons.items()]
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>" if items else "<p>Nothing was left out.</p>"


def _files(files: Mapping[str, str]) -> str:
    return _pairs({label: f'<a href="{escape(path)}">{escape(path)}</a>' for label, path in files.items()})


def _origin(store: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    facts = {
        "real dataset": provenance["real dataset"],
        "real rows": f"{provenance['real rows']:,}",
        "synthetic rows": f"{store['rows']:,}",
        "generator": store["generator"]["kind"],
        "seed": provenance["seed"],
        "digest of the rows": store["digest"],
    }
    shown = {"path", "rows", "generator", "digest", "real dataset", "real rows", "seed"}
    rest = {name: value for name, value in {**store, **provenance}.items() if name not in shown}
    return (
        _pairs({name: f"<code>{escape(str(value))}</code>" for name, value in facts.items()})
        + "<details><summary>Settings of the generator</summary>"
        + f"<pre>{escape(dump_yaml(store['generator']))}</pre></details>"
        + "<details><summary>Versions and the rest</summary>"
        + _pairs({name: f"<code>{escape(str(value))}</code>" for name, value in rest.items()})
        + "</details>"
    )


def _pairs(values: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{html}</td></tr>\n" for name, html in values.items())
    return f"<table>\n{rows}</table>"


def _number(value: float) -> str:
    return _span(f"{value:,.0f}" if value == int(value) else f"{value:.4g}")


def _share(value: float) -> str:
    """Three decimals, or as many as it takes to be more than nothing."""
    return _span("0" if value == 0 else f"{value:.1e}" if abs(value) < 5e-4 else f"{value:.3f}")


def _span(text: str) -> str:
    return f'<span class="whole">{text}</span>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that becomes one block a row on a phone, each number behind its heading."""
    kinds = [CLASSES.get(name, "") for name in head]
    labels = [f' data-label="{name}"' if name in NUMBERS else "" for name in head]
    header = "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, head, strict=True))
    body = "".join("<tr>" + "".join(map("<td{}{}>{}</td>".format, kinds, labels, row)) + "</tr>\n" for row in rows)
    return f'<table class="wide"><thead><tr>{header}</tr></thead>\n{body}</table>'
