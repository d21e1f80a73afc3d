"""The scorecard measures every family that is injected, and says of the others that they are not decidable."""

import json

import numpy as np
import pytest
from toy_data import SPEC, toy_dataset
from worlds import linear_gaussian, roll

from synth_pipeline import envs
from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import UnknownNameError
from synth_pipeline.validation import c2st
from synth_pipeline.validation.gate import Suite
from synth_pipeline.validation.metric import Floor
from synth_pipeline.validation.report import NOT_CHECKED, render
from synth_pipeline.validation.scorecard import FAMILIES, METRICS, Reference, against_truth, scorecard
from synth_pipeline.validation.truth import Truth, truth_of

ANY = Suite.parse({"name": "any", "rules": [{"metric": "contract.schema", "at_most": 0}]})


def card(real, rows, truth, suite=ANY, held_out=None, floors=None, **options):
    fields = tuple(field for field in real.spec.fields if field.name != "truncations")
    reference = Reference(real, fields, fields, truth, held_out, floors=floors or {}, splits=3)
    return scorecard(Dataset(real.spec, rows=rows), reference, suite, **options)[1]


def values(found):
    return {m["metric"]: m["value"] for m in found["measurements"]}


def page(found):
    store = {"rows": 1, "generator": {"kind": "copy"}, "digest": "d", "path": "p"}
    return render({**found, "store": store, "provenance": {"real rows": 1, "real dataset": "a", "seed": 0}}, title="t")


def test_with_a_simulator_and_a_split_all_but_the_kernel_is_decided():
    real = roll("hopper", episodes=60, steps=60)
    fresh = roll("hopper", episodes=60, steps=60, seed=1).transitions()
    found = card(real, fresh, truth_of(envs.make("hopper")), held_out=np.arange(6))
    assert tuple(values(found)) == METRICS
    undecided = {name for name, value in values(found).items() if value is None}
    independent = {name for name in METRICS if name.startswith(("rules.", "trajectories."))}
    assert undecided <= {"oracle.pit_ks", "oracle.clipped_share_ratio", *independent}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    (mean,) = [m for m in found["measurements"] if m["metric"] == "oracle.mean"]
    assert sum(part["rows"] for part in mean["details"]["error_by_novelty"]) == round(
        mean["details"]["judged share"] * len(fresh)
    )
    text = page(found)
    for family in ("dependence.", "oracle.", "terminations.", "c2st.", "coverage.", "novelty."):
        assert NOT_CHECKED[family] not in text
    assert NOT_CHECKED["utility."] in text


def test_every_family_is_announced_once():
    said, rows = [], toy_dataset()
    card(rows, rows.transitions(), Truth(), progress=said.append)
    assert tuple(said) == FAMILIES
    assert {name.split(".")[0] for name in METRICS} <= {*FAMILIES, "terminations"}  # the oracle is asked for both


def test_with_a_kernel_the_distribution_is_judged():
    found = values(
        card(linear_gaussian(), linear_gaussian(seed=1).transitions(), truth_of(envs.make("toy-linear-gaussian")))
    )
    assert found["oracle.pit_ks"] < 0.06
    assert found["oracle.mean"] is None


def test_with_nothing_injected_nothing_is_claimed():
    real = toy_dataset()
    found = card(real, real.transitions(), Truth())
    decided = {name.partition(".")[0] for name, value in values(found).items() if value is not None}
    assert decided == {"contract", "marginals", "dependence", "frechet", "kinematics", "c2st", "prdc", "coverage"}
    text = page(found)
    for family in ("oracle.", "terminations.", "novelty."):
        assert NOT_CHECKED[family] in text.replace("&#x27;", "'")


def test_known_floors_are_used_instead_of_measured_again(monkeypatch):
    real = toy_dataset()
    rows, asked = real.transitions(), []
    measured = card(real, rows, Truth(), held_out=np.arange(2))["measurements"]
    floors = {m["metric"]: Floor(**m["floor"]) for m in measured if m["floor"]}
    halves = c2st.real_halves
    monkeypatch.setattr(c2st, "real_halves", lambda real, **how: asked.append(list(halves(real, **how))) or [])
    again = card(real, rows, Truth(), held_out=np.arange(2), floors=floors)["measurements"]
    assert again == measured
    assert asked == [[]] * len(asked)


def test_trajectories_are_judged_where_there_are_any():
    real = toy_dataset()
    found = values(card(real, real.transitions(), Truth(), episodes=real.episodes))
    assert found["trajectories.chain"] == 0
    assert found["trajectories.returns"] == 0


def test_a_learned_floor_stands_beside_the_error():
    real = roll("hopper", episodes=8, steps=60)
    floor = {"mean": 0.25, "p95": 1.0}
    found = against_truth(real, real.transitions(), truth_of(envs.make("hopper")), learned_floor=floor)
    details = {m.metric: m.details for m in found}
    assert details["oracle.mean"]["learned_floor"] == 0.25
    assert "learned_floor" not in details["oracle.median"]
    assert "error_by_novelty" not in details["oracle.mean"]


def test_rows_of_another_schema_are_not_compared():
    real = toy_dataset()
    rows = real.transitions()
    wrong = rows.with_columns(observations=rows["observations"].astype(np.float64))
    assert set(values(card(real, wrong, Truth()))) == {"contract.schema", "contract.finite", "contract.bounds"}


def test_rules_may_name_every_metric_and_no_other():
    real = toy_dataset()
    rules = [{"metric": name, "at_most": 1e9, "optional": True} for name in METRICS]
    card(real, real.transitions(), Truth(), Suite.parse({"name": "all", "rules": rules}))
    misspelt = Suite.parse({"name": "bad", "rules": [{"metric": "oracle.maen", "at_most": 1}]})
    with pytest.raises(UnknownNameError, match=r"oracle\.maen"):
        card(Dataset(SPEC, rows=real.transitions()), real.transitions(), Truth(), misspelt)
