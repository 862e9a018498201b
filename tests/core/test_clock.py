"""Bounds are honest intervals; stamps are instants with a zone."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.core.clock import Bounds, parse_utc, utc

numbers = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)


@st.composite
def bounds(draw: st.DrawFn) -> Bounds:
    a, b = draw(numbers), draw(numbers)
    return Bounds(earliest=min(a, b), latest=max(a, b))


@st.composite
def inside(draw: st.DrawFn, within: Bounds) -> float:
    return draw(st.floats(min_value=within.earliest, max_value=within.latest))


@given(st.data(), bounds(), bounds())
def test_the_duration_between_two_true_instants_lies_in_the_bounds(data: st.DataObject, a: Bounds, b: Bounds) -> None:
    true_a, true_b = data.draw(inside(a)), data.draw(inside(b))
    between = a.until(b)
    assert between.earliest <= true_b - true_a <= between.latest


@given(st.data(), bounds(), bounds())
def test_a_shifted_bound_holds_the_true_instant_on_our_clock(data: st.DataObject, theirs: Bounds, off: Bounds) -> None:
    stamp, offset = data.draw(inside(theirs)), data.draw(inside(off))
    ours = theirs.shifted(off)
    assert ours.earliest <= stamp - offset <= ours.latest
    assert ours.width == pytest.approx(theirs.width + off.width, abs=1e-6)


@given(st.data(), bounds(), st.none() | numbers, st.none() | numbers)
def test_clipping_keeps_what_agrees_and_never_turns_bounds_around(
    data: st.DataObject, bound: Bounds, low: float | None, high: float | None
) -> None:
    clipped = bound.clipped(not_before=low, not_after=high)
    true = data.draw(inside(bound))
    if (low is None or true >= low) and (high is None or true <= high):
        assert clipped.earliest <= true <= clipped.latest
    assert clipped.width <= bound.width


def test_contradicting_knowledge_wins_as_a_point() -> None:
    assert Bounds(earliest=1, latest=5).clipped(not_before=10) == Bounds.at(10)
    assert Bounds(earliest=5, latest=8).clipped(not_after=3) == Bounds.at(3)


@pytest.mark.parametrize(("earliest", "latest"), [(2.0, 1.0), (math.nan, 1.0), (1.0, math.nan)])
def test_bounds_that_bound_nothing_are_refused(earliest: float, latest: float) -> None:
    with pytest.raises(ValidationError):
        Bounds(earliest=earliest, latest=latest)


@given(st.integers(min_value=0, max_value=4_000_000_000_000))
def test_a_stamp_survives_to_the_millisecond(milliseconds: int) -> None:
    assert parse_utc(utc(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, abs=1e-4)


def test_stamps_as_others_write_them() -> None:
    assert parse_utc("2026-11-22T09:15:00Z") == parse_utc("2026-11-22T10:15:00+01:00")
    assert utc(parse_utc("2026-11-22T09:15:00.250123456Z")) == "2026-11-22T09:15:00.250Z"
    for text in ("2026-11-22T09:15:00", "yesterday", ""):
        with pytest.raises(ValueError):  # noqa: PT011 - fromisoformat's own words differ by version
            parse_utc(text)
