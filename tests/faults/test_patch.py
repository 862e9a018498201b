"""The fault `patch`: what it refuses, what it writes, how it goes back, and what proves it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from harness.core.clock import Bounds
from harness.core.errors import BadInput, Refused
from harness.core.evidence import Evidence, Proof
from harness.core.snapshot import APPLIED
from harness.engine import guards
from harness.faults.patch import PATCHED, Patch, PatchSpec
from harness.ports.cluster import Conflict, Json, Ref
from harness.ports.fault import Fault
from harness.ports.kinds import KINDS
from tests.fakes.cluster import FakeCluster
from tests.fakes.drill import Drill, experiment_data

NAMESPACE = "shop"
DOOR, API, MAP = (
    Ref("Service", NAMESPACE, "door"),
    Ref("Deployment", NAMESPACE, "api"),
    Ref("ConfigMap", NAMESPACE, "c"),
)
POLICY = Ref("NetworkPolicy", NAMESPACE, "wall")
FAULT = Patch()
POD = "/spec/template/spec"


def op(verb: str, path: str, value: Any = None) -> Json:
    return {"op": verb, "path": path, **({} if value is None else {"value": value})}


def spec(*operations: Json, target: str = "service/door", **changes: Any) -> PatchSpec:
    given = operations or (op("replace", "/spec/selector/app", "nobody"),)
    data = {
        "id": "odd", "kind": "patch", "target": target, "operations": list(given),
        "effect": {"query": "errors", "above": 1, "within": "60s"}, "blast_radius": {"pods": 3}, **changes,
    }  # fmt: skip
    return PatchSpec.model_validate(data)


def of_api(*operations: Json) -> PatchSpec:
    return spec(*operations, target="deployment/api")


def world() -> FakeCluster:
    cluster = FakeCluster(now=lambda: 1000.0)
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 3)
    env = [{"name": "MODE", "value": "fast"}, {"name": "BATCH", "value": "1"}, {"name": "API_KEY", "value": "hunter2"}]
    main = {
        "name": "main", "image": "main:1", "command": ["run"], "args": ["--verbose", "--password", "hunter2", "--last"],
        "env": env, "ports": [{"containerPort": 80}],
    }  # fmt: skip
    taken = [{"name": "LEVEL", "valueFrom": {"secretKeyRef": {"name": "k", "key": "a"}}}]
    for body in (
        {"kind": "Service", "metadata": {"labels": {"app": "door"}}, "spec": {
            "selector": {"app": "api"}, "ports": [{"port": 80, "targetPort": 8080}, {"port": 81}]}},
        {"kind": "Deployment", "metadata": {"annotations": {"team": "queue", APPLIED: "hunter2", "a/token": "hunter2"}},
            "spec": {
            "replicas": 3, "selector": {"matchLabels": {"app": "api"}},
            "template": {"metadata": {"labels": {"app": "api"}}, "spec": {
                "containers": [{"name": "side", "env": taken}, main]}}},
            "status": {"observedGeneration": 1, **counts}},
        {"kind": "NetworkPolicy", "metadata": {}, "spec": {"podSelector": {}, "ingress": [{"from": []}]}},
        {"kind": "ConfigMap", "metadata": {}, "data": {"a/b": "1", "pass": "hunter2"}},
    ):  # fmt: skip
        name = {"Service": "door", "Deployment": "api", "NetworkPolicy": "wall", "ConfigMap": "c"}[str(body["kind"])]
        metadata: Json = {"name": name, "namespace": NAMESPACE, **body["metadata"]}  # type: ignore[dict-item]
        cluster.put({**body, "metadata": metadata})
    return cluster


def planned(cluster: FakeCluster, of: PatchSpec) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(json.dumps(FAULT.plan(of, NAMESPACE, cluster).undo))
    return record


def bodies(cluster: FakeCluster) -> list[Json]:
    """Everything that is declared, to the letter."""
    found = []
    for ref in (DOOR, API, MAP, POLICY):
        body = cluster.get(ref)
        meta = {key: value for key, value in body["metadata"].items() if key not in {"resourceVersion", "generation"}}
        found.append({**{key: value for key, value in body.items() if key != "status"}, "metadata": meta})
    return found


SPECS: dict[str, PatchSpec] = {
    "a value": spec(),
    "a member that comes": spec(op("add", "/spec/sessionAffinity", "ClientIP")),
    "a member that goes": spec(op("remove", "/spec/selector")),
    "an item of a list without names": spec(op("replace", "/spec/ports/0/targetPort", 9)),
    "items that come and go": spec(op("add", "/spec/ports/-", {"port": 82}), op("remove", "/spec/ports/0")),
    "an item at a place": spec(op("add", "/spec/ports/1", {"port": 82})),
    "inside of what was just added": spec(op("add", "/spec/more", {"a": 1}), op("add", "/spec/more/b", 2)),
    "a label": spec(op("add", "/metadata/labels/tier", "x")),
    "an annotation": of_api(op("replace", "/metadata/annotations/team", "none")),
    "a named item's member": of_api(op("replace", f"{POD}/containers/1/image", "main:2")),
    "a variable": of_api(op("replace", f"{POD}/containers/1/env/0/value", "slow")),
    "a command": of_api(op("replace", f"{POD}/containers/1/command", ["false"])),
    "an argument": of_api(op("replace", f"{POD}/containers/1/args/0", "--quiet")),
    "arguments that come and go": of_api(
        op("add", f"{POD}/containers/1/args/1", "--more"), op("replace", f"{POD}/containers/1/args/0", "--quiet"),
    ),
    "a variable that comes": of_api(op("add", f"{POD}/containers/1/env/-", {"name": "TRACE", "value": "on"})),
    "several places": of_api(
        op("add", f"{POD}/nodeSelector", {"disk": "gone"}), op("remove", f"{POD}/containers/1/ports"),
    ),
    "a key with a slash": spec(op("replace", "/data/a~1b", "2"), target="configmap/c"),
    "a policy": spec(op("remove", "/spec/ingress/0"), target="networkpolicy/wall"),
}  # fmt: skip


@pytest.mark.parametrize("of", SPECS.values(), ids=SPECS)
def test_what_is_patched_is_what_the_operations_say_and_goes_back_to_the_letter(of: PatchSpec) -> None:
    cluster, direct = world(), world()
    ref = next(ref for ref in (DOOR, API, MAP, POLICY) if of.target == f"{ref.kind.lower()}/{ref.name}")
    direct.patch(ref, [operation.as_json() for operation in of.operations])
    before, undo = bodies(cluster), planned(cluster, of)
    FAULT.apply(undo, cluster, dry_run=True)
    assert bodies(cluster) == before
    FAULT.apply(undo, cluster)
    FAULT.apply(undo, cluster)

    def declared(of_what: FakeCluster) -> Json:
        body = of_what.get(ref)
        return {"spec": body.get("spec"), "data": body.get("data"), "labels": body["metadata"].get("labels")}

    assert declared(cluster) == declared(direct)
    assert FAULT.differences(undo, cluster)
    assert [FAULT.undo(undo, cluster).outcome for _ in range(2)] == ["restored", "already"]
    assert bodies(cluster) == before
    assert {(call.verb, call.ref.kind) for call in cluster.calls} - {("get", kind) for kind in PATCHED.values()} == {
        ("patch", ref.kind)
    }


def test_a_plan_writes_nothing_and_shows_each_place() -> None:
    cluster = world()
    plan = FAULT.plan(SPECS["several places"], NAMESPACE, cluster)
    assert not cluster.writes()
    assert [(one.path, one.before, one.after) for one in plan.changes] == [
        (f"{POD}/nodeSelector", None, {"disk": "gone"}),
        (f"{POD}/containers/1/ports", [{"containerPort": 80}], None),
    ]
    assert (plan.pods, plan.objects, plan.targets) == (3, 1, (API,))
    assert "spec.template.spec.containers[main].ports" in plan.summary
    assert FAULT.plan(spec(), NAMESPACE, cluster).pods == 0
    assert FAULT.verbs(spec()) == (("get", "Service"), ("patch", "Service"))


def test_a_container_that_moved_is_still_the_one_that_goes_back() -> None:
    cluster = world()
    undo = planned(cluster, SPECS["a named item's member"])
    FAULT.apply(undo, cluster)
    body = cluster.get(API)
    body["spec"]["template"]["spec"]["containers"].reverse()
    cluster.put(body)
    assert FAULT.undo(undo, cluster).outcome == "restored"
    assert cluster.get(API)["spec"]["template"]["spec"]["containers"][0]["image"] == "main:1"


def test_what_the_server_makes_of_a_value_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real API server fills in defaults: they are learned in the dry run, and are no stranger's change."""
    cluster = world()
    real = FakeCluster._update

    def defaulting(self: FakeCluster, call: Any, before: Json, after: Json, **given: Any) -> Json:
        for port in after.get("spec", {}).get("ports", ()):
            port.setdefault("protocol", "TCP")
        return real(self, call, before, after, **given)

    monkeypatch.setattr(FakeCluster, "_update", defaulting)
    undo = planned(cluster, SPECS["items that come and go"])
    FAULT.apply(undo, cluster)
    FAULT.apply(undo, cluster)
    assert cluster.get(DOOR)["spec"]["ports"][-1] == {"port": 82, "protocol": "TCP"}
    assert FAULT.undo(undo, cluster).outcome == "restored"


def test_somebody_elses_change_is_refused_reported_and_overwritten_by_force_only() -> None:
    cluster = world()
    before, undo = bodies(cluster), planned(cluster, spec())
    FAULT.apply(undo, cluster)
    cluster.patch(DOOR, [op("replace", "/spec/selector/app", "theirs")])
    refused = FAULT.undo(undo, cluster)
    assert refused.outcome == "refused"
    assert "theirs" in refused.detail
    with pytest.raises(Conflict):
        FAULT.apply(undo, cluster)
    assert FAULT.undo(undo, cluster, force=True).outcome == "restored"
    assert bodies(cluster) == before


# What is refused


def test_kinds_are_those_of_the_port_and_none_that_gives_power() -> None:
    assert set(PATCHED.values()) <= set(KINDS)
    left = set(KINDS) - set(PATCHED.values())
    assert {"Secret", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ServiceAccount", "Lease"} <= left
    assert {kind for kind in left if "Admission" in kind}
    assert not any("Admission" in one for one in PATCHED.values())
    assert all(KINDS[kind].namespaced for kind in PATCHED.values())


@pytest.mark.parametrize("kind", ["secret", "role", "lease", "namespace", "serviceaccount", "pod", "other"])
def test_no_other_kind_is_taken(kind: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        spec(target=f"{kind}/x")


@pytest.mark.parametrize(
    ("of", "slug"),
    [
        (lambda: spec(target="service/other"), "target-missing"),
        (lambda: spec(op("replace", "/spec/selector/other", "x")), "no-such-place"),
        (lambda: spec(op("remove", "/spec/other")), "no-such-place"),
        (lambda: spec(op("add", "/spec/other/deep", "x")), "no-such-place"),
        (lambda: spec(op("replace", "/spec/ports/2/port", 1)), "no-such-place"),
        (lambda: spec(op("replace", "/spec/ports/2", {"port": 1})), "no-such-place"),
        (lambda: spec(op("add", "/spec/ports/3", {"port": 1})), "no-such-place"),
        (lambda: spec(op("replace", "/spec/ports/-", {"port": 1})), "no-such-place"),
        (lambda: spec(op("replace", "/spec/ports/x/port", 1)), "no-such-place"),
        (lambda: spec(op("add", "/spec/selector/app/deep", "x")), "no-such-place"),
        (lambda: spec(op("replace", "/spec/selector/app", "api")), "nothing-to-change"),
        (lambda: spec(op("add", "/spec/x", "1"), op("remove", "/spec/x")), "nothing-to-change"),
    ],
)
def test_bad_input_is_told_and_changes_nothing(of: Callable[[], PatchSpec], slug: str) -> None:
    cluster = world()
    with pytest.raises(BadInput) as caught:
        FAULT.plan(of(), NAMESPACE, cluster)
    assert (caught.value.slug, int(caught.value.exit_code)) == (slug, 64)
    assert caught.value.remedy
    assert not cluster.writes()


@pytest.mark.parametrize(
    "path",
    [
        "/metadata/name", "/metadata/uid", "/metadata/namespace", "/metadata/finalizers", "/metadata/finalizers/0",
        "/metadata/ownerReferences", "/metadata/labels", "/metadata/annotations", "/metadata", "/spec", "/data",
        "/status/loadBalancer", "/kind", "/apiVersion", "/immutable", "/metadata/labels/drill.internal~1undo",
        "/metadata/annotations/drill.internal~1restart", "/metadata/resourceVersion",
    ],
)  # fmt: skip
def test_places_that_no_drill_touches_are_refused(path: str) -> None:
    cluster = world()
    with pytest.raises(Refused) as caught:
        FAULT.plan(spec(op("add", path, "x")), NAMESPACE, cluster)
    assert (caught.value.slug, int(caught.value.exit_code)) == ("place-not-drilled", 3)
    assert not cluster.calls


def test_replicas_have_a_fault_of_their_own() -> None:
    with pytest.raises(Refused, match="spec/replicas") as caught:
        FAULT.plan(of_api(op("replace", "/spec/replicas", 0)), NAMESPACE, world())
    assert "`scale`" in caught.value.remedy


@pytest.mark.parametrize(
    "of",
    [
        of_api(op("replace", f"{POD}/containers/1/env/2/value", "x")),
        of_api(op("remove", f"{POD}/containers/1/env/2")),
        of_api(op("remove", f"{POD}/containers/1/env")),
        of_api(op("remove", f"{POD}/containers/1")),
        of_api(op("add", f"{POD}/containers/-", {"name": "x", "args": ["y"]})),
        of_api(op("replace", f"{POD}/containers/1/env/0/value", "redis://a:hunter2@b/")),
        of_api(op("replace", "/spec/template", {"spec": {}})),
        of_api(op("replace", f"{POD}/containers/1/args/2", "x")),
        of_api(op("remove", f"{POD}/containers/1/args/1")),
        of_api(op("replace", f"{POD}/containers/1/args", ["x"])),
        of_api(op("add", f"{POD}/containers/1/args/0", "--token=x")),
        of_api(op("replace", f"{POD}/containers/1/command", ["run", "--token=x"])),
        of_api(op("replace", f"/metadata/annotations/{APPLIED.replace('/', '~1')}", "{}")),
        of_api(op("remove", "/metadata/annotations/a~1token")),
        of_api(op("add", f"{POD}/containers/1/env/-", {"name": "X", "valueFrom": {"secretKeyRef": {"name": "k"}}})),
        of_api(op("add", f"{POD}/containers/1/envFrom", [{"secretRef": {"name": "k"}}])),
        of_api(op("replace", f"{POD}/containers/0/env/0/valueFrom/secretKeyRef/key", "b")),
        of_api(op("remove", f"{POD}/containers/0/env/0")),
        spec(op("replace", "/data/pass", "x"), target="configmap/c"),
    ],
    ids=lambda of: of.operations[0].path,
)
def test_what_may_hold_a_secret_is_not_written_down(of: PatchSpec) -> None:
    with pytest.raises(Refused) as caught:
        FAULT.plan(of, NAMESPACE, world())
    assert caught.value.slug == "looks-like-a-secret"
    assert "hunter2" not in str(caught.value)


def test_no_more_of_a_list_is_written_down_than_what_changes() -> None:
    for name in ("an argument", "arguments that come and go", "a variable that comes", "an annotation"):
        cluster = world()
        plan = FAULT.plan(SPECS[name], NAMESPACE, cluster)
        FAULT.apply(plan.undo, cluster)
        told = (plan, FAULT.differences(plan.undo, cluster), FAULT.undo(plan.undo, cluster))
        assert "hunter2" not in str(told), name


def test_what_somebody_else_wrote_is_not_told_by_the_undo() -> None:
    cluster = world()
    undo = planned(cluster, SPECS["a key with a slash"])
    FAULT.apply(undo, cluster)
    cluster.patch(MAP, [op("replace", "/data/a~1b", "postgres://app:hunter2@db/x")])
    for force in (False, True):
        assert "hunter2" not in FAULT.undo(undo, cluster, force=force).detail


def test_objects_of_the_harness_and_of_the_cluster_are_refused() -> None:
    for change, slug in (
        (
            {"metadata": {"name": "c", "namespace": NAMESPACE, "labels": {"drill.internal/undo": "true"}}},
            "not-a-target",
        ),
        ({"immutable": True}, "target-immutable"),
    ):
        cluster = world()
        cluster.put({**cluster.get(MAP), **change})
        with pytest.raises(Refused) as caught:
            FAULT.plan(SPECS["a key with a slash"], NAMESPACE, cluster)
        assert caught.value.slug == slug


def test_a_workload_that_is_not_at_rest_is_refused() -> None:
    cluster = world()
    body = cluster.get(API)
    cluster.put({**body, "status": {**body["status"], "readyReplicas": 1}})
    with pytest.raises(Refused) as caught:
        FAULT.plan(SPECS["a variable"], NAMESPACE, cluster)
    assert caught.value.slug == "rollout-in-progress"


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ({"op": "test", "path": "/spec/x", "value": 1}, "add"),
        ({"op": "move", "path": "/spec/x", "from": "/spec/y"}, "add"),
        ({"op": "remove", "path": "/spec/x", "value": 1}, "takes none"),
        ({"op": "add", "path": "/spec/x"}, "need a `value`"),
        ({"op": "add", "path": "spec/x", "value": 1}, "pattern"),
        ({"op": "add", "path": "/spec/x/", "value": 1}, "pattern"),
        ({"op": "add", "path": "", "value": 1}, "pattern"),
        ({"op": "add", "path": "/spec/~2", "value": 1}, "no path"),
    ],
)
def test_an_operation_that_makes_no_sense_is_told(operation: Json, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec(operation)


def test_a_role_that_does_not_cover_the_kind_is_told_before_anything_is_asked_of_it() -> None:
    data = experiment_data("patch")
    data["faults"][0] |= {"target": "service/door", "operations": [op("replace", "/spec/selector/app", "nobody")]}
    drill = Drill(data=data)
    drill.world.cluster.denied |= {("get", "Service"), ("patch", "Service")}
    with pytest.raises(Refused) as caught:
        drill.run()
    assert (caught.value.slug, int(caught.value.exit_code)) == ("permission-missing", 3)
    assert "get Service in shop, patch Service in shop" in caught.value.fact
    assert "Roles" in caught.value.remedy
    assert [call for call in drill.world.cluster.writes() if call.ref.kind != "Lease"] == []
    assert guards.Need("patch", "Service", "shop") not in guards.own_needs("shop")


def test_it_is_proved_by_what_was_measured_and_by_nothing_else() -> None:
    fault: Fault[PatchSpec] = FAULT
    assert fault.pods(planned(world(), spec())) is None
    assert FAULT.proof(spec(), Evidence(Bounds.at(1.0))) is None
    proof = Proof(Bounds.at(2.0), "errors > 1", (7,))
    assert FAULT.proof(spec(), Evidence(Bounds.at(1.0), measured=proof)) == proof
