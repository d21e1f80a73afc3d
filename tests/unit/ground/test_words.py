"""Small words of the command line, and what killed processes leave beside a file."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from synth_pipeline.errors import unknown_name
from synth_pipeline.runs import clear_partials, write_bytes
from synth_pipeline.tracking import counted, short

HEAVY = r"torch|minari|mujoco|zarr|gymnasium|h5py|scipy|numpy|pandas|dask|prefect|great_expectations"


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 shards"), (1, "1 shard"), (2, "2 shards"), (1_234, "1,234 shards")]
)
def test_counted(number, words):
    assert counted(number, "shard") == words


def test_paths_as_one_would_type_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert short(tmp_path / "runs" / "a") == "runs/a"
    assert short("runs/a") == "runs/a"
    monkeypatch.chdir("/")
    assert short(tmp_path / "home" / "x") == str((tmp_path / "home" / "x").relative_to("/"))
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    assert short(tmp_path / "home" / "x") == "~/x"
    assert short("/usr/share") == "/usr/share"
    assert short("../other") == "../other"
    assert short("s3://bucket/a") == "s3://bucket/a"


def test_an_unknown_name_always_says_what_to_do():
    assert unknown_name("preset", "smok", ["smoke", "default"]).fix == "did you mean 'smoke'?"
    assert unknown_name("preset", "xyz", ["smoke", "default"]).fix == "use one of these names"


def test_only_the_leftovers_of_this_file_are_removed(tmp_path):
    others = {".a.json.partial", ".b.json.1234.partial", "a.json.1234.partial", ".a.json.1234"}
    for name in (*others, ".a.json.1234.partial"):
        (tmp_path / name).touch()
    (tmp_path / ".a.json.99.partial").mkdir()
    (tmp_path / ".a.json.99.partial" / "file").touch()
    write_bytes(tmp_path / "a.json", b"new")
    assert {path.name for path in tmp_path.iterdir()} == {*others, "a.json"}
    clear_partials(tmp_path / "b.json")
    assert ".b.json.1234.partial" not in {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("command", [["--help"], ["run", "--help"], ["--version"]], ids=" ".join)
def test_help_imports_nothing_heavy(command):
    program = [sys.executable, "-X", "importtime", str(Path(sys.executable).with_name("synthpipe")), *command]
    done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=400)
    assert re.findall(rf"\|\s+({HEAVY})$", done.stderr, re.M) == []
    assert "synth_pipeline.cli" in done.stderr
