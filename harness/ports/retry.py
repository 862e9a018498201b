"""The one way in which a read is repeated.

Repeats end before a budget is spent, wait a random and growing time, honour Retry-After, and end at once when the
stop flag is set; the last error is what the caller sees. Writes are never repeated here: whoever writes knows whether
repeating is safe.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from threading import Event as Flag
from typing import TYPE_CHECKING, TypeVar

from harness.core.errors import Unreachable

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")
_CHANCE = Random()  # noqa: S311 - jitter, not secrecy
_SECONDS = re.compile(r"[0-9]{1,9}")
READ_BUDGET = 6.0
"""Seconds that a read and its repeats may take together before another attempt is not begun."""


class Transient(Unreachable):
    """A failure after which asking again makes sense; `retry_after` is the peer's own wish in seconds."""

    retry_after: float = 0.0


def seconds_wished(header: str | None) -> float:
    """The seconds in a Retry-After header; 0 where it says none (a date, or nothing that can be read)."""
    return float(header) if header and _SECONDS.fullmatch(header) else 0.0


def jitter(low: float, high: float) -> float:
    """A random number of `low` to `high`.

    It does not come from the generator that the whole process shares: whoever seeds that one (a fault of a third party,
    a test runner) would make every client come back at the same moment, and would be disturbed by each of our waits.
    """
    return _CHANCE.uniform(low, high)


def patiently(call: Callable[[], T], *, stop: Flag, budget: float = READ_BUDGET) -> T:
    """The result of `call`, repeated while it raises Transient. Raises what the last attempt raised."""
    from tenacity import (
        Retrying,
        retry_if_exception_type,
        sleep_using_event,
        stop_before_delay,
        stop_when_event_set,
        wait_exponential,
    )

    grow = wait_exponential(multiplier=0.2, max=2)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        wish = error.retry_after if isinstance(error, Transient) else 0.0
        return max(jitter(0.0, grow(state)), wish)

    retrying = Retrying(
        retry=retry_if_exception_type(Transient),
        stop=stop_before_delay(budget) | stop_when_event_set(stop),
        wait=wait,
        sleep=sleep_using_event(stop),
        reraise=True,
    )
    return retrying(call)
