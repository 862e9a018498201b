"""What peers send: read within a size and a time, and parsed without trusting its shape.

A peer that breaks, or somebody who stands where it should, can send an answer without end, a drop at a time, or
nested so deep that a parser falls over. All of that is an answer that cannot be read, and nothing worse.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

PEER_BYTES = 16 * 1024 * 1024
"""The longest answer of Prometheus, Alertmanager or the pager that is read."""
API_BYTES = 64 * 1024 * 1024
"""The longest answer of the API server that is read: the pods of a large namespace are some MiB."""
LINE_BYTES = 8 * 1024 * 1024
"""The longest line of a watch that is read: one object, of which the API server itself takes 3 MiB at most."""
WHOLE = 30.0
"""Seconds that an answer's body may take altogether, however steadily it drips."""
IDENTITY = "identity"
"""The only encoding that is asked for and taken: what is packed can unpack to anything."""


class TooMuch(ValueError):
    """An answer that is too long, takes too long, or came packed although that was not asked for."""


def gathered(
    chunks: Iterable[bytes],
    *,
    encoding: str | None,
    most: int,
    within: float = WHOLE,
    monotonic: Callable[[], float] = time.monotonic,
) -> bytes:
    """The whole of a body that comes in chunks; `encoding` is its Content-Encoding. Raises TooMuch."""
    if encoding and encoding.strip().lower() != IDENTITY:
        raise TooMuch(f"a packed answer ({encoding[:40]}), which was not asked for")
    due, found, size = monotonic() + within, [], 0
    for chunk in chunks:
        size += len(chunk)
        if size > most:
            raise TooMuch(f"an answer of more than {most // 1024 // 1024} MiB")
        if monotonic() > due:
            raise TooMuch(f"no whole answer within {within:.0f} s")
        found.append(chunk)
    return b"".join(found)


def parsed(body: bytes) -> Any:
    """The JSON in a body. Half a surrogate pair, which no text can hold, becomes U+FFFD. Raises ValueError where it is
    not JSON, is not UTF-8, or is nested deeper than can be read."""
    text = body.decode()
    try:
        value = json.loads(text, parse_constant=_no_constant)
        return _whole(value) if "\\ud" in text or "\\uD" in text else value
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return value
