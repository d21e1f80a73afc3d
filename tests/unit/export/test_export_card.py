"""The card: what it says, when it refuses, and that its snippets run."""

import re

import numpy as np
import pytest
from export_suite import SPEC, counter_episodes, counter_rows

from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import GateError
from synth_pipeline.export.card import CardFacts, write_card
from synth_pipeline.export.d4rl_hdf5 import write_flat
from synth_pipeline.export.minari import write_minari

PASSED = {"metric": "bounds", "field": "actions", "value": 0.0, "threshold": 0.0, "floor": 0.0, "passed": True}
FAILED = {"metric": "c2st", "value": 0.91234, "threshold": 0.6, "passed": False}


def card(path, **changes):
    facts = {
        "title": "counter/mixed-v0",
        "spec": SPEC.replace(licence="CC-BY-4.0", horizon=1000),
        "rows": {"real rows": 1200, "synthetic rows": 5_000_000},
        "recipe": {"generator": "smote", "seed": 3},
        "parents": {"counter (real)": "ab12", "store": "cd34"},
        "verdicts": (PASSED,),
        "minari_id": "counter/mixed-v0",
        "flat_file": "flat.hdf5",
        **changes,
    }
    return write_card(path / "README.md", CardFacts(**facts)).read_text()


def test_it_says_what_there_is(tmp_path):
    text = card(tmp_path)
    for expected in (
        "# counter/mixed-v0", "1,200 real rows, 5,000,000 synthetic rows", "CC-BY-4.0", "1,000 steps",
        '"generator": "smote"', "| counter (real) | `ab12` |", "| bounds | actions | 0 | 0 | 0 | yes |",
        "0 (score 0, random policy) and 10 (score 100)", "infos/synthetic", "Decision Transformer",
        "| `observations` | (3,) | continuous | float32 |",
    ):  # fmt: skip
        assert expected in text
    assert "Warning" not in text


def test_it_says_what_is_not_known(tmp_path):
    text = card(tmp_path, spec=SPEC.replace(reference_max=None))
    assert "no simulator known" in text
    assert "not stated" in text
    assert "cannot be normalised" in text


def test_only_what_was_written_is_offered(tmp_path):
    flat_only = card(tmp_path, minari_id=None)
    assert "load_dataset" not in flat_only
    assert "to_d3rlpy" in flat_only
    minari_only = card(tmp_path, flat_file=None)
    assert "h5py" not in minari_only
    assert "load_dataset" in minari_only


def test_failed_data_gets_no_card(tmp_path):
    with pytest.raises(GateError, match=r"failed validation \(c2st\)"):
        card(tmp_path, verdicts=(PASSED, FAILED))
    with pytest.raises(GateError, match="never validated"):
        card(tmp_path, verdicts=())
    assert not (tmp_path / "README.md").exists()


def test_failed_data_that_is_allowed_says_so_on_top(tmp_path):
    text = card(tmp_path, verdicts=(PASSED, FAILED), allow_failed=True)
    first = text.split("\n\n")[1]
    assert first.startswith("> **Warning: this data failed validation (c2st)**")
    assert "| c2st |  | 0.9123 | 0.6 |  | **no** |" in text
    assert "never validated" in card(tmp_path, verdicts=(), allow_failed=True)


def test_its_snippets_for_minari_and_flat_files_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", "somewhere else")  # put back afterwards: the snippet sets its own
    monkeypatch.chdir(tmp_path)
    part = counter_episodes([3, 2])
    write_minari("counter/mixed-v0", spec=SPEC, episodes=[part], root=tmp_path / "minari", metadata={})
    write_flat(tmp_path / "flat.hdf5", [Dataset(SPEC, rows=counter_rows(4))], spec=SPEC, metadata={})
    minari_code, flat_code, *rest = re.findall(r"```python\n(.*?)```", card(tmp_path), re.DOTALL)
    found: dict = {}
    exec(minari_code, found)
    np.testing.assert_array_equal(found["next_observations"], part.next_observations[3:])
    exec(flat_code, found)
    np.testing.assert_array_equal(found["data"]["next_observations"], counter_rows(4)["next_observations"])
    assert len(rest) == 2  # d3rlpy and TorchRL: tests/interop runs them
