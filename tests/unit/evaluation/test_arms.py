"""Arms: what each mixes in, and that none sees more than its subset."""

import numpy as np
import pytest
import torch
from worlds import roll

from synth_pipeline.agents.replay import Mixture, Replay, next_actions
from synth_pipeline.agents.scaling import Scaling
from synth_pipeline.diffusion.trainer import TrainerConfig
from synth_pipeline.dynamics.regressor import RegressorConfig
from synth_pipeline.errors import SourceError, UnknownNameError
from synth_pipeline.evaluation.arms import ARMS, Ground, make_rows
from synth_pipeline.evaluation.subsets import draw_subset
from synth_pipeline.validation.truth import Truth, known_truth

LABELS = RegressorConfig(width=16, depth=1, trainer=TrainerConfig(gradient_steps=50, batch_size=64))
ROWS = 120


@pytest.fixture(scope="module")
def data():
    return roll("toy-point-mass", episodes=20, steps=20)


def ground(data, size=150, **changes):
    subset, rest = draw_subset(data, size, draw=0)
    given = {"truth": known_truth(data.spec), "generator": {"kind": "copula"}, "labels": LABELS}
    return Ground(subset, rest, seed=1, **{"rows": ROWS, **given, **changes})


def seen(data, name="observations"):
    return {row.tobytes() for row in data.transitions()[name]}


@pytest.mark.parametrize("name", [name for name in ARMS if name != "real"])
def test_every_arm_gives_the_rows_asked_for_with_flags_of_the_true_function(data, name):
    rows = make_rows(name, ground(data))
    again = name in ("duplicate", "learned", "noise", "top")  # whole passes
    assert len(rows) == ROWS or again or (name == "relabelled" and 0 < len(rows) <= ROWS)
    truth = known_truth(data.spec)
    if name not in ("duplicate", "top", "fresh"):
        assert np.array_equal(rows["terminations"], truth.terminated(rows["next_observations"]))
    again = make_rows(name, ground(data))
    assert all(np.array_equal(rows[c], again[c]) for c in rows.columns)


@pytest.mark.parametrize("name", ["duplicate", "top", "fresh"])
def test_real_rows_keep_what_was_done_next(data, name):
    """As often as in the data: else an A/A test would be none for agents that look at the next action."""
    rows, known = make_rows(name, ground(data)), next_actions(data)
    expected = {
        s.tobytes(): (a.tobytes(), c) for s, a, c in zip(data.transitions()["observations"], *known, strict=True)
    }
    found = zip(rows["observations"], rows["next_actions"], rows["continued"], strict=True)
    same = [expected[s.tobytes()] == (a.tobytes(), c) for s, a, c in found]
    assert np.mean(same) > 0.98, "the episode that was cut to fit ends where the data's goes on"
    replay = Replay(Mixture(data, rows), Scaling.fit(data, normalize_observations=False, scale_rewards=False),
                    batch_size=64, discount=0.99, device=torch.device("cpu"))  # fmt: skip
    batch = replay.draw(torch.Generator().manual_seed(0)).critic
    assert batch.continued[32:].mean() > 0.8
    assert (batch.next_actions[32:].abs().sum(1) > 0).float().mean() > 0.8


@pytest.mark.parametrize("name", ["learned", "noise", "smote"])
def test_what_would_be_done_next_in_made_rows_is_not_known(data, name):
    assert "next_actions" not in make_rows(name, ground(data))


def test_real_mixes_nothing_in(data):
    assert make_rows("real", ground(data)) is None


def test_simulator_labels_are_the_simulators(data):
    rows, truth = make_rows("relabelled", ground(data)), known_truth(data.spec)
    answer = truth.oracle(rows["observations"], rows["actions"])
    assert np.allclose(answer.next_observations, rows["next_observations"], atol=1e-6)
    assert np.allclose(answer.rewards, rows["rewards"], atol=1e-6)


def test_rows_that_are_there_are_labelled_and_none_are_generated(data):
    there = make_rows("generated", ground(data))
    rows = make_rows("relabelled", ground(data, generated=there, generator={"kind": "nobody builds this"}))
    assert {row.tobytes() for row in rows["actions"]} <= {row.tobytes() for row in there["actions"]}
    again = make_rows("relabelled", ground(data))
    assert all(np.array_equal(rows[c], again[c]) for c in rows.columns)


def test_learned_labels_keep_the_states_and_change_what_follows(data):
    given = ground(data)
    rows = make_rows("learned", given)
    pairs = {row.tobytes() for row in rows["observations"]}
    assert pairs <= seen(given.subset)
    assert not {row.tobytes() for row in rows["next_observations"]} & seen(given.subset, "next_observations")


@pytest.mark.parametrize("name", ["duplicate", "top", "learned"])
def test_controls_stay_within_the_subset(data, name):
    given = ground(data)
    assert {row.tobytes() for row in make_rows(name, given)["observations"]} <= seen(given.subset)


@pytest.mark.parametrize("name", ["duplicate", "learned"])
@pytest.mark.parametrize(("rows", "passes"), [(1, 1), (ROWS, 1), (150, 1), (230, 2), (400, 3)])
def test_real_rows_again_are_each_there_as_often_as_any_other(data, name, rows, passes):
    """Drawn with replacement, some would count threefold and others not at all: no A/A test."""
    found = make_rows(name, ground(data, rows=rows))
    counts = np.unique(np.concatenate([found["observations"], found["actions"]], axis=1), axis=0, return_counts=True)[1]
    assert len(counts) == 150
    assert set(counts) == {passes}


def test_noise_moves_every_real_row_a_little(data):
    given = ground(data, rows=150)
    rows, real = make_rows("noise", given), make_rows("duplicate", given)
    moved = np.abs(rows["observations"] - real["observations"]) / given.subset.transitions()["observations"].std(axis=0)
    assert np.array_equal(rows["actions"], real["actions"])
    assert 0 < np.median(moved) < 0.01
    assert rows["observations"].dtype == np.float32


def test_top_takes_the_best_episodes(data):
    given = ground(data)
    best = given.subset.episodes.returns.argmax()
    rows = make_rows("top", given)
    assert {r.tobytes() for r in rows["observations"]} <= {
        r.tobytes() for r in given.subset.episodes.take(np.array([best])).observations
    }


def test_fresh_rows_are_real_and_none_of_the_subset(data):
    given = ground(data)
    rows = {row.tobytes() for row in make_rows("fresh", given)["observations"]}
    assert len(rows) == ROWS
    assert rows <= seen(data)
    assert not rows & seen(given.subset)


def test_what_cannot_be_made_is_refused(data):
    with pytest.raises(SourceError, match="upper bound"):
        make_rows("fresh", ground(data, len(data) - 5))
    with pytest.raises(SourceError, match="simulator"):
        make_rows("relabelled", ground(data, truth=Truth()))
    with pytest.raises(UnknownNameError, match="smote"):
        make_rows("smotte", ground(data))
