"""The fence on a real API server: a fault's write and its undo by another, let go at each other again and again."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from harness import catalog
from harness.adapters.kubernetes import KubeCluster
from harness.clusters.provider import Access
from harness.core.snapshot import snapshot
from harness.core.workload import replicas
from harness.engine import fence
from harness.ports.cluster import Conflict, Json, Ref

pytestmark = pytest.mark.cluster
ROUNDS = 200


@pytest.fixture
def clusters(local_access: Access) -> Iterator[list[KubeCluster]]:
    """The same cluster twice, over connections of their own."""
    made = [KubeCluster.from_kubeconfig(local_access.kubeconfig, local_access.context, now=time.time) for _ in range(2)]
    yield made
    for cluster in made:
        cluster.close()


@pytest.fixture
def target(clusters: list[KubeCluster]) -> Iterator[Json]:
    """A Deployment without a label, whose pods run nowhere."""
    cluster, name = clusters[0], f"fence-{uuid.uuid4().hex[:6]}"
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    pod = {"nodeSelector": {"drill.internal/nowhere": "true"}, "containers": [{"name": "app", "image": "nothing:1"}]}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app", "namespace": name},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "app"}},
            "template": {"metadata": {"labels": {"app": "app"}}, "spec": pod},
        },
    }
    yield cluster.create(body)
    cluster.delete(Ref("Namespace", "", name))


def undo_of(body: Json) -> dict[str, Any]:
    """What `plan` of the fault `scale` would capture of a target at rest."""
    meta = body["metadata"]
    return {
        "kind": "Deployment", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"],
        "before": 3, "after": 1, "labels": "app=app", "container": "app", "snapshot": snapshot(body),
    }  # fmt: skip


def settled(cluster: KubeCluster, ref: Ref) -> Json:
    """The object once its controller has stopped writing to it for a moment."""
    pause, body = Event(), cluster.get(ref)
    while True:
        pause.wait(0.5)
        again = cluster.get(ref)
        if again == body:
            return body
        body = again


def test_a_write_and_its_undo_never_pass_each_other(clusters: list[KubeCluster], target: Json) -> None:
    fault = catalog.fault_of("scale")
    ref = Ref("Deployment", target["metadata"]["namespace"], target["metadata"]["name"])
    body = settled(clusters[0], ref)
    undo, ends = undo_of(body), {"done": 0, "refused": 0}
    seed = time.time_ns()
    chance = random.Random(seed)  # noqa: S311 - delays, and no secrets
    with ThreadPoolExecutor(1) as pool:
        for number in range(ROUNDS):
            versions = fence.look(fault, undo, clusters[0])
            delay = chance.uniform(0.0, 0.03)

            def write(versions: fence.Versions = versions, delay: float = delay) -> str:
                Event().wait(delay)
                try:
                    fence.apply(fault, undo, clusters[0], versions)
                except Conflict:
                    return "refused"
                return "done"

            late = pool.submit(write)
            outcome = fence.bring_back(fault, undo, clusters[1]).outcome
            ends[late.result()] += 1
            after = clusters[1].get(ref)
            where = f"round {number} of seed {seed}: the write was {late.result()}, the undo said {outcome}"
            assert outcome in {"restored", "already"}, where
            assert replicas(after) == 3, where
            assert snapshot(after) == undo["snapshot"], where
    print(f"\n{ends}")  # noqa: T201 - figures for whoever reads the log
    assert min(ends.values()) >= ROUNDS // 20, f"they hardly met: {ends}, seed {seed}"


def test_moving_a_version_leaves_no_trace(clusters: list[KubeCluster], target: Json) -> None:
    fault = catalog.fault_of("scale")
    ref = Ref("Deployment", target["metadata"]["namespace"], target["metadata"]["name"])
    body = settled(clusters[0], ref)
    undo = undo_of(body)
    versions = fence.look(fault, undo, clusters[0])
    assert versions == {ref: body["metadata"]["resourceVersion"]}, "a dry run answers with the version that is there"
    assert fence.bring_back(fault, undo, clusters[0]).outcome == "already"
    after = settled(clusters[0], ref)
    assert after["metadata"].pop("resourceVersion") != body["metadata"].pop("resourceVersion")
    after["metadata"].pop("managedFields")
    body["metadata"].pop("managedFields")
    assert after == body
    (owned,) = clusters[0].list("ReplicaSet", ref.namespace)
    assert fence.LABEL not in str(owned)
    with pytest.raises(Conflict):
        fence.apply(fault, undo, clusters[0], versions)
