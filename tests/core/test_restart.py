"""Whether a recovery outlasts a restart, over histories that are written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.clock import Bounds
from harness.core.decide import Decision, decide
from harness.core.event import (
    AlertTransition,
    ChannelChanged,
    Event,
    PodState,
    RestartDone,
    RestartPlanned,
    RestartSeen,
    UndoStarted,
)
from harness.core.experiment import AnyExperiment
from harness.core.history import History
from harness.core.milestone import milestones, restarts
from harness.core.restart import Attempts
from harness.core.verdict import SlaResult, Verdict, judge
from tests.core.test_judging import ALERT, BROKEN, ENDED, Entry, alert, experiment, history, read

WORKLOAD = "deployment/w"
PROOF = {"query": "q", "below": 20, "for": "8s", "restart_proof": {"of": WORKLOAD, "within": "30s"}}
TESTED = experiment(recovered=PROOF)
FIRST = Bounds(earliest=29, latest=31)
"""When the queue was short again for the first time."""


def pod(number: int, *, ready: bool = True, template: str = "t1", **more: Any) -> PodState:
    return PodState(name=f"w-{number}", uid=f"u{number}", ready=ready, restarts=0, template=template, **more)


def short(start: float, seconds: int, *deep: float) -> Entry:
    """The queue, sampled every second: short but for some instants."""
    return read("recovered", start, [99.0 if start + i in deep else 5.0 for i in range(seconds)])


def planned(at: float = 40.0, *, ready: int = 2, pods: int = 2) -> Entry:
    found = tuple(pod(number) for number in range(1, pods + 1))
    return at, RestartPlanned(alert=ALERT, workload=WORKLOAD, selector="app=w", container="w", pods=found, ready=ready)


def done(at: float, number: int, outcome: Any = "done", detail: str = "") -> Entry:
    return at, RestartDone(
        alert=ALERT, pod=f"w-{number}", uid=f"u{number}", outcome=outcome, at=Bounds.at(at), detail=detail
    )


def seen(at: float, *pods: PodState) -> Entry:
    return at, RestartSeen(workload=WORKLOAD, pods=pods)


RECOVERED: tuple[Entry, ...] = (alert("firing", 20), read("recovered", 20, [99.0] * 11 + [5.0] * 10))
"""Short from 31 on, seen until 40."""
RESTARTED: tuple[Entry, ...] = (
    planned(), seen(40.1, pod(1), pod(2)), done(40.2, 1), seen(41, pod(2)), seen(43, pod(2), pod(3)),
    done(43.2, 2), seen(44, pod(3)), seen(46, pod(3), pod(4)),
)  # fmt: skip
"""Both pods, one behind the other; all well from 46 on."""


def known(*entries: Entry) -> History:
    return history(*BROKEN, *RECOVERED, *entries)


def outcome(*entries: Entry) -> Attempts:
    seen_so_far = known(*entries)
    return restarts(TESTED, seen_so_far, milestones(TESTED, seen_so_far))[ALERT]


def recovered(*entries: Entry) -> Bounds | None:
    found = milestones(TESTED, known(*entries)).get("recovered")
    return None if found is None else found.at


def next_step(now: float, *entries: Entry) -> Decision:
    return decide(TESTED, TESTED.profiles["gameday"], known(*entries), now)


def promise(*entries: Entry, ended: float = 300.0) -> SlaResult:
    end = tuple((at - 300.0 + ended, event) for at, event in ENDED)
    (result,) = (one for one in judge(TESTED, known(*entries, *end)).slas if one.sla.to == "recovered")
    return result


def test_without_a_proof_the_window_is_enough() -> None:
    plain = experiment()
    assert milestones(plain, known())["recovered"].at == FIRST
    assert decide(plain, plain.profiles["gameday"], known(), 40.0).intents == ()


def test_a_recovery_that_looks_like_one_is_put_to_the_test_first() -> None:
    assert recovered() is None
    (intent,) = next_step(40.0).intents
    assert (intent.do, intent.alert) == ("plan_restart", ALERT)


def test_pods_are_restarted_one_at_a_time_each_when_the_one_before_is_back() -> None:
    def due(now: float, upto: int) -> list[str]:
        return [intent.uid for intent in next_step(now, *RESTARTED[:upto]).intents]

    assert due(40.0, 1) == ["u1"], "the first at once"
    assert due(40.3, 3) == [], "its deletion is not seen yet"
    assert due(41.0, 4) == [], "one of two is ready"
    assert due(43.0, 5) == ["u2"]
    assert due(46.0, 8) == []


@pytest.mark.parametrize("kept", ["failed", "unknown"])
def test_a_deletion_that_was_not_made_is_tried_again_after_a_second(kept: str) -> None:
    begun = (planned(), seen(40.1, pod(1), pod(2)), done(40.2, 1, kept, "no answer"))
    assert next_step(40.9, *begun).intents == ()
    assert [intent.uid for intent in next_step(41.2, *begun).intents] == ["u1"]


def test_a_recovery_that_outlasts_the_restart_keeps_its_own_instant() -> None:
    assert recovered(*RESTARTED, short(41, 12)) is None, "the window after the restart is not over"
    assert recovered(*RESTARTED, short(41, 14)) == FIRST
    stood = outcome(*RESTARTED, short(41, 14)).stood
    assert stood is not None
    assert "outlasted a restart of deployment/w" in stood.note
    assert promise(*RESTARTED, short(41, 14)).verdict is Verdict.MET


def test_pods_that_are_leaving_are_not_waited_for() -> None:
    def leaving(number: int, template: str = "t1") -> PodState:
        return pod(number, ready=False, template=template, leaving=True)

    slow: tuple[Entry, ...] = (
        planned(), seen(40.1, pod(1), pod(2), leaving(9, "t0")), done(40.2, 1),
        seen(41, leaving(1), pod(2), leaving(9, "t0")), seen(43, leaving(1), pod(2), pod(3), leaving(9, "t0")),
    )  # fmt: skip
    assert [intent.uid for intent in next_step(43.0, *slow).intents] == ["u2"]
    rest = (done(43.2, 2), seen(44, leaving(2), pod(3)), seen(46, leaving(2), pod(3), pod(4)))
    assert recovered(*slow, *rest, short(41, 14)) == FIRST


def test_a_restart_that_disturbs_what_is_measured_widens_the_bounds() -> None:
    assert recovered(*RESTARTED, short(41, 20, 44.0, 50.0)) == Bounds(earliest=29, latest=51)


def test_pods_must_stay_ready_for_the_whole_window() -> None:
    flickers = (*RESTARTED, seen(50, pod(3), pod(4, ready=False)), seen(52, pod(3), pod(4)))
    assert recovered(*flickers, short(41, 18)) is None
    assert recovered(*flickers, short(41, 20)) == FIRST


def test_a_fix_that_lives_in_running_pods_is_no_recovery() -> None:
    crashing = (
        planned(),
        seen(40.1, pod(1), pod(2)),
        done(40.2, 1),
        seen(42, pod(2), pod(3, ready=False, waiting="CrashLoopBackOff")),
    )
    fell = outcome(*crashing, short(41, 39))
    (attempt,) = fell.all
    assert attempt.fell == (
        "1 of 2 pods were restarted, and 30s later 1 were ready where 2 had been (CrashLoopBackOff)"
    )
    assert recovered(*crashing, short(41, 39)) is None
    assert attempt.over_at == pytest.approx(78.2), "the time for it, and the window behind that"
    assert outcome(*crashing, short(41, 38)).all[0].is_open, "until then it may still come"


def test_the_promise_says_what_did_not_last() -> None:
    crashing = (planned(), seen(40.1, pod(1), pod(2)), done(40.2, 1), seen(42, pod(2), pod(3, ready=False)))
    result = promise(*crashing, short(41, 258))
    assert result.verdict is Verdict.NOT_REACHED
    assert "what looked like it did not outlast a restart of deployment/w: 1 of 2 pods were restarted" in result.reason


def test_a_condition_that_does_not_come_back_is_no_recovery_either() -> None:
    deep = [float(at) for at in range(47, 83)]
    (attempt,) = outcome(*RESTARTED, short(41, 42, *deep)).all
    assert attempt.fell == "q < 20 did not come to hold within 30s of the last pod's restart"


def test_behind_a_fix_that_did_not_last_the_clock_goes_on_until_one_does() -> None:
    crashing = (
        planned(),
        seen(40.1, pod(1), pod(2)),
        done(40.2, 1),
        seen(42, pod(2), pod(3, ready=False)),
        short(41, 38),
    )
    mended = (seen(79, pod(5, template="t2"), pod(6, template="t2")), read("recovered", 79, [99.0] * 5 + [5.0] * 9))
    (intent,) = next_step(92.0, *crashing, *mended).intents
    assert intent.do == "plan_restart"
    again = RestartPlanned(alert=ALERT, workload=WORKLOAD, pods=(pod(5, template="t2"), pod(6, template="t2")), ready=2)
    lasting: tuple[Entry, ...] = (
        (93.0, again), done(93.2, 5), seen(94, pod(6, template="t2")),
        seen(95, pod(6, template="t2"), pod(7, template="t2")), done(95.2, 6),
        seen(97, pod(7, template="t2"), pod(8, template="t2")), short(93, 14),
    )  # fmt: skip
    assert recovered(*crashing, *mended, *lasting) == Bounds(earliest=82, latest=84)
    assert promise(*crashing, *mended, *lasting).verdict is Verdict.MISSED, "62 s at least, of 60"


def test_a_change_meanwhile_says_nothing_of_the_recovery_that_was_tested() -> None:
    changed = (planned(), seen(40.1, pod(1), pod(2)), done(40.2, 1), seen(45, pod(2), pod(9, template="t2")))
    (attempt,) = outcome(*changed, short(41, 20)).all
    assert (attempt.void, attempt.fell, attempt.over_at) == ("deployment/w was changed meanwhile", "", 45)
    assert recovered(*changed, short(41, 20)) is None
    (intent,) = next_step(60.0, *changed, short(41, 20)).intents
    assert intent.do == "plan_restart", "what holds from then on is a recovery of its own"


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ((planned(), done(41, 1, "failed", "may not")), "w-1 could not be restarted: may not"),
        ((planned(pods=0, ready=0),), "deployment/w has no pods"),
        ((planned(), done(41, 1), done(42, 2)), "its pods were not seen"),
    ],
)
def test_what_could_not_be_restarted_is_nobodys_failure(entries: tuple[Entry, ...], why: str) -> None:
    (attempt,) = outcome(*entries, short(41, 40)).all
    assert (attempt.void, attempt.fell) == (why, "")
    later = promise(*entries, short(41, 40), read("recovered", 81, [99.0] * 218))
    assert later.verdict is Verdict.UNDECIDED
    assert why in later.reason


def test_a_run_that_ends_in_the_middle_of_a_test_does_not_know() -> None:
    middle = promise(*RESTARTED, short(41, 6), ended=48.0)
    assert middle.verdict is Verdict.UNDECIDED
    assert "was not over" in middle.reason
    untested = promise(ended=42.0)
    assert untested.verdict is Verdict.UNDECIDED
    assert "never put to the test" in untested.reason


def test_another_alerts_restart_is_not_this_ones() -> None:
    (_, plan) = planned()
    assert isinstance(plan, RestartPlanned)
    other: Event = plan.model_copy(update={"alert": "Other"})
    assert outcome((40.0, other)).untested is not None


def test_a_test_of_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        experiment(recovered={**PROOF, "restart_proof": {"of": WORKLOAD, "within": "0s"}})
    with pytest.raises(ValueError, match="pattern"):
        experiment(recovered={**PROOF, "restart_proof": {"of": "secret/w"}})


def test_an_alert_of_its_own_may_ask_for_it() -> None:
    second = {"name": "Other", "within": "3m", "of": "memory.effective", "recovered": PROOF}
    asked: AnyExperiment = experiment(alerts=[{"name": ALERT, "within": "3m", "of": "memory.effective"}, second])
    assert list(asked.restart_proofs()) == ["Other"]


SECOND = {"name": "Other", "within": "3m", "of": "memory.effective", "recovered": PROOF}
FAILED: tuple[Entry, ...] = ((40.0, RestartPlanned(alert=ALERT, workload=WORKLOAD, detail="no answer")), short(41, 40))
"""A test that could not be made; it is over at 78."""
AGAIN: tuple[Entry, ...] = (
    planned(82.0), done(82.2, 1), seen(83, pod(2)), seen(84, pod(2), pod(3)), done(84.2, 2), seen(85, pod(3)),
    seen(86, pod(3), pod(4)), short(81, 20),
)  # fmt: skip


def test_nobody_is_charged_for_a_test_that_could_not_be_made() -> None:
    at = recovered(*FAILED, *AGAIN)
    assert at is not None
    assert at.earliest == FIRST.earliest, "it may have been well all the time"
    assert promise(*FAILED, *AGAIN).verdict is Verdict.MET, "58 s at most, of 60"


def test_who_scales_down_meanwhile_has_mended_nothing_and_broken_nothing() -> None:
    fewer = (planned(), seen(40.1, pod(1), pod(2)), done(40.2, 1), seen(41, pod(2)))
    (attempt,) = outcome(*fewer, short(41, 40)).all
    assert (attempt.fell, attempt.void) == ("", "it has 1 pods by now, all ready, where 2 had been: it was scaled")


def test_one_workload_is_restarted_for_one_alert_at_a_time() -> None:
    two = experiment(alerts=[{"name": ALERT, "within": "3m", "of": "memory.effective"}, SECOND], recovered=PROOF)
    other = AlertTransition(alert="Other", to="firing", at=Bounds.at(20), evaluation=20, source="Prometheus: ALERTS")
    both = (*BROKEN, *RECOVERED, (20.0, other), read("Other.recovered", 20, [5.0] * 21))
    begun = history(*both, planned(), seen(40.1, pod(1), pod(2)), done(40.2, 1))
    assert decide(two, two.profiles["gameday"], begun, 41.0).intents == ()
    assert [one.alert for one in decide(two, two.profiles["gameday"], history(*both), 41.0).intents] == [ALERT]


def test_no_fault_comes_in_between() -> None:
    later = {"id": "later", "kind": "any", "after": "recovered + 1s", "blast_radius": {"pods": 1}}
    due = {**later, "after": "memory.effective + 30s"}
    tests = experiment(faults=[{"id": "memory", "kind": "any", "blast_radius": {"pods": 1}}, due], recovered=PROOF)
    begun = known(planned(), seen(40.1, pod(1), pod(2)), done(40.2, 1), seen(41, pod(2)))
    assert decide(tests, tests.profiles["gameday"], begun, 42.0).intents == ()
    assert [one.do for one in decide(tests, tests.profiles["gameday"], known(), 42.0).intents] == ["inject"]


def test_what_the_run_puts_back_is_nobodys_change() -> None:
    begun = (planned(), seen(40.1, pod(1), pod(2)), done(40.2, 1), short(41, 6))
    undone: tuple[Entry, ...] = (
        (47.0, UndoStarted(fault="memory")), seen(47.5, pod(2), pod(9, ready=False, template="t0")),
    )  # fmt: skip
    result = promise(*begun, *undone, ended=50.0)
    assert result.verdict is Verdict.UNDECIDED
    assert "was not over" in result.reason


def test_a_watch_that_is_lost_proves_nothing() -> None:
    lost = (46.5, ChannelChanged(channel=f"pods of {WORKLOAD}", up=False, detail="gone"))
    assert recovered(*RESTARTED, lost, short(41, 20)) is None
    back = (48.0, ChannelChanged(channel=f"pods of {WORKLOAD}", up=True))
    assert recovered(*RESTARTED, lost, back, short(41, 20)) == FIRST, "it tells only what is new"


def test_a_hole_in_the_samples_hides_what_the_restart_disturbed() -> None:
    holed = read("recovered", 54, [5.0] * 12)
    at = recovered(*RESTARTED, holed)
    assert at is not None
    assert at.latest > FIRST.latest


def test_a_pod_that_is_not_back_in_time_is_the_last_that_was_restarted() -> None:
    late = (planned(), seen(40.1, pod(1), pod(2)), done(40.2, 1), seen(72, pod(2), pod(3)))
    assert next_step(72.5, *late).intents == ()


def test_a_change_that_limps_says_nothing() -> None:
    rollout = (planned(), seen(40.1, pod(1), pod(2)), seen(45, pod(1), pod(2), pod(9, ready=False, template="t2")))
    assert promise(*rollout, short(41, 258)).verdict is Verdict.UNDECIDED
