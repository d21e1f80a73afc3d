"""The leaderboard from scorecards: order, marks, what it says of itself, and how wide it gets."""

import re
from html.parser import HTMLParser

import pytest

from synth_pipeline.validation.gate import Suite, judge
from synth_pipeline.validation.leaderboard import (
    FIDELITY,
    GENERATION,
    KINDS,
    NOVELTY,
    TRAINING,
    blocks,
    entry,
    ordered,
    remarks,
    render,
    self_test,
)
from synth_pipeline.validation.metric import Floor, Measurement
from synth_pipeline.validation.sample import UNDONE

RULES = (
    {"metric": "marginals.mean", "at_least": 0.9, "why": "columns"},
    {"metric": "c2st.sa", "at_most": 0.6, "optional": True},
    {"metric": "novelty.nn_ratio_sa", "verdict": "novelty", "at_least": 0.75, "optional": True},
)
SUITE = Suite.parse({"name": "mine", "rules": list(RULES)})
EVIL = "<script>alert('x')</script>/a very long name that goes on and on.npz"
OURS = {
    "noise": "control",
    "SMOTE between neighbours": "cheater",
    "copula": "cheater",
    "fresh real rows": "fresh",
}


def measured(metric, value):
    nearest = metric.startswith("novelty.nn")
    details = {} if value is not None else {"why": "nobody knows"}
    direction = "nearest" if nearest else "lower" if metric.startswith("c2st") else "higher"
    floor = Floor(0.97, 0.96) if metric == "marginals.mean" else None
    return Measurement(
        metric, value, "1 = same", direction, (0.0, 1.0), 9, "x", floor, details, 1.0 if nearest else None
    )


def row(name, kind="given", *, marginals=0.95, sa=0.5123, novelty=1.0, known=True, spent=None, utility=None, **more):
    found = [measured("marginals.mean", marginals), measured("c2st.sa", sa), measured("novelty.nn_ratio_sa", novelty)]
    found += [measured("oracle.mean", None), measured("coverage.distance", 0.01234)]
    card = {
        "verdict": judge(found, SUITE).to_json(),
        "measurements": [m.to_json() for m in found],
        "store": {"digest": f"d-{name}", "rows": 1234},
        **more,
    }
    made = entry(card, name=name, kind=kind, about=f"about {name}", spent=spent or {}, utility=utility)
    return {**made, "origin known": known, "card": "cards/x.json"}


def board(*given, cheaters=0.5, fresh=0.95, episodes=500):
    values = {"cheater": cheaters, "fresh": fresh, "control": 0.95}
    entries = [*given, *(row(name, kind, marginals=values[kind]) for name, kind in OURS.items())]
    return {
        "real": {"dataset": "a/b", "fingerprint": "f" * 64, "rows": 9000, "held-out episodes": 7, "fresh episodes": 6},
        "suite": "mine",
        "judged metrics": [rule["metric"] for rule in RULES],
        "seed": 0,
        "splits": 20,
        "self-test": self_test(entries, "mine", episodes),
        "entries": ordered(entries),
    }


class Page(HTMLParser):
    """The words of a page, and every address in it."""

    def __init__(self, html):
        super().__init__()
        self.words, self.addresses, self.tags = "", [], set()
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.words += data


def lines(found):
    return [line for block in blocks(found) for line in block]


def test_given_tables_come_first_and_among_them_those_that_fail_least():
    bad, worse, unknown = row("bad", sa=0.9), row("worse", sa=0.9, novelty=0.1), row("unknown", novelty=None)
    found = board(worse, bad, unknown, row("good"))
    assert [e["name"] for e in found["entries"]] == ["good", "unknown", "bad", "worse", *OURS]
    assert [e["rules failed"] for e in found["entries"][:4]] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "The ruler holds: all 2 cheaters fail 'mine' on this dataset, and fresh real rows pass."),
        ({"cheaters": 0.95}, "Cheaters passed (SMOTE between neighbours and copula), so a PASS proves nothing"),
        ({"fresh": 0.5}, "Fresh real rows failed (marginals.mean), so a FAIL may be no fault of the rows."),
        ({"fresh": 0.5, "episodes": 2}, "With only 2 fresh episodes chance alone can do that"),
    ],
)
def test_the_ruler_tests_itself_and_is_loud_when_it_cannot_tell_good_from_bad(changes, said):
    found = board(row("a"), **changes)["self-test"]
    assert said in found["sentence"]
    assert found["holds"] is (not changes)
    assert ("DO NOT TRUST THIS TABLE" in found["sentence"]) is bool(changes)
    assert ("chance" in found["sentence"]) is ("episodes" in changes)


def test_rows_that_were_aimed_are_remarked_on():
    found = board(row("a"), row("b", **{UNDONE: {"drawn": 20_000, "left": 9_876, "needed": 5_000}}))
    said = "b: Rows were aimed: distributions are judged on the 9,876 rows (of 20,000)"
    assert [said in line for line in remarks(found)].count(True) == 1
    assert said in Page(render(found)).words
    assert not any("aimed" in line for line in remarks(board(row("a"))))


def test_a_control_that_passes_is_no_fault_of_the_ruler():
    assert board(row("a"))["self-test"]["holds"]
    assert next(e for e in board(row("a"))["entries"] if e["kind"] == "control")["passed"]


def test_the_text_fits_into_100_columns_and_marks_what_failed():
    found = board(row(EVIL, sa=0.9, spent={TRAINING: 61.0, GENERATION: 3.0}), row("b", utility="helps by a lot"))
    assert max(map(len, lines(found))) <= 100
    fidelity, rest, failures = blocks(found)
    (mine,) = [line for line in fidelity if "and on.npz" in line]
    assert "FAIL 2/3" in mine
    assert "0.900✗" in mine
    assert "0.0123" in mine
    assert mine.endswith("0.0123")  # no rule judges coverage.distance, so nothing marks it
    assert ["1:01" in line for line in rest if "and on.npz" in line] == [True]
    assert sum("not measured" in line for line in rest) == 5
    assert [line.split()[-3] for line in rest if line.startswith("b ")] == ["measured"]
    assert "Utility of b: helps by a lot" in remarks(found)
    assert [line.split("fails")[1].strip() for line in failures] == ["c2st.sa", "marginals.mean", "marginals.mean"]
    assert not any("oracle" in line for line in lines(found))  # nobody has a value


def test_the_widest_values_fit_too():
    found = board(row(EVIL, sa=0.9), row("b"))
    wide, share = {"value": 1.234567e-05}, {"value": 0.0123456}  # of the former only errors of an oracle get so small
    for e in found["entries"]:
        e |= {
            "rules failed": 20,
            "rules judged": 30,
            "rules not decidable": 11,
            "seconds": {TRAINING: 4e5, GENERATION: 4e5},
        }
        e["failed"] = [*FIDELITY, *NOVELTY, *(f"a.metric_of_a_long_name_{n}" for n in range(20))]
        e["metrics"] |= {metric: wide if metric.startswith("oracle") else share for metric in (*FIDELITY, *NOVELTY)}
        e["metrics"]["oracle.pit_ks"] = {"value": None}  # of noisy dynamics, where the other two are not decidable
    assert 80 < max(map(len, lines(found))) <= 100
    assert "1.2e-05✗" in blocks(found)[0][2]


def test_what_the_columns_leave_out_is_said():
    said = " ".join(remarks(board(row("a.npz", novelty=None, known=False))))
    assert "Not decidable on these data: oracle.mean" in said
    assert "No rule of 'mine' judges coverage.distance" in said
    assert "Novelty of a.npz is not decidable" in said
    assert "Novelty of" not in " ".join(remarks(board(row("a"))))


def test_the_page_has_every_row_and_loads_nothing():
    found = board(row(EVIL), row("b", sa=0.9), cheaters=0.95)
    html = render(found)
    page = Page(html)
    for e in found["entries"]:
        assert page.words.count(e["name"]) >= 2
        assert e["about"] in page.words
    assert "script" not in page.tags
    assert all(address.startswith("cards/") for address in page.addresses)
    assert not re.search(r"https?://", html)
    assert "DO NOT TRUST" in page.words
    assert "✗ FAIL 2/3" in page.words
    assert "✗ 0.900" in page.words
    assert "c2st.sa: 0.9, needs <= 0.6" in page.words
    assert page.words.count("not measured") == len(found["entries"])


def test_everything_measured_is_kept_and_undecided_rules_are_no_passes():
    found = row("a", novelty=None)
    assert found["rules judged"] == 2
    assert found["rules not decidable"] == 1
    assert found["metrics"]["novelty.nn_ratio_sa"]["why"] == "nobody knows"
    assert found["metrics"]["marginals.mean"]["floor"] == {"median": 0.97, "worst95": 0.96}
    assert set(KINDS) == {"given", "control", "cheater", "fresh"}
