"""The report: one self-contained HTML page: verdict in plain words, numbers, origin, and what was not checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

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
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.pass { color: var(--good); } .fail { color: var(--bad); font-weight: 600; }
td, code, a { overflow-wrap: anywhere; } td:first-child { overflow-wrap: normal; }
code { font-size: .9em; } small { opacity: .8; }
summary { cursor: pointer; padding: .6rem; }
@media (max-width: 40rem) {
  table.wide thead { display: none; }
  table.wide tr { display: block; padding: .6rem 0; border-bottom: 1px solid var(--line); }
  table.wide td { display: block; border: 0; padding: .05rem 0; text-align: left; white-space: normal; }
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
FLOOR = (
    "Real against real: the same metric between random halves of the real episodes. "
    "A value as good as that is as close as real data comes to itself."
)


def render(scorecard: Mapping[str, Any], *, title: str) -> str:
    """The page for one store.

    Args:
        scorecard: As the validate stage writes it: `verdict`, `measurements`, `store`, `provenance`; `export` if any:
            label -> path from the page.
        title: Heading and page title.
    """
    verdict, measurements = scorecard["verdict"], scorecard["measurements"]
    files = scorecard.get("export")
    sections = [
        _lead(scorecard["store"], scorecard["provenance"]),
        _verdict(verdict),
        _section("What was not checked", _not_checked(measurements)),
        _section("Rules of the gate", f'<p class="note">{FLOOR}</p>\n{_rules(verdict["rules"])}'),
        _section("Measurements", _measurements(measurements)),
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
    text = f"{store['rows']:,} rows by {_settings(store['generator'])}, "
    text += f"held against {provenance['real rows']:,} rows of {provenance['real dataset']}."
    return f'<p class="lead">{escape(text)}</p>'


def _settings(generator: Mapping[str, Any]) -> str:
    rest = ", ".join(f"{name} {value}" for name, value in generator.items() if name != "kind")
    return f"{generator['kind']} ({rest})" if rest else str(generator["kind"])


def _verdict(verdict: Mapping[str, Any]) -> str:
    failed = [rule for rule in verdict["rules"] if not rule["passed"]]
    count, suite = len(verdict["rules"]), escape(verdict["suite"])
    if not failed:
        text = f"<b>Passed</b> all {count} rules of the suite '{suite}'. Read what was not checked before you trust it."
        return f'<div class="verdict">{text}</div>'
    lines = "".join(f"<li>{escape(rule['sentence'])}</li>" for rule in failed)
    text = f"<b>Failed</b> {len(failed)} of {count} rules of the suite '{suite}'. Do not train on this data."
    return f'<div class="verdict failed">{text}<ul>{lines}</ul></div>'


def _section(heading: str, body: str) -> str:
    return f"<h2>{escape(heading)}</h2>\n{body}"


def _rules(rules: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            f'<span class="{"pass" if rule["passed"] else "fail"}">{"pass" if rule["passed"] else "FAIL"}</span>',
            escape(rule["metric"]) + (f"<br><small>{escape(rule['why'])}</small>" if rule["why"] else ""),
            _number(rule["value"]),
            escape(rule["threshold"].replace(">=", "≥").replace("<=", "≤")),
            _number(rule["floor"]["median"]) if rule["floor"] else "",
        )
        for rule in rules
    ]
    return _table(("", "rule", "value", "needs", "real against real"), rows)


def _measurements(measurements: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for m in measurements:
        floor, worst = m["floor"], _worst(m)
        shown = escape(m["metric"]) + (f"<br><small>worst: {worst}</small>" if worst else "")
        floor_text = f"{floor['median']:.4g} (95 %: {floor['worst95']:.4g})" if floor else ""
        better = f"{escape(m['unit'])}, {m['direction']} is better"
        rows.append((shown, _number(m["value"]), better, floor_text))
    return _table(("metric", "value", "unit", "real against real"), rows)


def _worst(measurement: Mapping[str, Any]) -> str:
    details = measurement["details"]
    if columns := details.get("columns"):
        ordered = sorted(columns.items(), key=lambda item: item[1], reverse=measurement["direction"] == "lower")
        return ", ".join(f"{escape(name)} {value:.3f}" for name, value in ordered[:3])
    counts = sorted(details.get("fields", {}).items(), key=lambda item: -item[1])
    return ", ".join(f"{escape(name)} {value:,}" for name, value in counts[:3])


def _not_checked(measurements: Sequence[Mapping[str, Any]]) -> str:
    measured = [m["metric"] for m in measurements if m["value"] is not None]
    missing = [text for prefix, text in NOT_CHECKED.items() if not any(name.startswith(prefix) for name in measured)]
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in missing) + "</ul>"


def _files(files: Mapping[str, str]) -> str:
    return _pairs({label: f'<a href="{escape(path)}">{escape(path)}</a>' for label, path in files.items()})


def _origin(store: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    facts = {
        "real dataset": provenance["real dataset"],
        "real rows": f"{provenance['real rows']:,}",
        "synthetic rows": f"{store['rows']:,}",
        "generator": _settings(store["generator"]),
        "seed": provenance["seed"],
        "digest of the rows": store["digest"],
    }
    shown = {"path", "rows", "generator", "digest", "real dataset", "real rows", "seed"}
    rest = {name: value for name, value in {**store, **provenance}.items() if name not in shown}
    return (
        _pairs({name: f"<code>{escape(str(value))}</code>" for name, value in facts.items()})
        + "<details><summary>Versions and the rest</summary>"
        + _pairs({name: f"<code>{escape(str(value))}</code>" for name, value in rest.items()})
        + "</details>"
    )


def _pairs(values: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{html}</td></tr>\n" for name, html in values.items())
    return f"<table>\n{rows}</table>"


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:,.0f}" if value == int(value) else f"{value:.4g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that becomes one block a row on a phone, each number behind its heading."""
    kinds = [' class="number"' if name in NUMBERS else "" for name in head]
    labels = [f' data-label="{name}"' if name in NUMBERS else "" for name in head]
    header = "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, head, strict=True))
    body = "".join("<tr>" + "".join(map("<td{}{}>{}</td>".format, kinds, labels, row)) + "</tr>\n" for row in rows)
    return f'<table class="wide"><thead><tr>{header}</tr></thead>\n{body}</table>'
