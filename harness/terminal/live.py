"""A run as it happens, in a pipe or for a program.

A pipe gets one line per notable event and, when nothing is notable for a while, one line of where things stand. A
program gets every event as the journal has it. The terminal's own display is in `tty`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from harness.core.clock import utc
from harness.core.event import Record, encode
from harness.core.view import AlertView, SignalView, View
from harness.report.wording import clean, span
from harness.terminal.progress import HEARTBEAT
from harness.terminal.sentences import Line, Teller
from harness.terminal.stream import Lines, quietly


class Live:
    """Shows a run. `event` and `view` may be called from the run's own thread and never raise."""

    def event(self, record: Record) -> None:
        """Show a fact that was just journalled."""
        quietly(lambda: self.on_event(record))

    def view(self, view: View) -> None:
        """Show where things stand."""
        quietly(lambda: self.on_view(view))

    def close(self) -> None:
        """Leave the terminal as it was."""

    def on_event(self, record: Record) -> None:
        """What a renderer does with a fact."""

    def on_view(self, view: View) -> None:
        """What a renderer does with a view."""


class LineLive(Live):
    """One plain line per notable event, and a sign of life."""

    def __init__(
        self, lines: Lines, monotonic: Callable[[], float] = time.monotonic, heartbeat: float = HEARTBEAT
    ) -> None:
        self._lines = lines
        self._monotonic = monotonic
        self._heartbeat = heartbeat
        self._told_at = monotonic()
        self._teller = Teller()

    def on_event(self, record: Record) -> None:
        """See `Live`."""
        self._say(self._teller.tell(record))

    def on_view(self, view: View) -> None:
        """See `Live`."""
        self._say(self._teller.watch(view))
        if self._monotonic() - self._told_at >= self._heartbeat:
            self._told_at = self._monotonic()
            self._lines.told("now", standing(view))

    def close(self) -> None:
        """See `Live`."""
        quietly(lambda: self._say(self._teller.rest()))

    def _say(self, told: Iterable[Line]) -> None:
        for at, topic, text in told:
            self._told_at = self._monotonic()
            self._lines.told(topic, text, at=utc(at)[11:19])


class JsonLive(Live):
    """Every record as its journal line."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def on_event(self, record: Record) -> None:
        """See `Live`."""
        self._lines.write(encode(record))


def standing(view: View) -> str:
    """Where things stand, in one sentence."""
    parts = [phase_of(view)]
    parts += [alert_of(alert) for alert in view.alerts]
    parts.append(f"{view.signal.title} {reading(view.signal)}")
    if view.pods is not None:
        parts.append(pods_of(view))
    parts += [f"{lost.channel} lost for {span(lost.seconds, 0)}" for lost in view.lost]
    if view.decided and view.phase != "observing":
        parts.append(view.decided)
    return clean("; ".join(parts))


def phase_of(view: View) -> str:
    """ "observing for 32 s, 1 min 28 s left"."""
    if view.phase in {"preparing", "steady"}:
        what = "preparing" if view.phase == "preparing" else "watching the steady state"
        return f"{what} for {span(view.prepared, 0)}"
    if view.phase in {"clean", "dirty"}:
        return f"{view.phase} after {span(view.prepared + view.elapsed, 0)}"
    return f"{view.phase} for {span(view.elapsed, 0)}, {span(view.remaining, 0)} left"


def alert_of(alert: AlertView) -> str:
    """ "HighQueueDepth firing, paged"."""
    return f"{alert.name} {alert.state}" + (", paged" if alert.is_paged else "")


def pods_of(view: View) -> str:
    """ "2 of 5 pods ready, 3 OOM kills"."""
    pods = view.pods
    if pods is None:
        return "not watched yet"
    kills = "" if not pods.oom_kills else f", {pods.oom_kills} OOM kill{'s' if pods.oom_kills > 1 else ''}"
    return f"{pods.ready} of {pods.total} pods ready{kills}"


def reading(signal: SignalView) -> str:
    """The newest sample for people. "no data" is an answer without a value, which is not the same as no answer yet."""
    if not signal.samples:
        return "not read yet"
    return "no data" if signal.value is None else f"{signal.value:.6g} {signal.unit}".rstrip()
