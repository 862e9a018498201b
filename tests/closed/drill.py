"""A whole drill in real time: the real engine and the real Prometheus, with a fault that only flips the exporter."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from harness.adapters.endpoints import HttpTransport
from harness.adapters.prometheus import Prometheus as Metrics
from harness.adapters.system_clock import SystemClock
from harness.core.clock import Bounds
from harness.core.event import AlertTransition, InjectDone, PodsSeen, SignalRead
from harness.core.experiment import AnyExperiment, Experiment, FaultSpec
from harness.core.history import History
from harness.core.inbox import INBOX_LABEL, message
from harness.core.verdict import Judgement, judge
from harness.engine.lease import Keeper, Lease
from harness.engine.observe import ClockRound, InboxTracker, NotifierRound, PagerRound, PrometheusRound, ThreadedFeed
from harness.engine.preflight import Peers, Preflight, Ready
from harness.engine.runner import Context, Recorder, Runner
from harness.ports.cluster import Cluster
from harness.ports.endpoint import Endpoint
from harness.ports.fault import Evidence, PodSelector, Proof, UndoOutcome, UndoRecord
from harness.ports.fault import Plan as FaultPlan
from harness.ports.metrics import Matcher, Notification, NotifierAlert, Route, Silence
from tests.closed.peers import DEEP, RULES, SHALLOW, Exporter, Prometheus, Skewed
from tests.fakes.cluster import FakeCluster
from tests.fakes.drill import MemoryJournal

NAMESPACE = "shop"
ALERT = "QueueHigh"
QUERY = "max(closed_depth)"
When = Callable[[History], bool]


def experiment(**changes: Any) -> AnyExperiment:
    """The drill of this room: about ten seconds from the injection to the end, where nothing disturbs it."""
    body: dict[str, Any] = {
        "name": "closed", "title": "A queue that grows", "why": {"probability": "low", "tests": ["judging"]},
        "namespace": NAMESPACE, "narrative": "n", "severity": "P1",
        "facilitator": {"root_cause": {"object": "deployment/worker", "reason": "r"}},
        "signal": {"query": QUERY, "title": "Depth"},
        "steady_state": [{"name": "queue is short", "query": QUERY, "below": 20, "for": "2s"}],
        "faults": [{"id": "flip", "kind": "flip", "blast_radius": {"pods": 1}}],
        "alerts": [{"name": ALERT, "within": "10s", "of": "flip.effective"}],
        "mitigated": {"query": QUERY, "below": 60, "for": "1s"},
        "recovered": {"query": QUERY, "below": 20, "for": "3s"},
        "must_hold": [{"name": "spend", "query": "max(closed_budget_ratio)", "below": 1}],
        "slas": [
            {"from": "firing", "to": "acknowledged", "within": "5s", "required": True},
            {"from": "firing", "to": "recovered", "within": "12s", "required": True},
            {"from": "firing", "to": "resolved", "within": "12s"},
        ],
        "runbook": "r", "profiles": {"smoke": {"timeout": "16s", "responder": "human"}},
    }  # fmt: skip
    return Experiment[FaultSpec].model_validate(body | changes).tuned("smoke")


@dataclass(frozen=True)
class Scenario:
    """What makes a drill another than the control: its script, run beside it, and what it is run against."""

    name: str
    script: Callable[[Drill], None] = lambda _: None
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Parts of the experiment that differ."""
    expr: str = f"{QUERY} > 50"
    labels: str = "{severity: critical, service: api}"
    more_rules: str = ""
    offset: float | None = None
    """How far Prometheus' clock is ahead; None where nothing stands in between."""
    prepare: Callable[[Drill], None] = lambda _: None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, repr=False)
class Ran:
    """How a drill ended."""

    experiment: AnyExperiment
    history: History
    judgement: Judgement

    def sla(self, end: str) -> tuple[str, str]:
        """Verdict and reason of the promise that ends there."""
        (row,) = [row for row in self.judgement.slas if row.sla.to == end]
        return str(row.verdict), row.reason

    @property
    def alert(self) -> tuple[str, str]:
        """Verdict and reason of the expected alert."""
        (row,) = self.judgement.alerts
        return str(row.verdict), row.reason

    @property
    def guard(self) -> tuple[str, str]:
        """Verdict and reason of the guard."""
        (row,) = self.judgement.guards
        return str(row.verdict), row.reason

    def __repr__(self) -> str:
        """For a failed test's eyes."""
        start = self.history.started_at
        rows = [f"{r.at - start:7.3f} {r.event}"[:300] for r in self.history]
        return "\n".join([*rows, *map(str, (*self.judgement.slas, *self.judgement.alerts, *self.judgement.guards))])


class Over(Exception):
    """The drill ended before what a script waited for."""


class Drill:
    """One drill with everything that it needs; see `run`."""

    def __init__(self, scenario: Scenario, program: Path, folder: Path) -> None:
        self.scenario = scenario
        self.experiment = experiment(**scenario.changes)
        self.clock = SystemClock()
        self.exporter = Exporter()
        rules = RULES.format(expr=scenario.expr, labels=scenario.labels, more=scenario.more_rules)
        self.prometheus = Prometheus(program, folder, self.exporter, rules=rules)
        self.skewed = None if scenario.offset is None else Skewed(self.prometheus.url, scenario.offset)
        url = self.skewed.url if self.skewed else self.prometheus.url
        endpoint = Endpoint(name="Prometheus", base_url=url, environment=False)
        self.metrics = Metrics(endpoint, HttpTransport(endpoint, now=self.clock.now), now=self.clock.now)
        self.api_offset = 0.0
        self.cluster = FakeCluster(lambda: self.clock.now() + self.api_offset)
        self.notifier, self.pager = HeldNotifier(), HeldPager()
        self.history = History()
        self.has_effect = True
        self._feed = ThreadedFeed(self.clock)
        self._over = threading.Event()
        self._failed: list[BaseException] = []

    def run(self) -> Ran:
        """Preflight, drill, verdict. Raises what a script raised."""
        helpers = [threading.Thread(target=self._guarded, args=(one,)) for one in (self._respond, self._script)]
        try:
            self.prometheus.start()
            self.scenario.prepare(self)
            self.prepare()
            self.lease.acquire(self._wait, lambda _: None)
            with Keeper(self.lease, self._failed_lock):
                ready = self._preflight()
                for helper in helpers:
                    helper.start()
                self._drill(ready)
        finally:
            self._over.set()
            self._feed.close()
            for helper in helpers:
                if helper.ident is not None:
                    helper.join()
            for one in (self.metrics, self.prometheus, self.skewed, self.exporter):
                if one is not None:
                    one.close()
        if self._failed:
            raise self._failed[0]
        return Ran(self.experiment, self.history, judge(self.experiment, self.history))

    # --------------------------------------------------------------------------------- for scripts

    def until(self, condition: When) -> None:
        """Wait for it. Raises Over where the drill ended first."""
        while not condition(self.history):
            self.pause(0.02)

    def pause(self, seconds: float) -> None:
        """Let time pass. Raises Over where the drill ended meanwhile."""
        if self._over.wait(seconds):
            raise Over

    # ---------------------------------------------------------------------------------------- parts

    def prepare(self) -> None:
        """What the cluster holds, and the lock to come."""
        for body in _objects():
            self.cluster.put(body)
        self.lease = Lease(self.cluster, self.clock, NAMESPACE, "run-1")

    def _failed_lock(self, why: str) -> None:
        self._failed.append(AssertionError(why))

    def _preflight(self) -> Ready:
        self.recorder = Recorder(MemoryJournal(), self.history, self.clock, lambda _: None)
        peers = Peers(self.cluster, self.metrics, self.notifier, self.pager)
        self.faults = {Flip.kind: Flip(self)}
        checks = Preflight(
            self.experiment, peers, self.faults, self.clock, self.recorder.add, self._wait, lambda _: None
        )
        return checks.run(checks.guards())

    def _wait(self, seconds: float) -> bool:
        time.sleep(seconds)
        return True

    def _drill(self, ready: Ready) -> None:
        since, offsets, feed = self.clock.now(), ready.offsets, self._feed
        assert offsets.pager is not None
        feed.poll(
            PrometheusRound(
                self.metrics, self.experiment, offsets.prometheus, ready.scrape_interval, since,
                ready.prometheus_started_at,
            )
        )  # fmt: skip
        feed.poll(NotifierRound(self.notifier, self.experiment, offsets.alertmanager, since))
        feed.poll(PagerRound(self.pager, offsets.pager, since))
        ask = lambda: Bounds(earliest=self.api_offset - 0.05, latest=self.api_offset + 0.05)  # noqa: E731
        feed.poll(ClockRound("API server", ask, offsets.api, "asked", every=1.0))
        inbox = InboxTracker(verified=False, offset=offsets.api, since=since, clock=self.clock)
        feed.watch("inbox", self.cluster, "ConfigMap", NAMESPACE, f"{INBOX_LABEL}=true", inbox.update)
        context = Context(
            experiment=self.experiment,
            profile=self.experiment.profiles["smoke"],
            run_id="run-1",
            cluster=self.cluster,
            clock=self.clock,
            feed=feed,
            faults=self.faults,
            lock=self.lease,
            on_tick=lambda _: None,
            on_injected=lambda _: None,
            on_restart=lambda _: None,
        )
        Runner(context, self.recorder).run()

    def flip(self) -> None:
        """The fault: the queue is deep, errors come, and somebody saw it."""
        self.exporter.depth = DEEP if self.has_effect else SHALLOW
        self.exporter.rate(50.0)
        self._feed.put(PodsSeen(fault="flip", pods=()))

    def mend(self) -> None:
        """The way back."""
        if self.exporter.depth == DEEP:
            self.exporter.depth = SHALLOW
        self.exporter.rate(0.0)

    def _respond(self) -> None:
        """Somebody who does everything right, and soon."""
        self.until(fired)
        self.cluster.create(message(NAMESPACE, actor="alice", action="acknowledged"))
        self.pause(1.0)
        self.mend()

    def _script(self) -> None:
        self.scenario.script(self)

    def _guarded(self, body: Callable[[], None]) -> None:
        try:
            body()
        except Over:
            return
        except BaseException as error:  # noqa: BLE001 - a thread's error is the test's
            self._failed.append(error)


def injected(history: History) -> bool:
    """The fault is in force."""
    return bool(history.all(InjectDone))


def fired(history: History) -> bool:
    """The run knows of the firing."""
    return any(event.to == "firing" for event in list(history.all(AlertTransition)))


def pending(history: History) -> bool:
    """The run knows that the alert is on its way."""
    return bool(history.all(AlertTransition))


def recovering(history: History) -> bool:
    """The first good sample after the firing is known; the window is not full."""
    return fired(history) and any(
        value is not None and value < 20
        for event in list(history.all(SignalRead))[-6:]
        if event.signal == "recovered"
        for _, value in event.samples
    )


class Flip:
    """A fault whose target is the exporter."""

    kind: ClassVar[str] = "flip"

    def __init__(self, drill: Drill) -> None:
        self._drill = drill

    def verbs(self, spec: FaultSpec) -> tuple[tuple[str, str], ...]:
        return ()

    def plan(self, spec: FaultSpec, namespace: str, cluster: Cluster) -> FaultPlan:
        return FaultPlan("flip", targets=(), changes=(), pods=1, objects=1, undo={"depth": SHALLOW})

    def apply(self, undo: UndoRecord, cluster: Cluster, *, dry_run: bool = False) -> None:
        if not dry_run:
            self._drill.flip()

    def undo(self, undo: UndoRecord, cluster: Cluster, *, force: bool = False) -> UndoOutcome:
        self._drill.mend()
        return UndoOutcome("restored", "")

    def differences(self, undo: UndoRecord, cluster: Cluster) -> tuple[str, ...]:
        return ()

    def pods(self, undo: UndoRecord) -> PodSelector:
        return PodSelector("", "")

    def proof(self, spec: FaultSpec, evidence: Evidence) -> Proof | None:
        seen = evidence.pods
        return Proof(evidence.injected, "flipped", tuple(record.seq for record, _ in seen)) if seen else None


class HeldNotifier:
    """An Alertmanager that holds what a test puts in."""

    def __init__(self) -> None:
        self.held: list[NotifierAlert] = []

    def ready(self) -> str:
        return "0.25.0"

    def offset(self) -> Bounds:
        return Bounds(earliest=-0.05, latest=0.05)

    def alerts(self, name: str) -> list[NotifierAlert]:
        return [alert for alert in self.held if alert.labels["alertname"] == name]

    def silences(self) -> list[Silence]:
        return []

    def silence(self, matchers: Sequence[Matcher], *, author: str, comment: str, seconds: float) -> str:
        raise NotImplementedError

    def expire(self, silence_id: str) -> None:
        raise NotImplementedError

    def route(self, labels: Mapping[str, str]) -> Route:
        return Route("pager", 1.0, 2.0)


class HeldPager:
    """A pager that received what a test puts in."""

    def __init__(self) -> None:
        self.received: list[Notification] = []

    def offset(self) -> Bounds:
        return Bounds(earliest=-0.001, latest=0.001)

    def notifications(self, since: int) -> list[Notification]:
        return [page for page in self.received if page.seq > since]


def _objects() -> list[dict[str, Any]]:
    return [
        {
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"drill.internal/opt-in": "true"}},
        },
        {
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"environment": "staging"},
            "metadata": {"name": "drills-allowed", "namespace": "drill-system"},
        },
    ]  # fmt: skip
