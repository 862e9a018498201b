"""Where the runner's observations come from, and the only place where it waits."""

from __future__ import annotations

from typing import Protocol

from harness.core.clock import Instant
from harness.core.event import Event


class Feed(Protocol):
    """Observers behind one queue. In tests the same observers run on a virtual clock without threads."""

    def next(self, until: Instant) -> Event | None:
        """The next observation, or None when `until` has come without one. A stop request wakes it at once."""
