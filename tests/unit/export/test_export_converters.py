"""What the converters say where the other libraries are missing; tests/interop runs them for real."""

import sys

import pytest
from export_suite import counter_rows

from synth_pipeline.errors import MissingExtraError
from synth_pipeline.export.converters import to_d3rlpy, to_torchrl


@pytest.mark.parametrize(("convert", "package"), [(to_d3rlpy, "d3rlpy"), (to_torchrl, "tensordict")])
def test_a_missing_library_says_what_to_install(monkeypatch, convert, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"needs the package {package}") as caught:
        convert(counter_rows(3))
    assert f"pip install {package}==" in caught.value.fix
