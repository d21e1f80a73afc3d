"""Incremental augmentation: a source that grows, and a line of versions of its augmented dataset.

    root/v0, root/v1, ...    ordinary run directories, each with its model, store, scorecard and export (Minari id -vK)
    root/lineage.json        for every version: of which data, from which version, how

A source that has not changed is left alone. When it has grown, the newest version is followed by another one: the
generator is trained on from its weights, or kept (`append`) while shards are added to its rows. What was held out stays
held out, and a tenth of what is new joins it, so that novelty can still be judged. When old data were changed, nothing
of what was learned from them is kept: the generator is fitted anew. A version that was cut short is gone on with.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline import stages, store
from synth_pipeline.config import content_hash
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.split import HELD_OUT, grown_split, split_dataset
from synth_pipeline.errors import ConfigError
from synth_pipeline.export.augmented import default_id
from synth_pipeline.run_config import CONFIG, RunConfig, keep_config, open_run
from synth_pipeline.runs import Run, read_object, staged_directory, write_json
from synth_pipeline.scale.fitted import FittedFacts, fitted_facts, made_from, source_of, trained_model
from synth_pipeline.sources import catalog
from synth_pipeline.sources import collect as collecting
from synth_pipeline.sources.base import hash_prefix, units
from synth_pipeline.store.lock import LOCK, working
from synth_pipeline.tracking import say, short

LINEAGE = "lineage.json"


def augment(root: Path, config: RunConfig, *, append: bool = False, workers: int | str = 1, yes: bool = False) -> Path:
    """Bring the augmented dataset up to its source: a new version when the source has changed, else nothing.

    Args:
        root: Folder of all versions.
        config: What every version is made from; ids, addresses and the split of later ones follow from the version.
        append: Keep the generator, and add as many rows as keep the ratio of synthetic to real ones.
        workers: Processes, or the address of a Dask scheduler.
        yes: Go ahead even when generating takes more than an hour.

    Returns:
        The report of the newest version.

    Raises:
        ConfigError: When the root is something else, or there is nothing to append to.
        BusyError: When another process augments the same root.
        GateError: When the new version failed the gate; it is reported and not exported, and not built on.
    """
    _require_root(root)
    if config.dataset in catalog.entries():
        stages.collect(config.dataset, rows=config.collect.rows, workers=workers)
    key = _key(config)
    with working(Run(root)):
        if not (root / LINEAGE).exists():  # first of all: without it the folder would be taken for something else
            write_json(root / LINEAGE, {"versions": []})
        newest = _newest(root)
        if _up_to_date(newest, key):
            say("augment", _nothing_to_do(root, config, newest))
            report: Path = root / newest["version"] / newest["report"]
            return report
        if newest.get("key") != key:
            newest = _begun(root, config, key, append)
        run, own = open_run(root / newest["version"])
        warm_from = root / newest["parent"] / "model" / "generator" if newest["how"] == "warm" else None
        keep = newest["how"] == "append"
        page = stages.run_all(run, own, workers=workers, yes=yes, warm_from=warm_from, keep_model=keep)
        _note(root, {**newest, "report": page.name, "minari_id": run.record("export")["minari_id"]})
    return page


def planned(root: Path, config: RunConfig, *, append: bool = False) -> str:
    """What `augment` would do now, in words; arguments and errors as there, and nothing is written."""
    _require_root(root)
    stages.check(Run(root / f"v{len(history(root))}"), config)
    if config.dataset in catalog.entries():
        wanted = collecting.collection(config.dataset, rows=config.collect.rows)
        if not (store.exists(str(wanted.folder)) and store.open(str(wanted.folder)).finalised):
            return f"{wanted.rows:,} rows of {config.dataset} would be collected, and a version made of them"
    key, newest = _key(config), _newest(root)
    if _up_to_date(newest, key):
        return _nothing_to_do(root, config, newest)
    if newest.get("key") == key:
        return f"{newest['version']} of {config.dataset} was cut short and would go on"
    return _in_words(config, _next(root, config, append)[1])


def history(root: Path) -> list[dict[str, Any]]:
    """What `lineage.json` says, the oldest version first; empty when there is none.

    Raises:
        ConfigError: When the file is damaged.
    """
    path = root / LINEAGE
    if not path.exists():
        return []
    found: list[dict[str, Any]] = read_object(path, "a line of versions", fix="choose another folder")["versions"]
    return found


def _key(config: RunConfig) -> str:
    return content_hash(source_of(config).fingerprint(), config.plain())


def _newest(root: Path) -> dict[str, Any]:
    return (history(root) or [{}])[-1]


def _up_to_date(version: dict[str, Any], key: str) -> bool:
    return version.get("key") == key and bool(version["report"])


def _nothing_to_do(root: Path, config: RunConfig, version: dict[str, Any]) -> str:
    return f"nothing to do: {config.dataset} has not changed since {short(root / version['version'])} was made"


def _begun(root: Path, config: RunConfig, key: str, append: bool) -> dict[str, Any]:
    """A new version: its folder with its configuration, and for `append` the model and rows of its parent."""
    own, version = _next(root, config, append)
    folder = root / version["version"]
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed before the line below
    if version["how"] == "append":
        _copy(root / version["parent"], folder)
    run = Run(folder)
    run.create()
    keep_config(run, own)
    say("augment", _in_words(config, version))
    return _note(root, {**version, "key": key, "report": None})


def _next(root: Path, config: RunConfig, append: bool) -> tuple[RunConfig, dict[str, Any]]:
    """The configuration of the next version, and how it begins."""
    versions = history(root)
    parent = next((v for v in reversed(versions) if v["report"]), None)
    own, how = _derived(root, config, len(versions), parent, append)
    name = f"v{len(versions)}"
    return own, {"version": name, "how": how, "parent": parent["version"] if parent and how != "fit" else None}


def _derived(
    root: Path, config: RunConfig, number: int, parent: dict[str, Any] | None, append: bool
) -> tuple[RunConfig, str]:
    """The configuration of a version, and how it begins: `fit`, `warm` or `append`."""
    data = source_of(config).load()
    base = config.export.minari_id or default_id(data.spec, str(config.generator.get("kind")))
    minari_id = f"{re.sub(r'-v[0-9]+$', '', base)}-v{number}"
    changes: dict[str, Any] = {"export": config.export.replace(minari_id=minari_id)}
    if config.generate.store:
        changes["generate"] = config.generate.replace(store=f"{config.generate.store.rstrip('/')}/v{number}")
    facts, before = _facts(root, parent)
    if facts is None or before is None or not _grown(facts, data, config):
        if append and number:
            raise _no_append(config, "other settings, or data that were not only added to")
        if split := split_dataset(data, held_out=config.held_out, seed=config.seed).split:
            changes["held_out"] = tuple(split.held_out.tolist())  # by name: a share would be another deal of more data
        return config.replace(**changes), "fit"
    if facts.held_out_episodes is not None:
        share = config.held_out if isinstance(config.held_out, float) else HELD_OUT
        old = np.array(facts.held_out_episodes, np.int64)
        held_out = grown_split(old, facts.units, units(data), fraction=share, seed=config.seed).held_out
        changes["held_out"] = tuple(held_out.tolist())
    if not append:
        return config.replace(**changes), "warm"
    if before.generate.store:
        raise _no_append(config, f"a store at {before.generate.store}")
    # Of the data that the generator was fitted on: the parent may have been appended to before.
    rows = max(round(config.generate.rows * units(data) / facts.units), before.generate.rows)
    kept = {"held_out": before.held_out, "generate": before.generate.replace(rows=rows)}
    return before.replace(export=changes["export"], **kept), "append"


def _facts(root: Path, parent: dict[str, Any] | None) -> tuple[FittedFacts | None, RunConfig | None]:
    if parent is None:
        return None, None
    run, config = open_run(root / parent["version"])
    return fitted_facts(trained_model(run, config), config), config


def _grown(facts: FittedFacts, data: Dataset, config: RunConfig) -> bool:
    """Whether the parent's generator is wanted again, for data that begin with those that it was fitted on."""
    wanted = {name: value for name, value in made_from(config).items() if name != "held_out"}
    same = facts.spec == data.spec.plain() and facts.made_from == {**facts.made_from, **wanted}
    return same and units(data) >= facts.units and hash_prefix(data, facts.units) == facts.history


def _copy(parent: Path, target: Path) -> None:
    """The model and the rows of a version: shards are never written again, so that links share their room."""
    with staged_directory(target) as staged:
        for part in ("model", "store"):
            shutil.copytree(parent / part, staged / part, copy_function=_link, ignore=shutil.ignore_patterns(LOCK))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)


def _note(root: Path, version: dict[str, Any]) -> dict[str, Any]:
    others = [v for v in history(root) if v["version"] != version["version"]]
    write_json(root / LINEAGE, {"versions": [*others, version]})
    return version


def _in_words(config: RunConfig, version: dict[str, Any]) -> str:
    how = {
        "fit": "a generator is fitted",
        "warm": f"the generator of {version['parent']} is trained on",
        "append": f"the generator of {version['parent']} is kept, rows are added",
    }
    return f"{version['version']} of {config.dataset}: {how[version['how']]}"


def _no_append(config: RunConfig, found: str) -> ConfigError:
    return ConfigError(
        f"there is nothing that rows of {config.dataset} can be appended to",
        found=found,
        accepted="an earlier version in a local store, whose data are the first part of the data now",
        fix="leave out --append: the next version gets rows of its own",
    )


def _require_root(root: Path) -> None:
    """Fail before work begins when the folder is something else."""
    names = [entry.name for entry in root.iterdir() if not entry.name.startswith(".")] if root.is_dir() else []
    if root.exists() and (not root.is_dir() or (names and LINEAGE not in names)):
        raise ConfigError(
            f"'{root}' does not hold versions of an augmented dataset",
            found="a file"
            if root.is_file()
            else "a run directory"
            if CONFIG in names
            else ", ".join(sorted(names)[:5]),
            accepted="a folder that `synthpipe augment` made, an empty one, or a path that does not exist yet",
            fix=shlex.join(["synthpipe", "augment", "default", "-o", f"{root}-versions"]),
        )
