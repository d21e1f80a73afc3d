"""What validation is given from above it: the truth that is known or learned, the split, controls to compare with.

`judge_store` judges a store of ours, `judge_file` anyone's data; both write the same files and the same page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline import sources
from synth_pipeline.data.containers import Episodes, Integers, concatenate_episodes
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.split import HELD_OUT
from synth_pipeline.errors import SourceError
from synth_pipeline.generators import base as generators
from synth_pipeline.runs import write_bytes
from synth_pipeline.scale.reading import by_shards, damaged_shards
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.sources.real import synthetic_rows
from synth_pipeline.store import Store
from synth_pipeline.tracking import FitProgress, say, short
from synth_pipeline.validation.gate import Suite, Verdict
from synth_pipeline.validation.judging import CARD, Table, judge_table
from synth_pipeline.validation.metric import NUM_SPLITS
from synth_pipeline.validation.oracle import SAMPLE
from synth_pipeline.validation.picture_files import read_pictures
from synth_pipeline.validation.record import read_scorecard
from synth_pipeline.validation.report import render
from synth_pipeline.validation.rules import Rules
from synth_pipeline.validation.scorecard import Reference, against_truth
from synth_pipeline.validation.truth import known_truth

HEADLINE = "oracle.mean"
CONTROLS: dict[str, dict[str, Any]] = {"SMOTE": {"kind": "smote"}, "noise": {"kind": "noise"}}
UNKNOWN = {"generator": {"kind": "unknown"}}  # of files, and of stores that no generator made
OWN = (CARD, "expectations", "pictures", "report.html")  # what judging writes into a folder
EPISODE_ROWS = 50_000  # of a table of trajectories, at most, that are judged as trajectories


@dataclass(frozen=True)
class Against:
    """What a table is held against, and how.

    Attributes:
        real: The whole real dataset.
        suite: The rules of the gate.
        held_out: Ids of its episodes that the generator did not see; None: not known.
        rules: The user's rules.
        learn_oracle: Learn what follows where no simulator is known, which takes about a minute.
        learn_floor: Learn the dynamics from the training episodes and put its held-out errors beside those of the rows;
            as slow as such a training is.
        expectations: Also keep the gate as Great Expectations suites and Data Docs, which takes seconds.
        pictures: Draw the pictures of the report, and what they need of controls.
        splits: Pairs of real halves behind each floor that is costly.
        seed: Seed of every subsample.
    """

    real: Dataset
    suite: Suite
    held_out: Integers | None = None
    rules: Rules | None = None
    learn_oracle: bool = True
    learn_floor: bool = False
    expectations: bool = True
    pictures: bool = True
    splits: int = NUM_SPLITS
    seed: int = 0

    def reference(self, fields: tuple[Field, ...]) -> Reference:
        """For rows that should have these columns.

        Raises:
            UnknownNameError: When a rule of the user names a column that the data lack.
            SourceError: When a floor is to be learned, and there are no episodes to hold out.
        """
        real = self.real
        if self.rules is not None:
            self.rules.require(real.spec)
        truth = known_truth(real.spec)
        if self.learn_oracle and not truth.of_dynamics:
            from synth_pipeline.dynamics.twofold import learned_truth  # torch: a second that most verbs save

            with FitProgress(None, label="oracle") as progress:
                truth = learned_truth(real, truth, seed=self.seed, report=progress)
        compared, floor = generators.modelled_fields(real.spec), self._learned_floor()
        return Reference(
            real, fields, compared, truth, self.held_out, self.rules, learned_floor=floor, splits=self.splits
        )

    def _learned_floor(self) -> dict[str, float] | None:
        if not self.learn_floor:
            return None
        from synth_pipeline.dynamics.ensemble import learned_floor  # torch, as above

        held_out = HELD_OUT if self.held_out is None else tuple(self.held_out.tolist())
        with FitProgress(None, label="floor") as progress:
            return learned_floor(self.real, self.seed, held_out=held_out, report=progress)


def judge_store(
    target: Store, against: Against, folder: Path, *, spent: Mapping[str, float] | None = None, workers: int | str = 1
) -> Verdict:
    """Check every byte of a store, judge its rows, and write what was found into a folder.

    Args:
        target: The store.
        against: What it is held against.
        folder: Where to.
        spent: Seconds that the rows have cost, by what for.
        workers: Processes that read all rows, or a Dask scheduler; they change nothing but the time.
    """
    verify(target, workers)
    return _judge(store_table(target, spent, workers=workers), against, target.schema.columns, folder)


def verify(target: Store, workers: int | str = 1) -> None:
    """Check every byte of a store, on processes or a Dask cluster.

    Raises:
        StoreError: Naming the missing or damaged shards and how to mend them.
    """
    target.verify(partial(damaged_shards, workers=workers))


def store_table(target: Store, spent: Mapping[str, float] | None = None, *, workers: int | str = 1) -> Table:
    """A store as a table to judge; its rows are streamed, shard by shard.

    Raises:
        StoreError: When shards are missing.
    """
    about = {"path": target.url, "digest": target.digest(), "rows": len(target), **UNKNOWN, **target.config}
    episodes = _some_episodes(target) if target.schema.kind == "trajectories" else None
    return Table(by_shards(target, workers), about, episodes, spent or {})


def judge_file(name: str, against: Against, folder: Path) -> Verdict:
    """Judge anyone's data: an npz or HDF5 file, a Minari dataset, a store.

    Raises:
        SourceError: When the file cannot be read, or holds NaN.
    """
    return _judge(file_table(name), against, generators.modelled_fields(against.real.spec), folder)


def file_table(name: str) -> Table:
    """Anyone's data as a table to judge, without the rows that are marked as real; it is read whole.

    Raises:
        SourceError: When it cannot be read, holds NaN, or no rows.
    """
    source = sources.resolve(name)
    data = source.load()
    if not len(data):
        raise SourceError(f"'{name}' holds no rows", found="0 rows", accepted="at least one transition")
    if (made := synthetic_rows(data)) is not None:
        say("", f"{name}: {len(made):,} of {len(data):,} rows are marked as synthetic, and these are judged")
        data = made
    about = {"path": name, "digest": source.fingerprint(), "rows": len(data), **UNKNOWN}
    episodes = None if data.episodes is None else _first(data.episodes)
    return Table(data, about, episodes)


def _judge(table: Table, against: Against, fields: tuple[Field, ...], folder: Path) -> Verdict:
    reference, seed = against.reference(fields), against.seed
    beside = controls(reference, seed=seed) if against.pictures else None
    return judge_table(
        table,
        reference,
        against.suite,
        folder,
        controls=beside,
        expectations=against.expectations,
        drawn=against.pictures,
        seed=seed,
    )


def controls(reference: Reference, *, seed: int) -> dict[str, list[Mapping[str, Any]]]:
    """Errors by fifths of novelty of what needs no model; nothing where errors or novelty cannot be told."""
    real, held_out = reference.real, reference.held_out
    if reference.truth.oracle is None or held_out is None or real.episodes is None:
        return {}
    training = Dataset(real.spec, real.episodes.take(np.setdiff1d(np.arange(len(real.episodes)), held_out)))
    found = {}
    for name, settings in CONTROLS.items():
        control = generators.build(settings)
        control.fit(training, seed=seed)
        rows = control.sample(SAMPLE, stream(seed, Stage.VALIDATE, 11))
        (mean,) = [m for m in against_truth(real, rows, reference.truth, held_out, seed=seed) if m.metric == HEADLINE]
        if fifths := mean.details.get("error_by_novelty"):
            found[name] = fifths
    return found


def write_page(folder: Path, title: str, *, fix: str) -> Path:
    """The report of a folder that holds a scorecard and pictures."""
    card = read_scorecard(folder / CARD, fix=fix)
    drawn = read_pictures(folder / "pictures", digest=card["store"]["digest"])
    page = folder / "report.html"
    write_bytes(page, render(card, title=title, pictures=drawn).encode())
    say("report", short(page))
    return page


def with_unseen(real: Dataset, unseen: Dataset) -> tuple[Dataset, Integers]:
    """Both together, and the ids of the episodes that come from the second.

    Raises:
        SourceError: When one of them has no episodes.
    """
    if real.episodes is None or unseen.episodes is None:
        raise SourceError(
            "unseen data are told apart by episode",
            found=f"{'real' if real.episodes is None else 'unseen'} data without episodes",
            accepted="two datasets with episodes",
        )
    both = concatenate_episodes([real.episodes, unseen.episodes])
    return Dataset(real.spec, both), np.arange(len(real.episodes), len(both), dtype=np.int64)


def _some_episodes(target: Store) -> Episodes:
    parts, rows = [], 0
    for part in target.iter_episodes():
        parts.append(part)
        rows += part.num_rows
        if rows >= EPISODE_ROWS:
            break
    return _first(concatenate_episodes(parts))


def _first(episodes: Episodes) -> Episodes:
    count = int(np.searchsorted(episodes.starts[1:], EPISODE_ROWS, side="right"))
    return episodes.take(np.arange(max(count, 1)))
