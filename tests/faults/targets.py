"""Something to break for every fault of the catalog: plain data, for whoever tries faults on a cluster.

Each row brings what is put into a namespace, a spec that breaks it, and what shows on the broken object before the
fault, under it, and after somebody else's change in between. A new fault adds its rows here; a test says which are
missing.
"""

from __future__ import annotations

import base64
import copy
from dataclasses import dataclass, field
from typing import Any

from harness.ports.cluster import Cluster, Json, Ref
from tests.hands import hand

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
class Target:
    """One row. `spec` is a fault of an experiment file; `broken` the object that it changes, and `path` where."""

    kind: str
    name: str
    broken: tuple[str, str]
    """(kind, name) of the object."""
    manifests: tuple[Json, ...]
    spec: Json
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

    def ref(self, namespace: str) -> Ref:
        """The object that the fault changes."""
        return Ref(self.broken[0], namespace, self.broken[1])

    def objects(self, namespace: str, image: str) -> list[Json]:
        """Its manifests for a namespace, with the image that its pods run."""
        found = copy.deepcopy(list(self.manifests))
        for body in found:
            body["metadata"]["namespace"] = namespace
            for container in body["spec"]["template"]["spec"]["containers"] if "spec" in body else ():
                container["image"] = image
        return found

    def workloads(self, namespace: str) -> list[Ref]:
        """Those of its objects that have pods."""
        return [Ref(body["kind"], namespace, body["metadata"]["name"]) for body in self.manifests if "spec" in body]

    def value(self, cluster: Cluster, namespace: str) -> Any:
        """What is at `path` now."""
        return at(cluster.get(self.ref(namespace)), self.path)

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
    env: tuple[Json, ...] = ()
    memory: Json = field(default_factory=lambda: {"limits": {"memory": "64Mi"}, "requests": {"memory": "16Mi"}})

    def workload(self, kind: str, name: str, replicas: int, **declared: Any) -> Json:
        probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
        container = {
            "name": "main",
            "command": ["/usr/bin/python3", "-c", _PROGRAM.format(mib=self.mib)],
            "readinessProbe": probe,
            **({"env": list(self.env)} if self.env else {}),
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


_KEY = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key-current", "optional": True}}}


def _secret(name: str, how: str, after: str, consumer: Json | None = None) -> Target:
    """A Secret, and with a consumer what takes the key into its environment. What proves its effect in a real drill is
    a measurement; the rows' effect never comes about by itself."""
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
            "effect": {"query": "vector(0)", "above": 1, "within": "60s"},
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
        kind="memory-limit",
        name="deployment",
        broken=("Deployment", "holder"),
        manifests=(
            _Pods(48, memory={"limits": {"memory": "128Mi"}, "requests": {"memory": "16Mi"}}).workload(
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
    _secret("revoke", "revoke", NOTHING, _Pods(env=(_KEY,)).workload("Deployment", "caller", 2)),
    _secret(
        "rotate", "rotate", DRILLS,
        _Pods(env=(_KEY,)).workload("StatefulSet", "callers", 2, serviceName="callers", podManagementPolicy="Parallel"),
    ),
    _secret("garble", "garble", DRILLS),
)  # fmt: skip


def at(body: Json, pointer: str) -> Any:
    """The value that a JSON pointer leads to."""
    value: Any = body
    for part in pointer.split("/")[1:]:
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value
