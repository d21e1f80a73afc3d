"""SynthER: the published recipe to the letter, factorised rows, bounds, aims, growing buffers, resume."""

import numpy as np
import pytest
import torch
from toy_data import random_episodes, toy_dataset
from worlds import roll

from synth_pipeline.data.rows import Dataset
from synth_pipeline.dynamics.conditional import SEEN_BY_ALL, absent_member
from synth_pipeline.errors import ConfigError
from synth_pipeline.generators.base import build
from synth_pipeline.generators.relevance import Aim
from synth_pipeline.generators.synther import SynthER, SyntherConfig, _groups
from synth_pipeline.run_config import load_run_config
from synth_pipeline.seeding import Stage, stream

FEW = {"gradient_steps": 60, "batch_size": 32, "warmup_steps": 5, "precision": "float32", "log_every": 20}
MEAN = {"residual": "none", "regressor": {"members": 2, "width": 32, "depth": 2, "trainer": FEW}}
QUICK = {
    "network": {"width": 32, "depth": 2},
    "sampler": {"num_steps": 6},
    "trainer": FEW,
    "dynamics": MEAN,
    "rewards": MEAN,
}
LONGER = {**FEW, "gradient_steps": 700, "batch_size": 128, "learning_rate": 6e-3}


def fitted(data=None, **settings):
    synther = SynthER(SyntherConfig.parse({**QUICK, **settings}))
    synther.fit(data or toy_dataset(), seed=3)
    return synther


def draw(synther, rows=50):
    return synther.sample(rows, stream(0, Stage.GENERATE, 0, 0))


def nearness(rows):
    """-|s|^2: what the toy pays for a drawn state, whatever the small model of rewards makes of it."""
    return -np.sum(rows["observations"].astype(float) ** 2, axis=1)


def varied(synther, **settings):
    """The same model under other settings of how it is drawn from."""
    other = SynthER(synther.config.replace(**settings))
    other.restore(*synther.state())
    return other


def unlimited(synther):
    """The same model, which keeps whatever it draws first."""
    return varied(synther, familiar=1.0, supported=1.0)


@pytest.fixture(scope="module")
def choosy():
    """Trained longer; it has a limit that half of the unseen real rows are beyond, and planes that cover a fifth."""
    data = Dataset(toy_dataset().spec, random_episodes([40] * 20, seed=1))
    return data, fitted(data, familiar=0.5, supported=0.2, trainer=LONGER)


@pytest.fixture(scope="module")
def aimable():
    """Trained longer, on rows and their rewards."""
    data = Dataset(toy_dataset().spec, random_episodes([40] * 40, seed=1))
    return data, fitted(data, condition="reward", condition_dropout=0.3, familiar=0.8, trainer=LONGER)


def calls_of(synther):
    counted = []
    synther._diffusion._model.register_forward_hook(lambda *_: counted.append(1))
    draw(synther, rows=2)
    return len(counted)


def test_the_preset_paper_is_the_published_recipe():
    config = SyntherConfig.parse({k: v for k, v in load_run_config("paper").generator.items() if k != "kind"})
    assert (config.rows, config.next_observations, config.normalizer) == ("joint", "state", "standard")
    assert not config.derive_terminations
    assert not config.spread_bounds
    assert config.familiar == config.supported == 1
    assert (config.p_mean, config.p_std) == (-1.2, 1.2)
    assert (config.sampler.num_steps, config.sampler.churn, config.sampler.step) == (128, 80, "heun")
    assert not config.sampler.matched_start
    t = config.trainer
    assert (t.gradient_steps, t.batch_size, t.learning_rate) == (100_000, 256, 3e-4)
    assert (t.ema_decay, t.ema_every, t.clip_norm) == (0.995, 10, 1.0)


def test_the_published_sampler_calls_the_network_255_times():
    synther = fitted(rows="joint", sampler={"step": "heun", "num_steps": 128, "churn": 80})
    assert calls_of(synther) == synther.calls == 255


def test_the_default_sampler_calls_it_once_a_step():
    synther = fitted(supported=1.0)
    assert calls_of(synther) == synther.calls == 6


def test_the_published_network_has_its_size():
    paper = fitted(
        rows="joint",
        network={"kind": "residual", "width": 2048, "depth": 6},
        trainer={**FEW, "gradient_steps": 1},
    )
    assert sum(p.numel() for p in paper._diffusion._model.parameters()) > 25e6


@pytest.mark.parametrize("rows", ["factorised", "joint"])
def test_flags_are_modelled_as_they_are_and_thresholded(rows):
    drawn = draw(fitted(rows=rows), rows=500)
    assert drawn["terminations"].dtype == bool
    assert 0 <= drawn["terminations"].mean() < 0.5


@pytest.mark.parametrize("target", ["difference", "state"])
def test_differences_and_states_are_two_targets_of_one_distribution(target):
    drawn, real = draw(fitted(rows="joint", next_observations=target), rows=400), toy_dataset().transitions()
    assert np.isfinite(drawn["next_observations"]).all()
    assert np.abs(drawn["next_observations"].mean(0) - real["next_observations"].mean(0)).max() < 1.0


def test_what_follows_is_that_of_the_drawn_state_and_action():
    """s' = 0.9 s + 0.1 a and r = -|s|^2, learned from other rows, hold on drawn ones."""
    longer = {**MEAN, "regressor": {**MEAN["regressor"], "trainer": LONGER}}
    data = Dataset(toy_dataset().spec, random_episodes([40] * 40, seed=1))
    drawn = draw(fitted(data, dynamics=longer, rewards=longer, trainer=LONGER), rows=2000)
    expected = 0.9 * drawn["observations"] + 0.1 * np.pad(drawn["actions"], ((0, 0), (0, 1)))
    assert np.abs(drawn["next_observations"] - expected).mean() < 0.03
    reward = -np.sum(drawn["observations"] ** 2, axis=1)
    assert np.corrcoef(drawn["rewards"], reward)[0, 1] > 0.98


def test_values_at_a_bound_are_spread_to_learn_and_come_back():
    """Half of the actions are saturated; so are about half of those drawn, exactly."""
    data = toy_dataset((60, 60, 60))
    data.episodes.columns["actions"][::2, 0] = 1.0
    synther = fitted(data, trainer=LONGER)
    low, high = synther._post.limits(synther._layout)
    x = synther._pack(data.transitions().columns)
    spread = synther._spread(x, np.random.default_rng(0))
    assert np.array_equal(np.clip(spread, low, high), x)
    assert len(np.unique(spread[x >= high])) > 50
    drawn = draw(synther, rows=2000)["actions"][:, 0]
    assert (drawn == 1.0).mean() == pytest.approx(0.5, abs=0.12)
    assert (draw(fitted(data, spread_bounds=False), rows=2000)["actions"] <= 1).all()


def test_a_change_is_no_state_and_has_none_of_its_bounds():
    """States lie in [5, 9], so every change lies below the lowest state; it is learned as it is."""
    data = toy_dataset((60, 60))
    fields = tuple(
        f.replace(low=(5.0,) * 3, high=(9.0,) * 3, clip=True) if f.name.endswith("observations") else f
        for f in data.spec.fields
    )
    synther = SynthER(SyntherConfig.parse({**QUICK, "rows": "joint"}))
    synther._prepare(data.spec.replace(fields=fields))
    x = np.zeros((10, synther._layout.size), np.float32)
    x[:, synther._layout.slices["observations"]] = 7.0
    x[:, synther._layout.slices["next_observations"]] = np.arange(30).reshape(10, 3) / 30
    assert np.array_equal(synther._spread(x, np.random.default_rng(0)), x)


def test_observations_stay_inside_what_the_environment_shows():
    data = roll("hopper", episodes=20, steps=40)
    synther = fitted(data)
    drawn = draw(synther, rows=300)
    _, high = synther._post.limits(synther._layout)
    assert high[5:11].tolist() == [10.0] * 6
    assert np.isinf(high[:5]).all()
    for name in ("observations", "next_observations"):
        assert np.abs(drawn[name][:, 5:]).max() <= 10


@pytest.mark.parametrize("episodes", [1, 2, 9])
def test_with_few_episodes_every_member_of_the_ensemble_learns(episodes):
    """One long log: a member that leaves out the only episode would stay as it was drawn, and be averaged in."""
    data = Dataset(toy_dataset().spec, random_episodes([400 // episodes] * episodes, seed=1))
    groups = _groups(data, 3)
    absent = absent_member(groups, 3)
    assert [bool((absent != member).mean() > 0.8) for member in range(3)] == [True] * 3
    assert len(np.unique(absent)) == 4
    longer = {**LONGER, "gradient_steps": 300}
    synther = fitted(data, dynamics={**MEAN, "regressor": {**MEAN["regressor"], "trainer": longer}})
    rows = data.transitions()
    change = (rows["next_observations"] - rows["observations"]).astype(np.float64)
    errors = synther._next._mean.errors(synther._layout.pack(rows.columns), change)
    by_member = (errors**2).mean(axis=(1, 2))
    assert by_member.max() < 3 * by_member.min()


def test_with_ten_episodes_they_are_the_groups():
    data = Dataset(toy_dataset().spec, random_episodes([5] * 10, seed=1))
    assert len(np.unique(_groups(data, 3))) == 10
    assert all(len(np.unique(_groups(data, 3)[i : i + 5])) == 1 for i in range(0, 50, 5))


def test_an_ensemble_that_knows_its_rows_by_heart_says_so():
    """Noise in few rows: members have learned it, so it is not shared; "looks like model error" would be a guess."""
    data = roll("toy-bimodal-slip", episodes=10, steps=15)
    longer = {**MEAN["regressor"], "width": 64, "trainer": {**LONGER, "gradient_steps": 1000, "learning_rate": 2e-3}}
    synther = fitted(data, dynamics={"residual": "auto", "regressor": longer})
    assert not synther._next.noisy.any()
    assert any("not decidable" in note and note.startswith("dynamics: 2 of 2") for note in synther.notes())


def strangeness(synther, rows):
    return synther._next.predict(synther._layout.pack(rows.columns)).disagreement


def test_rows_whose_outcome_the_ensemble_cannot_tell_are_drawn_again(choosy):
    """Half of the unseen real rows set the limit, so that about half of the first draws are beyond it; few stay."""
    data, model = choosy
    strict, free = varied(model, supported=1.0), unlimited(model)
    unseen = absent_member(_groups(data, 3), MEAN["regressor"]["members"]) != SEEN_BY_ALL
    assert np.mean(strangeness(strict, data.transitions())[unseen] <= strict._limit) == pytest.approx(0.5, abs=0.01)
    assert np.mean(strangeness(free, draw(free, 2000)) > strict._limit) > 0.3
    assert np.mean(strangeness(strict, draw(strict, 2000)) > strict._limit) < 0.05


def test_what_follows_a_row_that_was_drawn_again_is_its_own():
    """The mean that is kept from the first draw must not end up beside another (s, a)."""
    synther = fitted(Dataset(toy_dataset().spec, random_episodes([40] * 20, seed=1)), familiar=0.5)
    drawn = draw(synther, 500)
    assert np.allclose(drawn["next_observations"], synther.expected(drawn)["next_observations"], atol=1e-5)


def test_rows_drawn_again_keep_the_level_they_were_aimed_at(aimable):
    data, strict = aimable
    free = unlimited(strict)
    top = np.quantile(nearness(data.transitions()), 0.9)
    aim = Aim(where="reward", share=1.0, top=0.1)
    of_free, of_strict = ((nearness(draw(model.aimed(aim), 2000)) > top).mean() for model in (free, strict))
    assert of_strict > 0.8 * of_free


def test_rows_beside_all_real_ones_in_some_plane_are_drawn_again(choosy):
    strict, free = varied(choosy[1], familiar=1.0), unlimited(choosy[1])
    rows = [strict._layout.pack(draw(model, 2000).columns) for model in (free, strict)]
    outside = [1 - strict._support.covers(x).mean() for x in rows]
    assert outside[0] > 0.05
    assert outside[1] < 0.3 * outside[0]


def test_no_row_begins_where_an_episode_has_ended(choosy):
    """A blurred density of states puts some behind the line that real ones never cross."""
    free = unlimited(choosy[1])
    line = np.quantile(draw(free, 2000)["observations"][:, 0], 0.8)
    free._post._terminated = lambda states: states[:, 0] > line
    drawn = draw(free, 2000)
    assert np.mean(drawn["observations"][:, 0] > line) < 0.01  # a fifth, drawn again up to four times
    assert np.mean(drawn["terminations"]) > 0.01


def test_whole_rows_and_all_shares_leave_the_draw_as_it_is():
    joint = fitted(rows="joint", familiar=0.5, supported=0.5)
    assert (joint._limit, joint._support) == (np.inf, None)
    free = fitted(familiar=1.0, supported=1.0)
    columns = free._drawn(None, 50, stream(0, Stage.GENERATE, 0, 0))
    assert np.array_equal(draw(free)["actions"], columns["actions"])


def test_limit_and_support_are_saved_with_the_model():
    model = fitted(familiar=0.7)
    other = SynthER(model.config)
    other.restore(*model.state())
    assert other._limit == model._limit < np.inf
    assert np.array_equal(other._support.covered, model._support.covered)
    free = unlimited(model)
    assert (free._limit, free._support) == (np.inf, None)
    assert np.array_equal(draw(other)["rewards"], draw(model)["rewards"])


def test_an_aim_moves_the_rows_and_weights_bring_them_back(aimable):
    data, synther = aimable
    free, aimed, half = (
        draw(synther.aimed(aim), rows=3000)
        for aim in (Aim(), Aim(where="reward", share=1.0, top=0.1), Aim(where="reward", share=0.5, top=0.1))
    )
    assert (free["weight"] == 1).all()
    top = np.quantile(nearness(data.transitions()), 0.9)
    assert (nearness(aimed) > top).mean() > 2.5 * (nearness(free) > top).mean()
    apart = abs(nearness(half).mean() - nearness(free).mean())
    undone = np.average(nearness(half), weights=half["weight"])
    assert abs(undone - nearness(free).mean()) < 0.5 * apart


def test_guidance_exaggerates_the_aim(aimable):
    _, synther = aimable
    plain, guided = (
        nearness(draw(synther.aimed(Aim(where="reward", share=1.0, guidance=w)), rows=2000)).mean() for w in (1.0, 2.0)
    )
    assert guided > plain


def test_an_aim_or_condition_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="cannot be aimed at 'reward'"):
        fitted().aimed(Aim(where="reward"))
    with pytest.raises(ConfigError, match="near_terminal"):
        build({"kind": "synther", "condition": "near_termnal"})


def test_a_growing_buffer_is_learned_from_where_the_model_stands():
    """After rows somewhere else arrive, a few steps of a warm model find them; the same few steps alone do not."""
    first = Dataset(toy_dataset().spec, random_episodes([40] * 20, seed=1))
    grown = random_episodes([40] * 40, seed=2)
    moved = grown.observations + np.float32([4.0, 0, 0])
    second = Dataset(
        first.spec, type(grown)(moved, grown.final_observations + np.float32([4.0, 0, 0]), grown.starts, grown.columns)
    )
    warm = fitted(first, trainer={**LONGER, "gradient_steps": 500})
    weights = [p.clone() for p in warm._diffusion._model.parameters()]
    before = draw(warm, rows=1000)["observations"][:, 0].mean()
    warm.update(second, seed=4)
    after = draw(warm, rows=1000)["observations"][:, 0].mean()
    assert before < 1.0
    assert after > 3.0
    assert any(not torch.equal(a, b) for a, b in zip(weights, warm._diffusion._model.parameters(), strict=True))


def test_a_killed_fit_goes_on_to_the_same_bytes(tmp_path):
    class Killed(Exception):
        pass

    def killer(step):
        def kill(now, total, values):
            if now == step:
                raise Killed

        return kill

    often = {"trainer": {**FEW, "checkpoint_seconds": 1e-9}}
    unbroken = fitted()
    for step in (20, 80, 160):  # in each of the three trainings
        broken = SynthER(SyntherConfig.parse({**QUICK, **often}))
        with pytest.raises(Killed):
            broken.fit(toy_dataset(), seed=3, report=killer(step), checkpoint=tmp_path / "state.safetensors")
    last = SynthER(SyntherConfig.parse({**QUICK, **often}))
    steps = []
    last.fit(toy_dataset(), seed=3, report=lambda s, *_: steps.append(s), checkpoint=tmp_path / "state.safetensors")
    assert min(steps) >= 160
    ours, theirs = last.state()[1], unbroken.state()[1]
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_a_wrong_key_gets_the_right_one():
    with pytest.raises(ConfigError, match=r"sampler\.num_steps"):
        build({"kind": "synther", "sampler": {"num_step": 3}})


@pytest.mark.parametrize(
    "settings",
    [
        {"condition": "reward", "network": {"kind": "residual"}},
        {"dynamics": {"diffusion": {"network": {"kind": "residual"}}}},
    ],
)
def test_the_published_network_is_refused_where_it_would_have_to_be_told_something(settings):
    with pytest.raises(ConfigError, match="takes no condition"):
        SyntherConfig.parse(settings)
