"""Messages that nobody will hear any more.

A responder's message is heard by the run that is on. What a run that died has left in the namespace is no later
run's: it is older than that run, so it counts for nothing, and it is taken away so that it does not pile up.
"""

from __future__ import annotations

from harness.core.clock import Bounds
from harness.core.errors import DrillError
from harness.core.inbox import INBOX_LABEL, read
from harness.ports.cluster import Cluster, Ref


def sweep(cluster: Cluster, namespace: str) -> int:
    """Delete every message in a namespace; how many. The caller holds the namespace's lock and has not begun to
    listen. Only what can be read as a message is touched: a label alone makes nobody's ConfigMap ours. What cannot be
    deleted is left; raises what listing raises."""
    swept = 0
    for body in cluster.list("ConfigMap", namespace, f"{INBOX_LABEL}=true"):
        if read(body, verified=False, offset=Bounds.at(0.0), seen_at=float("inf")) is None:
            continue
        meta = body["metadata"]
        try:
            cluster.delete(Ref("ConfigMap", namespace, meta["name"]), uid=meta["uid"])
        except DrillError:
            continue
        swept += 1
    return swept
