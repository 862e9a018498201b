"""A whole run of the engine in the fake world: experiment, watchers, runner, journal in memory."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from harness.catalog import faults
from harness.core.decide import UNDO_FOR
from harness.core.errors import DrillError
from harness.core.event import InjectStarted, Record, ResponderActed, RunEnded, RunStarted, StopAsked
from harness.core.experiment import AnyExperiment
from harness.core.history import History
from harness.core.inbox import INBOX_LABEL, message
from harness.engine.guards import Need
from harness.engine.lease import RENEW_EVERY, Keeper, Lease
from harness.engine.observe import InboxTracker, NotifierRound, PagerRound, PrometheusRound
from harness.engine.preflight import Peers, Preflight, Ready
from harness.engine.runner import Context, Recorder, Runner
from harness.engine.stopping import MARKER, marker_switch, opt_in_switch
from harness.loading import parse
from harness.ports.cluster import Identity, Ref
from harness.ports.fault import ShowsInObject
from tests.fakes.cluster import FakeCluster
from tests.fakes.world import (
    CHAOS,
    IMAGE,
    KEY,
    KEYS,
    NAMESPACE,
    REFUSED,
    SETTINGS,
    STEP,
    WORKER,
    FakeMetrics,
    FakeNotifier,
    FakePager,
    Killed,
    SteppedFeed,
    World,
)
from tests.hands import hand


class MemoryJournal:
    """A journal whose records survive the runner; `crash_after` raises once that many are durable."""

    def __init__(self, crash_after: int | None = None) -> None:
        self.records: list[Record] = []
        self.crash_after = crash_after
        self.on_crash: Callable[[], None] = lambda: None
        self.on_append: Callable[[Record], None] = lambda _: None

    def append(self, record: Record) -> None:
        self.records.append(record)
        self.on_append(record)
        if self.crash_after is not None and len(self.records) >= self.crash_after:
            self.on_crash()
            raise Killed

    def read(self) -> list[Record]:
        return list(self.records)


FEWER_WORKERS = {"query": "depth", "above": 30, "within": "60s"}
"""The effect of what shows in no pod: the queue grows."""

FAULTS: dict[str, dict[str, Any]] = {
    "config": {
        "id": "memory",
        "kind": "config",
        "target": "configmap/worker",
        "set": {"MODE": "slow", "TRACE": "on"},
        "unset": ["BATCH"],
        "restart": ["deployment/worker"],
        "effect": FEWER_WORKERS,
        "blast_radius": {"pods": 5, "objects": 2},
    },
    "cpu-limit": {
        "id": "memory",
        "kind": "cpu-limit",
        "target": "deployment/worker",
        "container": "worker",
        "limit": "100m",
        "effect": FEWER_WORKERS,
        "blast_radius": {"pods": 5},
    },
    "image": {
        "id": "memory",
        "kind": "image",
        "target": "deployment/worker",
        "container": "worker",
        "image": "registry.invalid/registry.example.org/shop/worker:2",
        "effect": {"failing": 3, "ready_at_most": 2, "within": "60s"},
        "blast_radius": {"pods": 5},
    },
    "memory-limit": {
        "id": "memory",
        "kind": "memory-limit",
        "deployment": "worker",
        "container": "worker",
        "limit": "64Mi",
        "effect": {"oom_killed": 3, "ready_at_most": 2, "within": "60s"},
        "blast_radius": {"pods": 5},
    },
    "patch": {
        "id": "memory",
        "kind": "patch",
        "target": "deployment/worker",
        "operations": [{"op": "add", "path": "/spec/template/spec/nodeSelector", "value": {"disk": "gone"}}],
        "effect": FEWER_WORKERS,
        "blast_radius": {"pods": 5},
    },
    "scale": {
        "id": "memory",
        "kind": "scale",
        "target": "deployment/worker",
        "replicas": 2,
        "effect": {"ready_at_most": 2, "within": "60s"},
        "blast_radius": {"pods": 3},
    },
    "secret": {
        "id": "memory",
        "kind": "secret",
        "secret": KEYS.name,
        "key": KEY,
        "how": "revoke",
        "consumers": ["deployment/worker"],
        "replacement": "discard",
        "effect": {"query": REFUSED, "above": 2.5, "within": "60s"},
        "blast_radius": {"pods": 5},
    },
    "job": {
        "id": "memory",
        "kind": "job",
        "image_of": "deployment/worker",
        "command": ["/usr/bin/python3", "-m", "bulk"],
        "effect": {"query": "depth", "above": 20, "within": "60s"},
        "blast_radius": {"pods": 1},
    },
    "pod-kill": {
        "id": "memory",
        "kind": "pod-kill",
        "target": "deployment/worker",
        "count": 3,
        "effect": {"ready_at_most": 2, "within": "60s"},
        "blast_radius": {"pods": 3},
    },
    "manifest": {
        "id": "memory",
        "kind": "manifest",
        "manifest": {"apiVersion": "chaos.example.org/v1", "kind": "Chaos", "metadata": {"name": "block"}, "spec": {}},
        "effect": {"field": "status.conditions[type=AllInjected].status", "equals": "True", "within": "60s"},
        "blast_radius": {"pods": 3},
    },
}
"""Every kind of the catalog as it does the same damage to the fake world: three of five workers. All have one id, so
that one experiment fits them all."""


def experiment_data(kind: str = "memory-limit") -> dict[str, Any]:
    """A drill for the fake world with a fault of that kind."""
    return {
        "name": "oom-workers",
        "title": "Queue backlog from worker crashes",
        "why": {"probability": "high", "tests": ["queue", "workers"]},
        "namespace": NAMESPACE,
        "narrative": "HighQueueDepth pages L1.",
        "facilitator": {"root_cause": {"object": "deployment/worker", "reason": "memory limit lowered"}},
        "roles": {"l2": [], "engineering": []},
        "severity": "P1",
        "signal": {"query": "depth", "title": "Queue depth", "unit": "jobs"},
        "steady_state": [{"name": "queue is short", "query": "depth", "below": 20, "for": "5s"}],
        "faults": [copy.deepcopy(FAULTS[kind])],
        "alerts": [{"name": "HighQueueDepth", "within": "3m", "of": "memory.effective"}],
        "mitigated": {"query": "deriv(depth[5s])", "below": 0, "for": "5s"},
        "recovered": {"query": "depth", "below": 20, "for": "8s"},
        "must_hold": [{"name": "spend stays under budget", "query": "budget", "below": 1}],
        "abort": [{"name": "queue explodes", "query": "depth", "above": 5000}],
        "slas": [
            {"from": "firing", "to": "acknowledged", "within": "5m", "required": True},
            {"from": "firing", "to": "assessed", "within": "10m"},
            {"from": "firing", "to": "l2.joined", "within": "15m"},
            {"from": "firing", "to": "engineering.joined", "within": "30m"},
            {"from": "firing", "to": "client.notified", "within": "30m"},
            {"from": "firing", "to": "mitigated", "within": "20m", "required": True},
            {"from": "firing", "to": "recovered", "within": "60m", "required": True},
            {"from": "memory.effective", "to": "firing", "within": "3m"},
        ],
        "runbook": "runbooks/high-queue-depth.md",
        "profiles": {"smoke": {"timeout": "4m", "responder": "human"}},
    }


@dataclass
class Drill:
    """One run, with hooks. `step` lets a tenth of a second pass for this run's process."""

    world: World = field(default_factory=World)
    data: dict[str, Any] = field(default_factory=experiment_data)
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    run_id: str = "run-1"
    needs: tuple[Need, ...] = ()
    step: Callable[[], None] | None = None
    undo_for: float = UNDO_FOR

    def __post_init__(self) -> None:
        self.experiment: AnyExperiment = parse(self.data).tuned("smoke")
        self.history = History()
        self.recorder = Recorder(self.journal, self.history, self.world.clock, lambda _: None)
        self.feed = SteppedFeed(self.world, self._step)
        self.metrics, self.notifier = FakeMetrics(self.world), FakeNotifier(self.world)
        self.peers = Peers(self.world.cluster, self.metrics, self.notifier, FakePager(self.world))
        self.said: list[str] = []
        self.lease = Lease(self.world.cluster, self.world.clock, NAMESPACE, self.run_id)
        self.keeper = Keeper(self.lease, lambda _: None)
        self._renew_at: float | None = None
        self.journal.on_crash = lambda: setattr(self.world.cluster, "dead", True)

    def wait(self, seconds: float) -> bool:
        for _ in range(round(seconds / STEP)):
            self._step()
        return not self.keeper.lost

    def _step(self) -> None:
        """A tenth of a second, and what the keeper's thread does in it."""
        if self.step is None:
            self.world.step()
        else:
            self.step()
        if self._renew_at is not None and self.world.clock.now() >= self._renew_at:
            self._renew_at = self.world.clock.now() + RENEW_EVERY if self.keeper.beat() else None

    def preflight(self) -> Ready:
        checks, identity = self.take_over()
        return checks.run(identity)

    def take_over(self) -> tuple[Preflight, Identity]:
        """The beginning of the preflight: the lock is taken, and what a dead run left is brought back."""
        checks = Preflight(
            self.experiment, self.peers, faults(), self.world.clock, self.recorder.add, self.wait, self.said.append,
            self.needs,
        )  # fmt: skip
        identity = checks.guards()
        self.lease.acquire(self.wait, self.said.append)
        self._renew_at = self.world.clock.now() + RENEW_EVERY
        checks.leftovers()
        return checks, identity

    def begin(self) -> None:
        """Write the first line of a journal, without which nobody but the engine can read it."""
        declared = parse(self.data)
        started = RunStarted(
            run_id=self.run_id, experiment=declared.as_data(), experiment_path="", digest=declared.digest(),
            profile="smoke", responder="human", harness_version="0", cluster={}, identity="i",
        )  # fmt: skip
        self.recorder.add(started)

    def run(self) -> History:
        """The whole run, with its keeper and its ways out as they are outside of tests."""
        try:
            self._run()
        except DrillError as error:
            self._renew_at = None
            if self.history.ended is None:
                begun = self.history.all(InjectStarted)
                self.recorder.add(RunEnded(reason="error" if begun else "refused", detail=error.fact))
            self.lease.release()
            raise
        self._renew_at = None
        self.lease.release()
        self._sweep_inbox()
        return self.history

    def _run(self) -> None:
        ready = self.preflight()
        self.keeper.require()
        since = self.world.clock.now()
        offsets = ready.offsets
        self.feed.poll(
            PrometheusRound(
                self.metrics, self.experiment, offsets.prometheus, ready.scrape_interval, since,
                ready.prometheus_started_at,
            )
        )  # fmt: skip
        self.feed.poll(NotifierRound(self.notifier, self.experiment, offsets.alertmanager, since))
        assert offsets.pager is not None
        assert self.peers.pager is not None
        self.feed.poll(PagerRound(self.peers.pager, offsets.pager, since))
        self.feed.watch_inbox(
            InboxTracker(verified=ready.inbox_verified, offset=offsets.api, since=since, clock=self.world.clock)
        )

        self.feed.watch_switch(MARKER, marker_switch())
        self.feed.watch_switch(Ref("Namespace", "", NAMESPACE), opt_in_switch(NAMESPACE))

        def on_injected(fault_id: str) -> None:
            plan = self.history.plans()[fault_id]
            fault = faults()[plan.kind]
            selector = fault.pods(plan.undo)
            if selector is not None:
                self.feed.watch_pods(fault_id, selector)
            if isinstance(fault, ShowsInObject):
                self.feed.watch_object(fault_id, fault.object(plan.undo))

        context = Context(
            experiment=self.experiment,
            profile=self.experiment.profiles["smoke"],
            run_id=self.run_id,
            cluster=self.world.cluster,
            clock=self.world.clock,
            feed=self.feed,
            faults=faults(),
            on_tick=lambda _: None,
            on_injected=on_injected,
            on_restart=self.feed.watch_restart,
            lock=self.lease,
            undo_for=self.undo_for,
        )
        self.keeper.on_lost = lambda why: self.feed.put(StopAsked(by=self.keeper.lost_by, detail=why))
        Runner(context, self.recorder).run()

    def _sweep_inbox(self) -> None:
        """Messages that the journal holds go, as at the end of any run."""
        keys = {act.key for act in self.history.all(ResponderActed)}
        with contextlib.suppress(DrillError):
            for body in self.world.cluster.list("ConfigMap", NAMESPACE, f"{INBOX_LABEL}=true"):
                if body["metadata"]["uid"] in keys:
                    ref = Ref("ConfigMap", NAMESPACE, body["metadata"]["name"])
                    self.world.cluster.delete(ref, uid=body["metadata"]["uid"])

    def send(self, action: Any, actor: str = "alice", role: str = "", text: str = "") -> Callable[[World], None]:
        """An act for `feed.when`: a responder's message."""
        return lambda world: world.cluster.create(  # type: ignore[return-value]
            message(NAMESPACE, actor=actor, action=action, role=role, text=text)
        )

    def respond(self) -> None:
        """People who do everything right, in order, a few seconds apart."""
        steps = [
            (2.0, self.send("acknowledged")),
            (3.0, self.send("assessed", text="P1")),
            (4.0, self.send("escalated", role="l2")),
            (5.0, self.send("joined", "emma", "l2")),
            (6.0, self.send("joined", "tom", "engineering")),
            (7.0, self.send("notified", "emma", text="we are on it")),
            (9.0, MENDS[self.data["faults"][0]["kind"]]),
        ]
        for after, act in steps:
            self.feed.when(fired(after), act)


def fired(after: float) -> Callable[[World], bool]:
    """True `after` seconds past the alert's firing."""
    return lambda world: world.firing_since is not None and world.clock.now() >= world.firing_since + after


def set_limit(world: World, limit: str, resource: str = "memory") -> None:
    """What kubectl would do in a responder's hands."""
    body = world.deployment
    body["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"][resource] = limit
    world.cluster.put(body)


def set_image(world: World, image: str) -> None:
    """What kubectl set image would do in a responder's hands."""
    body = world.deployment
    body["spec"]["template"]["spec"]["containers"][0]["image"] = image
    world.cluster.put(body)


def set_replicas(world: World, count: int) -> None:
    """What kubectl scale would do in a responder's hands."""
    body = world.deployment
    body["spec"]["replicas"] = count
    world.cluster.put(body)


def reconfigure(world: World) -> None:
    """What kubectl edit and kubectl rollout undo would do in a responder's hands."""
    world.cluster.put({**FakeCluster.get(world.cluster, SETTINGS), "data": {"MODE": "fast", "BATCH": "10"}})
    body = world.deployment
    body["spec"]["template"]["metadata"].pop("annotations", None)
    world.cluster.put(body)


def schedule_anywhere(world: World) -> None:
    """What kubectl edit would do in a responder's hands."""
    body = world.deployment
    body["spec"]["template"]["spec"].pop("nodeSelector", None)
    world.cluster.put(body)


def set_key(world: World) -> None:
    """A new key, and pods that take it up."""
    hand(world.cluster).write(KEYS, KEY, b"a-new-value-that-opens-the-provider-0")
    world.restart()


def remove_jobs(world: World) -> None:
    """What kubectl delete jobs --all would do in a responder's hands."""
    for job in world.cluster.listing("Job", NAMESPACE):
        world.cluster.drop(Ref("Job", NAMESPACE, job["metadata"]["name"]))


def remove_chaos(world: World) -> None:
    """What kubectl delete would do to another engine's object in a responder's hands."""
    for one in world.cluster.listing(CHAOS, NAMESPACE):
        world.cluster.drop(Ref(CHAOS, NAMESPACE, one["metadata"]["name"]))


MENDS: dict[str, Callable[[World], None]] = {
    "config": reconfigure,
    "cpu-limit": lambda world: set_limit(world, "500m", "cpu"),
    "image": lambda world: set_image(world, IMAGE),
    "memory-limit": lambda world: set_limit(world, "128Mi"),
    "patch": schedule_anywhere,
    "scale": lambda world: set_replicas(world, world.workers),
    "secret": set_key,
    "job": remove_jobs,
    "manifest": remove_chaos,
    "pod-kill": lambda _: None,  # new pods come by themselves
}
"""What a responder does to put right what a fault of that kind broke."""
WRITES: dict[str, str] = {
    "config": "patch Deployment",
    "cpu-limit": "patch Deployment",
    "image": "patch Deployment",
    "job": "patch Job",
    "manifest": f"create {CHAOS}",
    "memory-limit": "patch Deployment",
    "patch": "patch Deployment",
    "pod-kill": "delete Pod",
    "scale": "patch Deployment",
    "secret": "patch Secret",
}
"""The write that breaks something, by kind; the last one, where there are several."""
BROKEN: dict[str, Ref] = {"secret": KEYS}
"""What a fault of that kind harms, where that is not the workers' Deployment."""


def broken_by(kind: str) -> Ref:
    """The object that a fault of that kind changes; of one that makes or deletes objects, that which it harms."""
    return BROKEN.get(kind, WORKER)
