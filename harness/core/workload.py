"""What Deployments and StatefulSets have in common: whether they are at rest, and which pods are theirs.

Pure functions over their JSON (field meanings: Kubernetes API reference, DeploymentStatus and StatefulSetStatus v1).
"""

from __future__ import annotations

from typing import Any

from harness.core.errors import Refused
from harness.core.snapshot import differences, snapshot


def title(body: dict[str, Any]) -> str:
    """The object as messages name it: "deployment/worker in shop"."""
    return f"{body['kind'].lower()}/{body['metadata']['name']} in {body['metadata']['namespace']}"


def replicas(body: dict[str, Any]) -> int:
    """How many pods it declares; 1 where it says nothing, as the API server reads it."""
    return int(body["spec"].get("replicas", 1))


def pod_labels(body: dict[str, Any]) -> str:
    """Its selector as the text that a list or a watch of pods takes."""
    declared = body["spec"]["selector"]
    parts = [f"{key}={value}" for key, value in sorted(declared.get("matchLabels", {}).items())]
    for one in declared.get("matchExpressions", []):
        key, values = one["key"], ",".join(one.get("values", []))
        texts = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key}
        parts.append(texts.get(one["operator"], f"!{key}"))
    return ",".join(parts)


def owns(workload: str, pod: dict[str, Any]) -> bool:
    """Whether a pod is one of `deployment/NAME` or `statefulset/NAME` and not over: labels alone may be a stranger's,
    and what has ended (Evicted, Completed) only lies about. A Deployment's pods belong to a ReplicaSet that is called
    after it and after their template."""
    kind, _, name = workload.partition("/")
    meta = pod["metadata"]
    owner: dict[str, Any] = next((one for one in meta.get("ownerReferences") or () if one.get("controller")), {})
    template = (meta.get("labels") or {}).get("pod-template-hash", "")
    wanted = ("StatefulSet", name) if kind == "statefulset" else ("ReplicaSet", f"{name}-{template}")
    over = (pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"}
    return (owner.get("kind"), owner.get("name")) == wanted and not over


def check_at_rest(body: dict[str, Any]) -> None:
    """Refuse a workload that is not what it declares, or that is paused: nothing could be told apart on it."""
    where = title(body)
    address = f"-n {body['metadata']['namespace']}", f"{body['kind'].lower()}/{body['metadata']['name']}"
    if body["spec"].get("paused"):
        raise Refused(
            "rollout-paused",
            f"{where} is paused: its controller holds changes back",
            expected=f"a {body['kind']} that follows what it declares",
            remedy=f"resume it: kubectl {address[0]} rollout resume {address[1]}",
        )
    problems = unsettled(body)
    if problems:
        raise Refused(
            "rollout-in-progress",
            problems[0],
            expected=f"a {body['kind']} at rest before it is broken",
            remedy=f"wait for it: kubectl {address[0]} rollout status {address[1]}",
        )


def check_rolls(body: dict[str, Any]) -> None:
    """Refuse a workload whose pods do not follow its template there and back. A StatefulSet that goes on only when a
    pod is ready waits for a broken one for ever, also when its template is put back
    (https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback)."""
    where = title(body)
    if not _replaces_all(body):
        raise Refused(
            "pods-do-not-follow",
            f"{where} does not replace all its pods when its template changes (OnDelete, or a partition)",
            expected="a workload that rolls out what it declares, and the way back too",
            remedy="drill another target, or let its update strategy be RollingUpdate without a partition",
        )
    if body["kind"] == "StatefulSet" and body["spec"].get("podManagementPolicy", "OrderedReady") == "OrderedReady":
        raise Refused(
            "rollout-could-not-go-back",
            f"{where} replaces a pod only when the one before is ready: broken pods would stay after the undo",
            expected="a StatefulSet with podManagementPolicy: Parallel, or a Deployment",
            remedy="drill another target, or have its owners declare podManagementPolicy: Parallel",
        )


def unsettled(body: dict[str, Any]) -> tuple[str, ...]:
    """Why it does not yet run what it declares; empty where it does."""
    status, wanted, where = body.get("status", {}), replicas(body), title(body)
    if status.get("observedGeneration", 0) < body["metadata"].get("generation", 0):
        return (f"{where}: its controller has not yet seen the newest change",)
    names = ["updated", "ready", "available"] if _replaces_all(body) else ["ready", "available"]
    counts = {name: int(status.get(f"{name}Replicas", 0)) for name in names}
    low = [f"{count} of {wanted} {name}" for name, count in counts.items() if count != wanted]
    if int(status.get("replicas", 0)) != wanted:
        low.append(f"{status.get('replicas', 0)} pods where {wanted} are wanted")
    return (f"{where}: rollout not finished ({', '.join(low)})",) if low else ()


def changes(before: dict[str, Any], body: dict[str, Any]) -> tuple[str, ...]:
    """How `body` differs from its snapshot `before`. A rollout in progress is a difference too: what is declared is
    not yet what runs."""
    found = [f"{title(body)}: {difference}" for difference in differences(before, snapshot(body))]
    return (*found, *unsettled(body))


def _replaces_all(body: dict[str, Any]) -> bool:
    """Whether all its pods follow its template. A StatefulSet may be told to leave those below a partition as they
    are, or all of them until somebody deletes them; for it that is rest."""
    strategy = body["spec"].get("updateStrategy") or {}
    partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
    return strategy.get("type") != "OnDelete" and not partition
