"""Comparing tables of rows: one ruler for all of them, and among them rows that must fail and rows that must pass.

The ruler: half of the held-out episodes are set aside as *fresh real rows*, which are judged like everybody else's;
everything is held against the other real episodes, the rest of the held-out ones still being what no generator saw.
Floors are costly and the same for all, so they are measured once, with the fresh rows. Every scorecard is kept: a
comparison that was killed goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline.config import content_hash
from synth_pipeline.contestants import (
    Contestant,
    OpenRun,
    agreed_split,
    file_names,
    named,
    no_episodes,
    open_runs,
    ours,
    source_for,
)
from synth_pipeline.data.containers import Integers
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.split import split_episodes
from synth_pipeline.errors import ConfigError
from synth_pipeline.generators import base as generators
from synth_pipeline.judgement import Against
from synth_pipeline.run_config import ValidationSettings
from synth_pipeline.runs import Run, read_json, require_folder, write_bytes, write_json
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.store.lock import working
from synth_pipeline.tracking import Parts, counted, duration, say, short
from synth_pipeline.validation import leaderboard
from synth_pipeline.validation.gate import load_suite
from synth_pipeline.validation.judging import outcome
from synth_pipeline.validation.metric import Floor
from synth_pipeline.validation.record import is_scorecard
from synth_pipeline.validation.rules import Rules
from synth_pipeline.validation.scorecard import DISTRIBUTIONS, FAMILIES, METRICS, Reference, scorecard

FEWEST = 4  # held-out episodes: two to set aside, two to hold against
CARDS, BOARD, PAGE = OWN = "cards", "leaderboard.json", "leaderboard.html"


@dataclass(frozen=True)
class Choices:
    """How to compare.

    Attributes:
        suite: Its name or file; None: that of the runs where they agree, else `default`.
        rules: The user's rules, for all tables alike.
        learn_oracle: Learn what follows where no simulator is known, which takes about a minute.
        splits: Pairs of real halves behind each costly floor; None: as the runs, where they agree.
        rows: Of each control and cheater; None: as many as training rows, at most as many as are looked at.
        seed: Of the deal of the held-out episodes, of controls and cheaters, and of every subsample.
    """

    suite: str | None = None
    rules: Rules | None = None
    learn_oracle: bool = True
    splits: int | None = None
    rows: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Ruler:
    """Real episodes, dealt.

    Attributes:
        real: What everything is held against; no fresh episode is in it.
        held_out: Ids of its episodes that no generator saw.
        fresh: Episodes that neither a generator nor a floor saw.
        split: Ids of `held out` and `fresh` episodes in the data as they were before.
    """

    real: Dataset
    held_out: Integers
    fresh: Dataset
    split: Mapping[str, list[int]]

    def training(self) -> Dataset:
        """What generators see."""
        assert self.real.episodes is not None
        seen = np.setdiff1d(np.arange(len(self.real.episodes)), self.held_out)
        return Dataset(self.real.spec, self.real.episodes.take(seen))


def deal(real: Dataset, held_out: Integers | None = None, *, seed: int = 0) -> Ruler:
    """Set half of the held-out episodes aside.

    Args:
        real: The whole real dataset.
        held_out: Ids of the episodes that no generator saw; None: a tenth, as in a run with this seed.
        seed: Which half.

    Raises:
        SourceError: When the data have no episodes.
        ConfigError: When too few are held out.
    """
    if real.episodes is None or len(real.episodes) < 2:
        raise no_episodes(real.spec.dataset_id)
    more = "train the runs with a larger share: --set held_out=0.3, or use more episodes"
    if held_out is None:
        held_out, more = (
            split_episodes(len(real.episodes), seed=seed).held_out,
            "use more episodes: a tenth is held out",
        )
    if len(held_out) < FEWEST:
        raise ConfigError(
            f"too few episodes of '{real.spec.dataset_id}' are held out: half of them are set aside as fresh rows",
            found=f"{len(held_out)} held out of {counted(len(real.episodes), 'episode')}",
            accepted=f"at least {FEWEST} held-out episodes",
            fix=more,
        )
    order = stream(seed, Stage.VALIDATE, 15).permutation(held_out)
    fresh, kept = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    rest = np.setdiff1d(np.arange(len(real.episodes)), fresh)
    return Ruler(
        Dataset(real.spec, real.episodes.take(rest)),
        np.searchsorted(rest, kept).astype(np.int64),
        Dataset(real.spec, real.episodes.take(fresh)),
        {"held out": kept.tolist(), "fresh": fresh.tolist()},
    )


@dataclass(frozen=True)
class Comparison:
    """What is compared, and by which ruler.

    Attributes:
        ruler: The real episodes, dealt.
        fingerprint: Hash of the whole real dataset.
        against: What every table is held against.
        contestants: Who is compared; the fresh rows come first, since floors are measured with them.
    """

    ruler: Ruler
    fingerprint: str
    against: Against
    contestants: Sequence[Contestant]

    def key(self, contestant: Contestant) -> str:
        """Hash of everything that a scorecard follows from."""
        by = self.against
        how = {"splits": by.splits, "seed": by.seed, "learn_oracle": by.learn_oracle, "split": dict(self.ruler.split)}
        who = {"rows": contestant.identity, "origin known": contestant.origin_known}
        return content_hash(who, self.fingerprint, by.suite, by.rules, METRICS, DISTRIBUTIONS, how)

    @cached_property
    def files(self) -> dict[str, str]:
        """Name of a contestant -> file of its scorecard, in the output folder."""
        found = file_names([contestant.name for contestant in self.contestants])
        return {name: f"{CARDS}/{plain}.json" for name, plain in found.items()}

    def kept(self, contestant: Contestant, folder: Path) -> dict[str, Any] | None:
        """The scorecard of an earlier comparison with exactly these inputs; None: it is to be made."""
        path = folder / self.files[contestant.name]
        card: dict[str, Any] = read_json(path) if is_scorecard(path) else {}
        return card if card.get("key") == self.key(contestant) else None

    @cached_property
    def reference(self) -> Reference:
        """What rows are held against, before floors are known; an oracle is learned for it where none is known."""
        return self.against.reference(generators.modelled_fields(self.ruler.real.spec))


def plan(whats: Sequence[str], real: str | None, choices: Choices) -> Comparison:
    """Open what is named, find the real data and deal its episodes; nothing is judged yet.

    Args:
        whats: Run directories, stores, files, ids.
        real: Name of the real data; None: that of the runs.
        choices: How to compare.

    Raises:
        ConfigError: When no ruler is fair to all, or a name is not known.
        SourceError: When data cannot be read, or have no episodes.
        StoreError: When a store is not there, or not complete.
        CheckpointError: When nothing was trained in a run.
    """
    runs = open_runs(whats)
    settings, theirs = _settings(runs, choices), named(whats, runs)
    suite, source = load_suite(settings.suite), source_for(real, runs)
    fingerprint = source.fingerprint()
    held_out, data = agreed_split(runs, fingerprint), source.load()
    if choices.rules is not None:
        choices.rules.require(data.spec)
    ruler = deal(data, held_out, seed=choices.seed)
    against = Against(
        ruler.real,
        suite,
        ruler.held_out,
        choices.rules,
        learn_oracle=settings.learn_oracle,
        splits=settings.splits,
        seed=choices.seed,
    )
    fresh, *others = ours(ruler.training(), ruler.fresh, rows=choices.rows, seed=choices.seed)
    return Comparison(ruler, fingerprint, against, [fresh, *theirs, *others])


def _settings(runs: Mapping[str, OpenRun], choices: Choices) -> ValidationSettings:
    """What was asked for; else as the runs are validated, where they agree; else the defaults."""
    found = [opened.config.validation for opened in runs.values()]
    agree = all(settings == found[0] for settings in found)
    settings = found[0] if found and agree else ValidationSettings()
    if not agree and choices.suite is None:
        say("compare", f"the runs are validated in different ways: here all are judged by '{settings.suite}'")
    if choices.rules is None and any(opened.config.rules for opened in runs.values()):
        say("compare", "rules of the runs are not applied, so that all tables are judged alike: give them by --rules")
    asked = {"suite": choices.suite, "splits": choices.splits}
    settings = settings.replace(**{name: value for name, value in asked.items() if value is not None})
    return settings.replace(learn_oracle=settings.learn_oracle and choices.learn_oracle)


# --- judging ---------------------------------------------------------------------------------------------------------


def compare(comparison: Comparison, folder: Path) -> dict[str, Any]:
    """Judge what was not judged before, and write `leaderboard.json`, `leaderboard.html` and `cards/`.

    Args:
        comparison: From `plan`.
        folder: Where to; a folder of its own.

    Returns:
        What `leaderboard.json` holds.

    Raises:
        ConfigError: When the folder holds other things.
        BusyError: When another process compares into the same folder.
        StoreError: When a store is damaged.
    """
    require_folder(folder, OWN, "a comparison")
    with working(Run(folder)):
        cards, made = judged(comparison, folder)
        board = _board(comparison, cards)
        page = leaderboard.render(board).encode()
        there = folder / PAGE
        if not made and there.exists() and there.read_bytes() == page and _same(folder / BOARD, board):
            what = counted(len(cards), "table")
            say("compare", f"nothing to do: these {what} were judged by '{board['suite']}' before: {short(there)}")
            return board
        write_json(folder / BOARD, board)
        write_bytes(there, page)
    say("compare", short(there))
    return board


def judged(comparison: Comparison, folder: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """The scorecard of every contestant by name, and how many had to be made."""
    cards: dict[str, dict[str, Any]] = {}
    made = 0
    floors: dict[str, Floor] = {}
    for contestant in comparison.contestants:
        contestant.check()
        card = comparison.kept(contestant, folder)
        if card is None:
            card = _judge(comparison, contestant, floors, folder / comparison.files[contestant.name])
            made += 1
        if contestant.kind == "fresh":
            floors = {m["metric"]: Floor(**m["floor"]) for m in card["measurements"] if m["floor"]}
        cards[contestant.name] = card
    return cards, made


def _judge(comparison: Comparison, contestant: Contestant, floors: Mapping[str, Floor], path: Path) -> dict[str, Any]:
    begin, by = time.perf_counter(), comparison.against
    held_out = by.held_out if contestant.origin_known else None
    reference = replace(comparison.reference, held_out=held_out, floors=floors)
    with Parts("compare", len(FAMILIES) + 1) as parts:
        parts(f"rows of {contestant.name}")
        table = contestant.table()
        verdict, card = scorecard(
            table.rows, reference, by.suite, episodes=table.episodes, seed=by.seed, progress=parts
        )
    origin = {"real dataset": by.real.spec.dataset_id, "real rows": len(by.real), "seed": by.seed}
    card |= {"key": comparison.key(contestant), "store": dict(table.about), "provenance": origin}
    write_json(path, card)
    say("compare", f"{contestant.name}: {outcome(verdict)}, {duration(time.perf_counter() - begin)}")
    return card


def _board(comparison: Comparison, cards: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    ruler, by, entries = comparison.ruler, comparison.against, []
    for contestant in comparison.contestants:
        card, name = cards[contestant.name], contestant.name
        found = leaderboard.entry(
            card,
            name=name,
            kind=contestant.kind,
            about=contestant.about,
            spent=contestant.spent,
            utility=contestant.utility,
        )
        entries.append({**found, "origin known": contestant.origin_known, "card": comparison.files[name]})
    fresh = len(ruler.split["fresh"])
    real = {
        "dataset": by.real.spec.dataset_id,
        "fingerprint": comparison.fingerprint,
        "rows": len(by.real),
        "held-out episodes": len(ruler.held_out),
        "fresh episodes": fresh,
    }
    return {
        "real": real,
        "suite": by.suite.name,
        "judged metrics": list(dict.fromkeys(rule.metric for rule in by.suite.rules)),
        "seed": by.seed,
        "splits": by.splits,
        "self-test": leaderboard.self_test(entries, by.suite.name, fresh),
        "entries": leaderboard.ordered(entries),
    }


def _same(path: Path, board: Mapping[str, Any]) -> bool:
    try:
        return path.exists() and read_json(path) == json.loads(json.dumps(board))
    except ConfigError:  # not JSON: written anew
        return False
