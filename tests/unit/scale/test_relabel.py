"""Relabelling: what each kind of label rewrites and refuses, shard by shard, and what the new store says of itself."""

import numpy as np
import pytest
import toy_data
from worlds import roll

from synth_pipeline import envs, store
from synth_pipeline.config import content_hash
from synth_pipeline.data.containers import Transitions
from synth_pipeline.errors import ConfigError, EnvironmentModelError, StoreError
from synth_pipeline.run_config import LABELS
from synth_pipeline.scale.labels import FunctionLabels, GoalLabels, SimulatorLabels
from synth_pipeline.scale.relabel import RelabelShard, relabelled_config, relabelled_schema
from synth_pipeline.store import Plan, Schema
from synth_pipeline.validation.oracle import judge_sample
from synth_pipeline.validation.truth import known_truth

SHARD_ROWS = 64
NEAR_CLIP = 9.95


def spoilt(data):
    """Rows of a dataset whose next observations, rewards and flags are another row's."""
    rows = data.transitions()
    other = np.roll(np.arange(len(rows)), 7)
    names = ("next_observations", "rewards", "terminations")
    return rows.with_columns(**{name: rows[name][other] for name in names})


def stored(folder, spec, rows, config=None):
    """A store of these rows."""
    plan = Plan(num_rows=len(rows), rows_per_shard=SHARD_ROWS, rows_per_chunk=SHARD_ROWS)
    columns = {field.name: rows[field.name] for field in spec.fields}
    target = store.create(folder, Schema(kind="transitions", spec=spec), plan, config or {"generator": {"kind": "x"}})
    with target.writing() as writing:
        for task in writing.missing():
            first = task.shard * SHARD_ROWS
            part = Transitions(columns).take(slice(first, first + task.rows))
            store.write_shard(target.url, task, part, sidecar={"seconds": 5.0})
        writing.finalise()
    return target


def relabelled(source, labels, folder, *, drop=False):
    """Another store with other labels, in this process."""
    schema, config = relabelled_schema(source, labels), relabelled_config(source, labels)
    target = store.create(folder, schema, source.plan, config)
    function = RelabelShard(source.url, source.digest(), target.url, labels, drop)
    with target.writing() as writing:
        for task in writing.missing():
            function(task)
        writing.finalise()
    return target


def function_file(folder, text, name="given.py"):
    (folder / name).write_text(f"import numpy as np\n\n{text}\n")
    return f"{folder / name}:labels"


@pytest.fixture
def toys(tmp_path):
    """A store of three shards, of a dataset without a known environment."""
    data = toy_data.toy_dataset([30] * 5)
    return stored(tmp_path / "toys", data.spec, data.transitions())


def labels_of(source, folder, text):
    return FunctionLabels.of(source.schema, function_file(folder, text), source.read(0, 20))


def same_but(target, source, *columns):
    ours, theirs = target.read_all(), source.read_all()
    assert ours.columns.keys() == theirs.columns.keys()
    for name in ours.columns.keys() - set(columns):
        assert ours[name].tobytes() == theirs[name].tobytes(), name


# --- the simulator ---------------------------------------------------------------------------------------------------


@pytest.fixture
def hopper(tmp_path):
    """A store of hopper rows that are wrong, one of them at the clip; and the data that they come from."""
    data = roll("hopper", episodes=8, steps=25)
    rows = spoilt(data)
    observations = rows["observations"].copy()
    observations[3, -1] = NEAR_CLIP
    return data, stored(tmp_path / "hopper", data.spec, rows.with_columns(observations=observations))


def test_labels_of_the_simulator_leave_no_error_and_nothing_else_changes(hopper, tmp_path):
    data, source = hopper
    truth, labels = known_truth(data.spec), SimulatorLabels.of(source.schema)
    before, _ = judge_sample(data, source.read_all(), truth)
    assert before.median > 0.1
    target = relabelled(source, labels, tmp_path / "true", drop=True)
    target.verify()
    rows = target.read_all()
    known = truth.oracle(source.read_all()["observations"], source.read_all()["actions"]).judged
    assert not known[3]
    assert len(rows) == known.sum() < len(source)
    assert rows["actions"].tobytes() == source.read_all()["actions"][known].tobytes()
    assert rows["observations"].tobytes() == source.read_all()["observations"][known].tobytes()
    after, _ = judge_sample(data, rows, truth)
    assert after.judged.all()
    assert after.errors.max() < 1e-10
    assert np.abs(after.reward_errors).max() < 1e-5
    assert np.array_equal(rows["terminations"], truth.terminated(rows["next_observations"]))
    assert rows["terminations"].any()
    assert set(target.schema.derived) == {"next_observations", "rewards", "terminations"}


def test_rows_whose_state_is_hidden_are_refused_unless_they_are_to_be_dropped(hopper, tmp_path):
    _, source = hopper
    with pytest.raises(ConfigError, match="cannot be labelled") as caught:
        relabelled(source, SimulatorLabels.of(source.schema), tmp_path / "true")
    assert caught.value.found.endswith(f"of the {SHARD_ROWS} rows of shard 0")
    assert "--drop-unknown" in caught.value.fix
    # Whether to drop is no part of what the rows are: the same store goes on.
    target = relabelled(source, SimulatorLabels.of(source.schema), tmp_path / "true", drop=True)
    assert target.digest() == relabelled(source, SimulatorLabels.of(source.schema), tmp_path / "b", drop=True).digest()


def test_a_shard_without_any_known_row_is_an_error(tmp_path):
    data = roll("hopper", episodes=1, steps=10)
    rows = data.transitions()
    hidden = rows.with_columns(observations=np.full_like(rows["observations"], NEAR_CLIP))
    source = stored(tmp_path / "hidden", data.spec, hidden)
    with pytest.raises(ConfigError, match="cannot be labelled") as caught:
        relabelled(source, SimulatorLabels.of(source.schema), tmp_path / "true", drop=True)
    assert caught.value.fix is None


@pytest.mark.parametrize("name", [None, "toy-linear-gaussian"])
def test_no_simulator_is_an_error_that_names_what_else_there_is(name):
    spec = toy_data.SPEC if name is None else roll(name, episodes=1, steps=3).spec
    with pytest.raises(ConfigError, match="no simulator") as caught:
        SimulatorLabels.of(Schema(kind="transitions", spec=spec))
    assert "--with FILE.py:FUNCTION" in caught.value.fix


# --- goals -----------------------------------------------------------------------------------------------------------


def test_another_goal_stands_in_both_observations_and_decides_reward_and_end(tmp_path):
    data = roll("pointmaze-umaze", episodes=4, steps=30)
    source = stored(tmp_path / "maze", data.spec, data.transitions())
    place = [float(number) for number in source.read_all()["next_observations"][5, :2].round(3)]
    labels = GoalLabels.of(source.schema, ",".join(map(str, place)))
    rows = relabelled(source, labels, tmp_path / "goal").read_all()
    reached = np.linalg.norm(rows["next_observations"][:, :2].astype(np.float64) - place, axis=1) <= 0.45
    assert 0 < reached.sum() < len(rows)
    assert np.array_equal(rows["rewards"], reached.astype(np.float32))
    assert np.array_equal(rows["terminations"], reached)
    for name in ("observations", "next_observations"):
        assert (rows[name][:, 4:] == np.float32(place)).all()
        assert rows[name][:, :4].tobytes() == source.read_all()[name][:, :4].tobytes()
    assert rows["actions"].tobytes() == source.read_all()["actions"].tobytes()


@pytest.mark.parametrize("goal", ["0,0", "99,1", "nan,0", "1", "1,2,3"])
def test_a_goal_in_a_wall_or_of_another_form_is_refused_with_one_that_is_accepted(goal):
    schema = Schema(kind="transitions", spec=roll("pointmaze-umaze", episodes=1, steps=3).spec)
    with pytest.raises(EnvironmentModelError, match="no such goal") as caught:
        GoalLabels.of(schema, goal)
    accepted = caught.value.accepted.removeprefix("x,y in a free cell, such as ").split(", ")
    assert [GoalLabels.of(schema, text).options for text in accepted] == [("--goal", text) for text in accepted]


def test_a_goal_for_data_without_goals_is_refused():
    spec = roll("hopper", episodes=1, steps=3).spec
    with pytest.raises(ConfigError, match="no goal") as caught:
        GoalLabels.of(Schema(kind="transitions", spec=spec), "1,2")
    assert (caught.value.found, "pointmaze" in caught.value.accepted) == ("environment hopper", True)
    with pytest.raises(ConfigError, match="numbers with commas"):
        GoalLabels.of(
            Schema(kind="transitions", spec=roll("pointmaze-umaze", episodes=1, steps=3).spec), "there,please"
        )
    assert not hasattr(envs.make("hopper"), "with_goal")


# --- functions -------------------------------------------------------------------------------------------------------


def test_a_function_rewrites_its_columns_and_no_other(toys, tmp_path):
    labels = labels_of(toys, tmp_path, "def labels(columns):\n    return -columns['observations'][:, 0].astype(float)")
    target = relabelled(toys, labels, tmp_path / "new")
    target.verify()
    same_but(target, toys, "rewards")
    assert np.array_equal(target.read_all()["rewards"], -toys.read_all()["observations"][:, 0])
    assert [(commit.shard, commit.rows) for commit in target.commits.values()] == [(0, 64), (1, 64), (2, 22)]
    assert target.sidecars()[0]["seconds"] >= 5.0  # what the rows have cost before is not forgotten


def test_a_dict_rewrites_several_columns(toys, tmp_path):
    text = "def labels(c):\n    return {'rewards': c['rewards'] * 0 + 2, 'terminations': c['rewards'] > 0}"
    target = relabelled(toys, labels_of(toys, tmp_path, text), tmp_path / "new")
    same_but(target, toys, "rewards", "terminations")
    assert (target.read_all()["rewards"] == 2).all()
    assert np.array_equal(target.read_all()["terminations"], toys.read_all()["rewards"] > 0)
    assert target.schema.derived == ("rewards", "terminations")


def test_lineage_is_part_of_the_identity_and_a_changed_function_is_another_version(toys, tmp_path):
    one = labels_of(toys, tmp_path, "def labels(columns):\n    return columns['rewards'] + 1")
    first = relabelled(toys, one, tmp_path / "one")
    two = labels_of(toys, tmp_path, "def labels(columns):\n    return 1 + columns['rewards']")
    second = relabelled(toys, two, tmp_path / "two")
    assert first.read_all()["rewards"].tobytes() == second.read_all()["rewards"].tobytes()
    assert first.digest() != second.digest()
    steps = first.config[LABELS]
    assert [(step["by"], step["function"], step["parent"]) for step in steps] == [("function", "labels", toys.digest())]
    assert first.config["generator"] == toys.config["generator"]
    third = relabelled(first, two, tmp_path / "three")
    assert [step["parent"] for step in third.config[LABELS]] == [toys.digest(), first.digest()]
    assert content_hash(third.config[LABELS][0]) == content_hash(steps[0])


WRONG = {
    "raises": ("def labels(c):\n    return 1 / 0", "ZeroDivisionError: division by zero at line 4", None),
    "unknown column read": ("def labels(c):\n    return c['reward']", "KeyError: 'reward' at line 4", None),
    "writes into the rows": ("def labels(c):\n    c['rewards'] += 1\n    return c", "read-only at line 4", None),
    "scalar": ("def labels(c):\n    return 1.0", "'rewards' of shape (), float64", "shape (20,), float32"),
    "too few": ("def labels(c):\n    return c['rewards'][1:]", "shape (19,)", "shape (20,)"),
    "text": ("def labels(c):\n    return np.full(len(c['rewards']), 'a')", "<U1", "float32"),
    "flag as number": ("def labels(c):\n    return {'terminations': c['rewards']}", "(20,), float32", "bool"),
    "nan": ("def labels(c):\n    return c['rewards'] * np.nan", "20 NaN or inf", "finite"),
    "too large": ("def labels(c):\n    return np.full(20, 1e300)", "20 NaN or inf", "finite"),
    "unknown column": ("def labels(c):\n    return {'reward': c['rewards']}", "columns reward", "rewards"),
    "nothing": ("def labels(c):\n    return {}", "no column", "rewards"),
    "random": ("def labels(c):\n    return np.random.default_rng().random(20)", "other values", "rows alone"),
    "no such function": ("def label(c):\n    return c['rewards']", "no such function", "label"),
    "no Python": ("def labels(c)\n    return", "SyntaxError", None),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_function_is_named_with_what_it_gave(toys, tmp_path, case):
    text, found, accepted = WRONG[case]
    with pytest.raises(ConfigError, match="cannot label these rows") as caught:
        labels_of(toys, tmp_path, text)
    assert found in str(caught.value.found)
    assert accepted is None or accepted in caught.value.accepted
    assert caught.value.fix


def test_what_is_no_function_of_a_file_is_refused(toys, tmp_path):
    for text in ("simulater", "file.py", "file.py:", ":labels", "file.py:a-b"):
        with pytest.raises(ConfigError, match="labels come from elsewhere") as caught:
            FunctionLabels.of(toys.schema, text, toys.read(0, 5))
        assert "FILE.py:FUNCTION" in caught.value.accepted
    with pytest.raises(ConfigError, match="no file"):
        FunctionLabels.of(toys.schema, f"{tmp_path / 'absent.py'}:labels", toys.read(0, 5))


def test_a_function_that_fails_later_fails_its_shard_and_what_was_written_stays(toys, tmp_path):
    text = "def labels(c):\n    return c['rewards'] if len(c['rewards']) != 22 else {'terminations': c['terminations']}"
    labels = labels_of(toys, tmp_path, text)
    with pytest.raises(ConfigError, match="cannot label these rows") as caught:
        relabelled(toys, labels, tmp_path / "new")
    assert (caught.value.found, caught.value.accepted) == ("gives columns terminations", "rewards, as before")
    assert list(store.open(tmp_path / "new").commits) == [0, 1]


def test_a_source_that_has_changed_is_not_mixed_in(toys, tmp_path):
    labels = labels_of(toys, tmp_path, "def labels(columns):\n    return columns['rewards'] + 1")
    target = store.create(tmp_path / "new", relabelled_schema(toys, labels), toys.plan, relabelled_config(toys, labels))
    with pytest.raises(StoreError, match="has changed"):
        RelabelShard(toys.url, "0" * 64, target.url, labels)(toys.plan.task(0))
    assert not target.commits
