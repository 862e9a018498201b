"""What to do next, as a pure function of what is known.

`decide` is asked after every observation and whenever a wait runs out. It sees the experiment, the history and the
present instant, and answers intents with one sentence of why. It does nothing and remembers nothing: kill the
process, read the journal back, and it answers the same. The order at the end of a run is fixed: undo every open
fault, newest first; compare with the snapshots; end.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from harness.core.clock import Instant
from harness.core.event import (
    ChannelChanged,
    CleanChecked,
    Decided,
    EffectProved,
    FaultEnded,
    InjectDone,
    InjectStarted,
    Record,
    ResponderActed,
    SignalRead,
    StopAsked,
    UndoDone,
    UndoStarted,
)
from harness.core.evidence import held_before, unprovable
from harness.core.experiment import AnyExperiment, Condition, FaultSpec, Profile, effect_within, moment
from harness.core.history import History
from harness.core.milestone import milestones, restarts
from harness.core.restart import Attempts, next_pod
from harness.core.samples import described, samples, trailing
from harness.core.verdict import PROMETHEUS

UNDO_FOR = 600.0
"""Seconds for which a failing undo is tried again before the run ends dirty (the pauses are the runner's)."""
CLEAN_WITHIN = 60.0
"""Seconds that the cluster has after the last undo to be what it was (pods must come back)."""
BLIND_AFTER = 30.0
"""Seconds without a needed source after which the run stops and undoes: what cannot be seen must not go on."""
LOCK = "the lock"
"""Who asks a run to stop whose lock is in other hands."""
API_SERVER = "the API server"
"""Who asks a run to stop that could not renew its lock, because nobody answered."""
API_CLOCK = "clock of API server"
"""The source that is asked of the API server alone, whatever else is reached through it."""


class Phase(StrEnum):
    """Where a run is; derived, never stored."""

    PREPARING = "preparing"
    INJECTING = "injecting"
    OBSERVING = "observing"
    ROLLING_BACK = "rolling back"
    CLEAN = "clean"
    DIRTY = "dirty"


@dataclass(frozen=True, slots=True)
class Intent:
    """One thing to do. `fault` is set for inject and undo; `alert` for both steps of a restart, and the `uid` of the
    pod for the second; `reason` for end."""

    do: Literal["inject", "plan_restart", "restart", "undo", "check_clean", "end"]
    fault: str = ""
    reason: Literal["", "complete", "timeout", "aborted", "stopped", "error"] = ""
    alert: str = ""
    uid: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.do, self.fault or self.alert or self.reason) if part)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, why, and when to ask again if nothing is observed before."""

    intents: tuple[Intent, ...]
    why: str
    wake_at: Instant


EndReason = Literal["complete", "timeout", "aborted", "stopped", "error"]
ENDINGS: dict[str, EndReason] = {
    "complete": "complete", "timeout": "timeout", "aborted": "aborted", "stopped": "stopped", "error": "error",
}  # fmt: skip
_ALL_DONE = "every clock has stopped and the alert is resolved"
_ALL_PROVED = "every fault has taken effect, and no alert is expected that would have to be waited for"
_WINDING_DOWN = ("undo", "check", "end")
_LOST = " has been lost for "
_UNSEEN = " could not be seen for "


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the experiment part of a run is over."""

    reason: EndReason
    detail: str


def phase(history: History) -> Phase:
    """The phase that the events imply."""
    if len(history) == 0:
        return Phase.PREPARING
    if history.ended is not None:
        return Phase.DIRTY if history.is_clean is False or history.open_faults() else Phase.CLEAN
    if history.all(UndoStarted) or any(d.intent.startswith(("undo", "check_clean")) for d in history.all(Decided)):
        return Phase.ROLLING_BACK
    if history.all(InjectDone):
        return Phase.OBSERVING
    return Phase.INJECTING if history.all(InjectStarted) else Phase.PREPARING


def decide(
    experiment: AnyExperiment, profile: Profile, history: History, now: Instant, undo_for: float = UNDO_FOR
) -> Decision:
    """The next step of a run whose preflight has passed. `experiment` is tuned to `profile`; a failing undo is tried
    again for `undo_for` seconds."""
    acted_upon = _acted_upon(history)
    if acted_upon is not None:
        return _wind_down(history, acted_upon, now, undo_for)
    missing = outstanding(experiment, history)
    ending = why_over(experiment, profile, history, now, missing)
    if ending is not None:
        return _wind_down(history, ending, now, undo_for)
    due = next((fault for fault, at in _waiting(experiment, history) if at is not None and at <= now), None)
    tests = restarts(experiment, history, milestones(experiment, history)) if experiment.restart_proofs() else {}
    if due is not None and not _is_tested(tests):
        held = held_before(due, history, now)
        if held:
            ending = Ending("aborted", f"fault {due.id} would prove nothing: {held}")
            return _wind_down(history, ending, now, undo_for)
        why = f"it is {due.after}" if due.after else "all checks have passed"
        return Decision((Intent("inject", due.id),), f"fault {due.id} is due: {why}", now)
    restart = _restart(experiment, tests, history, now)
    if restart is not None:
        return restart
    return Decision(
        (), _waiting_for(experiment, tests, history, missing), _next_deadline(experiment, profile, history, now)
    )


def _restart(experiment: AnyExperiment, tests: dict[str, Attempts], history: History, now: Instant) -> Decision | None:
    """The next step of putting a recovery to the test of a restart, where one is due."""
    proofs = experiment.restart_proofs()
    at_work = {one.last.plan.workload for one in tests.values() if one.last is not None and one.last.is_open}
    for alert, outcome in tests.items():
        last = outcome.last
        if outcome.untested is not None and proofs[alert].of in at_work:
            continue  # two at once would take two of its pods away
        if outcome.untested is not None:
            why = f"the incident of {alert} looks recovered: see whether that outlasts a restart of {proofs[alert].of}"
            return Decision((Intent("plan_restart", alert=alert),), why, now)
        pod = next_pod(history, last, proofs[alert], now) if last is not None and last.is_open else None
        if pod is not None:
            return Decision((Intent("restart", alert=alert, uid=pod.uid),), f"pod {pod.name} is next", now)
    return None


def _is_tested(tests: dict[str, Attempts]) -> bool:
    """Whether a recovery is being put to the test of a restart. No fault comes in between: it would be the one that
    answers."""
    return any(outcome.last is not None and outcome.last.is_open for outcome in tests.values())


def _waiting(experiment: AnyExperiment, history: History) -> list[tuple[FaultSpec, Instant | None]]:
    """The faults that are not injected yet, in the file's order, each with when it is due; None where what it waits
    for has not come. A milestone has surely come at its latest bound."""
    begun = {event.fault for event in history.all(InjectStarted)}
    waiting = [fault for fault in experiment.faults if fault.id not in begun]
    if not any(fault.after for fault in waiting):
        return [(fault, history.ready_at + fault.at) for fault in waiting]
    found = milestones(experiment, history)

    def due(fault: FaultSpec) -> Instant | None:
        if fault.after is None:
            return history.ready_at + fault.at
        name, later = moment(fault.after)
        return found[name].at.latest + later if name in found else None

    return [(fault, due(fault)) for fault in waiting]


def _acted_upon(history: History) -> Ending | None:
    """Why the way back was begun, where it was. It stays the reason: a source that comes back, a late proof or an
    alert that fires again must not bring a run back to life whose fault is already undone."""
    found = _way_back(history)
    return None if found is None else found[1]


def _way_back(history: History) -> tuple[Record, Ending] | None:
    """The record of the decision that began the way back, with its reason."""
    for record, decided in history.records(Decided):
        if decided.intent.startswith(_WINDING_DOWN):
            reason, _, detail = decided.why.partition(": ")
            return record, Ending(ENDINGS[reason], detail)
    return None


def why_over(
    experiment: AnyExperiment, profile: Profile, history: History, now: Instant, missing: tuple[str, ...]
) -> Ending | None:
    """Why the run should end now, or None. `missing` are the milestones that it still waits for."""
    stop = history.last(StopAsked)
    if stop is not None:
        return Ending("stopped", f"{stop.by} asked for it" + (f": {stop.detail}" if stop.detail else ""))
    tripped = _tripped(experiment, history)
    if tripped:
        return Ending("aborted", tripped)
    for done in history.all(InjectDone):
        if done.outcome == "failed":
            return Ending("error", f"fault {done.fault} could not be injected: {done.detail}")
    broken_off = history.last(FaultEnded)
    if broken_off is not None:
        return Ending("aborted", f"fault {broken_off.fault} ended by itself: {broken_off.detail}")
    blind = _blind(history, now) or _unseen(experiment, history, now)
    if blind:
        return Ending("aborted", blind)
    unproved = _unproved(experiment, history, now)
    if unproved:
        return Ending("aborted", unproved)
    if not experiment.faults:
        over = now >= history.ready_at + profile.timeout
        return Ending("complete", "nothing was injected, and the time to stay silent is over") if over else None
    if not missing and len(history.all(InjectDone)) == len(experiment.faults):
        return Ending("complete", _ALL_DONE if experiment.alerts else _ALL_PROVED)
    started = _zero(history)
    if started is None:  # a fault waits for what may never come: that time is not unbounded either
        started = history.ready_at + max((fault.at for fault in experiment.faults), default=0.0)
    if now >= started + profile.timeout:
        return Ending("timeout", f"the run's {profile.timeout:g} s are over; still open: {', '.join(missing)}")
    return None


def outstanding(experiment: AnyExperiment, history: History) -> tuple[str, ...]:
    """The milestones that the run still waits for, in a fixed order.

    The all clear is a responder's word that the people are done: from then on only what the machines still owe is
    waited for, and an SLA whose end nobody brought about is judged as not reached.
    """
    if not experiment.alerts:
        proved = {event.fault for event in history.all(EffectProved)}
        provable = [fault.id for fault in experiment.faults if effect_deadline(experiment, fault.id) is not None]
        return tuple(f"{fault}.effective" for fault in provable if fault not in proved)
    machine: dict[str, None] = {}
    for index, alert in enumerate(experiment.alerts):
        machine[f"{alert.name}.firing"] = None
        machine[f"{alert.name}.resolved"] = None
        if experiment.goal(alert.name, "recovered") is not None:
            machine[f"{alert.name}.recovered" if index else "recovered"] = None
    people: dict[str, None] = dict.fromkeys(sla.to for sla in experiment.slas if sla.to != "clean")
    if any(act.action == "acknowledged" and act.actor_kind == "automation" for act in history.all(ResponderActed)):
        people["all_clear"] = None  # the automation has begun, and closing is part of its work
    found = milestones(experiment, history)
    wanted = machine if "all_clear" in found else people | machine
    return tuple(name for name in wanted if name not in found)


def _wind_down(history: History, ending: Ending, now: Instant, undo_for: float) -> Decision:
    tried_since: dict[str, Instant] = {}
    for record, event in history.records(UndoStarted):
        tried_since.setdefault(event.fault, record.at)
    refused = {done.fault for done in history.all(UndoDone) if done.outcome == "refused"}
    due = [
        fault
        for fault in reversed(history.open_faults())
        if fault not in refused and now - tried_since.get(fault, now) < undo_for
    ]
    why = f"{ending.reason}: {ending.detail}"
    if due:
        return Decision((Intent("undo", due[0]),), why, now)
    begun = {event.fault for event in history.all(InjectStarted)}
    if not history.plans() or begun <= history.taken_over():
        return Decision((Intent("end", reason=ending.reason),), why, now)
    checks = history.records(CleanChecked)
    since = max(r.at for kind in (InjectStarted, UndoDone) for r, _ in history.records(kind))
    fresh = [check for r, check in checks if r.at >= since]
    # A fault that stays in force will not be gone a minute later either.
    if fresh and (fresh[-1].clean or history.open_faults() or now >= since + CLEAN_WITHIN):
        return Decision((Intent("end", reason=ending.reason),), why, now)
    return Decision((Intent("check_clean"),), why, now + 1.0)


def _tripped(experiment: AnyExperiment, history: History) -> str:
    for condition in experiment.abort:
        signal = abort_signal(condition.name)

        def look(found: list[float], record: Record, signal: str = signal, condition: Condition = condition) -> None:
            event = record.event
            if not found and isinstance(event, SignalRead) and event.signal == signal:
                found += [value for _, value in event.samples if value is not None and condition.holds(value)][:1]

        found = history.folded(("tripped", condition), history.told(SignalRead), list[float], look)
        if found:
            return f"abort condition {condition.name!r} holds: {condition.query} is {found[0]:g}"
    return ""


def abort_signal(name: str) -> str:
    """The signal name under which an abort condition's samples are journalled."""
    return f"abort: {name}"


def _blind(history: History, now: Instant) -> str:
    for channel, (since, detail) in _down(history).items():
        if now - since >= BLIND_AFTER:
            return f"{channel}{_LOST}{now - since:.0f} s: {detail}"
    return ""


def _down(history: History, before: int | None = None) -> dict[str, tuple[Instant, str]]:
    """The sources that were lost, at the end or `before` an event: since when each, and why."""
    down: dict[str, tuple[Instant, str]] = {}
    for record, event in history.records(ChannelChanged):
        if before is not None and record.seq >= before:
            break
        if event.up:
            down.pop(event.channel, None)
        else:
            down.setdefault(event.channel, (record.at, event.detail))
    return down


def lost_source(history: History) -> str:
    """What of the environment was lost, where that and nothing else is how the run ended; "" where it is not.

    It is the API server, so that the lock could not be renewed or a fault could not be undone; or Prometheus, so that
    the run was blind. What such a run has seen is no word on the system, nor on who responds: neither met nor missed.
    """
    begun = _way_back(history)
    if begun is None or history.ended is None:
        return ""
    record, ending = begun
    asked = f"{API_SERVER} asked for it"
    if ending.reason == "stopped" and ending.detail.startswith(asked):
        return f"the API server did not answer{ending.detail.removeprefix(asked)}"
    blind = ending.reason == "aborted" and (_LOST in ending.detail or _UNSEEN in ending.detail)
    if blind and PROMETHEUS in _down(history, record.seq):
        return ending.detail
    undone = {done.fault: done for done in history.all(UndoDone)}
    unanswered = [fault for fault in history.open_faults() if fault in undone and undone[fault].outcome == "failed"]
    if unanswered and API_CLOCK in _down(history):
        fault = unanswered[0]
        return f"the API server did not answer when fault {fault} was to be undone: {undone[fault].detail}"
    return ""


def _unseen(experiment: AnyExperiment, history: History, now: Instant) -> str:
    """Why an abort condition aborts although nobody saw it hold: while something is broken, nobody saw anything of it
    for as long as a source may be lost. Samples trail the present by what `trailing` says."""
    started = _zero(history)
    if started is None:
        return ""
    for condition in experiment.abort:
        told = samples(history, abort_signal(condition.name))
        newest = next((sample.at for sample in reversed(told) if sample.value is not None), started)
        unseen = now - max(newest, started)
        if unseen >= BLIND_AFTER + trailing(history):
            why = described(told[-1]) if told else "nothing was sampled"
            return f"abort condition {condition.name!r}{_UNSEEN}{unseen:.0f} s: {why}"
    return ""


def _unproved(experiment: AnyExperiment, history: History, now: Instant) -> str:
    proved = {event.fault for event in history.all(EffectProved)}
    for event in history.all(InjectDone):
        if event.fault in proved:
            continue
        never = unprovable(experiment.fault(event.fault), history)
        if never:
            return f"the effect of fault {event.fault} can never be proved: {never}"
        within = effect_deadline(experiment, event.fault)
        if within is not None and now >= event.at.latest + within:
            return f"fault {event.fault} had no proved effect within {within:g} s"
    return ""


def effect_deadline(experiment: AnyExperiment, fault_id: str) -> float | None:
    """Seconds in which a fault's effect must be proved, where its spec declares an `effect.within`."""
    return effect_within(experiment.fault(fault_id))


def _zero(history: History) -> Instant | None:
    first = history.records(InjectStarted)
    return first[0][0].at if first else None


def _next_deadline(experiment: AnyExperiment, profile: Profile, history: History, now: Instant) -> Instant:
    started = _zero(history) or now
    deadlines = [started + profile.timeout, now + 1.0]
    deadlines += [at for _, at in _waiting(experiment, history) if at is not None]
    for event in history.all(InjectDone):
        within = effect_deadline(experiment, event.fault)
        if within is not None and event.at.latest + within > now:
            deadlines.append(event.at.latest + within)
    return min(deadlines)


def _waiting_for(
    experiment: AnyExperiment, tests: dict[str, Attempts], history: History, missing: tuple[str, ...]
) -> str:
    proved = {event.fault for event in history.all(EffectProved)}
    begun = {event.fault for event in history.all(InjectStarted)}
    for fault in experiment.faults:
        if fault.id in begun and fault.id not in proved:
            return f"waiting for proof that {fault.id} takes effect"
    later = [fault for fault in experiment.faults if fault.id not in begun]
    if later:
        when = later[0].after or f"{later[0].at:g} s after the checks"
        return f"waiting to inject {later[0].id} ({when})"
    if _is_tested(tests):
        return "waiting to see whether the recovery outlasts a restart"
    return "waiting for " + ", ".join(missing[:3])
