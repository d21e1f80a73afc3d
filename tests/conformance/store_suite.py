"""What a store must do, wherever it lives and whatever it holds.

A subclass gives the class-scoped fixture `place`, a function from a name to `(url, options)` of a new store, and the
attribute `schema`. Tests that only read share one store.
"""

import itertools

import numpy as np
import pytest
from store_samples import PLAN, build, expected, rows_for, same_columns

from synth_pipeline import store
from synth_pipeline.data.rows import chunks
from synth_pipeline.errors import StoreBusyError, StoreError, UnknownNameError
from synth_pipeline.store import Plan, Schema
from synth_pipeline.store.folder import open_folder


class StoreTests:
    schema: Schema
    damages = ("flipped", "truncated", "stub", "missing")

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, place):
        url, options = place("shared store")
        return build(url, cls.schema, **options)

    @pytest.fixture
    def fresh(self, place):
        return place("data set")

    def test_reads_back_every_row_in_order(self, shared):
        assert shared.complete
        assert len(shared) == PLAN.num_rows
        same_columns(shared.read_all(), expected(self.schema, PLAN))

    def test_reads_any_slice(self, shared):
        whole = expected(self.schema, PLAN)
        for start, stop in ((0, 0), (0, 1), (15, 17), (60, 70), (63, 64), (10, 140), (150, 150)):
            same_columns(shared.read(start, stop), {name: values[start:stop] for name, values in whole.items()})

    def test_reads_chosen_columns(self, shared):
        found = shared.read(3, 9, columns=["rewards", "next_observations"])
        assert list(found.columns) == ["rewards", "next_observations"]
        with pytest.raises(UnknownNameError, match="rewards"):
            shared.read(3, 9, columns=["reward"])

    def test_is_a_row_source(self, shared):
        assert shared.spec == self.schema.spec
        assert [len(part) for part in chunks(shared, 64)] == [64, 64, 22]

    @pytest.mark.parametrize(("start", "stop"), [(-1, 3), (5, 4), (0, 151)])
    def test_rows_that_do_not_exist_are_refused(self, shared, start, stop):
        with pytest.raises(IndexError):
            shared.read(start, stop)

    def test_opening_finds_the_same_store(self, shared, place):
        again = store.open(shared.url, **place("any")[1])
        assert (again.schema, again.plan, again.config) == (self.schema, PLAN, {"generator": "toy"})
        assert again.digest() == again.info()["digest"] == shared.digest()
        assert again.info()["rows"] == PLAN.num_rows
        again.verify()

    def test_a_committed_shard_is_left_alone(self, shared, place):
        other_rows = rows_for(self.schema)(PLAN.task(0).retry())
        again = store.write_shard(shared.url, PLAN.task(0), other_rows, **place("any")[1])
        assert again == shared.commits[0]
        shared.verify()

    @pytest.mark.parametrize(
        ("change", "message"),
        [({"config": {"generator": "other"}}, "toy -> other"), ({"plan": PLAN.replace(seed=8)}, "seed: 7 -> 8")],
    )
    def test_other_settings_are_refused_with_what_differs(self, shared, place, change, message):
        settings = {"plan": PLAN, "config": {"generator": "toy"}} | change
        with pytest.raises(StoreError, match=message):
            store.create(shared.url, self.schema, **settings, **place("any")[1])

    def test_batches_give_each_row_once_and_follow_from_seed_and_epoch(self, shared):
        def rewards(seed, epoch):
            batches = shared.batches(16, seed, epoch, buffer_chunks=3, columns=["rewards"])
            return [batch["rewards"].tolist() for batch in batches]

        first = rewards(0, 0)
        assert sorted(itertools.chain(*first)) == sorted(shared.read_all(["rewards"])["rewards"].tolist())
        assert [len(batch) for batch in first] == [16] * 9 + [6]
        assert rewards(0, 0) == first
        assert first not in (rewards(0, 1), rewards(1, 0))

    def test_missing_rows_are_an_error_and_the_same_command_resumes(self, fresh, shared):
        url, options = fresh
        first = store.create(url, self.schema, PLAN, {"generator": "toy"}, **options)
        store.write_shard(url, PLAN.task(1), rows_for(self.schema)(PLAN.task(1)), sidecar={"seconds": 0.5}, **options)
        assert (first.num_missing, len(first)) == (2, 64)
        for refused in (first.read_all, first.digest, first.verify, lambda: first.batches(8, 0)):
            with pytest.raises(StoreError, match="0, 2"):
                refused()
        with first.writing() as session, pytest.raises(StoreError, match="2 of 3 shards"):
            session.finalise()
        # The missing shards come in another order, and with other notes: neither is part of the digest.
        resumed = build(url, self.schema, order=[1, 0], **options)
        assert resumed.digest() == shared.digest()
        assert resumed.sidecars()[1]["seconds"] == 0.5

    def test_extension_keeps_old_shards_and_adds_new_ones(self, fresh):
        url, options = fresh
        before = dict(build(url, self.schema, **options).commits)
        plan = PLAN.extended(200)
        longer = build(url, self.schema, plan, **options)
        assert {shard: longer.commits[shard] for shard in before} == before
        same_columns(longer.read_all(), expected(self.schema, plan))

    def test_one_writer_at_a_time(self, shared, place):
        options = place("any")[1]
        holder = r"host .*, process \d+, for"
        with shared.writing(), pytest.raises(StoreBusyError, match=holder), store.open(shared.url, **options).writing():
            pass
        with shared.writing():
            pass
        assert "lock" not in open_folder(shared.url, options.get("storage_options")).list_keys()

    def test_damage_is_caught_by_reading_and_by_verifying_and_can_be_mended(self, fresh):
        url, options = fresh
        built = build(url, self.schema, **options)
        folder = open_folder(url, options.get("storage_options"))
        key = "rewards/c.1"
        whole = folder.get(key)
        flipped = bytes([*whole[:40], whole[40] ^ 4, *whole[41:]])
        for damage in self.damages:
            folder.delete(key)
            if damage != "missing":
                folder.put(key, {"flipped": flipped, "truncated": whole[:-7], "stub": whole[:9]}[damage])
            for check in (built.verify, lambda: built.read_all(["rewards"])):
                with pytest.raises(StoreError, match=r"shard 1 .*\n.*rewards/c\.1") as caught:
                    check()
                assert "synthpipe generate RUN" in caught.value.fix
        assert list(built.damaged()) == [1]
        built.drop(*built.damaged())
        assert built.num_missing == 1
        build(url, self.schema, **options).verify()
        assert folder.get(key) == whole

    def test_fewer_rows_than_asked_are_read_by_cumulative_counts(self, fresh):
        url, options = fresh
        plan = Plan(num_rows=150, rows_per_shard=64, rows_per_chunk=16, seed=1)
        parts = [rows_for(self.schema)(plan.task(shard)) for shard in range(3)]
        parts[1] = parts[1].take(np.arange(2 if self.schema.kind == "trajectories" else 21))
        target = store.create(url, self.schema, plan, {}, **options)
        for task, part in zip(map(plan.task, range(3)), parts, strict=True):
            store.write_shard(url, task, part, **options)
        wanted = {f.name: np.concatenate([part[f.name] for part in parts]) for f in self.schema.readable}
        assert len(target) == len(wanted["rewards"]) < 150
        same_columns(target.read_all(), wanted)


class TrajectoryStoreTests(StoreTests):
    def test_episodes_come_back_whole(self, shared):
        wanted = [rows_for(self.schema)(PLAN.task(shard)) for shard in range(3)]
        for found, episodes in zip(shared.iter_episodes(), wanted, strict=True):
            assert found.starts.tolist() == episodes.starts.tolist()
            assert found.final_observations.tolist() == episodes.final_observations.tolist()
        assert shared.episodes().num_rows == PLAN.num_rows
        same_columns(shared.episodes().transitions(), expected(self.schema, PLAN))
