"""Our containers for d3rlpy and TorchRL, aligned: every next state belongs to its state, every end is one.

Their own Minari readers are wrong today (d3rlpy 2.6.2 shifts observations from the second episode on, TorchRL 0.14.1
returns zeros): `tests/interop/test_interop_museum.py` watches both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.fields import Array
from synth_pipeline.errors import MissingExtraError
from synth_pipeline.export.minari_layout import as_episodes, with_truncations

if TYPE_CHECKING:
    from d3rlpy.dataset import MDPDataset
    from tensordict import TensorDict


def to_d3rlpy(data: Episodes | Transitions, *, num_actions: int | None = None) -> MDPDataset:
    """A d3rlpy dataset with observations and actions of equal length and time limits as timeouts.

    d3rlpy takes the next state from the next row, so it can use the last step of an episode only when that step
    terminates. Of episodes it therefore drops the last step before a time limit, as always. Of independent rows
    nothing is lost: each becomes the two-step episode `[s, s']` whose second step repeats the action with reward 0
    and is never sampled as a transition, or `[s]` alone when it terminates. Train trajectory models on episodes only.

    Args:
        data: Episodes, or independent rows.
        num_actions: Number of actions, when they are discrete (integers); by default the largest in the data + 1.

    Raises:
        MissingExtraError: When d3rlpy is not installed.
        UnknownNameError: When actions, rewards or terminations are missing.
    """
    d3rlpy = _optional("d3rlpy", "d3rlpy.dataset")
    constants = _optional("d3rlpy", "d3rlpy.constants")
    columns = _episode_columns(data) if isinstance(data, Episodes) else _pair_columns(data)
    discrete = columns["actions"].dtype.kind in "iu"
    space = constants.ActionSpace.DISCRETE if discrete else constants.ActionSpace.CONTINUOUS
    size = None
    if discrete:
        size = num_actions if num_actions is not None else int(columns["actions"].max()) + 1
    return d3rlpy.MDPDataset(**columns, action_space=space, action_size=size)


def to_torchrl(data: Episodes | Transitions) -> TensorDict:
    """A `TensorDict` of steps in TorchRL's layout, ready for `TensorDictReplayBuffer.extend`.

    Keys: `observation`, `action`, `("next", "observation")`, `("next", "reward")`, `("next", "terminated")`,
    `("next", "truncated")`, `("next", "done")`, and `episode` for slice samplers. Rows without `truncations` stand
    alone: each is an episode of its own.

    Args:
        data: Episodes, or independent rows.

    Raises:
        MissingExtraError: When torch or tensordict is not installed.
        UnknownNameError: When actions, rewards or terminations are missing.
    """
    tensordict = _optional("tensordict", "tensordict")
    torch = _optional("torch", "torch")
    episodes = with_truncations(data) if isinstance(data, Episodes) else as_episodes(data)
    terminated, truncated = _flag(episodes["terminations"]), _flag(episodes["truncations"])

    def tensor(values: Array) -> Any:
        return torch.from_numpy(np.array(values, order="C"))

    following = {
        "observation": tensor(episodes.next_observations),
        "reward": tensor(np.asarray(episodes["rewards"])[:, None]),
        "terminated": tensor(terminated),
        "truncated": tensor(truncated),
        "done": tensor(terminated | truncated),  # TorchRL's name for the end of an episode, whatever its cause
    }
    rows = [episodes.num_rows]
    return tensordict.TensorDict(
        {
            "observation": tensor(episodes.observations),
            "action": tensor(episodes["actions"]),
            "episode": tensor(episodes.episode_ids),
            "next": tensordict.TensorDict(following, batch_size=rows),
        },
        batch_size=rows,
    )


def _flag(values: Array) -> Array:
    return np.asarray(values, bool)[:, None]


def _episode_columns(episodes: Episodes) -> dict[str, Array]:
    terminals = np.asarray(episodes["terminations"], bool)
    ends = np.zeros(episodes.num_rows, bool)
    ends[episodes.starts[1:] - 1] = True
    return {
        "observations": episodes.observations,
        "actions": episodes["actions"],
        "rewards": np.asarray(episodes["rewards"], np.float32),
        "terminals": terminals.astype(np.float32),
        # Never both: d3rlpy refuses a step that terminates at the time limit.
        "timeouts": (ends & ~terminals).astype(np.float32),
    }


def _pair_columns(rows: Transitions) -> dict[str, Array]:
    terminal = np.asarray(rows["terminations"], bool)
    sizes = np.where(terminal, 1, 2)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    second = first[~terminal] + 1
    source = np.repeat(np.arange(len(rows)), sizes)
    observations = rows["observations"][source]
    observations[second] = rows["next_observations"][~terminal]
    rewards = np.asarray(rows["rewards"], np.float32)[source]
    rewards[second] = 0.0
    terminals, timeouts = np.zeros(len(source), np.float32), np.zeros(len(source), np.float32)
    terminals[first[terminal]], timeouts[second] = 1.0, 1.0
    return {
        "observations": observations,
        "actions": rows["actions"][source],
        "rewards": rewards,
        "terminals": terminals,
        "timeouts": timeouts,
    }


def _optional(package: str, module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"this conversion needs the package {package}, which is not installed",
            found=str(error),
            fix=f"pip install {_PINS[package]}  (in an environment of its own: make test-interop builds one)",
        ) from None


_PINS = {"d3rlpy": "d3rlpy==2.6.2", "tensordict": "tensordict==0.14.3 torchrl==0.14.1", "torch": "torch==2.13.0"}
