"""The API kinds that the harness knows, and where the API server keeps them.

A closed table instead of discovery: it costs no request, and the RBAC manifest can be compared with it. A kind that is
not in it is called by all of its name, `PodChaos.v1alpha1.chaos-mesh.org`, and the API server is asked for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from harness.core.experiment import split_object
from harness.ports.cluster import Invalid, Ref


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: `plural` is its resource name, as RBAC and paths spell it."""

    name: str
    api_version: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """The API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """The version inside the group, e.g. "v1"."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str = "", name: str = "") -> str:
        """The URL path of one object, or of the collection; without a namespace, of all namespaces. Raises Invalid
        where a name is one that leads elsewhere in a path."""
        for text in (namespace, name):
            if text in {".", ".."}:
                raise Invalid(
                    "no-name",
                    f"{text!r} is not the name of an object",
                    expected="a name that the API server takes",
                    remedy="correct the name",
                )
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        scope = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced and namespace else ""
        return f"{root}{scope}/{self.plural}" + (f"/{quote(name, safe='')}" if name else "")


_ADMISSION, _RBAC = "admissionregistration.k8s.io/v1", "rbac.authorization.k8s.io/v1"

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("ConfigMap", "v1", "configmaps"),
        Kind("Event", "v1", "events"),
        Kind("Namespace", "v1", "namespaces", namespaced=False),
        Kind("Node", "v1", "nodes", namespaced=False),
        Kind("Pod", "v1", "pods"),
        Kind("Secret", "v1", "secrets"),
        Kind("Service", "v1", "services"),
        Kind("ServiceAccount", "v1", "serviceaccounts"),
        Kind("DaemonSet", "apps/v1", "daemonsets"),
        Kind("Deployment", "apps/v1", "deployments"),
        Kind("ReplicaSet", "apps/v1", "replicasets"),
        Kind("StatefulSet", "apps/v1", "statefulsets"),
        Kind("HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers"),
        Kind("CronJob", "batch/v1", "cronjobs"),
        Kind("Job", "batch/v1", "jobs"),
        Kind("Lease", "coordination.k8s.io/v1", "leases"),
        Kind("EndpointSlice", "discovery.k8s.io/v1", "endpointslices"),
        Kind("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies"),
        Kind("ValidatingAdmissionPolicy", _ADMISSION, "validatingadmissionpolicies", namespaced=False),
        Kind("ValidatingAdmissionPolicyBinding", _ADMISSION, "validatingadmissionpolicybindings", namespaced=False),
        Kind("ClusterRole", _RBAC, "clusterroles", namespaced=False),
        Kind("ClusterRoleBinding", _RBAC, "clusterrolebindings", namespaced=False),
        Kind("Role", _RBAC, "roles"),
        Kind("RoleBinding", _RBAC, "rolebindings"),
    )
}


def kind_of(name: str) -> Kind:
    """The kind of that name. Raises Invalid where the harness does not know it."""
    try:
        return KINDS[name]
    except KeyError:
        raise Invalid(
            "unknown-kind",
            f"{name!r} is not a kind that the harness knows",
            expected=f"one of {', '.join(sorted(KINDS))}",
            remedy="write the kind as the API does, in the singular and in CamelCase",
        ) from None


def called(api_version: str, kind: str) -> str:
    """What a Ref calls a kind: its name where the table has it at that version, or else Kind.version.group."""
    known = KINDS.get(kind)
    if known is not None and api_version in {"", known.api_version}:
        return kind
    group, _, version = api_version.rpartition("/")
    return ".".join(part for part in (kind, version, group) if part)


def spelled_out(name: str) -> tuple[str, str] | None:
    """apiVersion and kind of a kind that is called by all of its name; None for one of the table."""
    kind, _, rest = name.partition(".")
    version, _, group = rest.partition(".")
    return (f"{group}/{version}" if group else version, kind) if version else None


def served(name: str, resources: Any) -> Kind:
    """The kind of that name among the resources of its API version, as discovery tells them. Raises Invalid where it
    is not among them."""
    api_version, kind = spelled_out(name) or ("", name)
    for one in resources if isinstance(resources, list) else ():
        if isinstance(one, dict) and one.get("kind") == kind and "/" not in str(one.get("name", "/")):
            return Kind(kind, api_version, quote(str(one["name"]), safe=""), namespaced=one.get("namespaced") is True)
    raise Invalid(
        "unknown-kind",
        f"the API server serves no {kind} of {api_version}",
        expected="a kind whose definition is installed",
        remedy="compare `kubectl api-resources`; install the engine that defines it, or correct the manifest",
    )


WORKLOADS = {"deployment": "Deployment", "statefulset": "StatefulSet"}
"""The kinds of workloads, as files name them."""


def workload(text: str, namespace: str) -> Ref:
    """The address of a workload as files name it: "deployment/worker"."""
    kind, name = split_object(text)
    return Ref(WORKLOADS[kind], namespace, name)
