"""What every fault of the catalog does, on the fake cluster and on a real API server with real pods."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest

from harness import catalog
from harness.core.clock import Bounds
from harness.core.errors import DrillError
from harness.core.event import PodsSeen, Record
from harness.core.evidence import Evidence, Proof
from harness.core.pods import pod_state
from harness.core.snapshot import snapshot
from harness.core.workload import pod_labels, unsettled
from harness.engine import fence
from harness.ports.cluster import AlreadyExists, Cluster, Conflict, Json, NotFound, Ref
from harness.ports.fault import UndoRecord, rehearse
from tests.fakes.cluster import FakeCluster
from tests.faults.targets import IMAGE_OF, KILLED, MADE, OPT_IN, ROWS, TARGETS, Killed, Row, Target
from tests.hands import hand

pytestmark = pytest.mark.apart
SECONDS = 90.0
"""What pods may take to come or go on a busy machine."""


def test_every_fault_of_the_catalog_has_a_target() -> None:
    assert {row.kind for row in ROWS} == set(catalog.KINDS)
    for row in ROWS:
        assert row.spec["kind"] == row.kind
    for target in TARGETS:
        assert len({target.before, target.after, target.foreign}) == 3


@dataclass
class Ground:
    """One row in a namespace of its own. On the fake cluster the ground is the controllers' hand too."""

    cluster: Cluster
    namespace: str
    target: Row
    image: str

    def __post_init__(self) -> None:
        self.target = self.target.on(self.image)
        self.fault = catalog.fault_of(self.target.kind)
        entry = next(entry for entry in catalog.ENTRIES if entry.fault.kind == self.target.kind)
        self.spec = entry.spec.model_validate(self.target.spec)
        self.ref = self.target.ref(self.namespace)

    def put(self) -> None:
        """Create what is missing of the target and wait until it runs."""
        for body in self.target.objects(self.namespace, self.image):
            with contextlib.suppress(AlreadyExists):
                self.cluster.create(body)
        self.until(lambda: not self.restless())

    def restless(self) -> list[str]:
        """Which of its workloads do not run what they declare."""
        refs = self.target.workloads(self.namespace)
        return [one for ref in refs for one in unsettled(self.cluster.get(ref))]

    def snapshots(self) -> list[Json]:
        """All its objects as they are declared, Secrets whole."""
        return [snapshot(hand(self.cluster).read(ref)) for ref in self.target.refs(self.namespace)]

    def body(self) -> Json:
        """The whole object, also of a Secret."""
        return hand(self.cluster).read(self.ref)

    def planned(self) -> UndoRecord:
        """The undo record, as it looks after a journey through JSON."""
        record: UndoRecord = json.loads(json.dumps(self.fault.plan(self.spec, self.namespace, self.cluster).undo))
        return record

    def until(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while True:
            self._play_controllers()
            if what():
                return
            assert time.monotonic() < deadline, f"not within {SECONDS} s: {self.restless()}"
            time.sleep(0.2)

    def clean(self, undo: UndoRecord) -> None:
        """Wait until nothing differs any more."""
        self.until(lambda: self.fault.differences(undo, self.cluster) == ())

    def _play_controllers(self) -> None:
        if isinstance(self.cluster, FakeCluster):
            for ref in self.target.workloads(self.namespace):
                self._play_pods(self.cluster, ref)
                body = FakeCluster.get(self.cluster, ref)
                names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
                status = dict.fromkeys(names, body["spec"]["replicas"])
                self.cluster.put({**body, "status": {"observedGeneration": body["metadata"]["generation"], **status}})

    def _play_pods(self, cluster: FakeCluster, ref: Ref) -> None:
        """As many ready pods as a workload declares."""
        body = FakeCluster.get(cluster, ref)
        labels = {**body["spec"]["template"]["metadata"]["labels"], "pod-template-hash": "1"}
        kind = "StatefulSet" if ref.kind == "StatefulSet" else "ReplicaSet"
        owner = {"name": f"{ref.name}-1", "uid": f"{ref.name}-1"}
        if kind == "StatefulSet":
            owner = {"name": ref.name, "uid": body["metadata"]["uid"]}
        elif not cluster.holds(Ref(kind, self.namespace, owner["name"])):
            cluster.put({"kind": kind, "metadata": {"namespace": self.namespace, **owner}})
        for _ in range(body["spec"]["replicas"] - len(cluster.list("Pod", self.namespace, pod_labels(body)))):
            meta = {"name": f"pod-{secrets.token_hex(3)}", "namespace": self.namespace, "labels": labels}
            meta["ownerReferences"] = [{"kind": kind, "controller": True, **owner}]
            status = {"conditions": [{"type": "Ready", "status": "True"}]}
            cluster.put({"kind": "Pod", "metadata": meta, "spec": {"containers": [{"name": "main"}]}, "status": status})


@dataclass
class Stage(Ground):
    """An object that a fault changes."""

    target: Target

    def value(self) -> Any:
        return self.target.value(self.cluster, self.namespace)

    def somebody_writes(self, value: Any) -> None:
        self.target.write(self.cluster, self.namespace, value)

    def heard(self) -> bool:
        """Whether a pod that is there says what shows the fault."""
        pods = [pod for pod in self.cluster.list("Pod", self.namespace) if pod["status"].get("phase") == "Running"]
        logs = []
        for pod in pods:
            with contextlib.suppress(DrillError):  # it may have gone, or not have begun
                logs.append(self.cluster.logs(self.namespace, pod["metadata"]["name"], lines=4))
        return any(re.search(self.target.says, log) for log in logs)


@pytest.fixture(params=[pytest.param("fake"), pytest.param("real", marks=pytest.mark.cluster)])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    if request.param == "fake":
        return FakeCluster(now=time.time)
    return cast("Cluster", request.getfixturevalue("real_cluster"))


@pytest.fixture(params=TARGETS, ids=lambda target: f"{target.kind}-{target.name}")
def stage(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Stage]:
    """The target at rest."""
    stage = Stage(cluster, opened(cluster), request.param, image_on(cluster))
    stage.put()
    yield stage
    cluster.delete(Ref("Namespace", "", stage.namespace))


def opened(cluster: Cluster) -> str:
    namespace = f"fault-{secrets.token_hex(4)}"
    metadata = {"name": namespace, "labels": OPT_IN}
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    return namespace


def image_on(cluster: Cluster) -> str:
    if isinstance(cluster, FakeCluster):
        return "fake:1"
    return str(cluster.get(IMAGE_OF)["spec"]["template"]["spec"]["containers"][0]["image"])


def test_applied_twice_and_undone_twice_it_is_as_before(stage: Stage) -> None:
    before = stage.snapshots()
    undo = stage.planned()
    assert stage.value() == stage.target.before
    stage.fault.apply(undo, stage.cluster)
    stage.fault.apply(undo, stage.cluster)
    assert stage.value() == stage.target.after
    assert stage.fault.differences(undo, stage.cluster)
    done = [stage.fault.undo(undo, stage.cluster).outcome for _ in range(2)]
    assert done == ["restored", "already"]
    assert stage.value() == stage.target.before
    stage.clean(undo)
    assert stage.snapshots() == before


def test_undone_without_having_been_applied_it_changes_nothing(stage: Stage) -> None:
    before = stage.body()
    undo = stage.planned()
    stage.fault.apply(undo, stage.cluster, dry_run=True)
    assert stage.fault.undo(undo, stage.cluster).outcome == "already"
    assert stage.body()["metadata"].get("generation") == before["metadata"].get("generation")
    assert snapshot(stage.body()) == snapshot(before)
    assert stage.fault.differences(undo, stage.cluster) == ()


def test_somebody_elses_change_is_refused_reported_and_overwritten_by_force_only(stage: Stage) -> None:
    before = stage.snapshots()
    undo = stage.planned()
    stage.fault.apply(undo, stage.cluster)
    stage.somebody_writes(stage.target.foreign)
    refused = stage.fault.undo(undo, stage.cluster)
    assert refused.outcome == "refused"
    assert stage.target.shown(stage.cluster, stage.namespace) in refused.detail
    assert stage.value() == stage.target.foreign
    with pytest.raises(Conflict):
        stage.fault.apply(undo, stage.cluster)
    assert stage.value() == stage.target.foreign
    told = stage.target.told(stage.cluster, stage.namespace)
    assert any(way in one for one in stage.fault.differences(undo, stage.cluster) for way in told)
    assert stage.fault.undo(undo, stage.cluster, force=True).outcome == "restored"
    stage.clean(undo)
    assert stage.snapshots() == before


def test_a_target_that_changed_since_the_plan_is_not_touched(stage: Stage) -> None:
    undo = stage.planned()
    stage.somebody_writes(stage.target.foreign)
    for dry_run in (True, False):
        with pytest.raises(Conflict):
            stage.fault.apply(undo, stage.cluster, dry_run=dry_run)
    assert stage.value() == stage.target.foreign


def test_a_vanished_target_and_a_new_one_of_its_name_are_not_touched(stage: Stage) -> None:
    undo = stage.planned()
    stage.fault.apply(undo, stage.cluster)
    stage.cluster.delete(stage.ref)
    assert stage.fault.undo(undo, stage.cluster).outcome == "vanished"
    found = stage.fault.differences(undo, stage.cluster)
    assert [one for one in found if str(stage.ref) in one] == [f"{stage.ref} no longer exists"]
    assert len(found) == 1 or stage.spec.blast_radius.objects > 1, found
    with pytest.raises(NotFound):
        stage.fault.apply(undo, stage.cluster)
    stage.put()
    fresh = stage.body()
    assert stage.fault.undo(undo, stage.cluster, force=True).outcome == "vanished"
    with pytest.raises(Conflict):
        stage.fault.apply(undo, stage.cluster)
    assert snapshot(stage.body()) == snapshot(fresh)


@pytest.mark.parametrize("cluster", [pytest.param("real", marks=pytest.mark.cluster)], indirect=True)
def test_the_effect_is_proved_by_real_pods_and_gone_after_the_undo(stage: Stage) -> None:
    undo = stage.planned()
    begun = time.time()
    stage.fault.apply(undo, stage.cluster)
    injected = Bounds(earliest=begun, latest=time.time())
    chosen = stage.fault.pods(undo)
    if chosen is None:
        shown_by_what_is_measured(stage, undo, injected)
        return
    seen: list[tuple[Record, PodsSeen]] = []

    def proved() -> bool:
        pods = stage.cluster.list("Pod", stage.namespace, chosen.labels)
        event = PodsSeen(fault="broken", pods=tuple(pod_state(pod, chosen.container) for pod in pods))
        seen.append((Record(seq=len(seen), at=time.time(), event=event), event))
        return stage.fault.proof(stage.spec, Evidence(injected, seen)) is not None

    stage.until(proved)
    proof = stage.fault.proof(stage.spec, Evidence(injected, seen))
    assert proof is not None
    assert re.search(stage.target.proof, proof.proof), proof.proof
    assert injected.earliest <= proof.at.earliest <= proof.at.latest <= seen[-1][0].at
    assert set(proof.evidence) <= {record.seq for record, _ in seen}
    assert stage.fault.undo(undo, stage.cluster).outcome == "restored"
    stage.clean(undo)


def shown_by_what_is_measured(stage: Stage, undo: UndoRecord, injected: Bounds) -> None:
    """What Prometheus would measure is not asked here: what the fault makes of it is, and, where pods say so, whether
    they live with what was changed."""
    measured = Proof(injected, "measured", (1,))
    proof = stage.fault.proof(stage.spec, Evidence(injected, measured=measured))
    assert proof is not None
    assert re.search(stage.target.proof or "^measured$", proof.proof), proof.proof
    assert stage.fault.proof(stage.spec, Evidence(injected)) is None
    if stage.target.says:
        stage.until(stage.heard)
    assert stage.fault.undo(undo, stage.cluster).outcome == "restored"
    stage.clean(undo)
    if stage.target.says:
        stage.until(lambda: not stage.heard())


# Faults that make an object of their own


@dataclass
class Workshop(Ground):
    """Where a fault makes an object, beside a workload that is none of its business."""

    def __post_init__(self) -> None:
        super().__post_init__()
        (self.made,) = self.target.kinds()

    def record(self) -> Json:
        """An undo record, as the owner of what is made."""
        name = f"record-{secrets.token_hex(3)}"
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": self.namespace}}
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": name,
            "uid": self.cluster.create(body)["metadata"]["uid"],
        }

    def prepare(self, undo: UndoRecord, owner: Json) -> None:
        fence.prepare(self.fault, undo, self.cluster, owner)

    def apply(self, undo: UndoRecord, owner: Json) -> None:
        """As a run does it: what was made may still change by its controller's doing."""
        self.prepare(undo, owner)
        for _ in range(fence.ATTEMPTS - 1):
            versions = fence.look(self.fault, undo, self.cluster)
            with contextlib.suppress(Conflict):
                fence.apply(self.fault, undo, self.cluster, versions, owner=owner)
                return
        fence.apply(self.fault, undo, self.cluster, fence.look(self.fault, undo, self.cluster), owner=owner)

    def found(self) -> list[Json]:
        return self.cluster.list(self.made, self.namespace)

    def ref_made(self, undo: UndoRecord) -> Ref:
        return Ref(self.made, self.namespace, undo["name"])


@pytest.fixture(params=MADE, ids=lambda row: f"{row.kind}-{row.name}")
def workshop(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Workshop]:
    made = Workshop(cluster, opened(cluster), request.param, image_on(cluster))
    made.put()
    yield made
    cluster.delete(Ref("Namespace", "", made.namespace))


def test_made_twice_it_is_one_and_undone_twice_it_is_gone(workshop: Workshop) -> None:
    before = snapshot(workshop.body())
    undo, owner = workshop.planned(), workshop.record()
    assert workshop.fault.differences(undo, workshop.cluster) == ()
    workshop.apply(undo, owner)
    workshop.prepare(undo, owner)
    workshop.fault.apply(undo, workshop.cluster)
    assert [body["metadata"]["name"] for body in workshop.found()] == [undo["name"]]
    assert workshop.fault.differences(undo, workshop.cluster)
    done = [workshop.fault.undo(undo, workshop.cluster).outcome for _ in range(2)]
    assert done == ["restored", "already"]
    workshop.clean(undo)
    assert workshop.found() == []
    assert snapshot(workshop.body()) == before


def test_undone_without_having_been_made_there_is_nothing(workshop: Workshop) -> None:
    undo = workshop.planned()
    rehearse(workshop.fault, undo, workshop.cluster)
    assert workshop.found() == [], "a rehearsal makes nothing"
    assert workshop.fault.undo(undo, workshop.cluster).outcome == "already"
    assert workshop.fault.differences(undo, workshop.cluster) == ()


def test_somebody_elses_object_of_that_name_is_left_alone_and_reported(workshop: Workshop) -> None:
    undo, owner = workshop.planned(), workshop.record()
    foreign = copy.deepcopy(undo["body"])
    foreign["metadata"]["labels"] = {"app": "theirs"}
    theirs = workshop.cluster.create(foreign)["metadata"]["uid"]
    with pytest.raises(Conflict):
        workshop.apply(undo, owner)
    refused = workshop.fault.undo(undo, workshop.cluster)
    assert refused.outcome == "refused"
    assert undo["name"] in refused.detail
    assert any(undo["name"] in one for one in workshop.fault.differences(undo, workshop.cluster))
    assert workshop.fault.undo(undo, workshop.cluster, force=True).outcome == "already"
    assert [body["metadata"]["uid"] for body in workshop.found()] == [theirs]


def test_one_that_somebody_changed_or_made_anew_is_still_the_drills_and_goes(workshop: Workshop) -> None:
    undo, owner = workshop.planned(), workshop.record()
    workshop.apply(undo, owner)
    note = {"op": "add", "path": "/metadata/annotations", "value": {"somebody": "was here"}}
    workshop.cluster.patch(workshop.ref_made(undo), [note])
    assert workshop.fault.undo(undo, workshop.cluster).outcome == "restored"
    workshop.clean(undo)
    workshop.apply(undo, owner)  # as a copy of it would be: what tells it is its mark
    assert workshop.fault.undo(undo, workshop.cluster).outcome == "restored"
    workshop.clean(undo)
    assert workshop.found() == []


def test_one_that_a_responder_removed_is_undone_already_and_not_made_again(workshop: Workshop) -> None:
    undo, owner = workshop.planned(), workshop.record()
    workshop.apply(undo, owner)
    workshop.cluster.delete(workshop.ref_made(undo))
    workshop.clean(undo)
    assert workshop.fault.undo(undo, workshop.cluster).outcome == "already"
    assert workshop.found() == []


def test_what_was_made_goes_with_its_record(workshop: Workshop) -> None:
    undo, owner = workshop.planned(), workshop.record()
    workshop.apply(undo, owner)
    workshop.cluster.delete(Ref("ConfigMap", workshop.namespace, owner["name"]), uid=owner["uid"])
    workshop.until(lambda: workshop.found() == [])
    workshop.clean(undo)
    workshop.prepare(workshop.planned(), owner)
    with contextlib.suppress(NotFound):  # where making it is the whole fault
        fence.apply(workshop.fault, undo, workshop.cluster, {}, owner=owner)
    workshop.until(lambda: workshop.found() == [])


# Faults that take pods away


@dataclass
class Herd(Ground):
    """A workload whose pods are killed."""

    target: Killed

    def uids(self) -> set[str]:
        pods = self.cluster.list("Pod", self.namespace, pod_labels(self.body()))
        return {pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}

    def apply(self, undo: UndoRecord) -> frozenset[str]:
        """As a run does it: a pod's status may change meanwhile. The uids of the pods that were deleted."""
        landed: fence.Landed = {}
        for _ in range(fence.ATTEMPTS):
            versions = fence.look(self.fault, undo, self.cluster, landed)
            with contextlib.suppress(Conflict):
                fence.apply(self.fault, undo, self.cluster, versions, landed)
                return frozenset(fence.deleted(landed))
        raise AssertionError("the pods never rest")

    def chosen(self, undo: UndoRecord) -> set[str]:
        return {pod["uid"] for pod in undo["pods"]}


@pytest.fixture(params=KILLED, ids=lambda row: f"{row.kind}-{row.name}")
def herd(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Herd]:
    made = Herd(cluster, opened(cluster), request.param, image_on(cluster))
    made.put()
    yield made
    cluster.delete(Ref("Namespace", "", made.namespace))


def test_the_chosen_pods_are_killed_once_and_all_come_back(herd: Herd) -> None:
    before, uids = snapshot(herd.body()), herd.uids()
    undo = herd.planned()
    assert herd.fault.differences(undo, herd.cluster) == ()
    assert len(herd.chosen(undo)) == herd.target.pods
    assert herd.chosen(undo) <= uids
    assert herd.apply(undo) == herd.chosen(undo)
    survivors = uids - herd.chosen(undo)
    assert herd.uids() & uids == survivors
    assert herd.fault.differences(undo, herd.cluster)
    herd.fault.apply(undo, herd.cluster)
    assert herd.uids() >= survivors
    assert [herd.fault.undo(undo, herd.cluster).outcome for _ in range(2)] == ["already", "already"]
    herd.clean(undo)
    assert len(herd.uids()) == len(uids)
    assert herd.uids() >= survivors
    assert snapshot(herd.body()) == before
    again = herd.uids()
    herd.fault.apply(undo, herd.cluster)
    assert herd.uids() == again, "a kill that is repeated kills nobody else"


def test_a_kill_that_was_held_up_past_its_undo_kills_nobody(herd: Herd) -> None:
    undo, uids = herd.planned(), herd.uids()
    versions = fence.look(herd.fault, undo, herd.cluster)
    assert set(versions) == {Ref("Pod", herd.namespace, pod["name"]) for pod in undo["pods"]}
    done = fence.bring_back(herd.fault, undo, herd.cluster)
    assert (done.outcome, f"0 of {herd.target.pods}" in done.detail) == ("already", True)
    with pytest.raises(Conflict):
        fence.apply(herd.fault, undo, herd.cluster, versions)
    assert herd.uids() == uids
    assert herd.fault.differences(undo, herd.cluster) == ()


def test_where_the_chosen_pods_are_gone_already_nothing_is_killed(herd: Herd) -> None:
    undo = herd.planned()
    for pod in undo["pods"]:
        herd.cluster.delete(Ref("Pod", herd.namespace, pod["name"]), uid=pod["uid"], grace=0)
    herd.clean(undo)
    uids = herd.uids()
    with pytest.raises(Conflict) as caught:
        fence.look(herd.fault, undo, herd.cluster)
    assert caught.value.slug == "pods-gone"
    assert herd.uids() == uids


def test_pods_of_a_workload_that_vanished_are_nobodys_to_wait_for(herd: Herd) -> None:
    undo = herd.planned()
    herd.cluster.delete(herd.ref)
    named = undo["workload"] is not None
    assert herd.fault.undo(undo, herd.cluster).outcome == ("vanished" if named else "already")
    assert not named or herd.fault.differences(undo, herd.cluster) == (f"{herd.ref} no longer exists",)


@pytest.mark.parametrize("cluster", [pytest.param("real", marks=pytest.mark.cluster)], indirect=True)
def test_the_kill_is_proved_by_real_pods(herd: Herd) -> None:
    undo = herd.planned()
    begun = time.time()
    deleted = herd.apply(undo)
    injected = Bounds(earliest=begun, latest=time.time())
    chosen = herd.fault.pods(undo)
    assert chosen is not None
    seen: list[tuple[Record, PodsSeen]] = []

    def proved() -> Proof | None:
        pods = herd.cluster.list("Pod", herd.namespace, chosen.labels)
        event = PodsSeen(fault="broken", pods=tuple(pod_state(pod, chosen.container) for pod in pods))
        seen.append((Record(seq=len(seen), at=time.time(), event=event), event))
        return herd.fault.proof(herd.spec, Evidence(injected, seen, undo=undo, deleted=deleted))

    herd.until(lambda: proved() is not None)
    proof = proved()
    assert proof is not None
    assert re.search(herd.target.proof, proof.proof), proof.proof
    assert injected.earliest <= proof.at.earliest <= proof.at.latest <= seen[-1][0].at
    herd.clean(undo)
