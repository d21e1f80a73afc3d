import numpy as np
import pytest
from toy_data import SPEC, random_episodes, toy_dataset

from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.fields import Field
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec, transition_fields
from synth_pipeline.errors import ConfigError
from synth_pipeline.generators import controls
from synth_pipeline.generators.base import build
from synth_pipeline.generators.controls import Copula, Noise, Smote, SmoteConfig
from synth_pipeline.seeding import Stage, stream


def fitted(settings, dataset):
    generator = build(settings)
    generator.fit(dataset, seed=0)
    return generator


def rng(shard=0):
    return stream(0, Stage.GENERATE, shard, 0)


def brute_force(x, episode, k):
    """Distances to the k nearest rows of other episodes, by the full matrix."""
    distance = np.sqrt(((x[:, None].astype(np.float64) - x[None]) ** 2).sum(-1))
    distance[episode[:, None] == episode[None]] = np.inf
    return np.sort(distance, axis=1)[:, :k]


def found_distances(x, neighbours):
    return np.sqrt(((x[:, None].astype(np.float64) - x[neighbours]) ** 2).sum(-1))


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize(
    "lengths",
    [[20, 31, 1, 18], [200, 5, 3], [3, 300], [1, 1, 1, 1, 1, 1, 1, 1], [2] * 40, [7, 7]],
    ids=["mixed", "one dominates", "two", "single rows", "pairs", "two equal"],
)
def test_neighbours_are_the_nearest_rows_of_other_episodes(monkeypatch, k, lengths):
    monkeypatch.setattr(controls, "DEEPEST", 64)  # so that the rows of a dominating episode need a tree of the others
    monkeypatch.setattr(controls, "BLOCK", 500)
    x = random_episodes(lengths).observations
    episode = np.repeat(np.arange(len(lengths)), lengths)
    if len(x) - max(lengths) < k:
        with pytest.raises(ConfigError, match="neighbours from other episodes"):
            controls._other_neighbours(x, episode, k)
        return
    neighbours = controls._other_neighbours(x, episode, k)
    assert neighbours.shape == (len(x), k)
    assert (episode[neighbours] != episode[:, None]).all()
    assert all(len(set(row)) == k for row in neighbours)
    assert np.allclose(found_distances(x, neighbours), brute_force(x, episode, k), atol=1e-6)


def test_neighbours_do_not_depend_on_the_depth_of_the_search(monkeypatch):
    x, episode = random_episodes([90, 10]).observations, np.repeat([0, 1], [90, 10])
    deep = controls._other_neighbours(x, episode, 2)
    monkeypatch.setattr(controls, "DEEPEST", 0)  # straight to the trees of the other episodes
    assert np.array_equal(controls._other_neighbours(x, episode, 2), deep)


def test_equal_rows_in_other_episodes_are_neighbours_at_no_distance():
    x = np.zeros((30, 3), np.float32)
    episode = np.repeat(np.arange(3), 10)
    neighbours = controls._other_neighbours(x, episode, 5)
    assert (episode[neighbours] != episode[:, None]).all()


@pytest.mark.parametrize(("lengths", "k", "enough"), [((5, 4), 4, True), ((5, 4), 5, False), ((9,), 1, False)])
def test_too_few_rows_outside(lengths, k, enough):
    generator = Smote(SmoteConfig(neighbours=k))
    if enough:
        generator.fit(toy_dataset(lengths), seed=0)
    else:
        with pytest.raises(ConfigError, match=f"at least {k} rows? outside") as caught:
            generator.fit(toy_dataset(lengths), seed=0)
        assert ("neighbours=4" in caught.value.fix) == (len(lengths) > 1)  # one episode has none, whatever their number
        assert ("two episodes or more" in caught.value.fix) == (len(lengths) == 1)


def test_the_search_for_neighbours_tells_how_far_it_is(monkeypatch):
    monkeypatch.setattr(controls, "SPOKEN", 20)
    said = []
    Smote().fit(toy_dataset((30, 30, 30)), seed=0, report=lambda *told: said.append(told))
    steps = [step for step, _, _ in said]
    assert len(said) >= 4
    assert steps == sorted(steps)
    assert said[-1] == (90, 90, {})


@pytest.mark.parametrize(("count", "enough"), [(6, True), (5, False), (1, False)])
def test_without_episodes_the_neighbours_are_other_rows(count, enough):
    rows = random_episodes([count]).transitions()
    generator, dataset = Smote(SmoteConfig(neighbours=5)), Dataset(SPEC, rows=rows)
    if not enough:
        with pytest.raises(ConfigError, match="neighbours"):
            generator.fit(dataset, seed=0)
        return
    generator.fit(dataset, seed=0)
    sample = generator.sample(200, rng())
    assert (sample["source_step"] != sample["target_step"]).all()


def test_smote_measures_classes_by_equality_not_by_their_number():
    """Action 0 is as far from action 1 as from action 2."""
    actions = np.array([0, 1, 2, 0, 1, 2])
    columns = {"actions": actions, "rewards": np.zeros(6, np.float32), "terminations": np.zeros(6, bool)}
    observations = np.array([[0.0], [0.0], [0.0], [1.0], [0.0], [-1e-4]], np.float32)
    episodes = Episodes(observations, np.zeros((6, 1), np.float32), np.arange(7), columns)
    fields = transition_fields(1, Field(name="actions", kind="categorical", num_categories=3))
    dataset = Dataset(DatasetSpec(dataset_id="x", fields=fields), episodes)
    features = fitted({"kind": "smote", "neighbours": 2}, dataset)._features()
    assert np.linalg.norm(features[0] - features[1]) == pytest.approx(
        np.linalg.norm(features[0] - features[2]), rel=1e-3
    )


def test_smote_without_actions():
    fields = tuple(field for field in SPEC.fields if field.name != "actions")
    sample = fitted({"kind": "smote"}, Dataset(SPEC.replace(fields=fields), toy_dataset().episodes)).sample(10, rng())
    assert "actions" not in sample
    assert np.isfinite(sample["observations"]).all()


def test_smote_flags_and_classes_are_those_of_the_nearer_end():
    generator = fitted({"kind": "smote"}, toy_dataset())
    sample = generator.sample(5000, rng())
    spread = sample["observations"][:, 0]
    assert len(np.unique(spread)) > 4000
    assert sample["terminations"].dtype == bool
    assert 0 < sample["terminations"].mean() < 0.2


def test_smote_leaves_out_rows_at_the_clip_of_the_environment():
    rng_ = np.random.default_rng(0)
    observations = rng_.standard_normal((60, 11)).astype(np.float32)
    observations[:, 0] = 1.25
    observations[25:30, 6] = 9.95  # hopper clips velocities to 10
    columns = {
        "actions": rng_.uniform(-1, 1, (60, 3)).astype(np.float32),
        "rewards": np.zeros(60, np.float32),
        "terminations": np.zeros(60, bool),
    }
    action = Field(name="actions", shape=(3,), low=(-1,) * 3, high=(1,) * 3, clip=True)
    spec = DatasetSpec(dataset_id="x", fields=transition_fields(11, action), environment="hopper")
    episodes = Episodes(observations, observations[:3], np.array([0, 20, 40, 60]), columns)
    dataset = Dataset(spec, episodes)
    clean = fitted({"kind": "smote"}, dataset).sample(2000, rng())
    rows = clean["source_episode"] * 20 + clean["source_step"]
    assert not np.isin(rows, np.arange(24, 30)).any()  # row 24 leads into the clip
    everything = fitted({"kind": "smote", "skip_clipped": False}, dataset).sample(2000, rng())
    assert np.isin(everything["source_episode"] * 20 + everything["source_step"], np.arange(24, 30)).any()


def test_smote_where_every_row_is_clipped():
    observations = np.full((10, 11), 9.99, np.float32)
    columns = {
        "actions": np.zeros((10, 3), np.float32),
        "rewards": np.zeros(10, np.float32),
        "terminations": np.zeros(10, bool),
    }
    action = Field(name="actions", shape=(3,), low=(-1,) * 3, high=(1,) * 3, clip=True)
    spec = DatasetSpec(dataset_id="x", fields=transition_fields(11, action), environment="hopper")
    dataset = Dataset(spec, Episodes(observations, observations[:2], np.array([0, 5, 10]), columns))
    with pytest.raises(ConfigError, match="0 usable rows"):
        Smote().fit(dataset, seed=0)


@pytest.mark.parametrize(("mode", "spread"), [("gaussian", 1.0), ("uniform", 3**-0.5)])
def test_noise_is_in_deviations_of_each_component(mode, spread):
    dataset = toy_dataset((300, 200))
    sample = fitted({"kind": "noise", "mode": mode, "scale": 0.1}, dataset).sample(5000, rng())
    rows = dataset.episodes.starts[sample["source_episode"]] + sample["source_step"]
    scale = dataset.episodes.observations.std(axis=0)
    for name in ("observations", "next_observations"):
        noise = (sample[name] - dataset.episodes[name][rows]) / scale
        assert np.allclose(noise.std(axis=0), 0.1 * spread, rtol=0.1)
        assert np.abs(noise.mean(axis=0)).max() < 0.01
    independent = np.corrcoef(sample["observations"][:, 0] - dataset.episodes["observations"][rows][:, 0], noise[:, 0])
    assert abs(independent[0, 1]) < 0.1


def test_amplitude_scales_both_ends_of_a_row_alike():
    dataset = toy_dataset()
    sample = fitted({"kind": "noise", "mode": "amplitude", "amplitude": [0.5, 2]}, dataset).sample(500, rng())
    rows = dataset.episodes.starts[sample["source_episode"]] + sample["source_step"]
    factors = [sample[name] / dataset.episodes[name][rows] for name in ("observations", "next_observations")]
    assert np.allclose(factors[0], factors[0][:, :1], rtol=1e-4)
    assert np.allclose(factors[0], factors[1], rtol=1e-4)
    assert 0.5 <= factors[0].min() < 0.6
    assert 1.9 < factors[0].max() <= 2.001


def test_noise_refuses_a_falling_range():
    with pytest.raises(ConfigError, match="smaller value first"):
        build({"kind": "noise", "amplitude": [1.2, 0.8]})


def test_noise_keeps_no_more_than_the_modelled_columns():
    generator = fitted({"kind": "noise"}, toy_dataset())
    assert isinstance(generator, Noise)
    assert set(generator.sample(3, rng()).columns) == {field.name for field in SPEC.fields} | {
        "source_episode",
        "source_step",
    }


def awkward_dataset(n=4000):
    """Correlated columns, a constant, a rare flag, a class, and an atom in the reward."""
    random = np.random.default_rng(1)
    common = random.standard_normal((n, 1))
    observations = np.concatenate([common, common + 0.3 * random.standard_normal((n, 1)), np.full((n, 1), 4.0)], axis=1)
    columns = {
        "actions": np.tanh(common + random.standard_normal((n, 2))).astype(np.float32),
        "rewards": np.where(random.random(n) < 0.8, 0.0, np.exp(common[:, 0])).astype(np.float32),
        "terminations": random.random(n) < 0.02,
        "task_id": random.choice(3, n, p=[0.7, 0.2, 0.1]),
    }
    starts = np.arange(0, n + 1, 100)
    episodes = Episodes(
        observations.astype(np.float32), observations[starts[1:] - 1].astype(np.float32), starts, columns
    )
    extra = (Field(name="task_id", kind="categorical", num_categories=3),)
    fields = transition_fields(3, SPEC.field("actions"), extra=extra)
    return Dataset(DatasetSpec(dataset_id="x", fields=fields), episodes)


def test_copula_keeps_marginals_of_every_kind_and_correlations():
    dataset = awkward_dataset()
    real, sample = dataset.transitions(), fitted({"kind": "copula"}, dataset).sample(20_000, rng())
    assert np.array_equal(np.unique(sample["observations"][:, 2]), [4.0])
    assert np.mean(sample["terminations"]) == pytest.approx(np.mean(real["terminations"]), abs=0.004)
    assert np.mean(sample["rewards"] == 0) == pytest.approx(np.mean(real["rewards"] == 0), abs=0.01)
    assert np.allclose(np.bincount(sample["task_id"]) / 20_000, [0.7, 0.2, 0.1], atol=0.15)
    quantiles = np.linspace(0.05, 0.95, 10)
    for name in ("observations", "actions"):
        assert np.allclose(np.quantile(sample[name], quantiles, 0), np.quantile(real[name], quantiles, 0), atol=0.07)
    both = [np.corrcoef(rows["observations"][:, :2].T)[0, 1] for rows in (real, sample)]
    assert both[0] == pytest.approx(both[1], abs=0.02)


def test_copula_of_two_rows():
    sample = fitted({"kind": "copula"}, toy_dataset((1, 1))).sample(50, rng())
    assert np.isfinite(sample["observations"]).all()


def test_copula_with_full_shrinkage_has_independent_columns():
    sample = fitted({"kind": "copula", "shrinkage": 1.0}, awkward_dataset()).sample(20_000, rng())
    assert abs(np.corrcoef(sample["observations"][:, :2].T)[0, 1]) < 0.03
    assert isinstance(build({"kind": "copula"}), Copula)
