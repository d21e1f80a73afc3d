"""The command line as a newcomer meets it: installed, in a process of its own, or called in this one."""

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SYNTHPIPE = str(Path(sys.executable).with_name("synthpipe"))
ATTEMPTS = str(Path(__file__).with_name("attempts.py"))
SMALL = ("--set", "collect.rows=600", "--set", "generate.rows=500", "--set", "export.one_step=20")
CONTROL = ("run", "smoke")
for setting in ("generator.kind=copula", "validation.pictures=false", "evaluation.in_run=false"):
    CONTROL += ("--set", setting)
# What `run smoke` collects, the names of its exports (Minari's, and that of the flat file), and what it tells of.
DATASET = "toy-linear-gaussian/random"
NAME = "toy-linear-gaussian/random-synther-v0"
FLAT = "toy-linear-gaussian-random-synther-v0"
STAGES = ("collect", "train", "generate", "validate", "export", "evaluate", "report")
ERROR = re.compile(
    r"^(?P<kind>[A-Za-z]+Error): (?P<what>.+(?:\n(?!  (?:found|accepted|fix) ).+)*)(?P<rest>(?:\n  .+)+)$"
)


@dataclass(frozen=True)
class Answer:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    def error(self):
        """The one form of error, taken apart: kind, what, found, accepted, fix."""
        match = ERROR.fullmatch(self.err.strip())
        assert match, f"not the form of error:\n{self.err}"
        rows = dict(line.strip().split(maxsplit=1) for line in match["rest"].strip("\n").splitlines())
        assert rows.keys() <= {"found", "accepted", "fix"}, rows
        return {"kind": match["kind"], "what": match["what"], **rows}


def environment(folder, *, active=True):
    """Only what a shell has, after `source .venv/bin/activate` or before, and data of its own."""
    ours = str(Path(SYNTHPIPE).parent)
    others = [place for place in os.environ["PATH"].split(os.pathsep) if place != ours]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SYNTHPIPE", "MINARI", "PYTEST"))}
    kept["PATH"] = os.pathsep.join([ours, *others] if active else others)
    kept["OMP_NUM_THREADS"] = "1"  # as many tests run at once as there are cores
    return {**kept, "SYNTHPIPE_DATA": str(folder / "data"), "MINARI_DATASETS_PATH": str(folder / "minari")}


def run(*command, folder, program=(SYNTHPIPE,), active=True):
    """Run to the end in a process of its own, with `folder` as working directory."""
    done = subprocess.run(
        [*program, *map(str, command)],
        cwd=folder,
        env=environment(folder, active=active),
        capture_output=True,
        text=True,
        timeout=400,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def run_killed_at(moments, *command, folder):
    """Killed at each of these moments (see `attempts`) and typed again, until it is left to run to the end."""
    return run(json.dumps(moments), *command, folder=folder, program=(sys.executable, ATTEMPTS))


def start(*command, folder, program=(SYNTHPIPE,)):
    """Begin in a process group of its own, as a terminal does."""
    return subprocess.Popen(
        [*program, *map(str, command)],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


class Shell:
    """The command line in this process: the same `main`, without a second to start."""

    def __init__(self, folder, monkeypatch, capsys):
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.enter(folder)

    def enter(self, folder):
        """Change the working directory; collected data stay where they are."""
        self.folder = folder
        self._monkeypatch.chdir(folder)

    def __call__(self, *command):
        from synth_pipeline import cli

        self._monkeypatch.setattr(sys, "argv", ["synthpipe", *map(str, command)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = self._capsys.readouterr()
        return Answer(caught.value.code or 0, out, err)


def written(path):
    """Which file this is and when it was last written: both stay when it is left alone; the time of reading may not."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def contents(folder, *, but=()):
    """Relative path -> hash and time of change of every file, hidden ones included."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in but]
    return {str(p.relative_to(folder)): (file_hash(p), p.stat().st_mtime_ns) for p in files}


def hashes(folder, *, but=()):
    """Relative path -> hash of every file."""
    return {path: hashed for path, (hashed, _) in contents(folder, but=but).items()}


def file_hash(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refused(answer, code, kind, named, fix):
    """The answer is the form of error, with this exit code, naming this, and telling this."""
    error = answer.error()
    assert "Traceback" not in answer.out + answer.err
    assert (answer.code, error["kind"]) == (code, f"{kind}Error")
    assert "found" in error or "accepted" in error
    assert named in " ".join([error["what"], error.get("found", ""), error.get("accepted", "")])
    assert fix in error["fix"]
    return error
