"""What a fault is: one way to break one thing, with the way back captured from the cluster beforehand.

A fault is a module with one class. `plan` only reads; `apply` and `undo` see only the record that `plan` made (plain
data, durable in the cluster before `apply` runs) and both may be repeated; `differences` says whether it is really
gone. `pods` and `proof` say how its effect shows: in pods, in what Prometheus measures, or in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from harness.core.event import Change, ObjectSeen, PodState
from harness.core.evidence import Evidence, Proof
from harness.core.experiment import FaultSpec
from harness.ports.cluster import Cluster, Json, Ref

UndoRecord = dict[str, Any]
"""JSON-able; never code, never a constant, no secret values."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done: shown by `drill plan`, journalled before it is done."""

    summary: str
    targets: tuple[Ref, ...]
    """The objects that are written to, made, or whose pods are deleted; a change names its own by `str(target)`."""
    changes: tuple[Change, ...]
    pods: int
    objects: int
    undo: UndoRecord


@dataclass(frozen=True, slots=True)
class UndoOutcome:
    """How an undo ended; see the event UndoDone for the words."""

    outcome: Literal["restored", "already", "refused", "vanished"]
    detail: str
    gone: tuple[Ref, ...] = ()
    """Of several objects, those that vanished while others were put back: the others are still to come to rest."""


@dataclass(frozen=True, slots=True)
class PodSelector:
    """Which pods show the effect, and which of their containers."""

    labels: str
    container: str


@dataclass(frozen=True, slots=True)
class ObjectSelector:
    """Which object shows the effect, and in which of its fields (paths as in core.fields)."""

    ref: Ref
    fields: tuple[str, ...]


S_contra = TypeVar("S_contra", bound=FaultSpec, contravariant=True)


class Fault(Protocol[S_contra]):
    """See the module's head."""

    kind: ClassVar[str]

    def verbs(self, spec: S_contra) -> tuple[tuple[str, ...], ...]:
        """What plan, apply, undo and differences use for this spec, for the preflight and for the comparison with the
        Roles: (verb, kind), or (verb, kind, name) where one object's name is enough. Pure."""

    def plan(self, spec: S_contra, namespace: str, cluster: Cluster) -> Plan:
        """Resolve the target and capture the way back. Raises BadInput or Refused; changes nothing."""

    def apply(self, undo: UndoRecord, cluster: Cluster, *, dry_run: bool = False) -> None:
        """Break it. Idempotent. Raises Conflict where the target is no longer what `plan` saw."""

    def undo(self, undo: UndoRecord, cluster: Cluster, *, force: bool = False) -> UndoOutcome:
        """Put back what was there. Idempotent. Refuses to overwrite what somebody else changed since, unless
        forced, and says what it found."""

    def differences(self, undo: UndoRecord, cluster: Cluster) -> tuple[str, ...]:
        """How the target differs from its snapshot, server-managed fields aside; empty when clean and settled."""

    def pods(self, undo: UndoRecord) -> PodSelector | None:
        """Whose state shows the effect; None where no pod's does."""

    def proof(self, spec: S_contra, evidence: Evidence) -> Proof | None:
        """The proof of effect from what was seen since the injection, or None so far. Pure."""


@runtime_checkable
class Prepares(Protocol):
    """A fault whose write needs an object of its own. What `prepare` makes breaks nothing, belongs to the fault's undo
    record, and is collected with it; `apply` then is a patch of it, and so bound to its version like any other."""

    def prepare(self, undo: UndoRecord, cluster: Cluster, *, dry_run: bool = False) -> None:
        """Make it. Idempotent. Raises Conflict where somebody else's object has that name."""


@runtime_checkable
class Chooses(Protocol):
    """A fault that hits what comes and goes: what `plan` chose may be gone when the fault is due."""

    def choose(self, undo: UndoRecord, cluster: Cluster) -> Plan | None:
        """The plan anew, among what is there now and to the extent of the first one; None where that one still stands.
        Only reads. Raises Conflict where there is too little left, or where the effect is there already, and Refused
        where what is there now must not be hit."""


@runtime_checkable
class ShowsInObject(Protocol):
    """A fault that shows in an object besides pods and metrics: it is watched from just before the write."""

    def object(self, undo: UndoRecord) -> ObjectSelector:
        """Which one."""

    def ended(self, undo: UndoRecord, seen: ObjectSeen) -> str:
        """Why it is in force no more by its own doing, which ends the run; empty while it is, or where somebody took
        it away: that may be the cure. Pure."""


def rehearse(fault: Fault[Any], undo: UndoRecord, cluster: Cluster) -> None:
    """Let the API server judge the fault's first write without making it. Raises what that raises."""
    if isinstance(fault, Prepares):
        fault.prepare(undo, cluster, dry_run=True)
    else:
        fault.apply(undo, cluster, dry_run=True)


__all__ = [
    "Chooses", "Evidence", "Fault", "Json", "ObjectSeen", "ObjectSelector", "Plan", "PodSelector", "PodState",
    "Prepares", "Proof", "ShowsInObject", "UndoOutcome", "UndoRecord", "rehearse",
]  # fmt: skip
