"""A whole staging world on a virtual clock: pods that die, a queue that grows, Prometheus, Alertmanager, a pager.

It is a model, good enough to drive the engine through every path in milliseconds; what is true of the real parts is
the business of the contract suite and of the end-to-end tests. One step is 0.1 s of virtual time.
"""

from __future__ import annotations

import base64
import copy
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Self, TypeVar

from harness.core.clock import Bounds, Instant, utc
from harness.core.errors import DrillError, Unreachable
from harness.core.event import Event, RestartPlanned, StopAsked
from harness.core.inbox import INBOX_LABEL
from harness.core.quantity import parse_cpu, parse_memory
from harness.engine.observe import (
    AGE,
    Channel,
    InboxTracker,
    ObjectTracker,
    PodsTracker,
    Round,
    pods_of_fault,
    pods_of_restart,
)
from harness.engine.stopping import Switch
from harness.ports.cluster import FIELD_MANAGER, Json, NotFound, Ref, WatchEvent
from harness.ports.fault import ObjectSelector, PodSelector
from harness.ports.kinds import called
from harness.ports.metrics import (
    ActiveAlert,
    Matcher,
    Notification,
    NotifierAlert,
    Route,
    Rule,
    Series,
    Silence,
)
from tests.fakes.cluster import FakeCluster, copied, no_answer

T = TypeVar("T")
STEP = 0.1
NAMESPACE = "shop"
WORKER = Ref("Deployment", NAMESPACE, "worker")
SETTINGS = Ref("ConfigMap", NAMESPACE, "worker")
"""What the workers read when they start."""
IMAGE = "registry.example.org/shop/worker:1"
"""The only one that there is."""
KEYS = Ref("Secret", NAMESPACE, "keys")
KEY = "key-current"
"""The key that some of the workers need; a pod keeps the one that it was started with."""
NEED_KEY = 3
"""How many of the workers need the key."""
REFUSED = "refused"
"""The query that answers how many workers were refused for their key."""
EPOCH = 1_800_000_000.0
CHAOS = "Chaos.v1.chaos.example.org"
"""Another engine's kind: its object blocks three workers, and says so once it does."""
REPLICAS = Ref("ReplicaSet", NAMESPACE, "worker-1")


@lru_cache
def _starves(limit: str) -> bool:
    """Whether the worker cannot live under a memory limit."""
    return parse_memory(limit) < parse_memory("80Mi")


def _ails(template: Json, settings: Json) -> str:
    """Why a worker of that pod template cannot work; "" where it can."""
    pod = template["spec"]
    (container,) = pod["containers"]
    if _starves(container["resources"]["limits"]["memory"]):
        return "memory"
    if settings.get("MODE") == "slow":
        return "settings"
    if pod.get("nodeSelector"):
        return "no node"
    if container["image"] != IMAGE:
        return "image"
    if parse_cpu(container["resources"]["limits"]["cpu"]) < 200:
        return "cpu"
    return ""


class Killed(BaseException):
    """The process is gone: nothing of it may run any more."""


@dataclass(frozen=True)
class Written:
    """One side of a write: its number among all writes, what it is, and whether it has taken effect."""

    index: int
    what: str
    after: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} write {self.index} ({self.what})"


class Mortal(FakeCluster):
    """The API server as seen by a process that can die, or lose a reply, at a chosen call."""

    def __init__(self, now: Callable[[], Instant]) -> None:
        super().__init__(now)
        self.defined["chaos.example.org/v1"] = [{"kind": "Chaos", "name": "chaos", "namespaced": True}]
        self.dead = False
        self.unreachable = False
        """Whether no call is answered at the moment."""
        self.sent = 0
        self.around: Callable[[Written], None] = lambda _: None
        """Called before and after every write that is not a dry run."""
        self._die_at: tuple[int, bool] | None = None
        self._fail: dict[tuple[str, str], tuple[DrillError, bool]] = {}
        self._fail_at: dict[int, tuple[DrillError, bool]] = {}

    def fork(self, now: Callable[[], Instant]) -> Self:
        """See FakeCluster. No death and no failure is ordered there."""
        twin = super().fork(now)
        Mortal._revive(twin)
        return twin

    def _revive(self) -> None:
        self.dead, self.unreachable, self.sent, self.around = False, False, 0, lambda _: None
        self._die_at, self._fail, self._fail_at = None, {}, {}

    def die_at_write(self, index: int, *, after: bool) -> None:
        """Die before or just after the write with that index (dry runs do not count)."""
        self._die_at = (index, after)

    def fail_write(self, verb: str, kind: str, error: DrillError, *, after: bool = False) -> None:
        """Fail the next such write that is not a dry run, before or after it took effect."""
        self._fail[verb, kind] = (error, after)

    def fail_at_write(self, index: int, error: DrillError, *, after: bool = False) -> None:
        """Fail the write with that index, before or after it took effect."""
        self._fail_at[index] = (error, after)

    def dump(self) -> list[Json]:
        """Every object, for comparing the whole cluster before and after."""
        kinds = (CHAOS, "ConfigMap", "Deployment", "Job", "Lease", "Namespace", "Secret")
        return [copied(one) for kind in kinds for one in self.listing(kind, "")]

    def get(self, ref: Ref) -> Json:
        self._alive()
        return super().get(ref)

    def list(self, kind: str, namespace: str, labels: str = "") -> list[Json]:
        self._alive()
        return super().list(kind, namespace, labels)

    def create(self, body: Json, *, dry_run: bool = False) -> Json:
        return self._write(
            "create",
            called(body.get("apiVersion", ""), body["kind"]),
            lambda: FakeCluster.create(self, body, dry_run=dry_run),
            dry_run,
        )

    def replace(self, body: Json) -> Json:
        return self._write("replace", body["kind"], lambda: FakeCluster.replace(self, body))

    def patch(
        self, ref: Ref, operations: Sequence[Json], *, dry_run: bool = False, manager: str = FIELD_MANAGER
    ) -> Json:
        act = lambda: FakeCluster.patch(self, ref, operations, dry_run=dry_run, manager=manager)  # noqa: E731
        return self._write("patch", ref.kind, act, dry_run)

    def delete(
        self, ref: Ref, *, uid: str = "", version: str = "", grace: int | None = None, dry_run: bool = False
    ) -> bool:
        act = lambda: FakeCluster.delete(self, ref, uid=uid, version=version, grace=grace, dry_run=dry_run)  # noqa: E731
        return self._write("delete", ref.kind, act, dry_run)

    def _alive(self) -> None:
        if self.dead:
            raise Killed
        if self.unreachable:
            raise no_answer()

    def _dies(self, index: int, *, after: bool) -> None:
        if self._die_at == (index, after):
            self.dead = True
            raise Killed

    def _write(self, verb: str, kind: str, act: Callable[[], T], dry_run: bool = False) -> T:
        self._alive()
        if dry_run:
            return act()
        index, self.sent = self.sent, self.sent + 1
        self._dies(index, after=False)
        self.around(Written(index, f"{verb} {kind}", after=False))
        failing = self._fail.pop((verb, kind), None) or self._fail_at.pop(index, None)
        if failing is not None and not failing[1]:
            raise failing[0]
        try:
            answer = act()
        finally:  # also right behind a write that was refused
            self._dies(index, after=True)
        self.around(Written(index, f"{verb} {kind}", after=True))
        if failing is not None:
            raise failing[0]
        return answer


class VirtualClock:
    """Time that moves when told to."""

    def __init__(self, start: Instant = EPOCH) -> None:
        self._now = start

    def now(self) -> Instant:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now = round(self._now + seconds, 6)


@dataclass
class World:
    """The system under drill. `healthy_rate` is jobs per second and worker."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    workers: int = 5
    arrivals: float = 13.0
    rate: float = 4.0
    threshold: float = 50.0
    hold: float = 5.0
    scrape_phase: float = 0.3
    evaluation_phase: float = 0.7
    kills: bool = True
    """Whether pods under too low a limit are killed at all."""
    warms_up_for: float = 21.0
    """Seconds until a pod is ready that takes the place of one that somebody deleted: nothing of it is cached."""
    depth: float = 3.0
    metrics_down: bool = False
    metrics_frozen: bool = False
    """Prometheus stands still: it neither scrapes nor evaluates, and answers with what it had."""

    def __post_init__(self) -> None:
        self.cluster = Mortal(self.clock.now)
        self.scraped: list[tuple[Instant, float]] = []
        self.refusals: list[tuple[Instant, float]] = []
        self.alert_samples: list[tuple[Instant, str]] = []
        self.pending_since: Instant | None = None
        self.firing_since: Instant | None = None
        self.last_evaluation: Instant | None = None
        self.held: list[NotifierAlert] = []
        self.silenced: list[Silence] = []
        self.pages: list[Notification] = []
        self.process_started = EPOCH - 1000.0
        self._pods: dict[str, _Pod] = {}
        self._mirrored: dict[str, object] = {}
        """How each pod looked when its object was last written."""
        self._serial = 0
        self._rolled_at: Instant | None = None
        self.bulk = False
        """Whether a Job runs, or another engine's chaos."""
        self.cluster.put(_namespace())
        self.cluster.put(_keys())
        self.cluster.put(_marker())
        self.cluster.put(_settings())
        self._template: Json = self.cluster.put(self._deployment())["spec"]["template"]
        owner = {"name": REPLICAS.name, "namespace": NAMESPACE, "uid": "rs-1"}
        self.cluster.put({"apiVersion": "apps/v1", "kind": REPLICAS.kind, "metadata": owner})
        for _ in range(self.workers):
            self._add_pod()
        self._sync_status(self.clock.now())
        self.run_for(30.0)

    @property
    def deployment(self) -> Json:
        return FakeCluster.get(self.cluster, WORKER)

    def fork(self) -> World:
        """The same world once more, to go its own way: everything but the processes that act in it."""
        twin = copy.copy(self)
        twin.clock = VirtualClock(self.clock.now())
        twin.cluster = self.cluster.fork(twin.clock.now)
        for name in ("scraped", "refusals", "alert_samples", "held", "silenced", "pages"):
            setattr(twin, name, list(getattr(self, name)))
        twin._mirrored = dict(self._mirrored)
        twin._pods = {uid: replace(pod) for uid, pod in self._pods.items()}
        return twin

    def run_for(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.step()

    def step(self) -> None:
        before = self.clock.now()
        self.clock.advance(STEP)
        now = self.clock.now()
        self._reconcile(now)
        self.depth = max(2.0, self.depth + (self.arrivals - self._working(now) * self.rate) * STEP)
        if self.metrics_frozen:
            return
        if _crossed(before, now, self.scrape_phase):
            self.scraped.append((_slot(now, self.scrape_phase), math.floor(self.depth)))
            self.refusals.append((self.scraped[-1][0], sum(pod.refused for pod in self._pods.values())))
        if _crossed(before, now, self.evaluation_phase):
            self._evaluate(_slot(now, self.evaluation_phase))

    def _ready(self, now: Instant) -> int:
        return sum(pod.is_ready(now) for pod in self._pods.values())

    def is_harmed(self) -> bool:
        """Whether something that a fault made is at work."""
        jobs = self.cluster.listing("Job", NAMESPACE)
        return any(not job["spec"].get("suspend") for job in jobs) or bool(self.cluster.listing(CHAOS, NAMESPACE))

    def _working(self, now: Instant) -> int:
        """The ready workers but for those that a harmful Job keeps from their work: it blocks three."""
        return max(0, self._ready(now) - 3 * self.bulk)

    def _harm(self) -> None:
        """What Jobs and another engine's objects do, and say of themselves."""
        if not self.bulk and not self.cluster.has_any("Job", CHAOS):
            return
        self.bulk = self.is_harmed()
        for chaos in self.cluster.listing(CHAOS, NAMESPACE):
            if "status" not in chaos:
                status = {"conditions": [{"type": "AllInjected", "status": "True"}]}
                self.cluster.put({**chaos, "status": status})
        for job in self.cluster.listing("Job", NAMESPACE):
            active = 0 if job["spec"].get("suspend") else 1
            if (job.get("status") or {}).get("active", 0) != active:
                self.cluster.put({**job, "status": {"active": active, "ready": active}})

    def _reconcile(self, now: Instant) -> None:
        """What the controllers and the kernel do. A Deployment that is gone takes its pods with it."""
        self._harm()
        try:
            spec = self.cluster.peek(WORKER)["spec"]
        except NotFound:
            self._pods.clear()
            self._mirror(now)
            return
        for uid, pod in list(self._pods.items()):
            if uid in self._mirrored and not self.cluster.holds(Ref("Pod", NAMESPACE, pod.name)):
                del self._pods[uid], self._mirrored[uid]
                self._add_pod(warms_up=self.warms_up_for)
        template = spec["template"]
        if template != self._template:
            # One object for equal templates, so that pods are compared by identity.
            self._template = next((pod.template for pod in self._pods.values() if pod.template == template), template)
            self._rolled_at = now
        if self._rolled_at is not None and now - self._rolled_at >= 1.0:
            self._rolled_at = None
            stale = [uid for uid, pod in self._pods.items() if pod.template is not self._template]
            # maxUnavailable 3: a crashing rollout leaves two old workers; a healthy one replaces all.
            gone = stale[:3] if _ails(self._template, self._settings()) else stale
            for uid in gone:
                del self._pods[uid]
                self._add_pod()
        self._scale(spec["replicas"])
        accepted = self._accepted()
        for pod in self._pods.values():
            if self.kills and pod.ails == "memory":
                pod.tick(now)
            pod.refused = pod.needs_key and pod.key not in accepted
        self._mirror(now)
        self._sync_status(now)

    def mend_in_place(self) -> None:
        """What is wrong with the workers is put right in them alone: what is declared stays as it is."""
        for pod in self._pods.values():
            pod.ails, pod.killed_at = "", None

    def restart(self) -> None:
        """Every worker is replaced, as by `kubectl rollout restart`."""
        self._pods.clear()
        self._reconcile(self.clock.now())

    def _keys(self) -> dict[str, str]:
        try:
            return self.cluster.peek(KEYS).get("data") or {}
        except NotFound:
            return {}

    def _accepted(self) -> set[str]:
        """What the provider takes: what is under a name for keys, and not also under one for revoked keys."""
        keys = self._keys()
        revoked = {value for name, value in keys.items() if name.startswith("revoked-")}
        return {value for name, value in keys.items() if name.startswith("key-") and len(value) > 40} - revoked

    def _mirror(self, now: Instant) -> None:
        """Show each pod as an object, whenever it looks otherwise than before."""
        for uid in [uid for uid in self._mirrored if uid not in self._pods]:
            del self._mirrored[uid]
            self.cluster.drop(Ref("Pod", NAMESPACE, f"worker-{uid.removeprefix('uid-')}"))
        for uid, pod in self._pods.items():
            looks = (pod.is_ready(now), pod.restarts, pod.killed_at)
            if self._mirrored.get(uid) != looks:
                ref, body = Ref("Pod", NAMESPACE, pod.name), pod.body(now)
                if uid in self._mirrored:
                    body = {**self.cluster.peek(ref), "status": body["status"]}
                self._mirrored[uid] = looks
                self.cluster.put(body)

    def _scale(self, wanted: int) -> None:
        """As many pods as declared; the youngest go first."""
        missing = wanted - len(self._pods)
        for uid in list(self._pods)[wanted:]:
            del self._pods[uid]
        for _ in range(missing):
            self._add_pod()

    def _evaluate(self, at: Instant) -> None:
        self.last_evaluation = at
        seen = self.scraped[-1][1] if self.scraped else 0.0
        if seen > self.threshold:
            self.pending_since = at if self.pending_since is None else self.pending_since
            firing = at - self.pending_since >= self.hold - 1e-6
            if firing and self.firing_since is None:
                self.firing_since = at
                self.held = [NotifierAlert("f1", _LABELS, at, at + 240, "active", ())]
                self.pages.append(Notification(len(self.pages) + 1, at + 1.1, "pager", "firing", _LABELS, at, "f1"))
            self.alert_samples.append((at, "firing" if self.firing_since else "pending"))
        else:
            if self.firing_since is not None:
                started = self.firing_since
                self.pages.append(
                    Notification(len(self.pages) + 1, at + 2, "pager", "resolved", _LABELS, started, "f1")
                )
                self.held = []
            self.pending_since = self.firing_since = None

    def _add_pod(self, warms_up: float = 1.0) -> None:
        self._serial += 1
        uid = f"uid-{self._serial}"
        ails, key = _ails(self._template, self._settings()), self._keys().get(KEY, "")
        needs_key = sum(pod.needs_key for pod in self._pods.values()) < NEED_KEY
        pod = _Pod(f"worker-{self._serial}", uid, self._template, ails, self.clock.now(), warms_up, key, needs_key)
        pod.refused = needs_key and pod.key not in self._accepted()
        self._pods[uid] = pod

    def _settings(self) -> Json:
        try:
            return self.cluster.peek(SETTINGS).get("data") or {}
        except NotFound:
            return {}

    def pods_shown(self, now: Instant) -> object:
        """Equal for two instants at which the pods look the same."""
        return tuple((uid, pod.is_ready(now), pod.restarts) for uid, pod in self._pods.items())

    def pod_objects(self) -> tuple[Json, ...]:
        now = self.clock.now()
        return tuple(pod.body(now) for pod in self._pods.values())

    def _deployment(self) -> Json:
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "worker", "namespace": NAMESPACE, "labels": {"app": "worker"}},
            "spec": {
                "replicas": self.workers,
                "selector": {"matchLabels": {"app": "worker"}},
                "template": {
                    "metadata": {"labels": {"app": "worker"}},
                    "spec": {
                        "containers": [
                            {
                                "name": "worker",
                                "image": IMAGE,
                                "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": KEY}}}],
                                "resources": {
                                    "limits": {"cpu": "500m", "memory": "128Mi"},
                                    "requests": {"cpu": "50m", "memory": "32Mi"},
                                },
                            }
                        ]
                    },
                },
            },
        }

    def _sync_status(self, now: Instant) -> None:
        body = self.cluster.peek(WORKER)
        ready = self._ready(now)
        status = {
            "observedGeneration": body["metadata"].get("generation", 1),
            "replicas": len(self._pods),
            "updatedReplicas": sum(pod.template is self._template for pod in self._pods.values()),
            "readyReplicas": ready,
            "availableReplicas": ready,
        }
        if body.get("status") != status:
            self.cluster.put({**body, "status": status})


_LABELS = {"alertname": "HighQueueDepth", "severity": "page"}


@dataclass
class _Pod:
    name: str
    uid: str
    template: Json
    ails: str
    """Why it cannot work, from its first moment on; "" where it can."""
    born: Instant
    warms_up: float = 1.0
    key: str = ""
    """The key that it was started with, as the Secret holds it."""
    needs_key: bool = False
    refused: bool = False
    restarts: int = 0
    killed_at: Instant | None = None
    next_kill: Instant | None = None

    def is_ready(self, now: Instant) -> bool:
        if self.ails or self.refused:
            return False
        return now - self.born >= self.warms_up

    def tick(self, now: Instant) -> bool:
        """Whether the pod was just killed."""
        if self.next_kill is None:
            self.next_kill = self.born + 1.5 + (int(self.uid.split("-")[1]) % 5) / 10
        if now < self.next_kill:
            return False
        self.killed_at, self.restarts = now, self.restarts + 1
        self.next_kill = now + 10 * 2**self.restarts
        return True

    def body(self, now: Instant) -> Json:
        state: Json = {"name": "worker", "restartCount": self.restarts, "state": {"running": {}}}
        if self.killed_at is not None:
            ended = {"reason": "OOMKilled", "exitCode": 137, "finishedAt": utc(math.floor(self.killed_at))}
            state |= {"lastState": {"terminated": ended}, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
        if self.ails == "image":
            state |= {"state": {"waiting": {"reason": "ImagePullBackOff"}}}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "uid": self.uid,
                "namespace": NAMESPACE,
                "labels": {"app": "worker", "pod-template-hash": "1"},
                "ownerReferences": [{"kind": REPLICAS.kind, "name": REPLICAS.name, "uid": "rs-1", "controller": True}],
            },
            "spec": self.template["spec"],
            "status": {
                "conditions": [{"type": "Ready", "status": "True" if self.is_ready(now) else "False"}],
                "containerStatuses": [state],
            },
        }


class FakeMetrics:
    """Prometheus over the world's samples."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rule_name = "HighQueueDepth"
        self.rule_query = "max(nova_queue_depth) > 50"
        self.intervals = {"api": 1.0}
        self.offset_bounds = Bounds(earliest=-0.001, latest=0.001)

    def _up(self) -> None:
        if self._world.metrics_down:
            raise Unreachable("prometheus-unreachable", "no answer", expected="an answer", remedy="start it")

    def ready(self) -> str:
        self._up()
        return "2.42.0"

    def started_at(self) -> Instant:
        self._up()
        return self._world.process_started

    def offset(self) -> Bounds:
        self._up()
        return self.offset_bounds

    def vector(self, query: str, at: Instant | None = None) -> list[Series]:
        raise NotImplementedError(query, at)

    def grid(self, query: str, start: Instant, end: Instant, step: float) -> list[Series]:
        self._up()
        points = []
        for i in range(round((end - start) / step) + 1):
            at = start + i * step
            series = self._world.refusals if query == REFUSED else self._world.scraped
            known = [(t, v) for t, v in series if t <= at]
            if not known:
                continue
            if query.startswith("deriv"):
                window = [(t, v) for t, v in known if t > at - 5]
                if len(window) < 2:
                    continue
                value = (window[-1][1] - window[0][1]) / (window[-1][0] - window[0][0])
            elif query.startswith("budget"):
                value = 0.5
            elif query == AGE:
                value = at - known[-1][0]
            else:
                value = known[-1][1]
            points.append((at, value))
        return [Series({}, tuple(points))] if points else []

    def raw(self, selector: str, window: float) -> list[Series]:
        self._up()
        since = self._world.clock.now() - window
        found = []
        for state in ("pending", "firing"):
            stamps = tuple((at, 1.0) for at, s in self._world.alert_samples if s == state and at >= since)
            if stamps:
                found.append(Series({"alertname": self.rule_name, "alertstate": state, "severity": "page"}, stamps))
        return found

    def rules(self) -> list[Rule]:
        self._up()
        world = self._world
        state = "firing" if world.firing_since else "pending" if world.pending_since else "inactive"
        active = ()
        if world.pending_since is not None:
            active = (ActiveAlert(_LABELS, state, world.pending_since, world.scraped[-1][1]),)  # type: ignore[arg-type,assignment]
        return [
            Rule(
                alert=self.rule_name,
                group="queue",
                file="rules.yml",
                query=self.rule_query,
                for_seconds=world.hold,
                interval=1.0,
                labels={"severity": "page"},
                annotations={"runbook_url": "runbooks/high-queue-depth.md"},
                health="ok",
                last_error="",
                state=state,  # type: ignore[arg-type]
                last_evaluation=world.last_evaluation,
                active=active,
            )
        ]

    def scrape_intervals(self) -> dict[str, float]:
        return dict(self.intervals)

    def notified(self) -> list[str]:
        return ["http://alertmanager:9093/api/v2/alerts"]


class FakeNotifier:
    """Alertmanager over the world's alerts."""

    def __init__(self, world: World) -> None:
        self._world = world

    def ready(self) -> str:
        return "0.25.0"

    def offset(self) -> Bounds:
        return Bounds(earliest=-0.5, latest=0.5)

    def alerts(self, name: str) -> list[NotifierAlert]:
        return [alert for alert in self._world.held if alert.labels["alertname"] == name]

    def silences(self) -> list[Silence]:
        return list(self._world.silenced)

    def silence(self, matchers: Sequence[Matcher], *, author: str, comment: str, seconds: float) -> str:
        now = self._world.clock.now()
        ident = f"silence-{len(self._world.silenced)}"
        self._world.silenced.append(Silence(ident, tuple(matchers), now, now + seconds, now, author, comment, "active"))
        return ident

    def expire(self, silence_id: str) -> None:
        raise NotImplementedError(silence_id)

    def route(self, labels: Mapping[str, str]) -> Route:
        return Route("pager", 1.0, 2.0)


class FakePager:
    """The pager over the world's notifications."""

    def __init__(self, world: World) -> None:
        self._world = world

    def offset(self) -> Bounds:
        return Bounds(earliest=-0.001, latest=0.001)

    def notifications(self, since: int) -> list[Notification]:
        now = self._world.clock.now()
        return [page for page in self._world.pages if page.seq > since and page.received_at <= now]


class SteppedFeed:
    """The engine's own watchers, stepped on the virtual clock without a thread. `step` lets a tenth of a second pass
    for the process that looks through this feed."""

    def __init__(self, world: World, step: Callable[[], None] | None = None) -> None:
        self._world = world
        self._step = step or world.step
        self._queue: deque[Event] = deque()
        self._rounds: list[tuple[Round, Channel, list[Instant]]] = []
        self._pods: dict[str, PodsTracker] = {}
        self._pods_told: object = None
        self._watches: list[_Watch] = []
        self._script: list[tuple[Callable[[World], bool], Callable[[World], Any]]] = []
        self.waits = 0

    def put(self, event: Event) -> None:
        self._queue.append(event)

    def poll(self, round_: Round) -> None:
        self._rounds.append((round_, Channel(round_.name, self.put), [0.0]))

    def watch_pods(self, fault: str, selector: PodSelector) -> None:
        self._pods[fault] = pods_of_fault(fault, selector)
        self._pods_told = None

    def watch_restart(self, plan: RestartPlanned) -> None:
        self._pods.setdefault(plan.workload, pods_of_restart(plan))
        self._pods_told = None

    def watch_object(self, fault: str, selector: ObjectSelector) -> None:
        tracker, ref = ObjectTracker(fault, selector), selector.ref
        self._watches.append(_Watch(ref.kind, ref.namespace, "", ref.name, tracker.update, Channel(str(ref), self.put)))

    def watch_inbox(self, tracker: InboxTracker) -> None:
        channel = Channel("inbox", self.put)
        self._watches.append(_Watch("ConfigMap", NAMESPACE, f"{INBOX_LABEL}=true", "", tracker.update, channel))

    def watch_switch(self, ref: Ref, switch: Switch) -> None:
        channel = Channel(str(ref), self.put)
        self._watches.append(_Watch(ref.kind, ref.namespace, "", ref.name, switch.update, channel))

    def when(self, condition: Callable[[World], bool], act: Callable[[World], Any]) -> None:
        """Do `act` once, when `condition` first holds."""
        self._script.append((condition, act))

    def stop_when(self, condition: Callable[[World], bool]) -> None:
        self.when(condition, lambda _: self.put(StopAsked(by="SIGINT")))

    def next(self, until: Instant) -> Event | None:
        while True:
            if self._queue:
                return self._queue.popleft()
            if self._world.clock.now() >= until:
                return None
            self.waits += 1
            self._step()
            self._look()

    def _look(self) -> None:
        now = self._world.clock.now()
        for index, (condition, act) in reversed(list(enumerate(self._script))):
            if condition(self._world):
                del self._script[index]
                act(self._world)
        self._look_at_cluster(now)
        for round_, channel, due in self._rounds:
            if now >= due[0]:
                try:
                    events, due[0] = round_.look(now)
                except Unreachable as error:
                    due[0] = now + 1.0
                    channel.lost(error.fact)
                    continue
                channel.back()
                self._queue.extend(events)

    def _look_at_cluster(self, now: Instant) -> None:
        if self._pods and not self._world.cluster.unreachable:
            shown = self._world.pods_shown(now)
            if shown != self._pods_told:
                self._pods_told = shown
                seen = WatchEvent("sync", self._world.pod_objects())
                self._queue.extend(told for tracker in self._pods.values() for told in tracker.update(seen))
        for watch in self._watches:
            self._queue.extend(watch.look(self._world.cluster, now))


@dataclass
class _Watch:
    """One watch of the API server, which tells what is there whenever anything changed."""

    kind: str
    namespace: str
    labels: str
    name: str
    update: Callable[[WatchEvent], list[Event]]
    channel: Channel
    told: int = -1
    silent_since: Instant | None = None

    def look(self, cluster: Mortal, now: Instant) -> list[Event]:
        if cluster.unreachable:
            self.silent_since = now if self.silent_since is None else self.silent_since
            if now - self.silent_since >= 30.0:  # as long as the real one tries to connect again by itself
                self.channel.lost("no connection for 30 s")
            return []
        self.silent_since = None
        self.channel.back()
        if cluster.version == self.told:
            return []
        self.told = cluster.version
        found = cluster.listing(self.kind, self.namespace, self.labels)
        items = tuple(one for one in found if not self.name or one["metadata"]["name"] == self.name)
        return self.update(WatchEvent("sync", items))


def _crossed(before: Instant, now: Instant, phase: float) -> bool:
    return math.floor(before - phase + 1e-9) != math.floor(now - phase + 1e-9)


def _slot(now: Instant, phase: float) -> Instant:
    return math.floor(now - phase + 1e-9) + phase


def _namespace() -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"drill.internal/opt-in": "true"}},
    }


def _keys() -> Json:
    value = base64.b64encode(b"the-value-that-opens-the-provider-0").decode()
    meta = {"name": KEYS.name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque", "data": {KEY: value}}


def _marker() -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "drills-allowed", "namespace": "drill-system"},
        "data": {"environment": "staging"},
    }


def _settings() -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": SETTINGS.name, "namespace": NAMESPACE, "labels": {"app": "worker"}},
        "data": {"MODE": "fast", "BATCH": "10"},
    }
