"""Which device computes."""

import pytest
import torch

from synth_pipeline.diffusion.device import VARIABLE, pick_device
from synth_pipeline.errors import ConfigError


def test_auto_takes_what_is_there_and_the_variable_comes_first(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setenv(VARIABLE, "meta")
    assert pick_device("auto") == torch.device("meta")
    assert pick_device("cpu") == torch.device("cpu")  # what a program says itself is not overruled


@pytest.mark.parametrize("wanted", ["cuda:99", "gpu", ""])
def test_a_device_that_is_not_there_is_refused_by_name(monkeypatch, wanted):
    monkeypatch.setenv(VARIABLE, wanted)
    with pytest.raises(ConfigError, match=f"the device '{wanted}' cannot be used") as caught:
        pick_device("auto")
    assert "auto, cpu" in caught.value.accepted
    assert VARIABLE in caught.value.fix
