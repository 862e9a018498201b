"""The loop: observe, decide, journal the intent, act, journal the outcome.

This is the only writer of a run's journal and the only caller of a fault's `apply` and `undo` during a run. Whatever
happens in here, including a bug or a full disk, ends with an attempt to undo every fault that may be in force; what
cannot be undone is left with its record in the cluster for whoever comes next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from harness.core.clock import Bounds, Clock, Instant
from harness.core.decide import API_SERVER, LOCK, UNDO_FOR, Intent, decide
from harness.core.errors import DrillError, Refused, RollbackIncomplete, Unreachable
from harness.core.event import (
    CleanChecked,
    Decided,
    EffectProved,
    Event,
    FaultEnded,
    InjectDone,
    InjectionPlanned,
    InjectStarted,
    ObjectSeen,
    PodsSeen,
    Record,
    RestartDone,
    RestartPlanned,
    RestartStarted,
    RunEnded,
    SignalRead,
    StopAsked,
    UndoDone,
    UndoStarted,
    UndoStored,
)
from harness.core.evidence import evidence
from harness.core.experiment import AnyExperiment, FaultSpec, Profile, effect_signal
from harness.core.history import History, entry
from harness.engine import fence, restarts, undo_records
from harness.engine.lease import Lease
from harness.ports.cluster import AlreadyExists, Cluster, Conflict, Forbidden, Invalid, Json, NotFound
from harness.ports.fault import Chooses, Fault, Plan, Prepares, ShowsInObject, rehearse
from harness.ports.feed import Feed
from harness.ports.journal import Journal

_RETRY_MAX = 10.0


class Recorder:
    """Journal and history in step: an event is durable before anybody may act upon it."""

    def __init__(self, journal: Journal, history: History, clock: Clock, on_event: Callable[[Record], None]) -> None:
        self._journal = journal
        self._clock = clock
        self._on_event = on_event
        self.history = history

    def add(self, event: Event) -> Record:
        """Append one event. Raises Internal where it could not be made durable."""
        record = entry(self.history, event, self._clock.now())
        self._journal.append(record)
        self.history.append(record)
        self._on_event(record)
        return record


@dataclass(frozen=True, slots=True)
class Context:
    """Everything a run acts with."""

    experiment: AnyExperiment
    profile: Profile
    run_id: str
    cluster: Cluster
    clock: Clock
    feed: Feed
    faults: Mapping[str, Fault[Any]]
    """Implementations by kind."""
    on_tick: Callable[[Instant], None]
    on_injected: Callable[[str], None]
    """Called with a fault's id just before its write is sent, so that its observers run."""
    on_restart: Callable[[RestartPlanned], None]
    """Called with what is about to be restarted, before it is, so that it is watched."""
    lock: Lease
    """Held by this run. Nothing is written to a target unless it was renewed just before."""
    undo_for: float = UNDO_FOR
    """Seconds for which a failing undo is tried again."""


class Runner:
    """One run after its preflight."""

    def __init__(self, context: Context, recorder: Recorder) -> None:
        self._context = context
        self._recorder = recorder
        self._failures = 0

    @property
    def _history(self) -> History:
        return self._recorder.history

    def run(self) -> None:
        """Run to the end. On return the run has ended in the journal; an error is raised after the undo."""
        try:
            self._loop()
        except BaseException as error:
            self._emergency(error)
            raise

    def _loop(self) -> None:
        context = self._context
        while True:
            now = context.clock.now()
            decision = decide(context.experiment, context.profile, self._history, now, context.undo_for)
            for intent in decision.intents:
                self._note(intent, decision.why)
                self._act(intent, decision.why)
                if intent.do == "end":
                    context.on_tick(context.clock.now())
                    return
            context.on_tick(context.clock.now())
            if decision.intents and decision.wake_at <= now:
                self._drain(context.clock.now())
            else:
                self._drain(decision.wake_at)

    def _note(self, intent: Intent, why: str) -> None:
        last = self._history.last(Decided)
        if last is None or (last.intent, last.why) != (str(intent), why):
            self._recorder.add(Decided(intent=str(intent), why=why))

    def _drain(self, until: Instant) -> None:
        """Record the next observation, waiting for it until `until`, and everything that is queued behind it."""
        event = self._context.feed.next(until)
        while event is not None:
            self._observe(event)
            event = self._context.feed.next(0.0)

    def _observe(self, event: Event) -> None:
        self._recorder.add(event)
        for spec in self._context.experiment.faults:
            told = isinstance(event, PodsSeen | ObjectSeen) and event.fault == spec.id
            if told or (isinstance(event, SignalRead) and event.signal == effect_signal(spec.id)):
                self._prove(spec)
            if told and isinstance(event, ObjectSeen):
                self._look_for_its_end(spec, event)

    def _look_for_its_end(self, spec: FaultSpec, seen: ObjectSeen) -> None:
        fault, history = self._context.faults[spec.kind], self._history
        if not isinstance(fault, ShowsInObject) or history.undo_began is not None:
            return
        why = fault.ended(history.plans()[spec.id].undo, seen)
        if why and all(event.fault != spec.id for event in history.all(FaultEnded)):
            self._recorder.add(FaultEnded(fault=spec.id, detail=why))

    def _prove(self, spec: FaultSpec) -> None:
        if any(e.fault == spec.id for e in self._history.all(EffectProved)):
            return
        found = evidence(spec, self._history)
        proof = None if found is None else self._context.faults[spec.kind].proof(spec, found)
        if proof is not None:
            self._recorder.add(EffectProved(fault=spec.id, at=proof.at, proof=proof.proof, evidence=proof.evidence))

    def _act(self, intent: Intent, why: str) -> None:
        match intent.do:
            case "inject":
                self._inject(intent.fault)
            case "plan_restart":
                self._plan_restart(intent.alert)
            case "restart":
                self._restart(intent.alert, intent.uid)
            case "undo":
                self._undo(intent.fault)
            case "check_clean":
                self._check_clean()
            case "end":
                self._discard_records()
                self._recorder.add(RunEnded(reason=intent.reason or "error", detail=why))

    def _inject(self, fault_id: str) -> None:
        context = self._context
        plan, refused = self._rehearsed(self._history.plans()[fault_id])
        if refused:
            # Nothing is stored: who found a way back here would look for what was never there.
            now = Bounds.at(context.clock.now())
            self._recorder.add(InjectDone(fault=fault_id, outcome="failed", at=now, detail=refused))
            return
        order = list(self._history.plans()).index(fault_id)
        stored = undo_records.store(
            context.cluster, context.experiment.namespace, context.run_id, fault_id, plan.kind, plan.undo, order,
            overdue_after=context.profile.timeout + undo_records.OVERDUE_GRACE,
        )  # fmt: skip
        self._recorder.add(UndoStored(fault=fault_id, where=stored.where))
        if not self._may_prepare(plan):
            return
        versions = self._look(plan, stored.owner)
        if not self._holds("injecting"):
            return
        context.on_injected(fault_id)
        before = self._recorder.add(InjectStarted(fault=fault_id)).at
        landed: fence.Landed = {}
        outcome, detail = self._write(plan, versions, stored.owner, landed)
        at, deleted = Bounds(earliest=before, latest=context.clock.now()), fence.deleted(landed)
        self._recorder.add(InjectDone(fault=fault_id, outcome=outcome, at=at, detail=detail, deleted=deleted))
        # Whoever was held up between the renewal and the write learns here that the lock went to somebody else.
        self._holds("observing")

    def _plan_restart(self, alert: str) -> None:
        context, proof = self._context, self._context.experiment.restart_proofs()[alert]
        plan = restarts.plan(context.cluster, context.experiment.namespace, alert, proof.of)
        self._recorder.add(plan)
        if plan.pods:
            context.on_restart(plan)

    def _restart(self, alert: str, uid: str) -> None:
        """Delete a pod that its controller makes anew. There is nothing to undo; the lock is asked for all the same."""
        if not self._holds("observing"):
            return
        plan = next(plan for plan in reversed(self._history.all(RestartPlanned)) if plan.alert == alert)
        pod = next(pod for pod in plan.pods if pod.uid == uid)
        before = self._recorder.add(RestartStarted(alert=alert, pod=pod.name, uid=uid)).at
        outcome, detail = restarts.delete(self._context.cluster, self._context.experiment.namespace, pod)
        at = Bounds(earliest=before, latest=self._context.clock.now())
        self._recorder.add(RestartDone(alert=alert, pod=pod.name, uid=uid, outcome=outcome, at=at, detail=detail))

    def _rehearsed(self, plan: InjectionPlanned) -> tuple[InjectionPlanned, str]:
        """The plan as it is to be carried out, which was made long ago, perhaps; and why it cannot be, because the
        target is not what it was then, or ""."""
        fault, cluster = self._context.faults[plan.kind], self._context.cluster
        if isinstance(fault, Chooses):
            try:
                again = fault.choose(plan.undo, cluster)
            except DrillError as error:
                return plan, error.fact  # nothing behind this would stop the old choice
            if again is not None:
                plan = planned(plan.fault, plan.kind, again)
                self._recorder.add(plan)
        try:
            rehearse(fault, plan.undo, cluster)
        except (Conflict, NotFound) as error:
            return plan, error.fact
        except DrillError:
            return plan, ""  # it is told where it stops the write
        return plan, ""

    def _may_prepare(self, plan: InjectionPlanned) -> bool:
        """Whether what the write needs may be made, where it needs anything: that is a write already."""
        return not isinstance(self._context.faults[plan.kind], Prepares) or self._holds("injecting")

    def _look(
        self, plan: InjectionPlanned, owner: Json, landed: fence.Landed | None = None
    ) -> fence.Versions | DrillError:
        fault, cluster = self._context.faults[plan.kind], self._context.cluster
        try:
            fence.prepare(fault, plan.undo, cluster, owner)
            return fence.look(fault, plan.undo, cluster, landed)
        except DrillError as error:
            return error

    def _write(
        self, plan: InjectionPlanned, versions: fence.Versions | DrillError, owner: Json, landed: fence.Landed
    ) -> tuple[Literal["done", "failed", "unknown"], str]:
        """Write at the versions that were looked at before the lock was renewed; how it ended, and its detail.
        What took effect is added to `landed`.

        Targets also change by nobody's doing, in their status: then that one was not written to, and look, renewal and
        write are made once more. Where one of several writes has landed and another did not, the fault is in force in
        part, and has not failed.
        """
        context, detail = self._context, ""
        for _ in range(fence.ATTEMPTS):
            if isinstance(versions, DrillError):
                detail = versions.fact  # a dry run has written nothing, and what was prepared breaks nothing
                break
            try:
                fence.apply(context.faults[plan.kind], plan.undo, context.cluster, versions, landed, owner)
            except Conflict as error:
                detail = error.fact
            except (AlreadyExists, Forbidden, Invalid, NotFound) as error:
                detail = error.fact
                break
            except Unreachable as error:
                return "unknown", error.fact
            else:
                return "done", ""
            if not self._may_prepare(plan):
                break
            versions = self._look(plan, owner, landed)
            if not self._holds("injecting"):
                break
        if landed:
            done = ", ".join(f"{verb} {ref}" for verb, ref in landed)
            return "unknown", f"in force in part ({done}): {detail}"
        return "failed", detail

    def _holds(self, phase: str) -> bool:
        """Renew the lock and say what comes next; where that fails the run is asked to stop."""
        try:
            self._context.lock.hold(phase)
        except DrillError as error:
            by = API_SERVER if isinstance(error, Unreachable) else LOCK
            self._recorder.add(StopAsked(by=by, detail=error.fact))
            return False
        return True

    def _undo(self, fault_id: str) -> None:
        context = self._context
        before = self._recorder.add(UndoStarted(fault=fault_id)).at
        try:
            outcome, detail = self._bring_back(fault_id)
        except Forbidden as error:
            # Asking again will not help, and keeping the lock would keep those away who may.
            outcome, detail = "refused", error.fact
        except DrillError as error:
            # Unreachable, a lock in other hands, anything: the fault stays open and is tried again after a pause.
            self._recorder.add(_undone(fault_id, "failed", before, context.clock.now(), error.fact))
            self._failures += 1
            self._drain(context.clock.now() + min(_RETRY_MAX, 0.5 * 2**self._failures))
            return
        self._failures = 0
        self._recorder.add(_undone(fault_id, outcome, before, context.clock.now(), detail))

    def _bring_back(self, fault_id: str) -> tuple[str, str]:
        """Undo under the lock; the outcome and its detail.

        A run that lost the lock must not undo: by now the fault in force may be another run's. Whoever has the lock
        undoes what this run left before anything else, and removes the record when it is back.
        """
        context = self._context
        try:
            context.lock.regain("rolling back")
        except Forbidden:
            raise
        except Refused as error:
            if undo_records.exists(context.cluster, context.experiment.namespace, context.run_id, fault_id):
                raise
            return "taken over", f"{error.fact}, and has removed this fault's undo record"
        plan = self._history.plans()[fault_id]
        fault = context.faults[plan.kind]
        # A write that was answered is not on its way any more.
        answered = any(done.fault == fault_id and done.outcome == "done" for done in self._history.all(InjectDone))
        done = (fault.undo if answered else partial(fence.bring_back, fault))(plan.undo, context.cluster)
        return done.outcome, done.detail

    def _check_clean(self) -> None:
        context = self._context
        left: list[str] = []
        try:
            for fault_id, plan in self._history.plans().items():
                if fault_id in self._history.taken_over() | self._history.untouched():
                    continue
                left += context.faults[plan.kind].differences(plan.undo, context.cluster)
        except DrillError as error:
            left.append(f"could not be compared: {error.fact}")
        self._recorder.add(CleanChecked(clean=not left, differences=tuple(left)))

    def _discard_records(self) -> None:
        """Delete the records of what is proved clean or was never in force; a record that stays blocks the next run, as
        it should."""
        context, history = self._context, self._history
        proved = history.is_clean is True and not history.open_faults()
        for stored in history.all(UndoStored):
            if stored.fault not in history.untouched() and (not proved or stored.fault in history.taken_over()):
                continue
            try:
                undo_records.discard_run(context.cluster, context.experiment.namespace, context.run_id, stored.fault)
            except DrillError:
                return  # whoever comes next finds it, sees that all is clean, and removes it

    def _emergency(self, error: BaseException) -> None:
        """The loop broke: undo what may be open, with the journal if it still works and without if not."""
        context = self._context
        left: list[str] = []
        for fault_id in reversed(self._history.open_faults()):
            before = context.clock.now()
            try:
                outcome, detail = self._bring_back(fault_id)
                if outcome == "refused":
                    left.append(f"{fault_id}: {detail}")
                self._try_add(_undone(fault_id, outcome, before, context.clock.now(), detail))
            except Exception as failure:  # noqa: BLE001 - every fault must be tried, whatever the one before did
                left.append(f"{fault_id}: {failure}")
        self._try_add(RunEnded(reason="error", detail=f"{type(error).__name__}: {error}"))
        if left:
            raise RollbackIncomplete(
                "rollback-incomplete",
                f"the run broke ({error!r}) and could not be undone: {'; '.join(left)}",
                expected="the cluster as it was",
                remedy="run `drill recover`; the undo records are in the cluster",
            ) from error

    def _try_add(self, event: Event) -> None:
        try:
            self._recorder.add(event)
        except Exception:  # noqa: BLE001 - the journal may be what broke; the undo must go on without it
            return


def planned(fault_id: str, kind: str, plan: Plan) -> InjectionPlanned:
    """The event for a plan."""
    return InjectionPlanned(fault=fault_id, kind=kind, summary=plan.summary, changes=plan.changes, undo=plan.undo)


def _undone(fault: str, outcome: str, before: Instant, after: Instant, detail: str) -> UndoDone:
    at = Bounds(earliest=before, latest=max(before, after))
    return UndoDone(fault=fault, outcome=outcome, at=at, detail=detail)
