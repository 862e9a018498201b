"""Every milestone and every notable event, in the order in which they became certain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.core.clock import Bounds
from harness.core.event import (
    AlertTransition,
    ChannelChanged,
    CheckDone,
    CleanChecked,
    Fact,
    FaultEnded,
    InjectDone,
    InjectionPlanned,
    NotifierSeen,
    PageReceived,
    PodsSeen,
    Record,
    ResponderActed,
    RestartDone,
    RestartPlanned,
    RunEnded,
    RunStarted,
    SourceRestarted,
    StopAsked,
    UndoDone,
    UndoStored,
)
from harness.core.history import History
from harness.core.milestone import Milestone
from harness.report.values import Moment, Who
from harness.report.wording import plural, undone


def value_text(value: object) -> str:
    """A value of an object as reports show it."""
    return "(absent)" if value is None else str(value)


def who_text(who: Who, verified: str = "") -> str:
    """Who did it, spelled out. Automation is never called anything else."""
    if who == "machine" or not who:
        return who
    vouched = {"": "", "claimed": ", identity claimed, not verified"}.get(verified, f", verified by {verified}")
    return ("AUTOMATION, not a person" if who == "automation" else "human") + vouched


_AFTER_FIX = frozenset({"mitigated", "recovered", "resolved"})


def brought_about(end: Milestone | None, found: dict[str, Milestone]) -> Milestone | None:
    """The responder's milestone that brought `end` about: `end` itself, or the fix that it followed. None: a machine's
    doing, or nobody's."""
    if end is None or end.actor_kind:
        return end
    alert, _, what = end.name.rpartition(".")
    fix = found.get(f"{alert}.fix.applied" if alert else "fix.applied")
    return fix if fix is not None and what in _AFTER_FIX and fix.at.earliest <= end.at.latest else None


def timeline(history: History, found: dict[str, Milestone]) -> tuple[Moment, ...]:
    """The rows. A milestone's row stands for the event that proves it, so that nothing is told twice."""
    firing, injected = found.get("firing"), found.get("injected")
    by_seq = {record.seq: record for record in history}
    rows: list[tuple[Moment, int]] = []
    told: set[int] = set()

    def put(entry: _Entry) -> None:
        moment = Moment(
            at=entry.at, name=entry.name, is_milestone=entry.is_milestone, detail=entry.detail, source=entry.source,
            who=entry.who, who_text=who_text(entry.who, entry.verified), actor=entry.actor,
            from_firing=_from(firing, entry.at), from_injection=_from(injected, entry.at),
            evidence=tuple(dict.fromkeys(entry.evidence)),
        )  # fmt: skip
        rows.append((moment, entry.evidence[-1]))

    one_incident = sum(name.endswith(".firing") for name in found) < 2
    for names, milestone in _grouped(found):
        record = by_seq[milestone.evidence[-1]]
        told_names = names[:1] if one_incident and not isinstance(record.event, _OF_ALERTS) else names
        put(_of_milestone(told_names, milestone, record.event, history))
        if isinstance(record.event, _ONE_EVENT):
            told.add(record.seq)
    for entry in _kills(history):
        put(entry)
    for entry in _held(history):
        put(entry)
    for record in history:
        if record.seq not in told and not _passing(record, history) and (told_event := _of_event(record)) is not None:
            put(told_event)
    rows.sort(key=lambda row: (row[0].at.latest, row[1]))
    return tuple(moment for moment, _ in rows)


_OF_ALERTS = (AlertTransition, PageReceived, InjectDone)
"""Whose milestones are told with all their names, also where there is one alert only."""
_ONE_EVENT = (InjectDone, AlertTransition, PageReceived, ResponderActed, CleanChecked)


@dataclass(frozen=True, slots=True)
class _Entry:
    at: Bounds
    name: str
    detail: str
    source: str
    evidence: tuple[int, ...]
    is_milestone: bool = False
    who: Who = "machine"
    actor: str = ""
    verified: str = ""


def _from(zero: Milestone | None, at: Bounds) -> float | None:
    return None if zero is None else at.middle - zero.at.middle


def _grouped(found: dict[str, Milestone]) -> list[tuple[list[str], Milestone]]:
    """Milestones with their aliases: `firing` and `HighQueueDepth.firing` are one instant with two names."""
    groups: dict[tuple[float, float, tuple[int, ...]], tuple[list[str], Milestone]] = {}
    for name, milestone in found.items():
        key = (milestone.at.earliest, milestone.at.latest, milestone.evidence)
        groups.setdefault(key, ([], milestone))[0].append(name)
    return [(sorted(names, key=lambda name: (name.count("."), name)), first) for names, first in groups.values()]


def _of_milestone(names: list[str], milestone: Milestone, event: Fact, history: History) -> _Entry:
    parts: list[str] = []
    verified, who, source = "", _kind(milestone.actor_kind), milestone.source
    match event:
        case ResponderActed():
            parts.append(_act_detail(event, with_verb=False))
            verified, source = event.verified, event.source
        case InjectDone(fault=fault):
            plan = history.plans().get(fault)
            if plan is not None:
                parts += [f"{c.object} {c.path}: {value_text(c.before)} → {value_text(c.after)}" for c in plan.changes]
            parts.append(event.detail)
        case PageReceived(receiver=receiver):
            parts.append(f"receiver {receiver}")
        case _:
            pass
    parts.append(milestone.note)
    if len(names) > 1:
        parts.append(f"also {', '.join(names[1:])}")
    return _Entry(
        milestone.at, names[0], "; ".join(filter(None, parts)), source, milestone.evidence,
        is_milestone=True, who=who, actor=milestone.actor, verified=verified,
    )  # fmt: skip


def _passing(record: Record, history: History) -> bool:
    """A clean check that was asked again: while pods come back it differs each second, and only the last one counts."""
    return isinstance(record.event, CleanChecked) and record is not history.records(CleanChecked)[-1][0]


def _kind(actor_kind: str) -> Who:
    return "automation" if actor_kind == "automation" else "human" if actor_kind == "human" else "machine"


def _act_detail(event: ResponderActed, *, with_verb: bool) -> str:
    parts = [event.action.replace("_", " ")] if with_verb else []
    parts += [f"role {event.role}"] if event.role else []
    parts += [f"“{event.text}”"] if event.text else []
    if not event.counted:
        parts.append(f"shown, not counted: {event.reason or 'no reason given'}")
    return "; ".join(parts)


def _kills(history: History) -> Iterator[_Entry]:
    """Each pod's OOM kill as it was first seen. The kubelet stamps whole seconds; the watch bounds it from above."""
    seen: set[str] = set()
    for record, event in history.records(PodsSeen):
        for pod in event.pods:
            if pod.oom_kills == 0 or pod.uid in seen:
                continue
            seen.add(pod.uid)
            at, source = Bounds.at(record.at), "pod status, by watch"
            if pod.oom_killed_at is not None:
                stamped = Bounds(earliest=pod.oom_killed_at, latest=pod.oom_killed_at + 1.0)
                at, source = stamped.clipped(not_after=record.at), "pod status, kubelet's whole-second stamp"
            limit = f"memory limit {pod.memory_limit}; " if pod.memory_limit else ""
            yield _Entry(
                at, f"OOM kill of {pod.name}", f"{limit}restarts {pod.restarts}; first seen for this pod", source,
                (record.seq,),
            )  # fmt: skip


def _held(history: History) -> Iterator[_Entry]:
    """What Alertmanager held, at each change of its state."""
    last: dict[str, str] = {}
    for record, event in history.records(NotifierSeen):
        if last.get(event.fingerprint) != event.state:
            last[event.fingerprint] = event.state
            silenced = f"; silenced by {', '.join(event.silenced_by)}" if event.silenced_by else ""
            yield _noted(record, f"Alertmanager holds {event.alert}: {event.state}", silenced[2:], "Alertmanager")


def _noted(record: Record, name: str, detail: str, source: str, at: Bounds | None = None) -> _Entry:
    return _Entry(at or Bounds.at(record.at), name, detail, source, (record.seq,))


def _of_event(record: Record) -> _Entry | None:  # noqa: C901 (one flat match over the closed set of events)
    match record.event:
        case RunStarted() as started:
            return _noted(record, "run started", f"profile {started.profile}, responder {started.responder}", "harness")
        case CheckDone(ok=False) as check:
            return _noted(record, f"preflight check failed: {check.name}", check.fact, "harness")
        case InjectionPlanned() as plan:
            return _noted(record, f"{plan.fault} planned", plan.summary, "harness")
        case UndoStored() as stored:
            return _noted(record, f"{stored.fault} undo record stored", stored.where, "API server reply")
        case InjectDone(outcome="failed") as failed:
            return _noted(record, f"{failed.fault} injection failed", failed.detail, "API server reply", failed.at)
        case FaultEnded() as over:
            return _noted(record, f"{over.fault} ended by itself", over.detail, "API server, by watch")
        case RestartPlanned() as restart:
            pods = f"{plural(len(restart.pods), 'pod')}, one at a time"
            name = f"restart of {restart.workload} to see whether the recovery outlasts it"
            return _noted(record, name, restart.detail or pods, "harness")
        case RestartDone(outcome="failed" | "unknown") as kept:
            return _noted(record, f"{kept.pod} not restarted yet", kept.detail, "API server reply", kept.at)
        case AlertTransition() as moved:
            return _noted(record, f"{moved.alert} {moved.to}", "", moved.source, moved.at)
        case PageReceived() as page:
            return _noted(
                record, f"page received: {page.alert} {page.status}", f"receiver {page.receiver}", page.source, page.at
            )
        case ResponderActed() as act:
            return _Entry(
                act.at, "responder acted", _act_detail(act, with_verb=True), act.source, (record.seq,),
                who=_kind(act.actor_kind), actor=act.actor, verified=act.verified,
            )  # fmt: skip
        case ChannelChanged() as channel:
            state = "regained" if channel.up else "lost"
            return _noted(record, f"channel {channel.channel} {state}", channel.detail, "harness")
        case SourceRestarted() as restarted:
            return _noted(record, f"{restarted.source} restarted", restarted.detail, "harness")
        case StopAsked() as stop:
            return _noted(record, f"stop asked by {stop.by}", stop.detail, "harness")
        case UndoDone() as undo:
            return _noted(
                record, f"{undo.fault} undo: {undone(undo.outcome)}", undo.detail, "API server reply", undo.at
            )
        case CleanChecked(clean=False) as dirty:
            left = "; ".join(dirty.differences)
            return _noted(record, "clean check: NOT clean", left, "comparison with the snapshots")
        case RunEnded() as ended:
            detail = ended.detail.removeprefix(f"{ended.reason}: ")
            return _noted(record, f"run ended: {ended.reason}", f"{detail} (by {ended.by})", "harness")
        case _:
            return None
