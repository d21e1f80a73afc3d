"""Bad stores and files, judged as a user would: `validation.bad_stores`.

    python validation/bad_inputs.py

Each is held against hopper by `synthpipe validate` or `audit`: the right error or a failed gate, never a traceback and
never a pass. The claim is the number of those that went wrong.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from evidence import record

from synth_pipeline import stages
from synth_pipeline.data.containers import Transitions
from synth_pipeline.sources.collect import CollectedSource

RESULTS = Path(__file__).resolve().parent / "results"
DATASET, ROWS = "hopper/medium-replay", 20_000
COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminations")
SOURCE, STORE, GATE = 3, 4, 7  # exit codes


def synthpipe(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A verb, and what it said."""
    program = str(Path(sys.executable).with_name("synthpipe"))
    return subprocess.run([program, *arguments], capture_output=True, text=True)


def saved(folder: Path, rows: Transitions, **changes: np.ndarray[Any, Any]) -> str:
    """Rows as an npz file."""
    columns: dict[str, Any] = {name: changes.get(name, rows[name]) for name in COLUMNS}
    np.savez(folder / "theirs.npz", **columns)
    return str(folder / "theirs.npz")


def spoilt(store: Path, change: Callable[[bytes], bytes]) -> str:
    """A store with one array file changed."""
    file = next(path for path in sorted(store.rglob("c.*")) if path.stat().st_size > 1000)
    file.write_bytes(change(file.read_bytes()))
    return str(store)


def cases(folder: Path, rows: Transitions, episode: Transitions, run: Path) -> dict[str, tuple[list[str], int]]:
    """Name -> (arguments, exit code)."""
    real = ["--real", DATASET, "--no-learned-oracle"]

    def place(name: str) -> Path:
        (folder / name).mkdir(parents=True)
        return folder / name

    def copy(name: str) -> Path:
        return Path(shutil.copytree(run / "store", folder / name))

    nan, wide = rows["rewards"].copy(), np.repeat(rows["observations"], 2, axis=1)
    nan[7] = np.nan
    walker = CollectedSource("walker2d/medium-replay", rows=ROWS).load().transitions()
    few = rows.take(np.arange(1))
    return {
        "truncated shard": (["validate", spoilt(copy("cut"), lambda data: data[: len(data) // 2]), *real], STORE),
        "flipped bit": (["validate", spoilt(copy("bit"), lambda data: bytes([data[0] ^ 1]) + data[1:]), *real], STORE),
        "NaN": (["audit", saved(place("nan"), rows, rewards=nan), *real], SOURCE),
        "wrong dimensions": (
            ["audit", saved(place("wide"), rows, observations=wide, next_observations=wide), *real],
            GATE,
        ),
        "another environment": (["audit", saved(place("walker"), walker), *real], GATE),
        "empty": (["audit", saved(place("empty"), rows.take(np.arange(0))), *real], SOURCE),
        "one row": (["audit", saved(place("one"), few), *real], GATE),
        "one episode": (["audit", saved(place("episode"), episode), *real], GATE),
        "a text file": (["audit", str(text(place("text"))), *real], SOURCE),
        "nothing there": (["audit", str(folder / "absent.npz"), *real], SOURCE),
    }


def text(folder: Path) -> Path:
    """A file that is no data."""
    (folder / "notes.npz").write_text("not an archive")
    return folder / "notes.npz"


def main() -> None:
    """Try all, record."""
    begin = time.perf_counter()
    stages.collect(DATASET)
    stages.collect("walker2d/medium-replay", rows=ROWS)
    data = CollectedSource(DATASET).load()
    assert data.episodes is not None
    rows, episode = data.transitions(), data.episodes.take(np.array([len(data.episodes) // 2])).transitions()
    rows = rows.take(np.random.default_rng(0).permutation(len(rows))[:ROWS])
    table: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        synthpipe("train", DATASET, "-g", "copula", "-o", str(run))
        synthpipe("generate", str(run), "-n", str(ROWS))
        for case, (arguments, code) in cases(Path(name) / "cases", rows, episode, run).items():
            answer = synthpipe(*arguments)
            right = answer.returncode == code and "Traceback" not in answer.stderr
            said = answer.stderr.replace(name, "").strip().splitlines()
            table[case] = {"exit code": answer.returncode, "expected": code, "right": right, "said": said[:4]}
            print(case, table[case], flush=True)
    wrong = sum(not row["right"] for row in table.values())
    seconds = time.perf_counter() - begin
    details = {"cases": table, "dataset": DATASET}
    record(
        "validation.bad_stores",
        wrong,
        bar="== 0",
        unit="bad inputs that got the wrong answer",
        seconds=seconds,
        details=details,
        folder=RESULTS,
    )


if __name__ == "__main__":
    main()
