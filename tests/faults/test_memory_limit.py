"""The fault `memory-limit`: what it refuses, what it writes, how it goes back, and what proves it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.core.clock import Bounds
from harness.core.errors import BadInput, DrillError, Refused
from harness.core.event import PodsSeen, PodState, Record
from harness.core.evidence import Evidence
from harness.core.snapshot import snapshot
from harness.faults.memory_limit import MemoryLimit, MemoryLimitSpec
from harness.ports.cluster import Conflict, Ref
from tests.fakes.cluster import FakeCluster

NAMESPACE = "shop"
REF = Ref("Deployment", NAMESPACE, "worker")
FAULT = MemoryLimit()


def spec(**changes: Any) -> MemoryLimitSpec:
    data = {
        "id": "memory",
        "kind": "memory-limit",
        "deployment": "worker",
        "container": "worker",
        "limit": "64Mi",
        "effect": {"oom_killed": 2, "ready_at_most": 1, "within": "60s"},
        "blast_radius": {"pods": 3},
        **changes,
    }
    return MemoryLimitSpec.model_validate(data)


def world(resources: dict[str, Any] | None = None, **status: int) -> FakeCluster:
    """A settled Deployment with a sidecar before its worker, so that an index of 0 would be the wrong one."""
    cluster = FakeCluster(now=lambda: 1000.0)
    counts = {"observedGeneration": 1, **dict.fromkeys(
        ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 3), **status}  # fmt: skip
    resources = {"limits": {"memory": "128Mi"}, "requests": {"memory": "32Mi"}} if resources is None else resources
    cluster.put({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "worker", "namespace": NAMESPACE, "annotations": {"team": "queue"}},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "worker", "tier": "back"}},
            "template": {
                "metadata": {"labels": {"app": "worker", "tier": "back"}},
                "spec": {"containers": [
                    {"name": "proxy", "image": "proxy:1", "resources": {"limits": {"memory": "20Mi"}}},
                    {"name": "worker", "image": "worker:1", "resources": resources},
                ]},
            },
        },
        "status": counts,
    })  # fmt: skip
    return cluster


def limits(cluster: FakeCluster) -> list[str]:
    containers = cluster.get(REF)["spec"]["template"]["spec"]["containers"]
    return [container["resources"]["limits"]["memory"] for container in containers]


def planned(cluster: FakeCluster, **changes: Any) -> dict[str, Any]:
    """The undo record, as it looks after a journey through JSON."""
    record: dict[str, Any] = json.loads(json.dumps(FAULT.plan(spec(**changes), NAMESPACE, cluster).undo))
    return record


def set_limit(cluster: FakeCluster, limit: str | None) -> None:
    body = cluster.get(REF)
    resources = body["spec"]["template"]["spec"]["containers"][1]["resources"]
    if limit is None:
        del resources["limits"]
    else:
        resources["limits"]["memory"] = limit
    cluster.put(body)


def test_only_the_named_container_is_changed_and_put_back_exactly() -> None:
    cluster = world()
    before = snapshot(cluster.get(REF))
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    assert limits(cluster) == ["20Mi", "64Mi"]
    assert FAULT.undo(undo, cluster).outcome == "restored"
    assert snapshot(cluster.get(REF)) == before


def test_applying_and_undoing_twice_is_the_same_as_once() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    FAULT.apply(undo, cluster)
    assert limits(cluster) == ["20Mi", "64Mi"]
    assert [FAULT.undo(undo, cluster).outcome for _ in range(2)] == ["restored", "already"]


def test_undo_without_apply_changes_nothing() -> None:
    cluster = world()
    undo = planned(cluster)
    assert FAULT.undo(undo, cluster).outcome == "already"
    assert not cluster.writes()


def test_a_dry_run_changes_nothing() -> None:
    cluster = world()
    FAULT.apply(planned(cluster), cluster, dry_run=True)
    assert limits(cluster) == ["20Mi", "128Mi"]


def test_apply_refuses_a_target_that_changed_since_the_plan() -> None:
    cluster = world()
    undo = planned(cluster)
    set_limit(cluster, "256Mi")
    with pytest.raises(Conflict):
        FAULT.apply(undo, cluster)
    assert limits(cluster) == ["20Mi", "256Mi"]


def test_undo_respects_somebody_elses_value_unless_forced() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    set_limit(cluster, "256Mi")
    refused = FAULT.undo(undo, cluster)
    assert refused.outcome == "refused"
    assert "256Mi" in refused.detail
    assert limits(cluster) == ["20Mi", "256Mi"]
    assert FAULT.undo(undo, cluster, force=True).outcome == "restored"
    assert limits(cluster) == ["20Mi", "128Mi"]


@pytest.mark.parametrize("force", [False, True])
def test_a_limit_that_somebody_removed_is_refused_and_put_back_by_force(*, force: bool) -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    set_limit(cluster, None)
    outcome = FAULT.undo(undo, cluster, force=force).outcome
    assert outcome == ("restored" if force else "refused")


def test_a_vanished_and_a_replaced_target_are_told_apart_from_ours() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    cluster.drop(REF)
    assert FAULT.undo(undo, cluster).outcome == "vanished"
    assert FAULT.differences(undo, cluster) == ("deployment/worker in shop no longer exists",)
    fresh = world().get(REF)
    fresh["metadata"].pop("uid")
    cluster.put(fresh)
    assert FAULT.undo(undo, cluster).outcome == "vanished"
    assert limits(cluster) == ["20Mi", "128Mi"]


def test_differences_name_every_path_and_an_unfinished_rollout() -> None:
    cluster = world()
    undo = planned(cluster)
    assert FAULT.differences(undo, cluster) == ()
    body = cluster.get(REF)
    body["spec"]["replicas"] = 10
    body["metadata"]["annotations"]["team"] = "other"
    cluster.put(body)
    found = "\n".join(FAULT.differences(undo, cluster))
    assert "spec.replicas: 3 -> 10" in found
    assert "metadata.annotations.team: " in found
    assert "rollout not finished" in found or "has not yet seen" in found


def test_no_secret_of_the_target_is_taken_out_of_the_cluster() -> None:
    cluster = world()
    body = cluster.get(REF)
    container = body["spec"]["template"]["spec"]["containers"][1]
    container["env"] = [{"name": "API_KEY", "value": "canary-value"}, {"name": "REPLY", "value": "x"}]
    container["args"] = ["--token=canary-argument"]
    body["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = '{"env":"canary-note"}'
    cluster.drop(REF)
    del body["metadata"]["generation"]
    cluster.put(body)
    undo = planned(cluster)
    assert "canary" not in json.dumps(undo)
    assert "API_KEY" in json.dumps(undo)
    container["env"][0]["value"] = "canary-other"
    cluster.put({**cluster.get(REF), "spec": body["spec"]})
    assert any("env[API_KEY].value" in difference for difference in FAULT.differences(undo, cluster))


@pytest.mark.parametrize(
    ("resources", "changes", "slug", "kind"),
    [
        (None, {"deployment": "nobody"}, "target-missing", BadInput),
        (None, {"container": "nobody"}, "container-missing", BadInput),
        (None, {"limit": "128Mi"}, "limit-not-lower", BadInput),
        (None, {"limit": "1Gi"}, "limit-not-lower", BadInput),
        (None, {"limit": "16Mi"}, "limit-below-request", BadInput),
        ({}, {}, "no-limit-to-lower", Refused),
    ],
)
def test_bad_input_has_its_message_and_changes_nothing(
    resources: dict[str, Any] | None, changes: dict[str, Any], slug: str, kind: type[DrillError]
) -> None:
    cluster = world(resources)
    with pytest.raises(kind) as caught:
        FAULT.plan(spec(**changes), NAMESPACE, cluster)
    assert caught.value.slug == slug
    assert caught.value.remedy
    assert not cluster.writes()


def test_a_rollout_in_progress_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        FAULT.plan(spec(), NAMESPACE, world(readyReplicas=1))
    assert caught.value.slug == "rollout-in-progress"


def seen(at: float, *pods: PodState) -> tuple[Record, PodsSeen]:
    event = PodsSeen(fault="memory", pods=pods)
    return Record(seq=int(at), at=at, event=event), event


def pod(name: str, *, killed: float | None = None, ready: bool = False, limit: str = "64Mi") -> PodState:
    return PodState(name=name, uid=name, ready=ready, restarts=1, oom_killed_at=killed, memory_limit=limit)


INJECTED = Bounds(earliest=10.0, latest=10.2)
OLD = pod("old", ready=True, limit="128Mi")


def test_the_effect_needs_as_many_kills_as_declared_in_pods_of_ours() -> None:
    assert FAULT.proof(spec(), Evidence(INJECTED, [seen(12, OLD, pod("a", killed=11.0))])) is None
    foreign = pod("b", killed=11.0, limit="128Mi")
    assert FAULT.proof(spec(), Evidence(INJECTED, [seen(12, OLD, pod("a", killed=11.0), foreign)])) is None
    same = [seen(12, OLD, pod("a", killed=11.0)), seen(13, OLD, pod("a", killed=12.0))]
    assert FAULT.proof(spec(), Evidence(INJECTED, same)) is None


def test_the_effect_is_bounded_by_the_stamp_and_by_the_watch() -> None:
    told = [seen(12, OLD, pod("a", killed=11.0)), seen(13, OLD, pod("b", killed=12.0), pod("a", killed=11.0))]
    proof = FAULT.proof(spec(), Evidence(INJECTED, told))
    assert proof is not None
    assert (proof.at.earliest, proof.at.latest) == (12.0, 13.0)
    assert proof.evidence == (12, 13)


def test_kills_without_loss_are_no_effect() -> None:
    others = (pod("c", ready=True, limit="128Mi"), pod("d", ready=True, limit="128Mi"))
    crowd = seen(13, OLD, *others, pod("a", killed=11.0), pod("b", killed=12.0))
    assert FAULT.proof(spec(), Evidence(INJECTED, [crowd])) is None
    later = seen(15, OLD, pod("a", killed=11.0), pod("b", killed=12.0))
    proof = FAULT.proof(spec(), Evidence(INJECTED, [crowd, later]))
    assert proof is not None
    assert proof.at.latest == 15.0


@pytest.mark.parametrize(("written", "stored"), [("65536Ki", "64Mi"), ("0.0625Gi", "64Mi"), ("64.0Mi", "64Mi")])
def test_a_limit_is_ours_however_the_server_spells_it(written: str, stored: str) -> None:
    cluster = world()
    undo = planned(cluster, limit=written)
    FAULT.apply(undo, cluster)
    set_limit(cluster, stored)
    killed = seen(13, OLD, pod("a", limit=stored, killed=11.0), pod("b", limit=stored, killed=12.0))
    assert FAULT.proof(spec(limit=written), Evidence(INJECTED, [killed])) is not None
    assert FAULT.undo(undo, cluster).outcome == "restored"
    assert limits(cluster) == ["20Mi", "128Mi"]


def test_a_container_that_moved_since_is_still_put_back() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    body = cluster.get(REF)
    body["spec"]["template"]["spec"]["containers"].insert(0, {"name": "agent", "image": "agent:1"})
    cluster.put(body)
    assert FAULT.undo(undo, cluster).outcome == "restored"
    containers = cluster.get(REF)["spec"]["template"]["spec"]["containers"]
    assert [c.get("resources", {}).get("limits", {}).get("memory") for c in containers] == [None, "20Mi", "128Mi"]


def test_a_copy_of_the_broken_object_is_not_taken_for_undone() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    copy = cluster.get(REF)
    cluster.drop(REF)
    copy["metadata"].pop("uid")
    cluster.put(copy)
    outcome = FAULT.undo(undo, cluster)
    assert outcome.outcome == "refused"
    assert "new object" in outcome.detail
    assert limits(cluster) == ["20Mi", "64Mi"]
