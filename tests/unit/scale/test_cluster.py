"""Tasks on a Dask cluster: the contract of local processes, whatever dies, and refusals that say what to type."""

import os
import signal
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest
import worker_tasks
from local_cluster import local_cluster
from s3_server import closed_port

from synth_pipeline.errors import ConfigError, StoreError, TaskError
from synth_pipeline.scale import cluster, remote, window
from synth_pipeline.scale.tasks import at_once, map_tasks

Pair = namedtuple("Pair", "folder name")
pytestmark = pytest.mark.filterwarnings("ignore:Creating scratch directories:UserWarning")


def test_every_task_once_with_its_own_result(scheduler):
    results = list(map_tasks(worker_tasks.square, range(9), workers=scheduler))
    assert sorted(results) == [(n, n * n) for n in range(9)]
    assert at_once(scheduler) == 2


def test_no_tasks_need_no_cluster():
    assert list(map_tasks(worker_tasks.square, [], workers="tcp://127.0.0.1:1")) == []


def test_a_task_arrives_as_it_is_and_runs_as_it_would_here(scheduler, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHPIPE_DATA", "my data")
    [(task, found)] = map_tasks(worker_tasks.named_pair, [Pair("a", 1)], workers=scheduler, shared=[tmp_path])
    assert task == Pair("a", 1)
    assert found == ("Pair", str(tmp_path), str(tmp_path / "my data"), {1}, "1")
    assert list(tmp_path.iterdir()) == []  # what the workers were asked to look for is gone
    [(_, found)] = map_tasks(worker_tasks.named_pair, [Pair("a", 1)], workers=scheduler, threads=2)
    assert found[3:] == ({2}, "2")
    assert found[1] != str(tmp_path)


def test_a_users_mistake_and_a_bug_come_through_unchanged(scheduler, tmp_path):
    tasks, results, caught = [(str(tmp_path), number) for number in range(3)], [], None
    try:
        for task, result in map_tasks(worker_tasks.fail_when_told, tasks, workers=scheduler):
            assert task == tasks[result]
            results.append(result)
            (tmp_path / "told").touch()
    except StoreError as error:
        caught = error
    assert results  # of those that had ended before; one may have waited behind it
    assert set(results) <= {0, 1}
    assert (caught.what, caught.found, caught.fix) == ("shard 2 is damaged", [1, 2], "write it again")
    with pytest.raises(ZeroDivisionError, match="a bug"):
        list(map_tasks(worker_tasks.fail, [3], workers=scheduler))


def test_a_task_that_always_kills_its_workers_is_given_up_and_its_neighbours_are_not(made, tmp_path, monkeypatch):
    monkeypatch.setattr(made.scheduler, "allowed_failures", 0)  # Dask does not run it again, but we do, alone
    tasks = [(str(tmp_path), "innocent", 0), (str(tmp_path), "deadly", 99)]
    results = []
    with pytest.raises(TaskError, match="died again and again") as caught:
        results.extend(map_tasks(worker_tasks.slow_or_deadly, tasks, workers=made.scheduler_address))
    assert "'deadly', 99" in caught.value.found
    assert results == [(tasks[0], "innocent")]
    assert worker_tasks.calls(tmp_path, "deadly") == 2


def test_a_worker_that_is_killed_in_the_middle_is_replaced(scheduler, tmp_path):

    def kill():
        mark = tmp_path / "pid-a"
        while not (mark.exists() and mark.read_text()):
            time.sleep(0.02)
        os.kill(int(mark.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    begin = time.monotonic()
    results = list(map_tasks(worker_tasks.stay, [(str(tmp_path), "a")], workers=scheduler))
    killer.join()
    assert results == [((str(tmp_path), "a"), "a")]
    assert time.monotonic() - begin < 95  # the first call would have stayed for a hundred seconds
    assert worker_tasks.calls(tmp_path, "a") == 2


def test_a_straggler_runs_twice_and_counts_once(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr(window, "LATE_S", 0.5)
    tasks = [(str(tmp_path), name, seconds) for name, seconds in (("a", 0), ("b", 0), ("slow", 12.0))]
    begin = time.monotonic()
    results = list(map_tasks(worker_tasks.slow_once, tasks, workers=scheduler))
    assert time.monotonic() - begin < 11  # the first call would have stayed for twelve seconds
    assert sorted(name for _, name in results) == ["a", "b", "slow"]
    assert worker_tasks.calls(tmp_path, "slow") == 2


def test_closing_early_cancels_what_is_in_flight(scheduler, tmp_path):
    tasks = [(str(tmp_path), f"t{n}", 0.3) for n in range(50)]
    results = map_tasks(worker_tasks.slow_once, tasks, workers=scheduler)
    next(results)
    results.close()
    time.sleep(1.0)
    assert len(list(tmp_path.iterdir())) <= 2 * window.PER_WORKER * 2


def test_workers_of_other_versions_are_refused(scheduler, monkeypatch):
    here = remote.versions()
    monkeypatch.setattr(remote, "versions", lambda: {**here, "torch": "1.0", "zarr": "2.0"})
    with pytest.raises(ConfigError, match="other versions") as caught:
        list(map_tasks(worker_tasks.square, [1], workers=scheduler))
    assert f"torch {here['torch']} (here 1.0), zarr {here['zarr']} (here 2.0)" in caught.value.found
    assert "tcp://127.0.0.1" in caught.value.found


def test_a_worker_that_joins_with_other_versions_is_refused_at_its_first_task(monkeypatch):
    job = remote.make_job(worker_tasks.square, 1, ())
    monkeypatch.setattr("distributed.get_worker", lambda: type("W", (), {"address": "tcp://late:1"}))
    assert remote.run(job, remote.Item(3))[0] == 9
    other = remote.make_job(worker_tasks.square, 1, ())
    other.asked.versions["numpy"] = "0"
    with pytest.raises(ConfigError, match="other versions") as caught:
        remote.run(other, remote.Item(3))
    assert caught.value.found.startswith("tcp://late:1: numpy")


def test_processors_of_another_kind_are_warned_of(capsys):
    asked = remote.Asked(remote.versions(), False, ())
    other = remote.answer(asked)._replace(kind="riscv64 DEFAULT")
    remote.warn_of_kinds(asked, {"tcp://a:1": remote.answer(asked)})
    assert capsys.readouterr().out == ""
    remote.warn_of_kinds(asked, {"tcp://a:1": other})
    assert "warning: processors of other kinds (riscv64 DEFAULT; here" in capsys.readouterr().out


def test_a_folder_that_workers_do_not_see_is_refused_by_name(scheduler, tmp_path, monkeypatch):
    """Each machine may have a folder of that name: only the token tells that it is another one."""
    touch = Path.touch
    monkeypatch.setattr(Path, "touch", lambda path: touch(path.with_name("elsewhere")))
    with pytest.raises(ConfigError, match="do not see the folders") as caught:
        list(map_tasks(worker_tasks.square, [1], workers=scheduler, shared=[tmp_path]))
    assert f"does not see '{tmp_path}'" in caught.value.found
    assert "tcp://127.0.0.1" in caught.value.found
    assert "s3://" in caught.value.fix


@pytest.mark.parametrize("address", ["127.0.0.1:8786", "http://127.0.0.1:8786", "tcp://host", "4", ""])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ConfigError, match="not the address of a Dask scheduler") as caught:
        list(map_tasks(worker_tasks.square, [1], workers=address))
    assert caught.value.fix == "--scheduler tcp://127.0.0.1:8786"


def test_a_scheduler_that_does_not_answer_or_has_no_workers(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_S", 3.0)
    address = f"tcp://127.0.0.1:{closed_port()}"
    with pytest.raises(ConfigError, match="no Dask scheduler answers") as caught:
        list(map_tasks(worker_tasks.square, [1], workers=address))
    assert caught.value.fix.startswith(f"dask scheduler --port {address.rpartition(':')[2]} ")
    with local_cluster(n_workers=0, processes=False, protocol="tcp") as empty:
        with pytest.raises(ConfigError, match="has no workers") as caught:
            at_once(empty.scheduler_address)
        assert caught.value.fix == f"dask worker {empty.scheduler_address} --nworkers 8 --nthreads 1"


def restart(first, back, threads=1):
    """Stop a cluster, and start another one at the same address when it is to come back."""
    port = int(first.scheduler_address.rpartition(":")[2])
    first.close()
    if back:
        here = {"processes": False, "protocol": "tcp", "scheduler_port": port}
        back.append(local_cluster(n_workers=1, threads_per_worker=threads, **here))


def test_what_was_in_flight_is_submitted_again_when_the_scheduler_is_back(tmp_path, capsys):
    """The workers have four threads, and still compute one task at a time."""
    first = local_cluster(n_workers=1, threads_per_worker=4, processes=False, protocol="tcp")
    back = ["wanted"]
    results = map_tasks(
        worker_tasks.one_at_a_time, [(str(tmp_path), n) for n in range(8)], workers=first.scheduler_address
    )
    found = [next(results)]
    restart(first, back, threads=4)
    found += results
    back[1].close()
    assert sorted(task[1] for task, _ in found) == list(range(8))
    assert {alone for _, alone in found} == {True}
    said = capsys.readouterr().out
    assert "lost the scheduler at" in said
    assert "it is back" in said


def test_a_scheduler_that_stays_away_is_an_error_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "RETURN_S", 0.5)
    first = local_cluster(n_workers=1, processes=False, protocol="tcp")
    tasks = [(str(tmp_path), n) for n in range(8)]
    results = map_tasks(worker_tasks.one_at_a_time, tasks, workers=first.scheduler_address)
    next(results)
    restart(first, [])
    with pytest.raises(TaskError, match="was lost, and did not come back") as caught:
        list(results)
    assert "finished parts are kept" in caught.value.fix


WATCHED = {"on": False, "places": []}


def _watch(event, arguments):
    if WATCHED["on"] and event in ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"):
        WATCHED["places"].append((event, arguments[0] if event == "socket.getaddrinfo" else arguments[1][0]))


def test_the_client_connects_to_the_scheduler_alone_and_listens_nowhere(scheduler):
    sys.addaudithook(_watch)  # cannot be taken out again: it is off but for this test
    WATCHED["on"] = True
    try:
        assert list(map_tasks(worker_tasks.square, [3], workers=scheduler)) == [(3, 9)]
    finally:
        WATCHED["on"] = False
    assert {place for event, place in WATCHED["places"] if event == "socket.connect"} == {"127.0.0.1"}
    assert not [place for event, place in WATCHED["places"] if event == "socket.bind" and place != "127.0.0.1"]
