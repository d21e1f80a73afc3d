"""The trainer: bit-exact resume, average, schedule, clipping, divergence, what a checkpoint refuses."""

import math

import pytest
import torch
from torch import nn

from synth_pipeline.diffusion.trainer import Trainer, TrainerConfig, soft_update
from synth_pipeline.errors import CheckpointError, TrainingDivergedError

CONFIG = TrainerConfig(gradient_steps=40, batch_size=16, warmup_steps=5, log_every=10, precision="float32")


def regression(network, batch, rng):
    noise = torch.randn(batch.shape, generator=rng)
    return ((network(batch + 0.1 * noise) - batch**2) ** 2).mean()


def make(config=CONFIG, *, seed=1, loss=regression, width=8, objective=None):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, 3))
    return Trainer(network, loss, config, seed=seed, objective=objective)


def data():
    return torch.randn(200, 3, generator=torch.Generator().manual_seed(5))


def weights(trainer):
    return {**trainer.network.state_dict(), **{f"average.{k}": v for k, v in trainer.average.state_dict().items()}}


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values(), strict=True))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop", [1, 17, 39])
def test_a_resumed_run_ends_with_the_same_bytes(tmp_path, stop, precision):
    config = CONFIG.replace(precision=precision, ema_every=3)
    unbroken, second = make(config), make(config)
    first = make(config.replace(log_every=1, checkpoint_seconds=1e-9))
    unbroken.train(data())

    def killed(step, total, values):
        if step > stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.train(data(), checkpoint=tmp_path / "state.safetensors", report=killed)
    steps = []
    second.train(data(), checkpoint=tmp_path / "state.safetensors", report=lambda step, *_: steps.append(step))
    assert (second.steps, steps) == (40, [step for step in (10, 20, 30, 40) if step > stop])
    assert same(unbroken, second)


def test_checkpoints_are_written_while_training_and_do_not_change_the_result(tmp_path):
    often, never = make(CONFIG.replace(checkpoint_seconds=1e-9)), make()
    often.train(data(), checkpoint=tmp_path / "state.safetensors")
    never.train(data())
    assert same(often, never)
    assert (tmp_path / "state.safetensors").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_finished_checkpoint_trains_no_more(tmp_path):
    trainer = make()
    trainer.train(data(), checkpoint=tmp_path / "state.safetensors")
    again, calls = make(), []
    again.train(data(), checkpoint=tmp_path / "state.safetensors", report=lambda *values: calls.append(values))
    assert same(trainer, again)
    assert not calls


@pytest.mark.parametrize("other", [{"seed": 2}, {"width": 9}, {"config": CONFIG.replace(learning_rate=2e-3)}])
def test_a_checkpoint_of_another_run_is_refused(tmp_path, other):
    make().train(data(), checkpoint=tmp_path / "state.safetensors")
    with pytest.raises(CheckpointError, match="another run"):
        make(**other).train(data(), checkpoint=tmp_path / "state.safetensors")


@pytest.mark.parametrize(
    ("rows", "objective"),
    [
        pytest.param(1.1 * data(), "ours", id="scaled"),
        pytest.param(data()[:-1], "ours", id="fewer"),
        pytest.param(data(), "theirs", id="objective"),
    ],
)
def test_a_checkpoint_of_other_rows_or_another_objective_is_refused(tmp_path, rows, objective):
    """Or a killed training would go on, with the old weights, on what it was never told of."""
    path = tmp_path / "state.safetensors"
    make(objective="ours").train(data(), checkpoint=path)
    make(objective="ours").train(data(), checkpoint=path)
    with pytest.raises(CheckpointError, match="another run"):
        make(objective=objective).train(rows, checkpoint=path)


def test_what_diverged_is_not_saved(tmp_path):
    path, often = tmp_path / "state.safetensors", CONFIG.replace(checkpoint_seconds=1e-9, log_every=40)
    rows = data()
    rows[:] = float("nan")
    with pytest.raises(TrainingDivergedError, match="at step 1"):
        make(often).train(rows, checkpoint=path)
    assert not path.exists()


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    make().save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="damaged"):
        make().train(data(), checkpoint=path)


def test_the_learning_rate_warms_up_and_falls_to_zero():
    trainer = make()
    rates = [trainer.learning_rate(step) for step in range(41)]
    assert rates[0] == pytest.approx(CONFIG.learning_rate / 5)
    assert max(rates) == rates[5] == CONFIG.learning_rate
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[40] == pytest.approx(0.0, abs=1e-12)
    constant = make(CONFIG.replace(decay="constant"))
    assert constant.learning_rate(39) == CONFIG.learning_rate


def test_reports_come_at_the_log_steps_and_the_loss_falls():
    trainer, seen = make(CONFIG.replace(gradient_steps=400, learning_rate=1e-2)), []
    trainer.train(data(), report=lambda step, total, values: seen.append((step, total, values["loss"])))
    assert [step for step, _, _ in seen] == list(range(10, 401, 10))
    assert {total for _, total, _ in seen} == {400}
    assert sum(loss for *_, loss in seen[-5:]) < 0.5 * sum(loss for *_, loss in seen[:5])


def test_divergence_is_an_error_that_says_what_to_do():
    def explode(network, batch, rng):
        return network(batch).sum() * math.inf

    with pytest.raises(TrainingDivergedError, match="learning rate"):
        make(loss=explode).train(data())


def test_gradients_are_clipped():
    def steep(network, batch, rng):
        return 1e4 * regression(network, batch, rng)

    trainer = make(CONFIG.replace(clip_norm=0.5), loss=steep)
    trainer.step(data()[:16])
    total = sum(float((p.grad**2).sum()) for p in trainer.network.parameters()) ** 0.5
    assert total == pytest.approx(0.5, rel=1e-3)


def test_the_average_follows_the_network_and_is_never_trained_itself():
    trainer = make(CONFIG.replace(gradient_steps=200, decay="constant"))
    trainer.train(data())
    pairs = list(zip(trainer.average.parameters(), trainer.network.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in pairs)
    assert not any(a.requires_grad for a, _ in pairs)
    assert not trainer.average.training


def test_soft_update_weighs_the_new_parameters():
    """Museum: inverted Polyak averaging, in nine pipelines of one well-known code base."""
    target, source = nn.Linear(2, 2), nn.Linear(2, 2)
    nn.init.zeros_(target.weight)
    nn.init.ones_(source.weight)
    soft_update(target, source, 0.005)
    assert torch.allclose(target.weight, torch.full((2, 2), 0.005))
    before = target.weight.clone()
    soft_update(target, source, 0.0)
    assert torch.equal(target.weight, before)
    soft_update(target, source, 1.0)
    assert torch.equal(target.weight, source.weight)


def test_soft_update_copies_buffers():
    target, source = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    source.running_mean += 2
    soft_update(target, source, 0.1)
    assert torch.equal(target.running_mean, source.running_mean)
