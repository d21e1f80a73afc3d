"""Who is compared: what a user names (and whether one ruler can be fair to all of it), and who is always compared."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synth_pipeline import sources, store
from synth_pipeline.cheaters import CHEATERS, Material
from synth_pipeline.data.containers import Integers, Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import ConfigError, SourceError, UnknownNameError, nearest
from synth_pipeline.generators import base as generators
from synth_pipeline.judgement import file_table, store_table
from synth_pipeline.run_config import CONFIG, RunConfig, open_run
from synth_pipeline.runs import Run
from synth_pipeline.scale.fill import filled_store
from synth_pipeline.scale.fitted import FittedFacts, fitted_facts, source_of, trained_model
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.sources.base import Source, hash_arrays
from synth_pipeline.store import Store
from synth_pipeline.tracking import counted
from synth_pipeline.validation.judging import Table
from synth_pipeline.validation.leaderboard import GENERATION, KINDS, TRAINING
from synth_pipeline.validation.marginals import SAMPLE
from synth_pipeline.validation.metric import subsample

CONTROLS = ("noise", "duplicate")
FRESH = "fresh real rows"
EXAMPLE = "synthpipe compare FILE --real hopper/medium-replay"
Maker = Callable[[Dataset, int, np.random.Generator], Transitions]  # training data, rows to make, source of randomness


@dataclass(frozen=True)
class Contestant:
    """A table of rows before it is judged.

    Attributes:
        name: What it is called in the leaderboard.
        kind: One of `leaderboard.KINDS`.
        about: What it is, in words.
        identity: What its rows follow from, as plain JSON: the digest, or the recipe.
        table: Reads or makes the rows.
        origin_known: Whether it is known that the held-out episodes were not seen; else novelty is not decidable.
        check: Reads every byte of what is stored, and raises for what is damaged.
        spent: Seconds by what for.
        utility: What the evaluation found, as a sentence; None: nothing was evaluated with these rows.
    """

    name: str
    kind: str
    about: str
    identity: Any
    table: Callable[[], Table]
    origin_known: bool = True
    check: Callable[[], None] = lambda: None
    spent: Mapping[str, float] = field(default_factory=dict)
    utility: str | None = None


class OpenRun(NamedTuple):
    """A run directory, and what is written down in it."""

    run: Run
    config: RunConfig
    facts: FittedFacts


def open_runs(whats: Sequence[str]) -> dict[str, OpenRun]:
    """Those of the named that are run directories.

    Raises:
        ConfigError: When one is named twice, or its configuration cannot be read.
        CheckpointError: When nothing was trained in one of them.
    """
    places = [what if "://" in what else os.path.realpath(what) for what in whats]
    if twice := [what for what, place in zip(whats, places, strict=True) if places.count(place) > 1]:
        raise ConfigError(f"'{twice[0]}' is named twice", found=shlex.join(whats), fix="leave one of them out")
    opened = {}
    for what in whats:
        if (Path(what) / CONFIG).is_file():
            run, config = open_run(Path(what))
            opened[what] = OpenRun(run, config, fitted_facts(trained_model(run, config), config))
    return opened


def source_for(real: str | None, runs: Mapping[str, OpenRun]) -> Source:
    """The real data: those that were named, else those of the runs.

    Raises:
        ConfigError: When neither are there.
    """
    for opened in runs.values():
        if real in (None, opened.config.dataset):  # by the run's settings: how much was collected stands there alone
            return source_of(opened.config)
    if real is None:
        raise ConfigError(
            "nothing says which real data the rows should be like",
            found="no run directory and no --real",
            accepted="at least one run directory, or --real DATASET",
            fix=EXAMPLE,
        )
    return sources.real_source(real)


def agreed_split(runs: Mapping[str, OpenRun], fingerprint: str) -> Integers | None:
    """Ids of the episodes that no generator of the runs saw; None without runs.

    Args:
        runs: By what the user typed.
        fingerprint: Of the real data.

    Raises:
        ConfigError: When a run was fitted on other data, or held other episodes out than another.
        SourceError: When a run held none out.
    """
    for what, opened in runs.items():
        if (mine := opened.facts.fingerprint) != fingerprint:
            raise ConfigError(
                f"the generator of '{what}' was not fitted on the real data of this comparison",
                found=f"{opened.config.dataset} with digest {mine[:12]}, held against digest {fingerprint[:12]}",
                accepted="runs of one dataset, and that dataset as it was",
                fix="compare runs of each dataset on their own, and leave out --real",
            )
        if opened.facts.held_out_episodes is None:
            raise no_episodes(opened.config.dataset)
    held_out = {what: frozenset(opened.facts.held_out_episodes or ()) for what, opened in runs.items()}
    for first, second in combinations(held_out, 2):
        if held_out[first] != held_out[second]:
            raise _disagreement({what: runs[what] for what in (first, second)})
    return np.array(sorted(next(iter(held_out.values()))), np.int64) if held_out else None


def no_episodes(dataset: str) -> SourceError:
    """Without episodes nothing is fresh: neighbours of one episode would stand on both sides."""
    return SourceError(
        f"a comparison needs episodes of '{dataset}' that nothing has seen",
        found="rows without episodes, or a single one",
        accepted="data that say where episodes end (terminations, truncations)",
        fix="synthpipe audit FILE --real DATASET   # judges one table, without fresh rows",
    )


def _disagreement(two: Mapping[str, OpenRun]) -> ConfigError:
    first, second = two
    wanted, ids = two[first].config, [set(opened.facts.held_out_episodes or ()) for opened in two.values()]
    each = [
        f"{what}: {len(mine)} (seed {opened.config.seed}, {opened.config.held_out_in_words})"
        for (what, opened), mine in zip(two.items(), ids, strict=True)
    ]
    again = ["synthpipe", "run", f"{second.rstrip('/')}/{CONFIG}", "-o", f"{second.rstrip('/')}-again"]
    share = wanted.held_out
    ids_or_share = f"{share:g}" if isinstance(share, float) else f"[{','.join(map(str, share))}]"
    again += ["--set", f"seed={wanted.seed}", "--set", f"held_out={ids_or_share}"]
    return ConfigError(
        f"'{first}' and '{second}' held different episodes out, so few real rows are unseen by both",
        found=f"{'; '.join(each)}; {len(ids[0] & ids[1])} in common",
        accepted="runs with the same seed and the same share of held-out episodes",
        fix=shlex.join(again),
    )


def named(whats: Sequence[str], runs: Mapping[str, OpenRun]) -> list[Contestant]:
    """What the user named, in that order.

    Args:
        whats: Run directories, stores, files, ids.
        runs: Those of them that are runs.

    Raises:
        UnknownNameError: When nothing is called so, with the nearest path that there is.
        StoreError: When a store is not there, or not complete.
        SourceError: When a file cannot be read.
    """
    found = []
    for what, name in zip(whats, names(whats), strict=True):
        if what in runs:
            found.append(_of_run(name, what, runs[what]))
        else:
            found.append(_of_store(name, what) if _is_store(what) else _of_file(name, what))
    return found


def names(whats: Sequence[str]) -> list[str]:
    """The last part of each path; as it was typed where that is not enough to tell it from the others."""
    reserved = (FRESH, *CONTROLS, *CHEATERS)
    last = [what.rstrip("/").rpartition("/")[2] or what for what in whats]
    taken = Counter([*last, *reserved])
    found = [name if taken[name] == 1 else what for name, what in zip(last, whats, strict=True)]
    return [f"{name} (given)" if name in reserved else name for name in found]


def file_names(names: Sequence[str]) -> dict[str, str]:
    """Name -> a file name without an ending; no two are equal, also where upper and lower case are."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "rows"
        taken = {other.lower() for other in found.values()}
        free = (f"{plain}{end}" for end in ["", *(f"-{number}" for number in range(2, len(names) + 2))])
        found[name] = next(candidate for candidate in free if candidate.lower() not in taken)
    return found


def _is_store(what: str) -> bool:
    return "://" in what or (Path(what) / "zarr.json").is_file()


def _of_run(name: str, what: str, opened: OpenRun) -> Contestant:
    target, evaluated = filled_store(opened.run, opened.config), opened.run.record("evaluation")
    current = evaluated.get("digest") == target.digest()  # else it was with other rows than these
    return Contestant(
        name,
        "given",
        f"{opened.config.generator['kind']}, run {what}",
        target.digest(),
        partial(store_table, target),
        check=target.verify,
        spent={TRAINING: opened.facts.seconds, GENERATION: target.seconds},
        utility=str(evaluated.get("outcome")) if current else None,
    )


def _of_store(name: str, what: str) -> Contestant:
    target: Store = store.open(what)
    digest, table = target.digest(), partial(store_table, target)
    return Contestant(name, "given", f"store {what}", digest, table, origin_known=False, check=target.verify)


def _of_file(name: str, what: str) -> Contestant:
    try:
        digest = sources.resolve(what).fingerprint()
    except UnknownNameError as error:
        folder = Path(what).parent
        guess = nearest(what, [str(path) for path in folder.iterdir()] if folder.is_dir() else [])
        raise UnknownNameError(
            f"there is nothing called '{what}' to compare",
            found=repr(what),
            accepted="a run directory, a store, an npz or HDF5 file, or the id of a dataset",
            fix=f"did you mean '{guess}'?" if guess else error.fix,
        ) from None
    return Contestant(name, "given", f"file {what}", digest, partial(file_table, what), origin_known=False)


# --- who is always there ---------------------------------------------------------------------------------------------


def ours(training: Dataset, fresh: Dataset, *, rows: int | None = None, seed: int = 0) -> list[Contestant]:
    """Fresh real rows, which come first; controls and cheaters, made from training episodes alone.

    Args:
        training: What generators see.
        fresh: Episodes that nothing has seen.
        rows: Of each control and cheater; None: as many as training rows, at most as many as are looked at.
        seed: Of what they draw.
    """
    assert fresh.episodes is not None
    rows = rows or min(len(training), SAMPLE)
    about = f"{counted(len(fresh.episodes), 'episode')} of the real data that nothing has seen"
    found = [Contestant(FRESH, "fresh", about, FRESH, partial(_table, FRESH, fresh))]
    makers: list[tuple[str, str, Maker]] = [(name, "control", partial(_control, name)) for name in CONTROLS]
    makers += [(name, "cheater", partial(_cheater, make)) for name, make in CHEATERS.items()]
    for number, (name, kind, maker) in enumerate(makers):
        table = partial(_made, name, maker, training, rows, (seed, number))
        found.append(Contestant(name, kind, KINDS[kind], {"made": name, "rows": rows}, table))
    return found


def _control(kind: str, training: Dataset, rows: int, rng: np.random.Generator) -> Transitions:
    generator = generators.build({"kind": kind})
    generator.fit(training, seed=0)  # controls draw nothing to be fitted
    return generator.sample(rows, rng)


def _cheater(
    make: Callable[[Material], Transitions], training: Dataset, rows: int, rng: np.random.Generator
) -> Transitions:
    shuffled = subsample(training.transitions(), rows, seed=0, address=15)
    return make(Material(training, shuffled, rows, rng))


def _made(name: str, make: Maker, training: Dataset, rows: int, address: tuple[int, int]) -> Table:
    seed, number = address  # of its own: what one of them draws does not depend on which others were made before
    made = make(training, rows, stream(seed, Stage.VALIDATE, 16, number))
    return _table(name, Dataset(training.spec, rows=made))


def _table(name: str, rows: Dataset) -> Table:
    digest = hash_arrays(rows.transitions().columns)
    about = {"path": name, "digest": digest, "rows": len(rows), "generator": {"kind": name}}
    return Table(rows, about, rows.episodes)
