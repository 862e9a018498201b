"""The fault `job` on the fake cluster: what it refuses, what it makes, and when it ended by itself."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from harness.core.errors import BadInput
from harness.core.event import FaultEnded, ObjectSeen, RunEnded
from harness.core.verdict import Verdict, judge
from harness.faults.job import LONGER, MARK, STARTED, UNTIMED, Job, JobSpec
from harness.ports.cluster import Conflict, Json, NotFound, Ref
from tests.fakes.cluster import FakeCluster
from tests.fakes.comers import declared
from tests.fakes.drill import Drill, experiment_data, fired
from tests.fakes.world import NAMESPACE, World

SPEC: Json = {
    "id": "bulk",
    "kind": "job",
    "image_of": "deployment/registry",
    "command": ["/usr/bin/python3", "-m", "bulk"],
    "effect": {"query": "p50", "above": 5, "within": "90s"},
    "blast_radius": {"pods": 1},
}
FAULT = Job()


def spec(**changes: Any) -> JobSpec:
    return JobSpec.model_validate({key: value for key, value in {**SPEC, **changes}.items() if value is not None})


@pytest.fixture
def cluster() -> FakeCluster:
    made = FakeCluster(now=lambda: 0.0)
    pod = {
        "securityContext": {"runAsUser": 10001, "runAsGroup": 10002},
        "imagePullSecrets": [{"name": "registry-login"}],
        "containers": [
            {"name": "registry", "image": "registry:1", "imagePullPolicy": "IfNotPresent"},
            {"name": "side", "image": "side:2", "securityContext": {"runAsUser": 7}},
        ],
    }
    metadata = {"name": "registry", "namespace": "shop"}
    made.put({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"template": {"spec": pod}}})
    return made


def body_of(cluster: FakeCluster, **changes: Any) -> Json:
    body: Json = FAULT.plan(spec(**changes), "shop", cluster).undo["body"]
    return body


def test_it_runs_the_image_of_a_live_container_as_its_user(cluster: FakeCluster) -> None:
    pod = body_of(cluster)["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "registry:1"
    assert pod["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert pod["imagePullSecrets"] == [{"name": "registry-login"}]
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]) == (10001, 10002)
    side = body_of(cluster, container="side")["spec"]["template"]["spec"]
    assert (side["containers"][0]["image"], side["securityContext"]["runAsUser"]) == ("side:2", 7)
    named = body_of(cluster, image_of=None, image="load:3", run_as_user=5)["spec"]["template"]["spec"]
    assert (named["containers"][0]["image"], named["securityContext"]["runAsUser"]) == ("load:3", 5)


def test_it_is_made_as_the_strictest_of_the_pod_security_standards_wants_it(cluster: FakeCluster) -> None:
    pod = body_of(cluster)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert container["resources"]["limits"] == {"cpu": "200m", "memory": "64Mi"}
    writable = body_of(cluster, writable=True)["spec"]["template"]["spec"]["containers"][0]
    assert writable["securityContext"]["readOnlyRootFilesystem"] is False


def test_it_starts_nothing_before_it_is_let_run_and_ends_by_itself_at_last(cluster: FakeCluster) -> None:
    made = body_of(cluster, parallelism=3, grace="2500ms")["spec"]
    assert made["suspend"] is True
    assert (made["parallelism"], made["completions"], made["backoffLimit"]) == (3, 3, 0)
    assert "ttlSecondsAfterFinished" not in made
    assert made["template"]["spec"]["terminationGracePeriodSeconds"] == 3
    assert made["activeDeadlineSeconds"] == UNTIMED
    tuned = FAULT.plan(spec().tuned(240.0), "shop", cluster).undo["body"]["spec"]
    assert tuned["activeDeadlineSeconds"] == 240 + LONGER
    kept = FAULT.plan(spec(deadline="1h").tuned(240.0), "shop", cluster).undo["body"]["spec"]
    assert kept["activeDeadlineSeconds"] == 3600


def test_its_name_is_drawn_and_kept_in_the_record(cluster: FakeCluster) -> None:
    first, second = (FAULT.plan(spec(), "shop", cluster).undo for _ in range(2))
    assert first["name"] != second["name"]
    assert re.fullmatch(r"bulk-[0-9a-f]{8}", first["name"])
    assert first["body"]["metadata"]["labels"] == first["body"]["spec"]["template"]["metadata"]["labels"]
    assert json.loads(json.dumps(first)) == first


@pytest.mark.parametrize(
    ("changes", "slug"),
    [({"image_of": "deployment/nobody"}, "target-missing"), ({"container": "nobody"}, "container-missing")],
)
def test_an_image_of_nothing_is_bad_input(cluster: FakeCluster, changes: Json, slug: str) -> None:
    with pytest.raises(BadInput) as caught:
        FAULT.plan(spec(**changes), "shop", cluster)
    assert caught.value.slug == slug


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": "a:1"}, "exactly one image"),
        ({"image_of": None}, "exactly one image"),
        ({"image_of": None, "image": "a:1", "container": "main"}, "says nothing"),
        ({"image_of": "secret/keys"}, "pattern"),
        ({"command": []}, "at least 1 item"),
        ({"cpu": "0"}, "pattern"),
        ({"parallelism": 21}, "less than or equal to 20"),
        ({"run_as_user": 0}, "greater than or equal to 1"),
        ({"env": {"not a name": "x"}}, "pattern"),
    ],
)
def test_what_makes_no_sense_is_bad_input(changes: Json, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec(**changes)


def prepared(cluster: FakeCluster) -> tuple[Json, Ref]:
    undo = FAULT.plan(spec(), "shop", cluster).undo
    FAULT.prepare(undo, cluster)
    return undo, Ref("Job", "shop", undo["name"])


def test_one_that_was_never_let_run_is_no_difference_and_goes(cluster: FakeCluster) -> None:
    undo, ref = prepared(cluster)
    assert STARTED not in cluster.get(ref)["metadata"]["labels"]
    assert FAULT.differences(undo, cluster) == ()
    done = FAULT.undo(undo, cluster)
    assert (done.outcome, "never let run" in done.detail) == ("already", True)
    with pytest.raises(NotFound):
        cluster.get(ref)


def test_one_that_a_responder_suspended_is_not_let_run_again_and_still_goes(cluster: FakeCluster) -> None:
    undo, ref = prepared(cluster)
    FAULT.apply(undo, cluster)
    cluster.patch(ref, [{"op": "replace", "path": "/spec/suspend", "value": True}])
    FAULT.prepare(undo, cluster)
    assert cluster.get(ref)["spec"]["suspend"] is True
    assert FAULT.differences(undo, cluster) == (f"{ref} is still there",)
    assert FAULT.undo(undo, cluster).outcome == "restored"


def test_its_pods_are_waited_for(cluster: FakeCluster) -> None:
    undo, _ = prepared(cluster)
    labels = undo["body"]["spec"]["template"]["metadata"]["labels"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bulk-1", "namespace": "shop", "labels": labels}}
    cluster.put(pod)
    FAULT.undo(undo, cluster)
    assert [one for one in FAULT.differences(undo, cluster) if "pod/bulk-1" in one]
    cluster.drop(Ref("Pod", "shop", "bulk-1"))
    assert FAULT.differences(undo, cluster) == ()


def test_one_that_is_being_deleted_is_not_deleted_again(cluster: FakeCluster) -> None:
    undo, ref = prepared(cluster)
    FAULT.apply(undo, cluster)
    body = cluster.get(ref)
    cluster.put({**body, "metadata": {**body["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    assert FAULT.undo(undo, cluster).outcome == "already"
    assert FAULT.differences(undo, cluster) == (f"{ref} is still there",)


def test_another_ones_mark_is_not_ours(cluster: FakeCluster) -> None:
    undo, ref = prepared(cluster)
    cluster.patch(ref, [{"op": "replace", "path": f"/metadata/labels/{MARK.replace('/', '~1')}", "value": "other"}])
    with pytest.raises(Conflict):
        FAULT.apply(undo, cluster)
    with pytest.raises(Conflict) as caught:
        FAULT.prepare(undo, cluster)
    assert caught.value.slug == "name-taken"
    assert FAULT.undo(undo, cluster).outcome == "refused"


def seen(**fields: Any) -> ObjectSeen:
    return ObjectSeen(fault="bulk", object="job/bulk-1 in shop", uid="1", fields=fields)


FAILED: Json = {
    "status.conditions[type=Failed].status": "True",
    "status.conditions[type=Failed].reason": "BackoffLimitExceeded",
    "status.conditions[type=Failed].message": "too many",
}


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        (FAILED, "BackoffLimitExceeded: too many"),
        ({"status.conditions[type=Complete].status": "True"}, "although nobody told it to"),
        ({"status.active": 1}, ""),
        ({"spec.suspend": True}, ""),
        ({}, ""),
    ],
)
def test_what_ended_by_itself_is_told_from_what_was_cured(cluster: FakeCluster, fields: Json, word: str) -> None:
    undo = FAULT.plan(spec(), "shop", cluster).undo
    why = FAULT.ended(undo, seen(**fields))
    assert word in why
    assert bool(why) == bool(word)


@pytest.mark.parametrize("after", [None, 3.0], ids=["before the firing", "after it"])
def test_a_run_whose_job_ends_by_itself_is_aborted_and_never_met(after: float | None) -> None:
    drill = Drill(data=experiment_data("job"))
    before = declared(drill.world)

    def end(world: World) -> None:
        (job,) = world.cluster.listing("Job", NAMESPACE)
        world.cluster.put({**job, "status": {"conditions": [{"type": "Complete", "status": "True"}]}})

    drill.feed.when(fired(after) if after is not None else lambda world: world.bulk, end)
    history = drill.run()
    (over,) = history.all(FaultEnded)
    ended = history.last(RunEnded)
    assert ended is not None
    assert ended.reason == "aborted"
    assert over.detail in ended.detail
    assert "ended by itself" in ended.detail
    assert judge(drill.experiment, history).verdict is not Verdict.MET
    assert declared(drill.world) == before
