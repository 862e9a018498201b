"""Whether a recovery outlasts a restart: what was restarted to see that, and what came of it. Pure, from the history.

A fix that lives only in running pods (a limit that was raised in place, a value typed into a process) is gone with
the next restart. Where an experiment asks for it, a recovery counts when the run has restarted every pod of a
workload, one at a time, and the condition then holds for its whole window, with as many pods ready as before.

A restart may itself disturb what is measured. Where the condition was broken meanwhile, the recovery lies somewhere
between the one that was put to the test and the window that proves it, and its bounds say so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest

from harness.core.clock import Bounds, Instant
from harness.core.event import ChannelChanged, PodState, Record, RestartDone, RestartPlanned, RestartSeen
from harness.core.experiment import Condition, RestartProof
from harness.core.held import Since, held_since, may_have_held
from harness.core.history import History
from harness.core.quantity import format_duration
from harness.core.samples import samples

AGAIN_AFTER = 1.0
"""Seconds after which a deletion that failed is tried again."""
_SETTLED = frozenset({"done", "gone"})


@dataclass(frozen=True, slots=True)
class Attempt:
    """One test of a recovery. It is open until it stood, fell, or turned out to say nothing."""

    record: Record
    plan: RestartPlanned
    recovery: Since
    """What is put to the test."""
    following: int | None = None
    """The sequence number of the next attempt's plan, or of the run's first undo: what comes behind is not its own."""
    not_after: Instant | None = None
    """Since when an earlier attempt, which said nothing, had a recovery: this one may be the same."""
    stood: Since | None = None
    """Since when there is a recovery that outlasted the restart."""
    fell: str = ""
    """Why it did not."""
    void: str = ""
    """Why the attempt says neither."""
    over_at: Instant | None = None

    @property
    def is_open(self) -> bool:
        """Whether its outcome is still to come."""
        return self.stood is None and self.over_at is None


@dataclass(frozen=True, slots=True)
class Attempts:
    """Every test of the recovery of one incident."""

    all: tuple[Attempt, ...]
    since: Instant | None
    """From when on a recovery is looked for: the alert's firing, or when what the last attempt broke was mended; None
    while it is not."""
    untested: Since | None = None
    """A recovery that is still to be put to the test."""

    @property
    def last(self) -> Attempt | None:
        """The newest."""
        return self.all[-1] if self.all else None

    @property
    def stood(self) -> Since | None:
        """The recovery that outlasted a restart."""
        return self.last.stood if self.last is not None else None


def tested(
    history: History, alert: str, signal: str, condition: Condition, proof: RestartProof, not_before: Instant
) -> Attempts:
    """All attempts to prove the recovery of an alert's incident by a restart, and what is left to prove."""
    since: Instant | None = not_before
    found: list[Attempt] = []
    plans = [(record, plan) for record, plan in history.records(RestartPlanned) if plan.alert == alert]
    following = [record.seq for record, _ in plans[1:]]
    if history.undo_began is not None:  # what the run itself puts back is nobody's change
        following.append(history.undo_began.seq)
    for (record, plan), behind in zip_longest(plans, following[: len(plans)]):
        since = _mended(history, found[-1]) if found else since
        held = None if since is None else held_since(history, signal, condition, not_before=since)
        if held is None:
            continue
        attempt = Attempt(record, plan, held, behind, _said_nothing(found))
        found.append(_judged(history, attempt, signal, condition, proof))
        if found[-1].over_at is None:
            return Attempts(tuple(found), not_before)
    since = _mended(history, found[-1]) if found else since
    held = None if since is None else held_since(history, signal, condition, not_before=since)
    return Attempts(tuple(found), since, held)


def _said_nothing(found: list[Attempt]) -> Instant | None:
    """The earliest instant of the recoveries that were put to a test without an answer, since the last one that fell.
    Nobody is charged for a test of ours that failed."""
    since: Instant | None = None
    for attempt in found:
        earliest = attempt.recovery.at.earliest
        since = None if attempt.fell else earliest if since is None else min(since, earliest)
    return since


def doubt(history: History, outcome: Attempts, signal: str, condition: Condition) -> str:
    """Why it is not known whether there was a recovery that outlasts a restart; "" where it is known. To be asked where
    none is known to have stood."""
    if outcome.untested is not None:
        return "what looks like it was never put to the test of a restart"
    last = outcome.last
    if last is not None and last.is_open:
        return f"the restart of {last.plan.workload} that was to prove it was not over"
    if last is not None and last.void:
        return f"the restart of {last.plan.workload} that was to prove it says nothing: {last.void}"
    if outcome.since is None:
        return ""
    return may_have_held(history, signal, condition, not_before=outcome.since)


def next_pod(history: History, attempt: Attempt, proof: RestartProof, now: Instant) -> PodState | None:
    """The pod that is to be restarted now; None while the one before is not back, where it was not in time, and where
    all were."""
    ends = _ends(history, attempt)
    left = [pod for pod in attempt.plan.pods if pod.uid not in _settled(ends)]
    if not left:
        return None
    tried = [record.at for record, event in ends if event.uid == left[0].uid]
    if tried and now - tried[-1] < AGAIN_AFTER:
        return None
    states = _states(history, attempt)
    if len(left) < len(attempt.plan.pods) and not (states and _is_well(states[-1][1], attempt, _settled(ends))):
        return None
    return left[0] if now < _deadline(attempt, ends, proof) else None


def _judged(history: History, attempt: Attempt, signal: str, condition: Condition, proof: RestartProof) -> Attempt:
    plan, ends = attempt.plan, _ends(history, attempt)
    deadline = _deadline(attempt, ends, proof)
    changed = _changed(history, attempt)
    known_until = float("inf") if changed is None else changed
    for begin, end in _well(history, attempt):
        again = held_since(history, signal, condition, not_before=begin)
        if again is None:
            break
        if again.at.latest <= deadline and again.at.latest + condition.for_ <= min(end, known_until):
            return replace(attempt, stood=_stood(history, attempt, again, signal, condition))
    told = samples(history, signal)
    over_at = deadline + condition.for_
    if changed is not None and changed <= over_at:
        return replace(attempt, void=f"{plan.workload} was changed meanwhile", over_at=changed)
    if not told or told[-1].at < over_at:
        return attempt
    fell, void = _why(history, attempt, over_at, condition, proof)
    return replace(attempt, fell=fell, void=void, over_at=over_at)


def _deadline(attempt: Attempt, ends: list[tuple[Record, RestartDone]], proof: RestartProof) -> Instant:
    begun = [record.at for record, event in ends if event.outcome in _SETTLED]
    return max([attempt.record.at, *begun]) + proof.within


def _stood(history: History, attempt: Attempt, again: Since, signal: str, condition: Condition) -> Since:
    held, plan = attempt.recovery, attempt.plan
    between = [one for one in samples(history, signal) if held.at.latest <= one.at <= again.at.latest]
    disturbed = any(one.hole or one.value is None or not condition.holds(one.value) for one in between)
    evidence = (*held.evidence, attempt.record.seq, again.evidence[-1])
    note = f"{held.note}; it outlasted a restart of {plan.workload}"
    earliest = held.at.earliest
    if attempt.not_after is not None and attempt.not_after < earliest:
        earliest = attempt.not_after
        note += "; an earlier test said nothing, so it may have begun before that"
    if not disturbed:
        return Since(Bounds(earliest=earliest, latest=held.at.latest), held.source, evidence, note)
    at = Bounds(earliest=earliest, latest=again.at.latest)
    return Since(at, held.source, evidence, f"{note}, which disturbed what is measured: it lies before or behind it")


def _why(
    history: History, attempt: Attempt, over_at: Instant, condition: Condition, proof: RestartProof
) -> tuple[str, str]:
    """Why a recovery did not outlast the restart, or why the attempt does not tell."""
    plan = attempt.plan
    if not plan.pods:
        return "", plan.detail or f"{plan.workload} has no pods"
    ends = [(record, event) for record, event in _ends(history, attempt) if record.at <= over_at]
    states = [pods for at, pods in _states(history, attempt) if at <= over_at]
    if ends and ends[-1][1].outcome not in _SETTLED:
        return "", f"{ends[-1][1].pod} could not be restarted: {ends[-1][1].detail}"
    if not states or states[-1] is None:
        return "", "its pods were not seen"
    within = format_duration(proof.within)
    settled = _settled(ends)
    if not _is_well(states[-1], attempt, settled):
        staying = [pod for pod in states[-1] if not pod.leaving]
        if staying and len(staying) < plan.ready and all(pod.ready for pod in staying):
            return "", f"it has {len(staying)} pods by now, all ready, where {plan.ready} had been: it was scaled"
        ready = sum(pod.ready for pod in states[-1])
        waiting = sorted({pod.waiting for pod in states[-1] if pod.waiting and not pod.ready})
        named = f" ({', '.join(waiting)})" if waiting else ""
        restarted = f"{len(settled)} of {len(plan.pods)} pods were restarted"
        return f"{restarted}, and {within} later {ready} were ready where {plan.ready} had been{named}", ""
    return f"{condition} did not come to hold within {within} of the last pod's restart", ""


def _ends(history: History, attempt: Attempt) -> list[tuple[Record, RestartDone]]:
    return [
        (record, event)
        for record, event in history.records(RestartDone)
        if event.alert == attempt.plan.alert and _is_of(record, attempt)
    ]


def _is_of(record: Record, attempt: Attempt) -> bool:
    return record.seq > attempt.record.seq and (attempt.following is None or record.seq < attempt.following)


def _settled(ends: list[tuple[Record, RestartDone]]) -> frozenset[str]:
    return frozenset(event.uid for _, event in ends if event.outcome in _SETTLED)


def _states(history: History, attempt: Attempt) -> list[tuple[Instant, tuple[PodState, ...] | None]]:
    """The workload's pods after every change while the attempt was the newest, oldest first; None while the watch of
    them was lost. A watch that is back tells only what is new."""
    workload = attempt.plan.workload
    watch = [(r, e) for r, e in history.records(ChannelChanged) if e.channel == watch_of(workload)]
    told = [(r, e) for r, e in history.records(RestartSeen) if e.workload == workload]
    found: list[tuple[Instant, tuple[PodState, ...] | None]] = []
    last: tuple[PodState, ...] | None = None
    for record in sorted((one for one, _ in (*watch, *told)), key=lambda one: one.seq):
        if not _is_of(record, attempt):
            continue
        event = record.event
        last = event.pods if isinstance(event, RestartSeen) else last
        is_lost = isinstance(event, ChannelChanged) and not event.up
        found.append((record.at, None if is_lost else last))
    return found


def watch_of(workload: str) -> str:
    """The channel under which the watch of a restarted workload's pods tells that it is lost."""
    return f"pods of {workload}"


def _mended(history: History, attempt: Attempt) -> Instant | None:
    """Since when, after an attempt and as it was known when the next one began, no pod of the workload is limping; None
    where one is. What a restart has broken is no recovery before somebody has mended it, and is not restarted again:
    each further test would only break more."""
    over_at = attempt.record.at if attempt.over_at is None else attempt.over_at
    since: Instant | None = over_at
    for at, pods in _states(history, attempt):
        if pods is None or not all(pod.ready or pod.leaving for pod in pods):
            since = None
        elif since is None:
            since = max(at, over_at)
    return since


def _is_well(pods: tuple[PodState, ...] | None, attempt: Attempt, restarted: frozenset[str]) -> bool:
    """Whether the restarted pods are gone or on their way, and as many are ready as were before."""
    if pods is None:
        return False
    left = any(pod.uid in restarted and not pod.leaving for pod in pods)
    return not left and sum(pod.ready for pod in pods) >= max(1, attempt.plan.ready)


def _well(history: History, attempt: Attempt) -> list[tuple[Instant, Instant]]:
    """From when until when, after all its pods were restarted, the workload was well; the last may be without end."""
    ends = _ends(history, attempt)
    settled = _settled(ends)
    if not attempt.plan.pods or any(pod.uid not in settled for pod in attempt.plan.pods):
        return []
    since = ends[-1][0].at
    found: list[tuple[Instant, Instant]] = []
    begun: Instant | None = None
    for at, pods in _states(history, attempt):
        well = _is_well(pods, attempt, settled)
        if well and begun is None:
            begun = max(at, since)
        elif not well and begun is not None:
            found += [(begun, at)] if at > begun else []
            begun = None
    return found if begun is None else [*found, (begun, float("inf"))]


def _changed(history: History, attempt: Attempt) -> Instant | None:
    """When a pod was first seen that was made from another template than those before: somebody changed the workload,
    and what is seen from then on says nothing of the recovery that is put to the test."""
    known = {pod.template for pod in attempt.plan.pods}
    for at, pods in _states(history, attempt):
        if any(pod.template not in known and not pod.leaving for pod in pods or ()):
            return at
    return None
