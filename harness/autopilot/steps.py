"""What the automated responder concludes from what it sees: pure functions from objects to facts to a decision.

The order is that of runbooks/high-queue-depth.md: look at the pods before anything is changed; healthy pods mean
more work than usual and are scaled; unhealthy pods are not scaled but understood. Where the world is not what the
runbook describes, the decision is to leave it alone and to say why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.core.clock import Instant
from harness.core.event import PodState
from harness.core.experiment import Condition, RestoreMemoryLimit
from harness.core.pods import pod_state
from harness.core.quantity import parse_memory
from harness.ports.cluster import Json

CRASH_LOOP = "CrashLoopBackOff"


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment and the pods that it owns, as they were at one look. `limit` is the template's memory limit."""

    name: str
    uid: str
    replicas: int
    container: str
    index: int
    limit: str
    pods: tuple[PodState, ...]
    leaving: frozenset[str] = frozenset()
    """Uids of pods that are being deleted."""

    @property
    def killed(self) -> tuple[PodState, ...]:
        """Pods that the kernel killed for memory."""
        return tuple(pod for pod in self.pods if pod.oom_kills)

    @property
    def unhealthy(self) -> tuple[PodState, ...]:
        """Pods that do no work."""
        return tuple(pod for pod in self.pods if not pod.ready)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What to do and why. `cause` is empty where nothing is claimed."""

    action: Literal["fix", "scale", "leave"]
    why: str
    cause: str = ""


def labels_of(deployment: Json) -> str:
    """The label selector of a Deployment's pods."""
    return ",".join(f"{k}={v}" for k, v in sorted(deployment["spec"]["selector"]["matchLabels"].items()))


def seen(deployment: Json, pods: Sequence[Json]) -> Workload:
    """The facts in a Deployment and its pods; of several containers, the one with the most kills (else the first)."""
    containers = deployment["spec"]["template"]["spec"]["containers"]
    by_container = [[pod_state(pod, c["name"]) for pod in pods] for c in containers]
    index = max(range(len(containers)), key=lambda i: (sum(bool(p.oom_kills) for p in by_container[i]), -i))
    return Workload(
        name=deployment["metadata"]["name"],
        uid=deployment["metadata"]["uid"],
        replicas=int(deployment["spec"].get("replicas", 1)),
        container=containers[index]["name"],
        index=index,
        limit=str(containers[index].get("resources", {}).get("limits", {}).get("memory", "")),
        pods=tuple(sorted(by_container[index], key=lambda pod: pod.name)),
        leaving=frozenset(pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" in pod["metadata"]),
    )


def described(workload: Workload) -> str:
    """The facts in words, worst first: "3 OOMKilled (limit 64Mi, 7 restarts), 2 ready (limit 128Mi)"."""
    groups = Counter((_state(pod), pod.memory_limit or "none") for pod in workload.pods)
    restarts: Counter[tuple[str, str]] = Counter()
    for pod in workload.pods:
        restarts[_state(pod), pod.memory_limit or "none"] += pod.restarts
    parts = [
        f"{count} {state} (limit {limit}" + (f", {restarts[state, limit]} restarts" if restarts[state, limit] else "")
        + ")"
        for (state, limit), count in sorted(groups.items(), key=lambda item: (item[0][0] == "ready", item[0]))
    ]  # fmt: skip
    return f"{len(workload.pods)} of {workload.replicas} pods: " + (", ".join(parts) or "none")


def _state(pod: PodState) -> str:
    if pod.oom_kills:
        return f"OOMKilled, {pod.waiting or ('ready' if pod.ready else 'not ready')}"
    return pod.waiting or ("ready" if pod.ready else "not ready")


def diagnosed(workload: Workload, runbook: RestoreMemoryLimit) -> Diagnosis:
    """The decision tree of the runbook over the facts of one look."""
    if not workload.pods:
        return Diagnosis("leave", "there are no pods to look at, which the runbook does not describe")
    if workload.killed:
        return _of_killed(workload, runbook)
    if workload.unhealthy or len(workload.pods) < workload.replicas:
        return Diagnosis("leave", f"pods are unhealthy but none was OOMKilled: {described(workload)}")
    if runbook.scale_to is None or runbook.scale_to <= workload.replicas:
        wanted = "no number" if runbook.scale_to is None else str(runbook.scale_to)
        return Diagnosis("leave", f"all pods are healthy, and {wanted} is given to scale the {workload.replicas} to")
    return Diagnosis(
        "scale", f"all {len(workload.pods)} pods are healthy: more work than usual, so scale to {runbook.scale_to}",
        f"deployment/{workload.name}: more work than {workload.replicas} healthy pods can take",
    )  # fmt: skip


def _of_killed(workload: Workload, runbook: RestoreMemoryLimit) -> Diagnosis:
    killed = len(workload.killed)
    if not workload.limit:
        return Diagnosis("leave", f"{killed} pods were OOMKilled, but the Deployment has no memory limit to put back")
    if parse_memory(workload.limit) >= parse_memory(runbook.limit):
        return Diagnosis(
            "leave",
            f"{killed} pods were OOMKilled, but the limit is {workload.limit}, not below the runbook's "
            f"{runbook.limit}: the cause is another",
        )
    return Diagnosis(
        "fix",
        f"{killed} pods were OOMKilled, so scaling would only make more that crash: put the limit back first",
        f"deployment/{workload.name}: OOMKilled, its memory limit of {workload.limit} is below the {runbook.limit} "
        "that the runbook asks for",
    )


def limit_patch(workload: Workload, limit: str) -> list[Json]:
    """Put the memory limit back, if the Deployment is still the one that was looked at."""
    container = f"/spec/template/spec/containers/{workload.index}"
    path = f"{container}/resources/limits/memory"
    return [
        {"op": "test", "path": "/metadata/uid", "value": workload.uid},
        {"op": "test", "path": f"{container}/name", "value": workload.container},
        {"op": "test", "path": path, "value": workload.limit},
        {"op": "replace", "path": path, "value": limit},
    ]


def scale_patch(workload: Workload, replicas: int) -> list[Json]:
    """Scale, if the Deployment is still the one that was looked at."""
    return [
        {"op": "test", "path": "/metadata/uid", "value": workload.uid},
        {"op": "test", "path": "/spec/replicas", "value": workload.replicas},
        {"op": "replace", "path": "/spec/replicas", "value": replicas},
    ]


def left_crashing(workload: Workload, limit: str) -> tuple[PodState, ...]:
    """Pods of before the fix that still crash and that nobody is deleting yet."""
    return tuple(
        pod
        for pod in workload.pods
        if pod.waiting == CRASH_LOOP and pod.memory_limit != limit and pod.uid not in workload.leaving
    )


def still_killed(workload: Workload, limit: str) -> tuple[PodState, ...]:
    """Pods that carry the fix and were OOMKilled all the same."""
    return tuple(pod for pod in workload.killed if pod.memory_limit == limit)


class Window:
    """Whether a condition has held without a break for its time, fed one look after another."""

    def __init__(self, condition: Condition) -> None:
        self._condition = condition
        self._since: Instant | None = None

    def see(self, at: Instant, value: float | None) -> bool:
        """Take one value (None: there was none, which breaks the window); whether the condition has held."""
        if value is None or not self._condition.holds(value):
            self._since = None
            return False
        self._since = at if self._since is None else self._since
        return at - self._since >= self._condition.for_
