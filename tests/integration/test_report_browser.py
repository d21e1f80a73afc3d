"""The page in a real browser, at the width of a phone and of a screen: nothing missing, nothing loaded, nothing cut."""

import json
import re
import shutil
import subprocess
from html import escape, unescape

import numpy as np
import pytest
from worlds import roll

from synth_pipeline import envs
from synth_pipeline.validation.gate import Suite, judge
from synth_pipeline.validation.picture_files import read_pictures, write_pictures
from synth_pipeline.validation.pictures import PICTURES, pictures
from synth_pipeline.validation.report import render
from synth_pipeline.validation.scorecard import against_truth
from synth_pipeline.validation.trajectories import trajectories
from synth_pipeline.validation.truth import truth_of

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions"),
    *("--enable-logging=stderr", "--virtual-time-budget=10000"),
]
WIDTHS = (390, 1200)
WATCH = """
<!doctype html><meta charset="utf-8"><body>%s<pre id="found"></pre><script>
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement, all = [...page.querySelectorAll("body *")];
    return {
      width: frame.clientWidth,
      overflow: root.scrollWidth - root.clientWidth,
      cut: all.filter(e => e.getBoundingClientRect().right > root.clientWidth + 1).length,
      pictures: [...page.images].map(i => ({wide: i.naturalWidth, shown: i.clientWidth, alt: i.alt})),
      loaded: frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name.slice(0, 40)),
      text: page.body.innerText,
      small: all.filter(e => parseFloat(getComputedStyle(e).fontSize) < 12).length,
    };
  });
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")


def opened(html, folder):
    """What a browser makes of a page at each width, and what it complains about."""
    frames = "".join(
        f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{escape(html)}"></iframe>' for width in WIDTHS
    )
    (folder / "watch.html").write_text(WATCH % frames, encoding="utf-8")
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", (folder / "watch.html").as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=400)
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', run.stdout, re.DOTALL)
    return json.loads(unescape(found)), [line for line in run.stderr.splitlines() if "CONSOLE" in line]


def faults(found, complaints, count):
    """Everything that is wrong with a page of `count` pictures, in words."""
    wrong = [f"console: {line}" for line in complaints]
    for page in found:
        wrong += [f"overflow at {page['width']}: {page['overflow']}, {page['cut']} cut"] if page["overflow"] else []
        wrong += [f"loaded: {name}" for name in page["loaded"] if not name.startswith("data:")]
        wrong += [f"no picture: {p['alt']}" for p in page["pictures"] if not p["wide"] > 0 < p["shown"]]
        wrong += [f"no words for a picture at {page['width']}" for p in page["pictures"] if not p["alt"]]
        wrong += [f"{len(page['pictures'])} of {count} pictures"] if len(page["pictures"]) != count else []
        wrong += [f"{page['small']} texts below 12 px at {page['width']}"] if page["small"] else []
    return wrong


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """A page with every picture: hopper, judged by its simulator, with trajectories."""
    real, fresh = roll("hopper", episodes=40, steps=40), roll("hopper", episodes=40, steps=40, seed=1)
    rows, truth, fields = fresh.transitions(), truth_of(envs.make("hopper")), real.spec.fields
    measured = against_truth(real, rows, truth, np.arange(6)) + trajectories(real, fresh.episodes, truth)
    names = {"oracle.mean": {"at_most": 0.1, "why": "s' follows"}, "oracle.p99": {"at_most": -1.0, "why": "never"}}
    suite = Suite.parse({"name": "mine", "rules": [{"metric": name, **rule} for name, rule in names.items()]})
    card = {
        "verdict": judge(measured, suite).to_json(),
        "measurements": [m.to_json() for m in measured],
        "store": {"rows": len(rows), "digest": "d" * 64, "generator": {"kind": "fresh", "a_long_setting": "x" * 200}},
        "provenance": {"real dataset": "test/rolled", "real rows": len(real), "seed": 0},
        "sensitivity": {
            **{"dataset": "hopper/medium-replay", "environment": "hopper", "rows": 100_000},
            "scores": {"oracle.mean": [(f"noise of 0.{n} standard deviations", n / 10) for n in range(1, 7)]},
        },
        "cost": {"training": 61.0},
    }
    fifths = next(m for m in measured if m.metric == "oracle.mean").details["error_by_novelty"]
    drawn = pictures(real, rows, card, fields, controls={"smote": fifths}, episodes=fresh.episodes)
    folder = tmp_path_factory.mktemp("run")
    write_pictures(folder, drawn, digest="d" * 64)
    return render(card, title="run test", pictures=read_pictures(folder, digest="d" * 64))


def test_the_page_works_in_a_browser_at_every_width(html, tmp_path):
    found, complaints = opened(html, tmp_path)
    assert [page["width"] for page in found] == list(WIDTHS)
    assert faults(found, complaints, len(PICTURES)) == []
    for page in found:
        for text in ("✗ failed", "? not judged", "No. Of 2 rules, 1 failed: “never”.", "1:01"):
            assert text in page["text"]
        assert page["text"].index("Fidelity") < page["text"].index("Judged") < page["text"].index("Pictures")
    assert len(html) < 2_000_000


def test_what_is_wrong_with_a_page_is_noticed(html, tmp_path):
    """Without the policy that forbids it, so that the attempt to load something is seen."""
    wrong = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    wrong = wrong.replace("</body>", '<script>console.error("oops")</script><div style="width:1300px">x</div></body>')
    wrong = wrong.replace("data:image/svg+xml;base64,PD94", "data:image/svg+xml;base64,AAAA", 1)
    wrong = wrong.replace("</body>", '<link rel="stylesheet" href="http://127.0.0.1:9/x.css"></body>')
    found = " ".join(faults(*opened(wrong, tmp_path), len(PICTURES) + 1))
    for text in (
        "oops",
        "overflow at 390",
        "overflow at 1200",
        "no picture: ",
        "loaded: http://127.0.0.1:9",
        "9 of 10",
    ):
        assert text in found


def test_the_policy_of_the_page_stops_what_would_be_loaded(html, tmp_path):
    wrong = html.replace(
        "</body>", '<img alt="x" src="http://127.0.0.1:9/x.png"><script>document.title = 1</script></body>'
    )
    assert sum("Content Security Policy" in line for line in opened(wrong, tmp_path)[1]) >= 2
