"""D4RL's pairs against the loop that defines them, on any flags."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline.data.d4rl import to_episodes

FLAGS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40)


def columns(flags):
    terminals, timeouts = (np.array(column) for column in zip(*flags, strict=True))
    count = len(flags)
    return {
        "observations": np.arange(count, dtype=np.float32)[:, None],
        "rewards": np.arange(count, dtype=np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
    }


def loop(flat):
    """Row by row: (row, next row or itself, terminal)."""
    count, kept = len(flat["terminals"]), []
    for i in range(count):
        if flat["terminals"][i]:
            kept.append((i, i, True))
        elif not flat["timeouts"][i] and i + 1 < count:
            kept.append((i, i + 1, False))
    return kept


@given(FLAGS)
def test_pairs_are_those_of_the_loop(flags):
    flat = columns(flags)
    expected = loop(flat)
    if not expected:
        return
    rows = to_episodes(flat).transitions()
    found = zip(rows["rewards"], rows["next_observations"][:, 0], rows["terminations"], strict=True)
    assert [(int(i), int(j), bool(end)) for i, j, end in found] == expected


@given(FLAGS)
def test_every_episode_ends_once_and_at_its_end(flags):
    flat = columns(flags)
    if not loop(flat):
        return
    episodes = to_episodes(flat)
    ended = np.flatnonzero(episodes["terminations"] | episodes["truncations"])
    np.testing.assert_array_equal(ended, episodes.starts[1:] - 1)


@given(FLAGS)
def test_exact_rows_come_back_whole(flags):
    flat = columns(flags)
    flat["next_observations"] = flat["observations"] + 1
    ends = flat["terminals"] | flat["timeouts"]
    flat["next_observations"][ends] += 0.5
    rows = to_episodes(flat).transitions()
    for ours, theirs in (("observations", "observations"), ("next_observations", "next_observations"),
                         ("terminations", "terminals"), ("rewards", "rewards")):  # fmt: skip
        np.testing.assert_array_equal(rows[ours], flat[theirs])
