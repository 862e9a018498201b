"""Something to break for every fault of the catalog: plain data, for whoever tries faults on a cluster.

Each row brings what is put into a namespace, a spec that breaks it, and what shows on the broken object before the
fault, under it, and after somebody else's change in between. A new fault adds its rows here; a test says which are
missing.
"""

from __future__ import annotations

import base64
import copy
from dataclasses import dataclass, field, replace
from typing import Any, Self

from harness.core.snapshot import snapshot
from harness.ports.cluster import Cluster, Json, Ref
from tests.hands import hand

IMAGE_OF = Ref("Deployment", "nova-staging", "worker")
"""Whose image the rows' pods run: it is on the cluster already, and its tag is made from its content."""
OPT_IN = {"drill.internal/opt-in": "true"}

_PROGRAM = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
print("started with MODE", os.environ.get("MODE"), "and BATCH", os.environ.get("BATCH"))
for path in ("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"):
    if os.path.exists(path):
        print("quota", open(path).read().split()[0], flush=True)
held = bytearray(b"x") * ({mib} << 20)
door = socket.create_server(("", 8080))
while True:
    door.accept()[0].close()
"""
"""Holds memory, is ready once it does, and leaves at once when told to. It takes each probe's connection: a queue of
connections that nobody takes is full after some minutes, and then it would be ready no more."""


_CLIENT = """
import signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
while True:
    try:
        socket.create_connection(("door", 80), 1).close()
        print("door open", flush=True)
    except OSError:
        print("door closed", flush=True)
    time.sleep(0.5)
"""
"""Goes through the Service `door` again and again."""


def named(value: Any, image: str) -> Any:
    """A value of a row with the image that its pods run in the places that name it."""
    if isinstance(value, dict):
        return {key: named(one, image) for key, one in value.items()}
    return value.format(image=image, repository=image.rpartition(":")[0]) if isinstance(value, str) else value


@dataclass(frozen=True)
class Row:
    """What every row has. `spec` is a fault of an experiment file."""

    kind: str
    name: str
    broken: tuple[str, str]
    """(kind, name) of the object that is broken, or stands beside what is made."""
    manifests: tuple[Json, ...]
    spec: Json

    def on(self, image: str) -> Self:
        """The row with the image that its pods run in the places that name it."""
        return replace(self, spec=named(self.spec, image))

    def refs(self, namespace: str) -> list[Ref]:
        """All its objects."""
        return [Ref(body["kind"], namespace, body["metadata"]["name"]) for body in self.manifests]

    def workloads(self, namespace: str) -> list[Ref]:
        """Those of its objects that have pods."""
        return [ref for ref in self.refs(namespace) if ref.kind in {"Deployment", "StatefulSet"}]

    def ref(self, namespace: str) -> Ref:
        """Its object."""
        return Ref(self.broken[0], namespace, self.broken[1])

    def objects(self, namespace: str, image: str) -> list[Json]:
        """Its manifests for a namespace, with the image that its pods run."""
        found = copy.deepcopy(list(self.manifests))
        for body in found:
            body["metadata"]["namespace"] = namespace
            template = body.get("spec", {}).get("template") or {"spec": {"containers": []}}
            for container in template["spec"]["containers"]:
                container["image"] = image
        return found

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
    proof: str = ""
    """What the fault's proof must say (a regular expression)."""
    says: str = ""
    """Of a fault whose effect is measured: what the log of a pod says while it is in force (a regular expression)."""

    def __post_init__(self) -> None:
        assert bool(self.proof) != bool(self.says)

    def on(self, image: str) -> Self:
        """See Row."""
        values = {name: named(getattr(self, name), image) for name in ("before", "after", "foreign")}
        return replace(super().on(image), **values)

    def value(self, cluster: Cluster, namespace: str) -> Any:
        """What is at `path` now."""
        return at(cluster.get(self.ref(namespace)), self.path)

    def told(self, cluster: Cluster, namespace: str) -> tuple[str, ...]:
        """How a difference may say what is at `path` now: by a fingerprint, where texts may be secrets."""
        shown = self.shown(cluster, namespace)
        return (f"-> {shown}", f'-> "{shown}"')

    def shown(self, cluster: Cluster, namespace: str) -> str:
        """How an undo that is refused says what is at `path` now."""
        return str(at(snapshot(cluster.get(self.ref(namespace))), self.path))

    def write(self, cluster: Cluster, namespace: str, value: Any) -> None:
        """Somebody else's hand on it."""
        cluster.patch(self.ref(namespace), [{"op": "replace", "path": self.path, "value": value}])


@dataclass(frozen=True)
class SecretTarget(Target):
    """A row whose values are not for the harness to see: `before`, `after` and `foreign` say whose they are."""

    def value(self, cluster: Cluster, namespace: str) -> Any:
        """Whose value is under the key."""
        found = hand(cluster).read(self.ref(namespace))["data"].get(self.spec["key"])
        return {None: NOTHING, KEY_VALUE: THERE, base64.b64encode(FOREIGN_VALUE).decode(): FOREIGN}.get(found, DRILLS)

    def told(self, cluster: Cluster, namespace: str) -> tuple[str, ...]:
        """Whose it is, and nothing of what it is."""
        return (f"holds {self.value(cluster, namespace)}",)

    def shown(self, cluster: Cluster, namespace: str) -> str:
        """Whose it is, too."""
        return str(self.value(cluster, namespace))

    def write(self, cluster: Cluster, namespace: str, value: Any) -> None:
        """Somebody else puts a value of theirs under the key."""
        assert value == FOREIGN
        hand(cluster).write(self.ref(namespace), self.spec["key"], FOREIGN_VALUE)


THERE, NOTHING, DRILLS, FOREIGN = "what was there", "nothing", "a drill's value", "somebody else's value"
FOREIGN_VALUE = b"a value that somebody else put there"
KEY_VALUE = base64.b64encode(b"the-value-of-the-row-0123456789abcdef").decode()


@dataclass(frozen=True)
class _Pods:
    """The parts of a small workload."""

    mib: int = 0
    memory: Json = field(default_factory=lambda: {"limits": {"memory": "64Mi"}, "requests": {"memory": "16Mi"}})
    more: Json = field(default_factory=dict)
    """What else the container declares; None for what it does not."""

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
            **self.more,
        }
        container = {name: value for name, value in container.items() if value is not None}
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


_ALL_AT_ONCE = {"rollingUpdate": {"maxUnavailable": "100%", "maxSurge": 0}}
_MEASURED = {"query": "vector(1)", "above": 0, "within": "60s"}
_SETTINGS = {"MODE": "fast", "BATCH": "10"}
_VARIABLES = [{"name": name, "value": value} for name, value in _SETTINGS.items()]
_KEY = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key-current", "optional": True}}}


def _secret(name: str, how: str, after: str, consumer: Json | None = None) -> Target:
    """A Secret, and with a consumer what takes the key into its environment."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "labels": {"app": "keys"}, "annotations": {"team": "model"}},
        "type": "Opaque",
        "data": {"key-current": KEY_VALUE, "other": KEY_VALUE},
    }
    of = [] if consumer is None else [f"{consumer['kind'].lower()}/{consumer['metadata']['name']}"]
    return SecretTarget(
        kind="secret",
        name=name,
        broken=("Secret", "keys"),
        manifests=(secret, *([] if consumer is None else [consumer])),
        spec={
            "id": "broken",
            "kind": "secret",
            "secret": "keys",
            "key": "key-current",
            "how": how,
            "consumers": of,
            "effect": _MEASURED,
            "blast_radius": {"pods": 2},
        },
        path="/data/key-current",
        before=THERE,
        after=after,
        foreign=FOREIGN,
        proof="key-current of secret/keys",
    )


TARGETS: tuple[Target, ...] = (
    Target(
        kind="config",
        name="variables",
        broken=("Deployment", "tuned"),
        manifests=(_Pods(more={"env": _VARIABLES}).workload("Deployment", "tuned", 2, strategy=_ALL_AT_ONCE),),
        spec={
            "id": "broken",
            "kind": "config",
            "target": "deployment/tuned",
            "container": "main",
            "set": {"MODE": "slow", "TRACE": "on"},
            "unset": ["BATCH"],
            "effect": _MEASURED,
            "blast_radius": {"pods": 2},
        },
        path="/spec/template/spec/containers/0/env/0/value",
        before="fast",
        after="slow",
        foreign="other",
        says="started with MODE slow and BATCH None",
    ),
    Target(
        kind="config",
        name="map and restart",
        broken=("ConfigMap", "settings"),
        manifests=(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": _SETTINGS},
            _Pods(more={"envFrom": [{"configMapRef": {"name": "settings"}}]}).workload(
                "Deployment", "reader", 2, strategy=_ALL_AT_ONCE
            ),
            _Pods(more={"envFrom": [{"configMapRef": {"name": "settings"}}]}).workload(
                "StatefulSet", "shard", 1, serviceName="shard", podManagementPolicy="Parallel"
            ),
        ),
        spec={
            "id": "broken",
            "kind": "config",
            "target": "configmap/settings",
            "set": {"MODE": "slow", "TRACE": "on"},
            "unset": ["BATCH"],
            "restart": ["deployment/reader", "statefulset/shard"],
            "effect": _MEASURED,
            "blast_radius": {"pods": 3, "objects": 3},
        },
        path="/data/MODE",
        before="fast",
        after="slow",
        foreign="other",
        says="started with MODE slow and BATCH None",
    ),
    Target(
        kind="cpu-limit",
        name="deployment",
        broken=("Deployment", "spinner"),
        manifests=(_Pods().workload("Deployment", "spinner", 2, strategy=_ALL_AT_ONCE),),
        spec={
            "id": "broken",
            "kind": "cpu-limit",
            "target": "deployment/spinner",
            "container": "main",
            "limit": "50m",
            "effect": _MEASURED,
            "blast_radius": {"pods": 2},
        },
        path="/spec/template/spec/containers/0/resources/limits/cpu",
        before="200m",
        after="50m",
        foreign="100m",
        says=r"quota 5000\b",
    ),
    Target(
        kind="image",
        name="another tag",
        broken=("Deployment", "picture"),
        manifests=(_Pods().workload("Deployment", "picture", 2, strategy=_ALL_AT_ONCE),),
        spec={
            "id": "broken",
            "kind": "image",
            "target": "deployment/picture",
            "container": "main",
            "tag": "does-not-exist",
            "effect": {"failing": 2, "ready_at_most": 0, "within": "60s"},
            "blast_radius": {"pods": 2},
        },
        path="/spec/template/spec/containers/0/image",
        before="{image}",
        after="{repository}:does-not-exist",
        foreign="{repository}:other",
        proof="2 pods of .*:does-not-exist fail \\(.*Pull.*\\), 0 ready",
    ),
    Target(
        kind="image",
        name="nowhere",
        broken=("StatefulSet", "gallery"),
        manifests=(
            _Pods().workload("StatefulSet", "gallery", 2, serviceName="gallery", podManagementPolicy="Parallel"),
        ),
        spec={
            "id": "broken",
            "kind": "image",
            "target": "statefulset/gallery",
            "container": "main",
            "image": "registry.invalid/{repository}:1",
            "effect": {"failing": 1, "ready_at_most": 1, "within": "60s"},
            "blast_radius": {"pods": 2},
        },
        path="/spec/template/spec/containers/0/image",
        before="{image}",
        after="registry.invalid/{repository}:1",
        foreign="{repository}:other",
        proof="1 pods of registry.invalid/.*:1 fail \\(.*Pull.*\\), 1 ready",
    ),
    Target(
        kind="memory-limit",
        name="deployment",
        broken=("Deployment", "holder"),
        manifests=(
            _Pods(48, {"limits": {"memory": "128Mi"}, "requests": {"memory": "16Mi"}}).workload(
                "Deployment", "holder", 2, strategy=_ALL_AT_ONCE
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
        kind="patch",
        name="service",
        broken=("Service", "door"),
        manifests=(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "door"},
                "spec": {"selector": {"app": "house"}, "ports": [{"port": 80, "targetPort": 8080}]},
            },
            _Pods().workload("Deployment", "house", 1),
            _Pods(
                more={
                    "command": ["/usr/bin/python3", "-c", _CLIENT],
                    "readinessProbe": None,
                }
            ).workload("Deployment", "client", 1),
        ),
        spec={
            "id": "broken",
            "kind": "patch",
            "target": "service/door",
            "operations": [
                {"op": "replace", "path": "/spec/selector/app", "value": "nobody"},
                {"op": "replace", "path": "/spec/ports/0/targetPort", "value": 9},
                {"op": "add", "path": "/spec/ports/-", "value": {"name": "more", "port": 81}},
                {"op": "add", "path": "/spec/ports/0/name", "value": "first"},
            ],
            "effect": _MEASURED,
            "blast_radius": {"pods": 1},
        },
        path="/spec/selector/app",
        before="house",
        after="nobody",
        foreign="other",
        says="door closed",
    ),
    Target(
        kind="patch",
        name="deployment",
        broken=("Deployment", "patched"),
        manifests=(_Pods(more={"env": _VARIABLES}).workload("Deployment", "patched", 2, strategy=_ALL_AT_ONCE),),
        spec={
            "id": "broken",
            "kind": "patch",
            "target": "deployment/patched",
            "operations": [
                {"op": "replace", "path": "/spec/template/spec/containers/0/env/0/value", "value": "slow"},
                {"op": "remove", "path": "/spec/template/spec/containers/0/readinessProbe/failureThreshold"},
                {"op": "add", "path": "/spec/template/spec/tolerations", "value": [{"key": "x", "operator": "Exists"}]},
            ],
            "effect": _MEASURED,
            "blast_radius": {"pods": 2},
        },
        path="/spec/template/spec/containers/0/env/0/value",
        before="fast",
        after="slow",
        foreign="other",
        says="started with MODE slow",
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
    _secret("revoke", "revoke", NOTHING, _Pods(more={"env": [_KEY]}).workload("Deployment", "caller", 2)),
    _secret(
        "rotate", "rotate", DRILLS,
        _Pods(more={"env": [_KEY]}).workload(
            "StatefulSet", "callers", 2, serviceName="callers", podManagementPolicy="Parallel"
        ),
    ),
    _secret("garble", "garble", DRILLS),
)  # fmt: skip

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
            "effect": _MEASURED,
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
        proof="2 pods were killed and are gone, [01] left ready",
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
        proof="2 pods were killed and are gone ",
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
