"""What several verbs of `synthpipe` share: options, and the two lines that end a command."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from synth_pipeline.errors import ConfigError, typable
from synth_pipeline.run_config import presets
from synth_pipeline.tracking import say


def _beginning(names: Iterable[str], typed: str) -> list[str]:
    return sorted(name for name in names if name.startswith(typed))


def dataset_ids(incomplete: str) -> list[str]:
    """Completions of a dataset: catalog and Minari ids; where there are none, the shell offers files."""
    from synth_pipeline.sources import catalog, minari_root

    return _beginning([*catalog.entries(), *minari_root.local_ids()], incomplete)


def preset_names(incomplete: str) -> list[str]:
    """Completions of a preset."""
    return _beginning(presets(), incomplete)


def generator_names(incomplete: str) -> list[str]:
    """Completions of a generator."""
    from synth_pipeline.generators import GENERATORS

    return _beginning(GENERATORS.names(), incomplete)


def agent_names(incomplete: str) -> list[str]:
    """Completions of the last of several agents with commas."""
    from synth_pipeline.agents import AGENTS

    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in _beginning(AGENTS.names(), last)]


RunDirectory = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, e.g. runs/first.")]
Output = Annotated[Path, typer.Option("-o", "--out", metavar="RUN", help="Run directory; made when absent.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Processes; default: 1. Never changes the data.")]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", metavar="ADDRESS", help="Instead: a Dask cluster, e.g. tcp://host:8786.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done; do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Go ahead even when it takes more than an hour.")]
Repair = Annotated[bool, typer.Option("--repair", help="Check every byte first, and make damaged shards again.")]
Track = Annotated[str, typer.Option("--track", help="jsonl; or tensorboard, beside it.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. seed=1; again for more."),
]
Real = Annotated[
    str | None,
    typer.Option("--real", metavar="DATASET", help="Hold it against this dataset.", autocompletion=dataset_ids),
]
SuiteName = Annotated[str | None, typer.Option("--suite", help="Suite by name, or a YAML file.")]
RulesFile = Annotated[Path | None, typer.Option("--rules", metavar="YAML", help="Rules of your own that rows obey.")]
Unseen = Annotated[
    str | None,
    typer.Option(
        metavar="DATASET",
        help="Real episodes that the generator did not see: novelty.",
        autocompletion=dataset_ids,
    ),
]
Known = Annotated[bool, typer.Option("--no-learned-oracle", help="Do not learn dynamics where no simulator is known.")]


def workers_of(workers: int | None, scheduler: str | None) -> int | str:
    """Who works: so many processes of this machine, or the cluster of a scheduler.

    Raises:
        ConfigError: When both are asked for, or a scheduler cannot have that address.
    """
    if scheduler is None:
        return 1 if workers is None else workers
    if workers is not None:
        raise ConfigError(
            "either processes of this machine work, or a cluster does",
            found=f"--workers {workers} and --scheduler {scheduler}",
            fix="leave one of them out; a cluster has as many workers as were started for it",
        )
    from synth_pipeline.scale.cluster import require_address

    require_address(scheduler)
    return scheduler


def suggest(*command: str) -> None:
    """The next command to type."""
    say("next", typable(shlex.join(["synthpipe", *command])))


def planned_only(label: str, text: str) -> None:
    """What a dry run would do."""
    say(label, f"{text}; nothing was done")
