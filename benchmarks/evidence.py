"""Writes evidence: one JSON a claim, beside the program that measured it (README, section "Evidence")."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def record(
    claim: str,
    value: float,
    *,
    bar: str,
    unit: str,
    seconds: float,
    seed: int | None = 0,
    details: dict[str, Any] | None = None,
    folder: Path = RESULTS,
) -> bool:
    """Write a claim with a bar, e.g. `record("store.read_ratio", 0.8, bar=">= 0.7", unit="x numpy.load", ...)`.

    Returns:
        Whether the bar is met.
    """
    operator, limit = bar.split()
    holds = {
        ">=": value >= float(limit),
        "<=": value <= float(limit),
        "<": value < float(limit),
        "==": value == float(limit),
    }[operator]
    body = {"claim": claim, "kind": "bar", "value": value, "bar": bar, "holds": bool(holds), "unit": unit}
    _write(body, seconds, seed, details, folder)
    return bool(holds)


def record_table(
    claim: str,
    details: dict[str, Any],
    *,
    complete: bool,
    seconds: float,
    seed: int | None = 0,
    folder: Path = RESULTS,
) -> None:
    """Write a claim that is a table: it holds when it is complete."""
    _write({"claim": claim, "kind": "table", "holds": complete}, seconds, seed, details, folder)


def _write(
    body: dict[str, Any], seconds: float, seed: int | None, details: dict[str, Any] | None, folder: Path
) -> None:
    program = Path(sys.argv[0]).resolve()
    root = Path(__file__).resolve().parent.parent
    command = " ".join(["python", str(program.relative_to(root)), *sys.argv[1:]])
    body |= {
        "command": command,
        "commit": _commit(root),
        "date": datetime.date.today().isoformat(),
        "seed": seed,
        "seconds": round(seconds, 1),
        "machine": machine(),
        "details": details or {},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{body['claim']}.json").write_text(json.dumps(body, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"{body['claim']}: {body.get('value', 'table')} (bar {body.get('bar', '-')}) holds={body['holds']}")


def _commit(root: Path) -> str:
    answer = subprocess.run(["git", "-C", str(root), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return answer.stdout.strip() or "unknown"


def machine() -> dict[str, Any]:
    """CPU, cores, memory and GPU of this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gb": round(memory), "gpu": None}
