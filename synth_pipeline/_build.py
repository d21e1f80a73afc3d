"""Build step: the wheel carries the catalog, the behaviour policies and the gate suites as package resources."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py

SHIPPED = {
    "datasets/catalog": "*.yaml",
    "datasets/behaviours": "*",
    "validation/suites": "*.yaml",
    "validation": "*.yaml",
}


class BuildWithResources(build_py):  # type: ignore[misc]
    """`build_py` that also copies the shipped folders to `synth_pipeline/_shipped/`."""

    def run(self) -> None:
        """Build as usual, then copy; an editable install reads the checkout itself and copies nothing."""
        super().run()
        if self.editable_mode:
            return
        root = Path(__file__).resolve().parent.parent
        for folder, pattern in SHIPPED.items():
            target = Path(self.build_lib) / "synth_pipeline" / "_shipped" / folder
            target.mkdir(parents=True, exist_ok=True)
            files = [file for file in sorted((root / folder).glob(pattern)) if file.is_file()]
            if not files:
                raise FileNotFoundError(f"nothing to ship in '{root / folder}': the sources are not complete")
            for file in files:
                shutil.copyfile(file, target / file.name)
