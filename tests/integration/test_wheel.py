"""What is distributed: a wheel, built from the source distribution, that needs no checkout."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import command_line
import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ("datasets/catalog", "datasets/behaviours", "validation/suites")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing is left in the checkout."""
    copy = tmp_path_factory.mktemp("sources") / "synth-pipeline"
    copy.mkdir()
    for name in ("synth_pipeline", "datasets", "validation"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(copy / "out"), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (copy / "out").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A fresh environment: the wheel, and the dependencies (not the checkout) of the running one."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder)
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    # A path in a .pth file is searched, but the .pth files in it (the editable install) are not read.
    dependencies = Path(pytest.__file__).parents[1]
    (packages / "dependencies.pth").write_text(f"{dependencies}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "-q"]
    subprocess.run(
        [*pip, "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)], check=True, timeout=400
    )
    return folder


def test_the_wheel_holds_the_package_alone_and_all_that_it_reads(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"synth_pipeline"}
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"synth_pipeline"}
    for folder in SHIPPED:
        sources = {path.name for path in (ROOT / folder).iterdir() if path.is_file()}
        inside = {Path(name).name for name in names if name.startswith(f"synth_pipeline/_shipped/{folder}/")}
        assert inside == sources
    presets = {path.name for path in (ROOT / "synth_pipeline" / "presets").glob("*.yaml")}
    assert {Path(name).name for name in names if name.startswith("synth_pipeline/presets/")} == presets
    assert "synth_pipeline/py.typed" in names
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "synth_pipeline").rglob("*.py")}
    assert modules <= set(names)


@pytest.mark.slow
def test_the_installed_wheel_runs_the_smoke_preset_outside_the_repository(installed, tmp_path, monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME"):
        monkeypatch.delenv(name, raising=False)
    names = [*SHIPPED, "presets/smoke.yaml"]
    where = f"from synth_pipeline import resources; print(*map(resources.path, {names}), sep='\\n')"
    python = (str(installed / "bin" / "python"), "-c")
    places = command_line.run(where, folder=tmp_path, program=python).out.splitlines()
    assert len(places) == len(SHIPPED) + 1
    assert all(place.startswith(str(installed)) for place in places), places
    done = command_line.run(*command_line.CONTROL, folder=tmp_path, program=(str(installed / "bin" / "synthpipe"),))
    assert done.code == 0, done.err
    assert (tmp_path / "runs" / "smoke" / "report.html").exists()
    loaded = "import synth_pipeline, sys; print(synth_pipeline.__file__); print(*sys.path, sep='\\n')"
    answer = command_line.run(loaded, folder=tmp_path, program=python).out.splitlines()
    assert answer[0].startswith(str(installed))
    assert str(ROOT) not in answer[1:]
    assert not any(os.path.samefile(ROOT, place) for place in answer[1:] if place and os.path.isdir(place))
