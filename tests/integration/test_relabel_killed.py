"""`synthpipe relabel` in processes: killed and typed again, with two workers or none: one digest."""

import command_line
import small_runs

from synth_pipeline import relabelling, stages, store
from synth_pipeline.relabelling import choose_labels, relabel
from synth_pipeline.run_config import RunConfig
from synth_pipeline.runs import Run

ROWS = 16_384 + 100  # two shards
# Kills the command from a worker, once, in the second shard, when the first is committed.
DEADLY = """
import os, signal, time

def labels(columns):
    if len(columns["rewards"]) == 100 and not os.path.exists("killed"):
        while not os.path.exists("second/store/manifest/0.json"):
            time.sleep(0.01)
        open("killed", "w").close()
        os.kill(int(open("pid").read()), signal.SIGKILL)
        time.sleep(60)
    return columns["rewards"] + columns["actions"][:, 0]
"""


def test_killed_and_typed_again_with_two_workers_is_what_one_process_makes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_runs.save_rows(tmp_path / "mine.npz")
    monkeypatch.setattr(stages, "fill", small_runs.fill_here)
    values = small_runs.CONFIGURATION | {"generate": {"rows": ROWS, "rows_per_shard": 16_384, "micro_batch": 16_384}}
    run, config = Run(tmp_path / "first"), RunConfig.parse(values)
    stages.train(run, config)
    stages.generate(run, config)
    (tmp_path / "labels.py").write_text(DEADLY)
    command = ("relabel", "first", "-o", "second", "--with", "labels.py:labels", "--workers", "2")
    killed = command_line.start(*command, folder=tmp_path)
    (tmp_path / "pid").write_text(str(killed.pid))
    killed.communicate(timeout=60)
    assert killed.returncode == -9
    assert store.open("second/store").num_missing == 1
    said = command_line.run(*command, folder=tmp_path)
    assert said.code == 0, said.err
    assert "going on: 16,384 of 16,484 rows are there" in said.out
    assert "synthpipe validate second" in said.out
    monkeypatch.setattr(relabelling, "fill", small_runs.fill_here)
    relabel(run, config, Run(tmp_path / "third"), choose_labels(run, config, "labels.py:labels", None))
    assert store.open("third/store").digest() == store.open("second/store").digest()
