"""Data Docs that need no network: the sections that Great Expectations renders, in pages of our own.

Its own pages load styles, scripts, icons and a logo from eight hosts, and what passed is told by an icon alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from synth_pipeline.validation.gate import RuleResult, Verdict

ABOUT = {
    "statistics": "one row for each column, counted over all rows",
    "sample": "some of the rows, one by one",
    "scorecard": "one row of measurements; each rule is a threshold on its column",
}
STATUS = {"fa-check-circle": "passed", "fa-times": "failed"}
STYLE = """
:root { color-scheme: light dark; --good: #0072b2; --bad: #c04a00; --line: #8885; --soft: #8882; }
@media (prefers-color-scheme: dark) { :root { --good: #56b4e9; --bad: #ff8c42; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem 1rem 4rem; }
h1 { font-size: 1.6rem; } h2, h5 { font-size: 1.1rem; margin: 2rem 0 .25rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-size: .9rem; } td { overflow-wrap: break-word; }
.badge { background: var(--soft); border-radius: .25rem; padding: 0 .3rem; }
.passed { color: var(--good); } .failed { color: var(--bad); font-weight: 600; }
@media (max-width: 40rem) { table { display: block; overflow-x: auto; } }
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>{{ style }}</style></head>
<body><h1>{{ title }}</h1>
{{ lead }}
{% for section in sections %}{% set section_loop = loop %}{% include 'section.j2' %}
{% for note in notes.get(section["section_name"], []) %}<p class="note">{{ note }}</p>
{% endfor %}{% endfor %}
</body></html>
"""


def pages(verdict: Verdict, summary: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, str]:
    """File name -> HTML: `index.html`, which lists the rules, and one page for each table.

    Args:
        verdict: What `judge` said.
        summary: What `store_expectations` returns.
        results: Table -> validation result of Great Expectations.
    """
    view = _view()
    title = f"Suite '{escape(verdict.suite)}' in Great Expectations"
    index = view.env.get_template("page.j2").render(title=title, style=STYLE, lead=_lead(verdict, summary))
    return {
        "index.html": index,
        **{f"{name}.html": _page(view, name, summary["tables"][name], result) for name, result in results.items()},
    }


def _view() -> Any:
    from great_expectations.render.view import DefaultJinjaPageView
    from jinja2 import ChoiceLoader, DictLoader

    view = DefaultJinjaPageView()
    view.env.loader = ChoiceLoader([DictLoader({"page.j2": PAGE}), view.env.loader])
    return view


def _page(view: Any, name: str, table: Mapping[str, int], result: Any) -> str:
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer

    document = ValidationResultsPageRenderer().render(result)
    order: dict[str, int] = {}  # of the sections, one for each column; the renderer sorts them by the alphabet
    notes: dict[str, list[str]] = {}
    for config in (one.expectation_config for one in result.results):
        if column := config.kwargs.get("column"):
            order.setdefault(column, len(order))
            notes.setdefault(column, []).extend([escape(config.notes)] if config.notes else [])
    sections = document.sections[1:]  # the first one links to pages that are not made, and names the batch
    document.sections = sorted(sections, key=lambda section: order.get(section.section_name, -1))
    at_fault = {one.expectation_config.kwargs.get("column") for one in result.results if not one.success}
    failed = [
        f'<a href="#section-{number}">{escape(section.section_name)}</a>'
        for number, section in enumerate(document.sections, start=1)
        if (section.section_name if section.section_name in order else None) in at_fault
    ]
    lead = f'<p><a href="index.html">All tables</a></p>\n<p>{ABOUT[name].capitalize()}. {_share(table)}</p>'
    if failed:
        lead += f"\n<p>{_status('failed')}: {', '.join(failed)}</p>"
    html = view.render(document, title=name.capitalize(), style=STYLE, lead=lead, notes=notes)
    return re.sub(r'<i class="fas (fa-[a-z-]+)[^>]*></i>', lambda icon: _status(STATUS[icon[1]]), html)


def _lead(verdict: Verdict, summary: Mapping[str, Any]) -> str:
    rows = [_row(rule, said) for rule, said in zip(verdict.rules, summary["rules"], strict=True)]
    head = ("rule", "gate", "Great Expectations", "value", "needs", "real against real", "why")
    tables = [
        f'<li><a href="{name}.html">{name}</a>: {ABOUT[name]}. {_share(table)}</li>'
        for name, table in summary["tables"].items()
    ]
    return (
        f"<p>The gate: {_status('passed' if verdict.passed else 'failed')}. "
        f"Great Expectations {escape(summary['great_expectations'])} agrees with every rule.</p>\n"
        f"<h2>Tables</h2>\n<ul>{''.join(tables)}</ul>\n<h2>Rules</h2>\n<table><thead>{_cells('th', head)}</thead>\n"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _row(rule: RuleResult, said: Mapping[str, Any]) -> str:
    passed = said["passed"]
    cells = (
        escape(rule.metric),
        _status("passed" if rule.passed else "failed"),
        "nothing expected" if passed is None else _status("passed" if passed else "failed"),
        "not decidable" if rule.value is None else f"{rule.value:.6g}",
        escape(rule.threshold),
        f"{rule.floor.median:.4g}" if rule.floor else "",
        escape(rule.why),
    )
    return _cells("td", cells)


def _cells(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>\n"


def _status(word: str) -> str:
    return f'<span class="{word}">{word}</span>'


def _share(table: Mapping[str, int]) -> str:
    return f"{table['passed']} of {table['expectations']} expectations passed."
