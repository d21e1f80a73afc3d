"""The local store and the S3 store pass the same suite, with rows and with episodes."""

import uuid

import pytest
from store_samples import SMALL, TRAJECTORIES, TRANSITIONS
from store_suite import StoreTests, TrajectoryStoreTests


class Local:
    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory):
        return lambda name: (str(tmp_path_factory.mktemp("place") / name), {})


class S3:
    damages = ("flipped", "missing")

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, s3):
        bucket, storage_options = s3
        return lambda name: (f"s3://{bucket}/{uuid.uuid4().hex}/{name}", {"storage_options": storage_options})


class TestLocalTransitions(Local, StoreTests):
    schema = TRANSITIONS


class TestLocalTrajectories(Local, TrajectoryStoreTests):
    schema = TRAJECTORIES


class TestS3Transitions(S3, StoreTests):
    schema = TRANSITIONS.replace(spec=SMALL, provenance=())


class TestS3Trajectories(S3, TrajectoryStoreTests):
    schema = TRAJECTORIES.replace(spec=SMALL, provenance=())
