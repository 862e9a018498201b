"""Messages that nobody will hear any more.

A responder's message is heard by the run that is on. What a run that died has left in the namespace is no later
run's: it is older than that run, so it counts for nothing, and it is taken away so that it does not pile up.
"""

from __future__ import annotations

import math

from harness.core.clock import Bounds, Instant
from harness.core.errors import DrillError
from harness.core.inbox import INBOX_LABEL, read
from harness.ports.cluster import Cluster, Ref


def sweep(cluster: Cluster, namespace: str, *, before: Instant = math.inf) -> int:
    """Delete the messages in a namespace that the API server stamped before that instant of its clock; how many.

    The caller knows that no run listens: it holds the namespace's lock, or the messages are older than any run. Only
    what can be read as a message is touched: a label alone makes nobody's ConfigMap ours. What cannot be deleted is
    left; raises what listing raises.
    """
    swept = 0
    for body in cluster.list("ConfigMap", namespace, f"{INBOX_LABEL}=true"):
        act = read(body, verified=False, offset=Bounds.at(0.0), seen_at=math.inf)
        if act is None or act.at.earliest >= before:
            continue
        meta = body["metadata"]
        try:
            cluster.delete(Ref("ConfigMap", namespace, meta["name"]), uid=meta["uid"])
        except DrillError:
            continue
        swept += 1
    return swept
