"""Real data are real wherever they are asked for, and what a generator made is judged without them."""

import numpy as np
import pytest
from toy_data import random_episodes, toy_dataset, toy_rows

from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.rows import Dataset
from synth_pipeline.errors import SourceError
from synth_pipeline.export.d4rl_hdf5 import Labelled, write_flat
from synth_pipeline.judgement import file_table
from synth_pipeline.sources import real_source
from synth_pipeline.sources.real import RealSource, synthetic_rows


class Given:
    """A source of a dataset in memory."""

    def __init__(self, data, **facts):
        self.data, self.facts = data, facts

    def describe(self):
        return self.facts

    def load(self):
        return self.data

    def fingerprint(self):
        return "given"


def marked(flags):
    rows = toy_rows().transitions()
    return Dataset(toy_dataset().spec, rows=rows.with_columns(synthetic=np.resize(flags, len(rows))))


def test_marked_rows_are_not_real():
    data = marked([False, True, True])
    count = int(data.transitions()["synthetic"].sum())
    with pytest.raises(SourceError, match="'mine' is asked for as real data") as caught:
        RealSource(Given(data), "mine").load()
    assert caught.value.found == f"{count:,} of {len(data):,} rows are marked as synthetic"


def test_a_store_that_a_generator_filled_is_not_real():
    with pytest.raises(SourceError, match="as real data") as caught:
        RealSource(Given(toy_dataset(), generator="smote"), "store").load()
    assert "the generator 'smote'" in caught.value.found


def test_other_data_are_as_they_are():
    for data in (toy_dataset(), marked([False])):
        source = RealSource(Given(data, rows=3), "mine")
        assert source.load() is data
        assert (source.fingerprint(), source.describe()) == ("given", {"rows": 3})


def test_only_rows_that_are_marked_are_judged():
    data = marked([False, True, True])
    made = synthetic_rows(data)
    assert made.transitions()["synthetic"].all()
    assert len(made) == int(data.transitions()["synthetic"].sum())
    assert synthetic_rows(marked([True])) is synthetic_rows(marked([False])) is synthetic_rows(toy_dataset()) is None


def test_marked_episodes_are_kept_whole():
    episodes = random_episodes((3, 4, 5))
    flags = np.repeat([True, False, True], [3, 4, 5])
    labelled = Episodes(
        episodes.observations, episodes.final_observations, episodes.starts, {**episodes.columns, "synthetic": flags}
    )
    assert synthetic_rows(Dataset(toy_dataset().spec, labelled)).episodes.lengths.tolist() == [3, 5]


def test_an_audit_of_an_export_leaves_the_real_rows_out(tmp_path, capsys):
    """Among real rows bad synthetic ones would pass."""
    rows, spec = toy_rows().transitions(), toy_dataset().spec
    parts = [Labelled(Dataset(spec, rows=rows), synthetic=False), Labelled(Dataset(spec, rows=rows), synthetic=True)]
    write_flat(tmp_path / "both.hdf5", parts, spec=spec, metadata={})
    assert len(file_table(str(tmp_path / "both.hdf5")).rows) == len(rows)
    assert "marked as synthetic, and these are judged" in capsys.readouterr().out
    with pytest.raises(SourceError, match="as real data"):
        real_source(str(tmp_path / "both.hdf5")).load()
