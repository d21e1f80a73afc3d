"""What a source is, and the fingerprint by which a changed one is recognised."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from synth_pipeline.data.fields import Array
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.errors import SourceError, nearest
from synth_pipeline.tracking import counted

FLAT_FILES = {".hdf5": "d4rl-hdf5", ".h5": "d4rl-hdf5", ".npz": "npz"}
# Letters of Latin alphabets that are not a plain letter and an accent.
LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "ð": "d"}
)


@runtime_checkable
class Source(Protocol):
    """A dataset that can be described, read and recognised again."""

    def describe(self) -> dict[str, Any]:
        """Facts that cost no reading of the data, as plain JSON: id, kind, rows, sizes, environment, ...

        Raises:
            SourceError: When the data cannot be opened.
        """
        ...

    def load(self) -> Dataset:
        """Read everything: checked, finite, flags boolean, float32.

        Raises:
            SourceError: When the data are damaged, or are not what they say.
        """
        ...

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the contents: equal on every machine, different when one byte differs."""
        ...


def hash_files(files: Iterable[Path], root: Path | None = None) -> str:
    """SHA-256 (hex) over file contents, read piece by piece; with `root`, over the relative names too."""
    total = hashlib.sha256()
    for file in files:
        if root is not None:
            total.update(file.relative_to(root).as_posix().encode() + b"\0")
        with readable(file), file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def hash_arrays(arrays: Mapping[str, Array]) -> str:
    """SHA-256 (hex) over names, dtypes, shapes and values of arrays, whatever their order in the mapping."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        total.update(f"{name}\0{little.dtype.str}\0{little.shape}\0".encode())
        total.update(little.data)
    return total.hexdigest()


def units(data: Dataset) -> int:
    """How many episodes there are, or rows where there are no episodes: in these a dataset grows."""
    return len(data) if data.episodes is None else len(data.episodes)


def hash_prefix(data: Dataset, count: int) -> str:
    """Hash of the first `count` episodes (rows, where there are none): equal where a dataset has only grown."""
    if data.episodes is None:
        return hash_arrays(data.transitions().take(slice(count)).columns)
    first = data.episodes.take(np.arange(count))
    ends = {"final_observations": first.final_observations, "starts": first.starts}
    return hash_arrays({"observations": first.observations, **first.columns, **ends})


def file_id(path: Path) -> str:
    """A dataset id from a file's name: letters lose their accents, what ids do not allow becomes '_'."""
    plain = unicodedata.normalize("NFKD", path.stem.translate(LETTERS))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return re.sub(r"[^A-Za-z0-9_-]+", "_", plain).strip("_") or "dataset"


def carried_spec(values: str | Mapping[str, Any], where: str) -> DatasetSpec:
    """The spec that an export of ours carries, as JSON text or plain values.

    Raises:
        SourceError: When it is not JSON.
        ConfigError: When it is the spec of another version.
    """
    try:
        plain = json.loads(values) if isinstance(values, str) else values
        return DatasetSpec.parse(plain, where=where)
    except (TypeError, ValueError) as error:
        raise SourceError(f"{where} is no dataset spec", found=str(error), fix="export the data again") from error


def on_disk(path: Path) -> str | None:
    """Kind of the dataset of several files at a path, or None when there is none."""
    folder = path.parent.parent if path.is_file() else path
    if (folder / "data" / "metadata.json").is_file():
        return "minari"
    return "store" if (path / "zarr.json").is_file() else None


def require_file(path: Path) -> None:
    """Raise `SourceError` with the nearest dataset in the folder when `path` is not a file."""
    if path.is_file():
        return
    if path.is_dir():
        raise SourceError(f"'{path}' is a folder, not a file", found="a folder", fix="name a file in it")
    folder = path.parent
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    names = [
        entry.name for entry in entries if entry.suffix.lower() in FLAT_FILES or (entry.is_dir() and on_disk(entry))
    ]
    guess = nearest(path.name, names)
    raise SourceError(
        f"there is no file '{path}'",
        found=f"the folder '{folder}' does not exist"
        if not folder.is_dir()
        else f"{counted(len(names), 'other dataset')} there",
        fix=f"did you mean '{folder / guess}'?" if guess else "check the path",
    )


DAMAGED = "the file is truncated, damaged or of another format: download or export it again"


@contextmanager
def readable(path: Path, *, damaged: str = DAMAGED) -> Iterator[None]:
    """Turn the ways in which a damaged or foreign file fails (I/O, HDF5, zip, Arrow) into our form of error.

    Args:
        path: The file.
        damaged: What to do about it when it is there, and may be read.
    """
    try:
        yield
    except (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        absent = isinstance(error, (FileNotFoundError, PermissionError))
        raise SourceError(
            f"'{path}' cannot be read",
            found=" ".join(str(error).split())[:300] or type(error).__name__,
            fix="check the path and its permissions" if absent else damaged,
        ) from error
