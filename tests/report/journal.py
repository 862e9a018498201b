"""Journals to make reports from: a drill as the harness writes it, and the hand-written record of 2025-11-04."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

from harness.core.clock import Bounds, parse_utc
from harness.core.event import (
    Action,
    AlertingRead,
    AlertTransition,
    Change,
    CheckDone,
    CleanChecked,
    ClockCompared,
    EffectProved,
    Event,
    InjectDone,
    InjectionPlanned,
    InjectStarted,
    NotifierSeen,
    PageReceived,
    PhaseTimed,
    PodsSeen,
    PodState,
    ResponderActed,
    RunEnded,
    RunStarted,
    SignalRead,
    UndoDone,
    UndoStarted,
    UndoStored,
)
from harness.core.experiment import AnyExperiment, Experiment, FaultSpec
from harness.core.history import History, entry

DEPTH = "max(nova_queue_depth)"
FIRED = parse_utc("2025-11-04T14:15:00Z")


class Writer:
    """A history that is written one event at a time, at seconds from the firing."""

    def __init__(self) -> None:
        self.history = History()

    def add(self, at: float, *events: Event) -> int:
        for event in events:
            self.history.append(entry(self.history, event, FIRED + at))
        return len(self.history) - 1


def experiment(**changes: Any) -> AnyExperiment:
    body: dict[str, Any] = {
        "name": "oom-workers",
        "title": "Morning rush: queue backlog from worker crashes",
        "why": {"probability": "high", "tests": ["queue", "workers", "escalation", "client communication"]},
        "namespace": "nova-staging",
        "narrative": "Monday 9:15, clients' peak hour.\n\nHighQueueDepth pages the first line; enhancements are late.",
        "facilitator": {"root_cause": {"object": "deployment/worker", "reason": "memory limit lowered"}},
        "roles": {"l1": ["alice"], "l2": ["emma"], "engineering": ["tom"]},
        "severity": "P1",
        "signal": {"query": DEPTH, "title": "Queue depth", "unit": "jobs"},
        "steady_state": [{"name": "queue is short", "query": DEPTH, "below": 20, "for": "10s"}],
        "faults": [{"id": "memory", "kind": "memory-limit", "blast_radius": {"pods": 5}}],
        "alerts": [{"name": "HighQueueDepth", "within": "3m", "of": "memory.effective"}],
        "mitigated": {"query": "deriv(nova_queue_depth[30s])", "below": 0, "for": "10s"},
        "recovered": {"query": DEPTH, "below": 20, "for": "15s"},
        "must_hold": [{"name": "spend stays under budget", "query": "nova_budget_spent_ratio", "below": 1}],
        "slas": [
            {"from": "firing", "to": "acknowledged", "within": "5m", "required": True},
            {"from": "firing", "to": "assessed", "within": "10m"},
            {"from": "firing", "to": "l2.joined", "within": "15m"},
            {"from": "firing", "to": "engineering.joined", "within": "30m"},
            {"from": "firing", "to": "client.notified", "within": "30m"},
            {"from": "firing", "to": "mitigated", "within": "20m", "required": True},
            {"from": "firing", "to": "recovered", "within": "60m", "required": True},
        ],
        "runbook": "runbooks/high-queue-depth.md",
        "autopilot": {
            "responses": [{"look_at": "deployment/worker", "steps": [{"do": "restore-memory-limit", "limit": "128Mi"}]}]
        },
        "profiles": {
            "smoke": {"timeout": "10m"},
            "gameday": {"timeout": "90m", "responder": "human"},
        },
    }
    return Experiment[FaultSpec].model_validate({**body, **changes})


def started(responder: Literal["autopilot", "human"] = "autopilot", profile: str = "smoke") -> RunStarted:
    tuned = experiment().as_data()
    return RunStarted(
        run_id="oom-workers-20251104-141425", experiment=tuned, experiment_path="/somewhere/private/oom-workers.yaml",
        digest="9f2c" * 16, profile=profile, responder=responder, harness_version="0.1.0",
        cluster={"name": "kind-drill", "version": "v1.34.4"}, identity="drill-runner",
    )  # fmt: skip


def pods(ready: int, killed: int = 0, total: int = 5, limit: str = "48Mi") -> PodsSeen:
    states = tuple(
        PodState(
            name=f"worker-7c9d5b-{'abcde'[i]}", uid=f"uid-{i}", ready=i >= total - ready,
            restarts=1 if i < killed else 0,
            waiting="CrashLoopBackOff" if i < killed else "", oom_kills=1 if i < killed else 0,
            oom_killed_at=FIRED - 31.0 + i if i < killed else None, memory_limit=limit,
        )
        for i in range(total)
    )  # fmt: skip
    return PodsSeen(fault="memory", pods=states)


def act(
    action: Action, at: float, text: str = "", *, role: str = "", actor: str = "system:serviceaccount:drill:autopilot",
    kind: Literal["human", "automation"] = "automation", verified: str = "admission policy", width: float = 0.0,
    **more: Any,
) -> ResponderActed:  # fmt: skip
    return ResponderActed(
        key=f"{action}-{role}-{at}", action=action, actor=actor, actor_kind=kind, verified=verified,
        at=Bounds(earliest=FIRED + at - width, latest=FIRED + at), source=f"message drill-{action.replace('_', '-')}",
        role=role, text=text, **more,
    )  # fmt: skip


def transition(
    to: Literal["pending", "firing", "resolved"], at: float, alert: str = "HighQueueDepth"
) -> AlertTransition:
    stamp = FIRED + at
    return AlertTransition(
        alert=alert, to=to, at=Bounds(earliest=stamp - 0.004, latest=stamp + 0.004), evaluation=stamp,
        labels={"severity": "page"}, source="Prometheus: ALERTS samples",
    )  # fmt: skip


def signal(
    name: str, points: Iterable[tuple[float, float | None]], resolution: float = 2.0, step: float = 0.0
) -> SignalRead:
    samples = tuple((FIRED + at, value) for at, value in points)
    return SignalRead(signal=name, samples=samples, resolution=resolution, step=step)


def depth(at: float) -> float:
    """A queue that is short, fills from -30 s on, and drains from 20 s on."""
    if at < -28:
        return 6 + 2 * math.sin(at)
    if at < 20:
        return 6 + (at + 28) * 2.9
    return max(4.0, 145 - (at - 20) * 2.6)


def preflight(writer: Writer, responder: Literal["autopilot", "human"] = "autopilot", profile: str = "smoke") -> None:
    writer.add(-52, started(responder, profile))
    writer.add(-51, PhaseTimed(phase="cluster created", seconds=41.2), PhaseTimed(phase="staging ready", seconds=18.75))
    writer.add(
        -50,
        ClockCompared(peer="API server", offset=Bounds(earliest=-0.4, latest=0.6), method="Date header"),
        ClockCompared(peer="Prometheus", offset=Bounds(earliest=-0.004, latest=0.004), method="time() and round trip"),
        CheckDone(name="lease is free", ok=True, fact="no other run holds nova-staging"),
        CheckDone(name="queue is short", ok=True, fact="below 20 for 10 s"),
        AlertingRead(
            alert="HighQueueDepth", group="nova", file="/etc/prometheus/rules/nova.yaml", query=f"{DEPTH} > 50",
            for_seconds=10.0, evaluation_interval=2.0, scrape_interval=2.0, group_wait=1.0, group_interval=5.0,
            receiver="pager", labels={"severity": "page"}, runbook_url="https://example.invalid/high-queue-depth.md",
            floor=Bounds(earliest=10.0, latest=14.0),
        ),
    )  # fmt: skip


def injected(writer: Writer) -> None:
    change = Change(
        object="deployment/worker", path="spec.template.spec.containers[worker].resources.limits.memory",
        before="128Mi", after="48Mi",
    )  # fmt: skip
    writer.add(
        -36,
        InjectionPlanned(fault="memory", kind="memory-limit", summary="lower the memory limit of deployment/worker",
                         changes=(change,), undo={"name": "worker"}),
        UndoStored(fault="memory", where="configmap/drill-undo-memory"),
        pods(5, limit="128Mi"),
        InjectStarted(fault="memory"),
    )  # fmt: skip
    writer.add(-35, InjectDone(fault="memory", outcome="done", at=Bounds(earliest=FIRED - 35.04, latest=FIRED - 35.0)))
    writer.add(-30.4, pods(4, 1))
    writer.add(-29.3, pods(3, 2))
    proof = writer.add(-28.2, pods(2, 3))
    at = Bounds(earliest=FIRED - 29.0, latest=FIRED - 28.2)
    words = "3 pods with limit 48Mi were OOM-killed, 2 left ready (pod status)"
    writer.add(-28.2, EffectProved(fault="memory", at=at, proof=words, evidence=(proof,)))


def paged(writer: Writer, at: float = 1.1) -> None:
    writer.add(
        at,
        transition("firing", 0),
        NotifierSeen(alert="HighQueueDepth", fingerprint="ab12", state="active", starts_at=FIRED),
        PageReceived(
            alert="HighQueueDepth", status="firing", at=Bounds(earliest=FIRED + at - 0.02, latest=FIRED + at),
            starts_at=FIRED, receiver="pager", source="pager webhook",
        ),
    )  # fmt: skip


def oom_workers() -> History:
    """An unattended run in which everything goes well."""
    writer = Writer()
    preflight(writer)
    injected(writer)
    writer.add(-10, transition("pending", -10))
    paged(writer)
    writer.add(3, act("acknowledged", 2.6, width=0.6))
    writer.add(4, act("assessed", 3.6, "P1: clients wait", width=0.6))
    writer.add(5, act("looked", 4.7, "pods of deployment/worker", width=0.6))
    writer.add(6, act("escalated", 5.6, "workers crash", role="l2", width=0.6))
    writer.add(7, act("joined", 6.6, role="l2", width=0.6))
    writer.add(8, act("joined", 7.6, role="engineering", width=0.6))
    writer.add(9, act("notified", 8.7, "We see delays and are looking into them.", width=0.6))
    writer.add(11, act("root_cause", 10.6, "deployment/worker: its memory limit is too low", width=0.6))
    writer.add(13, act("fix_applied", 12.6, "memory limit back to 128Mi", width=0.6))
    writer.add(14.2, pods(3, limit="128Mi"))
    writer.add(16.8, pods(5, limit="128Mi"))
    grid = [float(t) for t in range(-50, 93)]
    writer.add(92, signal("curve", ((t, depth(t)) for t in grid), step=1.0))
    writer.add(92, signal("mitigated", ((t, 2.9 if t < 22 else -2.6) for t in grid if t >= 0), step=1.0))
    writer.add(92, signal("recovered", ((t, depth(t)) for t in grid if t >= 0), step=1.0))
    writer.add(92, signal("guard: spend stays under budget", ((t, 0.42) for t in grid), step=1.0))
    writer.add(92, transition("resolved", 58))
    writer.add(93, act("all_clear", 92.8, "All work is processed normally again.", width=0.6))
    writer.add(94, UndoStarted(fault="memory"))
    undone = "deployment/worker was found at 128Mi, as before the fault"
    writer.add(94.2, UndoDone(fault="memory", outcome="already", at=Bounds.at(FIRED + 94.2), detail=undone))
    writer.add(94.6, CleanChecked(clean=True))
    writer.add(94.7, RunEnded(reason="complete", detail="every clock has stopped and the alert is resolved"))
    return writer.history


def support_readiness() -> History:
    """The record of 2025-11-04, as a journal: each line of its timeline at the minute that it gives.

    Two things are told apart that the record ran together: engineering was paged at 10 minutes and joined at 15, and
    a root cause at 18 minutes is not a queue that falls, which it did at 28.
    """
    writer = Writer()
    preflight(writer, "human", "gameday")
    injected(writer)
    writer.add(-10, transition("pending", -10))
    paged(writer, 1.0)

    def person(action: Action, minute: float, actor: str, text: str = "", role: str = "") -> None:
        writer.add(minute * 60 + 1, act(action, minute * 60, text, role=role, actor=actor, kind="human"))

    person("acknowledged", 2, "alice")
    person("looked", 3, "alice", "kubectl get pods: 3 of 5 workers in CrashLoopBackOff")
    person("assessed", 3, "alice", "P1 incident: workers crash, the queue builds up")
    person("escalated", 7, "alice", "scaling to 10 does not help", "l2")
    person("joined", 7, "emma", role="l2")
    person("escalated", 10, "emma", "", "engineering")
    person("joined", 15, "tom", role="engineering")
    person("notified", 15, "emma", "We are experiencing temporary delays in enhancement delivery.")
    person("root_cause", 18, "tom", "OOMKilled: the deployment/worker memory limit was lowered")
    person("fix_applied", 23, "tom", "memory limit reverted")
    grid = [float(t) for t in range(52 * 60)]
    slope = ((t, -1.0 if t >= 28 * 60 else 1.5) for t in grid)
    queue = [(t, 95.0 if t < 28 * 60 else max(17.0, 95 - (t - 28 * 60) * 0.07357)) for t in grid]
    writer.add(3120, signal("mitigated", slope, step=1.0, resolution=0.0))
    writer.add(3120, signal("curve", queue, step=1.0), signal("recovered", queue, step=1.0, resolution=0.0))
    writer.add(3120, signal("guard: spend stays under budget", ((t, 0.5) for t in grid), step=1.0))
    writer.add(3121, transition("resolved", 2300))
    person("all_clear", 52.1, "emma", "All enhancements now process normally.")
    done = Bounds.at(FIRED + 3140)
    writer.add(3140, UndoDone(fault="memory", outcome="already", at=done, detail="found at 128Mi"))
    writer.add(3141, CleanChecked(clean=True))
    writer.add(3142, RunEnded(reason="complete", detail="every clock has stopped and the alert is resolved"))
    return writer.history


def refused() -> History:
    """A run that a guard refused before the first write."""
    writer = Writer()
    preflight(writer)
    remedy = "wait for it to end, or run: drill recover"
    writer.add(-49, CheckDone(
        name="stop switch is off", ok=False, fact="configmap/drill-stop exists", slug="stopped",
        expected="no stop switch", remedy=remedy,
    ))  # fmt: skip
    writer.add(-48, RunEnded(reason="refused", detail="configmap/drill-stop exists"))
    return writer.history


def recovered_later() -> History:
    """A run whose process died in the middle; another process put everything back."""
    writer = Writer()
    preflight(writer)
    injected(writer)
    writer.add(-10, transition("pending", -10))
    paged(writer)
    writer.add(2, signal("curve", ((float(t), depth(t)) for t in range(-50, 2)), step=1.0))
    writer.add(300, UndoStarted(fault="memory"))
    writer.add(300.3, UndoDone(fault="memory", outcome="restored", at=Bounds.at(FIRED + 300.2), detail="128Mi again"))
    writer.add(306, CleanChecked(clean=False, differences=("deployment/worker: rollout not finished (3 of 5 ready)",)))
    writer.add(309, CleanChecked(clean=True))
    writer.add(309, RunEnded(reason="recovered", detail="the runner had died", by="drill recover"))
    return writer.history
