"""Filling: only what is missing is made, what a crash left is tidied, what is damaged is made again."""

import numpy as np
import pytest
import toy_data

from synth_pipeline import store
from synth_pipeline.data.containers import Transitions
from synth_pipeline.errors import StoreError
from synth_pipeline.run_config import RunConfig
from synth_pipeline.runs import Run
from synth_pipeline.scale import fill as filling
from synth_pipeline.scale.fill import fill, filled_store, repair_shards
from synth_pipeline.seeding import Stage
from synth_pipeline.store import Plan, Schema

PLAN = Plan(num_rows=70, rows_per_shard=30, rows_per_chunk=30, seed=2)


@pytest.fixture
def target(tmp_path, monkeypatch):
    """An empty store of three shards; tasks run in this process."""

    def here(function, tasks, **options):
        return ((task, function(task)) for task in tasks)

    monkeypatch.setattr(filling, "map_tasks", here)
    monkeypatch.chdir(tmp_path)
    return store.create(tmp_path / "run" / "store", Schema(kind="transitions", spec=toy_data.SPEC), PLAN, {"a": 1})


def make(target, made=None):
    def shard(task):
        rng = task.rng(Stage.GENERATE)
        columns = {f.name: rng.random((task.rows, *f.shape)).astype(f.dtype) for f in target.schema.columns}
        if made is not None:
            made.append(task.shard)
        return store.write_shard(target.url, task, Transitions(columns))

    return shard


def test_every_shard_is_made_once_and_the_line_says_how_many(target, capsys):
    made = []
    fill(target, make(target, made), rows=70, label="generate", workers=1)
    assert made == [0, 1, 2]
    assert target.finalised
    line = capsys.readouterr().out
    assert line.startswith("generate   70 rows in 3 shards, ")
    assert line.endswith(": run/store\n")


def test_what_is_committed_stays_when_a_task_fails(target, capsys):
    made = []

    def failing(task):
        if task.shard == 2:
            raise StoreError("broken")
        return make(target, made)(task)

    with pytest.raises(StoreError, match="broken"):
        fill(target, failing, rows=70, label="generate", workers=1)
    assert not target.finalised
    fill(target, make(target, made), rows=70, label="generate", workers=1)
    assert made == [0, 1, 2]
    assert "going on: 60 of 70 rows are there" in capsys.readouterr().out


def test_a_writer_that_died_at_the_very_end_is_tidied_up_after(target, tmp_path, capsys):
    shard = make(target)
    for number in range(3):
        shard(PLAN.task(number))
    target.refresh()
    assert target.complete
    assert not target.finalised
    digest = target.digest()
    fill(target, shard, rows=70, label="generate", workers=1)
    assert target.finalised
    assert target.digest() == digest
    assert not (tmp_path / "run" / "store" / "manifest").exists() or not list(
        (tmp_path / "run" / "store" / "manifest").iterdir()
    )
    assert "all there before" in capsys.readouterr().out


def test_damaged_shards_are_made_again_with_the_same_bytes(target, tmp_path, capsys):
    fill(target, make(target), rows=70, label="generate", workers=1)
    digest, path = target.digest(), tmp_path / "run" / "store" / "rewards" / "c.1"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1])
    made = []
    repair_shards(target, label="generate")
    fill(target, make(target, made), rows=70, label="generate", workers=1)
    assert made == [1]
    assert path.read_bytes() == sound
    assert target.digest() == digest
    assert "1 damaged shard found in run/store" in capsys.readouterr().out


def test_a_store_that_is_absent_or_not_filled_names_the_command(target, tmp_path):
    with pytest.raises(StoreError, match="nothing was generated") as caught:
        filled_store(Run(tmp_path / "another"), RunConfig(dataset="mine.npz"))
    assert caught.value.fix == f"synthpipe generate {tmp_path / 'another'}"
    make(target)(PLAN.task(1))
    with pytest.raises(StoreError, match="is not complete") as caught:
        filled_store(Run(tmp_path / "run"), RunConfig(dataset="mine.npz"))
    assert caught.value.found == "2 of 3 shards are missing"
    fill(target, make(target), rows=70, label="generate", workers=1)
    assert len(filled_store(Run(tmp_path / "run"), RunConfig(dataset="mine.npz"))) == 70
    assert np.isfinite(filled_store(Run(tmp_path / "run"), RunConfig(dataset="mine.npz")).read_all()["rewards"]).all()
