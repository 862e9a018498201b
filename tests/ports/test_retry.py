"""How long a read waits before it is repeated."""

from __future__ import annotations

import random
from threading import Event as Flag

import pytest

from harness.ports.retry import Transient, jitter, patiently


class Watched(Flag):
    """A stop flag that notes how long it was waited on, and waits for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return False


def waits(times: int, wish: float = 0.0) -> list[float]:
    """The waits of a call that fails so often, in seconds."""
    stop = Watched()

    def call() -> str:
        if len(stop.waits) == times:
            return "read"
        error = Transient("unreachable", "no answer", expected="one", remedy="wait")
        error.retry_after = wish
        raise error

    assert patiently(call, stop=stop, budget=60.0) == "read"
    return stop.waits


def test_each_wait_is_below_a_bound_that_doubles_to_two_seconds() -> None:
    many = [waits(6) for _ in range(200)]
    highest = [max(waited[turn] for waited in many) for turn in range(6)]
    for high, bound in zip(highest, [0.2, 0.4, 0.8, 1.6, 2.0, 2.0], strict=True):
        assert bound / 2 < high <= bound
    assert min(waited[5] for waited in many) < 0.5, "full jitter begins at nothing"


def test_what_the_peer_wishes_is_waited_for() -> None:
    assert waits(2, wish=5.0) == [5.0, 5.0]


def test_the_generator_of_the_process_is_neither_read_nor_moved() -> None:
    random.seed(1)  # noqa: TID251 - what others may do
    before = random.getstate()
    first = waits(6)
    assert random.getstate() == before
    random.seed(1)  # noqa: TID251 - what others may do
    assert waits(6) != first


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (0.5, 1.0)])
def test_jitter_lies_between_its_bounds(low: float, high: float) -> None:
    assert all(low <= jitter(low, high) <= high for _ in range(100))
