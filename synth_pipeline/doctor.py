"""`synthpipe doctor`: is this machine fit for the pipeline? One line a check: ok, warn or fail.

What is measured against is the metadata of the installed package, so that ranges stand in one place. Nothing heavy is
imported with this module; torch only when it is asked about.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from synth_pipeline import doctor_services as services
from synth_pipeline.doctor_services import Check
from synth_pipeline.errors import ConfigError, ResourceError
from synth_pipeline.tracking import counted, say, short

PACKAGE = "synth-pipeline"
DEVELOPMENT = "dev"  # the extra that only those who change the code need
FEW_GB = 4.0  # memory or disk below which the default preset may not fit
MISSING = "is not installed"
# Telemetry of our dependencies: switch -> the value that turns it off.
TELEMETRY = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "GX_ANALYTICS_ENABLED": "false"}


def examine() -> None:
    """Print every check.

    Raises:
        ResourceError: When one of them failed.
    """
    failed = []
    for check in checks():
        say(check.label, f"{check.state:<4}  {check.text}")
        failed += [check.text] if check.state == "fail" else []
    if failed:
        raise ResourceError(
            f"{counted(len(failed), 'check')} failed on this machine",
            found="; ".join(failed),
            accepted="no line that says fail",
            fix="pip install -r requirements.lock, and free or change what the lines name",
        )


def checks() -> Iterator[Check]:
    """Every check, as it is made."""
    try:
        about = metadata.metadata(PACKAGE)
    except metadata.PackageNotFoundError:
        yield Check("package", "fail", f"{PACKAGE} is not installed: pip install -e .")
    else:
        yield _python(about["Requires-Python"])
        yield from _dependencies(metadata.requires(PACKAGE) or [], about.get_all("Provides-Extra") or [])
    yield from _torch()
    yield services.simulator()
    yield from _machine()
    yield from _folders()
    yield services.prefect()
    yield services.dask()
    yield from _telemetry()


def _python(wanted: str) -> Check:
    from packaging.specifiers import SpecifierSet

    found = platform.python_version()
    fits = SpecifierSet(wanted).contains(found, prereleases=True)
    return Check("python", "ok" if fits else "fail", f"{found}, needs {wanted}")


def _dependencies(requirements: list[str], extras: list[str]) -> Iterator[Check]:
    """The needed ones a line each, the optional ones a line an extra."""
    from packaging.requirements import Requirement

    parsed = [Requirement(text) for text in requirements]
    for wanted in parsed:
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            problem = _problem(wanted.name, str(wanted.specifier))
            found = problem or f"{wanted.name} {metadata.version(wanted.name)}"
            yield Check("needs", "fail" if problem else "ok", f"{found} ({wanted.specifier})")
    for extra in extras:
        own = [r for r in parsed if r.marker and r.marker.evaluate({"extra": extra}) and not r.marker.evaluate()]
        problems = [problem for r in own if (problem := _problem(r.name, str(r.specifier)))]
        if extra == DEVELOPMENT or not problems:
            yield Check("extra", "ok", f"{extra}: {'; '.join(problems) or 'installed'}")
            continue
        absent = all(problem.endswith(MISSING) for problem in problems)
        hint = f"{extra}: {'; '.join(problems)}; pip install '{PACKAGE}[{extra}]'"
        yield Check("extra", "ok" if absent else "warn", hint)


def _problem(name: str, specifier: str) -> str | None:
    from packaging.specifiers import SpecifierSet

    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} {MISSING}"
    fits = SpecifierSet(specifier).contains(found, prereleases=True)
    return None if fits else f"{name} {found} is out of range"


def _torch() -> Iterator[Check]:
    try:
        import torch

        from synth_pipeline.diffusion.device import native_bfloat16, pick_device
    except ImportError as error:
        yield Check("torch", "fail", f"cannot be imported: {error}")
        return
    try:
        device = pick_device("auto")
    except ConfigError as error:
        yield Check("torch", "fail", f"{error.what} ({error.found}); accepted: {error.accepted}")
        return
    name = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {counted(torch.get_num_threads(), 'thread')}"
    )
    precision = "bfloat16 is native" if native_bfloat16(device) else "bfloat16 is not native, float32 is used"
    yield Check("torch", "ok", f"{name}; {precision}")
    yield services.gpu()


def _machine() -> Iterator[Check]:
    from synth_pipeline.machine import cores

    yield Check("cores", "ok", str(cores()))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    yield Check("memory", "ok" if memory >= FEW_GB else "warn", f"{memory:,.1f} GB")
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield Check("disk", "ok" if free >= FEW_GB else "warn", f"{free:,.1f} GB free in the working directory")


def _folders() -> Iterator[Check]:
    from synth_pipeline.sources.collect import data_folder
    from synth_pipeline.sources.minari_root import datasets_root

    places = {
        "data": (data_folder(), "collected datasets; SYNTHPIPE_DATA"),
        "minari": (datasets_root(), "Minari datasets; MINARI_DATASETS_PATH"),
    }
    for label, (place, what) in places.items():
        above = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
        if above.is_dir() and os.access(above, os.W_OK):
            free = shutil.disk_usage(above).free / 1e9
            yield Check(label, "ok" if free >= FEW_GB else "warn", f"{short(place)}, {free:,.1f} GB free ({what})")
        else:
            yield Check(label, "fail", f"{short(place)} cannot be written ({what})")


def _telemetry() -> Iterator[Check]:
    for switch, off in TELEMETRY.items():
        value = os.environ.get(switch)
        found = f"{switch}={value or ''}"
        yield Check(
            "telemetry", "ok" if value == off else "warn", f"{found}{'' if value == off else f', off is {off}'}"
        )
