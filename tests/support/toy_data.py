"""Small datasets with a known structure."""

import numpy as np

from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec, transition_fields

ACTION = Field(name="actions", shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0), clip=True)
SPEC = DatasetSpec(dataset_id="toy/linear", fields=transition_fields(3, ACTION))


def random_episodes(lengths, seed=0, observation_size=3, action_size=2):
    """s' = 0.9 s + 0.1 (a, 0) + noise; the even episodes end by termination, the odd ones by truncation."""
    rng = np.random.default_rng(seed)
    total, count = int(np.sum(lengths)), len(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    actions = rng.uniform(-1, 1, (total, action_size)).astype(np.float32)
    observations = np.empty((total, observation_size), np.float32)
    final = np.empty((count, observation_size), np.float32)
    drive = np.zeros((total, observation_size))
    drive[:, : min(action_size, observation_size)] = actions[:, :observation_size]
    for episode in range(count):
        state = rng.standard_normal(observation_size)
        for row in range(starts[episode], starts[episode + 1]):
            observations[row] = state
            state = 0.9 * state + 0.1 * drive[row] + 0.02 * rng.standard_normal(observation_size)
        final[episode] = state
    terminations, truncations = np.zeros(total, bool), np.zeros(total, bool)
    last = starts[1:] - 1
    terminations[last[::2]] = True
    truncations[last[1::2]] = True
    columns = {
        "actions": actions,
        "rewards": -np.sum(observations**2, axis=1),
        "terminations": terminations,
        "truncations": truncations,
    }
    return Episodes(observations, final, starts, columns)


def toy_dataset(lengths=(20, 31, 1, 18, 25, 40, 12), seed=0):
    """Episodes of a linear system; no environment is known for it."""
    return Dataset(SPEC, random_episodes(lengths, seed))


def toy_rows(lengths=(20, 31, 1, 18, 25, 40, 12), seed=0):
    """The same rows without their episodes."""
    return Dataset(SPEC, rows=random_episodes(lengths, seed).transitions())


def plain_rows(count, **changes):
    """Columns of rows that any file may hold; `changes` replaces some."""
    columns = {
        "observations": np.zeros((count, 2), np.float32),
        "actions": np.zeros((count, 1), np.float32),
        "rewards": np.zeros(count, np.float32),
        "terminations": np.zeros(count, bool),
        "truncations": np.arange(count) % 50 == 49,
    }
    return {**columns, **changes}
