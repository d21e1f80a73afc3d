"""Every registered environment passes the suite."""

import pytest
from environment_suite import EnvironmentTests, KernelTests

from synth_pipeline import envs

STOCHASTIC = ["toy-bimodal-slip", "toy-heteroscedastic", "toy-jumps", "toy-linear-gaussian"]
STRICT = ["hopper", "pointmaze-large", "pointmaze-medium", "pointmaze-umaze", "toy-point-mass", *STOCHASTIC]
LOOSE = ["halfcheetah", "pendulum", "walker2d"]


def test_every_registered_environment_is_tested_here():
    assert sorted(STRICT + LOOSE) == envs.ENVIRONMENTS.names()


class TestEnvironments(EnvironmentTests):
    @pytest.fixture(scope="class", params=STRICT)
    @classmethod
    def environment(cls, request):
        return envs.make(request.param)


class TestHalfCheetah(EnvironmentTests):
    rounded_tolerance = 1e-3  # stiff contacts amplify the rounding of float32 rows
    kinematic_tolerance = 0.7  # 0.05 s a step, several contacts in each

    @pytest.fixture(scope="class")
    @classmethod
    def environment(cls):
        return envs.make("halfcheetah")


class TestWalker2d(EnvironmentTests):
    rounded_tolerance = 1e-4
    episodes = 60  # random actions leave few rows off the clip

    @pytest.fixture(scope="class")
    @classmethod
    def environment(cls):
        return envs.make("walker2d")


class TestPendulum(EnvironmentTests):
    exact_tolerance = 1e-6  # Gymnasium's Pendulum shows its state in float32 only

    @pytest.fixture(scope="class")
    @classmethod
    def environment(cls):
        return envs.make("pendulum")


class TestKernels(KernelTests):
    @pytest.fixture(scope="class", params=STOCHASTIC)
    @classmethod
    def environment(cls, request):
        return envs.make(request.param)
