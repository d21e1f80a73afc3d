"""SynthER: the published recipe to the letter, differences, flags, resume."""

import numpy as np
import pytest
import torch
from toy_data import toy_dataset

from synth_pipeline.diffusion.networks.mlp import count_parameters
from synth_pipeline.errors import ConfigError
from synth_pipeline.generators.base import build
from synth_pipeline.generators.synther import SynthER, SyntherConfig
from synth_pipeline.run_config import load_run_config
from synth_pipeline.seeding import Stage, stream

QUICK = {
    "network": {"width": 32, "depth": 2},
    "sampler": {"num_steps": 6},
    "trainer": {"gradient_steps": 60, "batch_size": 32, "warmup_steps": 5, "autocast": False, "log_every": 20},
}


def fitted(**settings):
    synther = SynthER(SyntherConfig.parse({**QUICK, **settings}))
    synther.fit(toy_dataset(), seed=3)
    return synther


def draw(synther, rows=50):
    return synther.sample(rows, stream(0, Stage.GENERATE, 0, 0))


def test_the_preset_paper_is_the_published_recipe():
    config = SyntherConfig.parse({k: v for k, v in load_run_config("paper").generator.items() if k != "kind"})
    assert (config.next_observations, config.derive_terminations, config.normalizer) == ("state", False, "standard")
    assert (config.p_mean, config.p_std) == (-1.2, 1.2)
    assert (config.sampler.num_steps, config.sampler.churn, config.sampler.step) == (128, 80, "heun")
    t = config.trainer
    assert (t.gradient_steps, t.batch_size, t.learning_rate) == (100_000, 256, 3e-4)
    assert (t.ema_decay, t.ema_every, t.clip_norm) == (0.995, 10, 1.0)


def test_the_published_sampler_calls_the_network_255_times():
    synther = fitted(sampler={"step": "heun", "num_steps": 128, "churn": 80})
    calls = 0

    def count(*_):
        nonlocal calls
        calls += 1

    synther._model.register_forward_hook(count)
    draw(synther, rows=2)
    assert calls == 255


def test_the_default_sampler_calls_it_once_a_step():
    synther = fitted()
    calls = []
    synther._model.register_forward_hook(lambda *_: calls.append(1))
    draw(synther, rows=2)
    assert len(calls) == 6


def test_published_and_modern_networks_have_their_sizes():
    paper = build({"kind": "synther", **{"network": {"kind": "residual", "width": 2048, "depth": 6}}})
    paper._prepare(toy_dataset().spec)
    assert count_parameters(paper._network(torch.Generator())) > 25e6


def test_flags_are_modelled_as_they_are_and_thresholded():
    rows = draw(fitted(), rows=500)
    assert rows["terminations"].dtype == bool
    assert 0 <= rows["terminations"].mean() < 0.5


def test_differences_and_states_are_two_targets_of_one_distribution():
    for target in ("difference", "state"):
        rows = draw(fitted(next_observations=target), rows=400)
        real = toy_dataset().transitions()
        assert np.isfinite(rows["next_observations"]).all()
        assert np.abs(rows["next_observations"].mean(0) - real["next_observations"].mean(0)).max() < 1.0


def test_a_killed_fit_goes_on_to_the_same_bytes(tmp_path):
    class Killed(Exception):
        pass

    def kill(step, total, values):
        if step == 40:
            raise Killed

    settings = {"trainer": {**QUICK["trainer"], "checkpoint_seconds": 1e-9}}
    unbroken = fitted()
    first = SynthER(SyntherConfig.parse({**QUICK, **settings}))
    with pytest.raises(Killed):
        first.fit(toy_dataset(), seed=3, report=kill, checkpoint=tmp_path / "state.safetensors")
    second = SynthER(SyntherConfig.parse({**QUICK, **settings}))
    steps = []
    second.fit(toy_dataset(), seed=3, report=lambda s, *_: steps.append(s), checkpoint=tmp_path / "state.safetensors")
    assert min(steps) >= 40
    ours, theirs = second.state()[1], unbroken.state()[1]
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_a_wrong_key_gets_the_right_one():
    with pytest.raises(ConfigError, match=r"sampler\.num_steps"):
        build({"kind": "synther", "sampler": {"num_step": 3}})
