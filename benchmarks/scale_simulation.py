"""A cluster in virtual time: the window that decides what is in flight is the real one, workers and scheduler are not.

Workers take log-normal times, some of them many times as long, and die; Dask is a server that takes a fixed time a
task, gives it to the worker with the fewest, moves waiting tasks to idle workers, and runs again what a dead one held.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from synth_pipeline.scale.window import Window

TICK_S = 5.0  # between looks of the client when nothing ends; the real one looks every second


@dataclass(frozen=True)
class World:
    """What is simulated.

    Attributes:
        tasks: How many.
        workers: How many.
        median_s: Of a task.
        sigma: Of the logarithm of a task's time.
        straggling: Share of the starts that take `slow` times as long: a bad disk, a noisy neighbour.
        slow: How many times.
        deaths_per_hour: Of a worker.
        restart_s: Until a dead worker is back.
        overhead_s: What client and scheduler take for a task, one after another.
        seed: Of everything that is random.
    """

    tasks: int
    workers: int
    median_s: float
    overhead_s: float
    sigma: float = 0.2
    straggling: float = 0.001
    slow: float = 10.0
    deaths_per_hour: float = 0.01
    restart_s: float = 60.0
    seed: int = 0


@dataclass
class _Worker:
    running: tuple[int, int] | None = None  # task, and which start it is
    waiting: deque[int] = field(default_factory=deque)
    alive: bool = True


class Simulation:
    """One world, from the first task to the last result."""

    def __init__(self, world: World) -> None:
        self.world, self.window = world, Window(world.tasks)
        self.rng = np.random.default_rng(world.seed)
        self.workers = [_Worker() for _ in range(world.workers)]
        self.idle, self.alive = dict.fromkeys(range(world.workers)), world.workers
        self.queues: dict[int, None] = {}  # workers with waiting tasks
        self.events: list[tuple[float, int, str, tuple[int, ...]]] = []
        self.order, self.starts = itertools.count(), itertools.count()
        self.server = self.busy = self.useful = self.thinking = 0.0
        self.submitted = self.deaths = self.most = self.flying = 0

    def run(self) -> dict[str, Any]:
        """Times, counts, and how far from ideal: the time of all first results spread evenly over all workers."""
        self._at(0.0, "look")
        self._at(self._next_death(0.0), "death")
        now = 0.0
        while self.window.left:
            now, _, kind, about = heapq.heappop(self.events)
            getattr(self, f"_{kind}")(now, *about)
        world, ideal = self.world, self.useful / self.world.workers
        return {
            "tasks": world.tasks,
            "workers": world.workers,
            "hours": round(now / 3600, 3),
            "over_ideal": round(now / ideal - 1, 4),
            "tail_s": round(now - ideal, 1),
            "run_twice": self.submitted - world.tasks,
            "deaths": self.deaths,
            "scheduler_busy": round(self.busy / now, 4),
            "most_in_flight": self.most,
            "window_us_per_task": round(1e6 * self.thinking / world.tasks, 2),
        }

    def _at(self, when: float, kind: str, *about: int) -> None:
        heapq.heappush(self.events, (when, next(self.order), kind, about))

    def _look(self, now: float) -> None:
        self._submit(now)
        self._at(now + TICK_S, "look")

    def _submit(self, now: float) -> None:
        begin = time.perf_counter()
        wanted = self.window.wanted(self.alive, now)
        self.thinking += time.perf_counter() - begin
        for index in wanted:
            self.submitted += 1
            self._at(self._served(now), "arrive", index)
        self.flying += len(wanted)
        self.most = max(self.most, self.flying)

    def _served(self, now: float) -> float:
        """When the one server that sees every task has dealt with another half of one: its start, or its end."""
        self.server = max(self.server, now) + self.world.overhead_s / 2
        self.busy += self.world.overhead_s / 2
        return self.server

    def _arrive(self, now: float, index: int) -> None:
        if self.idle:
            self._start(now, next(iter(self.idle)), index)
            return
        living = [n for n in self.rng.integers(len(self.workers), size=8).tolist() if self.workers[n].alive] or [0]
        worker = min(living, key=lambda number: len(self.workers[number].waiting))
        self.workers[worker].waiting.append(index)
        self.queues[worker] = None

    def _start(self, now: float, worker: int, index: int) -> None:
        self.idle.pop(worker, None)
        start = next(self.starts)
        self.workers[worker].running = (index, start)
        took = self.world.median_s * float(np.exp(self.world.sigma * self.rng.standard_normal()))
        if self.rng.random() < self.world.straggling:
            took *= self.world.slow
        self._at(now + took, "end", worker, start, int(took * 1e6))

    def _end(self, now: float, worker: int, start: int, micros: int) -> None:
        running = self.workers[worker].running
        if running is None or running[1] != start:  # it died meanwhile
            return
        self.workers[worker].running = None
        self._at(self._served(now), "result", running[0], micros)
        self._next(now, worker)

    def _next(self, now: float, worker: int) -> None:
        """The next of its own waiting tasks, else one that waits elsewhere."""
        source = worker if self.workers[worker].waiting else next(iter(self.queues), None)
        if source is None:
            self.idle[worker] = None
            return
        index = self.workers[source].waiting.popleft()
        if not self.workers[source].waiting:
            self.queues.pop(source, None)
        self._start(now, worker, index)

    def _result(self, now: float, index: int, micros: int) -> None:
        self.flying -= 1
        begin = time.perf_counter()
        first = self.window.ended(index, micros / 1e6)
        self.thinking += time.perf_counter() - begin
        self.useful += micros / 1e6 if first else 0.0
        self._submit(now)

    def _next_death(self, now: float) -> float:
        rate = self.world.workers * self.world.deaths_per_hour / 3600
        return now + float(self.rng.exponential(1 / rate)) if rate else float("inf")

    def _death(self, now: float) -> None:
        self._at(self._next_death(now), "death")
        number = int(self.rng.integers(len(self.workers)))
        worker = self.workers[number]
        if not worker.alive:
            return
        self.deaths += 1
        self.alive -= 1
        held = [*([worker.running[0]] if worker.running else []), *worker.waiting]
        worker.alive, worker.running = False, None
        worker.waiting.clear()
        self.idle.pop(number, None)
        self.queues.pop(number, None)
        for index in held:
            self._at(self._served(now), "arrive", index)
        self._at(now + self.world.restart_s, "back", number)

    def _back(self, now: float, number: int) -> None:
        self.workers[number].alive = True
        self.alive += 1
        self._next(now, number)
