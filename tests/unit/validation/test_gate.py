import json

import pytest

from synth_pipeline.errors import ConfigError, GateError, UnknownNameError
from synth_pipeline.runs import write_json
from synth_pipeline.validation.gate import Rule, Suite, judge, load_suite, require_passed
from synth_pipeline.validation.metric import Floor, Measurement
from synth_pipeline.validation.record import is_scorecard


def measured(name, value, *, direction="higher", details=None, floor=None):
    return Measurement(name, value, "unit", direction, (0.0, 1.0), 10, "here", floor, details or {})


def suite(*rules):
    return Suite.parse({"name": "mine", "rules": list(rules)})


@pytest.mark.parametrize(
    ("threshold", "value", "passed"),
    [
        ({"at_least": 0.5}, 0.5, True),
        ({"at_least": 0.5}, 0.4999, False),
        ({"at_most": 0}, 0.0, True),
        ({"at_most": 0}, 1.0, False),
        ({"at_least": 0.5}, float("nan"), False),
        ({"at_most": 0.5}, float("nan"), False),
        ({"at_least": 0.5}, None, False),
        ({"at_least": 0.5, "optional": True}, None, True),
        ({"at_least": 0.5, "optional": True}, 0.1, False),
    ],
)
def test_one_rule(threshold, value, passed):
    verdict = judge([measured("a.b", value)], suite({"metric": "a.b", **threshold}))
    assert verdict.passed is passed
    assert verdict.rules[0].passed is passed


@pytest.mark.parametrize(
    ("direction", "target", "worst", "inside", "outside", "words"),
    [
        ("higher", None, 0.9, 0.81, 0.79, ">= 0.8"),
        ("lower", None, 0.5, 0.59, 0.61, "<= 0.6"),
        ("nearest", 1.0, 0.2, 0.71, 0.69, "0.7 to 1.3"),
        ("nearest", 1.0, 0.2, 1.29, 1.31, "0.7 to 1.3"),
    ],
)
def test_a_margin_on_the_floor(direction, target, worst, inside, outside, words):
    rule = suite({"metric": "a.b", "floor_plus": 0.1})
    for value, passed in ((inside, True), (outside, False), (float("nan"), False)):
        one = Measurement("a.b", value, "unit", direction, (0.0, 2.0), 10, "here", Floor(0.5, worst), {}, target)
        verdict = judge([one], rule)
        assert verdict.passed is passed
        assert verdict.rules[0].threshold == words


def test_a_margin_needs_a_floor():
    rule = {"metric": "a.b", "floor_plus": 0.1}
    verdict = judge([measured("a.b", 1.0)], suite(rule))
    assert not verdict.passed
    assert "not decidable, needs a floor, and at most 0.1 beyond it" in verdict.rules[0].sentence()
    assert judge([measured("a.b", 1.0)], suite({**rule, "optional": True})).passed


def test_what_was_not_measured_fails_unless_it_is_optional():
    assert not judge([], suite({"metric": "a.b", "at_least": 0})).passed
    assert judge([], suite({"metric": "a.b", "at_least": 0, "optional": True})).passed


def test_every_rule_must_pass_and_none_is_averaged_away():
    rules = [{"metric": f"m.{i}", "at_least": 0.5} for i in range(5)]
    values = [measured(f"m.{i}", 1.0 if i else 0.4999) for i in range(5)]
    verdict = judge(values, suite(*rules))
    assert not verdict.passed
    assert [rule.metric for rule in verdict.failures()] == ["m.0"]


def test_two_rules_bound_one_metric_on_both_sides():
    band = suite({"metric": "novelty.ratio", "at_least": 0.9}, {"metric": "novelty.ratio", "at_most": 1.2})
    assert judge([measured("novelty.ratio", 1.0)], band).passed
    assert not judge([measured("novelty.ratio", 0.5)], band).passed
    assert not judge([measured("novelty.ratio", 1.5)], band).passed


def test_sentence_has_metric_field_value_threshold_and_floor():
    details = {"columns": {"rewards": 0.9, "actions[1]": 0.2}}
    value = measured("marginals.worst", 0.2, details=details, floor=Floor(0.97, 0.95))
    (failure,) = judge([value], suite({"metric": "marginals.worst", "at_least": 0.75})).failures()
    assert failure.sentence() == "marginals.worst (worst: actions[1]): 0.2, needs >= 0.75, real against real 0.97"


def test_worst_field_depends_on_the_direction():
    details = {"columns": {"small": 0.1, "large": 0.9}}
    for direction, worst in (("higher", "small"), ("lower", "large")):
        value = measured("a.b", 0.5, direction=direction, details=details)
        assert judge([value], suite({"metric": "a.b", "at_least": 1})).rules[0].worst_field == worst
    rows = measured("contract.finite", 7.0, direction="lower", details={"fields": {"rewards": 2, "actions": 5}})
    assert judge([rows], suite({"metric": "contract.finite", "at_most": 0})).rules[0].worst_field == "actions"


def write_card(path, *values, rules, digest="d1"):
    verdict = judge(values, suite(*rules))
    store, provenance = {"digest": digest, "rows": 3}, {"real dataset": "x", "real rows": 2, "seed": 0}
    card = {"verdict": verdict.to_json(), "measurements": [], "store": store, "provenance": provenance}
    write_json(path, card)
    return path


def test_export_is_stopped_with_every_failure_and_the_way_out(tmp_path):
    rules = ({"metric": "a.b", "at_least": 0.5}, {"metric": "c.d", "at_most": 1})
    path = write_card(tmp_path / "card.json", measured("a.b", 0.1), rules=rules)
    with pytest.raises(GateError, match="'runs/x' did not pass the suite 'mine'") as caught:
        require_passed(path, "d1", "runs/x")
    assert caught.value.found == "a.b: 0.1, needs >= 0.5; c.d: not decidable, needs <= 1"
    assert "--allow-failed" in caught.value.fix
    assert require_passed(path, "d1", "runs/x", allow_failed=True)["store"]["digest"] == "d1"


def test_what_passed_may_be_exported(tmp_path):
    path = write_card(tmp_path / "card.json", measured("a.b", 0.6), rules=[{"metric": "a.b", "at_least": 0.5}])
    assert require_passed(path, "d1", "runs/x")["verdict"]["passed"]


def test_a_missing_or_outdated_scorecard_is_never_accepted(tmp_path):
    path = write_card(tmp_path / "card.json", measured("a.b", 0.6), rules=[{"metric": "a.b", "at_least": 0.5}])
    with pytest.raises(GateError, match="not validated as it is now") as caught:
        require_passed(path, "another", "runs/x", allow_failed=True)
    assert caught.value.found == "a scorecard of another digest"
    with pytest.raises(GateError, match="not validated as it is now") as caught:
        require_passed(tmp_path / "missing.json", "d1", "runs/x", allow_failed=True)
    assert caught.value.fix == "synthpipe validate runs/x"


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"store": {"digest": "d1"}}', '{"verdict": {"rules": [{}]}}'])
def test_json_of_another_shape_is_no_scorecard(tmp_path, text):
    path = tmp_path / "card.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not a scorecard") as caught:
        require_passed(path, "d1", "runs/x", allow_failed=True)
    assert caught.value.fix == "synthpipe validate runs/x"
    assert not is_scorecard(path)
    assert not is_scorecard(tmp_path / "missing.json")


def test_verdict_is_strict_json():
    verdict = judge([measured("a.b", 0.6, floor=Floor(0.9, 0.8))], suite({"metric": "a.b", "at_least": 0.5}))
    values = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert values["passed"] is True
    assert values["rules"][0]["floor"] == {"median": 0.9, "worst95": 0.8}
    assert values["rules"][0]["sentence"] == verdict.rules[0].sentence()


def test_shipped_suite_by_name():
    shipped = load_suite("default")
    assert shipped.name == "default"
    assert {rule.metric for rule in shipped.rules} >= {"contract.schema", "contract.finite", "marginals.mean"}
    assert all(rule.why for rule in shipped.rules)


def test_unknown_suite_gets_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'default'"):
        load_suite("defualt")
    with pytest.raises(UnknownNameError):
        load_suite("../../README")


def test_suite_by_path(tmp_path):
    path = tmp_path / "my suite.yaml"
    path.write_text("name: mine\nrules:\n  - {metric: a.b, at_least: 0.5}\n")
    assert load_suite(str(path)).rules == (Rule(metric="a.b", at_least=0.5),)
    with pytest.raises(ConfigError, match="there is no file"):
        load_suite(str(tmp_path / "missing.yaml"))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("{metric: a.b}", "exactly one of at_least, at_most and floor_plus"),
        ("{metric: a.b, at_least: 1, at_most: 2}", "exactly one of at_least, at_most and floor_plus"),
        ("{metric: a.b, at_lest: 1}", "did you mean 'rules.0.at_least'"),
        ("{metric: a.b, at_least: many}", "rules.0.at_least"),
        ("{metric: a.b, at_least: 1, verdict: novel}", "did you mean 'novelty'"),
    ],
)
def test_wrong_rules(tmp_path, rule, text):
    path = tmp_path / "suite.yaml"
    path.write_text(f"name: mine\nrules:\n  - {rule}\n")
    with pytest.raises(ConfigError) as caught:
        load_suite(str(path))
    assert text in str(caught.value)


def test_a_suite_without_rules_would_pass_everything():
    with pytest.raises(ConfigError, match="rules"):
        suite()
