"""The view says what the history proves, and nothing that a report would not say."""

from __future__ import annotations

from typing import get_args

import pytest

from harness.core.decide import Phase
from harness.core.event import AlertSeen, ChannelChanged, CheckDone
from harness.core.experiment import Sla
from harness.core.verdict import Verdict
from harness.core.view import CURVE, PhaseWord, PodsView, RunningClock, View, view
from harness.engine.observe import CURVE as JOURNALLED
from tests.terminal.drill_history import BEGAN, EXPERIMENT, Drill, curve, transition


def seen(drill: Drill, at: float) -> View:
    return view(EXPERIMENT, drill.history, BEGAN + at)


def clock(shown: View, end: str) -> RunningClock:
    return next(one for one in shown.clocks if one.end == end)


def test_every_phase_of_the_decider_has_its_word() -> None:
    assert {phase.value for phase in Phase} | {"steady"} == set(get_args(PhaseWord))


def test_the_drawn_signal_is_the_one_that_observers_journal() -> None:
    assert CURVE == JOURNALLED


@pytest.mark.parametrize(
    ("drill", "word"),
    [
        (Drill(), "preparing"),
        (Drill().add(1.0, CheckDone(name="identity", ok=True, fact="me")), "preparing"),
        (Drill().planned(), "steady"),
        (Drill().add(1.0, CheckDone(name="steady state: short", ok=True, fact="")), "steady"),
        (Drill().injected(), "observing"),
        (Drill().ended(), "clean"),
        (Drill().ended(clean=False), "dirty"),
    ],
)
def test_phases_follow_from_events(drill: Drill, word: str) -> None:
    assert seen(drill, 60.0).phase == word


def test_before_the_injection_only_preparation_takes_time() -> None:
    shown = seen(Drill().planned(), 7.0)
    assert (shown.prepared, shown.elapsed, shown.remaining) == (7.0, 0.0, 120.0)


def test_the_timeout_runs_from_the_injection() -> None:
    shown = seen(Drill().injected(), 40.0)
    assert (shown.prepared, shown.elapsed, shown.remaining) == (10.0, 30.0, 90.0)
    assert seen(Drill().injected(), 400.0).remaining == 0.0


def test_time_stands_still_when_the_run_has_ended() -> None:
    assert seen(Drill().ended(), 60.0) == seen(Drill().ended(), 6000.0)


def test_a_clock_waits_runs_and_is_done() -> None:
    waiting = clock(seen(Drill().effective(), 15.0), "acknowledged")
    assert (waiting.state, waiting.elapsed, waiting.verdict) == ("not started", None, None)
    running = clock(seen(Drill().firing(), 23.0), "acknowledged")
    assert (running.state, running.elapsed, running.is_late, running.verdict) == ("running", 3.0, False, None)
    done = clock(seen(Drill().acknowledged(), 90.0), "acknowledged")
    assert (done.state, done.elapsed, done.verdict) == ("done", 3.0, Verdict.MET)


def test_a_running_clock_beyond_its_target_is_late_and_not_yet_judged() -> None:
    late = clock(seen(Drill().firing(), 25.5), "acknowledged")
    assert (late.state, late.is_late, late.verdict) == ("running", True, None)


def test_when_the_run_has_ended_every_clock_has_a_verdict() -> None:
    shown = seen(Drill().ended(), 60.0)
    assert {one.state for one in shown.clocks} == {"done"}
    assert clock(shown, "recovered").verdict is Verdict.NOT_REACHED


def test_the_expected_alert_has_a_clock_of_its_own() -> None:
    fired = clock(seen(Drill().firing(), 23.0), "HighQueueDepth.firing")
    assert (fired.start, fired.verdict, fired.required) == ("memory.effective", Verdict.MET, True)


def test_a_promise_made_twice_is_one_clock() -> None:
    promised = Sla.model_validate({"from": "memory.effective", "to": "firing", "within": 60.0})
    other = Sla.model_validate({"from": "memory.effective", "to": "firing", "within": 30.0})
    twice = EXPERIMENT.model_copy(update={"slas": (promised, other)})
    shown = view(twice, Drill().firing().history, BEGAN + 23)
    assert [(one.end, one.target) for one in shown.clocks] == [("HighQueueDepth.firing", 60.0), ("firing", 30.0)]


def test_an_alert_is_what_was_evaluated_last_not_what_was_read_last() -> None:
    drill = Drill().effective()
    assert seen(drill, 15.0).alerts[0].state == "inactive"
    drill.add(20.5, AlertSeen(alert="HighQueueDepth", state="firing", evaluated_at=BEGAN + 20))
    drill.add(20.6, transition("pending", 18.0))
    assert (seen(drill, 21.0).alerts[0].state, seen(drill, 21.0).alerts[0].is_paged) == ("firing", False)
    assert seen(Drill().firing(), 23.0).alerts[0].is_paged


def test_an_alert_that_went_away_is_resolved_and_not_merely_inactive() -> None:
    drill = Drill().firing()
    drill.add(30.0, AlertSeen(alert="HighQueueDepth", state="inactive", evaluated_at=BEGAN + 30))
    assert seen(drill, 31.0).alerts[0].state == "resolved"


def test_the_signal_keeps_its_gaps_and_only_what_is_recent() -> None:
    shown = seen(Drill().firing(), 23.0).signal
    assert (shown.value, shown.samples, shown.unit) == (140.0, (5.0, 60.0, None, 140.0), "jobs")
    long = Drill().injected().add(90.0, curve(11.0, [float(i) for i in range(100)]))
    assert len(seen(long, 120.0).signal.samples) == 60
    assert seen(Drill(), 1.0).signal.value is None


def test_pods_are_counted_once_and_old_kills_not_at_all() -> None:
    assert seen(Drill().effective(), 15.0).pods == PodsView(ready=2, total=5, oom_kills=3)
    assert seen(Drill(), 1.0).pods is None


@pytest.mark.parametrize(("responder", "kind"), [("human", "human"), ("autopilot", "automation")])
def test_who_acknowledged_is_labelled(responder: str, kind: str) -> None:
    shown = seen(Drill(responder).acknowledged(kind), 24.0)
    assert shown.acknowledged is not None
    assert (shown.acknowledged.actor, shown.acknowledged.kind) == ("ada", kind)


def test_where_people_drill_automation_takes_no_alert() -> None:
    assert seen(Drill("human").acknowledged("automation"), 24.0).acknowledged is None


def test_a_lost_channel_is_shown_until_it_is_back() -> None:
    drill = Drill().injected().add(20.0, ChannelChanged(channel="Prometheus", up=False, detail="refused"))
    assert [(lost.channel, lost.seconds) for lost in seen(drill, 32.0).lost] == [("Prometheus", 12.0)]
    drill.add(33.0, ChannelChanged(channel="Prometheus", up=True))
    assert seen(drill, 34.0).lost == ()


def test_a_dirty_run_says_how_it_differs() -> None:
    assert seen(Drill().ended(clean=False), 60.0).differences == ("limit: 256Mi -> 48Mi",)
    assert seen(Drill().ended(), 60.0).differences == ()
    assert seen(Drill().injected(), 11.0).decided == "fault memory is due"
