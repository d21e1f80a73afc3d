"""Studies: addresses and keys of their cells, and tables that claim no more than they may."""

import pytest
from small_studies import PLAIN, QUICK, study

from synth_pipeline.agents.bc import BC
from synth_pipeline.errors import ConfigError, UnknownNameError
from synth_pipeline.evaluation import study as study_module
from synth_pipeline.evaluation.cells import agent_seed
from synth_pipeline.evaluation.monte_carlo import policy_fingerprint
from synth_pipeline.evaluation.scores import ScoreScale
from synth_pipeline.evaluation.study import Cell, cell_key, cells, rows_key
from synth_pipeline.evaluation.tables import lines, sentence, table
from synth_pipeline.generators.controls import Smote
from synth_pipeline.generators.vae import VAE


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
        {"crossed": True, "draws": 5},
        {"seed": 1},
    ],
)
def test_a_key_changes_with_everything_that_the_result_follows_from(changes):
    cell = Cell(150, 0, "smote", "bc", 0)
    assert cell_key(study(), cell, {}) != cell_key(study(**changes), cell, {})
    assert cell_key(study(), cell, {}) != cell_key(study(), cell, {"dataset": "other"})
    assert cell_key(study(), cell, {}) == cell_key(study(seeds=9), cell, {}), "more seeds keep what is there"


def test_other_parts_are_other_cells():
    """With one draw more every part is another one; without parts, draws that are there are kept."""
    cell = Cell(150, 0, "smote", "bc", 0)
    assert cell_key(study(draws=5), cell, {}) == cell_key(study(draws=6), cell, {})
    five, six = (study(crossed=True, draws=draws) for draws in (5, 6))
    assert cell_key(five, cell, {}) != cell_key(six, cell, {})
    assert cell_key(five, cell, {}) != cell_key(study(held_out=(0, 5)), cell, {})


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"draws": 1}, "held out in turn"),
        ({"arms": {"real": {}, "mine": {"kind": "store", "store": "x.zarr"}}}, "the arm mine"),
        ({"arms": {"real": {}, "mine": {"kind": "relabelled", "store": "x.zarr"}}}, "has seen most of them"),
    ],
)
def test_parts_that_somebody_has_seen_are_not_held_out_in_turn(changes, what):
    assert study(**{"draws": 2, **changes}), "well without parts"
    with pytest.raises(ConfigError, match=what):
        study(**{"crossed": True, "draws": 2, **changes})


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


@pytest.mark.parametrize(("outcome", "learner"), [("returns", BC), ("values", study_module.FQE)])
def test_a_key_changes_when_the_code_of_an_agent_learns_otherwise(monkeypatch, outcome, learner):
    given, cell = study(agents={"bc": {}}, outcome=outcome), Cell(150, 0, "real", "bc", 0)
    before = cell_key(given, cell, {})
    monkeypatch.setattr(learner, "revision", learner.revision + 1)
    assert cell_key(given, cell, {}) != before


def test_values_of_another_policy_are_another_cell_on_the_same_rows():
    given, cell = study(agents={"fqe": {}}, outcome="values"), Cell(150, 0, "smote", "fqe", 0)
    one, other = ({"dataset": "d", "policy of fqe": policy_fingerprint("hopper", name)} for name in ("best", "medium"))
    assert cell_key(given, cell, one) != cell_key(given, cell, other)
    assert rows_key(given, cell, one) == rows_key(given, cell, other)


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


def test_an_agent_of_episodes_is_refused_where_rows_are_mixed_in_and_not_alone():
    with pytest.raises(ConfigError, match="decision_transformer"):
        study(agents={"bc": {}, "sequences": {"kind": "decision_transformer"}})
    assert study(agents={"decision_transformer": {}}, arms={"real": {}}).seeds == 2


def test_fresh_rows_are_never_those_in_whose_states_values_are_judged():
    given = {"arms": {"real": {}, "fresh": {"kind": "fresh"}}, "agents": {"fqe": {}}, "outcome": "values"}
    assert study(**given, sizes=[100])
    with pytest.raises(ConfigError, match="fresh real rows beside all others are the held-out ones"):
        study(**given, sizes=[100, None])


def test_long_names_keep_the_columns_of_a_table_in_line():
    cell = {"seconds": 1.0, "mixed_rows": 0, "arm_seconds": 0.0, "diverged": None}
    given = study(agents={"a_name_of_twenty_one": {"kind": "bc", **QUICK}}, arms={"real": {}})
    found = {c: {**cell, "evaluations": [{"step": 1, "returns": [1.0]}]} for c in cells(given)}
    head, line = lines(table(given, found, None), scored=False)
    assert head.index("runs") + len("runs") == line.rindex("2  1 s") + 1
    assert lines([], scored=True)[0].startswith("agent")


def test_what_cannot_be_is_refused():
    with pytest.raises((UnknownNameError, ConfigError), match="smote"):
        study(arms={"x": {"kind": "smotte"}})
    with pytest.raises(ConfigError, match="store"):
        study(arms={"x": {"kind": "store"}})


# --- tables ----------------------------------------------------------------------------------------------------------


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
    assert "undecided: bc with smote (1 diverged, 0 of real rows alone)" in sentence(table(study(), found, SCALE))
    found[Cell(150, 0, "real", "bc", 0)] |= {"diverged": {"step": 3, "reason": "loss inf"}}
    few = sentence(table(study(), found, SCALE))
    assert "Too few runs" in few
    assert "(4 pairs; 5 are the least; bc with smote (1 diverged, 1 of real rows alone))" in few


def test_an_arm_that_destroys_training_is_named():
    """Its pairs are lost, so that no interval could say so."""
    found = results([3.0] * 5, seeds=5)
    for cell in found:
        if cell.arm == "smote":
            found[cell] |= {"diverged": {"step": 3, "reason": "loss inf"}}
    said = sentence(table(study(), found, SCALE))
    assert "outlasted by real rows alone, because it diverged: bc with smote (5 diverged, 0 of real rows alone)" in said


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
