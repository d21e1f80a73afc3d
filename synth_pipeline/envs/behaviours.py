"""Behaviour policies that collect datasets: shipped snapshots of SAC actors, run with NumPy alone.

A snapshot is a network `obs -> 256 -> 256 -> (mean, log_std)` with ReLU layers on raw float32 observations
(Haarnoja et al. 2018, arXiv 1812.05905, equation 26 for the squashing). `<environment>.npz` holds every
parameter stacked over K snapshots in float16, `<environment>.json` their scores and how they were trained.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field as Setting
from pydantic import field_validator

from synth_pipeline import resources
from synth_pipeline.config import Config
from synth_pipeline.data.fields import Array
from synth_pipeline.errors import SourceError, UnknownNameError, unknown_name
from synth_pipeline.runs import read_json

Floats = npt.NDArray[np.float32]
PARAMETERS = ("w0", "b0", "w1", "b1", "w_mean", "b_mean", "w_log_std", "b_log_std")
LOG_STD_MIN, LOG_STD_MAX = np.float32(-20.0), np.float32(2.0)
MEDIUM_FRACTION = (1 / 3, 1 / 2)


class SnapshotScore(Config):
    """Returns of one snapshot, measured with the shipped float16 weights."""

    environment_steps: int = Setting(ge=0, description="training steps taken before the snapshot")
    stochastic_return: float = Setting(description="mean return of sampled actions")
    stochastic_std: float = Setting(ge=0, description="spread of that return over episodes")
    stochastic_length: float = Setting(gt=0, description="mean steps of an episode, sampled actions")
    deterministic_return: float = Setting(description="mean return of the mean action")
    deterministic_std: float = Setting(ge=0, description="spread of that return over episodes")
    deterministic_length: float = Setting(gt=0, description="mean steps of an episode, mean action")
    episodes: int = Setting(ge=1, description="episodes behind each mean")


class Recipe(Config):
    """The JSON beside the weights: what was trained, how, under which licence, and how well it acts."""

    environment: str = Setting(description="Gymnasium id that was trained on, e.g. 'Hopper-v5'")
    algorithm: str = Setting(description="training algorithm")
    network: str = Setting(description="architecture in words")
    licence: str = Setting(description="licence of the weights")
    trained_with: dict[str, Any] = Setting(description="versions and settings of the training run")
    scored_with: dict[str, str] = Setting(description="versions under which the scores hold")
    random_return: float = Setting(description="mean return of uniform actions under the same versions")
    snapshots: tuple[SnapshotScore, ...] = Setting(min_length=1, description="scores, rising in training steps")

    @field_validator("snapshots")
    @classmethod
    def _rising(cls, snapshots: tuple[SnapshotScore, ...]) -> tuple[SnapshotScore, ...]:
        steps = [snapshot.environment_steps for snapshot in snapshots]
        if steps != sorted(set(steps)):
            raise ValueError("snapshots must rise in environment_steps")
        return snapshots

    @property
    def best(self) -> int:
        """Index of the snapshot with the highest return of sampled actions."""
        return int(np.argmax([snapshot.stochastic_return for snapshot in self.snapshots]))

    @property
    def fractions(self) -> npt.NDArray[np.float64]:
        """`[K]`, each return on the way from uniform actions (0) to the best snapshot (1)."""
        returns = np.asarray([snapshot.stochastic_return for snapshot in self.snapshots])
        fractions: npt.NDArray[np.float64] = (returns - self.random_return) / (returns.max() - self.random_return)
        return fractions

    def levels(self) -> dict[str, tuple[int, ...]]:
        """Which snapshots each level is made of, in training steps; a level that they cannot give is absent.

        `expert` is the best snapshot; `medium` the first that reaches a third of the way from uniform actions
        to the best, provided that it has not passed half of it; `medium-replay` all snapshots up to medium;
        `medium-expert` those two, half and half.
        """
        steps = [snapshot.environment_steps for snapshot in self.snapshots]
        levels: dict[str, tuple[int, ...]] = {"expert": (steps[self.best],)}
        low, high = MEDIUM_FRACTION
        medium = int(np.argmax(self.fractions >= low))
        if self.fractions[medium] <= high:
            levels["medium"] = (steps[medium],)
            levels["medium-replay"] = tuple(steps[: medium + 1])
            levels["medium-expert"] = (steps[medium], steps[self.best])
        return levels


class SacActor:
    """One SAC snapshot: `tanh(mean + exp(clip(log_std, -20, 2)) * normal)`, scaled into the action bounds.

    Args:
        parameters: The arrays named in `PARAMETERS` of one snapshot (weights `[in, out]`).
        low: `[action]`, lower action bounds; -1 by default.
        high: `[action]`, upper action bounds; 1 by default.
        stochastic: Sample; otherwise the tanh of the mean.
    """

    def __init__(
        self,
        parameters: Mapping[str, Array],
        *,
        low: npt.ArrayLike | None = None,
        high: npt.ArrayLike | None = None,
        stochastic: bool = True,
    ) -> None:
        p = {name: np.ascontiguousarray(parameters[name], np.float32) for name in PARAMETERS}
        self._hidden = ((p["w0"], p["b0"]), (p["w1"], p["b1"]))
        # Both heads in one product: half the calls on batches too small to be bound by arithmetic.
        self._head = np.concatenate([p["w_mean"], p["w_log_std"]], axis=1)
        self._head_bias = np.concatenate([p["b_mean"], p["b_log_std"]])
        self._size = size = len(p["b_mean"])
        bottom = np.full(size, -1, np.float32) if low is None else np.asarray(low, np.float32)
        top = np.full(size, 1, np.float32) if high is None else np.asarray(high, np.float32)
        self._centre, self._half = (top + bottom) / 2, (top - bottom) / 2
        self.stochastic = stochastic

    def reset(self, n: int) -> None:
        """Nothing is remembered between steps."""

    def act(self, observations: Array, rng: np.random.Generator) -> Floats:
        """`[n, observation]` -> `[n, action]`; draws `n * action` normals, none when deterministic."""
        x = np.asarray(observations, np.float32)
        for weight, bias in self._hidden:
            x = x @ weight
            x += bias
            np.maximum(x, 0, out=x)
        x = x @ self._head
        x += self._head_bias
        mean, log_std = x[:, : self._size], x[:, self._size :]
        if self.stochastic:
            std = np.exp(np.minimum(np.maximum(log_std, LOG_STD_MIN), LOG_STD_MAX))
            mean = mean + std * rng.standard_normal(mean.shape, dtype=np.float32)
        actions: Floats = self._centre + self._half * np.tanh(mean)
        return actions

    def observe(self, rewards: Array, costs: Array | None, infos: Mapping[str, Array]) -> None:
        """Nothing is learned from what actions gave."""


def folder() -> Path:
    """Where the shipped weights are."""
    return resources.path("datasets/behaviours")


def names() -> list[str]:
    """Environments with shipped weights, sorted."""
    return sorted(path.stem for path in folder().glob("*.npz"))


def read_recipe(path: Path) -> Recipe:
    """Scores and training recipe from a JSON file.

    Raises:
        ConfigError: When the file is missing, not JSON, or not of this form.
    """
    return Recipe.parse(read_json(path), where=str(path))


@lru_cache
def recipe(environment: str) -> Recipe:
    """Scores and training recipe of an environment's shipped snapshots.

    Args:
        environment: Name in the environment registry, e.g. `"hopper"`.

    Raises:
        UnknownNameError: When no weights are shipped for it.
    """
    if environment not in names():
        raise unknown_name("environment with behaviour weights", environment, names())
    return read_recipe(folder() / f"{environment}.json")


def read_weights(path: Path) -> dict[str, Array]:
    """All arrays of a weights file, checked against the format.

    Args:
        path: `.npz` with the arrays of `PARAMETERS`, each `[K, ...]`, and `environment_steps` `[K]`.

    Raises:
        SourceError: When the file is missing, not an npz, or not of this format.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise SourceError(f"there is no file '{path}'", fix="reinstall synth-pipeline") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SourceError(f"'{path}' is not a readable .npz file", found=str(error)) from error
    problem = _format_problem(arrays)
    if problem:
        raise SourceError(
            f"'{path}' does not hold behaviour weights",
            found=problem,
            accepted="per parameter one array [K, ...]: " + ", ".join((*PARAMETERS, "environment_steps")),
            fix="write it with datasets/train_behaviour.py or datasets/pack_behaviours.py",
        )
    return arrays


def _format_problem(arrays: Mapping[str, Array]) -> str | None:
    missing = [name for name in (*PARAMETERS, "environment_steps") if name not in arrays]
    if missing:
        return f"no array {missing[0]}"
    if arrays["w0"].ndim != 3 or arrays["b_mean"].ndim != 2:
        return f"w0 has shape {arrays['w0'].shape} and b_mean {arrays['b_mean'].shape}, not [K, in, out] and [K, out]"
    count, observation, width = arrays["w0"].shape
    action = arrays["b_mean"].shape[1]
    expected = {
        "environment_steps": (),
        **{"w0": (observation, width), "b0": (width,), "w1": (width, width), "b1": (width,)},
        **{f"w_{head}": (width, action) for head in ("mean", "log_std")},
        **{f"b_{head}": (action,) for head in ("mean", "log_std")},
    }
    for name, shape in expected.items():
        if arrays[name].shape != (count, *shape):
            return f"{name} has shape {arrays[name].shape}, expected {(count, *shape)}"
        if not np.isfinite(arrays[name]).all():
            return f"{name} holds values that are not finite"
    return None


def snapshot(weights: Mapping[str, Array], environment_steps: int) -> dict[str, Array]:
    """The parameters of one snapshot of a weights file, as `SacActor` takes them.

    Raises:
        UnknownNameError: When no snapshot was taken at that step.
    """
    steps: Sequence[int] = weights["environment_steps"].tolist()
    if environment_steps not in steps:
        raise UnknownNameError(
            f"there is no snapshot at {environment_steps:,} training steps",
            found=environment_steps,
            accepted=", ".join(str(step) for step in steps),
            fix=f"use {min(steps, key=lambda step: abs(step - environment_steps))}",
        )
    return {name: weights[name][steps.index(environment_steps)] for name in PARAMETERS}


@lru_cache
def _shipped_weights(environment: str) -> dict[str, Array]:
    return read_weights(folder() / f"{environment}.npz")


def parameters(environment: str, environment_steps: int) -> dict[str, Array]:
    """Parameters of one shipped snapshot.

    Args:
        environment: Name in the environment registry.
        environment_steps: Training steps at which the snapshot was taken.

    Raises:
        UnknownNameError: For an environment or a step without shipped weights.
    """
    if environment not in names():
        raise unknown_name("environment with behaviour weights", environment, names())
    return snapshot(_shipped_weights(environment), environment_steps)
