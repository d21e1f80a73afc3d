"""What is kept of a check: suites and results as strict JSON, pages that stand alone, nothing of this machine."""

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
from checked_rows import SUITE, changed, kept, measured, plain

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.validation.expectations import check, great_expectations, scorecard_table
from synth_pipeline.validation.gate import Rule, Suite, judge


def spoiled():
    def spoil(column):
        column[3] = np.inf

    return changed(rewards=spoil)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_summary_goes_into_the_scorecard(tmp_path):
    summary = kept(tmp_path)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert [rule["passed"] for rule in summary["rules"]] == [True] * 4 + [None]
    assert summary["rules"][3] == {
        "metric": "marginals.mean",
        "expectation": "expect_column_min_to_be_between",
        "passed": True,
    }
    assert all(table["passed"] == table["expectations"] > 0 for table in summary["tables"].values())
    worse = kept(tmp_path, spoiled())
    assert [rule["passed"] for rule in worse["rules"]] == [True, False, True, True, None]


def test_stored_suites_are_suites_of_great_expectations(tmp_path):
    """Read back from the file, a suite says of the same table what the stored result says."""
    kept(tmp_path, spoiled())
    found = measured(spoiled())
    table = scorecard_table(SUITE, judge(found, SUITE), plain(found))
    stored = json.loads((tmp_path / "suites" / "scorecard.json").read_text())
    suite = great_expectations().ExpectationSuite(**stored)
    assert suite.meta["left_out"][0]["metric"] == "novelty.ratio"
    again = check("scorecard", replace(table, expectations=suite.expectations))
    before = json.loads((tmp_path / "results" / "scorecard.json").read_text())
    assert [one.success for one in again.results] == [one["success"] for one in before["results"]]
    assert before["success"] is False


def test_every_stored_file_is_strict_json(tmp_path):
    kept(tmp_path, spoiled())

    def refuse(name):
        raise ValueError(name)

    files = [name for name in contents(tmp_path) if name.endswith(".json")]
    assert len(files) == 7
    for name in files:
        json.loads((tmp_path / name).read_text(), parse_constant=refuse)


def test_statistics_are_kept_by_column(tmp_path):
    kept(tmp_path)
    stored = json.loads((tmp_path / "statistics.json").read_text())
    assert stored["actions[1]"]["count"] == sum(stored["actions[1]"]["histogram"]) == 100


def test_the_same_inputs_give_the_same_bytes_in_place(tmp_path):
    kept(tmp_path / "a", spoiled())
    kept(tmp_path / "b", spoiled())
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    kept(tmp_path / "a")
    assert contents(tmp_path / "a").keys() == contents(tmp_path / "b").keys()
    assert contents(tmp_path / "a") != contents(tmp_path / "b")


def test_no_file_tells_of_this_machine(tmp_path):
    kept(tmp_path, spoiled())
    traces = (str(tmp_path), sys.prefix, socket.gethostname(), "/tmp", "/home", "site-packages")
    random_id = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}|20\d\d-?\d\d-?\d\dT")
    for name, data in contents(tmp_path).items():
        text = data.decode()
        assert not [trace for trace in traces if trace in text], name
        assert not random_id.search(text), name


# --- pages


class Links(HTMLParser):
    """Everything that a page loads or points to, and the ids that can be pointed to."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.points, self.ids = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            elif name in ("src", "href", "srcset", "data"):
                (self.points if tag == "a" else self.loads).append(value)


def test_pages_load_nothing_and_every_link_leads_somewhere(tmp_path):
    kept(tmp_path, spoiled())
    docs = tmp_path / "data_docs"
    pages = {path.name: Links(path.read_text()) for path in docs.iterdir()}
    assert pages.keys() == {"index.html", "statistics.html", "sample.html", "scorecard.html"}
    assert {link for page in pages.values() for link in page.loads} == set()
    for name, page in pages.items():
        assert page.points, name
        for link in page.points:
            file, _, anchor = link.partition("#")
            assert (docs / (file or name)).is_file(), link
            assert not anchor or anchor in pages[file or name].ids, link
    for path in docs.iterdir():
        text = path.read_text()
        assert not re.search(r"@import|url\(|https?://|<script|<i class", text), path.name


def test_pages_say_what_failed_in_words(tmp_path, caplog):
    kept(tmp_path, spoiled())
    assert caplog.records == []  # what it cannot render, Great Expectations logs and leaves out
    text = {
        path.stem: " ".join(re.sub(r"<[^>]+>", " ", path.read_text()).split())
        for path in (tmp_path / "data_docs").iterdir()
    }
    assert "The gate: failed" in text["index"]
    assert "contract.finite failed failed 1 &lt;= 0 no NaN &amp; no &lt;infinity&gt;" in text["index"]
    assert "novelty.ratio passed nothing expected not decidable &gt;= 0.9" in text["index"]
    assert "passed minimum value must be greater than or equal to 0.9 . 0.95" in text["scorecard"]
    assert "like the real columns (marginals.mean: 0.95, needs &gt;= 0.9" in text["scorecard"]
    assert "failed : rewards" in text["sample"]
    assert "maximum value must be less than or equal to 3.4028234663852886e+38 . inf" in text["sample"]
    assert "failed : not finite" in text["statistics"]
    assert "Unexpected Value Count column 1 1 rewards" in text["statistics"]


def test_columns_stand_in_the_order_of_the_table(tmp_path):
    fields = (Field(name="observations", shape=(12,)),)
    rows = Transitions({"observations": np.zeros((5, 12), np.float32)})
    kept(tmp_path, rows, fields=fields, suite=Suite(name="x", rules=(Rule(metric="marginals.mean", at_least=0),)))
    text = (tmp_path / "data_docs" / "sample.html").read_text()
    places = [text.index(f"observations[{i}]\n") for i in range(12)]
    assert places == sorted(places)


# --- the package


def test_it_is_imported_only_when_something_is_checked():
    code = "import sys, synth_pipeline.validation.expectations as e\n"
    code += "print([m for m in ('great_expectations', 'pandas', 'jinja2') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_telemetry_is_off_before_the_import(monkeypatch):
    monkeypatch.delenv("GX_ANALYTICS_ENABLED", raising=False)
    great_expectations()
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"


def test_nothing_is_sent(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise AssertionError(f"a socket to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    kept(tmp_path)
