"""Judging a table against real data, whoever made it: what is injected, what is written, what is refused."""

import numpy as np
import pytest
import toy_data
from worlds import roll

from synth_pipeline import stages, store
from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import SourceError, UnknownNameError
from synth_pipeline.generators.base import modelled_fields
from synth_pipeline.judgement import CONTROLS, Against, controls, judge_file, judge_store, with_unseen, write_page
from synth_pipeline.runs import read_json
from synth_pipeline.sources.stored import StoreSource
from synth_pipeline.validation.gate import Suite
from synth_pipeline.validation.judging import outcome
from synth_pipeline.validation.rules import Rules

SUITE = Suite.parse({"name": "few", "rules": [{"metric": "marginals.mean", "at_least": 0.5}]})
QUICK = {"learn_oracle": False, "expectations": False, "splits": 3}
NAMES = ("observations", "actions", "rewards", "next_observations", "terminations")


@pytest.fixture(scope="module")
def real():
    return toy_data.toy_dataset()


def saved(path, rows):
    np.savez(path, **{name: rows[name] for name in NAMES})
    return str(path)


def test_anyones_file_is_judged_and_gets_a_page(real, tmp_path):
    file = saved(tmp_path / "theirs.npz", toy_data.toy_dataset(seed=1).transitions())
    verdict = judge_file(file, Against(real, SUITE, learn_oracle=False, splits=3), tmp_path / "audit")
    card = read_json(tmp_path / "audit" / "scorecard.json")
    assert verdict.passed
    assert card["verdict"]["passed"]
    assert card["store"]["generator"] == {"kind": "unknown"}
    assert card["store"]["rows"] == 147
    assert card["expectations"]["rules"][0]["passed"]
    assert card["cost"]["validation"] > 0
    page = write_page(tmp_path / "audit", "An audit", fix="none").read_text()
    assert "An audit" in page
    assert "Novelty was not judged" in page  # nobody said which episodes were not trained on
    assert page.count("<img") > 3


def test_where_nothing_is_known_dynamics_are_learned_and_their_own_error_is_told(real, tmp_path, monkeypatch):
    from synth_pipeline.dynamics import twofold

    asked = []
    monkeypatch.setattr(twofold, "learned_truth", lambda real, truth, **how: asked.append(how["seed"]) or truth)
    for learn in (True, False):
        Against(real, SUITE, learn_oracle=learn, seed=7).reference(modelled_fields(real.spec))
    hopper = roll("hopper", episodes=4, steps=20)
    assert Against(hopper, SUITE).reference(modelled_fields(hopper.spec)).truth.oracle is not None
    assert asked == [7]  # not when told not to; where a simulator is known, there is nothing to learn


def test_held_out_errors_of_plain_regression_stand_beside_those_of_the_rows_where_they_are_asked_for(monkeypatch):
    from synth_pipeline.dynamics import ensemble

    hopper, asked = roll("hopper", episodes=6, steps=30), []

    def learned_floor(real, seed, *, held_out, report):
        asked.append((seed, held_out))
        return {"mean": 0.125}

    monkeypatch.setattr(ensemble, "learned_floor", learned_floor)
    for learn in (False, True):
        against = Against(hopper, SUITE, held_out=np.array([1, 4]), learn_floor=learn, seed=7)
        reference = against.reference(modelled_fields(hopper.spec))
        families = reference.families(hopper, hopper.transitions(), None, 0)
        (mean,) = [m for m in families["oracle"]() if m.metric == "oracle.mean"]
        assert mean.details.get("learned_floor") == (0.125 if learn else None)
    assert asked == [(7, (1, 4))]
    monkeypatch.undo()
    bare = Against(Dataset(hopper.spec, rows=hopper.transitions()), SUITE, learn_floor=True)
    with pytest.raises(SourceError, match="held-out episodes"):
        bare.reference(())


def test_controls_are_judged_at_equal_novelty():
    hopper = roll("hopper", episodes=30, steps=60)
    reference = Against(hopper, SUITE, held_out=np.arange(3)).reference(modelled_fields(hopper.spec))
    found = controls(reference, seed=0)
    assert set(found) == set(CONTROLS)
    assert all(len(fifths) == 5 for fifths in found.values())
    assert sum(part["rows"] for part in found["SMOTE"]) > 1000
    assert controls(Against(hopper, SUITE).reference(modelled_fields(hopper.spec)), seed=0) == {}  # no split


def test_a_store_that_no_generator_made_is_judged_as_trajectories(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHPIPE_DATA", str(tmp_path / "data"))
    folder = stages.collect("toy-linear-gaussian/random", rows=600)
    real = StoreSource(folder).load()
    judge_store(store.open(folder), Against(real, SUITE, **QUICK), tmp_path / "judged")
    card = read_json(tmp_path / "judged" / "scorecard.json")
    assert card["store"]["generator"] == {"kind": "unknown"}
    found = {m["metric"]: m["value"] for m in card["measurements"]}
    assert found["trajectories.chain"] == found["trajectories.returns"] == 0
    assert write_page(tmp_path / "judged", "Collected", fix="none").exists()


def test_rules_that_could_not_be_decided_did_not_pass(real, tmp_path):
    rules = [*SUITE.plain()["rules"], {"metric": "oracle.mean", "at_most": 1, "optional": True}]
    suite = Suite.parse({"name": "open", "rules": rules})
    file = saved(tmp_path / "theirs.npz", toy_data.toy_dataset(seed=1).transitions())
    verdict = judge_file(file, Against(real, suite, **QUICK, pictures=False), tmp_path / "audit")
    assert outcome(verdict) == "PASS 1/1 rules, 1 not decidable"
    text = write_page(tmp_path / "audit", "Open", fix="none").read_text()
    assert "all 1 rule of the suite 'open' that could be decided (1 could not)" in text
    assert text.count("✓ pass<") == 1


def test_unseen_episodes_come_last_and_are_named(real):
    unseen = toy_data.toy_dataset(lengths=(5, 6), seed=3)
    both, ids = with_unseen(real, unseen)
    assert ids.tolist() == [7, 8]
    assert both.episodes.lengths.tolist()[-2:] == [5, 6]
    np.testing.assert_array_equal(both.episodes.take(ids)["rewards"], unseen.episodes["rewards"])
    with pytest.raises(SourceError, match="told apart by episode"):
        with_unseen(real, toy_data.toy_rows())


def test_rules_must_fit_the_data(real):
    rules = Rules.parse({"columns": {"rewrads": {"low": 0.0}}}, where="test")
    with pytest.raises(UnknownNameError, match="rewrads"):
        Against(real, SUITE, rules=rules, **QUICK).reference(modelled_fields(real.spec))


@pytest.mark.parametrize("fault", ["nan", "width", "few", "constant"])
def test_bad_files_get_an_error_or_a_verdict_and_never_pass(real, tmp_path, fault):
    rows = toy_data.toy_dataset(seed=1).transitions()
    if fault == "nan":
        rows["rewards"][3] = np.nan
    elif fault == "width":
        wide = {name: np.repeat(rows[name], 2, axis=1) for name in ("observations", "next_observations")}
        rows = rows.with_columns(**wide)
    elif fault == "few":
        rows = rows.take(np.arange(1))
    else:
        rows = rows.with_columns(observations=np.zeros_like(rows["observations"]))
    file, against = saved(tmp_path / "bad.npz", rows), Against(real, SUITE, **QUICK)
    if fault == "nan":
        with pytest.raises(SourceError, match="rewards"):
            judge_file(file, against, tmp_path / "audit")
        assert not (tmp_path / "audit").exists()
        return
    strict = Suite.parse({"name": "s", "rules": [{"metric": "contract.schema", "at_most": 0}, *SUITE.plain()["rules"]]})
    against = Against(real, strict if fault == "width" else SUITE, **QUICK)
    assert fault == "constant" or not judge_file(file, against, tmp_path / "audit").passed
    if fault == "constant":
        tight = Suite.parse({"name": "t", "rules": [{"metric": "marginals.worst", "at_least": 0.6}]})
        assert not judge_file(file, Against(real, tight, **QUICK), tmp_path / "audit").passed
    assert write_page(tmp_path / "audit", "Bad", fix="none").exists()


def test_one_real_episode_is_enough_to_judge_marginals(tmp_path):
    one = toy_data.toy_dataset(lengths=(60,))
    file = saved(tmp_path / "theirs.npz", toy_data.toy_dataset(seed=1).transitions())
    assert isinstance(Dataset(one.spec, one.episodes), Dataset)
    against = Against(one, SUITE, splits=3, expectations=False, pictures=False)
    judge_file(file, against, tmp_path / "audit")  # no two halves: no learned oracle, no floors
    card = read_json(tmp_path / "audit" / "scorecard.json")
    assert all(m["floor"] is None for m in card["measurements"])
