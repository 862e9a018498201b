"""Change any place of one object, for what has no fault of its own yet: a selector, a policy, a probe.

The operations are those of a JSON patch (RFC 6902), and the way back is what was there. An operation that leads into a
list whose items have names is known by the item's name, so that others may come and go beside it; one that leads into
any other list is known by the whole list, of which the record keeps what changes where people write secrets in it. What
the API server makes of the new values (defaults, other spellings) is learned from a dry run, so that what is in force
can be told from what somebody else writes.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from harness.core.confidential import (
    FROM_SECRETS,
    comes_from_secret,
    holds_password,
    holds_texts,
    is_called_secret,
)
from harness.core.errors import BadInput, Refused
from harness.core.experiment import FaultSpec, Frozen, MeasuredEffect
from harness.core.snapshot import APPLIED
from harness.core.workload import check_at_rest, check_rolls, replicas
from harness.ports import swap
from harness.ports.cluster import Cluster, Json, Ref
from harness.ports.fault import Evidence, Plan, Proof, UndoRecord
from harness.ports.swapping import OWN, Swapping, check_is_theirs, found, planned, record, targets

PATCHED = {
    name.lower(): name
    for name in (
        "ConfigMap", "CronJob", "DaemonSet", "Deployment", "HorizontalPodAutoscaler", "Job", "NetworkPolicy", "Service",
        "StatefulSet",
    )
}  # fmt: skip
"""What may be patched, as files name it. Not secrets, nor what says who may do what, nor what controllers own."""
_ROLLED = ("Deployment", "StatefulSet")
_TOKEN = re.compile(r"~(?![01])")
Target = Annotated[str, StringConstraints(pattern=rf"^({'|'.join(PATCHED)})/[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]


class Operation(Frozen):
    """One operation of a JSON patch."""

    op: Literal["add", "replace", "remove"]
    path: Annotated[str, StringConstraints(pattern=r"^(/[^/]+)+$", max_length=500)]
    value: Any = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if _TOKEN.search(self.path):
            raise ValueError(f"{self.path!r} is no path: in a name write ~1 for / and ~0 for ~")
        if (self.op == "remove") != (self.value is None):
            raise ValueError("`add` and `replace` need a `value`, and `remove` takes none")
        return self

    @property
    def tokens(self) -> list[str]:
        """The path's names."""
        return [token.replace("~1", "/").replace("~0", "~") for token in self.path.split("/")[1:]]

    def as_json(self) -> Json:
        """As the API server takes it."""
        return {"op": self.op, "path": self.path, **({} if self.value is None else {"value": self.value})}


class PatchSpec(FaultSpec):
    """Parameters of the fault."""

    kind: Literal["patch"]
    target: Target
    operations: tuple[Operation, ...] = Field(min_length=1, max_length=20)
    effect: MeasuredEffect


class Patch(Swapping):
    """The fault `patch`."""

    kind: ClassVar[str] = "patch"

    def verbs(self, spec: PatchSpec) -> tuple[tuple[str, str], ...]:
        """See ports.fault."""
        kind = PATCHED[spec.target.partition("/")[0]]
        return ("get", kind), ("patch", kind)

    def plan(self, spec: PatchSpec, namespace: str, cluster: Cluster) -> Plan:
        """See ports.fault. Refuses places that are not there, that no drill touches, and that may hold a secret. Asks
        the API server for a dry run."""
        for operation in spec.operations:
            _check_place(spec, operation)
        kind, _, name = spec.target.partition("/")
        ref = Ref(PATCHED[kind], namespace, name)
        body = found(ref, spec.id, cluster)
        check_is_theirs(body, spec.id)
        if body.get("immutable"):
            raise Refused(
                "target-immutable",
                f"{ref} is immutable: the API server lets nobody change it",
                expected="an object that can be changed and put back",
                remedy=f"edit `target` of fault {spec.id}",
            )
        places = _places(spec, body)
        seen = {"op": "test", "path": "/metadata/resourceVersion", "value": body["metadata"]["resourceVersion"]}
        answer = cluster.patch(ref, [seen, *(operation.as_json() for operation in spec.operations)], dry_run=True)
        exchanges = [(path, _value(answer, path)) for path in places]
        exchanges = [(path, after) for path, after in exchanges if _value(body, path) != after]
        if not exchanges:
            raise BadInput(
                "nothing-to-change",
                f"{ref} is so already",
                expected="operations that change something",
                remedy=f"edit `operations` of fault {spec.id}: what changes nothing breaks nothing",
            )
        _check_workload(body, [path for path, _ in exchanges])
        undo = record(namespace, [(body, exchanges)])
        for part in undo["parts"]:
            for one in part["values"]:
                _check_texts(spec, body, one)
        return Plan(
            summary=f"patch {ref} at {', '.join(swap.written(path) for path, _ in exchanges)}",
            targets=targets(undo),
            changes=planned(undo),
            pods=_pods(body),
            objects=1,
            undo=undo,
        )

    def pods(self, undo: UndoRecord) -> None:
        """See ports.fault. What it breaks shows in what the system does."""

    def proof(self, spec: PatchSpec, evidence: Evidence) -> Proof | None:
        """See ports.fault."""
        return evidence.measured


def _check_place(spec: PatchSpec, operation: Operation) -> None:
    first, *rest = operation.tokens
    told = first in {"data", "spec"} and bool(rest)
    told = told or (first == "metadata" and len(rest) == 2 and rest[0] in {"annotations", "labels"})
    if not told or (first == "metadata" and rest[1].startswith(OWN)):
        raise Refused(
            "place-not-drilled",
            f"fault {spec.id} would change {operation.path}",
            expected="something below /spec or /data, or one label or annotation that is not the harness' own: "
            "identity, finalizers, owners, status, and whether it is immutable, are nobody's to drill",
            remedy=f"edit `operations` of fault {spec.id}",
        )
    if operation.path == "/spec/replicas":
        raise Refused(
            "fault-of-its-own",
            f"fault {spec.id} would change {operation.path}",
            expected="the fault that looks at autoscalers and volumes first",
            remedy="use the fault `scale`",
        )


def _places(spec: PatchSpec, body: Json) -> list[tuple[swap.Step, ...]]:
    """Where the operations lead, each by a path that stays right while others come and go beside it."""
    now, places = copy.deepcopy(body), list[tuple[swap.Step, ...]]()
    for operation in spec.operations:
        path = _walked(spec, now, operation)
        while swap.place(body, path) is None:  # inside of what an operation before has added
            path = path[:-1]
        places.append(path)
    unique = list(dict.fromkeys(map(repr, places)))
    known = {repr(path): path for path in places}
    return [
        known[one]
        for one in unique
        if not any(len(other) < len(known[one]) and known[one][: len(other)] == other for other in places)
    ]


def _walked(spec: PatchSpec, now: Json, operation: Operation) -> tuple[swap.Step, ...]:
    """The path of an operation, which is carried out on `now`."""
    *parents, last = operation.tokens
    at: Any = now
    path: list[swap.Step] = []
    whole: tuple[swap.Step, ...] | None = None
    for token in parents:
        if isinstance(at, list) and token.isdigit() and int(token) < len(at):
            whole = whole or (None if _named(at) else tuple(path))
            path.append({"name": at[int(token)]["name"]} if _named(at) else token)
            at = at[int(token)]
        elif isinstance(at, dict) and token in at:
            path.append(token)
            at = at[token]
        else:
            raise _no_place(spec, operation)
    whole = whole or _carried_out(spec, operation, at, last, tuple(path))
    return whole if whole is not None else (*path, last)


def _carried_out(
    spec: PatchSpec, operation: Operation, at: Any, last: str, path: tuple[swap.Step, ...]
) -> tuple[swap.Step, ...] | None:
    """Carry out an operation at its last step; the path of the list where that step is an item of one."""
    if isinstance(at, dict):
        if operation.op != "add" and last not in at:
            raise _no_place(spec, operation)
        if operation.op == "remove":
            del at[last]
        else:
            at[last] = copy.deepcopy(operation.value)
        return None
    if not isinstance(at, list):
        raise _no_place(spec, operation)
    index = len(at) if (last, operation.op) == ("-", "add") else int(last) if last.isdigit() else -1
    if not 0 <= index < len(at) + (operation.op == "add"):
        raise _no_place(spec, operation)
    if operation.op != "add":
        del at[index]
    if operation.op != "remove":
        at.insert(index, copy.deepcopy(operation.value))
    return path


def _named(items: Sequence[Any]) -> bool:
    """Whether each item of a list has a name of its own."""
    names = [one.get("name") if isinstance(one, dict) else None for one in items]
    return all(isinstance(name, str) for name in names) and len(set(names)) == len(names)


def _value(body: Json, path: Sequence[swap.Step]) -> Any:
    at = swap.place(body, path)
    return swap.ABSENT if at is None else at.value


def _check_texts(spec: PatchSpec, body: Json, one: Json) -> None:
    """Refuse an entry of the record that may hold a secret."""
    path, before, after = one["path"], one.get("before"), one.get("after")
    where = swap.written(path)
    names = [step["name"] if isinstance(step, dict) else step for step in path]
    if {"data", "env", "annotations"} & {*names[:-1]} and any(map(is_called_secret, names[1:])):
        raise _secret(spec, f"{where} is called like a secret")
    if path[-1] == APPLIED:
        raise _secret(spec, f"{where} holds a copy of the whole object")
    if holds_password(before) or holds_password(after):
        raise _secret(spec, f"{where} holds a password in an address")
    # The policy `drill-guard` keeps the harness from changing that, the sweeper too: it could not be brought back.
    if FROM_SECRETS.intersection(names) or comes_from_secret([before, after]):
        raise _secret(spec, f"{where} comes from a Secret")
    if holds_texts(before) or holds_texts(after) or path[-1] == "annotations":
        raise _secret(spec, f"{where} holds environment, arguments or annotations, in which people write secrets")
    arguments = (*_texts(before), *_texts(after), *_option(body, one)) if {"args", "command"} & {*names} else ()
    if any(map(is_called_secret, arguments)):
        raise _secret(spec, f"{where} holds an argument that is called like a secret")
    for items in (before, after):
        if (
            path[-1] == "env"
            and isinstance(items, list)
            and any(is_called_secret(str(item.get("name"))) for item in items)
        ):
            raise _secret(spec, f"{where} holds a variable that is called like a secret")


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [] if value is None else [str(value)]


def _option(body: Json, one: Json) -> list[str]:
    """The argument before those that change: it may be the option whose value they are."""
    start = one.get("start", 0)
    return _texts(_value(body, one["path"])[start - 1 : start]) if start else []


def _check_workload(body: Json, paths: Sequence[Sequence[swap.Step]]) -> None:
    if body["kind"] in _ROLLED:
        check_at_rest(body)
        if any(tuple(path[:2]) == ("spec", "template") for path in paths):
            check_rolls(body)


def _pods(body: Json) -> int:
    if body["kind"] in _ROLLED:
        return replicas(body)
    return int((body.get("status") or {}).get("desiredNumberScheduled", 0))


def _no_place(spec: PatchSpec, operation: Operation) -> BadInput:
    return BadInput(
        "no-such-place",
        f"{operation.path} of {spec.target} is not there to {operation.op}",
        expected="a path that leads to one place of the object as it is (`add` needs what holds it)",
        remedy=f"edit `operations` of fault {spec.id}; kubectl get {spec.target} -o json shows what is there",
    )


def _secret(spec: PatchSpec, fact: str) -> Refused:
    return Refused(
        "looks-like-a-secret",
        fact,
        expected="plain values: what is set and what was there is written into undo records, journals and reports",
        remedy=f"name the very member that is to change in fault {spec.id}; for secrets use the fault `secret`",
    )
