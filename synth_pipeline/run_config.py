"""The configuration of a whole run: one YAML, every stage's settings in it, presets shipped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field as Setting

from synth_pipeline import resources
from synth_pipeline.config import Config, override, read_yaml
from synth_pipeline.errors import unknown_name


class CollectSettings(Config):
    """How much to collect when the dataset is one of the catalog's recipes."""

    rows: int | None = Setting(None, ge=1, description="transitions to collect; none: the recipe's size")


class GenerateSettings(Config):
    """How much to generate and how it is cut into tasks."""

    rows: int = Setting(200_000, ge=1, description="synthetic transitions")
    rows_per_shard: int | None = Setting(
        None, ge=16_384, le=262_144, multiple_of=16_384, description="rows a task; none: about a minute's work"
    )
    micro_batch: int = Setting(16_384, ge=1, description="rows per sampling call; part of the data's identity")
    max_attempts: int = Setting(8, ge=1, description="tries to fill a shard when the generator rejects rows")


class ValidationSettings(Config):
    """What the data is held against."""

    suite: str = Setting("default", description="shipped suite, or path of a YAML suite")


class ExportSettings(Config):
    """What is written for others."""

    minari_id: str | None = Setting(None, description="id of the augmented dataset; none: made from the dataset's")
    one_step: int = Setting(
        20_000, ge=0, le=50_000, description="synthetic rows in the Minari dataset, as one-step episodes"
    )


class RunConfig(Config):
    """Everything a run is made from; equal configurations make equal data."""

    dataset: str = Setting(description="catalog id, Minari id, or path of an HDF5 or npz file")
    seed: int = Setting(0, ge=0, description="seed of every random draw")
    held_out: float = Setting(0.1, gt=0, lt=1, description="share of episodes that no generator sees")
    collect: CollectSettings = Setting(CollectSettings(), description="size of a collected dataset")
    generator: dict[str, Any] = Setting({"kind": "smote"}, description="kind, and the settings of that generator")
    generate: GenerateSettings = Setting(GenerateSettings(), description="size and cut of the store")
    validation: ValidationSettings = Setting(ValidationSettings(), description="the gate")
    export: ExportSettings = Setting(ExportSettings(), description="what is written for others")


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
    if preset_or_path.endswith((".yaml", ".yml")) or "/" in preset_or_path:
        values = read_yaml(Path(preset_or_path))
    elif preset_or_path in presets():
        values = read_yaml(resources.path("presets") / f"{preset_or_path}.yaml")
    else:
        raise unknown_name("preset", preset_or_path, presets())
    return RunConfig.parse(override(values, settings), where=preset_or_path)
