"""Comparing a peer's clock with ours, from stamps in its answers.

A peer stamps an answer somewhere between our sending and our receiving, and its stamp may be truncated. Each exchange
therefore bounds (the peer's clock - ours); all exchanges bound it together. With whole-second stamps the bounds are a
second wide at first, and asking again exactly when the peer's second is expected to turn halves them each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from harness.core.clock import Bounds, Instant, dated
from harness.core.errors import Unreachable

GOOD_ENOUGH = 0.1
"""Bounds narrower than this, in seconds, are not worth another exchange."""
FURTHEST = 366 * 86400.0
"""Seconds by which a peer's clock may differ from ours. One that is further off does not tell the time at all."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """One exchange: sent and received on our clock, and the peer's instant in [earliest, latest] on its own."""

    sent: Instant
    received: Instant
    earliest: Instant
    latest: Instant

    @property
    def offset(self) -> Bounds:
        """Bounds on (the peer's clock - ours), in seconds."""
        return Bounds(earliest=self.earliest - self.received, latest=self.latest - self.sent)


def http_date(header: str | None) -> Instant | None:
    """The instant in an HTTP Date header: whole seconds, truncated, so the peer's clock is less than a second later.
    None where there is none to read."""
    try:
        return dated(parsedate_to_datetime(header or "").timestamp())
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def together(one: Bounds, other: Bounds) -> Bounds:
    """What both say. Where they contradict each other a clock was stepped, and the hull is all that is known."""
    earliest, latest = max(one.earliest, other.earliest), min(one.latest, other.latest)
    if earliest > latest:
        return Bounds(earliest=min(one.earliest, other.earliest), latest=max(one.latest, other.latest))
    return Bounds(earliest=earliest, latest=latest)


def compare(
    ask: Callable[[], Stamp], *, now: Callable[[], Instant], pause: Callable[[float], bool], asks: int = 6
) -> Bounds:
    """Bounds on (the peer's clock - ours) from up to `asks` exchanges, at most about a second apart.

    `pause` waits that many seconds and answers True when the wait was cut short and we should stop asking. The first
    exchange may open a connection and is the slowest; none is thrown away, since a slow one only says less. Raises
    Unreachable where the peer's clock is further off than `FURTHEST`.
    """
    stamp = ask()
    known = stamp.offset
    for _ in range(asks - 1):
        if known.width <= GOOD_ENOUGH:
            break
        if stamp.latest - stamp.earliest >= 1.0 and _wait_for_the_turn(known, stamp, now(), pause):
            break
        stamp = ask()
        known = together(known, stamp.offset)
    if not abs(known.middle) <= FURTHEST:
        raise Unreachable(
            "clock-far-off",
            f"a peer's clock differs from ours by {known.middle:.0f} s",
            expected=f"a difference below {FURTHEST:.0f} s",
            remedy="set that machine's clock, or ours",
        )
    return known


def _wait_for_the_turn(known: Bounds, stamp: Stamp, at: Instant, pause: Callable[[float], bool]) -> bool:
    """Wait until a request sent now would be stamped when, by the middle of what is known, the peer's second turns."""
    middle = known.middle + (stamp.received - stamp.sent) / 2
    return pause(-(at + middle) % 1.0)
