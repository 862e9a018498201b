"""Lower a container's CPU limit on a live workload, so that the kernel throttles what needs more.

Nothing dies of it and no pod's status shows it: what is throttled answers late. So the effect is what Prometheus
measures of it, a latency, a queue, or the throttled share itself.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from harness.core.experiment import FaultSpec, MeasuredEffect, WorkloadName, split_object
from harness.core.limits import CPU
from harness.core.quantity import Cpu
from harness.core.workload import check_at_rest, check_rolls, replicas
from harness.ports.cluster import Cluster
from harness.ports.fault import Evidence, Plan, Proof, UndoRecord
from harness.ports.kinds import WORKLOADS
from harness.ports.kinds import workload as address
from harness.ports.swapping import Swapping, container, found, inside, planned, record, targets


class CpuLimitSpec(FaultSpec):
    """Parameters of the fault."""

    kind: Literal["cpu-limit"]
    target: WorkloadName
    container: str = Field(min_length=1)
    limit: Cpu
    effect: MeasuredEffect


class CpuLimit(Swapping):
    """The fault `cpu-limit`."""

    kind: ClassVar[str] = "cpu-limit"

    def same(self, one: Any, other: Any) -> bool:
        """See Swapping."""
        return CPU.same(str(one), str(other))

    def verbs(self, spec: CpuLimitSpec) -> tuple[tuple[str, str], ...]:
        """See ports.fault."""
        kind = WORKLOADS[split_object(spec.target)[0]]
        return ("get", kind), ("patch", kind)

    def plan(self, spec: CpuLimitSpec, namespace: str, cluster: Cluster) -> Plan:
        """See ports.fault. Refuses a limit that is not lower, or that the container's request exceeds."""
        ref = address(spec.target, namespace)
        body = found(ref, spec.id, cluster)
        before = CPU.check_lower(container(body, spec.container, spec.id), str(ref), spec.limit, spec.id)
        check_at_rest(body)
        check_rolls(body)
        undo = record(namespace, [(body, [(inside(spec.container, "resources", "limits", "cpu"), spec.limit)])])
        return Plan(
            summary=f"lower the CPU limit of container {spec.container} in {ref} from {before} to {spec.limit}",
            targets=targets(undo),
            changes=planned(undo),
            pods=replicas(body),
            objects=1,
            undo=undo,
        )

    def pods(self, undo: UndoRecord) -> None:
        """See ports.fault. A throttled pod looks like any other."""

    def proof(self, spec: CpuLimitSpec, evidence: Evidence) -> Proof | None:
        """See ports.fault."""
        return evidence.measured
