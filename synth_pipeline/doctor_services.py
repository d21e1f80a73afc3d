"""What `synthpipe doctor` asks beyond packages and folders: the physics of the simulator, a GPU, Prefect, Dask.

Servers are asked by plain HTTP and TCP: nothing of Prefect or Dask is imported, and torch only when asked about.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

TIMEOUT_S = 2.0
PREFECT, DASK, CUDA = "PREFECT_API_URL", "DASK_SCHEDULER_ADDRESS", "CUDA_VISIBLE_DEVICES"
STEPS = 16
REPLAY_ERROR = 1e-9  # of float64 rows; exact but for rounding
PHYSICS_ERROR = 1e-6  # MuJoCo 3.3 and 3.4 agree to rounding, 3.5 is off by 1e-2
# Hopper-v5 reset with seed 0, after 16 steps of the actions of `simulator` below, by MuJoCo 3.3.0.
HOPPER: tuple[float, ...] = (1.1971282, -0.13702268, -0.12111363, -0.05804508, 0.04545636)
HOPPER += (-0.16871906, 0.00851923, -0.47985239, -0.19234688, -0.41279374, 0.28262921)


@dataclass(frozen=True)
class Check:
    """What one look found.

    Attributes:
        label: What was looked at.
        state: Whether it is as it should be; `fail` means that something will not work.
        text: What was found, and what to type where something is missing.
    """

    label: str
    state: Literal["ok", "warn", "fail"]
    text: str


def simulator() -> Check:
    """Roll Hopper for a few steps, replay them from its observations, and hold the last against what is known."""
    import numpy as np

    try:
        from synth_pipeline import envs

        hopper = envs.make("hopper")
    except ImportError as error:
        return Check("simulator", "fail", f"cannot be imported: {error}")
    actions = np.sin(np.outer(np.arange(1, STEPS + 1), [1, 2, 3])).astype(np.float32)
    lanes = hopper.lanes(1)
    observations = [lanes.reset(0, seed=0)]
    for action in actions:
        observations.append(lanes.step(np.zeros(1, np.int64), action[None]).next_observations[0])
    rolled = np.array(observations)
    replayed = np.abs(hopper.step(rolled[:-1], actions).next_observations - rolled[1:]).max()
    physics = np.abs(rolled[-1] - HOPPER).max()
    version = f"MuJoCo {hopper.provenance()['packages']['mujoco']}"
    if not replayed <= REPLAY_ERROR:
        found = f"{version} does not replay its own steps (error {replayed:.1g}, accepted {REPLAY_ERROR:g})"
    elif not physics <= PHYSICS_ERROR:
        found = f"{version} has other physics than the datasets (Hopper off by {physics:.1g} after {STEPS} steps)"
    else:
        return Check("simulator", "ok", f"{version} replays {STEPS} steps of Hopper, error {replayed:.0e}")
    return Check("simulator", "fail", f"{found}: pip install 'mujoco>=3.3,<3.5'")


def gpu(environment: Mapping[str, str] = os.environ) -> Check:
    """Whether a GPU that was asked for, or that is there, can be used by torch; torch must be importable."""
    import torch

    asked = environment.get(CUDA, "")
    wanted = asked not in ("", "-1", "NoDevFiles")
    if torch.cuda.is_available():
        return Check("gpu", "ok", f"{torch.cuda.device_count()} usable by torch")
    if not wanted and not Path("/dev/nvidia0").exists():
        return Check("gpu", "ok", "none, and none is asked for: networks run on the CPU")
    why = (
        "torch was built for CPUs: install the torch of the lock built for CUDA (see pytorch.org), or unset " + CUDA
        if torch.version.cuda is None
        else f"torch {torch.__version__} finds none: check nvidia-smi and the driver, or unset {CUDA}"
    )
    if wanted:
        return Check("gpu", "fail", f"{CUDA}={asked} asks for one, and {why}")
    return Check("gpu", "warn", f"there is one that is not used: {why}")


def prefect(environment: Mapping[str, str] = os.environ) -> Check:
    """Whether flows can run: on the server that is configured, or on one that they start themselves."""
    if find_spec("prefect") is None:
        return Check("prefect", "fail", "cannot be imported: pip install -r requirements.lock")
    url = environment.get(PREFECT, "")
    if not url:
        return Check("prefect", "ok", f"{PREFECT} is not set: flows start a server of their own")
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        with urlopen(f"{url.rstrip('/')}/health", timeout=TIMEOUT_S):
            return Check("prefect", "ok", f"{url} answers")
    except HTTPError as error:
        return Check("prefect", "warn", f"{url} answers {error.code} {error.reason}: is it the API, and the key set?")
    except (OSError, ValueError, HTTPException) as error:
        advice = f"prefect server start, or unset {PREFECT} for a server that flows start themselves"
        return Check("prefect", "fail", f"{PREFECT}={url} does not answer ({error}): {advice}")


def dask(environment: Mapping[str, str] = os.environ) -> Check:
    """Whether the scheduler that is configured can be reached; without one, tasks run in local processes."""
    address = environment.get(DASK, "")
    if not address:
        return Check("dask", "ok", f"{DASK} is not set: tasks run in processes of this machine (--workers)")
    try:
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
        with socket.create_connection((parts.hostname or "", parts.port or 8786), timeout=TIMEOUT_S):
            return Check("dask", "ok", f"{address} accepts connections")
    except (OSError, ValueError) as error:
        advice = f"dask scheduler, or unset {DASK} for processes of this machine"
        return Check("dask", "fail", f"{DASK}={address} cannot be reached ({error}): {advice}")
