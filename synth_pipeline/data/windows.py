"""Windows of a fixed horizon and returns-to-go. Nothing here ever crosses the end of an episode."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from synth_pipeline.data.containers import Episodes, Integers, Segments
from synth_pipeline.data.fields import Array
from synth_pipeline.errors import ConfigError


def window_starts(episodes: Episodes, horizon: int, *, stride: int = 1, pad: bool = False) -> Integers:
    """First rows of all windows.

    ```
    episode of 5 steps, horizon 3, stride 1      rows  0 1 2 3 4
      pad=False: windows start at 0 1 2                [0 1 2] [1 2 3] [2 3 4]
      pad=True:  windows start at 0 1 2 3 4            ... [3 4 .] [4 . .]   (. is masked)
    ```

    Args:
        episodes: Where to take windows from.
        horizon: Steps per window, >= 1.
        stride: Steps between window starts of one episode, >= 1.
        pad: Also windows that begin too late to be full.

    Returns:
        `[windows]`, row indices into `episodes`.
    """
    if horizon < 1 or stride < 1:
        raise ConfigError("horizon and stride must be at least 1", found=f"horizon {horizon}, stride {stride}")
    room = episodes.lengths if pad else episodes.lengths - horizon + 1
    usable = np.repeat(room, episodes.lengths)
    steps = episodes.steps
    return np.flatnonzero((steps < usable) & (steps % stride == 0)).astype(np.int64)


def segments(episodes: Episodes, horizon: int, *, stride: int = 1, pad: bool = False) -> Segments:
    """All windows as one container (see `window_starts`); masked entries are zero.

    Args:
        episodes: Where to take windows from.
        horizon: Steps per window.
        stride: Steps between window starts.
        pad: Also windows that begin too late to be full; their tail is masked.
    """
    return gather(episodes, window_starts(episodes, horizon, stride=stride, pad=pad), horizon)


def gather(episodes: Episodes, starts: Integers, horizon: int) -> Segments:
    """The windows that begin at the given rows.

    Args:
        episodes: Where to take windows from.
        starts: `[windows]`, row indices.
        horizon: Steps per window; what lies past the episode's end is masked and zero.
    """
    ids = episodes.episode_ids[starts]
    rows = starts[:, None] + np.arange(horizon)
    mask = rows < episodes.starts[1:][ids][:, None]
    safe = np.where(mask, rows, starts[:, None])
    columns = {name: _masked(column[safe], mask) for name, column in episodes.transitions().columns.items()}
    return Segments(columns, mask, ids, episodes.steps[starts])


def _masked(values: Array, mask: npt.NDArray[np.bool_]) -> Array:
    return np.where(mask.reshape(*mask.shape, *[1] * (values.ndim - 2)), values, np.zeros((), values.dtype))


def returns_to_go(episodes: Episodes, discount: float = 1.0) -> npt.NDArray[np.float64]:
    """G_t = r_t + discount * G_{t+1} inside each episode.

    Args:
        episodes: Needs a `rewards` column `[n]`.
        discount: In [0, 1].

    Returns:
        `[n]`, float64.
    """
    if not 0.0 <= discount <= 1.0:
        raise ConfigError("the discount must be in [0, 1]", found=discount)
    rewards = np.asarray(episodes["rewards"], np.float64)
    result = np.empty_like(rewards)
    # One pass over time for all episodes at once: episodes sorted by length shrink from the right end.
    order = np.argsort(-episodes.lengths, kind="stable")
    lengths, ends = episodes.lengths[order], episodes.starts[1:][order]
    running = np.zeros(len(episodes))
    for back in range(1, int(lengths.max(initial=0)) + 1):
        alive = int(np.searchsorted(-lengths, -back, side="right"))
        rows = ends[:alive] - back
        running[:alive] = rewards[rows] + discount * running[:alive]
        result[rows] = running[:alive]
    return result
