"""Small datasets rolled out in known environments."""

from functools import cache

import numpy as np

from synth_pipeline import envs
from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.envs.base import dataset_fields


@cache
def roll(name, episodes=20, steps=50, seed=0):
    """Episodes of uniformly random actions, with the environment's own transitions; resets where it terminates."""
    model, rng = envs.make(name), np.random.default_rng(seed)
    environment, parts = model.bare(), []
    high = np.asarray(model.spec.action.high)
    for episode in range(episodes):
        observation, _ = environment.reset(seed=1000 * seed + episode)
        observations, actions, rewards, ended = [observation], [], [], []
        while len(actions) < steps and not (ended and ended[-1]):
            actions.append(rng.uniform(-high, high).astype(np.float32))
            observation, reward, terminated, _, _ = environment.step(actions[-1])
            observations.append(observation)
            rewards.append(reward)
            ended.append(terminated)
        parts.append((np.array(observations, np.float32), np.array(actions), np.float32(rewards), np.array(ended)))
    environment.close()
    return Dataset(
        DatasetSpec(dataset_id="test/rolled", fields=dataset_fields(model.spec), environment=name), _flat(parts)
    )


def _flat(parts):
    starts = np.cumsum([0] + [len(actions) for _, actions, _, _ in parts]).astype(np.int64)
    columns = {
        "actions": np.concatenate([actions for _, actions, _, _ in parts]),
        "rewards": np.concatenate([rewards for _, _, rewards, _ in parts]),
        "terminations": np.concatenate([ended for _, _, _, ended in parts]),
    }
    observations = np.concatenate([states[:-1] for states, _, _, _ in parts])
    return Episodes(observations, np.stack([states[-1] for states, _, _, _ in parts]), starts, columns)


def linear_gaussian(episodes=60, steps=50, seed=0):
    """Rows of the toy whose kernel is one Gaussian."""
    return roll("toy-linear-gaussian", episodes, steps, seed)
