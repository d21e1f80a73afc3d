"""Studies: addresses and keys, cells that resume and never run twice, tables that claim no more than they may."""

from pathlib import Path

import numpy as np
import pytest
from worlds import roll

from synth_pipeline.agents.bc import BC
from synth_pipeline.data.split import split_dataset
from synth_pipeline.diffusion.loop import TrainingDivergedError
from synth_pipeline.errors import ConfigError, UnknownNameError
from synth_pipeline.evaluation import arms as arms_module
from synth_pipeline.evaluation import cells as cells_module
from synth_pipeline.evaluation import study as study_module
from synth_pipeline.evaluation.cells import Task, agent_seed, make_arm, run_cell
from synth_pipeline.evaluation.scores import ScoreScale
from synth_pipeline.evaluation.study import Cell, StudyConfig, cell_key, cells
from synth_pipeline.evaluation.tables import lines, sentence, table
from synth_pipeline.generators.controls import Smote
from synth_pipeline.generators.vae import VAE
from synth_pipeline.runs import read_json
from synth_pipeline.scale import studies

QUICK = {"gradient_steps": 60, "width": 16, "batch_size": 32, "log_every": 10}
PLAIN = {
    "dataset": "toy/points",
    "sizes": [150],
    "seeds": 2,
    "arms": {"real": {}, "smote": {"kind": "smote", "rows": 200}},
    "agents": {"bc": QUICK},
    "episodes": 1,
    "evaluations": 3,
    "spacing": 0.2,
}


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
    monkeypatch.setattr(cells_module, "_parts", lambda dataset, rows, held_out, seed: split_dataset(Points().load()))


def study(**changes):
    return StudyConfig.parse({**PLAIN, **changes})


def task(folder, given=None, arm="real", seed=0):
    return Task(given or study(), Cell(150, 0, arm, "bc", seed), folder, {"dataset": "points"})


def test_every_cell_has_its_own_address_and_key_and_seeds_come_last():
    every = cells(study(draws=2))
    keys = {cell_key(study(draws=2), cell, {}) for cell in every}
    assert len(every) == len(set(every)) == len(keys) == 8
    assert [cell.seed for cell in every] == sorted(cell.seed for cell in every)


@pytest.mark.parametrize(
    "changes",
    [
        {"agents": {"bc": {**QUICK, "width": 17}}},
        {"arms": {**PLAIN["arms"], "smote": {"kind": "smote", "rows": 201}}},
        {"arms": {**PLAIN["arms"], "smote": {"kind": "smote", "rows": 200, "share": 0.4}}},
        {"arms": {**PLAIN["arms"], "smote": {"kind": "smote", "rows": 200, "use_in": "actor"}}},
        {"episodes": 3},
        {"evaluations": 2},
        {"held_out": 0.2},
        {"seed": 1},
    ],
)
def test_a_key_changes_with_everything_that_the_result_follows_from(changes):
    cell = Cell(150, 0, "smote", "bc", 0)
    assert cell_key(study(), cell, {}) != cell_key(study(**changes), cell, {})
    assert cell_key(study(), cell, {}) != cell_key(study(), cell, {"dataset": "other"})
    assert cell_key(study(), cell, {}) == cell_key(study(seeds=9), cell, {}), "more seeds keep what is there"


@pytest.mark.parametrize(
    ("arm", "holder", "attribute", "name"),
    [
        ("smote", Smote, "settings", "neighbours"),
        ("made", VAE, "settings", "latent"),
        ("real", BC, "settings", "depth"),
        ("values", study_module, "ProbeConfig", "members"),
    ],
)
def test_a_key_changes_when_a_default_does(monkeypatch, arm, holder, attribute, name):
    """A study of several days must not mix the numbers of two versions."""
    arms = {**PLAIN["arms"], "made": {"kind": "generated", "generator": {"kind": "vae"}}, "values": {}}
    outcome = "values" if arm == "values" else "returns"
    given, cell = study(arms=arms, agents={"bc": {}}, outcome=outcome), Cell(150, 0, arm, "bc", 0)
    before, usual = cell_key(given, cell, {}), getattr(holder, attribute)
    other = type("Other", (usual,), {"__annotations__": {name: int}, name: usual().plain()[name] + 1})
    monkeypatch.setattr(holder, attribute, other)
    assert cell_key(given, cell, {}) != before
    monkeypatch.setattr(holder, attribute, usual)
    assert cell_key(given, cell, {}) == before


def test_labels_of_another_ensemble_are_other_rows():
    keys = {
        cell_key(study(arms={"x": {"kind": "learned", "labels": {"depth": n}}}), Cell(1, 0, "x", "bc", 0), {})
        for n in (2, 3)
    }
    assert len(keys) == 2


def test_a_store_is_known_by_its_digest_wherever_it_stands():
    cell = Cell(150, 0, "mixed", "bc", 0)
    here, there = (study(arms={"mixed": {"kind": "store", "store": place}}) for place in ("runs/a", "/elsewhere/a"))
    assert cell_key(here, cell, {"store": "1"}) == cell_key(there, cell, {"store": "1"})
    assert cell_key(here, cell, {"store": "1"}) != cell_key(here, cell, {"store": "2"})


def test_the_real_arm_does_not_depend_on_what_others_mix_in():
    other = study(arms={**PLAIN["arms"], "real": {"rows": 7, "share": 0.3}})
    cell = Cell(150, 0, "real", "bc", 0)
    assert cell_key(study(), cell, {}) == cell_key(other, cell, {})
    assert agent_seed(study(), cell) == agent_seed(other, cell._replace(arm="smote")), "arms of a pair share their seed"


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


def test_what_cannot_be_is_refused():
    with pytest.raises((UnknownNameError, ConfigError), match="smote"):
        study(arms={"x": {"kind": "smotte"}})
    with pytest.raises(ConfigError, match="store"):
        study(arms={"x": {"kind": "store"}})


def results(differences, seeds=6):
    """Cells whose arm `smote` is better than `real` by known amounts."""
    found = {}
    for seed in range(seeds):
        for arm, value in (("real", 10.0 + seed), ("smote", 10.0 + seed + differences[seed])):
            evaluations = [{"step": 1, "returns": [value - 1, value + 1], "lengths": [1, 1]}] * 5
            result = {"evaluations": evaluations, "diverged": None, "seconds": 2.0, "mixed_rows": 0, "arm_seconds": 0.4}
            found[Cell(150, 0, arm, "bc", seed)] = result
    return found


SCALE = ScoreScale("toy-point-mass", 100, 0.0, 200.0, "none", {})


def test_a_table_gives_scores_paired_differences_and_a_verdict():
    rows = table(study(), results([3.0, 3.1, 2.9, 3.0, 3.2, 2.8]), SCALE)
    real, smote = rows
    assert real["return"] == pytest.approx(12.5)
    assert real["score"]["value"] == pytest.approx(12.5 / 2)
    assert "difference" not in real
    assert smote["difference"]["value"] == pytest.approx(1.5)
    assert smote["difference"]["verdict"] == "better"
    assert "better: bc with smote" in sentence(rows)
    shown = lines(rows, scored=True)
    assert "better" in shown[2]
    assert len(shown) == 3


def values_of(errors):
    """Cells of a value probe whose error is given by (size, arm)."""
    found = {}
    for (size, arm), error in errors.items():
        for draw in range(5):
            values = {"rmse": error + 0.001 * draw, "spearman": 0.8, "bias": -0.1}
            body = {"values": values, "diverged": None, "seconds": 1.0, "mixed_rows": 5, "arm_seconds": 0.0}
            found[Cell(size, draw, arm, "fqe", 0)] = body
    return found


def test_a_verdict_names_its_size_and_says_when_values_are_useless():
    of_values = study(sizes=[100, 200], draws=5, seeds=1, agents={"fqe": {}}, outcome="values")
    errors = {(100, "real"): 3.0, (100, "smote"): 2.5, (200, "real"): 0.5, (200, "smote"): 0.6}
    rows = table(of_values, values_of(errors), None)
    said = sentence(rows)
    assert "better: fqe with smote on 100 rows (values no better than their mean)" in said
    assert "worse: fqe with smote on 200 rows." in said
    assert [row["usable"] for row in rows] == [False, False, True, True]
    assert (rows[0]["spearman"], rows[0]["bias"]) == (0.8, -0.1)


def test_a_diverged_run_is_in_the_verdict():
    found = results([3.0, 3.1, 2.9, 3.0, 3.2, 2.8])
    found[Cell(150, 0, "smote", "bc", 5)] |= {"diverged": {"step": 3, "reason": "loss inf"}}
    assert "better: bc with smote (1 diverged)" in sentence(table(study(), found, SCALE))


def test_evaluations_that_are_only_watched_are_no_part_of_a_score():
    found = results([0.0] * 6)
    early = {"step": 0, "counts": False, "returns": [1e6], "lengths": [1]}
    more = {cell: {**result, "evaluations": [early, *result["evaluations"]]} for cell, result in found.items()}
    assert table(study(), more, SCALE) == table(study(), found, SCALE)


def test_the_interquartile_mean_stands_beside_the_mean():
    found = results([0.0, 0.0, 0.0, 0.0, 0.0, 600.0])
    (_, smote) = table(study(), found, SCALE)
    assert smote["score"]["value"] == pytest.approx((12.5 + 100) / 2)
    assert smote["iqm"]["value"] == pytest.approx((11 + 12 + 13 + 14) / 4 / 2), "one of four is left out at each end"
    assert " 6.25 " in lines([smote], scored=True)[1]


def test_one_draw_says_nothing_of_other_data():
    said = sentence(table(study(), results([3.0, 3.1, 2.9, 3.0, 3.2, 2.8]), SCALE))
    assert "over the agents' seeds (other data, or another fit of the generator, may do otherwise)" in said
    several = {cell._replace(draw=draw): r for draw in range(5) for cell, r in results([3.0], seeds=1).items()}
    assert "may do otherwise" not in sentence(table(study(draws=5, seeds=1), several, SCALE))


def test_an_arm_is_worth_the_real_rows_that_score_as_high():
    """On a logarithmic axis 200 lies halfway between 100 rows, with error 8, and 400, with error 4."""
    of_values = study(sizes=[100, 400], draws=5, seeds=1, agents={"fqe": {}}, outcome="values")
    errors = {(100, "real"): 8.0, (100, "smote"): 6.0, (400, "real"): 4.0, (400, "smote"): 4.0}
    rows = table(of_values, values_of(errors), None)
    assert [row.get("multiplier", {}).get("value") for row in rows] == [None, "2x", None, "1x"]
    said = lines(rows, scored=True)[-2]
    assert said.startswith("fqe with smote on 100 rows scores like 2x")
    assert said.endswith("its real rows")


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


def test_seeds_of_one_draw_are_no_independent_runs():
    found = {}
    for draw in range(5):
        for cell, result in results([3.0, -3.0], seeds=2).items():
            found[cell._replace(draw=draw)] = result
    (_, smote) = table(study(draws=5), found, SCALE)
    assert smote["difference"]["pairs"] == 5
    assert smote["difference"]["value"] == pytest.approx(0.0)
    assert smote["runs"] == 10


def test_nothing_is_claimed_that_no_interval_supports():
    mixed = table(study(), results([3.0, -3.0, 2.0, -2.0, 1.0, -1.0]), SCALE)
    assert mixed[1]["difference"]["verdict"] == "undecided"
    few = table(study(), results([3.0, 3.0, 3.0], seeds=3), SCALE)
    assert few[1]["difference"]["verdict"] is None
    assert "Too few runs" in sentence(few)
    assert "[" not in "".join(lines(few, scored=True))
    assert "nothing is said" in sentence(table(study(arms={"real": {}}), results([0.0] * 6), SCALE))


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
