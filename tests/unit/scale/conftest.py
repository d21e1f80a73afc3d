"""One cluster of two worker processes for all tests of this folder."""

import pytest
from local_cluster import local_cluster


@pytest.fixture(scope="session")
def made():
    with local_cluster(n_workers=2, threads_per_worker=1) as cluster:
        yield cluster


@pytest.fixture
def scheduler(made):
    return made.scheduler_address
