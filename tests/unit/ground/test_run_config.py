"""Where a run keeps its configuration, and which folders can be a run."""

import pytest
from command_line import written

from synth_pipeline.config import dump_yaml
from synth_pipeline.errors import ConfigError, UnknownNameError
from synth_pipeline.run_config import CONFIG, RunConfig, keep_config, load_run_config, open_run, presets, require_place
from synth_pipeline.runs import Run

MINE = RunConfig(dataset="mine.npz", seed=3)


def test_every_preset_is_a_run():
    assert {"smoke", "default"} <= set(presets())
    for name in presets():
        assert load_run_config(name).dataset


def test_overrides_of_a_preset_and_of_a_file(tmp_path):
    assert load_run_config("smoke", ["seed=7"]).seed == 7
    path = tmp_path / "mine.yml"
    path.write_text(dump_yaml(MINE.plain()))
    assert load_run_config(str(path), ["generate.rows=5"]).generate.rows == 5


def test_a_file_without_an_ending_is_read_and_a_preset_goes_before_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text(dump_yaml(MINE.plain()))
    (tmp_path / "smoke").mkdir()
    assert load_run_config("mine") == MINE
    assert load_run_config("smoke").dataset == "toy-linear-gaussian/random"
    with pytest.raises(UnknownNameError, match="preset called 'smoek'"):
        load_run_config("smoek")


def test_what_was_kept_is_opened_again(tmp_path):
    run = Run(tmp_path / "runs" / "a")
    require_place(run)
    keep_config(run, MINE)
    again, config = open_run(run.directory, ["seed=4"])
    assert (again.directory, config) == (run.directory, MINE.replace(seed=4))
    assert open_run(run.directory)[1] == MINE  # an override is not kept


def test_an_equal_configuration_is_left_alone(tmp_path):
    run = Run(tmp_path)
    keep_config(run, MINE)
    before = written(tmp_path / CONFIG)
    keep_config(run, MINE)
    assert written(tmp_path / CONFIG) == before
    keep_config(run, MINE.replace(seed=9))
    assert open_run(tmp_path)[1].seed == 9


@pytest.mark.parametrize("leftover", [[], ["environment.json"], [".config.yaml.1234.partial", "environment.json"]])
def test_what_a_crash_leaves_at_the_very_beginning_is_still_a_place(tmp_path, leftover):
    for name in leftover:
        (tmp_path / name).touch()
    require_place(Run(tmp_path))
    require_place(Run(tmp_path / "not" / "there" / "yet"))


def test_places_that_are_something_else(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="it is not empty") as caught:
        require_place(Run(tmp_path))
    assert caught.value.found == "thesis.tex"
    for place in (tmp_path / "thesis.tex", tmp_path / "thesis.tex" / "a" / "b"):
        with pytest.raises(ConfigError, match="cannot be a run directory") as caught:
            require_place(Run(place))
        assert caught.value.found == f"'{tmp_path / 'thesis.tex'}' is a file"
    (tmp_path / CONFIG).write_text("name: another program\n")
    with pytest.raises(ConfigError, match="is not that of a run"):
        require_place(Run(tmp_path))


@pytest.mark.parametrize(
    ("make", "found"), [("nothing", "no such folder"), ("mkdir", "no config.yaml"), ("touch", "a file")]
)
def test_a_run_that_is_none(tmp_path, make, found):
    place = tmp_path / "my run"
    if make != "nothing":
        getattr(place, make)()
    with pytest.raises(ConfigError, match="is not a run directory") as caught:
        open_run(place)
    assert found in caught.value.found
    assert caught.value.fix == "synthpipe run smoke   # makes one, runs/smoke"


def test_a_misspelt_run_gets_the_nearest_one(tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / CONFIG).write_text("dataset: mine.npz")
    with pytest.raises(ConfigError, match="is not a run directory") as caught:
        open_run(tmp_path / "frist")
    assert caught.value.fix == f"did you mean '{tmp_path / 'first'}'?"


def test_another_kind_of_generator_begins_with_its_own_defaults():
    found = load_run_config("smoke", ["generator.kind=smote", "generator.neighbours=3"]).generator
    assert found == {"kind": "smote", "neighbours": 3}
    assert load_run_config("smoke", ["generator.kind=synther"]) == load_run_config("smoke")
    assert load_run_config("smoke", ["generator={kind: vae}"]).generator == {"kind": "vae"}


@pytest.mark.parametrize("setting", ["guidance=2", "top=0.2", "aimed_share=0.3"])
def test_what_aims_nothing_is_refused(setting):
    with pytest.raises(ConfigError, match="aimed nowhere"):
        load_run_config("smoke", [f"generate.{setting}"])
    assert load_run_config("smoke", ["generate.where=reward", f"generate.{setting}"]).generate.where == "reward"
