"""The look of the report: one style sheet, for phones and wide screens, light and dark; and small pieces of HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

STYLE = """
:root {
  color-scheme: light; --page: #fbfbfa; --card: #fff; --ink: #1d2125; --muted: #5b6470; --line: #dfe2e6;
  --good: #00609a; --bad: #b34700; --unknown: #6b7280;
}
@media (prefers-color-scheme: dark) {
  :root {
    color-scheme: dark; --page: #15181b; --card: #1e2226; --ink: #e8eaed; --muted: #a3acb6; --line: #363c43;
    --good: #62b8ee; --bad: #ff9a52; --unknown: #a3acb6;
  }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 0 auto;
  max-width: 68rem; padding: 1.25rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .5rem; padding-top: 1.25rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0; }
p { margin: .25rem 0; max-width: 46rem; } p.note { margin-bottom: 1rem; }
p.lead, p.note, small, .scale { color: var(--muted); } .scale { font-size: .83rem; }
a { color: var(--good); } code { font-size: .9em; }
td, li, code, a { overflow-wrap: anywhere; } li { margin: .2rem 0; max-width: 46rem; }
.verdicts { display: grid; gap: .75rem; margin: 1.25rem 0 .75rem; }
.verdict { background: var(--card); border: 1px solid var(--line); border-left: .4rem solid var(--state);
  border-radius: .4rem; padding: .8rem 1rem; --state: var(--unknown); }
.verdict.passed { --state: var(--good); } .verdict.failed { --state: var(--bad); }
.verdict h3 { font-weight: 500; color: var(--muted); }
.verdict b { display: block; font-size: 1.3rem; line-height: 1.4; color: var(--state); }
.gate { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .7rem 1rem; }
.gate ul { margin: .4rem 0 0; padding-left: 1.2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .45rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-size: .85rem; font-weight: 600; color: var(--muted); vertical-align: bottom; }
td:first-child { overflow-wrap: normal; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.whole { white-space: nowrap; }
.pass { color: var(--good); } .fail { color: var(--bad); font-weight: 600; }
details summary { cursor: pointer; padding: .5rem 0; } td details summary { padding: 0; }
pre { margin: 0; overflow-x: auto; font-size: .85em; }
figure { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; margin: 0 0 1rem;
  padding: .9rem; break-inside: avoid; }
figure img { display: block; width: 100%; height: auto; background: #fff; border-radius: .25rem; margin: .6rem 0; }
figcaption { font-size: .9rem; color: var(--muted); }
@media (min-width: 48rem) {
  .verdicts { grid-template-columns: repeat(3, 1fr); }
  .pictures { columns: 2; column-gap: 1rem; }
}
@media (max-width: 47.99rem) {
  table.wide thead { display: none; }
  table.wide tr { display: block; padding: .6rem 0; border-bottom: 1px solid var(--line); }
  table.wide td { display: block; border: 0; padding: .05rem 0; text-align: left; white-space: normal; }
  table.wide td[data-label] { display: inline-block; margin-right: 1rem; }
  table.wide td[data-label] br { display: none; } table.wide td[data-label] small { margin-left: .4rem; }
  table.wide td:empty { display: none; }
  table.wide td[data-label]::before { content: attr(data-label) " "; color: var(--muted); }
}
"""
NUMBERS = ("value", "needs", "real against real")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # a browser that obeys it loads nothing at all


def page(title: str, body: Sequence[str]) -> str:
    """The whole page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def section(heading: str, body: str, *, note: str = "") -> str:
    """A heading, a sentence about what stands below, and the body (HTML)."""
    return f"<h2>{escape(heading)}</h2>\n" + (f'<p class="note">{escape(note)}</p>\n' if note else "") + body


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = NUMBERS) -> str:
    """A table of HTML cells that becomes one block a row on a phone, each of `numbers` behind its heading."""
    kinds = [' class="number"' if name in numbers else "" for name in head]
    labels = [f' data-label="{name}"' if name in numbers else "" for name in head]
    header = "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, head, strict=True))
    body = "".join("<tr>" + "".join(map("<td{}{}>{}</td>".format, kinds, labels, row)) + "</tr>\n" for row in rows)
    return f'<table class="wide"><thead><tr>{header}</tr></thead>\n{body}</table>'


def pairs(values: Mapping[str, str]) -> str:
    """A table of names and HTML."""
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{html}</td></tr>\n" for name, html in values.items())
    return f"<table>\n{rows}</table>"


def items(lines: Sequence[str]) -> str:
    """A list of texts."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def number(value: float) -> str:
    """Four digits, and no line break within."""
    whole = math.isfinite(value) and value == int(value)
    return span(f"{value:,.0f}" if whole else f"{value:.4g}")


def share(value: float) -> str:
    """Three decimals, or as many as it takes to be more than nothing."""
    return span("0" if value == 0 else f"{value:.1e}" if abs(value) < 5e-4 else f"{value:.3f}")


def small(html: str) -> str:
    """A line of HTML below another; nothing where there is none."""
    return f"<br><small>{html}</small>" if html else ""


def span(text: str) -> str:
    """HTML that is not broken into lines."""
    return f'<span class="whole">{text}</span>'
