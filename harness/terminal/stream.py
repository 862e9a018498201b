"""Where a command's words go: a terminal, a pipe, or a program that reads JSON lines.

The three are told apart once, here. Writing never raises: a reader that went away or a full disk behind a pipe must
not end a drill, least of all in the middle of its undo.
"""

from __future__ import annotations

import json
import os
import shutil
import textwrap
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

from harness.core.inert import escaped

COLUMNS = 80
"""The width of plain lines; a pipe has no width of its own."""
_TOPIC = 9


class Mode(StrEnum):
    """How a stream is written to."""

    TTY = "tty"
    LINES = "lines"
    JSON = "json"


def mode_of(stream: TextIO, output: str, env: Mapping[str, str] = os.environ) -> Mode:
    """JSON where it was asked for; a live display only on a real terminal that can show one; else plain lines."""
    if output == "json":
        return Mode.JSON
    encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
    can_draw = stream.isatty() and env.get("TERM", "") not in {"", "dumb"} and encoding in {"utf8", ""}
    return Mode.TTY if can_draw else Mode.LINES


def columns(stream: TextIO) -> int:
    """The width to print in: the terminal's, and 80 for everything that is not one."""
    return max(40, shutil.get_terminal_size((COLUMNS, 24)).columns) if stream.isatty() else COLUMNS


def wall_clock() -> str:
    """The present time of day, UTC, for people's eyes: "09:15:00"."""
    return datetime.now(tz=UTC).strftime("%H:%M:%S")


class Lines:
    """Whole lines to one stream, from any thread, flushed at once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> None:
        """One or more lines as they are; what the stream cannot encode is replaced."""
        shown = text.encode(self._encoding, "replace").decode(self._encoding)
        with self._lock, suppress(OSError, ValueError):  # ValueError: the stream is closed
            self._stream.write(f"{shown}\n")
            self._stream.flush()

    def told(self, topic: str, text: str, at: str = "") -> None:
        """One fact with its time and its topic, wrapped."""
        self.write(layout(topic, text, at or wall_clock()))

    def json(self, body: Mapping[str, Any]) -> None:
        """One object as one line."""
        self.write(escaped(json.dumps(body, ensure_ascii=False, separators=(",", ":"), default=str)))


def layout(topic: str, text: str, at: str, width: int = COLUMNS, *, whole_words: bool = True) -> str:
    """ "09:15:00  alert      HighQueueDepth is firing", wrapped under its own text.

    A word wider than the line, like an object's name, stays whole for whoever searches a log for it; a terminal breaks
    it, because there nothing may stand wider than the screen.
    """
    head = f"{at:<8}  {topic:<{_TOPIC}}  "
    wrapped = textwrap.wrap(
        text, width, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False,
        break_long_words=not whole_words,
    )  # fmt: skip
    return "\n".join(wrapped) if wrapped else head.rstrip()


def quietly(act: Callable[[], object]) -> None:
    """Do something that only shows things; whatever goes wrong with it is not worth a run."""
    with suppress(Exception):
        act()
