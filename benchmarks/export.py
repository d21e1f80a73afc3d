"""Speed and memory of the exporters against Minari's own writer and against the raw disk, in one run on one machine.

Yardstick and ours are interleaved; medians over the repetitions; the disk is idle before each. Ours includes what the
yardsticks leave out: fsync (Minari) and reading everything back (both).
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import minari
import numpy as np
from evidence import RESULTS, record
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.export.d4rl_hdf5 import Labelled, write_flat
from synth_pipeline.export.minari import write_minari

STEPS = 1_000
ACTION = Field(name="actions", shape=(6,), low=(-1.0,) * 6, high=(1.0,) * 6, clip=True)
SPEC = DatasetSpec(dataset_id="benchmark/cheetah", fields=transition_fields(17, ACTION))


def part(episodes: int, steps: int = STEPS) -> Episodes:
    """Random episodes with 17 observation and 6 action components, float32."""
    rng = np.random.default_rng(0)
    rows = episodes * steps
    truncations = np.arange(1, rows + 1) % steps == 0
    return Episodes(
        observations=rng.standard_normal((rows, 17), np.float32),
        final_observations=rng.standard_normal((episodes, 17), np.float32),
        starts=np.arange(0, rows + 1, steps, dtype=np.int64),
        columns={
            "actions": rng.uniform(-1, 1, (rows, 6)).astype(np.float32),
            "rewards": rng.standard_normal(rows, np.float32),
            "terminations": np.zeros(rows, bool),
            "truncations": truncations,
        },
    )


def parts(episodes: int, size: int = 50) -> Iterator[Episodes]:
    """The same episodes again and again, `size` at a time: a stream that never stands in memory whole."""
    one = part(min(size, episodes))
    for _ in range(episodes // len(one)):
        yield one


def buffers(source: Iterator[Episodes]) -> Iterator[EpisodeBuffer]:
    """The same episodes as Minari's writer wants them."""
    for episodes in source:
        for index in range(len(episodes)):
            rows = slice(int(episodes.starts[index]), int(episodes.starts[index + 1]))
            final = episodes.final_observations[index : index + 1]
            yield EpisodeBuffer(
                observations=np.concatenate([episodes.observations[rows], final]),
                actions=episodes["actions"][rows],
                rewards=episodes["rewards"][rows],
                terminations=episodes["terminations"][rows],
                truncations=episodes["truncations"][rows],
                infos={},
            )


def with_minari(root: Path, episodes: int, steps: int = STEPS) -> None:
    """The yardstick: Minari's own writer, streamed."""
    os.environ["MINARI_DATASETS_PATH"] = str(root)
    source = parts(episodes) if steps == STEPS else iter([part(episodes, steps)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            "benchmark/yardstick-v0",
            buffers(source),
            observation_space=spaces.Box(-np.inf, np.inf, (17,), np.float32),
            action_space=spaces.Box(-1, 1, (6,), np.float32),
            data_format="hdf5",
        )


def with_ours(root: Path, episodes: int, one_step: int = 0) -> None:
    """Our writer, streamed, read back."""
    rows = single(one_step) if one_step else None
    write_minari(
        "benchmark/ours-v0",
        spec=SPEC,
        episodes=parts(episodes) if episodes else (),
        one_step=rows,
        root=root,
        metadata={},
    )


def single(rows: int) -> Transitions:
    """Independent rows."""
    return part(rows, 1).transitions()


def timed(folder: Path, work: Callable[[Path], object]) -> float:
    """Seconds of one call that writes below a new folder, on an idle disk."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.sync()
    begin = time.perf_counter()
    work(folder)
    return time.perf_counter() - begin


def interleaved(
    folder: Path, repetitions: int, yardstick: Callable[[Path], object], ours: Callable[[Path], object]
) -> tuple[list[float], list[float]]:
    """Seconds of both, in turn, after one unmeasured round."""
    rounds = [(timed(folder, yardstick), timed(folder, ours)) for _ in range(repetitions + 1)][1:]
    return [pair[0] for pair in rounds], [pair[1] for pair in rounds]


def memory_growth(folder: Path, episodes: int) -> float:
    """How much (MB) the peak memory of a process grows while it writes this many episodes."""
    command = [sys.executable, __file__, "--only-write", str(folder), "--episodes", str(episodes)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def only_write(folder: Path, episodes: int) -> None:
    """Write in this process and print by how much the peak grew."""
    with_ours(folder / "warm", 50)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with_ours(folder / "measured", episodes)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def one_step_details(folder: Path) -> dict[str, float]:
    """Seconds and size of one-step datasets, and Minari's own rate on a small one."""
    found: dict[str, float] = {}
    for rows in (20_000, 50_000):
        found[f"one_step_{rows}_seconds"] = timed(folder, partial(with_ours, episodes=0, one_step=rows))
        found[f"one_step_{rows}_mb"] = next(folder.rglob("main_data.hdf5")).stat().st_size / 1e6
    found["minari_one_step_2000_seconds"] = timed(folder, lambda root: with_minari(root, 2_000, 1))
    return found


def measure_minari(folder: Path, episodes: int, repetitions: int, results: Path) -> None:
    """Claim `export.minari_ratio`."""
    begin = time.perf_counter()
    growth = {
        f"peak_growth_mb_{count * STEPS}_steps": memory_growth(folder / f"memory{count}", count)
        for count in (episodes // 4, episodes)
    }
    one_step = one_step_details(folder / "one")
    yardstick, ours = interleaved(
        folder / "minari", repetitions, lambda root: with_minari(root, episodes), lambda root: with_ours(root, episodes)
    )
    value = statistics.median(yardstick) / statistics.median(ours)
    details = {"steps": episodes * STEPS, "episodes": episodes, "minari_seconds": yardstick, "our_seconds": ours}
    record(
        "export.minari_ratio", value, bar=">= 1.0", unit="x minari.create_dataset_from_buffers (hdf5)",
        seconds=time.perf_counter() - begin, details={**details, **growth, **one_step}, folder=results,
    )  # fmt: skip


def write_raw(path: Path, data: bytes) -> None:
    """The yardstick of the flat file: the same bytes with one write and fsync."""
    with path.open("wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def measure_flat(folder: Path, rows: int, repetitions: int, results: Path) -> None:
    """Claim `export.flat_ratio`."""
    begin = time.perf_counter()
    source = Labelled(Dataset(SPEC, rows=single(rows)), synthetic=True)

    def ours(root: Path) -> None:
        write_flat(root / "flat.hdf5", [source], spec=SPEC, metadata={})

    timed(folder / "flat", ours)
    data = (folder / "flat" / "flat.hdf5").read_bytes()
    yardstick, seconds = interleaved(folder / "flat", repetitions, lambda root: write_raw(root / "raw", data), ours)
    value = statistics.median(yardstick) / statistics.median(seconds)
    record(
        "export.flat_ratio", value, bar=">= 0.5", unit="x file.write + fsync of the same bytes",
        seconds=time.perf_counter() - begin, folder=results,
        details={"rows": rows, "mb": len(data) / 1e6, "raw_seconds": yardstick, "our_seconds": seconds},
    )  # fmt: skip


def main() -> None:
    """Measure and write the claims; a smaller run writes nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=3_000_000, help="rows of the flat file")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only-write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only_write:
        only_write(arguments.only_write, arguments.episodes)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        full = (arguments.episodes, arguments.rows) == (1_000, 3_000_000)
        results = RESULTS if full else folder / "results"
        measure_minari(folder, arguments.episodes, arguments.repetitions, results)
        measure_flat(folder, arguments.rows, arguments.repetitions, results)


if __name__ == "__main__":
    main()
