"""What a figure shows is what it was given: positions, heights, shares and words are read back from it."""

import subprocess
import sys
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.patches import StepPatch

from synth_pipeline.plots import columns, dynamics, episodes, space, style


def rng(seed=0):
    return np.random.default_rng(seed)


def words(figure):
    texts = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    return " | ".join(text for text in texts if text).replace("\u00a0", " ")


def dots(axes):
    """Positions of every scatter that has any, by what it is called."""
    found = [c for c in axes.collections if isinstance(c, PathCollection) and len(c.get_offsets())]
    return [np.asarray(c.get_offsets()) for c in found]


def steps(axes):
    return {patch.get_label(): patch.get_data() for patch in axes.patches if isinstance(patch, StepPatch)}


# --- style -----------------------------------------------------------------------------------------------------------


def test_the_same_figure_has_the_same_bytes_and_loads_nothing():
    draw = [style.to_svg(columns.marginals({"a": np.arange(9.0)}, {"a": np.arange(9.0)})) for _ in range(2)]
    assert draw[0] == draw[1]
    assert draw[0].replace("http://www.w3.org/", "").count("http") == 0  # names of namespaces, which nobody fetches
    assert "<text" not in draw[0]  # outlines: the reader's fonts do not matter


def test_what_the_user_has_set_is_neither_used_nor_changed():
    plain = style.to_svg(episodes.distributions({"reward": (rng().normal(size=90), rng(1).normal(size=90))}))
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "none"}):
        before = dict(matplotlib.rcParams)
        again = style.to_svg(episodes.distributions({"reward": (rng().normal(size=90), rng(1).normal(size=90))}))
        assert dict(matplotlib.rcParams) == before
    assert again == plain


def test_pyplot_and_its_windows_are_never_touched():
    code = (
        "import sys, numpy as np\nfrom synth_pipeline.plots import columns, dynamics, episodes, space, style\n"
        "assert 'matplotlib' not in sys.modules\n"
        "style.to_svg(columns.marginals({'a': np.arange(9.0)}, {'a': np.arange(9.0)}))\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- columns ---------------------------------------------------------------------------------------------------------


def test_marginals_are_shares_of_rows_and_nothing_is_lost():
    real, synthetic = rng().normal(size=5_000), np.append(rng(1).normal(size=2_997), [1e30, 50.0, -50.0])
    figure = columns.marginals({"a": real}, {"a": synthetic}, scores={"a": 0.876})
    shown = steps(figure.axes[0])
    theirs, ours = shown["real rows"], shown["synthetic rows"]
    expected = np.histogram(real, theirs.edges)[0] / 5_000
    np.testing.assert_allclose(theirs.values[1:-1], expected[1:-1])
    assert theirs.values.sum() == pytest.approx(1)
    assert ours.values.sum() == pytest.approx(1)
    assert ours.values[0] >= 1 / 3_000
    assert ours.values[-1] >= 2 / 3_000
    np.testing.assert_array_equal(theirs.edges, ours.edges)
    assert "0.88" in words(figure)


def test_a_constant_column_is_one_bar():
    shown = steps(columns.marginals({"a": np.ones(5)}, {"a": np.full(5, 2.0)}).axes[0])
    assert shown["real rows"].values.max() == 1
    assert shown["synthetic rows"].values[-1] == 1


def test_flags_are_bars_and_rare_ones_are_told_in_numbers():
    real, synthetic = np.arange(1_000) < 12, np.arange(1_000) < 40
    figure = columns.marginals({"ends": real}, {"ends": synthetic})
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == pytest.approx([0.988, 0.012, 0.96, 0.04])
    for text in ("no", "yes", "1.2 %", "4.0 %"):
        assert text in words(figure)
    assert "98.8 %" not in words(figure)
    assert "7" in words(columns.marginals({"class": np.array([3, 7])}, {"class": np.array([3, 3])}))


def test_26_columns_are_legible():
    """No text runs into another, and on a phone of 340 px none is smaller than 7 px."""
    names = [f"next_observations[{i}]" for i in range(26)]
    sides = [{name: rng(seed).normal(size=200) for name in names} for seed in (0, 1)]
    figure = columns.marginals(*sides, scores=dict.fromkeys(names, 0.5))
    figure.draw_without_rendering()
    assert len(figure.axes) == 26
    texts = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible()]
    assert min(t.get_fontsize() for t in texts) * 96 / 72 * 340 / (style.WIDTH * 96) > 7
    titles = [t.get_window_extent() for t in texts if t.get_text().startswith(("next_", "0.5", "real", "synth"))]
    assert len(titles) == 54
    assert not [1 for a, b in combinations(titles, 2) if a.shrunk(0.98, 0.9).overlaps(b)]


def test_correlation_differences_are_shown_on_a_scale_that_does_not_exaggerate():
    difference = np.array([[0.0, 0.05, np.nan], [0.05, 0.0, -0.5], [np.nan, -0.5, 0.0]])
    figure = columns.correlation_difference(difference, [("observations", 2), ("rewards", 1)])
    (image,) = figure.axes[0].images
    np.testing.assert_array_equal(np.ma.filled(image.get_array(), np.nan), difference)
    assert image.get_clim() == (-0.5, 0.5)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["observations", "rewards"]
    np.testing.assert_allclose(figure.axes[0].get_yticks(), [0.5, 2])
    small = columns.correlation_difference(difference[:2, :2], [("observations", 2)])
    assert small.axes[0].images[0].get_clim() == (-0.2, 0.2)


# --- space -----------------------------------------------------------------------------------------------------------


def test_principal_axes_equal_a_singular_value_decomposition():
    x = rng().normal(size=(400, 5)) @ rng(1).normal(size=(5, 5)) + 3
    axes = space.principal_axes(x)
    scored = (x - x.mean(axis=0)) / x.std(axis=0)
    _, values, vectors = np.linalg.svd(scored, full_matrices=False)
    np.testing.assert_allclose(axes.explained, (values**2 / (values**2).sum())[:2])
    np.testing.assert_allclose(np.abs(axes.directions.T @ vectors[:2].T), np.eye(2), atol=1e-9)
    assert (axes.directions[np.abs(axes.directions).argmax(axis=0), [0, 1]] > 0).all()
    again = space.principal_axes(x[::-1])
    np.testing.assert_allclose(again.project(x), axes.project(x), atol=1e-9)


def test_a_constant_column_changes_no_map():
    x = rng().normal(size=(100, 3))
    plain, more = space.principal_axes(x), space.principal_axes(np.column_stack([x, np.full(100, 7.0)]))
    np.testing.assert_allclose(more.project(np.column_stack([x, np.full(100, 7.0)])), plain.project(x), atol=1e-9)


def test_what_strayed_is_what_no_real_row_is_near():
    grid = np.stack(np.meshgrid(np.arange(100.0), np.arange(100.0)), axis=-1).reshape(-1, 2)
    assert not space.strayed(grid, grid).any()
    assert not space.strayed(grid, grid + 1e-6).any()
    far = np.array([[50.0, 500.0], [-40.0, 3.0], [1e300, 50.0], [50.0, 50.0]])
    assert space.strayed(grid, far).tolist() == [True, True, True, False]
    holed = grid[np.abs(grid - 50).max(axis=1) > 10]
    assert space.strayed(holed, np.array([[50.0, 50.0], [20.0, 50.0]])).tolist() == [True, False]


def test_the_map_shows_every_synthetic_row_once_and_pulls_in_what_is_out_of_view():
    real, ours = rng().normal(size=(3_000, 2)), np.vstack([rng(1).normal(size=(200, 2)), [[99.0, -99.0]]])
    outside = space.strayed(real, ours)
    figure = space.embedding(real, ours, outside, np.array([0.5, 0.25]))
    (axes,) = figure.axes
    near, strayed = dots(axes)
    assert (len(near), len(strayed)) == ((~outside).sum(), outside.sum())
    assert strayed[-1].tolist() == [axes.get_xlim()[1], axes.get_ylim()[0]]
    assert "50 % of the variance" in words(figure)
    assert len(np.vstack(dots(space.embedding(real, ours, outside, np.ones(2), limit=50).axes[0]))) == 50


def test_limits_keep_rows_from_all_over_the_table():
    kept = space.spaced(np.arange(1_000), 11)
    assert len(kept) == 11
    assert (kept[0], kept[-1]) == (0, 999)
    assert np.diff(kept).max() <= 101
    assert len(space.spaced(np.arange(5), 11)) == 5


def test_ends_are_drawn_side_by_side_on_the_same_axes():
    points = rng().normal(size=(500, 2))
    flags = points[:, 0] > 1
    figure = space.terminations((points, flags), (points[:100] * 3, np.zeros(100, bool)), ("height", "angle"))
    left, right = figure.axes
    assert (left.get_xlim(), left.get_ylim()) == (right.get_xlim(), right.get_ylim())
    on, ends = dots(left)
    assert (len(on), len(ends)) == ((~flags).sum(), flags.sum())
    assert ends[:, 0].min() > 1
    assert len(dots(right)) == 1
    for text in (f"real: {100 * flags.mean():.2f} % end", "synthetic: 0.00 % end", "height", "angle"):
        assert text in words(figure)


# --- dynamics --------------------------------------------------------------------------------------------------------


def test_components_stand_in_order_with_mean_and_tail_and_what_to_read_them_against():
    mean, p99 = {"s[0]": 1e-3, "s[1]": 0.2}, {"s[0]": 1e-2, "s[1]": 2.0}
    figure = dynamics.error_by_component(mean, p99, {"replay": 3e-12, "learned": 2e-3})
    (axes,) = figure.axes
    full, hollow = dots(axes)
    assert full.tolist() == [[1e-3, 0], [0.2, 1]]
    assert hollow.tolist() == [[1e-2, 0], [2.0, 1]]
    assert axes.yaxis_inverted()
    lines = {line.get_label(): line.get_xdata() for line in axes.lines}
    assert list(lines["learned"]) == [2e-3, 2e-3]
    assert list(lines["replay: 3e-12, far left"]) == []
    assert axes.get_xlim()[0] > 1e-5


def test_errors_by_novelty_leave_gaps_and_mark_what_few_rows_say():
    def fifths(means, rows):
        return [{"mean": m, "rows": n, "p99": m, "up_to": None} for m, n in zip(means, rows, strict=True)]

    series = {
        "mine": fifths([1e-3, 2e-3, None, 4e-3, 5e-3], [900, 100, 0, 99, 3]),
        "SMOTE": fifths([1e-2] * 5, [100] * 5),
    }
    (axes,) = dynamics.error_by_novelty(series).axes
    mine, hollow, smote, none = axes.lines
    np.testing.assert_array_equal(mine.get_ydata(), [1e-3, 2e-3, np.nan, 4e-3, 5e-3])
    assert list(hollow.get_xdata()) == [4, 5]
    assert hollow.get_markerfacecolor() == "white"
    assert list(smote.get_ydata()) == [1e-2] * 5
    assert list(none.get_xdata()) == []
    assert mine.get_color() != smote.get_color()
    assert mine.get_marker() != smote.get_marker()  # not by colour alone
    assert axes.get_yscale() == "log"


def test_series_beyond_the_colours_are_not_lost():
    fifths = [{"mean": 0.1, "rows": 200}] * 5
    figure = dynamics.error_by_novelty({f"method {i}": fifths for i in range(9)})
    assert len({line.get_label() for line in figure.axes[0].lines if line.get_label().startswith("method")}) == 9


def test_error_growth_is_drawn_over_the_steps_that_were_measured():
    figure = dynamics.error_growth({1: 0.01, 8: 0.2, 32: 3.0}, {1: 1e-9}, name="mine")
    (axes,) = figure.axes
    real, ours = axes.lines
    assert (list(ours.get_xdata()), list(ours.get_ydata())) == ([1, 8, 32], [0.01, 0.2, 3.0])
    assert (list(real.get_xdata()), list(real.get_ydata())) == ([1], [1e-9])
    assert "real rows replayed | mine" in words(figure)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "8", "32"]


# --- episodes --------------------------------------------------------------------------------------------------------


def test_rewards_and_returns_stand_below_one_another():
    real, ours = rng().normal(size=500), rng(1).normal(size=300)
    figure = episodes.distributions({"reward": (real, ours), "return": (real * 9, ours * 9)})
    assert [axes.get_xlabel() for axes in figure.axes] == ["reward", "return"]
    for axes in figure.axes:
        assert axes.get_yscale() == "log"
        assert all(shown.values.sum() == pytest.approx(1) for shown in steps(axes).values())


def test_every_episode_is_a_line_in_every_channel():
    real = [{"x": np.arange(5.0), "r": np.zeros(5)}, {"x": np.arange(3.0), "r": np.ones(3)}]
    figure = episodes.trajectories(real, [{"x": np.arange(4.0) + 9, "r": np.ones(4)}])
    assert [axes.get_title("left") for axes in figure.axes] == ["x", "r"]
    lines = figure.axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == [[0, 1, 2, 3, 4], [0, 1, 2], [9, 10, 11, 12]]
    assert len({line.get_color() for line in lines}) == 2
    assert "real | synthetic" in words(figure)
