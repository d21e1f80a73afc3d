"""How a dataset is cut into shards."""

import pickle

import pytest

from synth_pipeline import seeding
from synth_pipeline.errors import ConfigError
from synth_pipeline.seeding import Stage
from synth_pipeline.store import Plan


def rows_of(plan):
    return [plan.task(shard).rows for shard in range(plan.num_shards)]


def test_shards_are_full_but_the_last():
    assert rows_of(Plan(num_rows=40_000)) == [16_384, 16_384, 7_232]
    assert rows_of(Plan(num_rows=32_768)) == [16_384, 16_384]
    assert rows_of(Plan(num_rows=1)) == [1]


def test_extension_leaves_existing_tasks_alone():
    plan = Plan(num_rows=150, rows_per_shard=64, rows_per_chunk=16)
    longer = plan.extended(300).extended(301)
    assert rows_of(longer) == [64, 64, 22, 64, 64, 22, 1]
    assert [longer.task(shard) for shard in range(3)] == [plan.task(shard) for shard in range(3)]
    assert plan.extended(150) is plan
    assert longer.extends(plan)
    assert longer.extends(plan.extended(300))
    assert not plan.extends(longer)
    assert not plan.extends(plan)
    assert not longer.extends(plan.replace(seed=1))


def test_a_plan_cannot_shrink():
    with pytest.raises(ConfigError, match="cannot shrink"):
        Plan(num_rows=150).extended(149)


def test_there_is_no_task_beyond_the_last():
    plan = Plan(num_rows=150).extended(151)
    for shard in (-1, 2):
        with pytest.raises(IndexError):
            plan.task(shard)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows_per_shard": 20_000}, "multiple"),
        ({"rows_per_shard": 278_528}, "262144"),
        ({"rows_per_chunk": 32_768}, "16384"),
        ({"num_rows": 0}, "num_rows"),
        ({"earlier": (50, 20)}, "add rows"),
        ({"earlier": (100,)}, "add rows"),
        ({"dtype": "float8"}, "dtype"),
    ],
)
def test_plans_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Plan.parse({"num_rows": 100, **settings})


def test_randomness_is_an_address():
    task = Plan(num_rows=100, seed=5).task(0)
    wanted = seeding.stream(5, Stage.GENERATE, 0, 1).random(4)
    assert task.retry().rng(Stage.GENERATE).random(4).tolist() == wanted.tolist()
    assert task.retry().attempt == 1
    assert task.integer_seed(Stage.GENERATE) != task.retry().integer_seed(Stage.GENERATE)
    assert pickle.loads(pickle.dumps(task)) == task  # noqa: S301


@pytest.mark.parametrize(
    ("num_rows", "row_bytes", "rate", "workers", "shards"),
    [
        (5_000_000, 105, 1e6, 2, 20),  # fast: the largest shard
        (5_000_000, 105, 1e3, 2, 77),  # 65,536 rows are about a minute
        (5_000_000, 105, 1.0, 2, 306),  # slow: the smallest shard
        (100_000, 105, 1e6, 1, 2),  # two tasks for the only worker
        (100_000, 105, 1e6, 2, 4),
        (10_000, 105, 1e6, 8, 1),  # one small shard
    ],
)
def test_choice_follows_rate_and_workers(num_rows, row_bytes, rate, workers, shards):
    plan = Plan.choose(num_rows, row_bytes, rows_per_second=rate, workers=workers, seed=3)
    assert plan.num_shards == shards
    assert plan.seed == 3
    assert plan.rows_per_shard % 16_384 == 0


def test_wide_rows_are_cut_by_bytes():
    images = Plan.choose(100_000, 2 * 84 * 84 * 4, rows_per_second=1e6)
    assert images.rows_per_shard * 2 * 84 * 84 * 4 <= 256 << 20
    assert images.rows_per_chunk * 2 * 84 * 84 * 4 <= 4 << 20
    humanoid = Plan.choose(5_000_000, 2_861, rows_per_second=1e6)
    assert humanoid.rows_per_shard % 16_384 == 0
    assert humanoid.rows_per_shard * 2_861 <= 256 << 20
    assert humanoid.rows_per_chunk == 1_024
    assert Plan.choose(10, 1 << 30).rows_per_shard == 1


def test_settings_of_the_choice_are_checked():
    with pytest.raises(ConfigError, match="micro_batch"):
        Plan.choose(100, 105, micro_bach=3)
