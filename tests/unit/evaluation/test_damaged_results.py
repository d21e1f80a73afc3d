"""What a study finds damaged is named, with what to type; it is never read as a result."""

from types import SimpleNamespace

import numpy as np
import pytest

from synth_pipeline.data.containers import Transitions
from synth_pipeline.errors import ConfigError, SourceError
from synth_pipeline.evaluation import cells
from synth_pipeline.scale import studies


@pytest.fixture
def rows(tmp_path):
    columns = {"rewards": np.arange(500, dtype=np.float32), "observations": np.ones((500, 3), np.float32)}
    cells._write_rows(tmp_path / "rows.npz", Transitions(columns), 2.5)
    return tmp_path / "rows.npz"


def test_rows_come_back_with_what_they_took(rows):
    assert cells._made(rows) == (500, 2.5)
    assert cells.rows_of(SimpleNamespace(rows_file=rows))["rewards"].tolist() == list(range(500))


@pytest.mark.parametrize("damage", [lambda b: b[:300], lambda b: b"", lambda b: b[:200] + b"\xff" * 90 + b[290:]])
def test_damaged_rows_are_named(rows, damage):
    rows.write_bytes(damage(rows.read_bytes()))
    with pytest.raises(SourceError, match=r"rows\.npz' cannot be read(?s:.*)rm '.*rows\.npz'"):
        cells.rows_of(SimpleNamespace(rows_file=rows))


@pytest.mark.parametrize("text", ["{}", '{"x": 1}', "[1]", "{"])
def test_a_damaged_result_is_named(tmp_path, text):
    path = tmp_path / "fqe-real.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"fqe-real\.json"):
        studies._result_of(SimpleNamespace(result_file=path))
    path.write_text('{"diverged": null}')
    assert studies._result_of(SimpleNamespace(result_file=path)) == {"diverged": None}
