"""Make a key of a live Secret useless: revoked, rotated, removed or garbled.

The value never leaves the cluster. It is moved to another name within the same Secret (JSON patch `move`), and moved
back by the undo: the API server does both, and this side neither reads nor stores it. What is in force is told by
names, by a label, and by who wrote what (`metadata.managedFields`), never by comparing values.

Pods that take the key into their environment keep what they were started with. The effect is therefore what
Prometheus measures of calls that fail; and an undo that put the key back also replaces the pods that were started
while another value, or none, was there.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import StringConstraints, model_validator

from harness.core.errors import BadInput, Refused
from harness.core.event import Change
from harness.core.experiment import FaultSpec, MeasuredEffect, ObjectName, WorkloadName, split_object
from harness.core.ownership import Writer, members
from harness.core.snapshot import differences, snapshot
from harness.core.workload import check_at_rest, pod_labels, replicas, unsettled
from harness.ports.cluster import FIELD_MANAGER, Cluster, Conflict, Json, NotFound, Ref
from harness.ports.fault import Evidence, Plan, Proof, UndoOutcome, UndoRecord
from harness.ports.kinds import WORKLOADS, workload

_ATTEMPTS = 3
KEPT, REVOKED = "drill-kept.", "revoked-drill."
"""What a value is called while it waits for the undo: this and its own name. A provider that honours names like
`revoked-...` refuses what stands there under every name."""
MARK: Final = "drill.internal/secret-"
"""Labels of a Secret that say what became of one of its keys: this and a hash of the key's name."""
IN_FORCE, PUT_BACK = "in-force", "put-back"
BREAKING: Final = f"{FIELD_MANAGER}-fault"
"""Under which the fault is written, so that its value is told from one that the undo moved back, which is written as
everything else is."""
GARBAGE = "garbled-by-a-drill"
_VALUE_BYTES = 32

DataKey = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]{1,230}$")]


class SecretSpec(FaultSpec):
    """Parameters of the fault."""

    kind: Literal["secret"]
    secret: ObjectName
    key: DataKey
    how: Literal["revoke", "rotate", "remove", "garble"]
    consumers: tuple[WorkloadName, ...] = ()
    replacement: Literal["keep", "discard"] = "keep"
    effect: MeasuredEffect

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.consumers)) < len(self.consumers):
            raise ValueError("a consumer is named twice; name each once")
        return self


class Secret:
    """The fault `secret`."""

    kind: ClassVar[str] = "secret"

    def verbs(self, spec: SecretSpec) -> tuple[tuple[str, ...], ...]:
        """See ports.fault."""
        own = (("get", "Secret", spec.secret), ("patch", "Secret", spec.secret))
        if not spec.consumers:
            return own
        kinds = sorted({WORKLOADS[split_object(one)[0]] for one in spec.consumers})
        return (*own, *(("get", kind) for kind in kinds), ("list", "Pod"), ("delete", "Pod"))

    def plan(self, spec: SecretSpec, namespace: str, cluster: Cluster) -> Plan:
        """See ports.fault. Refuses a key that is not there, or whose writers the API server does not tell, and
        consumers that do not take it into their environment or are not at rest."""
        ref = Ref("Secret", namespace, spec.secret)
        body = _found(cluster, ref, f"edit `secret` of fault {spec.id}, or create it first")
        parked = (REVOKED if spec.how == "revoke" else KEPT) + spec.key
        _check_free(spec, ref, body)
        writers = _writers(spec, ref, body, cluster)
        consumers = [_consumer(spec, one, namespace, cluster) for one in spec.consumers]
        pods = sum(one.pop("replicas") for one in consumers)
        new = {"rotate": "another value", "garble": "a value that is none"}.get(spec.how, "gone")
        return Plan(
            summary=f"{spec.how} {spec.key} of {ref}: its value moves to {parked} in the same Secret and back; what "
            f"somebody puts there meanwhile is {_FATES[spec.replacement]}",
            targets=(ref,),
            changes=(Change(object=str(ref), path=f"/data/{spec.key}", before="its present value", after=new),),
            pods=pods,
            objects=1,
            undo={
                "kind": ref.kind,
                "namespace": namespace,
                "name": ref.name,
                "uid": body["metadata"]["uid"],
                "key": spec.key,
                "how": spec.how,
                "parked": parked,
                "mark": _mark(spec.key),
                "replacement": spec.replacement,
                "names": list(members(body, "data")),
                "writers": [[one.manager, one.operation, one.time] for one in writers],
                "consumers": consumers,
                "snapshot": snapshot(body),
            },
        )

    def apply(self, undo: UndoRecord, cluster: Cluster, *, dry_run: bool = False) -> None:
        """See ports.fault. A new value is made here, at the moment of the write, and kept nowhere."""
        body = cluster.get(_ref(undo))
        seen = _Seen.of(undo, body)
        if seen.in_force and not dry_run:
            return
        if not seen.untouched:
            raise Conflict(
                "precondition-failed",
                f"{_ref(undo)} is not as it was when the fault was planned: {seen}",
                expected="the key as it was last written before the plan, and nothing of a drill beside it",
                remedy="run the drill again: it plans anew",
            )
        operations = [{"op": "move", "from": _data(undo["key"]), "path": _data(undo["parked"])}]
        if undo["how"] in _WRITES:
            operations.append({"op": "add", "path": _data(undo["key"]), "value": _new_value(undo["how"])})
        cluster.patch(
            _ref(undo), [*_same(body), *operations, *_marked(undo, body, IN_FORCE)], dry_run=dry_run, manager=BREAKING
        )

    def undo(self, undo: UndoRecord, cluster: Cluster, *, force: bool = False) -> UndoOutcome:
        """See ports.fault. First the value, in one write; then the pods that hold another one; then the mark goes that
        says that they are still due, so that whoever comes in between goes on there."""
        for _ in range(_ATTEMPTS):
            try:
                body = cluster.get(_ref(undo))
            except NotFound:
                return UndoOutcome("vanished", f"{_ref(undo)} no longer exists")
            seen = _Seen.of(undo, body)
            if not seen.is_ours:
                return _replaced(undo, seen)
            try:
                if seen.parked:
                    if seen.foreign and undo["replacement"] == "keep" and not force:
                        return UndoOutcome("refused", _kept(undo))
                    told = _move_back(undo, body, seen, cluster)
                elif seen.mark == PUT_BACK:
                    told = f"{undo['key']} was put back already"
                elif seen.settled:
                    return UndoOutcome("already", f"{undo['key']} was found back under its name")
                else:
                    return _lost(undo, body, seen, cluster, force=force)
            except Conflict:
                continue  # changed between the read and the write: look again
            return UndoOutcome("restored", told + _replace_pods(undo, cluster))
        return UndoOutcome("refused", f"{_ref(undo)} kept changing under {_ATTEMPTS} attempts to restore it")

    def differences(self, undo: UndoRecord, cluster: Cluster) -> tuple[str, ...]:
        """See ports.fault. Values are not compared: what is found under the key was last written there before the
        plan, or was moved back by a drill."""
        ref = _ref(undo)
        try:
            body = cluster.get(ref)
        except NotFound:
            return (f"{ref} no longer exists",)
        seen = _Seen.of(undo, body)
        found = [*_renamed(undo, body), *_unlike(undo, body)]
        if seen.key and not seen.settled and seen.mark != PUT_BACK:
            found.append(f"{undo['key']} holds {_HELD[seen.foreign]}")
        if seen.mark:
            found.append(f"{undo['key']} is marked as {seen.mark}")
        told = [f"{ref}: {one}" for one in found]
        for consumer in undo["consumers"]:
            told += _unsettled(undo, consumer, cluster, put_back=seen.mark == PUT_BACK)
        return tuple(told)

    def pods(self, undo: UndoRecord) -> None:
        """See ports.fault. The effect shows in calls, not in pods."""

    def proof(self, spec: SecretSpec, evidence: Evidence) -> Proof | None:
        """See ports.fault."""
        held = evidence.measured
        if held is None:
            return None
        words = f"{spec.key} of secret/{spec.secret} {_DONE[spec.how]}: {held.proof}"
        return Proof(held.at, words, held.evidence)


_WRITES = frozenset({"rotate", "garble"})
"""The ways that leave a value of the drill's under the key."""
_DONE = {"revoke": "revoked", "rotate": "rotated", "remove": "removed", "garble": "garbled"}
_FATES = {"keep": "kept, and the undo refused", "discard": "discarded by the undo"}
_HELD = {True: "somebody else's value", False: "a value of a drill"}


@dataclass(frozen=True, slots=True)
class _Seen:
    """What can be known of a Secret and its key without reading a value."""

    is_ours: bool
    """Whether it is the object that was planned for."""
    key: bool
    parked: bool
    """Whether the value that was there waits, as a drill put it, under its other name."""
    mark: str
    by_drill: bool
    """Whether what is under the key was written, or moved there, by a drill."""
    moved_back: bool
    """Whether it was moved there by an undo."""
    as_planned: bool
    """Whether the key's writers are those of the plan: nobody has changed it since."""
    writes: bool
    """Whether the fault leaves a value of its own under the key."""

    @classmethod
    def of(cls, undo: UndoRecord, body: Json) -> Self:
        """As it is now."""
        data = members(body, "data")
        writers, before = data.get(undo["key"], ()), [Writer(*one) for one in undo["writers"]]
        return cls(
            is_ours=body["metadata"]["uid"] == undo["uid"],
            key=undo["key"] in data,
            parked=_is_drills(data.get(undo["parked"], ())),
            mark=(body["metadata"].get("labels") or {}).get(undo["mark"], ""),
            by_drill=_is_drills(writers),
            moved_back=_was_moved_back(writers),
            # A drill's own entry also changes its time with every label that it sets.
            as_planned=list(writers) == before or (_was_moved_back(writers) and _was_moved_back(before)),
            writes=undo["how"] in _WRITES,
        )

    @property
    def in_force(self) -> bool:
        """Whether the fault is in force as it was written."""
        left = self.by_drill if self.writes else not self.key
        return self.is_ours and self.parked and self.mark == IN_FORCE and left

    @property
    def untouched(self) -> bool:
        """Whether it is as it was planned for."""
        return self.is_ours and self.key and self.as_planned and not self.parked and not self.mark

    @property
    def settled(self) -> bool:
        """Whether under the key is what was there before: never touched, or moved back by an undo. That nothing waits
        for an undo any more does not say so: somebody may have tidied up."""
        return self.key and not self.parked and not self.mark and (self.moved_back or self.as_planned)

    @property
    def foreign(self) -> bool:
        """Whether somebody else put a value under the key."""
        return self.key and not self.settled and not (self.writes and self.by_drill)

    def __str__(self) -> str:
        told = ["the key is there" if self.key else "the key is gone"]
        told += ["somebody changed it since"] if self.key and not self.as_planned else []
        told += ["a value of it waits for an undo"] if self.parked else []
        told += [f"it is marked as {self.mark}"] if self.mark else []
        return ", ".join([*told, *([] if self.is_ours else ["it is a new object of the same name"])])


def _is_drills(writers: Sequence[Writer]) -> bool:
    return any(one.manager in {FIELD_MANAGER, BREAKING} for one in writers)


def _was_moved_back(writers: Sequence[Writer]) -> bool:
    return any(one.manager == FIELD_MANAGER for one in writers)


# Planning


def _found(cluster: Cluster, ref: Ref, remedy: str) -> Json:
    try:
        return cluster.get(ref)
    except NotFound as error:
        raise BadInput(
            "target-missing", f"{ref} does not exist", expected="the object that the fault names", remedy=remedy
        ) from error


def _check_free(spec: SecretSpec, ref: Ref, body: Json) -> None:
    """Refuse where a drill's value, or its mark, is there already: the one that is to wait would take its place."""
    taken = [name for name in members(body, "data") if name in {KEPT + spec.key, REVOKED + spec.key}]
    taken += [_mark(spec.key)] if _mark(spec.key) in (body["metadata"].get("labels") or {}) else []
    if taken:
        raise Refused(
            "secret-already-drilled",
            f"{ref} has {', '.join(taken)}: a drill left it, and its undo record is gone",
            expected=f"a Secret on which no fault on {spec.key} is in force",
            remedy=f"put the right value under {spec.key} by hand, then remove {', '.join(taken)}",
        )


def _writers(spec: SecretSpec, ref: Ref, body: Json, cluster: Cluster) -> tuple[Writer, ...]:
    data = members(body, "data")
    if spec.key in data:
        return data[spec.key]
    try:
        absent = {"op": "test", "path": _data(spec.key), "value": None}
        cluster.patch(ref, [*_same(body), absent], dry_run=True)
    except Conflict as error:
        raise Refused(
            "secret-untracked",
            f"{ref} has a key {spec.key}, but metadata.managedFields does not say who wrote it",
            expected="a key whose writers the API server knows: by them an undo tells whose value is there",
            remedy=f"write the Secret anew (kubectl apply --server-side), so that {spec.key} has a manager",
        ) from error
    raise BadInput(
        "key-missing",
        f"{ref} has no key {spec.key!r}",
        expected="one of: " + (", ".join(data) or "none is there"),
        remedy=f"edit `key` of fault {spec.id}",
    )


def _consumer(spec: SecretSpec, consumer: str, namespace: str, cluster: Cluster) -> Json:
    """A consumer's part of the undo record: where its pods are, and which of them were there before."""
    ref = workload(consumer, namespace)
    body = _found(cluster, ref, f"edit `consumers` of fault {spec.id}, or deploy it first")
    if not _takes(body, spec.secret, spec.key):
        raise BadInput(
            "consumer-without-key",
            f"{ref} does not take {spec.key} of secret/{spec.secret} into its environment",
            expected="a workload whose pods keep the key that they were started with",
            remedy=f"edit `consumers` of fault {spec.id}: pods that mount the Secret see its changes by themselves",
        )
    check_at_rest(body)
    found: Json = {"kind": ref.kind, "name": ref.name, "uid": body["metadata"]["uid"], "labels": pod_labels(body)}
    pods = _pods(found, namespace, cluster)
    return found | {"replicas": replicas(body), "pods": {one["metadata"]["uid"]: _starts(one) for one in pods}}


def _takes(body: Json, secret: str, key: str) -> bool:
    """Whether a container has the key in its environment, by its own name or with all others of the Secret."""
    pod = body["spec"]["template"]["spec"]
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        for one in container.get("env", ()):
            source = (one.get("valueFrom") or {}).get("secretKeyRef") or {}
            if (source.get("name"), source.get("key")) == (secret, key):
                return True
        if any((one.get("secretRef") or {}).get("name") == secret for one in container.get("envFrom", ())):
            return True
    return False


# Writing


def _new_value(how: str) -> str:
    """What is written in the value's place, as a Secret's data hold it."""
    text = secrets.token_urlsafe(_VALUE_BYTES) if how == "rotate" else GARBAGE
    return base64.b64encode(text.encode()).decode()


def _same(body: Json) -> list[Json]:
    """Tests that it is the object that was looked at, unchanged: its names and writers are then still as they were."""
    return [
        {"op": "test", "path": f"/metadata/{name}", "value": body["metadata"][name]}
        for name in ("uid", "resourceVersion")
    ]


def _marked(undo: UndoRecord, body: Json, word: str) -> list[Json]:
    """Set the mark, or without a word take it away, if it is there."""
    labels = body["metadata"].get("labels") or {}
    path = f"/metadata/labels/{undo['mark'].replace('/', '~1')}"
    if not word:
        return [{"op": "remove", "path": path}] if undo["mark"] in labels else []
    if not labels:
        return [{"op": "add", "path": "/metadata/labels", "value": {undo["mark"]: word}}]
    return [{"op": "add", "path": path, "value": word}]


def _move_back(undo: UndoRecord, body: Json, seen: _Seen, cluster: Cluster) -> str:
    """Move the value back, over what the fault or somebody else put there. Raises Conflict where it changed."""
    done = f"{undo['key']} was moved back from {undo['parked']}"
    if seen.foreign:
        # In a write of its own, so that the move is the drill's even where both are the same value.
        body = cluster.patch(_ref(undo), [*_same(body), {"op": "remove", "path": _data(undo["key"])}])
        done = f"{_HELD[True]} of {undo['key']} was discarded; {done}"
    back = {"op": "move", "from": _data(undo["parked"]), "path": _data(undo["key"])}
    word = PUT_BACK if undo["consumers"] else ""
    cluster.patch(_ref(undo), [*_same(body), back, *_marked(undo, body, word)])
    return done


def _replace_pods(undo: UndoRecord, cluster: Cluster) -> str:
    """Delete the pods that were started while another value, or none, was there, and take the mark away. Those that
    were there before the fault, and did not start anew, still hold what they were started with."""
    if not undo["consumers"]:
        return ""
    stale = [(pod, one) for one in undo["consumers"] for pod in _stale(undo, one, cluster)]
    for pod, _ in stale:
        try:
            cluster.delete(Ref("Pod", undo["namespace"], pod["metadata"]["name"]), uid=pod["metadata"]["uid"])
        except Conflict:
            continue  # another pod of that name: a StatefulSet has replaced it already
    path = f"/metadata/labels/{undo['mark'].replace('/', '~1')}"
    unmark = [
        {"op": "test", "path": "/metadata/uid", "value": undo["uid"]},
        {"op": "test", "path": path, "value": PUT_BACK},
        {"op": "remove", "path": path},
    ]
    with contextlib.suppress(Conflict):  # another one who undid it has taken it away
        cluster.patch(_ref(undo), unmark)
    return f"; {len(stale)} pod(s) that were started meanwhile are replaced" if stale else ""


def _lost(undo: UndoRecord, body: Json, seen: _Seen, cluster: Cluster, *, force: bool) -> UndoOutcome:
    """The value is not where the fault moved it. Nobody can bring it back; forced, what is there is taken as it is."""
    state = f"holds {_HELD[True]}" if seen.foreign else "holds a value of a drill" if seen.key else "is gone"
    told = (
        f"{undo['parked']} of {_ref(undo)} is gone, or no longer what the drill put there, and {undo['key']} {state}: "
        f"what was there before is lost to the drill"
    )
    if seen.foreign and not seen.mark:  # nothing of a drill is left, and nothing tells whether there ever was
        told += ", unless its owner changed it before the fault was in force"
    if not force:
        return UndoOutcome(
            "refused",
            f"{told}; put the right value under {undo['key']} by hand, then `drill recover --force` takes it as it is",
        )
    unmarked = _marked(undo, body, "")
    if unmarked:
        cluster.patch(_ref(undo), [*_same(body), *unmarked])
    return UndoOutcome("already", f"{told}; taken as it is")


def _kept(undo: UndoRecord) -> str:
    return (
        f"{undo['key']} of {_ref(undo)} holds {_HELD[True]}: it is kept, and what was there before waits under "
        f"{undo['parked']}; `drill recover --force` discards the one and moves the other back"
    )


def _replaced(undo: UndoRecord, seen: _Seen) -> UndoOutcome:
    """Somebody made the object anew. One that has the parked name was copied from the broken one."""
    if not seen.parked and not seen.mark:
        return UndoOutcome("vanished", f"{_ref(undo)} is a new object of the same name")
    return UndoOutcome(
        "refused",
        f"{_ref(undo)} is a new object of the same name, and carries what the drill left: put the right value under "
        f"{undo['key']} by hand, and remove {undo['parked']} and the label {undo['mark']}",
    )


# Comparing


def _renamed(undo: UndoRecord, body: Json) -> Iterator[str]:
    before, now = set(undo["names"]), set(members(body, "data"))
    yield from (f"data key {name} is gone" for name in sorted(before - now))
    yield from (f"data key {name} was added" for name in sorted(now - before))


def _unlike(undo: UndoRecord, body: Json) -> list[str]:
    """How its metadata differ, the fault's own mark aside."""
    now = snapshot(body)
    labels = {key: value for key, value in (now["metadata"].pop("labels", None) or {}).items() if key != undo["mark"]}
    if labels:
        now["metadata"]["labels"] = labels
    return differences(undo["snapshot"], now)


def _unsettled(undo: UndoRecord, consumer: Json, cluster: Cluster, *, put_back: bool) -> list[str]:
    """Why a consumer is not yet well again. The pods are counted themselves: a status is older than a deletion."""
    ref = Ref(consumer["kind"], undo["namespace"], consumer["name"])
    try:
        body = cluster.get(ref)
    except NotFound:
        return [f"{ref} no longer exists"]
    found = list(unsettled(body))
    ready = sum(map(_is_ready, _pods(consumer, undo["namespace"], cluster)))
    if not found and ready < replicas(body):
        found.append(f"{ref}: {ready} of {replicas(body)} pods are ready")
    stale = len(_stale(undo, consumer, cluster)) if put_back else 0
    return found + ([f"{ref}: {stale} pod(s) were started while {undo['key']} was another"] if stale else [])


# Pods


def _pods(consumer: Json, namespace: str, cluster: Cluster) -> list[Json]:
    """A consumer's own pods, those aside that are on their way out: labels alone may be a stranger's."""
    found = cluster.list("Pod", namespace, consumer["labels"])
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"] and _belongs(pod, consumer)]


def _belongs(pod: Json, consumer: Json) -> bool:
    owner = next((one for one in pod["metadata"].get("ownerReferences") or () if one.get("controller")), None)
    if owner is None:
        return False
    if consumer["kind"] == "StatefulSet":
        return (owner.get("kind"), owner.get("uid")) == ("StatefulSet", consumer["uid"])
    template = (pod["metadata"].get("labels") or {}).get("pod-template-hash", "")
    return (owner.get("kind"), owner.get("name")) == ("ReplicaSet", f"{consumer['name']}-{template}")


def _starts(pod: Json) -> dict[str, int]:
    """How often each container was started again: what it took from a Secret is from its last start."""
    status = pod.get("status", {})
    states = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    return {str(one["name"]): int(one.get("restartCount", 0)) for one in states}


def _stale(undo: UndoRecord, consumer: Json, cluster: Cluster) -> list[Json]:
    """The pods that were not there before the fault, or were started anew since."""
    before = consumer["pods"]
    return [
        pod
        for pod in _pods(consumer, undo["namespace"], cluster)
        if before.get(pod["metadata"]["uid"]) is None or _starts(pod) != before[pod["metadata"]["uid"]]
    ]


def _is_ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _ref(undo: UndoRecord) -> Ref:
    return Ref(undo["kind"], undo["namespace"], undo["name"])


def _data(name: str) -> str:
    return f"/data/{name}"  # a data key has neither of the characters that a pointer escapes


def _mark(key: str) -> str:
    return MARK + hashlib.sha256(key.encode()).hexdigest()[:8]
