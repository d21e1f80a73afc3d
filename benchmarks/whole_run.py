"""`make run` from nothing, on an idle machine: `run.minutes`.

    python benchmarks/whole_run.py [--seed 0] [-o RUN]

The command of the Makefile, with an empty folder for collected data: minutes from its start to its end, and how long
each stage took by when its last line appeared. With another seed nothing is recorded: it says whether the gate passed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from evidence import record

from synth_pipeline.machine import cores

STAGES = ("collect", "train", "generate", "validate", "export", "evaluate", "report")


def main() -> None:
    """Run it and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/whole"))
    given = parser.parse_args()
    program = str(Path(sys.executable).parent / "synthpipe")
    command = [
        program,
        "run",
        "default",
        "-o",
        str(given.out),
        "--workers",
        str(cores()),
        "--set",
        f"seed={given.seed}",
    ]
    ends, stage, lines = {}, "", []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="data-") as data:
        process = subprocess.Popen(
            command, env={**os.environ, "SYNTHPIPE_DATA": data}, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
            stage = next((name for name in STAGES if line.startswith(name)), stage)
            ends[stage] = time.perf_counter() - began
        code = process.wait()
    seconds = time.perf_counter() - began
    marks = [0.0, *(ends[name] for name in STAGES if name in ends)]
    took = {name: round(ends[name] - marks[i], 1) for i, name in enumerate(n for n in STAGES if n in ends)}
    print(f"seed {given.seed}: exit code {code}, {seconds / 60:.2f} minutes, {took}")
    if given.seed or code:
        sys.exit(code)
    verdict = next(line for line in lines if line.startswith("validate") and "rules" in line)
    details = {"seconds by stage": took, "verdict": verdict.split(maxsplit=1)[1]}
    if seconds > 600:
        slowest = max(took, key=lambda name: took[name])
        details["why"] = f"the longest stage is {slowest}; matrix products of this machine are in float32"
    record("run.minutes", round(seconds / 60, 2), bar="<= 10", unit="minutes", seconds=seconds, details=details)


if __name__ == "__main__":
    main()
