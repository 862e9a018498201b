"""The fault `cpu-limit`: what it refuses, what it writes, how it goes back, and what proves it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from harness.core.clock import Bounds
from harness.core.errors import BadInput, Refused
from harness.core.evidence import Evidence, Proof
from harness.core.snapshot import snapshot
from harness.faults.cpu_limit import CpuLimit, CpuLimitSpec
from harness.ports.cluster import Conflict, Ref
from harness.ports.fault import Fault
from tests.fakes.cluster import FakeCluster

NAMESPACE = "shop"
REF = Ref("Deployment", NAMESPACE, "api")
FAULT = CpuLimit()


def spec(**changes: Any) -> CpuLimitSpec:
    data = {
        "id": "slow", "kind": "cpu-limit", "target": "deployment/api", "container": "api", "limit": "100m",
        "effect": {"query": "latency", "above": 1, "within": "60s"}, "blast_radius": {"pods": 3}, **changes,
    }  # fmt: skip
    return CpuLimitSpec.model_validate(data)


def world(resources: dict[str, Any] | None = None, kind: str = "Deployment", **declared: Any) -> FakeCluster:
    cluster = FakeCluster(now=lambda: 1000.0)
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 3)
    resources = (
        {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "50m"}} if resources is None else resources
    )
    containers = [{"name": "side", "resources": {"limits": {"cpu": "1"}}}, {"name": "api", "resources": resources}]
    cluster.put({
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "api", "namespace": NAMESPACE},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "api"}},
            "template": {"metadata": {"labels": {"app": "api"}}, "spec": {"containers": containers}},
            **declared,
        },
        "status": {"observedGeneration": 1, **counts},
    })  # fmt: skip
    return cluster


def planned(cluster: FakeCluster, **changes: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(json.dumps(FAULT.plan(spec(**changes), NAMESPACE, cluster).undo))
    return record


def limits(cluster: FakeCluster) -> list[str]:
    return [one["resources"]["limits"]["cpu"] for one in cluster.get(REF)["spec"]["template"]["spec"]["containers"]]


def set_limit(cluster: FakeCluster, limit: str | None) -> None:
    path = "/spec/template/spec/containers/1/resources" + ("" if limit is None else "/limits/cpu")
    cluster.patch(REF, [{"op": "replace", "path": path, "value": {} if limit is None else limit}])


def test_only_the_named_container_is_changed_and_put_back_exactly() -> None:
    cluster = world()
    before, undo = snapshot(cluster.get(REF)), planned(cluster)
    FAULT.apply(undo, cluster, dry_run=True)
    assert limits(cluster) == ["1", "500m"]
    FAULT.apply(undo, cluster)
    FAULT.apply(undo, cluster)
    assert limits(cluster) == ["1", "100m"]
    assert FAULT.differences(undo, cluster)
    assert [FAULT.undo(undo, cluster).outcome for _ in range(2)] == ["restored", "already"]
    assert snapshot(cluster.get(REF)) == before


def test_undo_without_apply_changes_nothing() -> None:
    cluster = world()
    assert FAULT.undo(planned(cluster), cluster).outcome == "already"
    assert not cluster.writes()


def test_another_spelling_of_our_limit_is_ours() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    set_limit(cluster, "0.1")
    FAULT.apply(undo, cluster)
    assert FAULT.undo(undo, cluster).outcome == "restored"
    assert limits(cluster) == ["1", "500m"]


@pytest.mark.parametrize("theirs", ["200m", None])
def test_somebody_elses_limit_is_refused_reported_and_overwritten_by_force_only(theirs: str | None) -> None:
    cluster = world()
    before, undo = snapshot(cluster.get(REF)), planned(cluster)
    FAULT.apply(undo, cluster)
    set_limit(cluster, theirs)
    refused = FAULT.undo(undo, cluster)
    assert refused.outcome == "refused"
    assert (theirs or "absent") in refused.detail
    with pytest.raises(Conflict):
        FAULT.apply(undo, cluster)
    assert FAULT.undo(undo, cluster, force=True).outcome == "restored"
    assert limits(cluster) == ["1", "500m"]
    assert theirs is None or snapshot(cluster.get(REF)) == before


def test_the_plan_shows_the_change_and_counts_the_pods() -> None:
    plan = FAULT.plan(spec(), NAMESPACE, world())
    (change,) = plan.changes
    path = "/spec/template/spec/containers/1/resources/limits/cpu"
    assert (change.path, change.before, change.after) == (path, "500m", "100m")
    assert (plan.pods, plan.objects, plan.targets) == (3, 1, (REF,))
    assert FAULT.verbs(spec()) == (("get", "Deployment"), ("patch", "Deployment"))


@pytest.mark.parametrize(
    ("changes", "slug"),
    [
        ({"target": "deployment/other"}, "target-missing"),
        ({"container": "other"}, "container-missing"),
        ({"limit": "500m"}, "limit-not-lower"),
        ({"limit": "2000m"}, "limit-not-lower"),
        ({"limit": "49m"}, "limit-below-request"),
    ],
)
def test_bad_input_is_told_and_changes_nothing(changes: dict[str, Any], slug: str) -> None:
    cluster = world()
    with pytest.raises(BadInput) as caught:
        FAULT.plan(spec(**changes), NAMESPACE, cluster)
    assert (caught.value.slug, int(caught.value.exit_code)) == (slug, 64)
    assert not cluster.writes()


def test_limits_are_compared_by_their_size() -> None:
    assert planned(world({"limits": {"cpu": "0.5"}}), limit="499m")
    for before in ("0.1", "100m", "1e-1"):
        with pytest.raises(BadInput) as caught:
            planned(world({"limits": {"cpu": before}}))
        assert caught.value.slug == "limit-not-lower"


@pytest.mark.parametrize(
    ("cluster", "slug"),
    [
        (world({}), "no-limit-to-lower"),
        (world({"limits": {"memory": "64Mi"}}), "no-limit-to-lower"),
        (world(paused=True), "rollout-paused"),
        (world(replicas=4), "rollout-in-progress"),
        (world(kind="StatefulSet"), "rollout-could-not-go-back"),
    ],
)
def test_what_cannot_be_lowered_or_put_back_is_refused(cluster: FakeCluster, slug: str) -> None:
    target = "statefulset/api" if cluster.list("StatefulSet", NAMESPACE) else "deployment/api"
    with pytest.raises(Refused) as caught:
        FAULT.plan(spec(target=target), NAMESPACE, cluster)
    assert (caught.value.slug, int(caught.value.exit_code)) == (slug, 3)


@pytest.mark.parametrize("limit", ["0m", "0.1", "100", "1", "100M", "-5m", "1.5m", "", 0.1, 1, True, None])
def test_a_limit_that_is_none_is_told(limit: object) -> None:
    with pytest.raises(ValidationError, match="thousandths of a core"):
        spec(limit=limit)


def test_it_is_proved_by_what_was_measured_and_by_nothing_else() -> None:
    fault: Fault[CpuLimitSpec] = FAULT
    assert fault.pods(planned(world())) is None
    assert FAULT.proof(spec(), Evidence(Bounds.at(1.0))) is None
    proof = Proof(Bounds.at(2.0), "latency > 1", (7,))
    assert FAULT.proof(spec(), Evidence(Bounds.at(1.0), measured=proof)) == proof
