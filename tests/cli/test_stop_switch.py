"""`drill halt`, `drill resume`, and what `drill` says of both and of the sweeper."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.clusters import staging
from harness.clusters.provider import Access, ClusterStatus
from harness.core.clock import utc
from harness.core.errors import Refused
from harness.engine.sweeper import HEARTBEAT, HOME
from harness.ports.cluster import Json, Ref
from harness.wiring import commands
from harness.wiring.settings import Settings
from tests.fakes.cluster import FakeCluster, Shared

MARKER = Ref("ConfigMap", "drill-system", "drills-allowed")
BEFORE = {"environment": "staging", "deny": "payments-*"}
NOW = 1_800_000_000.0


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCluster:
    cluster = Shared(now=lambda: NOW, user="alice")
    for name, labels in (("drill-system", {}), (staging.NAMESPACE, {"drill.internal/opt-in": "true"})):
        cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    meta = {"name": MARKER.name, "namespace": MARKER.namespace}
    cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": BEFORE})
    access = Access("local", "drill", tmp_path / "kubeconfig", "drill", None)
    up = ClusterStatus("local", "drill", "up", "", access)
    monkeypatch.setattr(commands, "existing_access", lambda _: access)
    monkeypatch.setattr(commands, "choose", lambda _: type("P", (), {"status": lambda _: up})())
    monkeypatch.setattr(commands, "connect", lambda *_: cluster)
    return cluster


def data(cluster: FakeCluster) -> Json:
    found: Json = cluster.get(MARKER)["data"]
    return found


def test_halting_says_who_and_why_and_resuming_leaves_the_rest_as_it_was(cluster: FakeCluster, tmp_path: Path) -> None:
    settings = Settings(runs=tmp_path)
    told = commands.halt(settings, "release 42")
    assert "release 42 (alice)" in told
    assert data(cluster) == {**BEFORE, "halted": "true", "reason": "release 42 (alice)"}
    report = commands.status(settings)
    assert "HALTED    release 42 (alice); `drill resume` allows drills again" in report.lines
    assert report.data["halted"] is True
    assert commands.resume(settings) == "drills are allowed again on this cluster"
    assert data(cluster) == BEFORE
    assert commands.resume(settings) == "drills were not halted"
    assert commands.status(settings).data["halted"] is False


def test_a_cluster_without_a_mark_has_nothing_to_halt(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.drop(MARKER)
    with pytest.raises(Refused) as caught:
        commands.halt(Settings(runs=tmp_path), "")
    assert caught.value.slug == "cluster-not-marked"


def test_status_tells_whether_a_sweeper_watches(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(runs=tmp_path)
    assert "sweeper   none in this cluster" in commands.status(settings).lines
    monkeypatch.setattr("harness.wiring.commands.time.time", lambda: NOW)
    meta = {"name": HEARTBEAT, "namespace": HOME}
    heart = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta}
    cluster.put({**heart, "spec": {"renewTime": utc(NOW - 4)}})
    report = commands.status(settings)
    assert "sweeper   heard of 4 s ago" in report.lines
    assert report.data["sweeper_silent_s"] == 4.0
