"""Generators x datasets x seeds: a run for each, and a leaderboard for each dataset and seed."""

import re
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import tasks
from common import Workers, flow, front
from pydantic import Field
from showing import Progress, show_link, show_table

from synth_pipeline import comparison, stages
from synth_pipeline.cli_options import workers_of
from synth_pipeline.errors import SynthPipelineError, TaskError
from synth_pipeline.run_config import load_run_config
from synth_pipeline.runs import Run, read_json, write_json
from synth_pipeline.validation.leaderboard import GENERATION, TRAINING

SUMMARY = "summary.json"


@flow
def benchmark(  # noqa: PLR0913  the fields of the form
    datasets: list[str],
    generators: list[str] = ["synther", "smote"],
    seeds: Annotated[int, Field(ge=1)] = 1,
    out: Path = Path("runs/benchmark"),
    preset: str = "default",
    settings: list[str] = [],
    workers: Workers = None,
    scheduler: str | None = None,
    over_an_hour: bool = False,
) -> Path:
    """Fit every generator on every dataset with every seed, and judge those of equal dataset and seed by one ruler.

    Args:
        datasets: Catalog ids, Minari ids, HDF5 or npz files.
        generators: E.g. synther, smote, copula, vae.
        seeds: How many; of the split of the episodes too, so every seed has a leaderboard of its own.
        out: Folder of everything; DATASET/seed-K/GENERATOR are runs, DATASET/seed-K/board is their leaderboard.
        preset: Preset or YAML file whose other settings every run has.
        settings: Overrides of it, e.g. collect.rows=20000.
        workers: Processes; none: 1.
        scheduler: Address of a Dask scheduler, e.g. tcp://host:8786, instead of processes.
        over_an_hour: Go ahead even when making the rows of a run takes more than an hour.

    Returns:
        The summary (JSON): a row for every run.
    """
    cells = {
        (d, s, g): [*settings, f"dataset={d}", f"seed={s}", f"generator.kind={g}"]
        for d, s, g in product(datasets, range(seeds), generators)
    }
    places = {(d, s, g): out / _plain(d) / f"seed-{s}" / g for d, s, g in cells}
    for cell, changes in cells.items():  # what cannot be used is found before hours of work
        stages.check(Run(places[cell]), load_run_config(preset, changes))
    boards = [f"{dataset} seed {seed}" for dataset, seed in product(datasets, range(seeds))]
    progress, rows, failed = Progress(out, *boards), [], []
    for dataset, seed in product(datasets, range(seeds)):
        runs = []
        for generator in generators:
            cell = (dataset, seed, generator)
            try:
                _made(places[cell], preset, cells[cell], workers_of(workers, scheduler), over_an_hour)
                runs.append(str(places[cell]))
            except SynthPipelineError as error:  # the others are worth having
                failed.append(f"{places[cell]}: {error.what}")
        if runs:
            board = tasks.compare(runs, places[dataset, seed, generators[0]].parent / "board")
            rows += _rows(dataset, seed, read_json(board))
            show_link(board.parent.parent, "leaderboard", board.parent / comparison.PAGE)
        progress.ended(f"{dataset} seed {seed}")
    write_json(out / SUMMARY, rows)
    show_table(out, "summary", rows, f"{len(rows)} runs, {len(failed)} failed")
    if failed:
        raise TaskError(f"{len(failed)} of {len(cells)} runs failed", found="; ".join(failed), fix="run it again")
    return out / SUMMARY


def _made(run: Path, preset: str, settings: list[str], where: int | str, yes: bool) -> None:
    tasks.collect(preset, settings, where)
    tasks.train(run, preset, settings)
    tasks.generate(run, preset, settings, where, yes)


def _rows(dataset: str, seed: int, board: dict[str, Any]) -> list[dict[str, Any]]:
    """What a leaderboard says of the runs, in a line each."""
    about = {"dataset": dataset, "seed": seed, "leaderboard holds": board["self-test"]["holds"]}
    given = [entry for entry in board["entries"] if entry["kind"] == "given"]
    return [
        {
            **about,
            "generator": entry["about"].split(",")[0],
            "passed": entry["passed"],
            "rules failed": entry["rules failed"],
            "rules judged": entry["rules judged"],
            "training s": entry["seconds"].get(TRAINING),
            "generation s": entry["seconds"].get(GENERATION),
        }
        for entry in given
    ]


def _plain(dataset: str) -> str:
    """A dataset's name as that of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", dataset).strip("-.")


if __name__ == "__main__":
    front(benchmark)
