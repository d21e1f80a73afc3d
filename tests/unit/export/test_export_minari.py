"""The Minari exporter: ids, spaces, environment, infos, labels, limits."""

import json

import gymnasium
import minari
import numpy as np
import pytest
from export_suite import ACTION, SPEC, contents, counter_episodes, counter_rows
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from minari.namespace import list_local_namespaces

from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.fields import Field
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.errors import ConfigError, ExportError
from synth_pipeline.export import minari as exporter
from synth_pipeline.export.d4rl_hdf5 import label_episodes
from synth_pipeline.export.minari import next_version, write_minari


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def write(root, dataset_id="counter/mixed-v0", *, spec=SPEC, episodes=None, one_step=None, metadata=None):
    episodes = [counter_episodes([3, 2])] if episodes is None else episodes
    write_minari(dataset_id, spec=spec, episodes=episodes, one_step=one_step, root=root, metadata=metadata or {})
    return minari.load_dataset(dataset_id)


@pytest.mark.parametrize(
    "dataset_id",
    [
        "../hopper-v0", "hopper/../../x-v0", "/hopper/x-v0", "hop per/x-v0", "hopper.v5/x-v0", "hopper/x y-v0",
        "hopper/x", "hopper/x-v", "h/x-v0", "data/x-v0", "hopper/data/x-v0", "", "hopper//x-v0", "hopper/x-v0/",
    ],
)  # fmt: skip
def test_an_id_that_minari_would_not_take_is_refused(root, dataset_id):
    with pytest.raises(ConfigError, match="cannot be used as a Minari dataset id") as caught:
        write(root, dataset_id)
    assert caught.value.accepted
    assert contents(root) == {}


def test_a_dataset_is_no_namespace(root):
    write(root, "counter/mixed-v0")
    with pytest.raises(ConfigError, match="'counter/mixed-v0' is a dataset"):
        write(root, "counter/mixed-v0/more-v0")
    assert list(minari.list_local_datasets()) == ["counter/mixed-v0"]


def test_an_existing_id_names_the_next_free_version(root):
    write(root, "counter/mixed-v0")
    write(root, "counter/mixed-v4")
    write(root, "counter/mixed-more-v9")
    with pytest.raises(ExportError, match="exists already") as caught:
        write(root, "counter/mixed-v0")
    assert caught.value.fix == "use 'counter/mixed-v5'"


def test_next_version(root):
    assert next_version("counter/mixed-v3", root) == "counter/mixed-v3"
    write(root, "counter/mixed-v3")
    assert next_version("counter/mixed-v0", root) == "counter/mixed-v4"
    assert next_version("counter/mixed-v7", root) == "counter/mixed-v7"
    with pytest.raises(ConfigError):
        next_version("../mixed-v0", root)


def test_namespaces_are_declared(root):
    write(root, "farm/counter/mixed-v0")
    assert list_local_namespaces() == ["farm", "farm/counter"]
    assert list(minari.list_local_datasets(prefix="farm")) == ["farm/counter/mixed-v0"]


def test_a_dataset_being_written_is_not_visible(root):
    seen = []

    def parts():
        yield counter_episodes([3])
        seen.append(list(minari.list_local_datasets()))
        yield counter_episodes([2])

    assert len(write(root, episodes=parts())) == 2
    assert seen == [[]]
    assert sorted(path.name for path in (root / "counter").iterdir()) == ["mixed-v0", "namespace_metadata.json"]


def test_metadata(root):
    metadata = {"description": "counts", "author": "us", "recipe": {"generator": "smote", "seed": 3}}
    dataset = write(root, metadata=metadata)
    stored = dataset.storage.metadata
    assert stored["description"] == "counts"
    assert stored["author"] == {"us"}
    assert stored["synth_pipeline"]["recipe"] == {"generator": "smote", "seed": 3}
    assert DatasetSpec.parse(stored["synth_pipeline"]["spec"]) == SPEC
    assert dataset.total_steps == 5
    assert stored["dataset_size"] >= 0
    assert minari.get_normalized_score(dataset, 5.0) == 0.5
    assert dataset.env_spec is None


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, np.float32(1)])
def test_metadata_must_be_plain_json(root, value):
    with pytest.raises(ExportError, match="plain JSON"):
        write(root, metadata={"recipe": value})
    assert contents(root) == {}


def environment_spec(root, **changes):
    action = ACTION.replace(shape=(1,), low=(-2.0,), high=(2.0,))
    spec = DatasetSpec(dataset_id="pendulum", fields=transition_fields(3, action), **changes)
    part = counter_episodes([3])
    part = Episodes(
        part.observations, part.final_observations, part.starts, {**part.columns, "actions": part["actions"][:, :1]}
    )
    return write(root, spec=spec, episodes=[part])


@pytest.mark.parametrize(
    ("environment", "expected"), [("hopper", "Hopper-v5"), ("pendulum", "Pendulum-v1"), ("pointmaze-umaze", None)]
)
def test_environments_of_ours_map_to_gymnasium(root, environment, expected):
    dataset = environment_spec(root, environment=environment)
    assert (dataset.env_spec and dataset.env_spec.id) == expected


def test_the_environment_can_be_recovered(root):
    dataset = environment_spec(root, environment="pendulum")
    environment = dataset.recover_environment()
    assert environment.observation_space.shape == dataset.observation_space.shape
    assert environment.action_space == dataset.action_space


def test_a_recorded_environment_keeps_its_arguments_and_the_registry_its_own(root):
    provenance = {"environment_id": "Pendulum-v1", "environment_kwargs": {"g": 9.0}}
    dataset = environment_spec(root, provenance=provenance)
    assert dataset.env_spec.kwargs == {"g": 9.0}
    assert gymnasium.spec("Pendulum-v1").kwargs == {}


@pytest.mark.parametrize(
    "provenance",
    [{"environment_id": "NoSuchThing-v3"}, {"environment_id": "Pendulum-v1", "observation_slices": {"x": [0, 3]}}],
)
def test_an_environment_that_does_not_fit_is_left_out_and_the_dataset_says_why(root, provenance):
    dataset = environment_spec(root, provenance=provenance)
    assert dataset.env_spec is None
    assert provenance["environment_id"] in dataset.storage.metadata["synth_pipeline"]["env_spec_omitted"]


def test_spaces_hold_the_data(root):
    dataset = write(root)
    episode = dataset[1]
    assert dataset.observation_space == spaces.Box(-np.inf, np.inf, (3,), np.float32)
    assert dataset.action_space == spaces.Box(-1e6, 1e6, (2,), np.float32)
    assert dataset.observation_space.contains(episode.observations[0])
    assert dataset.action_space.contains(episode.actions[0])


@pytest.mark.parametrize(
    ("field", "values", "space"),
    [
        (Field(name="actions", kind="categorical", num_categories=4), np.arange(5) % 4, spaces.Discrete(4)),
        (
            Field(name="actions", shape=(2,), kind="categorical", num_categories=3),
            np.arange(10).reshape(5, 2) % 3,
            spaces.MultiDiscrete([3, 3]),
        ),
        (
            Field(name="actions", shape=(2,), kind="binary"),
            np.arange(10).reshape(5, 2) % 2 == 0,
            spaces.Box(0, 1, (2,), np.int8),
        ),
        (
            Field(name="actions", kind="token"),
            np.arange(5, dtype=np.int32),
            spaces.Box(-(2**31), 2**31 - 1, (), np.int32),
        ),
    ],
)
def test_other_kinds_of_actions(root, field, values, space):
    part = counter_episodes([3, 2])
    part = Episodes(part.observations, part.final_observations, part.starts, {**part.columns, "actions": values})
    dataset = write(root, spec=SPEC.replace(fields=transition_fields(3, field)), episodes=[part])
    assert dataset.action_space == space
    np.testing.assert_array_equal(dataset[1].actions, values[3:])
    assert all(space.contains(np.asarray(action)) for action in dataset[0].actions)


def test_images_stay_exact(root):
    image = Field(name="observations", shape=(32, 32, 3), kind="image")
    spec = SPEC.replace(fields=(image, *SPEC.fields[1:3], SPEC.fields[4]))
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    part = counter_episodes([3])
    dataset = write(root, spec=spec, episodes=[Episodes(frames[:3], frames[3:], part.starts, part.columns)])
    np.testing.assert_array_equal(dataset[0].observations, frames)


def test_float32_data_stands_beside_float64_data_of_a_float64_environment(root):
    """Minari's arrow writer refuses float32 data for Gymnasium's float64 spaces; the space here is the data's own."""
    dataset = environment_spec(root, environment="hopper")
    assert dataset.observation_space.dtype == np.float32
    part = counter_episodes([3])
    wide = Episodes(part.observations.astype("f8"), part.final_observations.astype("f8"), part.starts, part.columns)
    dataset = write(root, "counter/wide-v0", episodes=[wide])
    assert dataset.observation_space.dtype == np.float64
    assert dataset[0].observations.dtype == np.float64


def test_parts_must_agree_in_type(root):
    rows = counter_rows(4)
    rows = rows.with_columns(rewards=rows["rewards"].astype(np.float64))
    with pytest.raises(ExportError, match="'rewards' changes between parts"):
        write(root, one_step=rows)
    with pytest.raises(ExportError, match="final observations differ in type"):
        write(root, one_step=rows.with_columns(next_observations=rows["next_observations"].astype(np.float64)))
    assert contents(root) == {}


def test_a_missing_column_is_named(root):
    part = counter_episodes([3])
    columns = {name: column for name, column in part.columns.items() if name != "rewards"}
    with pytest.raises(ExportError, match="need the column 'rewards'"):
        write(root, episodes=[Episodes(part.observations, part.final_observations, part.starts, columns)])


def test_time_limits_are_filled_in_where_a_source_has_none(root):
    part = counter_episodes([3, 2])
    columns = {name: column for name, column in part.columns.items() if name != "truncations"}
    dataset = write(root, episodes=[Episodes(part.observations, part.final_observations, part.starts, columns)])
    assert dataset[0].terminations.tolist() == [False, False, True]
    assert dataset[0].truncations.tolist() == [False, False, False]
    assert dataset[1].truncations.tolist() == [False, True]


def test_further_columns_become_infos_of_the_step_that_made_them(root):
    part = counter_episodes([3, 2])
    costs, task = np.arange(5, dtype=np.float32), np.arange(5)
    columns = {**part.columns, "costs": costs, "task_id": task}
    dataset = write(root, episodes=[Episodes(part.observations, part.final_observations, part.starts, columns)])
    infos = dataset[1].infos
    assert len(infos["costs"]) == len(dataset[1].observations) == 3
    np.testing.assert_array_equal(infos["costs"], [np.nan, 3.0, 4.0])
    np.testing.assert_array_equal(infos["task_id"], [0, 3, 4])


def test_an_episode_without_infos_can_be_printed(root):
    assert "total_steps=3" in repr(write(root)[0])


def test_one_step_episodes(root):
    spec = SPEC.replace(fields=(*SPEC.fields, Field(name="costs")))
    rows = counter_rows(4).with_columns(
        costs=np.arange(4, dtype=np.float32),
        source_episode=np.arange(4, dtype=np.int32),
        truncations=np.zeros(4, bool),
    )
    dataset = write(root, spec=spec, episodes=[], one_step=rows)
    assert [len(episode) for episode in dataset] == [1, 1, 1, 1]
    for index, episode in enumerate(dataset):
        assert episode.observations[:, 0].tolist() == [10.0 * index, 10.0 * index + 1]
        assert episode.terminations.tolist() == [index % 3 == 0]
        assert episode.truncations.tolist() == [index % 3 != 0]
        assert list(episode.infos) == ["costs"]
        assert episode.infos["costs"][1] == index


def test_episodes_say_where_they_come_from(root):
    part = counter_episodes([3, 2, 2])
    mixed = Episodes(
        part.observations, part.final_observations, part.starts,
        {**part.columns, "synthetic": np.array([False] * 3 + [False, True] + [True] * 2)},
    )  # fmt: skip
    dataset = write(root, episodes=[mixed], one_step=counter_rows(2))
    sources = [values.get("source") for values in dataset.storage.get_episode_metadata(range(5))]
    assert sources == ["real", "mixed", "synthetic", "synthetic", "synthetic"]
    assert dataset[1].infos["synthetic"].tolist() == [False, False, True]
    labelled = write(root, "counter/labelled-v0", episodes=[label_episodes(part, synthetic=False)])
    assert [values["source"] for values in labelled.storage.get_episode_metadata(range(3))] == ["real"] * 3
    assert labelled[0].infos == {}
    unlabelled = write(root, "counter/plain-v0")
    assert [set(values) for values in unlabelled.storage.get_episode_metadata([0])] == [{"id", "total_steps"}]
    assert label_episodes(part, synthetic=True)["synthetic"].all()


def test_too_many_one_step_episodes_are_sent_to_the_flat_file(root, monkeypatch):
    monkeypatch.setattr(exporter, "MAX_ONE_STEP", 5)
    with pytest.raises(ExportError, match="too many single transitions") as caught:
        write(root, one_step=counter_rows(6))
    assert "flat HDF5" in caught.value.fix
    with pytest.raises(ExportError, match="too many single transitions"):
        write(root, one_step=[counter_rows(3), counter_rows(3)])
    assert contents(root) == {}
    assert len(write(root, episodes=[], one_step=[counter_rows(3), counter_rows(2)])) == 5


def test_minari_can_work_with_the_dataset(root):
    """Filter, sample, split, combine and append, all by Minari itself."""
    dataset = write(root, one_step=counter_rows(3))
    assert dataset.filter_episodes(lambda episode: len(episode) == 1).total_steps == 3
    assert len(dataset.sample_episodes(2)) == 2
    assert [len(part) for part in minari.split_dataset(dataset, [2, 3], seed=0)] == [2, 3]
    other = write(root, "counter/other-v0")
    combined = minari.combine_datasets([dataset, other], "counter/combined-v0")
    assert combined.total_steps == 13
    part = counter_episodes([4])
    buffer = EpisodeBuffer(
        observations=np.concatenate([part.observations, part.final_observations]), actions=part["actions"],
        rewards=part["rewards"], terminations=part["terminations"], truncations=part["truncations"], infos={},
    )  # fmt: skip
    dataset.update_dataset_from_buffer([buffer])
    appended = minari.load_dataset("counter/mixed-v0")
    assert appended.total_steps == 12
    np.testing.assert_array_equal(appended[5].observations[:-1], part.observations)


def test_the_metadata_file_is_plain_json(root):
    write(root)
    text = (root / "counter/mixed-v0/data/metadata.json").read_text()
    assert json.loads(text)["minari_version"] == "0.5.4" == minari.__version__
