"""A signal's samples in order, with its holes.

No data is not good data: a missing value, a value that is not a number and a stretch without any samples are all the
same thing to whoever asks whether a condition held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.core.clock import Instant
from harness.core.event import Record, SignalRead
from harness.core.history import History

_SLACK = 0.001
"""Seconds: instants are rounded to the millisecond."""
_LATE = 1.5
"""Seconds, beyond two grid steps and the age of a sample, by which the newest known sample may trail the present: a
scrape settles, a round asks, an answer is journalled."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sample. `seq` is the record that told it; `hole` says that samples are missing between it and the one
    before; `resolution` is how old the value may be, in seconds; `why` says what was there instead of a value."""

    at: Instant
    value: float | None
    seq: int
    hole: bool
    resolution: float
    why: str = ""


@dataclass(slots=True)
class _Read:
    told: list[Sampled] = field(default_factory=list)
    nearest: float = float("inf")


def samples(history: History, signal: str) -> Sequence[Sampled]:
    """Every instant once, oldest first; what was told first of an instant stands.

    Neighbours are expected one grid step apart. Where the reader did not say its step, the smallest distance seen so
    far stands for it, and never less than the age that a sample may have. What was told after the first undo of
    instants after it is left out: that system was mended by the run itself.
    """
    began = history.undo_began

    def read(so_far: _Read, record: Record) -> None:
        event = record.event
        if not isinstance(event, SignalRead) or event.signal != signal:
            return
        for at, value in event.samples:
            if began is not None and record.seq > began.seq and at > began.at:
                return
            last = so_far.told[-1].at if so_far.told else None
            if last is not None and at <= last:
                continue
            hole = False
            if last is not None:
                so_far.nearest = min(so_far.nearest, at - last)
                allowed = 1.5 * event.step if event.step else 2 * max(event.resolution, so_far.nearest)
                hole = at - last > allowed + _SLACK
            why = event.missing if value is None else ""
            so_far.told.append(Sampled(at, value, record.seq, hole, event.resolution, why))

    return history.folded(("samples", signal), history.told(SignalRead), _Read, read).told


def watched_until(history: History) -> Instant:
    """When the run stopped to watch: at its first undo, or with its newest event."""
    began = history.undo_began
    return history.last_at if began is None else began.at


def trailing(history: History) -> float:
    """By how many seconds the newest sample of any signal may trail the end of the watch and still be the newest that
    could be known."""
    last = history.last(SignalRead)
    return 0.0 if last is None else 2 * last.step + last.resolution + _LATE


def silence(history: History) -> float:
    """For how many seconds before the end of the watch no sample of any signal is there, where that is longer than a
    working source would take; else 0. Also 0 where the reader did not say its step."""
    last = history.last(SignalRead)
    if last is None or not last.step:
        return 0.0
    newest = max((told[-1].at for name in signal_names(history) if (told := samples(history, name))), default=None)
    quiet = 0.0 if newest is None else watched_until(history) - newest
    return quiet if quiet > trailing(history) else 0.0


def signal_names(history: History) -> Sequence[str]:
    """Every signal that was read, in order of its first read."""

    def note(names: dict[str, None], record: Record) -> None:
        if isinstance(record.event, SignalRead):
            names.setdefault(record.event.signal)

    def nothing() -> dict[str, None]:
        return {}

    names = history.folded("signal names", history.told(SignalRead), nothing, note)
    return tuple(names)


def described(told: Sampled) -> str:
    """What was there instead of a value, in words."""
    return told.why or ("no value" if told.value is None else "samples are missing before it")
