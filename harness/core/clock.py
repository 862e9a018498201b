"""Instants, bounds and the clock port.

An instant is UTC epoch seconds as a float, on *the run's clock*: wall time read once at the start of the process
plus monotonic time since. A step of the wall clock in the middle of a run therefore moves nothing, and differences
of instants are monotonic durations. Instants that come from another machine carry the measured offset between the
two clocks in their bounds (see `Bounds.shifted`).
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Protocol, Self

from pydantic import BaseModel, ConfigDict, model_validator

Instant = float
LAST_INSTANT = 2.0**37
"""Some four thousand years from now: far from where calendars end, and later than any clock that is meant."""
STEPPED = 0.1
"""Seconds that two comparisons of the same clocks may be apart: clocks drift. Beyond it one of them was set."""


class Clock(Protocol):
    """The only source of time. Virtual in tests."""

    def now(self) -> Instant:
        """The present instant on the run's clock."""


class Bounds(BaseModel):
    """An instant or a duration known to lie in [earliest, latest], in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    earliest: float
    latest: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if math.isnan(self.earliest) or math.isnan(self.latest):
            raise ValueError("a bound that is not a number bounds nothing")
        if self.earliest > self.latest:
            raise ValueError(f"earliest {self.earliest} is after latest {self.latest}")
        return self

    @classmethod
    def at(cls, instant: float) -> Bounds:
        """A value that is known exactly."""
        return cls(earliest=instant, latest=instant)

    @property
    def width(self) -> float:
        """How much is not known, in seconds."""
        return self.latest - self.earliest

    @property
    def middle(self) -> float:
        """The best single figure for what is only bounded; where it has no upper bound, its lower one."""
        return self.earliest if math.isinf(self.latest) else (self.earliest + self.latest) / 2

    def shifted(self, offset: Bounds) -> Bounds:
        """The same instant on our clock, where `offset` bounds (their clock - our clock)."""
        return Bounds(earliest=self.earliest - offset.latest, latest=self.latest - offset.earliest)

    def until(self, other: Bounds) -> Bounds:
        """The duration from this instant to `other`; negative where the order is not certain."""
        return Bounds(earliest=other.earliest - self.latest, latest=other.latest - self.earliest)

    def gap(self, other: Bounds) -> float:
        """How far the two are from having a point in common; 0 where they have one."""
        return max(0.0, self.earliest - other.latest, other.earliest - self.latest)

    def hull(self, other: Bounds) -> Bounds:
        """All that either allows."""
        return Bounds(earliest=min(self.earliest, other.earliest), latest=max(self.latest, other.latest))

    def clipped(self, *, not_before: float | None = None, not_after: float | None = None) -> Bounds:
        """Tightened by what else is known; where that contradicts, the outer knowledge wins as a point."""
        earliest = self.earliest if not_before is None else max(self.earliest, not_before)
        latest = self.latest if not_after is None else min(self.latest, not_after)
        if earliest > latest:
            point = not_before if not_before is not None and self.latest < not_before else latest
            return Bounds.at(point)
        return Bounds(earliest=earliest, latest=latest)


def utc(instant: Instant) -> str:
    """ISO 8601, UTC, milliseconds: "2026-11-22T09:15:00.250Z"."""
    moment = datetime.fromtimestamp(round(instant, 3), tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def dated(seconds: float) -> Instant:
    """`seconds` where they are an instant from 1970 on that a calendar can show. Raises ValueError."""
    if not 0 <= seconds <= LAST_INSTANT:
        raise ValueError(f"{seconds} is not an instant of a drill")
    return seconds


def parse_utc(text: str) -> Instant:
    """The instant in an RFC 3339 stamp (nanoseconds, as Go writes them, are accepted). Raises ValueError, also where
    the stamp has no zone (it would be read in the zone of whichever machine judges) and where it is not `dated`."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return dated(moment.timestamp())
