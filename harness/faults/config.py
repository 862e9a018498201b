"""Change what a system is configured with: keys of a ConfigMap, or environment variables of a container.

Variables are part of the pod template, so that a change of them is a rollout. A ConfigMap is not: pods that read it
when they start go on with what they have until they are started anew. The fault does that by an annotation of the pod
template, and takes it away again: the template is then what it was to the letter, and Kubernetes goes back to the pods'
old ReplicaSet. What is set and what was there lies in the undo record and in the journal, so nothing that looks like a
secret is touched: that is what the fault `secret` is for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from harness.core.confidential import holds_password, is_called_secret
from harness.core.errors import BadInput, Refused
from harness.core.experiment import FaultSpec, Loc, MeasuredEffect, SelfCheckError, WorkloadName, split_object
from harness.core.workload import check_at_rest, check_rolls, replicas, title
from harness.ports.cluster import Cluster, Json, Ref
from harness.ports.fault import Evidence, Plan, Proof, UndoRecord
from harness.ports.kinds import WORKLOADS, workload
from harness.ports.swap import ABSENT, Step
from harness.ports.swapping import (
    Swapping,
    check_is_theirs,
    container,
    found,
    inside,
    planned,
    record,
    targets,
)

RESTART = "drill.internal/restart"
"""The annotation of a pod template by which its pods are started anew; its value is the fault's id."""
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]{0,252}")

Target = Annotated[
    str, StringConstraints(pattern=r"^(configmap|deployment|statefulset)/[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
]


class ConfigSpec(FaultSpec):
    """Parameters of the fault."""

    kind: Literal["config"]
    target: Target
    container: str = ""
    set_: dict[str, str] = Field(default={}, alias="set")
    unset: tuple[str, ...] = ()
    restart: tuple[WorkloadName, ...] = ()
    effect: MeasuredEffect

    @field_validator("set_", mode="before")
    @classmethod
    def _texts(cls, given: Any) -> Any:
        odd: list[tuple[Loc, str]] = [
            ((name,), f"{name} is {value!r}, which is no text; write text, and put it into quotes as it shall be read")
            for name, value in (given.items() if isinstance(given, dict) else ())
            if not isinstance(value, str)
        ]
        if odd:
            raise SelfCheckError(odd)
        return given

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [*self.set_, *self.unset]
        if not names:
            raise ValueError("nothing is changed; write `set` or `unset`")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is changed twice; name it once, in `set` or in `unset`")
        if len(set(self.restart)) < len(self.restart):
            raise ValueError("a workload is restarted once; name it once in `restart`")
        is_map = split_object(self.target)[0] == "configmap"
        if is_map and self.container:
            raise ValueError("a ConfigMap has no container; take `container` away, or name a workload as `target`")
        if not is_map and not self.container:
            raise ValueError("whose variables? Write `container`")
        if not is_map and self.restart:
            raise ValueError("a change of variables restarts the pods by itself; take `restart` away")
        form, what = (_KEY, "key of a ConfigMap") if is_map else (_VARIABLE, "name of a variable")
        wrong = [name for name in names if not form.fullmatch(name)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is not a {what}")
        return self


class Config(Swapping):
    """The fault `config`."""

    kind: ClassVar[str] = "config"

    def verbs(self, spec: ConfigSpec) -> tuple[tuple[str, str], ...]:
        """See ports.fault."""
        kinds = ["ConfigMap" if kind == "configmap" else WORKLOADS[kind] for kind, _ in _objects(spec)]
        return tuple((verb, kind) for kind in dict.fromkeys(kinds) for verb in ("get", "patch"))

    def plan(self, spec: ConfigSpec, namespace: str, cluster: Cluster) -> Plan:
        """See ports.fault. Refuses what is not there to be changed, what others manage, and what looks like a
        secret."""
        for name in (*spec.set_, *spec.unset):
            _check_name(spec, name)
        kind, name = split_object(spec.target)
        ref = Ref("ConfigMap", namespace, name) if kind == "configmap" else workload(spec.target, namespace)
        body = found(ref, spec.id, cluster)
        rolled = [found(workload(text, namespace), spec.id, cluster) for text in spec.restart]
        if kind == "configmap":
            parts = [(body, _of_map(spec, body)), *((one, [_restarted(spec, one)]) for one in rolled)]
        else:
            parts, rolled = [(body, _of_container(spec, body))], [body]
        for one in rolled:
            check_at_rest(one)
            check_rolls(one)
        undo = record(namespace, parts)
        said = [*(f"{name}={value}" for name, value in spec.set_.items()), *(f"no {name}" for name in spec.unset)]
        restarts = f", and restart {', '.join(spec.restart)}" if spec.restart else ""
        return Plan(
            summary=f"configure {ref} with {', '.join(said)}{restarts}",
            targets=targets(undo),
            changes=planned(undo),
            pods=sum(map(replicas, rolled)),
            objects=len(parts),
            undo=undo,
        )

    def pods(self, undo: UndoRecord) -> None:
        """See ports.fault. What was configured shows in what the system does."""

    def proof(self, spec: ConfigSpec, evidence: Evidence) -> Proof | None:
        """See ports.fault."""
        return evidence.measured


def _objects(spec: ConfigSpec) -> list[tuple[str, str]]:
    return [split_object(text) for text in (spec.target, *spec.restart)]


def _of_map(spec: ConfigSpec, body: Json) -> list[tuple[Sequence[Step], Any]]:
    where = title(body)
    check_is_theirs(body, spec.id)
    if body.get("immutable"):
        raise Refused(
            "target-immutable",
            f"{where} is immutable: the API server lets nobody change it",
            expected="a ConfigMap that can be changed and put back",
            remedy="drill the variables of its readers instead, or have its owners make it anew without `immutable`",
        )
    data, binary = body.get("data") or {}, body.get("binaryData") or {}
    for name in spec.set_:
        if name in binary:
            raise Refused(
                "value-not-text",
                f"{name} of {where} is binary",
                expected="a key whose value is text",
                remedy=f"edit `set` of fault {spec.id}",
            )
    _check_there(spec, where, data)
    for name in data.keys() & {*spec.set_, *spec.unset}:
        _check_value(spec, name, data[name])
    return [*((("data", name), value) for name, value in _changes(spec))]


def _of_container(spec: ConfigSpec, body: Json) -> list[tuple[Sequence[Step], Any]]:
    where = f"container {spec.container} in {title(body)}"
    env: list[Json] = container(body, spec.container, spec.id).get("env") or []
    names = [one["name"] for one in env]
    _check_there(spec, where, names)
    exchanges: list[tuple[Sequence[Step], Any]] = []
    for name, value in _changes(spec):
        if names.count(name) > 1:
            raise Refused(
                "variable-twice",
                f"{name} stands {names.count(name)} times in {where}",
                expected="a variable that is declared once",
                remedy="have its owners remove what does not count: the last one does",
            )
        before = next((one for one in env if one["name"] == name), {})
        if "secretKeyRef" in (before.get("valueFrom") or {}):
            raise _secret(spec, f"{name} of {where} comes from a Secret")
        _check_value(spec, name, str(before.get("value", "")))
        after = value if value is ABSENT else {"name": name, "value": value}
        exchanges.append((inside(spec.container, "env", {"name": name}), after))
    return exchanges


def _restarted(spec: ConfigSpec, body: Json) -> tuple[Sequence[Step], Any]:
    annotations = (body["spec"]["template"].get("metadata") or {}).get("annotations") or {}
    if RESTART in annotations:
        raise Refused(
            "restart-not-undone",
            f"{title(body)} carries the annotation {RESTART} of an earlier drill",
            expected="a pod template without it",
            remedy="run `drill recover`; where it finds nothing, take the annotation away by hand",
        )
    return ("spec", "template", "metadata", "annotations", RESTART), spec.id


def _changes(spec: ConfigSpec) -> list[tuple[str, Any]]:
    return [*spec.set_.items(), *((name, ABSENT) for name in spec.unset)]


def _check_there(spec: ConfigSpec, where: str, names: Sequence[str] | dict[str, str]) -> None:
    for name in spec.unset:
        if name not in names:
            raise BadInput(
                "nothing-to-unset",
                f"{where} has no {name}",
                expected=f"one of: {', '.join(sorted(names)) or 'none'}",
                remedy=f"edit `unset` of fault {spec.id}",
            )


def _check_name(spec: ConfigSpec, name: str) -> None:
    if is_called_secret(name):
        raise _secret(spec, f"{name} is called like a secret")
    _check_value(spec, name, spec.set_.get(name, ""))


def _check_value(spec: ConfigSpec, name: str, value: str) -> None:
    if holds_password(value):
        raise _secret(spec, f"the value of {name} holds a password in an address")


def _secret(spec: ConfigSpec, fact: str) -> Refused:
    return Refused(
        "looks-like-a-secret",
        fact,
        expected="plain settings: what is set and what was there is written into undo records, journals and reports",
        remedy=f"use the fault `secret` for what is secret, or edit fault {spec.id}",
    )
