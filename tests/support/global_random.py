"""The global random states, which nothing of ours may read or change."""

import random

import numpy as np
import torch

TRIES = 5


def seed(value):
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002
    torch.manual_seed(value)


def states():
    return random.getstate(), str(np.random.get_state(legacy=False)), torch.get_rng_state().tolist()  # noqa: NPY002


def untouched(function, value):
    """What a function returns under seeded global states, and whether it leaves them as they were.

    Threads of Dask and Prefect, which other tests of the process have started, draw from `random` when they like: it is
    called a few times, and what draws by itself changes them every time.
    """
    for _ in range(TRIES):
        seed(value)
        before = states()
        found = function()
        if states() == before:
            return found, True
    return found, False
