"""Collecting: the cut into tasks, whole episodes, the same bytes in any order and process, and the source."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from source_suite import SourceTests

from synth_pipeline import envs, sources, store
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.errors import ConfigError, SourceError, UnknownNameError
from synth_pipeline.scale.local import map_tasks
from synth_pipeline.sources import catalog, collect
from synth_pipeline.sources.catalog import Share
from synth_pipeline.sources.collect import CollectedSource, Collection, collection, make_actor

SMALL = "pendulum/medium-replay"


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHPIPE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def fill(made, shards=None):
    """Write shards of a collection into its store, in the given order."""
    target = store.create(made.folder, made.schema, made.plan, made.config)
    with target.writing() as session:
        for shard in range(made.plan.num_shards) if shards is None else shards:
            task = made.plan.task(shard)
            store.write_shard(made.folder, task, made.collect_shard(task))
        if shards is None:
            session.finalise()
    return target


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """A data folder that holds one small collection."""
    folder = tmp_path_factory.mktemp("collected")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNTHPIPE_DATA", str(folder))
        fill(collection(SMALL, rows=500))
    return folder


def content(episodes):
    """Every byte of an answer, as a hash."""
    total = hashlib.sha256()
    for name in sorted(episodes.columns):
        total.update(episodes.columns[name].tobytes())
    for array in (episodes.observations, episodes.final_observations, episodes.starts):
        total.update(array.tobytes())
    return total.hexdigest()


class TestPlan:
    @pytest.mark.parametrize("dataset_id", sorted(catalog.entries()))
    def test_every_dataset_is_cut_into_whole_shards(self, dataset_id):
        made = collection(dataset_id)
        asked = np.zeros(len(made.entry.recipe))
        for behaviour, rows in made.shards:
            asked[behaviour] += rows
            assert rows + made.entry.horizon - 1 <= made.plan.rows_per_shard <= 16_384
        shares = np.array([part.share for part in made.entry.recipe])
        assert (asked >= made.entry.rows * shares / shares.sum() - 1e-6).all()
        assert asked.sum() < made.entry.rows + 2 * len(made.shards)
        assert made.plan.num_shards == len(made.shards)

    def test_shares_divide_the_rows(self):
        entry = catalog.get("hopper/medium-expert")
        uneven = entry.replace(recipe=[entry.recipe[0].replace(share=3.0), entry.recipe[1]])
        assert Collection(uneven, 80_000, 0).shards == ((0, 15_000),) * 4 + ((1, 10_000),) * 2

    def test_a_tiny_collection_still_has_every_behaviour(self):
        assert [behaviour for behaviour, _ in collection(SMALL, rows=1).shards] == [0, 1, 2, 3, 4]


class TestShards:
    def test_whole_episodes_of_one_behaviour(self):
        made = collection(SMALL, rows=1500)
        for shard, (behaviour, rows) in enumerate(made.shards):
            found = made.collect_shard(made.plan.task(shard))
            assert found.num_rows >= rows
            assert set(found.lengths) == {200}
            assert (found["behaviour"] == behaviour).all()
            assert found["truncations"][found.starts[1:] - 1].all()
            assert not found["terminations"].any()

    def test_rows_are_what_the_simulator_does(self):
        made = collection("hopper/medium", rows=300)
        rows = made.collect_shard(made.plan.task(0)).transitions()
        model = envs.make("hopper")
        judged = model.resettable(rows["observations"], rows["next_observations"])
        outcome = model.step(rows["observations"][judged], rows["actions"][judged])
        assert judged.sum() > 100
        np.testing.assert_allclose(outcome.next_observations, rows["next_observations"][judged], atol=1e-4)
        np.testing.assert_allclose(outcome.rewards, rows["rewards"][judged], atol=1e-4)

    def test_uniform_actions_fill_the_bounds(self):
        made = collection("pendulum/random", rows=1000)
        actions = made.collect_shard(made.plan.task(0))["actions"]
        assert -2 <= actions.min() < -1.9
        assert 1.9 < actions.max() <= 2

    def test_maze_rows_have_no_columns_beside_the_schema(self):
        made = collection("pointmaze-umaze/waypoint", rows=200)
        found = made.collect_shard(made.plan.task(0))
        assert set(found.columns) == {"actions", "rewards", "terminations", "truncations", "behaviour"}
        assert found["terminations"].sum() == len(found)

    def test_shards_do_not_repeat_each_other(self):
        made = collection("toy-jumps/random")
        first, second = (made.collect_shard(made.plan.task(shard)) for shard in (0, 1))
        assert not {row.tobytes() for row in first.observations} & {row.tobytes() for row in second.observations}

    def test_another_seed_gives_other_data(self):
        one, other = collection(SMALL, rows=100), collection(SMALL, rows=100, seed=99)
        assert content(one.collect_shard(one.plan.task(0))) != content(other.collect_shard(other.plan.task(0)))

    def test_bytes_do_not_depend_on_order_or_processes(self):
        made = collection(SMALL, rows=500)
        tasks = [made.plan.task(shard) for shard in range(made.plan.num_shards)]
        alone = {task: content(found) for task, found in map_tasks(made.collect_shard, tasks, workers=1)}
        shared = {task: content(found) for task, found in map_tasks(made.collect_shard, tasks[::-1], workers=2)}
        assert alone == shared
        assert len(set(alone.values())) == len(tasks)


def test_collecting_twice_gives_one_digest(data, monkeypatch):
    made = collection(SMALL, rows=500)
    first = fill(made).digest()
    monkeypatch.setenv("SYNTHPIPE_DATA", str(data / "elsewhere"))
    again = fill(made, shards=range(made.plan.num_shards)[::-1])
    assert again.url != str(data)
    assert again.digest() == first


class TestSpec:
    def test_states_references_recipe_and_versions(self):
        spec = collection("hopper/medium-replay").spec
        references = catalog.get("hopper/medium-replay").references
        assert spec.dataset_id == "hopper/medium-replay"
        assert (spec.environment, spec.horizon, spec.licence) == ("hopper", 1000, "MIT")
        assert (spec.observation_size, spec.action_size) == (11, 3)
        assert (spec.reference_min, spec.reference_max) == (references.random.mean, references.best.mean)
        assert len(spec.provenance["behaviours"]) == len(catalog.get("hopper/medium-replay").recipe)
        assert spec.provenance["seed"] == catalog.get("hopper/medium-replay").seed
        assert set(spec.provenance["packages"]) >= {"mujoco", "gymnasium", "numpy"}
        assert DatasetSpec.model_validate_json(spec.model_dump_json()) == spec

    def test_without_a_policy_there_is_no_upper_reference(self):
        assert collection("toy-jumps/random").spec.reference_max is None

    def test_identity_follows_recipe_weights_size_and_seed(self, monkeypatch):
        base = collection(SMALL)
        entry = base.entry
        others = [
            collection(SMALL, rows=500),
            collection(SMALL, seed=99),
            Collection(entry.replace(recipe=entry.recipe[:-1]), base.rows, base.seed),
            Collection(entry.replace(recipe=[entry.recipe[0].replace(stochastic=False)]), base.rows, base.seed),
        ]
        folders = {made.folder for made in [base, *others]}
        assert len(folders) == 5
        assert replace(base).folder == base.folder
        monkeypatch.setattr(collect.behaviours, "parameters", lambda *_: {"w0": np.zeros(1)})
        assert replace(base).folder not in folders

    def test_the_data_folder_can_be_chosen(self, data, monkeypatch):
        assert collection(SMALL).folder.is_relative_to(data)
        monkeypatch.delenv("SYNTHPIPE_DATA")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert collect.data_folder() == Path.home() / ".cache" / "synth-pipeline"
        monkeypatch.setenv("XDG_CACHE_HOME", str(data / "cache"))
        assert collect.data_folder() == data / "cache" / "synth-pipeline"
        monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # to be ignored, by the specification
        assert collect.data_folder() == Path.home() / ".cache" / "synth-pipeline"


class TestCollectedSource(SourceTests):
    @pytest.fixture
    def source(self, collected, monkeypatch):
        monkeypatch.setenv("SYNTHPIPE_DATA", str(collected))
        return CollectedSource(SMALL, rows=500)

    def test_tells_who_acted(self, source):
        rows = source.load().transitions()
        np.testing.assert_array_equal(np.unique(rows["behaviour"]), np.arange(5))
        assert source.describe()["collected"]

    def test_fingerprint_is_the_digest(self, source):
        assert source.fingerprint() == source.open().digest()


class TestErrors:
    def test_not_collected_says_what_to_type(self):
        source = CollectedSource("hopper/medium-replay")
        assert source.describe()["rows"] == 100_000
        assert not source.describe()["collected"]
        for ask in (source.load, source.fingerprint):
            with pytest.raises(SourceError, match="has not been collected") as error:
                ask()
            assert error.value.fix == "synthpipe collect hopper/medium-replay"

    def test_another_size_says_so(self):
        with pytest.raises(SourceError) as error:
            CollectedSource(SMALL, rows=500).load()
        assert error.value.fix == f"synthpipe collect {SMALL} --rows 500"

    def test_what_is_there_in_another_size_is_named(self):
        there = collection(SMALL, rows=300)
        fill(there)
        with pytest.raises(SourceError, match="has not been collected") as error:
            CollectedSource(SMALL, rows=500).load()
        assert str(there.folder) in error.value.found
        assert CollectedSource(SMALL, rows=300).other_sizes() == []

    def test_half_collected_is_not_read(self):
        fill(collection(SMALL, rows=500), shards=[0, 2])
        source = CollectedSource(SMALL, rows=500)
        assert not source.describe()["collected"]
        with pytest.raises(SourceError, match="not collected to its end") as error:
            source.load()
        assert "3 of 5 shards are missing" in error.value.found
        assert error.value.fix.startswith(f"synthpipe collect {SMALL} --rows 500")

    def test_unknown_id(self):
        with pytest.raises(UnknownNameError, match="did you mean 'pendulum/medium-replay'"):
            CollectedSource("pendulum/mediumreplay")

    def test_no_rows(self):
        with pytest.raises(ConfigError, match="at least one row"):
            collection(SMALL, rows=0)

    def test_the_maze_controller_needs_a_maze(self):
        with pytest.raises(ConfigError, match="mazes only"):
            make_actor(Share(behaviour="waypoint"), envs.make("pendulum"))

    def test_a_snapshot_that_is_not_shipped(self):
        with pytest.raises(UnknownNameError, match="no snapshot at 5 training steps"):
            make_actor(Share(behaviour="sac", environment_steps=5), envs.make("hopper"))


def test_resolves_by_catalog_id():
    assert isinstance(sources.resolve(SMALL), CollectedSource)
