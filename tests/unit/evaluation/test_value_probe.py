"""True values against closed forms and real rollouts; fitted Q evaluation against a chain that is solved by hand."""

import json
import math

import numpy as np
import pytest
import torch

from synth_pipeline import envs
from synth_pipeline.agents.replay import Mixture
from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.envs.base import EnvironmentModel, EnvironmentSpec, Outcome, box, dataset_fields
from synth_pipeline.envs.point_mass import PointMass
from synth_pipeline.envs.rollout import rollout
from synth_pipeline.errors import CheckpointError, ConfigError, SourceError, TrainingDivergedError, UnknownNameError
from synth_pipeline.evaluation.monte_carlo import (
    MonteCarlo,
    fixed_policy,
    held_out_states,
    monte_carlo_values,
    walk_length,
)
from synth_pipeline.evaluation.value_probe import FQE, FQEConfig, agreement, probe_values
from synth_pipeline.sources import catalog


def still(observations):
    return np.zeros((len(observations), 2), np.float32)


# --- true values -----------------------------------------------------------------------------------------------------


def test_walks_are_as_long_as_the_discount_asks_for():
    assert walk_length(0.99, None) == 459
    assert 0.99**459 < 0.01 < 0.99**458
    assert walk_length(0.9, 60) == 60
    with pytest.raises(ConfigError, match="still counts") as error:
        walk_length(0.99, 100)
    assert "at least 459 steps" in str(error.value)
    with pytest.raises(ConfigError, match="discount between 0 and 1"):
        walk_length(1.0, 100)


def test_a_mass_at_rest_pays_its_distance_for_ever():
    states = np.array([[0.5, 0.0, 0.0, 0.0], [-0.5, 0.5, 0.0, 0.0]])
    found = monte_carlo_values(PointMass(), states, still, discount=0.9)
    distance = np.linalg.norm(states[:, :2] - PointMass.goal, axis=1)
    np.testing.assert_allclose(found.values, -distance * (1 - 0.9**44) / (1 - 0.9))
    assert (found.horizon, found.truncated, found.left_out, found.rollouts) == (44, 1, 0, 1)
    assert found.tail == 0.9**44 < 0.01
    assert found.errors.tolist() == [0, 0]
    assert (found.clipped_steps, found.clipped_walks) == (0, 0)


def test_a_walk_ends_where_the_episode_does_and_not_at_a_time_limit():
    """Straight up to the goal in four steps of 0.05, beside a mass at rest that outlives the time limit of 100."""
    states = np.array([[0.7, 0.31, 0.0, 0.5], [0.5, 0.0, 0.0, 0.0]])
    found = monte_carlo_values(PointMass(), states, still, discount=0.97)
    assert found.horizon > 100
    distances = 0.39 - 0.05 * np.arange(1, 5)
    assert found.values[0] == pytest.approx(-np.sum(0.97 ** np.arange(4) * distances))
    assert found.values[1] == pytest.approx(-np.hypot(0.2, 0.7) * (1 - 0.97**found.horizon) / 0.03)
    assert found.truncated == 0.5


def test_stochastic_values_agree_with_the_moments_of_a_linear_system():
    """E |s'|^2 + 0.1 |K s|^2 from the second moments of s' = (A + B K) s + noise, step by step."""
    toy, gain, discount = envs.make("toy-linear-gaussian"), np.array([[-0.2, 0.0, 0.1], [0.1, -0.2, 0.0]]), 0.8
    states = 0.3 * np.random.default_rng(0).normal(size=(30, 3))
    closed, noise = toy.A + toy.B @ gain, toy.L @ toy.L.T
    horizon = walk_length(discount, None)
    truth, moments = np.zeros(30), np.einsum("ni,nj->nij", states, states)
    for step in range(horizon):
        cost = 0.1 * np.einsum("ij,njk,ik->n", gain, moments, gain)
        moments = closed @ moments @ closed.T + noise
        truth -= discount**step * (np.trace(moments, axis1=1, axis2=2) + cost)
    found = monte_carlo_values(toy, states, lambda s: s @ gain.T, discount=discount, rollouts=200, seed=1)
    z = (found.values - truth) / found.errors
    assert found.rollouts == 200
    assert np.abs(z).max() < 4
    assert 0.5 < z.std() < 1.5
    once = monte_carlo_values(toy, states, lambda s: s @ gain.T, discount=discount, seed=1)
    assert np.isnan(once.errors).all()
    assert once.plain()["error"] is None


def test_a_runner_is_walked_on_from_what_its_observations_hide():
    """From the middle of episodes that hit the clip again and again, values are the returns that really followed."""
    environment, discount = envs.make("hopper"), 0.95
    policy = fixed_policy(environment, "medium")
    real = rollout(environment, Actor(policy), episodes=4, seed=0, max_steps=200)
    starts = [start + 60 for start, length in zip(real.starts[:-1], real.lengths, strict=True) if length == 200]
    followed = [np.sum(discount ** np.arange(130) * real["rewards"][row : row + 130]) for row in starts]
    assert len(starts) > 1
    assert not environment.resettable(real.observations[np.add.outer(starts, np.arange(130)).ravel()]).all()
    states = np.concatenate([real.observations[starts], np.append(real.observations[0, :-1], 10.0)[None]])
    found = monte_carlo_values(environment, states, policy, discount=discount, horizon=130)
    assert found.left_out == 1  # what stands at its clip cannot be reset
    np.testing.assert_allclose(found.values, followed, atol=2e-3)
    assert found.clipped_steps == 0


def test_walks_of_one_state_start_within_the_rounding_of_float32_and_tell_chaos_from_order():
    environment = envs.make("halfcheetah")
    policy = fixed_policy(environment, "medium")
    real = rollout(environment, Actor(policy), episodes=1, seed=0, max_steps=60)
    states = real.observations[20:60:8]
    alone, several = (monte_carlo_values(environment, states, policy, rollouts=n) for n in (1, 4))
    assert alone.errors.tolist() == [0] * 5
    assert (several.rollouts, len(several.values)) == (4, 5)
    assert several.errors.max() > 1, "459 steps make returns of their own of the last bit"
    assert several.plain()["error"] == pytest.approx(np.sqrt(np.mean(several.errors**2)))
    at_rest = np.array([[0.5, 0.0, 0.0, 0.0], [-0.5, 0.5, 0.0, 0.0]])
    still_values = [monte_carlo_values(PointMass(), at_rest, still, discount=0.9, rollouts=n).values for n in (1, 4)]
    np.testing.assert_allclose(*still_values, rtol=1e-6)


class Actor:
    def __init__(self, policy):
        self.policy = policy

    def reset(self, n):
        pass

    def act(self, observations, rng):
        return self.policy(observations)

    def observe(self, rewards, costs, infos):
        pass


class Clipped(EnvironmentModel):
    """x' = x + 0.3, shown up to 1; pays 1; from below -0.9 the simulation diverges."""

    spec = EnvironmentSpec(
        name="clipped", family="test", observation_size=1, action=box(1), horizon=100, dt=1.0, observation_clip=(1.0,)
    )

    def bare(self):
        raise NotImplementedError

    def _step(self, observations, actions, rng):
        after = np.where(observations < -0.9, np.nan, np.clip(observations + 0.3, -9, 1))
        return Outcome(after, np.ones(len(after)), np.zeros(len(after), bool))


def test_steps_from_the_clip_are_counted_and_walks_that_diverge_left_out():
    still_1 = np.zeros((1, 1), np.float32)
    states = np.array([[0.5], [-0.5], [-0.95], [1.0]])
    found = monte_carlo_values(Clipped(), states, lambda s: np.repeat(still_1, len(s), 0), discount=0.5)
    assert found.horizon == 7
    np.testing.assert_allclose(found.values, [2 - 2**-6, 2 - 2**-6])
    assert found.left_out == 2
    # 0.5 0.8 1 1 1 1 1 | -0.5 -0.2 0.1 0.4 0.7 1 1 | -0.95, which diverges
    assert found.clipped_steps == pytest.approx(7 / 15)
    assert found.clipped_walks == pytest.approx(2 / 3)
    assert json.loads(json.dumps(found.plain()))["left_out"] == 2
    with pytest.raises(SourceError, match="no state can be walked from"):
        monte_carlo_values(Clipped(), states[2:], lambda s: np.repeat(still_1, len(s), 0), discount=0.5)


def test_fixed_policies_are_the_shipped_ones_by_their_mean():
    environment = envs.make("pendulum")
    states = np.random.default_rng(0).normal(size=(5_000, 3)).astype(np.float32)
    best = catalog.get("pendulum/expert").references.best_policy.environment_steps
    for which, same in (("best", best), ("medium", 2_300)):
        actions = fixed_policy(environment, which)(states)
        np.testing.assert_allclose(actions, fixed_policy(environment, same)(states))
        np.testing.assert_array_equal(actions, fixed_policy(environment, which)(states))
        assert np.abs(actions).max() <= 2
    maze = envs.make("pointmaze-umaze")
    start = np.array([maze.lanes(1).reset(0, 3)])
    np.testing.assert_array_equal(fixed_policy(maze)(start), fixed_policy(maze)(start))
    for name in ("toy-linear-gaussian", "toy-point-mass"):
        with pytest.raises(UnknownNameError, match="no policy 'best'"):
            fixed_policy(envs.make(name))
    with pytest.raises(UnknownNameError):
        fixed_policy(maze, "medium")


def test_states_are_drawn_once_each_from_what_can_be_reset():
    observations = np.linspace(-1.5, 1.5, 301, dtype=np.float32)[:, None]
    episodes = Episodes(observations, observations[-1:], np.array([0, 301]), {"actions": np.zeros((301, 1))})
    data = Dataset(DatasetSpec(dataset_id="clipped", fields=dataset_fields(Clipped.spec)), episodes)
    found = held_out_states(Clipped(), data, count=100, seed=0)
    assert len(np.unique(found)) == 100
    assert np.abs(found).max() < 0.99
    np.testing.assert_array_equal(found, held_out_states(Clipped(), data, count=100, seed=0))
    assert not np.array_equal(found, held_out_states(Clipped(), data, count=100, seed=1))
    with pytest.raises(SourceError, match="too few held-out states"):
        held_out_states(Clipped(), data, count=200, seed=0)


# --- fitted Q evaluation ---------------------------------------------------------------------------------------------

STATES, DISCOUNT = 4, 0.9
SMALL = FQEConfig(gradient_steps=1_200, batch_size=64, discount=DISCOUNT, width=32, learning_rate=3e-3, log_every=200)
TRUTH = DISCOUNT ** np.arange(STATES - 1, -1, -1)  # of going right: the reward of 1 stands at the end


def chain(rows=2_000, seed=0):
    """Four states in a row; a > 0 goes right, else left; right of the last one ends and pays. Actions are random.

    Episodes are cut after 25 steps, and a cut is no end.
    """
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (rows, 1)).astype(np.float32)
    places, following, ends, cuts = (np.zeros(rows, int) for _ in range(4))
    place, since = 0, 0
    for row in range(rows):
        places[row], since = place, since + 1
        after = place + 1 if actions[row] > 0 else max(place - 1, 0)
        following[row], ends[row] = after, after == STATES
        cuts[row] = not ends[row] and (since == 25 or row == rows - 1)
        place, since = (rng.integers(STATES), 0) if ends[row] or cuts[row] else (after, since)
    shown = np.vstack([np.eye(STATES), np.zeros((1, STATES))]).astype(np.float32)
    last = np.flatnonzero(ends | cuts)
    columns = {"actions": actions, "rewards": 1.0 * ends, "terminations": ends == 1, "truncations": cuts == 1}
    starts = np.concatenate([[0], last + 1])
    spec = DatasetSpec(dataset_id="chain", fields=transition_fields(STATES, box(1)))
    return Dataset(spec, Episodes(shown[places], shown[following[last]], starts, columns))


def right(observations):
    return np.ones((len(observations), 1), np.float32)


def left(observations):
    return -right(observations)


def truth():
    states = np.eye(STATES, dtype=np.float32)
    return MonteCarlo(states, TRUTH, np.zeros(STATES), DISCOUNT, 44, 1, 0, 0.0, 0.0, 0.0)


def test_values_of_a_chain_are_found():
    """Those of the policy, not of the data, whose values are far lower; time limits are no ends."""
    found = probe_values(FQE(right, SMALL), Mixture(chain()), truth(), seed=0)
    np.testing.assert_allclose(found.estimates, TRUTH, atol=0.04)
    assert found.agreement.pearson.value > 0.99
    assert found.agreement.rmse.value < 0.4
    assert json.loads(json.dumps(found.plain()))["truth"]["horizon"] == 44


def test_the_discount_is_that_of_the_truth():
    other = FQE(right, SMALL.replace(discount=0.5))
    with pytest.raises(ConfigError, match=r"0\.5"):
        probe_values(other, Mixture(chain(200)), truth(), seed=0)


@pytest.mark.parametrize(("factor", "why"), [(1e4, "could sum to"), (np.nan, "could sum to"), (0.0, "equal")])
def test_values_that_exploded_are_no_estimates(monkeypatch, factor, why):
    """Finite, so no loss stops them; averaged with others they would be all of the mean."""
    values, few = FQE.values, SMALL.replace(gradient_steps=2, log_every=1)
    monkeypatch.setattr(FQE, "values", lambda self, states: values(self, states) * factor)
    fqe = FQE(right, few)
    with pytest.raises(TrainingDivergedError, match=why):
        probe_values(fqe, Mixture(chain(200)), truth(), seed=0)
    assert fqe.steps == 2


def test_next_actions_are_the_policys_in_real_and_synthetic_rows():
    made = chain(300, seed=1).transitions().with_columns(rewards=np.full(300, 5.0))
    fqe = FQE(left, SMALL).begin(Mixture(chain(300), made, share=0.25), seed=0)
    rows = fqe.replay.draw(fqe.rng).critic
    assert len(rows) == 64
    assert (rows.next_actions == -1).all()
    assert (rows.continued == 1).all()
    units = (1 - DISCOUNT) / np.sqrt(np.mean(chain(300).transitions()["rewards"] ** 2.0))
    assert set(np.round(rows.rewards[:48].numpy() / units, 4)) == {0, 1}
    assert set(np.round(rows.rewards[48:].numpy() / units, 4)) == {5}


def test_targets_are_the_mean_of_the_critics():
    fqe = FQE(right, SMALL.replace(members=3)).begin(Mixture(chain(200)), seed=0)
    with torch.no_grad():
        slow = fqe.networks["target_critics"]
        slow.layers[-1].weight.zero_()
        slow.layers[-1].bias.copy_(torch.tensor([1.0, 2.0, 6.0]).view(3, 1, 1))
    rows = fqe.replay.all_real()
    torch.testing.assert_close(fqe._target(rows), rows.rewards + 3 * rows.discounts)
    assert sorted(rows.discounts.unique().tolist()) == [0, pytest.approx(DISCOUNT)]
    np.testing.assert_allclose(fqe.values(np.eye(STATES, dtype=np.float32)), 3 / fqe.scaling.reward_factor, rtol=1e-6)


def test_a_resumed_probe_ends_with_the_same_bytes(tmp_path):
    config, data, states = SMALL.replace(gradient_steps=40, log_every=10), Mixture(chain(300)), np.eye(STATES)
    whole = FQE(right, config).fit(data, seed=0)
    FQE(right, config).begin(data, seed=0).train(17, checkpoint=tmp_path / "state.safetensors")
    resumed = FQE(right, config).fit(data, seed=0, checkpoint=tmp_path / "state.safetensors")
    np.testing.assert_array_equal(whole.values(states), resumed.values(states))
    with pytest.raises(CheckpointError, match="another run"):
        FQE(left, config).fit(data, seed=0, checkpoint=tmp_path / "state.safetensors")


def test_it_acts_as_the_policy_does():
    fqe = FQE(right, SMALL).begin(Mixture(chain(200)), seed=0)
    np.testing.assert_array_equal(fqe.act(np.eye(STATES, dtype=np.float32)), right(np.eye(STATES)))


# --- agreement -------------------------------------------------------------------------------------------------------


def test_agreement_by_hand():
    true = np.array([1.0, 2.0, 3.0, 4.0])
    found = agreement(2 * true - 1, true)
    spread = math.sqrt(1.25)
    assert found.pearson.value == pytest.approx(1)
    assert found.spearman.value == pytest.approx(1)
    assert found.bias.value == pytest.approx(1.5 / spread)
    assert found.rmse.value == pytest.approx(math.sqrt((0 + 1 + 4 + 9) / 4) / spread)
    assert (found.spread, found.states) == (pytest.approx(spread), 4)
    flipped = agreement(-(true**3), true)
    assert (flipped.spearman.value, found.plain()["bias"]) == (pytest.approx(-1), found.bias.value)
    assert agreement(np.full(4, true.mean()) + 1e-9 * true, true).rmse.value == pytest.approx(1)


def test_standard_errors_are_those_of_the_sampling():
    rng = np.random.default_rng(0)
    true = rng.normal(size=500)
    found = agreement(0.8 * true + 0.6 * rng.normal(size=500), true)
    assert found.pearson.error == pytest.approx((1 - 0.8**2) / math.sqrt(500), rel=0.2)
    assert found.bias.error == pytest.approx(math.sqrt(0.4) / math.sqrt(500), rel=0.2)
    assert found.spearman.error < 0.03


@pytest.mark.parametrize("estimates", [[1.0, math.nan, 2.0], [1.0, 1.0, 1.0]])
def test_values_that_cannot_be_compared_are_refused(estimates):
    with pytest.raises(SourceError, match="cannot be compared"):
        agreement(np.array(estimates), np.array([1.0, 2.0, 3.0]))
