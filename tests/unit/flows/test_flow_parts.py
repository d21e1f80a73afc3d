"""Flows without a server: their forms, their schedule, who is tried again, the front of each file, the failure hook."""

import errno
import inspect
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import augment
import benchmark
import common
import evaluate
import generate
import pytest
import showing
import tasks
import train
import yaml
from command_line import Answer
from prefect.cache_policies import NO_CACHE
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed
from s3_server import closed_port

from synth_pipeline import errors, stages
from synth_pipeline.tracking import say

ROOT = Path(__file__).parents[3]
FLOWS = [augment.augment, train.train, generate.generate, evaluate.evaluate, benchmark.benchmark]
TASKS = {name: part for name, part in vars(tasks).items() if isinstance(part, tasks.prefect.Task)}


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_every_parameter_of_a_form_says_what_it_is(flow):
    form = flow.parameters.model_dump()["properties"]
    assert list(form) == list(inspect.signature(flow.fn).parameters)
    assert all(len(field["description"]) > 5 for field in form.values())
    whole_number = next(kind for kind in form["workers"]["anyOf"] if kind["type"] == "integer")
    assert whole_number["minimum"] == 1
    assert {kind["type"] for kind in form["scheduler"]["anyOf"]} == {"string", "null"}
    assert form["settings"]["items"] == {"type": "string"}


def test_choices_are_choices_and_folders_are_paths():
    form = train.train.parameters.properties
    assert form["track"]["enum"] == ["jsonl", "tensorboard"]
    assert form["out"]["anyOf"][0]["format"] == "path"
    assert augment.augment.parameters.properties["append"]["type"] == "boolean"
    assert benchmark.benchmark.parameters.properties["seeds"]["minimum"] == 1
    assert benchmark.benchmark.parameters.required == ["datasets"]


def test_the_deployments_are_of_flows_that_take_their_parameters():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    known = {f"flows/{flow.name}.py:{flow.name}": flow for flow in FLOWS}
    assert sorted(one["entrypoint"] for one in deployments) == sorted(known)
    for one in deployments:
        flow = known[one["entrypoint"]]
        assert flow.validate_parameters(one["parameters"])
        assert set(one["parameters"]) <= set(flow.parameters.properties)
    crons = {one["name"]: one["schedules"][0]["cron"] for one in deployments if "schedules" in one}
    assert crons.keys() == {"nightly", "weekly"}
    nightly = next(one for one in deployments if one["name"] == "nightly")
    assert nightly["parameters"]["versions"]
    assert nightly["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_no_task_keeps_anything_in_prefect(task):
    assert task.cache_policy == NO_CACHE
    assert task.persist_result is False
    assert task.retries == len(tasks.RETRY_AFTER_S) == 2
    assert task.retry_condition_fn is tasks.may_help


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(errno.EIO, "a disk"), True),
        (ConnectionResetError("a network"), True),
        (errors.TaskError("a worker died"), True),
        (errors.BusyError("another process"), True),
        (errors.ConfigError("wrong use"), False),
        (errors.GateError("did not pass"), False),
        (errors.StoreError("damaged"), False),
        (ZeroDivisionError("a bug"), False),
    ],
)
def test_only_what_may_go_away_is_tried_again(error, again):
    assert tasks.may_help(None, None, Failed(data=error)) is again


def test_what_a_stage_prints_is_logged_line_by_line(monkeypatch):
    lines = []
    monkeypatch.setattr(tasks, "get_run_logger", lambda: SimpleNamespace(info=lines.append))

    def stage(text):
        say("train", text)
        print("two\nlines, the last of them not ended", end="")
        return Path("model")

    assert tasks.task(stage).fn("[0, 1] of a thing") == Path("model")
    assert lines == ["train      [0, 1] of a thing", "two", "lines, the last of them not ended"]


def test_tasks_hand_paths_and_strings_to_the_stages(monkeypatch):
    calls = []
    monkeypatch.setattr(
        stages, "generate", lambda run, config, **options: calls.append((run, config, options)) or "s3://"
    )
    settings = ["generate.rows=7", "generator.kind=vae"]
    with disable_run_logger():
        assert tasks.generate.fn(Path("runs/x"), "smoke", settings, "tcp://host:8786", True) == "s3://"
    run, config, options = calls[0]
    assert (run.directory, config.generate.rows, config.generator) == (Path("runs/x"), 7, {"kind": "vae"})
    assert options == {"workers": "tcp://host:8786", "yes": True}


def test_a_dataset_that_is_no_recipe_is_not_collected():
    with disable_run_logger():
        assert tasks.collect.fn("smoke", ["dataset=mine.npz"], 1) == Path("mine.npz")


def test_our_errors_become_the_message_of_the_failed_state():
    error = errors.GateError("it did not pass", found=0.3, accepted=">= 0.5", fix="improve it")

    def broken():
        raise error

    state = common.flow(broken).fn()
    assert state.is_failed()
    assert state.message == error.render()
    assert state.data is error


def test_the_hook_hands_what_went_wrong_to_a_command(monkeypatch, tmp_path):
    told = tmp_path / "a file.txt"
    failed = (
        SimpleNamespace(name="augment"),
        SimpleNamespace(name="odd-owl"),
        Failed(message="no space\n  fix  free some"),
    )
    common.tell(*failed)
    assert not told.exists()
    monkeypatch.setenv(common.ON_FAILURE, f"tee '{told}'")
    common.tell(*failed)
    assert told.read_text() == "augment odd-owl: Failed\nno space\n  fix  free some\n"
    monkeypatch.setenv(common.ON_FAILURE, "false")
    with pytest.raises(subprocess.CalledProcessError):
        common.tell(*failed)


def test_rules_that_failed_come_first_and_what_is_not_decidable_says_so():
    rule = {"threshold": ">= 0.5", "why": "because"}
    card = {
        "verdict": {
            "rules": [
                {"metric": "a", "value": 0.61234567, "passed": True, **rule},
                {"metric": "b", "value": None, "passed": True, **rule},
                {"metric": "c", "value": 0.1, "passed": False, **rule},
            ]
        }
    }
    rows = showing.rules(card)
    assert [(row["rule"], row["value"], row["passed"]) for row in rows] == [
        ("c", "0.1", "NO"),
        ("a", "0.6123", "yes"),
        ("b", "not decidable", "yes"),
    ]


def test_names_of_artifacts_are_letters_digits_and_dashes():
    assert showing.key(Path("runs/My run_1"), "nn_ratio") == "runs-my-run-1-nn-ratio"


def called(monkeypatch, capfd, flow, *arguments):
    monkeypatch.setattr(sys, "argv", [f"flows/{flow.name}.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        common.front(flow)
    out, err = capfd.readouterr()
    return Answer(caught.value.code or 0, out, err)


def test_the_front_reads_what_the_form_reads(monkeypatch, capfd):
    received = []
    monkeypatch.setattr(common, "require_server", lambda: None)
    monkeypatch.setattr(type(train.train), "__call__", lambda self, **values: received.append(values))
    typed = (
        "smoke",
        "-o",
        "runs/x",
        "--set",
        "seed=1",
        "--set",
        "generator.kind=vae",
        "--scheduler",
        "tcp://host:8786",
    )
    assert called(monkeypatch, capfd, train.train, *typed).code == 0
    assert received == [
        {
            "preset": "smoke",
            "out": Path("runs/x"),
            "settings": ["seed=1", "generator.kind=vae"],
            "track": "jsonl",
            "workers": None,
            "scheduler": "tcp://host:8786",
        }
    ]


@pytest.mark.parametrize(
    ("flow", "typed", "what"),
    [
        (generate.generate, [], "Missing argument"),
        (train.train, ["smoke", "--trak", "jsonl"], "No such option: --trak"),
        (train.train, ["smoke", "--track", "wandb"], "'wandb' is not one of"),
        (train.train, ["smoke", "--workers", "0"], "workers: Input should be greater than or equal to 1"),
    ],
)
def test_wrong_use_is_refused_before_any_server_is_asked(monkeypatch, capfd, flow, typed, what):
    monkeypatch.setattr(common, "require_server", lambda: pytest.fail("it was asked"))
    answer = called(monkeypatch, capfd, flow, *typed)
    assert answer.code == 2
    assert what in answer.error()["what"]
    assert answer.error()["fix"] == f"python flows/{flow.name}.py --help"


def test_a_server_that_does_not_answer_is_named_with_what_to_type(monkeypatch, capfd):
    address = f"http://127.0.0.1:{closed_port()}/api"
    with temporary_settings({PREFECT_API_URL: address}):
        answer = called(monkeypatch, capfd, train.train, "smoke", "-o", "runs/a b")
    assert answer.code == 5
    error = answer.error()
    assert address in error["what"]
    assert error["fix"].startswith("prefect server start ")
    assert error["fix"].endswith("env -u PREFECT_API_URL python flows/train.py smoke -o 'runs/a b'")


SETTINGS = """
import json, os, common, prefect
values = prefect.settings.get_current_settings().server
seconds = values.ephemeral.startup_timeout_seconds
print(json.dumps([os.environ["DO_NOT_TRACK"], values.analytics_enabled, values.api.host, seconds]))
"""


def test_telemetry_is_off_and_servers_stay_on_this_machine():
    found = subprocess.run(
        [sys.executable, "-c", SETTINGS], cwd=ROOT / "flows", capture_output=True, text=True, check=True
    )
    assert json.loads(found.stdout) == ["1", False, "127.0.0.1", 120]


def test_the_files_are_short():
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "flows").glob("*.py")}
    assert len(lengths) == 8
    assert max(lengths.values()) <= 150
