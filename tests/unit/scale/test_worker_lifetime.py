"""Workers end with the process that made them, and leave Ctrl-C to it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import worker_tasks
from worker_tasks import wait_until

from synth_pipeline.scale.local import map_tasks

COORDINATOR = """
import sys
from synth_pipeline.scale.local import map_tasks
import worker_tasks

if __name__ == "__main__":
    for _, (number, worker, *_) in map_tasks(worker_tasks.process_and_threads, range(100_000), workers=2):
        print(worker, flush=True)
"""


def coordinator(tmp_path):
    program = tmp_path / "coordinator.py"
    program.write_text(COORDINATOR)
    support = str(Path(worker_tasks.__file__).parent)
    process = subprocess.Popen(
        [sys.executable, str(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": support},
        start_new_session=True,
    )
    return process, {int(process.stdout.readline()) for _ in range(12)}


def gone(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def test_workers_do_not_outlive_a_coordinator_that_was_killed(tmp_path):
    process, workers = coordinator(tmp_path)
    process.kill()
    process.wait()
    assert workers
    assert wait_until(lambda: all(gone(worker) for worker in workers))
    process.stdout.close()
    process.stderr.close()


def test_an_interrupt_of_the_group_reaches_the_coordinator_alone(tmp_path):
    process, workers = coordinator(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == -signal.SIGINT
    assert err.count("Traceback (most recent call last)") == 1  # its own; the command line turns it into a sentence
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert all(gone(worker) for worker in workers)


def test_the_signal_mask_is_as_it_was_before():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert list(map_tasks(worker_tasks.square, [3])) == [(3, 9)]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert signal.SIGINT not in before
