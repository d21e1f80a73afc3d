"""What several verbs of `synthpipe` share: options, and the two lines that end a command."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import create_model
from pydantic.fields import FieldInfo

from synth_pipeline.config import Config, flat, override
from synth_pipeline.doctor_services import DASK
from synth_pipeline.errors import ConfigError, nearest, typable
from synth_pipeline.run_config import RunConfig, presets
from synth_pipeline.tracking import say

PRESETS = f"{', '.join(presets())}, or a YAML file; paper takes days on a CPU."


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


def settings_names(incomplete: str) -> list[str]:
    """Completions of what has settings of its own."""
    return [*generator_names(incomplete), *agent_names(incomplete), *_beginning(["advise", "probe"], incomplete)]


def _looked_at(settings: list[str] | None) -> list[str] | None:
    """The settings as typed; what is wrong with one by itself is said of it, not of the file that it goes over.

    Raises:
        ConfigError: For a value that its key cannot have, or a key that stands elsewhere.
    """
    for setting in settings or []:
        key = setting.partition("=")[0]
        value: Any = override({}, [setting])
        for part in key.split("."):
            value = value[part]
        field, unknown = _field_of(key)
        if unknown:
            _suggest_home(setting, key, value)
        elif field is not None:
            _require_value(setting, key, value, field)
    return settings


def _require_value(setting: str, key: str, value: object, field: FieldInfo) -> None:
    """Parse one value by itself: what depends on other values is checked with them."""
    *sections, name = key.split(".")
    definition: dict[str, Any] = {name: (field.annotation, field)}
    alone = create_model("Alone", __base__=Config, **definition)
    alone.parse({name: value}, where=f"--set {setting}", prefix="".join(f"{part}." for part in sections))


def _suggest_home(setting: str, key: str, value: object) -> None:
    """Raise when exactly one section has what an unknown key ends in, and its own has nothing like it.

    Else the whole configuration is to be read, which says what is nearest there.
    """
    section, _, name = key.rpartition(".")
    beside = [known.rpartition(".")[2] for known in _run_keys() if known.rpartition(".")[0] == section]
    homes = {} if section and nearest(name, beside) else _homes(name)
    if len(homes) == 1:
        what, found = f"--set {setting}: unknown key '{key}'", f"{key} = {value!r}"
        ((home, owners),) = homes.items()
        raise ConfigError(what, found=found, accepted=f"{home}{owners}", fix=f"did you mean '{home}'?")


def _field_of(key: str) -> tuple[FieldInfo | None, bool]:
    """The single value that a dotted key names, else None; and whether a run's configuration has no such key."""
    model: Any = RunConfig
    field: FieldInfo | None = None
    for part in key.split("."):
        if not (isinstance(model, type) and issubclass(model, Config)):
            return None, False  # inside free values, which others look at
        field = model.model_fields.get(part)
        if field is None:
            return None, True
        model = field.annotation
    section = isinstance(model, type) and issubclass(model, Config)  # its values may depend on those beside them
    return (None if section else field), False


def _run_keys() -> list[str]:
    """Every dotted key of a run's configuration."""
    return list(flat(RunConfig(dataset="").plain()))


def _homes(name: str) -> dict[str, str]:
    """The dotted keys that end in a name, each with the generators that have it."""
    from synth_pipeline.generators import GENERATORS

    kinds: dict[str, list[str]] = {}
    for kind in GENERATORS.names():
        for key in flat(GENERATORS.load(kind).settings().plain(), "generator."):
            kinds.setdefault(key, []).append(kind)
    own = {key: "" for key in _run_keys()}
    every = own | {key: f", a setting of {', '.join(names)}" for key, names in kinds.items()}
    return {key: owners for key, owners in every.items() if key.split(".")[-1] == name}


RunDirectory = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, e.g. runs/first.")]
Output = Annotated[Path, typer.Option("-o", "--out", metavar="RUN", help="Run directory; made when absent.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Processes; default: 1. Never changes the data.")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler", metavar="ADDRESS", help=f"Instead: a Dask cluster, e.g. tcp://host:8786; default: {DASK}."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done; do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Go ahead even when it takes more than an hour.")]
Repair = Annotated[bool, typer.Option("--repair", help="Check every byte first, and make damaged shards again.")]
Track = Annotated[str, typer.Option("--track", help="jsonl; or tensorboard, beside it.")]
OVERRIDE = "Override a setting, e.g. seed=1; again for more."
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=OVERRIDE, callback=_looked_at)]
ProbeSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="One of `synthpipe settings advise`, e.g. draws=10; again for more."
    ),
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

    Where neither is said, the cluster that `DASK_SCHEDULER_ADDRESS` names, else one process.

    Raises:
        ConfigError: When both are asked for, or a scheduler cannot have that address.
    """
    if workers is None and scheduler is None:
        scheduler = os.environ.get(DASK) or None
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
