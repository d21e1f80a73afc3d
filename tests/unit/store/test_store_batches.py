"""Shuffled reading: the buffer, the order, the columns."""

import numpy as np
import pytest
from store_samples import PLAN, TRAJECTORIES, TRANSITIONS, build, expected

from synth_pipeline.store import reader


@pytest.fixture(scope="module", params=[TRANSITIONS, TRAJECTORIES], ids=["transitions", "trajectories"])
def built(request, tmp_path_factory):
    return build(tmp_path_factory.mktemp("batches"), request.param)


def test_rows_stay_whole(built):
    """Every column of a batch is shuffled alike, next observations of trajectories included."""
    whole = expected(built.schema, PLAN)
    place = {value: row for row, value in enumerate(whole["rewards"].tolist())}
    assert len(place) == PLAN.num_rows
    for batch in built.batches(32, seed=1, buffer_chunks=2):
        rows = [place[value] for value in batch["rewards"].tolist()]
        for name, values in whole.items():
            np.testing.assert_array_equal(batch[name], values[rows])


def test_batches_do_not_share_memory(built):
    first, *rest = built.batches(32, seed=1)
    kept = first["rewards"].copy()
    for batch in rest:
        batch["rewards"][:] = 0
    np.testing.assert_array_equal(first["rewards"], kept)


def test_a_batch_mixes_chunks(built):
    chunk = {value: row // 16 for row, value in enumerate(built.read_all(["rewards"])["rewards"].tolist())}
    batch = next(built.batches(40, seed=0))
    assert len({chunk[value] for value in batch["rewards"].tolist()}) > 5


def test_memory_is_the_buffer(built, monkeypatch):
    allocated = []
    allocate = reader.Store._allocate
    monkeypatch.setattr(
        reader.Store, "_allocate", lambda self, rows, columns: allocated.append(rows) or allocate(self, rows, columns)
    )
    assert sum(len(batch) for batch in built.batches(8, seed=0, buffer_chunks=2, columns=["rewards"])) == 150
    assert allocated == [2 * 16 + 8]


@pytest.mark.parametrize(("size", "chunks"), [(0, 64), (4, 0)])
def test_sizes_that_cannot_be_are_refused_at_once(built, size, chunks):
    with pytest.raises(ValueError, match="at least 1"):
        built.batches(size, seed=0, buffer_chunks=chunks)


def test_a_batch_larger_than_the_store_is_the_store(built):
    (only,) = built.batches(1_000, seed=0)
    assert len(only) == 150
