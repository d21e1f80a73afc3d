"""Exact nearest neighbours at the sizes that validation meets: `validation.neighbours`.

    python validation/neighbours.py

Seconds for the distance of every query to its nearest row, building the search included, on hopper: (s, a) in 14
dimensions by a tree, whole rows in 26 by matrix products; 100,000 rows in 100,000, and a sample as large as validation
takes in a million. The million comes from a copula; queries are real rows. A hundred of them are held against a plain
search over everything. This is why no approximate index is used: recall is 1.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from evidence import record_table

from synth_pipeline import sources
from synth_pipeline.data.containers import Transitions
from synth_pipeline.generators.controls import Copula
from synth_pipeline.validation.neighbours import ROW, STATE_ACTION, Neighbours
from synth_pipeline.validation.novelty import SAMPLE

RESULTS = Path(__file__).resolve().parent / "results"
CHECKED = 100


def brute(rows: Transitions, queries: Transitions, columns: tuple[str, ...]) -> np.ndarray[Any, Any]:
    """Distances by a plain search, `[n]`."""
    points, asked = (
        np.concatenate([np.asarray(table[name], np.float64).reshape(len(table), -1) for name in columns], axis=1)
        for table in (rows, queries)
    )
    spread = points.std(axis=0)
    points, asked = ((x - points.mean(axis=0)) / np.where(spread > 0, spread, 1.0) for x in (points, asked))
    return np.array([np.sqrt(((points - query) ** 2).sum(axis=1).min()) for query in asked])


def main() -> None:
    """Build, ask, check, record."""
    began = time.perf_counter()
    data = sources.load("hopper/medium-replay")
    real = data.transitions()
    copula = Copula()
    copula.fit(data, seed=0)
    million = copula.sample(1_000_000, np.random.default_rng(0))
    table, equal = [], True
    for rows, queries in ((million.take(np.arange(100_000)), real), (million, real.take(np.arange(SAMPLE)))):
        for columns in (STATE_ACTION, ROW):
            begin = time.perf_counter()
            found = Neighbours(rows, columns).distances(queries)
            seconds = time.perf_counter() - begin
            expected = brute(rows, queries.take(np.arange(CHECKED)), columns)
            equal &= bool(np.allclose(found[:CHECKED], expected, rtol=1e-9))
            table.append({"rows": len(rows), "queries": len(queries), "columns": columns, "seconds": round(seconds, 1)})
            print(table[-1], flush=True)
    details = {"searches": table, "equal to a plain search": equal}
    seconds = time.perf_counter() - began
    record_table("validation.neighbours", details, complete=equal, seconds=seconds, folder=RESULTS)


if __name__ == "__main__":
    main()
