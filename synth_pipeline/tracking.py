"""Progress for people, metrics for files: one `Progress` for every long phase, one `Tracker` for every number.

On a terminal a bar with rate, ETA and the last values; elsewhere one plain line every few seconds.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from synth_pipeline.errors import MissingExtraError, unknown_name

console = Console(highlight=False, soft_wrap=True)
PLAIN_INTERVAL_S = 10.0
BAR_INTERVAL_S = 0.1
RECENT_S = 30.0  # the speed that is shown, and that the rest is expected to take
RECENT_MARKS = 16  # at least: shards of several workers end in bursts, and a line comes with the first of one
QUIET_S = 3.0  # a part of a phase that takes less is not worth a line
BACKENDS = ("jsonl", "tensorboard")


def say(label: str, text: str) -> None:
    """One line of a stage's story: a label in the first column, then the text."""
    console.print(f"[bold]{label:<10}[/bold] ", end="")
    console.print(text, markup=False)


def human(number: float) -> str:
    """A count that people can read: 950, 12.3 k, 4.6 M."""
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= 0.9995 * size:  # what rounds to 1000 of the smaller unit is 1 of this one
            return f"{number / size:.3g}{suffix}"
    return f"{number:.3g}"


def counted(number: int, noun: str) -> str:
    """`1 shard`, `3 shards`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def short(path: str | Path) -> str:
    """A path as people would type it: relative inside the working directory, `~` for the home folder."""
    if "://" in str(path):
        return str(path)
    full = Path(path).absolute()
    if full.is_relative_to(Path.cwd()):
        return str(full.relative_to(Path.cwd()))
    return f"~/{full.relative_to(Path.home())}" if full.is_relative_to(Path.home()) else str(path)


def duration(seconds: float) -> str:
    """Seconds as `0:07`, `12:30` or `3:05:00`."""
    total = round(seconds)
    hours, rest = divmod(total, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


Advance = Callable[[int, str], None]  # (units, note) as `Progress.advance` takes them


def silent(units: int, note: str = "") -> None:
    """The progress of those who do not want any."""


class Progress:
    """Progress of one long phase.

    Args:
        label: First column, e.g. `"generate"`.
        total: How many units the phase has.
        unit: What is counted, e.g. `"rows"`.
        start: Units that were finished before (a resumed phase); they do not count for the rate.
    """

    def __init__(self, label: str, total: int, unit: str, *, start: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self._begin, self._start, self._count = time.monotonic(), start, start
        self._last_line = self._last_bar = self._begin
        self._marks = deque([(self._begin, start)])
        self._note = ""
        self._bar: RichProgress | None = None

    def __enter__(self) -> Self:
        if sys.stdout.isatty():
            self._bar = RichProgress(
                TextColumn("[bold]{task.description:<10}"),
                BarColumn(24),
                TextColumn("{task.fields[text]}"),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task(self.label, total=self.total, completed=self._start, text="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since the phase began."""
        return time.monotonic() - self._begin

    @property
    def rate(self) -> float:
        """Units per second of this call."""
        return (self._count - self._start) / max(self.seconds, 1e-9)

    @property
    def speed(self) -> float:
        """Units per second of the last `RECENT_S` seconds, or `RECENT_MARKS` advances where these take longer."""
        (begin, before), (end, after) = self._marks[0], self._marks[-1]
        return (after - before) / max(end - begin, 1e-9)

    def advance(self, units: int, note: str = "") -> None:
        """Count finished units; `note` (e.g. the loss) replaces the last one."""
        self._count += units
        self._note = note or self._note
        now = time.monotonic()
        self._marks.append((now, self._count))
        while len(self._marks) > RECENT_MARKS and self._marks[1][0] <= now - RECENT_S:
            self._marks.popleft()
        if self._bar is not None and (now - self._last_bar >= BAR_INTERVAL_S or self._count >= self.total):
            self._last_bar = now
            self._bar.update(self._task, total=self.total, completed=self._count, text=self._text())
        elif self._bar is None and now - self._last_line >= PLAIN_INTERVAL_S:
            self._last_line = now
            say(self.label, self._text())

    def show(self, units: int, note: str) -> None:
        """Show at once that `units` are finished and `note` is at work."""
        self._count, self._note, self._last_bar = units, note, 0.0
        self.advance(0)

    def _text(self) -> str:
        left = max(self.total - self._count, 0) / self.speed if self.speed > 0 else float("inf")
        eta = duration(left) if left < 1e7 else "?"
        note = f"  {self._note}" if self._note else ""
        return (
            f"{human(self._count)}/{human(self.total)} {self.unit}  {human(self.speed)} {self.unit}/s{note}  ETA {eta}"
        )


class Parts:
    """Which part of a phase is at work, for phases whose parts are long and cannot be counted inside.

    A bar on a terminal; elsewhere one plain line for each part that takes more than a few seconds.

    Args:
        label: First column, e.g. `"validate"`.
        total: How many parts the phase has.
    """

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._count = label, total, 0
        self._bar: Progress | None = Progress(label, total, "parts") if sys.stdout.isatty() else None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._quiet()
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)

    def __call__(self, name: str) -> None:
        """A part begins, and with it the one before has ended."""
        self._quiet()
        if self._bar is not None:
            self._bar.show(self._count, name)
        self._count += 1
        if self._bar is None:
            text = f"{name} ({self._count} of {self._total})"
            self._timer = threading.Timer(QUIET_S, say, (self._label, text))
            self._timer.daemon = True
            self._timer.start()

    def _quiet(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()  # so that its line never comes after a later one


class Tracker(Protocol):
    """Where numbers over time go."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values at a step."""
        ...

    def close(self) -> None:
        """Flush and release."""
        ...


class JsonLines:
    """The tracker that is always on: one JSON object a line.

    Args:
        path: File that lines are appended to.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line."""
        self._file.write(json.dumps({"step": step, **{name: float(value) for name, value in values.items()}}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Several:
    """Every number goes to all of them.

    Args:
        trackers: Where.
    """

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values at a step."""
        for tracker in self._trackers:
            tracker.log(step, values)

    def close(self) -> None:
        """Flush and release."""
        for tracker in self._trackers:
            tracker.close()


class TensorBoard:
    """TensorBoard event files.

    Args:
        directory: Log directory.
    """

    def __init__(self, directory: Path) -> None:
        from tensorboard.summary import Writer

        self._writer = Writer(str(directory))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar a value."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush to disk."""
        self._writer.close()


def require_backend(backend: str) -> None:
    """Fail before work begins when a tracker cannot be made.

    Raises:
        UnknownNameError: For another back-end.
        MissingExtraError: When the back-end's package is not installed.
    """
    if backend not in BACKENDS:
        raise unknown_name("tracking back-end", backend, BACKENDS)
    if backend == "tensorboard":
        try:
            import_module("tensorboard.summary")
        except ImportError as error:
            raise MissingExtraError(
                "tracking to TensorBoard needs the package tensorboard",
                found=str(error),
                fix='pip install "synth-pipeline[tensorboard]"',
            ) from None


@contextmanager
def tracking(directory: Path, backend: str = "jsonl") -> Iterator[Tracker]:
    """The tracker of a stage, closed at the end.

    Args:
        directory: The stage's folder.
        backend: `jsonl`, or `tensorboard` beside it.

    Raises:
        UnknownNameError: For another back-end.
        MissingExtraError: When the back-end's package is not installed.
    """
    require_backend(backend)
    with ExitStack() as stack:
        trackers: list[Tracker] = [JsonLines(directory / "metrics.jsonl")]
        stack.callback(trackers[0].close)
        if backend == "tensorboard":
            trackers.append(TensorBoard(directory))
            stack.callback(trackers[1].close)
        yield Several(trackers)


class FitProgress:
    """Progress of a fit, as the callback `report(step, total, values)` of generators: a bar, and a line of metrics.

    Args:
        tracker: Where the values go; None: nowhere.
        label: First column.
    """

    def __init__(self, tracker: Tracker | None, label: str = "train") -> None:
        self._tracker, self._label = tracker, label
        self._progress: Progress | None = None
        self._step = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.__exit__(kind, error, trace)

    def __call__(self, step: int, total: int, values: Mapping[str, float]) -> None:
        """Record the values at a step of `total`; without values, how many of `total` rows were searched."""
        if self._progress is None:
            unit, begun = ("steps", step) if values else ("rows", 0)  # a resumed fit does not begin at 0
            self._progress = Progress(self._label, total, unit, start=begun).__enter__()
            self._step = begun
        if values and self._tracker is not None:  # a fit without a loss only searches through its rows
            self._tracker.log(step, values)
        self._progress.total = total  # more than before when a training turned out to be needed
        self._progress.advance(step - self._step, "  ".join(f"{name} {value:.4g}" for name, value in values.items()))
        self._step = step
