"""These tests run in an environment of their own: `make test-interop` builds it and runs them."""

import importlib
import importlib.util
import warnings

MISSING = [name for name in ("d3rlpy", "torchrl", "tensordict") if importlib.util.find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if MISSING else []

if not MISSING:
    # They warn about themselves when imported; our own warnings stay errors.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("d3rlpy", "torchrl.data", "torchrl.data.datasets.minari_data"):
            importlib.import_module(name)


def pytest_report_collectionfinish():
    """Say that, and why, these tests are left out."""
    if not MISSING:
        return None
    return f"tests/interop is left out: {', '.join(MISSING)} not installed here (make test-interop runs it)"
