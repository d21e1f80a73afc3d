"""A dry run refuses what the command would refuse, and no option that was given is left without effect."""

import numpy as np
import pytest
from command_line import contents


@pytest.fixture
def files(copied, shell):
    """A run, and files beside it that are no data."""
    folder = shell.folder
    np.savez(folder / "bad.npz", actions=np.zeros((9, 2), np.float32))
    rows = {"observations": np.zeros((50, 3), np.float32), "actions": np.zeros((50, 2), np.float32)}
    ends = {"terminations": np.zeros(50, bool), "truncations": np.arange(50) % 10 == 9}
    np.savez(folder / "mine.npz", rewards=np.arange(50.0), **rows, **ends)
    return folder


@pytest.mark.parametrize(
    ("command", "code", "what"),
    [
        (("export", "runs/smoke", "--id", "bad id"), 2, "bad id"),
        (("audit", "mine.npz", "--real", "nofile.npz"), 3, "nofile.npz"),
        (("audit", "mine.npz", "--real", "mine.npz", "--rules", "no.yaml"), 2, "no.yaml"),
        (("validate", "runs/smoke/store", "--real", "nofile.npz"), 3, "nofile.npz"),
        (("train", "bad.npz", "-o", "runs/bad"), 3, "observations"),
        (("train", "pendulum/medium-replay", "-o", "runs/new"), 3, "has not been collected"),
        (("evaluate", "--dataset", "mine.npz", "--agents", "bc"), 2, "environment"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_plan_is_refused_for_what_the_command_is(files, shell, command, code, what):
    before = contents(files)
    planned, done = shell(*command, "--dry-run"), shell(*command)
    assert planned.code == done.code == code
    assert planned.err == done.err
    assert what in planned.error()["what"]
    assert contents(files) == before


def test_a_plan_of_the_whole_path_needs_no_collected_data(files, shell):
    assert shell("run", "smoke", "-o", "runs/new", "--set", "dataset=pendulum/medium-replay", "--dry-run").code == 0


def test_an_export_of_what_was_not_judged_is_no_plan(files, shell):
    (files / "runs/smoke/validation/scorecard.json").unlink()
    assert shell("export", "runs/smoke", "--dry-run").code == 7


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("validate", "runs/smoke", "--unseen", "mine.npz"), "--unseen mine.npz"),
        (("evaluate", "runs/smoke", "--agents", "bc", "--out", "elsewhere"), "--out elsewhere"),
        (("train", "mine.npz", "--rows", "10", "-o", "runs/mine"), "--rows 10"),
        (("audit", "mine.npz", "--real", "mine.npz", "--workers", "2"), "--workers 2"),
    ],
)
def test_an_option_without_effect_is_refused(files, shell, command, option):
    before = contents(files)
    found = shell(*command)
    assert found.code == 2
    assert found.error()["found"] == option
    assert contents(files) == before


def test_another_kind_of_generator_begins_with_its_own_defaults(files, shell):
    collected = ("--rows", "4000", "-o", "runs/other")
    found = shell("train", "toy-linear-gaussian/random", *collected, "-g", "vae", "--dry-run")
    assert found.code == 0, found.err
    (files / "runs/other").mkdir()
    (files / "runs/other/config.yaml").write_text((files / "runs/smoke/config.yaml").read_text())
    changed = ("--set", "generator.kind=copula", "--dry-run")
    found = shell("train", "toy-linear-gaussian/random", "-o", "runs/other", *changed)
    assert found.code == 0, found.err
    assert "copula on toy-linear-gaussian/random" in found.out


def test_what_to_type_for_a_setting_of_the_generator_can_be_typed(files, shell):
    found = shell("train", "mine.npz", "-o", "runs/mine", "-g", "synther", "--set", "generator.familiar=7")
    assert found.error()["fix"] == "set generator.familiar=VALUE"
    found = shell("train", "mine.npz", "-o", "runs/mine", "-g", "synther", "--set", "generator.familar=1")
    assert found.error()["fix"] == "did you mean 'generator.familiar'?"


def test_a_generator_of_other_settings_is_named_leaf_by_leaf(files, shell):
    changed = ("--set", "generator.trainer.gradient_steps=7", "--set", "generator.trainer.batch_size=8")
    found = shell("generate", "runs/smoke", "-n", "9000", *changed)
    assert found.error()["found"].split("; ") == [
        "generator.trainer.gradient_steps 200 -> 7",
        "generator.trainer.batch_size 128 -> 8",
    ]
