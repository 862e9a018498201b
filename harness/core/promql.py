"""What can be said of a PromQL expression by reading it, without a parser of the whole language.

These questions are asked to doubt more, never to conclude: where an expression is too clever for these functions they
answer nothing, and whoever asked has one doubt less.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_COMPARES = re.compile(r"==|!=|>=|<=|>|<")
_SETS = re.compile(r"\b(?:and|or|unless)\b", re.IGNORECASE)
_COUNTS = re.compile(r"\b(?:rate|irate|increase)\s*\(")
_NUMBER = re.compile(r"[-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|inf)", re.IGNORECASE)
_MODIFIED = re.compile(r"(?:bool|on|ignoring|group_left|group_right)\b", re.IGNORECASE)
_OF_TWO = frozenset({
    "rate", "irate", "increase", "delta", "idelta", "deriv", "predict_linear", "holt_winters",
    "double_exponential_smoothing",
})  # fmt: skip
"""Functions that compare samples: of a single one they say nothing."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_PART = re.compile(r"(\d+)(ms|[smhdwy])")
_SPAN = re.compile(r"\[\s*((?:\d+(?:ms|[smhdwy]))+)\s*\]")
_CALLER = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*(?:(?:by|without)\s*\([^()]*\)\s*)?$")
_SELECTOR = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*\s*(?:\{[^{}]*\})?\s*$|\{[^{}]*\}\s*$")
_PLACEHOLDER = re.compile(r"\[\s*\$range(?=\s*[\]:])|\$(?:\w+|\{\w+\})")
_HIDDEN = "\0"


def operand(query: str) -> str:
    """What a rule such as `max(depth) > 50` looks at: `max(depth)`. Where that has no value the rule says nothing,
    whether or not all is well. Empty where the expression is not one comparison."""
    shown = _outermost(query)
    found = list(_COMPARES.finditer(shown))
    if not found or _SETS.search(shown):
        return ""
    left, right = query[: found[-1].start()].strip(), query[found[-1].end() :].strip()
    if not _NUMBER.fullmatch(left):
        return left
    return "" if _MODIFIED.match(right) or _NUMBER.fullmatch(right) else right


def counter_ranges(query: str) -> tuple[str, ...]:
    """The range vectors whose growth is measured: `errors_total[5m]` of `sum(rate(errors_total[5m]))`."""
    shown = _unquoted(query)
    found: dict[str, None] = {}
    for match in _COUNTS.finditer(shown):
        depth, at = 1, match.end()
        while at < len(shown) and depth:
            depth += {"(": 1, ")": -1}.get(shown[at], 0)
            at += 1
        if not depth:
            found.setdefault(query[match.end() : at - 1].strip())
    return tuple(found)


class Range(NamedTuple):
    """A range vector: how long it is, and what looks at it."""

    text: str
    """As it is written, with the selector: `errors_total[5m]`."""
    function: str
    seconds: float

    @property
    def samples(self) -> int:
        """How many samples it must hold at least for the function to have a value."""
        return 2 if self.function in _OF_TWO else 1


def ranges(query: str) -> tuple[Range, ...]:
    """The range vectors of scraped series. What a subquery looks at is computed at its own step, and is left out."""
    shown, callers, found = _unquoted(query), list[str](), list[Range]()
    for at, char in enumerate(shown):
        if char == "(":
            name = _CALLER.search(shown[:at])
            callers.append(name[1].lower() if name else "")
        elif char == ")" and callers:
            callers.pop()
        elif char == "[" and (span := _SPAN.match(shown, at)):
            seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(span[1]))
            selector = _SELECTOR.search(shown[:at])
            start = selector.start() if selector else at
            found.append(Range(query[start : span.end()], callers[-1] if callers else "", seconds))
    return tuple(found)


def placeholders(query: str) -> tuple[str, ...]:
    """What an expression holds that is for somebody else to fill in: `[$range]`, or any other word with a $."""
    return tuple(dict.fromkeys(_PLACEHOLDER.findall(_unquoted(query))))


def unbalanced(query: str) -> str:
    """The bracket or quote of an expression that has no counterpart; "" where each has its own."""
    shown, waiting = _unquoted(query), list[str]()
    for char, original in zip(shown, query, strict=True):
        if char in "([{":
            waiting.append(char)
        elif char in ")]}" and (not waiting or waiting.pop() + char not in {"()", "[]", "{}"}):
            return original
    if waiting:
        return waiting[-1]
    return _open_quote(query)


def matchers(labels: dict[str, str]) -> str:
    """The inside of a selector's braces for labels that must be equal, with their values escaped."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(labels.items()))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _unquoted(query: str) -> str:
    """The expression with strings and comments hidden, of the same length."""
    return _read(query)[0]


def _open_quote(query: str) -> str:
    """The quote of a string that has no end."""
    return _read(query)[1].strip("#")


def _read(query: str) -> tuple[str, str]:
    """The expression with strings and comments hidden, and what is still open at its end: a quote, # or nothing."""
    shown, quote, at = list(query), "", 0
    while at < len(query):
        char = query[at]
        if quote:
            shown[at] = _HIDDEN
            if char == "\\" and quote not in "`#":
                shown[at : at + 2] = _HIDDEN * len(query[at : at + 2])
                at += 1
            elif char == quote or (quote == "#" and char == "\n"):
                quote = ""
        elif char in "\"'`#":
            quote, shown[at] = char, _HIDDEN
        at += 1
    return "".join(shown), quote


def _outermost(query: str) -> str:
    """The expression with strings and all that is inside brackets hidden, of the same length."""
    depth, shown = 0, []
    for char in _unquoted(query):
        depth -= char in ")}]"
        shown.append(char if depth == 0 else _HIDDEN)
        depth += char in "({["
    return "".join(shown)
