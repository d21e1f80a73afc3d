"""One smoke run, made once by the installed command line; tests that change it get a copy."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import command_line
import pytest


@dataclass(frozen=True)
class Finished:
    """A finished smoke run: the working directory, the run in it, and what the command said."""

    folder: Path
    said: command_line.Answer

    @property
    def run(self):
        return self.folder / "runs" / "smoke"


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke") / "a path with spaces"
    folder.mkdir()
    return Finished(folder, command_line.run("run", "smoke", folder=folder))


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    """The command line, called in this process, with `tmp_path` as working directory and data of its own."""
    monkeypatch.setenv("SYNTHPIPE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return command_line.Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def copied(smoke, tmp_path, shell):
    """A copy of the finished run that a test may change; the shell stands in it."""
    shutil.copytree(smoke.folder, tmp_path, dirs_exist_ok=True)
    return Finished(tmp_path, smoke.said)
