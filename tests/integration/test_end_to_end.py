"""The whole path, as a newcomer walks it: `synthpipe run smoke`, and what it leaves."""

import os
import re
import shlex
import shutil
from html.parser import HTMLParser

import command_line
import h5py
import minari
import numpy as np
import pytest
from command_line import DATASET, FLAT, NAME, STAGES, contents

from synth_pipeline import store
from synth_pipeline.runs import read_json

IMPOSSIBLE = """
name: impossible
rules:
  - {metric: marginals.mean, at_least: 1.5, why: "nothing is <b>this</b> good"}
  - {metric: contract.finite, at_most: 0, why: "no NaN"}
"""


def collected(folder):
    (root,) = (folder / "data" / "collected" / "toy-linear-gaussian" / "random").iterdir()
    return store.open(root)


def test_every_stage_leaves_its_files(smoke):
    assert smoke.said.code == 0, smoke.said.err
    assert smoke.said.err == ""
    expected = (
        "config.yaml",
        "environment.json",
        "model/generator/arrays.safetensors",
        "model/generator/config.json",
        "model/generator/state.json",
        "model/metrics.jsonl",
        "store/zarr.json",
        "store/manifest.json",
        "store/observations/c.0.0",
        "validation/scorecard.json",
        "validation/stage.json",
        f"export/minari/{NAME}/data/main_data.hdf5",
        f"export/minari/{NAME}/data/metadata.json",
        f"export/{FLAT}.hdf5",
        f"export/{FLAT}.md",
        "export/stage.json",
        "evaluation/results.json",
        "evaluation/stage.json",
        "report.html",
    )
    missing = [name for name in expected if not (smoke.run / name).is_file()]
    assert missing == []
    assert not list(smoke.folder.rglob("*.partial"))


def test_the_story_is_told_line_by_line_and_ends_with_what_to_type(smoke):
    lines = smoke.said.out.splitlines()
    assert [label for label in dict.fromkeys(line.split()[0] for line in lines) if label in STAGES] == list(STAGES)
    assert str(smoke.folder) not in smoke.said.out  # paths as one would type them
    assert "in 1 shard," in smoke.said.out
    assert lines[-2] == "next       open runs/smoke/report.html in a browser, or make more rows:"
    assert lines[-1].strip() == "synthpipe generate runs/smoke -n 32000"


def test_what_is_suggested_can_be_typed_without_an_active_environment(smoke):
    said = command_line.run("report", "elsewhere/none", folder=smoke.folder, active=False)
    command = shlex.split(said.error()["fix"])
    assert os.access(smoke.folder / command[0], os.X_OK)
    assert command[1:3] == ["run", "smoke"]


def test_minari_reads_the_real_episodes_and_a_sample_of_synthetic_steps(smoke, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(smoke.run / "export" / "minari"))
    dataset = minari.load_dataset(NAME)
    real, made = collected(smoke.folder).episodes(), store.open(smoke.run / "store").read(0, 500)
    assert dataset.total_episodes == len(real) + 500
    episodes = list(dataset.iterate_episodes())
    for number, episode in enumerate(episodes[: len(real)]):
        rows = slice(int(real.starts[number]), int(real.starts[number + 1]))
        np.testing.assert_array_equal(episode.observations[:-1], real.observations[rows])
        np.testing.assert_array_equal(episode.observations[-1], real.final_observations[number])
        for name in ("actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(episode, name), real.columns[name][rows])
    for row, episode in enumerate(episodes[len(real) :]):
        np.testing.assert_array_equal(episode.observations, [made["observations"][row], made["next_observations"][row]])
        np.testing.assert_array_equal(episode.actions[0], made["actions"][row])
        assert episode.rewards[0] == made["rewards"][row]
        assert episode.terminations[0] == made["terminations"][row]


def test_the_flat_file_holds_the_real_rows_and_all_synthetic_ones(smoke):
    real, made = collected(smoke.folder).episodes().transitions(), store.open(smoke.run / "store").read_all()
    with h5py.File(smoke.run / "export" / f"{FLAT}.hdf5") as file:
        assert len(file["observations"]) == len(real) + len(made) == 12_000
        synthetic = file["infos/synthetic"][:]
        np.testing.assert_array_equal(synthetic, np.arange(len(synthetic)) >= len(real))
        for name in ("observations", "actions", "rewards", "next_observations"):
            np.testing.assert_array_equal(file[name][: len(real)], real[name])
            np.testing.assert_array_equal(file[name][len(real) :], made[name])


FAST = ("--suite", "smoke", "--no-learned-oracle")


class Page(HTMLParser):
    """The words of a page, the files it would load, and what it links to."""

    def __init__(self, text):
        super().__init__()
        self.words, self.loads, self.links = "", [], []
        self.feed(text)

    def handle_data(self, data):
        self.words += data

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [values["href"]] if tag == "a" else []
        loaded = [values.get("src"), values.get("href")] if tag in ("img", "script", "link", "iframe") else []
        self.loads += [address for address in loaded if address is not None]


def test_the_report_says_the_verdict_and_what_was_not_checked(smoke):
    page = Page((smoke.run / "report.html").read_text(encoding="utf-8"))
    assert re.search(r"Passed all \d+ rules of the suite 'smoke'", page.words)
    assert "Too few runs to tell" in page.words
    assert store.open(smoke.run / "store").digest() in page.words
    assert all(load.startswith("data:image/svg+xml;base64,") for load in page.loads)
    assert len(page.loads) >= 4
    assert len(page.links) == 3
    assert all((smoke.run / link).exists() for link in page.links)


def test_the_store_was_held_against_what_is_known_and_what_was_held_out(smoke):
    card = read_json(smoke.run / "validation" / "scorecard.json")
    values = {measured["metric"]: measured["value"] for measured in card["measurements"]}
    for name in ("dependence.correlation", "oracle.pit_ks", "novelty.nn_ratio_sa", "novelty.copies"):
        assert values[name] is not None


@pytest.mark.parametrize(
    "command",
    [
        ["run", "smoke"],
        ["run", "smoke", "-o", "new"],
        ["run", "default", "--set", "validation.suite=default"],
        ["collect", "hopper/random"],
        ["collect", DATASET, "--rows", "77"],
        ["train", DATASET, "--rows", "4000", "-g", "smote", "-o", "new"],
        ["generate", "runs/smoke", "-n", "50000"],
        ["validate", "runs/smoke"],
        ["validate", "runs/smoke/store", "--real", "runs/smoke/export/toy-linear-gaussian-random-synther-v0.hdf5"],
        ["export", "runs/smoke", "--one-step", "3"],
        ["augment", "smoke", "-o", "runs/nightly"],
    ],
    ids=" ".join,
)
def test_a_dry_run_writes_nothing(smoke, shell, monkeypatch, command):
    monkeypatch.setenv("SYNTHPIPE_DATA", str(smoke.folder / "data"))
    shell.enter(smoke.folder)
    before = contents(smoke.folder)
    answer = shell(*command, "--dry-run")
    assert (answer.code, answer.err) == (0, "")
    assert "nothing was done" in answer.out
    assert contents(smoke.folder) == before


def test_a_dry_run_names_what_is_not_the_generators_default(shell):
    planned = shell("run", "smoke", "-o", "runs/planned", "--dry-run", "--set", "generator.sampler.step=heun").out
    assert "generator.sampler.step heun, by default dpmpp_2m" in planned
    assert "generator.trainer.gradient_steps 200, by default" in planned
    assert "generator.familiar" not in planned


@pytest.mark.slow
def test_what_cannot_pass_is_reported_and_not_exported_unless_asked(control, shell, tmp_path):
    shutil.copytree(control.folder / "data", tmp_path / "data")
    (tmp_path / "hard.yaml").write_text(IMPOSSIBLE)
    failed = shell(*command_line.CONTROL, "--set", "validation.suite=hard.yaml")
    run, flat = tmp_path / "runs" / "smoke", FLAT.replace("synther", "copula")
    assert failed.code == 7
    error = failed.error()
    assert error["kind"] == "GateError"
    assert "marginals.mean" in error["found"]
    assert "needs >= 1.5" in error["found"]
    assert error["fix"].endswith("synthpipe export runs/smoke --allow-failed (the card will say so)")
    page = Page((run / "report.html").read_text(encoding="utf-8")).words
    assert "Failed 1 of 2 rules" in page
    assert "nothing is <b>this</b> good" in page
    assert not (run / "export").exists()
    assert shell("validate", "runs/smoke").code == 7
    assert shell("export", "runs/smoke").code == 7
    assert not (run / "export").exists()
    assert shell("export", "runs/smoke", "--allow-failed").code == 0
    card = (run / "export" / f"{flat}.md").read_text()
    assert "failed validation (marginals.mean)" in card
    assert (run / "export" / f"{flat}.hdf5").exists()


def test_a_store_is_held_against_another_dataset(copied, shell):
    before = contents(copied.run)
    for target in ("runs/smoke", "runs/smoke/store"):
        answer = shell("validate", target, "--real", str(collected(copied.folder).url), *FAST)
        assert answer.code == 0, answer.err
        card = read_json(copied.folder / f"{target}-validation" / "scorecard.json")
        assert card["provenance"]["real rows"] == 4_000
        shutil.rmtree(copied.folder / f"{target}-validation")
    assert contents(copied.run) == before


def test_anyones_file_is_audited(copied, shell):
    flat, real = f"runs/smoke/export/{FLAT}.hdf5", str(collected(copied.folder).url)
    answer = shell("audit", flat, "--real", real, "-o", "audited", *FAST, "--dry-run")
    assert "rules of 'smoke' on 12,000 rows" in answer.out
    assert not (copied.folder / "audited").exists()
    answer = shell("audit", flat, "--real", real, "-o", "audited", *FAST)
    assert answer.code == 0, answer.err
    assert "8,000 of 12,000 rows are marked as synthetic, and these are judged" in answer.out
    streamed = shell("audit", "runs/smoke/store", "--real", real, "-o", "streamed", *FAST, "--workers", "2")
    assert streamed.code == 0, streamed.err
    cards = [read_json(copied.folder / name / "scorecard.json") for name in ("audited", "streamed")]
    found = [{m["metric"]: m["value"] for m in card["measurements"]} for card in cards]
    assert found[0]["marginals.mean"] == found[1]["marginals.mean"], "the same rows, from a file and from a store"
    error = command_line.refused(shell("audit", flat, "--real", flat, *FAST), 3, "Source", "as real data", "audit FILE")
    assert "8,000 of 12,000 rows" in error["found"]
    page = Page((copied.folder / "audited" / "report.html").read_text(encoding="utf-8"))
    assert "Audit of" in page.words
    assert (copied.folder / "audited" / "expectations" / "data_docs" / "index.html").exists()


def test_a_simulator_dataset_end_to_end_with_smote(shell, tmp_path):
    sizes = ("--set", "collect.rows=600", "--set", "generate.rows=700", "--set", "export.one_step=9")
    settings = ("--set", "dataset=hopper/medium-replay", "--set", "generator={kind: smote, neighbours: 3}")
    settings += ("--set", "validation.pictures=false")
    answer = shell("run", "smoke", "-o", "runs/hopper", *settings, *sizes)
    assert answer.code in (0, 7), answer.err  # 600 rows are few: the verdict is not the point here
    rows = store.open(tmp_path / "runs/hopper/store").read_all()
    assert len(rows) == 700
    assert (rows["source_episode"] != rows["target_episode"]).all()
    assert ((rows["next_observations"][:, 0] < 0.7) <= rows["terminations"]).all()  # hopper's rule: fallen is over
    if answer.code == 7:
        assert shell("export", "runs/hopper", "--allow-failed").code == 0
    with h5py.File(tmp_path / "runs/hopper/export/hopper-medium-replay-smote-v0.hdf5") as file:
        assert file["infos/synthetic"][:].sum() == 700
        assert len(file["observations"]) >= 1300
