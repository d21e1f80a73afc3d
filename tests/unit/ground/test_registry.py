import sys

import pytest

from synth_pipeline.errors import ConfigError, UnknownNameError
from synth_pipeline.registry import Registry


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """An installed third-party package with entry points of kind `toy`."""
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[synth_pipeline.toys]\ntheirs = toy_plugin:Theirs\nours = toy_plugin:Theirs\nbroken = toy_plugin:Nothing\n"
        "absent = no_such_module_at_all:Thing\nshapeless = toy_plugin\n"
    )
    (tmp_path / "toy_plugin.py").write_text("class Theirs: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("toy_plugin", None)


def test_names_are_sorted_and_import_nothing():
    registry = Registry("toy", {"b": "no_such_module_at_all:B", "a": "no_such_module_at_all:A"})
    assert registry.names() == ["a", "b"]


def test_load_returns_what_the_entry_names():
    assert Registry("toy", {"ours": "synth_pipeline.registry:Registry"}).load("ours") is Registry


def test_unknown_name_gets_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'smote'") as caught:
        Registry("toy", {"smote": "x:y", "copula": "x:y"}).load("smotte")
    assert caught.value.accepted == "copula, smote"


def test_third_parties_add_names_and_cannot_replace_ours(plugin):
    registry = Registry("toy", {"ours": "synth_pipeline.registry:Registry"})
    assert registry.names() == ["absent", "broken", "ours", "shapeless", "theirs"]
    assert registry.load("theirs").__name__ == "Theirs"
    assert registry.load("ours") is Registry


@pytest.mark.parametrize("name", ["broken", "absent", "shapeless"])
def test_an_entry_that_does_not_import_is_named(plugin, name):
    with pytest.raises(ConfigError, match=f"the toy '{name}' .* does not import"):
        Registry("toy", {}).load(name)


def test_every_shipped_entry_imports():
    from synth_pipeline.data.normalize import NORMALIZERS
    from synth_pipeline.generators import GENERATORS

    for registry in (NORMALIZERS, GENERATORS):
        assert all(registry.load(name) for name in registry.names())
