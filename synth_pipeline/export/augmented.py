"""The augmented dataset: real episodes and synthetic rows as one Minari dataset, one flat file, and a card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.rows import Dataset, RowSource
from synth_pipeline.export.card import CardFacts, write_card
from synth_pipeline.export.d4rl_hdf5 import Labelled, label_episodes, write_flat
from synth_pipeline.export.minari import MAX_ONE_STEP, write_minari

CHUNK = 16_384


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
        What was written: label -> path.

    Raises:
        ExportError: When a target exists or does not read back.
        ResourceError: When the disk is full; nothing half-written stays.
    """
    spec = real.spec
    metadata = {"description": f"{spec.dataset_id} augmented by {facts.recipe['generator']['kind']}", **_origin(facts)}
    flat = folder / f"{dataset_id.replace('/', '-')}.hdf5"
    minari = write_minari(
        dataset_id,
        spec=spec,
        episodes=_episodes(real),
        one_step=_one_step(real, synthetic, one_step),
        root=folder / "minari",
        metadata=metadata,
    )
    write_flat(
        flat,
        [Labelled(real, synthetic=False), Labelled(synthetic, synthetic=True)],
        spec=synthetic.spec,
        metadata=metadata,
    )
    facts = facts.replace(minari_id=dataset_id, flat_file=flat.name)
    card = write_card(flat.with_suffix(".md"), facts)
    return {"minari": str(minari), "flat": str(flat), "card": str(card)}


def _episodes(real: Dataset) -> Iterator[Episodes]:
    if real.episodes is not None:
        yield label_episodes(real.episodes, synthetic=False)


def _one_step(real: Dataset, synthetic: RowSource, count: int) -> Iterator[Transitions]:
    """Real rows without episodes first (as many as fit), then synthetic ones."""
    room = min(count, len(synthetic))
    if real.rows is not None:
        kept = min(len(real.rows), MAX_ONE_STEP - room)
        yield Labelled(real, synthetic=False).read(0, kept)
    for start in range(0, room, CHUNK):
        yield Labelled(synthetic, synthetic=True).read(start, min(start + CHUNK, room))


def _origin(facts: CardFacts) -> dict[str, Any]:
    return facts.model_dump(mode="json", include={"recipe", "parents", "verdicts"})
