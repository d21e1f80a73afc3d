"""The number of workers changes nothing but the time: one digest, and files of equal bytes."""

import shutil

import pytest
from command_line import hashes

from synth_pipeline import stages, store
from synth_pipeline.run_config import open_run

SIDECAR = ("sidecar.json",)  # seconds, host and process stand outside the data
ROWS_PER_SHARD = 16_384


@pytest.mark.slow
def test_generated_with_one_and_with_two_workers(smoke, tmp_path):
    """Three shards of the copula control; how they are cut is left open, so that the plan is compared, too."""
    made = {}
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        shutil.copytree(smoke.run, folder, ignore=shutil.ignore_patterns("store", "validation", "export"))
        settings = [f"generate.rows={3 * ROWS_PER_SHARD - 100}", "generate.rows_per_shard=null"]
        stages.generate(*open_run(folder, settings), workers=workers)
        made[workers] = store.open(folder / "store")
    assert made[1].plan.num_shards == 3
    assert made[1].plan == made[2].plan
    assert made[1].digest() == made[2].digest()
    assert hashes(tmp_path / "1" / "store", but=SIDECAR) == hashes(tmp_path / "2" / "store", but=SIDECAR)
    assert open_run(tmp_path / "1")[1].generate.rows_per_shard == ROWS_PER_SHARD  # what was chosen is kept


@pytest.mark.parametrize(
    ("dataset", "rows", "shards"), [("toy-linear-gaussian/random", 33_000, 3), ("pendulum/medium-replay", 2_500, 5)]
)
def test_collected_with_two_workers_and_with_one(tmp_path, monkeypatch, dataset, rows, shards):
    made = {}
    for workers in (2, 1):
        monkeypatch.setenv("SYNTHPIPE_DATA", str(tmp_path / str(workers)))
        made[workers] = store.open(stages.collect(dataset, rows=rows, workers=workers))
        made[workers].verify()
    assert made[1].plan.num_shards == shards
    assert made[1].digest() == made[2].digest()
    assert hashes(tmp_path / "1", but=SIDECAR) == hashes(tmp_path / "2", but=SIDECAR)
