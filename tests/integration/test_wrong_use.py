"""What newcomers get wrong: each mistake is named in the one form of error, and nothing is lost or half-written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import command_line
import numpy as np
import pytest
from command_line import SMALL, contents

from synth_pipeline import runs, stages, store

DATASET = "toy-linear-gaussian/random"
RUN = "runs/smoke"

# --- what is typed wrong: command, exit code, kind of error, what it names (what, found, accepted), what fix says

TYPED = {
    "no such command": (["trian"], 2, "UnknownName", "command called 'trian'", "'train'"),
    "no such option": (["run", "smoke", "--worker", "2"], 2, "Config", "--worker", "synthpipe run --help"),
    "missing argument": (["collect"], 2, "Config", "DATASET", "synthpipe collect --help"),
    "missing option": (["train", DATASET], 2, "Config", "--out", "synthpipe train --help"),
    "unknown dataset": (["collect", "hoper/medium"], 2, "UnknownName", "'hoper/medium'", "'hopper/medium'"),
    "unknown dataset to train on": (
        ["train", "hopper/medum-replay", "-o", "new"],
        2,
        "UnknownName",
        "'hopper/medum-replay'",
        "'hopper/medium-replay'",
    ),
    "a level that the weights cannot give": (
        ["collect", "hopper/human"],
        2,
        "UnknownName",
        "'hopper/human'",
        "hopper/",
    ),
    "unknown dataset in a run": (
        ["run", "smoke", "--set", "dataset=walker/random"],
        2,
        "UnknownName",
        "'walker/random'",
        "'walker2d/random'",
    ),
    "unknown preset": (["run", "smok"], 2, "UnknownName", "preset called 'smok'", "'smoke'"),
    "no such YAML": (["run", "mine.yaml"], 2, "Config", "no file 'mine.yaml'", "check the path"),
    "a run directory where a YAML belongs": (["run", RUN], 2, "Config", "is a folder", f"{RUN}/config.yaml"),
    "unknown generator": (
        ["train", DATASET, "-g", "smoot", "-o", "new"],
        2,
        "UnknownName",
        "generator called 'smoot'",
        "'smote'",
    ),
    "unknown generator in a run": (
        ["run", "smoke", "-o", "new", "--set", "generator.kind=coplua"],
        2,
        "UnknownName",
        "'coplua'",
        "'copula'",
    ),
    "typo in a key": (["run", "smoke", "--set", "generate.row=5"], 2, "Config", "'generate.row'", "'generate.rows'"),
    "typo in a section": (["run", "smoke", "--set", "generat.rows=5"], 2, "Config", "'generat'", "'generate'"),
    "typo in a generator's key": (
        ["run", "smoke", "-o", "new", "--set", "generator.kind=copula", "--set", "generator.shrinkag=0.1"],
        2,
        "Config",
        "'shrinkag'",
        "'generator.shrinkage'",
    ),
    "no value": (["run", "smoke", "--set", "seed"], 2, "Config", "key=value", "--set seed=1"),
    "text where a number belongs": (["run", "smoke", "--set", "seed=many"], 2, "Config", "'seed'", "seed=VALUE"),
    "value out of range": (["run", "smoke", "--set", "held_out=1.5"], 2, "Config", "'held_out'", "held_out=VALUE"),
    "negative rows in a setting": (["run", "smoke", "--set", "generate.rows=-5"], 2, "Config", "-5", "generate.rows="),
    "shards of an odd size": (
        ["run", "smoke", "--set", "generate.rows_per_shard=20000"],
        2,
        "Config",
        "multiple of 16384",
        "rows_per_shard=VALUE",
    ),
    "too many one-step episodes": (
        ["run", "smoke", "--set", "export.one_step=60000"],
        2,
        "Config",
        "50000",
        "one_step",
    ),
    "negative rows": (["generate", RUN, "-n", "-4"], 2, "Config", "'-n' / '--rows'", "synthpipe generate --help"),
    "negative rows to collect": (["collect", DATASET, "--rows", "-4"], 2, "Config", "'--rows'", "collect --help"),
    "two kinds of workers": (
        ["run", "smoke", "--workers", "2", "--scheduler", "tcp://h:1"],
        2,
        "Config",
        "either processes of this machine work, or a cluster does",
        "leave one of them out; a cluster has as many workers as were started for it",
    ),
    "no scheduler's address": (
        ["collect", DATASET, "--rows", "50", "--scheduler", "4"],
        2,
        "Config",
        "not the address of a Dask scheduler",
        "--scheduler tcp://127.0.0.1:8786",
    ),
    "no workers": (["run", "smoke", "--workers", "0"], 2, "Config", "'--workers'", "synthpipe run --help"),
    "negative seed": (["train", DATASET, "--seed", "-1", "-o", "new"], 2, "Config", "'--seed'", "train --help"),
    "unknown suite": (["validate", RUN, "--suite", "defaut"], 2, "UnknownName", "suite called 'defaut'", "'default'"),
    "no such suite file": (["validate", RUN, "--suite", "my.yaml"], 2, "Config", "no file 'my.yaml'", "check the path"),
    "unknown tracker": (
        ["train", DATASET, "--rows", "4000", "-o", "new", "--track", "tensorbord"],
        2,
        "UnknownName",
        "'tensorbord'",
        "'tensorboard'",
    ),
    "no run there": (["generate", "runs/smok"], 2, "Config", "'runs/smok' is not a run directory", "synthpipe run"),
    "a file as a run": (["generate", "notes.txt"], 2, "Config", "'notes.txt' is not a run directory", "synthpipe run"),
    "a folder that is no run": (["validate", "data"], 2, "Config", "'data' is not a run directory", "synthpipe run"),
    "a file where the run folder should be": (["run", "smoke", "-o", "notes.txt"], 2, "Config", "is a file", "-o"),
    "a file on the way to the run folder": (["run", "smoke", "-o", "notes.txt/a"], 2, "Config", "is a file", "-o"),
    "somebody's folder as a run folder": (["run", "smoke", "-o", "."], 2, "Config", "notes.txt", "-o"),
    "somebody's config.yaml": (["run", "smoke", "-o", "foreign"], 2, "Config", "unknown key 'database'", "-o"),
    "an id that climbs": (["collect", "../../etc/x"], 2, "UnknownName", "'../../etc/x'", "names"),
    "an absolute id": (["collect", "/etc/x"], 2, "UnknownName", "'/etc/x'", "names"),
    "an export id that climbs": (
        ["export", RUN, "--id", "../../../evil-v0"],
        2,
        "Config",
        "'../../../evil-v0'",
        "v0",
    ),
    "an absolute export id": (["export", RUN, "--id", "/tmp/evil-v0"], 2, "Config", "'/tmp/evil-v0'", "v0"),
    "an export id without a version": (["export", RUN, "--id", "mine"], 2, "Config", "'mine'", "-v0"),
    "an export id that climbs, in a run": (
        ["run", "smoke", "-o", "new", "--set", "export.minari_id=../evil-v0"],
        2,
        "Config",
        "'../evil-v0'",
        "v0",
    ),
    "a store alone": (["validate", f"{RUN}/store"], 2, "Config", "is a store", "--real DATASET"),
    "no store there": (["validate", "nowhere", "--real", DATASET], 4, "Store", "no store", "synthpipe generate"),
    "a file as a dataset": (["train", "notes.txt", "-o", "new"], 3, "Source", "not a dataset file", "npz"),
    "a folder as a dataset": (["train", "data", "-o", "new"], 3, "Source", "folder without a dataset", "datasets"),
    "no such file": (["train", "my.npz", "-o", "new"], 3, "Source", "no file 'my.npz'", "'mine.npz'"),
    "too small a dataset to collect from": (["collect", DATASET, "--rows", "0"], 2, "Config", "'--rows'", "--help"),
}


@pytest.fixture
def littered(smoke, tmp_path, shell):
    """A finished run, and files of other people; the run is shared, so nothing may touch it."""
    for name in ("data", "runs"):
        (tmp_path / name).symlink_to(smoke.folder / name)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.yaml").write_text("database: postgres\n")
    np.savez(tmp_path / "mine.npz", **rows_of(5))
    return tmp_path


def rows_of(count, **changes):
    columns = {
        "observations": np.zeros((count, 2), np.float32),
        "actions": np.zeros((count, 1), np.float32),
        "rewards": np.zeros(count, np.float32),
        "terminations": np.zeros(count, bool),
        "truncations": np.arange(count) % 50 == 49,
    }
    return {**columns, **changes}


def refused(answer, code, kind, named, fix):
    """The answer is the form of error, with this exit code, naming this, and telling this."""
    error = answer.error()
    assert "Traceback" not in answer.out + answer.err
    assert (answer.code, error["kind"]) == (code, f"{kind}Error")
    assert "found" in error or "accepted" in error
    assert named in " ".join([error["what"], error.get("found", ""), error.get("accepted", "")])
    assert fix in error["fix"]
    return error


@pytest.mark.parametrize(("command", "code", "kind", "named", "fix"), TYPED.values(), ids=TYPED)
def test_typed_wrong(littered, smoke, shell, command, code, kind, named, fix):
    before = contents(littered), contents(smoke.folder)
    refused(shell(*command), code, kind, named, fix)
    assert (contents(littered), contents(smoke.folder)) == before


def test_the_same_form_from_the_installed_command(littered):
    answer = command_line.run("run", "smok", folder=littered)
    assert (answer.code, answer.out) == (2, "")
    assert answer.error()["fix"] == "did you mean 'smoke'?"


# --- datasets that are not what they should be


def bad_npz(**changes):
    def write(path):
        np.savez(path, **rows_of(200, **changes))

    return write


def without(name):
    def write(path):
        np.savez(path, **{key: column for key, column in rows_of(200).items() if key != name})

    return write


def with_a_nan(path):
    rewards = np.zeros(200, np.float32)
    rewards[17] = np.nan
    bad_npz(rewards=rewards)(path)


def truncated(path):
    bad_npz()(path)
    path.write_bytes(path.read_bytes()[:-300])


FILES = {
    "NaN": (with_a_nan, "rewards"),
    "infinity": (bad_npz(observations=np.full((200, 2), np.inf, np.float32)), "observations"),
    "no rows": (lambda path: np.savez(path, **rows_of(0)), "row"),
    "no arrays": (lambda path: np.savez(path), "observations"),
    "a column with a wrong name": (
        lambda path: np.savez(path, **{{"rewards": "reward"}.get(k, k): v for k, v in rows_of(200).items()}),
        "reward",
    ),
    "a column is missing": (without("actions"), "actions"),
    "columns of different lengths": (bad_npz(rewards=np.zeros(150, np.float32)), "rewards"),
    "objects": (bad_npz(rewards=np.array([None] * 200, dtype=object)), "object"),
    "truncated": (truncated, "bad.npz"),
    "empty file": (lambda path: path.write_bytes(b""), "bad.npz"),
    "text": (lambda path: path.write_text("observations: 1"), "bad.npz"),
    "a folder": (lambda path: path.mkdir(), "bad.npz"),
}


@pytest.mark.filterwarnings("ignore:Unable to avoid copy")
@pytest.mark.parametrize(("write", "named"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_dataset(shell, tmp_path, write, named):
    write(tmp_path / "bad.npz")
    before = contents(tmp_path)
    for command in (["train", "bad.npz", "-g", "noise", "-o", "new"], ["run", "smoke", "--set", "dataset=bad.npz"]):
        answer = shell(*command)
        error = answer.error()
        assert (answer.code, error["kind"]) == (3, "SourceError"), answer.err
        assert named in answer.err
        assert "fix" in error
        assert contents(tmp_path) == before


YAMLS = {
    "unreadable": ("dataset: [1, 2\n", "not valid YAML"),
    "not a mapping": ("- a\n- b\n", "does not hold a mapping"),
    "typo": (f"dataset: {DATASET}\ngenerat: {{rows: 5}}\n", "did you mean 'generate'?"),
    "typo inside": (f"dataset: {DATASET}\ngenerate: {{row: 5}}\n", "did you mean 'generate.rows'?"),
    "out of range": (f"dataset: {DATASET}\nheld_out: 2\n", "held_out"),
    "no dataset": ("seed: 1\n", "dataset"),
    "empty": ("", "does not hold a mapping"),
}


@pytest.mark.parametrize(("text", "named"), YAMLS.values(), ids=YAMLS)
def test_a_yaml_that_is_no_run(shell, tmp_path, text, named):
    (tmp_path / "mine.yaml").write_text(text)
    before = contents(tmp_path)
    answer = shell("run", "mine.yaml")
    assert (answer.code, answer.error()["kind"]) == (2, "ConfigError")
    assert named in answer.err
    assert contents(tmp_path) == before


def test_a_binary_file_as_yaml(shell, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00")
    refused(shell("run", "mine.yaml"), 2, "Config", "not a text file", "UTF-8")


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
    assert typed(shell, error["fix"]).code == 0
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
        refused(shell("generate", RUN, "-n", "50000"), 5, "Resource", "too small for this", "free some space")
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
