"""Chains, window returns and open-loop errors against closed forms; deterministic simulators replay to rounding."""

import json

import numpy as np
import pytest
from scipy.stats import ks_2samp
from worlds import linear_gaussian, roll

from synth_pipeline import envs
from synth_pipeline.data.containers import Episodes, Segments
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.data.windows import segments
from synth_pipeline.validation.trajectories import METRICS, joined, trajectories
from synth_pipeline.validation.truth import Answer, Truth, known_truth

SPEC = DatasetSpec(dataset_id="test/line", fields=transition_fields(1, Field(name="actions", shape=(1,))))


def line(states, actions=None, rewards=None):
    """Episodes `[count, steps + 1]` on a line."""
    states = np.asarray(states, float)
    count, steps = states.shape[0], states.shape[1] - 1
    rewards = np.zeros((count, steps)) if rewards is None else np.asarray(rewards, float)
    actions = np.diff(states, axis=1) if actions is None else np.asarray(actions, float)
    columns = {"actions": actions.reshape(-1, 1), "rewards": rewards.reshape(-1)}
    return Episodes(states[:, :-1].reshape(-1, 1), states[:, -1:], np.arange(count + 1) * steps, columns)


def walks(count=200, steps=40, seed=0, rewards=1.0):
    """s' = s + a with a = +-1."""
    rng = np.random.default_rng(seed)
    states = np.cumsum(rng.choice([-1.0, 1.0], (count, steps + 1)), axis=1)
    return line(states, rewards=rewards * rng.standard_normal((count, steps)))


def moves(observations, actions):
    """s' = s + a."""
    judged = np.isfinite(observations).all(axis=1) & (np.abs(observations) < 1000).all(axis=1)
    return Answer(observations + actions, np.zeros(len(actions)), judged, "moves")


def rests(observations, actions):
    """s' = s."""
    return Answer(observations, np.zeros(len(actions)), np.ones(len(actions), bool), "rests")


def measured(real, synthetic, truth=None, **options):
    real = real if isinstance(real, Dataset) else Dataset(SPEC, real)
    found = trajectories(real, synthetic, truth or Truth(oracle=moves), **options)
    return {m.metric.partition(".")[2]: m for m in found}


def windows_of(episodes, horizon, without=()):
    whole = segments(episodes, horizon, stride=horizon, pad=True)
    columns = {name: column for name, column in whole.columns.items() if name not in without}
    return Segments(columns, whole.mask, whole.episode_ids, whole.steps)


# --- windows as trajectories -----------------------------------------------------------------------------------------


def test_windows_with_next_observations_keep_every_row():
    episodes = walks(count=3, steps=10)
    found, after = joined(windows_of(episodes, 4))  # 4, 4 and 2 rows of each episode
    assert found.lengths.tolist() == [4, 4, 2] * 3
    np.testing.assert_array_equal(found.observations, episodes.observations)
    np.testing.assert_array_equal(after, episodes.next_observations)
    np.testing.assert_array_equal(found.next_observations, episodes.next_observations)
    np.testing.assert_array_equal(found["rewards"], episodes["rewards"])


def test_windows_without_next_observations_end_at_their_last_observation():
    episodes = walks(count=2, steps=9)
    found, after = joined(windows_of(episodes, 4, without=("next_observations",)))  # 4, 4, 1: the last is no step
    assert found.lengths.tolist() == [3, 3] * 2
    np.testing.assert_array_equal(found.observations[:3], episodes.observations[:3])
    np.testing.assert_array_equal(found.final_observations[0], episodes.observations[3])
    np.testing.assert_array_equal(after, found.next_observations)


# --- chain -----------------------------------------------------------------------------------------------------------


def test_chain_by_hand():
    real = line([[0, 1, 0, 1, 0]])  # steps of +-1: variance 1
    states, after = np.array([[[0.0], [1.0], [2.0]]]), np.array([[[1.0], [2.5], [9.0]]])
    columns = {"observations": states, "next_observations": after, "actions": states, "rewards": states[..., 0]}
    mask = np.ones((1, 3), bool)
    found = measured(real, Segments(columns, mask, np.zeros(1, int), np.zeros(1, int)))["chain"]
    assert found.value == pytest.approx(0.5 * (0 + 0.25))  # the last row has no following one
    assert found.details["rows"] == 2
    mask[0, 2] = False
    assert measured(real, Segments(columns, mask, np.zeros(1, int), np.zeros(1, int)))["chain"].value == 0.0


def test_chain_holds_by_construction_where_nothing_else_is_stored():
    real, ours = walks(), walks(seed=1)
    for table in (ours, windows_of(ours, 8), windows_of(ours, 8, without=("next_observations",))):
        assert measured(real, table)["chain"].value == 0.0
    assert measured(real, ours)["chain"].floor.worst95 == 0.0


def test_chain_of_single_steps_is_not_decidable():
    assert measured(walks(), walks(steps=1))["chain"].value is None


# --- returns ---------------------------------------------------------------------------------------------------------


def test_returns_are_those_of_all_windows():
    real, ours = walks(), walks(seed=1, rewards=1.5)
    sums = [
        np.lib.stride_tricks.sliding_window_view(e["rewards"].reshape(200, 40), 32, axis=1).sum(axis=-1).ravel()
        for e in (real, ours)
    ]
    found = measured(real, ours)["returns"]
    assert found.value == pytest.approx(ks_2samp(*sums, method="asymp").statistic)
    assert found.details["windows"] == 200 * 9
    assert found.details["means"]["real"] == pytest.approx(sums[0].mean())
    assert found.value > found.floor.worst95 > measured(real, walks(seed=2))["returns"].value - 0.1


def test_shorter_trajectories_are_judged_on_shorter_windows():
    found = measured(walks(), walks(steps=20, seed=1))
    assert found["returns"].details["steps"] == found["error_growth"].details["steps"] == 16
    assert found["error_growth"].value == pytest.approx(0, abs=1e-20)


def test_windows_with_rewards_that_are_not_finite_are_left_out():
    ours = walks(count=2)
    ours.columns["rewards"][3] = np.nan  # of the nine windows of its episode, four begin at or before it
    assert measured(walks(), ours)["returns"].details["windows"] == 18 - 4


# --- error growth ----------------------------------------------------------------------------------------------------


def test_exact_trajectories_have_no_error():
    found = measured(walks(), walks(seed=1))["error_growth"]
    assert found.value == 0.0
    assert found.floor.worst95 == 0.0
    assert list(found.details["curve"]) == ["1", "2", "4", "8", "16", "32"]


def test_an_oracle_that_rests_errs_by_the_real_change():
    curve = measured(walks(2000), walks(2000, seed=1), Truth(oracle=rests), rolled=20_000)["error_growth"].details[
        "curve"
    ]
    np.testing.assert_allclose(list(curve.values()), 1.0, rtol=0.1)


def test_a_drift_grows_with_time_by_hand():
    """Recorded states drift by 0.1 a step from what their actions do: (0.1 k)^2 over a variance of k."""
    true = walks(2000, seed=1)
    drift = line(
        np.concatenate([true.observations.reshape(2000, 40), true.final_observations], axis=1) + 0.1 * np.arange(41),
        actions=true["actions"].reshape(2000, 40),
    )
    curve = measured(walks(2000), drift)["error_growth"].details["curve"]
    np.testing.assert_allclose(list(curve.values()), [0.01 * k for k in (1, 2, 4, 8, 16, 32)], rtol=0.1)


def test_windows_that_the_oracle_cannot_follow_are_left_out():
    ours = walks(count=20, seed=1)
    ours.observations[5] = 2000.0  # beyond what the oracle knows, in the first episode
    found = measured(walks(), ours)["error_growth"]
    assert found.details["windows"] == 20 * 9 - 1  # only the window that begins there
    spoilt = walks(count=20, seed=1)
    spoilt.observations[8] = np.nan  # the state after 8 steps of the window at 0, after 4 of the one at 4, ...
    assert measured(walks(), spoilt)["error_growth"].details["windows"] == 20 * 9 - 5  # at 0, 4, 6, 7, and 8 itself
    lost = line(np.full((3, 41), 5000.0))
    assert measured(walks(), lost)["error_growth"].details["why"].startswith("the oracle can follow none")


def test_claims_never_decide_whether_a_window_is_judged():
    ours = walks(count=20, seed=1)
    ours.observations[33] = 900.0  # a wild state on the way: judged, and wrong
    truth = Truth(oracle=moves, clip=np.array([1000.0]))
    assert measured(walks(), ours, truth)["error_growth"].value > 1


def expected_errors(toy, steps):
    """diag(sum_j A^j Sigma A^jT): what the noise of `steps` steps adds up to."""
    total, noise = np.zeros((3, 3)), toy.L @ toy.L.T
    for power in range(steps):
        step = np.linalg.matrix_power(toy.A, power)
        total += step @ noise @ step.T
    return np.diag(total)


def test_noise_of_the_linear_toy_adds_up_by_its_formula():
    real, fresh, toy = linear_gaussian(), linear_gaussian(seed=1), envs.make("toy-linear-gaussian")

    def mean(observations, actions):
        after = observations @ toy.A.T + np.asarray(actions, float) @ toy.B.T
        return Answer(after, np.zeros(len(after)), np.isfinite(after).all(axis=1), "mean")

    found = measured(real, fresh.episodes, Truth(oracle=mean), rolled=5000)["error_growth"]
    states = np.concatenate(
        [real.episodes.observations.reshape(60, 50, 3), real.episodes.final_observations[:, None]], axis=1
    )
    for steps in (1, 8, 32):
        change = (states[:, steps:] - states[:, :-steps]).reshape(-1, 3).var(axis=0)
        wanted = (expected_errors(toy, steps) / change).mean()
        assert found.details["curve"][str(steps)] == pytest.approx(wanted, rel=0.15)


@pytest.mark.parametrize("name", ["hopper", "halfcheetah", "pointmaze-umaze", "toy-point-mass"])
def test_real_trajectories_of_a_simulator_are_replayed_and_noisy_ones_are_not(name):
    real, fresh = roll(name, episodes=8, steps=40), roll(name, episodes=8, steps=40, seed=1).episodes
    truth = known_truth(real.spec)
    found = measured(real, fresh, truth, rolled=60)["error_growth"]
    assert max(found.details["curve"].values()) < 1e-3
    assert found.floor.median < 1e-3
    assert found.floor.worst95 < 1e-2  # contacts amplify rounding, in few windows
    deviation = (fresh.next_observations - fresh.observations).std(axis=0)
    curves = []
    for strength in (0.3, 1.0):
        noise = strength * deviation * np.random.default_rng(0).standard_normal(fresh.observations.shape)
        noisy = Episodes(fresh.observations + noise, fresh.final_observations, fresh.starts, fresh.columns)
        curves.append(measured(real, noisy, truth, rolled=60)["error_growth"].value)
    assert 100 * found.value < curves[0] < curves[1]


def test_windows_at_the_clip_of_a_simulator_are_left_out_on_both_sides():
    real = roll("hopper", episodes=8, steps=40)
    truth = known_truth(real.spec)
    stuck = real.episodes.observations.copy()
    stuck[:, 5] = 10.0
    ours = Episodes(stuck, real.episodes.final_observations, real.episodes.starts, real.episodes.columns)
    assert measured(real, ours, truth)["error_growth"].value is None
    assert measured(Dataset(real.spec, ours), real.episodes, truth)["error_growth"].floor is None


# --- what cannot be decided ------------------------------------------------------------------------------------------


def undecided(found):
    json.dumps([m.to_json() for m in found.values()], allow_nan=False)
    assert all(m.details["why"] for m in found.values() if m.value is None)
    return {name for name, m in found.items() if m.value is None}


def test_what_cannot_be_decided_says_why():
    real, everything = walks(), {name.partition(".")[2] for name in METRICS}
    assert undecided(measured(real, None)) == everything
    assert undecided(measured(real, real.take(np.zeros(0, int)))) == everything
    assert undecided(measured(real, windows_of(walks(count=2), 1, without=("next_observations",)))) == everything
    rows = Dataset(SPEC, rows=real.transitions())
    assert undecided(measured(rows, real)) == {"returns", "error_growth"}
    assert undecided(measured(real, real, Truth())) == {"error_growth"}
    bare = Episodes(real.observations, real.final_observations, real.starts, {})
    assert undecided(measured(real, bare)) == {"returns", "error_growth"}
    assert undecided(measured(line(np.zeros((2, 41))), real)) == {"chain", "error_growth"}  # nothing real moves
    assert undecided(measured(real, real)) == set()


def test_stochastic_dynamics_have_no_oracle():
    real = linear_gaussian()
    found = measured(real, linear_gaussian(seed=1).episodes, known_truth(real.spec))
    assert undecided(found) == {"error_growth"}
