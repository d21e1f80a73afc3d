"""Threads change nothing but the time a simulator takes, and worker processes are not given more than they may have."""

import os

import numpy as np
import pytest
from mujoco import rollout

from synth_pipeline import envs
from synth_pipeline.envs.simulator import Simulator
from synth_pipeline.machine import usable_threads


def environment(name):
    bare = envs.make(name).bare()
    return bare.maze.point_env if name.startswith("pointmaze") else bare


def states(world, n, seed=0):
    """Some are far beyond what the simulator can integrate."""
    rng = np.random.default_rng(seed)
    qpos = world.init_qpos + 0.1 * rng.standard_normal((n, world.model.nq))
    qvel = rng.standard_normal((n, world.model.nv))
    qvel[5::50] = 1e12
    return qpos, qvel, rng.uniform(-1, 1, (n, world.model.nu)).astype(np.float32)


@pytest.mark.parametrize("name", ["hopper", "halfcheetah", "walker2d", "pointmaze-umaze"])
def test_every_number_of_threads_gives_the_same_bytes(name):
    world = environment(name)
    rows = states(world, 5000)  # more than the simulator takes at once
    found = [b"".join(part.tobytes() for part in Simulator(world, threads).step(*rows)) for threads in (1, 2, 3, 7)]
    assert len(set(found)) == 1
    qpos, _ = Simulator(world, 2).step(*rows)
    diverged = np.isnan(qpos).any(axis=1)
    assert diverged[5::50].all() == (not name.startswith("pointmaze"))  # its ball has nothing to diverge on
    assert not diverged[6::50].any()


def test_a_row_does_not_depend_on_its_neighbours():
    world = environment("hopper")
    rows, order = states(world, 600), np.random.default_rng(1).permutation(600)
    simulator = Simulator(world, 2)
    qpos, qvel = simulator.step(*rows)
    shuffled = simulator.step(*(part[order] for part in rows))
    np.testing.assert_array_equal(shuffled, (qpos[order], qvel[order]))


@pytest.mark.parametrize(("rows", "threads"), [(1, 1), (127, 1), (128, 2), (300, 4), (4000, 4)])
def test_only_large_batches_use_threads(monkeypatch, rows, threads):
    world, used, real = environment("hopper"), [], rollout.rollout
    monkeypatch.setattr(
        rollout, "rollout", lambda model, data, *rest: used.append(len(data)) or real(model, data, *rest)
    )
    Simulator(world, 4).step(*states(world, rows))
    assert used == [threads]


@pytest.mark.parametrize(("said", "threads"), [(None, 8), ("", 8), ("1", 1), ("2", 2), ("64", 8), ("0", 1), ("4,2", 8)])
def test_openmp_s_limit_holds_here_too(monkeypatch, said, threads):
    """Workers of `scale.local` have it in their environment."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS")
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert usable_threads() == threads


def test_a_simulator_takes_what_it_may_use(monkeypatch):
    world, used, real = environment("hopper"), [], rollout.rollout
    monkeypatch.setattr(
        rollout, "rollout", lambda model, data, *rest: used.append(len(data)) or real(model, data, *rest)
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(3), raising=False)
    for limit in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        Simulator(world).step(*states(world, 500))
    assert used == [1, 3]
