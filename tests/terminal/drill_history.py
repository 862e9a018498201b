"""A small drill, written event by event at seconds from its start."""

from __future__ import annotations

from harness.core.clock import Bounds
from harness.core.event import (
    AlertTransition,
    Change,
    CleanChecked,
    Decided,
    EffectProved,
    Event,
    InjectDone,
    InjectionPlanned,
    InjectStarted,
    PageReceived,
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

BEGAN = 1_700_000_000.0

EXPERIMENT: AnyExperiment = Experiment[FaultSpec].model_validate(
    {
        "name": "oom-workers",
        "title": "Queue backlog",
        "why": {"probability": "high", "tests": ["queue"]},
        "namespace": "nova-staging",
        "narrative": "Monday.",
        "facilitator": {"root_cause": {"object": "deployment/worker", "reason": "limit"}},
        "roles": {"l2": ["Ada"]},
        "severity": "P1",
        "signal": {"query": "depth", "title": "queue depth", "unit": "jobs"},
        "steady_state": [{"name": "short", "query": "depth", "below": 20}],
        "faults": [{"id": "memory", "kind": "memory-limit", "blast_radius": {"pods": 5}}],
        "alerts": [{"name": "HighQueueDepth", "within": 60.0, "of": "memory.effective"}],
        "mitigated": {"query": "deriv", "below": 0},
        "recovered": {"query": "depth", "below": 20, "for": 2.0},
        "slas": [
            {"from": "firing", "to": "acknowledged", "within": 5.0, "required": True},
            {"from": "firing", "to": "l2.joined", "within": 900.0},
            {"from": "firing", "to": "recovered", "within": 60.0, "required": True},
        ],
        "runbook": "runbooks/high-queue-depth.md",
        "profiles": {"smoke": {"timeout": 120.0, "responder": "human"}},
    }
)


class Drill:
    """A history that grows."""

    def __init__(self, responder: str = "human") -> None:
        self.history = History()
        self.add(
            0.0,
            RunStarted(
                run_id="r1", experiment=EXPERIMENT.as_data(), experiment_path="experiments/oom-workers.yaml",
                digest="d", profile="smoke", responder=responder, harness_version="0", cluster={}, identity="me",
            ),
        )  # fmt: skip

    def add(self, at: float, *events: Event) -> Drill:
        for event in events:
            self.history.append(entry(self.history, event, BEGAN + at))
        return self

    def planned(self) -> Drill:
        change = Change(object="deployment/worker", path="limit", before="256Mi", after="48Mi")
        plan = InjectionPlanned(
            fault="memory", kind="memory-limit", summary="limit to 48Mi", changes=(change,), undo={}
        )
        return self.add(3.0, plan)

    def injected(self) -> Drill:
        self.planned()
        self.add(10.0, Decided(intent="inject memory", why="fault memory is due"))
        self.add(10.0, UndoStored(fault="memory", where="configmap/undo"), InjectStarted(fault="memory"))
        return self.add(10.1, InjectDone(fault="memory", outcome="done", at=bounds(10.0, 10.1)))

    def effective(self) -> Drill:
        self.injected()
        self.add(12.0, pods(ready=4, killed=1))
        self.add(14.0, pods(ready=2, killed=3))
        return self.add(14.0, EffectProved(fault="memory", at=bounds(13.0, 14.0), proof="3 OOM kills", evidence=(1,)))

    def firing(self) -> Drill:
        self.effective()
        self.add(22.0, transition("pending", 18.0), transition("firing", 20.0), curve(16.0, [5.0, 60.0, None, 140.0]))
        page = PageReceived(
            alert="HighQueueDepth", status="firing", at=bounds(21.0, 21.0), starts_at=BEGAN + 20, receiver="l1",
            source="pager",
        )  # fmt: skip
        return self.add(22.0, page)

    def acknowledged(self, kind: str = "human") -> Drill:
        self.firing()
        return self.add(23.0, acted("acknowledged", 23.0, kind))

    def ended(self, *, clean: bool = True) -> Drill:
        self.acknowledged()
        deep = tuple((BEGAN + 20.0 + i, 140.0) for i in range(20))
        self.add(40.0, SignalRead(signal="recovered", samples=deep, resolution=1.0, step=1.0))
        self.add(40.0, Decided(intent="undo memory", why="timeout: over"), UndoStarted(fault="memory"))
        outcome = "restored" if clean else "failed"
        self.add(41.0, UndoDone(fault="memory", outcome=outcome, at=bounds(40.0, 41.0)))
        self.add(42.0, CleanChecked(clean=clean, differences=() if clean else ("limit: 256Mi -> 48Mi",)))
        return self.add(42.0, RunEnded(reason="timeout", detail="timeout: over"))


def bounds(earliest: float, latest: float) -> Bounds:
    return Bounds(earliest=BEGAN + earliest, latest=BEGAN + latest)


def pods(*, ready: int, killed: int) -> PodsSeen:
    states = tuple(
        PodState(
            name=f"worker-{i}", uid=str(i), ready=i >= 5 - ready, restarts=1,
            oom_killed_at=BEGAN + 12 if i < killed else None,
        )
        for i in range(5)
    )  # fmt: skip
    return PodsSeen(fault="memory", pods=states)


def transition(to: str, at: float) -> AlertTransition:
    return AlertTransition.model_validate(
        {
            "alert": "HighQueueDepth", "to": to, "at": bounds(at, at), "evaluation": BEGAN + at,
            "source": "Prometheus: raw ALERTS samples",
        }
    )  # fmt: skip


def curve(at: float, values: list[float | None]) -> SignalRead:
    samples = tuple((BEGAN + at + i, value) for i, value in enumerate(values))
    return SignalRead(signal="curve", samples=samples, resolution=1.0)


def acted(action: str, at: float, kind: str = "human", **more: object) -> ResponderActed:
    return ResponderActed.model_validate(
        {
            "key": f"{action}-{at}", "action": action, "actor": "ada", "actor_kind": kind,
            "verified": "admission policy", "at": bounds(at, at), "source": "message", **more,
        }
    )  # fmt: skip
