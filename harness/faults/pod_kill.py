"""Delete pods, as a node that dies or a hand that slips would, and see whether the system bears it.

Their controller makes new ones, so there is nothing to put back: the undo waits until as many are ready as before.
Which pods are killed is drawn when the plan is made and kept by uid, so that a write that is sent again kills nobody
else; a kill that is due later draws anew where one of them is gone by then. Pods without a controller are refused,
since they would not come back. A deletion asks no PodDisruptionBudget; only an eviction would.

A kill that is repeated is a fault of its own each time, with its own milestones and its own undo record.
"""

from __future__ import annotations

import math
import random
import secrets
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from harness.core.clock import Bounds
from harness.core.errors import BadInput, Refused
from harness.core.event import Change
from harness.core.experiment import MOST_NAME, FaultSpec, Frozen, Loc, WorkloadName, split_object, too_many
from harness.core.pods import pod_state
from harness.core.quantity import Duration
from harness.core.snapshot import snapshot
from harness.core.workload import changes, check_at_rest, pod_labels
from harness.ports.cluster import Cluster, Conflict, Json, NotFound, Ref
from harness.ports.fault import Evidence, Plan, PodSelector, Proof, UndoOutcome, UndoRecord
from harness.ports.kinds import WORKLOADS
from harness.ports.kinds import workload as address

MOST_TIMES = 20
_COMES_BACK = frozenset({"ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController"})

_WORD = "[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?"
LabelKey = Annotated[str, StringConstraints(pattern=rf"^([a-z0-9.-]{{1,253}}/)?{_WORD}$")]
LabelValue = Annotated[str, StringConstraints(pattern=rf"^({_WORD})?$")]


class PodKillEffect(Frozen):
    """What must be seen for the fault to count, besides that the chosen pods are gone: that at some moment at most
    `ready_at_most` pods were ready."""

    ready_at_most: int | None = Field(default=None, ge=0)
    within: Duration


class PodKillSpec(FaultSpec):
    """Parameters of the fault."""

    kind: Literal["pod-kill"]
    target: WorkloadName | None = None
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    count: int | None = Field(default=None, ge=1)
    percent: float | None = Field(default=None, gt=0, le=100)
    seed: int | None = None
    """Draws the same pods again, as long as they have the same names."""
    grace: Duration = 0.0
    every: Duration | None = Field(default=None, gt=0)
    times: int | None = Field(default=None, ge=2, le=MOST_TIMES)
    effect: PodKillEffect

    def rounds(self) -> tuple[Self, ...]:
        """See FaultSpec. That few were ready is asked of the first kill only: what it left down proves no later one."""
        if self.every is None or self.times is None:
            return (self,)
        once = self.model_copy(update={"every": None, "times": None})
        later = once.model_copy(update={"effect": PodKillEffect(within=self.effect.within)})
        return (
            once,
            *(
                later.model_copy(update={"id": f"{self.id}-{turn}", **self.postponed(self.every * (turn - 1))})
                for turn in range(2, self.times + 1)
            ),
        )

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.every is None) != (self.times is None):
            raise ValueError("a kill that is repeated needs both `every` and `times`; write both, or neither")
        longest = f"{self.id}-{self.times}"
        if self.times is not None and len(longest) > MOST_NAME:
            raise ValueError(
                f"the last kill would be called {longest}; shorten `id` to have at most {MOST_NAME} characters"
            )
        return self

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if (self.target is None) == (not self.labels):
            raise ValueError("say whose pods: write exactly one of `target` and `labels`")
        if (self.count is None) == (self.percent is None):
            raise ValueError("say how many: write exactly one of `count` and `percent`")
        return self

    def nonsense(self, timeout: float) -> list[tuple[Loc, str]]:
        """See FaultSpec."""
        del timeout
        return too_many(self, ("count",), self.count or 0, "pods are killed")


class PodKill:
    """The fault `pod-kill`."""

    kind: ClassVar[str] = "pod-kill"

    def verbs(self, spec: PodKillSpec) -> tuple[tuple[str, str], ...]:
        """See ports.fault. A patch moves a living pod's version, so that no late deletion hits it."""
        own = (("get", WORKLOADS[split_object(spec.target)[0]]),) if spec.target else ()
        return (*own, *((verb, "Pod") for verb in ("get", "list", "delete", "patch")))

    def plan(self, spec: PodKillSpec, namespace: str, cluster: Cluster) -> Plan:
        """See ports.fault. Refuses where there are too few pods, or pods that would not come back."""
        body = _workload(spec, namespace, cluster)
        labels = pod_labels(body) if body else ",".join(f"{key}={value}" for key, value in sorted(spec.labels.items()))
        living = _living(cluster, namespace, labels)
        ready = sum(_is_ready(pod) for pod in living)
        _check_effect(spec, ready)
        count = _how_many(spec, labels, len(living))
        undo = {
            "namespace": namespace,
            "workload": _identity(body) if body else None,
            "snapshot": snapshot(body) if body else None,
            "labels": labels,
            "ready": ready,
            "ready_at_most": spec.effect.ready_at_most,
            "seed": secrets.randbits(32) if spec.seed is None else spec.seed,
            "grace": math.ceil(spec.grace),
        }
        return _drawn(undo, living, count)

    def choose(self, undo: UndoRecord, cluster: Cluster) -> Plan | None:
        """See ports.fault. As many pods as the plan chose, among those that live."""
        living = _living(cluster, undo["namespace"], undo["labels"])
        ready, most = sum(_is_ready(pod) for pod in living), undo.get("ready_at_most")
        if most is not None and ready <= most:
            raise Conflict(
                "effect-proves-nothing",
                f"{ready} pods of {undo['labels']} are ready before the kill, and at most {most} are to be after it",
                expected=f"more than {most} ready pods: what holds before the fault cannot prove it",
                remedy="let the fault come later, when the pods are back, or ask for no `ready_at_most`",
            )
        if {pod["uid"] for pod in undo["pods"]} <= {pod["metadata"]["uid"] for pod in living}:
            return None
        count = len(undo["pods"])
        if len(living) < count:
            raise Conflict(
                "too-few-pods",
                f"{count} pods of {undo['labels']} are to be killed, and {len(living)} live",
                expected="as many pods as the plan chose",
                remedy="let the fault come later, when the pods are back, or kill fewer",
            )
        return _drawn(undo, living, count)

    def apply(self, undo: UndoRecord, cluster: Cluster, *, dry_run: bool = False) -> None:
        """See ports.fault. A pod that is gone is as good as killed; where all of them are before the kill, there is
        nothing to be proved. One that changed since it was looked at keeps none of the others from being killed."""
        gone, missed = 0, list[Conflict]()
        for pod in undo["pods"]:
            ref = Ref("Pod", undo["namespace"], pod["name"])
            if not _lives(pod, ref, cluster):
                gone += 1
                continue
            try:
                cluster.delete(ref, uid=pod["uid"], grace=undo["grace"], dry_run=dry_run)
            except Conflict as error:
                missed.append(error)
        if missed:
            raise missed[0]
        if dry_run and gone == len(undo["pods"]):
            raise Conflict(
                "pods-gone",
                f"the pods that were to be killed are gone: {', '.join(pod['name'] for pod in undo['pods'])}",
                expected="at least one of the pods that the plan chose",
                remedy="start the run again: it chooses anew",
            )

    def undo(self, undo: UndoRecord, cluster: Cluster, *, force: bool = False) -> UndoOutcome:
        """See ports.fault. There is nothing to put back."""
        del force
        workload = undo["workload"]
        if workload is not None:
            ref = Ref(workload["kind"], undo["namespace"], workload["name"])
            try:
                if cluster.get(ref)["metadata"]["uid"] != workload["uid"]:
                    return UndoOutcome("vanished", f"{ref} is a new object of the same name")
            except NotFound:
                return UndoOutcome("vanished", f"{ref} no longer exists")
        left = sum(_lives(pod, Ref("Pod", undo["namespace"], pod["name"]), cluster) for pod in undo["pods"])
        of = f"{len(undo['pods']) - left} of {len(undo['pods'])} pods are gone"
        return UndoOutcome("already", f"there is nothing to put back: {of}, and their controller makes new ones")

    def differences(self, undo: UndoRecord, cluster: Cluster) -> tuple[str, ...]:
        """See ports.fault: pods that are not back yet."""
        workload, found = undo["workload"], tuple[str, ...]()
        if workload is not None:
            ref = Ref(workload["kind"], undo["namespace"], workload["name"])
            try:
                found = changes(undo["snapshot"], cluster.get(ref))
            except NotFound:
                return (f"{ref} no longer exists",)
        ready = sum(_is_ready(pod) for pod in cluster.list("Pod", undo["namespace"], undo["labels"]))
        low = f"{ready} pods of {undo['labels']} in {undo['namespace']} are ready, and {undo['ready']} were"
        return (*found, low) if ready < undo["ready"] and not found else found

    def pods(self, undo: UndoRecord) -> PodSelector:
        """See ports.fault."""
        return PodSelector(undo["labels"], undo["container"])

    def proof(self, spec: PodKillSpec, evidence: Evidence) -> Proof | None:
        """See ports.fault. The chosen pods are gone once none of their uids is among the pods. Those that somebody else
        took away, by an eviction or by scaling, are no kills: then what was declared was not done."""
        chosen = {pod["uid"] for pod in evidence.undo["pods"]}
        if not chosen <= _killed(evidence):
            return None
        gone: tuple[float, int] | None = None
        low: tuple[float, int, int] | None = None
        for record, event in evidence.pods:
            if record.at < evidence.injected.earliest:
                continue
            ready = [pod for pod in event.pods if pod.ready]
            if gone is None and not any(pod.uid in chosen for pod in event.pods):
                gone = (record.at, record.seq)
            if low is None and (spec.effect.ready_at_most is None or len(ready) <= spec.effect.ready_at_most):
                low = (record.at, record.seq, len(ready))
        if gone is None or low is None:
            return None
        bound = "" if spec.effect.ready_at_most is None else f", {low[2]} left ready"
        at = Bounds(earliest=evidence.injected.earliest, latest=max(gone[0], low[0]))
        return Proof(
            at, f"{len(chosen)} pods were killed and are gone{bound} (pod status)", tuple(sorted({gone[1], low[1]}))
        )


def _living(cluster: Cluster, namespace: str, labels: str) -> list[Json]:
    """The pods that were not told to leave, by name."""
    living = [pod for pod in cluster.list("Pod", namespace, labels) if "deletionTimestamp" not in pod["metadata"]]
    return sorted(living, key=lambda pod: str(pod["metadata"]["name"]))


def _drawn(undo: UndoRecord, living: list[Json], count: int) -> Plan:
    """The plan to kill so many of these. Raises Refused where one of them would not come back."""
    owners = {pod["metadata"]["name"]: _controller(pod) for pod in living}
    chosen = random.Random(undo["seed"]).sample(living, count)  # noqa: S311 - a draw that can be repeated, no secret
    pods = [{"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]} for pod in chosen]
    namespace, workload = undo["namespace"], undo["workload"]
    hit = {(workload["kind"], workload["name"])} if workload else {owners[pod["name"]] for pod in pods}
    targets = tuple(Ref(kind, namespace, name) for kind, name in sorted(hit))
    what = f"{workload['kind'].lower()}/{workload['name']}" if workload else undo["labels"]
    return Plan(
        summary=f"delete {count} of {len(living)} pods of {what}: {', '.join(pod['name'] for pod in pods)}",
        targets=targets,
        changes=tuple(
            Change(object=str(Ref("Pod", namespace, pod["name"])), path="", before=pod["uid"], after=None)
            for pod in pods
        ),
        pods=count,
        objects=len(targets),
        undo={**undo, "container": chosen[0]["spec"]["containers"][0]["name"], "pods": pods},
    )


def _killed(evidence: Evidence) -> frozenset[str]:
    """The uids of the pods that the fault deleted. Where a reply was lost, any that was there may be one."""
    if evidence.replied:
        return evidence.deleted
    seen = next((event.pods for record, event in evidence.pods if record.at >= evidence.injected.earliest), ())
    return evidence.deleted | {pod.uid for pod in seen}


def _identity(body: Json) -> Json:
    return {"kind": body["kind"], "name": body["metadata"]["name"], "uid": body["metadata"]["uid"]}


def _workload(spec: PodKillSpec, namespace: str, cluster: Cluster) -> Json | None:
    if spec.target is None:
        return None
    ref = address(spec.target, namespace)
    try:
        body = cluster.get(ref)
    except NotFound as error:
        raise BadInput(
            "target-missing",
            f"{ref} does not exist",
            expected="the workload whose pods the fault kills",
            remedy=f"edit `target` of fault {spec.id}, or deploy it first",
        ) from error
    check_at_rest(body)
    return body


def _how_many(spec: PodKillSpec, labels: str, there: int) -> int:
    count = spec.count or math.ceil(there * (spec.percent or 0.0) / 100)
    if there == 0 or count > there:
        asked = f"{spec.count}" if spec.count else f"{spec.percent:g} %"
        raise BadInput(
            "too-few-pods",
            f"fault {spec.id} kills {asked} of the pods of {labels}, and there are {there}",
            expected=f"at least {max(1, count)} pods",
            remedy=f"edit `count`, `percent` or the choice of pods of fault {spec.id}",
        )
    return count


def _check_effect(spec: PodKillSpec, ready: int) -> None:
    if spec.effect.ready_at_most is not None and spec.effect.ready_at_most >= ready:
        raise BadInput(
            "effect-proves-nothing",
            f"fault {spec.id} counts with at most {spec.effect.ready_at_most} pods ready, and {ready} are",
            expected=f"a `ready_at_most` below {ready}: what holds before the fault cannot prove it",
            remedy=f"edit `effect` of fault {spec.id}",
        )


def _controller(pod: Json) -> tuple[str, str]:
    """Kind and name of what makes the pod anew. Raises Refused where nothing does."""
    for owner in pod["metadata"].get("ownerReferences") or ():
        if owner.get("controller") and owner["kind"] in _COMES_BACK:
            return owner["kind"], owner["name"]
    raise Refused(
        "pod-without-controller",
        f"pod/{pod['metadata']['name']} in {pod['metadata']['namespace']} has no controller that would make it anew",
        expected="pods of a Deployment, StatefulSet, DaemonSet or ReplicaSet: what does not come back cannot be undone",
        remedy="choose other pods by `target` or `labels`",
    )


def _lives(pod: Json, ref: Ref, cluster: Cluster) -> bool:
    """Whether that very pod is there and was not told to leave."""
    try:
        meta = cluster.get(ref)["metadata"]
    except NotFound:
        return False
    return bool(meta["uid"] == pod["uid"]) and "deletionTimestamp" not in meta


def _is_ready(pod: Json) -> bool:
    return pod_state(pod, "").ready
