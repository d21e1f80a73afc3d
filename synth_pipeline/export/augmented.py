"""The augmented dataset: real episodes and synthetic rows as one Minari dataset, one flat file, and a card."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.rows import Dataset, RowSource
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.export.card import CardFacts, write_card
from synth_pipeline.export.d4rl_hdf5 import Labelled, label_episodes, write_flat
from synth_pipeline.export.minari import MAX_ONE_STEP, next_version, write_minari
from synth_pipeline.runs import clear_partials, require_space, safe_parts
from synth_pipeline.tracking import Progress

CHUNK = 16_384
EPISODE_BYTES = 2_500  # of a Minari episode beside its rows: a group, six objects, two attributes (measured: 2,100)
LABEL_BYTES = 2  # flags that the flat file has beside the columns
LABELS = ("minari", "flat", "card")


def write_augmented(
    dataset_id: str,
    *,
    real: Dataset,
    synthetic: RowSource,
    one_step: int,
    folder: Path,
    facts: CardFacts,
) -> dict[str, str]:
    """Write all three, each read back before it appears.

    Args:
        dataset_id: Minari id of the result, e.g. `hopper/medium-replay-smote-v0`.
        real: The real dataset; its episodes go into both files whole.
        synthetic: Generated rows; all go into the flat file, the first `one_step` into the Minari dataset.
        one_step: Synthetic rows in the Minari dataset.
        folder: Gets `minari/<id>/`, `<name>.hdf5` and `<name>.md`.
        facts: What the card says; recipe, parents and verdicts are stored in both files too.

    Returns:
        What was written: label -> path inside `folder`.

    Raises:
        ExportError: When a target exists or does not read back.
        ResourceError: When the disk is too small, which is noticed first, or full; nothing half-written stays.
    """
    spec = real.spec
    metadata = {"description": f"{spec.dataset_id} augmented by {facts.recipe['generator']['kind']}", **_origin(facts)}
    minari, flat, card = _targets(folder, dataset_id)
    require_space(folder, export_bytes(real, synthetic, one_step))
    # Everything is written and read back; in Minari's file each episode costs the same, however long it is.
    episodes, rows = 2 * _minari_episodes(real, synthetic, one_step), 2 * (len(real) + len(synthetic))
    with Progress("export", episodes, "episodes") as progress:
        write_minari(
            dataset_id,
            spec=spec,
            episodes=_episodes(real),
            one_step=_one_step(real, synthetic, one_step),
            root=folder / "minari",
            metadata=metadata,
            advance=progress.advance,
        )
    with Progress("export", rows, "rows") as progress:
        write_flat(
            flat,
            [Labelled(real, synthetic=False), Labelled(synthetic, synthetic=True)],
            spec=synthetic.spec,
            metadata=metadata,
            advance=progress.advance,
        )
    facts = facts.replace(minari_id=dataset_id, flat_file=flat.name)
    write_card(card, facts)
    return {label: str(path.relative_to(folder)) for label, path in zip(LABELS, (minari, flat, card), strict=True)}


def export_bytes(real: Dataset, synthetic: RowSource, one_step: int) -> int:
    """About how much room both files take.

    Args:
        real: The real dataset.
        synthetic: Generated rows.
        one_step: Synthetic rows in the Minari dataset.
    """
    heads = [part.read(0, 1).columns for part in (real, synthetic)]
    row = sum(column.nbytes for column in {**heads[0], **heads[1]}.values()) + LABEL_BYTES
    episodes = _minari_episodes(real, synthetic, one_step)
    rows = episodes + (real.episodes.num_rows - len(real.episodes) if real.episodes is not None else 0)
    return row * (len(real) + len(synthetic) + rows) + EPISODE_BYTES * episodes


def _minari_episodes(real: Dataset, synthetic: RowSource, one_step: int) -> int:
    room = min(one_step, len(synthetic))
    return room + (len(real.episodes) if real.episodes is not None else _kept(real, room))


def _kept(real: Dataset, room: int) -> int:
    return min(len(real), MAX_ONE_STEP - room)


def default_id(spec: DatasetSpec, method: str) -> str:
    """E.g. `hopper/medium-replay-smote-v0`; a Minari source's own version is part of the name."""
    name = spec.dataset_id if "/" in spec.dataset_id else f"local/{spec.dataset_id}"
    return f"{name}-{method}-v0"


def free_id(folder: Path, wanted: str) -> str:
    """The id itself, or its next version under which nothing stands in the export folder yet.

    Raises:
        ConfigError: For an id that Minari would not accept or that leaves the folder.
    """
    dataset_id = next_version(wanted, folder / "minari")
    while any(target.exists() for target in _targets(folder, dataset_id)):
        stem, _, version = dataset_id.rpartition("-v")
        dataset_id = f"{stem}-v{int(version) + 1}"
    return dataset_id


def discard(folder: Path, dataset_id: str) -> None:
    """Remove an export that was begun and did not end, or of which a part is gone.

    Args:
        folder: As in `write_augmented`.
        dataset_id: Its Minari id.
    """
    for target in _targets(folder, "/".join(safe_parts(dataset_id))):
        clear_partials(target)
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def _targets(folder: Path, dataset_id: str) -> tuple[Path, Path, Path]:
    name = dataset_id.replace("/", "-")
    return folder / "minari" / dataset_id, folder / f"{name}.hdf5", folder / f"{name}.md"


def _episodes(real: Dataset) -> Iterator[Episodes]:
    """In parts of about a chunk."""
    if real.episodes is None:
        return
    parts = 1 + real.episodes.num_rows // CHUNK
    for ids in np.array_split(np.arange(len(real.episodes)), min(parts, len(real.episodes))):
        yield label_episodes(real.episodes.take(ids), synthetic=False)


def _one_step(real: Dataset, synthetic: RowSource, count: int) -> Iterator[Transitions]:
    """Real rows without episodes first (as many as fit), then synthetic ones."""
    room = min(count, len(synthetic))
    if real.rows is not None:
        yield Labelled(real, synthetic=False).read(0, _kept(real, room))
    for start in range(0, room, CHUNK):
        yield Labelled(synthetic, synthetic=True).read(start, min(start + CHUNK, room))


def _origin(facts: CardFacts) -> dict[str, Any]:
    return facts.model_dump(mode="json", include={"recipe", "parents", "verdicts"})
