"""Trains SAC behaviour policies, or goes on where a training stopped, and keeps scored snapshots of the actor.

    pip install "synth-pipeline[train-behaviour]"
    python datasets/train_behaviour.py halfcheetah --steps 1000000 --out runs/halfcheetah
    python datasets/pack_behaviours.py runs/halfcheetah          # choose the snapshots that are shipped

The same command resumes. `OUT/<environment>.npz` and `.json` hold the snapshots in the shipped format; `OUT/resume.pt`
holds what a resumed training needs (network and optimiser state, replay buffer) and is never shipped.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is imported: batches of 16 rows are too small to share

import argparse
import io
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from synth_pipeline import envs, runs
from synth_pipeline.envs import behaviours
from synth_pipeline.envs.rollout import rollout
from synth_pipeline.errors import MissingExtraError, SynthPipelineError
from synth_pipeline.seeding import Stage
from synth_pipeline.tracking import Progress, say

# Small batches with a large step size learn most per second on one core (OpenAI Spinning Up trains SAC this way).
SETTINGS: dict[str, Any] = {"batch_size": 128, "learning_rate": 1e-3, "gamma": 0.99, "tau": 0.005, "ent_coef": "auto"}
BLOCK = 1000
LICENCE = "MIT (trained by the project)"


def snapshot_steps(total: int, every: int | None = None) -> list[int]:
    """Training steps that a snapshot is taken at: each `every` steps, by default dense where returns rise fastest."""
    if every is not None:
        return [*range(every, total, every), total]
    ranges = (range(0, 100_000, 10_000), range(100_000, 300_000, 20_000), range(300_000, total + 1, 50_000))
    steps = {BLOCK, total, *(step for part in ranges for step in part if step)}
    return sorted(step for step in steps if step <= total)


def _stable_baselines() -> Any:
    try:
        import stable_baselines3
    except ImportError:
        raise MissingExtraError(
            "training behaviour policies needs the package stable-baselines3",
            fix='pip install "synth-pipeline[train-behaviour]"',
        ) from None
    return stable_baselines3


def make_model(environment: str, steps: int, seed: int) -> Any:
    """A fresh SAC learner with the shipped architecture: two layers of 256 ReLU, raw observations."""
    algorithms = _stable_baselines()
    import torch

    torch.set_num_threads(1)
    return algorithms.SAC(
        "MlpPolicy",
        envs.make(environment).make(),
        policy_kwargs={"net_arch": [256, 256], "activation_fn": torch.nn.ReLU},
        learning_starts=min(10_000, steps // 20),
        buffer_size=1_000_000,
        seed=seed,
        device="cpu",
        **SETTINGS,
    )


def actor_parameters(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The actor's arrays in the shipped format: weights `[in, out]`, float16."""
    actor = model.actor
    layers = {"0": actor.latent_pi[0], "1": actor.latent_pi[2], "_mean": actor.mu, "_log_std": actor.log_std}
    arrays = {}
    for name, layer in layers.items():
        arrays[f"w{name}"] = layer.weight.detach().numpy().T.astype(np.float16)
        arrays[f"b{name}"] = layer.bias.detach().numpy().astype(np.float16)
    return arrays


def score(environment: str, arrays: dict[str, np.ndarray[Any, Any]], steps: int, episodes: int = 10) -> dict[str, Any]:
    """One entry of the JSON beside the weights, measured with the float16 weights."""
    model = envs.make(environment)
    bounds = {"low": model.spec.action.low, "high": model.spec.action.high}
    entry: dict[str, Any] = {"environment_steps": steps, "episodes": episodes}
    for kind in ("stochastic", "deterministic"):
        actor = behaviours.SacActor(arrays, **bounds, stochastic=kind == "stochastic")
        found = rollout(model, actor, episodes=episodes, seed=steps, stage=Stage.EVALUATE, lanes=episodes)
        entry[f"{kind}_return"] = round(float(found.returns.mean()), 1)
        entry[f"{kind}_std"] = round(float(found.returns.std()), 1)
        entry[f"{kind}_length"] = round(float(found.lengths.mean()), 1)
    return entry


class Snapshots:
    """The growing `<environment>.npz` and `.json` of one training run.

    Args:
        out: Folder of the run.
        environment: Name of the environment.
        seed: Seed of the training, noted in the JSON.
    """

    def __init__(self, out: Path, environment: str, seed: int) -> None:
        self.environment = environment
        self.weights, self.scores = out / f"{environment}.npz", out / f"{environment}.json"
        versions = {name: version(name) for name in ("mujoco", "gymnasium")}
        self.recipe: dict[str, Any] = {
            "environment": envs.make(environment).spec.gymnasium_id,
            "algorithm": "SAC",
            "network": "2 x 256 ReLU, tanh-squashed Gaussian, log std clipped to [-20, 2]",
            "licence": LICENCE,
            "trained_with": {**versions, "stable-baselines3": version("stable-baselines3"), **SETTINGS, "seed": seed},
            "scored_with": versions,
            "snapshots": [],
        }
        if self.scores.exists():
            self.recipe["snapshots"] = json.loads(self.scores.read_text(encoding="utf-8"))["snapshots"]

    def add(self, model: Any) -> dict[str, Any]:
        """Score the actor as it is now and append it; returns the scores."""
        arrays = actor_parameters(model)
        entry = score(self.environment, arrays, model.num_timesteps)
        stacked = {name: array[None] for name, array in arrays.items()}
        stacked["environment_steps"] = np.asarray([model.num_timesteps])
        kept = [s for s in self.recipe["snapshots"] if s["environment_steps"] < model.num_timesteps]
        if kept:
            before = behaviours.read_weights(self.weights)
            stacked = {name: np.concatenate([before[name][: len(kept)], new]) for name, new in stacked.items()}
        self.recipe["snapshots"] = [*kept, entry]
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **stacked)  # type: ignore[arg-type]
        runs.write_bytes(self.weights, buffer.getvalue())
        runs.write_json(self.scores, self.recipe)
        return entry


def save_state(model: Any, path: Path) -> None:
    """Everything that a resumed training needs, as plain tensors in one file, replaced at one stroke."""
    import torch

    buffer = model.replay_buffer
    used = buffer.buffer_size if buffer.full else buffer.pos
    arrays = {name: array for name, array in vars(buffer).items() if isinstance(array, np.ndarray)}
    state = {
        "learner": model.get_parameters(),
        "log_ent_coef": model.log_ent_coef.detach(),
        "replay": {name: torch.from_numpy(array[:used]) for name, array in arrays.items()},
        "position": {"pos": buffer.pos, "full": buffer.full, "steps": model.num_timesteps},
    }
    staged = path.with_suffix(".partial")
    torch.save(state, staged)
    os.replace(staged, path)


def load_state(model: Any, path: Path) -> None:
    """Put a saved state into a fresh learner; the simulator itself starts a new episode.

    The file is a pickle, which this project reads nowhere else: it is written by the same program on the same machine,
    is never shipped, and `weights_only=True` admits tensors and plain containers, no code.
    """
    import torch

    state = torch.load(path, weights_only=True)
    model.set_parameters(state["learner"], device="cpu")
    model.log_ent_coef.data.copy_(state["log_ent_coef"])
    buffer, position = model.replay_buffer, state["position"]
    for name, kept in state["replay"].items():
        getattr(buffer, name)[: len(kept)] = kept.numpy()
    buffer.pos, buffer.full = position["pos"], position["full"]
    model.num_timesteps = position["steps"]


def train(environment: str, steps: int, out: Path, *, seed: int = 0, every: int | None = None) -> None:
    """Train to `steps` environment steps, saving a snapshot and the state at each of `snapshot_steps`.

    Raises:
        UnknownNameError: For an environment that does not exist.
        MissingExtraError: When stable-baselines3 is not installed.
    """
    model = make_model(environment, steps, seed)
    snapshots, resume = Snapshots(out, environment, seed), out / "resume.pt"
    if resume.exists():
        load_state(model, resume)
        say("resume", f"at {model.num_timesteps:,} of {steps:,} steps")
    due = [step for step in snapshot_steps(steps, every) if step > model.num_timesteps]
    if not due:
        say("train", f"nothing to do: {out} holds {model.num_timesteps:,} steps already")
    with Progress("train", steps, "steps", start=model.num_timesteps) as progress:
        for stop in due:
            while model.num_timesteps < stop:
                before = model.num_timesteps
                model.learn(min(BLOCK, stop - before), reset_num_timesteps=False)
                progress.advance(model.num_timesteps - before)
            entry = snapshots.add(model)
            save_state(model, resume)
            text = f"{stop:,} steps: return {entry['stochastic_return']:,} sampled, {entry['deterministic_return']:,}"
            say("snapshot", f"{text} mean action  ({progress.rate:.0f} steps/s)")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", help=", ".join(envs.ENVIRONMENTS.names()))
    parser.add_argument("--steps", type=int, default=1_000_000, help="environment steps in all")
    parser.add_argument("--out", type=Path, required=True, help="folder of this training run")
    parser.add_argument("--every", type=int, help="steps between snapshots; by default dense at first")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        train(options.environment, options.steps, options.out, seed=options.seed, every=options.every)
    except SynthPipelineError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
