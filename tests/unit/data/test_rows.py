import numpy as np
import pytest
from toy_data import SPEC, toy_dataset, toy_rows

from synth_pipeline.data.containers import concatenate
from synth_pipeline.data.rows import Dataset, chunks


def test_a_dataset_has_episodes_or_rows():
    with pytest.raises(ValueError, match="either"):
        Dataset(SPEC)
    with pytest.raises(ValueError, match="either"):
        Dataset(SPEC, toy_dataset().episodes, toy_rows().rows)


@pytest.mark.parametrize("dataset", [toy_dataset(), toy_rows()], ids=["episodes", "rows"])
@pytest.mark.parametrize("size", [1, 50, 146, 147, 148])
def test_chunks_cover_every_row_once(dataset, size):
    assert len(dataset) == 147
    parts = list(chunks(dataset, size))
    assert {len(part) for part in parts[:-1]} <= {size}
    assert 0 < len(parts[-1]) <= size
    whole = concatenate(parts)
    assert all(np.array_equal(whole[name], column) for name, column in dataset.transitions().columns.items())


def test_chunks_of_nothing():
    empty = Dataset(SPEC, rows=toy_rows().transitions().take(slice(0, 0)))
    assert list(chunks(empty, 10)) == []
