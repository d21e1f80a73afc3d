"""The dataset card: what an exported dataset is, how it was made and judged, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field as Setting

from synth_pipeline.config import Config
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.errors import GateError
from synth_pipeline.runs import write_bytes

LIMITS = (
    "Synthetic rows are a model's estimate of the dynamics, not measurements; the validation above says how close.",
    "Reading neighbouring rows as steps of one episode is right only where neither `terminals` nor `timeouts` is set.",
    "Scores of agents trained here belong on the real environment, never on synthetic data.",
)


class CardFacts(Config):
    """What the card says.

    A verdict is a row with at least `metric` and `passed`; every further key becomes a column of the table.
    """

    title: str = Setting(description="heading of the card")
    spec: DatasetSpec = Setting(description="columns, environment, references, licence of the source")
    rows: dict[str, int] = Setting(description="what there is how often, e.g. {'real rows': 10, 'synthetic rows': 90}")
    recipe: dict[str, Any] = Setting(description="generator, its configuration, seeds: plain JSON")
    parents: dict[str, str] = Setting(description="what it was made from: name -> hash")
    verdicts: tuple[dict[str, Any], ...] = Setting(description="validation: one row a metric")
    allow_failed: bool = Setting(False, description="export in spite of a failed or missing validation")
    minari_id: str | None = Setting(None, description="id of the Minari dataset, if one was written")
    flat_file: str | None = Setting(None, description="name of the flat HDF5 file, if one was written")
    limits: tuple[str, ...] = Setting(LIMITS, description="what the data must not be used for, one sentence each")


def write_card(path: Path, facts: CardFacts) -> Path:
    """Write the card as Markdown, atomically.

    Args:
        path: The file, usually `README.md` of the export; an older card is replaced.
        facts: What it says.

    Returns:
        `path`.

    Raises:
        GateError: When the data failed validation or was never validated, and `allow_failed` is not set.
    """
    warning = _warning(facts)
    sections = [
        f"# {facts.title}",
        warning,
        _what(facts),
        _which_file(facts),
        _load(facts),
        "## Columns\n\n" + _table(_columns(facts.spec)),
        "## Recipe\n\n```json\n" + json.dumps(facts.recipe, indent=1, sort_keys=True, allow_nan=False) + "\n```",
        "## Parents\n\n" + _table([{"name": name, "hash": f"`{hashed}`"} for name, hashed in facts.parents.items()]),
        "## Validation\n\n" + (_table(_verdicts(facts)) if facts.verdicts else "This data was not validated."),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in facts.limits),
    ]
    write_bytes(path, ("\n\n".join(section for section in sections if section) + "\n").encode())
    return path


def _warning(facts: CardFacts) -> str:
    failed = [str(row["metric"]) for row in facts.verdicts if not row["passed"]]
    if facts.verdicts and not failed:
        return ""
    reason = f"failed validation ({', '.join(failed)})" if failed else "was never validated"
    if not facts.allow_failed:
        raise GateError(
            f"'{facts.title}' {reason}",
            accepted="data that passed every gate",
            fix="generate better data, or pass --allow-failed and let the card say so",
        )
    return (
        f"> **Warning: this data {reason}** and was exported on request (`--allow-failed`).\n"
        "> Do not report results on it without saying so."
    )


def _what(facts: CardFacts) -> str:
    spec = facts.spec
    counts = ", ".join(f"{number:,} {name}" for name, number in facts.rows.items())
    lines = [
        f"An offline-RL dataset made from `{spec.dataset_id}` by synth-pipeline: {counts}.",
        "",
        f"- Environment: {f'`{spec.environment}`' if spec.environment else 'no simulator known'}",
        f"- Time limit: {f'{spec.horizon:,} steps' if spec.horizon else 'unknown'}",
        f"- Reference returns: {_references(spec)}",
        f"- Licence of the source: {spec.licence or 'not stated; ask its authors before you share this'}",
    ]
    return "\n".join(lines)


def _references(spec: DatasetSpec) -> str:
    if spec.reference_min is None or spec.reference_max is None:
        return "none, so scores cannot be normalised"
    return f"{spec.reference_min:g} (score 0, random policy) and {spec.reference_max:g} (score 100)"


def _which_file(facts: CardFacts) -> str:
    lines = ["## Which file to train on", ""]
    if facts.flat_file:
        lines.append(
            f"- **Single transitions** (TD3+BC, IQL, CQL, ...): `{facts.flat_file}`. Every row carries its own next "
            "observation; `infos/synthetic` tells real from synthetic."
        )
    if facts.minari_id:
        lines.append(
            f"- **Trajectories** (Decision Transformer, Diffuser, ...): the Minari dataset `{facts.minari_id}`. "
            "Episodes of a single step in it are a sample of the synthetic transitions, for inspection."
        )
    return "\n".join(lines)


def _load(facts: CardFacts) -> str:
    blocks = []
    if facts.minari_id:
        blocks += [_snippet("Minari", _MINARI, facts)]
    if facts.flat_file:
        blocks += [
            _snippet("CORL-style dictionary", _FLAT, facts),
            _snippet("d3rlpy (its own `get_minari` shifts observations)", _FLAT + _D3RLPY, facts),
            _snippet("TorchRL (its own Minari reader returns zeros)", _FLAT + _TORCHRL, facts),
        ]
    return "\n\n".join(["## How to load it", "Paths are from the folder of this card.", *blocks]) if blocks else ""


def _snippet(name: str, code: str, facts: CardFacts) -> str:
    text = code.replace("FLAT_FILE", str(facts.flat_file)).replace("MINARI_ID", str(facts.minari_id))
    return f"{name}:\n\n```python\n{text.strip()}\n```"


_MINARI = """
import os

import minari

os.environ["MINARI_DATASETS_PATH"] = "minari"
dataset = minari.load_dataset("MINARI_ID")
for episode in dataset:
    observations, next_observations = episode.observations[:-1], episode.observations[1:]
"""
_FLAT = """
import h5py

with h5py.File("FLAT_FILE", "r") as file:
    names = ("observations", "actions", "rewards", "next_observations", "terminals")
    data = {name: file[name][:] for name in names}
"""
_CONVERT = """
from synth_pipeline.data.containers import Transitions
from synth_pipeline.export.converters import CONVERTER

data["terminations"] = data.pop("terminals")
dataset = CONVERTER(Transitions(data))
"""
_D3RLPY = _CONVERT.replace("CONVERTER", "to_d3rlpy")
_TORCHRL = (
    _CONVERT.replace("CONVERTER", "to_torchrl")
    + """
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(len(dataset)), batch_size=256)
buffer.extend(dataset)
"""
)


def _columns(spec: DatasetSpec) -> list[dict[str, Any]]:
    return [{"name": f"`{f.name}`", "shape": str(f.shape), "kind": f.kind, "type": str(f.dtype)} for f in spec.fields]


def _verdicts(facts: CardFacts) -> list[dict[str, Any]]:
    return [{**row, "passed": "yes" if row["passed"] else "**no**"} for row in facts.verdicts]


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([_cell(row.get(name)) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|").replace("\n", " ")
