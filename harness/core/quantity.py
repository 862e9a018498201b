"""Durations and quantities as people write them: `90s`, `1h30m`, `250ms`, `48Mi`, `250m` of a core.

A bare number has no unit and is refused: "5" has meant seconds to one author and minutes to the next. A duration
becomes seconds, whole milliseconds of at most a year; a memory quantity keeps the text that was written, because an
undo must put back the very text that was there.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

_UNIT_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_DURATION = re.compile(
    "^(?=[0-9])" + "".join(rf"(?:[0-9]+(?:\.[0-9]+)?{u})?" for u in ("d", "h", "m", "s", "ms")) + "$"
)
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
LONGEST_DURATION = 366 * 86400.0
_MEMORY = re.compile(r"^([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:(Ki|Mi|Gi|Ti|Pi|Ei|m|k|M|G|T|P|E)|[eE]([+-]?[0-9]{1,2}))?$")
_MEMORY_FACTOR = {
    "m": Decimal("0.001"), "": Decimal(1),
    **{f"{letter}i": Decimal(1024**power) for power, letter in enumerate("KMGTPE", 1)},
    **{letter: Decimal(1000**power) for power, letter in enumerate("kMGTPE", 1)},
}  # fmt: skip
_MEMORY_WRITTEN = re.compile(r"^[0-9]+(?:\.[0-9]+)?(?:Ki|Mi|Gi|Ti|k|M|G|T)$")
_CPU = re.compile(r"^([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([numkMG])|[eE]([+-]?[0-9]{1,2}))?$")
_CPU_FACTOR = {unit: Decimal(1000) ** power for power, unit in enumerate(("n", "u", "m", "", "k", "M", "G"), -3)}
_CPU_WRITTEN = re.compile(r"^[1-9][0-9]{0,6}m$")
WRITTEN = {"written": True}
"""Validation context for data that came from outside (files, journals): there a bare number is not a duration."""


def parse_duration(text: object) -> float:
    """Seconds in `text`, e.g. "1h30m" -> 5400.0. Raises ValueError naming the form expected."""
    if not isinstance(text, str) or len(text) > 40 or not _DURATION.fullmatch(text):
        raise ValueError(f"{_shown(text)} is not a duration; {_duration_hint(text)}")
    seconds = sum((Decimal(n) * _UNIT_SECONDS[unit] for n, unit in _DURATION_PART.findall(text)), Decimal(0))
    if seconds > Decimal(LONGEST_DURATION):
        raise ValueError(f"{text!r} is longer than 366 days; write a shorter duration")
    if seconds * 1000 % 1:
        raise ValueError(f"{text!r} is finer than a millisecond, which nothing here can measure; write whole ms")
    return float(seconds)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _duration_hint(text: object) -> str:
    form = "write a number with its unit, like 90s, 5m, 1h30m or 250ms"
    if isinstance(text, str) and len(text) > 40:
        return form
    if isinstance(text, int | float) and not isinstance(text, bool):
        return f"{form}: did you mean {text}s or {text}m?"
    if isinstance(text, str) and re.fullmatch(r"[0-9.]+", text):
        return f"{form}: did you mean {text}s or {text}m?"
    if isinstance(text, str) and _DURATION.fullmatch(squeezed := re.sub(r"\s+", "", _short_units(text))) and squeezed:
        return f"write {squeezed}"
    return f"{form}, the larger unit first"


def _short_units(text: str) -> str:
    words = {"d": "days?", "h": "(?:hours?|hrs?)", "ms": "(?:milliseconds?|msecs?)", "m": "(?:minutes?|mins?)",
             "s": "(?:seconds?|secs?)"}  # fmt: skip
    for unit, word in words.items():
        text = re.sub(rf"(?<![a-z]){word}(?![a-z])", unit, text, flags=re.IGNORECASE)
    return text


def _duration(value: Any, info: ValidationInfo) -> float:
    if isinstance(value, float) and not (info.context or {}).get("written"):
        if not 0 <= value <= LONGEST_DURATION:  # NaN is refused here too
            raise ValueError(f"{value!r} s is not a duration between 0 and 366 days")
        return value  # a value that was parsed before
    return parse_duration(value)


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
    """Bytes in a Kubernetes memory quantity ("64Mi" -> 67108864), rounded up as Kubernetes does; every spelling that
    the API server takes ("129e6", "123Mi", "500m"). Raises ValueError."""
    match = _MEMORY.fullmatch(text) if isinstance(text, str) and len(text) <= 40 else None
    if match is None:
        raise ValueError(f"{_shown(text)} is not a memory quantity; {_memory_hint(text)}")
    number, unit, exponent = match.groups()
    scaled = Decimal(number) * _MEMORY_FACTOR[unit or ""] * Decimal(10) ** int(exponent or 0)
    return int(scaled.to_integral_value(ROUND_CEILING))


def parse_cpu(text: object) -> int:
    """Thousandths of a core in a Kubernetes CPU quantity ("500m" -> 500, "2" -> 2000), rounded up as Kubernetes does;
    every spelling that the API server takes. Raises ValueError."""
    match = _CPU.fullmatch(text) if isinstance(text, str) and len(text) <= 40 else None
    if match is None:
        raise ValueError(f"{_shown(text)} is not a CPU quantity; write thousandths of a core, like 250m")
    number, unit, exponent = match.groups()
    scaled = Decimal(number) * _CPU_FACTOR[unit or ""] * Decimal(10) ** int(exponent or 0)
    return int((scaled * 1000).to_integral_value(ROUND_CEILING))


def _cpu_text(text: object) -> str:
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise ValueError(f"{text!r} has no unit; write thousandths of a core, like {max(1, round(text * 1000))}m")
    if not isinstance(text, str) or not _CPU_WRITTEN.fullmatch(text):
        raise ValueError(f"{_shown(text)} is not a CPU quantity; write thousandths of a core, like 250m")
    return text


def _memory_hint(text: object) -> str:
    form = "write bytes with a unit, like 64Mi or 1Gi"
    if not isinstance(text, str) or len(text) > 40:
        return form
    match = re.fullmatch(r"([0-9.]+)\s*([KMGTkmgt])(i?)(b|B|bytes?)?[?]?", text.strip())
    if match is None:
        return form
    number, unit, binary = match[1], match[2].upper(), f"{match[1]}{match[2].upper()}i"
    if match[3]:
        return f"write {binary}"
    return f"write {binary} (powers of 1024) or {number}{'k' if unit == 'K' else unit} (powers of 1000)"


def _memory_text(text: object) -> str:
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise ValueError(f"{text!r} has no unit; write a unit, like 64Mi")
    if isinstance(text, str) and re.fullmatch(r"[0-9.]{1,20}", text):
        raise ValueError(f"{text!r} has no unit; write a unit, like {text}Mi")
    if not isinstance(text, str) or not _MEMORY_WRITTEN.fullmatch(text):
        raise ValueError(f"{_shown(text)} is not a memory quantity; {_memory_hint(text)}")
    if parse_memory(text) == 0:
        raise ValueError("a memory quantity of zero would stop the container from starting at all")
    return text


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": _DURATION.pattern,
            "description": "A duration: numbers with units (d, h, m, s, ms), the larger first, like 90s or 1h30m.",
            "examples": ["90s", "5m", "1h30m", "250ms"],
        }
    ),
]
"""Seconds, written with a unit."""

Cpu = Annotated[
    str,
    BeforeValidator(_cpu_text),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": _CPU_WRITTEN.pattern,
            "description": "Thousandths of a CPU core, like 250m.",
            "examples": ["250m"],
        }
    ),
]
"""A Kubernetes CPU quantity in thousandths of a core, kept as it was written."""

Memory = Annotated[
    str,
    BeforeValidator(_memory_text),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": _MEMORY_WRITTEN.pattern,
            "description": "A Kubernetes memory quantity with its unit, like 64Mi (of 1024) or 64M (of 1000).",
            "examples": ["64Mi", "1Gi"],
        }
    ),
]
"""A Kubernetes memory quantity, kept as it was written."""
