"""How long requests take, those that still wait included.

A histogram of finished requests alone says nothing while all of them are stuck. `recent` therefore counts, for the
last `WINDOW` seconds, what has finished by its duration and what is under way by its age: a request that has waited
for 10 s is at least that slow, and counts as such before it ends. Figures of several pods add up.
"""

from __future__ import annotations

import bisect
import itertools
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from staging.metrics import Family, Point, Sample, buckets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WINDOW = 15.0
"""Seconds. Longer than twice the alert's threshold, so that requests stuck behind each other never hide the median."""
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 7.5, 10, 12.5, 15, 20, 30)
"""Seconds."""


class Latency:
    """The durations of requests. Safe for use by several threads; `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tickets = itertools.count()
        self._waiting: dict[int, float] = {}
        self._finished: deque[tuple[float, int]] = deque()
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """The time inside counts as one request, whatever comes of it."""
        started = self._clock()
        ticket = next(self._tickets)
        with self._lock:
            self._waiting[ticket] = started
        try:
            yield
        finally:
            now = self._clock()
            with self._lock:
                del self._waiting[ticket]
                place = bisect.bisect_left(BOUNDS, now - started)
                self._counts[place] += 1
                self._sum += now - started
                self._finished.append((now, place))
                self._forget(now)

    def families(self, name: str, recent: str, oldest: str) -> list[Family | Sample]:
        """The histogram of finished requests as `name`, the window's as `recent`, the longest wait as `oldest`."""
        with self._lock:
            now = self._clock()
            self._forget(now)
            counts, total = list(self._counts), self._sum
            window = [0] * len(counts)
            for _, place in self._finished:
                window[place] += 1
            ages = [now - started for started in self._waiting.values()]
        for age in ages:
            window[bisect.bisect_left(BOUNDS, age)] += 1
        return [
            Family(
                name,
                "histogram",
                "Time from a request's arrival to its answer, waiting included.",
                [
                    *buckets(counts, BOUNDS, suffix="_bucket"),
                    Point(total, suffix="_sum"),
                    Point(sum(counts), suffix="_count"),
                ],
            ),
            Family(
                recent,
                "gauge",
                f"Requests of the last {WINDOW:g} s by duration, those under way by their age so far.",
                buckets(window, BOUNDS),
            ),
            Sample(
                oldest,
                "gauge",
                "Age of the request that has waited longest; 0 when none is under way.",
                max(ages, default=0),
            ),
        ]

    def _forget(self, now: float) -> None:
        while self._finished and self._finished[0][0] < now - WINDOW:
            self._finished.popleft()
