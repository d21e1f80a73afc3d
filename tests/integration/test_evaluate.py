"""Agents by the command line: on a run, on a dataset alone; resumed, refused, reported."""

import pytest
from command_line import contents

from synth_pipeline.runs import read_json
from synth_pipeline.scale import studies

QUICK = (
    *("--set", "evaluation.gradient_steps=40", "--set", "evaluation.episodes=1"),
    *("--set", "evaluation.seeds=1", "--set", "evaluation.evaluations=2"),
)


def test_a_run_is_evaluated_once_and_the_report_shows_it(copied, shell, monkeypatch):
    # In this process: the other test below has worker processes.
    monkeypatch.setattr(studies, "map_tasks", lambda function, tasks, **_: ((t, function(t)) for t in tasks))
    command = ("evaluate", "runs/smoke", "--agents", "bc", *QUICK)
    before = contents(shell.folder / "runs/smoke/evaluation")
    planned = shell(*command, "--dry-run")
    assert "2 of 2 cells (bc)" in planned.out
    assert contents(shell.folder / "runs/smoke/evaluation") == before
    found = shell(*command)
    assert found.code == 0, found.err
    assert "Too few runs to tell" in found.out
    results = read_json(shell.folder / "runs/smoke/evaluation/results.json")
    assert [(row["agent"], row["arm"]) for row in results["table"]] == [("bc", "real"), ("bc", "mixed")]
    assert results["references"] is None, "this toy has no upper reference: returns stay raw"
    page = (shell.folder / "runs/smoke/report.html").read_text()
    assert "Agents that learned from these rows" in page
    assert "Too few runs to tell" in page
    for title in ("Difference to real rows alone", "Spread of the runs: bc", "Scores over the training: bc"):
        assert f"<h3>{title}</h3><img" in page
    again = shell(*command)
    assert "nothing to do" in again.out
    assert again.code == 0
    other = shell("evaluate", "runs/smoke", "--agents", "td3_bc", *QUICK)
    assert "left out of the table: bc; all: --agents td3_bc,bc" in other.out
    assert "the last results had other" not in other.out, "the agents alone are others"
    seeds = shell("evaluate", "runs/smoke", "--agents", "td3_bc", *QUICK, "--set", "evaluation.seeds=2")
    assert "the last results had other seeds, and are replaced; asked for as they were, they are back" in seeds.out
    assert "nothing to do" in shell("evaluate", "runs/smoke", "--agents", "td3_bc", *QUICK).out.split("evaluate", 1)[1]


def test_held_out_episodes_are_fresh_rows(copied, shell, monkeypatch):
    monkeypatch.setattr(studies, "map_tasks", lambda function, tasks, **_: ((t, function(t)) for t in tasks))
    controls = ("--set", "evaluation.controls=[fresh]")
    assert shell("evaluate", "runs/smoke", "--agents", "bc", *QUICK, *controls).code == 0
    results = read_json(shell.folder / "runs/smoke/evaluation/results.json")
    rows = {row["arm"]: row["mixed_rows"] for row in results["table"]}
    assert rows == {"real": 0, "mixed": 4000, "fresh": 400}


def test_an_agent_alone_on_a_dataset(smoke, shell, monkeypatch):
    monkeypatch.setenv("SYNTHPIPE_DATA", str(smoke.folder / "data"))
    size = ("--set", "collect.rows=4000")
    found = shell("evaluate", "--dataset", "toy-linear-gaussian/random", "--agents", "bc", *size, *QUICK)
    assert found.code == 0, found.err
    assert "nothing is said about synthetic ones" in found.out
    assert (shell.folder / "runs/evaluate-toy-linear-gaussian-random/results.json").exists()


def test_values_stand_beside_returns(shell, monkeypatch):
    monkeypatch.setenv("SYNTHPIPE_DATA", str(shell.folder / "data"))
    monkeypatch.setattr(studies, "map_tasks", lambda function, tasks, **_: ((t, function(t)) for t in tasks))
    made = ("--set", "dataset=pendulum/medium", "--set", "collect.rows=2000", "--set", "generate.rows=4000")
    shell("run", "smoke", "-o", "runs/p", *made, "--set", "generator={kind: smote}", "--set", "held_out=0.2")
    probe = ("--set", "evaluation.values=true", "--set", "evaluation.probe={gradient_steps: 20, width: 8, states: 100}")
    command = ("evaluate", "runs/p", "--agents", "bc", *QUICK, *probe, "--set", "evaluation.controls=[regularised]")
    planned = shell(*command, "--dry-run")
    assert "3 of 3 cells (bc)" in planned.out
    assert "3 of 3 cells (fqe)" in planned.out
    found = shell(*command)
    assert found.code == 0, found.err
    results = read_json(shell.folder / "runs/p/evaluation/results.json")
    arms = ["real", "mixed", "regularised"]
    assert [(row["agent"], row["arm"]) for row in results["values"]["table"]] == [("fqe", arm) for arm in arms]
    assert all(row["score"]["value"] < 0 for row in results["values"]["table"])
    page = (shell.folder / "runs/p/report.html").read_text()
    assert "Values learned from these rows" in page
    assert "nothing to do" in shell(*command).out
    without = shell(*command, "--set", "evaluation.values=false")
    assert without.code == 0
    assert "Values learned" not in (shell.folder / "runs/p/report.html").read_text()


TRIALS = ("--set", "gradient_steps=20", "--set", "width=8", "--set", "states=100", "--rows", "2000")


def test_advice_is_asked_for_planned_given_and_kept(shell, monkeypatch):
    """The whole verb on little data; what it recommends is judged by `validation/advice.py`, not here."""
    monkeypatch.setenv("SYNTHPIPE_DATA", str(shell.folder / "data"))
    monkeypatch.setattr(studies, "map_tasks", lambda function, tasks, **_: ((t, function(t)) for t in tasks))
    assert shell("collect", "pendulum/medium", "--rows", "2000").code == 0
    command = ("advise", "pendulum/medium", *TRIALS, "--set", "arms={mix: {kind: smote, rows: 200, share: 0.25}}")
    planned = shell(*command, "--dry-run")
    assert "10 of 10 cells (fqe)" in planned.out
    assert not (shell.folder / "runs").exists()
    found = shell(*command)
    assert found.code == 0, found.err
    kept = read_json(shell.folder / "runs/advise-pendulum-medium/advice.json")
    assert [trial["arm"] for trial in kept["trials"]] == ["mix"]
    assert kept["sentences"][0] in found.out
    assert kept["augment"] == (kept["arm"] == "mix") == (kept["mixed"] is not None) == (kept["quarter"] is not None)
    assert (kept["rows"], kept["episodes"]) == (2000, 10)
    assert "rests on 10 episodes" in found.out
    again = shell(*command)
    assert "nothing to do: 10 cells are there" in again.out
    assert read_json(shell.folder / "runs/advise-pendulum-medium/advice.json") == kept


def test_advice_without_a_policy_says_so_before_anything_is_trained(smoke, shell, monkeypatch):
    monkeypatch.setenv("SYNTHPIPE_DATA", str(smoke.folder / "data"))
    found = shell("advise", "toy-linear-gaussian/random", "--rows", "4000")
    assert found.code == 2
    assert "no policy" in found.error()["what"]
    assert "synthpipe evaluate" in found.error()["fix"]
    assert not (shell.folder / "runs").exists()


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (("evaluate",), "either a run is evaluated"),
        (("evaluate", "runs/smoke", "--dataset", "hopper/medium"), "either a run is evaluated"),
        (("evaluate", "runs/smoke", "--agents", "iqll"), "no agent called 'iqll'"),
        (("evaluate", "runs/smoke", "--agents", "decision_transformer"), "learns from whole episodes"),
        (("evaluate", "runs/smoke", "--agents", "bc", "--agents", "percent_bc"), "learns from whole episodes"),
        (
            ("evaluate", "runs/smoke", "--set", "evaluation.controls=[smot]", "--agents", "bc"),
            "no control called 'smot'",
        ),
        (("evaluate", "runs/smoke", "--set", "evaluation.agents={bc: {widht: 3}}"), "unknown key 'widht'"),
        (("advise", "toy-linear-gaussian/random", "--set", "draws=2"), "draws"),
    ],
)
def test_wrong_use_is_told_in_one_form(copied, shell, command, what):
    before = contents(shell.folder / "runs/smoke/evaluation")
    found = shell(*command)
    assert found.code != 0
    assert what in found.error()["what"]
    assert contents(shell.folder / "runs/smoke/evaluation") == before
