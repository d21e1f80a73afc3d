"""Rules read from YAML: their grammar and its errors, and their three uses, row by row."""

import json
import textwrap

import numpy as np
import pytest
from toy_data import ACTION

from synth_pipeline.data.containers import Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.envs.base import KinematicPair
from synth_pipeline.errors import ConfigError, UnknownNameError
from synth_pipeline.validation import rules as rules_module
from synth_pipeline.validation.kinematics import Kinematics
from synth_pipeline.validation.rules import METRICS, Rules, rules

EXTRA = (Field(name="count", kind="index"), Field(name="costs", optional=True))
SPEC = DatasetSpec(dataset_id="test/rules", fields=transition_fields(4, ACTION, extra=EXTRA))
TEXT = """
    columns:
      observations[3]: {low: 0.1, high: 10}
      rewards: {integer: true}
    kinematics:
      dt: 0.1
      tolerance: 0.001
      pairs: [{position: 0, velocity: 1}]
    identities:
      - sum: {"next_observations[3]": 1, "observations[3]": -1}
        tolerance: 0
      - sum: {"observations[2]": 2, rewards: 1}
        equals: 5
        tolerance: 1.0e-6
"""


def rows(n=6):
    """Free fall, a constant, whole rewards: everything that TEXT asks for."""
    rng = np.random.default_rng(0)
    before = rng.standard_normal((n, 4))
    before[:, 3] = rng.uniform(0.1, 10, n)
    rewards = np.arange(n) % 3.0
    before[:, 2] = (5 - rewards) / 2
    after = before.copy()
    after[:, 1] -= 1
    after[:, 0] += 0.1 * (before[:, 1] - 0.5)
    columns = {"observations": before, "actions": np.zeros((n, 2)), "rewards": rewards, "next_observations": after}
    flags = {"terminations": np.zeros(n, bool), "count": np.arange(n)}
    return Transitions({name: np.asarray(c, np.float32) for name, c in columns.items()} | flags)


def changed(name, row, value, component=None):
    column = rows()[name].copy()
    column[row if component is None else (row, component)] = value
    return rows().with_columns(**{name: column})


def load(tmp_path, text):
    path = tmp_path / "rules.yaml"
    path.write_text(textwrap.dedent(text))
    return Rules.load(path)


@pytest.fixture
def given(tmp_path):
    return load(tmp_path, TEXT)


def shares(table, given, spec=SPEC):
    return {m.metric.partition(".")[2]: m for m in rules(Dataset(spec, rows=table), given)}


def only(column, **rule):
    return Rules.parse({"columns": {column: rule}})


# --- grammar ---------------------------------------------------------------------------------------------------------


def test_a_file_is_read_as_it_stands(given):
    assert given.columns["observations[3]"].high == 10
    assert given.columns["rewards"].integer
    assert given.system == Kinematics((KinematicPair(position=0, velocity=1),), 0.1)
    assert given.identities[1].sum == {"observations[2]": 2, "rewards": 1}
    assert given.identities[0].equals == 0
    given.require(SPEC)
    assert Rules.parse(given.plain()) == given
    assert Rules().system is None


def test_the_example_of_the_module_is_read(tmp_path):
    text = rules_module.__doc__.split("\n\n")[1]
    spec = DatasetSpec(dataset_id="test/doc", fields=transition_fields(8, ACTION))
    load(tmp_path, text).require(spec)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colums:\n  rewards: {low: 0}", "did you mean 'columns'?"),
        ("columns:\n  rewards: {hihg: 0}", "did you mean 'columns.rewards.high'?"),
        ("columns:\n  rewards[x]: {low: 0}", "'rewards[x]' is not a column: write name, or name[3] for one component"),
        ("columns:\n  rewards: {}", "needs low, high or integer"),
        ("columns:\n  rewards: {low: 2, high: 1}", "no number lies between 2.0 and 1.0"),
        ("columns:\n  rewards: {low: 0.2, high: 0.8, integer: true}", "no integer lies between 0.2 and 0.8"),
        ("columns:\n  rewards: {low: .nan}", "finite number"),
        ("kinematics: {dt: 0, tolerance: 1, pairs: [{position: 0, velocity: 1}]}", "seconds per step"),
        ("kinematics: {dt: 1, pairs: [{position: 0, velocity: 1}]}", "kinematics.tolerance"),
        ("kinematics: {dt: 1, tolerance: 1, pairs: []}", "at least 1 item"),
        ("identities:\n  - {sum: {rewards: 1}}", "identities.0.tolerance"),
        ("identities:\n  - {sum: {rewards: 0}, tolerance: 0}", "coefficients are finite numbers other than 0"),
        ("identities:\n  - {sum: {rewards + 1: 1}, tolerance: 0}", "'rewards + 1' is not a column"),
        ("identities:\n  - {sum: {}, tolerance: 0}", "at least 1 item"),
        ("identities:\n  - {sun: {rewards: 1}, tolerance: 0}", "did you mean 'identities.0.sum'?"),
    ],
)
def test_what_cannot_be_a_rule(tmp_path, text, says):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert says in str(caught.value)
    assert str(tmp_path / "rules.yaml") in caught.value.what


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"columns": {"obsevations[3]": {"low": 0}}}, "did you mean 'observations[3]'?"),
        ({"columns": {"observations[4]": {"low": 0}}}, "observations[0] to observations[3]"),
        ({"columns": {"observations": {"low": 0}}}, "observations[0] to observations[3]"),
        ({"columns": {"rewards[0]": {"low": 0}}}, "accepted  rewards"),
        ({"identities": [{"sum": {"reward": 1}, "tolerance": 0}]}, "did you mean 'rewards'?"),
        (
            {"kinematics": {"dt": 1, "tolerance": 0, "pairs": [{"position": 0, "velocity": 4}]}},
            "has no component 4",
        ),
    ],
)
def test_rules_about_what_the_data_does_not_have(values, says):
    for use in (lambda given: given.require(SPEC), lambda given: shares(rows(), given)):
        with pytest.raises(ConfigError) as caught:
            use(Rules.parse(values))
        assert says in str(caught.value)


# --- violations ------------------------------------------------------------------------------------------------------


def test_rows_that_obey(given):
    assert not given.violations(rows()).any()
    assert {m.value for m in shares(rows(), given).values()} == {0.0}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "component", "families"),
    [
        ("observations", 3, {"bounds", "identities"}),
        ("rewards", None, {"integers", "identities"}),
        ("next_observations", 1, {"kinematics"}),
        ("observations", 0, {"kinematics"}),
        ("observations", 2, {"identities"}),
    ],
)
def test_values_that_are_not_finite_break_every_rule_on_their_column(given, name, component, families, value):
    spoilt = changed(name, 2, value, component)
    assert given.violations(spoilt).tolist() == [False, False, True, False, False, False]
    assert {family for family, m in shares(spoilt, given).items() if m.value} == families


@pytest.mark.parametrize(
    ("name", "component", "value", "family"),
    [
        ("observations", 3, 10.5, "bounds"),
        ("observations", 3, 0.0, "bounds"),
        ("rewards", None, 0.5, "integers"),
        ("observations", 0, 30.0, "kinematics"),
        ("next_observations", 3, 0.5, "identities"),
        ("observations", 2, 9.0, "identities"),
    ],
)
def test_one_row_that_breaks_a_rule(given, name, component, value, family):
    spoilt = changed(name, 4, value, component)
    assert np.flatnonzero(given.violations(spoilt)).tolist() == [4]
    found = shares(spoilt, given)[family]
    assert found.value == pytest.approx(1 / 6)
    assert found.details["fields"][found.details["worst"]] == 1


def test_infinity_is_inside_no_limit():
    assert only("observations[0]", low=-100).violations(changed("observations", 1, np.inf, 0)).tolist()[:2] == [
        False,
        True,
    ]


def test_both_sides_of_an_infinite_identity(given):
    both = changed("observations", 1, np.inf, 3).with_columns(
        next_observations=changed("next_observations", 1, np.inf, 3)["next_observations"]
    )
    assert np.flatnonzero(given.violations(both)).tolist() == [1]  # inf - inf is no equality


def test_limits_have_the_precision_of_the_column():
    edge = changed("observations", 0, 0.1, 3)  # float32(0.1) lies above 0.1, float32(0.7) below 0.7
    assert not only("observations[3]", low=-1, high=0.1).violations(edge.take(slice(0, 1))).any()
    edge = changed("observations", 0, 0.7, 3)
    assert not only("observations[3]", low=0.7).violations(edge.take(slice(0, 1))).any()
    assert only("count", low=0.5).violations(rows()).tolist() == [True] + [False] * 5


# --- clipped ---------------------------------------------------------------------------------------------------------


def test_clipped_rows_are_inside_and_whole(given):
    wild = rows().with_columns(
        observations=100 * rows()["observations"], rewards=np.array([0.4, 0.6, -1.2, 7.5, np.nan, 3.0], np.float32)
    )
    found = given.clipped(wild)
    assert found["rewards"].dtype == np.float32
    np.testing.assert_array_equal(found["rewards"], [0, 1, -1, 8, np.nan, 3])
    assert found["observations"][:, 3].max() == 10
    np.testing.assert_array_equal(found["observations"][:, :3], wild["observations"][:, :3])
    assert not shares(found.take(found["rewards"] > -9), given)["bounds"].value


def test_clipping_changes_neither_its_input_nor_what_obeys(given):
    table = rows()
    before = {name: column.copy() for name, column in table.columns.items()}
    found = given.clipped(table)
    for name, column in before.items():
        np.testing.assert_array_equal(found[name], column)
        assert found[name].dtype == column.dtype
    wild = table.with_columns(observations=-table["observations"])
    given.clipped(wild)
    np.testing.assert_array_equal(wild["observations"], -before["observations"])


@pytest.mark.parametrize(
    ("column", "rule"),
    [
        ("observations[3]", {"low": 0.3, "high": 4.7, "integer": True}),
        ("observations[3]", {"low": 0.1, "high": 0.7}),
        ("count", {"low": 0.5, "high": 3.5}),
        ("terminations", {"high": 0}),
        ("rewards", {"integer": True}),
    ],
)
def test_what_was_clipped_breaks_neither_bounds_nor_integers(column, rule):
    rng, given = np.random.default_rng(0), only(column, **rule)
    wild = rows().with_columns(
        observations=np.float32(10 * rng.standard_normal((6, 4))),
        rewards=np.float32(rng.standard_normal(6)),
        terminations=np.ones(6, bool),
    )
    assert given.violations(wild).any()
    once = given.clipped(wild)
    assert not given.violations(once).any()
    assert all(np.array_equal(given.clipped(once)[name], once[name]) for name in once.columns)


def test_two_components_of_a_column_and_no_rows():
    given = Rules.parse({"columns": {"actions[0]": {"high": -0.5}, "actions[1]": {"low": 0.25}}})
    assert given.clipped(rows())["actions"].tolist() == [[-0.5, 0.25]] * 6
    assert len(given.clipped(rows(0))) == 0
    assert len(given.violations(rows(0))) == 0


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_every_chunk_counts_and_a_row_counts_once(monkeypatch, given):
    monkeypatch.setattr(rules_module, "CHUNK", 7)
    table = rows(100)
    observations = table["observations"].copy()
    observations[::10, 3] = -1  # breaks the bounds and the equality with the next observation
    observations[::20, 2] = 99  # breaks another identity on five of the same rows
    found = shares(table.with_columns(observations=observations), given)
    assert found["bounds"].value == 0.1
    assert found["identities"].value == 0.1
    assert sorted(found["identities"].details["fields"].values()) == [5, 10]
    assert found["identities"].details["worst"] == "+1 next_observations[3] -1 observations[3] = 0 within 0"
    assert all((m.direction, m.sample, m.limits) == ("lower", 100, (0.0, 1.0)) for m in found.values())


def test_families_without_rules_are_not_decidable():
    for given, families in ((None, set()), (Rules(), set()), (only("rewards", low=-1), {"bounds"})):
        found = shares(rows(), given)
        assert {f"rules.{family}" for family in found} == set(METRICS)
        assert {family for family, m in found.items() if m.value is not None} == families
        assert all(m.details["why"] for m in found.values() if m.value is None)
        json.dumps([m.to_json() for m in found.values()], allow_nan=False)


def test_without_rules_nothing_is_read(monkeypatch):
    def read(self, start, stop):
        raise AssertionError("no rule asks for rows")

    monkeypatch.setattr(Dataset, "read", read)
    assert {m.value for m in shares(rows(), None).values()} == {None}


def test_no_rows_and_absent_columns_are_not_decidable(given):
    assert {m.details["why"] for m in shares(rows(0), given).values()} == {"there are no rows"}
    costs = Rules.parse({"columns": {"costs": {"low": 0}, "rewards": {"integer": True}}})
    found = shares(rows(), costs)
    assert found["bounds"].details["why"] == "there is no column called 'costs'"
    assert found["integers"].value == 0.0
    with pytest.raises(UnknownNameError, match="costs"):
        costs.violations(rows())
