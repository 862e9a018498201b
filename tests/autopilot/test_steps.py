"""What the automated responder concludes from what it sees."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.autopilot.steps import (
    Window,
    described,
    diagnosed,
    labels_of,
    left_crashing,
    limit_patch,
    scale_patch,
    seen,
    still_killed,
)
from harness.core.experiment import Condition, RestoreMemoryLimit

PLAN = RestoreMemoryLimit(do="restore-memory-limit", limit="128Mi", scale_to=8)


def deployment(limit: str = "64Mi", replicas: int = 5, sidecar: bool = False) -> dict[str, Any]:
    containers: list[dict[str, Any]] = [{"name": "worker", "resources": {"limits": {"memory": limit} if limit else {}}}]
    if sidecar:
        containers.insert(0, {"name": "sidecar", "resources": {"limits": {"memory": "16Mi"}}})
    return {
        "metadata": {"name": "worker", "uid": "d1"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"b": "2", "a": "1"}},
                 "template": {"spec": {"containers": containers}}},
    }  # fmt: skip


def pod(
    name: str, *, limit: str = "64Mi", ready: bool = False, oom: bool = False, waiting: str = "", leaving: bool = False,
    restarts: int = 0, container: str = "worker",
) -> dict[str, Any]:  # fmt: skip
    status: dict[str, Any] = {"name": container, "restartCount": restarts, "state": {"running": {}}}
    if waiting:
        status["state"] = {"waiting": {"reason": waiting}}
    if oom:
        status["lastState"] = {"terminated": {"reason": "OOMKilled", "finishedAt": "2026-11-22T09:15:00Z"}}
    gone = {"deletionTimestamp": "2026-11-22T09:15:00Z"} if leaving else {}
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", **gone},
        "spec": {"containers": [{"name": container, "resources": {"limits": {"memory": limit}}}]},
        "status": {"containerStatuses": [status], "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


HEALTHY = [pod(f"h{i}", limit="128Mi", ready=True) for i in range(5)]
KILLED = [pod(f"k{i}", oom=True, waiting="CrashLoopBackOff", restarts=2) for i in range(3)]


@pytest.mark.parametrize(
    ("body", "pods", "plan", "action", "words"),
    [
        (deployment(), [*KILLED, *HEALTHY[:2]], PLAN, "fix", "scaling would only make more that crash"),
        (deployment("128Mi"), HEALTHY, PLAN, "scale", "scale to 8"),
        (deployment("128Mi"), HEALTHY, PLAN.model_copy(update={"scale_to": None}), "leave", "no number is given"),
        (deployment("128Mi", 8), [pod(f"h{i}", ready=True) for i in range(8)], PLAN, "leave", "to scale the 8 to"),
        (deployment("128Mi"), HEALTHY[:4], PLAN, "leave", "none was OOMKilled"),
        (deployment("128Mi"), [*HEALTHY[:4], pod("x", waiting="ImagePullBackOff")], PLAN, "leave", "ImagePullBackOff"),
        (deployment("128Mi"), [*KILLED, *HEALTHY[:2]], PLAN, "leave", "the cause is another"),
        (deployment("256Mi"), [*KILLED, *HEALTHY[:2]], PLAN, "leave", "the cause is another"),
        (deployment(""), KILLED, PLAN, "leave", "no memory limit to put back"),
        (deployment(), [], PLAN, "leave", "no pods to look at"),
    ],
)  # fmt: skip
def test_the_decision_tree_of_the_runbook(
    body: dict[str, Any], pods: list[dict[str, Any]], plan: RestoreMemoryLimit, action: str, words: str
) -> None:
    found = diagnosed(seen(body, pods), plan)
    assert found.action == action
    assert words in found.why
    assert bool(found.cause) is (action != "leave")


def test_a_kill_between_two_restarts_is_still_a_kill() -> None:
    flapping = [pod(f"k{i}", oom=True, ready=True, restarts=1) for i in range(3)]
    assert diagnosed(seen(deployment(), [*flapping, *HEALTHY[:2]]), PLAN).action == "fix"


def test_facts_in_words() -> None:
    words = described(seen(deployment(), [*HEALTHY[:2], *KILLED]))
    assert words == "5 of 5 pods: 3 OOMKilled, CrashLoopBackOff (limit 64Mi, 6 restarts), 2 ready (limit 128Mi)"
    assert described(seen(deployment(), [])) == "0 of 5 pods: none"


def test_the_container_that_was_killed_is_the_one_that_is_fixed() -> None:
    workload = seen(deployment(sidecar=True), KILLED)
    assert (workload.container, workload.index, workload.limit) == ("worker", 1, "64Mi")
    operations = limit_patch(workload, "128Mi")
    assert [op["op"] for op in operations] == ["test", "test", "test", "replace"]
    assert operations[-1]["path"] == "/spec/template/spec/containers/1/resources/limits/memory"
    assert [op["value"] for op in operations] == ["d1", "worker", "64Mi", "128Mi"]
    assert [op["value"] for op in scale_patch(workload, 8)] == ["d1", 5, 8]
    assert labels_of(deployment()) == "a=1,b=2"


def test_only_pods_of_before_the_fix_that_crash_and_stay_are_deleted() -> None:
    pods = [*KILLED, pod("leaving", waiting="CrashLoopBackOff", leaving=True), pod("new", limit="128Mi", waiting="x"),
            pod("again", limit="128Mi", waiting="CrashLoopBackOff", oom=True), *HEALTHY]  # fmt: skip
    workload = seen(deployment("128Mi"), pods)
    assert [p.name for p in left_crashing(workload, "128Mi")] == ["k0", "k1", "k2"]
    assert [p.name for p in still_killed(workload, "128Mi")] == ["again"]


@given(st.lists(st.tuples(st.floats(0.1, 5), st.sampled_from([5.0, 25.0, None, float("nan")])), max_size=30))
def test_a_window_holds_only_after_an_unbroken_time(looks: list[tuple[float, float | None]]) -> None:
    window = Window(Condition.model_validate({"query": "q", "below": 20, "for": "8s"}))
    at, since = 0.0, None
    for pause, value in looks:
        at += pause
        if value != 5.0:
            since = None
        elif since is None:
            since = at
        assert window.see(at, value) is (since is not None and at - since >= 8)
