"""Relevance: a number for every row that generation can be aimed at, and the weights that undo the aim.

PGR (Wang et al. 2024, arXiv:2410.18082) conditions SynthER on the relevance F of a transition and prompts it with the
highest values of the data. Here F is any function of the dataset; a model learns p(row | rank of F). Aiming draws a
share of the ranks from the top, so that the rows follow q = (1 - share) p + share p(. | top), and every row carries
p / q of its rank: with these weights the rows follow the data again, if the condition has guidance 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.fields import Array, Layout
from synth_pipeline.data.normalize import Standard
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.windows import returns_to_go
from synth_pipeline.errors import ConfigError, SourceError
from synth_pipeline.registry import Registry

Floats = npt.NDArray[np.float64]
Relevance = Callable[[Dataset], Floats]
DISCOUNT = 0.99
NEAR = 0.9  # relevance lost per step before a termination
TIED = 0.01  # share of the rows by which a tie may enlarge the top
NEIGHBOUR = 10  # rank of the neighbour whose distance says how rare a row is


def return_to_go(data: Dataset) -> Floats:
    """`[n]`, discounted return from each row on, discount 0.99.

    What follows a cut (a time limit, the end of the recording) is not in the data. It counts as going on at the mean
    reward of the last steps, weighted by the discount as they lie back; were it nothing, the last rows of every episode
    would be the best where rewards are negative, and the worst where they are positive.

    Raises:
        SourceError: Without episodes.
    """
    episodes = data.episodes
    if episodes is None:
        raise SourceError("a return needs episodes", found="independent rows", fix="--set generator.condition=reward")
    starts, last = episodes.starts[:-1], episodes.starts[1:] - 1
    weights = DISCOUNT ** (np.repeat(last, episodes.lengths) - np.arange(episodes.num_rows))
    recent = np.add.reduceat(weights * episodes["rewards"], starts) / np.add.reduceat(weights, starts)
    beyond = np.where(episodes["terminations"][last], 0.0, DISCOUNT / (1 - DISCOUNT) * recent)
    found: Floats = returns_to_go(episodes, DISCOUNT) + weights * np.repeat(beyond, episodes.lengths)
    return found


def reward(data: Dataset) -> Floats:
    """`[n]`, the reward."""
    return np.asarray(data.transitions()["rewards"], np.float64)


def near_terminal(data: Dataset) -> Floats:
    """`[n]`, 0.9^k of a row k steps before a termination; 0 in episodes that do not terminate."""
    rows = data.transitions()
    ends = np.asarray(rows["terminations"], bool)
    if data.episodes is None:
        return ends.astype(np.float64)
    last = data.episodes.starts[1:] - 1
    left = np.repeat(last, data.episodes.lengths) - np.arange(len(ends))
    terminated = np.repeat(ends[last], data.episodes.lengths)
    return np.where(terminated, NEAR ** np.minimum(left, 500), 0.0)


def rarity(data: Dataset) -> Floats:
    """`[n]`, distance to the 10th nearest row in z-scored (s, a): high where the data are thin."""
    from scipy.spatial import cKDTree

    rows = data.transitions()
    fields = tuple(f for f in data.spec.fields if f.name in ("observations", "actions"))
    x = Layout(fields).pack(rows.columns)
    x = Standard.fit(x).encode(x)
    found: Floats = cKDTree(x).query(x, k=[min(NEIGHBOUR + 1, len(x))], workers=-1)[0][:, 0]
    return found


RELEVANCE = Registry(
    "condition", {f.__name__: f"{__name__}:{f.__name__}" for f in (return_to_go, reward, near_terminal, rarity)}
)


@dataclass(frozen=True)
class Aim:
    """Where generation is aimed.

    Attributes:
        where: Name of the relevance; None: nowhere, rows follow the data.
        share: Share of rows that are drawn from the top.
        top: Share of the data that counts as top.
        guidance: Weight of the condition; 1 samples the conditional model.
    """

    where: str | None = None
    share: float = 0.5
    top: float = 0.1
    guidance: float = 1.0

    def require(self, condition: str) -> None:
        """Check that a model learned the condition.

        Raises:
            ConfigError: When it learned another one or none.
        """
        if self.where not in (None, condition):
            RELEVANCE.load(str(self.where))
            raise ConfigError(
                f"the generator cannot be aimed at '{self.where}'",
                found=f"trained with condition {condition}",
                accepted="the condition that it was trained with",
                fix=f"synthpipe train DATASET -o RUN --set generator.condition={self.where}",
            )


NOWHERE = Aim()


@dataclass(frozen=True)
class Levels:
    """The relevance of the training rows as ranks, from which conditions are drawn.

    Attributes:
        values: `[n, 1]`, ranks in [0, 1], ties shared; None: the model is unconditional.
    """

    values: npt.NDArray[np.float32] | None

    @classmethod
    def of(cls, condition: str, data: Dataset) -> Levels:
        """The ranks of a dataset."""
        if condition == "none":
            return cls(None)
        from scipy.stats import rankdata

        function: Relevance = RELEVANCE.load(condition)
        ranks = rankdata(function(data)) / len(data)
        return cls(ranks.astype(np.float32)[:, None])

    def draw(
        self, rows: int, aim: Aim, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.float32] | None]:
        """Conditions `[rows, 1]` and importance weights `[rows]` = p / q; None for an unconditional model."""
        if self.values is None:
            return None, None
        drawn = rng.integers(len(self.values), size=rows)
        weights = np.ones(rows, np.float32)
        if aim.where is not None:
            highest = self.highest(aim)
            picked = np.flatnonzero(highest)
            aimed = rng.random(rows) < aim.share
            drawn = np.where(aimed, picked[rng.integers(len(picked), size=rows)], drawn)
            weights = 1 / ((1 - aim.share) + aim.share * highest[drawn] / highest.mean())
        return self.values[drawn], weights.astype(np.float32)

    def highest(self, aim: Aim) -> npt.NDArray[np.bool_]:
        """`[n]`, the rows that count as top. Where a tie reaches from below into them, they are those above the tie.

        Raises:
            ConfigError: When all rows are equally relevant.
        """
        assert self.values is not None
        ranks = self.values[:, 0]
        edge = np.quantile(ranks, 1 - aim.top, method="lower")
        above, with_tie = ranks > edge, ranks >= edge
        found: npt.NDArray[np.bool_] = above if above.any() and with_tie.mean() > aim.top + TIED else with_tie
        if found.all():
            raise ConfigError(
                f"nothing can be aimed at '{aim.where}'",
                found="a relevance that is the same in every row of the data",
                fix="train with another generator.condition, or generate without --where",
            )
        return found

    def arrays(self) -> dict[str, Array]:
        """What has to be saved."""
        return {} if self.values is None else {"levels": self.values}

    @classmethod
    def from_arrays(cls, condition: str, arrays: Mapping[str, Array]) -> Levels:
        """Inverse of `arrays`."""
        return cls(None if condition == "none" else arrays["levels"])
