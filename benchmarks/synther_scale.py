"""Five million hopper rows into a store: `synther.five_million`.

    synthpipe train hopper/medium-replay -g synther -o RUN     # SynthER as it comes, which `make run` makes smaller
    python benchmarks/synther_scale.py RUN

Two workers fill a store in one go: seconds and peak memory of all processes together count. A second store is filled by
the same command, which is killed (SIGKILL, the whole process group) three times on the way. A third, smaller one is
filled by one worker and by two. Equal digests and equal array files are what holds.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from evidence import record

from synth_pipeline import store
from synth_pipeline.generators.base import build
from synth_pipeline.generators.synther import SyntherConfig
from synth_pipeline.run_config import open_run

ROWS, FEW = 5_000_000, 400_000
MINUTES, MEMORY_MB = 25.0, 1500.0
FOLDER = Path("runs/benchmark-synther/scale")


def prepared(source: Path, name: str) -> Path:
    """A run with the fitted model of another one, and no store yet."""
    run = FOLDER / name
    if not run.exists():
        run.mkdir(parents=True)
        for entry in ("config.yaml", "environment.json", "model"):
            copy = shutil.copytree if (source / entry).is_dir() else shutil.copy2
            copy(source / entry, run / entry)
    return run


def started(run: Path, rows: int, workers: int) -> subprocess.Popen[bytes]:
    """`synthpipe generate` in a process group of its own."""
    program = Path(sys.executable).with_name("synthpipe")
    command = [str(program), "generate", str(run), "-n", str(rows), "--workers", str(workers), "--yes"]
    command += ["--set", "generate.rows_per_shard=131072"]
    return subprocess.Popen(command, start_new_session=True)


def memory_mb(group: int) -> float:
    """Resident memory of a process group, without what its processes share counted twice (proportional set size)."""
    total = 0.0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getpgid(int(entry.name)) == group:
                lines = (entry / "smaps_rollup").read_text().splitlines()
                total += sum(float(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
        except (OSError, ProcessLookupError):
            continue  # it has just ended
    return total


def unbroken(run: Path, rows: int, workers: int) -> dict[str, float]:
    """Fill in one go; seconds and peak memory."""
    begin, peak = time.perf_counter(), 0.0
    process = started(run, rows, workers)
    while process.poll() is None:
        peak = max(peak, memory_mb(process.pid))
        time.sleep(1.0)
    assert process.returncode == 0, f"generate ended with {process.returncode}"
    return {"seconds": round(time.perf_counter() - begin, 1), "peak_mb": round(peak, 1)}


def killed(run: Path, rows: int, workers: int, seconds: float, times: int = 3) -> list[float]:
    """Fill with kills at random moments; the seconds after which each came."""
    rng, moments = random.Random(0), []
    for _ in range(times):
        process = started(run, rows, workers)
        moments.append(round(rng.uniform(0.1, 0.3) * seconds, 1))
        time.sleep(moments[-1])
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    unbroken(run, rows, workers)
    return moments


def fingerprint(run: Path) -> str:
    """The digest of a store, and a hash over the bytes of every array file."""
    target, hashed = store.open(run / "store"), hashlib.sha256()
    target.verify()
    for path in sorted((run / "store").glob("*/c*")):
        hashed.update(f"{path.parent.name}/{path.name}".encode())
        with path.open("rb") as file:
            hashed.update(hashlib.file_digest(file, "sha256").digest())
    return f"{target.digest()} {hashed.hexdigest()}"


def main() -> None:
    """Fill, kill, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory with a fitted default")
    parser.add_argument("--rows", type=int, default=ROWS)
    arguments = parser.parse_args()
    config = build(open_run(arguments.run)[1].generator).config
    assert config == SyntherConfig(), f"{arguments.run} is not the default that the other claims are about"
    began = time.perf_counter()
    whole, broken, one, two = (prepared(arguments.run, name) for name in ("whole", "broken", "one", "two"))
    measured = unbroken(whole, arguments.rows, workers=2)
    moments = killed(broken, arguments.rows, 2, measured["seconds"])
    for run, workers in ((one, 1), (two, 2)):
        unbroken(run, FEW, workers)
    details: dict[str, Any] = {
        **measured,
        "rows": arguments.rows,
        "kills after seconds": moments,
        "same after kills": fingerprint(whole) == fingerprint(broken),
        "same for 1 and 2 workers": fingerprint(one) == fingerprint(two),
        "digest": store.open(whole / "store").digest(),
        "limits": {"minutes": MINUTES, "peak_mb": MEMORY_MB},
    }
    same = details["same after kills"] and details["same for 1 and 2 workers"]
    used = max(measured["seconds"] / (60 * MINUTES), measured["peak_mb"] / MEMORY_MB)
    record(
        "synther.five_million",
        used if same else 99.0,
        bar="<= 1",
        unit="largest share of 25 minutes and 1.5 GB that is used; 99 when digests differ",
        seconds=time.perf_counter() - began,
        details=details,
    )


if __name__ == "__main__":
    main()
