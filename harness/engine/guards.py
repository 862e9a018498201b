"""The guards that stand before the first write and ask nothing of Prometheus: what may be touched, and by whom.

Each raises Refused, or answers with a warning for people. The preflight runs them in order.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.clock import Instant, parse_utc
from harness.core.errors import BadInput, DrillError, Refused
from harness.core.experiment import AnyExperiment, FaultSpec
from harness.core.ownership import rivals
from harness.engine.lease import NAME as LOCK
from harness.engine.stopping import HALTED, MARKER, OPT_IN_LABEL
from harness.engine.sweeper import HEARTBEAT, HOME, REVERTS_WITHIN
from harness.ports.cluster import Cluster, Identity, Json, NotFound, Ref
from harness.ports.fault import Fault, Plan
from harness.ports.kinds import workload as address

NEVER = ("kube-*", "drill-system")
"""Namespaces that no mark and no opt-in opens: the cluster's own, and the harness'."""
DENY = "deny"
"""The marker's key with further patterns, one a line: `namespace`, or `namespace/kind/name`."""
HEARD_WITHIN = 60.0
"""Seconds since its last renewal within which a sweeper counts as present."""


POLICIES = (
    "drill-guard", "drill-guard-scale", "drill-guard-configmaps", "drill-guard-secrets", "drill-guard-jobs",
    "drill-guard-pods", "drill-guard-tokens", "drill-guard-fleet", "drill-undo-records",
)  # fmt: skip
"""The admission policies that hold the harness' identities, besides the one on messages."""


@dataclass(frozen=True, slots=True)
class Need:
    """One permission: a verb on a kind ("Service/proxy" names a subresource), where, and on which object if that
    narrows it. Cluster-scoped kinds have no namespace."""

    verb: str
    kind: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.kind}" + (f" {self.name}" if self.name else "") + where


def own_needs(namespace: str) -> tuple[Need, ...]:
    """What every run needs besides its faults and its peers."""
    return (
        *(Need(verb, "ConfigMap", namespace) for verb in ("get", "list", "watch", "create", "delete")),
        *(Need(verb, "Pod", namespace) for verb in ("list", "watch")),
        Need("create", "Lease", namespace),
        *(Need(verb, "Lease", namespace, LOCK) for verb in ("get", "update", "delete")),
        *(Need(verb, MARKER.kind, MARKER.namespace, MARKER.name) for verb in ("get", "list", "watch")),
        *(Need(verb, "Namespace", "", namespace) for verb in ("get", "list", "watch")),
    )


def restart_needs(namespace: str, workload: str) -> tuple[Need, ...]:
    """What restarting the pods of a workload needs."""
    target = address(workload, namespace)
    return Need("get", target.kind, namespace, target.name), Need("delete", "Pod", namespace)


def excess(namespace: str) -> tuple[Need, ...]:
    """What no drill needs, and what an identity that has it could do a lot with."""
    return (
        Need("get", "Secret", namespace),
        Need("get", "Secret", "kube-system"),
        Need("create", "Pod", namespace),
        Need("patch", "Deployment", "kube-system"),
        Need("delete", "Namespace", "", namespace),
        Need("create", "ClusterRoleBinding"),
    )


def run_needs(experiment: AnyExperiment, faults: Mapping[str, Fault[Any]]) -> tuple[Need, ...]:
    """What a run of that experiment needs, besides its peers."""
    namespace = experiment.namespace
    return (
        *own_needs(namespace),
        *(
            Need(verb, kind, namespace, *name)
            for spec in experiment.faults
            for verb, kind, *name in faults[spec.kind].verbs(spec)
        ),
        *(need for proof in experiment.restart_proofs().values() for need in restart_needs(namespace, proof.of)),
    )


def check_identity(cluster: Cluster) -> Identity:
    """Who we are. Raises Refused where the API server does not know."""
    identity = cluster.whoami()
    if identity.username == "system:anonymous":
        raise Refused(
            "anonymous",
            "the API server does not know who we are (system:anonymous)",
            expected="an authenticated user",
            remedy="check the kubeconfig's user entry or the pod's service account token",
        )
    return identity


def denies(cluster: Cluster, policy: str) -> bool:
    """Whether an admission policy is bound and refuses: a binding that only audits or warns lets everything pass."""
    try:
        binding = cluster.get(Ref("ValidatingAdmissionPolicyBinding", "", policy))
    except NotFound:
        return False
    return "Deny" in (binding.get("spec") or {}).get("validationActions", [])


def check_marker(cluster: Cluster) -> Json:
    """The marker's data where it allows drills. Raises Refused where there is none, or it says something else."""
    try:
        marker = cluster.get(MARKER)
    except NotFound as error:
        raise Refused(
            "cluster-not-marked",
            f"this cluster carries no mark that drills are allowed ({MARKER} does not exist)",
            expected="a cluster whose owners marked it as staging",
            remedy="if it really is one: kubectl create namespace drill-system && kubectl -n drill-system create "
            "configmap drills-allowed --from-literal=environment=staging",
        ) from error
    data: Json = marker.get("data") or {}
    if data.get("environment") != "staging":
        raise Refused(
            "cluster-not-staging",
            f"{MARKER} says environment={data.get('environment', '(absent)')}",
            expected="environment=staging",
            remedy="use a staging context; this harness never drills anything else",
        )
    if data.get(HALTED) == "true":
        raise Refused(
            "halted",
            f"drills are halted on this cluster: {data.get('reason') or 'no reason given'}",
            expected="no stop switch in force",
            remedy="ask whoever halted them; `drill resume` allows drills again",
        )
    return data


def check_namespace(cluster: Cluster, namespace: str) -> None:
    """Raise BadInput where the namespace is not there, Refused where its owners have not opted in."""
    try:
        body = cluster.get(Ref("Namespace", "", namespace))
    except NotFound as error:
        raise BadInput(
            "namespace-missing",
            f"namespace {namespace} does not exist in this cluster",
            expected="the namespace that the experiment names",
            remedy="deploy the system first, or correct `namespace` in the experiment",
        ) from error
    if (body["metadata"].get("labels") or {}).get(OPT_IN_LABEL) != "true":
        raise Refused(
            "namespace-not-opted-in",
            f"namespace {namespace} has not opted in to drills",
            expected=f"the label {OPT_IN_LABEL}=true on it",
            remedy=f"its owners can opt in: kubectl label namespace {namespace} {OPT_IN_LABEL}=true",
        )


def check_denied(marker: Json, namespace: str, touched: Sequence[Ref] = ()) -> int:
    """Raise Refused where a deny pattern covers the namespace, or one of these objects; how many patterns there are.
    An opt-in does not help against them."""
    patterns = [line.strip() for line in str(marker.get(DENY) or "").splitlines() if line.strip()]
    for target in (namespace, *(f"{ref.namespace}/{ref.kind.lower()}/{ref.name}" for ref in touched)):
        hit = next((one for one in (*NEVER, *patterns) if fnmatch.fnmatchcase(target, one)), None)
        if hit is not None:
            raise Refused(
                "denied",
                f"{target} is on the deny-list of this cluster ({hit})",
                expected="a target that no pattern of the deny-list covers",
                remedy=f"drill something else; the list is the key `{DENY}` of {MARKER}"
                if hit in patterns
                else "drill something else; these namespaces are never drilled",
            )
    return len(patterns)


def check_overlap(plans: Mapping[str, Plan]) -> None:
    """Raise BadInput where two faults change the same place of the same object: what one left the other would not know,
    and it would fail in the middle of the drill. `plans` are by fault, without those that choose anew when due."""
    taken: dict[tuple[str, str], str] = {}
    for fault, plan in plans.items():
        for change in plan.changes:
            for (where, path), other in taken.items():
                if where == change.object and other != fault and _nested(path, change.path):
                    raise BadInput(
                        "faults-overlap",
                        f"faults {other} and {fault} both change {change.path or 'all'} of {where}",
                        expected="faults that each change something of their own",
                        remedy="let one fault do both, or drill them one after another",
                    )
            taken[change.object, change.path] = fault


def _nested(one: str, other: str) -> bool:
    """Whether a place (JSON pointer) is the other, or within it. What is appended to a list has a place of its own."""
    return (one == other and not one.endswith("/-")) or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def check_permissions(cluster: Cluster, needs: Sequence[Need]) -> int:
    """Raise Refused naming every permission that is missing; how many were asked for."""
    asked = list(dict.fromkeys(needs))
    missing = [one for one in asked if not cluster.allowed(one.verb, one.kind, one.namespace, one.name)]
    if missing:
        raise Refused(
            "permission-missing",
            f"this identity may not: {', '.join(map(str, missing))}",
            expected="every permission that the plan and its undo need",
            remedy="grant them (manifests/harness/ has the Roles) or use another context",
        )
    return len(asked)


def excess_warning(cluster: Cluster, namespace: str) -> str:
    """A warning where the identity may do what no drill needs; empty where it may not."""
    may = [one for one in excess(namespace) if cluster.allowed(one.verb, one.kind, one.namespace, one.name)]
    if not may:
        return ""
    return (
        f"this identity may do more than any drill needs ({', '.join(map(str, may[:3]))}"
        + (f" and {len(may) - 3} more" if len(may) > 3 else "")
        + "): drill as the ServiceAccount drill-runner instead"
    )


def check_owners(cluster: Cluster, spec: FaultSpec, plan: Plan) -> None:
    """Raise Refused where a controller sets a field of the plan, and would undo the fault or fight its undo."""
    for ref in plan.targets:
        paths = [change.path for change in plan.changes if change.object == str(ref)]
        try:
            body = cluster.get(ref) if paths else {}
        except NotFound:  # it is to be made
            continue
        found = {name: path for path in paths for name in rivals(body, path) if name not in spec.accepted_owners}
        if found:
            raise Refused(
                "field-owned",
                f"{', '.join(sorted(set(found.values())))} of {ref} belongs to {', '.join(found)}, which would set it "
                "back",
                expected="a field that no controller reconciles while the drill is on",
                remedy="suspend that controller for this object first (for Argo CD: its automated sync; for Flux: "
                "flux suspend); then name it in `accepted_owners` of the fault",
            )


def sweeper_warning(cluster: Cluster, server_now: Instant) -> str:
    """A warning where nobody in the cluster would undo this run if its process died; empty where a sweeper does."""
    consequence = "if this process dies, its faults stay until `drill recover` or the next drill"
    try:
        held = cluster.get(Ref("Lease", HOME, HEARTBEAT))
        silent = server_now - parse_utc(str((held.get("spec") or {}).get("renewTime")))
    except NotFound:
        return f"no sweeper watches over this cluster: {consequence}"
    except (DrillError, ValueError) as error:
        return f"whether a sweeper watches over this cluster is not known ({error})"
    if silent > HEARD_WITHIN:
        return f"the sweeper of this cluster was not heard of for {silent:.0f} s: {consequence}"
    return ""


SWEEPER_PRESENT = f"a sweeper is there: it would undo this run within {REVERTS_WITHIN:.0f} s of its death"
