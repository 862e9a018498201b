"""How reports write numbers, instants and strangers' text. One place, so that all formats say the same."""

from __future__ import annotations

import math
import unicodedata
from datetime import UTC, datetime

from harness.core.clock import Bounds, Instant, utc

EXACT = 0.05
"""Bounds narrower than this many seconds are shown as one number."""

_BOUNDLESS = 1e12
"""Seconds from which on a duration has no end that would matter."""

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MINUS = "\u2212"
_DIRECTIONAL = frozenset("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_REPLACEMENT = "\ufffd"


def clean(text: str) -> str:
    """`text` on one line, without what could act on a terminal, a parser or the reading direction."""
    return "".join(map(_clean_character, text)).strip()


def inert(text: str) -> str:
    """`text` with its lines and its indents, without anything else that could act."""
    return "\n".join("".join(map(_clean_character, line)).rstrip() for line in text.split("\n"))


def inert_line(text: str) -> str:
    """`text` on one line, with its indent: it can neither act nor look like another line."""
    return " " * (len(text) - len(text.lstrip(" "))) + clean(text)


def _clean_character(character: str) -> str:
    if character in "\t\n\r\x0b\x0c\x85":
        return " "
    strange = unicodedata.category(character) in {"Cc", "Cs"} or character in _DIRECTIONAL
    return _REPLACEMENT if strange or ord(character) & 0xFFFE == 0xFFFE else character


def span(seconds: float, digits: int = 1, *, trim: bool = False) -> str:
    """A duration for people: "12.3 s", "28 min", "1 h 2 min 5.0 s". `trim` drops zeros after the point."""
    if not abs(seconds) < _BOUNDLESS:
        return "unbounded"
    scale = 10**digits
    units = round(abs(seconds) * scale)
    minutes, rest = divmod(units, 60 * scale)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] if hours else []
    if minutes:
        parts.append(f"{minutes} min")
    if rest or not parts:
        number = f"{rest / scale:.{digits}f}"
        if trim and "." in number:
            number = number.rstrip("0").rstrip(".")
        parts.append(f"{number} s")
    return (_MINUS if seconds < 0 and units else "") + " ".join(parts)


def target(seconds: float) -> str:
    """A declared duration, exactly: "5 min", "0.25 s"."""
    return span(seconds, 3, trim=True)


def measured(bounds: Bounds | None, against: float | None = None) -> str:
    """A measured duration with its bounds where they matter: "12.3 s (12.1 to 12.5)".

    Close to the target it is written to the millisecond, so that the text never seems to contradict the verdict.
    """
    if bounds is None:
        return "not measured"
    if math.isinf(bounds.latest):
        return f"over {span(bounds.earliest)}"
    ends = (bounds.earliest, bounds.latest)
    digits = 2 if bounds.width > EXACT and bounds.width < 0.2 else 1
    if against is not None and any(abs(end - against) < 0.1 for end in ends):
        digits = 3
    text = span(bounds.middle, digits)
    if bounds.width <= EXACT:
        return text
    if ends[0] >= 0 and ends[1] < 60:
        return f"{text} ({ends[0]:.{digits}f} to {ends[1]:.{digits}f})"
    return f"{text} ({span(ends[0], digits)} to {span(ends[1], digits)})"


def within(bounds: Bounds) -> str:
    """A theoretical window: "5 s to 20 s", "at least 2 s"."""
    if math.isinf(bounds.latest):
        return f"at least {target(bounds.earliest)}"
    return f"{target(bounds.earliest)} to {target(bounds.latest)}"


def since(seconds: float) -> str:
    """A place on a drill's own time: "T+2.5 s"."""
    return f"T{_MINUS if seconds < 0 else '+'}{span(abs(seconds))}"


def uncertainty(bounds: Bounds) -> str:
    """What is not known of an instant: "exact", or plus or minus half its width."""
    return "exact" if bounds.width <= 0.0005 else f"± {bounds.width / 2:.3f} s"


def stamp(instant: Instant) -> str:
    """ "Tuesday 2025-11-04 09:15:00.000 UTC"."""
    text = utc(instant)
    day = _WEEKDAYS[datetime.fromtimestamp(round(instant, 3), tz=UTC).weekday()]
    return f"{day} {text[:10]} {text[11:-1]} UTC"


def clock(instant: Instant) -> str:
    """ "09:15:00.000"."""
    return utc(instant)[11:-1]


_UNDONE = {
    "restored": "restored by the harness",
    "already": "found already restored",
    "refused": "REFUSED: somebody changed it since",
    "vanished": "nothing left to restore",
    "failed": "FAILED",
    "taken over": "undone by whoever took the lock",
}


def undone(outcome: str) -> str:
    """How an undo ended, in words."""
    return _UNDONE.get(outcome, outcome)


def plural(count: int, noun: str) -> str:
    """ "1 target", "2 targets"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
