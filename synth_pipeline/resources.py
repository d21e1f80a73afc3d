"""Where the shipped files are: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

from synth_pipeline.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


def path(name: str) -> Path:
    """The folder or file of a shipped resource.

    Args:
        name: Path from the root of a checkout, e.g. `"datasets/catalog"` or `"validation/suites/default.yaml"`.

    Raises:
        ConfigError: When neither the wheel nor a checkout has it.
    """
    for root in (_PACKAGE / "_shipped", _PACKAGE, _PACKAGE.parent):
        candidate = root / name
        if candidate.exists():
            return candidate
    raise ConfigError(
        f"the shipped resource '{name}' is missing", found=f"nothing in '{_PACKAGE}'", fix="reinstall synth-pipeline"
    )
