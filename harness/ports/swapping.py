"""Faults that are nothing but exchanges of values: how they find what they change, and what their apply and undo are.

The record has a part for each object, in the order in which they are written and put back: what the pods read comes
before what makes them read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from harness.core.errors import BadInput, Refused
from harness.core.event import Change
from harness.core.snapshot import differences, snapshot
from harness.core.workload import changes, title
from harness.ports import swap
from harness.ports.cluster import Cluster, Json, NotFound, Ref
from harness.ports.fault import UndoOutcome, UndoRecord
from harness.ports.kinds import WORKLOADS

OWN = "drill.internal/"
"""The labels by which the harness knows what is its own."""
FENCE = f"{OWN}fence"
"""The label that comes and goes on others' objects while something is brought back."""
PUBLISHED = frozenset({"kube-root-ca.crt", "openshift-service-ca.crt"})
"""ConfigMaps that the cluster puts into every namespace."""
_WORST_FIRST = ("refused", "vanished", "restored", "already")


class Swapping:
    """`apply`, `undo` and `differences` of such a fault; see ports.fault."""

    def same(self, one: Any, other: Any) -> bool:
        """Whether two values mean the same to the API server, which may spell them otherwise than they were written."""
        return bool(one == other)

    def apply(self, undo: UndoRecord, cluster: Cluster, *, dry_run: bool = False) -> None:
        """See ports.fault. Where it raises, the objects of the parts before may be changed already."""
        for part in _parts(undo):
            swap.exchange(part, cluster, self.same, dry_run=dry_run)

    def undo(self, undo: UndoRecord, cluster: Cluster, *, force: bool = False) -> UndoOutcome:
        """See ports.fault. A part that is refused keeps no other from being put back."""
        done: list[tuple[Ref, UndoOutcome]] = []
        refused: list[Refused] = []
        for part in _parts(undo):
            try:
                done.append((swap.ref_of(part), swap.restore(part, cluster, self.same, force=force)))
            except Refused as error:
                refused.append(error)
        if refused:
            raise refused[0]
        if len(done) == 1:
            return done[0][1]
        worst = min((outcome for _, outcome in done), key=lambda one: _WORST_FIRST.index(one.outcome))
        gone = tuple(ref for ref, one in done if one.outcome == "vanished")
        told = "; ".join(f"{ref}: {one.detail}" for ref, one in done)
        return UndoOutcome(worst.outcome, told, gone if len(gone) < len(done) else ())

    def differences(self, undo: UndoRecord, cluster: Cluster) -> tuple[str, ...]:
        """See ports.fault. Workloads must have come to rest, too."""
        found: list[str] = []
        for part in _parts(undo):
            ref = swap.ref_of(part)
            try:
                body = cluster.get(ref)
            except NotFound:
                found.append(f"{ref} no longer exists")
                continue
            if ref.kind in WORKLOADS.values():
                found += changes(part["snapshot"], body)
            else:
                found += [f"{title(body)}: {one}" for one in differences(part["snapshot"], snapshot(body))]
        return tuple(found)


def record(namespace: str, parts: Sequence[tuple[Json, Sequence[tuple[Sequence[swap.Step], Any]]]]) -> UndoRecord:
    """The way back for exchanging values in each of these objects. Raises what `swap.capture` raises."""
    captured = [{**swap.capture(body, exchanges), "snapshot": snapshot(body)} for body, exchanges in parts]
    for part in captured:
        del part["namespace"]  # it is the record's: one that was forged leads nowhere else
    return {"namespace": namespace, "parts": captured}


def targets(undo: UndoRecord) -> tuple[Ref, ...]:
    """The objects that are written to."""
    return tuple(swap.ref_of(part) for part in _parts(undo))


def planned(undo: UndoRecord) -> tuple[Change, ...]:
    """What is changed, as plans show it."""
    return tuple(change for part in _parts(undo) for change in swap.changes(part))


def found(ref: Ref, fault_id: str, cluster: Cluster) -> Json:
    """The object that a fault names. Raises BadInput where it is not there."""
    try:
        return cluster.get(ref)
    except NotFound as error:
        raise BadInput(
            "target-missing",
            f"{ref} does not exist",
            expected="the object that the fault names",
            remedy=f"edit `target` of fault {fault_id}, or deploy it first",
        ) from error


def check_is_theirs(body: Json, fault_id: str) -> None:
    """Raise Refused for an object of the harness, or one that the cluster itself puts there."""
    labels = body["metadata"].get("labels") or {}
    published = body["kind"] == "ConfigMap" and body["metadata"]["name"] in PUBLISHED
    if published or any(name.startswith(OWN) and name != FENCE for name in labels):
        raise Refused(
            "not-a-target",
            f"{title(body)} belongs to the cluster or to the harness",
            expected=f"a {body['kind']} of the system that is drilled",
            remedy=f"edit `target` of fault {fault_id}",
        )


def container(body: Json, name: str, fault_id: str) -> Json:
    """A container of a workload. Raises BadInput where it has none of that name."""
    containers: list[Json] = body["spec"]["template"]["spec"]["containers"]
    one = next((one for one in containers if one["name"] == name), None)
    if one is None:
        raise BadInput(
            "container-missing",
            f"{title(body)} has no container {name!r}",
            expected="one of: " + ", ".join(one["name"] for one in containers),
            remedy=f"edit `container` of fault {fault_id}",
        )
    return one


def inside(name: str, *steps: swap.Step) -> tuple[swap.Step, ...]:
    """The path of something inside a workload's container."""
    return ("spec", "template", "spec", "containers", {"name": name}, *steps)


def _parts(undo: UndoRecord) -> Iterator[UndoRecord]:
    for part in undo["parts"]:
        yield {**part, "namespace": undo["namespace"]}
