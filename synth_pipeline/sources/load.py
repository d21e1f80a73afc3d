"""From what a user types to a source: a file, a folder, a store's address, a catalog id, or a Minari id."""

from __future__ import annotations

from pathlib import Path

from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import ConfigError, SourceError, unknown_name
from synth_pipeline.registry import Registry
from synth_pipeline.sources.base import FLAT_FILES, Source, on_disk, require_file

SOURCES = Registry(
    "source",
    {
        "collect": "synth_pipeline.sources.collect:CollectedSource",
        "d4rl-hdf5": "synth_pipeline.sources.d4rl_hdf5:D4RLSource",
        "minari": "synth_pipeline.sources.minari:MinariSource",
        "npz": "synth_pipeline.sources.npz:NpzSource",
        "store": "synth_pipeline.sources.stored:StoreSource",
    },
)


def load(name_or_path: str | Path, *, download: bool = False, horizon: int | None = None) -> Dataset:
    """Read a dataset (see `resolve`).

    Raises:
        UnknownNameError: For a name that nothing knows, with the nearest id.
        SourceError: For data that cannot be read, or are not what they say.
    """
    source = resolve(name_or_path, download=download, horizon=horizon)
    return source.load()


def resolve(
    name_or_path: str | Path, *, download: bool = False, horizon: int | None = None, rows: int | None = None
) -> Source:
    """The source that a name or path means.

    What exists on disk comes first: an HDF5 or npz file, a Minari dataset's folder or `main_data.hdf5`, a store's
    folder (or `s3://` address). Then the ids of the catalog (`hopper/medium-replay`), then Minari's (`...-v0`).

    Args:
        name_or_path: What the user typed.
        download: Fetch a Minari dataset that is not on this machine.
        horizon: Time limit in steps, for flat files that mark no time limits.
        rows: Size of a dataset that is collected; None: the recipe's.

    Raises:
        UnknownNameError: For a name that nothing knows, with the nearest catalog or Minari id.
        SourceError: For a path that is not a dataset.
        ConfigError: When a horizon is given where the data state it, or a size for data that are not collected.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if rows is not None:
        return _sized(name, rows)
    if path.is_file() and path.name != "main_data.hdf5":
        return _flat_file(path, horizon)
    if horizon is not None:
        raise ConfigError(
            f"'{name}' states its time limits itself", found=f"horizon {horizon}", fix="leave the horizon out"
        )
    there = None if name.startswith("s3://") else on_disk(path)
    if name.startswith("s3://") or there == "store":
        return _make("store", name)
    if there is not None:
        return _make("minari", path if path.is_dir() else path.parent.parent)
    return _by_name(name, path, download=download)


def _sized(name: str, rows: int) -> Source:
    from synth_pipeline.sources import catalog
    from synth_pipeline.sources.collect import CollectedSource

    if name not in catalog.entries():
        raise ConfigError(
            f"'{name}' is not collected here, and is as large as it is",
            found=f"{rows:,} rows",
            fix="leave out the size",
        )
    return CollectedSource(name, rows=rows)


def _make(kind: str, argument: str | Path) -> Source:
    source: Source = SOURCES.load(kind)(argument)
    return source


def _flat_file(path: Path, horizon: int | None) -> Source:
    kind = FLAT_FILES.get(path.suffix.lower())
    if kind is None:
        raise SourceError(
            f"'{path}' is not a dataset file",
            found=f"a name ending in '{path.suffix}'" if path.suffix else "a name without an ending",
            accepted=", ".join(FLAT_FILES),
            fix="name an HDF5 or npz file (numpy.savez writes one), or an id of `synthpipe datasets`",
        )
    source: Source = SOURCES.load(kind)(path, horizon=horizon)
    return source


def _by_name(name: str, path: Path, *, download: bool) -> Source:
    from synth_pipeline.sources import catalog, minari_root

    known = catalog.entries()
    if name in known:
        return _make("collect", name)
    if path.is_dir():
        _refuse_folder(path)
    if path.suffix.lower() in FLAT_FILES or path.is_absolute() or path.is_file():
        require_file(path)
        raise SourceError(
            f"'{path}' is the data file of a Minari dataset, without its metadata.json",
            found="main_data.hdf5 alone",
            fix="name the dataset's folder or id, and keep metadata.json beside the file",
        )
    if minari_root.is_id(name):
        return _make("minari", minari_root.obtain(name, allow_download=download, others=known))
    raise unknown_name("dataset", name, [*known, *minari_root.local_ids()], listing="synthpipe datasets")


def _refuse_folder(path: Path) -> None:
    files = sorted(entry.name for entry in path.iterdir())
    datasets = [path / file for file in files if Path(file).suffix.lower() in FLAT_FILES or file == "store"]
    raise SourceError(
        f"'{path}' is a folder without a dataset",
        found=", ".join(files[:8]) or "an empty folder",
        accepted="an HDF5 or npz file, the folder of a Minari dataset, the folder of a store",
        fix=f"did you mean '{datasets[0]}'?" if datasets else "name a file, or an id of `synthpipe datasets`",
    )
