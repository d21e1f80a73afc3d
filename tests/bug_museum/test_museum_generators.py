"""Bugs found in other people's generators (and one of our own): one short test each, that ours must pass."""

import random

import numpy as np
import pytest
from toy_data import SPEC, random_episodes, toy_dataset

from synth_pipeline import envs
from synth_pipeline.data.containers import Episodes
from synth_pipeline.data.rows import Dataset
from synth_pipeline.data.spec import DatasetSpec
from synth_pipeline.envs.base import dataset_fields
from synth_pipeline.generators.base import Postprocess, build, save
from synth_pipeline.seeding import Stage, stream


def sample_of(settings, dataset, rows=500):
    generator = build(settings)
    generator.fit(dataset, seed=0)
    return generator.sample(rows, stream(0, Stage.GENERATE, 0, 0))


def hopper_rows(n=60):
    """Rows at the very edge of falling: height just above the limit."""
    rng = np.random.default_rng(0)
    model = envs.make("hopper")
    observations = 0.01 * rng.standard_normal((n, 11)).astype(np.float32)
    observations[:, 0] = 0.7 + 0.01 * rng.random(n)
    columns = {
        "actions": rng.uniform(-1, 1, (n, 3)).astype(np.float32),
        "rewards": rng.random(n).astype(np.float32),
        "terminations": np.zeros(n, bool),
    }
    starts = np.arange(0, n + 1, 10)
    spec = DatasetSpec(dataset_id="x", fields=dataset_fields(model.spec), environment="hopper")
    return model, Dataset(spec, Episodes(observations, observations[starts[1:] - 1], starts, columns))


def test_neighbours_come_from_other_episodes():
    """SMOTE as in imbalanced-learn knows no episodes: the neighbour is the next time step, and nothing new is made."""
    sample = sample_of({"kind": "smote"}, toy_dataset())
    assert (sample["source_episode"] != sample["target_episode"]).all()


def test_actions_leave_inside_their_bounds():
    """SynthER stores actions as the network gives them; the environment clips them, the critic never hears of it."""
    vectors = 10 * np.random.default_rng(0).standard_normal((200, Postprocess(SPEC).layout.size))
    rows = Postprocess(SPEC).from_vectors(vectors.astype(np.float32), {})
    assert np.abs(rows["actions"]).max() == 1


def test_flags_leave_as_booleans():
    """SynthER's terminals are floats around 0 and 1 that every consumer rounds in its own way, or not at all."""
    rows = sample_of({"kind": "copula"}, toy_dataset())
    assert rows["terminations"].dtype == bool


@pytest.mark.parametrize("kind", ["noise", "smote", "copula"])
def test_terminations_agree_with_the_next_state_that_was_made(kind):
    """GTA copies the terminals of the source window: states that never fall are flagged, and fallen ones are not."""
    model, dataset = hopper_rows()
    sample = sample_of({"kind": "noise", "scale": 2.0} if kind == "noise" else {"kind": kind}, dataset)
    assert np.array_equal(sample["terminations"], model.terminated(sample["next_observations"]))
    assert kind != "noise" or 0.1 < sample["terminations"].mean() < 0.9  # none of the recorded rows falls


def test_rare_flags_stay_rare():
    """Our own first copula: a flag was interpolated between its two values, and 1 % of terminations became 8 %."""
    episodes = random_episodes([100] * 40)
    columns = {**episodes.columns, "terminations": np.arange(4000) % 100 == 0}
    dataset = Dataset(SPEC, Episodes(episodes.observations, episodes.final_observations, episodes.starts, columns))
    assert sample_of({"kind": "copula"}, dataset, 20_000)["terminations"].mean() == pytest.approx(0.01, abs=0.003)


@pytest.mark.parametrize("rows", [1, 12_345])
def test_any_number_of_rows_can_be_made(rows):
    """SynthER made only multiples of its batch of 100,000."""
    assert len(sample_of({"kind": "copula"}, toy_dataset(), rows)) == rows


def test_samples_do_not_read_global_random_states():
    """MTDiff, SynthER and CORL draw from the global states: an import or a log line changes the data."""
    samples = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        samples.append(sample_of({"kind": "noise"}, toy_dataset())["observations"])
    assert np.array_equal(*samples)


def test_sums_do_not_depend_on_the_order_in_memory():
    """Ours: column-major arrays sum in another order, so samples changed in the last bit once a model was loaded."""
    rows = random_episodes([500]).transitions()
    turned = rows.with_columns(observations=np.asfortranarray(rows["observations"]))
    samples = [sample_of({"kind": "noise"}, Dataset(SPEC, rows=r))["observations"] for r in (rows, turned)]
    assert np.array_equal(*samples)


def test_models_hold_no_pickles(tmp_path):
    """EDM and DiffStitch save pickled code and lists: loading a model runs whatever its author, or a thief, wrote."""
    generator = build({"kind": "smote"})
    generator.fit(toy_dataset(), seed=0)
    save(generator, tmp_path / "model", extra={})
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["arrays.safetensors", "config.json", "state.json"]
