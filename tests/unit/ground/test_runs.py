import errno
import io
import json
import os
import shutil
from pathlib import Path

import pytest

from synth_pipeline import runs
from synth_pipeline.errors import ConfigError, ResourceError, SynthPipelineError
from synth_pipeline.runs import (
    Run,
    friendly_os_errors,
    make_folder,
    read_json,
    require_space,
    safe_parts,
    staged_directory,
    write_bytes,
    write_json,
)


def everything(folder):
    """Every path below a folder, hidden ones included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refuse(number):
    def refused(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return refused


class FullDisk(io.BytesIO):
    """A file whose writes meet a full disk."""

    write = staticmethod(refuse(errno.ENOSPC))


def break_call(monkeypatch, call, number=errno.ENOSPC):
    if call == "write":
        monkeypatch.setattr(Path, "open", lambda *args, **kwargs: FullDisk())
    elif call == "open":
        monkeypatch.setattr(Path, "open", refuse(number))
    else:
        monkeypatch.setattr(os, call, refuse(number))


def half_a_model(target, error):
    with staged_directory(target) as staged:
        (staged / "deep").mkdir()
        (staged / "deep" / "file").write_text("a")
        raise error


def test_a_folder_where_none_can_be_made_is_refused(tmp_path, monkeypatch):
    """As /proc/x is."""
    monkeypatch.setattr(Path, "mkdir", refuse(errno.ENOENT))
    with pytest.raises(ConfigError, match=r"cannot be made(?s:.*)choose another folder"):
        make_folder(tmp_path / "runs/mine")
    with pytest.raises(ConfigError, match="cannot be made"):
        Run(tmp_path / "mine").create()


def test_write_bytes_makes_folders_and_leaves_only_the_file(tmp_path):
    write_bytes(tmp_path / "a b" / "c" / "file", b"one")
    write_bytes(tmp_path / "a b" / "c" / "file", b"two")
    assert (tmp_path / "a b" / "c" / "file").read_bytes() == b"two"
    assert everything(tmp_path) == ["a b", "a b/c", "a b/c/file"]


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_full_disk_keeps_the_old_file_and_leaves_nothing_behind(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    break_call(monkeypatch, call)
    with pytest.raises(ResourceError, match="no space left") as caught:
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert "MB free" in caught.value.found
    assert path.read_bytes() == b"old"
    assert everything(tmp_path) == ["file"]


def test_bytes_are_durable_before_the_name_appears(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    write_bytes(tmp_path / "file", b"x")
    assert calls == ["fsync", "replace", "fsync"]


def test_other_errors_of_the_system_pass_unchanged(tmp_path, monkeypatch):
    break_call(monkeypatch, "fsync", errno.EIO)
    with pytest.raises(OSError, match="Input/output error") as caught:
        write_bytes(tmp_path / "file", b"x")
    assert not isinstance(caught.value, SynthPipelineError)
    assert everything(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_no_permission(tmp_path, monkeypatch, number):
    break_call(monkeypatch, "open", number)
    with pytest.raises(ResourceError, match="may not be written"):
        write_bytes(tmp_path / "file", b"x")


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "inside", tmp_path / "file" / "deeper" / "inside"):
        with pytest.raises(ConfigError, match="stands in the way"):
            write_bytes(path, b"x")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_where_a_file_should_be(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=r"folder' cannot be written"):
        write_bytes(tmp_path / "folder", b"x")
    assert everything(tmp_path) == ["folder"]


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(ConfigError, match="no usable path"):
        write_bytes(tmp_path / ("x" * 300), b"x")


def test_friendly_errors_swallow_nothing(tmp_path):
    with pytest.raises(ValueError, match="mine"), friendly_os_errors(tmp_path):
        raise ValueError("mine")
    with pytest.raises(KeyboardInterrupt), friendly_os_errors(tmp_path):
        raise KeyboardInterrupt
    with pytest.raises(OSError) as caught, friendly_os_errors(tmp_path):
        raise OSError("without a number")
    assert type(caught.value) is OSError


def test_friendly_errors_name_the_path_that_refused_and_keep_the_cause(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError) as caught, friendly_os_errors(tmp_path / "target"):
        (tmp_path / "other").mkdir()
    assert f"{tmp_path}/other" in caught.value.what
    assert isinstance(caught.value.__cause__, FileExistsError)


def test_a_full_disk_is_found_for_paths_that_do_not_exist_yet(tmp_path):
    with pytest.raises(ResourceError, match=f"'{tmp_path}'"), friendly_os_errors(tmp_path / "a" / "b" / "c"):
        refuse(errno.ENOSPC)()


def test_json_round_trip_and_text(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [None, True, 1.5, "é"]})
    assert read_json(tmp_path / "a.json") == {"b": 1, "a": [None, True, 1.5, "é"]}
    assert (tmp_path / "a.json").read_text().startswith('{\n "a"')


def test_json_refuses_what_other_readers_cannot_read(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert everything(tmp_path) == []


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b'{"a": 1}x'])
def test_damaged_json(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_json_that_is_missing_or_a_folder(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ConfigError, match="is a folder"):
        read_json(tmp_path)


def test_staged_directory_appears_whole(tmp_path):
    target = tmp_path / "x" / "model"
    with staged_directory(target) as staged:
        (staged / "file").write_text("a")
        assert not target.exists()
        assert staged.parent == target.parent  # the same disk, so that the rename is one step
    assert everything(tmp_path) == ["x", "x/model", "x/model/file"]


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_staged_directory_vanishes_when_the_block_fails(tmp_path, error):
    with pytest.raises(type(error)):
        half_a_model(tmp_path / "model", error)
    assert everything(tmp_path) == []


def test_staged_directory_on_a_full_disk(tmp_path):
    with pytest.raises(ResourceError, match="no space left"):
        half_a_model(tmp_path / "model", OSError(errno.ENOSPC, "full"))
    assert everything(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_staged_directory_refuses_what_exists(tmp_path, kind):
    target = tmp_path / "model"
    if kind == "file":
        target.write_text("mine")
    elif kind == "folder":
        target.mkdir()
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError), staged_directory(target) as staged:
        (staged / "file").write_text("a")
    assert everything(tmp_path) == ["model"]


def test_staged_directory_loses_a_race_without_damage(tmp_path):
    def lose(target):
        with staged_directory(target) as staged:
            (staged / "file").write_text("mine")
            target.mkdir()
            (target / "theirs").write_text("theirs")

    with pytest.raises(ConfigError, match="stands in the way"):
        lose(tmp_path / "model")
    assert everything(tmp_path) == ["model", "model/theirs"]


def test_staged_directory_under_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="stands in the way"), staged_directory(tmp_path / "file" / "model"):
        pass
    assert everything(tmp_path) == ["file"]


def test_a_full_disk_is_named_by_its_folder(tmp_path):
    (tmp_path / "stage.json").touch()
    with pytest.raises(ResourceError, match="no space left") as caught, friendly_os_errors(tmp_path / "stage.json"):
        raise OSError(errno.ENOSPC, "full")
    assert caught.value.found.endswith(f"free on the disk of '{tmp_path}'")


def test_require_space(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    require_space(tmp_path / "not" / "yet", 900)
    with pytest.raises(ResourceError, match="too small") as caught:
        require_space(tmp_path / "not" / "yet", 990)  # 5 % more than asked for must be free
    assert str(tmp_path) in caught.value.what


def test_run_remembers_what_ended_with_which_inputs(tmp_path):
    run = Run(tmp_path / "runs" / "with space")
    assert run.finished("train", "k1") is None
    run.create()
    run.create()
    run.finish("train", "k1", {"rows": 3})
    assert run.finished("train", "k1") == {"stage": "train", "key": "k1", "rows": 3}
    assert run.finished("train", "k2") is None
    assert run.finished("validate", "k1") is None
    environment = json.loads((run.directory / "environment.json").read_text())
    assert environment["versions"]["numpy"][0].isdigit()
    assert repr(run) == f"Run('{tmp_path}/runs/with space')"


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "3", "null"])
def test_run_with_a_damaged_record_says_what_to_delete(tmp_path, content):
    run = Run(tmp_path)
    run.finish("train", "k", {})
    (tmp_path / "train" / "stage.json").write_text(content)
    with pytest.raises(ConfigError, match="delete the file") as caught:
        run.finished("train", "k")
    assert "stage.json" in caught.value.what


def test_record_without_key_means_work(tmp_path):
    run = Run(tmp_path)
    write_json(tmp_path / "train" / "stage.json", {"stage": "train"})
    assert run.finished("train", "k") is None


def test_run_where_a_file_stands(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ConfigError, match="stands in the way"):
        Run(tmp_path / "run").create()
    with pytest.raises(ConfigError):
        Run(tmp_path / "run" / "deeper").create()


def test_missing_packages_are_noted(monkeypatch):
    monkeypatch.setattr(runs, "PACKAGES", ("numpy", "no-such-package-at-all"))
    assert runs.environment()["versions"]["no-such-package-at-all"] == "missing"


@pytest.mark.parametrize("identifier", ["hopper", "hopper/medium-replay", "a.b/c_d/e-v0", "0"])
def test_safe_parts(identifier):
    assert "/".join(safe_parts(identifier)) == identifier


@pytest.mark.parametrize(
    "identifier",
    [
        "../x",
        "a/../x",
        "..",
        ".",
        "a/./b",
        "/etc",
        "a//b",
        "",
        "a/",
        ".hidden",
        "a b",
        "a\\b",
        "a\n",
        "a/b\n",
        "é",
        "~",
    ],
)
def test_unsafe_parts(identifier):
    with pytest.raises(ConfigError, match="cannot be used as a dataset id"):
        safe_parts(identifier, kind="dataset id")
