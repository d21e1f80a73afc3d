"""Planning a store of generated rows, and the task that fills one shard of it, whatever a generator rejects."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import toy_data

from synth_pipeline import store
from synth_pipeline.data.containers import Transitions
from synth_pipeline.errors import CheckpointError, ConfigError, StoreError, TaskError, UnknownNameError
from synth_pipeline.generators import GENERATORS, base
from synth_pipeline.generators.controls import Copula, CopulaConfig
from synth_pipeline.run_config import GenerateSettings, RunConfig
from synth_pipeline.runs import Run
from synth_pipeline.scale import generation
from synth_pipeline.scale.estimate import START_S, STORE_BYTES_S, Estimate, confirm_hours, estimate, missing_rows
from synth_pipeline.scale.fitted import made_from, require_model
from synth_pipeline.scale.generation import GenerateShard, generated_schema, plan_generation, plan_run
from synth_pipeline.store import Plan
from synth_pipeline.validation.rules import Rules

ROWS_PER_SHARD = 16_384


@pytest.fixture(scope="module")
def data():
    return toy_data.toy_dataset()


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    """A fitted copula, saved as the train stage saves it."""
    folder = tmp_path_factory.mktemp("model") / "generator"
    generator = Copula(CopulaConfig())
    generator.fit(data, seed=0)
    extra = {"spec": data.spec.model_dump(mode="json"), "made_from": made_from(CONFIG), "key": "k1"}
    extra |= {"held_out_episodes": [3], "seconds": 1.0, "fingerprint": "f1", "units": 5, "history": "h1"}
    base.save(generator, folder, extra=extra)
    return folder


CONFIG = RunConfig(dataset="mine.npz", generator={"kind": "copula"})


PLUGIN = """
from synth_pipeline.generators.controls import Duplicate

class Mine(Duplicate):
    kind = "mine"
"""


def test_a_plug_in_that_was_edited_is_another_generator(data, tmp_path, monkeypatch):
    file = tmp_path / "my_plugin_of_a_test.py"
    file.write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(GENERATORS._entries, "mine", "my_plugin_of_a_test:Mine")
    config = RunConfig(dataset="mine.npz", generator={"kind": "mine"})
    generator = base.build(config.generator)
    generator.fit(data, seed=0)
    extra = {"spec": data.spec.plain(), "made_from": made_from(config), "key": "k1", "held_out_episodes": [3]}
    extra |= {"seconds": 1.0, "fingerprint": "f1", "units": 5, "history": "h1"}
    base.save(generator, tmp_path / "generator", extra=extra)
    require_model(tmp_path / "generator", config)
    file.write_text(PLUGIN + "    noise = 50\n")
    with pytest.raises(ConfigError, match=r"generator\.code"):
        require_model(tmp_path / "generator", config)
    assert "generator.code" not in made_from(CONFIG)


class Rejecting(Copula):
    """A generator that keeps a share of what it draws; `asked` notes how many rows every call was to give."""

    def __init__(self, spec, keep):
        super().__init__()
        self._fields, self._keep, self.asked = base.modelled_fields(spec), keep, []

    def sample(self, rows, rng):
        self.asked.append(rows)
        kept = math.ceil(rows * self._keep)
        columns = {f.name: np.zeros((kept, *f.shape), f.dtype) for f in self._fields}
        columns["rewards"] = rng.random(kept).astype(np.float32)
        return Transitions(columns)


def shard_task(tmp_path, monkeypatch, data, keep, *, rows=1_000, micro_batch=400, attempts=3, rules=None):
    generator = Rejecting(data.spec, keep)
    monkeypatch.setattr(generation, "_loaded", lambda model: generator)
    url = str(tmp_path / "store")
    plan = Plan(num_rows=rows, rows_per_shard=ROWS_PER_SHARD, seed=5)
    target = store.create(url, generated_schema(data.spec, generator), plan, {})
    make = GenerateShard(model="unused", url=url, micro_batch=micro_batch, max_attempts=attempts, rules=rules)
    return generator, target, lambda: make(plan.task(0))


def test_attempts_until_the_shard_is_full(tmp_path, monkeypatch, data):
    generator, target, make = shard_task(tmp_path, monkeypatch, data, keep=0.5, attempts=20)
    commit = make()
    assert commit.rows == 1_000
    assert commit.attempt > 3
    assert generator.asked[:3] == [400, 400, 200]  # the first attempt asks for everything, in micro-batches
    assert generator.asked[3:5] == [400, 100]  # the second for the 500 that are missing
    rewards = target.read_all()["rewards"]
    assert len(np.unique(rewards)) > 990  # every attempt draws at an address of its own


def test_fewer_rows_than_asked_for_when_the_limit_is_reached(tmp_path, monkeypatch, data):
    _, target, make = shard_task(tmp_path, monkeypatch, data, keep=0.1, attempts=3)
    commit = make()
    assert (commit.rows, commit.attempt) == (40 + 40 + 20 + 40 + 40 + 10 + 40 + 40 + 1, 2)
    target.refresh()
    assert target.complete
    assert len(target) == commit.rows
    assert missing_rows(target.plan, target.url) == 0  # there is nothing left to try


def test_the_same_bytes_when_it_is_made_again(tmp_path, monkeypatch, data):
    checksums = []
    for name in ("first", "second"):
        _, _, make = shard_task(tmp_path / name, monkeypatch, data, keep=0.3)
        checksums.append(make().checksums)
    assert checksums[0] == checksums[1]


def test_rows_are_moved_into_the_users_rules_and_rejected_where_they_break_one(tmp_path, monkeypatch, data):
    rules = Rules.parse(
        {
            "columns": {"rewards": {"low": 0.2}},
            "identities": [{"sum": {"rewards": 1}, "equals": 0.4, "tolerance": 0.2}],
        },
        where="test",
    )
    generator, target, make = shard_task(
        tmp_path, monkeypatch, data, keep=1.0, rows=200, micro_batch=50, attempts=9, rules=rules
    )
    assert make().rows == 200
    target.refresh()
    rewards = target.read_all()["rewards"]
    assert rewards.min() == np.float32(0.2)  # moved
    assert rewards.max() <= 0.6 + 1e-6  # rejected
    assert len(generator.asked) > 4  # and drawn again


def test_rules_belong_to_the_identity_and_must_fit_the_data(model, tmp_path):
    rules = Rules.parse({"columns": {"rewards": {"low": 0.0}}}, where="test")
    settings = GenerateSettings(rows=20_000, rows_per_shard=ROWS_PER_SHARD)
    url = str(tmp_path / "s")
    with_rules, without = (plan_generation(model, url, settings, seed=0, rules=given) for given in (rules, None))
    assert "rules" not in without.identity
    assert with_rules.identity["rules"]["columns"] == {"rewards": rules.columns["rewards"].plain()}
    wrong = Rules.parse({"columns": {"reward": {"low": 0.0}}}, where="test")
    with pytest.raises(UnknownNameError, match="reward"):
        plan_generation(model, url, settings, seed=0, rules=wrong)


def test_a_shard_that_stays_empty_is_an_error_and_no_commit(tmp_path, monkeypatch, data):
    generator, target, make = shard_task(tmp_path, monkeypatch, data, keep=0.0)
    with pytest.raises(TaskError, match="every row was rejected") as caught:
        make()
    assert caught.value.found == "0 of 1,000 rows after 3 attempts"
    assert "max_attempts" in caught.value.fix
    assert len(generator.asked) == 9
    target.refresh()
    assert target.num_missing == 1


def test_the_plan_of_a_new_store_does_not_depend_on_anything_but_settings_and_rate(model, tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "measured_rate", lambda generator, rows: 1e6)
    planned = plan_generation(model, str(tmp_path / "s"), GenerateSettings(rows=2_000_000), seed=3)
    assert planned.plan.rows_per_shard == 8 * ROWS_PER_SHARD  # 16 tasks for two million rows
    assert (planned.plan.seed, planned.plan.num_rows) == (3, 2_000_000)
    assert planned.identity["generator"]["kind"] == "copula"
    assert not (tmp_path / "s").exists()


def test_the_rate_is_not_measured_where_nothing_follows_from_it(model, tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "measured_rate", lambda generator, rows: pytest.fail("it was measured"))
    settings = GenerateSettings(rows=40_000, rows_per_shard=ROWS_PER_SHARD)
    planned = plan_generation(model, str(tmp_path / "s"), settings, seed=0)
    assert planned.plan.num_shards == 3
    store.create(tmp_path / "s", planned.schema, planned.plan, planned.identity)
    assert plan_generation(model, str(tmp_path / "s"), GenerateSettings(rows=40_000), seed=0).plan == planned.plan


def test_an_existing_store_keeps_its_cut_and_grows(model, tmp_path):
    url = str(tmp_path / "s")
    settings = GenerateSettings(rows=20_000, rows_per_shard=ROWS_PER_SHARD)
    first = plan_generation(model, url, settings, seed=0)
    store.create(url, first.schema, first.plan, first.identity)
    assert missing_rows(first.plan, url) == 20_000
    more = plan_generation(model, url, GenerateSettings(rows=50_000), seed=0)
    assert more.plan.extends(first.plan)
    assert more.plan.rows_per_shard == ROWS_PER_SHARD
    fewer = plan_generation(model, url, GenerateSettings(rows=10), seed=0)
    assert fewer.plan == first.plan
    other = plan_generation(model, url, GenerateSettings(rows=20_000, micro_batch=7), seed=0)
    with pytest.raises(StoreError, match="made with other settings") as caught:
        store.create(url, other.schema, other.plan, other.identity)
    assert caught.value.found == "plan.micro_batch: 16384 -> 7"


def test_a_model_is_recognised_by_its_settings(model):
    require_model(model, CONFIG)
    require_model(model, CONFIG, "k1")
    with pytest.raises(ConfigError, match="other settings") as caught:
        require_model(model, CONFIG.replace(seed=4, generator={"kind": "copula", "shrinkage": 0.5}))
    assert caught.value.found == "seed 0 -> 4; generator.shrinkage 1e-06 -> 0.5"
    with pytest.raises(ConfigError) as caught:
        require_model(model, CONFIG, "k2")
    assert caught.value.found == "the rows of mine.npz are not those that it was fitted on"


@pytest.mark.parametrize("text", ["{}", "[]", '{"extra": {}}', '{"extra": {"made_from": [], "key": "k"}}', "{", None])
def test_notes_of_another_shape_name_the_commands(model, tmp_path, text):
    folder = tmp_path / "my run" / "model" / "generator"
    shutil.copytree(model, folder)
    (folder / "state.json").unlink() if text is None else (folder / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match="does not say what the generator was fitted on") as caught:
        plan_run(Run(tmp_path / "my run"), CONFIG)
    assert caught.value.fix == f"rm -r '{folder}' && synthpipe train mine.npz -o '{tmp_path}/my run'"


def test_nothing_to_generate_from_names_the_command(tmp_path):
    with pytest.raises(CheckpointError, match="no generator was trained") as caught:
        plan_run(Run(tmp_path / "my run"), CONFIG)
    assert caught.value.fix == f"synthpipe train mine.npz -o '{tmp_path}/my run'"


def test_only_more_than_an_hour_is_asked_for():
    confirm_hours(Estimate(3_599, 1.0, 3_599.0))
    with pytest.raises(ConfigError, match=r"about 2\.0 hours") as caught:
        confirm_hours(Estimate(7_200, 1.0, 7_200.0))
    assert caught.value.found == "7,200 rows at 1 rows/s a worker"
    assert "--yes" in caught.value.fix


def test_writing_and_the_start_of_workers_count(model, tmp_path, monkeypatch):
    monkeypatch.setattr("synth_pipeline.scale.tasks.cores", lambda: 2)
    url, settings = str(tmp_path / "s"), GenerateSettings(rows=50_000, rows_per_shard=ROWS_PER_SHARD)
    planned = replace(plan_generation(model, url, settings, seed=0), rate=lambda: 1e9)
    writing = planned.schema.row_bytes / STORE_BYTES_S
    found = estimate(planned, url, workers=1)
    assert found.rows == 50_000
    assert found.rate == pytest.approx(1 / writing, rel=0.01)
    assert found.seconds == pytest.approx(START_S + 50_000 * writing, rel=0.01)
    two = estimate(planned, url, workers=9)  # 9 workers on 2 cores: two rounds of full shards
    assert two.seconds == pytest.approx(START_S + 2 * ROWS_PER_SHARD * writing, rel=0.01)


def test_shards_that_are_there_tell_how_long_the_others_take(model, data, tmp_path):
    url, settings = str(tmp_path / "s"), GenerateSettings(rows=50_000, rows_per_shard=ROWS_PER_SHARD)
    planned = replace(plan_generation(model, url, settings, seed=0), rate=lambda: pytest.fail("it was measured"))
    target = store.create(url, planned.schema, planned.plan, planned.identity)
    rows = base.load(model)[0].sample(ROWS_PER_SHARD, np.random.default_rng(0))
    note = {"seconds": 7.0, "write_seconds": 1.0}
    with target.writing() as session:
        store.write_shard(url, session.missing()[0], rows, sidecar=note)
    found = estimate(planned, url, workers=1)
    assert found.rows == 50_000 - ROWS_PER_SHARD
    assert found.rate == pytest.approx(ROWS_PER_SHARD / 8)
    assert found.seconds == pytest.approx(START_S + found.rows / found.rate)
    (tmp_path / "s" / "sidecar" / "0.json").write_text("{")  # damaged: nothing was noted
    assert estimate(replace(planned, rate=lambda: 100.0), url, workers=1).rate == pytest.approx(100, rel=0.01)
