"""Transitions from raw ALERTS samples and the group's evaluations."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.alerting import AlertSeries, Transition, transitions
from harness.core.clock import Bounds

State = Literal["pending", "firing"]


def seen(*states: tuple[State, list[float]], evaluated: float | None = None, interval: float = 1.0) -> list[Transition]:
    series = [AlertSeries(state, {"a": "b"}, tuple(stamps)) for state, stamps in states]
    return transitions(series, interval=interval, since=0.0, evaluated=evaluated)


def test_firing_is_its_first_evaluation_and_resolved_the_first_after_its_last() -> None:
    told = seen(("pending", [10, 11]), ("firing", [12, 13, 14]), evaluated=15.002)
    assert [(one.to, one.at, one.missed) for one in told] == [
        ("pending", Bounds.at(10), 0), ("firing", Bounds.at(12), 0), ("resolved", Bounds.at(15), 0),
    ]  # fmt: skip


@pytest.mark.parametrize("evaluated", [13.9, 14.0, 14.002, 14.7, 14.99])
def test_an_evaluation_that_began_late_or_is_not_done_resolves_nothing(evaluated: float) -> None:
    assert [one.to for one in seen(("firing", [12, 13, 14]), evaluated=evaluated)] == ["firing"]


def test_evaluations_that_are_missing_before_a_firing_are_counted() -> None:
    pending, firing = seen(("pending", [10]), ("firing", [14, 15]))
    assert (pending.to, firing.to, firing.at, firing.missed) == ("pending", "firing", Bounds(earliest=10, latest=14), 3)


def test_a_resolution_among_evaluations_nobody_saw_has_bounds() -> None:
    (_, resolved) = seen(("firing", [12, 13]), evaluated=17.3)
    assert resolved.at == Bounds(earliest=14, latest=17)


@given(
    count=st.integers(1, 30), interval=st.sampled_from([1.0, 5.0, 15.0]), late=st.floats(0.0, 0.99),
    after=st.integers(-1, 5),
)  # fmt: skip
def test_a_resolution_is_never_told_of_an_evaluation_that_fired(
    count: int, interval: float, late: float, after: int
) -> None:
    stamps = [100.0 + i * interval for i in range(count)]
    evaluated = stamps[-1] + after * interval + late * interval
    told = seen(("firing", stamps), evaluated=evaluated, interval=interval)
    assert ("resolved" in [one.to for one in told]) is (after >= 1)
    for one in told:
        if one.to == "resolved":
            assert stamps[-1] < one.at.earliest <= one.at.latest <= evaluated + 0.01 * interval
