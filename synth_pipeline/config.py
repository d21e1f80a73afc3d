"""Frozen configurations: one YAML a run, whole; dotted overrides; a wrong key gets the nearest right one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from synth_pipeline.errors import ConfigError, nearest


class Config(BaseModel):
    """Base of every configuration: frozen, no unknown keys, defaults checked too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, ser_json_inf_nan="strings")

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, where: str = "configuration") -> Self:
        """Build from plain values.

        Args:
            values: Nested plain dict, as read from YAML or JSON.
            where: Name of the origin, for the error.

        Raises:
            ConfigError: On an unknown key (with the nearest known one) or a value out of range.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise _explain(error, cls, where) from None

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed and everything checked again."""
        return type(self).parse({**self.model_dump(), **changes}, where=type(self).__name__)


def _explain(error: ValidationError, model: type[BaseModel], where: str) -> ConfigError:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path) or "(top level)"
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, path[:-1])
        guess = nearest(path[-1], known)
        prefix = ".".join(path[:-1])
        full = f"{prefix}.{guess}" if prefix and guess else guess
        return ConfigError(
            f"{where}: unknown key '{key}'",
            found=f"{key} = {first['input']!r}",
            accepted=", ".join(sorted(known)),
            fix=f"did you mean '{full}'?" if guess else "remove the key",
        )
    field = _field_at(model, path)
    meaning = f" ({field.description})" if field is not None and field.description else ""
    return ConfigError(
        f"{where}: '{key}' cannot be used",
        found=repr(first["input"]),
        accepted=f"{first['msg']}{meaning}",
        fix=f"set {key}=VALUE",
    )


def _field_at(model: type[BaseModel], path: list[str]) -> Any:
    field: Any = None
    current: Any = model
    for part in path:
        fields = getattr(current, "model_fields", {})
        if part not in fields:
            return field
        field = fields[part]
        current = field.annotation
    return field


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    current: Any = model
    for part in path:
        field = getattr(current, "model_fields", {}).get(part)
        current = field.annotation if field is not None else current
    return list(getattr(current, "model_fields", {}))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        ConfigError: When the file is missing, a folder, not YAML, or not a mapping.
    """
    if path.is_dir():
        raise ConfigError(f"'{path}' is a folder, not a YAML file", fix=f"name a file, e.g. {path}/config.yaml")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no file '{path}'", fix="check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' is not valid YAML", found=str(error).splitlines()[0]) from None
    if not isinstance(values, dict):
        raise ConfigError(f"'{path}' does not hold a mapping", found=type(values).__name__, accepted="key: value lines")
    return values


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML, keys in the given order."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)


def override(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Apply `a.b.c=value` settings to nested plain values; the value is read as YAML.

    Raises:
        ConfigError: When a setting has no `=`, or goes through something that is not a mapping.
    """
    result: dict[str, Any] = json.loads(json.dumps(dict(values)))
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key:
            raise ConfigError("an override must have the form key=value", found=repr(setting), fix="--set seed=1")
        node = result
        *parents, last = key.split(".")
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ConfigError(f"'{key}' goes through '{part}', which is a single value", found=repr(setting))
        try:
            node[last] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"the value of '{key}' is not valid YAML", found=repr(text)) from None
    return result


def canonical(value: Any) -> bytes:
    """The one byte form of plain values that hashes are taken over (sorted keys, no spaces)."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def content_hash(*values: Any) -> str:
    """SHA-256 (hex) over the canonical form of each value."""
    digest = hashlib.sha256()
    for value in values:
        data = canonical(value)
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
