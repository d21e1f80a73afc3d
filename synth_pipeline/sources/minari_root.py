"""Minari's local folder of datasets, and the way from Minari's server into it.

Minari's own listing gives up on the whole folder when one entry is malformed, and its download reports success over
an empty dataset (Minari#220); here neither happens.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from synth_pipeline.errors import MissingExtraError, SourceError, UnknownNameError, nearest

DATASET_ID = re.compile(r"(?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+-v\d+")
DEFAULT_REMOTE = "hf://farama-minari"
REACH_SECONDS = 10
# scheme of a remote -> where it lives, the module that its client needs, the extra of Minari that installs it
_REMOTES = {
    "hf": ("https://huggingface.co", "huggingface_hub", "hf"),
    "gcp": ("https://storage.googleapis.com", "google.cloud.storage", "gcs"),
}


def datasets_root() -> Path:
    """`MINARI_DATASETS_PATH`, or Minari's default in the home folder; it may not exist."""
    configured = os.environ.get("MINARI_DATASETS_PATH")
    return Path(configured) if configured else Path.home() / ".minari" / "datasets"


def is_id(name: str) -> bool:
    """Whether a name has the form of a Minari id, `namespace/name-v0`."""
    return DATASET_ID.fullmatch(name) is not None


def read_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of the dataset in `folder`.

    Raises:
        SourceError: When the file is missing, not JSON, or lacks what every dataset states.
    """
    path = folder / "data" / "metadata.json"
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(
            f"'{folder}' is not a Minari dataset", found=str(error), accepted="a folder with data/metadata.json"
        ) from error
    needed = ("dataset_id", "minari_version", "data_format", "total_episodes", "total_steps")
    missing = [key for key in needed if not isinstance(metadata, dict) or key not in metadata]
    if missing:
        raise SourceError(
            f"'{folder}' is an unfinished Minari dataset",
            found=f"metadata.json without {', '.join(missing)}",
            fix="writing or downloading it was interrupted: make the dataset again",
        )
    result: dict[str, Any] = metadata
    return result


def survey(root: Path | None = None) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What the local folder holds: (id -> metadata) of sound datasets, (folder -> problem) of the others."""
    base = root or datasets_root()
    sound: dict[str, dict[str, Any]] = {}
    problems: dict[str, str] = {}
    for folder in _dataset_folders(base) if base.is_dir() else []:
        name = folder.relative_to(base).as_posix()
        try:
            metadata = read_metadata(folder)
        except SourceError as error:
            problems[name] = str(error)
            continue
        if metadata["dataset_id"] == name and is_id(name):
            sound[name] = metadata
        else:
            problems[name] = f"the folder is called '{name}', its metadata say '{metadata['dataset_id']}'"
    return sound, problems


def local_ids(root: Path | None = None) -> list[str]:
    """Ids of the sound local datasets, sorted."""
    return sorted(survey(root)[0])


def find(dataset_id: str, *, others: Iterable[str] = ()) -> Path:
    """The folder of a local dataset.

    Args:
        dataset_id: Full id with its version.
        others: Names from elsewhere that may have been meant.

    Raises:
        UnknownNameError: When the id is malformed, or not here: with the nearest name and how to download.
    """
    if not is_id(dataset_id):
        raise UnknownNameError(
            f"'{dataset_id}' is not a Minari id", found=repr(dataset_id), accepted="namespace/name-v0"
        )
    folder = datasets_root() / dataset_id
    if (folder / "data").is_dir():
        return folder
    known = local_ids()
    guess = nearest(dataset_id, [*known, *others])
    download = f"minari download {dataset_id}   # in Python: download=True"
    raise UnknownNameError(
        f"the Minari dataset '{dataset_id}' is not on this machine",
        found=f"{len(known)} datasets in '{datasets_root()}'",
        accepted=", ".join(known) or None,
        fix=f"did you mean '{guess}'? Otherwise run: {download}" if guess else download,
    )


def obtain(dataset_id: str, *, allow_download: bool, others: Iterable[str] = ()) -> Path:
    """The folder of a dataset, downloaded when that is allowed and no complete one is here (see `find`, `download`)."""
    if allow_download and is_id(dataset_id) and not _is_sound(datasets_root() / dataset_id):
        return download(dataset_id)
    return find(dataset_id, others=others)


def download(dataset_id: str) -> Path:
    """Bring a dataset from Minari's server and make sure that it is complete.

    Args:
        dataset_id: Full id with its version.

    Returns:
        The dataset's local folder.

    Raises:
        SourceError: When the server is out of reach, refuses, or sends an empty dataset.
        MissingExtraError: When the client library of the remote is not installed.
        UnknownNameError: When the server does not know the id.
    """
    _require_remote(dataset_id)
    import minari

    try:
        # A folder left by an interrupted download would otherwise be taken for the dataset.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            minari.download_dataset(dataset_id, force_download=True)
    except ValueError as error:
        raise UnknownNameError(
            f"Minari's server has no usable dataset '{dataset_id}'",
            found=str(error),
            fix="minari list remote shows what it has",
        ) from error
    except Exception as error:
        raise _unreachable(dataset_id, f"{type(error).__name__}: {error}") from error
    return _verified(dataset_id)


def _dataset_folders(folder: Path) -> list[Path]:
    if (folder / "data").is_dir():
        return [folder]
    entries = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return [found for entry in entries for found in _dataset_folders(entry)]


def _require_remote(dataset_id: str) -> None:
    remote = os.environ.get("MINARI_REMOTE", DEFAULT_REMOTE)
    scheme = remote.partition("://")[0]
    if scheme not in _REMOTES:
        return
    address, module, extra = _REMOTES[scheme]
    address = os.environ.get("HF_ENDPOINT", address) if scheme == "hf" else address
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Asked first: the clients themselves retry for half a minute before they admit that there is no network.
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError:
        pass
    except (OSError, ValueError) as error:
        raise _unreachable(dataset_id, f"{address}: {error}") from error
    try:
        missing = importlib.util.find_spec(module) is None
    except ModuleNotFoundError:
        missing = True
    if missing:
        raise MissingExtraError(
            f"downloading from '{remote}' needs the package {module}", fix=f'pip install "minari[{extra}]"'
        )


def _unreachable(dataset_id: str, found: str) -> SourceError:
    return SourceError(
        f"the Minari dataset '{dataset_id}' cannot be downloaded",
        found=" ".join(found.split())[:300],
        accepted="a connection to Minari's server",
        fix=f"check the network, or copy the dataset's folder to '{datasets_root() / dataset_id}'",
    )


def _is_sound(folder: Path) -> bool:
    try:
        return bool(read_metadata(folder)["total_episodes"])
    except SourceError:
        return False


def _verified(dataset_id: str) -> Path:
    folder = datasets_root() / dataset_id
    metadata = read_metadata(folder)
    if metadata["dataset_id"] != dataset_id or not metadata["total_episodes"]:
        raise SourceError(
            f"the download of '{dataset_id}' is not that dataset, or is empty",
            found=f"'{metadata['dataset_id']}' with {metadata['total_episodes']} episodes in '{folder}'",
            fix=f"delete '{folder}' and report it to the dataset's owner",
        )
    return folder
