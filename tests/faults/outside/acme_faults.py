"""A fault that ships in a package of its own: traffic to a Service finds no pod behind it."""

from __future__ import annotations

from typing import ClassVar, Literal

from harness.catalog import Entry
from harness.core.errors import BadInput
from harness.core.evidence import Evidence, Proof
from harness.core.experiment import FaultSpec, MeasuredEffect
from harness.core.snapshot import differences, snapshot
from harness.ports import swap
from harness.ports.cluster import Cluster, NotFound, Ref
from harness.ports.fault import Plan, PodSelector, UndoOutcome, UndoRecord

NOBODY = {"acme.example/nobody": "true"}


class BlackholeSpec(FaultSpec):
    """Parameters of the fault."""

    kind: Literal["blackhole"]
    service: str
    effect: MeasuredEffect


class Blackhole:
    """The fault `blackhole`."""

    kind: ClassVar[str] = "blackhole"

    def verbs(self, spec: BlackholeSpec) -> tuple[tuple[str, str], ...]:
        """See harness.ports.fault."""
        del spec
        return ("get", "Service"), ("patch", "Service")

    def plan(self, spec: BlackholeSpec, namespace: str, cluster: Cluster) -> Plan:
        """See harness.ports.fault."""
        ref = Ref("Service", namespace, spec.service)
        try:
            body = cluster.get(ref)
        except NotFound as error:
            raise BadInput(
                "target-missing", f"{ref} does not exist", expected="a Service", remedy=f"edit fault {spec.id}"
            ) from error
        undo = swap.capture(body, [(["spec", "selector"], NOBODY)])
        return Plan(
            summary=f"let {ref} select nobody",
            targets=(ref,),
            changes=swap.changes(undo),
            pods=0,
            objects=1,
            undo={**undo, "snapshot": snapshot(body)},
        )

    def apply(self, undo: UndoRecord, cluster: Cluster, *, dry_run: bool = False) -> None:
        """See harness.ports.fault."""
        swap.exchange(undo, cluster, dry_run=dry_run)

    def undo(self, undo: UndoRecord, cluster: Cluster, *, force: bool = False) -> UndoOutcome:
        """See harness.ports.fault."""
        return swap.restore(undo, cluster, force=force)

    def differences(self, undo: UndoRecord, cluster: Cluster) -> tuple[str, ...]:
        """See harness.ports.fault."""
        try:
            return tuple(differences(undo["snapshot"], snapshot(cluster.get(swap.ref_of(undo)))))
        except NotFound:
            return (f"{swap.ref_of(undo)} no longer exists",)

    def pods(self, undo: UndoRecord) -> PodSelector | None:
        """See harness.ports.fault."""
        del undo
        return None

    def proof(self, spec: BlackholeSpec, evidence: Evidence) -> Proof | None:
        """See harness.ports.fault."""
        del spec
        return evidence.measured


BLACKHOLE = Entry(Blackhole(), BlackholeSpec)
