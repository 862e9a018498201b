"""The fault `manifest` on the fake cluster: what it refuses to make, what proves it, and what it leaves to others."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import ValidationError

from harness.core.clock import Bounds
from harness.core.errors import BadInput, Refused
from harness.core.event import CleanChecked, FaultEnded, ObjectSeen, Record, RunEnded
from harness.core.evidence import Evidence, Proof
from harness.core.verdict import Verdict, judge
from harness.faults.manifest import Manifest, ManifestSpec
from harness.ports.cluster import Invalid, Json, Ref
from tests.fakes.cluster import FakeCluster
from tests.fakes.comers import declared, leftovers
from tests.fakes.drill import Drill, experiment_data
from tests.fakes.world import CHAOS, NAMESPACE, World

FAULT = Manifest()
FIELD = "status.conditions[type=AllInjected].status"
SPEC: Json = {
    "id": "chaos",
    "kind": "manifest",
    "manifest": {"apiVersion": "chaos-mesh.org/v1alpha1", "kind": "PodChaos", "metadata": {"name": "kill"}, "spec": {}},
    "effect": {"field": FIELD, "equals": "True", "within": "60s"},
    "blast_radius": {"pods": 2},
}
KIND = "PodChaos.v1alpha1.chaos-mesh.org"


def spec(**changes: Any) -> ManifestSpec:
    return ManifestSpec.model_validate({**SPEC, **changes})


def manifest(**changes: Any) -> Json:
    """The manifest with members changed; those of `metadata` are added to it, None takes a member away."""
    body = copy.deepcopy(SPEC["manifest"])
    body["metadata"] |= changes.pop("metadata", {})
    return {key: value for key, value in {**body, **changes}.items() if value is not None}


@pytest.fixture
def cluster() -> FakeCluster:
    made = FakeCluster(now=lambda: 0.0)
    made.put({"kind": "Namespace", "metadata": {"name": "shop"}})
    made.defined["chaos-mesh.org/v1alpha1"] = [
        {"name": "podchaos/status", "kind": "PodChaos", "namespaced": True},
        {"name": "podchaos", "kind": "PodChaos", "namespaced": True},
        {"name": "remoteclusters", "kind": "RemoteCluster", "namespaced": False},
    ]
    return made


def test_its_kind_is_called_by_all_of_its_name_and_asked_for() -> None:
    assert set(FAULT.verbs(spec())) == {(verb, KIND) for verb in ("get", "list", "watch", "create", "delete")}
    known = spec(manifest=manifest(apiVersion="networking.k8s.io/v1", kind="NetworkPolicy"))
    assert {kind for _, kind in FAULT.verbs(known)} == {"NetworkPolicy"}


def test_it_is_made_in_the_drilled_namespace_with_a_mark(cluster: FakeCluster) -> None:
    plan = FAULT.plan(spec(manifest=manifest(metadata={"labels": {"team": "a"}})), "shop", cluster)
    assert plan.targets == (Ref(KIND, "shop", "kill"),)
    FAULT.apply(plan.undo, cluster)
    body = cluster.get(Ref(KIND, "shop", "kill"))
    assert body["apiVersion"] == "chaos-mesh.org/v1alpha1"
    assert body["metadata"]["labels"]["team"] == "a"
    assert len(body["metadata"]["labels"]) == 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (manifest(metadata={"name": None, "generateName": "kill-"}), "could not be undone"),
        (manifest(metadata={"generateName": "kill-"}), "metadata.generateName is not for a drill"),
        (manifest(metadata={"finalizers": ["a/b"]}), "metadata.finalizers is not for a drill"),
        (manifest(metadata={"ownerReferences": []}), "metadata.ownerReferences is not for a drill"),
        (manifest(metadata={"name": "../secrets"}), "names its object"),
        (manifest(metadata={"labels": {"drill.internal/undo": "true"}}), "the harness' own"),
        (manifest(metadata={"annotations": {"drill.internal/x": "1"}}), "the harness' own"),
        (manifest(status={}), "status is not for a drill"),
        (manifest(kind=None), "says what it is"),
        (manifest(apiVersion=None), "says what it is"),
        (manifest(apiVersion="../v1"), "says what it is"),
        (manifest(kind="Pod/exec"), "says what it is"),
        (manifest(apiVersion="v1", kind="Secret"), "makes no Secret"),
        (manifest(apiVersion="v1", kind="ServiceAccount"), "makes no ServiceAccount"),
        (manifest(apiVersion="rbac.authorization.k8s.io/v1", kind="Role"), "makes no Role"),
        (manifest(apiVersion="rbac.authorization.k8s.io/v1beta1", kind="Role"), "makes no Role"),
        (manifest(apiVersion="admissionregistration.k8s.io/v1", kind="X"), "makes no X"),
        (manifest(apiVersion="apiextensions.k8s.io/v1", kind="CustomResourceDefinition"), "makes no Custom"),
        (manifest(apiVersion="coordination.k8s.io/v1", kind="Lease"), "makes no Lease"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_for_a_drill_to_make_is_bad_input(changed: Json, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec(manifest=changed)


@pytest.mark.parametrize("path", ["", ".", "a..b", "a[", "a[b]", "a[b=c", "a[=c]", "$.a", "a.*", "a[0:2]", "a" * 400])
def test_what_is_no_path_of_a_field_is_bad_input(path: str) -> None:
    with pytest.raises(ValidationError):
        spec(effect={"field": path, "equals": "True", "within": "9s"})


@pytest.mark.parametrize(
    ("changed", "slug"),
    [
        (manifest(metadata={"namespace": "elsewhere"}), "other-namespace"),
        (manifest(kind="RemoteCluster"), "cluster-scoped"),
    ],
)
def test_what_lies_elsewhere_is_bad_input(cluster: FakeCluster, changed: Json, slug: str) -> None:
    with pytest.raises(BadInput) as caught:
        FAULT.plan(spec(manifest=changed), "shop", cluster)
    assert caught.value.slug == slug


def test_a_kind_that_nobody_serves_is_invalid(cluster: FakeCluster) -> None:
    for changed in (manifest(kind="Nothing"), manifest(apiVersion="nobody.example.org/v1")):
        with pytest.raises(Invalid) as caught:
            FAULT.plan(spec(manifest=changed), "shop", cluster)
        assert caught.value.slug == "unknown-kind"


def test_a_name_that_is_taken_is_refused(cluster: FakeCluster) -> None:
    cluster.put(manifest(metadata={"namespace": "shop"}))
    with pytest.raises(Refused) as caught:
        FAULT.plan(spec(), "shop", cluster)
    assert caught.value.slug == "name-taken"


def test_what_a_finalizer_holds_is_told_and_never_torn_out(cluster: FakeCluster) -> None:
    undo = FAULT.plan(spec(), "shop", cluster).undo
    FAULT.apply(undo, cluster)
    ref = Ref(KIND, "shop", "kill")
    cluster.patch(ref, [{"op": "add", "path": "/metadata/finalizers", "value": ["chaos-mesh.org/records"]}])
    done = [FAULT.undo(undo, cluster, force=force) for force in (False, False, True)]
    assert [one.outcome for one in done] == ["restored", "already", "already"]
    assert all("held by chaos-mesh.org/records" in one.detail for one in done)
    (left,) = FAULT.differences(undo, cluster)
    assert "still there, held by chaos-mesh.org/records" in left
    assert cluster.get(ref)["metadata"]["finalizers"] == ["chaos-mesh.org/records"]
    cluster.patch(ref, [{"op": "remove", "path": "/metadata/finalizers"}])
    assert FAULT.differences(undo, cluster) == ()


def seen(seq: int, at: float, value: Any, *, uid: str = "1", leaving: bool = False) -> tuple[Record, ObjectSeen]:
    event = ObjectSeen(fault="chaos", object="podchaos/kill", uid=uid, leaving=leaving, fields={FIELD: value})
    return Record(seq=seq, at=at, event=event), event


def proof(*objects: tuple[Record, ObjectSeen], equals: Any = "True") -> Proof | None:
    effect = {"field": FIELD, "equals": equals, "within": "60s"}
    return FAULT.proof(spec(effect=effect), Evidence(Bounds(earliest=10.0, latest=10.2), objects=objects))


def test_the_field_must_have_the_very_value_on_an_object_that_stays() -> None:
    assert proof() is None
    assert proof(seen(1, 10.3, None), seen(2, 10.4, "False")) is None
    assert proof(seen(1, 10.3, "True", uid="")) is None
    assert proof(seen(1, 10.3, "True", leaving=True)) is None
    assert proof(seen(1, 10.3, 1), equals=True) is None
    assert proof(seen(1, 10.3, True), equals=1) is None
    found = proof(seen(1, 10.3, None), seen(2, 11.0, "True"))
    assert found is not None
    assert (found.at, found.evidence) == (Bounds(earliest=10.0, latest=11.0), (2,))
    assert proof(seen(1, 10.3, True), equals=True) is not None


def test_a_measured_effect_is_proved_by_what_is_measured() -> None:
    measured = Proof(Bounds.at(1.0), "Prometheus", (1,))
    effect = {"query": "depth", "above": 5, "within": "60s"}
    evidence = Evidence(Bounds.at(1.0), objects=[seen(1, 10.3, "True")], measured=measured)
    assert FAULT.proof(spec(effect=effect), evidence) is measured


def test_an_object_that_says_that_it_is_over_ends_the_run() -> None:
    data = experiment_data("manifest")
    data["faults"][0]["over_when"] = {"field": "status.phase", "equals": "Finished"}
    drill = Drill(data=data)
    before = declared(drill.world)

    def finish(world: World) -> None:
        (one,) = world.cluster.listing(CHAOS, NAMESPACE)
        world.cluster.put({**one, "status": {**one["status"], "phase": "Finished"}})

    drill.feed.when(lambda world: world.firing_since is not None, finish)
    history = drill.run()
    (over,) = history.all(FaultEnded)
    ended = history.last(RunEnded)
    assert ended is not None
    assert (ended.reason, over.detail in ended.detail) == ("aborted", True)
    assert judge(drill.experiment, history).verdict is not Verdict.MET
    assert declared(drill.world) == before


def test_a_run_whose_object_a_finalizer_holds_ends_dirty_and_keeps_its_record() -> None:
    drill = Drill(data=experiment_data("manifest"))

    def hold(world: World) -> None:
        (one,) = world.cluster.listing(CHAOS, NAMESPACE)
        meta = {**one["metadata"], "finalizers": ["chaos.example.org/cleanup"]}
        world.cluster.put({**one, "metadata": meta})

    drill.feed.when(lambda world: world.bulk, hold)
    drill.feed.stop_when(lambda world: world.firing_since is not None)
    history = drill.run()
    assert history.is_clean is False
    checked = history.last(CleanChecked)
    assert checked is not None
    assert "held by chaos.example.org/cleanup" in checked.differences[0]
    assert leftovers(drill.world) != []
    (one,) = drill.world.cluster.listing(CHAOS, NAMESPACE)
    assert one["metadata"]["finalizers"] == ["chaos.example.org/cleanup"]
