"""The verbs of `synthpipe` that compare: several tables by one ruler, and two runs line by line."""

from __future__ import annotations

import json
import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synth_pipeline.cli_options import DryRun, Known, Real, RulesFile, SuiteName, planned_only
from synth_pipeline.tracking import console, say, short

if TYPE_CHECKING:
    from synth_pipeline.comparison import Comparison

HERE = Path("comparison")
WIDTH = 100  # of a paragraph, label included


def compare(
    whats: Annotated[list[str], typer.Argument(metavar="WHAT", help="Run directories, stores, files, Minari ids.")],
    real: Real = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where the leaderboard goes.")] = HERE,
    suite: SuiteName = None,
    rules: RulesFile = None,
    known_only: Known = False,
    dry_run: DryRun = False,
) -> None:
    """Judge several tables by one ruler, with controls, cheaters and fresh real rows beside them.

    Without --real, against the dataset of the runs. Always ends with 0: a comparison is no gate.
    """
    from synth_pipeline import comparison
    from synth_pipeline.runs import require_folder
    from synth_pipeline.validation.rules import Rules

    loaded = None if rules is None else Rules.load(rules)
    choices = comparison.Choices(suite, loaded, learn_oracle=not known_only)
    require_folder(out, comparison.OWN, "a comparison")
    planned = comparison.plan(whats, real, choices)
    _tell_plan(planned, out, dry_run)
    if dry_run:
        return
    board = comparison.compare(planned, out)
    _print(board)
    say("next", f"open {shlex.quote(short(out / comparison.PAGE))} in a browser")


def diff(
    first: Annotated[Path, typer.Argument(metavar="RUN_A", help="Run directory.")],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="Another one.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON, for programs.")] = False,
) -> None:
    """Say what differs between two runs: config, data, versions, store, scorecard, export, utility, cost.

    Reads what they have written down, and ends with 0 also when they differ.
    """
    from synth_pipeline import differences

    found = differences.difference(first, second)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for label, text in differences.lines(found):
        say(label, text)


def _tell_plan(planned: Comparison, out: Path, dry_run: bool) -> None:
    by, split = planned.against, planned.ruler.split
    kept = sum(planned.kept(contestant, out) is not None for contestant in planned.contestants)
    count = f"{len(planned.contestants)} tables" + (f" ({kept} judged before)" if kept else "")
    real = f"{len(by.real):,} rows of {by.real.spec.dataset_id}"
    say("compare", f"{count} by {len(by.suite.rules)} rules of '{by.suite.name}', against {real}")
    dealt = f"{len(split['held out'])} episodes held out, {len(split['fresh'])} more set aside as fresh rows"
    if dry_run:
        planned_only("", f"{dealt}, into {short(out)}")
    else:
        say("", dealt)


def _print(board: dict[str, Any]) -> None:
    from synth_pipeline.validation import leaderboard

    console.print()
    fidelity, rest, failures = leaderboard.blocks(board)
    for head, lines in ((2, fidelity), (2, rest), (0, failures)):
        for number, line in enumerate([*lines, ""] if lines else []):
            console.print(line, style="bold" if number < head else None, markup=False)
    for remark in (f"{leaderboard.READ} {leaderboard.OPEN}", *leaderboard.remarks(board)):
        _paragraph("read", remark)
    test = board["self-test"]
    _paragraph("ruler", test["sentence"], style=None if test["holds"] else "bold red")


def _paragraph(label: str, text: str, *, style: str | None = None) -> None:
    """A sentence in lines that fit beside the label."""
    for number, line in enumerate(textwrap.wrap(text, WIDTH - len(f"{label:<10} "))):
        console.print(f"{'' if number else label:<10} {line}", style=style, markup=False)
