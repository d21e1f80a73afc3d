"""What `synthpipe doctor` looks at, and how it ends."""

import os
import shutil
import socket
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from synth_pipeline import doctor, envs
from synth_pipeline import doctor_services as services
from synth_pipeline.cli import main
from synth_pipeline.errors import ResourceError


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("SYNTHPIPE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    for switch, off in doctor.TELEMETRY.items():
        monkeypatch.setenv(switch, off)
    for name in (services.PREFECT, services.DASK, services.CUDA):
        monkeypatch.delenv(name, raising=False)


def found(label):
    return {check.text: check.state for check in doctor.checks() if check.label == label}


def test_the_machine_of_the_tests_is_fit(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["synthpipe", "doctor"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[1] in ("ok", "warn") for line in lines)
    for text in ("torch 2.", "bfloat16 is", "GB free", "DO_NOT_TRACK=1", "s3: ", "tensorboard: ", "steps of Hopper"):
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


# --- what else is asked: physics, GPU, servers


def test_the_simulator_replays_itself_and_has_the_physics_of_the_datasets():
    check = services.simulator()
    assert check.state == "ok"
    assert check.text.endswith(("error 0e+00", "e-16", "e-15"))


def test_another_physics_and_a_wrong_reset_fail_with_what_to_install(monkeypatch):
    hopper = envs.make("hopper")
    monkeypatch.setattr(envs, "make", lambda name: hopper)
    monkeypatch.setattr(services, "HOPPER", (services.HOPPER[0] + 1e-4, *services.HOPPER[1:]))
    check = services.simulator()
    assert check.state == "fail"
    assert "other physics" in check.text
    assert "pip install 'mujoco>=3.3,<3.5'" in check.text
    step = hopper.step
    monkeypatch.setattr(hopper, "step", lambda observations, actions: step(observations + 1e-6, actions))
    assert "does not replay its own steps" in services.simulator().text
    nothing = replace(step(np.zeros((16, 11)), np.zeros((16, 3))), next_observations=np.full((16, 11), np.nan))
    monkeypatch.setattr(hopper, "step", lambda observations, actions: nothing)
    assert services.simulator().state == "fail"


def test_no_simulator_is_a_line(monkeypatch):
    def absent(name):
        raise ImportError("no mujoco")

    monkeypatch.setattr(envs, "make", absent)
    assert services.simulator() == services.Check("simulator", "fail", "cannot be imported: no mujoco")


@pytest.mark.parametrize(("asked", "state"), [("0,1", "fail"), ("-1", "ok"), ("", "ok")])
def test_a_gpu_that_is_asked_for_and_absent_fails(monkeypatch, asked, state):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    check = services.gpu({services.CUDA: asked})
    assert check.state == state
    assert (f"unset {services.CUDA}" in check.text) == (state == "fail")


def test_a_device_that_cannot_be_used_fails(monkeypatch):
    monkeypatch.setenv("SYNTHPIPE_DEVICE", "cuda:99")
    ((text, state),) = found("torch").items()
    assert state == "fail"
    assert "'cuda:99' cannot be used" in text


def test_a_gpu_that_lies_idle_is_a_warning(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/nvidia0")
    assert services.gpu({}).state == "warn"


class Answering(BaseHTTPRequestHandler):
    """Health of a server: fine below /api, not allowed below /locked."""

    def do_GET(self):
        self.send_response({"/api/health": 200, "/locked/health": 401}.get(self.path, 404))
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def answering():
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def closed():
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_prefect_server_that_is_configured_is_asked(closed, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with answering() as url:
        assert services.prefect({services.PREFECT: f"{url}/api"}).state == "ok"
        assert services.prefect({services.PREFECT: f"{url}/api/"}).state == "ok"
        locked = services.prefect({services.PREFECT: f"{url}/locked"})
    assert (locked.state, "answers 401" in locked.text) == ("warn", True)
    for url in (f"http://127.0.0.1:{closed}/api", "no address"):
        check = services.prefect({services.PREFECT: url})
        assert check.state == "fail"
        assert "prefect server start, or unset PREFECT_API_URL" in check.text
    assert services.prefect({}).state == "ok"


def test_the_dask_scheduler_that_is_configured_is_asked(closed):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        for address in (f"tcp://127.0.0.1:{port}", f"127.0.0.1:{port}"):
            assert services.dask({services.DASK: address}).state == "ok"
    for address in (f"tcp://127.0.0.1:{closed}", "tcp://:99999", "tcp://"):
        check = services.dask({services.DASK: address})
        assert check.state == "fail"
        assert "dask scheduler, or unset DASK_SCHEDULER_ADDRESS" in check.text
    assert services.dask({}).state == "ok"


def test_unreachable_servers_are_exit_code_5_and_every_other_check_is_still_made(monkeypatch, capsys, closed):
    monkeypatch.setenv(services.DASK, f"tcp://127.0.0.1:{closed}")
    with pytest.raises(ResourceError, match="1 check failed"):
        doctor.examine()
    assert "telemetry" in capsys.readouterr().out
