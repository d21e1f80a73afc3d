"""Which of our environments a Minari dataset comes from, read from the environment spec in its metadata.

Only the very same environment counts: Hopper-v4 has other rewards than Hopper-v5, and a changed keyword (another maze,
a continuing task, no termination when unhealthy) changes rewards or endings. Then the environment stays unknown, and
the dataset's provenance says what differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from synth_pipeline.errors import SourceError

_SAME = {
    "Hopper-v5": "hopper",
    "HalfCheetah-v5": "halfcheetah",
    "Walker2d-v5": "walker2d",
    "Pendulum-v1": "pendulum",
    "PointMaze_UMaze-v3": "pointmaze-umaze",
    "PointMaze_Medium-v3": "pointmaze-medium",
    "PointMaze_Large-v3": "pointmaze-large",
}
_MAPS = {"pointmaze-umaze": "U_MAZE", "pointmaze-medium": "MEDIUM_MAZE", "pointmaze-large": "LARGE_MAZE"}
_LOOKS = {
    "render_mode", "width", "height", "camera_id", "camera_name", "default_camera_config", "max_geom", "screen",
    "visual_options",
}  # fmt: skip
_MAZE_DEFAULTS = {"reward_type": "sparse", "continuing_task": True, "reset_target": False}
_OUR_MAZE = {"reward_type": "sparse", "continuing_task": False, "reset_target": False}


@dataclass(frozen=True)
class Origin:
    """Where a dataset was recorded.

    Attributes:
        environment: Name in our registry, or None when we have no such environment.
        horizon: Time limit in steps, or None.
        observation_keys: Keys of a Dict observation that our environment shows, in its order; None: all.
        provenance: Id, keyword arguments and differences, plain JSON.
    """

    environment: str | None = None
    horizon: int | None = None
    observation_keys: tuple[str, ...] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


def origin_of(metadata: Mapping[str, Any], name: str) -> Origin:
    """The environment of a dataset.

    Args:
        metadata: Minari's metadata.
        name: Name of the dataset, for errors.

    Raises:
        SourceError: When the stored environment spec is not JSON.
    """
    text = metadata.get("env_spec")
    if text is None:
        return Origin()
    try:
        spec = json.loads(text) if isinstance(text, str) else dict(text)
        gymnasium_id = str(spec["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{name}: the environment spec in its metadata is damaged", found=str(error)) from error
    kwargs = {key: value for key, value in (spec.get("kwargs") or {}).items() if key not in _LOOKS}
    environment = _SAME.get(gymnasium_id)
    differences = _differences(environment, kwargs) if environment else []
    differences += [f"wrapper {wrapper.get('name')}" for wrapper in spec.get("additional_wrappers") or ()]
    same = environment if not differences else None
    provenance: dict[str, Any] = {"environment_id": gymnasium_id, "environment_kwargs": kwargs}
    if environment and differences:
        provenance["environment_differs"] = differences
    keys = ("observation", "desired_goal") if same in _MAPS else None
    return Origin(same, spec.get("max_episode_steps"), keys, provenance)


def _differences(environment: str, kwargs: Mapping[str, Any]) -> list[str]:
    """What sets the recorded environment apart from ours, as `key=value`."""
    if environment not in _MAPS:
        return [f"{key}={value}" for key, value in kwargs.items()]
    # Registers Gymnasium-Robotics' environments on import: only for datasets of its mazes.
    from gymnasium_robotics.envs.maze import maps

    ours = {**_OUR_MAZE, "maze_map": getattr(maps, _MAPS[environment])}
    recorded = {**_MAZE_DEFAULTS, "maze_map": ours["maze_map"], **kwargs}
    return [f"{key}={value}" for key, value in recorded.items() if ours.get(key) != value]
