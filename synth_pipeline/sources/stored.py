"""A store of ours as a source: trajectories become episodes, transitions stay independent rows."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from synth_pipeline import store
from synth_pipeline.data.rows import Dataset
from synth_pipeline.sources import checks


class StoreSource:
    """A complete store, local or under `s3://`.

    Args:
        url: Its folder or address.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = url

    def describe(self) -> dict[str, Any]:
        """Id, kind, rows, sizes and environment, from the manifest (see `Source`)."""
        info, spec = self._store.info(), self._store.spec
        return {
            "id": spec.dataset_id,
            "kind": "store",
            "path": info["url"],
            "bytes": info["bytes"],
            "rows": info["rows"],
            "episodes": info["episodes"],
            "observation_size": spec.observation_size,
            "action_size": spec.action_size,
            "environment": spec.environment,
            "horizon": spec.horizon,
            "digest": info["digest"],
            "generator": self._store.config.get("generator", {}).get("kind"),
        }

    def load(self) -> Dataset:
        """Read every row, with its provenance columns (see `Source`).

        Raises:
            SourceError: When a column holds NaN or inf.
            StoreError: When shards are missing or damaged.
        """
        spec, trajectories = self._store.spec, self._store.schema.kind == "trajectories"
        dataset = (
            Dataset(spec, episodes=self._store.episodes())
            if trajectories
            else Dataset(spec, rows=self._store.read_all())
        )
        rows = dataset.transitions()
        for field in spec.fields:
            if field.kind == "continuous":
                checks.require_finite(field.name, rows[field.name], f"the store '{self.url}'")
        return dataset

    def fingerprint(self) -> str:
        """The store's digest; bytes that do not match it are refused when they are read (see `Source`)."""
        return self._store.digest()

    @cached_property
    def _store(self) -> store.Store:
        return store.open(self.url)
