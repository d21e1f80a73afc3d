"""Scorecards to render, a picture, and the page as a browser reads it."""

from html.parser import HTMLParser

from synth_pipeline.validation.gate import Suite, judge
from synth_pipeline.validation.metric import Measurement
from synth_pipeline.validation.picture_files import Picture

DRAWN = Picture(name="a", title="First", caption="Good: <b>", alt='"x" & y', svg="<svg>1</svg>")


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

    VOID = ("meta", "br", "img")

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
