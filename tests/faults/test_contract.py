"""What every fault of the catalog does, on the fake cluster and on a real API server with real pods."""

from __future__ import annotations

import contextlib
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
from harness.core.workload import unsettled
from harness.ports.cluster import AlreadyExists, Cluster, Conflict, Json, NotFound, Ref
from harness.ports.fault import UndoRecord
from tests.fakes.cluster import FakeCluster
from tests.faults.targets import IMAGE_OF, OPT_IN, TARGETS, Target
from tests.hands import hand

SECONDS = 90.0
"""What pods may take to come or go on a busy machine."""


def test_every_fault_of_the_catalog_has_a_target() -> None:
    assert {target.kind for target in TARGETS} == set(catalog.KINDS)
    for target in TARGETS:
        assert target.spec["kind"] == target.kind
        assert len({target.before, target.after, target.foreign}) == 3


@dataclass
class Stage:
    """One target in a namespace of its own. On the fake cluster the stage is the controllers' hand too."""

    cluster: Cluster
    namespace: str
    target: Target
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

    def heard(self) -> bool:
        """Whether a pod that is there says what shows the fault."""
        pods = [pod for pod in self.cluster.list("Pod", self.namespace) if pod["status"].get("phase") == "Running"]
        logs = []
        for pod in pods:
            with contextlib.suppress(DrillError):  # it may have gone, or not have begun
                logs.append(self.cluster.logs(self.namespace, pod["metadata"]["name"], lines=4))
        return any(re.search(self.target.says, log) for log in logs)

    def body(self) -> Json:
        """The whole object, also of a Secret."""
        return hand(self.cluster).read(self.ref)

    def value(self) -> Any:
        return self.target.value(self.cluster, self.namespace)

    def planned(self) -> UndoRecord:
        """The undo record, as it looks after a journey through JSON."""
        record: UndoRecord = json.loads(json.dumps(self.fault.plan(self.spec, self.namespace, self.cluster).undo))
        return record

    def somebody_writes(self, value: Any) -> None:
        self.target.write(self.cluster, self.namespace, value)

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
                body = FakeCluster.get(self.cluster, ref)
                names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
                status = dict.fromkeys(names, body["spec"]["replicas"])
                self.cluster.put({**body, "status": {"observedGeneration": body["metadata"]["generation"], **status}})
                for number in range(body["spec"]["replicas"]):
                    pod = _pod(body, number)
                    if Ref("Pod", self.namespace, pod["metadata"]["name"]) not in self._pods():
                        self.cluster.put(pod)

    def _pods(self) -> list[Ref]:
        found = self.cluster.list("Pod", self.namespace)
        return [Ref("Pod", self.namespace, one["metadata"]["name"]) for one in found]


def _pod(owner: Json, number: int) -> Json:
    """A ready pod of a workload, as its controller would make it."""
    meta, template = owner["metadata"], owner["spec"]["template"]["metadata"]["labels"]
    kind, name = (
        ("StatefulSet", meta["name"]) if owner["kind"] == "StatefulSet" else ("ReplicaSet", f"{meta['name']}-1")
    )
    made_by = {"kind": kind, "name": name, "uid": meta["uid"], "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-{number}",
            "namespace": meta["namespace"],
            "labels": {**template, "pod-template-hash": "1"},
            "ownerReferences": [made_by],
        },
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


@pytest.fixture(params=[pytest.param("fake"), pytest.param("real", marks=pytest.mark.cluster)])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    if request.param == "fake":
        return FakeCluster(now=time.time)
    return cast("Cluster", request.getfixturevalue("real_cluster"))


@pytest.fixture(params=TARGETS, ids=lambda target: f"{target.kind}-{target.name}")
def stage(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Stage]:
    """The target at rest."""
    namespace = f"fault-{secrets.token_hex(4)}"
    metadata = {"name": namespace, "labels": OPT_IN}
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    image = "fake:1" if isinstance(cluster, FakeCluster) else image_on(cluster)
    stage = Stage(cluster, namespace, request.param, image)
    stage.put()
    yield stage
    cluster.delete(Ref("Namespace", "", namespace))


def image_on(cluster: Cluster) -> str:
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
    assert str(stage.target.foreign) in refused.detail
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
