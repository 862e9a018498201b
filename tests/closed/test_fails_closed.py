"""Prometheus lost, lying, forgetting or late: whatever it does in the middle of a drill, nothing is MET without data.

Every scenario is the control with one disturbance. Prometheus, the time and the engine are real.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from harness.core.clock import Bounds
from harness.core.errors import ExitCode, Refused
from harness.core.event import ChannelChanged, ClockCompared
from harness.ports.metrics import Notification, NotifierAlert
from tests.closed.conftest import Drills
from tests.closed.drill import (
    ALERT,
    Drill,
    Over,
    Ran,
    Scenario,
    When,
    experiment,
    fired,
    injected,
    pending,
    recovering,
)
from tests.closed.peers import FOREIGN

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("closed")]
Act = Callable[[Drill], None]
RATE = {"recovered": {"query": "max(rate(closed_errors_total[3s]))", "below": 10, "for": "3s"}}
PATIENT = {
    "alerts": [{"name": ALERT, "within": "15s", "of": "flip.effective"}],
    "profiles": {"smoke": {"timeout": "20s", "responder": "human"}},
}


def then(when: When, *acts: Act) -> Act:
    """A script: once something happened, do this, in order."""

    def script(drill: Drill) -> None:
        drill.until(when)
        for act in acts:
            act(drill)

    return script


def kill(drill: Drill) -> None:
    drill.prometheus.kill()


def freeze(drill: Drill) -> None:
    drill.prometheus.freeze()


def freeze_for(seconds: float) -> Act:
    def act(drill: Drill) -> None:
        drill.prometheus.freeze()
        with contextlib.suppress(Over):
            drill.pause(seconds)
        drill.prometheus.resume()

    return act


def restart(drill: Drill) -> None:
    drill.prometheus.kill()
    drill.prometheus.start()


def restart_with_nothing(drill: Drill) -> None:
    drill.prometheus.kill()
    drill.prometheus.forget()
    drill.prometheus.start()


def serve(**state: Any) -> Act:
    """Let the exporter serve something else from now on."""

    def act(drill: Drill) -> None:
        for name, value in state.items():
            setattr(drill.exporter, name, value)

    return act


def hang(drill: Drill) -> None:
    drill.exporter.hang()


def crash_loop(drill: Drill) -> None:
    drill.exporter.crash()


def set_clock(offset: float) -> Act:
    def act(drill: Drill) -> None:
        assert drill.skewed is not None
        drill.skewed.offset = offset

    return act


def set_api_clock(offset: float) -> Act:
    def act(drill: Drill) -> None:
        drill.api_offset = offset

    return act


def never_met(ran: Ran) -> None:
    assert ran.judgement.exit_code is not ExitCode.MET, ran


# The control

CONTROLS = [
    Scenario("control"),
    Scenario("five seconds ahead", offset=5.0),
    Scenario("five seconds behind", offset=-5.0),
    Scenario("control of a rate", changes=RATE),
]


@pytest.mark.parametrize("scenario", CONTROLS, ids=str)
def test_without_a_disturbance_the_drill_is_met(ran: Ran, scenario: Scenario) -> None:
    assert ran.judgement.exit_code is ExitCode.MET, ran
    rows = [*ran.judgement.slas, *ran.judgement.alerts]
    assert {row.verdict for row in rows} == {"MET"}, ran
    assert ran.guard[0] == "MET", ran
    assert ran.history.all(ChannelChanged) == []
    if scenario.offset is not None:
        (known,) = [event.offset for event in ran.history.all(ClockCompared) if event.peer == "Prometheus"]
        assert known.gap(Bounds.at(scenario.offset)) < 0.1
        assert known.width < 0.5
    for row in rows:
        assert row.duration is not None
        assert 0.0 <= row.duration.latest <= row.sla.within


# Prometheus is not there

GONE = [
    Scenario("killed before the firing", then(injected, kill)),
    Scenario("frozen before the firing", then(injected, freeze)),
]


@pytest.mark.parametrize("scenario", GONE, ids=str)
def test_prometheus_gone_before_the_firing_leaves_everything_undecided(ran: Ran, scenario: Scenario) -> None:
    never_met(ran)
    for verdict, reason in (ran.alert, ran.sla("acknowledged"), ran.sla("recovered"), ran.sla("resolved")):
        assert verdict == "UNDECIDED", ran
        assert "could not be seen: Prometheus was lost (" in reason
    assert ran.guard[0] == "UNDECIDED"


GONE_LATER = [
    Scenario("killed after the firing", then(fired, kill)),
    Scenario("frozen after the firing", then(fired, freeze)),
    Scenario("killed in the recovery", then(recovering, kill)),
    Scenario("frozen in the recovery", then(recovering, freeze)),
]


@pytest.mark.parametrize("scenario", GONE_LATER, ids=str)
def test_prometheus_gone_after_the_firing_leaves_the_recovery_undecided(ran: Ran, scenario: Scenario) -> None:
    never_met(ran)
    assert ran.sla("acknowledged") == ("MET", ""), "the firing was known already"
    verdict, reason = ran.sla("recovered")
    assert (verdict, "Prometheus was lost (" in reason) == ("UNDECIDED", True), ran
    verdict, reason = ran.guard
    assert (verdict, "Prometheus was lost (" in reason) == ("UNDECIDED", True), ran


STOOD_STILL = [
    Scenario("stood still while pending", then(pending, freeze_for(4.0))),
    Scenario("stood still in the recovery", then(recovering, freeze_for(9.0))),
]


@pytest.mark.parametrize("scenario", STOOD_STILL, ids=str)
def test_prometheus_that_stood_still_leaves_what_it_missed_undecided(ran: Ran, scenario: Scenario) -> None:
    never_met(ran)
    verdict, reason = ran.guard
    assert verdict == "UNDECIDED", ran
    assert "Prometheus did not scrape" in reason or "Prometheus was lost" in reason, ran
    if "pending" in scenario.name:
        for row in (ran.alert, ran.sla("acknowledged"), ran.sla("recovered")):
            assert row[0] == "UNDECIDED", ran
            assert "evaluations of its rule were missed before it" in row[1]
    else:
        assert ran.sla("acknowledged") == ("MET", "")
        verdict, reason = ran.sla("recovered")
        assert verdict == "UNDECIDED", ran
        assert "no data for recovered" in reason or "Prometheus was lost" in reason, ran


# Prometheus is there, and its data is not

UNHEARD = [
    (Scenario("no series after the firing", then(fired, serve(depth=None))), "the query answers nothing"),
    (Scenario("no number after the firing", then(fired, serve(depth=float("nan")))), "not a finite number"),
    (Scenario("target down after the firing", then(fired, serve(status=503))), "the query answers nothing"),
    (Scenario("target hangs after the firing", then(fired, hang)), "the query answers nothing"),
]


@pytest.mark.parametrize(("scenario", "why"), UNHEARD, ids=str)
def test_a_recovery_without_data_is_undecided_and_so_is_the_resolution(ran: Ran, scenario: Scenario, why: str) -> None:
    never_met(ran)
    assert ran.sla("acknowledged") == ("MET", "")
    verdict, reason = ran.sla("recovered")
    assert (verdict, why in reason) == ("UNDECIDED", True), ran
    # Prometheus itself resolves an alert whose data is gone.
    verdict, reason = ran.sla("resolved")
    assert (verdict, "its rule had nothing to look at then" in reason) == ("UNDECIDED", True), ran
    if "target" in scenario.name:
        assert ran.guard[0] == "UNDECIDED", ran
        assert "the query answers nothing" in ran.guard[1]


SPEECHLESS = [
    Scenario("no series before the firing", then(injected, serve(depth=None))),
    Scenario("no number before the firing", then(injected, serve(depth=float("nan")))),
    Scenario("target down before the firing", then(injected, serve(status=503))),
]


@pytest.mark.parametrize("scenario", SPEECHLESS, ids=str)
def test_an_alert_without_data_that_did_not_fire_is_undecided(ran: Ran, scenario: Scenario) -> None:
    never_met(ran)
    words = f"the rule of {ALERT} had nothing to look at (no value for max(closed_depth))"
    assert ran.alert == ("UNDECIDED", f"could not be seen: {words}"), ran
    for end in ("acknowledged", "recovered"):
        assert ran.sla(end) == ("UNDECIDED", f"firing could not be seen: {words}")


RESET = [Scenario("crash loop in the recovery", then(recovering, crash_loop), changes=RATE)]


@pytest.mark.parametrize("scenario", RESET, ids=str)
def test_a_rate_across_a_counter_reset_is_no_data(ran: Ran, scenario: Scenario) -> None:
    never_met(ran)
    verdict, reason = ran.sla("recovered")
    assert (verdict, "a counter was reset within closed_errors_total[3s]" in reason) == ("UNDECIDED", True), ran


# Prometheus is another

RESTARTED = [
    Scenario("restarted while pending", then(pending, restart)),
    Scenario("restarted after the firing", then(fired, restart)),
    Scenario("restarted with nothing while pending", then(pending, restart_with_nothing), changes=PATIENT),
    Scenario("restarted with nothing after the firing", then(fired, restart_with_nothing)),
]


@pytest.mark.parametrize("scenario", RESTARTED, ids=str)
def test_nothing_is_met_across_a_restart_of_prometheus(ran: Ran, scenario: Scenario) -> None:
    never_met(ran)
    for row in (ran.alert, ran.sla("acknowledged"), ran.sla("recovered"), ran.sla("resolved")):
        assert row[0] == "UNDECIDED", ran
        assert "Prometheus restarted during the run" in row[1]
    assert ran.guard[0] == "UNDECIDED", ran


# Rules that are not evaluated

OVERLOADED = [
    Scenario("a group slower than its interval", then(injected, serve(slow=3.3)), changes=PATIENT),
]


@pytest.mark.parametrize("scenario", OVERLOADED, ids=str)
def test_a_firing_among_missed_evaluations_is_undecided(ran: Ran, scenario: Scenario) -> None:
    never_met(ran)
    for row in (ran.alert, ran.sla("acknowledged"), ran.sla("recovered")):
        assert row[0] == "UNDECIDED", ran
        assert "missed before it" in row[1] or "not evaluated for" in row[1]


STUCK = [Scenario("a group that hangs", then(injected, serve(slow=60.0)))]


@pytest.mark.parametrize("scenario", STUCK, ids=str)
def test_an_alert_whose_rule_is_not_evaluated_is_undecided(ran: Ran, scenario: Scenario) -> None:
    never_met(ran)
    for row in (ran.alert, ran.sla("acknowledged"), ran.sla("recovered")):
        assert row[0] == "UNDECIDED", ran
        assert f"rule of {ALERT} was lost (not evaluated for" in row[1]
        assert "it is due every 1 s" in row[1]


# Clocks

SET = [
    Scenario("clock set back", then(recovering, set_clock(-20.0)), offset=0.0),
    Scenario("clock set forward", then(recovering, set_clock(20.0)), offset=0.0),
]


@pytest.mark.parametrize("scenario", SET, ids=str)
def test_a_clock_of_prometheus_that_is_set_leaves_later_times_undecided(ran: Ran, scenario: Scenario) -> None:
    never_met(ran)
    assert ran.sla("acknowledged") == ("MET", ""), "it was told before, and vindicated"
    words = f"the clock of Prometheus was {scenario.name.removeprefix('clock ')} by 20 s meanwhile"
    verdict, reason = ran.sla("recovered")
    assert (verdict, words in reason) == ("UNDECIDED", True), ran
    assert ran.guard[0] == "UNDECIDED", ran


API = [Scenario("API server's clock set back", then(pending, set_api_clock(-2.0)))]


@pytest.mark.parametrize("scenario", API, ids=str)
def test_a_clock_of_the_api_server_that_is_set_leaves_acts_undecided(ran: Ran, scenario: Scenario) -> None:
    never_met(ran)
    verdict, reason = ran.sla("acknowledged")
    assert (verdict, "the clock of API server was set back by 2 s meanwhile" in reason) == ("UNDECIDED", True), ran
    assert ran.sla("recovered") == ("MET", "")


# Alerts of the same name

OWN = [{"name": ALERT, "within": "10s", "of": "flip.effective", "labels": {"service": "api"}}]
ODD = 'a"pi\\'
ODDLY = f"max(closed_depth{{service={ODD!r}}})"


def strangers_alert(drill: Drill) -> None:
    """Another system's alert of that name has long been firing, and pages again and again."""
    labels, at = {"alertname": ALERT, "service": "other"}, drill.clock.now() - 3600.0
    drill.notifier.held.append(NotifierAlert("f0", labels, at, at + 7200.0, "active", ()))


def strangers_page(drill: Drill) -> None:
    labels, at = {"alertname": ALERT, "service": "other"}, drill.clock.now()
    drill.pager.received.append(Notification(1, at, "pager", "firing", labels, at, "f0"))
    drill.pause(0.5)
    mine, at = {"alertname": ALERT, "service": "api"}, drill.clock.now()
    drill.pager.received.append(Notification(2, at, "pager", "firing", mine, at, "f1"))


def other_series(drill: Drill) -> None:
    drill.exporter.service = ODD
    drill.exporter.more = 'closed_depth{service="other"} 100\n'


def no_effect(drill: Drill) -> None:
    drill.has_effect = False


STRANGERS = [
    Scenario(
        "another rule of that name fires", then(fired, strangers_page), changes={"alerts": OWN}, more_rules=FOREIGN,
        prepare=strangers_alert,
    ),
    Scenario(
        "another series of that rule fires", expr="closed_depth > 50", labels="{severity: critical}",
        changes={
            "alerts": [{**OWN[0], "labels": {"service": ODD}}],
            "steady_state": [{"name": "short", "query": ODDLY, "below": 20, "for": "2s"}],
            "mitigated": {"query": ODDLY, "below": 60, "for": "1s"},
            "recovered": {"query": ODDLY, "below": 20, "for": "3s"},
        },
        prepare=other_series,
    ),
]  # fmt: skip


@pytest.mark.parametrize("scenario", STRANGERS, ids=str)
def test_a_strangers_alert_of_that_name_neither_counts_nor_refuses(ran: Ran, scenario: Scenario) -> None:
    assert ran.judgement.exit_code is ExitCode.MET, ran
    firing = ran.judgement.milestones["firing"]
    assert firing.at.earliest > ran.judgement.milestones["injected"].at.latest
    if scenario.more_rules:
        (paged,) = ran.judgement.milestones["paged"].evidence
        assert ran.history[paged].event.labels["service"] == "api"  # type: ignore[union-attr]


SILENT = [
    Scenario(
        "only the stranger's fires", changes={"alerts": OWN}, more_rules=FOREIGN, prepare=no_effect,
    )
]  # fmt: skip


@pytest.mark.parametrize("scenario", SILENT, ids=str)
def test_a_strangers_alert_does_not_stand_for_the_own(ran: Ran, scenario: Scenario) -> None:
    never_met(ran)
    assert ran.alert[0] == "MISSED", ran
    assert "never fired" in ran.alert[1]
    assert "firing" not in ran.judgement.milestones


UNTOLD = [Scenario("a stranger's without labels to tell it", more_rules=FOREIGN)]


@pytest.mark.parametrize("scenario", UNTOLD, ids=str)
def test_without_declared_labels_a_strangers_alert_refuses(scenario: Scenario, drills: Drills) -> None:
    with pytest.raises(Refused) as caught:
        drills[scenario.name].result()
    assert caught.value.slug == "alert-already-active"
    assert experiment().alerts[0].labels == {}
