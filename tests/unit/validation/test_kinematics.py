"""Residuals of free fall by hand, what a mean sees and a median does not, and simulators against themselves."""

import json

import numpy as np
import pytest
from worlds import linear_gaussian, roll

from synth_pipeline import envs
from synth_pipeline.data.containers import Episodes, Transitions
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.envs.base import KinematicPair
from synth_pipeline.validation.kinematics import METRICS, Kinematics, beyond, kinematics, known_kinematics, residuals
from synth_pipeline.validation.truth import Truth, known_truth

DT = 0.1
FALL = Kinematics((KinematicPair(position=0, velocity=1),), DT)
SPEC = DatasetSpec(dataset_id="test/fall", fields=transition_fields(2, Field(name="actions", shape=(1,))))


def fall(rows=2000, noise=0.0, seed=0, gravity=9.81, dtype=np.float32):
    """Height and speed of stones; the trapezoidal rule is exact under constant acceleration."""
    rng = np.random.default_rng(seed)
    before = rng.standard_normal((rows, 2))
    height = before[:, 0] + DT * before[:, 1] - 0.5 * gravity * DT**2 + noise * rng.standard_normal(rows)
    after = np.stack([height, before[:, 1] - gravity * DT], axis=1)
    return table(before, after, dtype)


def table(before, after, dtype=np.float64, actions=1.0):
    before, after = np.array(before, dtype), np.array(after, dtype)
    columns = {"observations": before, "actions": np.full((len(before), 1), actions), "rewards": np.zeros(len(before))}
    return Transitions({**columns, "next_observations": after})


def measured(real, synthetic, system=FALL, truth=None, **options):
    real = real if isinstance(real, Dataset) else Dataset(SPEC, rows=real)
    return {m.metric: m for m in kinematics(real, synthetic, system, truth or Truth(), **options)}


def residual(*args, **options):
    return measured(*args, **options)["kinematics.residual"]


def test_residuals_by_hand():
    rows = table([[1.0, 2.0], [0.0, 0.0]], [[1.4, 4.0], [0.0, -1.0]])
    # 1.4 - 1 - 0.1 * 3 = 0.1, and 0 - 0 - 0.1 * (-0.5) = 0.05
    np.testing.assert_allclose(residuals(rows, FALL), [[0.1], [0.05]])


def test_free_fall_has_none():
    assert residuals(fall(dtype=np.float64), FALL).max() < 1e-14
    assert residuals(fall(dtype=np.float64, gravity=1.2 * 9.81), FALL).max() < 1e-14  # dynamics are not judged here


def test_angles_wrap_and_lengths_do_not():
    turn = 2 * np.pi - 6.2
    rows = table([[3.1, turn / DT]], [[-3.1, turn / DT]])
    around = Kinematics((KinematicPair(position=0, velocity=1, angle=True),), DT)
    assert residuals(rows, around)[0, 0] == pytest.approx(0, abs=1e-12)
    assert residuals(rows, FALL)[0, 0] == pytest.approx(2 * np.pi)


def test_the_value_is_a_multiple_of_the_real_residual():
    found = residual(fall(noise=0.01), fall(noise=0.03, seed=1))
    assert found.value == pytest.approx(3.0, rel=0.1)
    assert found.details["median"] == pytest.approx(3.0, rel=0.1)
    assert found.details["columns"] == {"observations[0]": pytest.approx(found.value, abs=1e-5)}


def test_it_is_averaged_over_pairs():
    system = Kinematics((*FALL.pairs, KinematicPair(position=1, velocity=1)), DT)
    real, worse = fall(noise=0.01), fall(noise=0.03, seed=1)
    found = residual(real, worse, system)
    assert found.value == pytest.approx(np.mean(list(found.details["columns"].values())), abs=1e-5)
    assert found.details["columns"]["observations[1]"] == pytest.approx(1.0, rel=0.05)


def test_teleports_are_seen_by_the_mean_and_not_by_the_median():
    rows = fall(noise=0.01, seed=1)
    after = rows["next_observations"].copy()
    after[::100, 0] += 3.0
    found = residual(fall(noise=0.01), rows.with_columns(next_observations=after))
    assert found.value > 4
    assert found.details["median"] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_rows_are_as_good_as_exact_rows(dtype):
    assert residual(fall(dtype=dtype), fall(seed=1, dtype=dtype)).value == pytest.approx(1.0, abs=0.1)
    assert residual(fall(dtype=dtype), fall(noise=1e-3, seed=1, dtype=dtype)).value > 1000


def test_floor_is_one_half_against_the_other():
    """Two episodes that rest at a residual of 1 and of 3: a half is three times the other, or a third."""
    heights = np.stack([1.0 * np.arange(5), 3.0 * np.arange(5)])
    states = np.stack([heights, 0 * heights], axis=-1)
    columns = {"actions": np.ones((8, 1)), "rewards": np.zeros(8)}
    real = Dataset(SPEC, Episodes(states[:, :-1].reshape(8, 2), states[:, -1], np.array([0, 4, 8]), columns))
    floor = residual(real, real.transitions()).floor
    assert floor.worst95 == pytest.approx(2.0)
    assert any(floor.median == pytest.approx(value) for value in (1 / 3, 5 / 3, 3))


def test_positions_that_never_move_from_zero():
    still = table(np.zeros((3, 2)), np.zeros((3, 2)))
    assert residual(still, still).value == 1.0
    assert json.dumps(residual(still, fall()).to_json(), allow_nan=False)


def test_rows_at_the_clip_are_left_out_on_both_sides():
    truth = Truth(clip=np.array([np.inf, 5.0]))
    stuck = table([[0.0, 5.0]] * 500, [[9.0, 5.0]] * 500)
    real, ours = fall(noise=0.01), fall(noise=0.01, seed=1)
    mixed = [Transitions({n: np.concatenate([side[n], stuck[n]]) for n in side.columns}) for side in (real, ours)]
    assert residual(*mixed, truth=truth).value == residual(real, ours, truth=truth).value
    assert residual(*mixed, truth=truth).details["judged share"] < 0.81
    assert residual(real, stuck, truth=truth).value is None


def test_self_loops_by_hand():
    before = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [2.0, 4.0]])  # standard deviations 1 and 2
    real = table(before, np.concatenate([before[:1], before[:3]]))  # the first row stays
    thousandths = np.array([[0, 0], [0.8, 0], [0.8, 1.0], [0.8, 1.4]])  # norms 0, 0.8, 0.94, 1.06 in deviations
    found = measured(real, table(before, before + 1e-3 * thousandths))["kinematics.self_loops"]
    assert found.value == 0.75
    assert found.details["real share"] == 0.25


def test_rows_that_do_not_act_may_stay():
    rows = fall(100)
    resting = table(rows["observations"], rows["observations"], actions=0.0)
    assert measured(rows, resting)["kinematics.self_loops"].value == 0.0
    assert measured(rows, resting.with_columns(actions=resting["actions"] - 0.5))["kinematics.self_loops"].value == 1.0


def test_beyond_the_widened_range_by_hand():
    low, high = np.array([[0.0, 7.0], [2.0, 7.0]]), np.array([[5.0, 7.0], [10.0, 7.0]])
    x = np.array([[-0.5, 7.0], [-0.51, 7.0], [10.5, 7.0], [10.51, 9.0]])  # the range of the second is a point
    assert beyond(x, low, high).tolist() == [[False, False], [True, False], [False, False], [True, False]]


def test_outside_counts_rows_and_names_components():
    real = table([[0.0, 0.0], [10.0, 1.0]], [[0.0, 0.0], [10.0, 1.0]])
    rows = table([[0.0, 0.0], [11.0, 0.0], [11.0, 0.0], [5.0, 0.0]], [[0.0, 0.0], [0.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    found = measured(real, rows)["kinematics.outside"]
    assert found.value == 0.5
    wrong = {name: share for name, share in found.details["columns"].items() if share}
    assert wrong == {"observations[0]": 0.5, "next_observations[1]": 0.25}


def test_the_range_is_that_of_all_real_rows():
    real = fall()
    assert measured(real, real, sample=20)["kinematics.outside"].value == 0.0


def test_floor_of_outside_is_one_half_against_the_other():
    """Ten episodes, each at a place of its own: in the half without the last one, it is outside; and the first one."""
    places = np.repeat(np.arange(10.0), 4)
    columns = {"actions": np.ones((40, 1)), "rewards": np.zeros(40)}
    real = Dataset(
        SPEC,
        Episodes(
            np.stack([places, places], 1), np.zeros((10, 2)) + np.arange(10.0)[:, None], np.arange(0, 41, 4), columns
        ),
    )
    floor = measured(real, real.transitions())["kinematics.outside"].floor
    assert 0 < floor.median < 0.6
    assert floor.worst95 >= floor.median


def test_rows_that_are_not_finite_are_left_out():
    rows = fall(noise=0.01, seed=1)
    spoilt = {name: rows[name].copy() for name in ("observations", "next_observations")}
    spoilt["observations"][:10] = np.nan
    spoilt["next_observations"][10:20, 0] = np.inf
    found = measured(fall(noise=0.01), rows.with_columns(**spoilt))
    kept = measured(fall(noise=0.01), rows.take(slice(20, None)))
    assert {name: m.value for name, m in found.items()} == {name: m.value for name, m in kept.items()}


def without(rows, *names):
    return Transitions({name: column for name, column in rows.columns.items() if name not in names})


def test_what_cannot_be_decided_says_why():
    rows = fall()
    nan = rows.with_columns(observations=np.full_like(rows["observations"], np.nan))
    for synthetic in (rows.take(slice(0, 0)), nan):
        found = measured(rows, synthetic)
        assert {*found} == set(METRICS)
        assert {m.value for m in found.values()} == {None}
        assert all(m.details["why"] for m in found.values())
    empty = measured(rows.take(slice(0, 0)), rows)
    assert {m.value for m in empty.values()} == {None}
    assert residual(rows, rows, None).value is None
    assert (
        residual(rows, without(rows, "next_observations")).details["why"] == "one side has no column next_observations"
    )
    found = measured(rows, without(rows, "actions"))
    assert found["kinematics.self_loops"].value is None
    assert found["kinematics.outside"].value == 0.0


# --- environments ----------------------------------------------------------------------------------------------------


def test_known_pairs():
    spec = envs.make("hopper").spec
    assert known_kinematics(roll("hopper", 4, 40).spec) == Kinematics(spec.kinematics, 0.008)
    assert known_kinematics(linear_gaussian().spec) is None
    assert known_kinematics(SPEC) is None


# The coarser the steps, the larger the rule's own error, and the noise that it takes to be seen.
@pytest.mark.parametrize(
    ("name", "strength"), [("hopper", 0.03), ("toy-point-mass", 0.03), ("halfcheetah", 0.3), ("pointmaze-umaze", 0.3)]
)
def test_fresh_rows_pass_and_noise_does_not(name, strength):
    real, fresh = roll(name, episodes=20, steps=50), roll(name, episodes=20, steps=50, seed=1).transitions()
    truth, system = known_truth(real.spec), known_kinematics(real.spec)
    found = residual(real, fresh, system, truth)
    assert abs(found.value - 1) < found.floor.worst95 + 0.1
    moved = (fresh["next_observations"] - fresh["observations"]).std(axis=0)
    noise = strength * moved * np.random.default_rng(0).standard_normal(fresh["observations"].shape)
    noisy = fresh.with_columns(next_observations=fresh["next_observations"] + noise)
    assert residual(real, noisy, system, truth).value > 1.3 * found.value
