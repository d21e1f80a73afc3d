"""What agents learn from: real rows, and synthetic ones in an explicit ratio, drawn on the device.

Every batch holds the same number of synthetic rows, behind the real ones; where they are kept from the critic or from
the actor, that one sees further real rows in their place, so that both sides of every arm learn from as many rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from synth_pipeline.agents.scaling import Scaling
from synth_pipeline.config import canonical
from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.fields import Array
from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import ConfigError, SourceError

UseIn = Literal["both", "critic", "actor"]
Followed = tuple[Array, npt.NDArray[np.bool_]]  # next actions, and where they are known
NEEDED = ("observations", "actions", "rewards", "next_observations", "terminations")
WEIGHT = "weight"  # column of rows that are drawn in proportion to it
FOLLOWED = ("next_actions", "continued")  # columns of rows of episodes: what was done next, and where that is known


@dataclass(frozen=True)
class Mixture:
    """Real data, and what is mixed in.

    Attributes:
        real: Training data; scales are fitted on it alone, so that arms of a comparison share them.
        synthetic: Further rows; the columns `next_actions` and `continued` say what was done next, and where that is
            known; without these it is known nowhere. A column `weight`, here as in `real`, says in which proportion
            rows are drawn.
        share: Share of every batch that is synthetic, in [0, 1]; 1: the real rows only give the scales.
        use_in: Who learns from the synthetic rows.
        synthetic_episodes: The synthetic rows as episodes, for agents that learn from sequences; given alone, its rows
            are `synthetic` too.

    Raises:
        SourceError: When there are no rows, when a column that agents use is missing, or holds NaN or infinity.
        ConfigError: When the share cannot be.
    """

    real: Dataset
    synthetic: Transitions | None = None
    share: float = 0.5
    use_in: UseIn = "both"
    synthetic_episodes: Episodes | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ConfigError("the synthetic share lies between 0 and 1", found=self.share)
        self._check_episodes()
        if self.use_in != "both" and self.share == 1.0 and self.synthetic is not None:
            raise ConfigError(
                f"without real rows in a batch, synthetic rows for the {self.use_in} alone leave the other nothing",
                found=f"share {self.share:g}, use_in {self.use_in}",
                fix="a share below 1, or use_in=both",
            )
        real = self.real.transitions()
        _require_finite(real)
        if self.synthetic is not None and self.share > 0:
            _require_finite(self.synthetic)
            _require_same_shapes(real, self.synthetic)

    def _check_episodes(self) -> None:
        made = self.synthetic_episodes
        if made is None:
            return
        if self.synthetic is None:
            object.__setattr__(self, "synthetic", made.transitions())
        elif len(self.synthetic) != made.num_rows:
            found = f"{len(self.synthetic):,} rows, episodes of {made.num_rows:,} rows"
            raise ConfigError("synthetic rows and synthetic episodes are not the same data", found=found)

    def digest(self) -> str:
        """Hash of every number that an agent can learn from."""
        found = hashlib.sha256(f"{self.share}{self.use_in}".encode())
        spec = self.real.spec
        found.update(canonical(spec.field("actions")))  # its bounds are the scale of the actions
        found.update(canonical([spec.environment, spec.horizon]))  # scaled rewards, and which episodes are complete
        for rows in (self.real.transitions(), self.synthetic):
            for name, column in sorted(rows.columns.items()) if rows is not None else []:
                found.update(name.encode())
                found.update(np.ascontiguousarray(column).tobytes())
        for episodes in (self.real.episodes, self.synthetic_episodes):
            if episodes is not None:
                found.update(np.ascontiguousarray(episodes.starts).tobytes())
        return found.hexdigest()


@dataclass(frozen=True)
class Rows:
    """Rows of a batch in model units, `[b, ...]`.

    Attributes:
        observations: `[b, o]`.
        actions: `[b, a]`, in [-1, 1].
        rewards: `[b]`, scaled.
        next_observations: `[b, o]`.
        discounts: `[b]`, gamma; 0 where the episode terminated.
        next_actions: `[b, a]`, what the data did next; zero where it is not known.
        continued: `[b]`, 1 where `next_actions` is known.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    discounts: Tensor
    next_actions: Tensor
    continued: Tensor

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True)
class Batch:
    """One batch as both sides see it, of equal size: the same rows, unless synthetic ones are kept from one of them."""

    critic: Rows
    actor: Rows


class RowSampler:
    """Which rows of a table are drawn: with replacement, uniformly or in proportion to weights.

    Args:
        size: Rows of the table.
        weights: `[size]`, at least 0; None: uniformly.
        device: Where the table lives.

    Raises:
        SourceError: When weights are negative or all zero.
    """

    def __init__(self, size: int, weights: Array | None, device: torch.device) -> None:
        self._size, self._device = size, device
        self._cumulative = None if weights is None else cumulative_weights(weights).to(device)

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """Indices `[count]`."""
        if self._cumulative is None:
            return torch.randint(self._size, (count,), generator=rng, device=self._device)
        level = torch.rand(count, generator=rng, device=self._device, dtype=torch.float64)
        return torch.searchsorted(self._cumulative, level * self._cumulative[-1], right=True)


class Replay:
    """Packed tables on the device.

    Args:
        mixture: Real and synthetic rows; either may have a column `weight`.
        scaling: Fitted on the real ones.
        batch_size: Rows of a batch.
        discount: gamma.
        device: Where the tables live.
        policy: Observations `[n, o]` to actions `[n, a]`, physical units: what it does at the next observations stands
            in the place of what the data did next. None: the data's.

    Raises:
        SourceError: When weights are negative or all zero.
        ConfigError: When a batch is too small for the share.
    """

    def __init__(
        self,
        mixture: Mixture,
        scaling: Scaling,
        *,
        batch_size: int,
        discount: float,
        device: torch.device,
        policy: Callable[[Array], Array] | None = None,
    ) -> None:
        self._sizes = [scaling.observation_size, scaling.action_size]
        real = mixture.real.transitions()
        synthetic = mixture.synthetic if mixture.share > 0 else None
        self._synthetic = 0 if synthetic is None else synthetic_rows(mixture.share, batch_size)
        self._real = batch_size - self._synthetic
        self._use_in = mixture.use_in
        followed: Followed | None = next_actions(mixture.real) if policy is None else policy_actions(policy, real)
        self._table = torch.from_numpy(_packed(real, scaling, discount, followed)).to(device)
        self._of_real = RowSampler(len(real), weights_of(real), device)
        if synthetic is not None:
            followed = given_next_actions(synthetic) if policy is None else policy_actions(policy, synthetic)
            self._made = torch.from_numpy(_packed(synthetic, scaling, discount, followed)).to(device)
            self._of_made = RowSampler(len(synthetic), weights_of(synthetic), device)

    def draw(self, rng: torch.Generator) -> Batch:
        """Real rows, and synthetic ones behind them, as `RowSampler` draws them."""
        apart = self._synthetic > 0 and self._use_in != "both"
        real = self._real + (self._synthetic if apart else 0)  # the side without synthetic rows gets real ones for them
        slab = self._table.index_select(0, self._of_real.draw(real, rng))
        if not self._synthetic:
            rows = self._rows(slab)
            return Batch(rows, rows)
        made = self._made.index_select(0, self._of_made.draw(self._synthetic, rng))
        mixed = self._rows(torch.cat([slab[: self._real], made]))
        if not apart:
            return Batch(mixed, mixed)
        return Batch(mixed, self._rows(slab)) if self._use_in == "critic" else Batch(self._rows(slab), mixed)

    def all_real(self) -> Rows:
        """Every real row, in the order of the data."""
        return self._rows(self._table)

    def every_row(self) -> Rows:
        """Every row that batches are drawn from, real ones first, in the order of the data."""
        real = [self._table] if self._real else []
        return self._rows(torch.cat([*real, self._made] if self._synthetic else real))

    def _rows(self, slab: Tensor) -> Rows:
        o, a = self._sizes
        observations, actions, following, next_observations, rest = torch.split(slab, [o, a, a, o, 3], dim=1)
        rewards, discounts, continued = rest.unbind(1)
        return Rows(observations, actions, rewards, next_observations, discounts, following, continued)


def synthetic_rows(share: float, batch_size: int) -> int:
    """Rows of a batch that are synthetic.

    Raises:
        ConfigError: When the share rounds to a batch without synthetic rows, or without real ones.
    """
    count = round(share * batch_size)
    if (count == 0) != (share == 0) or (count == batch_size) != (share == 1):
        raise ConfigError(
            "a batch is too small for this share of synthetic rows",
            found=f"share {share:g} of {batch_size} rows, which rounds to {count}",
            fix="a larger batch_size, or another share",
        )
    return count


def next_actions(data: Dataset) -> Followed:
    """What the data did next, `[n, a]`, and where that is known: not at the end of an episode, nor without episodes."""
    actions = data.transitions()["actions"]
    if data.episodes is None:
        return np.zeros_like(actions), np.zeros(len(actions), np.bool_)
    known = np.ones(len(actions), np.bool_)
    known[data.episodes.starts[1:] - 1] = False
    following = np.roll(actions, -1, axis=0)
    following[~known] = 0
    return following, known


def given_next_actions(rows: Transitions) -> Followed | None:
    """What rows of their own say was done next; None: they do not say it."""
    following, continued = FOLLOWED
    return (rows[following], rows[continued]) if following in rows else None


def followed(data: Dataset) -> Transitions:
    """Rows of episodes that keep what was done next when they are taken out of them."""
    return data.transitions().with_columns(**dict(zip(FOLLOWED, next_actions(data), strict=True)))


def policy_actions(policy: Callable[[Array], Array], rows: Transitions) -> Followed:
    """What a fixed policy does next, `[n, a]`; that is known everywhere."""
    return policy(rows["next_observations"]), np.ones(len(rows), np.bool_)


def _packed(rows: Transitions, scaling: Scaling, discount: float, followed: Followed | None) -> npt.NDArray[np.float32]:
    actions = scaling.actions(rows["actions"])
    following, known = followed or (rows["actions"], np.zeros(len(rows), np.bool_))
    columns = [
        scaling.observations(rows["observations"]),
        actions,
        np.where(known[:, None], scaling.actions(following), 0),
        scaling.observations(rows["next_observations"]),
        scaling.rewards(rows["rewards"])[:, None],
        np.where(rows["terminations"], 0.0, discount)[:, None],
        known[:, None],
    ]
    return np.concatenate(columns, axis=1, dtype=np.float32)


def _require_finite(rows: Transitions) -> None:
    if not len(rows):
        raise SourceError("there is nothing to learn from", found="0 rows")
    for name in NEEDED:
        bad = ~np.isfinite(rows[name].reshape(len(rows), -1)).all(axis=1)
        if bad.any():
            raise SourceError(
                f"an agent cannot learn from '{name}'",
                found=f"NaN or infinity in {int(bad.sum()):,} rows, first at row {int(bad.argmax())}",
                accepted="finite numbers",
            )


def _require_same_shapes(real: Transitions, synthetic: Transitions) -> None:
    for name in NEEDED:
        if synthetic[name].shape[1:] != real[name].shape[1:]:
            raise SourceError(
                f"synthetic and real rows have other shapes in '{name}'",
                found=f"{synthetic[name].shape[1:]} against {real[name].shape[1:]}",
                fix="mix in rows of the same environment",
            )


def cumulative_weights(weights: Array) -> Tensor:
    """`[n]`, float64 running sums: a level uniform below the last one falls on a row in proportion to its weight.

    Raises:
        SourceError: When weights are negative or all zero.
    """
    found = np.asarray(weights, np.float64)
    if not np.isfinite(found).all() or (found < 0).any() or not found.any():
        raise SourceError("weights of rows must be numbers of at least 0, and not all 0", found=f"{found.min():g} ...")
    return torch.from_numpy(np.cumsum(found))


def weights_of(columns: Transitions | Episodes) -> Array | None:
    """`[n]`, in which proportion rows are drawn; None: they do not say it."""
    return columns[WEIGHT] if WEIGHT in columns else None  # noqa: SIM401  columns have no `get`


def columns_of(rows: Transitions) -> Transitions:
    """The columns that agents use.

    Raises:
        UnknownNameError: When one of them is missing.
    """
    given = [name for name in (WEIGHT, *FOLLOWED) if name in rows]
    return Transitions({name: rows[name] for name in (*NEEDED, *given)})
