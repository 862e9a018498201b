"""Restarting a workload's pods, to see whether a recovery outlasts it. What `core.restart` decides on is done here."""

from __future__ import annotations

from typing import Literal

from harness.core.errors import BadInput, DrillError, Unreachable
from harness.core.event import PodState, RestartPlanned
from harness.core.pods import pod_state
from harness.core.workload import owns, pod_labels, replicas
from harness.ports.cluster import Cluster, Conflict, NotFound, Ref
from harness.ports.kinds import workload as address


def plan(cluster: Cluster, namespace: str, alert: str, of: str) -> RestartPlanned:
    """The pods of the workload `of` that are to be restarted, by name; none, and why, where they cannot be listed."""
    try:
        body = cluster.get(address(of, namespace))
        selector = pod_labels(body)
        found = cluster.list("Pod", namespace, selector)
    except DrillError as error:
        return RestartPlanned(alert=alert, workload=of, detail=error.fact)
    container = body["spec"]["template"]["spec"]["containers"][0]["name"]
    living = [pod for pod in found if "deletionTimestamp" not in pod["metadata"] and owns(of, pod)]
    pods = tuple(sorted((pod_state(pod, container) for pod in living), key=lambda pod: pod.name))
    ready = min(sum(pod.ready for pod in pods), replicas(body))  # a rollout has more for a while
    return RestartPlanned(alert=alert, workload=of, selector=selector, container=container, pods=pods, ready=ready)


def delete(cluster: Cluster, namespace: str, pod: PodState) -> tuple[Literal["done", "gone", "failed", "unknown"], str]:
    """Delete that very pod, with its own grace period; how it ended, and its detail."""
    ref = Ref("Pod", namespace, pod.name)
    try:
        hit = cluster.delete(ref, uid=pod.uid)
    except Conflict as error:
        return ("gone", "") if _is_another(cluster, ref, pod) else ("failed", error.fact)
    except Unreachable as error:
        return "unknown", error.fact
    except DrillError as error:
        return "failed", error.fact
    return ("done" if hit else "gone"), ""


def _is_another(cluster: Cluster, ref: Ref, pod: PodState) -> bool:
    """Whether a new pod has taken the name already, as a StatefulSet's do."""
    try:
        return bool(cluster.get(ref)["metadata"]["uid"] != pod.uid)
    except NotFound:
        return True
    except DrillError:
        return False


def check(cluster: Cluster, namespace: str, alert: str, of: str) -> str:
    """What would be restarted, in words. Raises BadInput where there is no such workload or it has no pod."""
    ref = address(of, namespace)
    try:
        cluster.get(ref)
    except NotFound as error:
        raise BadInput(
            "restart-target-missing",
            f"{ref} does not exist",
            expected=f"the workload whose restart the recovery from {alert} must outlast",
            remedy="edit `restart_proof`, or deploy it first",
        ) from error
    planned = plan(cluster, namespace, alert, of)
    if not planned.ready:
        raise BadInput(
            "restart-without-pods",
            f"{ref} has no ready pod{': ' + planned.detail if planned.detail else ''}",
            expected="pods that can be restarted",
            remedy="edit `restart_proof`, or wait until the workload is well",
        )
    return f"{len(planned.pods)} pods of {of} are restarted, one at a time, once {alert} looks recovered"
