"""Let a program run beside the system until the drill is over: a load, or a client that does harm.

It runs as a Job. First the Job is made suspended, which starts nothing, as the undo record's own; the fault itself is
the patch that lets it run, so it is bound to the Job's version like every other write. The undo deletes it with its
pods. The program must run until it is told to stop: one that ends before is no fault any more, and ends the run.
"""

from __future__ import annotations

import math
import secrets
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from harness.core.errors import BadInput
from harness.core.event import Change, ObjectSeen
from harness.core.experiment import FaultSpec, Loc, MeasuredEffect, WorkloadName, split_object, too_many
from harness.core.quantity import Duration, Memory, format_duration
from harness.ports.cluster import AlreadyExists, Cluster, Conflict, Json, NotFound, Ref
from harness.ports.fault import Evidence, ObjectSelector, Plan, Proof, UndoOutcome, UndoRecord
from harness.ports.kinds import WORKLOADS, workload

MARK = "drill.internal/job"
"""On the Job and its pods: the token by which they are known as this fault's own."""
STARTED = "drill.internal/started"
"""On the Job once it was let run. One without it has broken nothing, and goes with the undo record."""
LONGER = 600.0
"""Seconds past the run's timeout after which the Job ends by itself, should nobody have come until then."""
UNTIMED = 7200.0
"""The same where no run's timeout is known."""
_ATTEMPTS = 3
_FAILED, _COMPLETE = "status.conditions[type=Failed]", "status.conditions[type=Complete]"
_FIELDS = (
    "spec.suspend", "status.active", "status.ready", "status.succeeded", "status.failed", f"{_COMPLETE}.status",
    f"{_FAILED}.status", f"{_FAILED}.reason", f"{_FAILED}.message",
)  # fmt: skip

Cpu = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,5}m?$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class JobSpec(FaultSpec):
    """Parameters of the fault."""

    kind: Literal["job"]
    image_of: WorkloadName | None = None
    container: str = ""
    """Whose image of the workload's containers; the first one's where it says nothing."""
    image: str = ""
    command: tuple[str, ...] = Field(min_length=1)
    args: tuple[str, ...] = ()
    env: dict[Variable, str] = Field(default_factory=dict)
    parallelism: int = Field(default=1, ge=1, le=20)
    cpu: Cpu = "200m"
    memory: Memory = "64Mi"
    run_as_user: int | None = Field(default=None, ge=1)
    writable: bool = False
    """Whether its root file system can be written to."""
    backoff_limit: int = Field(default=0, ge=0, le=20)
    grace: Duration = 10.0
    deadline: Duration | None = None
    effect: MeasuredEffect

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        if (self.image_of is None) == (not self.image):
            raise ValueError("a job runs exactly one image: write `image_of` (a workload that is there) or `image`")
        if self.container and self.image_of is None:
            raise ValueError("`container` says whose image of `image_of`; without that it says nothing")
        return self

    def tuned(self, timeout: float) -> Self:
        """With the deadline that fits a run of that many seconds, where none is declared."""
        return self if self.deadline is not None else self.model_copy(update={"deadline": timeout + LONGER})

    def nonsense(self, timeout: float) -> list[tuple[Loc, str]]:
        """See FaultSpec."""
        found = too_many(self, ("parallelism",), self.parallelism, "pods run at once")
        if self.deadline is not None and self.deadline < timeout:
            message = (
                f"Kubernetes ends the Job after {format_duration(self.deadline)}, and a run may take "
                f"{format_duration(timeout)}: it would be aborted; write more than that, or leave `deadline` out"
            )
            found.append((("deadline",), message))
        return found


class Job:
    """The fault `job`."""

    kind: ClassVar[str] = "job"

    def verbs(self, spec: JobSpec) -> tuple[tuple[str, str], ...]:
        """See ports.fault."""
        source = (("get", WORKLOADS[split_object(spec.image_of)[0]]),) if spec.image_of else ()
        own = tuple((verb, "Job") for verb in ("get", "list", "watch", "create", "patch", "delete"))
        return (*source, *own, ("list", "Pod"))

    def plan(self, spec: JobSpec, namespace: str, cluster: Cluster) -> Plan:
        """See ports.fault. The name is drawn here and kept in the record, so that whoever comes next knows it."""
        found = _source(spec, namespace, cluster)
        token = secrets.token_hex(4)
        ref = Ref("Job", namespace, f"{spec.id}-{token}")
        body = _body(spec, ref, token, found)
        what = " ".join((*spec.command, *spec.args))
        of = f"the image of {spec.image_of}" if spec.image_of else spec.image
        return Plan(
            summary=f"run {what[:120]!r} with {of} as {ref}, {spec.parallelism} pod(s) at once",
            targets=(ref,),
            changes=(Change(object=str(ref), path="", before=None, after=found["image"]),),
            pods=spec.parallelism,
            objects=1,
            undo={"kind": "Job", "namespace": namespace, "name": ref.name, "token": token, "body": body},
        )

    def prepare(self, undo: UndoRecord, cluster: Cluster, *, dry_run: bool = False) -> None:
        """See ports.fault: the Job, suspended."""
        try:
            cluster.create(undo["body"], dry_run=dry_run)
        except AlreadyExists as error:
            if not _is_ours(undo, cluster.get(_ref(undo))):
                raise Conflict(
                    "name-taken",
                    f"{_ref(undo)} exists, and the drill did not make it",
                    expected="no object of that name",
                    remedy="start the run again: it draws another name",
                ) from error

    def apply(self, undo: UndoRecord, cluster: Cluster, *, dry_run: bool = False) -> None:
        """See ports.fault: let it run."""
        try:
            cluster.patch(_ref(undo), _start(undo), dry_run=dry_run)
        except Conflict:
            if not dry_run:
                body = cluster.get(_ref(undo))
                if _is_ours(undo, body) and _was_started(body):
                    return
            raise

    def undo(self, undo: UndoRecord, cluster: Cluster, *, force: bool = False) -> UndoOutcome:
        """See ports.fault. What somebody changed in the Job does not matter: it is the drill's own, and goes. One that
        the drill did not make is left even by force."""
        ref = _ref(undo)
        for _ in range(_ATTEMPTS):
            try:
                body = cluster.get(ref)
            except NotFound:
                return UndoOutcome("already", f"{ref} is not there: somebody removed it, or it was never made")
            if not _is_ours(undo, body):
                detail = f"{ref} is there, and the drill did not make it"
                return UndoOutcome("already" if force else "refused", f"{detail}: it is left alone")
            if "deletionTimestamp" in body["metadata"]:
                return UndoOutcome("already", f"{ref} is being deleted")
            try:
                cluster.delete(ref, uid=body["metadata"]["uid"])
            except Conflict:
                continue  # made anew between the look and the deletion: look again
            if not _was_started(body):
                return UndoOutcome("already", f"{ref} was never let run; it is deleted")
            return UndoOutcome("restored", f"{ref} is deleted, and its pods go with it")
        return UndoOutcome("refused", f"{ref} was made anew under {_ATTEMPTS} attempts to delete it")

    def differences(self, undo: UndoRecord, cluster: Cluster) -> tuple[str, ...]:
        """See ports.fault: the Job and its pods, as long as there are any. A Job that was never let run is none: it is
        collected with the undo record."""
        ref, found = _ref(undo), list[str]()
        try:
            body = cluster.get(ref)
        except NotFound:
            pass
        else:
            if not _is_ours(undo, body):
                found.append(f"{ref} is there, and the drill did not make it")
            elif _was_started(body):
                found.append(f"{ref} is still there")
        pods = cluster.list("Pod", ref.namespace, f"{MARK}={undo['token']}")
        return (*found, *(f"pod/{pod['metadata']['name']} of {ref} is still there" for pod in pods))

    def pods(self, undo: UndoRecord) -> None:
        """See ports.fault: its own pods show that it runs, not what it does."""
        del undo

    def object(self, undo: UndoRecord) -> ObjectSelector:
        """See ports.fault."""
        return ObjectSelector(_ref(undo), _FIELDS)

    def ended(self, undo: UndoRecord, seen: ObjectSeen) -> str:
        """See ports.fault. A Job that somebody deleted or suspended did not end by itself: that is a cure."""
        if seen.fields.get(f"{_FAILED}.status") == "True":
            why = ": ".join(str(seen.fields[f"{_FAILED}.{key}"]) for key in ("reason", "message"))
            return f"{_ref(undo)} failed: {why}"
        if seen.fields.get(f"{_COMPLETE}.status") == "True":
            return f"{_ref(undo)} completed: its program ended although nobody told it to"
        return ""

    def proof(self, spec: JobSpec, evidence: Evidence) -> Proof | None:
        """See ports.fault."""
        del spec
        return evidence.measured


def _ref(undo: UndoRecord) -> Ref:
    return Ref("Job", undo["namespace"], undo["name"])


def _is_ours(undo: UndoRecord, body: Json) -> bool:
    return bool((body["metadata"].get("labels") or {}).get(MARK) == undo["token"])


def _was_started(body: Json) -> bool:
    return STARTED in (body["metadata"].get("labels") or {})


def _start(undo: UndoRecord) -> list[Json]:
    return [
        {"op": "test", "path": f"/metadata/labels/{MARK.replace('/', '~1')}", "value": undo["token"]},
        {"op": "test", "path": "/spec/suspend", "value": True},
        {"op": "replace", "path": "/spec/suspend", "value": False},
        {"op": "add", "path": f"/metadata/labels/{STARTED.replace('/', '~1')}", "value": "true"},
    ]


def _source(spec: JobSpec, namespace: str, cluster: Cluster) -> Json:
    """Image, pull policy, pull secrets and user: the workload's own where it lends its image."""
    if spec.image_of is None:
        return {"image": spec.image}
    ref = workload(spec.image_of, namespace)
    try:
        pod = cluster.get(ref)["spec"]["template"]["spec"]
    except NotFound as error:
        raise BadInput(
            "target-missing",
            f"{ref} does not exist",
            expected="the workload whose image the job runs",
            remedy=f"edit `image_of` of fault {spec.id}, or deploy it first",
        ) from error
    names = [container["name"] for container in pod["containers"]]
    if spec.container and spec.container not in names:
        raise BadInput(
            "container-missing",
            f"{spec.image_of} has no container {spec.container!r}",
            expected="one of: " + ", ".join(names),
            remedy=f"edit `container` of fault {spec.id}",
        )
    container = pod["containers"][names.index(spec.container) if spec.container else 0]
    user = {**(pod.get("securityContext") or {}), **(container.get("securityContext") or {})}
    lent = {key: container[key] for key in ("image", "imagePullPolicy") if key in container}
    lent |= {key: user[key] for key in ("runAsUser", "runAsGroup") if user.get(key)}
    return lent | {key: pod[key] for key in ("imagePullSecrets",) if key in pod}


def _body(spec: JobSpec, ref: Ref, token: str, source: Json) -> Json:
    """The Job, as the strictest of the Pod Security Standards wants it."""
    user: Json = {key: source[key] for key in ("runAsUser", "runAsGroup") if key in source}
    if spec.run_as_user is not None:
        user = {"runAsUser": spec.run_as_user, "runAsGroup": spec.run_as_user}
    limits = {"cpu": spec.cpu, "memory": spec.memory}
    container: dict[str, Any] = {
        "name": "main",
        "image": source["image"],
        "command": list(spec.command),
        "resources": {"requests": limits, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": not spec.writable,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    container |= {"args": list(spec.args)} if spec.args else {}
    container |= {"env": [{"name": name, "value": text} for name, text in spec.env.items()]} if spec.env else {}
    container |= {key: source[key] for key in ("imagePullPolicy",) if key in source}
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": math.ceil(spec.grace),
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, **user},
        "containers": [container],
    }
    pod |= {key: source[key] for key in ("imagePullSecrets",) if key in source}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": ref.name, "namespace": ref.namespace, "labels": {MARK: token}},
        "spec": {
            "suspend": True,
            "parallelism": spec.parallelism,
            "completions": spec.parallelism,
            "backoffLimit": spec.backoff_limit,
            "activeDeadlineSeconds": math.ceil(spec.deadline if spec.deadline is not None else UNTIMED),
            "template": {"metadata": {"labels": {MARK: token}}, "spec": pod},
        },
    }
