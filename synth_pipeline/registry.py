"""Registries: one literal dict a family, name -> "module:Class", imported on use, open by entry points."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from synth_pipeline.errors import ConfigError, unknown_name


class Registry:
    """Names of one family and where each lives.

    Args:
        kind: What the names are, e.g. `"generator"`; entry points are read from `synth_pipeline.<kind>s`.
        entries: Name -> `"package.module:Attribute"`.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def names(self) -> list[str]:
        """Every known name, sorted; asking imports nothing."""
        return sorted({**self._third_party(), **self._entries})

    def load(self, name: str) -> Any:
        """Import and return what `name` stands for.

        Raises:
            UnknownNameError: With the nearest known name.
            ConfigError: When the entry does not import, which only a third-party entry can cause.
        """
        target = self._entries.get(name) or self._third_party().get(name)
        if target is None:
            raise unknown_name(self.kind, name, self.names())
        module, _, attribute = target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"the {self.kind} '{name}' ({target}) does not import",
                found=str(error),
                fix="install or mend the package that registers it",
            ) from error

    def _third_party(self) -> dict[str, str]:
        return {point.name: point.value for point in entry_points(group=f"synth_pipeline.{self.kind}s")}
