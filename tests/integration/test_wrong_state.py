"""Work in the wrong order, damaged, busy, killed, out of space: named in the one form of error, and nothing is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import command_line
import pytest
from command_line import SMALL, contents, refused

from synth_pipeline import runs, stages, store

DATASET = "toy-linear-gaussian/random"
RUN = "runs/smoke"

# --- stages in the wrong order: what the error tells to type works when it is typed


def typed(shell, fix):
    """Type literally what an error told."""
    command = fix.split("   #")[0].split()
    assert command[0] == "synthpipe"
    return shell(*command[1:])


def test_the_stages_in_the_wrong_order_lead_to_the_right_one(shell, tmp_path):
    train = ["train", DATASET, "--rows", "600", "-g", "copula", "-o", "first"]
    train += ["--set", "validation.expectations=false", "--set", "validation.pictures=false"]
    error = refused(shell(*train), 3, "Source", "has not been collected", "synthpipe collect")
    assert not (tmp_path / "first").exists()
    assert typed(shell, error["fix"]).code == 0
    assert shell(*train).code == 0
    error = refused(shell("validate", "first"), 4, "Store", "nothing was generated", "synthpipe generate first")
    refused(shell("export", "first"), 4, "Store", "nothing was generated", "synthpipe generate first")
    refused(shell("report", "first"), 2, "Config", "nothing to report", "synthpipe validate first")
    assert shell("generate", "first", "-n", "700").code == 0
    assert typed(shell, error["fix"]).code == 0
    error = refused(shell("export", "first"), 7, "Gate", "was not validated", "synthpipe validate first")
    assert typed(shell, error["fix"]).code in (0, 7)
    assert shell("export", "first", "--allow-failed").code == 0


@pytest.mark.slow
def test_generate_before_train(shell, tmp_path):
    shell(*command_line.CONTROL, "-o", "first", *SMALL)
    shutil.rmtree(tmp_path / "first" / "model")
    shutil.rmtree(tmp_path / "first" / "store")
    error = refused(shell("generate", "first"), 6, "Checkpoint", "no generator was trained", "synthpipe train")
    again = typed(shell, error["fix"])
    assert again.code == 0
    assert "settings that first/config.yaml has beside those typed: collect.rows 600, " in again.out
    assert shell("generate", "first").code == 0


# --- stores that are damaged, foreign or busy


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("name", ["observations/c.0.0", "terminations/c.0"])
@pytest.mark.parametrize("damage", [flip, cut_short, Path.unlink], ids=["bit-flipped", "truncated", "missing"])
def test_a_damaged_shard(copied, shell, damage, name):
    damage(copied.run / "store" / name)
    before = contents(copied.folder)
    refused(shell("validate", RUN), 4, "Store", name, f"synthpipe generate {RUN} --repair   #")
    assert contents(copied.folder) == before
    shutil.rmtree(copied.run / "export")
    before = contents(copied.folder)
    refused(shell("export", RUN), 4, "Store", "shard 0", "--repair")
    assert not list(copied.run.rglob("*.hdf5"))
    assert not list(copied.run.rglob("*.partial"))
    assert {k: v for k, v in contents(copied.folder).items() if "export" not in k} == before


def test_a_damaged_shard_of_the_collected_dataset(copied, shell):
    (shard,) = (copied.folder / "data").rglob("rewards/c.0")
    original = shard.read_bytes()
    flip(shard)
    error = refused(
        shell("train", DATASET, "--rows", "4000", "-o", "new"),
        4,
        "Store",
        "shard 0",
        f"synthpipe collect {DATASET} --rows 4000 --repair",
    )
    assert not (copied.folder / "new").exists()
    assert typed(shell, error["fix"]).code == 0
    assert shard.read_bytes() == original


def test_a_store_of_another_format_version(copied, shell):
    path = copied.run / "store" / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["synth_pipeline"]["format_version"] = 99
    path.write_text(json.dumps(document))
    before = contents(copied.folder)
    for verb in ("generate", "validate", "export"):
        refused(shell(verb, RUN), 4, "Store", "another format version", "another folder")
    assert contents(copied.folder) == before


def test_a_damaged_model(copied, shell):
    arrays = copied.run / "model" / "generator" / "arrays.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:100])
    shutil.rmtree(copied.run / "store")
    refused(shell("generate", RUN), 6, "Checkpoint", "damaged", "train again")


SHAPES = ("{}", "[]", '{"store": 3}')


def test_a_scorecard_of_another_shape(copied, shell):
    """What the error tells to type mends it."""
    card = copied.run / "validation" / "scorecard.json"
    original = json.loads(card.read_text())["measurements"]
    for text in SHAPES:
        card.write_text(text)
        error = refused(shell("report", RUN), 2, "Config", "is not a scorecard", f"synthpipe validate {RUN}")
        refused(shell("export", RUN), 2, "Config", "is not a scorecard", f"synthpipe validate {RUN}")
    assert typed(shell, error["fix"]).code == 0
    assert json.loads(card.read_text())["measurements"] == original


@pytest.mark.parametrize("text", SHAPES)
def test_notes_of_another_shape(copied, shell, text):
    (copied.run / "export" / "stage.json").write_text(text)
    assert shell("report", RUN).code == (0 if text.startswith("{") else 2)
    (copied.run / "model" / "generator" / "state.json").write_text(text)
    (copied.run / "validation" / "stage.json").unlink()
    for command in (["validate", RUN], ["generate", RUN], ["train", DATASET, "--rows", "4000", "-o", RUN]):
        refused(shell(*command), 6, "Checkpoint", "state.json", f"rm -r {RUN}/model/generator && synthpipe train")


def test_damaged_notes_of_a_model_have_one_fix_which_mends_them(copied, shell):
    (copied.run / "model" / "generator" / "state.json").write_text('{"values": ')
    error = refused(shell("validate", RUN, "--suite", "default"), 6, "Checkpoint", "is not valid JSON", "rm -r")
    assert "delete the file" not in str(error)
    remove, train = error["fix"].split(" && ")
    assert remove == f"rm -r {RUN}/model/generator"
    shutil.rmtree(copied.run / "model" / "generator")
    assert typed(shell, train).code == 0
    assert "nothing to do" in shell("train", DATASET, "--rows", "4000", "-o", RUN).out
    assert "nothing to do" in shell("generate", RUN).out  # the same generator, so its rows stay


HOLDER = """
import sys, time
from synth_pipeline import store

with store.open(sys.argv[1]).writing():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer(copied, shell):
    place = str(copied.run / "store")
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, place], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        before = contents(copied.run, but=("lock",))
        error = refused(shell("generate", RUN, "-n", "20000"), 4, "StoreBusy", f"process {holder.pid}", "wait for it")
        assert "last heartbeat" in error["found"]
        assert contents(copied.run, but=("lock",)) == before
        holder.kill()
        holder.wait()
        assert shell("generate", RUN, "-n", "20000").code == 0  # the lock of a dead process is taken over
    finally:
        holder.kill()
        holder.communicate()


# --- machines that cannot


def test_no_space_is_noticed_before_work_begins(copied, shell, monkeypatch):
    before = contents(copied.run)
    free = shutil.disk_usage("/")._replace(free=1_000)
    with monkeypatch.context() as patch:
        patch.setattr(runs.shutil, "disk_usage", lambda path: free)
        answer = shell("generate", RUN, "-n", "50000")
        error = refused(answer, 5, "Resource", "too small for this", "free some space")
        assert error["found"] == "1 kB free"
        assert error["accepted"].endswith(" MB")
    assert contents(copied.run) == before  # the store is whole as it is, and not planned to be larger
    assert shell("generate", RUN, "-n", "50000").code == 0
    assert len(store.open(copied.run / "store")) == 50_000


LIMITED = """
import resource, sys
from synth_pipeline.cli import main

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
    main()
"""


@pytest.mark.slow
def test_the_disk_fills_up_under_way(control, shell, tmp_path):
    """A limit on the size of files, which workers inherit, stands for the full disk; lifted, the same command ends."""
    program = tmp_path / "limited.py"
    program.write_text(LIMITED)
    shutil.copytree(control.folder / "data", tmp_path / "data")
    answer = command_line.run(*command_line.CONTROL, folder=tmp_path, program=(sys.executable, str(program)))
    refused(answer, 5, "Resource", "no space left while writing", "free some space")
    left = [path for path in (tmp_path / "runs").rglob("*") if path.is_file() and path.stat().st_size >= 30_000]
    assert left == []
    assert not list((tmp_path / "runs").rglob("*.partial"))
    assert shell(*command_line.CONTROL).code == 0
    assert store.open(tmp_path / RUN / "store").digest() == store.open(control.run / "store").digest()


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [
        ("tensorboard", ["train", DATASET, "--rows", "4000", "-o", "new", "--track", "tensorboard"], "tensorboard"),
        ("s3fs", ["validate", "s3://bucket/store", "--real", DATASET], "s3"),
    ],
)
def test_a_missing_extra(littered, shell, monkeypatch, module, command, extra):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"{module}.summary", raising=False)
    before = contents(littered)
    refused(shell(*command), 2, "MissingExtra", module, f"synth-pipeline[{extra}]")
    assert contents(littered) == before


def test_more_than_an_hour_is_asked_for(copied, shell, monkeypatch):
    note = copied.run / "store" / "sidecar.json"
    note.write_text('{"0": {"seconds": 16000, "write_seconds": 0}}')  # of its 8,000 rows
    before = contents(copied.run)
    error = refused(shell("generate", RUN, "-n", "20000"), 2, "Config", "6.7 hours", "--yes")
    assert "12,000 rows at 0.5 rows/s" in error["found"]
    assert contents(copied.run) == before
    assert shell("generate", RUN, "-n", "20000", "--yes").code == 0


# --- Ctrl-C


@pytest.mark.slow
def test_ctrl_c_is_a_sentence_and_130_and_the_same_command_goes_on(tmp_path):
    """SIGINT to the whole group, as a terminal sends it, while two workers are at it."""
    command = ["collect", DATASET, "--rows", "400000", "--workers", "2"]
    process = command_line.start(*command, folder=tmp_path)
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("manifest/*.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == "interrupted; type the same command again to go on where it stopped\n"
    assert all(line.startswith("collect ") for line in out.splitlines())  # progress, on a slow machine
    again = command_line.start(*command, folder=tmp_path)
    assert "going on" in again.stdout.readline()
    os.killpg(again.pid, signal.SIGKILL)
    again.communicate()


def test_ctrl_c_in_this_process(littered, shell, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "run_all", interrupted)
    answer = shell("run", "smoke")
    assert (answer.code, answer.out) == (130, "")
    assert answer.err.startswith("interrupted; type the same command again")


def test_a_reader_that_stops_reading_is_no_error(tmp_path):
    """`synthpipe datasets | head -1`."""
    process = command_line.start("datasets", folder=tmp_path)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait()
    process.stderr.close()


# --- sockets

WATCHED = """
import os, sys


def watch(event, arguments):
    if event not in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.bind"):
        return
    place = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
    host = place[0] if isinstance(place, tuple) else place
    if isinstance(host, (str, bytes)) and str(host).startswith(("/", "b'/", "\\0")):
        return  # a socket of this machine, by path
    if host not in ("127.0.0.1", "::1", "localhost", "", None):
        with open(os.environ["SOCKETS"], "a") as file:
            file.write(f"{event} {place}\\n")


sys.addaudithook(watch)
if __name__ == "__main__":
    if sys.argv[1:] == ["control"]:
        import socket

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("192.0.2.1", 9))
    else:
        from synth_pipeline.cli import main

        main()
"""


@pytest.mark.slow
def test_no_socket_leaves_this_machine(tmp_path, monkeypatch):
    """The hook also watches the worker processes, which import the main program anew."""
    program, log = tmp_path / "watched.py", tmp_path / "sockets.txt"
    program.write_text(WATCHED)
    monkeypatch.setenv("SOCKETS", str(log))
    log.touch()
    done = command_line.run(
        "run", "smoke", "--workers", "2", *SMALL, folder=tmp_path, program=(sys.executable, str(program))
    )
    assert done.code in (0, 7), done.err
    assert log.read_text() == ""
    command_line.run("control", folder=tmp_path, program=(sys.executable, str(program)))
    assert log.read_text() == "socket.connect ('192.0.2.1', 9)\n"  # the hook does see what it has to
