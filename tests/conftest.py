"""For all tests: one thread a process, as workers compute, and as many tests run side by side as there are cores."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C and hand that down; the programs that the tests interrupt must not.
    signal.signal(signal.SIGINT, signal.default_int_handler)


for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# The same examples every time and however slow the machine: a failure is the change's, never chance or load.
# New ones: pytest --hypothesis-profile=fuzz
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", _PATIENT, derandomize=True, database=None)
settings.register_profile("fuzz", _PATIENT, max_examples=1_000)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items):
    """Files with long tests first, so that at the end no worker waits for one of them."""
    items.sort(key=lambda item: "slow" not in item.keywords)


@pytest.fixture(scope="session")
def s3():
    """The bucket and the storage options of an S3 mock: one a process, for s3fs remembers the first it met."""
    from s3_server import s3_server

    with s3_server() as bucket_and_options:
        yield bucket_and_options
