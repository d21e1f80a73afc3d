"""Episodes as a Minari file holds them -> one `Episodes` container, with every check on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.fields import Array
from synth_pipeline.errors import SourceError
from synth_pipeline.sources import checks
from synth_pipeline.sources.minari_files import RawEpisode
from synth_pipeline.sources.minari_spaces import Column


class _Block:
    """One array that grows at its end; `slot` hands out the next rows to be filled."""

    def __init__(self, shape: tuple[int, ...], dtype: str, rows: int) -> None:
        self._array: Array = np.empty((max(rows, 1), *shape), dtype)
        self._used = 0

    def slot(self, rows: int) -> Array:
        needed = self._used + rows
        if needed > len(self._array):
            grown = np.empty((max(needed, 2 * len(self._array)), *self._array.shape[1:]), self._array.dtype)
            grown[: self._used] = self._array[: self._used]
            self._array = grown
        self._used = needed
        return self._array[needed - rows : needed]

    @property
    def filled(self) -> Array:
        return self._array[: self._used]


@dataclass
class _Rows:
    """The columns of a dataset while its episodes arrive."""

    observations: _Block
    final: _Block
    actions: _Block
    scalars: Mapping[str, _Block]
    lengths: list[int] = field(default_factory=list)
    empty: int = 0

    def finish(self, name: str) -> tuple[Episodes, dict[str, int]]:
        """Check everything and build the episodes; the notes count what had to be mended."""
        if not self.lengths:
            raise SourceError(f"{name} is empty", found=f"{self.empty} episodes without a single step")
        starts = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)
        columns = {"actions": self.actions.filled, **{key: block.filled for key, block in self.scalars.items()}}
        for key in ("terminations", "truncations"):
            columns[key] = checks.flags(key, columns[key], name)
        checked = {"observations": self.observations.filled, "final observations": self.final.filled, **columns}
        for key, values in checked.items():
            if values.dtype.kind == "f":
                checks.require_finite(key, values, name)
        unfinished = _close(columns, starts, name)
        notes = {"unfinished_episodes": unfinished, "empty_episodes_left_out": self.empty}
        episodes = Episodes(checked["observations"], checked["final observations"], starts, columns)
        return episodes, {key: count for key, count in notes.items() if count}


def assemble(
    raw: Iterable[RawEpisode], observations: Column, actions: Column, rows: int, name: str
) -> tuple[Episodes, dict[str, int]]:
    """Episodes of a file as one container: checked, closed, float32.

    Args:
        raw: The episodes in order.
        observations: Layout of the observations.
        actions: Layout of the actions.
        rows: Number of steps that the metadata state (only what is reserved at first).
        name: Name of the dataset, for errors.

    Returns:
        The episodes, and counts of what was mended: `unfinished_episodes` that became truncated,
        `empty_episodes_left_out`.

    Raises:
        SourceError: On lengths that do not fit, NaN or inf, flags that are none or stand inside an episode.
    """

    def block(column: Column, count: int) -> _Block:
        return _Block(column.shape, "int64" if column.classes else "float32", count)

    scalars = {"rewards": "float32", "terminations": "float32", "truncations": "float32"}
    result = _Rows(
        block(observations, rows),
        block(observations, 0),
        block(actions, rows),
        {key: _Block((), dtype, rows) for key, dtype in scalars.items()},
    )
    # Values that overflow become inf, which the check refuses with its row.
    with np.errstate(over="ignore"):
        for index, episode in enumerate(raw):
            steps = _steps(episode, index, name)
            if steps == 0:
                result.empty += 1
                continue
            result.lengths.append(steps)
            observations.fill(result.observations.slot(steps), {k: v[:-1] for k, v in episode.observations.items()})
            observations.fill(result.final.slot(1), {k: v[-1:] for k, v in episode.observations.items()})
            actions.fill(result.actions.slot(steps), episode.actions)
            for key, target in result.scalars.items():
                target.slot(steps)[...] = episode.scalars[key].reshape(steps)
    return result.finish(name)


def _steps(episode: RawEpisode, index: int, name: str) -> int:
    steps = len(episode.scalars["rewards"])
    lengths = {f"observations {key or ''}".strip(): len(v) - 1 for key, v in episode.observations.items()}
    lengths |= {"actions": len(episode.actions[None])}
    lengths |= {key: values.size for key, values in episode.scalars.items()}
    if set(lengths.values()) != {steps}:
        raise SourceError(
            f"{name}: the columns of episode {index} do not fit together",
            found=", ".join(f"{key} for {count} steps" for key, count in lengths.items()),
            accepted="T steps of everything and T + 1 observations",
        )
    return steps


def _close(columns: dict[str, Array], starts: Array, name: str) -> int:
    """Refuse flags inside episodes, and mark episodes that just stop as truncated; returns how many."""
    is_last = np.zeros(int(starts[-1]), np.bool_)
    is_last[starts[1:] - 1] = True
    flagged = columns["terminations"] | columns["truncations"]
    inside = np.flatnonzero(flagged & ~is_last)
    if len(inside):
        episode = int(np.searchsorted(starts, inside[0], side="right")) - 1
        raise SourceError(
            f"{name}: episode {episode} goes on after it ended",
            found=f"a termination or truncation at its step {inside[0] - starts[episode]}, and later steps",
            accepted="flags on the last step only",
        )
    columns["truncations"] = columns["truncations"] | (is_last & ~flagged)
    return int((is_last & ~flagged).sum())
