"""What newcomers get wrong: each mistake is named in the one form of error, and nothing is lost or half-written."""

import command_line
import numpy as np
import pytest
from command_line import contents, refused
from toy_data import plain_rows

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
    "a key of another section that is near one here": (
        ["run", "smoke", "--set", "evaluation.seed=3"],
        2,
        "Config",
        "'evaluation.seed'",
        "'evaluation.seeds'",
    ),
    "a single value where a list belongs": (
        ["run", "smoke", "--set", "evaluation.controls=smote"],
        2,
        "Config",
        "--set evaluation.controls=smote: 'controls' cannot be used",
        "evaluation.controls=[smote]",
    ),
    "a misspelt run": (["report", "runs/smoek"], 2, "Config", "'runs/smoek' is not a run", "'runs/smoke'"),
    "an audit into a run": (
        ["audit", "mine.npz", "--real", "mine.npz", "-o", RUN],
        2,
        "Config",
        f"an audit cannot be written into '{RUN}'",
        "-o",
    ),
    "advice into a file": (["advise", "pendulum/medium", "-o", "mine.npz"], 2, "Config", "'mine.npz' is a file", "-o"),
    "controls without a run": (
        ["evaluate", "--dataset", DATASET, "--set", "evaluation.controls=[smote]"],
        2,
        "Config",
        "controls stand beside the rows of a run",
        "synthpipe evaluate RUN",
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
        "generate.rows_per_shard=VALUE",
    ),
    "shards of an odd size, in a run": (
        ["generate", RUN, "--set", "generate.rows_per_shard=20000"],
        2,
        "Config",
        "--set generate.rows_per_shard=20000: 'rows_per_shard' cannot be used",
        "generate.rows_per_shard=VALUE",
    ),
    "what else makes a task smaller": (
        ["generate", RUN, "--set", "generate.rows_per_shard=20000"],
        2,
        "Config",
        "for less memory: generate.micro_batch",
        "generate.rows_per_shard=VALUE",
    ),
    "a setting without its section": (
        ["run", "smoke", "--set", "condition=near_terminal"],
        2,
        "Config",
        "generator.condition, a setting of synther",
        "did you mean 'generator.condition'?",
    ),
    "a setting in another section": (
        ["generate", RUN, "--set", "export.aimed_share=0.3"],
        2,
        "Config",
        "unknown key 'export.aimed_share'",
        "did you mean 'generate.aimed_share'?",
    ),
    "a setting that several sections have": (
        ["run", "smoke", "--set", "gradient_steps=3"],
        2,
        "Config",
        "unknown key 'gradient_steps'",
        "remove the key",
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
    "no run there": (["generate", "runs/smok"], 2, "Config", "'runs/smok' is not a run directory", "'runs/smoke'"),
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
        np.savez(path, **plain_rows(200, **changes))

    return write


def without(name):
    def write(path):
        np.savez(path, **{key: column for key, column in plain_rows(200).items() if key != name})

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
    "no rows": (lambda path: np.savez(path, **plain_rows(0)), "row"),
    "no arrays": (lambda path: np.savez(path), "observations"),
    "a column with a wrong name": (
        lambda path: np.savez(path, **{{"rewards": "reward"}.get(k, k): v for k, v in plain_rows(200).items()}),
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
