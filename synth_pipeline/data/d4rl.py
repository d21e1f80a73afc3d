"""D4RL's flat arrays: where episodes end, and which next states are known (`qlearning_dataset` semantics).

A flat array holds the observation before each step, so the state after the last step of an episode stands nowhere:
- a step that hits the time limit is dropped: its true next state is unknown, and it would be bootstrapped from;
- a terminal step is kept: nothing is bootstrapped from its next state. That state is unknown as well, and the step's
  own observation stands in for it (D4RL itself pairs it with the first observation of the following episode);
- rows after the last mark are an unfinished episode: a truncation.
D4RL's loop never reads the very last row; here a last row that is terminal is kept. Files of a later kind carry
`next_observations`: then every row is exact and nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Episodes, Integers, Transitions
from synth_pipeline.data.fields import Array
from synth_pipeline.errors import SourceError

Flags = npt.NDArray[np.bool_]
_MARKS = ("observations", "next_observations", "terminals", "timeouts")
_BLOCK = 1 << 18


def to_episodes(flat: Mapping[str, Array], *, horizon: int | None = None) -> Episodes:
    """Flat D4RL arrays as episodes.

    Args:
        flat: `observations [n, o]` and `terminals [n]`; `timeouts [n]` and `next_observations [n, o]` if the file has
            them; every further column `[n, ...]` (`actions`, `rewards`, ...) goes along.
        horizon: Time limit in steps, which marks the ends where a file has no `timeouts`.

    Returns:
        Episodes with the columns `terminations` and `truncations` in place of D4RL's names.

    Raises:
        SourceError: When nothing marks the time limits, or no complete step is left.
    """
    terminals = np.asarray(flat["terminals"], np.bool_)
    timeouts = _time_limits(flat, terminals, horizon)
    if len(terminals) == 0:
        raise SourceError(
            "the arrays hold no rows", found="0 rows", accepted="at least one step", fix="check their origin"
        )
    if "next_observations" in flat:
        return _exact(flat, terminals, timeouts)
    return _paired(flat, terminals, timeouts)


def qlearning_transitions(flat: Mapping[str, Array], *, horizon: int | None = None) -> Transitions:
    """The pairs (s, s') of flat D4RL arrays as independent rows (see `to_episodes`)."""
    return to_episodes(flat, horizon=horizon).transitions()


def breaks(observations: Array, next_observations: Array) -> Flags:
    """`[n]`: rows whose next observation is not the observation of the following row; the last row is one."""
    result = np.ones(len(observations), np.bool_)
    axes = tuple(range(1, observations.ndim))
    for start in range(0, len(observations) - 1, _BLOCK):
        stop = min(start + _BLOCK, len(observations) - 1)
        differs = next_observations[start:stop] != observations[start + 1 : stop + 1]
        result[start:stop] = differs.any(axis=axes)
    return result


def starts_of(ends: Flags) -> Integers:
    """`[episodes + 1]` first rows, from a mask of last rows whose last entry is true."""
    return np.concatenate([[0], np.flatnonzero(ends) + 1]).astype(np.int64)


def _time_limits(flat: Mapping[str, Array], terminals: Flags, horizon: int | None) -> Flags:
    if "timeouts" in flat:
        return np.asarray(flat["timeouts"], np.bool_)
    if horizon is not None:
        rows = np.arange(len(terminals))
        after_end = np.concatenate([[True], terminals[:-1]])
        steps = rows - np.maximum.accumulate(np.where(after_end, rows, 0))
        limits: Flags = (steps + 1) % horizon == 0
        return limits
    if "next_observations" in flat:
        return np.zeros(len(terminals), np.bool_)
    raise SourceError(
        "nothing in the data marks the time limits, so the last steps of episodes cannot be told from the others",
        found=", ".join(flat),
        accepted="a column 'timeouts' (or 'truncations'), 'next_observations', or the horizon",
        fix="pass horizon=STEPS, e.g. horizon=1000",
    )


def _exact(flat: Mapping[str, Array], terminals: Flags, timeouts: Flags) -> Episodes:
    observations, next_observations = flat["observations"], flat["next_observations"]
    # Replay files leave some time limits unmarked (D4RL#162); a row that does not continue shows them.
    ends = terminals | timeouts | breaks(observations, next_observations)
    columns = {name: column for name, column in flat.items() if name not in _MARKS}
    return Episodes(
        observations,
        next_observations[ends],
        starts_of(ends),
        {**columns, "terminations": terminals, "truncations": timeouts | (ends & ~terminals)},
    )


def _paired(flat: Mapping[str, Array], terminals: Flags, timeouts: Flags) -> Episodes:
    ends = terminals | timeouts
    ends[-1] = True
    cut = ends & ~terminals
    kept = ~cut
    if not kept.any():
        raise SourceError(
            "every episode is a single step whose next state is unknown",
            found=f"{len(ends):,} rows, {int(ends.sum()):,} episodes",
            accepted="episodes of two steps or more, terminal steps, or a column 'next_observations'",
            fix="add the column 'next_observations'",
        )
    # The step before a dropped one is the last of its episode now, unless it belongs to the episode before.
    before_cut = np.concatenate([cut[1:], [False]]) & ~ends
    last = before_cut | terminals
    # A one-step episode that is cut has no step left, and with it goes its final observation.
    final = np.where(before_cut, np.arange(1, len(ends) + 1), np.arange(len(ends)))[last]
    columns = {name: column[kept] for name, column in flat.items() if name not in _MARKS}
    return Episodes(
        flat["observations"][kept],
        flat["observations"][final],
        starts_of(last[kept]),
        {**columns, "terminations": terminals[kept], "truncations": (before_cut | (timeouts & terminals))[kept]},
    )
