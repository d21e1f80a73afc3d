import os
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import pytest
import worker_tasks
from worker_tasks import wait_until

from synth_pipeline.errors import ConfigError, StoreError, TaskError
from synth_pipeline.machine import cores
from synth_pipeline.scale import local
from synth_pipeline.scale.local import MAX_TRIES, map_tasks


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_once_with_its_own_result(workers):
    results = list(map_tasks(worker_tasks.square, range(9), workers=workers))
    assert sorted(results) == [(n, n * n) for n in range(9)]


def test_no_tasks_need_no_process(monkeypatch):
    monkeypatch.setattr(local, "ProcessPoolExecutor", None)
    assert list(map_tasks(worker_tasks.square, [], workers=2)) == []


def test_threads_are_pinned_in_workers_and_untouched_here(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    results = [result for _, result in map_tasks(worker_tasks.process_and_threads, range(3), workers=1, threads=1)]
    assert {result[2:] for result in results} == {("1", "1")}
    assert os.getpid() not in {result[1] for result in results}  # one worker is a process of its own, too
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "OPENBLAS_NUM_THREADS" not in os.environ


SERVED_BEFORE = """
import multiprocessing, os

if __name__ == "__main__":
    import worker_tasks
    from synth_pipeline.scale.local import map_tasks

    os.environ |= {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    other = context.Process(target=print)
    other.start()
    other.join()
    [(_, threads)] = map_tasks(worker_tasks.library_threads, [0])
    print(sorted(set(threads)))
"""


def test_threads_are_pinned_in_workers_of_a_server_that_was_there_before(tmp_path):
    program = tmp_path / "served.py"
    program.write_text(SERVED_BEFORE)
    env = {**os.environ, "PYTHONPATH": str(Path(worker_tasks.__file__).parent)}
    done = subprocess.run([sys.executable, str(program)], env=env, capture_output=True, text=True, timeout=400)
    assert done.stdout.split("\n")[-2:] == ["[1]", ""], done.stderr


@pytest.mark.parametrize("values", [{"workers": 0}, {"workers": -1}, {"threads": 0}])
def test_impossible_numbers(values):
    with pytest.raises(ConfigError, match="at least one"):
        list(map_tasks(worker_tasks.square, [1], **values))


def test_cores_are_those_of_this_process(monkeypatch):
    assert 1 <= cores() <= os.cpu_count()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5})
    assert cores() == 3


def test_a_killed_worker_is_replaced_and_its_task_runs_again(tmp_path):
    tasks = [(str(tmp_path), name, deaths) for name, deaths in (("a", 0), ("b", MAX_TRIES - 1), ("c", 0))]
    results = dict(map_tasks(worker_tasks.die_at_first, tasks, workers=1))
    assert sorted(results.values()) == ["a", "b", "c"]
    assert worker_tasks.calls(tmp_path, "b") == MAX_TRIES
    assert worker_tasks.calls(tmp_path, "a") == 1  # what was handed over is not computed twice


def test_a_task_that_always_kills_its_worker_is_given_up_and_named(tmp_path):
    tasks = [(str(tmp_path), "a", 0), (str(tmp_path), "b", 99), (str(tmp_path), "c", 0)]
    results = map_tasks(worker_tasks.die_at_first, tasks, workers=1)
    assert next(results) == (tasks[0], "a")
    with pytest.raises(TaskError, match=f"died {MAX_TRIES} times") as caught:
        list(results)
    assert "'b', 99" in caught.value.found
    assert worker_tasks.calls(tmp_path, "b") == MAX_TRIES


def test_the_neighbour_of_a_deadly_task_is_not_blamed(tmp_path):
    """Both were running when the worker died; only one of them is at fault, and it is the second in order."""
    tasks = [(str(tmp_path), "innocent", 0), (str(tmp_path), "deadly", 99)]
    found = []
    with pytest.raises(TaskError) as caught:
        found.extend(map_tasks(worker_tasks.slow_or_deadly, tasks, workers=2))
    assert "'deadly', 99" in caught.value.found
    assert found == [(tasks[0], "innocent")]
    assert worker_tasks.calls(tmp_path, "innocent") <= 2


def test_suspects_run_alone_before_the_others_go_on(monkeypatch):
    pools = []

    def pool_that_b_breaks(function, tasks, pending, workers, threads):
        pools.append(([tasks[index] for index in pending], workers))
        for index in pending:
            if tasks[index] == "a" and len(pending) == 1:
                yield index, "A"
            elif tasks[index] in "ab":
                raise BrokenProcessPool
            else:
                yield index, tasks[index].upper()

    monkeypatch.setattr(local, "_one_pool", pool_that_b_breaks)
    results = map_tasks(str.upper, ["a", "b", "c"], workers=2)
    assert next(results) == ("a", "A")
    with pytest.raises(TaskError, match="task b"):
        next(results)
    assert pools == [(["a", "b", "c"], 2), (["a"], 1), (["b"], 1), (["b"], 1)]


def test_a_users_mistake_crosses_the_process_boundary_whole():
    results, caught = [], None
    try:
        for item in map_tasks(worker_tasks.fail, [0, 1, 2], workers=1):
            results.append(item)
    except StoreError as error:
        caught = error
    assert results == [(0, 0), (1, 1)]  # finished before: handed over
    assert (caught.what, caught.found) == ("shard 2 is damaged", [1, 2])
    assert (caught.accepted, caught.fix) == ("a whole shard", "write it again")


def test_a_bug_in_a_task_keeps_its_type_and_its_remote_traceback():
    with pytest.raises(ZeroDivisionError, match="a bug") as caught:
        list(map_tasks(worker_tasks.fail, [3], workers=1))
    assert "worker_tasks.py" in str(caught.value.__cause__)


def test_what_ended_beside_a_failure_is_handed_over_first(tmp_path):
    results = []

    def consume_slowly():
        tasks = [(str(tmp_path), number) for number in (0, 2, 1, 5)]
        for _, result in map_tasks(worker_tasks.fail_when_told, tasks, workers=2):
            results.append(result)
            assert wait_until(lambda: worker_tasks.calls(tmp_path, "ended") == 3)
            (tmp_path / "told").touch()
            time.sleep(1.0)  # meanwhile all of them arrive

    with pytest.raises(StoreError):
        consume_slowly()
    assert sorted(results) == [0, 1, 5]


def test_closing_early_stops_the_workers_and_restores_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    results = map_tasks(worker_tasks.process_and_threads, range(1000), workers=1)
    _, (_, worker, _, _) = next(results)
    begin = time.monotonic()
    results.close()
    assert time.monotonic() - begin < 20  # a thousand tasks would take longer
    assert os.environ["OMP_NUM_THREADS"] == "7"
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_functions_that_cannot_be_sent_are_refused():
    with pytest.raises(Exception, match="pickle"):
        list(map_tasks(lambda number: number, [1], workers=1))


def test_every_worker_sees_one_gpu(monkeypatch):
    """Three workers and two devices; a device is chosen before the first task, in which CUDA would begin."""
    monkeypatch.setattr(local, "_devices", lambda: ["2", "GPU-5f"])
    seen = {}
    for _, (process, device) in map_tasks(worker_tasks.visible_device, range(12), workers=3):
        seen[process] = device
    assert sorted(seen.values()) == ["2", "2", "GPU-5f"]


def test_devices_are_those_that_this_process_may_use(monkeypatch):
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 2)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert local._devices() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert local._devices() == ["3", "1"]
    cuda.is_available = lambda: False
    assert local._devices() == []
    monkeypatch.delitem(sys.modules, "torch")
    assert local._devices() == []  # without torch in use there is nobody to ask
