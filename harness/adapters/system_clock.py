"""The run's clock on a real machine."""

from __future__ import annotations

import time

from harness.core.clock import Instant


class SystemClock:
    """Wall time read once, plus monotonic time since: a step of the wall clock moves nothing."""

    def __init__(self) -> None:
        before = time.monotonic()
        wall = time.time()
        self._wall_at_zero = wall - (before + time.monotonic()) / 2

    def now(self) -> Instant:
        """The present instant on the run's clock."""
        return self._wall_at_zero + time.monotonic()
