"""One million hopper rows, judged: `validation.million_rows_seconds` and `validation.peak_memory_mb`.

    python validation/million_rows.py

A copula of hopper fills a store (it fails the gate, which does not matter here). `synthpipe validate` then runs as a
user would run it, in a process of its own: wall-clock seconds, everything included, and peak memory of that process and
its children (proportional set size, sampled every half second).
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from evidence import record
from synther_scale import memory_mb

RESULTS = Path(__file__).resolve().parent / "results"
RUN, ROWS = Path("runs/calibration/million"), 1_000_000
GATE = 7  # exit code: judged, and a rule failed


def synthpipe(*arguments: str) -> subprocess.Popen[bytes]:
    """A verb in a process group of its own."""
    program = str(Path(sys.executable).with_name("synthpipe"))
    return subprocess.Popen([program, *arguments], start_new_session=True)


def main() -> None:
    """Fill, judge, record."""
    if not (RUN / "store").exists():
        synthpipe("collect", "hopper/medium-replay", "--workers", "2").wait()
        synthpipe("train", "hopper/medium-replay", "-g", "copula", "-o", str(RUN)).wait()
        synthpipe("generate", str(RUN), "-n", str(ROWS), "--workers", "2").wait()
    for leftover in (RUN / "validation").glob("*.json"):
        leftover.unlink()
    begin, peak = time.perf_counter(), 0.0
    process = synthpipe("validate", str(RUN))
    while process.poll() is None:
        peak = max(peak, memory_mb(process.pid))
        time.sleep(0.5)
    seconds = time.perf_counter() - begin
    assert process.returncode in (0, GATE), f"validate ended with {process.returncode}"
    details = {"rows": ROWS, "exit code": process.returncode}
    for claim, value, bar, unit in (
        ("validation.million_rows_seconds", seconds, "< 180", "seconds of `synthpipe validate`, everything included"),
        ("validation.peak_memory_mb", peak, "< 2000", "MB, proportional set size of all processes"),
    ):
        record(claim, round(value, 1), bar=bar, unit=unit, seconds=seconds, details=details, folder=RESULTS)


if __name__ == "__main__":
    main()
