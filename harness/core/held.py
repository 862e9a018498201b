"""Since when a condition holds for its whole window, from a signal's samples: pure, with bounds, back-dated."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.core.clock import Bounds, Instant
from harness.core.experiment import Condition
from harness.core.history import History
from harness.core.samples import Sampled, described, samples, trailing, watched_until


@dataclass(frozen=True, slots=True)
class Since:
    """A condition holds: since when, who says so, by which journal records; `note` is what a reader must know."""

    at: Bounds
    source: str
    evidence: tuple[int, ...]
    note: str = ""


@dataclass(slots=True)
class _Window:
    """A window of good samples, as far as it has come: since which sample, and the last instant known as bad before."""

    known_bad: Instant
    start: Instant | None = None
    seq: int = 0
    resolution: float = 0.0

    def earliest(self) -> Instant:
        """The earliest instant at which the change can have been."""
        begun = self.known_bad if self.start is None else min(self.start, self.known_bad)
        return begun - self.resolution


@dataclass(slots=True)
class _Held:
    """What is known (`surely`) of a condition, and what could be if everything unseen were good (`perhaps`)."""

    surely: _Window
    perhaps: _Window
    newest: Instant
    """The last sample's instant."""
    doubt: Sampled | None = None
    """The first sample in the present `perhaps` that is missing, or has samples missing before it."""
    first: _Window | None = None
    """The `perhaps` that first lasted long enough."""
    first_doubt: Sampled | None = None
    found: Since | None = None


def held_since(history: History, signal: str, condition: Condition, *, not_before: float) -> Since | None:
    """When `condition` began to hold for its whole window, back-dated to the window's start, or None.

    A missing value or a hole between samples breaks a window, so that no data never passes. The latest bound is the
    first window that was seen whole. The earliest is the last sample that is known not to have held (less the
    samples' resolution), or `not_before`, before the first window that may have been whole if all that was not seen
    was good: the true change lies between them.
    """
    return _held(history, signal, condition, not_before).found


def may_have_held(history: History, signal: str, condition: Condition, *, not_before: float) -> str:
    """Why it is not known whether the condition began to hold for its whole window while the run watched; "" where
    what was seen shows that it did not. To be asked where `held_since` answers None."""
    held = _held(history, signal, condition, not_before)
    if held.first_doubt is not None:
        return f"no data for {signal} ({described(held.first_doubt)})"
    newest, until = held.newest, watched_until(history)
    if until - newest <= trailing(history):
        return ""
    begun = held.perhaps.start if held.perhaps.start is not None else newest
    if until - begun >= condition.for_:
        return f"no data for {signal} in the last {until - newest:.1f} s that were watched"
    return ""


def _held(history: History, signal: str, condition: Condition, not_before: float) -> _Held:
    def see(held: _Held, sample: Sampled) -> None:
        if sample.at >= not_before and held.found is None:
            _see(held, sample, condition, not_before)

    key = ("held", signal, condition, not_before)
    start = lambda: _Held(_Window(not_before), _Window(not_before), not_before)  # noqa: E731
    return history.folded(key, samples(history, signal), start, see)


def _see(held: _Held, sample: Sampled, condition: Condition, not_before: float) -> None:
    """Take the next sample in. Nothing more is asked once the condition is known to have held."""
    surely, perhaps = held.surely, held.perhaps
    if sample.value is not None and not condition.holds(sample.value):
        held.surely, held.perhaps, held.doubt = _Window(sample.at), _Window(sample.at), None
        held.newest = sample.at
        return
    if sample.hole or sample.value is None:
        held.doubt = held.doubt or sample
        surely.start = None
    if perhaps.start is None:
        perhaps.start = max(held.newest, not_before) if sample.hole else sample.at
        perhaps.resolution = sample.resolution
    if surely.start is None and sample.value is not None:
        surely.start, surely.seq = sample.at, sample.seq
    held.newest = sample.at
    if held.first is None and sample.at - perhaps.start >= condition.for_:
        held.first, held.first_doubt = replace(perhaps), held.doubt
    if held.first is None or surely.start is None or sample.at - surely.start < condition.for_:
        return
    earliest = max(not_before, held.first.earliest())
    note = f"held for {condition.for_:g} s; back-dated to the start of that window"
    held.found = Since(
        Bounds(earliest=min(earliest, surely.start), latest=surely.start), f"Prometheus: {condition}",
        (surely.seq, sample.seq), note,
    )  # fmt: skip
