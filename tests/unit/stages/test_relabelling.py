"""The relabel stage: a run of its own that all other stages work on; it says where it comes from, and never grows."""

import shutil

import numpy as np
import pytest
import small_runs

from synth_pipeline import relabelling, stages, store
from synth_pipeline.errors import ConfigError, StoreError
from synth_pipeline.relabelling import choose_labels, relabel
from synth_pipeline.run_config import CONFIG, LABELS, RELABELLED, open_run
from synth_pipeline.runs import Run, file_hash
from synth_pipeline.store.lock import RUN_LOCK

DOUBLED = "def doubled(columns):\n    return 2 * columns['rewards']\n"
BY = "labels.py:doubled"
QUICK = {"suite": "smoke", "splits": 2, "learn_oracle": False, "expectations": False, "pictures": False}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a run `first` of generated rows, and `second`, the same rows with doubled rewards."""
    folder = tmp_path_factory.mktemp("relabelling")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small_runs.save_rows(folder / "mine.npz")
        run, config = small_runs.made(folder / "first", patch, validation=QUICK)
        (folder / "labels.py").write_text(DOUBLED)
        patch.setattr(relabelling, "fill", small_runs.fill_here)
        relabel(run, config, Run(folder / "second"), choose_labels(run, config, BY, None))
    return folder


@pytest.fixture
def runs(world, tmp_path, monkeypatch):
    """Copies of both that a test may change, in the working directory."""
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for module in (relabelling, stages):
        monkeypatch.setattr(module, "fill", small_runs.fill_here)
    copied = Run(tmp_path / "first"), Run(tmp_path / "second")
    again(copied)  # notes where the copies are
    return copied


def again(runs, out=None, by=BY, **options):
    run, config = open_run(runs[0].directory)
    return relabel(run, config, out or runs[1], choose_labels(run, config, by, None), **options)


def files(run):
    return {
        str(path.relative_to(run.directory)): file_hash(path)
        for path in sorted(run.directory.rglob("*"))
        if path.is_file() and path.name not in (RUN_LOCK, "sidecar.json")
    }


def test_the_new_run_has_the_old_configuration_and_generator_and_names_the_old_digest(runs):
    first, second = runs
    assert open_run(second.directory)[1] == open_run(first.directory)[1]
    ours, theirs = files(second), files(first)
    copied = [name for name in theirs if name.startswith("model/generator/") or name == CONFIG]
    assert len(copied) == 4
    assert all(ours[name] == theirs[name] for name in copied)
    source, target = (store.open(run.folder("store")) for run in runs)
    assert np.array_equal(target.read_all()["rewards"], 2 * source.read_all()["rewards"])
    assert target.plan == source.plan
    assert [step["parent"] for step in target.config[LABELS]] == [source.digest()]


def test_again_there_is_nothing_to_do(runs, capsys):
    before = files(runs[1])
    again(runs)
    assert "nothing to do: the rows of first with these labels are in second/store" in capsys.readouterr().out
    assert files(runs[1]) == before


def test_the_other_stages_work_on_it_and_say_where_the_rows_come_from(runs, capsys):
    run, config = open_run(runs[1].directory)
    parent = store.open(runs[0].folder("store")).digest()
    stages.train(run, config)
    stages.generate(run, config)
    assert capsys.readouterr().out.count("nothing to do") == 2
    stages.validate(run, config)
    folder = stages.export(run, config, allow_failed=True)
    card = (folder / "local-mine-noise-relabelled-v0.md").read_text()
    assert f"| store before relabelling 1 | `{parent}` |" in card
    assert '"function": "doubled"' in card
    page = stages.report(run).read_text()
    assert "200 rows by noise, relabelled by function" in page
    assert parent in page


def test_the_generator_never_adds_to_relabelled_rows(runs):
    run, config = open_run(runs[1].directory, ["generate.rows=300"])
    before = files(run)
    command = f"synthpipe relabel first -o second --with {runs[1].directory.parent / BY} --repair"
    with pytest.raises(StoreError, match="must not add to them") as caught:
        stages.generate(run, config)
    assert caught.value.fix.startswith(command)
    with pytest.raises(StoreError, match="must not add to them"):
        stages.generate(*open_run(run.directory), repair=True)
    with pytest.raises(StoreError, match="other settings") as caught:
        stages.generate(*open_run(run.directory, ["generate.max_attempts=3"]))
    assert "max_attempts" in caught.value.found
    (run.folder("store") / "manifest.json").unlink()
    with pytest.raises(StoreError, match="must not add to them"):
        stages.generate(*open_run(run.directory))
    assert {k: v for k, v in before.items() if k != "store/manifest.json"} == files(run)


def test_damage_is_mended_by_the_command_that_the_error_names(runs, capsys):
    run = runs[1]
    before = files(run)
    (path,) = (run.folder("store") / "rewards").glob("c*")
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    with pytest.raises(StoreError, match="damaged") as caught:
        stages.validate(*open_run(run.directory))
    assert caught.value.fix.startswith("synthpipe relabel first -o second --with ")
    assert " --repair " in caught.value.fix
    again(runs, repair=True)
    assert "1 damaged shard found in second/store" in capsys.readouterr().out
    assert files(run) == before


def test_another_version_or_more_rows_need_another_folder(runs):
    run, before = runs[1], files(runs[1])
    labels = run.directory.parent / "labels.py"
    labels.write_text(DOUBLED.replace("2 *", "3 *"))
    with pytest.raises(StoreError, match="other settings") as caught:
        again(runs)
    assert "relabelled.0.sha256" in caught.value.found
    labels.write_text(DOUBLED)
    stages.generate(*open_run(runs[0].directory, ["generate.rows=250"]))
    with pytest.raises(ConfigError, match="cannot be written into"):
        again(runs)
    assert files(run) == before
    again(runs, out=Run(run.directory.parent / "third"))
    assert len(store.open("third/store")) == 250


def test_places_that_cannot_become_the_new_run_are_left_alone(runs):
    first = runs[0]
    with pytest.raises(ConfigError, match="cannot be written into") as caught:
        again(runs, out=Run(first.directory))
    assert caught.value.found == "the run that they come from"
    (first.directory.parent / "other").mkdir()
    (first.directory.parent / "other" / "mine.txt").touch()
    with pytest.raises(ConfigError, match="not a run directory"):
        again(runs, out=Run(first.directory.parent / "other"))
    shutil.copytree(first.directory, "twin")
    before = files(Run(first.directory.parent / "twin"))
    with pytest.raises(StoreError, match="other settings"):  # rows of the generator stand there
        again(runs, out=Run(first.directory.parent / "twin"))
    assert files(Run(first.directory.parent / "twin")) == before


def test_labels_come_from_one_place(runs):
    run, config = open_run(runs[0].directory)
    for given, found in (((None, None), "neither"), ((BY, "1,2"), "both")):
        with pytest.raises(ConfigError, match="either from --with or from --goal") as caught:
            choose_labels(run, config, *given)
        assert caught.value.found == found
    with pytest.raises(ConfigError, match="no simulator"):
        choose_labels(run, config, "simulator", None)
    with pytest.raises(ConfigError, match="no goal"):
        choose_labels(run, config, None, "1,2")
    shutil.rmtree(run.folder("store"))
    with pytest.raises(StoreError, match="nothing was generated"):
        choose_labels(run, config, BY, None)


def test_a_run_that_was_cut_short_goes_on(runs):
    second = runs[1]
    digest = store.open(second.folder("store")).digest()
    shutil.rmtree(second.folder("store") / "manifest", ignore_errors=True)
    (second.folder("store") / "manifest.json").unlink()
    shutil.rmtree(second.folder("model"))
    (second.folder("model")).mkdir()
    (second.folder("model") / ".generator.0123abcd.partial").mkdir()
    again(runs)
    assert store.open(second.folder("store")).digest() == digest
    assert [path.name for path in second.folder("model").iterdir()] == ["generator"]
    assert (second.directory / RELABELLED).exists()
