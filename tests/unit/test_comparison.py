"""Comparing tables: one fair ruler, who is always in the table, what is kept, and what is refused."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import command_line
import numpy as np
import pytest
import small_runs
import toy_data
from small_runs import LENGTHS

from synth_pipeline import comparison, store
from synth_pipeline.cheaters import CHEATERS, Material
from synth_pipeline.comparison import OWN, Choices, compare, deal, plan
from synth_pipeline.contestants import CONTROLS, FRESH, file_names, names
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.split import split_dataset
from synth_pipeline.errors import CheckpointError, ConfigError, SourceError, StoreError, UnknownNameError
from synth_pipeline.runs import read_json, require_folder, write_json
from synth_pipeline.validation.gate import Suite, judge
from synth_pipeline.validation.metric import Floor, Measurement
from synth_pipeline.validation.rules import Rules
from synth_pipeline.validation.scorecard import Reference

OURS = [FRESH, *CONTROLS, *CHEATERS]
FAMILIES = ("marginals", "coverage", "novelty", "membership")  # others are no different here, and slow
CHOICES = Choices(suite="smoke", splits=2, rows=200)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs with one split, one with another, and somebody's file, all of one dataset."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small_runs.save_rows("mine.npz")
        small_runs.save_rows("theirs.npz", seed=1)
        small_runs.made(folder / "first", patch)
        small_runs.made(folder / "second", patch, generator={"kind": "copula"})
        small_runs.made(folder / "seed-1", patch, seed=1)
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy that a test may change, as working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def judged(made, tmp_path_factory):
    """What a real comparison plans and finds, its folder, and the tables and references that were used."""
    used, folder = [], tmp_path_factory.mktemp("board")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        measure, families = comparison.scorecard, Reference.families
        patch.setattr(Reference, "families", lambda *a: {k: v for k, v in families(*a).items() if k in FAMILIES})
        patch.setattr(comparison, "scorecard", lambda *a, **k: used.append((a[0], a[1])) or measure(*a, **k))
        planned = plan(["first", "second", "theirs.npz"], None, CHOICES)
        board = compare(planned, folder)
    return planned, board, folder, used


class Quick:
    """In place of the scorecard: everybody passes, but those whose names are told."""

    def __init__(self, monkeypatch, *failing):
        self.made, self.failing, self.seen = [], failing, 0
        monkeypatch.setattr(comparison, "scorecard", self)

    def __call__(self, rows, reference, suite, **how):
        how["progress"]("c2st")
        self.seen += 1
        floor = Floor(0.5, 0.6) if not reference.floors else reference.floors["c2st.sa"]
        found = [Measurement("c2st.sa", 0.55, "x", "lower", (0.5, 1.0), 1, "x", floor)]
        verdict = judge(found, Suite.parse({"name": suite.name, "rules": [{"metric": "c2st.sa", "at_most": 0.6}]}))
        return verdict, {"verdict": verdict.to_json(), "measurements": [m.to_json() for m in found]}


def cards_of(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "cards").iterdir()}


# --- the ruler


def test_fresh_episodes_are_in_no_reference_and_held_out_ones_in_no_training():
    real = toy_data.toy_dataset(LENGTHS)
    held_out = np.array([1, 4, 9, 16, 20])
    ruler = deal(real, held_out)
    assert sorted([*ruler.split["fresh"], *ruler.split["held out"]]) == held_out.tolist()
    assert len(ruler.split["fresh"]) == 2
    assert len(ruler.real.episodes) == len(LENGTHS) - 2

    def rows(data):
        return {row.tobytes() for row in data.transitions()["observations"]}

    unseen = Dataset(real.spec, real.episodes.take(np.array(ruler.split["held out"])))
    assert rows(ruler.fresh) == rows(Dataset(real.spec, real.episodes.take(np.array(ruler.split["fresh"]))))
    assert not rows(ruler.fresh) & rows(ruler.real)
    assert not rows(ruler.training()) & (rows(unseen) | rows(ruler.fresh))
    assert rows(ruler.training()) | rows(unseen) == rows(ruler.real)
    assert rows(Dataset(real.spec, ruler.real.episodes.take(ruler.held_out))) == rows(
        unseen
    )  # the ids are the new ones


def test_without_runs_the_split_is_that_of_a_run_with_this_seed():
    real = toy_data.toy_dataset([3] * 50)
    for seed in (0, 1):
        split = deal(real, seed=seed).split
        wanted = split_dataset(real, seed=seed).split.held_out.tolist()
        assert sorted([*split["fresh"], *split["held out"]]) == wanted
    assert deal(real, seed=0).split == deal(real, seed=0).split


def test_too_few_held_out_episodes_or_none_at_all_are_refused():
    with pytest.raises(ConfigError, match="too few episodes") as caught:
        deal(toy_data.toy_dataset(), np.arange(3))
    assert caught.value.found == "3 held out of 7 episodes"
    with pytest.raises(SourceError, match="needs episodes"):
        deal(toy_data.toy_rows())
    with pytest.raises(SourceError, match="needs episodes"):
        deal(toy_data.toy_dataset([9]))


# --- who is compared, and by what


def test_controls_cheaters_and_fresh_rows_are_always_in_the_table(judged):
    _, board, folder, _ = judged
    by_name = {e["name"]: e for e in board["entries"]}
    assert set(by_name) == {"first", "second", "theirs.npz", *OURS}
    kinds = [e["kind"] for e in board["entries"]]
    assert kinds == ["given"] * 3 + ["control"] * 2 + ["cheater"] * 4 + ["fresh"]
    measured = {"contract.schema", "marginals.mean", "coverage.rare", "novelty.copies", "membership.auc"}
    assert all(measured <= e["metrics"].keys() for e in by_name.values())
    assert by_name[FRESH]["rows"] == 3 * 20
    assert by_name["copula"]["rows"] == by_name["shuffled columns"]["rows"] == CHOICES.rows
    assert read_json(folder / "leaderboard.json") == board
    page = (folder / "leaderboard.html").read_text()
    assert all(name in page for name in by_name)
    assert all((folder / e["card"]).exists() for e in board["entries"])


def test_novelty_is_decidable_where_the_split_is_known(judged):
    by_name = {e["name"]: e for e in judged[1]["entries"]}
    ratio = {name: e["metrics"]["novelty.nn_ratio_row"]["value"] for name, e in by_name.items()}
    assert ratio["theirs.npz"] is None
    assert not by_name["theirs.npz"]["origin known"]
    assert by_name["theirs.npz"]["metrics"]["membership.auc"]["value"] is None
    assert ratio["duplicate"] == 0
    assert ratio["first"] < 0.1  # noise on training rows
    assert ratio["jittered copies"] < 0.1
    assert ratio[FRESH] == pytest.approx(1, abs=0.3)


def test_one_ruler_for_all_and_floors_are_measured_once(judged):
    planned, board, _, used = judged
    assert len(used) == 10
    assert len(used[0][0]) == 60  # fresh rows first
    assert [bool(reference.floors) for _, reference in used] == [False] + [True] * 9
    assert all(reference.real is planned.ruler.real for _, reference in used)
    assert sum(reference.held_out is None for _, reference in used) == 1
    for metric in ("marginals.mean", "coverage.distance"):
        floors = [e["metrics"][metric]["floor"] for e in board["entries"]]
        assert floors[0] is not None
        assert floors.count(floors[0]) == len(floors)


def test_a_suite_that_lets_cheaters_pass_is_called_out(judged):
    found = judged[1]["self-test"]
    assert not found["holds"]
    assert "shuffled columns" in found["cheaters that passed"]
    assert "DO NOT TRUST THIS TABLE" in found["sentence"]


def test_what_runs_cost_stands_beside_them(judged):
    by_name = {e["name"]: e for e in judged[1]["entries"]}
    assert set(by_name["first"]["seconds"]) == {"training", "generation, all workers"}
    assert by_name["theirs.npz"]["seconds"] == by_name["copula"]["seconds"] == {}
    assert by_name["first"]["utility"] is None


def test_the_utility_of_a_run_is_what_its_evaluation_found_with_these_rows(here):
    for name in ("first", "second"):
        digest = store.open(here / "first" / "store").digest()
        write_json(here / name / "evaluation" / "stage.json", {"outcome": "better by 3", "digest": digest})
    utility = {c.name: c.utility for c in plan(["first", "second"], None, CHOICES).contestants}
    assert utility["first"] == "better by 3"
    assert utility["second"] is utility[FRESH] is None  # of another state of its store


def test_cheaters_are_made_of_training_rows_alone_and_draw_from_the_generator_they_are_given():
    training = toy_data.toy_dataset(LENGTHS)
    rows = training.transitions()
    material = Material(training, rows, 50, np.random.default_rng(3))
    made = {name: make(material) for name, make in CHEATERS.items()}
    assert {name: len(table) for name, table in made.items()} == {
        **dict.fromkeys(CHEATERS, 50),
        "shuffled columns": 480,
    }
    near = np.abs(made["jittered copies"]["observations"][:, None] - rows["observations"][None]).max(axis=2).min(axis=1)
    assert near.max() < 0.01
    shuffled = made["shuffled columns"]
    for name in ("observations", "rewards"):
        assert not np.array_equal(shuffled[name], rows[name])
        np.testing.assert_array_equal(np.sort(shuffled[name], axis=0), np.sort(rows[name], axis=0))
    again = Material(training, rows, 50, np.random.default_rng(3))  # one generator, in this order: as calibrated
    for name, make in CHEATERS.items():
        np.testing.assert_array_equal(make(again)["rewards"], made[name]["rewards"])


# --- what is kept


def test_a_repeated_comparison_has_nothing_to_do_and_changes_no_file(here, monkeypatch, capsys):
    quick = Quick(monkeypatch)
    first = compare(plan(["first"], None, CHOICES), here / "board")
    assert quick.seen == 8
    before = command_line.contents(here)
    assert compare(plan(["first"], None, CHOICES), here / "board") == first
    assert quick.seen == 8
    assert "nothing to do: these 8 tables were judged by 'smoke' before" in capsys.readouterr().out
    assert command_line.contents(here) == before


def test_what_was_judged_before_a_kill_is_not_judged_again(here, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    quick, keep = Quick(monkeypatch), comparison.write_json
    monkeypatch.setattr(comparison, "write_json", lambda path, card: keep(path, card) if quick.seen < 4 else killed())
    with pytest.raises(KeyboardInterrupt):
        compare(plan(["first", "second"], None, CHOICES), here / "board")
    assert not (here / "board" / "leaderboard.json").exists()
    monkeypatch.setattr(comparison, "write_json", keep)
    quick.seen = 0
    kept = cards_of(here / "board")
    assert len(kept) == 3
    board = compare(plan(["first", "second"], None, CHOICES), here / "board")
    assert quick.seen == 9 - 3
    assert len(board["entries"]) == 9
    assert kept.items() <= cards_of(here / "board").items()
    assert {e["metrics"]["c2st.sa"]["floor"]["worst95"] for e in board["entries"]} == {0.6}  # also after the kill


@pytest.mark.parametrize(
    ("change", "again"),
    [("splits", 8), ("suite", 8), ("rows", 6), ("rules", 8), ("a damaged card", 1), ("a damaged board", 0)],
)
def test_a_scorecard_of_other_inputs_is_made_anew(here, monkeypatch, change, again):
    quick, board = Quick(monkeypatch), here / "board"
    first = compare(plan(["first"], None, CHOICES), board)
    quick.seen = 0
    changes = {
        "splits": {"splits": 3},
        "suite": {"suite": "transitions"},
        "rows": {"rows": 100},
        "rules": {"rules": Rules.parse({"columns": {"rewards": {"low": -99.0}}}, where="test")},
    }
    if change.startswith("a damaged"):
        (board / ("cards/noise.json" if change == "a damaged card" else "leaderboard.json")).write_text("{")
    found = compare(plan(["first"], None, replace(CHOICES, **changes.get(change, {}))), board)
    assert quick.seen == again
    assert found == first or not change.startswith("a damaged")
    assert read_json(board / "leaderboard.json") == found


def test_other_rows_under_the_same_name_are_judged_anew(here, monkeypatch):
    quick = Quick(monkeypatch)
    compare(plan(["first", "theirs.npz"], "mine.npz", CHOICES), here / "board")
    small_runs.save_rows("theirs.npz", seed=2)
    quick.seen = 0
    compare(plan(["first", "theirs.npz"], "mine.npz", CHOICES), here / "board")
    assert quick.seen == 1


def test_a_damaged_store_is_found_also_when_it_was_judged_before(here, monkeypatch):
    Quick(monkeypatch)
    compare(plan(["first"], None, CHOICES), here / "board")
    file = here / "first" / "store" / "rewards" / "c.0"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="damaged"):
        compare(plan(["first"], None, CHOICES), here / "board")


# --- what is refused


def test_runs_that_held_out_different_episodes_are_refused_with_the_way_out(here):
    with pytest.raises(ConfigError, match="different episodes") as caught:
        plan(["first", "seed-1"], None, CHOICES)
    assert "first: 6 (seed 0, 25% of the episodes); seed-1: 6 (seed 1, 25% of the episodes)" in caught.value.found
    assert caught.value.fix == "synthpipe run seed-1/config.yaml -o seed-1-again --set seed=0 --set held_out=0.25"


def test_episodes_that_are_named_one_by_one_are_told_and_typed_too(here):
    """As the versions of `synthpipe augment` name them."""
    shutil.copytree("first", "named")
    config = Path("named/config.yaml")
    config.write_text(config.read_text().replace("held_out: 0.25", "held_out: [1, 2, 3, 4]"))
    with pytest.raises(ConfigError, match="different episodes") as caught:
        plan(["named", "seed-1"], None, CHOICES)
    assert "(seed 0, 4 episodes)" in caught.value.found
    assert caught.value.fix.endswith("--set seed=0 --set 'held_out=[1,2,3,4]'")


def test_runs_of_other_data_are_refused(here):
    with pytest.raises(ConfigError, match="'first' was not fitted on the real data"):
        plan(["first"], "theirs.npz", CHOICES)
    small_runs.save_rows("mine.npz", seed=5)
    with pytest.raises(ConfigError, match="'first' was not fitted on the real data"):
        plan(["first"], None, CHOICES)


REFUSED = {
    "no real data": (["theirs.npz"], ConfigError, "nothing says which real data"),
    "twice": (["first", "first/"], ConfigError, "named twice"),
    "no such thing": (["first", "frist"], UnknownNameError, "nothing called 'frist'"),
    "nothing generated": (["empty"], StoreError, "nothing was generated"),
    "nothing trained": (["bare"], CheckpointError, "no generator was trained"),
}


@pytest.mark.parametrize(("whats", "kind", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_compared(here, whats, kind, text):
    shutil.copytree("first", "empty", ignore=shutil.ignore_patterns("store"))
    shutil.copytree("first", "bare", ignore=shutil.ignore_patterns("store", "model"))
    with pytest.raises(kind, match=text) as caught:
        plan(whats, None, CHOICES)
    assert caught.value.fix
    if kind is UnknownNameError:
        assert caught.value.fix == "did you mean 'first'?"


def test_a_rule_must_name_a_column_that_there_is(here):
    rules = Rules.parse({"columns": {"rewrads": {"low": 0.0}}}, where="test")
    with pytest.raises(UnknownNameError, match="rewrads"):
        plan(["first"], None, Choices("smoke", rules))


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "notes.txt", tmp_path / "notes.txt" / "board"):
        with pytest.raises(ConfigError, match="cannot be written into"):
            require_folder(folder, OWN, "a comparison")
    require_folder(tmp_path / "new" / "board", OWN, "a comparison")
    (tmp_path / "old" / "cards").mkdir(parents=True)
    require_folder(tmp_path / "old", OWN, "a comparison")


# --- names


def test_names_tell_tables_apart():
    assert names(["runs/a", "b.npz", "s3://x/y/store"]) == ["a", "b.npz", "store"]
    assert names(["x/a", "y/a", "runs/copula", "noise"]) == ["x/a", "y/a", "runs/copula", "noise (given)"]
    found = file_names(["x/a", "x-a", "X a", "fresh real rows", "…"])
    assert found["fresh real rows"] == "fresh-real-rows"
    assert len({name.lower() for name in found.values()}) == len(found)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) for name in found.values())


# --- the verb


def test_the_verb_prints_a_table_and_ends_with_0(here, monkeypatch, capsys):
    Quick(monkeypatch)
    shell = command_line.Shell(here, monkeypatch, capsys)
    planned = shell("compare", "first", "theirs.npz", "-o", "board", "--dry-run")
    assert "9 tables by 6 rules of 'smoke', against 420 rows of mine" in planned.out
    assert "into board; nothing was done" in planned.out
    assert not (here / "board").exists()
    told = shell("compare", "first", "theirs.npz", "-o", "board")
    assert (told.code, told.err) == (0, "")
    for name in ("first", "theirs.npz", *OURS):
        assert sum(line.startswith(name) for line in told.out.splitlines()) == 2  # both tables
    assert "DO NOT TRUST THIS TABLE" in told.out
    assert told.out.splitlines()[-1] == "next       open board/leaderboard.html in a browser"
    assert max(map(len, told.out.splitlines())) <= 100
    assert "(9 judged before)" in shell("compare", "first", "theirs.npz", "-o", "board", "--dry-run").out
