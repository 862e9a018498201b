"""In which order a cluster that has never been set up is filled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.clusters import roles, staging
from harness.clusters.provider import Access, ClusterStatus
from harness.core.errors import ExitCode, Refused
from harness.engine import undo_records
from harness.ports.cluster import Json, NotFound, Ref
from harness.ports.fault import Plan
from harness.ports.progress import Silent
from harness.wiring import commands, settings
from tests.fakes.cluster import FakeCluster

ROOT = Path(__file__).parents[2]


class Closable(FakeCluster):
    """What `connect` gives."""

    def close(self) -> None:
        """Nothing to give back."""


class Fresh:
    """A cluster without any namespace of ours."""

    def up(self, progress: Silent) -> Access:
        return Access("local", "fresh", Path("kubeconfig"), "fresh", None)


def test_roles_are_installed_after_the_namespaces_that_they_lie_in(monkeypatch: pytest.MonkeyPatch) -> None:
    there: set[str] = {"drill-system"}  # manifests/harness makes this one itself

    def deploy(*_: object) -> None:
        there.update({staging.NAMESPACE, staging.MONITORING})

    def install(*_: object) -> None:
        documents = [d for file in roles.manifests() for d in yaml.safe_load_all(file.read_text())]
        needed = {d["metadata"]["namespace"] for d in documents if "namespace" in d.get("metadata", {})}
        assert needed <= there

    monkeypatch.setattr(settings, "choose", lambda _: Fresh())
    monkeypatch.setattr(settings, "connect", lambda *_: Closable(now=time.time))
    monkeypatch.setattr(staging, "deploy", deploy)
    monkeypatch.setattr(roles, "install", install)
    settings.set_up(settings.Settings(), "smoke", setup=True, progress=Silent(), phases=settings.Phases())


LOCK = Ref("Lease", staging.NAMESPACE, "drill")


def locked(renewed: datetime, seconds: int = 15) -> Closable:
    """A cluster in which a run holds the lock."""
    cluster = Closable(now=time.time)
    label = {"drill.internal/opt-in": "true"}
    cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": staging.NAMESPACE, "labels": label}})
    cluster.put({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": LOCK.name, "namespace": LOCK.namespace},
        "spec": {
            "holderIdentity": "run-1 on there",
            "leaseDurationSeconds": seconds,
            "renewTime": renewed.isoformat().replace("+00:00", "Z"),
        },
    })  # fmt: skip
    return cluster


def set_up_on(cluster: Closable, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Set up on `cluster`; what was done to it, in order."""
    done: list[str] = []
    monkeypatch.setattr(settings, "choose", lambda _: Fresh())
    monkeypatch.setattr(settings, "connect", lambda *_: cluster)
    monkeypatch.setattr(staging, "deploy", lambda *_: done.append("deploy"))
    monkeypatch.setattr(roles, "install", lambda *_: done.append("roles"))
    settings.set_up(settings.Settings(), "smoke", setup=True, progress=Silent(), phases=settings.Phases())
    return done


def test_the_lock_of_a_dead_run_does_not_stop_the_next_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = locked(datetime.now(UTC), seconds=1)
    assert set_up_on(cluster, monkeypatch) == ["deploy", "roles"]
    with pytest.raises(NotFound):
        cluster.get(LOCK)


def test_the_lock_of_a_living_run_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Renewed(Closable):
        beats: Iterator[int] = count()

        def get(self, ref: Ref) -> Json:
            body: dict[str, Any] = super().get(ref)
            if ref == LOCK:
                body["spec"]["renewTime"] = f"2026-01-01T00:00:{next(self.beats):02}Z"
            return body

    alive = locked(datetime.now(UTC), seconds=1)
    alive.__class__ = Renewed
    with pytest.raises(Refused) as refused:
        set_up_on(alive, monkeypatch)
    assert refused.value.slug == "run-in-progress"
    assert alive.get(LOCK)["spec"]["holderIdentity"] == "run-1 on there"


RUNNING = "a drill is running: run run-1 (fault memory is in force)"
DIED = (
    "run run-1 died: fault memory is in force, it is not undone "
    "(a run that was not heard of for 90 s holds the lock: run-1 on there)"
)


@pytest.mark.parametrize(
    ("age", "code", "said"), [(2.0, ExitCode.MET, RUNNING), (90.0, ExitCode.ROLLBACK_INCOMPLETE, DIED)]
)
def test_status_tells_a_dead_run_from_a_living_one(
    age: float, code: ExitCode, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = locked(datetime.now(UTC) - timedelta(seconds=age))
    undo_records.store(cluster, staging.NAMESPACE, "run-1", "memory", "memory-limit", {}, 0, 300.0)
    access = Fresh().up(Silent())
    up = ClusterStatus("local", "fresh", "up", "", access)
    monkeypatch.setattr(commands, "choose", lambda _: type("P", (), {"status": lambda _: up})())
    monkeypatch.setattr(commands, "connect", lambda *_: cluster)
    report = commands.status(settings.Settings(runs=tmp_path))
    assert report.exit_code is code
    assert f"namespace {staging.NAMESPACE}: {said}" in report.lines
    assert any("drill recover" in line for line in report.lines) is (code is not ExitCode.MET)


def record(run_id: str) -> undo_records.UndoRecord:
    return undo_records.UndoRecord(run_id, "memory", "memory-limit", {}, 0, Ref("ConfigMap", "n", "r"))


@pytest.mark.parametrize(
    ("runs", "held", "silent", "phase", "said"),
    [
        ([], "", 0.0, "", "clean"),
        ([], "run-1 on h", 0.0, "", "a drill is running: run run-1 (no fault is in force)"),
        ([], "run-1 on h", 60.0, "", "clean (a run that was not heard of for 60 s holds the lock: run-1 on h)"),
        (["run-0"], "run-1 on h", 0.0, "", "a drill is running: run run-1 (fault memory of run run-0 is in force)"),
        (["run-1"], "recover by 12 on h", 0.0, "", "recover is at work (fault memory of run run-1 is in force)"),
        (
            ["run-1"],
            "run-1 on h",
            0.0,
            "observing",
            "a drill is running: run run-1 (observing; fault memory is in force)",
        ),
        (["run-1"], "", 0.0, "", "run run-1 is over: fault memory is in force, it is not undone"),
    ],
)
def test_status_says_what_goes_on_in_a_namespace(
    runs: list[str], held: str, silent: float, phase: str, said: str
) -> None:
    assert commands._standing([record(run_id) for run_id in runs], held, silent, phase) == said


def test_a_plan_names_the_cluster_that_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Planned:
        """The parts of a preflight and of its peers that a plan without faults needs."""

        def __init__(self, *_: object) -> None:
            self.faults: tuple[()] = ()
            self.marker: dict[str, str] = {}

        def guards(self) -> None:
            """Nothing refuses."""

        def close(self) -> None:
            """Nothing to give back."""

    monkeypatch.setattr(commands, "existing_access", lambda _: Fresh().up(Silent()))
    monkeypatch.setattr(commands, "connect", lambda *_: Planned())
    monkeypatch.setattr(commands, "peers_of", lambda *_: Planned())
    monkeypatch.setattr("harness.engine.preflight.Preflight", Planned)
    monkeypatch.setattr("harness.catalog.faults", Planless)
    first, second, *_ = commands.plan_drill(settings.Settings(), "scaled-down-workers").splitlines()
    assert first.endswith("in namespace nova-staging, profile smoke")
    assert second == "on local cluster fresh (context fresh)"


class Planless(dict[str, Any]):
    """Faults whose plan changes nothing."""

    def __missing__(self, kind: str) -> Any:
        return self

    def plan(self, *_: object) -> Any:
        return Plan(summary="nothing", targets=(), changes=(), undo={}, pods=0, objects=0)

    def apply(self, *_: object, **__: object) -> None:
        """Nothing to send."""
