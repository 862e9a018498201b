"""Events as sentences for people who watch: which are worth a line, and what it says.

The journal holds every fact; a terminal shows those that change what a person would think or do. Strangers' text
(names of actors, notes, error messages) is freed of control characters before it comes near a terminal.
"""

from __future__ import annotations

from typing import assert_never

from harness.core.clock import Instant
from harness.core.event import (
    AlertingRead,
    AlertSeen,
    AlertTransition,
    ChannelChanged,
    CheckDone,
    CleanChecked,
    ClockCompared,
    Decided,
    EffectProved,
    Event,
    InjectDone,
    InjectionPlanned,
    InjectStarted,
    NotifierSeen,
    PageReceived,
    PhaseTimed,
    PodsSeen,
    Record,
    ResponderActed,
    RunEnded,
    RunStarted,
    SignalRead,
    SourceRestarted,
    StopAsked,
    UndoDone,
    UndoStarted,
    UndoStored,
)
from harness.report.wording import clean, plural, within
from harness.report.wording import clock as time_of_day

Told = tuple[str, str]
"""A topic of one word, and a sentence."""

_ACTIONS = {
    "acknowledged": "acknowledged the alert",
    "assessed": "assessed the severity as {text}",
    "escalated": "escalated to {role}",
    "joined": "joined as {role}",
    "notified": "notified the client",
    "root_cause": "declared the root cause",
    "looked": "looked",
    "fix_applied": "applied the fix",
    "all_clear": "gave the all clear",
    "note": "noted",
}
_INJECTED = {"done": "is in place", "failed": "could not be injected", "unknown": "was sent, its reply was lost"}
_UNDONE = {
    "restored": "is undone",
    "already": "was undone already",
    "refused": "was not undone, because somebody else changed the object since",
    "vanished": "has nothing left to undo: its object is gone",
    "failed": "could not be undone yet",
}


class Teller:
    """Turns records into sentences; remembers what it last said of pods, so that only news is told."""

    def __init__(self) -> None:
        self._pods: dict[str, tuple[int, int, int]] = {}
        self._kills: set[tuple[str, Instant]] = set()
        self._last: Told | None = None

    def tell(self, record: Record) -> Told | None:
        """What to say of a record, or None where it is not worth a line or was just said."""
        told = self._pods_told(record.event) if isinstance(record.event, PodsSeen) else sentence(record.event)
        if told is None or told == self._last:
            return None
        self._last = told
        return told[0], clean(told[1])

    def _pods_told(self, event: PodsSeen) -> Told | None:
        self._kills |= {(pod.uid, pod.oom_killed_at) for pod in event.pods if pod.oom_killed_at is not None}
        ready = sum(pod.ready for pod in event.pods)
        now = (ready, len(event.pods), len(self._kills))
        if self._pods.get(event.fault) == now:
            return None
        self._pods[event.fault] = now
        killed = f", {plural(now[2], 'OOM kill')}" if now[2] else ""
        return "pods", f"{ready} of {len(event.pods)} ready{killed}"


def sentence(event: Event) -> Told | None:
    """What one event says by itself; None for those that only judging needs."""
    match event:
        case (
            RunStarted()
            | CheckDone()
            | AlertingRead()
            | InjectionPlanned()
            | Decided()
            | StopAsked()
            | ChannelChanged()
            | SourceRestarted()
        ):
            return _of_the_run(event)
        case UndoStored() | InjectStarted() | InjectDone() | EffectProved() | UndoStarted() | UndoDone():
            return _of_a_fault(event)
        case AlertTransition() | NotifierSeen() | PageReceived() | ResponderActed():
            return _of_the_alert(event)
        case CleanChecked():
            found = "the cluster equals its snapshots"
            return "clean", found if event.clean else f"not yet: {'; '.join(event.differences)}"
        case RunEnded():
            by = "" if event.by == "runner" else f" by {event.by}"
            return "ended", f"{event.reason}{by}: {event.detail}".replace(
                f"{event.reason}: {event.reason}", event.reason
            )
        case PhaseTimed() | ClockCompared() | AlertSeen() | SignalRead() | PodsSeen():
            return None
        case _ as never:
            assert_never(never)


def _of_the_run(
    event: RunStarted
    | CheckDone
    | AlertingRead
    | InjectionPlanned
    | Decided
    | StopAsked
    | ChannelChanged
    | SourceRestarted,
) -> Told:
    match event:
        case RunStarted():
            name = event.experiment.get("name", "")
            return "run", f"{event.run_id}: {name}, profile {event.profile}, responder {event.responder}"
        case CheckDone():
            fact = f": {event.fact}" if event.fact else ""
            return ("check" if event.ok else "refused"), f"{event.name}{fact}"
        case AlertingRead():
            floor = within(event.floor)
            return "alert", f"{event.alert} can fire {floor} after the symptom, as it is configured"
        case InjectionPlanned():
            return "plan", event.summary
        case Decided():
            intent = event.intent.replace("_", " ")
            return "decided", f"{intent} ({event.why})" if intent else event.why
        case StopAsked():
            return "stop", f"{event.by} asks the run to end" + (f": {event.detail}" if event.detail else "")
        case ChannelChanged():
            detail = f": {event.detail}" if event.detail else ""
            return ("back" if event.up else "lost"), f"{event.channel}{detail}"
        case SourceRestarted():
            return "restarted", f"{event.source}: {event.detail}"


def _of_a_fault(event: UndoStored | InjectStarted | InjectDone | EffectProved | UndoStarted | UndoDone) -> Told:
    match event:
        case UndoStored():
            return "undo", f"the way back from {event.fault} is stored in {event.where}"
        case InjectStarted():
            return "inject", f"{event.fault} begins"
        case InjectDone():
            return "inject", f"{event.fault} {_INJECTED[event.outcome]}" + _after(event.detail)
        case EffectProved():
            return "effect", f"{event.fault} is proved: {event.proof}"
        case UndoStarted():
            return "undo", f"{event.fault} is being undone"
        case UndoDone():
            return "undo", f"{event.fault} {_UNDONE[event.outcome]}" + _after(event.detail)


def _of_the_alert(event: AlertTransition | NotifierSeen | PageReceived | ResponderActed) -> Told:
    match event:
        case AlertTransition():
            return "alert", f"{event.alert} is {event.to} (evaluation of {time_of_day(event.evaluation)})"
        case NotifierSeen():
            silenced = ", silenced" if event.silenced_by else ""
            return "alert", f"Alertmanager holds {event.alert}: {event.state}{silenced}"
        case PageReceived():
            return "page", f"{event.alert} {event.status} reached {event.receiver}"
        case ResponderActed():
            return _act(event)


def _act(event: ResponderActed) -> Told:
    what = _ACTIONS[event.action].format(role=event.role, text=event.text)
    said = f": {event.text}" if event.text and event.action != "assessed" else ""
    claimed = ", identity claimed" if event.verified == "claimed" else ""
    not_counted = "" if event.counted else f" (not counted: {event.reason})"
    return "responder", f"{who(event.actor)} ({event.actor_kind}{claimed}) {what}{said}{not_counted}"


def who(actor: str) -> str:
    """An actor as people would name it; a ServiceAccount by its namespace and name."""
    kind, separator, name = actor.partition("system:serviceaccount:")
    return name.replace(":", "/") if separator and not kind else actor


def _after(detail: str) -> str:
    return f": {detail}" if detail else ""
