"""Which display fits a stream: the one place that knows all of them, so that none needs to know another."""

from __future__ import annotations

from typing import TextIO

from harness.terminal.live import JsonLive, LineLive, Live
from harness.terminal.progress import JsonProgress, LineProgress, Steps
from harness.terminal.stream import Lines, Mode


def live_for(stream: TextIO, mode: Mode) -> Live:
    """The live display that fits a stream."""
    if mode is Mode.TTY:
        from harness.terminal.tty import TtyLive, console_for

        return TtyLive(console_for(stream))
    return JsonLive(Lines(stream)) if mode is Mode.JSON else LineLive(Lines(stream))


def progress_for(stream: TextIO, mode: Mode) -> Steps:
    """The progress that fits a stream."""
    if mode is Mode.TTY:
        from harness.terminal.tty import TtyProgress, console_for

        return TtyProgress(console_for(stream))
    return JsonProgress(Lines(stream)) if mode is Mode.JSON else LineProgress(Lines(stream))
