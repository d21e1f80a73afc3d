"""Whatever the cut, the order and the batch size: the same rows."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import SMALL, TRAJECTORIES, TRANSITIONS, build, expected, rows_for, same_columns

from synth_pipeline import store
from synth_pipeline.store import Plan

ROWS = TRANSITIONS.replace(spec=SMALL, provenance=())
CHAINS = TRAJECTORIES.replace(spec=SMALL, provenance=())
few = settings(max_examples=12)


@st.composite
def plans(draw):
    chunk = draw(st.sampled_from([1, 3, 8, 16]))
    shard = chunk * draw(st.integers(1, 5))
    totals = sorted(draw(st.sets(st.integers(1, 5 * shard), min_size=1, max_size=3)))
    return Plan(num_rows=totals[-1], earlier=totals[:-1], rows_per_shard=shard, rows_per_chunk=chunk, seed=2)


@few
@given(plan=plans(), schema=st.sampled_from([ROWS, CHAINS]), data=st.data())
def test_any_cut_reads_back_in_order_and_any_order_of_writing_is_the_same(tmp_path_factory, plan, schema, data):
    folder = tmp_path_factory.mktemp("cut")
    order = data.draw(st.permutations(range(plan.num_shards)))
    built = build(folder / "shuffled", schema, plan, order=order)
    whole = expected(schema, plan)
    same_columns(built.read_all(), whole)
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, plan.num_rows)] * 2)))
    same_columns(built.read(start, stop), {name: values[start:stop] for name, values in whole.items()})
    assert built.digest() == build(folder / "in order", schema, plan).digest()


@few
@given(plan=plans(), size=st.integers(1, 40), buffer_chunks=st.integers(1, 6), epoch=st.integers(0, 3))
def test_batches_give_each_row_once(tmp_path_factory, plan, size, buffer_chunks, epoch):
    built = build(tmp_path_factory.mktemp("batches"), ROWS, plan)
    batches = [batch["rewards"].tolist() for batch in built.batches(size, 0, epoch, buffer_chunks=buffer_chunks)]
    assert sorted(itertools.chain(*batches)) == sorted(built.read_all(["rewards"])["rewards"].tolist())
    assert {len(batch) for batch in batches[:-1]} <= {size}


@few
@given(kept=st.lists(st.integers(0, 20), min_size=1, max_size=6), attempts=st.data())
def test_shards_of_any_length_read_back_in_order(tmp_path_factory, kept, attempts):
    folder = tmp_path_factory.mktemp("lengths")
    plan = Plan(num_rows=20 * len(kept), rows_per_shard=20, rows_per_chunk=5)
    target = store.create(folder, ROWS, plan, {})
    parts = []
    for shard, rows in enumerate(kept):
        task = plan.task(shard)
        for _ in range(attempts.draw(st.integers(0, 2))):
            task = task.retry()
        parts.append(rows_for(ROWS)(task).take(slice(0, rows)))
        assert store.write_shard(folder, task, parts[-1]).attempt == task.attempt
    same_columns(target.read_all(), {f.name: np.concatenate([part[f.name] for part in parts]) for f in ROWS.columns})
