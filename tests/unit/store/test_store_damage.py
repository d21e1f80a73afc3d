"""Every way in which a file of a store can be hurt is noticed, named and mended by the same command."""

import errno
import shutil

import pytest
from store_samples import PLAN, SMALL, TRAJECTORIES, TRANSITIONS, build, files, transitions

from synth_pipeline import store
from synth_pipeline.errors import StoreError
from synth_pipeline.store import verify

SCHEMAS = {"transitions": TRANSITIONS, "trajectories": TRAJECTORIES}


@pytest.fixture(scope="module", params=SCHEMAS)
def intact(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("intact") / "store"
    build(folder, SCHEMAS[request.param])
    return folder, SCHEMAS[request.param]


@pytest.fixture
def copy(intact, tmp_path):
    folder, schema = intact
    return shutil.copytree(folder, tmp_path / "store"), schema


def shard_files(folder, schema):
    return [folder / array.name / path.name for array in schema.arrays for path in (folder / array.name).glob("c.*")]


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def everything(target):
    return target.episodes() if target.schema.kind == "trajectories" else target.read_all()


@pytest.mark.parametrize("where", ["first", "middle", "index", "last"])
def test_a_flipped_bit_in_any_array_file_is_caught_by_reading_and_verifying(copy, where):
    folder, schema = copy
    target = store.open(folder)
    for path in shard_files(folder, schema):
        whole = path.read_bytes()
        flip(path, {"first": 0, "middle": len(whole) // 2, "index": len(whole) - 9, "last": -1}[where])
        shard = path.name.split(".")[1]
        for check in (lambda: everything(target), target.verify):
            with pytest.raises(StoreError, match=f"shard {shard} of the store") as caught:
                check()
            assert f"{path.parent.name}/{path.name}" in caught.value.found
            assert "Store.drop" in caught.value.fix
        path.write_bytes(whole)
    target.verify()


@pytest.mark.parametrize("hurt", ["truncated", "empty", "deleted"])
def test_lost_bytes_are_caught_and_mended(copy, hurt):
    folder, schema = copy
    before = files(folder)
    path = shard_files(folder, schema)[4]
    if hurt == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: -5 if hurt == "truncated" else 0])
    target = store.open(folder)
    for check in (lambda: everything(target), target.verify):
        with pytest.raises(StoreError, match="damaged"):
            check()
    assert list(target.damaged()) == [int(path.name.split(".")[1])]
    target.drop(*target.damaged())
    build(folder, schema)
    assert files(folder) == before


def test_a_deleted_shard_never_reads_as_fill_values(copy):
    folder, schema = copy
    for array in schema.arrays:
        shutil.move(next((folder / array.name).glob("c.2*")), folder / "aside")
    target = store.open(folder)
    with pytest.raises(StoreError, match=r"shard 2 .* is damaged"):
        target.read(140, 141)
    assert len(target.read(0, 128)) == 128


def test_a_disk_that_does_not_give_a_file_back(copy, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    target = store.open(copy[0])
    len(target)
    monkeypatch.setattr("os.open", fail)
    with pytest.raises(StoreError, match="cannot be read: Input/output error"):
        everything(target)
    monkeypatch.setattr("synth_pipeline.store.folder.LocalFolder.get", fail)
    with pytest.raises(StoreError, match="cannot be read: Input/output error"):
        verify.require_sound(target._folder, target._identity, target.commits, target.damaged)


def test_a_deleted_commit_is_a_missing_shard(tmp_path):
    target = store.create(tmp_path, TRANSITIONS, PLAN, {"generator": "toy"})
    with target.writing() as session:
        for task in session.missing():
            store.write_shard(tmp_path, task, transitions(task))
    (tmp_path / "manifest" / "1.json").unlink()
    for check in (store.open(tmp_path).read_all, store.open(tmp_path).verify):
        with pytest.raises(StoreError, match="1 of 3 shards are not committed: shard 1") as caught:
            check()
        assert "synthpipe generate RUN" in caught.value.fix
    build(tmp_path).verify()


def test_a_deleted_manifest_loses_nothing_that_the_same_command_does_not_make(copy):
    folder, schema = copy
    before = files(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(StoreError, match="3 of 3 shards"):
        everything(store.open(folder))
    build(folder, schema)
    assert files(folder) == before


@pytest.mark.parametrize("name", ["manifest.json", "zarr.json", "rewards/zarr.json", "observations/zarr.json"])
def test_no_flipped_bit_in_the_metadata_gets_through(copy, name):
    folder, _ = copy
    path = folder / name
    whole = path.read_bytes()
    for position in range(0, len(whole), 37):
        flip(path, position)
        with pytest.raises(StoreError):
            store.open(folder).verify()
        path.write_bytes(whole)


def test_a_damaged_commit_says_what_to_delete(copy):
    folder, schema = copy
    flip(folder / "manifest.json", 100)
    with pytest.raises(StoreError, match=r"manifest\.json") as caught:
        len(store.open(folder))
    assert "delete" in caught.value.fix
    (folder / "manifest.json").unlink()
    build(folder, schema).verify()


def test_damaged_notes_do_no_harm(copy):
    folder, schema = copy
    (folder / "sidecar.json").write_text("{")
    store.open(folder).verify()
    build(folder, schema).verify()
    assert len(store.open(folder).sidecars()) == 0


def test_reading_episodes_of_rows_is_refused(tmp_path):
    target = build(tmp_path, TRANSITIONS.replace(spec=SMALL, provenance=()))
    with pytest.raises(StoreError, match="independent rows"):
        next(target.iter_episodes())
