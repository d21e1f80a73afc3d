"""What is counted over all rows of a store: the same for any number of workers, here or on a cluster."""

import numpy as np
import pytest
import toy_data

from synth_pipeline import envs, stages, store
from synth_pipeline.data.containers import Transitions
from synth_pipeline.errors import StoreError
from synth_pipeline.judgement import verify
from synth_pipeline.run_config import RunConfig
from synth_pipeline.runs import Run
from synth_pipeline.scale.generation import ShippedModel
from synth_pipeline.scale.reading import by_shards, damaged_shards
from synth_pipeline.store import Plan, Schema
from synth_pipeline.validation.contract import contract
from synth_pipeline.validation.rules import Rules, rules
from synth_pipeline.validation.statistics import edges_of, statistics

RULES = Rules.parse({"columns": {"rewards": {"low": -0.5}, "observations[0]": {"high": 0.5}}}, where="test")
PLAN = Plan(num_rows=300, rows_per_shard=80, rows_per_chunk=20, seed=2)


@pytest.fixture
def target(tmp_path):
    """Four shards of random rows, some of which break the contract and the rules."""
    made = store.create(tmp_path / "store", Schema(kind="transitions", spec=toy_data.SPEC), PLAN, {})
    rng = np.random.default_rng(0)
    with made.writing() as writing:
        for task in writing.missing():
            columns = {f.name: rng.normal(size=(task.rows, *f.shape)).astype(f.dtype) for f in made.schema.columns}
            columns["rewards"][::7] = np.nan
            columns["actions"] *= 9
            store.write_shard(made.url, task, Transitions(columns))
        writing.finalise()
    return made


def counted(target, rows):
    fields = target.schema.columns
    found = statistics(rows, fields, edges_of(target.read_all(), fields))
    plain = {label: vars(column) | {"histogram": column.histogram.tolist()} for label, column in found.items()}
    return contract(rows, fields, envs.make("toy-linear-gaussian").terminated), rules(rows, RULES), plain


def test_the_same_counts_whoever_counts(target, scheduler):
    here = counted(target, by_shards(target, 1))
    assert here == counted(target, by_shards(target, 2)) == counted(target, by_shards(target, scheduler))
    whole = counted(target, target)
    assert here[:2] == whole[:2]
    assert any(measurement.value for measurement in here[0])
    assert any(measurement.value for measurement in here[1])
    for label, found in whole[2].items():
        part, exact = here[2][label], ("count", "minimum", "maximum", "finite", "non_finite", "histogram")
        assert [part[name] for name in exact] == [found[name] for name in exact]
        assert part["mean"] == pytest.approx(found["mean"])  # another order of sums


def test_damage_is_found_by_whoever_looks(target, scheduler, tmp_path):
    path = tmp_path / "store" / "rewards" / "c.2"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    here = damaged_shards(target, 1)
    assert list(here) == [2]
    assert here == damaged_shards(target, 2) == damaged_shards(target, scheduler)
    for workers in (1, scheduler):
        with pytest.raises(StoreError, match="shard 2 of the store"):
            verify(target, workers)


def test_one_digest_for_processes_and_for_a_cluster(scheduler, tmp_path, monkeypatch):
    """The cluster gets the model with the tasks: it would not see the run's folder from elsewhere."""
    monkeypatch.chdir(tmp_path)
    rows = toy_data.toy_dataset([20] * 24, 0).transitions()
    names = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")
    np.savez("mine.npz", **{name: rows[name] for name in names})
    made = {}
    for workers in (1, scheduler):
        monkeypatch.setenv("SYNTHPIPE_DATA", f"data-{len(made)}")
        config = {"dataset": "mine.npz", "held_out": 0.25, "generator": {"kind": "noise"}}
        config["generate"] = {"rows": 40_000, "rows_per_shard": 16_384, "micro_batch": 4_096}
        run, parsed = Run(tmp_path / f"run-{len(made)}"), RunConfig.parse(config)
        stages.train(run, parsed)
        generated = store.open(stages.generate(run, parsed, workers=workers))
        collected = store.open(stages.collect("toy-linear-gaussian/random", rows=33_000, workers=workers))
        generated.verify()
        assert (generated.plan.num_shards, collected.plan.num_shards) == (3, 3)
        assert f"data-{len(made)}" in collected.url
        made[workers] = (generated.digest(), collected.digest())
    assert made[1] == made[scheduler]


def test_a_shipped_model_is_known_by_its_files(tmp_path):
    for name, text in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text(text)
    first, same, other = (ShippedModel.of(tmp_path / name) for name in "abc")
    assert first == same
    assert hash(first) == hash(same)
    assert first != other
    assert first.files == {"state.json": b"1"}
    assert "files" not in repr(first)
