"""Events as sentences for people who watch: which are worth a line, and what it says.

The journal holds every fact; a terminal shows those that change what a person would think or do, and each once: a
beginning whose outcome follows at once is not told, nor is what the line before has said. Strangers' text (names of
actors, notes, error messages) is freed of control characters before it comes near a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, assert_never

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
    FaultEnded,
    InjectDone,
    InjectionPlanned,
    InjectStarted,
    NotifierSeen,
    ObjectSeen,
    PageReceived,
    PhaseTimed,
    PodsSeen,
    Record,
    ResponderActed,
    RestartDone,
    RestartPlanned,
    RestartSeen,
    RestartStarted,
    RunEnded,
    RunStarted,
    SignalRead,
    SourceRestarted,
    StopAsked,
    UndoDone,
    UndoStarted,
    UndoStored,
)
from harness.core.view import View
from harness.report.wording import clean, plural
from harness.report.wording import clock as time_of_day

Told = tuple[str, str]
"""A topic of one word, and a sentence."""

BURST = 1.0
"""Seconds within which changes of pods are told as one: a rollout changes them many times a second."""
AUTOPILOT = "drill-system/drill-autopilot"
"""The ServiceAccount of the harness' own automated responder."""

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
_RESTARTED = {
    "done": "is deleted",
    "gone": "was gone already",
    "failed": "could not be deleted yet",
    "unknown": "was to be deleted, the reply was lost",
}
_UNDONE = {
    "restored": "is undone",
    "already": "was undone already",
    "refused": "was not undone, because somebody else changed the object since",
    "vanished": "has nothing left to undo: its object is gone",
    "failed": "could not be undone yet",
    "taken over": "was undone by whoever took the lock from this run",
}


class Line(NamedTuple):
    """One line and the instant that it tells of."""

    at: Instant
    topic: str
    text: str


class Teller:
    """Turns records into lines. It remembers what it has said, so that only news is told, and holds changes of pods
    back until the burst is over or something else happens."""

    def __init__(self) -> None:
        self._started: Instant | None = None
        self._pods: dict[str, tuple[int, int, int]] = {}
        self._held: dict[str, tuple[Instant, Line]] = {}
        self._kills: set[tuple[str, Instant]] = set()
        self._plans: dict[str, str] = {}
        self._refusal: str | None = None
        self._fired = False
        self._last: Told | None = None

    def tell(self, record: Record) -> list[Line]:
        """What to say now that this was recorded; nothing where it is not worth a line or was just said."""
        if self._started is None:
            self._started = record.at
        due = self._due(record.at)
        if isinstance(record.event, PodsSeen):
            self._hold(record.at, record.event)
            return due
        told = self._told(record.event)
        if told is None or told == self._last:
            return due
        rest = self.rest()
        self._last = told
        return [*due, *rest, Line(record.at, told[0], clean(told[1]))]

    def watch(self, view: View) -> list[Line]:
        """What was held back and is due at the time of this view."""
        return [] if self._started is None else self._due(self._started + view.prepared + view.elapsed)

    def rest(self) -> list[Line]:
        """All that is held back: nothing more will change it."""
        return self._release(list(self._held))

    def _due(self, now: Instant) -> list[Line]:
        return self._release([fault for fault, (since, _) in self._held.items() if now - since >= BURST])

    def _release(self, faults: list[str]) -> list[Line]:
        lines = [self._held.pop(fault)[1] for fault in faults]
        if lines:
            self._last = lines[-1][1:]
        return lines

    def _hold(self, at: Instant, event: PodsSeen) -> None:
        self._kills |= {(pod.uid, pod.oom_killed_at) for pod in event.pods if pod.oom_killed_at is not None}
        ready = sum(pod.ready for pod in event.pods)
        now = (ready, len(event.pods), len(self._kills))
        if self._pods.get(event.fault) == now:
            return
        self._pods[event.fault] = now
        killed = f", {plural(now[2], 'OOM kill')}" if now[2] else ""
        since = self._held[event.fault][0] if event.fault in self._held else at
        self._held[event.fault] = since, Line(at, "pods", f"{ready} of {len(event.pods)} ready{killed}")

    def _told(self, event: Event) -> Told | None:
        """The sentence of an event, without what earlier lines have said and with what only they can tell."""
        told = sentence(event)
        match event:
            case AlertTransition(to="firing") | AlertSeen(state="firing") | PageReceived() | NotifierSeen():
                self._fired = True
            case InjectionPlanned():
                self._plans[f"plan of {event.fault}"] = f"{event.summary}; "
            case CheckDone(ok=True, warning=""):
                return "check", _check(event.name, event.fact.removeprefix(self._plans.get(event.name, "")))
            case CheckDone(ok=False):
                self._refusal = event.fact
            case RunEnded(reason="refused") if event.detail == self._refusal:
                return "ended", "refused: nothing was injected"
            case ResponderActed(action="acknowledged", counted=True) if not self._fired and told is not None:
                return told[0], f"{told[1]} (before the alert fired: it stops no clock)"
        return told


def sentence(event: Event) -> Told | None:
    """What one event says by itself; None for those that only judging needs."""
    match event:
        case (
            RunStarted()
            | CheckDone()
            | InjectionPlanned()
            | Decided()
            | StopAsked()
            | ChannelChanged()
            | SourceRestarted()
        ):
            return _of_the_run(event)
        case UndoStored() | InjectDone() | EffectProved() | FaultEnded() | UndoDone():
            return _of_a_fault(event)
        case AlertTransition() | NotifierSeen() | PageReceived() | ResponderActed():
            return _of_the_alert(event)
        case RestartPlanned() | RestartDone():
            return _of_a_restart(event)
        case CleanChecked():
            found = "the cluster equals its snapshots"
            return "clean", found if event.clean else f"not yet: {'; '.join(event.differences)}"
        case RunEnded():
            by = "" if event.by == "runner" else f" by {event.by}"
            return "ended", f"{event.reason}{by}: {event.detail}".replace(
                f"{event.reason}: {event.reason}", event.reason
            )
        case PhaseTimed() | ClockCompared() | AlertSeen() | SignalRead() | PodsSeen() | ObjectSeen():
            return None
        case AlertingRead() | InjectStarted() | UndoStarted() | RestartStarted() | RestartSeen():
            return None  # the check, or the outcome, says it all
        case _ as never:
            assert_never(never)


def _of_the_run(
    event: RunStarted | CheckDone | InjectionPlanned | Decided | StopAsked | ChannelChanged | SourceRestarted,
) -> Told | None:
    match event:
        case RunStarted():
            what = f"{event.experiment.get('name', '')} in {event.experiment.get('namespace', '')}"
            where = _place(event.cluster)
            how = f"profile {event.profile}, responder {event.responder}"
            return "run", f"{event.run_id}: {what}{where}, {how}"
        case CheckDone(ok=True) if event.warning:
            return "warning", _check(event.name, event.warning)
        case CheckDone():
            return ("check" if event.ok else "refused"), _check(event.name, event.fact)
        case InjectionPlanned():
            return "plan", event.summary
        case Decided():
            if event.intent.startswith("end "):
                return None  # it has ended by the next line, which says why
            intent = event.intent.replace("_", " ")
            return "decided", f"{intent} ({event.why})" if intent else event.why
        case StopAsked():
            return "stop", f"{event.by} asks the run to end" + (f": {event.detail}" if event.detail else "")
        case ChannelChanged():
            detail = f": {event.detail}" if event.detail else ""
            return ("back" if event.up else "lost"), f"{event.channel}{detail}"
        case SourceRestarted():
            return "restarted", f"{event.source}: {event.detail}"


def _check(name: str, fact: str) -> str:
    return f"{name}: {fact}" if fact else name


def _place(cluster: Mapping[str, str]) -> str:
    """ " on local cluster drill (context drill-local-drill, v1.34.4)": what is about to be broken."""
    if not cluster.get("name"):
        return ""
    provider = cluster.get("provider", "context")
    kind = "cluster" if provider == "context" else f"{provider} cluster"
    more = [f"context {cluster['context']}"] if cluster.get("context") else []
    more += [cluster["version"]] if cluster.get("version") else []
    return f" on {kind} {cluster['name']}" + (f" ({', '.join(more)})" if more else "")


def _of_a_fault(event: UndoStored | InjectDone | EffectProved | FaultEnded | UndoDone) -> Told:
    match event:
        case UndoStored():
            return "undo", f"the way back from {event.fault} is stored in {event.where}"
        case InjectDone():
            return "inject", f"{event.fault} {_INJECTED[event.outcome]}" + _after(event.detail)
        case EffectProved():
            return "effect", f"{event.fault} is proved: {event.proof}"
        case FaultEnded():
            return "effect", f"{event.fault} ended by itself" + _after(event.detail)
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


def _of_a_restart(event: RestartPlanned | RestartDone) -> Told:
    match event:
        case RestartPlanned():
            pods = f"{plural(len(event.pods), 'pod')} of {event.workload}, one at a time"
            return "restart", f"does the recovery outlast it? {pods}" + _after(event.detail)
        case RestartDone():
            return "restart", f"{event.pod} {_RESTARTED[event.outcome]}" + _after(event.detail)


def _act(event: ResponderActed) -> Told:
    what = _ACTIONS[event.action].format(role=event.role, text=event.text)
    said = f": {event.text}" if event.text and event.action != "assessed" else ""
    claimed = ", identity claimed" if event.verified == "claimed" else ""
    not_counted = "" if event.counted else f" (not counted: {event.reason})"
    return "responder", f"{who(event.actor)} ({event.actor_kind}{claimed}) {what}{said}{not_counted}"


def who(actor: str) -> str:
    """An actor as people would name it; a ServiceAccount by its namespace and name, but for the autopilot's."""
    kind, separator, name = actor.partition("system:serviceaccount:")
    account = name.replace(":", "/") if separator and not kind else actor
    return "autopilot" if separator and account == AUTOPILOT else account


def _after(detail: str) -> str:
    return f": {detail}" if detail else ""
