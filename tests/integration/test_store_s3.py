"""A store on S3 (a mock server on loopback): the bytes of a local one, several processes, clear refusals."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from s3_server import closed_port
from store_samples import PLAN, SMALL, TRANSITIONS, build, files, rows_for, write_task

from synth_pipeline import store
from synth_pipeline.errors import StoreError
from synth_pipeline.store.folder import open_folder

SCHEMA = TRANSITIONS.replace(spec=SMALL, provenance=())


@pytest.fixture
def environment(s3, monkeypatch):
    """The usual way: nothing in the code, everything in the environment."""
    bucket, options = s3
    monkeypatch.setenv("AWS_ENDPOINT_URL", options["endpoint_url"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return bucket


def test_two_processes_write_the_bytes_of_a_local_store(environment, tmp_path):
    url = f"s3://{environment}/some folder/store"
    target = store.create(url, SCHEMA, PLAN, {"generator": "toy"})
    store.write_shard(url, PLAN.task(1), rows_for(SCHEMA)(PLAN.task(1)))
    with target.writing() as session, ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        tasks = session.missing()
        assert [task.shard for task in tasks] == [0, 2]
        list(pool.map(write_task, [(url, task, SCHEMA) for task in tasks]))
        session.finalise()
    target.verify()
    local = build(tmp_path / "store", SCHEMA)
    assert target.digest() == local.digest()
    folder = open_folder(url)
    remote = {key: folder.get(key) for key in folder.list_keys()}
    assert {key: data for key, data in remote.items() if key != "sidecar.json"} == files(tmp_path / "store")


def test_a_folder_that_is_not_a_store(environment):
    open_folder(f"s3://{environment}/foreign").put("notes.txt", b"mine")
    for refused in (
        lambda: build(f"s3://{environment}/foreign", SCHEMA),
        lambda: store.open(f"s3://{environment}/foreign"),
    ):
        with pytest.raises(StoreError, match="not a store"):
            refused()


def test_a_bucket_that_does_not_exist(environment):
    with pytest.raises(StoreError, match="refused") as caught:
        build("s3://no-such-bucket/store", SCHEMA)
    assert "check that the bucket exists" in caught.value.fix


def test_a_server_that_does_not_answer():
    options = {"key": "test", "secret": "test", "endpoint_url": f"http://127.0.0.1:{closed_port()}"}
    options |= {"config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1}}
    with pytest.raises(StoreError, match="refused"):
        store.open("s3://bucket/store", storage_options=options)


def test_a_conditional_write_that_lost_is_tried_again(s3):
    bucket, options = s3
    folder = open_folder(f"s3://{bucket}/race", options)
    for begin in (None, b"first "):
        if begin:
            folder.put("key", begin)
        others = iter([b"other ", b"another "])

        def change(present, others=others):
            for data in others:
                folder.put("key", data)
                break
            return (present or b"") + b"mine"

        folder.update("key", change)
        assert folder.get("key") == b"another mine"
        folder.update("key", lambda present: None)
        assert folder.get("key") is None
