"""Fields of any object by their path, as people write it: `status.conditions[type=AllInjected].status`.

A step is a member's name; `[key=value]` after it picks the first item of a list whose member `key` is `value`, `[n]`
the item of that number. There is no more to it: whoever needs a query has Prometheus.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator

_STEP = re.compile(r"([A-Za-z0-9_-]+)((?:\[(?:[0-9]{1,4}|[A-Za-z0-9_-]+=[^\[\]=]{1,80})\])*)")
_PICK = re.compile(r"\[([^\]]*)\]")
_LONGEST = 300


def _path(text: str) -> str:
    steps(text)
    return text


FieldPath = Annotated[str, AfterValidator(_path)]
"""The path of a field of an object."""


def steps(text: str) -> tuple[str | int | tuple[str, str], ...]:
    """The steps of a path: a name, an item's number, or an item's (key, value). Raises ValueError where it is none."""
    found: list[str | int | tuple[str, str]] = []
    for part in text.split(".") if len(text) <= _LONGEST else ("",):
        match = _STEP.fullmatch(part)
        if match is None:
            raise ValueError(
                f"{text[:60]!r} is not the path of a field; write for example status.phase or "
                "status.conditions[type=Ready].status"
            )
        found.append(match[1])
        for pick in _PICK.findall(match[2]):
            key, equals, value = pick.partition("=")
            found.append((key, value) if equals else int(key))
    return tuple(found)


def value_at(body: Any, text: str) -> Any:
    """What an object holds at a path; None where there is nothing."""
    at = body
    for step in steps(text):
        if isinstance(step, str):
            at = at.get(step) if isinstance(at, dict) else None
        elif not isinstance(at, list):
            return None
        elif isinstance(step, int):
            at = at[step] if step < len(at) else None
        else:
            key, value = step
            at = next((one for one in at if isinstance(one, dict) and str(one.get(key)) == value), None)
    return at
