"""When a game day may be held, and what is drilled in it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.core.gameday import GameDay, Gate, announcement, incidents, is_url, next_opening, pick, why_not

BERLIN = ZoneInfo("Europe/Berlin")
WINDOW = {"days": ["tue", "wed", "thu"], "from": "10:00", "until": "15:30"}


def day(**more: Any) -> GameDay:
    given = {"experiments": ["a", "b", "c"], "time_zone": "Europe/Berlin", "window": WINDOW}
    return GameDay.model_validate({**given, **more})


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


@pytest.mark.parametrize(
    ("moment", "open_"),
    [
        ("2026-11-24T10:00", True), ("2026-11-24T09:59", False), ("2026-11-24T15:29", True),
        ("2026-11-24T15:30", False), ("2026-11-23T12:00", False), ("2026-11-28T12:00", False),
        ("2026-07-21T10:00", True),  # summer time: the same hour of the local clock
    ],
)  # fmt: skip
def test_the_window_is_of_the_local_clock(moment: str, *, open_: bool) -> None:
    assert (why_not(day(), at(moment)) == "") is open_


def test_a_holiday_is_no_game_day_and_says_its_name() -> None:
    christmas = day(holidays=[{"date": "2026-12-24", "name": "Christmas Eve"}])
    assert why_not(christmas, at("2026-12-24T12:00")) == "2026-12-24 is Christmas Eve"
    assert why_not(christmas, at("2026-12-23T12:00")) == ""


def test_the_reason_names_the_hour_the_day_and_the_window() -> None:
    assert why_not(day(), at("2026-11-27T16:05")) == (
        "it is 16:05 on fri in Europe/Berlin, and drills begin tue, wed, thu from 10:00 to 15:30"
    )


def test_without_a_window_any_time_will_do() -> None:
    assert why_not(day(window=None), at("2026-11-28T03:00")) == ""


def test_the_next_opening_skips_what_is_closed() -> None:
    holidays = [{"date": "2026-12-01", "name": "x"}, {"date": "2026-12-02", "name": "y"}]
    assert next_opening(day(holidays=holidays), at("2026-11-26T16:00")) == at("2026-12-03T10:00")
    assert next_opening(day(), at("2026-11-26T12:00")) == at("2026-11-26T12:00"), "it is open"


@given(st.floats(min_value=1.75e9, max_value=1.85e9))
def test_an_opening_is_open_and_nothing_before_it_is(now: float) -> None:
    opening = next_opening(day(), now)
    assert opening is not None
    assert opening >= now
    assert why_not(day(), opening) == ""
    assert all(why_not(day(), now + (opening - now) * part / 7) for part in range(7) if opening > now)


def test_a_calendar_that_never_opens_says_so() -> None:
    every = [{"date": f"2027-{month:02}-{number:02}", "name": "x"} for month in range(1, 13) for number in range(1, 29)]
    shut = day(window={"days": ["mon"], "from": "10:00", "until": "11:00"}, holidays=every)
    assert next_opening(shut, at("2027-03-29T12:00")) is not None, "the last days of months are left"


def test_what_was_drilled_longest_ago_comes_first_and_what_never_was_before_all() -> None:
    assert pick(day(), {"a": 5.0, "b": 3.0, "c": 9.0}) == "b"
    assert pick(day(), {"a": 5.0, "c": 9.0}) == "b"
    assert pick(day(), {}) == "a"
    assert pick(day(), {"z": 1.0, "a": 2.0, "b": 2.0, "c": 1.0}) == "c"


def test_a_draw_can_be_repeated_and_reaches_all() -> None:
    assert pick(day(), {}, seed=7, how="random") == pick(day(), {}, seed=7, how="random")
    assert {pick(day(pick="random"), {}, seed=seed) for seed in range(40)} == {"a", "b", "c"}


def test_people_are_told_what_when_where_and_how_to_call_it_off() -> None:
    told = announcement("a", "Morning rush", "shop", at("2026-11-24T10:00"), "Europe/Berlin", "people respond")
    assert told == (
        "This is a drill announcement. At Tuesday, 10:00 Europe/Berlin (09:00 UTC) the drill “Morning rush” (a) begins "
        "in namespace shop; people respond. It breaks that namespace for real and puts it back afterwards. To call it "
        "off: drill halt REASON"
    )


def test_only_severe_alerts_are_incidents() -> None:
    firing = [("B", "page"), ("A", "critical"), ("C", "warning"), ("D", ""), ("B", "page")]
    assert incidents(firing, Gate()) == ["A", "B"]
    assert incidents(firing, Gate(severities=("warning",))) == ["C"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_zone": "Middle/Earth"}, "is no time zone"), ({"time_zone": "../../etc/passwd"}, "is no time zone"),
        ({"window": {**WINDOW, "until": "09:00"}}, "a window ends after it begins"),
        ({"window": {**WINDOW, "from": "25:00"}}, "pattern"), ({"experiments": []}, "at least 1"),
        ({"experiments": ["a", "a"]}, "named twice"), ({"holidays": [{"date": "2026-02-30", "name": "x"}]}, "no day"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        day(**change)


@pytest.mark.parametrize(("text", "is_one"), [("https://x.example/a?b", True), ("x", False), ("http://a b", False)])
def test_a_webhook_is_one_url(text: str, *, is_one: bool) -> None:
    assert is_url(f"{text}\n") is is_one
