"""SynthER as a user runs it: trained, killed, resumed, aimed; one digest for any number of workers."""

import shutil

import command_line
import numpy as np
import pytest

from synth_pipeline import store
from synth_pipeline.runs import read_json

TRAINER = "generator.trainer={gradient_steps: 400, batch_size: 64, log_every: 20, checkpoint_seconds: 0.01}"
MEAN = (
    "{residual: none, regressor: {members: 2, width: 16, depth: 2, "
    "trainer: {gradient_steps: 100, batch_size: 64, log_every: 20, checkpoint_seconds: 0.01}}}"
)
SETTINGS = (
    TRAINER,
    "generator.network={width: 32, depth: 2}",
    "generator.sampler={num_steps: 6}",
    f"generator.dynamics={MEAN}",
    f"generator.rewards={MEAN}",
    "generator.condition=reward",
    "generate.rows_per_shard=16384",
)
TRAIN = ["train", "toy-linear-gaussian/random", "--rows", "4000", "-g", "synther", "-o", "runs/smoke"]
TRAIN += [part for setting in SETTINGS for part in ("--set", setting)]


@pytest.fixture(scope="module")
def fitted(smoke, once):
    """On the data that the smoke run collected."""
    trained = once("synther", *TRAIN, data=smoke.folder / "data")
    assert trained.said.code == 0, trained.said.err
    return trained


def test_training_says_what_it_decided_and_leaves_no_state_behind(fitted):
    assert "dynamics: what is left looks like model error, so the mean is taken" in fitted.said.out
    assert sorted(path.name for path in (fitted.run / "model").iterdir()) == ["generator", "metrics.jsonl"]


@pytest.mark.slow
def test_one_and_two_workers_write_one_digest(fitted, shell, tmp_path):
    digests = []
    for workers in ("1", "2"):
        run = tmp_path / f"run{workers}"
        shutil.copytree(fitted.run, run)
        said = shell("generate", str(run), "-n", "40000", "--workers", workers)
        assert said.code == 0, said.err
        assert "6 network calls a row" in said.out
        digests.append(store.open(run / "store").digest())
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_rows_are_aimed_and_carry_the_weights_that_undo_it(fitted, shell, tmp_path):
    runs = [tmp_path / name for name in ("free", "aimed")]
    for run, aim in zip(runs, ([], ["--where", "reward"]), strict=True):
        shutil.copytree(fitted.run, run)
        said = shell("generate", str(run), "-n", "16384", *aim)
        assert said.code == 0, said.err
    free, aimed = (store.open(run / "store").read_all() for run in runs)
    assert (free["weight"] == 1).all()
    assert len(np.unique(aimed["weight"])) == 2
    near, anywhere = (-np.sum(rows["observations"] ** 2, axis=1).mean() for rows in (aimed, free))
    assert near > anywhere
    assert store.open(runs[1] / "store").digest() != store.open(runs[0] / "store").digest()
    said = shell("generate", str(runs[0]), "-n", "16384", "--where", "reward")
    assert said.code == 4  # the store holds rows that were not aimed


@pytest.mark.parametrize("where", ["near_terminal", "rewrad"])
def test_an_aim_that_was_not_learned_is_refused(fitted, shell, tmp_path, where):
    shutil.copytree(fitted.run, tmp_path / "run")
    said = shell("generate", str(tmp_path / "run"), "--where", where)
    assert said.code == 2
    assert where in said.err
    assert not (tmp_path / "run" / "store").exists()


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_to_the_same_model(fitted, tmp_path):
    """Killed where the state of each training has been written for the first time."""
    shutil.copytree(fitted.folder / "data", tmp_path / "data")
    states = [f"runs/smoke/model/training-*-{name}.safetensors" for name in ("dynamics", "rewards", "rows")]
    said = command_line.run_killed_at(states, *TRAIN, folder=tmp_path)
    assert said.code == 0, said.err
    assert "3 attempts were killed\n" in said.out
    assert "goes on from its last checkpoint" in said.out
    ours, theirs = (read_json(made / "runs/smoke/model/generator/state.json") for made in (tmp_path, fitted.folder))
    assert ours["arrays"] == theirs["arrays"]
