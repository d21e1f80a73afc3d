"""What the figures of an evaluation show is what they were given."""

import matplotlib
import numpy as np
import pytest

from synth_pipeline.plots import evaluation as plots
from synth_pipeline.plots.evaluation import Band, Point, Worth
from synth_pipeline.plots.style import EDGE, to_svg

X = np.array([0.0, 50.0, 100.0])


def words(figure):
    texts = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    return " | ".join(text for text in texts if text)


def lines(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def band(*values, width=None):
    values = np.array(values)
    return Band(values) if width is None else Band(values, values - width, values + width)


def test_profiles_are_steps_with_bands_and_real_is_grey():
    figure = plots.performance_profiles(X, {"real": band(1, 0.5, 0, width=0.1), "mine": band(1, 0.8, 0.2)}, real="real")
    (axes,) = figure.axes
    shown = lines(axes)
    assert list(shown["mine"].get_ydata()) == [1, 0.8, 0.2]
    assert shown["mine"].get_drawstyle() == "steps-post"
    assert shown["real"].get_color() == EDGE
    assert len(axes.collections) == 1  # a band where there are intervals, none where there are not


def test_series_differ_by_more_than_their_colour():
    figure = plots.performance_profiles(X, {name: band(1, 0.5, 0) for name in "abcd"})
    looks = [(line.get_color(), line.get_linestyle()) for line in lines(figure.axes[0]).values()]
    assert len({colour for colour, _ in looks}) == len({dashes for _, dashes in looks}) == 4


def test_learning_curves_show_which_evaluations_count():
    steps = {"real": [1_000, 2_000, 3_000], "mine": [2_000, 3_000]}
    scores = {"real": band(1, 2, 3, width=0.5), "mine": band(4, 5)}
    figure = plots.learning_curves(steps, scores, counted=[2_000, 3_000], real="real")
    (axes,) = figure.axes
    shown = lines(axes)
    assert (list(shown["mine"].get_xdata()), list(shown["mine"].get_ydata())) == ([2_000, 3_000], [4, 5])
    assert shown["mine"].get_markerfacecolor() == "white"
    assert shown["real"].get_markerfacecolor() == EDGE
    assert "final score" in words(figure)
    assert len(axes.patches) == 1
    figure.draw_without_rendering()
    assert "2,000" in words(figure)


def test_differences_are_filled_only_where_the_interval_excludes_zero():
    table = {
        "mine": {"iql": Point(2.0, 1.0, 3.0), "cql": Point(1.0, -1.0, 3.0)},
        "noise": {"iql": Point(-4.0), "cql": Point(None)},
    }
    (axes,) = plots.paired_differences(table).axes
    marks = [line for line in axes.lines if line.get_marker() != "None" and len(line.get_xdata())]
    found = {line.get_xdata()[0]: line for line in marks}
    assert sorted(found) == [-4, 1, 2]
    assert found[2].get_markerfacecolor() == found[2].get_color()
    assert found[1].get_markerfacecolor() == found[-4].get_markerfacecolor() == "white"
    assert found[2].get_marker() != found[1].get_marker()
    bars = sorted(tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2)
    assert bars == [(-1, 3), (0, 0), (1, 3)]  # two intervals and the line at 0
    assert [text.get_text() for text in axes.get_yticklabels()] == ["mine", "noise"]
    assert [round(found[x].get_ydata()[0]) for x in (2, 1, -4)] == [0, 0, 1]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_arms_are_carried_over_to_the_size_that_scores_as_high():
    sizes = [100, 1_000, 10_000]
    arms = {"mine": Worth(1_000, 42.0, 5_000.0), "fresh": Worth(1_000, 60.0, None), "noise": Worth(1_000, 5.0, None)}
    figure = plots.effective_samples(sizes, band(10, 35, 50, width=4), [10, 35, 50], arms)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    segments = [line for line in axes.lines if list(line.get_xdata()) == [1_000, 5_000]]
    assert [list(line.get_ydata()) for line in segments] == [[42, 42]]
    assert [note.xy for note in axes.texts] == [(10_000, 60), (100, 5)]
    assert list(lines(axes)["real rows alone"].get_ydata()) == [10, 35, 50]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["100", "1,000", "10,000"]


@pytest.mark.parametrize(("count", "name"), [(1, "agent"), (3, "agent"), (9, "agent"), (4, "halfcheetah, 10,000 rows")])
def test_many_arms_stay_within_the_figure_and_the_bytes_are_the_same(count, name):
    table = {
        f"arm number {i}": {f"{name} {j}": Point(i - j, i - j - 1, i - j + 1) for j in range(count)} for i in range(3)
    }
    draw = [plots.paired_differences(table) for _ in range(2)]
    assert to_svg(draw[0]) == to_svg(draw[1])
    draw[0].draw_without_rendering()
    width = draw[0].bbox.width
    for text in draw[0].legends[0].get_texts():
        assert 0 <= text.get_window_extent().x0 < text.get_window_extent().x1 <= width
