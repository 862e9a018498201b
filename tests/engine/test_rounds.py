"""Rounds that fail half-way, clocks that are compared again, and what is told of a Prometheus that forgot."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.core.alerting import Transition
from harness.core.clock import Bounds, Instant
from harness.core.errors import Unreachable
from harness.core.event import AlertTransition, ClockCompared, SignalRead
from harness.core.experiment import ExpectedAlert
from harness.engine.observe import AGE, ClockRound, PrometheusRound, compared, rule_of, scraped, untold
from harness.ports.metrics import Rule, Series
from tests.fakes.drill import Drill, set_limit
from tests.fakes.world import FakeMetrics


def broken(drill: Drill) -> None:
    """A world whose alert fires."""
    set_limit(drill.world, "64Mi")
    drill.world.run_for(60.0)


class Cut(FakeMetrics):
    """Prometheus that goes away in the middle of a round, as often as told."""

    cuts = 0

    def grid(self, query: str, start: Instant, end: Instant, step: float) -> list[Series]:
        if self.cuts:
            self.cuts -= 1
            raise Unreachable("gone", "no answer", expected="an answer", remedy="start it")
        return super().grid(query, start, end, step)


def round_of(drill: Drill, metrics: FakeMetrics) -> PrometheusRound:
    now = drill.world.clock.now()
    return PrometheusRound(metrics, drill.experiment, metrics.offset(), 1.0, now, metrics.started_at())


def test_a_round_that_fails_half_way_forgets_nothing() -> None:
    drill = Drill()
    metrics = Cut(drill.world)
    round_ = round_of(drill, metrics)
    round_.look(drill.world.clock.now())
    broken(drill)
    metrics.cuts = 1
    with pytest.raises(Unreachable):
        round_.look(drill.world.clock.now())
    events, _ = round_.look(drill.world.clock.now())
    assert [event.to for event in events if isinstance(event, AlertTransition)] == ["pending", "firing"]
    again, _ = round_.look(drill.world.clock.now())
    assert [event for event in again if isinstance(event, AlertTransition)] == []


def test_a_round_in_which_the_clock_was_set_tells_that_and_its_data_later() -> None:
    drill = Drill()
    metrics = FakeMetrics(drill.world)
    round_ = round_of(drill, metrics)
    broken(drill)
    metrics.offset_bounds = Bounds(earliest=4.999, latest=5.001)
    events, due = round_.look(drill.world.clock.now())
    assert [type(event) for event in events] == [ClockCompared]
    assert due == drill.world.clock.now()
    events, _ = round_.look(due)
    assert {type(event) for event in events} >= {SignalRead, AlertTransition}


def test_comparisons_that_agree_are_not_told_and_drift_widens_the_bounds() -> None:
    known = Bounds(earliest=-0.01, latest=0.01)
    assert compared("p", known, Bounds(earliest=0.0, latest=0.5), "m") == (known, [])
    wider, (told,) = compared("p", known, Bounds(earliest=0.05, latest=0.06), "m")
    assert wider == Bounds(earliest=-0.01, latest=0.06)
    assert isinstance(told, ClockCompared)
    assert told.offset == wider
    later = Bounds(earliest=3.0, latest=3.1)
    assert compared("p", known, later, "m")[0] == later


def test_a_clock_is_compared_again_after_a_pause() -> None:
    answers = [Bounds.at(0.0), Bounds.at(2.0)]
    round_ = ClockRound("API server", lambda: answers.pop(0), Bounds.at(0.0), "m", every=10.0)
    assert round_.look(100.0) == ([], 110.0)
    assert round_.look(110.0) == ([], 120.0)
    events, _ = round_.look(120.0)
    assert [type(event) for event in events] == [ClockCompared]
    assert round_.name == "clock of API server"


def test_of_a_prometheus_that_forgot_only_what_is_later_is_new() -> None:
    def change(to: str, at: float) -> Transition:
        return Transition(to, Bounds.at(at), {})  # type: ignore[arg-type]

    told = [change("pending", 1.0), change("firing", 3.0)]
    assert untold(told, [*told, change("resolved", 9.0)]) == [change("resolved", 9.0)]
    anew = [change("firing", 12.0), change("resolved", 20.0)]
    assert untold(told, anew) == anew
    assert untold(told, [change("firing", 3.0)]) == []
    assert untold([], told) == told


class Scrapes(FakeMetrics):
    """Prometheus that scraped at these instants."""

    at: Sequence[float] = ()

    def grid(self, query: str, start: Instant, end: Instant, step: float) -> list[Series]:
        assert query == AGE
        points = [start + i * step for i in range(round((end - start) / step) + 1)]
        ages = tuple((p, p - max(s for s in self.at if s <= p)) for p in points if any(s <= p for s in self.at))
        return [Series({}, ages)]


@pytest.mark.parametrize(
    ("at", "fresh", "unsure_from"),
    [
        ([0.3, 1.3, 2.3, 3.3, 4.3, 5.3], {1, 2, 3, 4, 5, 6}, 7), ([0.3, 1.3, 3.7, 4.7, 5.7], {1, 2, 3, 4, 5, 6}, 7),
        ([0.3, 1.3, 5.3], {1, 2, 6}, 7), ([0.3, 1.3, 2.3, 3.3, 4.3], {1, 2, 3, 4, 5}, 6), ([0.3], {1}, 7),
    ],
)  # fmt: skip
def test_a_late_scrape_is_no_gap_and_a_missing_one_is_not_judged_before_it_is_overdue(
    at: list[float], fresh: set[float], unsure_from: float
) -> None:
    metrics = Scrapes(Drill().world)
    metrics.at = at
    assert scraped(metrics, 1.0, 6.0, 1.0, 1.0) == (frozenset(fresh), unsure_from)


def test_the_rule_of_an_alert_is_the_one_that_its_labels_fit() -> None:
    def rule(**labels: str) -> Rule:
        return Rule("A", "g", "f", "q > 1", 0.0, 1.0, labels, {}, "ok", "", "inactive", None, ())

    alert = ExpectedAlert.model_validate({"name": "A", "within": "1m", "of": "injected", "labels": {"service": "api"}})
    other, own, plain = rule(service="other"), rule(service="api"), rule(team="x")
    assert rule_of(alert, [other]) is None
    assert rule_of(alert, [other, plain]) is plain
    assert rule_of(alert, [plain, own, other]) is own
    assert rule_of(alert, [rule(service="{{ $labels.job }}")]) is not None
