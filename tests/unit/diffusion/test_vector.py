"""A diffusion model of vectors: moments, conditions, guidance, chunks, precision, warm starts."""

import numpy as np
import pytest
import torch

from synth_pipeline.diffusion.device import native_bfloat16, resolve_precision
from synth_pipeline.diffusion.loop import Phases
from synth_pipeline.diffusion.vector import VectorConfig, VectorDiffusion
from synth_pipeline.errors import ConfigError, SourceError

QUICK = {
    "network": {"width": 32, "depth": 2},
    "sampler": {"num_steps": 12, "sigma_min": 0.02, "sigma_max": 20},
    "trainer": {"gradient_steps": 600, "batch_size": 128, "learning_rate": 3e-3, "precision": "float32"},
}


def fitted(x, given=None, **changes):
    model = VectorDiffusion(VectorConfig.parse({**QUICK, **changes}), device="cpu")
    model.fit(x, seed=0, given=given, dropout=0.2 if given is not None else 0.0)
    return model


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def correlated():
    return rng().multivariate_normal([3.0, -1.0], [[4.0, 1.5], [1.5, 1.0]], 4000).astype(np.float32)


@pytest.fixture(scope="module")
def conditional():
    """x is y plus a little noise."""
    y = rng(1).uniform(-2, 2, (4000, 1))
    return fitted((y + 0.2 * rng(2).standard_normal((4000, 1))).astype(np.float32), given=y)


def test_a_gaussian_is_learned_with_its_correlation(correlated):
    drawn = fitted(correlated).sample(4000, rng())
    assert drawn.dtype == np.float32
    assert np.abs(drawn.mean(0) - correlated.mean(0)).max() < 0.15
    assert np.abs(np.cov(drawn.T) - np.cov(correlated.T)).max() < 0.5


@pytest.mark.parametrize(("matched", "spread"), [(True, 1.0), (False, 3 / 10**0.5)])
def test_the_start_has_the_spread_of_data_and_noise(correlated, monkeypatch, matched, spread):
    """With the exact denoiser of a standard normal, x_0 = x_T / (1 + sigma_max^2)^(1/2): nothing else is left out."""
    short = {"num_steps": 300, "sigma_min": 0.001, "sigma_max": 3.0, "matched_start": matched}
    model = fitted(correlated, sampler=short, trainer={**QUICK["trainer"], "gradient_steps": 1})
    monkeypatch.setattr(model, "_guided", lambda *_: lambda x, t: x / (1 + float(t) ** 2))
    drawn = model.sample(40_000, rng())
    assert (drawn.std(axis=0) / correlated.std(axis=0)).tolist() == pytest.approx([spread] * 2, rel=0.015)


@pytest.mark.parametrize("y", [-1.5, 0.0, 1.5])
def test_a_condition_is_followed(conditional, y):
    drawn = conditional.sample(1000, rng(), given=np.full((1000, 1), y))
    assert drawn.mean() == pytest.approx(y, abs=0.1)
    assert drawn.std() == pytest.approx(0.2, abs=0.1)


def test_without_a_condition_the_whole_distribution_is_drawn(conditional):
    assert conditional.sample(2000, rng()).std() > 0.9


def test_guidance_of_zero_is_unconditional(conditional):
    y = np.full((500, 1), 1.5)
    free, none = conditional.sample(500, rng()), conditional.sample(500, rng(), given=y, guidance=0.0)
    assert np.array_equal(free, none)


def test_a_condition_that_was_not_learned_is_refused(correlated):
    with pytest.raises(ConfigError, match="without a condition"):
        fitted(correlated, trainer={**QUICK["trainer"], "gradient_steps": 1}).sample(3, rng(), given=np.zeros((3, 1)))


def test_rows_per_call_bound_the_memory_and_not_the_number_of_rows(correlated):
    model = fitted(correlated, sampler={**QUICK["sampler"], "rows_per_call": 64})
    seen = []
    model.network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    assert model.sample(150, rng()).shape == (150, 2)
    assert set(seen) == {64, 22}
    assert model.sample(0, rng()).shape == (0, 2)


def test_training_goes_on_in_the_same_units(correlated):
    model = fitted(correlated)
    shift = model._normalizer.shift.copy()
    model.continue_on(correlated + 5, seed=1)
    assert np.array_equal(model._normalizer.shift, shift)
    assert np.abs(model.sample(2000, rng()).mean(0) - correlated.mean(0) - 5).max() < 0.5


def test_it_is_saved_with_its_precision(conditional):
    values, arrays = conditional.state()
    other = VectorDiffusion(conditional.config, device="cpu")
    other.restore(values, arrays)
    assert other.precision == "float32"
    y = np.linspace(-1, 1, 20)[:, None]
    assert np.array_equal(other.sample(20, rng(), given=y), conditional.sample(20, rng(), given=y))


def test_nan_is_refused():
    with pytest.raises(SourceError, match="NaN"):
        fitted(np.full((10, 2), np.nan))


def test_precision_is_bfloat16_only_where_it_is_native(monkeypatch):
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) == ("bfloat16" if native_bfloat16(cpu) else "float32")
    for has in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has: has)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert native_bfloat16(cpu) == has
        assert resolve_precision("float32", cpu) == "float32"
        assert resolve_precision("bfloat16", cpu) == "bfloat16"


def test_phases_count_as_one_training(tmp_path):
    lines = []
    phases = Phases({"a": 10, "b": 20}, lambda *line: lines.append(line), tmp_path / "state.safetensors")
    phases.phase("a")["report"](10, 10, {"loss": 1.0})
    phases.phase("b")["report"](5, 20, {"loss": 2.0})
    assert lines == [(10, 30, {"a.loss": 1.0}), (15, 30, {"b.loss": 2.0})]
    assert phases.phase("b")["checkpoint"] == tmp_path / "state-b.safetensors"
    assert Phases({"a": 1}).phase("a") == {"report": None, "checkpoint": None}
