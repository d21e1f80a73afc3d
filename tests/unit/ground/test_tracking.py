import io
import json
import sys
import time

import numpy as np
import pytest
from rich.console import Console

from synth_pipeline import tracking
from synth_pipeline.errors import MissingExtraError, UnknownNameError
from synth_pipeline.tracking import FitProgress, JsonLines, Parts, Progress, duration, human


class Clock:
    """A clock that tests turn by hand."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(tracking, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (999.7, "1 k"),
        (1000, "1 k"),
        (12_345, "12.3 k"),
        (999_400, "999 k"),
        (999_999, "1 M"),
        (4_600_000, "4.6 M"),
        (2_000_000_000, "2 G"),
        (0.123456, "0.123"),
        (-1500, "-1.5 k"),
    ],
)
def test_human(number, text):
    assert human(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (750, "12:30"), (11_100, "3:05:00")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_progress_counts_rate_and_eta(clock, capsys):
    with Progress("generate", 1000, "rows") as progress:
        clock.now += 5
        progress.advance(100, "loss 0.5")
        assert capsys.readouterr().out == ""  # plain lines come every ten seconds
        clock.now += 5
        progress.advance(100)
        assert progress.rate == pytest.approx(20)
    assert capsys.readouterr().out == "generate   200/1 k rows  20 rows/s  loss 0.5  ETA 0:40\n"


def test_the_rest_is_expected_to_go_at_the_speed_of_late(clock, capsys):
    with Progress("train", 1000, "steps") as progress:
        for _ in range(60):  # a fast part, then one that takes ten times as long a step
            clock.now += 1
            progress.advance(10)
        for _ in range(40):
            clock.now += 1
            progress.advance(1)
    assert progress.speed == pytest.approx(1)
    assert progress.rate == pytest.approx(6.4)
    assert capsys.readouterr().out.splitlines()[-1].endswith("1 steps/s  ETA 6:00")


def test_speed_of_workers_that_end_their_shards_together(clock, capsys):
    with Progress("generate", 10_000, "rows") as progress:
        for _ in range(10):  # two workers: 200 rows in 40 seconds; the line comes with the first of each pair
            clock.now += 39.5
            progress.advance(100)
            clock.now += 0.5
            progress.advance(100)
    speeds = [float(line.split("rows  ")[1].split()[0]) for line in capsys.readouterr().out.splitlines()]
    assert len(speeds) == 10
    assert speeds[-1] == pytest.approx(5, rel=0.1)


def test_progress_of_a_resumed_phase_does_not_count_what_was_there(clock, capsys):
    with Progress("generate", 1000, "rows", start=900) as progress:
        clock.now += 10
        progress.advance(10)
    assert progress.rate == pytest.approx(1)
    assert "910/1 k rows  1 rows/s  ETA 1:30" in capsys.readouterr().out


def test_progress_past_its_total_and_without_any_time(clock, capsys):
    with Progress("x", 10, "rows") as progress:
        clock.now += 10
        progress.advance(20)
        clock.now += 10
        progress.advance(0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.endswith("ETA 0:00") for line in lines)


def test_progress_does_not_hide_errors():
    with pytest.raises(ZeroDivisionError), Progress("x", 10, "rows"):
        raise ZeroDivisionError


def test_parts_say_a_line_only_for_what_takes_long(monkeypatch, capsys):
    monkeypatch.setattr(tracking, "QUIET_S", 0.5)
    with Parts("validate", 3) as parts:
        parts("contract")
        parts("c2st")
        time.sleep(1.2)
        parts("novelty")
    time.sleep(0.6)
    assert capsys.readouterr().out == "validate   c2st (2 of 3)\n"


def test_parts_fall_silent_when_the_phase_fails(monkeypatch, capsys):
    monkeypatch.setattr(tracking, "QUIET_S", 0.5)

    def fail():
        with Parts("validate", 1) as parts:
            parts("contract")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    time.sleep(0.7)
    assert capsys.readouterr().out == ""


def test_parts_are_a_bar_on_a_terminal(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(tracking, "console", console)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with Parts("validate", 2) as parts:
        parts("contract")
        parts("c2st")
    assert "c2st" in console.file.getvalue()


def test_a_fit_without_a_loss_counts_rows_and_logs_nothing(clock, tmp_path, capsys):
    with tracking.tracking(tmp_path) as tracker, FitProgress(tracker) as progress:
        progress(10, 100, {})
        clock.now += 10
        progress(50, 100, {})
    assert "50/100 rows" in capsys.readouterr().out
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_say_does_not_interpret_the_text(capsys):
    tracking.say("note", "[bold]list[int][/bold] of 'x'")
    assert capsys.readouterr().out == "note       [bold]list[int][/bold] of 'x'\n"


def test_json_lines_append_and_read_back(tmp_path):
    path = tmp_path / "model" / "metrics.jsonl"
    for step in (1, 2):
        lines = JsonLines(path)
        lines.log(step, {"loss": np.float32(0.5), "grad": float("nan")})
        lines.close()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[0]["loss"] == 0.5


def test_tracking_closes_when_the_block_fails(tmp_path):
    trackers = []

    def fail():
        with tracking.tracking(tmp_path) as tracker:
            trackers.append(tracker)
            tracker.log(1, {"loss": 1.0})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 1.0}\n'
    with pytest.raises(ValueError, match="closed file"):
        trackers[0].log(2, {})


def test_unknown_back_end_is_not_replaced_by_another(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'tensorboard'"), tracking.tracking(tmp_path, "tensorbord"):
        pass


def test_metrics_are_kept_as_lines_also_beside_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    with tracking.tracking(tmp_path, "tensorboard") as tracker:
        tracker.log(1, {"loss": 0.5})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 0.5}\n'
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_missing_tensorboard_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with (
        pytest.raises(MissingExtraError, match=r"synth-pipeline\[tensorboard\]"),
        tracking.tracking(tmp_path, "tensorboard"),
    ):
        pass
