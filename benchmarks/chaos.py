"""Twenty smoke runs in which something dies at a random moment: `chaos.twenty_runs`.

    python benchmarks/chaos.py [--runs 20]

In turns it is the process of the command itself, one of its workers, the process of the Prefect flow, or the
server that it talks to, killed with -9 at a moment drawn from the length of an unbroken run. Then the same command
is typed again (with a new server, where that was killed), until it ends. The store of every run must have the digest of
the unbroken one, and nothing half-written may be left. Value: runs that did. What was found is kept in `runs/chaos`:
killed itself, the program goes on.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from evidence import record

from synth_pipeline import store
from synth_pipeline.runs import read_json, write_json

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [str(Path(sys.executable).parent / "synthpipe"), "run", "smoke", "-o", "run", "--workers", "2"]
FLOW = [sys.executable, str(ROOT / "flows" / "augment.py"), "smoke", "-o", "run", "--workers", "2"]
VICTIMS = ("command", "worker", "flow", "server")
TRIES = 3  # the same command, after the death


def started(command: list[str], folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    """A process in a session of its own, so that nothing else is hit by what is meant for it."""
    with (folder / "said.log").open("ab") as said:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "SYNTHPIPE_DATA": str(folder / "data"), **environment},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def children(pid: int) -> list[int]:
    """All descendants of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found + [below for child in found for below in children(child)]


def kill(process: subprocess.Popen[bytes], victim: str, rng: random.Random) -> str:
    """Kill -9 and say what was hit."""
    if victim == "worker" and (workers := children(process.pid)):
        os.kill(rng.choice(workers), signal.SIGKILL)
        return "a worker"
    process.kill()
    return "the whole process"


@contextmanager
def server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A Prefect server on the loopback, with a database of its own."""
    prefect = str(Path(sys.executable).parent / "prefect")
    home = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-services"]
    process = started(command, folder, **home)
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """The process and everything it started."""
    if process.poll() is None:
        for pid in [*children(process.pid), process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    process.wait()


def broken(folder: Path, victim: str, after: float, rng: random.Random, port: int) -> dict[str, Any]:
    """One run with a death in it: what was hit, and how often the command had to be typed."""
    flow = victim in ("flow", "server")
    command, told = (FLOW, {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}) if flow else (COMMAND, {})
    hit = "nothing: it had ended"
    for attempt in range(1, TRIES + 2):
        with server(folder, port) if flow else _nothing() as serving:
            if serving is not None:
                ready(port)
            process = started(command, folder, **told)
            begin = time.monotonic()
            while attempt == 1 and process.poll() is None and time.monotonic() - begin < after:
                time.sleep(0.05)
            if attempt == 1 and process.poll() is None:
                if victim == "server" and serving is not None:
                    stop(serving)
                    hit = "the server"
                else:
                    hit = kill(process, victim, rng)
            code = process.wait(timeout=600)
        if code == 0:
            return {"victim": victim, "after": round(after, 2), "hit": hit, "typed": attempt}
    return {"victim": victim, "after": round(after, 2), "hit": hit, "typed": None, "code": code}


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


def ready(port: int) -> None:
    """Wait until the server answers."""
    from urllib.error import URLError
    from urllib.request import urlopen

    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            with urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.3)
    raise TimeoutError("the server did not start")


def unbroken(place: Path) -> dict[str, Any]:
    """Length and digest of a run in which nothing dies."""
    whole, begin = place / "whole", time.perf_counter()
    whole.mkdir()
    if started(COMMAND, whole).wait() != 0:
        raise SystemExit((whole / "said.log").read_text())
    return {"seconds": time.perf_counter() - begin, "digest": store.open(whole / "run" / "store").digest()}


def once(place: Path, number: int, whole: dict[str, Any]) -> dict[str, Any]:
    """A broken run in a folder of its own, and whether it became what the unbroken one is."""
    folder, rng = place / str(number), random.Random(number)
    folder.mkdir()
    row = broken(folder, VICTIMS[number % len(VICTIMS)], rng.uniform(0.5, whole["seconds"]), rng, 4300 + number)
    target = folder / "run" / "store"
    row["one digest"] = store.exists(target) and store.open(target).digest() == whole["digest"]
    row["left over"] = [str(p.relative_to(folder)) for p in (folder / "run").rglob("*.partial")]
    if not good(row):
        print((folder / "said.log").read_text()[-2000:], flush=True)
    return row


def good(row: dict[str, Any]) -> bool:
    """It ended, with the same bytes, and left nothing."""
    return bool(row["typed"] and row["one digest"] and not row["left over"])


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was found before, else now."""
    if not path.exists():
        begin = time.perf_counter()
        write_json(path, {**make(), "took": round(time.perf_counter() - begin, 1)})
    found: dict[str, Any] = read_json(path)
    return found


def main() -> None:
    """An unbroken run for its digest and its length, then the broken ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/chaos"), help="what is found is kept here")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as place:
        whole = kept(given.out / "whole.json", lambda: unbroken(Path(place)))
        table = []
        for number in range(given.runs):
            make = partial(once, Path(place), number, whole)
            table.append(kept(given.out / f"{number}.json", make))
            print(table[-1], flush=True)
            shutil.rmtree(Path(place) / str(number), ignore_errors=True)
    record(
        "chaos.twenty_runs",
        sum(good(row) for row in table),
        bar=f"== {given.runs}",
        unit=f"of {given.runs} runs that finished after the same command, with one digest and nothing left over",
        seconds=whole["took"] + sum(row["took"] for row in table),
        details={"runs": table, "digest": whole["digest"], "an unbroken run takes": round(whole["seconds"], 1)},
    )


if __name__ == "__main__":
    main()
