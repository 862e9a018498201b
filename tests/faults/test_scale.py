"""The fault `scale`: what it refuses, what it writes, how it goes back, and what proves it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from pydantic import ValidationError

from harness.core.clock import Bounds
from harness.core.errors import BadInput, DrillError, Refused
from harness.core.event import PodsSeen, PodState, Record
from harness.core.evidence import Evidence
from harness.core.snapshot import snapshot
from harness.faults.scale import Scale, ScaleSpec
from harness.ports.cluster import Conflict, Forbidden, Ref
from tests.fakes.cluster import FakeCluster

NAMESPACE = "shop"
FAULT = Scale()
DEPLOYMENT, STATEFUL = Ref("Deployment", NAMESPACE, "worker"), Ref("StatefulSet", NAMESPACE, "store")


def spec(**changes: Any) -> ScaleSpec:
    data = {
        "id": "fewer",
        "kind": "scale",
        "target": "deployment/worker",
        "replicas": 1,
        "effect": {"ready_at_most": 1, "within": "60s"},
        "blast_radius": {"pods": 4},
        **changes,
    }
    return ScaleSpec.model_validate(data)


def workload(ref: Ref, **declared: Any) -> dict[str, Any]:
    """A workload of five pods, at rest."""
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 5)
    container = {"name": "main", "image": "main:1"}
    return {
        "apiVersion": "apps/v1",
        "kind": ref.kind,
        "metadata": {"name": ref.name, "namespace": NAMESPACE, "annotations": {"team": "queue"}},
        "spec": {
            "replicas": 5,
            "selector": {"matchLabels": {"app": ref.name, "tier": "back"}},
            "template": {"metadata": {"labels": {"app": ref.name}}, "spec": {"containers": [container]}},
            **declared,
        },
        "status": {"observedGeneration": 1, **counts},
    }


def world(**declared: Any) -> FakeCluster:
    """Both workloads; `declared` changes the spec of both."""
    cluster = FakeCluster(now=lambda: 1000.0)
    for ref in (DEPLOYMENT, STATEFUL):
        cluster.put(workload(ref, **declared))
    return cluster


def planned(cluster: FakeCluster, **changes: Any) -> dict[str, Any]:
    """The undo record, as it looks after a journey through JSON."""
    record: dict[str, Any] = json.loads(json.dumps(FAULT.plan(spec(**changes), NAMESPACE, cluster).undo))
    return record


def replicas(cluster: FakeCluster, ref: Ref = DEPLOYMENT) -> int:
    return int(cluster.get(ref)["spec"]["replicas"])


def somebody_scales(cluster: FakeCluster, count: int, ref: Ref = DEPLOYMENT) -> None:
    body = cluster.get(ref)
    body["spec"]["replicas"] = count
    cluster.put(body)


@pytest.mark.parametrize("ref", [DEPLOYMENT, STATEFUL], ids=lambda ref: ref.kind)
def test_only_the_named_workload_is_scaled_and_put_back_exactly(ref: Ref) -> None:
    cluster = world()
    other = STATEFUL if ref == DEPLOYMENT else DEPLOYMENT
    before, untouched = snapshot(cluster.get(ref)), cluster.get(other)
    undo = planned(cluster, target=f"{ref.kind.lower()}/{ref.name}")
    FAULT.apply(undo, cluster)
    assert replicas(cluster, ref) == 1
    assert FAULT.undo(undo, cluster).outcome == "restored"
    assert snapshot(cluster.get(ref)) == before
    assert cluster.get(other) == untouched


def test_the_plan_counts_the_pods_that_go() -> None:
    plan = FAULT.plan(spec(replicas=2, effect={"ready_at_most": 2, "within": "60s"}), NAMESPACE, world())
    assert (plan.pods, plan.objects) == (3, 1)
    assert plan.summary == "scale deployment/worker in shop from 5 to 2 replicas"
    assert [(c.path, c.before, c.after) for c in plan.changes] == [("/spec/replicas", 5, 2)]


def test_applying_and_undoing_twice_is_the_same_as_once() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    FAULT.apply(undo, cluster)
    assert replicas(cluster) == 1
    assert [FAULT.undo(undo, cluster).outcome for _ in range(2)] == ["restored", "already"]


def test_undo_without_apply_and_a_dry_run_change_nothing() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster, dry_run=True)
    assert FAULT.undo(undo, cluster).outcome == "already"
    assert replicas(cluster) == 5
    assert not cluster.writes()


@pytest.mark.parametrize("dry_run", [False, True])
def test_apply_refuses_a_target_that_changed_since_the_plan(*, dry_run: bool) -> None:
    cluster = world()
    undo = planned(cluster)
    somebody_scales(cluster, 4)
    with pytest.raises(Conflict):
        FAULT.apply(undo, cluster, dry_run=dry_run)
    assert replicas(cluster) == 4


def test_apply_leaves_a_new_object_of_the_same_name_alone() -> None:
    cluster = world()
    undo = planned(cluster)
    cluster.drop(DEPLOYMENT)
    cluster.put(workload(DEPLOYMENT, replicas=1))
    with pytest.raises(Conflict):
        FAULT.apply(undo, cluster)


@pytest.mark.parametrize("others", [0, 8])
def test_undo_respects_somebody_elses_number_unless_forced(others: int) -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    somebody_scales(cluster, others)
    refused = FAULT.undo(undo, cluster)
    assert refused.outcome == "refused"
    assert f"it has {others} replicas" in refused.detail
    assert replicas(cluster) == others
    assert FAULT.undo(undo, cluster, force=True).outcome == "restored"
    assert replicas(cluster) == 5


def test_undo_looks_again_where_the_number_changes_between_look_and_write() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)

    class Racing(FakeCluster):
        """Somebody scales just after the first look."""

        raced = False

        def patch(self, ref: Ref, operations: Any, **given: Any) -> Any:
            if not self.raced:
                self.raced = True
                somebody_scales(self, 8)
            return super().patch(ref, operations, **given)

    cluster.__class__ = Racing
    assert FAULT.undo(undo, cluster).outcome == "refused"
    assert replicas(cluster) == 8


def test_undo_gives_up_on_a_target_that_never_stands_still() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    cluster.fail_next("patch", Conflict("raced", "it changed", expected="no change", remedy="look"), times=5)
    outcome = FAULT.undo(undo, cluster)
    assert outcome.outcome == "refused"
    assert "kept changing" in outcome.detail


def test_a_vanished_a_replaced_and_a_copied_target_are_told_apart() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    broken = cluster.get(DEPLOYMENT)
    cluster.drop(DEPLOYMENT)
    assert FAULT.undo(undo, cluster).outcome == "vanished"
    assert FAULT.differences(undo, cluster) == ("deployment/worker in shop no longer exists",)
    cluster.put(workload(DEPLOYMENT))
    assert FAULT.undo(undo, cluster).outcome == "vanished"
    cluster.drop(DEPLOYMENT)
    broken["metadata"].pop("uid")
    cluster.put(broken)
    copied = FAULT.undo(undo, cluster, force=True)
    assert copied.outcome == "refused"
    assert "new object" in copied.detail
    assert replicas(cluster) == 1


def test_differences_name_every_path_and_pods_that_are_not_back() -> None:
    cluster = world()
    undo = planned(cluster)
    assert FAULT.differences(undo, cluster) == ()
    body = cluster.get(DEPLOYMENT)
    body["metadata"]["annotations"]["team"] = "other"
    body["status"]["readyReplicas"] = body["status"]["availableReplicas"] = 2
    cluster.put(body)
    found = FAULT.differences(undo, cluster)
    assert len(found) == 2
    assert "metadata.annotations.team: " in found[0]
    assert "rollout not finished (2 of 5 ready, 2 of 5 available)" in found[1]


def test_pods_are_chosen_by_the_whole_selector() -> None:
    expressions = [
        {"key": "app", "operator": "In", "values": ["worker", "helper"]},
        {"key": "track", "operator": "NotIn", "values": ["canary"]},
        {"key": "tier", "operator": "Exists"},
        {"key": "retired", "operator": "DoesNotExist"},
    ]
    declared = {"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": expressions}
    undo = planned(world(selector=declared))
    assert FAULT.pods(undo).labels == "a=1,b=2,app in (worker,helper),track notin (canary),tier,!retired"
    assert FAULT.pods(undo).container == "main"


@pytest.mark.parametrize(
    ("changes", "slug"),
    [
        ({"target": "deployment/nobody"}, "target-missing"),
        ({"target": "statefulset/worker"}, "target-missing"),
        ({"replicas": 5, "effect": {"ready_at_most": 5, "within": "60s"}}, "replicas-not-lower"),
        ({"replicas": 9, "effect": {"ready_at_most": 9, "within": "60s"}}, "replicas-not-lower"),
        ({"effect": {"ready_at_most": 5, "within": "60s"}}, "effect-proves-nothing"),
    ],
)
def test_bad_input_has_its_message_and_changes_nothing(changes: dict[str, Any], slug: str) -> None:
    refused(BadInput, slug, world(), **changes)


def refused(kind: type[DrillError], slug: str, cluster: FakeCluster, **changes: Any) -> DrillError:
    with pytest.raises(kind) as caught:
        FAULT.plan(spec(**changes), NAMESPACE, cluster)
    assert caught.value.slug == slug
    assert caught.value.expected
    assert caught.value.remedy
    assert not cluster.writes()
    return caught.value


@pytest.mark.parametrize("changes", [{"target": "secret/keys"}, {"target": "worker"}, {"replicas": -1}])
def test_a_spec_that_means_nothing_is_no_spec(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec(**changes)


def test_an_effect_that_the_remaining_pods_forbid_is_no_spec() -> None:
    with pytest.raises(ValidationError, match="write at least 2"):
        spec(replicas=2)


@pytest.mark.parametrize(
    "status", [{"readyReplicas": 4}, {"replicas": 6}, {"observedGeneration": 0}, {"updatedReplicas": 1}]
)
@pytest.mark.parametrize("ref", [DEPLOYMENT, STATEFUL], ids=lambda ref: ref.kind)
def test_a_rollout_in_progress_is_refused(ref: Ref, status: dict[str, int]) -> None:
    cluster = world()
    body = cluster.get(ref)
    body["status"] |= status
    cluster.put(body)
    refused(Refused, "rollout-in-progress", cluster, target=f"{ref.kind.lower()}/{ref.name}")


@pytest.mark.parametrize("strategy", [{"type": "OnDelete"}, {"rollingUpdate": {"partition": 3}}])
def test_a_stateful_set_that_keeps_old_pods_on_purpose_is_at_rest(strategy: dict[str, Any]) -> None:
    cluster = world(updateStrategy=strategy)
    body = cluster.get(STATEFUL)
    body["status"]["updatedReplicas"] = 2
    cluster.put(body)
    planned(cluster, target="statefulset/store")
    body["status"]["readyReplicas"] = 4
    cluster.put(body)
    refused(Refused, "rollout-in-progress", cluster, target="statefulset/store")


def test_a_paused_deployment_is_refused() -> None:
    refused(Refused, "rollout-paused", world(paused=True))


def scaler(name: str = "worker", kind: str = "Deployment", **metadata: Any) -> dict[str, Any]:
    aim = {"apiVersion": "apps/v1", "kind": kind, "name": name}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "busy", "namespace": NAMESPACE, **metadata},
        "spec": {"scaleTargetRef": aim, "minReplicas": 2, "maxReplicas": 9},
    }


def test_an_autoscaled_target_is_refused_and_its_master_named() -> None:
    cluster = world()
    cluster.put(scaler())
    error = refused(Refused, "target-autoscaled", cluster)
    assert error.fact == "horizontalpodautoscaler/busy in shop scales deployment/worker in shop"
    owner = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "queue", "controller": True, "uid": "u"}
    cluster.put(scaler(ownerReferences=[owner]))
    assert refused(Refused, "target-autoscaled", cluster).fact.endswith(", on behalf of ScaledObject queue")


@pytest.mark.parametrize("one", [scaler("api"), scaler(kind="StatefulSet"), scaler(namespace="elsewhere")])
def test_an_autoscaler_of_something_else_does_not_matter(one: dict[str, Any]) -> None:
    cluster = world()
    cluster.put(one)
    assert planned(cluster)["before"] == 5


def test_autoscalers_that_may_not_be_seen_are_not_taken_for_none() -> None:
    cluster = world()
    cluster.denied.add(("list", "HorizontalPodAutoscaler"))
    with pytest.raises(Forbidden):
        FAULT.plan(spec(), NAMESPACE, cluster)


def test_a_target_that_an_operator_owns_is_refused() -> None:
    cluster = world()
    body = copy.deepcopy(cluster.get(DEPLOYMENT))
    owners = [{"kind": "App", "name": "crm", "uid": "u"}, {"kind": "Shop", "name": "nova", "uid": "v"}]
    body["metadata"]["ownerReferences"] = owners
    cluster.put(body)
    planned(cluster)
    owners[1]["controller"] = True  # type: ignore[assignment]
    cluster.put(body)
    assert "Shop nova" in refused(Refused, "target-has-a-controller", cluster).fact


def test_a_stateful_set_whose_volumes_would_go_is_refused() -> None:
    claims = [{"metadata": {"name": "data"}}]
    kept = world(volumeClaimTemplates=claims, persistentVolumeClaimRetentionPolicy={"whenScaled": "Retain"})
    planned(kept, target="statefulset/store")
    gone = world(volumeClaimTemplates=claims, persistentVolumeClaimRetentionPolicy={"whenScaled": "Delete"})
    refused(Refused, "volumes-would-be-deleted", gone, target="statefulset/store")


def test_every_call_that_it_makes_is_among_its_verbs() -> None:
    for target in ("deployment/worker", "statefulset/store"):
        cluster = world()
        undo = planned(cluster, target=target)
        FAULT.apply(undo, cluster)
        FAULT.undo(undo, cluster)
        FAULT.differences(undo, cluster)
        assert {(call.verb, call.ref.kind) for call in cluster.calls} == set(FAULT.verbs(spec(target=target)))


INJECTED = Bounds(earliest=10.0, latest=10.2)


def seen(at: float, *ready: bool) -> tuple[Record, PodsSeen]:
    pods = tuple(PodState(name=f"p{i}", uid=f"p{i}", ready=one, restarts=0) for i, one in enumerate(ready))
    event = PodsSeen(fault="fewer", pods=pods)
    return Record(seq=round(at * 10), at=at, event=event), event


def test_the_effect_is_the_first_sight_of_few_enough_ready_pods() -> None:
    many, few, none = seen(10.1, True, True, False), seen(10.4, True, False, False), seen(12.0)
    assert FAULT.proof(spec(), Evidence(INJECTED, [many])) is None
    proof = FAULT.proof(spec(), Evidence(INJECTED, [many, few, none]))
    assert proof is not None
    assert (proof.at.earliest, proof.at.latest) == (10.0, 10.4)
    assert proof.evidence == (104,)
    assert proof.proof == "deployment/worker scaled to 1: 1 ready (pod status)"


def test_what_was_seen_before_the_injection_proves_nothing() -> None:
    assert FAULT.proof(spec(), Evidence(INJECTED, [seen(9.9, True)])) is None
    assert FAULT.proof(spec(), Evidence(INJECTED, [])) is None


def test_the_effect_is_not_forgotten_when_pods_come_back() -> None:
    proof = FAULT.proof(spec(), Evidence(INJECTED, [seen(10.4, True), seen(11.0, True, True)]))
    assert proof is not None
    assert proof.at.latest == 10.4
