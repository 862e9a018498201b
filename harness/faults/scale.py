"""Scale a live Deployment or StatefulSet down, so that too few pods are left for the work.

Scaling up is refused: it takes nothing away, so no loss of pods could prove it; more load is a fault of another kind.
What would fight the fault, or make its undo a guess, is refused beforehand: an autoscaler, an owner that declares the
replicas itself, a StatefulSet whose volumes would be deleted with its pods.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from harness.core.clock import Bounds
from harness.core.errors import BadInput, Refused
from harness.core.event import Change
from harness.core.experiment import FaultSpec, Frozen, WorkloadName, split_object
from harness.core.quantity import Duration
from harness.core.snapshot import snapshot
from harness.core.workload import changes, check_at_rest, pod_labels, replicas, title
from harness.ports.cluster import Cluster, Conflict, Json, NotFound, Ref
from harness.ports.fault import Evidence, Plan, PodSelector, Proof, UndoOutcome, UndoRecord
from harness.ports.kinds import WORKLOADS, workload

_ATTEMPTS = 3
_PATH = "/spec/replicas"


class ScaleEffect(Frozen):
    """What must be seen for the fault to count: at most `ready_at_most` pods of the target are ready."""

    ready_at_most: int = Field(ge=0)
    within: Duration


class ScaleSpec(FaultSpec):
    """Parameters of the fault."""

    kind: Literal["scale"]
    target: WorkloadName
    replicas: int = Field(ge=0)
    effect: ScaleEffect

    @model_validator(mode="after")
    def _can_be_seen(self) -> Self:
        if self.effect.ready_at_most < self.replicas:
            raise ValueError(
                f"{self.replicas} replicas stay ready, so `ready_at_most: {self.effect.ready_at_most}` is never seen; "
                f"write at least {self.replicas}"
            )
        return self


class Scale:
    """The fault `scale`."""

    kind: ClassVar[str] = "scale"

    def verbs(self, spec: ScaleSpec) -> tuple[tuple[str, str], ...]:
        """See ports.fault."""
        kind = WORKLOADS[split_object(spec.target)[0]]
        return ("get", kind), ("patch", kind), ("list", "HorizontalPodAutoscaler")

    def plan(self, spec: ScaleSpec, namespace: str, cluster: Cluster) -> Plan:
        """See ports.fault. Refuses what is not a loss of pods, what is not at rest, and what others scale."""
        ref = workload(spec.target, namespace)
        try:
            body = cluster.get(ref)
        except NotFound as error:
            raise BadInput(
                "target-missing",
                f"{ref} does not exist",
                expected="the workload that the fault names",
                remedy=f"edit `target` of fault {spec.id}, or deploy it first",
            ) from error
        before = replicas(body)
        _check_loss(spec, ref, before)
        check_at_rest(body)
        _check_sole_hand(body, ref, cluster)
        _check_volumes(body, ref)
        return Plan(
            summary=f"scale {ref} from {before} to {spec.replicas} replicas",
            targets=(ref,),
            changes=(Change(object=str(ref), path=_PATH, before=before, after=spec.replicas),),
            pods=before - spec.replicas,
            objects=1,
            undo={
                "kind": ref.kind,
                "namespace": namespace,
                "name": ref.name,
                "uid": body["metadata"]["uid"],
                "before": before,
                "after": spec.replicas,
                "labels": pod_labels(body),
                "container": body["spec"]["template"]["spec"]["containers"][0]["name"],
                "snapshot": snapshot(body),
            },
        )

    def apply(self, undo: UndoRecord, cluster: Cluster, *, dry_run: bool = False) -> None:
        """See ports.fault."""
        try:
            cluster.patch(_ref(undo), _swap(undo, undo["before"], undo["after"]), dry_run=dry_run)
        except Conflict:
            if not dry_run:
                body = cluster.get(_ref(undo))
                if body["metadata"]["uid"] == undo["uid"] and replicas(body) == undo["after"]:
                    return
            raise

    def undo(self, undo: UndoRecord, cluster: Cluster, *, force: bool = False) -> UndoOutcome:
        """See ports.fault."""
        for _ in range(_ATTEMPTS):
            try:
                body = cluster.get(_ref(undo))
            except NotFound:
                return UndoOutcome("vanished", f"{_ref(undo)} no longer exists")
            now = replicas(body)
            if body["metadata"]["uid"] != undo["uid"]:
                return _replaced(undo, now)
            if now == undo["before"]:
                return UndoOutcome("already", f"found back at {now} replicas")
            if now != undo["after"] and not force:
                return UndoOutcome(
                    "refused",
                    f"it has {now} replicas, which is neither what the drill wrote ({undo['after']}) nor what was "
                    f"there before ({undo['before']}): somebody else changed it; `drill recover --force` overwrites it",
                )
            try:
                cluster.patch(_ref(undo), _swap(undo, now, undo["before"]))
            except Conflict:
                continue  # changed between the read and the write: look again
            return UndoOutcome("restored", f"replicas {now} -> {undo['before']}")
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

    def proof(self, spec: ScaleSpec, evidence: Evidence) -> Proof | None:
        """See ports.fault. The loss lies between the write and the first sight of it: a pod that is told to leave
        counts as not ready at once, and nobody stamps that moment on our clock.

        All the target's pods carry its labels, so a stranger's pod with the same labels can hide the effect and never
        feign it.
        """
        injected = evidence.injected
        for record, event in evidence.pods:
            ready = sum(pod.ready for pod in event.pods)
            if record.at >= injected.earliest and ready <= spec.effect.ready_at_most:
                words = f"{spec.target} scaled to {spec.replicas}: {ready} ready (pod status)"
                return Proof(Bounds(earliest=injected.earliest, latest=record.at), words, (record.seq,))
        return None


def _ref(undo: UndoRecord) -> Ref:
    return Ref(undo["kind"], undo["namespace"], undo["name"])


def _check_loss(spec: ScaleSpec, ref: Ref, before: int) -> None:
    if spec.replicas >= before:
        raise BadInput(
            "replicas-not-lower",
            f"fault {spec.id} asks for {spec.replicas} replicas, but {ref} has {before}",
            expected=f"fewer than {before} replicas: this fault takes pods away",
            remedy=f"edit `replicas` of fault {spec.id}",
        )
    if spec.effect.ready_at_most >= before:
        raise BadInput(
            "effect-proves-nothing",
            f"fault {spec.id} counts with at most {spec.effect.ready_at_most} pods ready, and {ref} has {before}",
            expected=f"a `ready_at_most` below {before}: what holds before the fault cannot prove it",
            remedy=f"edit `effect` of fault {spec.id}",
        )


def _check_sole_hand(body: Json, ref: Ref, cluster: Cluster) -> None:
    """Refuse where somebody else decides on the replicas: the fault would be reverted, and the number to go back to
    would not stay the right one. KEDA and its like act through an autoscaler object of their own."""
    for scaler in cluster.list("HorizontalPodAutoscaler", ref.namespace):
        aim = scaler["spec"]["scaleTargetRef"]
        if (aim["kind"], aim["name"]) == (ref.kind, ref.name):
            raise Refused(
                "target-autoscaled",
                f"{title(scaler)} scales {ref}{_made_by(scaler)}",
                expected="a target whose replicas nothing else sets",
                remedy="drill another target, or have its owners take the autoscaler away for the drill",
            )
    owner = _controller(body)
    if owner:
        raise Refused(
            "target-has-a-controller",
            f"{ref} is controlled by {owner}",
            expected="a target whose replicas nothing else sets: its controller would put them back",
            remedy="drill a workload that no operator manages",
        )


def _check_volumes(body: Json, ref: Ref) -> None:
    policy = body["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    if body["spec"].get("volumeClaimTemplates") and policy.get("whenScaled") == "Delete":
        raise Refused(
            "volumes-would-be-deleted",
            f"{ref} deletes the volume claims of pods that it is scaled away from (whenScaled: Delete)",
            expected="a fault that can be undone: deleted data does not come back",
            remedy="set persistentVolumeClaimRetentionPolicy.whenScaled to Retain, or drill another target",
        )


def _controller(body: Json) -> str:
    for owner in body["metadata"].get("ownerReferences", []):
        if owner.get("controller"):
            return f"{owner['kind']} {owner['name']}"
    return ""


def _made_by(scaler: Json) -> str:
    owner = _controller(scaler)
    return f", on behalf of {owner}" if owner else ""


def _replaced(undo: UndoRecord, now: int) -> UndoOutcome:
    """Somebody made the object anew. One with our number of replicas was copied from the broken one, or so it looks:
    it is not the object that we may write to."""
    if now == undo["after"]:
        return UndoOutcome(
            "refused",
            f"{_ref(undo)} is a new object of the same name, and has the drill's {now} replicas where "
            f"{undo['before']} were: put it back by hand",
        )
    return UndoOutcome("vanished", f"{_ref(undo)} is a new object of the same name")


def _swap(undo: UndoRecord, now: int, then: int) -> list[Json]:
    return [
        {"op": "test", "path": "/metadata/uid", "value": undo["uid"]},
        {"op": "test", "path": _PATH, "value": now},
        {"op": "replace", "path": _PATH, "value": then},
    ]
