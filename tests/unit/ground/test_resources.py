import pytest

from synth_pipeline import resources
from synth_pipeline.errors import ConfigError


def test_shipped_files_are_found():
    assert resources.path("validation/suites/default.yaml").read_text().startswith("name: default")


def test_a_wheel_has_its_own_copy_first(tmp_path, monkeypatch):
    package = tmp_path / "synth_pipeline"
    for folder in (package / "_shipped" / "datasets", tmp_path / "datasets"):
        folder.mkdir(parents=True)
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert resources.path("datasets") == package / "_shipped" / "datasets"
    (package / "_shipped" / "datasets").rmdir()
    assert resources.path("datasets") == tmp_path / "datasets"


def test_missing_resource_tells_what_to_do():
    with pytest.raises(ConfigError, match="reinstall"):
        resources.path("datasets/no-such-thing")
