"""Which tasks are in flight on a cluster: a few a worker, suspects alone, and at the end the late ones twice.

Pure bookkeeping over indices of tasks and a clock that is given: no network and no time of its own, so that what runs
on a cluster can be simulated with thousands of workers (`benchmarks/scale.py`).
"""

from __future__ import annotations

import statistics
from bisect import insort
from collections import deque
from collections.abc import Iterator
from itertools import islice

PER_WORKER = 2  # tasks in flight: none idles while its next one travels, and little is held for millions of tasks
LATE, LATE_S = 3.0, 30.0  # a second copy begins after this many medians, and not before so many seconds
_RECENT = 1001  # durations that the median is of


class Window:
    """The tasks of one call, from the first that is submitted to the last result.

    Args:
        count: How many tasks there are; they are called 0 ... count - 1.
    """

    def __init__(self, count: int) -> None:
        self.left = count
        self._fresh = iter(range(count))
        self._returned: list[int] = []
        self._suspects: list[int] = []
        self._alone: int | None = None
        self._since: dict[int, float] = {}  # in flight
        self._twice: set[int] = set()
        self._seconds: deque[float] = deque(maxlen=_RECENT)
        self._calm: float | None = None

    def wanted(self, workers: int, now: float) -> list[int]:
        """What to submit now; the caller does so.

        A task that may have killed its workers runs alone: whatever dies then, it is to blame. When nothing waits and
        workers idle, tasks that run much longer than the others are named a second time: the first result counts.

        Args:
            workers: How many there are now.
            now: Seconds on any clock.
        """
        if self._alone is not None:
            return []
        if self._suspects:
            self._alone = None if self._since else self._suspects.pop(0)
            chosen = [] if self._alone is None else [self._alone]
        else:
            chosen = list(islice(self._waiting(), max(PER_WORKER * workers - len(self._since), 0)))
        if not chosen:
            return self._late(workers, now)
        self._since.update(dict.fromkeys(chosen, now))
        self._calm = None
        return chosen

    def ended(self, index: int, seconds: float) -> bool:
        """A copy of a task came to its end after so many seconds of work; False when another copy did before."""
        if not self._dropped(index):
            return False
        self._seconds.append(seconds)
        self.left -= 1
        return True

    def killed(self, index: int) -> bool:
        """A task ran while workers died, too often; True when it ran alone, else it will."""
        alone = self._alone == index
        if self._dropped(index) and not alone:
            insort(self._suspects, index)  # the innocent among them are not left waiting by whom fails first
        return alone

    def lost(self) -> None:
        """Nothing is in flight any more: all of it is to be submitted again."""
        self._returned += sorted(self._since)
        self._since, self._twice, self._alone, self._calm = {}, set(), None, None

    def _dropped(self, index: int) -> bool:
        known = self._since.pop(index, None) is not None
        self._twice.discard(index)
        if self._alone == index:
            self._alone = None
        return known

    def _waiting(self) -> Iterator[int]:
        while self._returned:
            yield self._returned.pop(0)
        yield from self._fresh

    def _late(self, workers: int, now: float) -> list[int]:
        idle = workers - len(self._since) - len(self._twice)
        if idle < 0 or self._suspects or len(self._since) < self.left:
            self._calm = None
            return []
        # From here on every task has a worker of its own, however long it waited before.
        self._calm = now if self._calm is None else self._calm
        if not idle or not self._seconds:
            return []
        limit, calm = max(LATE_S, LATE * statistics.median(self._seconds)), self._calm
        late = (i for i, since in self._since.items() if i not in self._twice and now - max(since, calm) > limit)
        chosen = list(islice(late, idle))
        self._twice.update(chosen)
        return chosen
