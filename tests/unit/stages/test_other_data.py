"""A run keeps to the data and settings that its generator was fitted with, and counts what its fit has cost."""

import time

import numpy as np
import pytest
import small_runs
from small_runs import COLUMNS

from synth_pipeline import evaluating, fitting, stages
from synth_pipeline.errors import ConfigError
from synth_pipeline.generators.controls import Noise
from synth_pipeline.run_config import RunConfig
from synth_pipeline.runs import Run
from synth_pipeline.scale.fitted import fitted_facts


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A run that has generated, and its configuration."""
    monkeypatch.chdir(tmp_path)
    small_runs.save_rows("mine.npz")
    return small_runs.made(tmp_path / "run", monkeypatch, validation={**BARE, "suite": "smoke", "learn_oracle": False})


BARE = {"expectations": False, "pictures": False, "splits": 2}


def test_rows_are_not_judged_by_other_data_under_the_same_name(made):
    """Else an export would join the new real rows to what was made from the old ones, under the old verdict."""
    small_runs.save_rows("mine.npz", seed=1)
    for stage in (stages.validate, evaluating.study_of):
        with pytest.raises(ConfigError, match="not those that the generator was fitted on"):
            stage(*made)


def test_rows_are_not_exported_beside_other_data_under_the_same_name(made):
    run, config = made
    stages.validate(run, config)
    small_runs.save_rows("mine.npz", seed=1)
    with pytest.raises(ConfigError, match="not those that the generator was fitted on"):
        stages.export(run, config, allow_failed=True)
    assert not list(run.folder("export").glob("*.hdf5"))


def test_data_that_have_only_grown_are_judged_by_what_is_behind_them_too(made):
    run, config = made
    with np.load("mine.npz") as old:
        columns = {name: np.concatenate([old[name], old[name][:40]]) for name in COLUMNS}
    np.savez("mine.npz", **columns)
    assert stages.validate(run, config).exists()


@pytest.mark.parametrize("changes", [{"seed": 1}, {"held_out": 0.5}, {"generator": {"kind": "smote"}}])
@pytest.mark.parametrize("stage", [stages.validate, evaluating.study_of])
def test_other_settings_than_the_generator_had_judge_nothing(made, stage, changes):
    run, config = made
    with pytest.raises(ConfigError, match="other data or with other settings"):
        stage(run, config.replace(**changes))


def test_what_a_killed_fit_took_is_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_runs.save_rows("mine.npz")
    run, config = Run(tmp_path / "run"), RunConfig.parse(small_runs.CONFIGURATION)
    monkeypatch.setattr(fitting, "NOTED_S", 0.0)
    fit = Noise.fit

    def dying(self, data, *, report=None, **given):
        fit(self, data, **given)
        time.sleep(0.3)
        report(1, 2, {"loss": 1.0})
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Noise, "fit", dying)
        with pytest.raises(KeyboardInterrupt):
            stages.train(run, config)
    stages.train(run, config)
    assert fitted_facts(run.generator, config).seconds > 0.3
    assert not list(run.folder("model").glob("training-*"))
