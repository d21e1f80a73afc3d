"""The programs behind `store.kill_resume` and `store.faults`, with few kills and faults."""

import importlib
from pathlib import Path

import pytest

from synth_pipeline.store import Plan


@pytest.fixture
def faults(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    return importlib.import_module("store_faults")


@pytest.mark.slow
def test_killed_runs_end_like_an_unbroken_one(faults, tmp_path):
    assert faults.kills_survived(tmp_path, count=3, shards=12, workers=(0,)) == 3


def test_any_failing_call_leaves_a_store_that_the_same_call_completes(faults, tmp_path):
    plan = Plan(num_rows=100, rows_per_shard=64, rows_per_chunk=32)
    assert faults.faults_survived(tmp_path, count=24, plan=plan) == 24


def test_a_difference_would_be_counted(faults, tmp_path, monkeypatch):
    """The programs compare something: rows that depend on the run end in other bytes."""
    runs = iter(range(100))
    rows_of = faults.rows_of

    def changing(task):
        rows = rows_of(task)
        return rows.with_columns(rewards=rows["rewards"] + next(runs))

    monkeypatch.setattr(faults, "rows_of", changing)
    plan = Plan(num_rows=100, rows_per_shard=64, rows_per_chunk=32)
    assert faults.faults_survived(tmp_path, count=2, plan=plan) == 0
