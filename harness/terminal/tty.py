"""The display on a real terminal, drawn with rich: steps with a spinner, and a run's view below its notable events.

This is the only module that imports rich, and it is imported only when there is a terminal to draw on. What is
printed above the moving part stays in the terminal's own scrollback, so that nothing is lost when the run ends.
NO_COLOR is respected by rich itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from harness.core.clock import utc
from harness.core.event import Record
from harness.core.verdict import Verdict
from harness.core.view import RunningClock, View
from harness.report.wording import clean, span, target
from harness.terminal.live import Live, alert_of, phase_of, pods_of, reading
from harness.terminal.progress import OpenStep, Steps
from harness.terminal.sentences import Line, Teller, who
from harness.terminal.stream import columns, layout, quietly, wall_clock

_BARS = "▁▂▃▄▅▆▇█"
_VERDICT_STYLES = {
    Verdict.MET: "green", Verdict.MISSED: "bold red", Verdict.NOT_REACHED: "bold red", Verdict.UNDECIDED: "yellow",
}  # fmt: skip
_PHASE_STYLES = {"dirty": "bold red", "clean": "green", "injecting": "yellow", "rolling back": "yellow"}
_TOPIC_STYLES = {
    "refused": "bold red", "lost": "red", "stop": "yellow", "alert": "magenta", "page": "magenta", "inject": "yellow",
    "effect": "yellow", "responder": "cyan", "undo": "blue", "clean": "green", "ended": "bold",
}  # fmt: skip


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """rich would end the process here; a drill outlives the terminal that watched it."""
        self.quiet = True


@cache
def console_for(stream: TextIO) -> Console:
    """One console per stream: rich coordinates its moving parts by console."""
    return _Console(
        file=stream, force_terminal=True, width=columns(stream), highlight=False, markup=False, emoji=False,
        legacy_windows=False,
    )  # fmt: skip


class TtyProgress(Steps):
    """Open steps move; ended ones leave a line."""

    def __init__(self, console: Console, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(monotonic)
        self._console = console
        self._spinner = Spinner("dots")
        self._live: RichLive | None = None

    def said(self, text: str) -> None:
        """See `Steps`."""
        self._console.print(_line("", text, wall_clock(), self._console.width))

    def began(self, step: OpenStep) -> None:  # noqa: ARG002 - the hook's signature
        """See `Steps`."""
        if self._live is None:
            self._live = RichLive(
                get_renderable=self._moving, console=self._console, transient=True, refresh_per_second=8
            )
            self._live.start()

    def finished(self, step: OpenStep, seconds: float, how: str) -> None:
        """See `Steps`."""
        text = f"{step.title}: {how} {'in' if how == 'done' else 'after'} {span(seconds)}"
        line = _line("set-up", text, wall_clock(), self._console.width)
        if how != "done":
            line.stylize("red")
        self._console.print(line)
        if not self.open:
            self.close()

    def close(self) -> None:
        """See `Steps`."""
        live, self._live = self._live, None
        if live is not None:
            quietly(live.stop)

    def _moving(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        for step in list(self.open):
            seconds = self.spent(step)
            of = f" of about {span(step.expect, 0)}" if step.expect else ""
            table.add_row(
                self._spinner,
                Text(step.title, overflow="ellipsis", no_wrap=True),
                ProgressBar(total=1.0, completed=_fraction(step, seconds) or 0.0, width=16)
                if _fraction(step, seconds) is not None
                else "",
                Text(f"{span(seconds, 0)}{of}", no_wrap=True),
                Text(step.detail, style="dim", overflow="ellipsis", no_wrap=True),
            )
        return table


def _fraction(step: OpenStep, seconds: float) -> float | None:
    """How far a step is: what it says itself, else time against its estimate, which never claims to be over."""
    if step.fraction is not None:
        return min(1.0, max(0.0, step.fraction))
    return min(0.95, seconds / step.expect) if step.expect else None


class TtyLive(Live):
    """Notable events scroll by; below them the view stands still and its clocks run."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._teller = Teller()
        self._live: RichLive | None = None
        self._view: View | None = None
        self._is_over = False

    def on_event(self, record: Record) -> None:
        """See `Live`."""
        self._say(self._teller.tell(record))

    def on_view(self, view: View) -> None:
        """See `Live`."""
        self._view = view
        self._say(self._teller.watch(view))
        if self._is_over:
            return
        if self._live is None:
            self._live = RichLive(
                get_renderable=self._moving, console=self._console, transient=True, refresh_per_second=4
            )
            self._live.start()
        if view.phase in {"clean", "dirty"}:
            self._is_over = True
            self.close()

    def close(self) -> None:
        """See `Live`. The last view stays on the screen."""
        quietly(lambda: self._say(self._teller.rest()))
        live, self._live = self._live, None
        if live is not None:
            quietly(live.stop)
            quietly(lambda: self._console.print(self._moving()))

    def _say(self, told: Iterable[Line]) -> None:
        for at, topic, text in told:
            self._console.print(_line(topic, text, utc(at)[11:19], self._console.width))

    def _moving(self) -> RenderableType:
        return "" if self._view is None else Group(*panel(self._view, self._console.width))


def panel(view: View, width: int) -> Iterator[RenderableType]:
    """The standing part of the display. No box: every column is for facts."""
    yield Text("─" * width, style="dim")
    yield _head(view, width)
    facts = Table.grid(padding=(0, 2), expand=False)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(view, width):
        facts.add_row(Text(name, style="dim"), value)
    yield facts
    yield clocks(view.clocks, width)


def _head(view: View, width: int) -> Text:
    left = Text(clean(f"{view.experiment}  {view.profile}  {view.responder}"))
    right = Text(phase_of(view), style=_PHASE_STYLES.get(view.phase, "bold"))
    left.truncate(max(10, width - len(right) - 2), overflow="ellipsis")
    return left + " " * max(2, width - len(left) - len(right)) + right


def _facts(view: View, width: int) -> Iterator[tuple[str, Text]]:
    room = max(10, width - 48)
    value = clean(reading(view.signal))
    yield clean(view.signal.title)[:24], Text(f"{value:<14} {sparkline(view.signal.samples, min(room, 40))}".rstrip())
    yield "pods", Text(pods_of(view))
    for alert in view.alerts:
        yield "alert", Text(clean(alert_of(alert)), style="bold magenta" if alert.state == "firing" else "")
    taken = view.acknowledged
    yield "acknowledged", Text("nobody yet" if taken is None else f"{clean(who(taken.actor))} ({taken.kind})")
    for lost in view.lost:
        yield "lost", Text(clean(f"{lost.channel} for {span(lost.seconds, 0)}: {lost.detail}"), style="red")
    if view.decided and view.phase != "observing":  # while it observes, the clocks say what it waits for
        yield "decided", Text(clean(view.decided))
    for difference in view.differences[:5]:
        yield "differs", Text(clean(difference), style="bold red")


def clocks(running: Iterable[RunningClock], width: int) -> Table:
    """Each SLA as a row: its two ends, the time on its clock, its target, its verdict."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, overflow="ellipsis", width=max(12, width - 39))
    table.add_column(justify="right", no_wrap=True, width=12)
    table.add_column(justify="right", no_wrap=True, width=10)
    table.add_column(no_wrap=True, width=11)
    for clock in running:
        elapsed = "" if clock.elapsed is None else span(clock.elapsed, 1 if clock.state == "done" else 0)
        table.add_row(
            clean(f"{clock.start} -> {clock.end}{'' if clock.required else ' *'}"),
            elapsed,
            target(clock.target),
            _state(clock),
        )
    return table


def _state(clock: RunningClock) -> Text:
    if clock.verdict is not None:
        return Text(clock.verdict.value, style=_VERDICT_STYLES[clock.verdict])
    if clock.state == "running":
        return Text("late" if clock.is_late else "running", style="red" if clock.is_late else "bold")
    return Text("not started", style="dim")


def sparkline(samples: Iterable[float | None], width: int) -> str:
    """The newest samples as bars between zero and their largest; a sample without data leaves a gap."""
    recent = list(samples)[-width:] if width > 0 else []
    known = [value for value in recent if value is not None]
    if not known:
        return ""
    low, high = min(0.0, *known), max(known)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if value is None else _BARS[round((value - low) * scale)] for value in recent)


def _line(topic: str, text: str, at: str, width: int) -> Text:
    line = Text(layout(topic, text, at, width, whole_words=False))
    line.stylize("dim", 0, len(at))
    style = _TOPIC_STYLES.get(topic)
    if style:
        line.stylize(style, len(at) + 2, len(at) + 2 + len(topic))
    return line
