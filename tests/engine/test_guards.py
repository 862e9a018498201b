"""The guards before the first write, and the switches that stop a run which is on."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest

from harness.core.errors import BadInput, Refused
from harness.core.event import Change, CheckDone, StopAsked, UndoDone
from harness.core.ownership import managers, rivals
from harness.core.snapshot import snapshot
from harness.core.verdict import Verdict, judge
from harness.engine import guards
from harness.engine.lease import Lease
from harness.engine.sweeper import HEARTBEAT, HOME
from harness.ports.cluster import Forbidden, Json, NotFound, Ref
from harness.ports.fault import Plan
from tests.fakes.drill import Drill, experiment_data, fired
from tests.fakes.world import KEYS, NAMESPACE, World

LIMIT = "/spec/template/spec/containers/0/resources/limits/memory"
WORKER = Ref("Deployment", NAMESPACE, "worker")


def marked(world: World, **data: str) -> None:
    marker = world.cluster.get(Ref("ConfigMap", "drill-system", "drills-allowed"))
    world.cluster.put({**marker, "data": {**marker["data"], **data}})


def managed(manager: str, fields: Json, operation: str = "Apply") -> Json:
    return {"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields}


_MEMORY: Json = {"f:resources": {"f:limits": {"f:memory": {}}}}
LIMIT_FIELDS: Json = {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"worker"}': _MEMORY}}}}}


def refused(drill: Drill) -> Refused:
    before = drill.world.cluster.dump()
    with pytest.raises(Refused) as caught:
        drill.run()
    leases = [one for one in drill.world.cluster.dump() if one["kind"] != "Lease"]
    assert leases == [one for one in before if one["kind"] != "Lease"], "a refusal changes nothing"
    return caught.value


@pytest.mark.parametrize(
    "patterns", ["shop", "sh*", "payments-*\nshop", "shop/deployment/worker", "*/deployment/wor*", "shop/*"]
)
def test_the_deny_list_counts_more_than_an_opt_in(patterns: str) -> None:
    drill = Drill()
    marked(drill.world, deny=patterns)
    assert refused(drill).slug == "denied"


@pytest.mark.parametrize("patterns", ["", "shop2", "hop", "shop/secret/worker", "payments/deployment/worker", "# shop"])
def test_a_deny_list_that_is_about_others_lets_a_drill_pass(patterns: str) -> None:
    drill = Drill()
    marked(drill.world, deny=patterns)
    drill.respond()
    assert judge(drill.experiment, drill.run()).verdict is Verdict.MET


@pytest.mark.parametrize("namespace", ["kube-system", "kube-public", "drill-system"])
def test_some_namespaces_are_never_drilled(namespace: str) -> None:
    with pytest.raises(Refused) as caught:
        guards.check_denied({}, namespace)
    assert caught.value.slug == "denied"


def test_the_managers_of_a_field_are_read_from_its_field_sets() -> None:
    body = World().deployment
    other: Json = {"f:spec": {"f:replicas": {}}}
    whole: Json = {"f:spec": {"f:template": {}}}
    body["metadata"]["managedFields"] = [
        managed("kubectl", LIMIT_FIELDS), managed("scaler", other), managed("atomic", whole), managed("status", {}),
    ]  # fmt: skip
    assert managers(body, LIMIT) == ["kubectl", "atomic"]
    assert managers(body, "/spec/replicas") == ["scaler"]
    assert managers(body, "/spec/template/spec/containers/7/resources") == ["atomic"]
    assert managers({"metadata": {}}, LIMIT) == []


@pytest.mark.parametrize("manager", ["argocd-controller", "kustomize-controller", "helm-controller", "vpa-updater"])
def test_a_field_that_a_controller_sets_back_is_refused_unless_it_was_suspended(manager: str) -> None:
    drill = Drill()
    body = drill.world.deployment
    body["metadata"]["managedFields"] = [
        managed(manager, LIMIT_FIELDS),
        managed("kubectl-client-side-apply", LIMIT_FIELDS),
    ]
    drill.world.cluster.put(body)
    problem = refused(drill)
    assert problem.slug == "field-owned"
    assert manager in problem.fact
    assert "kubectl" not in problem.fact

    accepting = Drill(world=drill.world, run_id="run-2")
    accepting.data["faults"][0]["accepted_owners"] = [manager]
    accepting.__post_init__()
    accepting.respond()
    assert judge(accepting.experiment, accepting.run()).verdict is Verdict.MET


def test_an_object_that_an_operator_owns_is_refused() -> None:
    body: Json = {"metadata": {"ownerReferences": [
        {"kind": "Backup", "name": "nightly"}, {"kind": "Shop", "name": "main", "controller": True},
    ]}}  # fmt: skip
    assert rivals(body, LIMIT) == ["shop/main"]


def warnings(drill: Drill) -> dict[str, str]:
    return {check.name: check.warning for check in drill.history.all(CheckDone) if check.warning}


def test_an_identity_that_may_do_more_is_warned_of_and_one_that_may_not_is_not() -> None:
    drill = Drill()
    drill.preflight()
    assert "read" not in warnings(drill)["permissions"]
    assert "create Pod in shop" in warnings(drill)["permissions"] or "get Secret" in warnings(drill)["permissions"]
    careful = Drill()
    careful.world.cluster.denied |= {(need.verb, need.kind) for need in guards.excess(NAMESPACE)} - {
        ("patch", "Deployment")
    } | {("patch", "Deployment", "kube-system")}
    careful.preflight()
    assert "permissions" not in warnings(careful)


@pytest.mark.parametrize("missing", [
    ("update", "Lease"), ("delete", "Lease"), ("watch", "ConfigMap", "drill-system"), ("watch", "Namespace"),
    ("get", "ConfigMap", NAMESPACE), ("get", "Service/proxy"),
])  # fmt: skip
def test_every_permission_that_a_run_uses_is_asked_for(missing: tuple[str, ...]) -> None:
    drill = Drill(needs=(guards.Need("get", "Service/proxy", "monitoring", "prometheus:9090"),))
    drill.world.cluster.denied_reviews.add(missing)
    problem = refused(drill)
    assert problem.slug == "permission-missing"
    assert f"{missing[0]} {missing[1]}" in problem.fact


def test_the_permission_on_a_secret_is_asked_for_by_its_name() -> None:
    """A Role that names Secrets one by one grants no more than that."""
    drill = Drill(data=experiment_data("secret"))
    drill.preflight()
    asked = {(call.body, call.ref) for call in drill.world.cluster.calls if call.verb == "allowed"}
    assert {("get", KEYS), ("patch", KEYS)} <= asked
    excess = {one for one in asked if one[1].kind == "Secret" and one[1] != KEYS}
    assert excess == {("get", Ref("Secret", NAMESPACE, "")), ("get", Ref("Secret", "kube-system", ""))}


@pytest.mark.parametrize(("silent", "words"), [(None, "no sweeper"), (5.0, ""), (300.0, "not heard of for 300 s")])
def test_a_missing_sweeper_is_warned_of(silent: float | None, words: str) -> None:
    drill = Drill()
    if silent is not None:
        heart = Lease(drill.world.cluster, drill.world.clock, HOME, "sweeper", name=HEARTBEAT)
        assert heart.try_acquire(None)
        drill.world.run_for(silent)
    drill.preflight()
    told = warnings(drill).get("a sweeper watches over the run", "")
    assert (words in told) if words else told == ""


def test_what_is_let_pass_about_the_ways_to_peers_is_warned_of() -> None:
    drill = Drill()
    drill.peers = replace(drill.peers, doubts=("the certificate of p is not checked",))
    drill.preflight()
    assert warnings(drill)["Prometheus answers"] == "the certificate of p is not checked"


@pytest.mark.parametrize(("data", "words"), [
    ({"halted": "true", "reason": "release"}, "halted on this cluster: release"),
    ({"environment": "production"}, "no longer says environment=staging"),
])  # fmt: skip
def test_the_stop_switch_ends_a_run_with_everything_undone(data: dict[str, str], words: str) -> None:
    drill = Drill()
    before = snapshot(drill.world.deployment)
    drill.feed.when(fired(1.0), lambda world: marked(world, **data))
    history = drill.run()
    assert snapshot(drill.world.deployment) == before
    (stop,) = history.all(StopAsked)
    assert (stop.by, words in stop.detail) == ("the stop switch", True)
    assert history.is_clean
    assert judge(drill.experiment, history).verdict is Verdict.UNDECIDED
    assert drill.world.cluster.list("ConfigMap", NAMESPACE, "drill.internal/undo=true") == []


def test_a_marker_that_is_removed_stops_a_run_too() -> None:
    drill = Drill()
    drill.feed.when(fired(1.0), lambda world: world.cluster.drop(Ref("ConfigMap", "drill-system", "drills-allowed")))
    history = drill.run()
    assert "was removed" in history.all(StopAsked)[0].detail
    assert history.is_clean


def test_a_withdrawn_opt_in_ends_a_run_with_everything_undone() -> None:
    drill = Drill()
    before = snapshot(drill.world.deployment)

    def withdraw(world: World) -> None:
        body = world.cluster.get(Ref("Namespace", "", NAMESPACE))
        body["metadata"]["labels"] = {}
        world.cluster.put(body)

    drill.feed.when(fired(1.0), withdraw)
    history = drill.run()
    assert history.all(StopAsked)[0].by == "the namespace's owners"
    assert snapshot(drill.world.deployment) == before


def test_a_lock_that_is_lost_before_the_first_write_means_no_fault() -> None:
    drill = Drill()
    before = drill.world.cluster.get(WORKER)
    ready = drill.preflight

    def lose() -> Any:
        answer = ready()
        drill.world.cluster.drop(Ref("Lease", NAMESPACE, "drill"))
        return answer

    drill.preflight = lose  # type: ignore[method-assign]
    history = drill.run()
    assert drill.world.cluster.get(WORKER)["spec"] == before["spec"]
    assert history.all(StopAsked)[0].by == "the lock"
    assert history.ended is not None
    assert history.ended.reason == "stopped"
    assert drill.world.cluster.list("ConfigMap", NAMESPACE, "drill.internal/undo=true") == [], "nothing to undo is left"


def test_a_run_that_lost_the_lock_leaves_the_undo_to_whoever_has_it() -> None:
    drill = Drill()
    lock = Ref("Lease", NAMESPACE, "drill")

    def take_over(world: World) -> None:
        body = world.cluster.get(lock)
        body["spec"]["holderIdentity"] = "run-2"
        world.cluster.put(body)
        drill.feed.put(StopAsked(by="the lock", detail="run-2 has it"))
        drill.feed.when(lambda later: later.clock.now() > taken_at + 20, finish)

    def finish(world: World) -> None:
        (record,) = world.cluster.list("ConfigMap", NAMESPACE, "drill.internal/undo=true")
        world.cluster.drop(Ref("ConfigMap", NAMESPACE, record["metadata"]["name"]))

    drill.feed.when(fired(1.0), take_over)
    taken_at = drill.world.clock.now() + 60
    history = drill.run()
    ends = [done.outcome for done in history.all(UndoDone)]
    assert ends[-1] == "taken over"
    assert set(ends[:-1]) == {"failed"}
    patches = [call for call in drill.world.cluster.writes() if call.verb == "patch"]
    assert len(patches) == 1, "the injection, and no undo in somebody else's drill"
    assert history.is_clean is None, "what somebody else put back was not compared by us"
    assert judge(drill.experiment, history).verdict is Verdict.UNDECIDED


def test_an_undo_that_is_forbidden_gives_the_lock_to_those_who_may() -> None:
    drill = Drill()
    drill.feed.when(fired(1.0), lambda world: drill.feed.put(StopAsked(by="SIGTERM")))
    denied = Forbidden("forbidden", "may not patch", expected="a right", remedy="grant it")
    drill.feed.when(fired(0.9), lambda world: world.cluster.fail_write("patch", "Deployment", denied))
    began = drill.world.clock.now()
    history = drill.run()
    assert [done.outcome for done in history.all(UndoDone)] == ["refused"]
    assert drill.world.clock.now() - began < 200
    assert history.open_faults() == ("memory",)
    drill.lease.release()
    with pytest.raises(NotFound):
        drill.world.cluster.get(Ref("Lease", NAMESPACE, "drill"))


def test_two_faults_may_not_change_the_same_place() -> None:
    data = experiment_data("scale")
    again = {**data["faults"][0], "id": "again", "replicas": 1, "at": "5s", "blast_radius": {"pods": 4}}
    drill = Drill(data={**data, "faults": [data["faults"][0], again]})
    before = drill.world.deployment
    with pytest.raises(BadInput) as caught:
        drill.run()
    assert (caught.value.slug, drill.world.deployment) == ("faults-overlap", before)
    assert "faults memory and again both change /spec/replicas of deployment/worker" in caught.value.fact.lower()


@pytest.mark.parametrize(
    ("one", "other", "overlaps"),
    [
        ("/data/a", "/data/a", True),
        ("/data/a", "/data/ab", False),
        ("/spec", "/spec/replicas", True),
        ("", "/x", True),
        ("/env/-", "/env/-", False),
        ("/env", "/env/-", True),
    ],
)
def test_a_place_within_another_is_the_same(one: str, other: str, *, overlaps: bool) -> None:
    def plan(path: str) -> Plan:
        change = Change(object="configmap/x in shop", path=path, before=1, after=2)
        return Plan(summary="", targets=(), changes=(change,), pods=0, objects=1, undo={})

    with pytest.raises(BadInput) if overlaps else contextlib.nullcontext():
        guards.check_overlap({"a": plan(one), "b": plan(other)})
