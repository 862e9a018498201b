"""The automated responder in a world on a virtual clock: what it says and does, and what it leaves alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from harness.autopilot.responder import Outcome, run
from harness.core.clock import Instant
from harness.core.experiment import AnyExperiment
from harness.core.inbox import INBOX_LABEL
from harness.ports.cluster import Json, OutcomeUnknown, Ref
from harness.ports.metrics import Series
from tests.core.test_judging import experiment
from tests.fakes.world import NAMESPACE, FakeMetrics, FakeNotifier, World

ACTOR = "system:serviceaccount:drill-system:drill-autopilot"
WORKER = Ref("Deployment", NAMESPACE, "worker")
LIMIT = "/spec/template/spec/containers/0/resources/limits/memory"


class Metrics(FakeMetrics):
    """Instant queries answered from the newest scrape."""

    def vector(self, query: str, at: Instant | None = None) -> list[Series]:
        self._up()
        return [Series({}, (self._world.scraped[-1],))]


class Stage:
    """The world with the responder in it; time passes while the responder waits."""

    def __init__(self, *, fault: bool = True, patience: float = 180.0, **autopilot: Any) -> None:
        self.world = World()
        self.cluster = self.world.cluster.as_user(ACTOR)
        self.stop = threading.Event()
        self.said: list[str] = []
        self.hooks: list[tuple[Callable[[Stage], bool], Callable[[Stage], Any]]] = []
        self.waits = 0
        self.end = self.world.clock.now() + patience
        self.notifier = FakeNotifier(self.world)
        tree = {"do": "restore-memory-limit", "limit": "128Mi"}
        tree |= {key: autopilot.pop(key) for key in ("limit", "scale_to") if key in autopilot}
        plan = {"responses": [{"look_at": "deployment/worker", "steps": [tree]}], "escalate": ["l2"]}
        self.experiment: AnyExperiment = experiment(autopilot=plan | autopilot)
        self._sync()
        if fault:
            self.set_limit("64Mi")

    def set_limit(self, limit: str) -> None:
        self.world.cluster.patch(WORKER, [{"op": "replace", "path": LIMIT, "value": limit}])

    def wait(self, seconds: float) -> bool:
        self.waits += 1
        self.world.run_for(max(seconds, 0.1))
        self._sync()
        for hook in list(self.hooks):
            if hook[0](self):
                self.hooks.remove(hook)
                hook[1](self)
        if self.world.clock.now() > self.end:
            self.stop.set()
        return self.stop.is_set()

    def when(self, condition: Callable[[Stage], bool], act: Callable[[Stage], Any]) -> None:
        self.hooks.append((condition, act))

    def respond(self) -> Outcome:
        return run(
            self.experiment, NAMESPACE, self.cluster, Metrics(self.world), self.notifier, clock=self.world.clock,
            stop=self.stop, say=self.said.append, wait=self.wait,
        )  # fmt: skip

    def messages(self) -> list[Json]:
        return [call.body for call in self.cluster.writes() if call.verb == "create" and call.user == ACTOR]

    def actions(self) -> list[str]:
        return [body["data"]["action"] for body in self.messages()]

    def notes(self) -> str:
        return "\n".join(body["data"]["text"] for body in self.messages() if body["data"]["action"] == "note")

    def changes(self) -> list[Any]:
        return [call for call in self.cluster.writes() if call.user == ACTOR and call.ref.kind != "ConfigMap"]

    def _sync(self) -> None:
        pods = {pod["metadata"]["name"]: pod for pod in self.world.pod_objects()}
        for known in self.world.cluster.list("Pod", NAMESPACE, "app=worker"):
            if known["metadata"]["name"] not in pods and "stuck" not in known["metadata"]["name"]:
                self.world.cluster.drop(Ref("Pod", NAMESPACE, known["metadata"]["name"]))
        for pod in pods.values():
            self.world.cluster.put(pod)


def test_it_plays_the_runbook_from_the_page_to_the_all_clear() -> None:
    stage = Stage()
    assert stage.respond() == Outcome(finished=True, detail="all clear")
    assert stage.actions() == [
        "acknowledged", "assessed", "escalated", "joined", "looked", "note", "root_cause", "notified", "fix_applied",
        "note", "all_clear",
    ]  # fmt: skip
    by_action = {body["data"]["action"]: body["data"] for body in stage.messages()}
    assert by_action["looked"]["text"].startswith("5 of 5 pods: 3 OOMKilled, CrashLoopBackOff (limit 64Mi")
    assert by_action["root_cause"]["text"].startswith("deployment/worker: OOMKilled")
    assert by_action["assessed"]["text"] == "P1"
    assert by_action["joined"]["role"] == "l2"
    assert [call.verb for call in stage.changes()] == ["patch"]
    assert (
        stage.world.deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] == "128Mi"
    )
    assert stage.world.firing_since is None
    assert stage.world.depth < 20


def test_everything_it_says_is_its_own_and_labelled_as_automation() -> None:
    stage = Stage()
    stage.respond()
    for body in stage.messages():
        assert body["data"]["actor"] == ACTOR
        assert body["data"]["actorKind"] == "automation"
        assert INBOX_LABEL in body["metadata"]["labels"]


def test_it_says_nothing_before_the_alert_and_looks_before_it_changes() -> None:
    stage = Stage(fault=False, patience=20)
    assert stage.respond() == Outcome(finished=False, detail="asked to stop")
    assert stage.cluster.writes() == []
    stage = Stage()
    stage.respond()
    writes = [call.body["data"]["action"] if call.verb == "create" else call.verb
              for call in stage.cluster.writes() if call.user == ACTOR]  # fmt: skip
    assert writes.index("looked") < writes.index("patch") < writes.index("fix_applied")


def test_a_silence_is_a_door_too_and_is_ended_at_the_all_clear() -> None:
    stage = Stage(door="silence")
    expired: list[str] = []
    stage.notifier.expire = expired.append  # type: ignore[method-assign,assignment]
    assert stage.respond().finished
    assert "acknowledged" not in stage.actions()
    (silence,) = stage.world.silenced
    assert silence.created_by == ACTOR
    assert expired == [silence.id]


def test_healthy_pods_are_scaled_where_the_experiment_says_to_how_many() -> None:
    stage = Stage(fault=False, scale_to=8, patience=60)
    stage.world.arrivals = 30.0
    stage.respond()
    assert stage.world.deployment["spec"]["replicas"] == 8
    assert "fix_applied" in stage.actions()


def test_healthy_pods_without_a_number_are_left_alone() -> None:
    stage = Stage(fault=False)
    stage.world.arrivals = 30.0
    outcome = stage.respond()
    assert not outcome.finished
    assert "all pods are healthy" in outcome.detail
    assert "stopped acting: all pods are healthy" in stage.notes()
    assert stage.changes() == []


def test_pods_that_are_unhealthy_for_another_reason_are_left_alone() -> None:
    stage = Stage()
    stage.world.kills = False
    outcome = stage.respond()
    assert "none was OOMKilled" in outcome.detail
    assert stage.changes() == []
    assert stage.actions()[-1] == "note"


def test_where_somebody_else_changed_the_limit_it_stops_and_says_so() -> None:
    stage = Stage()
    stage.when(lambda s: "root_cause" in s.actions(), lambda s: s.set_limit("96Mi"))
    outcome = stage.respond()
    assert "somebody changed deployment/worker meanwhile" in outcome.detail
    assert "fix_applied" not in stage.actions()
    assert "stopped acting" in stage.notes()


def test_a_lost_reply_to_the_fix_is_looked_up_and_not_guessed() -> None:
    stage = Stage()
    stage.when(lambda s: "root_cause" in s.actions(), lambda s: s.cluster.fail_next("patch", after=True))
    assert stage.respond().finished
    assert len(stage.changes()) == 1


def test_a_fix_that_never_arrived_is_sent_again() -> None:
    stage = Stage()
    unsent = OutcomeUnknown("lost", "cut", expected="a reply", remedy="look")
    stage.when(lambda s: "root_cause" in s.actions(), lambda s: s.cluster.fail_next("patch", unsent))
    assert stage.respond().finished
    assert len(stage.changes()) == 2


@pytest.mark.parametrize("verb", ["whoami", "create", "list", "get"])
def test_a_peer_that_does_not_answer_is_asked_again(verb: Any) -> None:
    stage = Stage()
    if verb == "whoami":
        stage.cluster.fail_next(verb, times=3)
    else:  # just before the responder's own next call, lest the world's own calls take the failure
        stage.when(lambda s: "escalated" in s.actions(), lambda s: s.cluster.fail_next(verb))
    assert stage.respond().finished
    assert sum("asking again" in line for line in stage.said) == 1


@pytest.mark.parametrize("denied", [("patch", "Deployment"), ("create", "ConfigMap"), ("list", "Pod")])
def test_what_is_forbidden_ends_the_work_and_nothing_else(denied: tuple[str, str]) -> None:
    stage = Stage()
    stage.cluster.denied.add(denied)
    assert not stage.respond().finished
    assert stage.world.firing_since is not None


def test_a_limit_that_does_not_help_is_said_and_not_repeated() -> None:
    stage = Stage(limit="72Mi")
    outcome = stage.respond()
    assert "was OOMKilled with the limit of 72Mi put back" in outcome.detail
    assert [call.verb for call in stage.changes()] == ["patch"]


def test_pods_that_keep_crashing_after_the_fix_are_deleted_once() -> None:
    stage = Stage()
    pod = dict(stage.world.pod_objects()[0])
    status = {"name": "worker", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
              "lastState": {"terminated": {"reason": "OOMKilled", "finishedAt": "2026-11-22T09:15:00Z"}}}  # fmt: skip
    stuck = pod | {
        "metadata": pod["metadata"] | {"name": "worker-stuck", "uid": "uid-stuck"},
        "spec": {"containers": [{"name": "worker", "resources": {"limits": {"memory": "64Mi"}}}]},
        "status": {"conditions": [], "containerStatuses": [status]},
    }
    stage.world.cluster.put(stuck)
    assert stage.respond().finished
    assert [(call.verb, call.ref.name) for call in stage.changes()] == [
        ("patch", "worker"), ("delete", "worker-stuck"),
    ]  # fmt: skip
    assert "deleted worker-stuck" in stage.notes()


@pytest.mark.parametrize("after", [0, 1, 5, 20, 32, 34, 36, 40, 50])
def test_a_stop_ends_it_at_its_next_wait(after: int) -> None:
    stage = Stage()
    stage.when(lambda s: s.waits >= after, lambda s: s.stop.set())
    if after == 0:
        stage.stop.set()
    assert stage.respond() == Outcome(finished=False, detail="asked to stop")
    assert stage.waits <= max(after, 1)


def test_without_a_plan_or_an_alert_there_is_nothing_to_do() -> None:
    stage = Stage()
    stage.experiment = experiment()
    assert not stage.respond().finished
    assert stage.waits == 0
