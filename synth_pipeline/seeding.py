"""Randomness is an address: (seed, stage, shard, attempt), never a global state.

Two processes that draw at the same address draw the same numbers, so the bytes of a store do not depend on
how many workers wrote it, in which order, or how often one of them died.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stage(IntEnum):
    """The first coordinate of an address. Numbers are part of every store's identity: append, never renumber."""

    SPLIT = 0
    COLLECT = 1
    TRAIN = 2
    GENERATE = 3
    VALIDATE = 4
    EXPORT = 5
    EVALUATE = 6
    SHUFFLE = 7


def sequence(seed: int, stage: Stage, *address: int) -> np.random.SeedSequence:
    """The seed sequence at `(stage, *address)` under `seed` (NumPy's `SeedSequence` spawn key)."""
    return np.random.SeedSequence(seed, spawn_key=(int(stage), *address))


def stream(seed: int, stage: Stage, *address: int) -> np.random.Generator:
    """A generator of random numbers that belongs to one address.

    Args:
        seed: Seed of the run, >= 0.
        stage: Which stage draws.
        address: Further coordinates, usually `(shard, attempt)` or `(task, episode)`.
    """
    return np.random.Generator(np.random.PCG64(sequence(seed, stage, *address)))


def integer_seed(seed: int, stage: Stage, *address: int) -> int:
    """A 63-bit integer seed at an address, for libraries that take integers (torch, Gymnasium)."""
    high, low = sequence(seed, stage, *address).generate_state(2, dtype=np.uint32)
    return ((int(high) << 32) | int(low)) >> 1
