"""Stages as functions: what each needs, keeps, and leaves alone. One small dataset of arrays, no simulator."""

import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import toy_data
from command_line import written

from synth_pipeline import sources, stages, store, tracking
from synth_pipeline.errors import (
    BusyError,
    CheckpointError,
    ConfigError,
    GateError,
    ResourceError,
    SourceError,
    StoreError,
)
from synth_pipeline.export.augmented import export_bytes
from synth_pipeline.export.stage import BEGUN
from synth_pipeline.generators.base import load
from synth_pipeline.run_config import CONFIG, RunConfig, open_run
from synth_pipeline.runs import Run, read_json
from synth_pipeline.store.lock import RUN_LOCK, working

LENGTHS = [40] * 12


CONFIGURATION = {
    "dataset": "mine.npz",
    "held_out": 0.25,
    "generator": {"kind": "noise"},
    "generate": {"rows": 300, "rows_per_shard": 16_384, "micro_batch": 128},
    "validation": {"suite": "smoke", "learn_oracle": False},
    "export": {"one_step": 7},
}
BARE = {"expectations": False, "pictures": False, "splits": 2}  # validation: the scorecard in little time


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A run directory that does not exist yet and its configuration, on arrays of twelve episodes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHPIPE_DATA", str(tmp_path / "data"))
    save_rows(tmp_path / "mine.npz")
    return Run(tmp_path / "run"), RunConfig.parse(CONFIGURATION)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the arrays and a run in it that was trained and has generated."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        save_rows(folder / "mine.npz")
        run, config = Run(folder / "run"), RunConfig.parse(CONFIGURATION)
        stages.train(run, config)
        stages.generate(run, config)
    return folder


@pytest.fixture
def generated(made, mine, tmp_path):
    """The run and configuration of `mine`, trained and generated."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return mine


@pytest.fixture(scope="module")
def judged(made, tmp_path_factory):
    """The same folder with the scorecard."""
    folder = tmp_path_factory.mktemp("judged")
    shutil.copytree(made, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stages.validate(Run(folder / "run"), RunConfig.parse(CONFIGURATION))
    return folder


@pytest.fixture
def validated(judged, mine, tmp_path):
    """The run and configuration of `mine`, up to the scorecard."""
    shutil.copytree(judged, tmp_path, dirs_exist_ok=True)
    return mine


def save_rows(path, seed=0):
    rows = toy_data.toy_dataset(LENGTHS, seed).transitions()
    names = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")
    np.savez(path, **{name: rows[name] for name in names})


JOINT = {
    "kind": "synther",
    "rows": "joint",
    "network": {"width": 16, "depth": 1},
    "trainer": {"gradient_steps": 40, "batch_size": 16, "log_every": 1, "checkpoint_seconds": 1e-9},
}


@pytest.mark.parametrize("change", [{"held_out": 0.5}, {"generator": {**JOINT, "p_mean": 0.5}}], ids=["data", "loss"])
def test_a_killed_training_never_goes_on_with_other_data_or_another_loss(mine, tmp_path, monkeypatch, change):
    run, config = mine
    config = config.replace(generator=JOINT)

    def killed(progress, step, total, values):
        if step == 20:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tracking.FitProgress, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            stages.train(run, config)
    assert list((run.directory / "model").glob("training-*"))
    changed, steps = config.replace(**change), []
    with monkeypatch.context() as patch:
        patch.setattr(tracking.FitProgress, "__call__", lambda self, step, *_: steps.append(step))
        ours = stages.train(run, changed)
    assert steps[0] == 1
    anew = stages.train(Run(tmp_path / "anew"), changed)
    assert (ours / "arrays.safetensors").read_bytes() == (anew / "arrays.safetensors").read_bytes()
    assert not list((run.directory / "model").glob("training-*"))


def test_aimed_rows_are_judged_without_their_aim_also_where_they_were_judged_otherwise(mine, monkeypatch, capsys):
    run, config = mine
    config = config.replace(
        generator=JOINT | {"condition": "reward"},
        generate=config.generate.replace(rows=1_000, where="reward"),
        validation=config.validation.replace(**BARE),
    )
    stages.train(run, config)
    stages.generate(run, config)
    with monkeypatch.context() as patch:
        patch.setattr(stages, "DISTRIBUTIONS", ())
        stages.validate(run, config)
    card = read_json(stages.validate(run, config))
    assert "nothing to do" not in capsys.readouterr().out
    stages.validate(run, config)
    assert "nothing to do: this store was judged" in capsys.readouterr().out
    weights = store.open(run.folder("store")).read_all()["weight"]
    assert card["aim undone"]["drawn"] == len(weights) == 1_000
    assert card["aim undone"]["left"] == pytest.approx(1_000 * (weights / weights.max()).mean(), abs=60)
    assert "Rows were aimed at reward: distributions are judged on the" in stages.report(run).read_text()


def test_the_stages_one_after_another(validated):
    run, config = validated
    target = store.open(run.folder("store"))
    assert len(target) == 300
    assert open_run(run.directory)[1] == config
    assert read_json(run.folder("validation") / "scorecard.json")["store"]["digest"] == target.digest()
    folder = stages.export(run, config, allow_failed=True)
    assert (folder / "local-mine-noise-v0.hdf5").exists()
    heading = (
        f"<h1>noise on {read_json(run.folder('validation') / 'scorecard.json')['provenance']['real dataset']}: run "
    )
    assert heading + run.directory.name in stages.report(run).read_text()


def test_the_held_out_episodes_are_written_down_and_not_seen(mine):
    run, config = mine
    model = stages.train(run, config)
    generator, extra = load(model)
    held_out = extra["held_out_episodes"]
    assert len(held_out) == 3
    used = set(generator.state()[1]["source_episode"].tolist())
    assert used == set(range(len(LENGTHS))) - set(held_out)


def test_train_again_says_nothing_to_do_and_does_nothing(mine, capsys):
    run, config = mine
    model = stages.train(run, config)
    before = {path: path.stat().st_mtime_ns for path in run.directory.rglob("*")}
    assert stages.train(run, config) == model
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.directory.rglob("*")} == before


def test_train_refuses_other_data_under_the_same_name(mine):
    run, config = mine
    stages.train(run, config)
    save_rows("mine.npz", seed=1)
    with pytest.raises(ConfigError, match="other data") as caught:
        stages.train(run, config)
    assert "not those that it was fitted on" in caught.value.found


def test_what_cannot_be_read_leaves_no_run_directory(mine):
    run, config = mine
    np.savez("mine.npz", observations=np.zeros((3, 2)))
    with pytest.raises(SourceError, match="actions"):
        stages.train(run, config)
    assert not run.directory.exists()


def test_a_fit_that_fails_leaves_the_run_open_for_other_settings(mine):
    run, config = mine
    few = config.replace(generator={"kind": "smote", "neighbours": 100}, held_out=0.9)
    with pytest.raises(ConfigError, match="neighbours"):
        stages.train(run, few)
    assert not (run.folder("model") / "generator").exists()
    stages.train(run, config)
    assert open_run(run.directory)[1] == config


def test_check_finds_what_later_stages_would_refuse(mine):
    run, config = mine
    wrong = {
        "generator": {"kind": "nois"},
        "dataset": "thine.npz",
        "validation": {"suite": "stricter"},
        "export": {"minari_id": "../../up-v0"},
    }
    stages.check(run, config)
    for key, value in wrong.items():
        with pytest.raises((ConfigError, SourceError)):
            stages.check(run, config.replace(**{key: value}))
    assert not run.directory.exists()


def test_each_stage_names_the_one_before(mine):
    run, config = mine
    with pytest.raises(CheckpointError, match="no generator was trained"):
        stages.generate(run, config)
    stages.train(run, config)
    with pytest.raises(StoreError, match="nothing was generated"):
        stages.validate(run, config)
    with pytest.raises(StoreError, match="nothing was generated"):
        stages.export(run, config)
    with pytest.raises(ConfigError, match="nothing to report"):
        stages.report(run)


def test_what_was_not_validated_is_not_exported(generated):
    run, config = generated
    with pytest.raises(GateError, match="was not validated") as caught:
        stages.export(run, config, allow_failed=True)
    assert caught.value.fix == f"synthpipe validate {run.directory}"
    assert not run.folder("export").exists()


def test_an_interrupted_generation_is_named_before_it_is_judged(generated):
    run, config = generated
    target = store.open(run.folder("store"))
    digest = target.digest()
    target.drop(0)
    for stage in (stages.validate, stages.export):
        with pytest.raises(StoreError, match="is not complete") as caught:
            stage(run, config)
        assert caught.value.fix.startswith(f"synthpipe generate {run.directory}")
    stages.generate(run, config)
    stages.validate(run, config.replace(validation={**CONFIGURATION["validation"], **BARE}))
    assert read_json(run.folder("validation") / "scorecard.json")["store"]["digest"] == digest


def test_fewer_rows_change_nothing_and_are_said(generated, capsys):
    run, config = generated
    stages.generate(run, config.replace(generate=config.generate.replace(rows=10)))
    assert "300 rows of this generator are in run/store (10 were asked for)" in capsys.readouterr().out
    assert open_run(run.directory)[1].generate.rows == 300


def fail_once(monkeypatch, name):
    """The next call of a writer in the export stage dies half-way."""
    import synth_pipeline.export.augmented as augmented

    def dying(*args, **kwargs):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(augmented, name, dying)


@pytest.mark.parametrize("writer", ["write_minari", "write_flat", "write_card"])
def test_an_interrupted_export_is_written_again_under_the_same_name(validated, monkeypatch, writer):
    run, config = validated
    with monkeypatch.context() as patch:
        fail_once(patch, writer)
        with pytest.raises(KeyboardInterrupt):
            stages.export(run, config, allow_failed=True)
    folder = stages.export(run, config, allow_failed=True)
    assert sorted(path.name for path in folder.iterdir()) == [
        "local-mine-noise-v0.hdf5",
        "local-mine-noise-v0.md",
        "minari",
        "stage.json",
    ]
    assert [path.name for path in (folder / "minari" / "local").iterdir() if path.is_dir()] == ["mine-noise-v0"]


def test_space_for_the_whole_export_is_checked_first(validated, monkeypatch):
    run, config = validated
    needed = export_bytes(sources.load("mine.npz"), store.open(run.folder("store")), 7)
    usage = shutil.disk_usage(run.directory)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: usage._replace(free=needed))
        with pytest.raises(ResourceError, match="too small") as caught:
            stages.export(run, config, allow_failed=True)
        assert caught.value.accepted.startswith("about ")
    assert [path.name for path in run.folder("export").iterdir()] == ["stage.json"]
    said = []
    monkeypatch.setattr(tracking.Progress, "advance", lambda progress, *told: said.append((progress, *told)))
    folder = stages.export(run, config, allow_failed=True)
    assert sum(path.stat().st_size for path in folder.rglob("*.hdf5")) < 2 * needed
    for unit in ("episodes", "rows"):  # written and read back, to the last one
        told = [(progress.total, units) for progress, units, _ in said if progress.unit == unit]
        assert {total for total, _ in told} == {sum(units for _, units in told)}
    assert {note for _, _, note in said} == {"Minari", "reading Minari back", "flat file", "reading the flat file back"}


def test_a_finished_export_is_never_cleared_by_the_next(validated):
    run, config = validated
    folder = stages.export(run, config, allow_failed=True)
    first = folder / "local-mine-noise-v0.hdf5"
    before = written(first)
    stages.export(run, config.replace(export={"one_step": 3}), allow_failed=True)
    assert written(first) == before
    assert (folder / "local-mine-noise-v1.hdf5").exists()


def test_an_export_never_touches_somebodys_file(validated):
    run, config = validated
    run.folder("export").mkdir()
    foreign = run.folder("export") / "local-mine-noise-v0.hdf5"
    foreign.write_text("mine")
    for _ in range(2):
        folder = stages.export(run, config, allow_failed=True)
        assert read_json(folder / "stage.json")["minari_id"] == "local/mine-noise-v1"
        assert foreign.read_text() == "mine"
    assert not (folder / "local-mine-noise-v0.md").exists()


def test_the_configuration_of_the_run_is_not_the_overridden_one_of_a_refused_call(generated):
    run, config = generated
    before = (run.directory / CONFIG).read_bytes()
    with pytest.raises(StoreError, match="other settings"):
        stages.generate(run, config.replace(generate=config.generate.replace(micro_batch=64)))
    assert (run.directory / CONFIG).read_bytes() == before


def test_a_second_process_is_refused_and_the_first_is_unharmed(validated, monkeypatch):
    run, config = validated
    with working(run):
        staged = run.folder("export") / ".local-mine-noise-v0.hdf5.12345678.partial"
        staged.parent.mkdir()
        staged.write_text("half")
        run.finish("export", BEGUN, {"minari_id": "local/mine-noise-v0"})
        stages.validate(run, config)  # nothing to do: it needs no lock
        for stage in (
            lambda: stages.export(run, config, allow_failed=True),
            lambda: stages.validate(run, config.replace(validation=config.validation.replace(splits=7))),
            lambda: stages.report(run),
            lambda: shutil.rmtree(run.folder("model") / "generator") or stages.train(run, config),
        ):
            with pytest.raises(BusyError, match="another process is working on"):
                stage()
        assert staged.read_text() == "half"
    stages.report(run)
    assert not (run.directory / RUN_LOCK).exists()


def test_what_another_process_made_in_the_meantime_is_not_made_again(generated, monkeypatch, capsys):
    run, config = generated
    model = run.folder("model") / "generator"
    moved = model.rename(run.directory.parent / "moved")

    @contextmanager
    def late(run):
        moved.rename(model)
        yield

    monkeypatch.setattr(stages, "working", late)
    before = moved.stat().st_ino
    stages.train(run, config)
    assert model.stat().st_ino == before
    assert "nothing to do" in capsys.readouterr().out
