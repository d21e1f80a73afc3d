import pickle

import pytest

from synth_pipeline import errors
from synth_pipeline.errors import SynthPipelineError, nearest, typable, unknown_name

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SynthPipelineError)]


def test_text_has_what_found_accepted_fix_in_this_order():
    error = errors.StoreError("it is broken", found="a", accepted="b", fix="c")
    assert error.render() == "StoreError: it is broken\n  found     a\n  accepted  b\n  fix       c"


def test_rows_that_are_not_given_are_left_out_but_zero_is_given():
    assert str(errors.ConfigError("no", found=0)) == "no\n  found     0"


def test_an_error_that_was_found_keeps_its_fix_to_itself():
    inner = errors.ConfigError("'a' is not valid JSON", found="line 1", fix="delete the file")
    outer = errors.CheckpointError("no model", found=inner, fix="train again")
    assert str(outer) == "no model\n  found     'a' is not valid JSON: line 1\n  fix       train again"
    assert str(pickle.loads(pickle.dumps(outer))) == str(outer)  # noqa: S301
    assert "  found     it\n" in str(errors.CheckpointError("no", found=errors.ConfigError("it"), fix="x"))


@pytest.mark.parametrize("kind", KINDS)
def test_errors_cross_process_boundaries_whole(kind):
    error = pickle.loads(pickle.dumps(kind("what", found=(1, "x"), accepted=None, fix="do")))  # noqa: S301
    assert type(error) is kind
    assert (error.what, error.found, error.accepted, error.fix) == ("what", (1, "x"), None, "do")
    assert str(error) == str(kind("what", found=(1, "x"), fix="do"))


def test_many_names_are_not_a_line_of_their_own():
    known = [f"hopper/level-{n}" for n in range(30)] + ["pendulum/random"]
    error = unknown_name("dataset", "pendulum/randm", known, listing="synthpipe datasets")
    assert error.fix == "did you mean 'pendulum/random'?"
    assert error.accepted.startswith("pendulum/random, ")
    assert error.accepted.endswith("or 26 more that `synthpipe datasets` names")
    assert unknown_name("dataset", "zzz", known, listing="synthpipe datasets").fix.startswith("synthpipe datasets   #")
    assert unknown_name("dataset", "x", ["a", "b"], listing="synthpipe datasets").accepted == "a, b"


def test_families_have_their_own_exit_codes():
    direct = [kind for kind in KINDS if kind.__base__ is SynthPipelineError]
    codes = [kind.exit_code for kind in [SynthPipelineError, *direct]]
    assert len(set(codes)) == len(codes)
    assert all(kind.exit_code > 0 for kind in KINDS)
    assert errors.UnknownNameError.exit_code == errors.ConfigError.exit_code


@pytest.mark.parametrize(
    ("typed", "expected"), [("hoper", "hopper"), ("SMOTE", "smote"), ("Hopper", "hopper"), ("xyzzy", None), ("", None)]
)
def test_nearest(typed, expected):
    assert nearest(typed, ["hopper", "walker2d", "smote"]) == expected


def test_nearest_gives_the_name_as_it_is_spelt():
    assert nearest("hopper-V5", ["Hopper-v5", "Ant-v5"]) == "Hopper-v5"


def test_unknown_name_lists_what_exists_and_suggests():
    error = unknown_name("generator", "smot", iter(["smote", "copula"]))
    assert "there is no generator called 'smot'" in str(error)
    assert error.accepted == "copula, smote"
    assert error.fix == "did you mean 'smote'?"


def test_unknown_name_without_anything_known():
    error = unknown_name("plugin", "x", [])
    assert error.accepted == "no plugin is available"
    assert error.fix is None


def test_commands_can_be_typed_where_no_environment_is_active(tmp_path, monkeypatch):
    folder = tmp_path / "my env" / "bin"
    folder.mkdir(parents=True)
    for name in ("synthpipe", "minari"):
        (folder / name).write_text("")
        (folder / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    text = (
        "run `synthpipe generate a` again, or: synthpipe run b; "
        "X=1 minari list local; minari download a; synthpipe: no; a synthpipe"
    )
    for started in ("my env/bin/synthpipe", str(folder / "synthpipe")):
        monkeypatch.setattr("sys.argv", [started, "run"])
        assert typable(text) == (
            "run `'my env/bin/synthpipe' generate a` again, or: 'my env/bin/synthpipe' run b; "
            "X=1 'my env/bin/minari' list local; 'my env/bin/minari' download a; synthpipe: no; a synthpipe"
        )
        assert "'my env/bin/synthpipe' train x" in errors.StoreError("no", fix="synthpipe train x").render()
    monkeypatch.setenv("PATH", str(folder))
    assert typable(text) == text
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("sys.argv", ["synthpipe", "run"])
    assert typable(text) == text
