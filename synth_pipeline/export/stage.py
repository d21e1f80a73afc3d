"""The export of a run: begun under a name of its own, noted when it is whole, cleared when it was cut short."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from synth_pipeline.data.rows import Dataset
from synth_pipeline.export.augmented import default_id, discard, free_id, write_augmented
from synth_pipeline.export.card import CardFacts
from synth_pipeline.run_config import LABELS, ExportSettings
from synth_pipeline.runs import Run
from synth_pipeline.store import Store
from synth_pipeline.tracking import duration, say, short

CARD_COLUMNS = ("metric", "value", "threshold", "passed")
BEGUN = "begun"  # key of an export that was begun and did not end


def written(run: Run, key: str) -> dict[str, Any] | None:
    """The record of the export with this key, when every file of it is there."""
    record, folder = run.finished("export", key), run.folder("export")
    return record if record and all((folder / file).exists() for file in record["files"].values()) else None


def write_export(
    run: Run,
    key: str,
    settings: ExportSettings,
    *,
    real: Dataset,
    fingerprint: str,
    synthetic: Store,
    card: Mapping[str, Any],
    allow_failed: bool = False,
) -> None:
    """Write the augmented dataset of a run, and note that it is there.

    Args:
        run: The run; its lock is held.
        key: Hash of everything that the export follows from.
        settings: Name and size.
        real: The real dataset.
        fingerprint: Its hash.
        synthetic: The store.
        card: The scorecard.
        allow_failed: Whether failed rules are only said.
    """
    folder = run.folder("export")
    if unfinished := run.finished("export", key) or run.finished("export", BEGUN):
        discard(folder, unfinished["minari_id"])
    labels = synthetic.config.get(LABELS, ())
    method = synthetic.config["generator"]["kind"] + (f"-{LABELS}" if labels else "")
    wanted = settings.minari_id or default_id(synthetic.spec, method)
    dataset_id = free_id(folder, wanted)
    say("export", f"{len(real):,} real rows and {len(synthetic):,} synthetic ones as {dataset_id}")
    begin = time.perf_counter()
    run.finish("export", BEGUN, {"minari_id": dataset_id})
    facts = CardFacts(
        title=dataset_id,
        spec=synthetic.spec,
        rows={"real rows": len(real), "synthetic rows": len(synthetic)},
        recipe={
            "generator": synthetic.config["generator"],
            **({LABELS: labels} if labels else {}),
            "seed": synthetic.plan.seed,
            **card["provenance"],
        },
        parents={
            real.spec.dataset_id: fingerprint,
            **{f"store before relabelling {number}": step["parent"] for number, step in enumerate(labels, 1)},
            "store": synthetic.digest(),
        },
        verdicts=tuple({key: rule[key] for key in CARD_COLUMNS} for rule in card["verdict"]["rules"]),
        allow_failed=allow_failed,
    )
    files = write_augmented(
        dataset_id, real=real, synthetic=synthetic, one_step=settings.one_step, folder=folder, facts=facts
    )
    run.finish("export", key, {"minari_id": dataset_id, "files": files, "digest": synthetic.digest()})
    say("export", f"read back: identical, {duration(time.perf_counter() - begin)}")
    for label, file in files.items():
        say("", f"{label:<7} {short(folder / file)}")
