"""What happens the second time: nothing to do, killed runs that go on, more rows, other settings, damage."""

import random
import shutil
import sys

import command_line
import pytest
from command_line import DATASET, FLAT, NAME, STAGES, contents, hashes

from synth_pipeline import store
from synth_pipeline.runs import read_json

VOLATILE = ("environment.json", "sidecar.json", "metrics.jsonl", "state.json", "scorecard.json")
DATED = ("main_data.hdf5", f"{FLAT}.hdf5", "report.html")  # no promise of equal bytes: HDF5; seconds are told


def test_the_second_call_has_nothing_to_do_and_changes_no_file(copied, shell):
    before = contents(copied.folder)
    again = shell("run", "smoke")
    assert again.code == 0
    told = [line for line in again.out.splitlines() if line.split()[0] in STAGES]
    assert [line.split()[0] for line in told] == list(STAGES)
    assert all("nothing to do: " in line for line in told)
    assert contents(copied.folder) == before


def test_a_run_goes_on_from_its_own_configuration_in_another_place(copied, shell, tmp_path):
    moved = tmp_path / "elsewhere" / "smoke"
    moved.parent.mkdir()
    shutil.move(copied.run, moved)
    before = contents(moved)
    shell.enter(moved)
    again = shell("run", "config.yaml")
    assert again.code == 0
    assert again.out.count("nothing to do") == len(STAGES)
    assert contents(moved) == before


def assert_equals_unbroken(folder, unbroken):
    """The same files as an unbroken run, the same bytes where bytes are promised, and nothing left over."""
    for place in ("runs", "data"):
        broken, whole = (hashes(root / place, but=VOLATILE) for root in (folder, unbroken.folder))
        assert broken.keys() == whole.keys()
        assert {name for name in whole if broken[name] != whole[name]} <= {
            name for name in whole if name.endswith(DATED)
        }
    assert store.open(folder / "runs/smoke/store").digest() == store.open(unbroken.run / "store").digest()


@pytest.mark.slow
def test_killed_at_random_moments_the_same_command_ends_like_an_unbroken_run(control, tmp_path):
    rng = random.Random(0)
    moments = [rng.uniform(0.5, 3.0) for _ in range(4)]
    said = command_line.run_killed_at(moments, *command_line.CONTROL, "--workers", "2", folder=tmp_path)
    assert said.code == 0, said.err
    assert_equals_unbroken(tmp_path, control)


DIES = """
import os, sys, synth_pipeline.cli, synth_pipeline.stages

replace = os.replace


def dying(*args, **kwargs):
    global left
    left -= 1
    if left == 0:
        os._exit(9)
    return replace(*args, **kwargs)


if __name__ == "__main__":  # what takes seconds is imported once; every attempt is a process of its own
    for left in range(1, 40):
        if (attempt := os.fork()) == 0:
            os.replace = dying
            synth_pipeline.cli.main()
        code = os.waitstatus_to_exitcode(os.waitpid(attempt, 0)[1])
        print("attempt", left, "ended with", code, flush=True)
        if code != 9:
            sys.exit(code)
"""


@pytest.mark.slow
def test_dying_before_any_rename_loses_nothing(control, tmp_path):
    """Attempt k dies right before its k-th rename, the moment at which a file or folder would have appeared."""
    program = tmp_path / "dies.py"
    program.write_text(DIES)
    shutil.copytree(control.folder / "data", tmp_path / "data")
    done = command_line.run(*command_line.CONTROL, folder=tmp_path, program=(sys.executable, str(program)))
    assert (done.code, done.err) == (0, ""), done.err
    assert done.out.count("ended with 9") > 4  # it did die, again and again
    assert_equals_unbroken(tmp_path, control)


@pytest.mark.slow
def test_more_rows_extend_the_store_and_keep_its_bytes(copied, shell):
    store_before = {k: v for k, v in contents(copied.run / "store").items() if "/c." in k}
    digest = store.open(copied.run / "store").digest()
    export_before = contents(copied.run / "export" / "minari")
    more = shell("generate", "runs/smoke", "-n", "20000")
    assert more.code == 0
    assert "going on: 8,000 of 20,000 rows are there" in more.out
    after = {k: v for k, v in contents(copied.run / "store").items() if "/c." in k}
    assert {name: after[name] for name in store_before} == store_before
    assert len(after) == 2 * len(store_before)
    extended = store.open(copied.run / "store")
    assert len(extended) == 20_000
    assert extended.digest() != digest
    stale = shell("export", "runs/smoke")
    assert stale.code == 7
    assert stale.error()["fix"] == "synthpipe validate runs/smoke"
    assert shell("validate", "runs/smoke").code == 0
    assert "Nothing was exported from this state" in (copied.run / "report.html").read_text()
    assert "random-synther-v1" in shell("export", "runs/smoke").out
    assert export_before.items() <= contents(copied.run / "export" / "minari").items()  # the first export stays
    assert shell("evaluate", "runs/smoke").code == 0  # agents learnt from another state of the rows
    again = shell("run", "smoke")  # the preset asks for fewer rows than there are: nothing is lost
    assert again.out.count("nothing to do") == len(STAGES)
    assert len(store.open(copied.run / "store")) == 20_000


@pytest.mark.parametrize(
    ("command", "found"),
    [
        (["run", "smoke", "--set", "generator.p_std=1.3"], "generator.p_std 1.2 -> 1.3"),
        (["run", "smoke", "--set", "seed=1"], "seed 0 -> 1"),
        (["run", "smoke", "--set", "collect.rows=500"], "the rows of toy-linear-gaussian/random are not those"),
        (["run", "default", "-o", "runs/smoke"], "dataset toy-linear-gaussian/random -> hopper/medium-replay"),
        (["train", DATASET, "-g", "smote", "-o", "runs/smoke"], "generator.kind synther -> smote"),
        (["train", DATASET, "--seed", "3", "-o", "runs/smoke"], "seed 0 -> 3"),
        (["generate", "runs/smoke", "--set", "generator.kind=smote"], "generator.kind synther -> smote"),
        (["run", "smoke", "--set", "generate.micro_batch=100"], "plan.micro_batch: 4096 -> 100"),
        (["generate", "runs/smoke", "--set", "generate.rows_per_shard=32768"], "plan.rows_per_shard: 16384 -> 32768"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_other_settings_in_the_same_run_are_refused_and_nothing_changes(copied, shell, command, found):
    before = contents(copied.run)
    answer = shell(*command)
    assert answer.code in (2, 4)
    error = answer.error()
    assert found in error["found"]
    assert "another run directory" in error["fix"] or "old settings" in error["fix"]
    assert contents(copied.run) == before
    assert "interrupted" not in answer.err


def test_one_flipped_bit_is_found_named_and_mended(copied, shell):
    digest = store.open(copied.run / "store").digest()
    shard = copied.run / "store" / "rewards" / "c.0"
    original, data = shard.read_bytes(), bytearray(shard.read_bytes())
    data[1_000] ^= 1
    shard.write_bytes(data)
    for verb in ("validate", "export", "run"):
        answer = shell(verb, "runs/smoke" if verb != "run" else "smoke")
        if verb == "export":
            assert answer.code == 0  # written before, and not read again
            continue
        assert answer.code == 4
        assert answer.error()["kind"] == "StoreError"
        assert "rewards/c.0" in answer.error()["found"]
        assert "--repair" in answer.error()["fix"]
    assert shell("generate", "runs/smoke").code == 0  # the commit is there: nothing to do
    mended = shell("generate", "runs/smoke", "--repair")
    assert mended.code == 0
    assert "1 damaged shard" in mended.out
    assert shard.read_bytes() == original
    assert store.open(copied.run / "store").digest() == digest
    assert shell("validate", "runs/smoke").code == 0
    assert "0 damaged shards" in shell("generate", "runs/smoke", "--repair").out


def test_a_deleted_export_is_written_again_under_its_name(copied, shell):
    flat = copied.run / "export" / f"{FLAT}.hdf5"
    flat.unlink()
    answer = shell("export", "runs/smoke")
    assert answer.code == 0
    assert flat.exists()
    assert read_json(copied.run / "export" / "stage.json")["minari_id"] == NAME
    assert "nothing to do" in shell("export", "runs/smoke").out
