"""The fault `image`: what it refuses, what it writes, how it goes back, and what proves it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from harness.core.clock import Bounds
from harness.core.errors import BadInput, Refused
from harness.core.event import PodsSeen, PodState, Record
from harness.core.evidence import Evidence
from harness.core.pods import pod_state
from harness.core.snapshot import snapshot
from harness.faults.image import Image, ImageSpec
from harness.ports.cluster import Conflict, Json, Ref
from tests.fakes.cluster import FakeCluster

NAMESPACE = "shop"
REF = Ref("Deployment", NAMESPACE, "api")
FAULT = Image()
OWN = "registry.example.org/shop/api"
NOWHERE = f"registry.invalid/{OWN}:2"


def spec(**changes: Any) -> ImageSpec:
    data = {
        "id": "bad", "kind": "image", "target": "deployment/api", "container": "api", "image": NOWHERE,
        "effect": {"failing": 2, "ready_at_most": 1, "within": "60s"}, "blast_radius": {"pods": 3}, **changes,
    }  # fmt: skip
    return ImageSpec.model_validate(data)


def world(kind: str = "Deployment", **declared: Any) -> FakeCluster:
    cluster = FakeCluster(now=lambda: 1000.0)
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 3)
    containers = [{"name": "side", "image": "side:1"}, {"name": "api", "image": f"{OWN}:1"}]
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


def images(cluster: FakeCluster) -> list[str]:
    return [one["image"] for one in cluster.get(REF)["spec"]["template"]["spec"]["containers"]]


def set_image(cluster: FakeCluster, image: str) -> None:
    path = "/spec/template/spec/containers/1/image"
    cluster.patch(REF, [{"op": "replace", "path": path, "value": image}])


@pytest.mark.parametrize(
    ("changes", "image"),
    [
        ({}, NOWHERE),
        ({"image": None, "tag": "does-not-exist"}, f"{OWN}:does-not-exist"),
        ({"image": f"{OWN}@sha256:{'0' * 64}"}, f"{OWN}@sha256:{'0' * 64}"),
    ],
)
def test_only_the_named_container_is_changed_and_put_back_exactly(changes: dict[str, Any], image: str) -> None:
    cluster = world()
    before, undo = snapshot(cluster.get(REF)), planned(cluster, **changes)
    FAULT.apply(undo, cluster, dry_run=True)
    assert images(cluster) == ["side:1", f"{OWN}:1"]
    FAULT.apply(undo, cluster)
    FAULT.apply(undo, cluster)
    assert images(cluster) == ["side:1", image]
    assert any("rollout" in one or "newest change" in one for one in FAULT.differences(undo, cluster))
    assert [FAULT.undo(undo, cluster).outcome for _ in range(2)] == ["restored", "already"]
    assert snapshot(cluster.get(REF)) == before


def test_undo_without_apply_changes_nothing() -> None:
    cluster = world()
    assert FAULT.undo(planned(cluster), cluster).outcome == "already"
    assert not cluster.writes()


def test_somebody_elses_image_is_refused_reported_and_overwritten_by_force_only() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    set_image(cluster, f"{OWN}:3")
    refused = FAULT.undo(undo, cluster)
    assert refused.outcome == "refused"
    assert f"{OWN}:3" in refused.detail
    assert images(cluster)[1] == f"{OWN}:3"
    with pytest.raises(Conflict):
        FAULT.apply(undo, cluster)
    assert FAULT.undo(undo, cluster, force=True).outcome == "restored"
    assert images(cluster)[1] == f"{OWN}:1"


def test_the_plan_shows_the_change_and_counts_the_pods() -> None:
    plan = FAULT.plan(spec(), NAMESPACE, world())
    (change,) = plan.changes
    assert (change.path, change.before, change.after) == ("/spec/template/spec/containers/1/image", f"{OWN}:1", NOWHERE)
    assert (plan.pods, plan.objects, plan.targets) == (3, 1, (REF,))
    assert FAULT.verbs(spec()) == (("get", "Deployment"), ("patch", "Deployment"))
    assert FAULT.verbs(spec(target="statefulset/api")) == (("get", "StatefulSet"), ("patch", "StatefulSet"))
    chosen = FAULT.pods(plan.undo)
    assert (chosen.labels, chosen.container) == ("app=api", "api")


@pytest.mark.parametrize(
    ("changes", "slug"),
    [
        ({"target": "deployment/other"}, "target-missing"),
        ({"container": "other"}, "container-missing"),
        ({"image": f"{OWN}:1"}, "nothing-to-change"),
        ({"image": None, "tag": "1"}, "nothing-to-change"),
        ({"image": "evil:1"}, "image-of-another-repository"),
        ({"image": "registry.invalid/api:does-not-exist"}, "image-of-another-repository"),
        ({"image": f"other.example.org/{OWN}:1"}, "image-of-another-repository"),
        ({"effect": {"failing": 1, "ready_at_most": 3, "within": "60s"}}, "effect-proves-nothing"),
        ({"effect": {"failing": 4, "within": "60s"}}, "effect-never-seen"),
    ],
)
def test_bad_input_is_told_and_changes_nothing(changes: dict[str, Any], slug: str) -> None:
    cluster = world()
    with pytest.raises(BadInput) as caught:
        FAULT.plan(spec(**changes), NAMESPACE, cluster)
    assert (caught.value.slug, int(caught.value.exit_code)) == (slug, 64)
    assert caught.value.remedy
    assert not cluster.writes()


def test_the_refusal_of_a_foreign_image_says_what_would_do() -> None:
    with pytest.raises(BadInput) as caught:
        FAULT.plan(spec(image="evil:1"), NAMESPACE, world())
    assert f"{OWN}:does-not-exist" in caught.value.remedy
    assert f"registry.invalid/{OWN}:1" in caught.value.remedy
    for would_do in (f"{OWN}:does-not-exist", f"registry.invalid/{OWN}:1"):
        assert FAULT.plan(spec(image=would_do), NAMESPACE, world()).undo


@pytest.mark.parametrize(
    ("cluster", "slug"),
    [
        (world(paused=True), "rollout-paused"),
        (world(replicas=4), "rollout-in-progress"),
        (world("StatefulSet"), "rollout-could-not-go-back"),
        (world("StatefulSet", updateStrategy={"type": "OnDelete"}), "pods-do-not-follow"),
    ],
)
def test_pods_that_would_not_come_or_not_come_back_are_refused(cluster: FakeCluster, slug: str) -> None:
    target = "statefulset/api" if cluster.list("StatefulSet", NAMESPACE) else "deployment/api"
    with pytest.raises(Refused) as caught:
        FAULT.plan(spec(target=target), NAMESPACE, cluster)
    assert caught.value.slug == slug


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": None}, "one of `image`"),
        ({"tag": "2"}, "one of `image`"),
        ({"image": "has space:1"}, "pattern"),
        ({"image": "-x"}, "pattern"),
        ({"image": None, "tag": ":2"}, "pattern"),
        ({"target": "daemonset/api"}, "pattern"),
        ({"effect": {"failing": 0, "within": "60s"}}, "greater than or equal to 1"),
    ],
)
def test_a_spec_that_makes_no_sense_is_told(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec(**changes)


# Proof


def pod(name: str, image: str = NOWHERE, waiting: str = "ImagePullBackOff", *, ready: bool = False) -> PodState:
    return PodState(name=name, uid=f"uid-{name}", ready=ready, restarts=0, waiting=waiting, image=image)


OLD = pod("old", f"{OWN}:1", "", ready=True)


def evidence(*seen: tuple[float, list[PodState]]) -> Evidence:
    pods = [(at, PodsSeen(fault="bad", pods=tuple(states))) for at, states in seen]
    return Evidence(
        Bounds(earliest=10.0, latest=11.0),
        [(Record(seq=number, at=at, event=event), event) for number, (at, event) in enumerate(pods)],
    )


def test_it_counts_when_as_many_as_declared_fail_and_few_enough_are_ready() -> None:
    proof = FAULT.proof(
        spec(), evidence((12.0, [OLD, pod("a")]), (14.0, [OLD, pod("a"), pod("b", waiting="ErrImagePull")]))
    )
    assert proof is not None
    assert (proof.at, proof.evidence) == (Bounds(earliest=10.0, latest=14.0), (1,))
    assert proof.proof == f"2 pods of {NOWHERE} fail (ErrImagePull, ImagePullBackOff), 1 ready (pod status)"


@pytest.mark.parametrize(
    "states",
    [
        [OLD, pod("a")],
        [OLD, pod("a"), pod("b", f"{OWN}:1")],
        [OLD, pod("a"), pod("b", waiting="ContainerCreating")],
        [OLD, pod("a"), pod("b", ready=True)],
        [OLD, pod("o", f"{OWN}:1", "", ready=True), pod("a"), pod("b")],
    ],
    ids=["too few", "of the old image", "still being created", "ready", "too many are ready"],
)
def test_nothing_else_proves_it(states: list[PodState]) -> None:
    assert FAULT.proof(spec(), evidence((12.0, states))) is None


def test_what_was_seen_before_the_write_proves_nothing() -> None:
    assert FAULT.proof(spec(), evidence((9.0, [pod("a"), pod("b")]))) is None


def test_without_a_bound_on_ready_pods_failing_ones_are_enough() -> None:
    one = spec(effect={"failing": 1, "within": "60s"}, image=None, tag="2")
    assert FAULT.proof(one, evidence((12.0, [OLD, OLD, pod("a", f"{OWN}:2", "CrashLoopBackOff")]))) is not None
    assert FAULT.proof(one, evidence((12.0, [OLD, OLD, pod("a", f"{OWN}:12", "CrashLoopBackOff")]))) is None


def test_the_image_of_a_pod_is_what_was_asked_for() -> None:
    body: Json = {
        "metadata": {"name": "a", "uid": "u"},
        "spec": {"containers": [{"name": "side", "image": "side:1"}, {"name": "api", "image": NOWHERE}]},
        "status": {"containerStatuses": [{"name": "api", "restartCount": 0, "image": "sha256:1", "state": {}}]},
    }
    assert pod_state(body, "api").image == NOWHERE
