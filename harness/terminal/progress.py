"""Steps of set-up and clean-up as people and programs follow them (see ports.progress).

On a terminal: a spinner, the time spent, and a bar against the estimate. In a pipe: one line when a step begins, one
when it ends, and a sign of life every 15 seconds in between. For programs: the same as JSON lines. All three record
how long each outermost step took.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from harness.core.clock import utc
from harness.ports.progress import StepHandle
from harness.report.wording import clean, span
from harness.terminal.stream import Lines, quietly

HEARTBEAT = 15.0
"""Seconds between two signs of life."""
_DETAIL_EVERY = 5.0
"""Seconds at least between two lines about a step's detail."""


@dataclass(eq=False)
class OpenStep:
    """A step that is under way. `expect` and `started` in seconds."""

    title: str
    expect: float | None
    started: float
    outermost: bool
    detail: str = ""
    fraction: float | None = None
    ended: bool = field(default=False)


class Steps:
    """What all renderers share: which steps are open, how long each took, and that showing them never fails."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.RLock()
        self.open: list[OpenStep] = []
        self.phases: dict[str, float] = {}

    def say(self, text: str) -> None:
        """One line of plain information."""
        quietly(lambda: self.said(clean(text)))

    def step(self, title: str, *, expect_seconds: float | None = None) -> AbstractContextManager[StepHandle]:
        """See ports.progress."""
        return _Step(self, clean(title), expect_seconds)

    def close(self) -> None:
        """Stop whatever still moves. Steps may follow."""

    def begin(self, title: str, expect: float | None) -> OpenStep:
        """Note a new step."""
        with self._lock:
            step = OpenStep(title, expect, self._monotonic(), outermost=not self.open)
            self.open.append(step)
        quietly(lambda: self.began(step))
        return step

    def change(self, step: OpenStep, detail: str, fraction: float | None) -> None:
        """Note what a step is at."""
        step.detail, step.fraction = clean(detail), fraction
        quietly(lambda: self.changed(step))

    def end(self, step: OpenStep, how: str) -> None:
        """Note how a step ended: done, failed or interrupted."""
        seconds = self.spent(step)
        with self._lock:
            step.ended = True
            self.open.remove(step)
            if step.outermost:
                self.phases[step.title] = self.phases.get(step.title, 0.0) + seconds
        quietly(lambda: self.finished(step, seconds, how))

    def spent(self, step: OpenStep) -> float:
        """Seconds since the step began."""
        return self._monotonic() - step.started

    # What a renderer shows

    def said(self, text: str) -> None:
        """Show a line."""

    def began(self, step: OpenStep) -> None:
        """Show that a step began."""

    def changed(self, step: OpenStep) -> None:
        """Show what a step is at."""

    def finished(self, step: OpenStep, seconds: float, how: str) -> None:
        """Show how a step ended."""


class _Step:
    def __init__(self, steps: Steps, title: str, expect: float | None) -> None:
        self._steps = steps
        self._title = title
        self._expect = expect
        self._open: OpenStep | None = None

    def __enter__(self) -> Self:
        self._open = self._steps.begin(self._title, self._expect)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            stopped = kind is not None and not issubclass(kind, Exception)
            self._steps.end(self._open, "interrupted" if stopped else "done" if kind is None else "failed")

    def update(self, detail: str, fraction: float | None = None) -> None:
        if self._open is not None:
            self._steps.change(self._open, detail, fraction)


class PulsedSteps(Steps):
    """Steps that give a sign of life while nothing else is printed."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, heartbeat: float = HEARTBEAT) -> None:
        super().__init__(monotonic)
        self._heartbeat = heartbeat
        self._told_at = monotonic()
        self._quit = threading.Event()

    def began(self, step: OpenStep) -> None:
        """See `Steps`."""
        self._told_at = self._monotonic()
        if step.outermost:
            self._quit = threading.Event()
            threading.Thread(target=self._beat, args=(self._quit,), name="drill-heartbeat", daemon=True).start()

    def changed(self, step: OpenStep) -> None:
        """See `Steps`: now and then, not for each change."""
        if step.detail and self._monotonic() - self._told_at >= _DETAIL_EVERY:
            self.beat()

    def finished(self, step: OpenStep, seconds: float, how: str) -> None:  # noqa: ARG002 - the hook's signature
        """See `Steps`."""
        self._told_at = self._monotonic()
        if step.outermost:
            self._quit.set()

    def close(self) -> None:
        """See `Steps`."""
        self._quit.set()

    def beat(self) -> None:
        """Give a sign of life of the innermost open step."""
        with self._lock:
            step = self.open[-1] if self.open else None
        if step is not None:
            self._told_at = self._monotonic()
            self.alive(step, self.spent(step))

    def alive(self, step: OpenStep, seconds: float) -> None:
        """Show a sign of life."""

    def _beat(self, quit_: threading.Event) -> None:
        while not quit_.wait(self._heartbeat):
            quietly(self.beat)


class LineProgress(PulsedSteps):
    """One plain line per event."""

    def __init__(
        self, lines: Lines, monotonic: Callable[[], float] = time.monotonic, heartbeat: float = HEARTBEAT
    ) -> None:
        super().__init__(monotonic, heartbeat)
        self._lines = lines

    def said(self, text: str) -> None:
        """See `Steps`."""
        self._lines.told("", text)

    def began(self, step: OpenStep) -> None:
        """See `Steps`."""
        super().began(step)
        self._lines.told("set-up", f"{step.title} ...{_estimate(step)}")

    def alive(self, step: OpenStep, seconds: float) -> None:
        """See `PulsedSteps`."""
        of = f" of about {span(step.expect, 0)}" if step.expect else ""
        done = "" if step.fraction is None else f", {step.fraction:.0%} done"
        at = f": {step.detail}" if step.detail else ""
        self._lines.told("set-up", f"{step.title}: {span(seconds, 0)}{of}{done}{at}")

    def finished(self, step: OpenStep, seconds: float, how: str) -> None:
        """See `Steps`."""
        super().finished(step, seconds, how)
        self._lines.told("set-up", f"{step.title}: {how} {'in' if how == 'done' else 'after'} {span(seconds)}")


class JsonProgress(PulsedSteps):
    """The same as JSON lines, each an object with the one key `progress`."""

    def __init__(
        self, lines: Lines, monotonic: Callable[[], float] = time.monotonic, heartbeat: float = HEARTBEAT
    ) -> None:
        super().__init__(monotonic, heartbeat)
        self._lines = lines

    def said(self, text: str) -> None:
        """See `Steps`."""
        self._lines.json({"progress": {"utc": utc(time.time()), "state": "said", "text": text}})

    def began(self, step: OpenStep) -> None:
        """See `Steps`."""
        super().began(step)
        self._tell(step, "started")

    def alive(self, step: OpenStep, seconds: float) -> None:
        """See `PulsedSteps`."""
        self._tell(step, "running", seconds=round(seconds, 3), detail=step.detail, fraction=step.fraction)

    def finished(self, step: OpenStep, seconds: float, how: str) -> None:
        """See `Steps`."""
        super().finished(step, seconds, how)
        self._tell(step, how, seconds=round(seconds, 3))

    def _tell(self, step: OpenStep, state: str, **more: Any) -> None:
        body = {"utc": utc(time.time()), "state": state, "title": step.title, "expect_seconds": step.expect, **more}
        self._lines.json({"progress": body})


def _estimate(step: OpenStep) -> str:
    return f" (about {span(step.expect, 0)})" if step.expect else ""
