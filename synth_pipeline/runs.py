"""Run directories, atomic files, and the one rule of resuming: same inputs and finished -> nothing to do.

A stage writes into its own folder of the run and, last of all, `stage.json` with a hash of everything it was
made from. The next call compares hashes: equal means `nothing to do`, different or absent means work.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from synth_pipeline import __version__
from synth_pipeline.config import read_text
from synth_pipeline.errors import ConfigError, ResourceError

PACKAGES = ("torch", "numpy", "zarr", "minari", "gymnasium", "mujoco", "h5py", "scipy", "dask", "prefect")


def fsync_directory(directory: Path) -> None:
    """Make renames inside `directory` durable (a no-op where folders cannot be opened)."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old bytes or the new ones, also after a crash (stage, fsync, rename)."""
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    with friendly_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_partials(path)
        try:
            with staged.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(staged, path)
        finally:
            staged.unlink(missing_ok=True)
        fsync_directory(path.parent)


def write_json(path: Path, values: Any) -> None:
    """Plain values as readable JSON, written atomically."""
    write_bytes(path, (json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ConfigError: When the file is missing, not readable, or not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"'{path}' is not valid JSON", found=str(error), fix="delete the file and run again"
        ) from None


def read_object(path: Path, what: str, *, fix: str) -> dict[str, Any]:
    """Read JSON that must be an object.

    Args:
        path: The file.
        what: What it should be, for the error, e.g. "the record of a stage".
        fix: What to do about another one.

    Raises:
        ConfigError: When the file is missing, not readable, not JSON, or JSON of another kind.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise ConfigError(f"'{path}' is not {what}", found=type(found).__name__, accepted="a JSON object", fix=fix)
    return found


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file, streamed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def staged_directory(target: Path) -> Iterator[Path]:
    """A new folder that becomes `target` in one rename when the block succeeds and vanishes when it fails.

    Raises:
        ConfigError: When `target` exists already.
    """
    staged = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    with friendly_os_errors(target):
        if target.exists():
            raise ConfigError(
                f"'{target}' exists already", found="a file or folder", fix="choose another name or delete it first"
            )
        staged.mkdir(parents=True)
        try:
            yield staged
            os.replace(staged, target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        fsync_directory(target.parent)


def clear_partials(target: Path) -> None:
    """Remove what killed processes left beside `target` when they wrote it."""
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


@contextmanager
def friendly_os_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals (no space, no permission, a file in the way) into our form of error.

    Any other `OSError` passes unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            folder = _existing_parent(path)
            free = shutil.disk_usage(folder).free
            raise ResourceError(
                f"no space left while writing '{path}'",
                found=f"{error.strerror}; {free / 1e6:,.0f} MB free on the disk of '{folder}'",
                fix="free some space and run the same command again; finished parts are kept",
            ) from error
        place = error.filename2 or error.filename or path
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise ResourceError(
                f"'{place}' may not be written", found=error.strerror, fix="choose another folder"
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY):
            raise ConfigError(
                f"'{place}' cannot be written: something else stands in the way",
                found=error.strerror,
                accepted="a path that does not run through a file or end at a folder",
                fix="choose another path",
            ) from error
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise ConfigError(
                f"'{place}' is no usable path", found=error.strerror, fix="choose a shorter path"
            ) from error
        raise


def make_folder(path: Path) -> None:
    """Make a folder, and those above it.

    Raises:
        ConfigError: When a file stands in the way, or no folder can be made there.
        ResourceError: When that is not allowed, or the disk is full.
    """
    try:
        with friendly_os_errors(path):
            path.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # of file systems that hold no folders of ours, such as /proc
        raise ConfigError(f"'{path}' cannot be made", found=error.strerror, fix="choose another folder") from error


def _existing_parent(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def require_space(folder: Path, needed_bytes: int) -> None:
    """Fail before work begins when the disk cannot hold the result.

    Raises:
        ResourceError: When less than `needed_bytes` plus 5 % is free.
    """
    existing = _existing_parent(folder)
    free = shutil.disk_usage(existing).free
    if free < needed_bytes * 1.05:
        raise ResourceError(
            f"the disk of '{existing}' is too small for this",
            found=f"{_size(free)} free",
            accepted=f"about {_size(needed_bytes * 1.05)}",
            fix="free some space, or ask for fewer rows",
        )


def require_folder(folder: Path, own: Container[str], what: str) -> None:
    """Fail before work begins when an output folder is something else.

    Args:
        folder: Where the output goes.
        own: Names of what is written there; hidden files are nobody's.
        what: Who writes, e.g. `a comparison`.

    Raises:
        ConfigError: When it is a file, or holds anything else.
        ResourceError: When nothing can be written there.
    """
    blocked = next((part for part in (folder, *folder.parents) if part.exists() and not part.is_dir()), None)
    names = sorted(e.name for e in folder.iterdir() if not e.name.startswith(".")) if folder.is_dir() else []
    foreign = [name for name in names if name not in own]
    if blocked is not None or foreign:
        raise ConfigError(
            f"{what} cannot be written into '{folder}'",
            found=f"'{blocked}' is a file" if blocked else ", ".join(foreign[:5]),
            accepted="the folder of an earlier one, an empty folder, or a path that does not exist yet",
            fix="choose another folder with -o",
        )
    if not os.access(_existing_parent(folder), os.W_OK | os.X_OK):
        raise ResourceError(
            f"nothing can be written into '{folder}'",
            found=f"no right to write in '{_existing_parent(folder)}'",
            fix="choose another folder with -o, or change its permissions",
        )


def _size(count: float) -> str:
    """Bytes for people: 1.04 kB, 2.9 MB, 3.2 GB."""
    unit, name = next(((u, n) for u, n in ((1e9, "GB"), (1e6, "MB")) if count >= 0.9995 * u), (1e3, "kB"))
    return f"{count / unit:,.3g} {name}"


def environment() -> dict[str, Any]:
    """Versions and machine, stored beside results; never part of an identity."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return {
        "synth_pipeline": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "versions": versions,
    }


class Run:
    """One run directory: `config.yaml`, `environment.json` and a folder a stage.

    Args:
        directory: Where the run lives; made by `create`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __repr__(self) -> str:
        return f"Run('{self.directory}')"

    def create(self) -> None:
        """Make the folder and note the machine.

        Raises:
            ConfigError: When a file stands in the way.
        """
        make_folder(self.directory)
        write_json(self.directory / "environment.json", environment())

    def folder(self, stage: str) -> Path:
        """The folder of one stage (`model`, `store`, `validation`, ...)."""
        return self.directory / stage

    @property
    def generator(self) -> Path:
        """The folder of the fitted generator."""
        return self.folder("model") / "generator"

    def training_state(self, key: str) -> Path:
        """File for the state of an unfinished training of the data and settings `key`; others keep theirs."""
        return self.folder("model") / f"training-{key[:12]}.safetensors"

    def began_training(self, key: str) -> bool:
        """Whether an unfinished training of `key` left its state, or states of its phases."""
        return any(self.folder("model").glob(f"training-{key[:12]}*.safetensors"))

    def drop_training_states(self) -> None:
        """A model is there: what unfinished trainings left is of no use."""
        for state in self.folder("model").glob("training-*"):
            state.unlink()

    def record(self, stage: str) -> dict[str, Any]:
        """What a stage noted when it ended last; empty when it never did.

        Raises:
            ConfigError: When the record is damaged.
        """
        path = self.folder(stage) / "stage.json"
        if not path.exists():
            return {}
        return read_object(path, "the record of a stage", fix="delete the file and run again")

    def finished(self, stage: str, key: str) -> dict[str, Any] | None:
        """The record of a stage that ended with exactly these inputs, or None when there is work to do.

        Raises:
            ConfigError: When the record is damaged.
        """
        record = self.record(stage)
        return record if record.get("key") == key else None

    def finish(self, stage: str, key: str, result: Mapping[str, Any]) -> dict[str, Any]:
        """Note that a stage ended; `result` is what it reports when asked again."""
        record = {"stage": stage, "key": key, **result}
        write_json(self.folder(stage) / "stage.json", record)
        return record


_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def safe_parts(identifier: str, *, kind: str = "id") -> tuple[str, ...]:
    """The parts of an id that becomes a path; no part may escape its folder.

    Raises:
        ConfigError: For `..`, absolute paths, empty parts and characters outside letters, digits, `.`, `_`, `-`.
    """
    parts = tuple(identifier.split("/"))
    if not all(_SAFE.fullmatch(part) for part in parts):
        raise ConfigError(
            f"'{identifier}' cannot be used as a {kind}",
            found=repr(identifier),
            accepted="parts of letters, digits, '.', '_' and '-' joined by '/', none starting with a dot",
            fix="choose a plain name, e.g. hopper/mine-v0",
        )
    return parts
