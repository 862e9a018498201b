"""The fault `pod-kill` on the fake cluster: what it refuses, whom it chooses, and what proves it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from harness.core.clock import Bounds
from harness.core.errors import BadInput, Refused
from harness.core.event import PodsSeen, PodState, Record
from harness.core.evidence import Evidence
from harness.core.workload import title
from harness.engine import fence
from harness.faults.pod_kill import PodKill, PodKillSpec
from harness.ports.cluster import Conflict, Json, Ref
from tests.fakes.cluster import FakeCluster

FAULT = PodKill()
SPEC: Json = {
    "id": "kill",
    "kind": "pod-kill",
    "target": "deployment/web",
    "count": 2,
    "effect": {"within": "60s"},
    "blast_radius": {"pods": 5},
}
OWNER = {"kind": "ReplicaSet", "name": "web-1", "uid": "rs", "controller": True}


def spec(**changes: Any) -> PodKillSpec:
    return PodKillSpec.model_validate({key: value for key, value in {**SPEC, **changes}.items() if value is not None})


def pod(number: int, *, ready: bool = True, **metadata: Any) -> Json:
    return {
        "kind": "Pod",
        "metadata": {
            "name": f"web-{number}", "namespace": "shop", "uid": f"u{number}", "labels": {"app": "web"},
            "ownerReferences": [OWNER], **metadata,
        },
        "spec": {"containers": [{"name": "main"}]},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }  # fmt: skip


@pytest.fixture
def cluster() -> FakeCluster:
    made = FakeCluster(now=lambda: 0.0)
    made.put({"kind": "ReplicaSet", "metadata": {"name": "web-1", "namespace": "shop", "uid": "rs"}})
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 5)
    made.put({
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "generation": 1},
        "spec": {"replicas": 5, "selector": {"matchLabels": {"app": "web"}}, "template": {}},
        "status": {"observedGeneration": 1, **counts},
    })  # fmt: skip
    for number in range(5):
        made.put(pod(number))
    return made


def chosen(cluster: FakeCluster, **changes: Any) -> list[str]:
    return [one["name"] for one in FAULT.plan(spec(**changes), "shop", cluster).undo["pods"]]


def test_a_seed_draws_the_same_pods_again_and_without_one_others_are_drawn(cluster: FakeCluster) -> None:
    assert chosen(cluster, seed=7) == chosen(cluster, seed=7)
    assert len({tuple(sorted(chosen(cluster))) for _ in range(60)}) > 5
    undo = FAULT.plan(spec(), "shop", cluster).undo
    assert chosen(cluster, seed=undo["seed"]) == [one["name"] for one in undo["pods"]]


@pytest.mark.parametrize(("percent", "count"), [(1, 1), (20, 1), (40, 2), (41, 3), (100, 5)])
def test_a_percentage_is_of_the_living_pods_and_rounded_up(cluster: FakeCluster, percent: float, count: int) -> None:
    assert len(chosen(cluster, count=None, percent=percent)) == count


def test_a_pod_that_is_leaving_is_not_chosen(cluster: FakeCluster) -> None:
    cluster.put(pod(0, deletionTimestamp="2026-01-01T00:00:00Z"))
    assert all("web-0" not in chosen(cluster, count=4) for _ in range(5))
    with pytest.raises(BadInput):
        chosen(cluster, count=5)


def test_the_plan_names_the_pods_and_whose_they_are(cluster: FakeCluster) -> None:
    plan = FAULT.plan(spec(), "shop", cluster)
    assert (plan.pods, plan.objects, plan.targets) == (2, 1, (Ref("Deployment", "shop", "web"),))
    assert {change.before for change in plan.changes} == {one["uid"] for one in plan.undo["pods"]}
    by_labels = FAULT.plan(spec(target=None, labels={"app": "web"}), "shop", cluster)
    assert by_labels.targets == (Ref("ReplicaSet", "shop", "web-1"),)
    assert by_labels.undo["workload"] is None


@pytest.mark.parametrize(
    ("changes", "slug"),
    [
        ({"target": "deployment/nobody"}, "target-missing"),
        ({"count": 6}, "too-few-pods"),
        ({"target": None, "labels": {"app": "nobody"}}, "too-few-pods"),
        ({"target": None, "labels": {"app": "nobody"}, "count": None, "percent": 40}, "too-few-pods"),
        ({"effect": {"ready_at_most": 5, "within": "9s"}}, "effect-proves-nothing"),
    ],
)
def test_what_cannot_be_killed_or_seen_is_bad_input(cluster: FakeCluster, changes: Json, slug: str) -> None:
    with pytest.raises(BadInput) as caught:
        FAULT.plan(spec(**changes), "shop", cluster)
    assert caught.value.slug == slug
    assert caught.value.exit_code == 64


@pytest.mark.parametrize("owners", [[], [{"kind": "Node", "name": "n", "uid": "n", "controller": True}]], ids=str)
def test_pods_that_would_not_come_back_are_refused(cluster: FakeCluster, owners: list[Json]) -> None:
    cluster.put({"kind": "Node", "metadata": {"name": "n", "uid": "n"}})
    cluster.put(pod(9, ownerReferences=owners))
    with pytest.raises(Refused) as caught:
        FAULT.plan(spec(target=None, labels={"app": "web"}), "shop", cluster)
    assert caught.value.slug == "pod-without-controller"
    assert "web-9" in caught.value.fact


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": {"app": "web"}}, "exactly one of `target` and `labels`"),
        ({"target": None}, "exactly one of `target` and `labels`"),
        ({"percent": 10}, "exactly one of `count` and `percent`"),
        ({"count": None}, "exactly one of `count` and `percent`"),
        ({"count": 0}, "greater than or equal to 1"),
        ({"count": None, "percent": 0}, "greater than 0"),
        ({"count": None, "percent": 101}, "less than or equal to 100"),
        ({"target": None, "labels": {"app,role": "web"}}, "pattern"),
        ({"target": None, "labels": {"app": "a)b"}}, "pattern"),
    ],
)
def test_what_makes_no_sense_is_bad_input(changes: Json, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec(**changes)


@pytest.mark.parametrize(
    ("when", "times"),
    [
        ({}, [{"at": 0.0}, {"at": 20.0}, {"at": 40.0}]),
        ({"at": "5s"}, [{"at": 5.0}, {"at": 25.0}, {"at": 45.0}]),
        ({"after": "memory.effective + 5s"},
         [{"after": f"memory.effective + {seconds}s"} for seconds in (5, 25, 45)]),
    ],
)  # fmt: skip
def test_a_kill_that_is_repeated_is_several_faults(when: Json, times: list[Json]) -> None:
    many = spec(every="20s", times=3, effect={"ready_at_most": 3, "within": "9s"}, **when).rounds()
    assert [one.id for one in many] == ["kill", "kill-2", "kill-3"]
    assert [{key: getattr(one, key) for key in time} for one, time in zip(many, times, strict=True)] == times
    assert [(one.effect.ready_at_most, one.effect.within) for one in many] == [(3, 9.0), (None, 9.0), (None, 9.0)]
    assert [one.rounds() for one in many] == [(one,) for one in many], "each is injected once"


def test_a_kill_that_is_due_later_draws_anew_where_one_of_its_pods_is_gone(cluster: FakeCluster) -> None:
    first = FAULT.plan(spec(seed=7), "shop", cluster)
    assert FAULT.choose(first.undo, cluster) is None, "the plan stands"
    gone = first.undo["pods"][0]["name"]
    cluster.drop(Ref("Pod", "shop", gone))
    cluster.put(pod(7))
    again = FAULT.choose(first.undo, cluster)
    assert again is not None
    living = {one["metadata"]["uid"] for one in cluster.list("Pod", "shop")}
    assert {one["uid"] for one in again.undo["pods"]} <= living
    assert (again.pods, again.targets) == (first.pods, first.targets)
    assert {**again.undo, "pods": None} == {**first.undo, "pods": None}, "what it is compared with stays"
    assert {change.before for change in again.changes} == {one["uid"] for one in again.undo["pods"]}


def test_a_kill_that_is_due_later_wants_as_many_pods_as_were_planned(cluster: FakeCluster) -> None:
    undo = FAULT.plan(spec(count=5), "shop", cluster).undo
    cluster.drop(Ref("Pod", "shop", "web-0"))
    cluster.put(pod(1, deletionTimestamp="2026-01-01T00:00:00Z"))
    with pytest.raises(Conflict) as caught:
        FAULT.choose(undo, cluster)
    assert (caught.value.slug, "5 pods of app=web are to be killed, and 3 live" in caught.value.fact) == (
        "too-few-pods", True,
    )  # fmt: skip


def test_a_kill_that_is_due_later_proves_nothing_where_few_are_ready_before_it(cluster: FakeCluster) -> None:
    undo = FAULT.plan(spec(effect={"ready_at_most": 3, "within": "9s"}), "shop", cluster).undo
    for number in range(2):
        cluster.put(pod(number, ready=False))
    with pytest.raises(Conflict) as caught:
        FAULT.choose(undo, cluster)
    assert caught.value.slug == "effect-proves-nothing"


def test_a_kill_that_is_due_later_never_kills_what_would_not_come_back(cluster: FakeCluster) -> None:
    undo = FAULT.plan(spec(target=None, labels={"app": "web"}, count=5), "shop", cluster).undo
    cluster.drop(Ref("Pod", "shop", "web-0"))
    cluster.put(pod(9, ownerReferences=[]))
    with pytest.raises(Refused) as caught:
        FAULT.choose(undo, cluster)
    assert caught.value.slug == "pod-without-controller"


def test_one_pod_that_changed_keeps_none_of_the_others_from_being_killed(cluster: FakeCluster) -> None:
    undo = FAULT.plan(spec(), "shop", cluster).undo
    versions = fence.look(FAULT, undo, cluster)
    first = undo["pods"][0]["name"]
    cluster.put(pod(int(first[-1]), ready=False))
    with pytest.raises(Conflict):
        fence.apply(FAULT, undo, cluster, versions)
    left = {one["metadata"]["name"] for one in cluster.list("Pod", "shop")}
    assert left & {one["name"] for one in undo["pods"]} == {first}
    fence.apply(FAULT, undo, cluster, fence.look(FAULT, undo, cluster))
    assert len(cluster.list("Pod", "shop")) == 3


def test_a_new_pod_of_the_same_name_is_not_killed(cluster: FakeCluster) -> None:
    undo = FAULT.plan(spec(), "shop", cluster).undo
    number = int(undo["pods"][0]["name"][-1])
    cluster.drop(Ref("Pod", "shop", f"web-{number}"))
    cluster.put(pod(number, uid="another"))
    FAULT.apply(undo, cluster)
    assert "another" in {one["metadata"]["uid"] for one in cluster.list("Pod", "shop")}


def test_fewer_ready_pods_than_before_are_a_difference(cluster: FakeCluster) -> None:
    undo = FAULT.plan(spec(target=None, labels={"app": "web"}), "shop", cluster).undo
    FAULT.apply(undo, cluster)
    (told,) = FAULT.differences(undo, cluster)
    assert "3 pods of app=web in shop are ready, and 5 were" in told
    for number in (7, 8):
        cluster.put(pod(number))
    assert FAULT.differences(undo, cluster) == ()


def test_a_workload_that_was_changed_meanwhile_is_a_difference(cluster: FakeCluster) -> None:
    undo = FAULT.plan(spec(), "shop", cluster).undo
    body = cluster.get(Ref("Deployment", "shop", "web"))
    cluster.put({**body, "spec": {**body["spec"], "paused": True}})
    assert any("paused" in one and title(body) in one for one in FAULT.differences(undo, cluster))


def seen(seq: int, at: float, *pods: tuple[str, bool]) -> tuple[Record, PodsSeen]:
    states = tuple(PodState(name=uid, uid=uid, ready=ready, restarts=0) for uid, ready in pods)
    event = PodsSeen(fault="kill", pods=states)
    return Record(seq=seq, at=at, event=event), event


UNDO = {"pods": [{"name": "a", "uid": "a"}, {"name": "b", "uid": "b"}]}
INJECTED = Bounds(earliest=10.0, latest=10.2)
BOTH = frozenset({"a", "b"})


def test_the_proof_needs_every_chosen_pod_to_be_gone() -> None:
    whole = seen(1, 10.1, ("a", True), ("b", True), ("c", True))
    half = seen(2, 10.3, ("b", True), ("c", True))
    leaving = seen(3, 10.4, ("b", False), ("c", True))
    gone = seen(4, 11.0, ("c", True), ("d", True))
    for evidence in ([whole], [whole, half], [whole, half, leaving]):
        assert FAULT.proof(spec(), Evidence(INJECTED, evidence, undo=UNDO, deleted=BOTH)) is None
    proof = FAULT.proof(spec(), Evidence(INJECTED, [whole, half, leaving, gone], undo=UNDO, deleted=BOTH))
    assert proof is not None
    assert (proof.at, proof.evidence) == (Bounds(earliest=10.0, latest=11.0), (1, 4))


def test_where_few_must_be_ready_that_must_be_seen_too() -> None:
    few = spec(effect={"ready_at_most": 1, "within": "60s"})
    gone = seen(4, 11.0, ("c", True), ("d", True))
    low = seen(3, 10.5, ("c", True), ("d", False))
    assert FAULT.proof(few, Evidence(INJECTED, [gone], undo=UNDO, deleted=BOTH)) is None
    proof = FAULT.proof(few, Evidence(INJECTED, [low, gone], undo=UNDO, deleted=BOTH))
    assert proof is not None
    assert proof.proof == "2 pods were killed and are gone, 1 left ready (pod status)"
    assert proof.at.latest == 10.5, "the first look that shows both"
    early = seen(0, 9.0, ("c", True))
    assert FAULT.proof(few, Evidence(INJECTED, [early], undo=UNDO, deleted=BOTH)) is None


def test_pods_that_somebody_else_took_away_are_no_kills(cluster: FakeCluster) -> None:
    undo = FAULT.plan(spec(), "shop", cluster).undo
    evicted, late = (Ref("Pod", "shop", one["name"]) for one in undo["pods"])
    cluster.drop(evicted)
    versions, landed = fence.look(FAULT, undo, cluster), fence.Landed()
    fence.apply(FAULT, undo, cluster, versions, landed)
    assert fence.deleted(landed) == (undo["pods"][1]["uid"],)
    gone = [seen(4, 11.0, ("c", True))]
    assert FAULT.proof(spec(), Evidence(INJECTED, gone, undo=undo, deleted=frozenset(fence.deleted(landed)))) is None
    assert late not in {Ref("Pod", "shop", one["metadata"]["name"]) for one in cluster.list("Pod", "shop")}


def test_a_pod_that_leaves_between_the_look_and_the_deletion_is_no_kill(cluster: FakeCluster) -> None:
    undo = FAULT.plan(spec(), "shop", cluster).undo
    versions, landed = fence.look(FAULT, undo, cluster), fence.Landed()

    class Racing(FakeCluster):
        """Somebody else's deletion arrives just before."""

        def delete(self, ref: Ref, **given: Any) -> bool:
            self.drop(ref)
            return super().delete(ref, **given)

    cluster.__class__ = Racing
    fence.apply(FAULT, undo, cluster, versions, landed)
    assert fence.deleted(landed) == ()


def test_where_a_reply_was_lost_whoever_was_there_may_have_been_killed() -> None:
    there, gone = seen(1, 10.1, ("b", True), ("c", True)), seen(4, 11.0, ("c", True))
    told: dict[str, Any] = {"undo": UNDO, "deleted": frozenset({"a"}), "replied": False}
    assert FAULT.proof(spec(), Evidence(INJECTED, [there, gone], **told)) is not None
    assert FAULT.proof(spec(), Evidence(INJECTED, [gone], **told)) is None
