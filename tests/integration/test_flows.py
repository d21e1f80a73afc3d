"""Flows on a server of Prefect: runs, artifacts, failed gates, retries, versions, leaderboards. One server for all."""

import json
from pathlib import Path

import augment
import benchmark
import evaluate
import generate
import numpy as np
import pytest
import small_runs
import tasks
import yaml
from command_line import contents
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.testing.utilities import prefect_test_harness

from synth_pipeline import stages, store
from synth_pipeline.errors import ConfigError, GateError, TaskError
from synth_pipeline.runs import read_json, write_json

SETTINGS = small_runs.CONFIGURATION | {"export": {"one_step": 20}}
SETTINGS["validation"] = {**SETTINGS["validation"], "splits": 2, "pictures": False, "expectations": False}
IMPOSSIBLE = {"name": "impossible", "rules": [{"metric": "marginals.mean", "at_least": 1.5, "why": "nothing is"}]}


@pytest.fixture(scope="session")
def server():
    """Ten seconds to start, so all tests share it."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def here(tmp_path, monkeypatch, server):
    """A working directory with `mine.npz` and `small.yaml`; shards are made in this process, retries do not wait."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setattr(stages, "fill", small_runs.fill_here)
    for task in (tasks.train, tasks.generate):
        monkeypatch.setattr(task, "retry_delay_seconds", 0)
    small_runs.save_rows(tmp_path / "mine.npz")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SETTINGS))
    (tmp_path / "hard.yaml").write_text(yaml.safe_dump(IMPOSSIBLE))
    return tmp_path


def artifacts(state):
    """Key -> newest artifact of a flow run."""
    with get_client(sync_client=True) as client:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
        return {found.key: found for found in client.read_artifacts(artifact_filter=of_run)}


def read_rows(artifact):
    """The rows of a table."""
    return json.loads(artifact.data)


def test_the_whole_path_leaves_its_files_and_shows_them(here):
    state = augment.augment("small.yaml", Path("runs/a"), return_state=True)
    assert state.is_completed(), state.message
    assert state.result() == Path("runs/a/report.html")
    assert len(store.open("runs/a/store")) == 200
    shown = artifacts(state)
    assert shown.keys() == {"runs-a-progress", "runs-a-scorecard", "runs-a-report"}
    assert shown["runs-a-progress"].data == 100.0
    assert shown["runs-a-progress"].description.count("ended") == 6
    card = read_json(Path("runs/a/validation/scorecard.json"))
    rows = read_rows(shown["runs-a-scorecard"])
    assert {row["rule"] for row in rows} == {rule["metric"] for rule in card["verdict"]["rules"]}
    assert {"value", "threshold", "passed"} <= rows[0].keys()
    assert (here / "runs/a/report.html").as_uri() in shown["runs-a-report"].data


def test_again_it_has_nothing_to_do_and_more_rows_extend_it(here):
    augment.augment("small.yaml", Path("runs/a"))
    before = contents(here / "runs")
    augment.augment("small.yaml", Path("runs/a"))
    assert contents(here / "runs") == before
    generate.generate(Path("runs/a"), rows=300)
    assert len(store.open("runs/a/store")) == 300
    assert "-v1" in (here / "runs/a/export/stage.json").read_text()


def test_a_failed_gate_is_reported_told_and_not_exported(here, monkeypatch):
    monkeypatch.setenv("SYNTHPIPE_ON_FAILURE", "tee told.txt")
    strict = ["validation.suite=hard.yaml"]
    state = augment.augment("small.yaml", Path("runs/a"), strict, return_state=True)
    assert state.is_failed()
    assert state.message.startswith(
        "GateError: 'runs/a' did not pass the suite 'impossible'\n  found     marginals.mean"
    )
    assert "\n  fix       " in state.message
    with pytest.raises(GateError):
        state.result()
    shown = artifacts(state)
    assert "runs-a-report" in shown
    assert read_rows(shown["runs-a-scorecard"])[0]["passed"] == "NO"
    assert shown["runs-a-progress"].data < 100
    assert not (here / "runs/a/export").exists()
    assert state.message in (here / "told.txt").read_text()


def test_trouble_with_a_disk_is_tried_again_and_wrong_use_is_not(here, monkeypatch):
    real, tried = stages.train, []

    def troubled(run, config, **options):
        tried.append(run)
        if len(tried) == 1:
            raise OSError("the disk is away for a moment")
        return real(run, config, **options)

    monkeypatch.setattr(stages, "train", troubled)
    augment.augment("small.yaml", Path("runs/a"))
    assert len(tried) == 2

    def refused(run, config, **options):
        tried.append(run)
        raise ConfigError("no", found="nothing", fix="change it")

    monkeypatch.setattr(stages, "generate", refused)
    with pytest.raises(ConfigError):
        generate.generate(Path("runs/a"))
    assert len(tried) == 3


def test_a_source_that_grows_makes_versions_and_one_that_does_not_makes_none(here):
    first = augment.augment("small.yaml", Path("runs/line"), versions=True)
    assert first == Path("runs/line/v0/report.html")
    before = contents(here / "runs")
    assert augment.augment("small.yaml", Path("runs/line"), versions=True) == first
    assert contents(here / "runs") == before
    columns = dict(np.load("mine.npz"))
    np.savez("mine.npz", **{name: np.concatenate([column, column]) for name, column in columns.items()})
    state = augment.augment("small.yaml", Path("runs/line"), versions=True, return_state=True)
    assert state.result() == Path("runs/line/v1/report.html")
    assert {"line-v1-scorecard", "line-v1-report", "runs-line-progress"} == artifacts(state).keys()


def test_a_version_that_fails_the_gate_is_shown(here):
    strict = ["validation.suite=hard.yaml"]
    state = augment.augment("small.yaml", Path("runs/line"), strict, versions=True, return_state=True)
    assert state.is_failed()
    assert "line-v0-report" in artifacts(state)


def test_agents_are_trained_as_they_are_asked_for(here, monkeypatch):
    augment.augment("small.yaml", Path("runs/a"))
    asked = []

    def judged(run, config, **options):
        asked.append((config.evaluation.agents, config.evaluation.seeds, options))
        record = {"outcome": "nothing changes", "table": [{"agent": "iql", "score": 1.0, "scores": [1.0]}]}
        digest = store.open("runs/a/store").digest()
        write_json(run.folder("evaluation") / "stage.json", {"key": "k", "digest": digest, **record})
        return run.folder("evaluation") / "results.json"

    monkeypatch.setattr(tasks.evaluating, "evaluate", judged)
    monkeypatch.setattr(stages, "report", lambda run: run.directory / "report.html")
    state = evaluate.evaluate(
        Path("runs/a"), ["iql"], ["evaluation.seeds=7"], scheduler="tcp://host:8786", return_state=True
    )
    assert state.is_completed(), state.message
    assert asked == [({"iql": {}}, 7, {"workers": "tcp://host:8786", "yes": False})]
    assert read_rows(artifacts(state)["runs-a-utility"]) == [{"agent": "iql", "score": 1.0}]


def test_a_benchmark_has_a_leaderboard_and_goes_on_when_a_generator_fails(here, monkeypatch):
    real = stages.train

    def one_fails(run, config, **options):
        if config.generator["kind"] == "noise":
            raise TaskError("it cannot learn this", found="nothing", fix="leave it out")
        return real(run, config, **options)

    monkeypatch.setattr(stages, "train", one_fails)
    kinds = ["duplicate", "noise", "copula"]
    state = benchmark.benchmark(["mine.npz"], kinds, out=Path("runs/all"), preset="small.yaml", return_state=True)
    assert state.is_failed()
    assert "runs/all/mine.npz/seed-0/noise: it cannot learn this" in state.message
    rows = read_json(here / "runs/all/summary.json")
    assert [(row["dataset"], row["seed"]) for row in rows] == [("mine.npz", 0)] * 2
    assert {row["generator"] for row in rows} == {"duplicate", "copula"}
    assert (here / "runs/all/mine.npz/seed-0/board/leaderboard.html").is_file()
    shown = artifacts(state)
    assert {"runs-all-summary", "runs-all-progress", "mine-npz-seed-0-leaderboard"} == shown.keys()
    assert len(read_rows(shown["runs-all-summary"])) == 2
