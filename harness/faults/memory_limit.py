"""Lower a container's memory limit on a live Deployment, so that the kernel kills what needs more.

The patch alone proves nothing: with the default rolling update one new pod crashes and all the old ones keep
working. Whether it hurts depends on the Deployment's maxUnavailable, and so the effect is proved from the pods: as
many distinct pods as declared, carrying the lowered limit, were OOM-killed.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from harness.core.clock import Bounds
from harness.core.errors import BadInput, Refused
from harness.core.event import Change
from harness.core.experiment import FaultSpec, Frozen, Loc, ObjectName, too_many
from harness.core.limits import MEMORY
from harness.core.quantity import Duration, Memory
from harness.core.snapshot import snapshot
from harness.core.workload import changes, check_at_rest, pod_labels, replicas
from harness.ports.cluster import Cluster, Conflict, Json, NotFound, Ref
from harness.ports.fault import Evidence, Plan, PodSelector, Proof, UndoOutcome, UndoRecord

_ATTEMPTS = 3


class OomEffect(Frozen):
    """What must be seen for the fault to count. `ready_at_most` is the number of pods that may still be ready."""

    oom_killed: int = Field(ge=1)
    ready_at_most: int | None = Field(default=None, ge=0)
    within: Duration


class MemoryLimitSpec(FaultSpec):
    """Parameters of the fault."""

    kind: Literal["memory-limit"]
    deployment: ObjectName
    container: str = Field(min_length=1)
    limit: Memory
    effect: OomEffect

    def nonsense(self, timeout: float) -> list[tuple[Loc, str]]:
        """See FaultSpec."""
        del timeout
        return too_many(self, ("effect", "oom_killed"), self.effect.oom_killed, "pods must be OOM-killed")


class MemoryLimit:
    """The fault `memory-limit`."""

    kind: ClassVar[str] = "memory-limit"

    def verbs(self, spec: MemoryLimitSpec) -> tuple[tuple[str, str], ...]:
        """See ports.fault."""
        return ("get", "Deployment"), ("patch", "Deployment")

    def plan(self, spec: MemoryLimitSpec, namespace: str, cluster: Cluster) -> Plan:
        """See ports.fault. Refuses a limit that is not lower, or that the container's request exceeds."""
        ref = Ref("Deployment", namespace, spec.deployment)
        try:
            body = cluster.get(ref)
        except NotFound as error:
            raise BadInput(
                "target-missing",
                f"{ref} does not exist",
                expected="the Deployment that the fault names",
                remedy=f"edit `deployment` of fault {spec.id}, or deploy it first",
            ) from error
        index, container = _container(body, spec)
        before = MEMORY.check_lower(container, str(ref), spec.limit, spec.id)
        check_at_rest(body)
        path = f"/spec/template/spec/containers/{index}/resources/limits/memory"
        return Plan(
            summary=f"lower the memory limit of container {spec.container} in {ref} from {before} to {spec.limit}",
            targets=(ref,),
            changes=(Change(object=str(ref), path=path, before=before, after=spec.limit),),
            pods=replicas(body),
            objects=1,
            undo={
                "kind": ref.kind,
                "namespace": namespace,
                "name": ref.name,
                "uid": body["metadata"]["uid"],
                "container": spec.container,
                "index": index,
                "before": before,
                "after": spec.limit,
                "labels": pod_labels(body),
                "snapshot": snapshot(body),
            },
        )

    def apply(self, undo: UndoRecord, cluster: Cluster, *, dry_run: bool = False) -> None:
        """See ports.fault."""
        try:
            cluster.patch(_ref(undo), _swap(undo, undo["index"], undo["before"], undo["after"]), dry_run=dry_run)
        except Conflict:
            if not dry_run and _is_ours(undo, _limit_now(undo, cluster.get(_ref(undo)))):
                return
            raise

    def undo(self, undo: UndoRecord, cluster: Cluster, *, force: bool = False) -> UndoOutcome:
        """See ports.fault."""
        for _ in range(_ATTEMPTS):
            try:
                body = cluster.get(_ref(undo))
            except NotFound:
                return UndoOutcome("vanished", f"{_ref(undo)} no longer exists")
            now = _limit_now(undo, body)
            if body["metadata"]["uid"] != undo["uid"]:
                return _replaced(undo, now)
            if now == undo["before"]:
                return UndoOutcome("already", f"the memory limit was found back at {now}")
            if not _is_ours(undo, now) and not force:
                return UndoOutcome(
                    "refused",
                    f"the memory limit is {now}, which is neither what the drill wrote ({undo['after']}) nor what was "
                    f"there before ({undo['before']}): somebody else changed it; `drill recover --force` overwrites it",
                )
            try:
                cluster.patch(_ref(undo), _back(undo, body, now))
            except Conflict:
                continue  # changed between the read and the write: look again
            return UndoOutcome("restored", f"memory limit {now} -> {undo['before']}")
        return UndoOutcome("refused", f"{_ref(undo)} kept changing under {_ATTEMPTS} attempts to restore it")

    def differences(self, undo: UndoRecord, cluster: Cluster) -> tuple[str, ...]:
        """See ports.fault."""
        try:
            body = cluster.get(_ref(undo))
        except NotFound:
            return (f"{_ref(undo)} no longer exists",)
        return changes(undo["snapshot"], body)

    def pods(self, undo: UndoRecord) -> PodSelector:
        """See ports.fault."""
        return PodSelector(undo["labels"], undo["container"])

    def proof(self, spec: MemoryLimitSpec, evidence: Evidence) -> Proof | None:
        """See ports.fault. A kill counts once per pod, and only in pods that carry the lowered limit.

        The kubelet stamps a termination in whole seconds, so the kill lies within the second that follows; the watch
        that showed it bounds it from above.
        """
        killed: dict[str, tuple[Bounds, int, str]] = {}
        lowest: tuple[int, Bounds, int] | None = None
        for record, event in evidence.pods:
            for pod in event.pods:
                if pod.uid in killed or pod.oom_killed_at is None or not MEMORY.same(pod.memory_limit, spec.limit):
                    continue
                at = Bounds(earliest=pod.oom_killed_at, latest=pod.oom_killed_at + 1.0)
                at = at.clipped(not_before=evidence.injected.earliest, not_after=record.at)
                killed[pod.uid] = (at, record.seq, pod.name)
            ready = sum(pod.ready for pod in event.pods)
            if lowest is None and (spec.effect.ready_at_most is None or ready <= spec.effect.ready_at_most):
                lowest = (ready, Bounds.at(record.at), record.seq)
        if len(killed) < spec.effect.oom_killed or lowest is None:
            return None
        first = sorted(killed.values(), key=lambda kill: kill[0].latest)[: spec.effect.oom_killed]
        last = first[-1][0]
        at = last if spec.effect.ready_at_most is None or last.latest >= lowest[1].latest else lowest[1]
        words = f"{len(first)} pods with limit {spec.limit} were OOM-killed, {lowest[0]} left ready (pod status)"
        return Proof(at, words, tuple(sorted({kill[1] for kill in first} | {lowest[2]})))


def _ref(undo: UndoRecord) -> Ref:
    return Ref(undo["kind"], undo["namespace"], undo["name"])


def _container(body: Json, spec: MemoryLimitSpec) -> tuple[int, Json]:
    containers = body["spec"]["template"]["spec"]["containers"]
    for index, container in enumerate(containers):
        if container["name"] == spec.container:
            return index, container
    raise BadInput(
        "container-missing",
        f"deployment/{spec.deployment} has no container {spec.container!r}",
        expected="one of: " + ", ".join(c["name"] for c in containers),
        remedy=f"edit `container` of fault {spec.id}",
    )


def _limit_now(undo: UndoRecord, body: Json) -> str | None:
    for container in body["spec"]["template"]["spec"]["containers"]:
        if container["name"] == undo["container"]:
            return MEMORY.limit(container)
    return None


def _is_ours(undo: UndoRecord, now: str | None) -> bool:
    return MEMORY.same(now, undo["after"])


def _replaced(undo: UndoRecord, now: str | None) -> UndoOutcome:
    """Somebody made the object anew. One that carries our limit was copied from the broken one: it is still broken,
    but no longer the object that we may write to."""
    if _is_ours(undo, now):
        return UndoOutcome(
            "refused",
            f"{_ref(undo)} is a new object of the same name, and carries the drill's limit of {now} where "
            f"{undo['before']} was: put it back by hand",
        )
    return UndoOutcome("vanished", f"{_ref(undo)} is a new object of the same name")


def _back(undo: UndoRecord, body: Json, now: str | None) -> list[Json]:
    """The patch that restores what was there. Containers may have moved since, so their present order counts."""
    if now is None:
        return _rebuild(undo, body)
    names = [container["name"] for container in body["spec"]["template"]["spec"]["containers"]]
    return _swap(undo, names.index(undo["container"]), now, undo["before"])


def _rebuild(undo: UndoRecord, body: Json) -> list[Json]:
    """Put the container's resources back whole, where its limit is gone altogether (only ever by force)."""
    names = [container["name"] for container in body["spec"]["template"]["spec"]["containers"]]
    if undo["container"] not in names:
        raise Refused(
            "container-gone",
            f"{_ref(undo)} no longer has a container {undo['container']}",
            expected="the container whose limit was lowered",
            remedy="restore the Deployment by hand from its manifest; `drill recover` then finds it clean",
        )
    base = f"/spec/template/spec/containers/{names.index(undo['container'])}"
    before = next(
        container["resources"]
        for container in undo["snapshot"]["spec"]["template"]["spec"]["containers"]
        if container["name"] == undo["container"]
    )
    return [
        {"op": "test", "path": "/metadata/uid", "value": undo["uid"]},
        {"op": "test", "path": f"{base}/name", "value": undo["container"]},
        {"op": "add", "path": f"{base}/resources", "value": before},
    ]


def _swap(undo: UndoRecord, index: int, now: str, then: str) -> list[Json]:
    base = f"/spec/template/spec/containers/{int(index)}"
    return [
        {"op": "test", "path": "/metadata/uid", "value": undo["uid"]},
        {"op": "test", "path": f"{base}/name", "value": undo["container"]},
        {"op": "test", "path": f"{base}/resources/limits/memory", "value": now},
        {"op": "replace", "path": f"{base}/resources/limits/memory", "value": then},
    ]
