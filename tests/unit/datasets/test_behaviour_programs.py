"""The programs of `datasets/`: which snapshots are taken, which are shipped, and what a missing extra says."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from synth_pipeline import envs
from synth_pipeline.envs import behaviours
from synth_pipeline.errors import ConfigError, MissingExtraError, UnknownNameError
from synth_pipeline.sources.catalog import Share

DATASETS = Path(__file__).resolve().parents[3] / "datasets"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # the programs set it; this puts it back afterwards


def program(name):
    spec = importlib.util.spec_from_file_location(name, DATASETS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pack(tmp_path, monkeypatch):
    module = program("pack_behaviours")
    monkeypatch.setattr(module, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(behaviours, "folder", lambda: tmp_path / "shipped")
    behaviours.recipe.cache_clear()
    yield module
    behaviours.recipe.cache_clear()


def training(folder, returns):
    """A folder as train_behaviour.py leaves it, for the pendulum (uniform actions: about -1,240)."""
    folder.mkdir()
    shapes = {"w0": (3, 256), "b0": (256,), "w1": (256, 256), "b1": (256,)}
    shapes |= {f"w_{head}": (256, 1) for head in ("mean", "log_std")} | {
        f"b_{head}": (1,) for head in ("mean", "log_std")
    }
    rng = np.random.default_rng(0)
    count = len(returns)
    arrays = {name: rng.normal(size=(count, *shape)).astype(np.float16) for name, shape in shapes.items()}
    np.savez(folder / "run.npz", environment_steps=np.arange(count) * 1000, **arrays)
    kinds = ("stochastic", "deterministic")
    scores = [
        {
            "environment_steps": 1000 * k,
            "episodes": 10,
            **{f"{kind}_return": value for kind in kinds},
            **{f"{kind}_std": 1.0 for kind in kinds},
            **{f"{kind}_length": 200.0 for kind in kinds},
        }
        for k, value in enumerate(returns)
    ]
    recipe = {"environment": "Pendulum-v1", "algorithm": "SAC", "network": "two layers", "snapshots": scores}
    recipe |= {"trained_with": {"seed": 0}, "scored_with": {"gymnasium": "1.4.0"}}
    (folder / "run.json").write_text(json.dumps(recipe))
    return folder / "run.npz"


class TestPack:
    def test_ships_the_best_and_an_even_spread_up_to_medium(self, pack, tmp_path):
        returns = [-1200.0] * 30 + [-800.0, -500.0, -100.0, -150.0]
        pack.pack(training(tmp_path / "run", returns), snapshots=6)
        recipe = behaviours.recipe("pendulum")
        steps = [snapshot.environment_steps for snapshot in recipe.snapshots]
        assert steps == [0, 8000, 15_000, 22_000, 30_000, 32_000]
        assert recipe.levels()["medium-replay"] == tuple(steps[:-1])
        assert recipe.levels()["expert"] == (32_000,)
        assert recipe.licence == "MIT"
        assert -1400 < recipe.random_return < -1100
        weights, before = behaviours.read_weights(tmp_path / "shipped" / "pendulum.npz"), tmp_path / "run" / "run.npz"
        np.testing.assert_array_equal(weights["w1"][1], behaviours.read_weights(before)["w1"][8])

    def test_stays_below_the_size_limit(self, pack, tmp_path):
        pack.pack(training(tmp_path / "run", [-1200.0] * 15 + [-800.0, -100.0]))
        assert (tmp_path / "shipped" / "pendulum.npz").stat().st_size <= pack.MAX_BYTES
        assert len(behaviours.recipe("pendulum").snapshots) > 6

    def test_without_a_medium_snapshot_only_expert_is_shipped(self, pack, tmp_path):
        pack.pack(training(tmp_path / "run", [-1200.0, -300.0, -100.0]))
        assert behaviours.recipe("pendulum").levels() == {"expert": (2000,)}
        assert len(behaviours.recipe("pendulum").snapshots) == 1

    def test_foreign_environment(self, pack, tmp_path):
        path = training(tmp_path / "run", [-100.0])
        recipe = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps(recipe | {"environment": "Ant-v5"}))
        with pytest.raises(ConfigError, match="not registered"):
            pack.pack(path)


class TestTrain:
    def test_snapshots_are_dense_at_first_and_end_with_the_last_step(self):
        steps = program("train_behaviour").snapshot_steps(1_000_000)
        assert steps[:3] == [1000, 10_000, 20_000]
        assert steps[-2:] == [950_000, 1_000_000]
        assert np.diff(steps).max() == 50_000
        assert steps == sorted(set(steps))

    @pytest.mark.parametrize(("total", "every", "steps"), [(1000, 400, [400, 800, 1000]), (800, 400, [400, 800])])
    def test_even_snapshots(self, total, every, steps):
        assert program("train_behaviour").snapshot_steps(total, every) == steps

    def test_a_short_training_still_has_a_snapshot(self):
        assert program("train_behaviour").snapshot_steps(500) == [500]

    @pytest.mark.skipif(
        importlib.util.find_spec("stable_baselines3") is not None, reason="needs an environment without the extra"
    )
    def test_the_missing_extra_is_named(self, tmp_path):
        with pytest.raises(MissingExtraError, match="train-behaviour"):
            program("train_behaviour").train("pendulum", 1000, tmp_path)

    def test_scores_name_every_field(self):
        parameters = behaviours.parameters("pendulum", behaviours.recipe("pendulum").levels()["expert"][0])
        entry = program("train_behaviour").score("pendulum", parameters, 6400, episodes=3)
        score = behaviours.SnapshotScore.parse(entry)
        assert score.stochastic_length == 200
        assert -700 < score.deterministic_return < 0


class TestReferences:
    def test_best_policies(self):
        best_share = program("reference_returns").best_share
        assert best_share(envs.make("toy-jumps")) is None
        assert best_share(envs.make("pointmaze-umaze")) == Share(behaviour="waypoint", noise=0.5)
        best = best_share(envs.make("hopper"))
        assert (best.environment_steps,) == behaviours.recipe("hopper").levels()["expert"]

    def test_without_noise(self):
        without_noise = program("reference_returns").without_noise
        assert without_noise(Share(behaviour="waypoint", noise=0.5)).noise == 0
        assert not without_noise(Share(behaviour="sac", environment_steps=1)).stochastic

    def test_measures_both_ends(self, monkeypatch):
        module = program("reference_returns")
        monkeypatch.setattr(module, "EPISODES", 3)
        table = module.reference_returns("pendulum")
        assert table["best"]["mean"] > table["random"]["mean"]
        assert {table[name]["episodes"] for name in ("random", "best", "best_without_noise")} == {3}
        with pytest.raises(UnknownNameError, match="pendulum"):
            module.reference_returns("pendulun")
