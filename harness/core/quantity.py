"""Durations and memory quantities as people write them: `90s`, `1h30m`, `250ms`, `48Mi`.

A bare number has no unit and is refused: "5" has meant seconds to one author and minutes to the next. Both types
keep the text that was written, because an undo must put back the very text that was there.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_UNIT_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_DURATION = re.compile(r"^(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+$")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_MEMORY = re.compile(r"^(\d+(?:\.\d+)?)(Ki|Mi|Gi|Ti|k|M|G|T|)$")
_MEMORY_FACTOR = {
    "": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
}  # fmt: skip


def parse_duration(text: object) -> float:
    """Seconds in `text`, e.g. "1h30m" -> 5400.0. Raises ValueError naming the form expected."""
    if isinstance(text, float):  # a value that was parsed before (model round trips)
        return text
    if not isinstance(text, str) or not _DURATION.match(text):
        raise ValueError(f"{text!r} is not a duration; write a number with its unit, like 90s, 5m, 1h30m or 250ms")
    return float(sum(Decimal(n) * _UNIT_SECONDS[unit] for n, unit in _DURATION_PART.findall(text)))


def format_duration(seconds: float) -> str:
    """The shortest exact spelling of a duration to the millisecond: 90.0 -> "1m30s", 0.25 -> "250ms"."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def parse_memory(text: object) -> int:
    """Bytes in a Kubernetes memory quantity ("64Mi" -> 67108864). Raises ValueError."""
    match = _MEMORY.match(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a memory quantity; write bytes with a unit, like 64Mi or 1Gi")
    return int(Decimal(match[1]) * _MEMORY_FACTOR[match[2]])


def _memory_text(text: object) -> str:
    if parse_memory(text) == 0:
        raise ValueError("a memory quantity of zero would stop the container from starting at all")
    if not re.search(r"[A-Za-z]$", str(text)):
        raise ValueError(f"{text!r} has no unit; write a unit, like 64Mi")
    return str(text)


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION.pattern, "examples": ["90s", "5m", "1h30m"]}),
]
"""Seconds, written with a unit."""

Memory = Annotated[
    str,
    BeforeValidator(_memory_text),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?(Ki|Mi|Gi|Ti|k|M|G|T)$", "examples": ["64Mi"]}),
]
"""A Kubernetes memory quantity, kept as it was written."""
