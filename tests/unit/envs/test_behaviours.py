"""Behaviour policies: the actor's formula, the levels, the shipped files, and what a wrong file or name says."""

import io

import numpy as np
import pytest

from synth_pipeline import envs
from synth_pipeline.envs import behaviours
from synth_pipeline.envs.behaviours import PARAMETERS, Recipe, SacActor
from synth_pipeline.envs.rollout import rollout
from synth_pipeline.errors import SourceError, UnknownNameError
from synth_pipeline.seeding import Stage

ENVIRONMENTS = behaviours.names()


def random_parameters(seed, observation=4, action=2, width=8):
    rng = np.random.default_rng(seed)
    shapes = {
        "w0": (observation, width),
        "b0": (width,),
        "w1": (width, width),
        "b1": (width,),
        **{f"w_{head}": (width, action) for head in ("mean", "log_std")},
        **{f"b_{head}": (action,) for head in ("mean", "log_std")},
    }
    return {name: rng.normal(0, 0.5, shape).astype(np.float16) for name, shape in shapes.items()}


def weights_file(count=3, **changes):
    stacked = {name: np.stack([random_parameters(k)[name] for k in range(count)]) for name in PARAMETERS}
    return {**stacked, "environment_steps": np.arange(count) * 1000, **changes}


def heads(parameters, observation):
    """Mean and log std of one row, written out neuron by neuron in float64."""
    x = [float(value) for value in observation]
    for layer in "01":
        weight, bias = parameters[f"w{layer}"], parameters[f"b{layer}"]
        x = [max(sum(x[i] * float(weight[i, j]) for i in range(len(x))) + float(bias[j]), 0) for j in range(len(bias))]
    return tuple(
        np.array([sum(x[i] * float(w[i, j]) for i in range(len(x))) + float(b[j]) for j in range(len(b))])
        for w, b in ((parameters[f"w_{head}"], parameters[f"b_{head}"]) for head in ("mean", "log_std"))
    )


def score(steps, value, **changes):
    both = {
        f"{kind}_{name}": number
        for kind in ("stochastic", "deterministic")
        for name, number in (("return", value), ("std", 1.0), ("length", 10.0))
    }
    return {"environment_steps": steps, "episodes": 10, **both, **changes}


def recipe_of(returns, random_return=0.0):
    return Recipe.parse(
        {
            "environment": "Hopper-v5",
            "algorithm": "SAC",
            "network": "two layers",
            "licence": "MIT",
            "trained_with": {},
            "scored_with": {},
            "random_return": random_return,
            "snapshots": [score(1000 * (k + 1), value) for k, value in enumerate(returns)],
        }
    )


class TestSacActor:
    def test_mean_action_follows_the_formula(self):
        parameters = random_parameters(0)
        observations = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
        expected = [np.tanh(heads(parameters, row)[0]) for row in observations]
        actions = SacActor(parameters, stochastic=False).act(observations, np.random.default_rng(2))
        assert actions.dtype == np.float32
        np.testing.assert_allclose(actions, expected, atol=1e-5)

    def test_sampled_action_follows_the_formula(self):
        parameters = random_parameters(3)
        observations = np.random.default_rng(4).normal(size=(5, 4)).astype(np.float32)
        noise = np.random.default_rng(5).standard_normal((5, 2), dtype=np.float32)
        pairs = [heads(parameters, row) for row in observations]
        expected = [np.tanh(m + np.exp(s) * e) for (m, s), e in zip(pairs, noise, strict=True)]
        np.testing.assert_allclose(
            SacActor(parameters).act(observations, np.random.default_rng(5)), expected, atol=1e-5
        )

    @pytest.mark.parametrize(("log_std", "deviation"), [(30.0, np.exp(2.0)), (-30.0, np.exp(-20.0))])
    def test_log_std_is_clipped(self, log_std, deviation):
        parameters = {name: np.zeros_like(array) for name, array in random_parameters(0).items()}
        parameters["b_log_std"] = np.full(2, log_std, np.float16)
        noise = np.random.default_rng(6).standard_normal((7, 2), dtype=np.float32)
        actions = SacActor(parameters).act(np.zeros((7, 4), np.float32), np.random.default_rng(6))
        np.testing.assert_allclose(actions, np.tanh(deviation * noise), rtol=1e-5)

    def test_only_sampling_draws(self):
        observations, rng = np.zeros((3, 4), np.float32), np.random.default_rng(7)
        before = rng.bit_generator.state
        mean = SacActor(random_parameters(0), stochastic=False).act(observations, rng)
        assert rng.bit_generator.state == before
        sampled = SacActor(random_parameters(0)).act(observations, rng)
        assert rng.bit_generator.state != before
        assert not np.array_equal(mean, sampled)

    def test_actions_fill_the_bounds(self):
        parameters = random_parameters(0)
        parameters["b_mean"] = np.array([20.0, -20.0], np.float16)
        actor = SacActor(parameters, low=(-2.0, 0.0), high=(2.0, 3.0), stochastic=False)
        actions = actor.act(np.zeros((1, 4), np.float32), np.random.default_rng(0))
        np.testing.assert_allclose(actions, [[2.0, 0.0]], atol=1e-6)

    def test_observations_are_left_alone(self):
        observations = np.random.default_rng(8).normal(size=(3, 4)).astype(np.float32)
        before = observations.copy()
        SacActor(random_parameters(0)).act(observations, np.random.default_rng(0))
        np.testing.assert_array_equal(observations, before)


class TestLevels:
    def test_all_levels(self):
        levels = recipe_of([1, 10, 20, 45, 100, 90]).levels()
        assert levels == {
            "expert": (5000,),
            "medium": (4000,),
            "medium-replay": (1000, 2000, 3000, 4000),
            "medium-expert": (4000, 5000),
        }

    def test_levels_that_no_snapshot_gives_are_absent(self):
        assert recipe_of([1, 20, 60, 100]).levels() == {"expert": (4000,)}

    def test_fractions_start_at_uniform_actions(self):
        recipe = recipe_of([-900, -500, -100], random_return=-1100)
        np.testing.assert_allclose(recipe.fractions, [0.2, 0.6, 1.0])
        assert "medium" not in recipe.levels()
        assert recipe_of([-1000, -700, -100], random_return=-1100).levels()["medium"] == (2000,)

    def test_a_later_drop_does_not_move_medium(self):
        assert recipe_of([40, 10, 35, 100]).levels()["medium"] == (1000,)

    def test_snapshots_must_rise(self):
        values = recipe_of([1, 2]).model_dump()
        values["snapshots"] = values["snapshots"][::-1]
        with pytest.raises(Exception, match="must rise"):
            Recipe.parse(values)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
class TestShipped:
    def test_weights_are_small_and_in_the_format(self, environment):
        path = behaviours.folder() / f"{environment}.npz"
        assert path.stat().st_size <= 1_500_000
        weights, recipe = behaviours.read_weights(path), behaviours.recipe(environment)
        assert len(recipe.snapshots) <= 12
        assert weights["environment_steps"].tolist() == [s.environment_steps for s in recipe.snapshots]
        assert {weights[name].dtype for name in PARAMETERS} == {np.dtype(np.float16)}

    def test_belongs_to_its_environment(self, environment):
        model, recipe = envs.make(environment), behaviours.recipe(environment)
        best = behaviours.parameters(environment, recipe.snapshots[recipe.best].environment_steps)
        assert recipe.environment == model.spec.gymnasium_id
        assert best["w0"].shape[0] == model.spec.observation_size
        assert best["b_mean"].shape[0] == model.spec.action_size
        assert recipe.licence == "MIT"

    def test_every_level_can_be_made(self, environment):
        levels = behaviours.recipe(environment).levels()
        assert set(levels) == {"medium", "medium-replay", "medium-expert", "expert"}
        assert len(levels["medium-replay"]) >= 4


def test_a_shipped_policy_scores_as_stated():
    recipe, model = behaviours.recipe("hopper"), envs.make("hopper")
    stated = recipe.snapshots[recipe.best]
    actor = SacActor(behaviours.parameters("hopper", stated.environment_steps), stochastic=False)
    found = rollout(model, actor, episodes=4, seed=1, stage=Stage.EVALUATE)
    assert abs(found.returns.mean() - stated.deterministic_return) < 10 * stated.deterministic_std


class TestErrors:
    def test_unknown_environment_names_the_nearest(self):
        with pytest.raises(UnknownNameError, match="did you mean 'hopper'"):
            behaviours.recipe("hoper")
        with pytest.raises(UnknownNameError, match="did you mean 'walker2d'"):
            behaviours.parameters("walker", 1000)

    def test_unknown_snapshot_lists_the_shipped_ones(self):
        with pytest.raises(UnknownNameError, match="use 400000") as error:
            behaviours.parameters("hopper", 399_999)
        assert "1000, " in str(error.value)

    @pytest.mark.parametrize(
        ("changes", "found"),
        [
            ({"b1": np.zeros((3, 7))}, "b1 has shape"),
            ({"w0": np.zeros((3, 4, 7))}, "b0 has shape"),
            ({"w0": np.zeros((4, 8))}, "w0 has shape"),
            ({"w1": np.full((3, 8, 8), np.nan)}, "w1 holds values that are not finite"),
            ({"w_mean": np.zeros((8, 2))}, "w_mean has shape"),
            ({"b_mean": np.float16(0)}, r"b_mean \(\), not"),
            ({"environment_steps": np.int64(3)}, "environment_steps has shape"),
        ],
    )
    def test_wrong_arrays_are_named(self, tmp_path, changes, found):
        np.savez(tmp_path / "x.npz", **weights_file(**changes))
        with pytest.raises(SourceError, match=found):
            behaviours.read_weights(tmp_path / "x.npz")

    def test_missing_array_is_named(self, tmp_path):
        np.savez(tmp_path / "x.npz", **{k: v for k, v in weights_file().items() if k != "w_log_std"})
        with pytest.raises(SourceError, match="no array w_log_std"):
            behaviours.read_weights(tmp_path / "x.npz")

    def test_pickled_objects_are_refused(self, tmp_path):
        np.savez(tmp_path / "x.npz", **weights_file(b0=np.array([{}, {}, {}], object)))
        with pytest.raises(SourceError, match=r"not a readable \.npz"):
            behaviours.read_weights(tmp_path / "x.npz")

    def test_truncated_file(self, tmp_path):
        buffer = io.BytesIO()
        np.savez(buffer, **weights_file())
        (tmp_path / "x.npz").write_bytes(buffer.getvalue()[:500])
        with pytest.raises(SourceError, match=r"not a readable \.npz"):
            behaviours.read_weights(tmp_path / "x.npz")

    def test_absent_file(self, tmp_path):
        with pytest.raises(SourceError, match="there is no file"):
            behaviours.read_weights(tmp_path / "x.npz")
