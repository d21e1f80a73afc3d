"""Minari datasets written by Minari itself into a temporary root, and their metadata bent afterwards."""

import json
import warnings

import gymnasium
import gymnasium_robotics
import h5py
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Text, Tuple
from minari.data_collector import EpisodeBuffer
from minari.serialization import serialize_space

from synth_pipeline.errors import ConfigError, SourceError
from synth_pipeline.sources.minari import MinariSource
from synth_pipeline.sources.minari_environments import origin_of
from synth_pipeline.sources.minari_spaces import column

PLANE = Box(-np.inf, np.inf, (2,), np.float64)
UNIT = Box(-1, 1, (1,), np.float32)


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


def episode(steps=3, **changes):
    values = {
        "observations": np.arange(2.0 * (steps + 1)).reshape(-1, 2),
        "actions": np.zeros((steps, 1), np.float32),
        "rewards": np.ones(steps),
        "terminations": np.zeros(steps, bool),
        "truncations": np.arange(steps) == steps - 1,
        "infos": {},
    }
    return EpisodeBuffer(**{**values, **changes})


def create(*episodes, observation_space=PLANE, action_space=UNIT, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(`.*` is set to None|env_spec is None)", UserWarning)
        minari.create_dataset_from_buffers(
            "test/made-v0", list(episodes), observation_space=observation_space, action_space=action_space, **options
        )
    return MinariSource.from_id("test/made-v0")


def bend(source, **changes):
    """Change metadata behind the dataset's back; None removes a key."""
    path = source.folder / "data" / "metadata.json"
    metadata = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in metadata.items() if value is not None}))
    return MinariSource(source.folder)


def test_metadata_become_the_spec():
    source = create(episode(), author="A. Author", algorithm_name="SAC", description="three steps")
    spec = bend(source, ref_min_score=-1.5, ref_max_score=20.0, license="CC-BY-4.0").load().spec
    assert (spec.dataset_id, spec.reference_min, spec.reference_max) == ("test/made-v0", -1.5, 20.0)
    assert spec.licence == "CC-BY-4.0"
    assert spec.provenance["author"] == ["A. Author"]
    assert spec.provenance["algorithm_name"] == "SAC"
    assert (spec.environment, spec.horizon) == (None, None)


def test_discrete_spaces_become_classes():
    states, choices = Discrete(5, start=10), Discrete(3, start=-1)
    made = episode(observations=np.array([10, 12, 14, 11]), actions=np.array([-1, 0, 1]))
    dataset = create(made, observation_space=states, action_space=choices).load()
    assert dataset.spec.field("next_observations").num_categories == 5
    assert dataset.spec.field("actions").num_categories == 3
    rows = dataset.transitions()
    np.testing.assert_array_equal(rows["observations"], [0, 2, 4])
    np.testing.assert_array_equal(rows["next_observations"], [2, 4, 1])
    np.testing.assert_array_equal(rows["actions"], [0, 1, 2])


@pytest.mark.parametrize("data_format", ["hdf5", "arrow", "parquet"])
def test_discrete_spaces_in_every_format(data_format):
    made = episode(observations=np.array([1, 2, 0, 1]), actions=np.array([0, 2, 1]))
    options = {"observation_space": Discrete(3), "action_space": Discrete(3), "data_format": data_format}
    rows = create(made, **options).load().transitions()
    np.testing.assert_array_equal(rows["next_observations"], [2, 0, 1])
    np.testing.assert_array_equal(rows["actions"], [0, 2, 1])


def test_a_class_outside_its_space_is_refused():
    source = create(episode(actions=np.array([0, 1, 2])), action_space=Discrete(3))
    smaller = bend(source, action_space=serialize_space(Discrete(2)))
    with pytest.raises(SourceError, match=r"'actions' does not hold classes(?s:.*)2 in row 2"):
        smaller.load()


def test_scalar_and_matrix_boxes_are_flattened():
    made = episode(observations=np.arange(24.0).reshape(4, 2, 3), actions=np.zeros(3, np.float32))
    matrix, scalar = Box(-np.inf, np.inf, (2, 3), np.float64), Box(-1, 1, (), np.float32)
    dataset = create(made, observation_space=matrix, action_space=scalar).load()
    assert (dataset.spec.observation_size, dataset.spec.action_size) == (6, 1)
    np.testing.assert_array_equal(dataset.episodes.observations[1], np.arange(6, 12))


SPACES = {
    "image": (Box(0, 255, (40, 40, 3), np.uint8), "image"),
    "image in a Dict": (Dict({"camera": Box(0, 255, (40, 40, 3), np.uint8)}), r"observations\['camera'\]"),
    "nested Dict": (Dict({"arm": Dict({"angle": UNIT})}), "Dict inside a Dict"),
    "Discrete in a Dict": (Dict({"mode": Discrete(2), "place": PLANE}), "Discrete inside a Dict"),
    "Text": (Text(5), "Text"),
    "Tuple": (Tuple((UNIT,)), "Tuple"),
    "MultiDiscrete": (MultiDiscrete([2, 3]), "MultiDiscrete"),
    "nothing": (Box(0, 1, (0,), np.float32), "without components"),
}


@pytest.mark.parametrize("case", SPACES)
def test_other_spaces_are_refused_with_what_is_accepted(case):
    space, found = SPACES[case]
    with pytest.raises(SourceError, match=found) as caught:
        column(json.loads(serialize_space(space)), "observations", "the dataset")
    assert "Box, Discrete, or a flat Dict of Box" in str(caught.value)


def test_actions_in_a_dict_are_refused():
    source = bend(create(episode()), action_space=serialize_space(Dict({"x": UNIT})))
    with pytest.raises(SourceError, match="the space of actions"):
        source.describe()


def test_actions_outside_their_space_widen_the_bounds():
    spec = create(episode(actions=np.array([[0.5], [-1.25], [1.0]], np.float32))).load().spec
    assert (spec.field("actions").low, spec.field("actions").high) == ((-1.25,), (1.0,))
    assert spec.provenance["action_bounds"] == "declared, widened to the data"


def with_empty_episode(source, episodes):
    """Add an episode that was reset and never stepped."""
    with h5py.File(source.folder / "data" / "main_data.hdf5", "a") as file:
        group = file.create_group(f"episode_{episodes}")
        group["observations"], group["actions"] = np.zeros((1, 2)), np.zeros((0, 1))
        for name in ("rewards", "terminations", "truncations"):
            group[name] = np.zeros(0)
    return bend(source, total_episodes=episodes + 1)


def test_unfinished_and_empty_episodes_are_counted():
    unfinished = episode(truncations=np.zeros(3, bool))
    dataset = with_empty_episode(create(unfinished, episode()), 2).load()
    assert len(dataset.episodes) == 2
    assert dataset.spec.provenance["unfinished_episodes"] == 1
    assert dataset.spec.provenance["empty_episodes_left_out"] == 1
    assert dataset.episodes["truncations"].sum() == 2


def test_only_empty_episodes_are_an_error():
    source = create()
    with pytest.raises(SourceError, match=r"is empty(?s:.*)0 episodes"):
        source.load()
    with pytest.raises(SourceError, match="without a single step"):
        with_empty_episode(source, 0).load()


def test_flags_inside_an_episode_are_refused():
    source = create(episode(), episode(4, terminations=np.array([False, True, False, False])))
    with pytest.raises(SourceError, match=r"episode 1 goes on after it ended(?s:.*)step 1"):
        source.load()


def test_columns_that_do_not_fit_are_refused():
    source = create(episode(), episode(actions=np.zeros((2, 1), np.float32)))
    with pytest.raises(SourceError, match=r"columns of episode 1 do not fit(?s:.*)actions for 2 steps"):
        source.load()


def test_values_beyond_float32_are_refused():
    with pytest.raises(SourceError, match="'rewards' holds NaN or inf"):
        create(episode(rewards=np.array([1.0, 1e300, 1.0]))).load()


def test_more_steps_than_the_metadata_state_are_read():
    source = bend(create(episode(), episode(5)), total_steps=2)
    assert len(source.load()) == 8


def test_other_episodes_than_the_metadata_state_are_an_error():
    source = create(episode(), episode())
    with pytest.raises(SourceError, match=r"2 episodes(?s:.*)3, as metadata.json says"):
        bend(source, total_episodes=3).load()


def test_missing_parts_are_named():
    source = create(episode(), episode(), data_format="hdf5")
    with h5py.File(source.folder / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1/rewards"]
    with pytest.raises(SourceError, match="episode 1 has no column 'rewards'"):
        source.load()


def test_a_missing_key_of_a_dict_is_named():
    space = Dict({"place": PLANE})
    source = create(episode(observations={"place": np.zeros((4, 2))}), observation_space=space)
    with h5py.File(source.folder / "data" / "main_data.hdf5", "a") as file:
        file.move("episode_0/observations/place", "episode_0/observations/places")
    with pytest.raises(SourceError, match="did you mean 'place' by 'places'"):
        source.load()


@pytest.mark.parametrize("data_format", ["hdf5", "arrow", "parquet"])
def test_truncated_files_are_errors_of_our_form(data_format):
    source = create(episode(), data_format=data_format)
    file = max(source.folder.rglob("*.*"), key=lambda f: f.stat().st_size if f.suffix != ".json" else 0)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(SourceError, match="cannot be read"):
        source.load()


def test_a_missing_arrow_file_is_named():
    source = create(episode(), episode(), data_format="arrow")
    (file,) = (source.folder / "data" / "1").glob("*.arrow")
    file.unlink()
    with pytest.raises(SourceError, match="episode 1 is missing"):
        source.load()


@pytest.mark.parametrize("changes", [{"minari_version": "0.3.1"}, {"minari_version": "1.0.0"}, {"data_format": "zip"}])
def test_datasets_of_another_minari_are_refused(changes):
    with pytest.raises(SourceError, match="another Minari"):
        bend(create(episode()), **changes).describe()


def test_spaces_that_an_old_dataset_leaves_to_its_environment():
    spec = gymnasium.spec("Pendulum-v1").to_json()
    made = episode(observations=np.zeros((4, 3), np.float32))
    source = create(made, observation_space=Box(-8, 8, (3,), np.float32), action_space=Box(-2, 2, (1,), np.float32))
    old = bend(source, observation_space=None, action_space=None, env_spec=spec, minari_version="0.4.3")
    dataset = old.load()
    assert dataset.spec.environment == "pendulum"
    assert dataset.spec.field("actions").low == (-2.0,)
    broken = bend(old, env_spec=spec.replace("Pendulum-v1", "Nowhere-v1").replace("pendulum:", "nowhere:"))
    with pytest.raises(SourceError, match=r"states no action_space|states no observation_space"):
        broken.load()


def maze_spec(name="PointMaze_UMaze-v3", **kwargs):
    gymnasium.register_envs(gymnasium_robotics)
    spec = gymnasium.spec(name)
    return json.dumps({**json.loads(spec.to_json()), "kwargs": {**spec.kwargs, **kwargs}})


def test_mazes_show_what_our_environment_shows():
    space = Dict({key: Box(-np.inf, np.inf, (n,), np.float64) for key, n in
                  (("achieved_goal", 2), ("desired_goal", 2), ("observation", 4))})  # fmt: skip
    state = np.arange(16.0).reshape(4, 4)
    goal = np.full((4, 2), -7.0)
    made = episode(observations={"achieved_goal": state[:, :2], "desired_goal": goal, "observation": state})
    source = create(made, observation_space=space)
    ours = bend(source, env_spec=maze_spec(continuing_task=False)).load()
    assert (ours.spec.environment, ours.spec.horizon) == ("pointmaze-umaze", 300)
    np.testing.assert_array_equal(ours.episodes.observations[1], [4, 5, 6, 7, -7, -7])
    assert ours.spec.provenance["observation_slices"] == {"observation": [0, 4], "desired_goal": [4, 6]}
    continuing = bend(source, env_spec=maze_spec(continuing_task=True)).load()
    assert continuing.spec.environment is None
    assert continuing.spec.observation_size == 8
    assert continuing.spec.provenance["environment_differs"] == ["continuing_task=True"]


SAME = {
    "Hopper-v5": "hopper",
    "HalfCheetah-v5": "halfcheetah",
    "Walker2d-v5": "walker2d",
    "Pendulum-v1": "pendulum",
    "Hopper-v4": None,
    "Ant-v5": None,
}


@pytest.mark.parametrize("name", SAME)
def test_only_the_very_same_environment_counts(name):
    spec = gymnasium.spec(name)
    origin = origin_of({"env_spec": spec.to_json()}, "the dataset")
    assert origin.environment == SAME[name]
    assert origin.horizon == spec.max_episode_steps
    assert origin.provenance["environment_id"] == name


@pytest.mark.parametrize("level", ["UMaze", "Medium", "Large"])
def test_mazes_are_recognised_by_their_map(level):
    name = f"PointMaze_{level}-v3"
    same = origin_of({"env_spec": maze_spec(name, continuing_task=False)}, "x")
    assert same.environment == f"pointmaze-{level.lower()}"
    changed = origin_of({"env_spec": maze_spec(name, continuing_task=False, maze_map=[[1, 0], [0, 1]])}, "x")
    assert changed.environment is None
    dense = origin_of({"env_spec": maze_spec(f"PointMaze_{level}Dense-v3", continuing_task=False)}, "x")
    assert dense.environment is None


def test_keywords_that_change_the_task_change_the_environment():
    values = json.loads(gymnasium.spec("Hopper-v5").to_json())
    drawn = json.dumps({**values, "kwargs": {"render_mode": "rgb_array", "width": 64}})
    assert origin_of({"env_spec": drawn}, "x").environment == "hopper"
    healthy = json.dumps({**values, "kwargs": {"terminate_when_unhealthy": False}})
    origin = origin_of({"env_spec": healthy}, "x")
    assert origin.environment is None
    assert origin.provenance["environment_differs"] == ["terminate_when_unhealthy=False"]
    wrapped = json.dumps({**values, "additional_wrappers": [{"name": "RescaleAction"}]})
    assert origin_of({"env_spec": wrapped}, "x").provenance["environment_differs"] == ["wrapper RescaleAction"]


@pytest.mark.parametrize("text", ["{", "{}", "[]", '"Hopper-v5"'])
def test_a_damaged_environment_spec_is_an_error(text):
    with pytest.raises(SourceError, match="environment spec in its metadata is damaged"):
        origin_of({"env_spec": text}, "the dataset")


def test_an_export_of_ours_brings_its_spec():
    source = create(episode())
    plain = source.load().spec
    carried = plain.replace(environment="pointmaze-umaze", horizon=300, licence="MIT", provenance={"recipe": "a walk"})
    spec = bend(source, synth_pipeline={"spec": carried.plain(), "digest": "abc"}).load().spec
    assert (spec.environment, spec.horizon, spec.licence) == ("pointmaze-umaze", 300, "MIT")
    assert spec.provenance["recipe"] == "a walk"
    assert spec.provenance["synth_pipeline"] == {"digest": "abc"}
    with pytest.raises(ConfigError, match="horison"):
        bend(source, synth_pipeline={"spec": {"dataset_id": "x", "fields": [], "horison": 3}}).load()


def test_appended_episodes_are_read():
    source = create(episode())
    minari.load_dataset("test/made-v0").update_dataset_from_buffer([episode(5)])
    assert MinariSource(source.folder).load().episodes.lengths.tolist() == [3, 5]
