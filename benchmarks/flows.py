"""Does the schedule of `prefect.yaml` fire? A real server, a real worker, and a cron of every minute.

The nightly deployment as it stands, but every minute and on a toy, is made in a checkout by `prefect deploy`; then this
program only watches. Every run must have been made by the schedule; the second must have found nothing to do.

    python benchmarks/flows.py     # about five minutes
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml
from evidence import record

ROOT = Path(__file__).resolve().parent.parent
PREFECT = str(Path(sys.executable).with_name("prefect"))
T = TypeVar("T")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the server is on this machine
WANTED, TIMEOUT_S, LEVEL_INFO = 2, 600.0, 20
SMALL = ["generator.kind=duplicate", "collect.rows=600", "generate.rows=500", "export.one_step=20"]
QUICK = ["validation.splits=2", "validation.pictures=false", "validation.learn_oracle=false"]


def main() -> None:
    """Measure, and write the claim."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="flows-") as temporary:
        folder = Path(temporary)
        port = _free_port()
        api = f"http://127.0.0.1:{port}/api"
        environment = {
            **os.environ,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "SYNTHPIPE_DATA": str(folder / "data"),
            "NO_PROXY": "127.0.0.1",
        }
        server = [PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        with _running(server, environment, folder / "server.log"):
            _wait_for(lambda: _answers(api), 120)
            _prefect(["work-pool", "create", "synth-pipeline", "--type", "process"], environment)
            _prefect(["--no-prompt", "deploy", "--prefect-file", str(_every_minute(folder)), "--all"], environment)
            worker = [PREFECT, "worker", "start", "--pool", "synth-pipeline"]
            with _running(worker, environment, folder / "worker.log"):
                completed = _wait_for(lambda: _completed(api), TIMEOUT_S)
                said = [_wait_for(partial(_said, api, run), 60) for run in completed]
    scheduled = sum(run["auto_scheduled"] and run["created_by"]["type"] == "SCHEDULE" for run in completed)
    idle = ["\n".join(re.findall("^augment +(nothing to do: .*)$", log, re.MULTILINE)) for log in said]
    holds = scheduled if idle[1] and not idle[0] else 0
    details = {
        "cron": "* * * * *",
        "runs": [{key: run[key] for key in ("name", "expected_start_time", "state_name")} for run in completed],
        "second run said": idle[1].replace(str(folder), "..."),
    }
    seconds = time.perf_counter() - begin
    record(
        "flows.schedule_fires",
        holds,
        bar=f">= {WANTED}",
        unit="scheduled runs completed",
        seconds=seconds,
        details=details,
    )


def _every_minute(folder: Path) -> Path:
    """The nightly deployment of `prefect.yaml`, every minute, on a toy."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    nightly = next(deployment for deployment in values["deployments"] if deployment["name"] == "nightly")
    nightly["schedules"] = [{"cron": "* * * * *", "timezone": "UTC"}]
    nightly["parameters"] |= {"preset": "smoke", "out": str(folder / "versions"), "settings": [*SMALL, *QUICK]}
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump({"name": values["name"], "deployments": [nightly]}), encoding="utf-8")
    return path


def _completed(api: str) -> list[dict[str, Any]] | None:
    """The runs that have ended well, in order; None while there are too few."""
    runs = _ask(api, "/flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC"})
    found = [run for run in runs if run["state_type"] == "COMPLETED"]
    failed = [run["state"]["message"] for run in runs if run["state_type"] in ("FAILED", "CRASHED")]
    if failed:
        raise SystemExit(f"a scheduled run failed: {failed[0]}")
    return found if len(found) >= WANTED else None


def _said(api: str, run: dict[str, Any]) -> str | None:
    """The whole log of a run; None while its last line is on its way."""
    wanted = {"logs": {"flow_run_id": {"any_": [run["id"]]}, "level": {"ge_": LEVEL_INFO}}, "sort": "TIMESTAMP_ASC"}
    lines = [line["message"] for line in _ask(api, "/logs/filter", wanted)]
    return "\n".join(lines) if lines and "Finished in state" in "".join(lines[-2:]) else None


def _ask(api: str, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{api}{path}", json.dumps(body).encode(), headers)
    with DIRECT.open(request, timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found


def _answers(api: str) -> bool:
    try:
        with DIRECT.open(f"{api}/health", timeout=5):
            return True
    except OSError:
        return False


def _prefect(arguments: list[str], environment: dict[str, str]) -> None:
    ended = subprocess.run([PREFECT, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"prefect {' '.join(arguments)} failed:\n{ended.stdout}{ended.stderr}")


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """A program that runs beside this one, and is stopped with its children in the end."""
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield
        finally:
            for number, patience in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
                    break


def _wait_for(found: Callable[[], T | None], seconds: float) -> T:
    """Ask every second until there is something."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if result := found():
            return result
        time.sleep(1)
    raise SystemExit(f"nothing after {seconds:.0f} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
