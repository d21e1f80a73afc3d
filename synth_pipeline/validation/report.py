"""The report: one self-contained HTML page: verdict in plain words, numbers, origin, and what was not checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --good: #0072b2; --bad: #d55e00; --rule: #8886; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { border-left: .5rem solid var(--good); padding: .5rem 1rem; font-size: 1.1rem; }
.verdict.failed { border-color: var(--bad); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.pass { color: var(--good); } .fail { color: var(--bad); font-weight: 600; }
code { overflow-wrap: anywhere; } small { opacity: .8; }
"""

NOT_CHECKED = {
    "contract.": "The table contract was not checked.",
    "marginals.": "Single columns were not compared.",
    "dependence.": "Dependence between columns was not compared.",
    "oracle.": "Dynamics were not checked: whether s' and r follow from (s, a) is unknown.",
    "c2st.": "No classifier tried to tell synthetic rows from real ones.",
    "coverage.": "Coverage of the state-action space was not measured.",
    "novelty.": "Novelty was not judged: the rows may be near-copies of training rows.",
    "utility.": "Utility was not measured: whether offline RL gets better with these rows is unknown.",
}


def render(scorecard: Mapping[str, Any], *, title: str) -> str:
    """The page for one store.

    Args:
        scorecard: As the validate stage writes it: `verdict`, `measurements`, `store`, `provenance`; `export` if any.
        title: Heading and page title.
    """
    verdict = scorecard["verdict"]
    sections = [
        _verdict(verdict),
        _section("Rules of the gate", _rules(verdict["rules"])),
        _section("Measurements", _measurements(scorecard["measurements"])),
        _section("What was not checked", _not_checked(scorecard["measurements"])),
        _section("Files", _pairs(scorecard.get("export") or {"export": "nothing exported"})),
        _section("Origin", _pairs({**scorecard["store"], **scorecard["provenance"]})),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def _verdict(verdict: Mapping[str, Any]) -> str:
    failed = [rule for rule in verdict["rules"] if not rule["passed"]]
    if verdict["passed"]:
        text = f"<b>Passed</b> all {len(verdict['rules'])} rules of the suite '{escape(verdict['suite'])}'."
    else:
        names = ", ".join(escape(rule["metric"]) for rule in failed)
        text = f"<b>Failed</b> {len(failed)} of {len(verdict['rules'])} rules: {names}. Do not train on this data."
    kind = "verdict" if verdict["passed"] else "verdict failed"
    return f'<p class="{kind}">{text} Read what was not checked before you trust it.</p>'


def _section(heading: str, body: str) -> str:
    return f"<h2>{escape(heading)}</h2>\n{body}"


def _rules(rules: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            f'<span class="{"pass" if rule["passed"] else "fail"}">{"pass" if rule["passed"] else "FAIL"}</span>',
            f"{escape(rule['metric'])}<br><small>{escape(rule['why'])}</small>",
            _number(rule["value"]),
            escape(rule["threshold"]),
            _number(rule["floor"]["median"] if rule["floor"] else None),
        )
        for rule in rules
    ]
    return _table(("", "rule", "value", "needs", "real against real"), rows)


def _measurements(measurements: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for m in measurements:
        worst = sorted((m["details"].get("columns") or {}).items(), key=lambda item: item[1])[:3]
        detail = ", ".join(f"{escape(name)} {value:.3f}" for name, value in worst)
        name = escape(m["metric"]) + (f"<br><small>worst columns: {detail}</small>" if detail else "")
        floor = m["floor"]
        floor_text = f"{floor['median']:.4g} (95 %: {floor['worst95']:.4g})" if floor else ""
        rows.append((name, _number(m["value"]), escape(m["unit"]), f"{m['direction']} is better", floor_text))
    return _table(("metric", "value", "unit", "direction", "real against real"), rows)


def _not_checked(measurements: Sequence[Mapping[str, Any]]) -> str:
    measured = [m["metric"] for m in measurements if m["value"] is not None]
    missing = [text for prefix, text in NOT_CHECKED.items() if not any(name.startswith(prefix) for name in measured)]
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in missing) + "</ul>"


def _pairs(values: Mapping[str, Any]) -> str:
    return _table(("", ""), [(escape(str(k)), f"<code>{escape(str(v))}</code>") for k, v in values.items()])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head) if any(head) else ""
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="scroll"><table><tr>{header}</tr>\n{body}</table></div>'


def _cell(cell: str) -> str:
    plain = cell.replace(".", "", 1).replace("-", "").replace("e", "").replace("+", "")
    return f'<td class="number">{cell}</td>' if plain.isdigit() else f"<td>{cell}</td>"
