"""Something to break for every fault of the catalog: plain data, for whoever tries faults on a cluster.

Each row brings what is put into a namespace, a spec that breaks it, and what shows on the broken object before the
fault, under it, and after somebody else's change in between. A new fault adds its rows here; a test says which are
missing.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field
from typing import Any

from harness.ports.cluster import Json, Ref

IMAGE_OF = Ref("Deployment", "nova-staging", "worker")
"""Whose image the rows' pods run: it is on the cluster already, and its tag is made from its content."""
OPT_IN = {"drill.internal/opt-in": "true"}

_PROGRAM = """
import signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
held = bytearray(b"x") * ({mib} << 20)
door = socket.create_server(("", 8080))
while True:
    door.accept()[0].close()
"""
"""Holds memory, is ready once it does, and leaves at once when told to. It takes each probe's connection: a queue of
connections that nobody takes is full after some minutes, and then it would be ready no more."""


@dataclass(frozen=True)
class Row:
    """What every row has. `spec` is a fault of an experiment file."""

    kind: str
    name: str
    broken: tuple[str, str]
    """(kind, name) of the object that is broken, or stands beside what is made."""
    manifests: tuple[Json, ...]
    spec: Json

    def ref(self, namespace: str) -> Ref:
        """Its object."""
        return Ref(self.broken[0], namespace, self.broken[1])

    def objects(self, namespace: str, image: str) -> list[Json]:
        """Its manifests for a namespace, with the image that its pods run."""
        found = copy.deepcopy(list(self.manifests))
        for body in found:
            body["metadata"]["namespace"] = namespace
            for container in body["spec"]["template"]["spec"]["containers"]:
                container["image"] = image
        return found

    def spec_now(self) -> Json:
        """The spec for a run that begins now: what is measured does not hold yet, and soon does."""
        effect = self.spec["effect"]
        soon = {"query": "vector(time())", "above": time.time() + 45.0} if "query" in effect else {}
        return {**self.spec, "effect": {**effect, **soon}}

    def breaks(self) -> str:
        """The write that breaks something."""
        return f"patch {self.broken[0]}"

    def counts_pods(self) -> bool:
        """Whether the damage shows in the number of its ready pods only."""
        return False

    def kinds(self) -> tuple[str, ...]:
        """The kinds of objects that the fault makes; whatever else of them is in the namespace is compared as well."""
        return ()


@dataclass(frozen=True)
class Made(Row):
    """A fault that makes an object and deletes it again."""

    made: str
    """The kind of what it makes."""
    by: str
    """The verb of the write that breaks something."""

    def breaks(self) -> str:
        """See Row."""
        return f"{self.by} {self.made}"

    def kinds(self) -> tuple[str, ...]:
        """See Row."""
        return (self.made,)


@dataclass(frozen=True)
class Killed(Row):
    """A fault that takes pods away which come back by themselves."""

    pods: int
    """How many."""
    proof: str
    """What the fault's proof must say (a regular expression)."""

    def breaks(self) -> str:
        """See Row."""
        return "delete Pod"

    def counts_pods(self) -> bool:
        """See Row."""
        return True


@dataclass(frozen=True)
class Target(Row):
    """A fault that changes a value of an object. `path` says where."""

    path: str
    """JSON pointer of the value that the fault changes."""
    before: Any
    """The value that undo must restore."""
    after: Any
    """The value while the fault is in force."""
    foreign: Any
    """Neither of both: what somebody else writes in between."""
    proof: str
    """What the fault's proof must say (a regular expression)."""


@dataclass(frozen=True)
class _Pods:
    """The parts of a small workload."""

    mib: int = 0
    memory: Json = field(default_factory=lambda: {"limits": {"memory": "64Mi"}, "requests": {"memory": "16Mi"}})

    def workload(self, kind: str, name: str, replicas: int, **declared: Any) -> Json:
        probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
        container = {
            "name": "main",
            "command": ["/usr/bin/python3", "-c", _PROGRAM.format(mib=self.mib)],
            "readinessProbe": probe,
            "resources": {
                "limits": {"cpu": "200m", **self.memory["limits"]},
                "requests": {"cpu": "5m", **self.memory["requests"]},
            },
        }
        pod = {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
        }
        return {
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": {"name": name, "labels": {"app": name}, "annotations": {"team": "queue"}},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
                **declared,
            },
        }


TARGETS: tuple[Target, ...] = (
    Target(
        kind="memory-limit",
        name="deployment",
        broken=("Deployment", "holder"),
        manifests=(
            _Pods(48, {"limits": {"memory": "128Mi"}, "requests": {"memory": "16Mi"}}).workload(
                "Deployment", "holder", 2, strategy={"rollingUpdate": {"maxUnavailable": "100%", "maxSurge": 0}}
            ),
        ),
        spec={
            "id": "broken",
            "kind": "memory-limit",
            "deployment": "holder",
            "container": "main",
            "limit": "32Mi",
            "effect": {"oom_killed": 2, "ready_at_most": 0, "within": "60s"},
            "blast_radius": {"pods": 2},
        },
        path="/spec/template/spec/containers/0/resources/limits/memory",
        before="128Mi",
        after="32Mi",
        foreign="96Mi",
        proof="2 pods with limit 32Mi were OOM-killed, 0 left ready",
    ),
    Target(
        kind="scale",
        name="deployment",
        broken=("Deployment", "crowd"),
        manifests=(_Pods().workload("Deployment", "crowd", 3),),
        spec={
            "id": "broken",
            "kind": "scale",
            "target": "deployment/crowd",
            "replicas": 1,
            "effect": {"ready_at_most": 1, "within": "60s"},
            "blast_radius": {"pods": 2},
        },
        path="/spec/replicas",
        before=3,
        after=1,
        foreign=2,
        proof="deployment/crowd scaled to 1: [01] ready",
    ),
    Target(
        kind="scale",
        name="statefulset",
        broken=("StatefulSet", "row"),
        manifests=(_Pods().workload("StatefulSet", "row", 3, serviceName="row", podManagementPolicy="Parallel"),),
        spec={
            "id": "broken",
            "kind": "scale",
            "target": "statefulset/row",
            "replicas": 0,
            "effect": {"ready_at_most": 0, "within": "60s"},
            "blast_radius": {"pods": 3},
        },
        path="/spec/replicas",
        before=3,
        after=0,
        foreign=1,
        proof="statefulset/row scaled to 0: 0 ready",
    ),
)

MADE: tuple[Made, ...] = (
    Made(
        kind="job",
        name="beside",
        broken=("Deployment", "lender"),
        manifests=(_Pods().workload("Deployment", "lender", 1),),
        spec={
            "id": "broken",
            "kind": "job",
            "image_of": "deployment/lender",
            "command": ["/usr/bin/python3", "-c", _PROGRAM.format(mib=0)],
            "parallelism": 2,
            "cpu": "20m",
            "grace": "2s",
            "effect": {"query": "vector(1)", "above": 0, "within": "60s"},
            "blast_radius": {"pods": 2},
        },
        made="Job",
        by="patch",
    ),
    Made(
        kind="manifest",
        name="network-policy",
        broken=("Deployment", "island"),
        manifests=(_Pods().workload("Deployment", "island", 1),),
        spec={
            "id": "broken",
            "kind": "manifest",
            "manifest": {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": "cut-off"},
                "spec": {"podSelector": {"matchLabels": {"app": "island"}}, "policyTypes": ["Egress"]},
            },
            "effect": {"field": "spec.policyTypes[0]", "equals": "Egress", "within": "60s"},
            "blast_radius": {"pods": 1},
        },
        made="NetworkPolicy",
        by="create",
    ),
)
"""Faults that make objects of their own."""

KILLED: tuple[Killed, ...] = (
    Killed(
        kind="pod-kill",
        name="deployment",
        broken=("Deployment", "herd"),
        manifests=(_Pods().workload("Deployment", "herd", 3),),
        spec={
            "id": "broken",
            "kind": "pod-kill",
            "target": "deployment/herd",
            "count": 2,
            "effect": {"ready_at_most": 1, "within": "60s"},
            "blast_radius": {"pods": 2},
        },
        pods=2,
        proof="2 pods are gone, [01] left ready",
    ),
    Killed(
        kind="pod-kill",
        name="statefulset-by-labels",
        broken=("StatefulSet", "rank"),
        manifests=(_Pods().workload("StatefulSet", "rank", 3, serviceName="rank", podManagementPolicy="Parallel"),),
        spec={
            "id": "broken",
            "kind": "pod-kill",
            "labels": {"app": "rank"},
            "percent": 34,
            "grace": "1s",
            "effect": {"within": "60s"},
            "blast_radius": {"pods": 2},
        },
        pods=2,
        proof="2 pods are gone ",
    ),
)
"""Faults that take pods away."""

ROWS: tuple[Row, ...] = (*TARGETS, *MADE, *KILLED)


def at(body: Json, pointer: str) -> Any:
    """The value that a JSON pointer leads to."""
    value: Any = body
    for part in pointer.split("/")[1:]:
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value
