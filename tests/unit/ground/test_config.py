import datetime
import hashlib
import json
import os
from typing import Annotated, Literal

import pytest
from pydantic import Field as Setting
from pydantic import ValidationError, model_validator

from synth_pipeline.config import Config, canonical, content_hash, dump_yaml, override, read_yaml
from synth_pipeline.errors import ConfigError, SynthPipelineError


class Noise(Config):
    kind: Literal["noise"] = "noise"
    scale: float = Setting(0.1, gt=0, description="standard deviations")


class Copula(Config):
    kind: Literal["copula"] = "copula"
    shrinkage: float = Setting(0.0, ge=0, le=1)


class Layer(Config):
    width: int = Setting(8, ge=1, description="units")
    mode: Literal["gaussian", "uniform"] = "gaussian"


class Whole(Config):
    name: str = Setting(description="what it is called")
    seed: int = Setting(0, ge=0, description="seed of every draw")
    layer: Layer = Layer()
    maybe: Layer | None = None
    layers: tuple[Layer, ...] = ()
    by_name: dict[str, Layer] = {}  # noqa: RUF012
    generator: Annotated[Noise | Copula, Setting(discriminator="kind")] = Noise()
    generators: tuple[Annotated[Noise | Copula, Setting(discriminator="kind")], ...] = ()
    limits: tuple[float, float] = (0.0, 1.0)

    @model_validator(mode="after")
    def _rising(self):
        if self.limits[0] > self.limits[1]:
            raise ValueError("limits have the smaller one first")
        return self


def failure(**values):
    with pytest.raises(ConfigError) as caught:
        Whole.parse({"name": "x", **values}, where="run.yaml")
    return caught.value


def test_parse_reads_nested_plain_values():
    whole = Whole.parse({"name": "x", "layer": {"width": 3}, "layers": [{"width": 4}], "generator": {"kind": "copula"}})
    assert (whole.layer.width, whole.layers[0].width, whole.generator) == (3, 4, Copula())


def test_configurations_are_frozen():
    with pytest.raises(ValidationError):
        Whole(name="x").seed = 3


def test_unknown_key_at_the_top():
    error = failure(sed=3)
    assert error.what == "run.yaml: unknown key 'sed'"
    assert error.found == "sed = 3"
    assert error.fix == "did you mean 'seed'?"
    assert "generator" in error.accepted


def test_a_misspelt_required_key_is_named_rather_than_the_missing_one():
    with pytest.raises(ConfigError, match="unknown key 'nme'") as caught:
        Whole.parse({"nme": "x"})
    assert caught.value.fix == "did you mean 'name'?"


@pytest.mark.parametrize(
    ("values", "key", "guess"),
    [
        ({"layer": {"widht": 3}}, "layer.widht", "layer.width"),
        ({"maybe": {"widht": 3}}, "maybe.widht", "maybe.width"),
        ({"layers": [{}, {"widht": 3}]}, "layers.1.widht", "layers.1.width"),
        ({"by_name": {"first": {"widht": 3}}}, "by_name.first.widht", "by_name.first.width"),
        ({"generator": {"kind": "noise", "scal": 1}}, "generator.noise.scal", "generator.noise.scale"),
        (
            {"generators": [{"kind": "copula", "shrink": 1}]},
            "generators.0.copula.shrink",
            "generators.0.copula.shrinkage",
        ),
    ],
)
def test_unknown_keys_below_the_top_get_the_nearest_key_of_their_own_level(values, key, guess):
    error = failure(**values)
    assert f"unknown key '{key}'" in error.what
    assert error.fix == f"did you mean '{guess}'?"


def test_keys_of_the_other_member_of_a_union_are_not_suggested():
    error = failure(generator={"kind": "noise", "shrinkag": 1})
    assert error.accepted == "kind, scale"


def test_unknown_key_that_resembles_nothing():
    assert failure(zzzzzz=1).fix == "remove the key"


def test_value_out_of_range_tells_range_and_meaning():
    error = failure(layers=[{"width": 0}])
    assert error.what == "run.yaml: 'layers.0.width' cannot be used"
    assert error.found == "0"
    assert "greater than or equal to 1" in error.accepted
    assert "(units)" in error.accepted


def test_missing_value_is_found_as_nothing():
    with pytest.raises(ConfigError) as caught:
        Whole.parse({"layer": {"width": 3}})
    assert caught.value.found == "nothing"
    assert "(what it is called)" in caught.value.accepted


@pytest.mark.parametrize(
    ("values", "guess"), [({"layer": {"mode": "gausian"}}, "gaussian"), ({"generator": {"kind": "copla"}}, "copula")]
)
def test_wrong_choice_gets_the_nearest_one(values, guess):
    assert failure(**values).fix == f"did you mean '{guess}'?"


def test_checks_across_fields_read_like_the_others():
    error = failure(limits=[2, 1])
    assert error.accepted == "limits have the smaller one first"
    assert error.fix is None


def test_long_values_are_shortened():
    assert len(failure(seed="x" * 5000).found) < 200


def test_defaults_are_checked_too():
    class Bad(Config):
        width: int = Setting(0, ge=1)

    with pytest.raises(ConfigError):
        Bad.parse({})


def test_replace_checks_again_and_keeps_the_rest():
    whole = Whole(name="x", layers=(Layer(width=2),))
    assert whole.replace(seed=3) == Whole(name="x", layers=(Layer(width=2),), seed=3)
    with pytest.raises(ConfigError, match="did you mean 'seed'"):
        whole.replace(sed=3)


def test_plain_is_strict_json_and_parses_back():
    whole = Whole(name="x", limits=(float("-inf"), float("inf")), generators=(Copula(), Noise()))
    assert Whole.parse(json.loads(json.dumps(whole.plain(), allow_nan=False))) == whole
    assert Whole.parse(json.loads(whole.model_dump_json())) == whole
    assert whole.model_dump()["limits"] == (float("-inf"), float("inf"))


def test_override_reads_values_as_yaml():
    values = {"name": "x", "layer": {"width": 3}}
    result = override(values, ["layer.width=5", "seed=7", "generator.kind=copula", "limits=[0, 2]", "maybe="])
    assert result == {
        "name": "x",
        "layer": {"width": 5},
        "seed": 7,
        "generator": {"kind": "copula"},
        "limits": [0, 2],
        "maybe": None,
    }
    assert values == {"name": "x", "layer": {"width": 3}}  # the caller's values stay


def test_override_keeps_the_equals_signs_of_the_value():
    assert override({}, ["name=a=b"]) == {"name": "a=b"}


def test_numbers_in_short_scientific_notation_arrive_as_numbers():
    assert (
        Whole.parse(override({"name": "x"}, ["generator.kind=noise", "generator.scale=3e-4"])).generator.scale == 3e-4
    )


@pytest.mark.parametrize("setting", ["seed", "=3", "", "name.sub=3", "layers.0.width=3", "seed=[", "when.x=1"])
def test_override_refuses_what_it_cannot_place(setting):
    with pytest.raises(ConfigError):
        override({"name": "x", "layers": [{}], "when": datetime.date(2020, 1, 1)}, [setting])


def test_read_yaml_round_trip(tmp_path):
    path = tmp_path / "with space.yaml"
    path.write_text(dump_yaml({"b": 1, "a": {"é": [1, 2]}}), encoding="utf-8")
    assert read_yaml(path) == {"b": 1, "a": {"é": [1, 2]}}
    assert list(read_yaml(path)) == ["b", "a"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.yaml", None),
        ("bad.yaml", b"a: [1"),
        ("list.yaml", b"- 1\n- 2\n"),
        ("empty.yaml", b""),
        ("binary.yaml", b"\xff\xfe\x00\x01\xff"),
        ("control.yaml", b"a: \x00"),
        ("file.yaml/inside.yaml", None),
        ("x" * 300 + ".yaml", None),
    ],
)
def test_read_yaml_of_what_is_not_a_mapping(tmp_path, name, content):
    (tmp_path / "file.yaml").write_text("a: 1")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / name)
    assert name in str(caught.value)


def test_read_yaml_of_a_folder_or_a_file_without_permission(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="is a folder"):
        read_yaml(tmp_path)
    (tmp_path / "a.yaml").write_text("a: 1")

    def refuse(*args, **kwargs):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    with pytest.raises(SynthPipelineError, match="Permission denied"):
        read_yaml(tmp_path / "a.yaml")


def test_yaml_cannot_build_objects(tmp_path):
    (tmp_path / "evil.yaml").write_text("a: !!python/object/apply:os.getcwd []")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(tmp_path / "evil.yaml")


def test_hash_depends_on_content_not_on_order_or_spelling():
    one = Whole.parse({"name": "x", "generator": {"kind": "noise", "scale": 1}})
    two = Whole.parse({"generator": {"scale": 1.0, "kind": "noise"}, "name": "x", "seed": 0})
    assert content_hash(one) == content_hash(two)
    assert content_hash(one) != content_hash(one.replace(seed=1))
    assert content_hash({"b": 1, "a": 2}) == content_hash({"a": 2, "b": 1})


def test_hash_of_several_values_keeps_them_apart():
    assert content_hash("ab", "c") != content_hash("a", "bc")
    assert content_hash(["a"], []) != content_hash([], ["a"])


def test_hashes_never_change():
    """Stored stage records compare these: another value means that every finished stage runs again."""
    assert canonical({"b": [1, 2.5, None], "a": "é"}) == b'{"a":"\\u00e9","b":[1,2.5,null]}'
    assert content_hash({"a": 1}) == hashlib.sha256((7).to_bytes(8, "little") + b'{"a":1}').hexdigest()


class Inner(Config):
    kind: Literal["a", "b"] = Setting("a", description="which")
    width: int = Setting(1, description="width")
    depth: int = Setting(2, description="depth")


class Middle(Config):
    inner: Inner = Setting(Inner(width=10, depth=20), description="inner")
    rate: float = Setting(0.1, description="rate")


class Outer(Config):
    middle: Middle = Setting(Middle(rate=0.5), description="middle")
    free: dict[str, int] = Setting({"x": 1}, description="plain values")


def test_naming_part_of_a_nested_configuration_leaves_the_rest_as_its_place_has_it():
    found = Outer.parse({"middle": {"inner": {"width": 3}}, "free": {"y": 2}})
    assert found.middle.rate == 0.5  # not 0.1, the default of the class
    assert (found.middle.inner.width, found.middle.inner.depth) == (3, 20)
    assert found.free == {"y": 2}  # plain values are replaced whole
    assert Outer.parse({"middle": {}}) == Outer()
    assert Outer.parse(found.plain()) == found


def test_another_kind_shares_nothing_with_the_default():
    found = Outer.parse({"middle": {"inner": {"kind": "b"}}})
    assert (found.middle.inner.width, found.middle.inner.depth) == (1, 2)


def test_a_wrong_key_deep_down_is_still_explained():
    with pytest.raises(ConfigError, match=r"middle\.inner\.widht") as caught:
        Outer.parse({"middle": {"inner": {"widht": 3}}})
    assert caught.value.fix == "did you mean 'middle.inner.width'?"
