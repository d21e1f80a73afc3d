"""C2ST: can a classifier tell synthetic rows from real ones (Lopez-Paz and Oquab 2017, arXiv:1610.06545)?

A classifier is trained on half of the rows and asked about the other half; the value is the area under the ROC
curve, whose 0.5 means that it cannot tell. Real halves are told apart a little too, since episodes
have places of their own: hence the floor. On (s, a) it judges where the data lie; on whole rows also what follows.
One thread: a value must not depend on the machine's cores.

Boosted trees (`sa`, `row`) find thresholds and corners; a small network (`sa_mlp`, `row_mlp`) finds what is smooth and
oblique. Both overlook errors of s' that are small beside the spread of s'. `residual` is told
(s, a, s' - s - m(s, a)) instead: m takes away what follows on average, so that noise and means that are wrong given
(s, a) stand out. m is fitted on real episodes that are not compared, or it would know the compared ones by heart.
It is a ridge regression on the squares and products of (s, a): boosted trees explain more of hopper's changes, but
their steps are noise of their own. Noise of 0.03 standard deviations of s' - s on hopper's s' is found with area 0.59
on rows, 0.85 with boosted trees as m, 0.98 with this, whose fit takes a tenth of a second.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.rows import Dataset
from synth_pipeline.seeding import Stage, stream
from synth_pipeline.validation.metric import NUM_SPLITS, Measurement, floor_of, over_cores, real_halves, subsample
from synth_pipeline.validation.neighbours import ROW, STATE_ACTION

SAMPLE = 10_000
TREES = 50  # at most; one for every 100 rows of a side, since more of them learn few rows by heart
ROWS_A_TREE = 100
MLP_SAMPLE = 4_000
EPOCHS = 10
FEWEST = 2  # rows of a side, one for each half
FITTED = 0.2  # share of the real episodes that m is fitted on
FITTED_ROWS = 20_000  # of them, at most
QUADRATIC = 40  # columns of (s, a) up to which m has squares and products: 860 terms
COLUMNS = {"sa": STATE_ACTION, "row": ROW}
FOLLOWS = (*STATE_ACTION, "next_observations")
METRICS = (*(f"c2st.{name}" for name in COLUMNS), "c2st.residual", *(f"c2st.{name}_mlp" for name in COLUMNS))
SOURCE = "classifier two-sample test (Lopez-Paz and Oquab 2017), {}, area under the ROC curve"

Floats = npt.NDArray[np.float64]
Pairs = Iterable[tuple[Transitions, Transitions]]
Classifier = Callable[[int, int], Any]  # rows of the smaller side, seed -> an estimator of scikit-learn


def c2st(
    real: Dataset, synthetic: Transitions, *, sample: int = SAMPLE, splits: int = NUM_SPLITS, seed: int = 0
) -> list[Measurement]:
    """`c2st.sa`, `c2st.row`, `c2st.residual`, `c2st.sa_mlp`, `c2st.row_mlp`, with floors between real halves.

    Args:
        real: The real data.
        synthetic: What is judged; rows that are not finite are left out (the table contract counts them).
        sample: Rows of each side, for the network at most 4,000; the value depends on it, so it is fixed.
        splits: Pairs of real halves that the floor is made from.
        seed: Seed of the subsamples and of the classifiers.
    """
    few = min(sample, MLP_SAMPLE)
    pairs = list(sampled_pairs(real, synthetic, sample, splits, seed))
    fewer = [(subsample(a, few, seed=seed, address=2), subsample(b, few, seed=seed, address=3)) for a, b in pairs]
    fitted, compared = apart(real, seed)
    told = residuals(subsample(fitted, FITTED_ROWS, seed=seed, address=4))
    others = sampled_pairs(compared, synthetic, sample, splits, seed)
    columns = {name: partial(points, columns=names) for name, names in COLUMNS.items()}
    return [
        *(_measured(name, pairs, columns[name], trees, sample, seed) for name in COLUMNS),
        _measured("residual", others, told, trees, sample, seed),
        *(_measured(f"{name}_mlp", fewer, columns[name], network, few, seed) for name in COLUMNS),
    ]


def sampled_pairs(
    real: Dataset, synthetic: Transitions, sample: int, splits: int, seed: int
) -> Iterator[tuple[Transitions, Transitions]]:
    """At most `sample` rows of the real and of the synthetic side, then of both sides of every real split."""
    for a, b in chain([(real.transitions(), synthetic)], real_halves(real, splits=splits, seed=seed)):
        yield subsample(a, sample, seed=seed, address=0), subsample(b, sample, seed=seed, address=1)


def points(rows: Transitions, columns: tuple[str, ...]) -> Floats:
    """`[n, channels]`, the finite rows of some columns side by side."""
    parts = [np.asarray(rows[name], np.float64) for name in columns if name in rows]
    x = np.concatenate([part.reshape(len(part), int(np.prod(part.shape[1:]))) for part in parts], axis=1)
    finite: Floats = x[np.isfinite(x).all(axis=1)]
    return finite


def standardised(real: Floats, synthetic: Floats) -> tuple[Floats, Floats]:
    """`[n, c]` and `[m, c]` in standard deviations of the real rows; where these are constant, only shifted."""
    shift, spread = real.mean(axis=0), real.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    return (real - shift) / scale, (synthetic - shift) / scale


def apart(real: Dataset, seed: int) -> tuple[Transitions, Dataset]:
    """A fifth of the real episodes, and the others; of the rows where there are fewer than three episodes."""
    rng = stream(seed, Stage.VALIDATE, 7)
    if real.episodes is not None and len(real.episodes) > 2:
        first, second = _dealt(len(real.episodes), rng)
        return real.episodes.take(first).transitions(), Dataset(real.spec, real.episodes.take(second))
    first, second = _dealt(len(real), rng)
    return real.transitions().take(first), Dataset(real.spec, rows=real.transitions().take(second))


def _dealt(count: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    order, size = rng.permutation(count), max(round(FITTED * count), 1)
    return np.sort(order[:size]), np.sort(order[size:])


def residuals(fitted: Transitions) -> Callable[[Transitions], Floats]:
    """Fits m(s, a), the mean of s' - s, and returns the function that tells rows as (s, a, s' - s - m(s, a)).

    Args:
        fitted: Rows to fit on; without finite ones m is 0.

    Returns:
        Rows -> `[n, observation + action + observation channels]`, the finite ones.
    """
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler
    from threadpoolctl import threadpool_limits

    size = int(np.prod(fitted["observations"].shape[1:]))
    x = points(fitted, FOLLOWS)
    x = x if len(x) else np.zeros((1, x.shape[1]))
    degree = 2 if x.shape[1] - size <= QUADRATIC else 1
    mean = make_pipeline(StandardScaler(), PolynomialFeatures(degree, include_bias=False), Ridge())
    with threadpool_limits(1):
        mean.fit(x[:, :-size], x[:, -size:] - x[:, :size])

    def told(rows: Transitions) -> Floats:
        x = points(rows, FOLLOWS)
        x[:, -size:] -= x[:, :size]
        if len(x):
            with threadpool_limits(1):
                x[:, -size:] -= mean.predict(x[:, :-size]).reshape(len(x), size)
        return x

    return told


def trees(rows: int, seed: int) -> Any:
    """Boosted trees for a number of rows a side."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    count = min(TREES, max(rows // ROWS_A_TREE, 5))
    return HistGradientBoostingClassifier(learning_rate=0.2, max_iter=count, early_stopping=False, random_state=seed)


def network(rows: int, seed: int) -> Any:
    """A small network on z-scored columns; always the same number of epochs."""
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    layers = MLPClassifier((64, 64), learning_rate_init=1e-2, max_iter=EPOCHS, random_state=seed)
    return make_pipeline(StandardScaler(), layers)


def area(real: Floats, synthetic: Floats, *, classifier: Classifier = trees, seed: int = 0) -> float:
    """Area under the ROC curve of a classifier that tells `[n, c]` from `[m, c]`, on unseen halves; at least 0.5."""
    from sklearn.metrics import roc_auc_score
    from threadpoolctl import threadpool_limits

    # Sorted before the halves are drawn: the order of rows must not matter.
    sides = [rows[np.lexsort(rows.T)] for rows in (real, synthetic)]
    rng = np.random.default_rng(seed)
    half = np.concatenate([rng.permutation(np.arange(len(rows)) % 2) for rows in sides])
    x, label = np.concatenate(sides), np.repeat([0, 1], [len(rows) for rows in sides])
    learned = half == 0
    fitted = classifier(min(map(len, sides)), seed)
    with threadpool_limits(1):
        fitted.fit(x[learned], label[learned])
        likely = fitted.predict_proba(x[~learned])[:, 1]
    return max(float(roc_auc_score(label[~learned], likely)), 0.5)


def _measured(
    name: str, pairs: Pairs, told: Callable[[Transitions], Floats], classifier: Classifier, sample: int, seed: int
) -> Measurement:
    """The area of the first pair, with a floor from the others."""

    def compared(pair: tuple[Transitions, Transitions]) -> float | None:
        a, b = map(told, pair)
        return area(a, b, classifier=classifier, seed=seed) if min(len(a), len(b)) >= FEWEST else None

    with warnings.catch_warnings():  # not thread-safe, hence around all of them
        warnings.filterwarnings("ignore", "Stochastic Optimizer")  # the epochs of a network are few on purpose
        value, *others = over_cores(compared, pairs)
    floors = [floor for floor in others if floor is not None] if value is not None else []
    details: dict[str, Any] = {} if value is not None else {"why": f"fewer than {FEWEST} finite rows on a side"}
    floor = floor_of(floors, "lower") if floors else None
    unit, source = "0.5 = cannot be told apart", SOURCE.format("boosted trees" if classifier is trees else "network")
    return Measurement(f"c2st.{name}", value, unit, "lower", (0.5, 1.0), sample, source, floor, details)
