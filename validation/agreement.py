"""Do our metrics give what the packages give that they are known from, on the same arrays: `validation.agreement`.

    pip install sdmetrics prdc       # not dependencies of the project; into an environment of its own
    python validation/agreement.py

The value is the largest difference of all: KS and TV complement of every column and correlation similarity of every
pair of columns from SDMetrics; precision, recall, density and coverage from `prdc`; C2ST's area under the ROC curve
from scikit-learn's `cross_val_score` on the same folds. The arrays are halves of hopper's real rows (collected when
they are not there), the same with noise on one of them, and Gaussians. Columns are also compared after rounding, which
makes ties. PRDC is not: rows then lie on the edges of balls, where `prdc` decides by its rounding errors.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from evidence import record

from synth_pipeline import stages
from synth_pipeline.errors import MissingExtraError, SynthPipelineError
from synth_pipeline.machine import cores
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.sources.collect import CollectedSource
from synth_pipeline.validation import c2st, prdc
from synth_pipeline.validation.dependence import pair_scores
from synth_pipeline.validation.marginals import ks_complement, tv_complement
from synth_pipeline.validation.metric import real_halves, subsample
from synth_pipeline.validation.neighbours import ROW

DATASET, ROWS, SAMPLE, SEED = "hopper/medium-replay", 100_000, 5_000, 0
PACKAGES = ("sdmetrics", "prdc")
BAR = "<= 1e-6"

Floats = npt.NDArray[np.float64]


def arrays() -> Iterator[tuple[str, Floats, Floats]]:
    """Name, `[n, c]`, `[m, c]`; no column is constant, no row is in both."""
    rng = stream(SEED, Stage.VALIDATE, 8)
    stages.collect(DATASET, rows=ROWS, workers=cores())
    halves = next(real_halves(CollectedSource(DATASET, rows=ROWS).load(), splits=1, seed=SEED))
    a, b = (c2st.points(subsample(half, SAMPLE, seed=SEED, address=i), ROW) for i, half in enumerate(halves))
    a, b = c2st.standardised(a, b)
    yield "hopper, real halves", a, b
    yield "hopper, noise on one half", a, b + 0.1 * rng.standard_normal(b.shape)
    yield "Gaussians", rng.standard_normal((1_000, 4)), rng.standard_normal((1_500, 4)) @ rng.standard_normal((4, 4))


def of_columns(real: Floats, synthetic: Floats) -> list[float]:
    """Differences of KS complements, with and without ties, and of TV complements of signs."""
    from sdmetrics.single_column import KSComplement, TVComplement

    gaps = []
    for a, b in zip(real.T, synthetic.T, strict=True):
        for x, y in ((a, b), (a.round(1), b.round(1))):
            gaps.append(ks_complement(x, y) - KSComplement.compute(pd.Series(x), pd.Series(y)))
        gaps.append(tv_complement(a > 0, b > 0) - TVComplement.compute(pd.Series(a > 0), pd.Series(b > 0)))
    return gaps


def of_pairs(real: Floats, synthetic: Floats) -> list[float]:
    """Differences of correlation similarities."""
    from sdmetrics.column_pairs import CorrelationSimilarity

    frames = pd.DataFrame(real), pd.DataFrame(synthetic)
    places = np.transpose(np.triu_indices(real.shape[1], k=1)).tolist()
    theirs = [CorrelationSimilarity.compute(*(frame[pair] for frame in frames)) for pair in places]
    return list(pair_scores(real, synthetic) - theirs)


def of_balls(real: Floats, synthetic: Floats) -> list[float]:
    """Differences of precision, recall, density and coverage."""
    from prdc import compute_prdc

    with redirect_stdout(StringIO()):  # it prints the numbers of rows
        theirs = compute_prdc(real, synthetic, nearest_k=prdc.K)
    return [value - theirs[name] for name, value in prdc.scores(real, synthetic).items()]


def of_classifiers(real: Floats, synthetic: Floats) -> list[float]:
    """Differences of the area under the ROC curve, for trees and network."""
    from sklearn.model_selection import PredefinedSplit, cross_val_score
    from threadpoolctl import threadpool_limits

    sides, rng = [rows[np.lexsort(rows.T)] for rows in (real, synthetic)], np.random.default_rng(SEED)
    half = np.concatenate([rng.permutation(np.arange(len(rows)) % 2) for rows in sides])
    x, label = np.concatenate(sides), np.repeat([0, 1], [len(rows) for rows in sides])
    folds, fewer, gaps = PredefinedSplit(half - 1), min(map(len, sides)), []  # -1: always learned
    for classifier in (c2st.trees, c2st.network):
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # few epochs
            (theirs,) = cross_val_score(classifier(fewer, SEED), x, label, cv=folds, scoring="roc_auc")
        gaps.append(c2st.area(real, synthetic, classifier=classifier, seed=SEED) - max(theirs, 0.5))
    return gaps


PARTS: dict[str, Callable[[Floats, Floats], list[float]]] = {
    "columns, SDMetrics": of_columns,
    "pairs of columns, SDMetrics": of_pairs,
    "PRDC, prdc": of_balls,
    "C2ST, scikit-learn": of_classifiers,
}


def main() -> int:
    """Compare and record."""
    began = time.monotonic()
    try:
        missing = [package for package in PACKAGES if find_spec(package) is None]
        if missing:
            raise MissingExtraError(
                "the packages to compare with are not installed",
                found=f"no {', no '.join(missing)}",
                fix=f"pip install {' '.join(PACKAGES)}   # into an environment of its own",
            )
        compared = {
            name: {part: {"values": len(gaps), "largest": float(np.abs(gaps).max())} for part, gaps in found.items()}
            for name, found in ((name, {part: gap(a, b) for part, gap in PARTS.items()}) for name, a, b in arrays())
        }
    except SynthPipelineError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    worst = float(np.max([part["largest"] for parts in compared.values() for part in parts.values()]))
    versions = {package: version(package) for package in (*PACKAGES, "scikit-learn")}
    details = {"differences": compared, "versions": versions}
    folder, seconds = Path(__file__).resolve().parent / "results", time.monotonic() - began
    record("validation.agreement", worst, bar=BAR, unit="difference", seconds=seconds, details=details, folder=folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
