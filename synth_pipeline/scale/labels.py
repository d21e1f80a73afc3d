"""Labels: who says what a row's reward, next observation, flag or goal is, when rows are not sampled anew.

The simulator, another goal, or a function of the user. All are pure functions of the rows, and small enough to send to
worker processes; what they are goes into the identity of the rows that they label.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from synth_pipeline import envs
from synth_pipeline.config import read_text
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Array
from synth_pipeline.envs.base import GoalConditioned
from synth_pipeline.errors import ConfigError, nearest
from synth_pipeline.store import Schema
from synth_pipeline.validation.truth import Truth, known_truth, simulated, truth_of

SIMULATOR = "simulator"
ACCEPTED = "simulator, or FILE.py:FUNCTION of a function of columns"
PROBE_ROWS = 1_000
_FOLLOWS = ("next_observations", "rewards", "terminations")


class Labels(Protocol):
    """Rewrites columns of rows."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are rewritten."""
        ...

    @property
    def options(self) -> tuple[str, ...]:
        """What to type to get them again."""
        ...

    def plain(self) -> dict[str, Any]:
        """Everything that the labels follow from beside the rows, for the identity of a store."""
        ...

    def __call__(self, rows: Transitions) -> Transitions:
        """The rows with other labels; those that cannot be labelled are left out."""
        ...


@dataclass(frozen=True)
class SimulatorLabels:
    """The next observation, reward and termination flag of every row by the simulator at (s, a).

    Attributes:
        environment: Its name.
    """

    environment: str
    columns = _FOLLOWS
    options = ("--with", SIMULATOR)

    @classmethod
    def of(cls, schema: Schema) -> SimulatorLabels:
        """For the rows of a store.

        Raises:
            ConfigError: When no simulator answers for them.
        """
        spec = schema.spec
        if spec.environment is None or known_truth(spec).oracle is None:
            raise ConfigError(
                f"no simulator can label rows of '{spec.dataset_id}'",
                found="stochastic dynamics" if spec.environment else "no known environment",
                accepted="data of a deterministic environment that can be set to an observation",
                fix="give a function of your own: --with FILE.py:FUNCTION",
            )
        _require_columns(schema, cls.columns)
        return cls(spec.environment)

    def plain(self) -> dict[str, Any]:
        """The environment with the versions that its dynamics depend on."""
        return {"by": SIMULATOR, **envs.make(self.environment).provenance()}

    def __call__(self, rows: Transitions) -> Transitions:
        """The rows that the simulator knows: s off the observation clip, and its own s', too."""
        return simulated(rows, _truth(self.environment))


@dataclass(frozen=True)
class GoalLabels:
    """Another goal in both observations of every row, and the reward and flag that follow from it.

    Attributes:
        environment: Its name.
        goal: As the environment takes it.
    """

    environment: str
    goal: tuple[float, ...]
    columns = ("observations", *_FOLLOWS)

    @classmethod
    def of(cls, schema: Schema, text: str) -> GoalLabels:
        """For the rows of a store.

        Args:
            schema: Its columns.
            text: Numbers with commas.

        Raises:
            ConfigError: When the observations hold no goal, or the text is none.
            EnvironmentModelError: When the environment cannot have that goal.
        """
        spec = schema.spec
        environment = _with_goals(spec.environment)
        if spec.environment is None or environment is None:
            raise ConfigError(
                f"rows of '{spec.dataset_id}' have no goal that could be another one",
                found=f"environment {spec.environment}" if spec.environment else "no known environment",
                accepted="data whose observations hold the goal, such as pointmaze-umaze",
                fix="give a function of your own: --with FILE.py:FUNCTION",
            )
        _require_columns(schema, cls.columns)
        try:
            goal = tuple(float(number) for number in text.split(","))
        except ValueError:
            raise ConfigError("a goal is numbers with commas", found=repr(text), fix="--goal 1,-0.5") from None
        environment.with_goal(np.zeros((1, spec.observation_size)), goal)
        return cls(spec.environment, goal)

    @property
    def options(self) -> tuple[str, ...]:
        """What to type to get them again."""
        return ("--goal", ",".join(f"{number:g}" for number in self.goal))

    def plain(self) -> dict[str, Any]:
        """The environment and its goal."""
        return {"by": "goal", "goal": list(self.goal), "environment": self.environment}

    def __call__(self, rows: Transitions) -> Transitions:
        """All rows; whether they reach the goal is judged on the next observations as they are stored."""
        environment = _with_goals(self.environment)
        assert environment is not None
        before, after = (environment.with_goal(rows[name], self.goal) for name in ("observations", _FOLLOWS[0]))
        reached = environment.success(after.astype(np.float64))
        return rows.with_columns(
            observations=before, next_observations=after, rewards=reached.astype(np.float32), terminations=reached
        )


@dataclass(frozen=True)
class FunctionLabels:
    """The columns that a function of the user gives; its source travels along, so that workers need no file.

    Attributes:
        path: Its file, absolute.
        name: The function, `columns -> columns`, or `columns -> rewards`.
        source: The text of the file.
        columns: What it rewrites.
    """

    path: str
    name: str
    source: str
    columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, schema: Schema, text: str, head: Transitions) -> FunctionLabels:
        """Try a function on a few rows.

        Args:
            schema: Columns of the rows.
            text: `FILE.py:FUNCTION`.
            head: Some rows.

        Raises:
            ConfigError: When there is no such function, it fails, gives other values when asked again, or something
                that cannot be stored.
        """
        file, _, name = text.rpartition(":")
        if not file or not name.isidentifier():
            raise ConfigError("labels come from elsewhere", found=repr(text), accepted=ACCEPTED, fix="--with simulator")
        path = Path(file).absolute()
        untried = cls(str(path), name, read_text(path))
        first, second = untried.answer(head), untried.answer(head)
        labels = replace(untried, columns=tuple(sorted(first)))
        stored = {field.name for field in schema.spec.fields}
        if not first or not first.keys() <= stored:
            unknown = sorted(first.keys() - stored)
            close = nearest(unknown[0], stored) if unknown else None
            raise labels.wrong(
                f"gives columns {', '.join(unknown)}" if unknown else "gives no column",
                f"some of {', '.join(sorted(stored))}",
                f"did you mean '{close}'?" if close else None,
            )
        given = [labels.checked(head, answer) for answer in (first, second)]
        if any(given[0][column].tobytes() != given[1][column].tobytes() for column in labels.columns):
            raise labels.wrong("gives other values for the same rows when asked again", "a function of the rows alone")
        return labels

    @property
    def options(self) -> tuple[str, ...]:
        """What to type to get them again."""
        return ("--with", f"{self.path}:{self.name}")

    def plain(self) -> dict[str, Any]:
        """The function and the hash of its file: another text is another version."""
        checksum = hashlib.sha256(self.source.encode()).hexdigest()
        return {"by": "function", "function": self.name, "sha256": checksum, "columns": list(self.columns)}

    def __call__(self, rows: Transitions) -> Transitions:
        """All rows.

        Raises:
            ConfigError: When the function fails, or gives something that cannot be stored.
        """
        answer = self.answer(rows)
        if tuple(sorted(answer)) != self.columns:
            raise self.wrong(f"gives columns {', '.join(sorted(answer))}", f"{', '.join(self.columns)}, as before")
        return rows.with_columns(**self.checked(rows, answer))

    def answer(self, rows: Transitions) -> Mapping[str, Any]:
        """What the function gives, by column; an array alone is the rewards.

        Raises:
            ConfigError: When it fails.
        """
        function = _loaded(self)
        columns = {name: column.view() for name, column in rows.columns.items()}
        for column in columns.values():
            column.flags.writeable = False
        try:
            given = function(columns)
        except Exception as error:
            raise self.wrong(*_failure(error, self.path)) from error
        return given if isinstance(given, Mapping) else {"rewards": given}

    def checked(self, rows: Transitions, answer: Mapping[str, Any]) -> dict[str, Array]:
        """The answer in the form of the rows.

        Raises:
            ConfigError: On another shape, another type, NaN or inf.
        """
        result = {}
        for name, given in answer.items():
            values, wanted = np.asarray(given), rows[name]
            if values.shape != wanted.shape or not np.can_cast(values.dtype, wanted.dtype, "same_kind"):
                raise self.wrong(
                    f"'{name}' of shape {values.shape}, {values.dtype}", f"shape {wanted.shape}, {wanted.dtype}"
                )
            with np.errstate(over="ignore"):  # becomes inf, and is refused
                result[name] = values.astype(wanted.dtype)
            if not np.isfinite(result[name]).all():
                raise self.wrong(f"'{name}' with {(~np.isfinite(result[name])).sum():,} NaN or inf", "finite numbers")
        return result

    def wrong(self, found: str, accepted: str, fix: str | None = None) -> ConfigError:
        """The error for a function that cannot label rows."""
        what = f"'{self.name}' in '{self.path}' cannot label these rows"
        return ConfigError(what, found=found, accepted=accepted, fix=fix or "change the function, and run this again")


def _failure(error: Exception, path: str) -> tuple[str, str]:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    at = f" at line {lines[-1]}" if lines else ""
    found = f"{type(error).__name__}: {error}{at}"
    return found, "a function that takes a dict of read-only arrays, and gives one or the rewards"


@lru_cache(maxsize=8)
def _loaded(labels: FunctionLabels) -> Callable[[dict[str, Array]], Any]:
    names: dict[str, Any] = {"__name__": Path(labels.path).stem, "__file__": labels.path}
    try:
        exec(compile(labels.source, labels.path, "exec"), names)
    except Exception as error:
        raise labels.wrong(*_failure(error, labels.path)) from error
    function = names.get(labels.name)
    if not callable(function):
        known = sorted(name for name, value in names.items() if callable(value) and not name.startswith("_"))
        raise labels.wrong("no such function", f"one of {', '.join(known)}" if known else "a file with functions")
    found: Callable[[dict[str, Array]], Any] = function
    return found


def _require_columns(schema: Schema, columns: tuple[str, ...]) -> None:
    missing = sorted({*columns, "observations", "actions"} - {field.name for field in schema.spec.fields})
    if missing:
        raise ConfigError(
            f"rows of '{schema.spec.dataset_id}' cannot be labelled like that",
            found=f"no column {', '.join(missing)}",
            fix="give a function of your own: --with FILE.py:FUNCTION",
        )


@cache
def _with_goals(environment: str | None) -> GoalConditioned | None:
    found: object = None if environment is None else envs.make(environment)
    return found if isinstance(found, GoalConditioned) else None


@cache
def _truth(environment: str) -> Truth:
    return truth_of(envs.make(environment))
