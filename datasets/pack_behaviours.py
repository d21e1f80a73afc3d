"""Chooses the snapshots that the project ships: as many as fit, so that every level can be made from them.

    python datasets/pack_behaviours.py runs/halfcheetah

Reads every `<name>.npz` + `<name>.json` of a folder of trainings (see train_behaviour.py) and writes
`datasets/behaviours/<environment>.npz` and `.json`. Shipped are the best snapshot and, evenly spread in training
time, those up to `medium` (`behaviours.Recipe.levels` defines the levels). The return of uniform actions is measured.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is imported: batches of 16 rows are too small to share

import argparse
import io
import sys
from pathlib import Path

import numpy as np

from synth_pipeline import envs, runs
from synth_pipeline.data.fields import Array
from synth_pipeline.envs import behaviours
from synth_pipeline.envs.behaviours import Recipe
from synth_pipeline.envs.rollout import RandomActor, rollout
from synth_pipeline.errors import ConfigError, SynthPipelineError
from synth_pipeline.seeding import Stage
from synth_pipeline.tracking import say

SHIPPED = Path(__file__).resolve().parent / "behaviours"
MAX_SNAPSHOTS, MAX_BYTES = 12, 1_500_000
LICENCE = "MIT"


def choose(recipe: Recipe, count: int) -> list[int]:
    """Indices of at most `count` snapshots: the best, and the rest evenly over those up to medium."""
    until_medium = len(recipe.levels().get("medium-replay", ()))
    spread = np.linspace(0, until_medium - 1, min(count - 1, until_medium)).round().astype(int)
    return sorted({*spread.tolist(), recipe.best})


def compressed(weights: dict[str, Array], chosen: list[int]) -> bytes:
    """The chosen snapshots as the bytes of an .npz file, float16."""
    buffer = io.BytesIO()
    arrays = {name: weights[name][chosen].astype(np.float16) for name in behaviours.PARAMETERS}
    np.savez_compressed(buffer, environment_steps=weights["environment_steps"][chosen], **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def read_training(path: Path) -> tuple[str, Recipe]:
    """Name in the environment registry, and the recipe with the measured return of uniform actions."""
    values = runs.read_json(path)
    models = [envs.make(name) for name in envs.ENVIRONMENTS.names()]
    matching = [model for model in models if model.spec.gymnasium_id == values["environment"]]
    if not matching:
        raise ConfigError(f"'{path}' was trained on an environment that is not registered", found=values["environment"])
    actor = RandomActor(matching[0].spec.action)
    # The address at which reference_returns.py measures the same number.
    uniform = rollout(matching[0], actor, episodes=100, seed=0, stage=Stage.EVALUATE, address=(0,))
    measured = {"licence": LICENCE, "random_return": round(float(uniform.returns.mean()), 1)}
    return matching[0].spec.name, Recipe.parse({**values, **measured}, where=str(path))


def pack(weights_path: Path, snapshots: int = MAX_SNAPSHOTS) -> None:
    """Write one environment's shipped pair of files, with at most so many snapshots.

    Raises:
        ConfigError: When the training's JSON is missing or of another form.
        SourceError: When the weights are not readable.
    """
    environment, recipe = read_training(weights_path.with_suffix(".json"))
    weights = behaviours.read_weights(weights_path)
    for count in range(max(2, min(snapshots, MAX_SNAPSHOTS)), 1, -1):
        chosen = choose(recipe, count)
        data = compressed(weights, chosen)
        if len(data) <= MAX_BYTES:
            break
    picked = recipe.replace(snapshots=[recipe.snapshots[i].model_dump() for i in chosen])
    runs.write_bytes(SHIPPED / f"{environment}.npz", data)
    runs.write_json(SHIPPED / f"{environment}.json", picked.model_dump())
    say(environment, f"{len(chosen)} of {len(recipe.snapshots)} snapshots, {len(data) / 1e6:.2f} MB")
    for level, steps in picked.levels().items():
        say("", f"{level}: {', '.join(f'{step:,}' for step in steps)}")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", help="folder with <name>.npz and <name>.json")
    parser.add_argument("--snapshots", type=int, default=MAX_SNAPSHOTS, help="at most so many")
    options = parser.parse_args()
    try:
        for folder in options.folder:
            for path in sorted(folder.glob("*.npz")):
                pack(path, options.snapshots)
    except SynthPipelineError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
