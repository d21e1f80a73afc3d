"""A source that grows: versions, what is kept, what is held out."""

import json

import numpy as np
import pytest
import small_runs
import toy_data

from synth_pipeline import stages, store
from synth_pipeline.augmenting import augment, history, planned
from synth_pipeline.errors import ConfigError, GateError
from synth_pipeline.run_config import RunConfig, open_run
from synth_pipeline.runs import read_json, write_json

TINY = {"gradient_steps": 8, "batch_size": 16}
SYNTHER = {
    "kind": "synther",
    "rows": "joint",
    "network": {"width": 16, "depth": 1},
    "sampler": {"num_steps": 2},
    "trainer": TINY,
}
FEW, MORE = 24, 36


def save(path, episodes, seed=0):
    """Episodes of 20 steps; more of them begin with the same ones."""
    parts = [toy_data.toy_dataset([20] * 4, seed + number).transitions() for number in range(episodes // 4)]
    np.savez(path, **{name: np.concatenate([part[name] for part in parts]) for name in small_runs.COLUMNS})


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages, "fill", small_runs.fill_here)
    save("mine.npz", FEW)
    (tmp_path / "easy.yaml").write_text("name: easy\nrules:\n  - {metric: contract.finite, at_most: 0}\n")
    quick = {"suite": "easy.yaml", "learn_oracle": False, "splits": 2, "expectations": False, "pictures": False}
    return RunConfig.parse(small_runs.CONFIGURATION | {"validation": quick, "export": {"one_step": 10}})


def held_out(root, version):
    return read_json(root / version / "model/generator/state.json")["extra"]["held_out_episodes"]


def test_a_source_that_has_not_changed_is_left_alone(config, tmp_path, capsys):
    page = augment(tmp_path / "all", config)
    before = {path: path.read_bytes() for path in (tmp_path / "all").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert augment(tmp_path / "all", config) == page
    assert "nothing to do: mine.npz has not changed since all/v0" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (tmp_path / "all").rglob("*") if path.is_file()} == before


def test_a_plan_says_what_comes_and_writes_nothing(config, tmp_path, capsys):
    root = tmp_path / "all"

    def plan(**given):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        said = planned(root, config, **given)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        return said

    assert plan() == "v0 of mine.npz: a generator is fitted"
    augment(root, config)
    assert "has not changed since all/v0" in plan()
    save("mine.npz", MORE)
    assert plan() == "v1 of mine.npz: the generator of v0 is trained on"
    assert plan(append=True) == "v1 of mine.npz: the generator of v0 is kept, rows are added"
    capsys.readouterr()
    augment(root, config)
    assert "v1 of mine.npz: the generator of v0 is trained on" in capsys.readouterr().out
    lineage = read_json(root / "lineage.json")
    lineage["versions"][-1]["report"] = None
    write_json(root / "lineage.json", lineage)
    assert plan() == "v1 of mine.npz was cut short and would go on"
    save("mine.npz", FEW - 4)
    with pytest.raises(ConfigError, match="appended"):
        planned(root, config, append=True)


def test_a_plan_before_anything_is_collected(config, tmp_path):
    config = config.replace(dataset="toy-linear-gaussian/random", collect={"rows": 300})
    assert "300 rows of toy-linear-gaussian/random would be collected" in planned(tmp_path / "all", config)
    with pytest.raises(ConfigError, match="no generator called"):
        planned(tmp_path / "all", config.replace(generator={"kind": "nothing"}))


def test_a_grown_source_is_followed_by_a_version_with_lineage(config, tmp_path):
    root = tmp_path / "all"
    augment(root, config)
    kept = store.open(root / "v0/store").digest()
    save("mine.npz", MORE)
    page = augment(root, config)
    assert page == root / "v1" / "report.html"
    assert [(v["version"], v["how"], v["parent"]) for v in history(root)] == [("v0", "fit", None), ("v1", "warm", "v0")]
    assert [v["minari_id"] for v in history(root)] == ["local/mine-noise-v0", "local/mine-noise-v1"]
    assert store.open(root / "v0/store").digest() == kept
    old, new = held_out(root, "v0"), held_out(root, "v1")
    assert [i for i in new if i < FEW] == old
    assert len([i for i in new if i >= FEW]) == round(0.25 * (MORE - FEW))
    assert open_run(root / "v1")[1].held_out == tuple(new)


def test_diffusion_is_trained_on_with_fewer_steps(config, tmp_path):
    root, config = tmp_path / "all", config.replace(generator=SYNTHER, augment={"share": 0.5})
    augment(root, config)
    save("mine.npz", MORE)
    augment(root, config)
    first, second = (read_json(root / v / "model/generator/state.json")["extra"] for v in ("v0", "v1"))
    assert (first["warm_from"], second["warm_from"]) == (None, first["key"])
    weights = [(root / v / "model/generator/arrays.safetensors").read_bytes() for v in ("v0", "v1")]
    assert weights[0] != weights[1]
    again = tmp_path / "again"
    save("mine.npz", FEW)
    augment(again, config)
    save("mine.npz", MORE)
    augment(again, config)
    assert (again / "v1/model/generator/arrays.safetensors").read_bytes() == weights[1]


def test_rows_are_appended_and_the_generator_is_kept(config, tmp_path):
    root = tmp_path / "all"
    config = config.replace(generate={"rows": 20_000, "rows_per_shard": 16_384})
    augment(root, config, append=True)
    save("mine.npz", MORE)
    augment(root, config, append=True)
    before, after = (store.open(root / v / "store") for v in ("v0", "v1"))
    assert (len(before), len(after)) == (20_000, 30_000)
    np.testing.assert_array_equal(after.read(0, 20_000)["rewards"], before.read_all()["rewards"])
    models = [(root / v / "model/generator/arrays.safetensors").read_bytes() for v in ("v0", "v1")]
    assert models[0] == models[1]
    assert history(root)[1]["how"] == "append"
    before.verify()
    save("mine.npz", 48)
    augment(root, config, append=True)
    assert len(store.open(root / "v2/store")) == 40_000


def test_killed_before_the_first_version_was_noted_the_same_command_goes_on(config, tmp_path, monkeypatch):
    root = tmp_path / "all"
    with monkeypatch.context() as patch:
        patch.delattr("synth_pipeline.augmenting._note")
        with pytest.raises(NameError):
            augment(root, config)
    assert (root / "v0/config.yaml").exists()
    assert augment(root, config) == root / "v0/report.html"


def test_changed_rows_or_settings_are_fitted_anew(config, tmp_path):
    root = tmp_path / "all"
    augment(root, config)
    save("mine.npz", MORE, seed=1)
    with pytest.raises(ConfigError, match="appended"):
        augment(root, config, append=True)
    augment(root, config)
    augment(root, config.replace(generator={"kind": "noise", "scale": 0.5}))
    assert [v["how"] for v in history(root)] == ["fit", "fit", "fit"]


def test_a_version_that_was_cut_short_is_gone_on_with(config, tmp_path, monkeypatch):
    root = tmp_path / "all"
    with monkeypatch.context() as patch:
        patch.delattr(stages, "validate")
        with pytest.raises(NameError):
            augment(root, config)
    assert history(root)[0]["report"] is None
    augment(root, config)
    assert [(v["version"], v["report"]) for v in history(root)] == [("v0", "report.html")]


def test_what_failed_the_gate_is_not_built_on(config, tmp_path):
    root = tmp_path / "all"
    augment(root, config)
    save("mine.npz", MORE)
    (tmp_path / "easy.yaml").write_text("name: hard\nrules:\n  - {metric: marginals.mean, at_least: 1.5}\n")
    for _ in range(2):
        with pytest.raises(GateError):
            augment(root, config)
    assert (root / "v1/report.html").exists()
    assert not (root / "v1/export").exists()
    (tmp_path / "easy.yaml").write_text("name: easy\nrules:\n  - {metric: contract.finite, at_most: 0}\n")
    save("mine.npz", 40)
    augment(root, config)
    assert [(v["version"], v["parent"], bool(v["report"])) for v in history(root)] == [
        ("v0", None, True),
        ("v1", "v0", False),
        ("v2", "v0", True),
    ]


@pytest.mark.parametrize("content", [{"notes.txt": "mine"}, {"config.yaml": "a: 1"}])
def test_another_folder_is_refused(config, tmp_path, content):
    (tmp_path / "other").mkdir()
    for name, text in content.items():
        (tmp_path / "other" / name).write_text(text)
    with pytest.raises(ConfigError, match="versions of an augmented dataset"):
        augment(tmp_path / "other", config)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/lineage.json").write_text(json.dumps([1]))
    with pytest.raises(ConfigError, match="line of versions"):
        augment(tmp_path / "damaged", config)
