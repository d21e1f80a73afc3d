"""The page: words, numbers, escaping, and what it admits that it does not know."""

from html.parser import HTMLParser

import pytest

from synth_pipeline.validation.gate import Suite, judge
from synth_pipeline.validation.metric import Floor, Measurement
from synth_pipeline.validation.report import NOT_CHECKED, render

EVIL = "<script>alert('x')</script> & \"more\""


def measurement(name="marginals.mean", value=0.95, *, direction="higher", floor=None, target=None, **details):
    return Measurement(name, value, "1 = same", direction, (0.0, 1.0), 100, "here", floor, details, target)


def card(*measurements, rules=({"metric": "marginals.mean", "at_least": 0.9},), suite="mine", **more):
    verdict = judge(measurements, Suite.parse({"name": suite, "rules": list(rules)}))
    store = {"path": "/a/b", "digest": "d" * 64, "rows": 12_345, "generator": {"kind": "smote", "neighbours": 5}}
    provenance = {"real dataset": "hopper/x", "real rows": 4_000, "seed": 3, "torch": "2.13.0"}
    return {
        "verdict": verdict.to_json(),
        "measurements": [m.to_json() for m in measurements],
        "store": store,
        "provenance": provenance,
        **more,
    }


class Page(HTMLParser):
    """The page as a browser reads it; every tag that is opened has to be closed."""

    VOID = ("meta", "br")

    def __init__(self, html):
        super().__init__()
        self.tags, self.words, self.open, self.links = [], "", [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


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
    assert "http" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert 'name="viewport" content="width=device-width' in html
    assert 'data-label="value"' in html
