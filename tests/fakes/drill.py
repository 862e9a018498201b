"""A whole run of the engine in the fake world: experiment, watchers, runner, journal in memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from harness.catalog import faults
from harness.core.event import Record
from harness.core.experiment import AnyExperiment
from harness.core.history import History
from harness.core.inbox import message
from harness.engine.guards import Need
from harness.engine.lease import Lease
from harness.engine.observe import InboxTracker, NotifierRound, PagerRound, PrometheusRound
from harness.engine.preflight import Peers, Preflight, Ready
from harness.engine.runner import Context, Recorder, Runner
from harness.engine.stopping import MARKER, marker_switch, opt_in_switch
from harness.loading import parse
from harness.ports.cluster import Ref
from tests.fakes.world import NAMESPACE, FakeMetrics, FakeNotifier, FakePager, Killed, SteppedFeed, World


class MemoryJournal:
    """A journal whose records survive the runner; `crash_after` raises once that many are durable."""

    def __init__(self, crash_after: int | None = None) -> None:
        self.records: list[Record] = []
        self.crash_after = crash_after
        self.on_crash: Callable[[], None] = lambda: None

    def append(self, record: Record) -> None:
        self.records.append(record)
        if self.crash_after is not None and len(self.records) >= self.crash_after:
            self.on_crash()
            raise Killed

    def read(self) -> list[Record]:
        return list(self.records)


FAULTS: dict[str, dict[str, Any]] = {
    "memory-limit": {
        "id": "memory",
        "kind": "memory-limit",
        "deployment": "worker",
        "container": "worker",
        "limit": "64Mi",
        "effect": {"oom_killed": 3, "ready_at_most": 2, "within": "60s"},
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
    """One run, with hooks."""

    world: World = field(default_factory=World)
    data: dict[str, Any] = field(default_factory=experiment_data)
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    run_id: str = "run-1"
    needs: tuple[Need, ...] = ()

    def __post_init__(self) -> None:
        self.experiment: AnyExperiment = parse(self.data).tuned("smoke")
        self.history = History()
        self.recorder = Recorder(self.journal, self.history, self.world.clock, lambda _: None)
        self.feed = SteppedFeed(self.world)
        self.metrics, self.notifier = FakeMetrics(self.world), FakeNotifier(self.world)
        self.peers = Peers(self.world.cluster, self.metrics, self.notifier, FakePager(self.world))
        self.said: list[str] = []
        self.journal.on_crash = lambda: setattr(self.world.cluster, "dead", True)

    def wait(self, seconds: float) -> bool:
        self.world.run_for(seconds)
        return True

    def preflight(self) -> Ready:
        checks = Preflight(
            self.experiment, self.peers, faults(), self.world.clock, self.recorder.add, self.wait, self.said.append,
            self.needs,
        )  # fmt: skip
        identity = checks.guards()
        self.lease = Lease(self.world.cluster, self.world.clock, NAMESPACE, self.run_id)
        self.lease.acquire(self.wait, self.said.append)
        checks.leftovers()
        return checks.run(identity)

    def run(self) -> History:
        ready = self.preflight()
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
            self.feed.watch_pods(fault_id, faults()[plan.kind].pods(plan.undo))

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
            lock=self.lease,
        )
        Runner(context, self.recorder).run()
        return self.history

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


def set_limit(world: World, limit: str) -> None:
    """What kubectl would do in a responder's hands."""
    body = world.deployment
    body["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = limit
    world.cluster.put(body)


def set_replicas(world: World, count: int) -> None:
    """What kubectl scale would do in a responder's hands."""
    body = world.deployment
    body["spec"]["replicas"] = count
    world.cluster.put(body)


MENDS: dict[str, Callable[[World], None]] = {
    "memory-limit": lambda world: set_limit(world, "128Mi"),
    "scale": lambda world: set_replicas(world, world.workers),
}
"""What a responder does to put right what a fault of that kind broke."""
