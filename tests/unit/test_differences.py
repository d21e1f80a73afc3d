"""What differs between two runs: what is found, what is called equal, what is missing, and how it reads."""

import json
import shutil

import command_line
import pytest
import small_runs

from synth_pipeline import store
from synth_pipeline.differences import difference, flat, lines
from synth_pipeline.errors import CheckpointError, ConfigError
from synth_pipeline.runs import read_json, write_json
from synth_pipeline.validation.gate import Suite, judge
from synth_pipeline.validation.metric import Floor, Measurement

RULES = [
    {"metric": "marginals.mean", "at_least": 0.9, "why": "absolute"},
    {"metric": "marginals.mean", "floor_plus": 0.02},
    {"metric": "oracle.mean", "at_most": 0.05, "optional": True},
]


def validated(run, *, marginals=0.95, oracle=None, suite="mine", floor=0.96):
    """A scorecard of the run's store, as the validate stage leaves it."""
    found = [
        Measurement("marginals.mean", marginals, "x", "higher", (0.0, 1.0), 9, "x", Floor(floor, 0.94)),
        Measurement("oracle.mean", oracle, "x", "lower", (0.0, 1.0), 9, "x"),
    ]
    card = {
        "verdict": judge(found, Suite.parse({"name": suite, "rules": RULES})).to_json(),
        "measurements": [m.to_json() for m in found],
        "store": {"digest": store.open(run / "store").digest(), "rows": 200},
        "provenance": {"real dataset": "mine", "real rows": 480, "seed": 0},
        "cost": {"validation": 1.5},
    }
    write_json(run / "validation" / "scorecard.json", card)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs `a`, a copy `b` of it, and `c` with another seed and another generator, not validated."""
    folder = tmp_path_factory.mktemp("differing")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small_runs.save_rows("mine.npz")
        small_runs.made(folder / "a", patch)
        small_runs.made(folder / "c", patch, generator={"kind": "copula"}, seed=1)
        small_runs.made(folder / "d", patch, generator={"kind": "noise", "scale": 0.5})
    validated(folder / "a")
    shutil.copytree(folder / "a", folder / "b")
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def text(found):
    return "\n".join(f"{label:<10} {line}" for label, line in lines(found))


def test_equal_runs_are_called_equal_in_one_line(here):
    found = difference(here / "a", here / "b")
    assert found["differences"] == found["scorecard"] == {}
    assert set(found["equal"]) == {"config", "data", "versions", "store", "scorecard", "cost"}
    assert found["missing"] == {"A": ["not exported", "not evaluated"], "B": ["not exported", "not evaluated"]}
    assert "equal      config, data, versions, store, scorecard, cost\n" in text(found)
    assert text(found).endswith("missing    both: not exported, not evaluated")


def test_settings_data_and_rows_that_differ_are_found(here):
    found = difference(here / "a", here / "c")
    config = found["differences"]["config"]
    assert config == {"seed": {"A": 0, "B": 1}, "generator.kind": {"A": "noise", "B": "copula"}}
    assert set(found["differences"]["data"]) == {"held-out episodes"}  # one file, another split
    assert {"digest", "weights", "plan.seed"} <= set(found["differences"]["store"])
    assert found["missing"]["B"] == ["not validated", "not exported", "not evaluated"]
    assert "scorecard" not in found["equal"]
    told = text(found)
    assert "missing    B: not validated" in told
    assert "in common)" in told
    assert "fingerprint" not in told


def test_a_setting_that_was_left_out_is_its_default(here):
    found = difference(here / "a", here / "d")["differences"]["config"]
    assert found == {"generator.scale": {"A": 3e-3, "B": 0.5}}


def test_metrics_and_rules_that_changed_their_mind(here):
    validated(here / "b", marginals=0.5, oracle=0.01)
    judged = difference(here / "a", here / "b")["scorecard"]
    assert judged["verdict"] == {"A": "PASS 'mine'", "B": "FAIL 'mine' (2)"}
    assert [(rule["metric"], rule["A"], rule["B"]) for rule in judged["rules"]] == [
        ("marginals.mean", "pass", "FAIL"),
        ("marginals.mean", "pass", "FAIL"),
        ("oracle.mean", "not decidable", "pass"),
    ]
    assert judged["metrics"][0] == {"metric": "marginals.mean", "A": 0.95, "B": 0.5, "floor": {"A": 0.96, "B": 0.96}}
    assert judged["metrics"][1]["A"] is None
    told = text(difference(here / "a", here / "b"))
    assert told.index("rule on oracle.mean") < told.index("\n           marginals.mean ")  # minds first, then values
    assert "store" in told.partition("equal")[2]


def test_a_value_that_differs_in_its_tenth_digit_is_shown_to_differ(here):
    validated(here / "b", marginals=0.95 + 1e-10, floor=0.97)
    found = difference(here / "a", here / "b")
    assert found["scorecard"]["rules"] == []
    told = text(found)
    assert " 0.9500000001 " in told
    assert "0.96 / 0.97" in told


def test_another_suite_is_another_verdict(here):
    validated(here / "b", suite="theirs")
    assert difference(here / "a", here / "b")["scorecard"]["verdict"]["B"] == "PASS 'theirs'"


def test_exports_and_utility_stand_beside_each_other_when_they_are_there(here):
    digest = store.open(here / "a" / "store").digest()
    for name in ("a", "b"):
        files = {"flat": f"a-very-long-name-of-a-flat-file-that-nobody-reads-{name}-v0.hdf5"}
        write_json(
            here / name / "export" / "stage.json", {"key": "k", "minari_id": "x", "files": files, "digest": digest}
        )
        scored = {"agent": "iql", "arm": "mixed", "size": None, "score": {"value": 50.0 + ord(name)}}
        said = {"key": name, "outcome": f"better by {name}", "table": [scored], "digest": digest}
        write_json(here / name / "evaluation" / "stage.json", said)
    found = difference(here / "a", here / "b")
    assert set(found["differences"]["export"]) == {"files.flat"}
    assert found["differences"]["utility"] == {
        "outcome": {"A": "better by a", "B": "better by b"},
        "iql.mixed.score": {"A": 147.0, "B": 148.0},
    }
    assert found["missing"] == {"A": [], "B": []}
    told = text(found)
    (line,) = [line for line in told.splitlines() if "files.flat" in line]
    assert "a-v0.hdf5" in line  # cut where the names are equal, not where they differ
    assert "b-v0.hdf5" in line
    assert max(map(len, told.splitlines())) <= 100


def test_what_is_unfinished_or_of_another_state_is_said(here):
    write_json(here / "b" / "export" / "stage.json", {"key": "begun", "minari_id": "x"})
    card = read_json(here / "b" / "validation" / "scorecard.json")
    card["store"]["digest"] = "0" * 64
    write_json(here / "b" / "evaluation" / "stage.json", {"outcome": "better", "digest": "0" * 64})
    write_json(here / "b" / "validation" / "scorecard.json", card)
    found = difference(here / "a", here / "b")
    of_another = ["validated in another state of its store", "evaluated in another state of its store"]
    assert found["notes"] == {"A": [], "B": [*of_another, "its export was not finished"]}
    assert "B: validated in another state of its store, evaluated in another" in text(found)


def test_a_run_that_has_only_begun_is_compared_as_far_as_it_goes(here):
    for stage in ("model", "store", "validation"):
        shutil.rmtree(here / "b" / stage)
    (here / "b" / "environment.json").unlink()
    found = difference(here / "a", here / "b")
    words = ["not trained", "versions not noted", "nothing generated", "not validated", "not exported", "not evaluated"]
    assert sorted(found["missing"]["B"]) == sorted(words)
    assert found["equal"] == ["config", "cost"] or found["equal"] == ["config"]


DAMAGED = {
    "state": ("model/generator/state.json", '{"extra": {}}', CheckpointError, "fitted on"),
    "card": ("validation/scorecard.json", "{}", ConfigError, "not a scorecard"),
    "versions": ("environment.json", "[]", ConfigError, "note of the versions"),
    "export": ("export/stage.json", "[]", ConfigError, "record of a stage"),
    "config": ("config.yaml", "dataset: [", ConfigError, "YAML"),
}


@pytest.mark.parametrize(("file", "content", "kind", "match"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_runs_are_named(here, file, content, kind, match):
    (here / "b" / file).parent.mkdir(exist_ok=True)
    (here / "b" / file).write_text(content)
    with pytest.raises(kind, match=match) as caught:
        difference(here / "a", here / "b")
    assert "b" in caught.value.what
    assert caught.value.fix
    shutil.rmtree(here / "b")
    with pytest.raises(ConfigError, match="is not a run directory"):
        difference(here / "a", here / "b")


def test_nested_values_become_dotted_keys():
    assert flat({"a": {"b": {"c": 1}, "d": [1, 2]}, "e": {}}) == {"a.b.c": 1, "a.d": [1, 2], "e": {}}


def test_the_verb_prints_lines_or_json_and_ends_with_0(here, monkeypatch, capsys):
    shell = command_line.Shell(here, monkeypatch, capsys)
    told = shell("diff", "a", "c")
    assert (told.code, told.err) == (0, "")
    assert told.out.splitlines()[:2] == ["A          a", "B          c"]
    assert "generator.kind" in told.out
    assert max(map(len, told.out.splitlines())) <= 100
    assert json.loads(shell("diff", "a", "c", "--json").out) == difference(
        *(here.__class__(name) for name in ("a", "c"))
    )
    before = command_line.contents(here)
    assert shell("diff", "a", "b").code == 0
    assert command_line.contents(here) == before
