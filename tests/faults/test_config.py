"""The fault `config`: what it refuses, what it writes, how it goes back, and what proves it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from harness.core.clock import Bounds
from harness.core.errors import BadInput, DrillError, Refused
from harness.core.evidence import Evidence, Proof
from harness.core.snapshot import fingerprint
from harness.faults.config import RESTART, Config, ConfigSpec
from harness.ports.cluster import Conflict, Json, Ref
from harness.ports.fault import Fault
from tests.fakes.cluster import FakeCluster

NAMESPACE = "shop"
MAP, READER, SHARD = (Ref(*one) for one in (
    ("ConfigMap", NAMESPACE, "settings"), ("Deployment", NAMESPACE, "reader"), ("StatefulSet", NAMESPACE, "shard"),
))  # fmt: skip
FAULT = Config()
EFFECT = {"query": "depth", "above": 30, "within": "60s"}
ENV = [
    {"name": "MODE", "value": "fast"},
    {"name": "BATCH", "value": "10"},
    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    {"name": "POOL", "valueFrom": {"secretKeyRef": {"name": "pool", "key": "size"}}},
]


def spec(**changes: Any) -> ConfigSpec:
    data = {
        "id": "slow", "kind": "config", "target": "configmap/settings", "set": {"MODE": "slow"}, "effect": EFFECT,
        "blast_radius": {"pods": 5, "objects": 3}, **changes,
    }  # fmt: skip
    return ConfigSpec.model_validate(data)


def of_variables(**changes: Any) -> ConfigSpec:
    return spec(**{"target": "deployment/reader", "container": "main", **changes})


def workload(kind: str, name: str, replicas: int) -> Json:
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), replicas)
    containers = [{"name": "side", "image": "side:1"}, {"name": "main", "image": "main:1", "env": ENV}]
    body: Json = {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}},
        },
        "status": {"observedGeneration": 1, **counts},
    }
    if kind == "StatefulSet":
        body["spec"]["podManagementPolicy"] = "Parallel"
    return body


def world(**of_map: Any) -> FakeCluster:
    cluster = FakeCluster(now=lambda: 1000.0)
    cluster.put(workload("Deployment", "reader", 3))
    cluster.put(workload("StatefulSet", "shard", 2))
    meta = {"name": "settings", "namespace": NAMESPACE, **of_map.pop("metadata", {})}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"MODE": "fast", "BATCH": "10"}}
    cluster.put({**body, **of_map})
    return cluster


def planned(cluster: FakeCluster, of: ConfigSpec) -> dict[str, Any]:
    """The undo record, as it looks after a journey through JSON."""
    record: dict[str, Any] = json.loads(json.dumps(FAULT.plan(of, NAMESPACE, cluster).undo))
    return record


def bodies(cluster: FakeCluster) -> list[Json]:
    """Everything that is declared, to the letter."""
    found = []
    for ref in (MAP, READER, SHARD):
        body = cluster.get(ref)
        meta = {key: value for key, value in body["metadata"].items() if key not in {"resourceVersion", "generation"}}
        found.append({**{key: value for key, value in body.items() if key != "status"}, "metadata": meta})
    return found


def env(cluster: FakeCluster) -> list[Json]:
    found: list[Json] = cluster.get(READER)["spec"]["template"]["spec"]["containers"][1].get("env", [])
    return found


def settle(cluster: FakeCluster) -> None:
    for ref in (READER, SHARD):
        body = cluster.get(ref)
        cluster.put({**body, "status": {**body["status"], "observedGeneration": body["metadata"]["generation"]}})


RESTARTS = ["deployment/reader", "statefulset/shard"]
SPECS: dict[str, Callable[[], ConfigSpec]] = {
    "a key": spec,
    "keys that come, change and go": lambda: spec(set={"MODE": "slow", "new.one": ""}, unset=["BATCH"]),
    "all keys go": lambda: spec(set={}, unset=["BATCH", "MODE"]),
    "with restarts": lambda: spec(restart=RESTARTS),
    "a variable": of_variables,
    "variables that come, change and go": lambda: of_variables(set={"MODE": "slow", "NEW": "1"}, unset=["BATCH"]),
    "a variable that came from a field": lambda: of_variables(set={"NODE": "elsewhere"}),
    "the first variable of a container": lambda: of_variables(container="side", set={"A": "1", "B": "2"}),
}


@pytest.mark.parametrize("of", SPECS.values(), ids=SPECS)
def test_what_is_configured_goes_back_to_the_letter(of: Callable[[], ConfigSpec]) -> None:
    cluster = world()
    before, undo = bodies(cluster), planned(cluster, of())
    FAULT.apply(undo, cluster, dry_run=True)
    assert bodies(cluster) == before
    FAULT.apply(undo, cluster)
    under = bodies(cluster)
    assert under != before
    FAULT.apply(undo, cluster)
    assert bodies(cluster) == under
    assert FAULT.differences(undo, cluster)
    assert [FAULT.undo(undo, cluster).outcome for _ in range(2)] == ["restored", "already"]
    assert bodies(cluster) == before
    settle(cluster)
    assert FAULT.differences(undo, cluster) == ()


def test_what_is_written_is_what_was_asked_for() -> None:
    cluster = world()
    FAULT.apply(planned(cluster, spec(set={"MODE": "slow", "TRACE": "1"}, unset=["BATCH"], restart=RESTARTS)), cluster)
    assert cluster.get(MAP)["data"] == {"MODE": "slow", "TRACE": "1"}
    for ref in (READER, SHARD):
        assert cluster.get(ref)["spec"]["template"]["metadata"]["annotations"] == {RESTART: "slow"}
    FAULT.apply(planned(cluster := world(), of_variables(set={"MODE": "slow", "NEW": "1"}, unset=["BATCH"])), cluster)
    assert [(one["name"], one.get("value")) for one in env(cluster)] == [
        ("MODE", "slow"), ("NODE", None), ("POOL", None), ("NEW", "1"),
    ]  # fmt: skip


def test_the_plan_shows_each_change_and_counts_what_it_restarts() -> None:
    plan = FAULT.plan(spec(restart=RESTARTS, unset=["BATCH"]), NAMESPACE, world())
    assert (plan.pods, plan.objects, plan.targets) == (5, 3, (MAP, READER, SHARD))
    assert [(one.path, one.before, one.after) for one in plan.changes if one.object == str(MAP)] == [
        ("/data/MODE", "fast", "slow"), ("/data/BATCH", "10", None),
    ]  # fmt: skip
    assert [one.after for one in plan.changes if one.object == str(READER)] == ["slow"]
    assert "MODE=slow, no BATCH, and restart deployment/reader, statefulset/shard" in plan.summary
    alone = FAULT.plan(spec(), NAMESPACE, world())
    assert (alone.pods, alone.objects) == (0, 1)
    assert FAULT.plan(of_variables(), NAMESPACE, world()).pods == 3


def test_it_asks_for_no_right_that_it_does_not_use() -> None:
    assert FAULT.verbs(spec()) == (("get", "ConfigMap"), ("patch", "ConfigMap"))
    assert FAULT.verbs(of_variables()) == (("get", "Deployment"), ("patch", "Deployment"))
    assert {kind for _, kind in FAULT.verbs(spec(restart=RESTARTS))} == {"ConfigMap", "Deployment", "StatefulSet"}
    for of in SPECS.values():
        cluster = world()
        undo = planned(cluster, of())
        FAULT.apply(undo, cluster)
        FAULT.undo(undo, cluster)
        FAULT.differences(undo, cluster)
        assert {(call.verb, call.ref.kind) for call in cluster.calls} == set(FAULT.verbs(of()))


# What is refused

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no such map": ({"target": "configmap/other"}, "target-missing"),
    "no such workload to restart": ({"restart": ["deployment/other"]}, "target-missing"),
    "no such workload": ({"target": "deployment/other", "container": "main"}, "target-missing"),
    "no such container": ({"target": "deployment/reader", "container": "other"}, "container-missing"),
    "no such key": ({"unset": ["OTHER"]}, "nothing-to-unset"),
    "no such variable": ({"target": "deployment/reader", "container": "main", "unset": ["OTHER"]}, "nothing-to-unset"),
    "so already": ({"set": {"MODE": "fast"}}, "nothing-to-change"),
    "one of two so already": ({"set": {"MODE": "slow", "BATCH": "10"}}, "nothing-to-change"),
    "a variable so already": (
        {"target": "deployment/reader", "container": "main", "set": {"MODE": "fast"}}, "nothing-to-change",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "slug"), BAD.values(), ids=BAD)
def test_bad_input_is_told_and_changes_nothing(changes: dict[str, Any], slug: str) -> None:
    cluster = world()
    with pytest.raises(BadInput) as caught:
        FAULT.plan(spec(**changes), NAMESPACE, cluster)
    assert (caught.value.slug, int(caught.value.exit_code)) == (slug, 64)
    assert caught.value.remedy
    assert not cluster.writes()


@pytest.mark.parametrize("name", ["API_KEY", "apiKey", "db.password", "TOKEN", "client-secret", "REDIS_PASS", "DSN"])
@pytest.mark.parametrize("where", ["set", "unset"])
def test_what_is_called_like_a_secret_is_left_to_the_fault_for_secrets(name: str, where: str) -> None:
    with pytest.raises(Refused) as caught:
        FAULT.plan(spec(**{"set": {}, where: {name: "x"} if where == "set" else [name]}), NAMESPACE, world())
    assert caught.value.slug == "looks-like-a-secret"
    assert "`secret`" in caught.value.remedy


@pytest.mark.parametrize("name", ["MAX_TOKENS", "KEYSPACE", "RETENTION", "tokenizer", "passes"])
def test_what_is_not_called_like_one_is_not(name: str) -> None:
    assert FAULT.plan(spec(set={name: "x"}), NAMESPACE, world()).undo


def test_an_address_with_a_password_is_refused_on_either_side_and_is_not_told() -> None:
    address = "redis://user:hunter2@redis:6379/0"
    for cluster, of in (
        (world(), spec(set={"URL": address})),
        (world(data={"URL": address}), spec(set={"URL": "x"})),
        (world(), of_variables(set={"URL": address})),
    ):
        with pytest.raises(Refused) as caught:
            FAULT.plan(of, NAMESPACE, cluster)
        assert caught.value.slug == "looks-like-a-secret"
        assert "hunter2" not in str(caught.value)
    assert FAULT.plan(spec(set={"URL": "redis://redis:6379/0"}), NAMESPACE, world()).undo


REFUSED: dict[str, tuple[Callable[[], FakeCluster], ConfigSpec, str]] = {
    "immutable": (lambda: world(immutable=True), spec(), "target-immutable"),
    "the harness' own": (
        lambda: world(metadata={"labels": {"drill.internal/undo": "true"}}), spec(), "not-a-target",
    ),
    "of every namespace": (
        lambda: world(metadata={"name": "kube-root-ca.crt"}), spec(target="configmap/kube-root-ca.crt"),
        "not-a-target",
    ),
    "binary": (lambda: world(binaryData={"BLOB": "AAAA"}), spec(set={"BLOB": "x"}), "value-not-text"),
    "from a Secret": (world, of_variables(set={"POOL": "1"}), "looks-like-a-secret"),
}  # fmt: skip


@pytest.mark.parametrize(("cluster", "of", "slug"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_target_is_refused(cluster: Callable[[], FakeCluster], of: ConfigSpec, slug: str) -> None:
    made = cluster()
    with pytest.raises(Refused) as caught:
        FAULT.plan(of, NAMESPACE, made)
    assert (caught.value.slug, int(caught.value.exit_code)) == (slug, 3)
    assert not made.writes()


def spoiled(**changes: Any) -> FakeCluster:
    cluster = world()
    for ref in (READER, SHARD):
        body = cluster.get(ref)
        body["spec"] |= changes.get("spec", {})
        body["status"] |= changes.get("status", {})
        body["spec"]["template"]["metadata"] |= changes.get("template", {})
        cluster.put({**body, "status": {"observedGeneration": 2, **body["status"]}})
    return cluster


MOVING: dict[str, tuple[dict[str, Any], str]] = {
    "not all updated": ({"status": {"updatedReplicas": 1}}, "rollout-in-progress"),
    "paused": ({"spec": {"paused": True}}, "rollout-paused"),
    "a restart that was not undone": ({"template": {"annotations": {RESTART: "old"}}}, "restart-not-undone"),
}


@pytest.mark.parametrize(("changes", "slug"), MOVING.values(), ids=MOVING)
def test_a_workload_that_is_not_at_rest_is_refused(changes: dict[str, Any], slug: str) -> None:
    cluster = spoiled(**{**changes, "status": {"observedGeneration": 2, **changes.get("status", {})}})
    specs = [spec(restart=["deployment/reader"])] + ([of_variables()] if slug != "restart-not-undone" else [])
    for of in specs:
        with pytest.raises(Refused) as caught:
            FAULT.plan(of, NAMESPACE, cluster)
        assert caught.value.slug == slug


@pytest.mark.parametrize(
    ("declared", "slug"),
    [
        ({"updateStrategy": {"type": "OnDelete"}}, "pods-do-not-follow"),
        ({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}, "pods-do-not-follow"),
        ({"podManagementPolicy": "OrderedReady"}, "rollout-could-not-go-back"),
    ],
)
def test_pods_that_would_not_come_back_are_refused(declared: dict[str, Any], slug: str) -> None:
    cluster = world()
    body = cluster.get(SHARD)
    body["spec"] |= declared
    cluster.put({**body, "status": {**body["status"], "observedGeneration": 2}})
    for of in (spec(restart=["statefulset/shard"]), of_variables(target="statefulset/shard")):
        with pytest.raises(Refused) as caught:
            FAULT.plan(of, NAMESPACE, cluster)
        assert caught.value.slug == slug


def test_a_variable_that_stands_twice_is_refused() -> None:
    cluster = world()
    body = cluster.get(READER)
    body["spec"]["template"]["spec"]["containers"][1]["env"].append({"name": "MODE", "value": "again"})
    cluster.put({**body, "status": {**body["status"], "observedGeneration": 2}})
    with pytest.raises(Refused) as caught:
        FAULT.plan(of_variables(), NAMESPACE, cluster)
    assert caught.value.slug == "variable-twice"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"set": {}}, "nothing is changed"),
        ({"unset": ["MODE"]}, "changed twice"),
        ({"set": {"MODE": 1}}, "put it into quotes"),
        ({"set": {"MODE": True}}, "put it into quotes"),
        ({"set": {"no spaces": "x"}}, "is not a key of a ConfigMap"),
        ({"target": "deployment/reader", "container": "main", "set": {"A=B": "x"}}, "is not a name of a variable"),
        ({"container": "main"}, "has no container"),
        ({"target": "deployment/reader"}, "Write `container`"),
        ({"target": "deployment/reader", "container": "main", "restart": ["deployment/reader"]}, "by itself"),
        ({"restart": ["deployment/reader", "deployment/reader"]}, "restarted once"),
        ({"restart": ["configmap/settings"]}, "pattern"),
        ({"target": "secret/settings"}, "pattern"),
        ({"effect": {"query": "x", "within": "60s"}}, "exactly one of"),
    ],
)
def test_a_spec_that_makes_no_sense_is_told(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec(**changes)


# Somebody else's hand


def test_each_object_goes_back_for_itself() -> None:
    cluster = world()
    before, undo = bodies(cluster), planned(cluster, spec(restart=RESTARTS))
    FAULT.apply(undo, cluster)
    cluster.patch(MAP, [{"op": "replace", "path": "/data/MODE", "value": "theirs"}])
    refused = FAULT.undo(undo, cluster)
    assert refused.outcome == "refused"
    assert f"data.MODE is {fingerprint('theirs')}" in refused.detail
    assert "theirs" not in refused.detail
    assert bodies(cluster)[1:] == before[1:]
    assert FAULT.undo(undo, cluster, force=True).outcome == "restored"
    assert bodies(cluster) == before


def test_a_restart_of_somebody_else_stays_and_ours_goes() -> None:
    cluster = world()
    undo = planned(cluster, spec(restart=["deployment/reader"]))
    FAULT.apply(undo, cluster)
    theirs = {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}
    path = "/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt"
    cluster.patch(READER, [{"op": "add", "path": path, "value": "2026-01-01T00:00:00Z"}])
    assert FAULT.undo(undo, cluster).outcome == "restored"
    assert cluster.get(READER)["spec"]["template"]["metadata"]["annotations"] == theirs
    assert not any("restartedAt" in one for one in FAULT.differences(undo, cluster))


def test_a_target_that_is_gone_keeps_no_other_from_going_back() -> None:
    cluster = world()
    before, undo = bodies(cluster), planned(cluster, spec(restart=RESTARTS))
    FAULT.apply(undo, cluster)
    cluster.drop(MAP)
    done = FAULT.undo(undo, cluster)
    assert done.outcome == "vanished"
    assert "configmap/settings in shop: configmap/settings in shop no longer exists" in done.detail
    cluster.put(before[0])
    assert bodies(cluster)[1:] == before[1:]


def test_one_that_may_not_be_written_keeps_no_other_from_going_back() -> None:
    cluster = world()
    before, undo = bodies(cluster), planned(cluster, spec(restart=RESTARTS))
    FAULT.apply(undo, cluster)
    cluster.denied.add(("patch", "ConfigMap"))
    with pytest.raises(DrillError, match="may not patch configmap/settings"):
        FAULT.undo(undo, cluster)
    assert bodies(cluster)[1:] == before[1:]
    cluster.denied.clear()
    assert FAULT.undo(undo, cluster).outcome == "restored"
    assert bodies(cluster) == before


def test_an_object_that_changed_since_the_plan_is_not_written_to_and_nothing_behind_it() -> None:
    cluster = world()
    undo = planned(cluster, spec(restart=RESTARTS))
    cluster.patch(MAP, [{"op": "replace", "path": "/data/MODE", "value": "theirs"}])
    before = bodies(cluster)
    with pytest.raises(Conflict):
        FAULT.apply(undo, cluster)
    assert bodies(cluster) == before


def test_a_record_leads_to_no_other_namespace() -> None:
    cluster = world()
    undo = planned(cluster, spec())
    undo["parts"][0]["namespace"] = "elsewhere"
    FAULT.apply(undo, cluster)
    assert FAULT.undo(undo, cluster).outcome == "restored"
    assert {call.ref.namespace for call in cluster.writes()} == {NAMESPACE}


def test_it_is_proved_by_what_was_measured_and_by_nothing_else() -> None:
    fault: Fault[ConfigSpec] = FAULT
    assert fault.pods(planned(world(), spec())) is None
    assert FAULT.proof(spec(), Evidence(Bounds.at(1.0))) is None
    proof = Proof(Bounds.at(2.0), "depth > 30", (7,))
    assert FAULT.proof(spec(), Evidence(Bounds.at(1.0), measured=proof)) == proof
