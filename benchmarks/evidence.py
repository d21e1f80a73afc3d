"""Evidence: one JSON a claim, beside the program that measured it.

`python benchmarks/evidence.py` prints every claim with its verdict; with a claim's name it measures that one again.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
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
        ">": value > float(limit),
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
        "commit": COMMIT,
        "date": datetime.date.today().isoformat(),
        "seed": seed,
        "seconds": round(seconds, 1),
        "machine": machine(),
        "details": details or {},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{body['claim']}.json").write_text(json.dumps(body, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"{body['claim']}: {body.get('value', 'table')} (bar {body.get('bar', '-')}) holds={body['holds']}")


def _commit() -> str:
    """Of the tree that measures; marked where its programs have changed since, for then no commit holds them."""
    root = Path(__file__).resolve().parent.parent

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True).stdout.strip()

    if not (head := git("rev-parse", "--short", "HEAD")):
        sys.exit(f"evidence needs a commit that it was measured at, and {root} is no git checkout")
    programs = ("*.py", "*.yaml", "requirements.lock")
    return f"{head} and changes" if git("status", "--porcelain", "--untracked-files=no", "--", *programs) else head


COMMIT = _commit()  # as the program begins: hours later the tree may be another


def machine() -> dict[str, Any]:
    """CPU, cores, memory and GPU of this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gb": round(memory), "gpu": None}


def all_claims() -> dict[str, dict[str, Any]]:
    """Claim -> what its file says, sorted."""
    root = Path(__file__).resolve().parent.parent
    files = [path for folder in ("benchmarks", "validation") for path in (root / folder / "results").glob("*.json")]
    bodies = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    return {body["claim"]: body for body in sorted(bodies, key=lambda body: str(body["claim"]))}


def show() -> None:
    """Print one line a claim."""
    claims = all_claims()
    for claim, body in claims.items():
        verdict = "holds" if body["holds"] else "FALLS SHORT"
        value = f"{body['value']:.4g} {body['unit']} (bar {body['bar']})" if body["kind"] == "bar" else "table"
        print(f"{claim:<42} {verdict:<12} {value}  [{body['date']}, {body['commit']}]")
        if not body["holds"]:
            print(f"{'':<42} why: {body['details'].get('why', 'not stated')}")
    print(f"{sum(bool(body['holds']) for body in claims.values())} of {len(claims)} claims hold")


def measure(claim: str) -> int:
    """Run the program that measured a claim again."""
    claims = all_claims()
    if claim not in claims:
        print(f"there is no claim '{claim}'; known: {', '.join(claims)}", file=sys.stderr)
        return 2
    root = Path(__file__).resolve().parent.parent
    _, program, *arguments = shlex.split(claims[claim]["command"])
    return subprocess.run([sys.executable, program, *arguments], cwd=root).returncode


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(measure(sys.argv[1]))
    show()
