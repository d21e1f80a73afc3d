"""The scorecard as a file: read again with its shape checked, since people edit, cut and mix up files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic import Field as Setting

from synth_pipeline.errors import ConfigError
from synth_pipeline.runs import read_json


class _Floor(BaseModel):
    median: float
    worst95: float


class _Rule(BaseModel):
    metric: str
    verdict: str
    passed: bool
    value: float | None
    threshold: str
    floor: _Floor | None
    why: str
    sentence: str


class _Verdict(BaseModel):
    suite: str
    passed: bool
    rules: list[_Rule]


class _Measurement(BaseModel):
    metric: str
    value: float | None
    unit: str
    direction: str
    target: float | None = None
    floor: _Floor | None
    details: dict[str, Any]


class _Generator(BaseModel):
    kind: str


class _Store(BaseModel):
    digest: str
    rows: int
    generator: _Generator | None = None


class _Provenance(BaseModel):
    dataset: str = Setting(alias="real dataset")
    rows: int = Setting(alias="real rows")
    seed: int


class _Scorecard(BaseModel):
    verdict: _Verdict
    measurements: list[_Measurement]
    store: _Store
    provenance: _Provenance


def read_scorecard(path: Path, *, fix: str) -> dict[str, Any]:
    """The scorecard that the validate stage wrote.

    Args:
        path: The file.
        fix: The command that writes it anew; it must not be kept from it by the file.

    Raises:
        ConfigError: When it is missing, not JSON, or JSON of another shape.
    """
    card: dict[str, Any] = read_json(path)
    if problem := _problem(card):
        raise ConfigError(
            f"'{path}' is not a scorecard",
            found=problem,
            accepted="the file that `synthpipe validate` wrote, as it wrote it",
            fix=fix,
        )
    return card


def is_scorecard(path: Path) -> bool:
    """Whether a scorecard can be read there; what cannot is written anew."""
    try:
        return path.exists() and _problem(read_json(path)) is None
    except ConfigError:
        return False


def _problem(card: Any) -> str | None:
    try:
        _Scorecard.model_validate(card)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole file"
        return f"{place}: {first['msg'].lower()}"
    return None
