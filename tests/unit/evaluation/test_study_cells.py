"""Cells of a study: they resume and never run twice, and share the rows that were made for them."""

import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from small_studies import PLAIN, QUICK, study
from worlds import roll

from synth_pipeline import envs, sources
from synth_pipeline.agents.bc import BC
from synth_pipeline.data.split import split_dataset
from synth_pipeline.errors import ConfigError, SourceError, TrainingDivergedError
from synth_pipeline.evaluation import arms as arms_module
from synth_pipeline.evaluation import cells as cells_module
from synth_pipeline.evaluation import costs
from synth_pipeline.evaluation.cells import Task, drawn, make_arm, run_cell
from synth_pipeline.evaluation.costs import shortened
from synth_pipeline.evaluation.study import ArmConfig, Cell, cells
from synth_pipeline.evaluation.tables import lines, table
from synth_pipeline.generators.controls import Smote
from synth_pipeline.runs import read_json
from synth_pipeline.scale import studies

PARTS = cells_module._parts


class Points:
    """A source that needs no file."""

    data = None

    def fingerprint(self):
        return "points"

    def load(self):
        Points.data = Points.data or roll("toy-point-mass", episodes=20, steps=20)
        return Points.data


@pytest.fixture(autouse=True)
def source(monkeypatch):
    monkeypatch.setattr(cells_module, "source_of", lambda study: Points())
    monkeypatch.setattr(cells_module, "_parts", lambda *_: split_dataset(Points().load()))


def task(folder, given=None, arm="real", seed=0):
    return Task(given or study(), Cell(150, 0, arm, "bc", seed), folder, {"dataset": "points"})


def test_a_cell_is_evaluated_at_fixed_steps_and_kept(tmp_path):
    given = task(tmp_path, study(watched=2))
    found = run_cell(given)
    assert [evaluation["step"] for evaluation in found["evaluations"]] == [12, 24, 36, 48, 60]
    assert [evaluation["counts"] for evaluation in found["evaluations"]] == [False] * 2 + [True] * 3
    assert all(len(evaluation["returns"]) == 1 for evaluation in found["evaluations"])
    assert found["diverged"] is None
    assert read_json(given.result_file) == found == run_cell(given)
    assert [path.name for path in given.result_file.parent.iterdir()] == [given.result_file.name]


@pytest.mark.parametrize("stop", [37, 48])
def test_a_killed_cell_ends_as_if_nothing_had_happened(tmp_path, monkeypatch, stop):
    unbroken = run_cell(task(tmp_path / "whole"))["evaluations"]
    step = BC.step

    def dying(self, batch):
        if self.steps == stop:
            raise KeyboardInterrupt
        return step(self, batch)

    often = study(agents={"bc": {**QUICK, "checkpoint_seconds": 1e-9}})
    with monkeypatch.context() as patch:
        patch.setattr(BC, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            run_cell(task(tmp_path / "killed", often))
    calls = []
    monkeypatch.setattr(BC, "step", lambda self, batch: (calls.append(self.steps), step(self, batch))[1])
    assert run_cell(task(tmp_path / "killed", often))["evaluations"] == unbroken
    assert calls == list(range(stop, 60)), "no step is taken twice"


def test_the_time_of_a_training_outlives_the_process_that_spent_it(tmp_path, monkeypatch):
    """It stands beside every score: what a killed process trained was paid for, and judging is not training."""
    step = BC.step

    def slow(self, batch):
        time.sleep(0.01)
        if self.steps == 40:
            raise KeyboardInterrupt
        return step(self, batch)

    often = study(agents={"bc": {**QUICK, "checkpoint_seconds": 1e-9}})
    with monkeypatch.context() as patch:
        patch.setattr(BC, "step", slow)
        with pytest.raises(KeyboardInterrupt):
            run_cell(task(tmp_path, often))
    with safe_open(task(tmp_path, often).result_file.with_suffix(".safetensors"), framework="pt") as file:
        spent = float(file.metadata()["seconds"])
    monkeypatch.setattr(cells_module, "_evaluated", lambda *_: (time.sleep(0.3), {"returns": [1.0], "lengths": [1]})[1])
    found = run_cell(task(tmp_path, often))
    assert 0.4 < spent < found["seconds"] < spent + found["process_seconds"] - 0.6, "two evaluations are no training"


def test_nothing_but_the_result_is_left_of_a_cell(tmp_path):
    given = task(tmp_path)
    stray = given.result_file.with_name(f"{given.result_file.stem}-of-a-part.safetensors")
    stray.parent.mkdir(parents=True)
    stray.touch()
    run_cell(given)
    assert list(given.result_file.parent.iterdir()) == [given.result_file]


def test_a_diverged_cell_is_marked_and_not_averaged(tmp_path, monkeypatch):
    def explode(self, batch):
        raise TrainingDivergedError("training diverged", found="loss inf at step 3")

    monkeypatch.setattr(BC, "step", explode)
    found = run_cell(task(tmp_path))
    assert "diverged" in found["diverged"]["reason"]
    assert found["evaluations"] == []
    rows = table(study(), {Cell(150, 0, "real", "bc", 0): found}, None)
    assert rows[0]["score"]["diverged"] == 1
    assert rows[0]["score"]["value"] is None


def test_rows_of_an_arm_are_made_once_and_shared(tmp_path):
    first, second = task(tmp_path, arm="smote"), task(tmp_path, arm="smote", seed=1)
    assert first.rows_file == second.rows_file
    took = make_arm(first)
    assert took > 0
    before = first.rows_file.read_bytes()
    assert make_arm(second) == took, "what it took is kept with the rows"
    assert first.rows_file.read_bytes() == before
    with np.load(first.rows_file) as file:
        assert len(file["rewards"]) == 200
    assert run_cell(first)["evaluations"] != run_cell(task(tmp_path))["evaluations"]


def test_arms_of_one_generator_fit_it_once(tmp_path, monkeypatch):
    generator = {"kind": "copula"}
    arms = {"labelled": {"kind": "relabelled", "generator": generator, "rows": 200}}
    arms |= {"made": {"kind": "generated", "generator": generator, "rows": 200}}
    fitted, build = [], arms_module.build
    monkeypatch.setattr(arms_module, "build", lambda settings: (fitted.append(settings), build(settings))[1])
    monkeypatch.setattr(studies, "map_tasks", lambda function, tasks, **_: ((t, function(t)) for t in reversed(tasks)))
    both = study(arms={"real": {}, **arms}, seeds=1)
    found = studies.run_study(both, tmp_path / "both")
    assert [cell.arm for cell in found] == ["real", "labelled", "made"]
    assert fitted == [generator]
    alone = study(arms={"labelled": arms["labelled"]}, seeds=1)
    assert studies.run_study(alone, tmp_path / "alone")
    files = [next((tmp_path / place / "rows").glob("relabelled-*.npz")) for place in ("both", "alone")]
    with np.load(files[0]) as one, np.load(files[1]) as two:
        assert all(np.array_equal(one[name], two[name]) for name in one.files if name != "seconds")


def test_an_arm_whose_generator_diverges_loses_its_cells_and_no_others(tmp_path, monkeypatch):
    fitted = []

    class Explodes(Smote):
        def fit(self, data, **given):
            fitted.append(data)
            raise TrainingDivergedError("training diverged", found="loss inf at step 3")

    build = arms_module.build
    monkeypatch.setattr(
        arms_module, "build", lambda settings: Explodes() if settings["kind"] == "copula" else build(settings)
    )
    monkeypatch.setattr(studies, "map_tasks", lambda function, tasks, **_: ((t, function(t)) for t in tasks))
    kinds = {"made": "generated", "labelled": "relabelled"}
    arms = {name: {"kind": kind, "generator": {"kind": "copula"}, "rows": 200} for name, kind in kinds.items()}
    given = study(arms={**arms, **PLAIN["arms"]}, seeds=1)
    found = {cell.arm: body for cell, body in studies.run_study(given, tmp_path).items()}
    for arm in kinds:
        assert found[arm]["diverged"] == {
            "step": 0,
            "reason": "no rows to mix in: training diverged: loss inf at step 3",
        }
        assert (found[arm]["evaluations"], found[arm]["mixed_rows"]) == ([], 0)
    assert [found[arm]["diverged"] for arm in PLAIN["arms"]] == [None, None]
    more = study(arms={**arms, **PLAIN["arms"]}, seeds=2)
    assert len(studies.run_study(more, tmp_path)) == 8
    assert len(fitted) == 1, "what diverged once diverges again"
    rows = {row["arm"]: row for row in table(more, studies.run_study(more, tmp_path), None)}
    assert rows["made"]["score"]["diverged"] == 2


def test_what_was_mixed_in_and_what_it_cost_stand_beside_every_score(tmp_path):
    given = task(tmp_path, arm="smote")
    took = make_arm(given)
    found = run_cell(given)
    assert (found["mixed_rows"], found["arm_seconds"]) == (200, round(took, 2))
    row = table(study(), {given.cell: {**found, "arm_seconds": 75.0}}, None)[0]
    assert (row["mixed_rows"], row["arm_seconds"]) == (200, 75.0)
    assert " + 75 s" in lines([row], scored=False)[1]
    alone = run_cell(task(tmp_path))
    assert (alone["mixed_rows"], alone["arm_seconds"]) == (0, 0.0)


def test_rows_of_a_store_can_be_labelled_anew():
    arms = {"real": {}, "relabelled": {"kind": "relabelled", "store": "runs/a", "rows": 50}}
    given = task(Path("somewhere"), study(arms=arms), arm="relabelled")
    assert given.base.study.arms["relabelled"].kind == "store"
    assert given.base.rows_file != given.rows_file
    with pytest.raises(ConfigError, match="store"):
        study(arms={"real": {}, "smote": {"kind": "smote", "store": "runs/a"}})
    with pytest.raises(ConfigError, match="address"):
        study(arms={"real": {}, "mixed": {"kind": "store"}})


def test_the_bill_counts_what_an_agent_learns_before_its_policy(tmp_path):
    trainer = {"gradient_steps": 10**9, "batch_size": 32}
    model = {"members": 2, "width": 16, "depth": 1, "trainer": trainer}
    settings = {"gradient_steps": 50, "batch_size": 32, "width": 16, "rollouts": 20, "terminations": "never"}
    given = study(arms={"real": {}}, seeds=1, agents={"morel": {**settings, "model": model}})
    assert studies.bill(given, tmp_path, workers=1).seconds > 3600


def test_the_bill_counts_what_makes_rows_once_where_arms_share_it(tmp_path, monkeypatch):
    """Hours of fits are no small print: without them a study of hours would start without being asked for."""
    monkeypatch.setattr(costs, "_arm_seconds", lambda arm, data: 7_200.0 if arm.kind == "generated" else 0.0)
    vae = {"kind": "vae"}
    arms = {"made": {"kind": "generated", "generator": vae}, "labelled": {"kind": "relabelled", "generator": vae}}
    for chosen in ({"made": arms["made"]}, {"labelled": arms["labelled"]}, arms):
        assert studies.bill(study(seeds=2, arms={"real": {}, **chosen}), tmp_path, workers=1).arm_seconds == 7_200
    with pytest.raises(ConfigError, match=r"2\.0 hours"):
        studies.run_study(study(seeds=1, arms={"real": {}, **arms}), tmp_path)
    assert studies.bill(study(), tmp_path, workers=1).arm_seconds == 0.0, "SMOTE trains nothing"


def test_a_fit_is_extrapolated_from_two_short_ones(monkeypatch):
    class Fitted:
        def __init__(self, settings):
            self.settings = settings

        def fit(self, data, *, seed):
            return 5.0 + 0.1 * self.settings["gradient_steps"]

    build = costs.generators.build
    monkeypatch.setattr(
        costs.generators, "build", lambda s: Fitted(s) if s.get("gradient_steps", 9e9) < 99 else build(s)
    )
    monkeypatch.setattr(costs, "_timed", lambda work: work())
    arm = ArmConfig(kind="generated", generator={"kind": "vae", "gradient_steps": 10_000})
    assert costs._arm_seconds(arm, Points().load()) == pytest.approx(5.0 + 0.1 * 10_000)


def test_the_bill_counts_evaluations(tmp_path, monkeypatch):
    monkeypatch.setattr(BC, "expected_seconds", lambda self, data, steps: 10.0)
    monkeypatch.setattr(costs, "_timed", lambda work: 0.3)
    horizon = Points().load().spec.horizon or envs.make("toy-point-mass").spec.horizon
    found = studies.bill(study(seeds=1, arms={"real": {}}, evaluations=3, watched=2), tmp_path, workers=1).seconds
    assert found == pytest.approx(10.0 + 0.3 / costs.TIMED * horizon * 5)


@pytest.mark.parametrize("share", [0.5, 1e-9])
def test_a_short_training_is_short_everywhere(share):
    trainer = {"gradient_steps": 100, "warmup_steps": 10, "batch_size": 8}
    least = {"gradient_steps": max(1, round(100 * share)), "warmup_steps": round(10 * share), "batch_size": 8}
    assert shortened({"trainer": trainer, "x": {"y": trainer}}, share) == {"trainer": least, "x": {"y": least}}


def test_a_study_does_what_is_missing_and_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(studies, "map_tasks", lambda function, tasks, **_: ((t, function(t)) for t in tasks))
    small = study(seeds=1)
    expected = studies.bill(small, tmp_path, workers=1)
    assert expected.cells == (2, 2)
    assert expected.arms == {"smote": 1}
    told = []
    found = studies.run_study(
        small, tmp_path, finished=lambda task: told.append((task.cell, task.result_file.exists()))
    )
    assert set(found) == set(cells(small))
    assert told == [(cell, True) for cell in cells(small)]
    assert studies.run_study(small, tmp_path, finished=lambda task: told.clear()) == found
    assert told, "what was there is no news"
    assert "nothing to do: 2 cells are there" in capsys.readouterr().out
    assert len(studies.missing(studies.tasks_of(study(seeds=2), tmp_path))) == 2, "more seeds keep what is there"


def test_data_that_changed_are_not_judged_under_the_key_of_others(tmp_path, monkeypatch):
    """A worker of a cluster lives on while a file grows from night to night."""
    monkeypatch.setattr(cells_module, "_parts", PARTS)
    path = tmp_path / "mine.npz"

    def written(rows):
        ends = {"terminations": np.zeros(rows, bool), "truncations": np.arange(rows) % 10 == 9}
        np.savez(path, observations=np.ones((rows, 2)), actions=np.zeros((rows, 1)), rewards=np.ones(rows), **ends)
        now = {"dataset": sources.real_source(str(path)).fingerprint()}
        return Task(study(dataset=str(path), sizes=[None]), Cell(None, 0, "real", "bc", 0), tmp_path, now)

    before = written(200)
    assert len(drawn(before)[0].transitions()) == 18 * 9
    assert len(drawn(written(400))[0].transitions()) == 36 * 9
    PARTS.cache_clear()
    with pytest.raises(SourceError, match="changed while a study of them was under way"):
        drawn(before)


def test_all_rows_are_asked_about_once_however_many_draws(tmp_path, monkeypatch):
    begun = []
    begin = BC.begin
    monkeypatch.setattr(
        BC, "begin", lambda self, data, **given: (begun.append(len(data.real)), begin(self, data, **given))[1]
    )
    tasks = studies.tasks_of(study(sizes=[150, None], draws=3), tmp_path)
    studies._begin_each(tasks)
    assert sorted(begun) == [150] * 3 + [360]


def test_an_agent_with_settings_of_its_own_in_an_arm_is_asked_too(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(BC, "begin", lambda self, data, **_: begun.append(self.config.width))
    arms = {"real": {}, "smote": {"kind": "smote"}, "wide": {"kind": "real", "agent": {"width": 24}}}
    studies._begin_each(studies.tasks_of(study(arms=arms), tmp_path))
    assert sorted(begun) == [16, 24]


@pytest.fixture
def parts(monkeypatch):
    """Parts as they are asked for, of the points."""
    monkeypatch.setattr(
        cells_module, "_parts", lambda *given: split_dataset(Points().load(), held_out=given[3], seed=given[4])
    )


def test_every_draw_of_a_crossed_study_holds_out_another_part_and_is_judged_in_it(tmp_path, monkeypatch, parts):
    given, judged = study(crossed=True, draws=4, agents={"fqe": {}}, outcome="values"), []

    def judge(*asked):
        judged.append(asked[3])
        raise SourceError("stop here")

    monkeypatch.setattr(cells_module, "_truth", judge)
    seen = []
    for draw in range(4):
        task = Task(given, Cell(None, draw, "real", "fqe", 0), tmp_path, {"dataset": "points"})
        real, few = drawn(task)[0], drawn(task._replace(cell=Cell(150, draw, "real", "fqe", 0)))[0]
        rows, some = ({row.tobytes() for row in one.transitions()["observations"]} for one in (real, few))
        assert some < rows, "a subset of what is not held out"
        seen.append(set(real.episode_ids.tolist()))
        with pytest.raises(SourceError, match="stop here"):
            run_cell(task)
        held_out = split_dataset(Points().load(), held_out=judged[draw], seed=given.seed).held_out
        assert seen[draw] == set(range(20)) - set(held_out.episode_ids.tolist())
    assert [len(ids) for ids in seen] == [15] * 4
    assert set.intersection(*seen) == set(), "each episode is held out in one draw"


def test_all_rows_of_a_crossed_study_are_other_ones_in_every_draw(tmp_path, monkeypatch, parts):
    begun = []
    monkeypatch.setattr(BC, "begin", lambda self, data, **_: begun.append(len(data.real)))
    studies._begin_each(studies.tasks_of(study(crossed=True, draws=4, sizes=[None]), tmp_path))
    assert begun == [300] * 4


def test_what_an_agent_refuses_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    data = deepcopy(roll("toy-point-mass", episodes=20, steps=20))
    data.episodes.columns["rewards"][:] = 0  # a sparse task that nobody has solved
    monkeypatch.setattr(Points, "data", data)
    agents = {"bc": QUICK, "iql": {**QUICK, "scale_rewards": True}}
    with pytest.raises(SourceError, match="all returns are equal"):
        studies.run_study(study(agents=agents), tmp_path, yes=True)
    assert not list(tmp_path.rglob("*.json"))


def test_more_than_an_hour_is_asked_for(tmp_path):
    with pytest.raises(ConfigError, match="hours"):
        studies.run_study(study(agents={"bc": {**QUICK, "gradient_steps": 10**9}}), tmp_path)


def test_an_agent_that_is_asked_for_a_return_is_shown_at_every_target_and_judged_at_the_first(tmp_path):
    small = {"gradient_steps": 20, "width": 16, "depth": 1, "heads": 1, "context": 4, "batch_size": 8, "log_every": 5}
    given = study(arms={"real": {}}, agents={"decision_transformer": {**small, "targets": [5.0, -60.0]}}, evaluations=2)
    cell = Cell(150, 0, "real", "decision_transformer", 0)
    found = run_cell(Task(given, cell, tmp_path, {"dataset": "points"}))
    for evaluation in found["evaluations"]:
        asked = evaluation["by_target"]
        assert [one["target"] for one in asked] == [5.0, -60.0]
        assert asked[0]["returns"] == evaluation["returns"]
        assert asked[1]["returns"] != evaluation["returns"]
    (row,) = table(given, {cell: found}, None)
    assert row["by_target"][0]["score"] == pytest.approx(row["return"])
    said = lines([row], scored=False)[-1]
    assert said.startswith("decision_transformer with real, by the return it is asked for:")
    assert " of 5, " in said
    assert said.endswith("of -60; the first is judged")
