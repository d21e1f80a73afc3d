"""Making, finding and refusing stores."""

import json

import numpy as np
import pytest
import zarr
from store_samples import PLAN, SPEC, TRAJECTORIES, TRANSITIONS, build, files

from synth_pipeline import store
from synth_pipeline.errors import ConfigError, MissingExtraError, ResourceError, StoreError
from synth_pipeline.store import folder as folders


def create(place, **changes):
    settings = {"schema": TRANSITIONS, "plan": PLAN, "config": {"generator": "toy"}} | changes
    return store.create(place, **settings)


def test_a_new_store_is_empty_and_open_finds_it(tmp_path):
    made = create(tmp_path / "new")
    assert (len(made), made.num_missing, bool(made)) == (0, 3, True)
    assert store.exists(tmp_path / "new")
    assert repr(store.open(str(tmp_path / "new"))).endswith("0 rows, 0 of 3 shards)")


def test_asking_makes_nothing(tmp_path):
    assert not store.exists(tmp_path / "nothing" / "here")
    with pytest.raises(StoreError, match="there is no store") as caught:
        store.open(tmp_path / "nothing" / "here")
    assert "synthpipe generate" in caught.value.fix
    assert not list(tmp_path.iterdir())


def test_any_zarr_reads_it(tmp_path):
    rows = build(tmp_path / "rows").read_all()
    group = zarr.open_group(tmp_path / "rows", mode="r")
    assert sorted(group.array_keys()) == sorted(rows.columns)
    for name in rows.columns:
        np.testing.assert_array_equal(group[name][:], rows[name])
    episodes = build(tmp_path / "episodes", TRAJECTORIES).episodes()
    group = zarr.open_group(tmp_path / "episodes", mode="r")
    np.testing.assert_array_equal(group["observations"][:], episodes.observations)
    first = next(build(tmp_path / "episodes", TRAJECTORIES).iter_episodes())
    np.testing.assert_array_equal(group["episode_starts"][: len(first)], first.starts[:-1])
    assert np.isnan(group["final_observations"][len(first) : 64]).all()


def test_paths_with_spaces_relative_paths_and_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    build("my first run/the store").verify()
    assert len(store.open(tmp_path / "my first run" / "the store")) == 150
    assert store.exists("~/my first run/the store")


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "data").write_text("hello")
    for place in (tmp_path / "data", tmp_path / "data" / "below"):
        for refused in (lambda place=place: create(place), lambda place=place: store.open(place)):
            with pytest.raises(StoreError, match="is a file"):
                refused()
    assert (tmp_path / "data").read_text() == "hello"


@pytest.mark.parametrize("name", ["notes.txt", "zarr.json"])
def test_a_folder_that_is_not_a_store_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    for refused in (lambda: create(tmp_path), lambda: store.open(tmp_path)):
        with pytest.raises(StoreError, match="not a store of synth-pipeline") as caught:
            refused()
        assert name in caught.value.found
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_crash_while_creating_is_resumed(tmp_path):
    (tmp_path / "zarr.0123.partial").write_text("{")
    (tmp_path / "lock").write_text("{")
    build(tmp_path).verify()
    assert not list(tmp_path.glob("*.partial"))


def test_another_format_version(tmp_path):
    create(tmp_path)
    root = json.loads((tmp_path / "zarr.json").read_text())
    root["attributes"]["synth_pipeline"]["format_version"] = 2
    (tmp_path / "zarr.json").write_text(json.dumps(root))
    for refused in (lambda: create(tmp_path), lambda: store.open(tmp_path)):
        with pytest.raises(StoreError, match="another format version"):
            refused()
    with pytest.raises(ConfigError, match="format version"):
        create(tmp_path / "other", schema=TRANSITIONS.replace(format_version=2))


def test_altered_metadata(tmp_path):
    create(tmp_path)
    root = (tmp_path / "zarr.json").read_text()
    (tmp_path / "zarr.json").write_text(root.replace('"seed": 7', '"seed": 8'))
    with pytest.raises(StoreError, match="damaged"):
        store.open(tmp_path)


def test_what_differs_is_named(tmp_path):
    create(tmp_path)
    other = TRANSITIONS.replace(spec=SPEC.replace(dataset_id="toy/other"))
    with pytest.raises(StoreError) as caught:
        create(tmp_path, schema=other, plan=PLAN.extended(200).replace(micro_batch=5))
    for part in ("plan.micro_batch: 4096 -> 5", "schema.spec.dataset_id: toy/rows -> toy/other", "num_rows"):
        assert part in caught.value.found
    with pytest.raises(StoreError, match="num_rows: 150 -> 100"):
        create(tmp_path, plan=PLAN.replace(num_rows=100))


def test_extension_is_metadata_first_and_then_only_new_files(tmp_path):
    build(tmp_path)
    before = files(tmp_path)
    longer = create(tmp_path, plan=PLAN.extended(200))
    assert (len(longer), longer.num_missing) == (150, 1)
    build(tmp_path, plan=PLAN.extended(200)).verify()
    after = files(tmp_path)
    rewritten = {name for name, data in before.items() if after[name] != data}
    assert {name.rpartition("/")[2] for name in rewritten} == {"zarr.json", "manifest.json"}
    assert zarr.open_group(tmp_path, mode="r")["rewards"].shape == (3 * 64 + 50,)


def test_array_metadata_that_was_lost_is_written_anew(tmp_path):
    built = build(tmp_path)
    (tmp_path / "rewards" / "zarr.json").unlink()
    with pytest.raises(StoreError, match="metadata of an array"):
        built.verify()
    build(tmp_path).verify()


def test_configuration_must_be_plain(tmp_path):
    with pytest.raises(ConfigError, match="plain values"):
        create(tmp_path, config={"generator": object()})


def test_no_permission(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(ResourceError, match="may not be written"):
        create(tmp_path / "forbidden")


@pytest.mark.parametrize("url", ["gs://bucket/prefix", "s3://bucket", "s3://bucket/", "http://host/path"])
def test_addresses_that_cannot_be_used(url):
    with pytest.raises(ConfigError, match="cannot live"):
        create(url)


def test_s3_without_s3fs(monkeypatch):
    monkeypatch.setattr(folders.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="s3fs") as caught:
        create("s3://bucket/prefix")
    assert "[s3]" in caught.value.fix
