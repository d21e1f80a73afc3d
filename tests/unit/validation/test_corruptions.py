"""Each corruption spoils what it says, as much as it says, and nothing else."""

import numpy as np
import pytest
from worlds import roll

from synth_pipeline import envs
from synth_pipeline.validation.corruptions import CORRUPTIONS, Fresh, jittered, monotone

HOPPER = roll("hopper", episodes=12, steps=40)
TRAINING = roll("hopper", episodes=6, steps=40, seed=1).transitions()
TOUCHED = {
    "shuffled_actions": {"actions"},
    "noisy_next": {"next_observations"},
    "late_next": {"next_observations"},
    "biased_rewards": {"rewards"},
    "flipped_terminations": {"terminations"},
    "shrunk": {"observations", "actions", "next_observations"},
    "actions_out_of_bounds": {"actions"},
    "self_loops": {"next_observations"},
    "swapped_columns": {"observations", "next_observations"},
    "heavier": {"next_observations", "rewards", "terminations"},
}


def fresh(seed=0):
    return Fresh(HOPPER.episodes, TRAINING, envs.make("hopper"), np.random.default_rng(seed))


def changed(rows):
    """Column -> share of the rows that differ from the fresh ones."""
    before = fresh().rows
    differ = {name: rows[name] != before[name] for name in before.columns}
    return {name: float(d.reshape(len(d), -1).any(axis=1).mean()) for name, d in differ.items()}


@pytest.mark.parametrize("corruption", [c for c in CORRUPTIONS if c.name in TOUCHED], ids=lambda c: c.name)
def test_it_touches_what_it_says(corruption):
    for strength in corruption.strengths:
        touched = {name for name, share in changed(corruption.apply(fresh(), strength)).items() if share > 0}
        assert touched <= TOUCHED[corruption.name]
    assert touched >= TOUCHED[corruption.name] - {"terminations"} or corruption.name == "flipped_terminations"
    assert corruption.stated in corruption.strengths
    assert sorted(corruption.strengths) == list(corruption.strengths)
    assert corruption.label(corruption.stated) != corruption.words


@pytest.mark.parametrize(
    ("name", "column"),
    [("flipped_terminations", "terminations"), ("self_loops", "next_observations"), ("near_copies", "rewards")],
)
def test_shares_are_those_asked_for(name, column):
    (corruption,) = [c for c in CORRUPTIONS if c.name == name]
    share = corruption.strengths[2]
    assert changed(corruption.apply(fresh(), share))[column] == pytest.approx(share, abs=0.02)


def test_s_from_the_step_after_stays_inside_its_episode():
    (late,) = [c for c in CORRUPTIONS if c.name == "late_next"]
    rows, episodes = late.apply(fresh(), 1.0), HOPPER.episodes
    ends = episodes.starts[1:] - 1
    np.testing.assert_array_equal(rows["next_observations"][ends], episodes.final_observations)
    np.testing.assert_array_equal(rows["next_observations"][0], episodes["next_observations"][1])


def test_the_best_episodes_go_first():
    (best,) = [c for c in CORRUPTIONS if c.name == "without_the_best"]
    left = best.apply(fresh(), 0.5)
    order = np.argsort(HOPPER.episodes.returns)
    kept = np.sort(order[np.cumsum(HOPPER.episodes.lengths[order]) <= 0.5 * HOPPER.episodes.num_rows])
    assert 0 < len(left) <= 0.5 * HOPPER.episodes.num_rows
    np.testing.assert_array_equal(left["rewards"], HOPPER.episodes.take(kept)["rewards"])


def test_shrinking_loses_the_variance_it_says():
    (shrunk,) = [c for c in CORRUPTIONS if c.name == "shrunk"]
    before, after = fresh().rows["observations"], shrunk.apply(fresh(), 0.2)["observations"]
    np.testing.assert_allclose(after.var(axis=0), 0.8 * before.var(axis=0), rtol=1e-3)
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=1e-3)


def test_gravity_changes_what_follows_and_gravity_as_it_is_does_not():
    (heavier,) = [c for c in CORRUPTIONS if c.name == "heavier"]
    before = fresh().rows["next_observations"]
    same, more = (heavier.apply(fresh(), factor)["next_observations"] for factor in (1.0, 1.2))
    np.testing.assert_allclose(same, before, atol=1e-4)
    # Free fall: the vertical velocity loses another 0.2 g dt; Hopper's dt is 8 ms.
    assert np.median(more[:, 6] - before[:, 6]) == pytest.approx(-0.2 * 9.81 * 0.008, rel=0.3)
    assert envs.make("hopper").bare().model.opt.gravity[2] == -9.81  # nobody else's world has changed


def test_near_copies_are_near_their_originals():
    rng = np.random.default_rng(0)
    copies = jittered(TRAINING, 50, 1e-4, rng)
    gaps = np.abs(copies["observations"][:, None] - TRAINING["observations"][None]).max(axis=2).min(axis=1)
    assert gaps.max() < 0.01
    assert gaps.min() > 0


def test_monotone():
    assert monotone([0.1, 0.2, 0.2], "lower", None)
    assert not monotone([0.1, 0.3, 0.2], "lower", None)
    assert monotone([0.9, 0.5], "higher", None)
    assert monotone([1.1, 0.8, 1.4], "nearest", 1.0)
