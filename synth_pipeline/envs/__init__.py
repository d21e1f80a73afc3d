"""Environments as models of the world: make, reset to an observation, step, terminate, roll out. Torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synth_pipeline.registry import Registry

if TYPE_CHECKING:
    from synth_pipeline.envs.base import EnvironmentModel

ENVIRONMENTS = Registry(
    "environment",
    {
        "hopper": "synth_pipeline.envs.mujoco_locomotion:Hopper",
        "halfcheetah": "synth_pipeline.envs.mujoco_locomotion:HalfCheetah",
        "walker2d": "synth_pipeline.envs.mujoco_locomotion:Walker2d",
        "pointmaze-umaze": "synth_pipeline.envs.pointmaze:UMaze",
        "pointmaze-medium": "synth_pipeline.envs.pointmaze:MediumMaze",
        "pointmaze-large": "synth_pipeline.envs.pointmaze:LargeMaze",
        "pendulum": "synth_pipeline.envs.pendulum:Pendulum",
        "toy-linear-gaussian": "synth_pipeline.envs.toys:LinearGaussian",
        "toy-bimodal-slip": "synth_pipeline.envs.toys:BimodalSlip",
        "toy-heteroscedastic": "synth_pipeline.envs.toys:Heteroscedastic",
        "toy-jumps": "synth_pipeline.envs.toys:Jumps",
        "toy-point-mass": "synth_pipeline.envs.point_mass:PointMass",
    },
)


def make(name: str) -> EnvironmentModel:
    """The environment model called `name`.

    Raises:
        UnknownNameError: With the nearest known name.
    """
    model: EnvironmentModel = ENVIRONMENTS.load(name)()
    return model
