"""Generators that a benchmark fits once and keeps, for hours of training outlive no killed program otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from synth_pipeline.data.rows import Dataset
from synth_pipeline.generators import base as generators
from synth_pipeline.generators.synther import SynthER

SEED = 0


def fitted_once(folder: Path, settings: Callable[[], Mapping[str, Any]], data: Dataset) -> SynthER:
    """The generator in a folder; fitted there, from where a killed program was, unless it is there already."""
    if not (folder / "generator").exists():
        folder.mkdir(parents=True, exist_ok=True)
        model = generators.build(settings())
        model.fit(data, seed=SEED, report=shown, checkpoint=folder / "training.safetensors")
        generators.save(model, folder / "generator", extra={})
        for leftover in folder.glob("training*.safetensors"):
            leftover.unlink()
    return cast(SynthER, generators.load(folder / "generator")[0])


def shown(step: int, total: int, values: Mapping[str, float]) -> None:
    """A line of progress now and then."""
    if step % 500 == 0 or step == total:
        print(f"{step:,}/{total:,} steps {dict(values)}", flush=True)


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with some of them replaced."""
    result = dict(settings)
    for name, value in changes.items():
        result[name] = merged(result.get(name, {}), value) if isinstance(value, Mapping) else value
    return result
