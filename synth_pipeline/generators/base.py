"""What every generator is, how it is saved, and what happens to every sample on its way out.

A generator is fitted on a dataset and then is a pure function of (saved arrays, seed, shard, attempt): the same
shard always has the same bytes, on whichever worker it is made.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from synth_pipeline.config import Config
from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Array, Field, Layout
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.errors import CheckpointError, ConfigError
from synth_pipeline.generators import GENERATORS
from synth_pipeline.generators.relevance import Aim
from synth_pipeline.runs import file_hash, read_json, staged_directory, write_bytes, write_json

Report = Callable[[int, int, Mapping[str, float]], None]  # (step, total steps, values) of a fit in progress

SOURCE_FIELDS = (Field(name="source_episode", kind="index"), Field(name="source_step", kind="index"))
TARGET_FIELDS = (Field(name="target_episode", kind="index"), Field(name="target_step", kind="index"))


class Generator(Protocol):
    """A method that makes transitions.

    Attributes:
        kind: Name in the registry.
        settings: The class of `config`.
    """

    kind: ClassVar[str]
    settings: ClassVar[type[Config]]

    @property
    def config(self) -> Config:
        """Every number of the method."""
        ...

    @property
    def provenance(self) -> tuple[Field, ...]:
        """Columns that the method adds to each row (where it came from)."""
        ...

    @property
    def derives_terminations(self) -> bool:
        """Whether terminations are filled by the environment's own function where it is known."""
        ...

    def __init__(self, config: Any = None) -> None: ...

    def fit(self, data: Dataset, *, seed: int, report: Report | None = None, checkpoint: Path | None = None) -> None:
        """Learn from a dataset.

        Args:
            data: Training part only; nothing held out may be seen.
            seed: Seed of the run.
            report: Called now and then with (step, total steps, values).
            checkpoint: File for resumable state, for methods that train for long; others leave it alone.
        """
        ...

    def sample(self, rows: int, rng: np.random.Generator) -> Transitions:
        """Make `rows` transitions in physical units with all fields of the spec and the provenance columns."""
        ...

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Plain JSON values and arrays that `restore` needs."""
        ...

    def restore(self, values: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Inverse of `state`.

        Raises:
            CheckpointError, KeyError, TypeError or RuntimeError: When something is missing or of another shape.
        """
        ...


@runtime_checkable
class Aimable(Protocol):
    """A generator whose samples can be aimed at rows of high relevance."""

    def aimed(self, aim: Aim) -> Generator:
        """This generator, aimed.

        Raises:
            ConfigError: When it did not learn that relevance.
        """
        ...


@runtime_checkable
class Noted(Protocol):
    """A generator that has something to say of what its fit decided, and counts the calls of its networks."""

    @property
    def calls(self) -> int:
        """Calls of diffusion networks for one row."""
        ...

    def notes(self) -> list[str]:
        """Sentences for the log."""
        ...


@runtime_checkable
class Updatable(Protocol):
    """A generator that can be trained on."""

    def update(self, data: Dataset, *, seed: int, share: float = 1.0, report: Report | None = None) -> None:
        """Train on from the present weights.

        Args:
            data: All of it, old and new.
            seed: Of this update; another one for each.
            share: Gradient steps, as a share of a whole fit.
            report: As in `fit`.
        """
        ...


def updated(directory: Path, data: Dataset, *, seed: int, share: float, report: Report | None = None) -> Generator:
    """A saved generator, trained on; a method that cannot be is fitted anew, which costs nothing with such methods.

    Args:
        directory: Where it was saved; it stays as it is.
        data: All of the data, old and new.
        seed: Of this update.
        share: Gradient steps, as a share of a whole fit.
        report: As in `fit`.
    """
    generator = load(directory)[0]
    if isinstance(generator, Updatable):
        generator.update(data, seed=seed, share=share, report=report)
    else:
        generator.fit(data, seed=seed, report=report)
    return generator


def aimed(generator: Generator, aim: Aim) -> Generator:
    """A generator with its samples aimed, or as it is when the aim is nowhere.

    Raises:
        ConfigError: When it cannot be aimed there.
    """
    if aim.where is None:
        return generator
    if not isinstance(generator, Aimable):
        raise ConfigError(
            f"the generator '{generator.kind}' cannot be aimed",
            found=f"where {aim.where}",
            accepted="a generator with conditions, such as synther",
            fix="leave out --where",
        )
    return generator.aimed(aim)


def modelled_fields(spec: DatasetSpec) -> tuple[Field, ...]:
    """Fields of a row that a generator makes: all of the spec but truncations, which are never guessed."""
    return tuple(field for field in spec.fields if field.name != "truncations")


def known_termination(spec: DatasetSpec) -> Callable[[Array], Array] | None:
    """The environment's termination function of next observations, or None where no environment is known."""
    if spec.environment is None:
        return None
    from synth_pipeline import envs

    return envs.make(spec.environment).terminated


def derived_fields(spec: DatasetSpec) -> tuple[str, ...]:
    """Fields filled by a known function after sampling; labelled `derived` in the store."""
    return ("terminations",) if spec.environment is not None and spec.has("terminations") else ()


class Postprocess:
    """Samples leave in physical units: inside their bounds, flags boolean, terminations by the known function.

    Args:
        spec: What the rows must be like.
        derive: Whether terminations are filled by the known function.
    """

    def __init__(self, spec: DatasetSpec, *, derive: bool = True) -> None:
        self.layout = Layout(modelled_fields(spec))
        self._terminated = known_termination(spec) if derive else None
        self._limits = _limits(spec)

    def terminated(self, next_observations: Array) -> Array:
        """Flags `[n]` by the environment's function; it must be known."""
        assert self._terminated is not None
        return self._terminated(next_observations)

    def ended(self, observations: Array) -> npt.NDArray[np.bool_]:
        """`[n]`, states in which an episode has ended, so that no row begins there; none where it is not derived."""
        if self._terminated is None:
            return np.zeros(len(observations), bool)
        return np.asarray(self._terminated(observations), bool)

    def bounded(self, columns: Mapping[str, Array]) -> dict[str, Array]:
        """The columns that have limits, moved inside them."""
        found = {name: limits for name, limits in self._limits.items() if name in columns}
        return {name: np.clip(columns[name], low, high) for name, (low, high) in found.items()}

    def limits(self, layout: Layout) -> tuple[Array, Array]:
        """Smallest and largest value `[channels]` of the channels of a layout; infinite where there is none."""
        low, high = np.full(layout.size, -np.inf, np.float32), np.full(layout.size, np.inf, np.float32)
        for name, limits in self._limits.items():
            if name in layout.slices:
                low[layout.slices[name]], high[layout.slices[name]] = (limit.reshape(-1) for limit in limits)
        return low, high

    def from_columns(self, columns: Mapping[str, Array], provenance: Mapping[str, Array]) -> Transitions:
        """Columns in physical units -> finished rows; terminations may be missing where their function is known."""
        derived = {"terminations"} if self._terminated is not None else set()
        rows = {f.name: np.asarray(columns[f.name], f.dtype) for f in self.layout if f.name not in derived}
        rows |= self.bounded(rows)
        if self._terminated is not None:
            rows["terminations"] = self._terminated(rows["next_observations"])
        return Transitions({**{field.name: rows[field.name] for field in self.layout}, **provenance})

    def from_vectors(self, x: Array, provenance: Mapping[str, Array]) -> Transitions:
        """Packed vectors `[n, layout.size]` in physical units -> finished rows."""
        return self.from_columns(self.layout.unpack(x), provenance)


def require_can_sample(generator: Generator, rows: int) -> None:
    """For the first line of every `sample`.

    Raises:
        ConfigError: Before `fit` or `restore`, which leave the generator with its `_post`; for less than no rows.
    """
    if not hasattr(generator, "_post"):
        raise ConfigError(
            f"this '{generator.kind}' was not fitted, so it has nothing to sample from",
            fix="fit(dataset, seed=0) first, or load a saved one: synth_pipeline.generators.base.load(folder)",
        )
    if rows < 0:
        raise ConfigError("a number of rows that cannot be sampled", found=f"{rows:,}", accepted="0 or more")


def _limits(spec: DatasetSpec) -> dict[str, tuple[Array, Array]]:
    """Bounds of the columns that have some: of the field, or what the environment clips observations to."""
    found = {
        f.name: (np.asarray(f.low, f.dtype).reshape(f.shape), np.asarray(f.high, f.dtype).reshape(f.shape))
        for f in modelled_fields(spec)
        if f.clip
    }
    if spec.environment is not None:
        from synth_pipeline import envs

        clip = envs.make(spec.environment).spec.observation_clip
        if clip is not None:
            high = np.array([np.inf if limit is None else limit for limit in clip], np.float32)
            found |= {name: (-high, high) for name in ("observations", "next_observations") if spec.has(name)}
    return found


def save(generator: Generator, directory: Path, *, extra: Mapping[str, Any]) -> None:
    """Write `config.json`, `state.json`, `arrays.safetensors` as one folder that appears whole.

    Args:
        generator: A fitted generator.
        directory: Must not exist.
        extra: Plain values stored beside (dataset, fingerprint, split, seed).
    """
    from safetensors.numpy import save as to_bytes

    values, arrays = generator.state()
    with staged_directory(directory) as staged:
        write_json(staged / "config.json", {"kind": generator.kind, **generator.config.plain()})
        packed = to_bytes({name: np.asarray(array, order="C") for name, array in arrays.items()})
        write_bytes(staged / "arrays.safetensors", packed)
        checksum = hashlib.sha256(packed).hexdigest()
        write_json(staged / "state.json", {"values": values, "extra": dict(extra), "arrays": checksum})


def load(directory: Path | str) -> tuple[Generator, dict[str, Any]]:
    """A saved generator and the values stored beside it.

    Raises:
        CheckpointError: When the folder is missing, incomplete or damaged.
    """
    directory = Path(directory)
    missing = [name for name in ("config.json", "state.json", "arrays.safetensors") if not (directory / name).exists()]
    if missing:
        raise CheckpointError(
            f"'{directory}' holds no trained generator",
            found=f"no {', '.join(missing)}",
            fix="synthpipe train DATASET -o RUN",
        )
    generator = build(read_json(directory / "config.json"))
    state = read_json(directory / "state.json")
    arrays = _checked_arrays(directory / "arrays.safetensors", state)
    try:
        generator.restore(state["values"], arrays)
        extra: dict[str, Any] = state["extra"]
    except (KeyError, TypeError, RuntimeError) as error:  # RuntimeError: torch, for weights of another shape
        raise CheckpointError(
            f"'{directory}' does not hold a complete '{generator.kind}'",
            found=f"nothing called {error}" if isinstance(error, KeyError) else str(error).splitlines()[0],
            accepted="a model that this version saved",
            fix=f"train it again in another run directory, or delete '{directory}'",
        ) from error
    return generator, extra


def _checked_arrays(path: Path, state: Any) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    packed = path.read_bytes()
    try:
        if not isinstance(state, dict) or hashlib.sha256(packed).hexdigest() != state.get("arrays"):
            raise SafetensorError("it does not match its checksum in state.json")
        return from_bytes(packed)
    except SafetensorError as error:
        raise CheckpointError(
            f"'{path}' is damaged", found=str(error), fix="delete the model folder and train again"
        ) from None


def build(settings: Mapping[str, Any]) -> Generator:
    """An unfitted generator from `{"kind": name, **settings}`.

    Raises:
        UnknownNameError: For an unknown kind.
        ConfigError: For an unknown or impossible setting.
    """
    kind: type[Generator] = GENERATORS.load(str(settings.get("kind", "")))
    rest = {name: value for name, value in settings.items() if name != "kind"}
    return kind(kind.settings.parse(rest, where=f"generator '{settings['kind']}'", prefix="generator."))


def foreign_code(generator: Generator) -> str | None:
    """Hash of the file that a generator of another package stands in: another text is another method. None: ours."""
    kind = type(generator)
    if kind.__module__.partition(".")[0] == __name__.partition(".")[0]:
        return None
    try:
        path = inspect.getsourcefile(kind)
    except TypeError:  # typed at a prompt
        return None
    return None if path is None else file_hash(Path(path))


def source_columns(data: Dataset) -> dict[str, Array]:
    """`source_episode` and `source_step` of every row; -1 and the row number where there are no episodes."""
    if data.episodes is None:
        count = len(data)
        return {"source_episode": np.full(count, -1, np.int64), "source_step": np.arange(count, dtype=np.int64)}
    ids = data.episodes.episode_ids
    original = ids if data.episode_ids is None else data.episode_ids[ids]
    return {"source_episode": original, "source_step": data.episodes.steps}
