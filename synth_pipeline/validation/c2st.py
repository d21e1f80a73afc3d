"""C2ST: can a classifier tell synthetic rows from real ones (Lopez-Paz and Oquab 2017, arXiv:1610.06545)?

Boosted trees are trained on half of the rows and asked about the other half; the value is the area under the ROC
curve, whose 0.5 means that they cannot tell. Real halves are told apart a little too, since episodes
have places of their own: hence the floor. On (s, a) it judges where the data lie; on whole rows also what follows.
One thread: a value must not depend on the machine's cores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.validation.metric import NUM_SPLITS, Measurement, floor_of, real_halves, subsample
from synth_pipeline.validation.neighbours import ROW, STATE_ACTION

SAMPLE = 10_000
TREES = 50  # at most; one for every 100 rows of a side, since more of them learn few rows by heart
ROWS_A_TREE = 100
FEWEST = 2  # rows of a side, one for each half
COLUMNS = {"sa": STATE_ACTION, "row": ROW}
METRICS = tuple(f"c2st.{name}" for name in COLUMNS)
SOURCE = "classifier two-sample test (Lopez-Paz and Oquab 2017), boosted trees, area under the ROC curve"

Floats = npt.NDArray[np.float64]


def c2st(
    real: Dataset, synthetic: Transitions, *, sample: int = SAMPLE, splits: int = NUM_SPLITS, seed: int = 0
) -> list[Measurement]:
    """`c2st.sa`, `c2st.row`, with floors between real halves.

    Args:
        real: The real data.
        synthetic: What is judged; rows that are not finite are left out (the table contract counts them).
        sample: Rows of each side; the value depends on it, so it is fixed.
        splits: Pairs of real halves that the floor is made from.
        seed: Seed of the subsamples and of the trees.
    """
    pairs = [(real.transitions(), synthetic), *real_halves(real, splits=splits, seed=seed)]
    pairs = [(subsample(a, sample, seed=seed, address=0), subsample(b, sample, seed=seed, address=1)) for a, b in pairs]
    measured = []
    for name, columns in COLUMNS.items():
        sides = [(points(a, columns), points(b, columns)) for a, b in pairs]
        value, *floors = [area(a, b, seed=seed) if min(len(a), len(b)) >= FEWEST else None for a, b in sides]
        measured.append(_measurement(name, value, [floor for floor in floors if floor is not None], sample))
    return measured


def points(rows: Transitions, columns: tuple[str, ...]) -> Floats:
    """`[n, channels]`, the finite rows of some columns side by side."""
    parts = [np.asarray(rows[name], np.float64) for name in columns if name in rows]
    x = np.concatenate([part.reshape(len(part), int(np.prod(part.shape[1:]))) for part in parts], axis=1)
    finite: Floats = x[np.isfinite(x).all(axis=1)]
    return finite


def area(real: Floats, synthetic: Floats, *, seed: int = 0) -> float:
    """Area under the ROC curve of trees that tell `[n, c]` from `[m, c]`, on unseen halves; never below 0.5."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from threadpoolctl import threadpool_limits

    # Sorted before the halves are drawn: the order of rows must not matter.
    sides = [rows[np.lexsort(rows.T)] for rows in (real, synthetic)]
    rng = np.random.default_rng(seed)
    half = np.concatenate([rng.permutation(np.arange(len(rows)) % 2) for rows in sides])
    x, label = np.concatenate(sides), np.repeat([0, 1], [len(rows) for rows in sides])
    learned = half == 0
    count = min(TREES, max(min(map(len, sides)) // ROWS_A_TREE, 5))
    trees = HistGradientBoostingClassifier(learning_rate=0.2, max_iter=count, early_stopping=False, random_state=seed)
    with threadpool_limits(1):
        trees.fit(x[learned], label[learned])
        likely = trees.predict_proba(x[~learned])[:, 1]
    return max(float(roc_auc_score(label[~learned], likely)), 0.5)


def _measurement(name: str, value: float | None, floors: list[float], sample: int) -> Measurement:
    details: dict[str, Any] = {} if value is not None else {"why": f"fewer than {FEWEST} finite rows on a side"}
    floor = floor_of(floors, "lower") if floors and value is not None else None
    unit = "0.5 = cannot be told apart"
    return Measurement(f"c2st.{name}", value, unit, "lower", (0.5, 1.0), sample, SOURCE, floor, details)
