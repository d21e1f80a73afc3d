"""Every registered generator passes the suite."""

import sys

import numpy as np
from generator_suite import GeneratorTests

from synth_pipeline.generators import GENERATORS


def test_every_registered_generator_is_tested_here():
    tested = [c.kind for c in vars(sys.modules[__name__]).values() if isinstance(c, type) and hasattr(c, "kind")]
    assert sorted(tested) == GENERATORS.names()


class TestDuplicate(GeneratorTests):
    kind = "duplicate"

    def made_from(self, sample, source, target):
        names = set(sample.columns) - {"source_episode", "source_step"}
        assert all(np.array_equal(sample[name], source[name]) for name in names)


class TestNoise(GeneratorTests):
    kind = "noise"
    quick = {"scale": 0.5}  # noqa: RUF012

    def made_from(self, sample, source, target):
        for name in ("actions", "rewards"):
            assert np.array_equal(sample[name], source[name])
        for name in ("observations", "next_observations"):
            moved = np.abs(sample[name] - source[name]) / source[name].std(axis=0)
            assert 0.2 < moved.mean() < 0.6  # E|0.5 x| = 0.4


class TestSmote(GeneratorTests):
    kind = "smote"

    def made_from(self, sample, source, target):
        for name in ("observations", "next_observations", "rewards"):
            low, high = np.minimum(source[name], target[name]), np.maximum(source[name], target[name])
            margin = 1e-6 * (1 + np.abs(source[name]))
            assert ((sample[name] >= low - margin) & (sample[name] <= high + margin)).all()
        gap = (target["observations"] - source["observations"]).astype(np.float64)
        weight = (sample["observations"] - source["observations"]) / np.where(np.abs(gap) < 1e-3, np.nan, gap)
        assert np.nanmax(np.nanstd(weight, axis=1)) < 1e-2  # one weight for the whole row


class TestCopula(GeneratorTests):
    kind = "copula"


class TestVAE(GeneratorTests):
    kind = "vae"
    quick = {"gradient_steps": 250, "width": 32, "batch_size": 64, "learning_rate": 3e-3}  # noqa: RUF012


FEW = {"gradient_steps": 200, "batch_size": 64, "warmup_steps": 20, "precision": "float32", "log_every": 50}
FEW_MEAN = {"residual": "none", "regressor": {"width": 32, "depth": 2, "members": 2, "trainer": FEW}}


class TestSynthER(GeneratorTests):
    kind = "synther"
    quick = {  # noqa: RUF012
        "network": {"width": 32, "depth": 2},
        "sampler": {"num_steps": 8},
        "trainer": {**FEW, "ema_decay": 0.98},
        "dynamics": FEW_MEAN,
        "rewards": FEW_MEAN,
    }
