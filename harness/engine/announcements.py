"""Announcements of drills that are about to begin, in the namespace that they will break.

Whoever looks at the namespace sees what is coming and when. An announcement ends with its drill; one whose process died
is older than its moment, and the next one takes it away.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.clock import Instant, parse_utc, utc
from harness.core.errors import DrillError
from harness.ports.cluster import Cluster, Json, Ref

LABEL = "drill.internal/announcement"
STALE_AFTER = 6 * 3600.0
"""Seconds after its moment when an announcement says nothing any more: no game day lasts that long."""


@dataclass(frozen=True, slots=True)
class Announced:
    """A drill that was announced: when it begins, on the clock of whoever announced it, and what people were told."""

    at: Instant
    text: str
    name: str

    def __str__(self) -> str:
        return f"announced for {utc(self.at)}: {self.text}"


def announce(cluster: Cluster, namespace: str, at: Instant, text: str) -> Announced:
    """Store an announcement in place of all earlier ones. Raises DrillError."""
    for earlier in read(cluster, namespace):
        discard(cluster, namespace, earlier)
    body: Json = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"generateName": "drill-announcement-", "namespace": namespace, "labels": {LABEL: "true"}},
        "immutable": True,
        "data": {"at": utc(at), "text": text},
    }
    return Announced(at, text, cluster.create(body)["metadata"]["name"])


def read(cluster: Cluster, namespace: str) -> list[Announced]:
    """What is announced, the earliest first; what cannot be read is nobody's announcement. Raises DrillError."""
    found = []
    for body in cluster.list("ConfigMap", namespace, f"{LABEL}=true"):
        data = body.get("data") or {}
        try:
            found.append(
                Announced(parse_utc(str(data.get("at"))), str(data.get("text"))[:1000], body["metadata"]["name"])
            )
        except ValueError:
            continue
    return sorted(found, key=lambda one: one.at)


def discard(cluster: Cluster, namespace: str, announced: Announced) -> None:
    """Take an announcement away; one that is gone is no matter. Raises DrillError."""
    cluster.delete(Ref("ConfigMap", namespace, announced.name))


def withdraw(cluster: Cluster, namespace: str, announced: Announced) -> str:
    """As `discard`, for a way out on which nothing may be raised: why that failed, or ""."""
    try:
        discard(cluster, namespace, announced)
    except DrillError as error:
        return error.fact
    return ""
