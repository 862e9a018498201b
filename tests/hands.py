"""Somebody else's hands on a cluster: they read objects whole, Secrets included, and write under a name of their own.

Whoever checks what became of a Secret needs what the harness cannot have.
"""

from __future__ import annotations

import base64
from typing import Protocol

from harness.adapters.kubernetes import KubeCluster
from harness.adapters.kubernetes.answers import Asked
from harness.adapters.kubernetes.wire import JSON_PATCH
from harness.ports.cluster import Cluster, Json, Ref
from harness.ports.kinds import kind_of
from tests.fakes.cluster import FakeCluster, copied


class Hand(Protocol):
    """What somebody with kubectl can do."""

    def create(self, body: Json) -> None:
        """Make an object."""

    def read(self, ref: Ref) -> Json:
        """The object, with everything that is in it."""

    def write(self, ref: Ref, key: str, value: bytes | None) -> None:
        """Set one member of its data, or take it away."""


def hand(cluster: Cluster) -> Hand:
    """Hands on a fake or a real cluster."""
    return _OnFake(cluster) if isinstance(cluster, FakeCluster) else _OnReal(cluster)


class _OnFake:
    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster

    def create(self, body: Json) -> None:
        self._cluster.put(body)

    def read(self, ref: Ref) -> Json:
        return copied(self._cluster.peek(ref))

    def write(self, ref: Ref, key: str, value: bytes | None) -> None:
        body = self.read(ref)
        data = {name: text for name, text in (body.get("data") or {}).items() if name != key}
        if value is not None:
            data[key] = base64.b64encode(value).decode()
        self._cluster.put({**body, "data": data})


class _OnReal:
    def __init__(self, cluster: Cluster) -> None:
        assert isinstance(cluster, KubeCluster)
        self._wire = cluster._wire

    def create(self, body: Json) -> None:
        path = kind_of(body["kind"]).path(body["metadata"].get("namespace", ""))
        self._wire.request("POST", path, Asked("create"), query=[("fieldManager", "somebody")], body=body)

    def read(self, ref: Ref) -> Json:
        return self._wire.json("GET", kind_of(ref.kind).path(ref.namespace, ref.name), Asked(f"read {ref}"))

    def write(self, ref: Ref, key: str, value: bytes | None) -> None:
        path = f"/data/{key.replace('~', '~0').replace('/', '~1')}"
        change: Json = {"op": "remove", "path": path}
        if value is not None:
            change = {"op": "add", "path": path, "value": base64.b64encode(value).decode()}
        self._wire.request(
            "PATCH", kind_of(ref.kind).path(ref.namespace, ref.name), Asked(f"write {ref}"),
            query=[("fieldManager", "somebody")], body=[change], content=JSON_PATCH,
        )  # fmt: skip
