"""The configuration of a whole run: one YAML, every stage's settings in it, presets shipped; where a run keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field as Setting
from pydantic import field_validator, model_validator

from synth_pipeline import resources
from synth_pipeline.config import Config, dump_yaml, override, read_yaml
from synth_pipeline.errors import ConfigError, nearest, unknown_name
from synth_pipeline.runs import Run, read_json, write_bytes

CONFIG = "config.yaml"
Share = Annotated[float, Setting(gt=0, lt=1)]
LABELS = "relabelled"  # key of a store's configuration: what was rewritten in the rows of another store, step by step
MIXED = "mixed"  # what the arm with the rows of a run is called
RELABELLED = f"{LABELS}.json"  # in the run of such a store


class CollectSettings(Config):
    """How much to collect when the dataset is one of the catalog's recipes."""

    rows: int | None = Setting(None, ge=1, description="transitions to collect; none: the recipe's size")


class GenerateSettings(Config):
    """How much to generate and how it is cut into tasks."""

    rows: int = Setting(200_000, ge=1, description="synthetic transitions")
    rows_per_shard: int | None = Setting(
        None,
        ge=16_384,
        le=262_144,
        multiple_of=16_384,
        description="rows a task, in whole chunks of the store; none: about a minute's work. "
        "Fewer rows at once, for less memory: generate.micro_batch",
    )
    store: str | None = Setting(None, description="where the rows go, e.g. s3://bucket/prefix; none: into the run")
    micro_batch: int = Setting(16_384, ge=1, description="rows per sampling call; part of the data's identity")
    max_attempts: int = Setting(8, ge=1, description="tries to fill a shard when the generator rejects rows")
    where: str | None = Setting(None, description="relevance that rows are aimed at, e.g. near_terminal; none: nowhere")
    aimed_share: float = Setting(0.5, gt=0, lt=1, description="share of the rows that are aimed; the rest undo it")
    top: float = Setting(0.1, gt=0, lt=1, description="share of the data that counts as top of the relevance")
    guidance: float = Setting(1.0, ge=0, description="weight of the relevance in sampling; weights undo only 1")

    @model_validator(mode="after")
    def _aimed_somewhere(self) -> GenerateSettings:
        fields = type(self).model_fields
        aims = [name for name in ("aimed_share", "top", "guidance") if getattr(self, name) != fields[name].default]
        if self.where is None and aims:
            raise ValueError(f"{', '.join(aims)} without effect: rows are aimed nowhere; say where with generate.where")
        return self


class ValidationSettings(Config):
    """What the data is held against."""

    suite: str = Setting("default", description="shipped suite, or path of a YAML suite")
    splits: int = Setting(20, ge=2, description="pairs of real halves behind each costly floor; fewer are rough")
    expectations: bool = Setting(True, description="also keep the gate as Great Expectations suites and Data Docs")
    pictures: bool = Setting(True, description="draw the pictures of the report")
    learn_oracle: bool = Setting(True, description="learn what follows from (s, a) where no simulator is known")
    learn_floor: bool = Setting(False, description="put the held-out errors of plain regression beside those of rows")


class ExportSettings(Config):
    """What is written for others."""

    minari_id: str | None = Setting(None, description="id of the augmented dataset; none: made from the dataset's")
    one_step: int = Setting(
        20_000, ge=0, le=50_000, description="synthetic rows in the Minari dataset, as one-step episodes"
    )


class EvaluationSettings(Config):
    """Whose learning tells what the rows are worth."""

    in_run: bool = Setting(False, description="also as a stage of `synthpipe run`, not only of `synthpipe evaluate`")
    agents: dict[str, dict[str, Any]] = Setting({"td3_bc": {}, "iql": {}}, min_length=1, description="name -> settings")
    gradient_steps: int | None = Setting(50_000, ge=1, description="of every agent; none: as its paper has it")
    seeds: int = Setting(5, ge=1, description="trainings of each agent on each arm, in pairs")
    rows: int = Setting(100_000, ge=1, description="rows that are mixed in; of real rows again, whole passes")
    share: float = Setting(0.5, gt=0, le=1, description="share of every batch that is synthetic")
    use_in: Literal["both", "critic", "actor"] = Setting("both", description="who learns from synthetic rows")
    controls: tuple[str, ...] = Setting(
        (), description="further arms: smote, noise, learned, relabelled, duplicate, top, fresh, regularised"
    )
    episodes: int = Setting(10, ge=1, description="episodes of an evaluation")
    evaluations: int = Setting(5, ge=1, description="last evaluations that a score is the mean of")
    spacing: float = Setting(0.02, gt=0, le=1, description="steps between them, as a share of the training")
    watched: int = Setting(4, ge=0, description="evaluations before these, for the learning curve alone")
    values: bool = Setting(False, description="also hold values of a fixed policy, learned with the rows, to the truth")
    probe: dict[str, Any] = Setting({}, description="settings of these values: policy, states, gradient_steps, ...")


class AugmentSettings(Config):
    """What `synthpipe augment` does when its source has grown."""

    share: float = Setting(0.25, gt=0, le=1, description="gradient steps of a warm start, as a share of a whole fit")


class RunConfig(Config):
    """Everything a run is made from; equal configurations make equal data."""

    dataset: str = Setting(description="catalog id, Minari id, or path of an HDF5 or npz file")
    seed: int = Setting(0, ge=0, description="seed of every random draw")
    held_out: Share | tuple[int, ...] = Setting(
        0.1, description="share of episodes that no generator sees, or their ids"
    )
    collect: CollectSettings = Setting(CollectSettings(), description="size of a collected dataset")
    generator: dict[str, Any] = Setting({"kind": "synther"}, description="kind, and the settings of that generator")
    rules: dict[str, Any] = Setting({}, description="rules of your own: rows are moved into them, rejected, and judged")
    generate: GenerateSettings = Setting(GenerateSettings(), description="size and cut of the store")
    validation: ValidationSettings = Setting(ValidationSettings(), description="the gate")
    export: ExportSettings = Setting(ExportSettings(), description="what is written for others")
    evaluation: EvaluationSettings = Setting(EvaluationSettings(), description="agents that learn from it")
    augment: AugmentSettings = Setting(AugmentSettings(), description="what happens when the source has grown")

    @field_validator("generator", mode="after")
    @classmethod
    def _of_a_kind(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Settings without a kind are those of the usual one."""
        return given if "kind" in given else {"kind": "synther", **given}

    @property
    def held_out_in_words(self) -> str:
        """For people: `10% of the episodes`, `70 episodes`."""
        share = self.held_out
        return f"{len(share):,} episodes" if isinstance(share, tuple) else f"{share:.0%} of the episodes"


def presets() -> list[str]:
    """Names of the shipped presets."""
    return sorted(path.stem for path in resources.path("presets").glob("*.yaml"))


def load_run_config(preset_or_path: str, settings: Iterable[str] = ()) -> RunConfig:
    """A preset by name or a YAML file by path, with overrides.

    Args:
        preset_or_path: E.g. `"default"` or `"my_run.yaml"`.
        settings: Overrides `key.sub=value`.

    Raises:
        ConfigError: Unknown preset, missing file, unknown key (with the nearest right one), value out of range.
    """
    path = Path(preset_or_path)
    if preset_or_path in presets():
        values = read_yaml(resources.path("presets") / f"{preset_or_path}.yaml")
    elif path.suffix in (".yaml", ".yml") or len(path.parts) > 1 or path.exists():
        values = read_yaml(path)
    else:
        raise unknown_name("preset", preset_or_path, presets())
    return RunConfig.parse(overridden(values, list(settings)), where=preset_or_path)


def overridden(values: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """Values with overrides; another kind of generator begins with its own defaults."""
    changed = override(values, settings)
    before, after = (v.get("generator") for v in (values, changed))
    if isinstance(before, dict) and isinstance(after, dict) and after.get("kind") != before.get("kind"):
        return override({**values, "generator": {}}, settings)
    return changed


def open_run(directory: Path, settings: Iterable[str] = ()) -> tuple[Run, RunConfig]:
    """An existing run and its configuration, with overrides.

    Raises:
        ConfigError: When there is no run, or an override cannot be used.
    """
    if not (directory / CONFIG).is_file():
        found = "no config.yaml in it" if directory.is_dir() else "a file" if directory.exists() else "no such folder"
        beside = [str(path.parent) for path in directory.parent.glob(f"*/{CONFIG}")]
        guess = nearest(str(directory), beside)
        raise ConfigError(
            f"'{directory}' is not a run directory",
            found=found,
            accepted="a folder that `synthpipe train` or `synthpipe run` made",
            fix=f"did you mean '{guess}'?" if guess else "synthpipe run smoke   # makes one, runs/smoke",
        )
    return Run(directory), load_run_config(str(directory / CONFIG), settings)


def store_url(run: Run, config: RunConfig) -> str:
    """Where the generated rows of a run are: its own folder, or the address that the configuration names."""
    return config.generate.store or str(run.folder("store"))


def require_place(run: Run) -> None:
    """Fail before work begins when the directory of a run is something else.

    Raises:
        ConfigError: When it is a file, holds other files, or the configuration of another program.
    """
    place = run.directory
    blocked = next((part for part in (place, *place.parents) if part.exists() and not part.is_dir()), None)
    if blocked is not None:
        raise ConfigError(
            f"'{place}' cannot be a run directory",
            found=f"'{blocked}' is a file",
            accepted="a folder, or a path that does not exist yet",
            fix="choose another folder with -o",
        )
    if (place / CONFIG).exists():
        try:
            load_run_config(str(place / CONFIG))
        except ConfigError as error:
            raise ConfigError(
                f"'{place}' is not a run directory: its {CONFIG} is not that of a run",
                found=error.what,
                accepted="a run directory, an empty folder, or a path that does not exist yet",
                fix="choose another folder with -o",
            ) from error
        return
    names = sorted(entry.name for entry in place.iterdir()) if place.exists() else []
    foreign = [name for name in names if name != "environment.json" and not name.startswith(".")]
    if foreign:
        raise ConfigError(
            f"'{place}' is not a run directory, and it is not empty",
            found=", ".join(foreign[:5]),
            accepted="a run directory, an empty folder, or a path that does not exist yet",
            fix="choose another folder with -o",
        )


def keep_config(run: Run, config: RunConfig) -> None:
    """Write the configuration into the run directory; an equal one is left as it is."""
    path, data = run.directory / CONFIG, dump_yaml(config.model_dump(mode="json")).encode()
    if not path.exists() or path.read_bytes() != data:
        write_bytes(path, data)


class Lineage(Config):
    """Where the rows of a relabelled run come from, for commands that a person types; their identity holds hashes."""

    parent: str = Setting(description="run directory, absolute")
    options: tuple[str, ...] = Setting(description="options of `synthpipe relabel`")


def lineage_of(directory: Path) -> Lineage | None:
    """Of a relabelled run; None for any other."""
    path = directory / RELABELLED
    return Lineage.parse(read_json(path), where=str(path)) if path.is_file() else None
