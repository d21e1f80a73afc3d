"""Writing shards: what is refused, what is left behind, what a full disk does."""

import errno
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from store_samples import (
    PLAN,
    TRAJECTORIES,
    TRANSITIONS,
    build,
    episodes,
    expected,
    files,
    same_columns,
    transitions,
    write_task,
)

from synth_pipeline import stages, store
from synth_pipeline.errors import ResourceError, StoreBusyError, StoreError
from synth_pipeline.store import Plan
from synth_pipeline.store.shards import encode


@pytest.fixture
def target(tmp_path):
    return store.create(tmp_path / "store", TRANSITIONS, PLAN, {"generator": "toy"})


def test_a_commit_says_what_was_written(target):
    task = PLAN.task(2).retry()
    commit = store.write_shard(target.url, task, transitions(task), sidecar={"seconds": 2.5})
    assert (commit.shard, commit.rows, commit.attempt, commit.episodes) == (2, 22, 1, None)
    assert commit.checksums.keys() == {array.name for array in TRANSITIONS.arrays}
    assert target.commits[2] == commit
    assert target.sidecars()[2]["seconds"] == 2.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.with_columns(rewards=rows["rewards"].astype(np.float64)), "column 'rewards'"),
        (lambda rows: rows.with_columns(actions=rows["actions"][:, :1]), "column 'actions'"),
        (lambda rows: rows.with_columns(costs=rows["rewards"]), "columns are not those"),
        (lambda rows: type(rows)({"rewards": rows["rewards"]}), "columns are not those"),
        (lambda rows: rows.take(np.arange(65) % 64), "too many rows"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_nothing_is_written(target, change, message):
    with pytest.raises(StoreError, match=message):
        store.write_shard(target.url, PLAN.task(0), change(transitions(PLAN.task(0))))
    assert target.num_missing == 3
    assert not [path for path in os.scandir(os.path.join(target.url, "rewards")) if path.name != "zarr.json"]


def test_rows_and_episodes_are_not_mixed_up(target, tmp_path):
    with pytest.raises(StoreError, match="Transitions"):
        store.write_shard(target.url, PLAN.task(0), episodes(PLAN.task(0)))
    store.create(tmp_path / "episodes", TRAJECTORIES, PLAN, {})
    with pytest.raises(StoreError, match="Episodes"):
        store.write_shard(tmp_path / "episodes", PLAN.task(0), transitions(PLAN.task(0)))


def test_a_task_of_another_plan_is_refused(target):
    for plan, shard in ((PLAN.replace(seed=8), 0), (PLAN.extended(200), 3), (PLAN.replace(num_rows=140), 2)):
        with pytest.raises(StoreError, match="not of this store's plan"):
            store.write_shard(target.url, plan.task(shard), transitions(plan.task(shard)))


def test_a_shard_needs_a_store(tmp_path):
    with pytest.raises(StoreError, match="there is no store"):
        store.write_shard(tmp_path / "nothing", PLAN.task(0), transitions(PLAN.task(0)))


def test_a_shard_without_rows_is_a_shard(target):
    store.write_shard(target.url, PLAN.task(0), transitions(PLAN.task(0)))
    store.write_shard(target.url, PLAN.task(1), transitions(PLAN.task(1)).take(slice(0, 0)))
    store.write_shard(target.url, PLAN.task(2), transitions(PLAN.task(2)))
    assert len(target.read_all()) == 64 + 22
    target.verify()


def test_leftovers_are_cleared_and_other_files_are_not(target, tmp_path):
    folder = tmp_path / "store"
    (folder / "rewards" / "c.0.abc.partial").write_bytes(b"half")
    (folder / "zarr.abc.partial").write_bytes(b"half")
    (folder / "rewards" / "c.77").write_bytes(b"a shard of no plan")
    (folder / "README.md").write_text("mine")
    build(folder)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    build(tmp_path / "clean")
    clean = {path.relative_to(tmp_path / "clean").as_posix() for path in (tmp_path / "clean").rglob("*.*")}
    assert {"README.md"} == names - clean


def test_a_full_disk_loses_nothing(target, tmp_path, monkeypatch):
    def full(source, target):
        if "rewards/c" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(source, target)

    replace = os.replace
    store.write_shard(target.url, PLAN.task(0), transitions(PLAN.task(0)))
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ResourceError, match="no space left") as caught:
        build(tmp_path / "store")
    assert "run the same command again" in caught.value.fix
    monkeypatch.undo()
    assert store.open(target.url).num_missing == 2
    build(tmp_path / "store")
    build(tmp_path / "unbroken")
    assert files(tmp_path / "store") == files(tmp_path / "unbroken")


def test_a_small_disk_is_noticed_before_trajectories_are_collected(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHPIPE_DATA", str(tmp_path))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    with pytest.raises(ResourceError, match="too small") as caught:
        stages.collect("toy-linear-gaussian/random", rows=4_000)
    assert caught.value.accepted.startswith("about ")
    assert not list(tmp_path.rglob("c.*"))


def test_a_small_disk_is_noticed_before_work_begins(tmp_path, monkeypatch):
    plan = Plan(num_rows=1_000_000)
    target = store.create(tmp_path, TRANSITIONS, plan, {})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=30_000_000))
    with pytest.raises(ResourceError, match="too small"), target.writing():
        pass


def test_nobody_extends_a_store_that_is_being_written(target):
    with target.writing(), pytest.raises(StoreBusyError):
        store.create(target.url, TRANSITIONS, PLAN.extended(200), {"generator": "toy"})
    assert store.open(target.url).plan == PLAN


def test_a_lost_lock_ends_the_writing(target, monkeypatch):
    with target.writing() as session:
        session._lock._lost = {"host": "elsewhere", "pid": 3}
        for refused in (session.missing, session.finalise, lambda: session.drop(0)):
            with pytest.raises(StoreBusyError, match="elsewhere"):
                refused()


@pytest.mark.parametrize("schema", [TRANSITIONS, TRAJECTORIES], ids=["transitions", "trajectories"])
def test_two_processes_write_what_one_writes(tmp_path, schema):
    build(tmp_path / "one", schema)
    target = store.create(tmp_path / "two", schema, PLAN, {"generator": "toy"})
    with target.writing() as session, ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        # Each shard twice: stragglers that were given the same task do no harm.
        tasks = [(target.url, task, schema) for task in session.missing() for _ in range(2)]
        list(pool.map(write_task, tasks))
        session.finalise()
    assert target.digest() == store.open(tmp_path / "one").digest()
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_a_shard_of_thousands_of_chunks(tmp_path):
    """More pieces than the kernel takes in one call."""
    plan = Plan(num_rows=5_000, rows_per_shard=5_000, rows_per_chunk=2, seed=7)
    same_columns(build(tmp_path, plan=plan).read_all(), expected(TRANSITIONS, plan))


def test_a_write_that_the_kernel_cuts_short_is_continued(target, monkeypatch):
    monkeypatch.setattr(os, "writev", lambda descriptor, parts: os.write(descriptor, b"".join(parts)[:50]))
    build(target.url).verify()


def test_columns_may_be_views():
    """Columns that are views with strides, as slices of a packed matrix are."""
    matrix = np.arange(64 * 6, dtype=np.float32).reshape(64, 6)
    schema_form = store.reader.Identity(TRANSITIONS, PLAN, {}).form(TRANSITIONS.arrays[0])
    strided, contiguous = (b"".join(encode(part, schema_form)) for part in (matrix[:, ::2], matrix[:, ::2].copy()))
    assert strided == contiguous
