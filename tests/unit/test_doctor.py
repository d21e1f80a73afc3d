"""What `synthpipe doctor` looks at, and how it ends."""

import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest

from synth_pipeline import doctor
from synth_pipeline.cli import main
from synth_pipeline.errors import ResourceError


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("SYNTHPIPE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    for switch, off in doctor.TELEMETRY.items():
        monkeypatch.setenv(switch, off)


def found(label):
    return {check.text: check.state for check in doctor.checks() if check.label == label}


def test_the_machine_of_the_tests_is_fit(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["synthpipe", "doctor"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[1] in ("ok", "warn") for line in lines)
    for text in ("torch 2.", "bfloat16 is", "GB free", "DO_NOT_TRACK=1", "s3: ", "tensorboard: "):
        assert any(text in line for line in lines), text
    needed = [text for text in metadata.requires(doctor.PACKAGE) if "extra ==" not in text]
    assert len([line for line in lines if line.startswith("needs ")]) == len(needed)


def test_versions_out_of_range_and_missing_packages_fail():
    wanted = ["numpy<1", "no-such-package>=2", "pyyaml>=1", 's3fs>=9999; extra == "s3"', 'nothing; extra == "more"']
    checks = list(doctor._dependencies(wanted, ["s3", "more", "dev"]))
    numpy, absent, yaml, s3, more, dev = checks
    assert numpy.state == "fail"
    assert "is out of range (<1)" in numpy.text
    assert (absent.state, absent.text) == ("fail", "no-such-package is not installed (>=2)")
    assert yaml.state == "ok"
    assert (s3.state, "out of range" in s3.text) in (("warn", True), ("ok", False))
    assert (more.state, more.text) == ("ok", "more: nothing is not installed; pip install 'synth-pipeline[more]'")
    assert dev.state == "ok"


def test_what_failed_is_exit_code_5(monkeypatch, capsys):
    monkeypatch.setattr(
        doctor, "checks", lambda: iter([doctor.Check("a", "ok", "x"), doctor.Check("b", "fail", "no y")])
    )
    with pytest.raises(ResourceError, match="1 check failed") as caught:
        doctor.examine()
    assert (caught.value.exit_code, caught.value.found) == (5, "no y")
    assert capsys.readouterr().out == "a          ok    x\nb          fail  no y\n"


def test_another_python_fails():
    assert doctor._python(">=3.11").state == "ok"
    assert doctor._python("<3").state == "fail"


def test_telemetry_that_somebody_turned_on_is_said(monkeypatch):
    monkeypatch.setenv("GX_ANALYTICS_ENABLED", "true")
    assert found("telemetry")["GX_ANALYTICS_ENABLED=true, off is false"] == "warn"


def test_a_folder_that_cannot_be_written_fails(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SYNTHPIPE_DATA", str(tmp_path / "file" / "data"))
    assert list(found("data").values()) == ["fail"]


def test_little_room_is_a_warning(monkeypatch):
    usage = shutil.disk_usage(Path.cwd())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    assert list(found("disk").values()) == ["warn"]


def test_nothing_installed_and_no_torch_are_lines_not_tracebacks(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGE", "no-such-package")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert list(found("package").values()) == ["fail"]
    assert list(found("torch").values()) == ["fail"]


def test_the_command_line_turns_telemetry_off():
    assert all(os.environ[switch] == off for switch, off in doctor.TELEMETRY.items())
