"""What must hold for any fields, any numbers, any episodes: checked against naive code."""

import json

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from toy_data import random_episodes

from synth_pipeline.config import Config, canonical, content_hash, override
from synth_pipeline.data.containers import concatenate_episodes
from synth_pipeline.data.fields import Field, Layout
from synth_pipeline.data.normalize import MinMax, Quantile, Standard
from synth_pipeline.data.split import split_episodes
from synth_pipeline.data.windows import gather, returns_to_go, segments, window_starts


def check(*strategies):
    return lambda test: settings(max_examples=50)(given(*strategies)(test))


float32 = st.floats(allow_nan=False, allow_infinity=False, width=32)
lengths_of_episodes = st.lists(st.integers(1, 9), min_size=1, max_size=6)
leads = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
shapes = hnp.array_shapes(min_dims=0, max_dims=2, max_side=3)


@st.composite
def fields(draw, index):
    kind = draw(st.sampled_from(["continuous", "binary", "categorical"]))
    classes = draw(st.integers(2, 5)) if kind == "categorical" else None
    return Field(name=f"f{index}", shape=draw(shapes), kind=kind, num_categories=classes)


@st.composite
def packed(draw):
    """A layout and columns that fit it, with any leading axes."""
    layout = Layout(tuple(draw(fields(index)) for index in range(draw(st.integers(1, 4)))))
    lead = draw(leads)
    columns = {}
    for field in layout:
        shape = (*lead, *field.shape)
        if field.kind == "continuous":
            columns[field.name] = draw(hnp.arrays(np.float32, shape, elements=float32))
        elif field.kind == "binary":
            columns[field.name] = draw(hnp.arrays(bool, shape))
        else:
            columns[field.name] = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, field.num_categories - 1)))
    return layout, lead, columns


@check(packed())
def test_unpack_undoes_pack(case):
    layout, lead, columns = case
    x = layout.pack(columns)
    assert x.shape == (*lead, layout.size)
    assert x.dtype == np.float32
    unpacked = layout.unpack(x)
    assert list(unpacked) == [field.name for field in layout]
    for name, column in columns.items():
        assert unpacked[name].dtype == column.dtype
        assert np.array_equal(unpacked[name], column)


@check(packed())
def test_slices_partition_the_channels(case):
    layout = case[0]
    channels = [channel for part in layout.slices.values() for channel in range(layout.size)[part]]
    assert channels == list(range(layout.size))


@check(packed(), st.floats(-3, 3), st.integers(0, 2**31))
def test_anything_unpacks_to_values_that_pack_again(case, scale, seed):
    layout, lead, _ = case
    x = (scale * np.random.default_rng(seed).standard_normal((*lead, layout.size))).astype(np.float32)
    once = layout.unpack(x)
    again = layout.unpack(layout.pack(once))
    assert all(np.array_equal(once[name], again[name]) for name in once)


@check(
    hnp.arrays(np.float32, (5, 3), elements=st.floats(-10, 10, width=32)),
    st.lists(st.tuples(st.floats(-5, 5, width=32), st.floats(0, 5, width=32)), min_size=3, max_size=3),
)
def test_clipped_fields_leave_inside_their_bounds(values, bounds):
    low = tuple(float(start) for start, _ in bounds)
    high = tuple(float(np.float32(start + width)) for start, width in bounds)
    field = Field(name="actions", shape=(3,), low=low, high=high, clip=True)
    out = Layout((field,)).unpack(values)["actions"]
    assert (out >= np.float32(low)).all()
    assert (out <= np.float32(high)).all()
    inside = (values >= np.float32(low)) & (values <= np.float32(high))
    assert np.array_equal(out[inside], values[inside])


@st.composite
def samples(draw):
    """Rows with ordinary channels, an atom, few distinct values, a constant, and whatever hypothesis likes."""
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    scale, shift = draw(st.floats(1e-2, 1e4)), draw(st.floats(-1e4, 1e4))
    normal = scale * rng.standard_normal(n) + shift
    atom = np.where(rng.random(n) < draw(st.floats(0, 1)), shift, normal)
    few = rng.integers(0, 3, n).astype(float)
    constant = np.full(n, shift)
    wild = draw(hnp.arrays(np.float32, n, elements=st.floats(-1e6, 1e6, width=32)))
    return np.stack([normal, atom, few, constant, wild], axis=1).astype(np.float32)


def tolerance(x):
    """float32 rounding of model units, times the range that they span, beside the rounding of x itself."""
    return 3e-6 * np.maximum(np.ptp(x.astype(np.float64), axis=0), 1e-3) + 2e-7 * np.abs(x).max(axis=0)


@check(samples(), st.sampled_from([Standard, MinMax, Quantile]))
def test_decode_undoes_encode_on_the_data(x, kind):
    normalizer = kind.fit(x)
    z = normalizer.encode(x)
    assert z.dtype == np.float32
    assert np.isfinite(z).all()
    assert (np.abs(normalizer.decode(z).astype(np.float64) - x) <= tolerance(x)).all()


@check(samples(), st.sampled_from([Standard, MinMax, Quantile]), st.integers(0, 2**31))
def test_decode_undoes_encode_between_the_data(x, kind, seed):
    low, high = x.min(axis=0), x.max(axis=0)
    between = low + (high - low) * np.random.default_rng(seed).random((20, x.shape[1])).astype(np.float32)
    between = np.clip(between, low, high)
    normalizer = kind.fit(x)
    error = np.abs(normalizer.decode(normalizer.encode(between)).astype(np.float64) - between)
    assert (error <= 30 * tolerance(x)).all()  # the scores of a wide gap are close together


@check(samples(), st.sampled_from([Standard, MinMax]), st.integers(0, 2**31))
def test_affine_normalizers_keep_the_middle_of_two_points(x, kind, seed):
    """So half-spaces stay half-spaces, which is what the flag promises."""
    assert kind.is_affine
    normalizer, rng = kind.fit(x), np.random.default_rng(seed)
    a, b = x[rng.integers(len(x), size=8)], x[rng.integers(len(x), size=8)]
    middle = normalizer.encode((a.astype(np.float64) + b) / 2).astype(np.float64)
    straight = (normalizer.encode(a).astype(np.float64) + normalizer.encode(b)) / 2
    assert np.allclose(middle, straight, atol=1e-5 * (1 + np.abs(straight).max()))


@check(st.floats(0.5, 5))
def test_quantile_bends_skewed_data_and_says_so(rate):
    x = np.exp(rate * np.linspace(0, 3, 500))[:, None]
    low, middle, high = Quantile.fit(x).encode(np.array([x[0], (x[0] + x[-1]) / 2, x[-1]]))[:, 0]
    assert not Quantile.is_affine
    assert abs(middle - (low + high) / 2) > 0.1


@check(samples(), st.sampled_from([Standard, MinMax, Quantile]))
def test_saved_normalizers_are_the_same(x, kind):
    normalizer = kind.fit(x)
    other = kind.from_arrays({name: array.copy() for name, array in normalizer.arrays().items()})
    z = np.random.default_rng(0).standard_normal((20, x.shape[1]))
    assert np.array_equal(other.encode(x), normalizer.encode(x))
    assert np.array_equal(other.decode(z), normalizer.decode(z))


@check(samples(), st.sampled_from([Standard, MinMax, Quantile]), leads)
def test_normalizers_work_by_channel_whatever_precedes_it(x, kind, lead):
    normalizer = kind.fit(x)
    block = np.resize(x, (*lead, x.shape[1]))
    flat = normalizer.encode(block.reshape(-1, x.shape[1]))
    assert np.array_equal(normalizer.encode(block), flat.reshape(block.shape))
    assert np.array_equal(normalizer.decode(normalizer.encode(block)), normalizer.decode(flat).reshape(block.shape))


@check(samples())
def test_quantile_keeps_the_order(x):
    z = Quantile.fit(x).encode(np.sort(x, axis=0))
    assert (np.diff(z, axis=0) >= 0).all()


def naive_windows(episodes, horizon, stride, pad):
    """(episode, first step, number of real rows) of every window, by loops."""
    result = []
    for episode in range(len(episodes)):
        length = int(episodes.starts[episode + 1] - episodes.starts[episode])
        for step in range(0, length, stride):
            real = min(horizon, length - step)
            if real == horizon or pad:
                result.append((episode, step, real))
    return result


@check(lengths_of_episodes, st.integers(1, 12), st.integers(1, 4), st.booleans())
def test_windows_are_the_naive_ones_and_never_cross(lengths, horizon, stride, pad):
    episodes = random_episodes(lengths)
    windows = segments(episodes, horizon, stride=stride, pad=pad)
    expected = naive_windows(episodes, horizon, stride, pad)
    assert list(zip(windows.episode_ids, windows.steps, windows.mask.sum(axis=1), strict=True)) == expected
    rows = episodes.transitions()
    for window, (episode, step, real) in enumerate(expected):
        first = int(episodes.starts[episode]) + step
        assert windows.mask[window].tolist() == [True] * real + [False] * (horizon - real)
        for name, column in windows.columns.items():
            assert np.array_equal(column[window, :real], rows[name][first : first + real])
            assert not column[window, real:].any()


@check(lengths_of_episodes, st.integers(1, 12), st.data())
def test_gather_takes_any_rows_as_starts(lengths, horizon, data):
    episodes = random_episodes(lengths)
    starts = np.array(data.draw(st.lists(st.integers(0, episodes.num_rows - 1), max_size=5)), np.int64)
    windows = gather(episodes, starts, horizon)
    left = [int(episodes.starts[1:][episodes.starts[1:] > row][0]) - row for row in starts]
    assert windows.mask.sum(axis=1).tolist() == [min(horizon, n) for n in left]
    assert np.array_equal(windows["observations"][:, 0], episodes.observations[starts])


@check(lengths_of_episodes, st.integers(1, 12))
def test_windows_without_padding_are_full(lengths, horizon):
    episodes = random_episodes(lengths)
    starts = window_starts(episodes, horizon)
    assert len(starts) == sum(max(length - horizon + 1, 0) for length in lengths)
    assert gather(episodes, starts, horizon).mask.all()


@check(lengths_of_episodes, st.floats(0, 1), st.integers(0, 100))
def test_returns_to_go_are_the_naive_ones(lengths, discount, seed):
    episodes = random_episodes(lengths, seed)
    expected = np.zeros(episodes.num_rows)
    for start, end in zip(episodes.starts[:-1], episodes.starts[1:], strict=True):
        running = 0.0
        for row in range(end - 1, start - 1, -1):
            running = float(episodes["rewards"][row]) + discount * running
            expected[row] = running
    assert np.array_equal(returns_to_go(episodes, discount), expected)
    if discount == 1:
        assert np.allclose(expected[episodes.starts[:-1]], episodes.returns)


@check(lengths_of_episodes, st.data())
def test_take_is_the_naive_one(lengths, data):
    episodes = random_episodes(lengths)
    ids = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=6)), np.int64)
    taken = episodes.take(ids)
    rows = [row for e in ids for row in range(episodes.starts[e], episodes.starts[e + 1])]
    assert taken.lengths.tolist() == [lengths[e] for e in ids]
    for name in ("observations", "next_observations", "actions", "rewards", "terminations", "truncations"):
        assert np.array_equal(taken[name], episodes[name][np.array(rows, np.int64)])


@check(lengths_of_episodes, st.integers(1, 5))
def test_concatenating_pieces_gives_the_whole(lengths, cut):
    episodes = random_episodes(lengths)
    ids = np.arange(len(lengths))
    whole = concatenate_episodes([episodes.take(part) for part in np.array_split(ids, min(cut, len(ids)))])
    assert whole.starts.tolist() == episodes.starts.tolist()
    for name in ("observations", "next_observations", "rewards", "terminations"):
        assert np.array_equal(whole[name], episodes[name])


@check(lengths_of_episodes)
def test_next_observations_are_the_naive_ones(lengths):
    episodes = random_episodes(lengths)
    for episode, (start, end) in enumerate(zip(episodes.starts[:-1], episodes.starts[1:], strict=True)):
        expected = [*episodes.observations[start + 1 : end], episodes.final_observations[episode]]
        assert np.array_equal(episodes.next_observations[start:end], np.array(expected))


@check(st.integers(2, 300), st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_split_is_disjoint_covering_and_seeded(count, fraction, seed):
    split = split_episodes(count, fraction=fraction, seed=seed)
    assert sorted([*split.train, *split.held_out]) == list(range(count))
    assert len(split.train) >= 1
    assert len(split.held_out) >= 1
    assert abs(len(split.held_out) - fraction * count) <= 1
    assert np.all(np.diff(split.train) > 0)
    assert np.all(np.diff(split.held_out) > 0)
    assert np.array_equal(split_episodes(count, fraction=fraction, seed=seed).held_out, split.held_out)


class Inner(Config):
    scale: float = 1.0
    limits: tuple[float, ...] = ()


class Outer(Config):
    seed: int = 0
    name: str = "x"
    inner: Inner = Inner()
    inners: tuple[Inner, ...] = ()


inner = st.builds(Inner, scale=st.floats(allow_nan=False), limits=st.lists(st.floats(allow_nan=False)).map(tuple))
outer = st.builds(Outer, seed=st.integers(), name=st.text(), inner=inner, inners=st.lists(inner, max_size=3).map(tuple))


@check(outer)
def test_configurations_survive_strict_json_with_the_same_hash(config):
    again = Outer.parse(json.loads(json.dumps(config.plain(), allow_nan=False)))
    assert again == config
    assert content_hash(again) == content_hash(config)


@check(outer, outer)
def test_hashes_are_equal_exactly_for_equal_configurations(one, two):
    assert (content_hash(one) == content_hash(two)) == (canonical(one) == canonical(two))
    assert (canonical(one) == canonical(two)) == (one == two and repr(one) == repr(two))


keys = st.text("abc", min_size=1, max_size=3)
plain = st.recursive(
    st.integers() | st.booleans() | st.none(), lambda v: st.dictionaries(keys, v, max_size=3), max_leaves=8
)


@check(st.dictionaries(keys, plain, max_size=3), st.lists(keys, min_size=1, max_size=3), st.integers())
def test_override_sets_one_value_and_nothing_else(values, path, value):
    node = values
    for part in path[:-1]:
        node = node.get(part, {}) if isinstance(node, dict) else None
    assume(isinstance(node, dict))
    before = json.dumps(values)
    result = override(values, [f"{'.'.join(path)}={value}"])
    assert json.dumps(values) == before
    found = result
    for part in path:
        found = found[part]
    assert found == value
    assert override(result, [f"{'.'.join(path)}={value}"]) == result
