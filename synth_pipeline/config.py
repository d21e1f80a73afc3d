"""Frozen configurations: one YAML a run, whole; dotted overrides; a wrong key gets the nearest right one."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from synth_pipeline.errors import ConfigError, nearest

# What pydantic calls the kinds of value that a key may have.
UNNAMED = re.compile(
    r"constrained-\w+|(tuple|literal)\[.*\]|int|none"
)  # what pydantic calls the kinds of value that a key may have


class Config(BaseModel):
    """Base of every configuration: frozen, no unknown keys, defaults checked too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, ser_json_inf_nan="strings")

    @model_validator(mode="before")
    @classmethod
    def _over_defaults(cls, values: Any) -> Any:
        """Naming part of a nested configuration leaves the rest at the default of its place, not of its class."""
        if not isinstance(values, Mapping):
            return values
        defaults = {name: field.default for name, field in cls.model_fields.items()}
        return {name: _over(defaults.get(name), value) for name, value in values.items()}

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, where: str = "configuration", prefix: str = "") -> Self:
        """Build from plain values.

        Args:
            values: Nested plain dict, as read from YAML or JSON.
            where: Name of the origin, for the error.
            prefix: Where these values stand among others, e.g. `generator.`, for what the error says to type.

        Raises:
            ConfigError: On an unknown key (with the nearest known one) or a value out of range.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise _explain(error, cls, where, prefix) from None

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed and everything checked again."""
        return type(self).parse({**self.model_dump(), **changes}, where=type(self).__name__)

    def plain(self) -> dict[str, Any]:
        """Plain JSON values that `parse` reads back; infinities become strings, which strict JSON can hold."""
        values: dict[str, Any] = json.loads(self.model_dump_json())
        return values


def _over(default: Any, given: Any) -> Any:
    """`given` with what it leaves out taken from `default`; another kind of thing shares nothing with it."""
    if not isinstance(default, Config) or not isinstance(given, Mapping):
        return given
    values = {name: getattr(default, name) for name in type(default).model_fields}
    if given.get("kind", values.get("kind")) != values.get("kind"):
        return given
    return values | {name: _over(values.get(name), value) for name, value in given.items()}


def _explain(error: ValidationError, model: type[BaseModel], where: str, prefix: str) -> ConfigError:
    # A misspelt key also leaves the right one missing: the misspelling is what the user has to hear about.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    path = [str(part) for part in first["loc"] if not UNNAMED.fullmatch(str(part))]
    key = ".".join(path) or "(top level)"
    if first["type"] == "extra_forbidden":
        known = sorted({name for kind in _walk(model, path[:-1])[0] for name in kind.model_fields})
        guess = nearest(path[-1], known)
        return ConfigError(
            f"{where}: unknown key '{key}'",
            found=f"{key} = {_short(first['input'])}",
            accepted=", ".join(known) if known else "no key at all",
            fix=f"did you mean '{prefix}{'.'.join([*path[:-1], guess])}'?" if guess else "remove the key",
        )
    field = _walk(model, path)[1]
    meaning = f" ({field.description})" if field is not None and field.description else ""
    context = first.get("ctx", {})
    choices = re.findall(r"'([^']*)'", str(context.get("expected", context.get("expected_tags", ""))))
    named = nearest(str(context.get("tag", first["input"])), choices)
    return ConfigError(
        f"{where}: '{key}' cannot be used",
        found="nothing" if first["type"] == "missing" else _short(first["input"]),
        accepted=f"{first['msg'].removeprefix('Value error, ')}{meaning}",
        fix=f"did you mean '{named}'?" if named else f"set {prefix}{key}={_form(first)}" if path else None,
    )


def _form(problem: Mapping[str, Any]) -> str:
    """How a value of that kind is typed."""
    if problem["type"] not in ("tuple_type", "list_type"):
        return "VALUE"
    given = problem["input"]
    return f"[{given}]" if isinstance(given, str | int | float) else "[VALUE, ...]"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


def _walk(model: type[BaseModel], path: list[str]) -> tuple[list[type[BaseModel]], FieldInfo | None]:
    """The models that may stand at `path`, and the last field on the way; indices and union tags are stepped over."""
    models: list[type[BaseModel]] = [model]
    field: FieldInfo | None = None
    for part in path:
        tagged = [kind for kind in models if part in _tags(kind)] if len(models) > 1 else []
        hits = [kind.model_fields[part] for kind in models if part in kind.model_fields]
        if tagged:
            models = tagged
        elif hits:
            field = hits[0]
            models = _models(field.annotation)
    return models, field


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _tags(model: type[BaseModel]) -> set[str]:
    literals = [get_args(f.annotation) for f in model.model_fields.values() if get_origin(f.annotation) is Literal]
    return {model.__name__, *(str(value) for values in literals if len(values) == 1 for value in values)}


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        ConfigError: When the file is missing, a folder, not readable, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"there is no file '{path}'", found="nothing there", fix="check the path") from None
    except IsADirectoryError:
        fix = f"name a file, e.g. {path}/config.yaml"
        raise ConfigError(f"'{path}' is a folder, not a file", accepted="a text file", fix=fix) from None
    except UnicodeDecodeError as error:
        fix = "save it as UTF-8, or name another file"
        raise ConfigError(f"'{path}' is not a text file", found=str(error), accepted="UTF-8", fix=fix) from None
    except OSError as error:
        fix = "check its permissions"
        raise ConfigError(
            f"'{path}' cannot be read", found=error.strerror, accepted="a readable file", fix=fix
        ) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        ConfigError: When the file is missing, a folder, not YAML, or not a mapping.
    """
    text = read_text(path)
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        fix = f"look at line {mark.line + 1}" if mark else "correct the file"
        raise ConfigError(f"'{path}' is not valid YAML", found=str(error).splitlines()[0], fix=fix) from None
    if not isinstance(values, dict):
        found = "an empty file" if values is None else f"a {type(values).__name__}"
        fix = "begin with a line such as: dataset: hopper/medium-replay"
        raise ConfigError(f"'{path}' does not hold a mapping", found=found, accepted="key: value lines", fix=fix)
    return values


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML, keys in the given order."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)


def override(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Apply `a.b.c=value` settings to nested plain values; the value is read as YAML.

    Raises:
        ConfigError: When a setting has no `=`, or goes through something that is not a mapping.
    """
    result: dict[str, Any] = copy.deepcopy(dict(values))
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key:
            raise ConfigError("an override must have the form key=value", found=repr(setting), fix="--set seed=1")
        node = result
        *parents, last = key.split(".")
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                what, fix = f"'{key}' goes through '{part}', which is a single value", f"--set {part}=VALUE"
                raise ConfigError(what, found=repr(setting), fix=fix)
        try:
            node[last] = yaml.safe_load(text)
        except yaml.YAMLError:
            fix = f"put quotes around it: --set {key}='\"...\"'"
            raise ConfigError(f"the value of '{key}' is not valid YAML", found=repr(text), fix=fix) from None
    return result


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested plain values by dotted key; lists are values."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{above}{name}.") if nested else {f"{above}{name}": value}
    return found


def canonical(value: Any) -> bytes:
    """The one byte form of plain values that hashes are taken over (sorted keys, no spaces)."""
    if isinstance(value, BaseModel):
        value = json.loads(value.model_dump_json())
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def content_hash(*values: Any) -> str:
    """SHA-256 (hex) over the canonical form of each value."""
    digest = hashlib.sha256()
    for value in values:
        data = canonical(value)
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
