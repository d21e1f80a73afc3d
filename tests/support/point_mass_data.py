"""The point mass among walls as agents meet it in tests: who knows the way, datasets, fast rollouts, small agents."""

from functools import cache

import numpy as np

from synth_pipeline.agents.base import build
from synth_pipeline.agents.replay import Mixture
from synth_pipeline.data.containers import concatenate_episodes
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.envs.base import dataset_fields
from synth_pipeline.envs.point_mass import PointMass
from synth_pipeline.envs.rollout import RandomActor, rollout


class SideBySide:
    """Lanes of a deterministic toy, all stepped in one call of its kernel."""

    def __init__(self, toy, count):
        self._toy, self._states = toy, np.zeros((count, toy.spec.observation_size))

    def reset(self, lane, seed):
        self._states[lane] = self._toy.start(np.random.default_rng(seed))
        return self._states[lane].copy()

    def step(self, active, actions):
        outcome = self._toy.step(self._states[active], actions)
        self._states[active] = outcome.next_observations
        return outcome


class FastPointMass(PointMass):
    def lanes(self, count):
        return SideBySide(self, count)


class Guide:
    """PD control towards the next corner on the way around both walls."""

    def reset(self, n):
        pass

    def act(self, observations, rng):
        x, y = observations[:, :1], observations[:, 1:2]
        left = np.where(y > 0, [-0.27, 0.15], [-0.85, 0.2])
        between = np.where((y > -0.5) & (x < -0.15), [-0.27, -0.8], [0.5, -0.7])
        aim = np.where(x < -0.4, left, np.where(x < 0.15, between, PointMass.goal))
        return np.clip(4 * (aim - observations[:, :2]) - 4 * observations[:, 2:], -1, 1).astype(np.float32)

    def observe(self, rewards, costs, infos):
        pass


ENVIRONMENT = FastPointMass()
SPEC = DatasetSpec(
    dataset_id="toy/point-mass", fields=dataset_fields(ENVIRONMENT.spec), environment="toy-point-mass", horizon=100
)


def guided(episodes, seed, max_steps=None):
    return rollout(ENVIRONMENT, Guide(), episodes=episodes, seed=seed, lanes=episodes, max_steps=max_steps)


def random(episodes, seed, max_steps=None):
    actor = RandomActor(ENVIRONMENT.spec.action)
    return rollout(ENVIRONMENT, actor, episodes=episodes, seed=seed, lanes=episodes, max_steps=max_steps)


@cache
def tiny():
    """A few hundred rows; episodes that reach the goal, and ones that are cut."""
    return Dataset(SPEC, concatenate_episodes([guided(5, seed=0), random(8, seed=1, max_steps=25)]))


@cache
def half_good():
    """About as many rows of a controller that knows the way as of uniform actions."""
    return Dataset(SPEC, concatenate_episodes([guided(40, seed=0), random(18, seed=1)]))


def mean_return(actor, episodes=64):
    """Over the same starts for every actor."""
    return rollout(ENVIRONMENT, actor, episodes=episodes, seed=5, lanes=episodes).returns.mean()


def begun(kind, data=None, seed=0, **settings):
    """A small agent that has its data and has learned nothing yet."""
    small = {"gradient_steps": 20, "batch_size": 32, "width": 16, "depth": 1}
    return build({"kind": kind, **small, **settings}).begin(Mixture(data or tiny()), seed=seed)


def weights(agent, name):
    return {key: value.clone() for key, value in agent.networks[name].state_dict().items()}


def same(before, after):
    return all(bool((before[key] == after[key]).all()) for key in before)
