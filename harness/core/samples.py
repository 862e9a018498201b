"""A signal's samples in order, with its holes.

No data is not good data: a missing value, a value that is not a number and a stretch without any samples are all the
same thing to whoever asks whether a condition held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.core.clock import Instant
from harness.core.event import SignalRead
from harness.core.history import History

_SLACK = 0.001
"""Seconds: instants are rounded to the millisecond."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sample. `seq` is the record that told it; `hole` says that samples are missing between it and the one
    before; `resolution` is how old the value may be, in seconds."""

    at: Instant
    value: float | None
    seq: int
    hole: bool
    resolution: float


def samples(history: History, signal: str) -> Iterator[Sampled]:
    """Every instant once, oldest first; what was told first of an instant stands.

    Neighbours are expected one grid step apart. Where the reader did not say its step, the smallest distance seen so
    far stands for it, and never less than the age that a sample may have.
    """
    last: Instant | None = None
    nearest = float("inf")
    for record, event in history.records(SignalRead):
        if event.signal != signal:
            continue
        for at, value in event.samples:
            if last is not None and at <= last:
                continue
            hole = False
            if last is not None:
                nearest = min(nearest, at - last)
                allowed = 1.5 * event.step if event.step else 2 * max(event.resolution, nearest)
                hole = at - last > allowed + _SLACK
            last = at
            yield Sampled(at, value, record.seq, hole, event.resolution)
