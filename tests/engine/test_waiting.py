"""What a game day waits for, on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from harness.core.errors import Refused, Unreachable
from harness.core.gameday import GameDay
from harness.engine import announcements
from harness.engine.waiting import NotToday, wait_for_start
from tests.fakes.cluster import FakeCluster
from tests.fakes.world import VirtualClock

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=ZoneInfo("UTC")).timestamp()
WINDOW = {"days": ["tue"], "from": "10:00", "until": "14:00"}


@dataclass
class Waited:
    """One wait, with a world in which alerts fire between instants."""

    fires: Callable[[float], list[tuple[str, str]]] = lambda _: []
    halted: Callable[[float], str] = lambda _: ""
    stopped_after: float = float("inf")
    start: float = NOON
    more: dict[str, Any] = field(default_factory=dict)
    told: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def go(self) -> float:
        """Wait; how many seconds it took."""
        clock = VirtualClock(self.start)
        day = GameDay.model_validate({"experiments": ["a"], "window": WINDOW, **self.more})

        def wait(seconds: float) -> bool:
            clock.advance(seconds)
            return clock.now() - self.start < self.stopped_after

        wait_for_start(
            day, clock, wait, firing=lambda: self.fires(clock.now() - self.start),
            halted=lambda: self.halted(clock.now() - self.start), tell=self.told.append, say=self.said.append,
        )  # fmt: skip
        return clock.now() - self.start


def page(since: float, until: float, severity: str = "page") -> Callable[[float], list[tuple[str, str]]]:
    return lambda at: [("DiskFull", severity)] if since <= at < until else []


def test_people_are_told_and_have_ten_minutes() -> None:
    waited = Waited()
    assert waited.go() == 600.0
    assert waited.told == [NOON + 600.0]


def test_outside_of_the_calendar_nobody_is_told() -> None:
    waited = Waited(start=NOON + 3 * 3600)
    with pytest.raises(NotToday, match=r"it is 15:00 on tue in UTC, .*; the next time is 2026-12-01T10:00"):
        waited.go()
    assert waited.told == []


def test_a_drill_whose_announced_time_leaves_the_window_is_not_begun() -> None:
    with pytest.raises(NotToday):
        Waited(start=NOON + 2 * 3600 - 300).go()


def test_a_real_incident_goes_first() -> None:
    waited = Waited(fires=page(0, 200))
    assert waited.go() == 240.0 + 600.0
    assert waited.said[0] == "a real incident goes first: DiskFull; looking again every 1m"
    assert len(waited.told) == 1


def test_one_that_begins_after_the_announcement_goes_first_as_well() -> None:
    waited = Waited(fires=page(100, 900))
    assert waited.go() == 900.0 + 600.0, "and people are told of the new hour"
    assert waited.told == [NOON + 600.0, NOON + 1500.0]


def test_while_prometheus_does_not_answer_nobody_knows_of_no_incident() -> None:
    def silent(at: float) -> list[tuple[str, str]]:
        if at < 200:
            raise Unreachable("silent", "Prometheus does not answer", expected="an answer", remedy="start it")
        return []

    waited = Waited(fires=silent)
    assert waited.go() == 240.0 + 600.0
    assert waited.said[0].startswith("a real incident goes first: Prometheus does not answer")

    def never(_: float) -> list[tuple[str, str]]:
        return silent(0.0)

    with pytest.raises(Unreachable):
        Waited(fires=never, more={"window": None}).go()


def test_what_is_no_incident_holds_nothing_up() -> None:
    assert Waited(fires=page(0, 9e9, "warning")).go() == 600.0


def test_an_incident_that_stays_calls_it_off() -> None:
    waited = Waited(fires=page(0, 9e9), more={"window": None})
    with pytest.raises(Refused) as caught:
        waited.go()
    assert (caught.value.slug, waited.told) == ("incident-open", [])


def test_the_window_is_not_outwaited() -> None:
    with pytest.raises(NotToday):
        Waited(fires=page(0, 9e9), more={"gate": {"patience": 5 * 3600.0}}).go()


@pytest.mark.parametrize("since", [0.0, 300.0])
def test_whoever_halts_drills_calls_it_off(since: float) -> None:
    with pytest.raises(Refused) as caught:
        Waited(halted=lambda at: "a release" if at >= since else "").go()
    assert caught.value.slug == "called-off"
    assert "a release" in caught.value.fact


def test_a_stop_ends_the_wait() -> None:
    with pytest.raises(Refused) as caught:
        Waited(stopped_after=100.0).go()
    assert caught.value.slug == "interrupted"


def shop() -> FakeCluster:
    cluster = FakeCluster(lambda: NOON)
    cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    return cluster


def test_an_announcement_replaces_the_one_before_and_can_be_taken_away() -> None:
    cluster = shop()
    announcements.announce(cluster, "shop", NOON + 60, "first")
    second = announcements.announce(cluster, "shop", NOON + 120, "second")
    assert [one.text for one in announcements.read(cluster, "shop")] == ["second"]
    assert announcements.withdraw(cluster, "shop", second) == ""
    assert announcements.read(cluster, "shop") == []
    assert announcements.withdraw(cluster, "shop", second) == "", "gone already"


def test_what_strangers_label_as_an_announcement_is_left_out() -> None:
    cluster = shop()
    labels = {announcements.LABEL: "true"}
    cluster.put({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"at": "soon"},
        "metadata": {"name": "x", "namespace": "shop", "labels": labels},
    })  # fmt: skip
    assert announcements.read(cluster, "shop") == []
