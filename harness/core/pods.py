"""From a pod's JSON to the few facts that prove an effect."""

from __future__ import annotations

from typing import Any

from harness.core.clock import parse_utc
from harness.core.event import PodState

_TEMPLATE = ("pod-template-hash", "controller-revision-hash")
"""The labels by which a Deployment's ReplicaSets and a StatefulSet tell the versions of their template apart."""


def pod_state(pod: dict[str, Any], container: str) -> PodState:
    """The state of one pod's `container` (field meanings: Kubernetes API reference, PodStatus v1).

    A pod that is being deleted counts as not ready: it no longer does the work. The OOM count is what the status
    can show, the current and the last termination; the watch sees each as it passes.
    """
    meta, status = pod["metadata"], pod.get("status", {})
    labels = meta.get("labels") or {}
    found: dict[str, Any] = next((c for c in status.get("containerStatuses", []) if c["name"] == container), {})
    ends = [
        end
        for where in ("state", "lastState")
        if (end := (found.get(where) or {}).get("terminated")) and end.get("reason") == "OOMKilled"
    ]
    stamps = [parse_utc(end["finishedAt"]) for end in ends if end.get("finishedAt")]
    declared: dict[str, Any] = next(
        (c for c in pod.get("spec", {}).get("containers", []) if c["name"] == container), {}
    )
    limit = declared.get("resources", {}).get("limits", {}).get("memory", "")
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions", []))
    return PodState(
        name=meta["name"],
        uid=meta["uid"],
        ready=ready and "deletionTimestamp" not in meta,
        restarts=int(found.get("restartCount", 0)),
        waiting=((found.get("state") or {}).get("waiting") or {}).get("reason", ""),
        oom_kills=len(ends),
        oom_killed_at=max(stamps, default=None),
        memory_limit=str(limit),
        image=str(declared.get("image", "")),
        leaving="deletionTimestamp" in meta,
        template=next((labels[name] for name in _TEMPLATE if name in labels), ""),
    )
