"""npz files, dicts and D4RL-style HDF5: what newcomers get wrong, and what the files may leave out."""

import h5py
import numpy as np
import pytest

from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.errors import ConfigError, SourceError
from synth_pipeline.sources import checks
from synth_pipeline.sources.d4rl_hdf5 import KIND_ATTRIBUTE, SPEC_ATTRIBUTE, D4RLSource
from synth_pipeline.sources.npz import NpzSource


def columns(rows=6, **changes):
    """Two episodes of three steps; the first is terminated, the second truncated."""
    base = {
        "observations": np.arange(rows * 2, dtype=np.float32).reshape(rows, 2),
        "actions": np.linspace(-1, 1, rows, dtype=np.float32)[:, None],
        "rewards": np.ones(rows, np.float32),
        "terminations": np.arange(rows) == 2,
        "truncations": np.arange(rows) == rows - 1,
    }
    return {name: column for name, column in {**base, **changes}.items() if column is not None}


def npz(path, **changes):
    np.savez(path / "data.npz", **columns(**changes))
    return NpzSource(path / "data.npz")


def hdf5(path, attributes=None, **changes):
    with h5py.File(path / "data.hdf5", "w") as file:
        for name, column in columns(**changes).items():
            file[name] = column
        file.attrs.update(attributes or {})
    return D4RLSource(path / "data.hdf5")


@pytest.fixture(params=[npz, hdf5])
def write(request, tmp_path):
    return lambda *args, **changes: request.param(tmp_path, *args, **changes)


def test_what_never_varies_and_what_varies_enough_is_kept(write):
    wide = np.stack([np.full(6, 1e12), 1e3 + np.arange(6.0)], axis=1)
    kept = write(observations=wide).load().transitions()["observations"]
    assert len(np.unique(kept[:, 1])) == len(kept)


WRONG = {
    "rows differ": ({"actions": np.zeros((5, 1))}, "'actions' has another number of rows", "5 against 6"),
    "actions are flat": ({"actions": np.zeros(6)}, "'actions' has the wrong shape", "(rows, components)"),
    "observations are images": ({"observations": np.zeros((6, 8, 8), np.uint8)}, "wrong shape", "(6, 8, 8)"),
    "observations have no components": ({"observations": np.zeros((6, 0))}, "wrong shape", "(6, 0)"),
    "rewards are wide": ({"rewards": np.zeros((6, 2))}, "'rewards' has the wrong shape", "(rows,)"),
    "values that float32 makes one": (
        {"observations": 1e12 + np.arange(12.0).reshape(6, 2)},
        "float32, in which rows are kept, cannot hold how 'observations' varies",
        "component 0 between 1e+12",
    ),
    "identities instead of classes": (
        {"actions": np.array([0, 5, 10**9, 3, 1, 2])},
        "'actions' does not hold classes",
        "1000000000 in row 2",
    ),
    "flags are counts": ({"terminations": np.arange(6)}, "'terminations' does not hold flags", "2 in row 2"),
    "flags are probabilities": ({"truncations": np.full(6, 0.5)}, "'truncations' does not hold flags", "row 0"),
    "next observations are narrower": ({"next_observations": np.zeros((6, 1))}, "wrong shape", "(6, 2)"),
    "next observations are shorter": ({"next_observations": np.zeros((5, 2))}, "number of rows", "5 against 6"),
    "rewards are one number": ({"rewards": np.float64(1)}, "'rewards' is a single value", "one entry a row"),
    "observations are one number": ({"observations": np.float64(1)}, "'observations' is a single value", "a row"),
    "no rows": ({n: c[:0] for n, c in columns().items()}, "holds no rows", "at least one step"),
    "complex numbers": ({"rewards": np.zeros(6, complex)}, "'rewards' is not numeric", "complex128"),
    "texts": ({"rewards": np.array([b"a"] * 6)}, "'rewards' is not numeric", "S1"),
    "rewards are missing": ({"rewards": None}, "no column 'rewards'", "add the column 'rewards'"),
    "actions are misspelt": ({"actions": None, "action": np.zeros((6, 1))}, "no column 'actions'", "by 'action'"),
    "an optional column is misspelt": ({"next_observation": np.zeros((6, 2))}, "not known", "'next_observations'"),
    "two names of one column": ({"timeouts": np.zeros(6, bool)}, "two names of one column", "keep one"),
    "no time limits": ({"truncations": None}, "marks the time limits", "pass horizon="),
    "too large for float32": ({"rewards": np.full(6, 1e300)}, "'rewards' holds NaN or inf", "6 of 6 rows"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_is_explained(write, case):
    changes, what, detail = WRONG[case]
    with pytest.raises(SourceError) as caught:
        write(**changes).load()
    assert what in str(caught.value)
    assert detail in str(caught.value)


MEANT = {
    "obs": ("observations", "did you mean 'observations' by 'obs'? rename it"),
    "State": ("observations", "did you mean 'observations' by 'State'? rename it"),
    "truncation": ("observations", "add the column 'observations'"),
    "next_obs": ("observations", "add the column 'observations'"),
    "act": ("actions", "did you mean 'actions' by 'act'? rename it"),
    "actionz": ("actions", "did you mean 'actions' by 'actionz'? rename it"),
    "dones": (
        "terminations",
        "did you mean 'terminations' by 'dones'? rename it, and mark time limits in 'truncations' instead",
    ),
}


@pytest.mark.parametrize("key", MEANT)
def test_a_hint_is_no_column_that_means_another(write, key):
    """Found are the names of the file: `timeouts`, which is read as truncations, is one of them."""
    name, fix = MEANT[key]
    with pytest.raises(SourceError, match=f"has no column '{name}'") as caught:
        write(**{name: None, key: columns()[name], "truncations": None, "timeouts": np.zeros(6, bool)}).load()
    names = {"observations", "actions", "rewards", "terminations", "timeouts", key} - {name}
    assert caught.value.found == ", ".join(sorted(names))
    assert caught.value.fix == fix


@pytest.mark.parametrize("key", ["next_obs", "next_states"])
def test_next_observations_under_another_name_are_not_left_out_in_silence(write, key):
    with pytest.raises(SourceError, match=f"the column '{key}' is not known") as caught:
        write(**{key: columns()["observations"]}).load()
    assert caught.value.fix == "did you mean 'next_observations'? rename it"


def test_another_name_of_a_column_that_is_there_is_left_out(write):
    assert "dones" not in write(dones=np.zeros(6, bool), states=np.zeros((6, 4))).load().episodes


@pytest.mark.parametrize("case", ["rows differ", "observations are one number", "rewards are missing"])
def test_a_description_needs_the_right_form_too(write, case):
    changes, what, _ = WRONG[case]
    with pytest.raises(SourceError, match=what):
        write(**changes).describe()


def test_the_first_bad_row_and_the_number_of_them_are_named(monkeypatch, write):
    monkeypatch.setattr(checks, "_BLOCK_VALUES", 4)
    observations = columns()["observations"].copy()
    observations[[3, 5], 1] = np.nan, np.inf
    with pytest.raises(SourceError, match=r"2 of 6 rows, first in row 3"):
        write(observations=observations).load()


def test_flags_may_be_numbers(write):
    dataset = write(terminations=(np.arange(6) == 2).astype(np.float32)).load()
    np.testing.assert_array_equal(np.flatnonzero(dataset.episodes["terminations"]), [2])


def test_columns_of_one_component_may_be_two_dimensional(write):
    assert write(rewards=np.ones((6, 1))).load().episodes["rewards"].shape == (5,)


def test_costs_are_kept_and_other_columns_left_out(write):
    dataset = write(costs=np.arange(6.0), log_probs=np.zeros(6)).load()
    np.testing.assert_array_equal(dataset.episodes["costs"], [0, 1, 2, 3, 4])
    assert dataset.spec.has("costs")
    assert "log_probs" not in dataset.episodes


def test_one_episode_is_enough(write):
    dataset = write(terminations=np.zeros(6, bool)).load()
    assert len(dataset.episodes) == 1
    assert len(dataset) == 5


def test_integers_are_discrete_actions(write):
    field = write(actions=np.array([0, 1, 2, 0, 1, 2])).load().spec.field("actions")
    assert (field.kind, field.num_categories, field.shape) == ("categorical", 3, ())
    with pytest.raises(SourceError, match="does not hold classes"):
        write(actions=np.array([0, 1, -2, 0, 1, 2])).load()


def test_integers_are_discrete_observations(write):
    states = np.array([0, 1, 2, 3, 4, 5])
    dataset = write(observations=states, next_observations=states + 1).load()
    assert dataset.spec.field("next_observations").num_categories == 7
    assert dataset.spec.observation_size == 1
    np.testing.assert_array_equal(dataset.transitions()["next_observations"], states + 1)


def test_bounds_given_by_the_caller_hold_the_data():
    spec = NpzSource(columns(), action_bounds=(-2.0, 2.0)).load().spec
    assert (spec.field("actions").low, spec.field("actions").high) == ((-2.0,), (2.0,))
    assert spec.provenance["action_bounds"] == "declared"
    spec = NpzSource(columns(), action_bounds=(-0.5, 2.0)).load().spec
    assert (spec.field("actions").low, spec.field("actions").high) == ((-1.0,), (2.0,))
    assert spec.provenance["action_bounds"] == "declared, widened to the data"


def test_wrong_arguments_are_explained():
    with pytest.raises(ConfigError, match=r"bounds do not fit(?s:.*)3 and 1 numbers(?s:.*)1 or 1"):
        NpzSource(columns(), action_bounds=([-1, -1, -1], 1)).load()
    with pytest.raises(ConfigError, match="at least one step"):
        NpzSource(columns(), horizon=0).load()
    with pytest.raises(SourceError, match="'actions' is not rectangular"):
        NpzSource(columns(actions=[[1.0], [1.0, 2.0]])).load()


def test_lists_are_arrays():
    assert len(NpzSource({name: column.tolist() for name, column in columns().items()}).load()) == 5


def test_a_bound_that_float32_cannot_hold_is_not_widened():
    spec = NpzSource(columns(actions=np.full((6, 1), -0.4)), action_bounds=(-0.4, 0.4)).load().spec
    assert spec.provenance["action_bounds"] == "declared"
    assert spec.field("actions").low == (-0.4,)


def test_rows_that_do_not_continue_are_single_transitions(write):
    rng = np.random.default_rng(0)
    shuffled = {"observations": rng.normal(size=(6, 2)), "next_observations": rng.normal(size=(6, 2))}
    dataset = write(**shuffled, truncations=None, terminations=np.zeros(6, bool)).load()
    assert dataset.episodes is None
    assert len(dataset.rows) == 6


def test_an_episode_longer_than_the_horizon_is_refused():
    with pytest.raises(SourceError, match=r"longer than the horizon(?s:.*)3 steps(?s:.*)at most 2"):
        NpzSource(columns(), horizon=2).load()
    assert NpzSource(columns(), horizon=3).load().spec.horizon == 3


def test_object_arrays_are_refused_without_unpickling(tmp_path):
    ragged = np.empty(2, object)
    ragged[:] = [np.zeros(2), np.zeros(3)]
    np.savez(tmp_path / "data.npz", **columns(observations=ragged))
    with pytest.raises(SourceError, match=r"object array(?s:.*)concatenate ragged episodes"):
        NpzSource(tmp_path / "data.npz").load()


@pytest.mark.parametrize("source", [NpzSource, D4RLSource])
@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_damaged_files_are_errors_of_our_form(tmp_path, source, damage):
    writer = npz if source is NpzSource else hdf5
    path = writer(tmp_path).path
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "text": b"hello, world\n" * 50, "empty": b""}[damage])
    for use in (source(path).load, source(path).describe):
        with pytest.raises(SourceError, match="data"):
            use()


def test_a_member_damaged_inside_an_archive_is_an_error_of_our_form(tmp_path):
    path = npz(tmp_path).path
    data = bytearray(path.read_bytes())
    position = data.index(columns()["rewards"].tobytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match="cannot be read"):
        NpzSource(path).load()


@pytest.mark.parametrize("source", [NpzSource, D4RLSource])
def test_paths_get_the_nearest_file(tmp_path, source):
    existing = (npz(tmp_path) if source is NpzSource else hdf5(tmp_path)).path
    with pytest.raises(SourceError, match="did you mean") as caught:
        source(existing.with_name(existing.name.replace("data", "dta"))).load()
    assert str(existing) in str(caught.value)
    with pytest.raises(SourceError, match="is a folder, not a file"):
        source(tmp_path).fingerprint()
    with pytest.raises(SourceError, match="does not exist"):
        source(tmp_path / "nowhere" / "x.npz").load()


def test_hashes_of_dicts_depend_on_names_and_values_not_on_order():
    one, two = columns(), columns()
    two = {name: two[name] for name in reversed(two)}
    assert NpzSource(one).fingerprint() == NpzSource(two).fingerprint()
    two["rewards"] = two["rewards"].astype(np.float64)
    assert NpzSource(one).fingerprint() != NpzSource(two).fingerprint()


def test_float64_files_become_float32_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("synth_pipeline.sources.d4rl_hdf5._BLOCK_BYTES", 32)
    dataset = hdf5(tmp_path, observations=columns()["observations"].astype(np.float64)).load()
    assert dataset.episodes.observations.dtype == np.float32
    np.testing.assert_array_equal(dataset.episodes.observations, columns()["observations"][:5])


def test_d4rl_metadata_go_into_the_provenance(tmp_path):
    hdf5(tmp_path)
    with h5py.File(tmp_path / "data.hdf5", "a") as file:
        file["metadata/algorithm"] = "SAC"
        file["metadata/iteration"] = 5
        file["metadata/policy/weight"] = np.zeros((3, 3))
    spec = D4RLSource(tmp_path / "data.hdf5").load().spec
    assert spec.provenance["metadata"] == {"algorithm": "SAC", "iteration": 5}
    assert spec.environment is None


def test_an_export_of_ours_brings_its_spec(tmp_path):
    action = NpzSource(columns()).load().spec.field("actions")
    spec = DatasetSpec(
        dataset_id="hopper/known", fields=transition_fields(2, action), environment="hopper", horizon=1000
    )
    attributes = {KIND_ATTRIBUTE: "transitions", SPEC_ATTRIBUTE: spec.model_dump_json()}
    following = {"next_observations": columns()["observations"] + 1}
    source = hdf5(tmp_path, attributes, **following)
    assert source.load().spec == spec
    assert source.describe()["environment"] == "hopper"
    with pytest.raises(SourceError, match=r"as its spec says"):
        hdf5(tmp_path, attributes, observations=np.zeros((6, 3)), next_observations=np.zeros((6, 3))).load()
    text = spec.model_dump_json().replace('"horizon"', '"horison"')
    with pytest.raises(ConfigError, match="unknown key 'horison'"):
        hdf5(tmp_path, {**attributes, SPEC_ATTRIBUTE: text}, **following).load()
    with pytest.raises(SourceError, match="no dataset spec"):
        hdf5(tmp_path, {**attributes, SPEC_ATTRIBUTE: "{"}, **following).load()


def test_marked_transitions_need_their_next_observations(tmp_path):
    for ask in (D4RLSource.load, D4RLSource.describe):
        with pytest.raises(SourceError, match="no column 'next_observations'") as caught:
            ask(hdf5(tmp_path, {KIND_ATTRIBUTE: "transitions"}))
        assert caught.value.fix == "add the column 'next_observations'"  # observations are not by mistake what they are


def test_the_data_file_of_a_minari_dataset_is_recognised(tmp_path):
    with h5py.File(tmp_path / "main_data.hdf5", "w") as file:
        file["episode_0/observations"] = np.zeros((2, 2))
    with pytest.raises(SourceError, match="data file of a Minari dataset"):
        D4RLSource(tmp_path / "main_data.hdf5").load()
