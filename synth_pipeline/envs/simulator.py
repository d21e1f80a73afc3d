"""MuJoCo without Gymnasium's per-step overhead: one batched step from given states, and running episodes in lanes.

The physics is Gymnasium's to the byte: the same model, `mj_step` with the same number of substeps. Left out are the
checks, the info dictionaries, and `mj_rnePostConstraint`, which only fills contact forces that nothing here reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from mujoco import rollout

from synth_pipeline.data.fields import Array
from synth_pipeline.envs.base import Floats, Indices
from synth_pipeline.machine import usable_threads

_CHUNK = 4096
_ROWS_PER_THREAD = 64  # fewer are stepped before another thread has started


class Simulator:
    """The compiled model of one Gymnasium MuJoCo environment, for steps from arbitrary states.

    Args:
        environment: Gives the model and the substeps of one step.
        threads: Threads of a large batch; they change nothing but the time it takes. None: `usable_threads()`.
    """

    def __init__(self, environment: MujocoEnv, threads: int | None = None) -> None:
        self._model = environment.model
        self._substeps = environment.frame_skip
        self._data = [mujoco.MjData(self._model) for _ in range(threads or usable_threads())]

    def step(self, qpos: Floats, qvel: Floats, controls: Array) -> tuple[Floats, Floats]:
        """Positions `[n, nq]` and velocities `[n, nv]` one step after; rows that diverge are NaN.

        Args:
            qpos: `[n, nq]` positions.
            qvel: `[n, nv]` velocities.
            controls: `[n, nu]`; the actuators clamp them to their range.
        """
        states = np.concatenate([np.zeros((len(qpos), 1)), qpos, qvel], axis=1)
        with _quiet():
            parts = [
                self._advance(states[start : start + _CHUNK], controls[start : start + _CHUNK])
                for start in range(0, len(states), _CHUNK)
            ]
        after = np.concatenate(parts) if parts else states
        nq = self._model.nq
        return after[:, 1 : 1 + nq], after[:, 1 + nq :]

    def _advance(self, states: Floats, controls: Array) -> Floats:
        held = np.repeat(controls.astype(np.float64)[:, None], self._substeps, axis=1)
        threads = max(1, min(len(self._data), len(states) // _ROWS_PER_THREAD))
        trajectories, _ = rollout.rollout(self._model, self._data[:threads], states, held)
        after: Floats = trajectories[:, -1]
        # MuJoCo resets a simulation that blows up to the initial pose; the clock, which then restarts, betrays it.
        expected = self._substeps * self._model.opt.timestep
        after[np.abs(after[:, 0] - expected) > 0.5 * self._model.opt.timestep] = np.nan
        return after


@contextmanager
def _quiet() -> Iterator[None]:
    # Without a handler MuJoCo writes a log file into the working directory; divergence is reported as NaN rows instead.
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


class SimulatorLanes:
    """Several simulations of one model, started where a Gymnasium environment starts.

    Args:
        environment: Gives the model and the substeps of one step; its reset starts the episodes.
        count: Number of lanes.
    """

    def __init__(self, environment: MujocoEnv, count: int) -> None:
        self._environment = environment
        self._model = environment.model
        self._data = [mujoco.MjData(self._model) for _ in range(count)]
        # Views into MuJoCo's memory, fetched once: asking for data.qpos costs more than reading it.
        self._controls = [data.ctrl for data in self._data]
        self._qpos = [data.qpos for data in self._data]
        self._qvel = [data.qvel for data in self._data]

    def load(self, lane: int) -> None:
        """Start one lane where the Gymnasium environment stands after its reset."""
        source = self._environment.data
        mujoco.mj_resetData(self._model, self._data[lane])
        self._qpos[lane][:], self._qvel[lane][:] = source.qpos, source.qvel
        mujoco.mj_forward(self._model, self._data[lane])

    def clip_velocities(self, active: Indices, limit: float) -> None:
        """Clip the velocities of some lanes and recompute what depends on them."""
        for lane in active:
            np.clip(self._qvel[lane], -limit, limit, out=self._qvel[lane])
            mujoco.mj_forward(self._model, self._data[lane])

    def advance(self, active: Indices, controls: Array) -> None:
        """Step some lanes by one environment step under `controls [k, nu]`."""
        step, model, substeps = mujoco.mj_step, self._model, self._environment.frame_skip
        for lane, control in zip(active.tolist(), controls, strict=True):
            self._controls[lane][:] = control
            step(model, self._data[lane], substeps)

    def state(self, active: Indices) -> tuple[Floats, Floats]:
        """Copies of the positions `[k, nq]` and velocities `[k, nv]` of some lanes."""
        lanes = active.tolist()
        return np.array([self._qpos[lane] for lane in lanes]), np.array([self._qvel[lane] for lane in lanes])
