"""The verbs of `synthpipe` that judge: a run, a store, anyone's file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from synth_pipeline.cli_options import (
    DryRun,
    Known,
    Real,
    RulesFile,
    Scheduler,
    SuiteName,
    Unseen,
    Workers,
    planned_only,
    suggest,
    workers_of,
)
from synth_pipeline.config import read_yaml
from synth_pipeline.errors import ConfigError
from synth_pipeline.run_config import CONFIG, open_run
from synth_pipeline.tracking import say, short

if TYPE_CHECKING:
    from synth_pipeline.store import Store


def validate(
    target: Annotated[str, typer.Argument(metavar="RUN_OR_STORE", help="Run directory; or a store, with --real.")],
    real: Real = None,
    suite: SuiteName = None,
    rules: RulesFile = None,
    unseen: Unseen = None,
    known_only: Known = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    dry_run: DryRun = False,
) -> None:
    """Judge the store against the real data; exit code 7 when a rule fails."""
    from synth_pipeline import stages, store
    from synth_pipeline.runs import read_json
    from synth_pipeline.scale.fill import filled_store
    from synth_pipeline.validation.gate import load_suite, require_rules

    chosen = workers_of(workers, scheduler)
    if real is not None:
        url = f"{target}/store" if (Path(target) / CONFIG).is_file() else target
        opened = store.open(url)
        name = target.rstrip("/").rpartition("/")[2] if "://" in target else target.rstrip("/")
        judged = _Judged(url, real, suite, rules, unseen, known_only)
        if dry_run:
            judged.plan("validate", len(opened))
            return
        judged.write(Path(f"{name}-validation"), opened, chosen)
        return
    _require_real(target)
    if unseen is not None:
        what = "a run holds its own unseen episodes out"
        raise ConfigError(what, found=f"--unseen {unseen}", accepted="--unseen beside --real", fix="leave --unseen out")
    changes = [f"validation.suite={suite}"] if suite else []
    changes += ["validation.learn_oracle=false"] if known_only else []
    run, config = open_run(Path(target), changes)
    if rules is not None:
        config = config.replace(rules=read_yaml(rules))
    if dry_run:
        _plan_judging("validate", load_suite(config.validation.suite), len(filled_store(run, config)), target)
        return
    card = stages.validate(run, config, workers=chosen)
    stages.report(run)
    anyway = shlex.join(["synthpipe", "export", target, "--allow-failed"])
    require_rules(read_json(card), target, fix=f"improve the generator, or export it all the same: {anyway}")
    suggest("export", target)


def audit(
    file: Annotated[str, typer.Argument(metavar="FILE", help="npz or HDF5 file, Minari dataset, or a store.")],
    real: Annotated[str, typer.Option(metavar="DATASET", help="The real data that it should be like.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="DIR", help="Default: FILE-audit.")] = None,
    suite: SuiteName = None,
    rules: RulesFile = None,
    unseen: Unseen = None,
    known_only: Known = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    dry_run: DryRun = False,
) -> None:
    """Judge anyone's synthetic data against the real data, and write a page; exit code 7 when a rule fails.

    A store is streamed, by several workers if asked for; a file is read whole.
    """
    from synth_pipeline import sources, store
    from synth_pipeline.sources.base import on_disk

    judged, chosen = _Judged(file, real, suite, rules, unseen, known_only), workers_of(workers, scheduler)
    streamed = "://" in file or on_disk(Path(file)) == "store"
    if not streamed and (workers, scheduler) != (None, None):
        raise ConfigError(
            "a file is read whole, by this process",
            found=f"--workers {workers}" if scheduler is None else f"--scheduler {scheduler}",
            accepted="workers for a store",
            fix="leave it out",
        )
    if dry_run:
        judged.plan("audit", sources.resolve(file).describe()["rows"])
        return
    name = Path(file.rstrip("/").rpartition("/")[2] if "://" in file else file.rstrip("/"))
    judged.write(out or name.with_name(f"{name.stem}-audit"), store.open(file) if streamed else None, chosen)


class _Judged(NamedTuple):
    """What is judged outside of a run, against what."""

    what: str
    real: str
    suite: str | None
    rules: Path | None
    unseen: str | None
    known_only: bool

    def plan(self, label: str, rows: int) -> None:
        """Say what would be judged; everything that is named has to be there."""
        from synth_pipeline import sources
        from synth_pipeline.validation.gate import load_suite
        from synth_pipeline.validation.rules import Rules

        for dataset in filter(None, (self.real, self.unseen)):
            sources.real_source(dataset).describe()
        if self.rules is not None:
            Rules.load(self.rules)
        _plan_judging(label, load_suite(self.suite or "default"), rows, self.what)

    def write(self, folder: Path, opened: Store | None = None, workers: int | str = 1) -> None:
        """Judge, write the page, and fail when a rule failed; a store is streamed, a file is read whole."""
        from synth_pipeline import sources
        from synth_pipeline.judgement import OWN, Against, judge_file, judge_store, with_unseen, write_page
        from synth_pipeline.runs import read_json, require_folder
        from synth_pipeline.validation.gate import load_suite, require_rules
        from synth_pipeline.validation.judging import CARD
        from synth_pipeline.validation.rules import Rules

        require_folder(folder, OWN, "an audit")
        suite, rules = load_suite(self.suite or "default"), None if self.rules is None else Rules.load(self.rules)
        data, held_out = sources.real_source(self.real).load(), None
        if self.unseen is not None:
            data, held_out = with_unseen(data, sources.real_source(self.unseen).load())
        against = Against(data, suite, held_out, rules, learn_oracle=not self.known_only)
        if opened is None:
            judge_file(self.what, against, folder)
        else:
            judge_store(opened, against, folder, workers=workers)
        again = shlex.join(["synthpipe", "audit", self.what, "--real", self.real])
        page = write_page(folder, f"Audit of {self.what}", fix=again)
        require_rules(read_json(folder / CARD), self.what, fix=f"see {short(page)}")
        say("next", f"open {shlex.quote(short(page))} in a browser")


def _plan_judging(label: str, suite: Any, rows: int, what: str) -> None:
    planned_only(label, f"{len(suite.rules)} rules of '{suite.name}' on {rows:,} rows of {short(what)}")


def _require_real(target: str) -> None:
    if (Path(target) / "zarr.json").exists() or "://" in target:
        raise ConfigError(
            f"'{target}' is a store, and nothing says which data it should be like",
            accepted="a run directory, or a store with --real DATASET",
            fix=shlex.join(["synthpipe", "validate", target, "--real", "DATASET"]),
        )
