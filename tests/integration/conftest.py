"""One smoke run, made once by the installed command line; tests that change it get a copy."""

import fcntl
import json
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import command_line
import numpy as np
import pytest
from toy_data import plain_rows


@dataclass(frozen=True)
class Finished:
    """A finished smoke run: the working directory, the run in it, and what the command said."""

    folder: Path
    said: command_line.Answer

    @property
    def run(self):
        return self.folder / "runs" / "smoke"


def finished(tmp_path_factory, worker_id, name, *command, data=None):
    """A run made by the first test process that needs it, from a copy of `data`, and shared by all of them."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    folder, said = shared / name / "a path with spaces", shared / f"{name}-said.json"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            folder.mkdir(parents=True)
            if data is not None:
                shutil.copytree(data, folder / "data")
            said.write_text(json.dumps(asdict(command_line.run(*command, folder=folder))))
    return Finished(folder, command_line.Answer(**json.loads(said.read_text())))


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """Make a run that the tests share: once(name, command...)."""
    return partial(finished, tmp_path_factory, worker_id)


@pytest.fixture(scope="session")
def smoke(once):
    """The preset as it is."""
    return once("smoke", "run", "smoke")


@pytest.fixture(scope="session")
def control(once):
    """The preset with a control generator, for what does not depend on the generator and runs again and again."""
    return once("control", *command_line.CONTROL)


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


@pytest.fixture
def littered(smoke, tmp_path, shell):
    """A finished run, and files of other people; the run is shared, so nothing may touch it."""
    for name in ("data", "runs"):
        (tmp_path / name).symlink_to(smoke.folder / name)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.yaml").write_text("database: postgres\n")
    np.savez(tmp_path / "mine.npz", **plain_rows(5))
    return tmp_path
