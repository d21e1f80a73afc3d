"""What the shell completes, asked as the shell asks, and what `--help` documents."""

import re
import sys

import pytest
import typer

from synth_pipeline import cli, cli_options, errors, resources
from synth_pipeline.config import flat
from synth_pipeline.generators.synther import SyntherConfig
from synth_pipeline.run_config import RunConfig, presets


@pytest.fixture
def complete(monkeypatch, capsys, tmp_path):
    """The completions of a command line whose last word is not finished, as bash gets them."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def asked(*words):
        for name, value in {
            "_SYNTHPIPE_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(["synthpipe", *words]),
            "COMP_CWORD": str(len(words)),
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["synthpipe"])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert not caught.value.code
        return capsys.readouterr().out.split()

    return asked


def test_verbs_options_datasets_presets_generators_and_agents(complete):
    assert complete("rel") == ["relabel"]
    assert complete("relabel", "--wi") == ["--with"]
    assert "hopper/medium-replay" in complete("collect", "hopper/")
    assert all(name.startswith("hopper/") for name in complete("train", "hopper/"))
    assert complete("validate", "store", "--real", "pendulum/medium-r") == ["pendulum/medium-replay"]
    assert complete("run", "s") == ["smoke"]
    assert complete("train", "hopper/medium", "-g", "synth") == ["synther"]
    assert complete("evaluate", "--agents", "iql,td3") == ["iql,td3_bc"]
    assert complete("settings", "a") == ["awac", "advise"]


def test_what_nothing_begins_with_is_left_to_the_files_of_the_shell(complete):
    assert complete("train", "./mine") == []


@pytest.mark.parametrize("address", [None, "tcp://127.0.0.1:8786"])
def test_the_cluster_that_dask_knows_is_used_unless_something_else_is_said(address, monkeypatch):
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
    assert cli_options.workers_of(None, None) == (address or 1)
    assert cli_options.workers_of(2, None) == 2
    assert cli_options.workers_of(None, "tcp://elsewhere:1") == "tcp://elsewhere:1"


def test_the_help_of_run_names_every_preset_and_the_one_that_takes_days():
    assert cli_options.PRESETS.startswith(", ".join([*presets(), "or a YAML file"]))
    assert "paper takes days on a CPU" in cli_options.PRESETS
    assert "days on a CPU" in (resources.path("presets") / "paper.yaml").read_text().splitlines()[0]
    (argument,) = (p for p in typer.main.get_command(cli.app).commands["run"].params if p.name == "preset")
    assert argument.help == cli_options.PRESETS


def test_every_exit_code_of_an_error_and_the_completion_are_in_the_help():
    documented = dict(re.findall(r"(\d+) ([a-z ]+)", cli.EPILOG))
    kinds = [errors.SynthPipelineError, *errors.SynthPipelineError.__subclasses__()]
    assert {str(kind.exit_code) for kind in kinds} | {"0", "130"} == documented.keys()
    assert cli.app.info.epilog == cli.EPILOG
    assert "synthpipe --install-completion" in cli.EPILOG
    assert " ".join(cli.EPILOG.split()).split(". ")[0] in " ".join(cli.__doc__.split())


def listed_settings(words, monkeypatch, capsys):
    """Key -> default, as `synthpipe settings` prints them."""
    monkeypatch.setattr(sys, "argv", ["synthpipe", "settings", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    return {line[0]: line[1] for line in lines if len(line) > 2}


@pytest.mark.parametrize(
    ("name", "key", "default"),
    [
        ("td3_bc", "evaluation.agents.td3_bc.alpha", "2.5"),
        ("probe", "evaluation.probe.states", "500"),
        ("advise", "draws", "5"),
    ],
)
def test_settings_of_agents_and_of_values_are_listed(name, key, default, monkeypatch, capsys):
    assert listed_settings([name], monkeypatch, capsys)[key] == default


@pytest.mark.parametrize("words", [(), ("synther",)])
def test_every_setting_is_listed_with_its_default_and_can_be_typed(words, monkeypatch, capsys):
    listed = listed_settings(words, monkeypatch, capsys)
    config = SyntherConfig() if words else RunConfig(dataset="DATASET")
    keys = [f"generator.{key}" if words else key for key in flat(config.plain())]
    inside = [key for key in keys if key not in listed and not key.startswith(("agents.", "generator.kind"))]
    assert [key for key in inside if key.rpartition(".")[0] not in listed] == []
    assert listed["generator.sampler.num_steps" if words else "generate.rows"] == ("7" if words else "200000")
