"""The page: words, numbers, escaping, and what it admits that it does not know."""

import pytest
from report_pages import DRAWN, Page, card, measurement

from synth_pipeline.validation.judging import sensitivity
from synth_pipeline.validation.metric import Floor
from synth_pipeline.validation.report import NOT_CHECKED, QUESTIONS, render
from synth_pipeline.validation.sample import UNDONE
from synth_pipeline.validation.scorecard import METRICS

EVIL = "<script>alert('x')</script> & \"more\""


def scores(scale):
    return {"dataset": "pond/x", "environment": "pond", "rows": 7_000, "scores": scale}


def test_a_passing_verdict_with_its_numbers_and_its_origin():
    page = Page(render(card(measurement(floor=Floor(0.97, 0.961))), title="Mine"))
    assert "Passed all 1 rule of the suite 'mine'" in page.words
    assert "12,345 rows by smote, held against 4,000 rows of hopper/x" in page.words
    for text in ("neighbours: 5", "0.95", "≥ 0.9", "0.97", "95 %: 0.961", "d" * 64, "2.13.0"):
        assert text in page.words
    assert "/a/b" not in page.words  # where it stood says nothing on another machine
    assert page.links == []
    assert "Nothing was exported" in page.words


def test_a_failing_verdict_says_so_and_by_how_much():
    weak = measurement(value=0.2, columns={"rewards": 0.2, "actions[0]": 0.9})
    page = Page(render(card(weak), title="Mine"))
    assert "Failed 1 of 1 rule of" in page.words
    assert "Do not train on this data" in page.words
    assert "marginals.mean (worst: rewards): 0.2, needs >= 0.9" in page.words
    assert "worst: rewards 0.200, actions[0] 0.900" in page.words


def test_names_are_text_and_never_markup():
    rules = [{"metric": "marginals.mean", "at_least": 0.9, "why": EVIL}, {"metric": EVIL, "at_most": 1}]
    values = card(measurement(columns={EVIL: 0.5}), rules=rules, suite=EVIL, export={EVIL: EVIL})
    values["store"]["generator"] = {"kind": EVIL, EVIL: EVIL}
    values["provenance"]["real dataset"] = EVIL
    values["provenance"][EVIL] = EVIL
    page = Page(render(values, title=EVIL))
    assert "script" not in page.tags
    assert page.words.count(EVIL) >= 8
    assert page.links == [EVIL]


def test_missing_floors_and_values_leave_no_none():
    values = card(
        measurement(floor=None),
        measurement("oracle.mean", None, why="nothing known"),
        rules=[{"metric": "oracle.mean", "at_most": 1}],
    )
    page = Page(render(values, title="Mine"))
    assert "None" not in page.words
    assert "not decidable" in page.words
    assert "oracle.mean: nothing known." in page.words
    assert "Failed 1 of 1 rule of" in page.words


def test_what_was_not_checked_is_what_no_measurement_decided():
    page = Page(render(card(measurement("contract.finite", 0.0), measurement("novelty.ratio", None)), title="Mine"))
    assert NOT_CHECKED["contract."] not in page.words
    for prefix in ("marginals.", "novelty.", "oracle.", "utility."):  # undecided is not checked
        assert NOT_CHECKED[prefix] in page.words


def test_rows_that_break_the_contract_are_counted_by_column():
    broken = measurement("contract.bounds", 1_234.0, direction="lower", fields={"actions": 1_200, "rewards": 34})
    page = Page(render(card(broken, rules=[{"metric": "contract.bounds", "at_most": 0}]), title="Mine"))
    assert "worst: actions 1,200, rewards 34" in page.words
    assert "1,234" in page.words


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_the_worst_columns_follow_the_direction(direction):
    columns = {f"column{n}": n / 10 for n in range(5)}
    page = Page(render(card(measurement(direction=direction, columns=columns)), title="Mine"))
    worst = "column0 0, column1 0.100" if direction == "higher" else "column4 0.400, column3 0.300"
    assert f"worst: {worst}" in page.words


def test_judged_measured_and_not_checked_stand_apart():
    values = [
        measurement(),
        measurement("oracle.mean", 0.3, direction="lower"),
        measurement("novelty.a", None, why="x"),
    ]
    page = Page(render(card(*values), title="Mine"))
    judged, measured, missing = (page.words.index(part) for part in ("Judged", "Measured, not judged", "Not checked"))
    assert page.words.index("1 further metric was measured and has no rule in this suite") < judged
    assert judged < page.words.index("marginals.mean") < measured
    assert measured < page.words.index("oracle.mean") < missing < page.words.index("novelty.a: x.")
    two = Page(render(card(*values, measurement("c2st.row", 0.9)), title="Mine"))
    assert "2 further metrics were measured and have no rule" in two.words
    assert "further" not in Page(render(card(measurement()), title="Mine")).words


def test_a_metric_with_a_target_says_so():
    floor = Floor(0.98, 0.05)
    ratio = measurement("novelty.nn_ratio_sa", 1.4, direction="nearest", target=1.0, floor=floor)
    page = Page(render(card(measurement(), ratio), title="Mine"))
    assert "1 = same; nearest to 1 is best" in page.words
    assert "95 %: within 0.05 of 1" in page.words


def test_tiny_numbers_are_more_than_nothing_and_stay_whole():
    tiny = measurement("oracle.median", 3.1961e-12, direction="lower", columns={"a": 3.2e-12, "b": 0.0, "c": 0.25})
    html = render(card(measurement(), tiny), title="Mine")
    assert '<span class="whole">3.196e-12</span>' in html
    assert "worst: c 0.250, a 3.2e-12, b 0" in Page(html).words


def test_files_are_links_from_the_page():
    page = Page(render(card(measurement(), export={"flat": "export/a.hdf5"}), title="Mine"))
    assert page.links == ["export/a.hdf5"]


def test_the_page_loads_nothing_and_fits_a_phone():
    html = render(card(measurement()), title="Mine")
    assert "http" not in html.replace("http-equiv", "")
    assert "url(" not in html
    assert "@import" not in html
    assert 'name="viewport" content="width=device-width' in html
    assert 'data-label="value"' in html
    assert "default-src 'none'" in html


# --- verdicts --------------------------------------------------------------------------------------------------------

RULES = (
    {"metric": "marginals.mean", "at_least": 0.9, "why": "columns look real"},
    {"metric": "oracle.mean", "at_most": 0.1, "optional": True},
    {"metric": "novelty.copies", "at_most": 0.01, "verdict": "novelty", "why": "no copies"},
    {"metric": "utility.gain", "at_least": 0.0, "verdict": "utility", "optional": True},
)


def verdicts(*measurements, rules=RULES):
    """What the three cards say, by verdict."""
    words = Page(render(card(*measurements, rules=rules), title="Mine")).words
    top = words[: words.index("of the suite")]
    starts = [top.index(name.capitalize()) for name in QUESTIONS] + [None]
    return {name: top[a:b] for name, a, b in zip(QUESTIONS, starts, starts[1:], strict=False)}


def test_three_verdicts_are_never_blended():
    good, copies = measurement(), measurement("novelty.copies", 0.3, direction="lower")
    said = verdicts(good, measurement("oracle.mean", 0.01, direction="lower"), copies)
    assert "✓ passed" in said["fidelity"]
    assert "as far as 2 rules can tell" in said["fidelity"]
    assert "✗ failed" in said["novelty"]
    assert "Of 1 rule, 1 failed: “no copies”" in said["novelty"]
    assert "? not judged" in said["utility"]
    assert "No agent was trained" in said["utility"]
    for name, question in QUESTIONS.items():
        assert question in said[name]


def agents(*rows):
    """The card of utility, of (arm, verdict, diverged)."""
    number = {"value": 1.0, "low": None, "high": None}
    plain = {"agent": "bc", "score": {**number, "diverged": 0}, "return": None, "runs": 5, "seconds": 1.0}
    found = [
        {**plain, "arm": arm, "difference": {**number, "why": "few", "verdict": verdict, "diverged": list(lost)}}
        for arm, verdict, lost in rows
    ]
    table = [{**plain, "arm": "real"}, *found]
    told = {**card(measurement()), "utility": {"table": table, "sentence": "as it was measured"}}
    return Page(render(told, title="Mine")).words.partition("Utility")[2].partition("of the suite")[0]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("mixed", "better", (0, 0)), ("smote", "worse", (0, 0))], "✓ passed"),
        ([("mixed", "undecided", (0, 0)), ("fresh", "better", (0, 0))], "? not judged"),
        ([("mixed", "better", (0, 0)), ("mixed", "worse", (0, 0))], "✗ failed"),
        ([("mixed", "better", (0, 0)), ("mixed", None, (1, 0))], "? not judged"),
        ([("mixed", "better", (0, 0)), ("mixed", "outlasted", (5, 0))], "✗ failed"),
        ([("mixed", "outlasts", (0, 2))], "? not judged"),
    ],
)
def test_utility_is_what_agents_made_of_the_rows_of_the_run_and_of_no_control(rows, said):
    assert said in agents(*rows)


def test_rules_that_decided_nothing_are_no_verdict():
    undecided = measurement("oracle.mean", None, direction="lower", why="nothing known")
    said = verdicts(undecided, rules=RULES[1:2])
    assert "? not judged" in said["fidelity"]
    assert "✓" not in said["fidelity"]


def test_what_was_measured_and_not_judged_says_that_it_can_be_read_below():
    ratio = measurement("novelty.nn_ratio_sa", 1.0, direction="nearest", target=1.0)
    assert "no rule of this suite judges it" in verdicts(ratio, rules=RULES[:1])["novelty"]
    assert "near-copies" in verdicts(measurement(), rules=RULES[:1])["novelty"]


def test_many_broken_rules_are_named_twice_and_counted():
    rules = [{"metric": f"m.{n}", "at_least": 1.0, "why": f"reason {n}"} for n in range(5)]
    said = verdicts(rules=rules)["fidelity"]
    assert "Of 5 rules, 5 failed: “reason 0”, “reason 1”, 3 more." in said


# --- scale, cost, origin ---------------------------------------------------------------------------------------------


def test_corruptions_stand_mildest_first_and_the_rest_behind_a_click():
    scale = {"marginals.mean": [("e", 0.1), ("a", 0.94), ("c", 0.7), ("b", 0.8), (EVIL, 0.05)]}
    page = Page(render(card(measurement(), sensitivity=scores(scale)), title="Mine"))
    assert "corrupted: a: 0.94, b: 0.8, c: 0.7" + "2 more" + f"e: 0.1, {EVIL}: 0.05" in page.words
    assert "real rows that were spoilt on purpose, on pond/x, 7,000 rows, the mildest first" in page.words
    assert "a scale for orientation" in page.words
    assert "script" not in page.tags
    assert "orrupted" not in Page(render(card(measurement()), title="Mine")).words
    lower = measurement("oracle.mean", 0.1, direction="lower")
    scale = {"oracle.mean": [["b", 2], ["a", 1]]}
    page = Page(render(card(measurement(), lower, sensitivity=scores(scale)), title="Mine"))
    assert "corrupted: a: 1, b: 2" in page.words


def test_scores_of_corruptions_on_another_environment_are_not_shown():
    page = Page(render(card(measurement(), sensitivity=scores({})), title="Mine"))
    assert "No corruption has been measured for these data, only on pond/x, 7,000 rows" in page.words
    assert "corrupted" not in page.words


def test_what_is_not_decidable_stands_on_no_scale():
    unknown = measurement(value=None, why="x")
    page = Page(render(card(unknown, sensitivity=scores({"marginals.mean": [("a", 0.5)]})), title="Mine"))
    assert "corrupted" not in page.words


def test_the_scores_that_come_with_the_project_are_those_of_one_environment():
    shipped, elsewhere, unknown = sensitivity("hopper"), sensitivity("pendulum"), sensitivity(None)
    assert (shipped["dataset"], shipped["rows"]) == ("hopper/medium-replay", 100_000)
    assert ["noise of 0.1 sd on s'", 0.999] in shipped["scores"]["c2st.residual"]
    assert set(shipped["scores"]) < set(METRICS)
    assert elsewhere["scores"] == unknown["scores"] == {}
    assert elsewhere["dataset"] == shipped["dataset"]


def test_rules_on_one_metric_stand_together_and_what_is_known_of_it_once():
    names = ("marginals.mean", "marginals.worst") * 2
    rules = [{"metric": name, "at_least": n / 10, "why": f"reason {n}"} for n, name in enumerate(names)]
    values = [measurement(name, 0.5, columns={f"of {name}": 0.5}) for name in names[:2]]
    words = Page(render(card(*values, rules=rules), title="Mine")).words
    judged = words[words.index("Judged") : words.index("Measured, not judged")]
    assert sorted(judged.index(f"reason {n}") for n in (0, 2, 1, 3)) == [
        judged.index(f"reason {n}") for n in (0, 2, 1, 3)
    ]
    assert [judged.count(f"of {name} 0.500") for name in names[:2]] == [1, 1]


def test_rows_that_were_aimed_are_named_beside_the_verdict():
    values = card(measurement(), **{UNDONE: {"drawn": 20_000, "left": 9_876, "needed": 5_000}})
    values["store"]["aim"] = {"where": "near_terminal"}
    words = Page(render(values, title="Mine", pictures=[DRAWN])).words
    said = words.index("Rows were aimed at near_terminal: distributions are judged on the 9,876 rows (of 20,000)")
    assert words.index("Utility") < said < words.index("Passed all 1 rule")
    assert "Synthetic rows are those that are left when the aim is undone" in words
    plain = Page(render(card(measurement()), title="Mine", pictures=[DRAWN])).words
    assert "aim" not in plain[plain.index("Fidelity") :].replace("claim", "")


def test_the_heading_names_the_generator_and_the_data():
    html = render(card(measurement()), title="run default")
    assert "<title>smote on hopper/x: run default</title>" in html
    assert "<h1>smote on hopper/x: run default</h1>" in html
    values = card(measurement())
    for nobody in ({"generator": {"kind": "unknown"}}, {}):
        values["store"] = {"digest": "d", "rows": 5, **nobody}
        assert "<title>Audit of x</title>" in render(values, title="Audit of x")


def test_only_a_cost_that_is_known_is_shown():
    page = Page(render(card(measurement(), cost={"training": 3_725.4, "generation": 9.0}), title="Mine"))
    assert "training1:02:05" in page.words
    assert "generation0:09" in page.words
    assert "Cost" not in Page(render(card(measurement()), title="Mine")).words


def test_rows_of_nobody_knows_whom_have_a_page():
    values = card(measurement())
    for nothing in ({}, {"generator": None}):
        values["store"] = {"digest": "d", "rows": 5, **nothing}
        page = Page(render(values, title="Mine"))
        assert "5 rows by an unknown generator" in page.words
        assert "None" not in page.words
        assert "Settings of the generator" not in page.words
