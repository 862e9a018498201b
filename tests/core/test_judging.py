"""Milestones and verdicts over histories that are written by hand or drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.core.clock import Bounds
from harness.core.decide import _tripped
from harness.core.errors import ExitCode
from harness.core.event import (
    AlertTransition,
    ChannelChanged,
    CleanChecked,
    ClockCompared,
    EffectProved,
    Event,
    InjectDone,
    InjectStarted,
    NotifierSeen,
    PageReceived,
    Record,
    ResponderActed,
    RunEnded,
    RunStarted,
    SignalRead,
    SourceRestarted,
    UndoDone,
    UndoStarted,
)
from harness.core.experiment import AnyExperiment, Condition, Experiment, FaultSpec, Sla
from harness.core.held import held_since, may_have_held
from harness.core.history import History
from harness.core.milestone import milestones, operand_signal
from harness.core.verdict import Verdict, guard_signal, judge, judge_sla

ALERT = "HighQueueDepth"
Entry = tuple[float, Event]


def experiment(**changes: Any) -> AnyExperiment:
    body: dict[str, Any] = {
        "name": "drawn", "title": "t", "why": {"probability": "low", "tests": ["x"]}, "namespace": "ns",
        "narrative": "n", "facilitator": {"root_cause": {"object": "deployment/w", "reason": "r"}},
        "roles": {"l2": ["x"]}, "severity": "P1", "signal": {"query": "q", "title": "q"},
        "steady_state": [{"name": "s", "query": "q", "below": 20}],
        "faults": [{"id": "memory", "kind": "any", "blast_radius": {"pods": 1}}],
        "alerts": [{"name": ALERT, "within": "3m", "of": "memory.effective"}],
        "mitigated": {"query": "d", "below": 0, "for": "3s"}, "recovered": {"query": "q", "below": 20, "for": "8s"},
        "slas": [
            {"from": "firing", "to": "acknowledged", "within": "10s", "required": True},
            {"from": "firing", "to": "l2.joined", "within": "15s"},
            {"from": "firing", "to": "recovered", "within": "60s", "required": True},
        ],
        "runbook": "r", "profiles": {"gameday": {"timeout": "75m", "responder": "human"}},
    }  # fmt: skip
    return Experiment[FaultSpec].model_validate(body | changes)


def history(*entries: Entry) -> History:
    return History(Record(seq=seq, at=at, event=event) for seq, (at, event) in enumerate(entries))


def started(responder: str = "autopilot") -> Event:
    return RunStarted(
        run_id="r", experiment={}, experiment_path="p", digest="d", profile="smoke", responder=responder,
        harness_version="0", cluster={}, identity="i",
    )  # fmt: skip


def alert(to: Literal["pending", "firing", "resolved"], at: float, width: float = 0.0) -> Entry:
    bounds = Bounds(earliest=at, latest=at + width)
    return at + width, AlertTransition(alert=ALERT, to=to, at=bounds, evaluation=at, source="Prometheus: ALERTS")


def act(action: Any, at: float, width: float = 0.0, **more: Any) -> Entry:
    fields = {"actor": "alice", "actor_kind": "human", "verified": "admission policy", "source": "message m"} | more
    bounds = Bounds(earliest=at, latest=at + width)
    return at + width, ResponderActed(key=f"{action}{at}", action=action, at=bounds, **fields)


def read(signal: str, start: float, values: Sequence[float | None], step: float = 1.0) -> Entry:
    samples = tuple((start + i * step, value) for i, value in enumerate(values))
    return samples[-1][0], SignalRead(signal=signal, samples=samples, resolution=1.0, step=step)


BROKEN: tuple[Entry, ...] = (
    (0.0, started()),
    (1.0, InjectStarted(fault="memory")),
    (1.1, InjectDone(fault="memory", outcome="done", at=Bounds.at(1.1))),
    (8.0, EffectProved(fault="memory", at=Bounds(earliest=7, latest=8), proof="3 pods", evidence=())),
)
ENDED: tuple[Entry, ...] = (
    (299.0, UndoDone(fault="memory", outcome="restored", at=Bounds.at(299))),
    (299.5, CleanChecked(clean=True)),
    (300.0, RunEnded(reason="complete", detail="all clocks stopped")),
)


def whole(*entries: Entry) -> History:
    return history(*BROKEN, alert("firing", 20), *entries, *ENDED)


ACK = Sla.model_validate({"from": "firing", "to": "acknowledged", "within": "10s", "required": True})


@pytest.mark.parametrize(
    ("at", "width", "verdict"),
    [
        (22, 1, Verdict.MET), (29, 1, Verdict.MET), (29.5, 1, Verdict.UNDECIDED), (30, 0, Verdict.MET),
        (30, 0.1, Verdict.UNDECIDED), (30.1, 1, Verdict.MISSED), (100, 1, Verdict.MISSED),
    ],
)  # fmt: skip
def test_the_bounds_decide_or_leave_it_undecided(at: float, width: float, verdict: Verdict) -> None:
    seen = whole(act("acknowledged", at, width))
    result = judge_sla(ACK, milestones(experiment(), seen), seen)
    assert result.verdict is verdict
    assert result.reason or verdict is not Verdict.UNDECIDED


@given(firing=st.floats(0, 100), fuzz=st.floats(0, 3), delay=st.floats(0, 40), blur=st.floats(0, 3), data=st.data())
def test_a_verdict_is_never_contradicted_by_a_truth_inside_the_bounds(
    firing: float, fuzz: float, delay: float, blur: float, data: st.DataObject
) -> None:
    seen = history(*BROKEN, alert("firing", 20 + firing, fuzz), act("acknowledged", 20 + firing + fuzz + delay, blur))
    found = milestones(experiment(), seen)
    true = [data.draw(st.floats(found[n].at.earliest, found[n].at.latest)) for n in ("firing", "acknowledged")]
    duration, verdict = true[1] - true[0], judge_sla(ACK, found, seen).verdict
    assert verdict is not Verdict.MET or duration <= 10 + 1e-6
    assert verdict is not Verdict.MISSED or duration > 10 - 1e-6


def test_what_never_came_is_not_reached_and_its_duration_is_a_lower_bound() -> None:
    seen = whole()
    result = judge_sla(ACK, milestones(experiment(), seen), seen)
    assert result.verdict is Verdict.NOT_REACHED
    assert result.duration == Bounds(earliest=280, latest=float("inf"))
    assert "the run ended" in result.reason


def test_what_could_not_be_seen_is_undecided() -> None:
    lost = (30.0, ChannelChanged(channel="inbox", up=False, detail="410 Gone"))
    seen = whole(lost)
    result = judge_sla(ACK, milestones(experiment(), seen), seen)
    assert result.verdict is Verdict.UNDECIDED
    assert "inbox was lost (410 Gone)" in result.reason


def test_a_channel_that_was_lost_and_came_back_before_the_clock_started_is_forgotten() -> None:
    seen = history(
        *BROKEN, (9.0, ChannelChanged(channel="inbox", up=False, detail="x")),
        (10.0, ChannelChanged(channel="inbox", up=True)), alert("firing", 20), *ENDED,
    )  # fmt: skip
    assert judge_sla(ACK, milestones(experiment(), seen), seen).verdict is Verdict.NOT_REACHED


@pytest.mark.parametrize(("lost", "verdict"), [(False, Verdict.NOT_REACHED), (True, Verdict.UNDECIDED)])
def test_a_start_that_never_came_differs_from_one_that_could_not_be_seen(*, lost: bool, verdict: Verdict) -> None:
    gone: tuple[Entry, ...] = ((9.0, ChannelChanged(channel="Prometheus", up=False, detail="timeout")),) if lost else ()
    seen = history(*BROKEN, *gone, *ENDED)
    assert judge_sla(ACK, milestones(experiment(), seen), seen).verdict is verdict
    assert judge(experiment(), seen).verdict is not Verdict.MET


def test_an_acknowledgement_before_the_firing_is_not_counted() -> None:
    seen = history(*BROKEN, act("acknowledged", 15, 1), alert("firing", 20), act("acknowledged", 40, 1), *ENDED)
    found = milestones(experiment(), seen)
    assert found["acknowledged"].at == Bounds(earliest=40, latest=41)
    assert judge_sla(ACK, found, seen).verdict is Verdict.MISSED


def test_an_acknowledgement_in_the_very_second_of_the_firing_begins_with_it() -> None:
    seen = history(*BROKEN, alert("firing", 20), act("acknowledged", 19.5, 1))
    assert milestones(experiment(), seen)["acknowledged"].at == Bounds(earliest=20, latest=20.5)


def test_a_claimed_identity_is_marked_and_what_is_not_counted_moves_no_clock() -> None:
    claimed = whole(act("acknowledged", 22, verified="claimed"))
    assert "claimed, not verified" in milestones(experiment(), claimed)["acknowledged"].source
    verified = whole(act("acknowledged", 22))
    assert "claimed" not in milestones(experiment(), verified)["acknowledged"].source
    forged = whole(act("acknowledged", 22, counted=False, reason="signature"))
    assert "acknowledged" not in milestones(experiment(), forged)


def test_where_people_respond_a_bot_acknowledges_nothing() -> None:
    bot = act("acknowledged", 21, actor="system:serviceaccount:a:b", actor_kind="automation")
    person = act("acknowledged", 25)
    rest = (*BROKEN[1:], alert("firing", 20), bot, person)
    human, machine = history((0.0, started("human")), *rest), history((0.0, started()), *rest)
    assert milestones(experiment(), human)["acknowledged"].actor_kind == "human"
    assert milestones(experiment(), machine)["acknowledged"].actor_kind == "automation"


def test_a_role_joins_by_its_name_and_an_act_of_no_role_is_nobodys() -> None:
    found = milestones(
        experiment(), whole(act("joined", 25, role="l2"), act("escalated", 22, role="l2"), act("joined", 26))
    )
    assert found["l2.joined"].at == Bounds.at(25)
    assert found["l2.paged"].at == Bounds.at(22)
    assert ".joined" not in found


def test_a_flapping_alert_fires_first_and_is_resolved_last() -> None:
    seen = history(
        *BROKEN, alert("pending", 15), alert("firing", 20), alert("resolved", 30), alert("pending", 32),
        alert("firing", 35), alert("resolved", 50),
    )  # fmt: skip
    found = milestones(experiment(), seen)
    assert (found["pending"].at, found["firing"].at, found["resolved"].at) == (
        Bounds.at(15), Bounds.at(20), Bounds.at(50),
    )  # fmt: skip
    assert found[f"{ALERT}.firing"].at == found["firing"].at
    again = milestones(
        experiment(), history(*BROKEN, *(alert("firing", 20), alert("resolved", 30), alert("firing", 35)))
    )
    assert "resolved" not in again


def test_an_alert_from_before_the_injection_is_not_this_drills() -> None:
    seen = history((0.0, started()), alert("firing", 0.5), *BROKEN[1:], alert("resolved", 12))
    found = milestones(experiment(), seen)
    assert not {"firing", "resolved", f"{ALERT}.resolved"} & found.keys()


def test_a_page_counts_after_the_firing_only() -> None:
    def page(at: float) -> Entry:
        bounds = Bounds.at(at)
        return at, PageReceived(alert=ALERT, status="firing", at=bounds, starts_at=at, receiver="r", source="pager")

    found = milestones(experiment(), history(*BROKEN, page(5), alert("firing", 20), page(21), page(30)))
    assert found["paged"].at == found[f"{ALERT}.paged"].at == Bounds.at(21)


def test_a_firing_on_which_alertmanager_disagrees_is_undecided() -> None:
    held = (21.0, NotifierSeen(alert=ALERT, fingerprint="f", state="active", starts_at=20.5))
    seen = whole(held, act("acknowledged", 22, 1))
    result = judge_sla(ACK, milestones(experiment(), seen), seen)
    assert result.verdict is Verdict.UNDECIDED
    assert "differs" in result.reason


def test_times_across_a_restart_of_prometheus_are_undecided() -> None:
    seen = whole((21.0, SourceRestarted(source="Prometheus", detail="new process")), act("acknowledged", 22, 1))
    assert judge_sla(ACK, milestones(experiment(), seen), seen).verdict is Verdict.UNDECIDED


def test_what_became_dirty_again_is_not_clean() -> None:
    checks: list[Entry] = [(30.0 + i, CleanChecked(clean=clean)) for i, clean in enumerate((True, False, True))]
    assert milestones(experiment(), history(*BROKEN, *checks))["clean"].at == Bounds.at(32)
    assert "clean" not in milestones(experiment(), history(*BROKEN, *checks[:2]))


# Windows

RECOVERED = Condition.model_validate({"query": "q", "below": 20, "for": "8s"})


def test_a_recovery_is_dated_back_to_the_start_of_its_window() -> None:
    seen = history(read("recovered", 20, [95, 60, 30, *[10] * 9]))
    held = held_since(seen, "recovered", RECOVERED, not_before=20)
    assert held is not None
    assert held.at == Bounds(earliest=21, latest=23)
    assert "back-dated" in held.note


@pytest.mark.parametrize(
    "values",
    [
        [10] * 8, [], [10] * 4 + [None] + [10] * 4, [10] * 7 + [25] + [10] * 7, [float("nan")] * 20, [None] * 20,
        [10] * 5 + [float("nan")] + [10] * 7, [20] * 20,
    ],
)  # fmt: skip
def test_a_window_that_was_not_seen_whole_does_not_count(values: list[float | None]) -> None:
    seen = history(read("recovered", 20, values)) if values else history()
    assert held_since(seen, "recovered", RECOVERED, not_before=20) is None


@pytest.mark.parametrize("step", [0.0, 1.0])
def test_a_hole_between_reads_breaks_a_window(step: float) -> None:
    def told(start: float, count: int) -> Entry:
        samples = tuple((start + i, 10.0) for i in range(count))
        return start, SignalRead(signal="recovered", samples=samples, resolution=1.0, step=step)

    seen = history(told(20, 3), told(30, 3), told(40, 3))
    assert held_since(seen, "recovered", RECOVERED, not_before=20) is None
    assert held_since(history(told(20, 3), told(23, 7)), "recovered", RECOVERED, not_before=20) is not None


def test_missing_data_does_not_narrow_the_bounds_of_a_change() -> None:
    seen = history(read("recovered", 20, [95, None, None, None, *[10] * 9]))
    held = held_since(seen, "recovered", RECOVERED, not_before=20)
    assert held is not None
    assert held.at == Bounds(earliest=20, latest=24)


values = st.lists(st.sampled_from([5.0, 10.0, 25.0, 60.0, None]), min_size=1, max_size=40)


@given(values, st.sets(st.integers(0, 39)))
def test_losing_data_never_makes_a_window_hold_earlier(drawn: list[float | None], lost: set[int]) -> None:
    full = history(read("recovered", 20, drawn))
    holed = history(read("recovered", 20, [None if i in lost else v for i, v in enumerate(drawn)]))
    kept = [(20.0 + i, v) for i, v in enumerate(drawn) if i not in lost]
    absent = history(
        *([(99.0, SignalRead(signal="recovered", samples=tuple(kept), resolution=1.0, step=1.0))] if kept else [])
    )
    before = held_since(full, "recovered", RECOVERED, not_before=20)
    for poorer in (holed, absent):
        after = held_since(poorer, "recovered", RECOVERED, not_before=20)
        assert after is None or (before is not None and after.at.latest >= before.at.latest)


@given(values, st.integers(1, 10))
def test_how_samples_are_cut_into_reads_changes_nothing(drawn: list[float | None], size: int) -> None:
    one = history(read("recovered", 20, drawn))
    cut = history(*(read("recovered", 20 + i, drawn[i : i + size]) for i in range(0, len(drawn), size)))
    found = [held_since(h, "recovered", RECOVERED, not_before=20) for h in (one, cut)]
    assert (found[0] and found[0].at) == (found[1] and found[1].at)


# Guards

GUARDED = experiment(must_hold=[{"name": "spend", "query": "b", "below": 1}])
GUARD = guard_signal(GUARDED.must_hold[0])


@pytest.mark.parametrize(
    ("drawn", "verdict"),
    [
        ([0.2, 0.4], Verdict.MET), ([0.2, 1.0], Verdict.MISSED), ([0.2, None, 0.4], Verdict.UNDECIDED),
        ([None, 0.2, 1.2], Verdict.MISSED), ([float("nan")], Verdict.UNDECIDED), ([float("inf")], Verdict.MISSED),
    ],
)  # fmt: skip
def test_a_guard_passes_only_on_data(drawn: list[float | None], verdict: Verdict) -> None:
    end = 2.0 + len(drawn)
    seen = history(*BROKEN[:3], read(GUARD, 2, drawn), (end, RunEnded(reason="complete", detail="")))
    assert judge(GUARDED, seen).guards[0].verdict is verdict


def test_a_guard_that_was_never_sampled_or_has_a_hole_is_undecided() -> None:
    assert judge(GUARDED, whole()).guards[0].verdict is Verdict.UNDECIDED
    holed = whole(read(GUARD, 21, [0.1, 0.1]), read(GUARD, 60, [0.1, 0.1]))
    assert judge(GUARDED, holed).guards[0].verdict is Verdict.UNDECIDED


# Whole runs


def perfect(*more: Entry) -> History:
    return whole(
        act("acknowledged", 22, 1), act("joined", 24, 1, role="l2"), read("recovered", 40, [60, *[10] * 9]),
        alert("resolved", 55), *more,
    )  # fmt: skip


def test_a_run_that_met_everything_is_met() -> None:
    judged = judge(experiment(), perfect())
    assert (judged.verdict, judged.exit_code, judged.reason) == (Verdict.MET, ExitCode.MET, "")
    assert [r.verdict for r in (*judged.slas, *judged.alerts)] == [Verdict.MET] * 4


@pytest.mark.parametrize(
    ("entries", "verdict", "exit_code"),
    [
        ((*BROKEN, *ENDED), Verdict.MISSED, ExitCode.MISSED),
        ((*BROKEN[:3], alert("firing", 20), *ENDED), Verdict.UNDECIDED, ExitCode.UNDECIDED),
        ((*BROKEN, alert("firing", 20), act("acknowledged", 22, 1)), Verdict.UNDECIDED, ExitCode.ROLLBACK_INCOMPLETE),
        ((BROKEN[0], (300.0, RunEnded(reason="refused", detail="x"))), Verdict.UNDECIDED, ExitCode.REFUSED),
        ((*BROKEN, alert("firing", 20), act("acknowledged", 22, 1), *ENDED[:2],
          (300.0, RunEnded(reason="aborted", detail="x"))), Verdict.UNDECIDED, ExitCode.UNDECIDED),
        ((*BROKEN, alert("firing", 20), act("acknowledged", 99, 1), *ENDED[:2],
          (300.0, RunEnded(reason="aborted", detail="x"))), Verdict.MISSED, ExitCode.MISSED),
    ],
)  # fmt: skip
def test_runs_and_their_exit_codes(entries: tuple[Entry, ...], verdict: Verdict, exit_code: ExitCode) -> None:
    judged = judge(experiment(), history(*entries))
    assert (judged.verdict, judged.exit_code) == (verdict, exit_code)
    assert judged.reason


later_events = st.lists(
    st.one_of(
        st.builds(act, st.sampled_from(["acknowledged", "joined", "fix_applied"]), st.floats(25, 400), st.floats(0, 2)),
        st.builds(alert, st.sampled_from(["firing", "resolved", "pending"]), st.floats(25, 400)),
        st.builds(read, st.just("recovered"), st.floats(25, 400), values),
        st.builds(lambda at, up: (at, ChannelChanged(channel="inbox", up=up)), st.floats(25, 400), st.booleans()),
        st.just((300.0, SourceRestarted(source="Prometheus", detail=""))),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(st.lists(st.just(act("acknowledged", 31, 1)), max_size=1), later_events, later_events)
def test_a_missed_sla_never_becomes_met_by_what_comes_later(
    late: list[Entry], drawn: list[Entry], more: list[Entry]
) -> None:
    first = [*BROKEN, alert("firing", 20), *late, *sorted(drawn, key=lambda e: e[0])]
    last = first[-1][0]
    after = [*first, *((max(at, last), event) for at, event in sorted(more, key=lambda e: e[0]))]
    before, now = (judge(experiment(), history(*entries)).slas for entries in (first, after))
    for was, is_now in zip(before, now, strict=True):
        assert not (was.verdict is Verdict.MISSED and is_now.verdict is Verdict.MET)


@settings(deadline=None)
@given(later_events)
def test_judging_is_a_pure_function_of_the_journal(drawn: list[Entry]) -> None:
    entries = [*BROKEN, alert("firing", 20), *sorted(drawn, key=lambda e: e[0])]
    assert judge(experiment(), history(*entries)) == judge(experiment(), history(*entries))
    assert set(milestones(experiment(), history(*entries))) <= experiment().milestones()


def holes(drawn: list[float | None], kinds: list[int]) -> History:
    """Samples of which some have no value, and some are not there at all."""
    entries = [
        read("recovered", 20.0 + i, [None if kind == 1 else value])
        for i, (value, kind) in enumerate(zip(drawn, kinds, strict=False))
        if kind != 2
    ]
    return history(*entries)


@given(
    st.lists(st.sampled_from([5.0, 25.0]), min_size=12, max_size=40),
    st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=40, max_size=40),
)
@example([5.0, 5.0, 25.0, *[5.0] * 9], [*[0] * 11, 2, *[0] * 28])
def test_the_true_recovery_is_never_outside_of_what_is_known(truth: list[float | None], kinds: list[int]) -> None:
    seen = holes(truth, kinds)
    if len(seen) == 0:
        return
    watched = truth[: round(seen.last_at - 20) + 1]  # what comes behind the last sample is behind the end of the run
    known = held_since(history(read("recovered", 20, watched)), "recovered", RECOVERED, not_before=20)
    held = held_since(seen, "recovered", RECOVERED, not_before=20)
    if held is not None:
        assert known is not None
        assert held.at.earliest <= known.at.latest <= held.at.latest
    elif known is not None:
        assert may_have_held(seen, "recovered", RECOVERED, not_before=20)


def test_what_was_seen_whole_leaves_no_doubt_that_it_did_not_hold() -> None:
    seen = history(read("recovered", 20, [60.0, *[10.0] * 8, 60.0]))
    assert may_have_held(seen, "recovered", RECOVERED, not_before=20) == ""


def test_what_the_runs_own_undo_mended_is_no_recovery() -> None:
    sick = read("recovered", 20, [60.0] * 9)
    mended = (60.0, read("recovered", 29, [*[60.0] * 3, *[10.0] * 20])[1])
    undone = (31.0, UndoStarted(fault="memory"))
    with_undo = history(*BROKEN, alert("firing", 20), sick, undone, alert("resolved", 45), mended)
    found = milestones(experiment(), with_undo)
    assert not {"recovered", "resolved"} & found.keys()
    without = history(*BROKEN, alert("firing", 20), sick, alert("resolved", 45), mended)
    assert {"recovered", "resolved"} <= milestones(experiment(), without).keys()


# What Prometheus does not say

RESOLVED = Sla.model_validate({"from": "firing", "to": "resolved", "within": "60s"})
OPERAND = operand_signal(ALERT)


@pytest.mark.parametrize(
    ("values", "verdict"), [([1, 1, 1, 1], Verdict.MET), ([1, None, None, 1], Verdict.UNDECIDED), ([1], None)]
)
def test_a_resolution_stands_once_its_rule_is_known_to_have_had_data(
    values: list[float | None], verdict: Verdict | None
) -> None:
    seen = whole(alert("resolved", 30), read(OPERAND, 29.4, values))
    found = milestones(experiment(), seen)
    assert ("resolved" in found) is (verdict is not None)
    if verdict is not None:
        assert judge_sla(RESOLVED, found, seen, experiment()).verdict is verdict


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1.0] * 290, Verdict.MISSED), ([None] * 290, Verdict.UNDECIDED),
        ([1.0] * 100 + [None] * 190, Verdict.UNDECIDED),
        ([1.0] * 181 + [None] * 109, Verdict.MISSED), ([None] + [1.0] * 289, Verdict.MISSED),
    ],
)  # fmt: skip
def test_an_alert_that_never_fired_is_missed_only_on_a_whole_bound_of_data(
    values: list[float | None], verdict: Verdict
) -> None:
    seen = history(*BROKEN, read(OPERAND, 9, values), *ENDED)
    (row,) = judge(experiment(), seen).alerts
    assert row.verdict is verdict
    if verdict is Verdict.UNDECIDED:
        assert "had nothing to look at" in row.reason


@pytest.mark.parametrize(("missed", "verdict"), [(0, Verdict.MET), (1, Verdict.MET), (2, Verdict.UNDECIDED)])
def test_a_firing_among_evaluations_that_were_missed_is_undecided(missed: int, verdict: Verdict) -> None:
    fired = AlertTransition(
        alert=ALERT, to="firing", at=Bounds(earliest=19, latest=20), evaluation=20, source="Prometheus: ALERTS",
        missed=missed,
    )  # fmt: skip
    seen = history(*BROKEN, (20.0, fired), act("acknowledged", 22), *ENDED)
    assert judge_sla(ACK, milestones(experiment(), seen), seen).verdict is verdict


@pytest.mark.parametrize(
    ("offset", "at", "verdict"),
    [
        (0.05, 25.0, Verdict.MET), (3.0, 25.0, Verdict.UNDECIDED), (-3.0, 25.0, Verdict.UNDECIDED),
        (3.0, 200, Verdict.MET),
    ],
)  # fmt: skip
def test_a_clock_that_was_set_leaves_what_is_told_later_undecided(offset: float, at: float, verdict: Verdict) -> None:
    def compared(when: float, middle: float) -> Entry:
        bounds = Bounds(earliest=middle - 0.01, latest=middle + 0.01)
        return when, ClockCompared(peer="Prometheus", offset=bounds, method="m")

    rest = sorted([compared(at, offset), alert("resolved", 30), read("recovered", 22, [60, *[10] * 9])],
                  key=lambda entry: entry[0])  # fmt: skip
    seen = history(compared(0.0, 0.0), *BROKEN[1:], alert("firing", 20), *rest, *ENDED)
    assert judge_sla(RESOLVED, milestones(experiment(), seen), seen).verdict is verdict


def test_an_alert_is_told_by_its_labels_too() -> None:
    labelled = experiment(
        alerts=[{"name": ALERT, "within": "3m", "of": "memory.effective", "labels": {"service": "api"}}]
    )

    def page(at: float, **labels: str) -> Entry:
        bounds = Bounds.at(at)
        return at, PageReceived(
            alert=ALERT, status="firing", at=bounds, starts_at=at, receiver="r", source="pager", labels=labels
        )

    seen = history(*BROKEN, alert("firing", 20), page(21, service="other"), page(22), page(23, service="api", x="y"))
    assert milestones(labelled, seen)["paged"].at == Bounds.at(23)
    assert milestones(experiment(), seen)["paged"].at == Bounds.at(21)


@settings(deadline=None)
@given(later_events, st.randoms(use_true_random=False))
def test_judging_along_the_way_changes_no_judgement(drawn: list[Entry], random: Any) -> None:
    guarded = experiment(
        must_hold=[{"name": "spend", "query": "b", "below": 1}], abort=[{"name": "deep", "query": "q", "above": 50}]
    )
    entries = [*BROKEN, alert("firing", 20), *sorted(drawn, key=lambda e: e[0]), *ENDED]
    growing = History()
    for record in history(*entries):
        growing.append(record)
        if random.random() < 0.5:
            judge(guarded, growing)
            _tripped(guarded, growing)
    anew = history(*entries)
    assert judge(guarded, growing) == judge(guarded, anew)
    assert _tripped(guarded, growing) == _tripped(guarded, anew)
    assert growing.open_faults() == anew.open_faults()
