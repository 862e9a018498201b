"""The fault `secret` on the fake cluster: what it moves, what it leaves, and that no value passes through it."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from harness.core.clock import Bounds
from harness.core.errors import BadInput, DrillError, Refused
from harness.core.evidence import Evidence, Proof
from harness.core.ownership import members
from harness.core.snapshot import fingerprint
from harness.engine.guards import check_owners
from harness.faults.secret import GARBAGE, MARK, PUT_BACK, Secret, SecretSpec
from harness.ports.cluster import Conflict, Forbidden, OutcomeUnknown, Ref
from tests.fakes.cluster import FakeCluster, lost_reply
from tests.hands import hand

NAMESPACE = "shop"
FAULT = Secret()
KEYS = Ref("Secret", NAMESPACE, "llm-key")
ADAPTER = Ref("Deployment", NAMESPACE, "adapter")
VALUE = b"the-value-that-must-not-leave-0123456789"
OTHER = b"what-the-other-key-opens"
HOWS = ["revoke", "rotate", "remove", "garble"]
every_way = pytest.mark.parametrize("how", HOWS)
PARKED = {"revoke": "revoked-drill.key", "rotate": "drill-kept.key", "remove": "drill-kept.key"}
PARKED["garble"] = PARKED["rotate"]


def spec(**changes: Any) -> SecretSpec:
    data = {
        "id": "auth",
        "kind": "secret",
        "secret": "llm-key",
        "key": "key",
        "how": "revoke",
        "consumers": ["deployment/adapter"],
        "effect": {"query": "rate(errors[10s])", "above": 0.5, "within": "30s"},
        "blast_radius": {"pods": 2},
        **changes,
    }
    return SecretSpec.model_validate(data)


def env(**source: Any) -> dict[str, Any]:
    return {"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "llm-key", "key": "key", **source}}}]}


def adapter(**container: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 2)
    main = {"name": "main", "image": "main:1", **(container or env())}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "adapter", "namespace": NAMESPACE},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "adapter"}},
            "template": {"metadata": {"labels": {"app": "adapter"}}, "spec": {"containers": [main]}},
        },
        "status": {"observedGeneration": 99, **counts},
    }


def pod(name: str, *, restarts: int = 0, owner: str = "adapter-5f", template: str = "5f") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "namespace": NAMESPACE,
            "labels": {"app": "adapter", "pod-template-hash": template},
            "ownerReferences": [{"kind": "ReplicaSet", "name": owner, "uid": "rs", "controller": True}],
        },
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "main", "restartCount": restarts}],
        },
    }


class Clock:
    now = 1000.0


def world(**data: bytes) -> FakeCluster:
    """The Secret, written by somebody, and a consumer with two pods."""
    cluster = FakeCluster(now=lambda: Clock.now)
    found = {"key": VALUE, "other": OTHER, **data}
    encoded = {name: base64.b64encode(value).decode() for name, value in found.items()}
    meta = {"name": KEYS.name, "namespace": NAMESPACE, "labels": {"app": "llm"}}
    cluster.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": encoded, "type": "Opaque"})
    cluster.put(adapter())
    # Owner of all pods, so that none of them is collected.
    cluster.put({"kind": "ReplicaSet", "metadata": {"name": "adapter-5f", "namespace": NAMESPACE, "uid": "rs"}})
    for name in ("one", "two"):
        cluster.put(pod(name))
    return cluster


def whole(cluster: FakeCluster) -> dict[str, Any]:
    """The Secret as somebody with kubectl sees it, without what only a server writes."""
    body = hand(cluster).read(KEYS)
    for name in ("resourceVersion", "managedFields"):
        body["metadata"].pop(name)
    return body


def values(cluster: FakeCluster) -> dict[str, bytes]:
    return {name: base64.b64decode(text) for name, text in hand(cluster).read(KEYS)["data"].items()}


def planned(cluster: FakeCluster, **changes: Any) -> dict[str, Any]:
    """The undo record, as it looks after a journey through JSON."""
    record: dict[str, Any] = json.loads(json.dumps(FAULT.plan(spec(**changes), NAMESPACE, cluster).undo))
    return record


def uids(cluster: FakeCluster) -> set[str]:
    return {one["metadata"]["uid"] for one in cluster.listing("Pod", NAMESPACE)}


@every_way
def test_the_value_waits_under_another_name_and_comes_back_to_the_byte(how: str) -> None:
    cluster = world()
    before = whole(cluster)
    undo = planned(cluster, how=how)
    FAULT.apply(undo, cluster)
    broken = values(cluster)
    assert broken[PARKED[how]] == VALUE
    assert broken["other"] == OTHER
    assert broken.get("key") != VALUE
    assert ("key" in broken) == (how in {"rotate", "garble"})
    assert [FAULT.undo(undo, cluster).outcome for _ in range(2)] == ["restored", "already"]
    assert whole(cluster) == before
    assert FAULT.differences(undo, cluster) == ()


def test_a_rotated_value_is_well_formed_and_never_the_same_and_a_garbled_one_is_neither() -> None:
    made = set()
    for _ in range(3):
        cluster = world()
        FAULT.apply(planned(cluster, how="rotate"), cluster)
        made.add(values(cluster)["key"])
    assert len(made) == 3
    assert all(re.fullmatch(rb"[A-Za-z0-9_-]{32,128}", one) for one in made)
    cluster = world()
    FAULT.apply(planned(cluster, how="garble"), cluster)
    assert values(cluster)["key"] == GARBAGE.encode()
    assert not re.fullmatch(rb"[A-Za-z0-9_-]{32,128}", GARBAGE.encode())


@every_way
def test_no_value_is_in_what_is_sent_told_or_kept(how: str) -> None:
    cluster = world()
    plan = FAULT.plan(spec(how=how, replacement="discard"), NAMESPACE, cluster)
    undo = json.loads(json.dumps(plan.undo))
    FAULT.apply(undo, cluster)
    rotated = values(cluster).get("key", b"")
    hand(cluster).write(KEYS, "key", b"what-a-responder-put-there")
    told = [plan, undo, *FAULT.differences(undo, cluster), FAULT.undo(undo, cluster)]
    sent = [call.body for call in cluster.calls if call.ref == KEYS and call.verb == "patch"]
    for value in (VALUE, OTHER, b"what-a-responder-put-there"):
        for spelled in (value.decode(), base64.b64encode(value).decode()):
            assert spelled not in str(told)
            assert spelled not in str(sent)
    if how == "rotate":
        assert base64.b64encode(rotated).decode() not in str(told)
        assert rotated.decode() not in str(told)


@every_way
def test_repeating_it_writes_once(how: str) -> None:
    cluster = world()
    undo = planned(cluster, how=how)
    FAULT.apply(undo, cluster)
    first = values(cluster)
    FAULT.apply(undo, cluster)
    assert values(cluster) == first


@every_way
def test_undo_without_apply_and_a_dry_run_change_nothing(how: str) -> None:
    cluster = world()
    undo = planned(cluster, how=how)
    FAULT.apply(undo, cluster, dry_run=True)
    assert FAULT.undo(undo, cluster).outcome == "already"
    assert not cluster.writes()


@every_way
def test_it_can_be_planned_again_after_it_was_brought_back(how: str) -> None:
    """By then a drill is the writer of the key."""
    cluster = world()
    before = whole(cluster)
    for _ in range(3):
        undo = planned(cluster, how=how)
        assert FAULT.undo(undo, cluster).outcome == "already"
        FAULT.apply(undo, cluster)
        assert FAULT.undo(undo, cluster).outcome == "restored"
        assert whole(cluster) == before
        Clock.now += 10


@every_way
@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("value", [b"somebody else's", None])
def test_apply_refuses_a_key_that_changed_since_the_plan(how: str, value: bytes | None, *, dry_run: bool) -> None:
    cluster = world()
    undo = planned(cluster, how=how)
    Clock.now += 10
    hand(cluster).write(KEYS, "key", value)
    before = whole(cluster)
    with pytest.raises(Conflict):
        FAULT.apply(undo, cluster, dry_run=dry_run)
    assert whole(cluster) == before


def test_apply_refuses_a_secret_that_changes_between_the_look_and_the_write() -> None:
    cluster = world()
    undo = planned(cluster)

    class Racing(FakeCluster):
        """Somebody writes just after the look."""

        def patch(self, ref: Ref, operations: Any, **given: Any) -> Any:
            hand(self).write(KEYS, "key", b"raced")
            return super().patch(ref, operations, **given)

    cluster.__class__ = Racing
    with pytest.raises(Conflict):
        FAULT.apply(undo, cluster)
    assert values(cluster) == {"key": b"raced", "other": OTHER}


# What a responder put under the key


@every_way
def test_a_replacement_is_kept_and_told_unless_forced(how: str) -> None:
    cluster = world()
    before = whole(cluster)
    undo = planned(cluster, how=how)
    FAULT.apply(undo, cluster)
    hand(cluster).write(KEYS, "key", b"the-cure")
    refused = FAULT.undo(undo, cluster)
    assert refused.outcome == "refused"
    assert "holds somebody else's value" in refused.detail
    assert PARKED[how] in refused.detail
    assert (values(cluster)["key"], values(cluster)[PARKED[how]]) == (b"the-cure", VALUE)
    with pytest.raises(Conflict):
        FAULT.apply(undo, cluster)
    assert any("holds somebody else's value" in one for one in FAULT.differences(undo, cluster))
    assert FAULT.undo(undo, cluster, force=True).outcome == "restored"
    assert whole(cluster) == before


@every_way
@pytest.mark.parametrize("value", [b"the-cure", VALUE])
def test_a_replacement_is_discarded_where_that_was_declared(how: str, value: bytes) -> None:
    """Also where it is the very value that was there before."""
    cluster = world()
    before = whole(cluster)
    undo = planned(cluster, how=how, replacement="discard")
    FAULT.apply(undo, cluster)
    Clock.now += 10
    hand(cluster).write(KEYS, "key", value)
    done = FAULT.undo(undo, cluster)
    assert done.outcome == "restored"
    assert "was discarded" in done.detail
    assert whole(cluster) == before
    assert FAULT.undo(undo, cluster).outcome == "already"
    assert FAULT.differences(undo, cluster) == ()


@pytest.mark.parametrize(("replacement", "words"), [("keep", "kept, and the undo refused"), ("discard", "discarded")])
def test_the_plan_says_what_becomes_of_a_replacement(replacement: str, words: str) -> None:
    assert words in FAULT.plan(spec(replacement=replacement), NAMESPACE, world()).summary


@pytest.mark.parametrize("how", ["rotate", "garble"])
def test_the_drills_own_value_taken_away_is_no_replacement(how: str) -> None:
    cluster = world()
    before = whole(cluster)
    undo = planned(cluster, how=how)
    FAULT.apply(undo, cluster)
    hand(cluster).write(KEYS, "key", None)
    assert FAULT.undo(undo, cluster).outcome == "restored"
    assert whole(cluster) == before


@every_way
@pytest.mark.parametrize("cure", [b"the-cure", None])
@pytest.mark.parametrize("tampered", [None, b"tampered with"])
def test_a_value_that_was_taken_away_is_said_to_be_lost(how: str, cure: bytes | None, tampered: bytes | None) -> None:
    cluster = world()
    undo = planned(cluster, how=how, replacement="discard")
    FAULT.apply(undo, cluster)
    hand(cluster).write(KEYS, PARKED[how], tampered)
    hand(cluster).write(KEYS, "key", cure)
    before = values(cluster)
    refused = FAULT.undo(undo, cluster)
    assert refused.outcome == "refused"
    assert "what was there before is lost to the drill" in refused.detail
    assert ("holds somebody else's value" if cure else "key is gone") in refused.detail
    assert values(cluster) == before
    assert FAULT.differences(undo, cluster)
    taken = FAULT.undo(undo, cluster, force=True)
    assert (taken.outcome, "taken as it is" in taken.detail) == ("already", True)
    assert values(cluster) == before
    assert not any(name.startswith(MARK) for name in cluster.get(KEYS)["metadata"]["labels"])


@pytest.mark.parametrize("how", ["rotate", "garble"])
def test_a_drills_own_value_without_the_one_that_was_there_is_no_way_back(how: str) -> None:
    cluster = world()
    undo = planned(cluster, how=how)
    FAULT.apply(undo, cluster)
    hand(cluster).write(KEYS, PARKED[how], None)
    refused = FAULT.undo(undo, cluster)
    assert (refused.outcome, "holds a value of a drill" in refused.detail) == ("refused", True)


@pytest.mark.parametrize("how", ["rotate", "garble"])
@pytest.mark.parametrize("drilled_before", [False, True])
def test_a_drills_own_value_is_not_taken_for_the_former_one_where_somebody_tidied_up(
    how: str, *, drilled_before: bool
) -> None:
    """The name under which the value waited and the mark are gone, and no undo has been there."""
    cluster = world()
    if drilled_before:
        earlier = planned(cluster, how=how)
        FAULT.apply(earlier, cluster)
        assert FAULT.undo(earlier, cluster).outcome == "restored"
    undo = planned(cluster, how=how)
    FAULT.apply(undo, cluster)
    broken = hand(cluster).read(KEYS)
    broken["data"].pop(undo["parked"])
    broken["metadata"]["labels"].pop(undo["mark"])
    cluster.put(broken)
    refused = FAULT.undo(undo, cluster)
    assert (refused.outcome, "holds a value of a drill" in refused.detail) == ("refused", True)
    assert any("holds a value of a drill" in one for one in FAULT.differences(undo, cluster))
    with pytest.raises(Conflict):
        FAULT.apply(undo, cluster)


def test_the_whole_secret_written_anew_under_the_fault_is_not_taken_for_clean() -> None:
    """As by `kubectl replace`: neither the parked value nor the mark is left."""
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    body = hand(cluster).read(KEYS)
    body["metadata"]["labels"] = {"app": "llm"}
    Clock.now += 10
    cluster.put({**body, "data": {"key": "bmV3", "other": body["data"]["other"]}})
    assert FAULT.undo(undo, cluster).outcome == "refused"
    assert any("somebody else's value" in one for one in FAULT.differences(undo, cluster))


def test_a_vanished_a_replaced_and_a_copied_secret_are_told_apart() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    broken = hand(cluster).read(KEYS)
    cluster.drop(KEYS)
    assert FAULT.undo(undo, cluster).outcome == "vanished"
    assert FAULT.differences(undo, cluster) == ("secret/llm-key in shop no longer exists",)
    fresh = {key: value for key, value in broken["metadata"].items() if key not in {"uid", "labels"}}
    cluster.put({**broken, "metadata": fresh, "data": {"key": "bmV3"}})
    assert FAULT.undo(undo, cluster, force=True).outcome == "vanished"
    with pytest.raises(Conflict):
        FAULT.apply(undo, cluster)
    cluster.drop(KEYS)
    broken["metadata"].pop("uid")
    cluster.put(broken)
    copied = FAULT.undo(undo, cluster, force=True)
    assert copied.outcome == "refused"
    assert "carries what the drill left" in copied.detail


def test_undo_gives_up_on_a_secret_that_never_stands_still() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    cluster.fail_next("patch", Conflict("raced", "it changed", expected="no change", remedy="look"), times=5)
    outcome = FAULT.undo(undo, cluster)
    assert outcome.outcome == "refused"
    assert "kept changing" in outcome.detail


# Pods


@every_way
def test_exactly_the_pods_that_were_started_meanwhile_are_replaced(how: str) -> None:
    cluster = world()
    undo = planned(cluster, how=how)
    FAULT.apply(undo, cluster)
    cluster.drop(Ref("Pod", NAMESPACE, "one"))
    cluster.put(pod("new"))
    cluster.put(pod("two", restarts=1))
    cluster.put(pod("three", template="6a", owner="adapter-6a"))
    strangers = [pod("theirs", owner="other-5f"), pod("bare"), pod("job")]
    strangers[1]["metadata"]["ownerReferences"] = []
    strangers[2]["metadata"]["ownerReferences"][0]["controller"] = False
    leaving = pod("leaving")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    for one in (*strangers, leaving):
        cluster.put(one)
    kept = {"uid-theirs", "uid-bare", "uid-job", "uid-leaving"}
    done = FAULT.undo(undo, cluster)
    assert uids(cluster) == kept
    assert "3 pod(s) that were started meanwhile are replaced" in done.detail
    assert all(call.body for call in cluster.writes() if call.verb == "delete"), "each with its uid"


def test_pods_that_kept_the_value_are_left_alone() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    assert FAULT.undo(undo, cluster).outcome == "restored"
    assert uids(cluster) == {"uid-one", "uid-two"}


def test_who_comes_after_a_death_between_the_move_and_the_deletions_finishes_it() -> None:
    cluster = world()
    before = whole(cluster)
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    cluster.put(pod("new"))
    cluster.fail_next("delete", OutcomeUnknown("lost", "lost", expected="a reply", remedy="read"))
    with pytest.raises(OutcomeUnknown):
        FAULT.undo(undo, cluster)
    assert values(cluster)["key"] == VALUE
    assert "uid-new" in uids(cluster)
    found = FAULT.differences(undo, cluster)
    assert any("1 pod(s) were started while key was another" in one for one in found)
    assert any(f"marked as {PUT_BACK}" in one for one in found)
    with pytest.raises(Conflict):
        FAULT.apply(undo, cluster)
    assert FAULT.undo(undo, cluster).outcome == "restored"
    assert uids(cluster) == {"uid-one", "uid-two"}
    assert whole(cluster) == before
    assert FAULT.undo(undo, cluster).outcome == "already"


def test_a_pod_that_became_another_meanwhile_is_not_deleted() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    cluster.put(pod("new"))
    other = Conflict("precondition-failed", "another uid", expected="that one", remedy="look")
    cluster.fail_next("delete", other)
    assert FAULT.undo(undo, cluster).outcome == "restored"
    assert "uid-new" in uids(cluster)


def test_pods_of_a_stateful_set_are_known_by_its_uid() -> None:
    cluster = world()
    body = adapter() | {"kind": "StatefulSet"}
    body["metadata"]["uid"] = "set-uid"
    cluster.put(body)
    for name, owner in (("own", "set-uid"), ("theirs", "another")):
        one = pod(name)
        one["metadata"]["ownerReferences"] = [{"kind": "StatefulSet", "name": "x", "uid": owner, "controller": True}]
        cluster.put(one)
    undo = planned(cluster, consumers=["statefulset/adapter"])
    assert list(undo["consumers"][0]["pods"]) == ["uid-own"]


def test_a_consumer_that_is_not_well_is_a_difference() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    FAULT.undo(undo, cluster)
    assert FAULT.differences(undo, cluster) == ()
    cluster.drop(Ref("Pod", NAMESPACE, "one"))
    assert FAULT.differences(undo, cluster) == ("deployment/adapter in shop: 1 of 2 pods are ready",)
    body = cluster.get(ADAPTER)
    body["status"]["readyReplicas"] = 1
    cluster.put(body)
    assert FAULT.differences(undo, cluster) == ("deployment/adapter in shop: rollout not finished (1 of 2 ready)",)
    cluster.drop(ADAPTER)
    assert FAULT.differences(undo, cluster) == ("deployment/adapter in shop no longer exists",)


def test_without_consumers_no_pod_is_looked_at() -> None:
    cluster = world()
    undo = planned(cluster, consumers=[])
    FAULT.apply(undo, cluster)
    cluster.put(pod("new"))
    assert FAULT.undo(undo, cluster).outcome == "restored"
    assert uids(cluster) == {"uid-one", "uid-two", "uid-new"}
    assert {call.ref.kind for call in cluster.calls} == {"Secret"}


def test_an_undo_that_may_not_delete_pods_goes_on_once_somebody_may() -> None:
    cluster = world()
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    cluster.put(pod("new"))
    poor = cluster.as_user("poor")
    poor.denied.add(("delete", "Pod"))
    with pytest.raises(Forbidden):
        FAULT.undo(undo, poor)
    assert FAULT.undo(undo, cluster).outcome == "restored"
    assert uids(cluster) == {"uid-one", "uid-two"}


# Differences


def test_differences_name_keys_labels_and_annotations_and_no_value() -> None:
    cluster = world()
    undo = planned(cluster)
    body = hand(cluster).read(KEYS)
    copy = {"kubectl.kubernetes.io/last-applied-configuration": VALUE.decode()}
    body["metadata"] |= {"labels": {"app": "other"}, "annotations": copy}
    cluster.put({**body, "data": {"key": body["data"]["key"], "more": "bW9yZQ=="}})
    found = FAULT.differences(undo, cluster)
    assert "secret/llm-key in shop: data key other is gone" in found
    assert "secret/llm-key in shop: data key more was added" in found
    assert any('metadata.labels.app: "llm" -> "other"' in one for one in found)
    assert any("metadata.annotations" in one for one in found)
    assert VALUE.decode() not in str(found)
    assert fingerprint(VALUE.decode()) in str(cluster.get(KEYS))


@every_way
def test_while_it_is_in_force_it_differs(how: str) -> None:
    cluster = world()
    undo = planned(cluster, how=how)
    FAULT.apply(undo, cluster)
    found = " ".join(FAULT.differences(undo, cluster))
    assert f"data key {PARKED[how]} was added" in found
    assert ("holds a value of a drill" if how in {"rotate", "garble"} else "data key key is gone") in found


# Refusals


def refused(kind: type[DrillError], slug: str, cluster: FakeCluster, **changes: Any) -> DrillError:
    with pytest.raises(kind) as caught:
        FAULT.plan(spec(**changes), NAMESPACE, cluster)
    assert caught.value.slug == slug
    assert caught.value.expected
    assert caught.value.remedy
    assert not cluster.writes()
    return caught.value


@pytest.mark.parametrize(
    ("changes", "slug"),
    [
        ({"secret": "nothing"}, "target-missing"),
        ({"key": "none"}, "key-missing"),
        ({"consumers": ["deployment/nobody"]}, "target-missing"),
        ({"consumers": ["statefulset/adapter"]}, "target-missing"),
    ],
)
def test_bad_input_has_its_message_and_changes_nothing(changes: dict[str, Any], slug: str) -> None:
    refused(BadInput, slug, world(), **changes)


def test_a_key_that_is_not_there_is_told_with_those_that_are() -> None:
    assert refused(BadInput, "key-missing", world(), key="none").expected == "one of: key, other"


@pytest.mark.parametrize(
    "container",
    [env(key="other"), env(name="other"), {"envFrom": [{"configMapRef": {"name": "llm-key"}}]}, {"env": []}],
)
def test_a_consumer_that_does_not_take_the_key_is_bad_input(container: dict[str, Any]) -> None:
    cluster = world()
    cluster.put(adapter(**container))
    refused(BadInput, "consumer-without-key", cluster)


def test_a_consumer_that_takes_all_keys_or_takes_it_at_its_start_is_one() -> None:
    cluster = world()
    cluster.put(adapter(envFrom=[{"secretRef": {"name": "llm-key"}}]))
    planned(cluster)
    body = adapter(env=[])
    body["spec"]["template"]["spec"]["initContainers"] = [{"name": "first", **env()}]
    cluster.put(body)
    planned(cluster)


def test_a_consumer_that_is_not_at_rest_is_refused() -> None:
    cluster = world()
    body = adapter()
    body["status"]["updatedReplicas"] = 1
    cluster.put(body)
    refused(Refused, "rollout-in-progress", cluster)


def test_a_key_whose_writers_nobody_noted_is_refused() -> None:
    cluster = world()
    hidden = cluster.peek(KEYS)
    hidden["metadata"]["managedFields"] = []
    refused(Refused, "secret-untracked", cluster)


@pytest.mark.parametrize("name", ["drill-kept.key", "revoked-drill.key"])
def test_what_an_earlier_drill_left_is_not_written_over(name: str) -> None:
    cluster = world(**{name: b"left"})
    assert name in refused(Refused, "secret-already-drilled", cluster).fact


def test_a_mark_that_an_earlier_drill_left_is_refused() -> None:
    cluster = world()
    mark = planned(cluster)["mark"]
    body = hand(cluster).read(KEYS)
    body["metadata"]["labels"][mark] = PUT_BACK
    cluster.put(body)
    assert mark in refused(Refused, "secret-already-drilled", cluster).fact


@pytest.mark.parametrize("manager", ["externalsecrets.external-secrets.io/llm", "vault-secrets-operator"])
def test_a_key_that_is_copied_from_a_store_is_refused(manager: str) -> None:
    cluster = world()
    cluster.peek(KEYS)["metadata"]["managedFields"][0]["manager"] = manager
    plan = FAULT.plan(spec(), NAMESPACE, cluster)
    with pytest.raises(Refused) as caught:
        check_owners(cluster, spec(), plan)
    assert caught.value.slug == "field-owned"


@pytest.mark.parametrize(
    "changes",
    [
        {"how": "leak"},
        {"key": "a/b"},
        {"key": ""},
        {"consumers": ["daemonset/x"]},
        {"consumers": ["deployment/a", "deployment/a"]},
        {"replacement": "maybe"},
        {"effect": {"query": "x", "within": "1s"}},
        {"value": "x"},
    ],
)
def test_a_spec_that_means_nothing_is_no_spec(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec(**changes)


def test_two_keys_of_one_secret_are_broken_and_brought_back_in_any_order() -> None:
    for order in ([0, 1], [1, 0]):
        cluster = world()
        before = whole(cluster)
        undos = [planned(cluster), planned(cluster, key="other", how="rotate", consumers=[])]
        for undo in undos:
            FAULT.apply(undo, cluster)
        assert [FAULT.undo(undos[index], cluster).outcome for index in order] == ["restored"] * 2
        assert whole(cluster) == before


def test_the_plan_counts_pods_and_names_the_change() -> None:
    plan = FAULT.plan(spec(), NAMESPACE, world())
    assert (plan.pods, plan.objects, plan.targets) == (2, 1, (KEYS,))
    assert [(one.path, one.before, one.after) for one in plan.changes] == [("/data/key", "its present value", "gone")]


def test_every_call_that_it_makes_is_among_its_verbs() -> None:
    for consumers in (["deployment/adapter"], []):
        cluster = world()
        undo = planned(cluster, consumers=consumers)
        FAULT.apply(undo, cluster)
        cluster.put(pod("new"))
        FAULT.undo(undo, cluster)
        FAULT.differences(undo, cluster)
        asked = {one[:2] for one in FAULT.verbs(spec(consumers=consumers))}
        assert {(call.verb, call.ref.kind) for call in cluster.calls} == asked
        named = {one for one in FAULT.verbs(spec(consumers=consumers)) if len(one) == 3}
        assert named == {("get", "Secret", "llm-key"), ("patch", "Secret", "llm-key")}


def test_a_lost_reply_to_the_move_back_is_settled_by_looking_again() -> None:
    cluster = world()
    before = whole(cluster)
    undo = planned(cluster)
    FAULT.apply(undo, cluster)
    cluster.put(pod("new"))
    cluster.fail_next("patch", lost_reply(), after=True)
    with pytest.raises(OutcomeUnknown):
        FAULT.undo(undo, cluster)
    assert FAULT.undo(undo, cluster).outcome == "restored"
    assert whole(cluster) == before
    assert uids(cluster) == {"uid-one", "uid-two"}


def test_the_effect_is_what_is_measured() -> None:
    injected = Bounds(earliest=10.0, latest=10.2)
    assert FAULT.proof(spec(), Evidence(injected)) is None
    measured = Proof(Bounds(earliest=11.0, latest=12.0), "sampled", (7,))
    proof = FAULT.proof(spec(), Evidence(injected, measured=measured))
    assert proof is not None
    assert (proof.at, proof.evidence) == (measured.at, (7,))
    assert proof.proof == "key of secret/llm-key revoked: sampled"


def test_the_names_that_are_told_are_those_of_the_api_server() -> None:
    cluster = world()
    assert list(members(cluster.get(KEYS), "data")) == ["key", "other"]
