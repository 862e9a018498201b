"""`drill recover` over several namespaces: what goes wrong in one keeps none of the others from being brought back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.clusters.provider import Access
from harness.core.errors import DrillError, ExitCode, Refused, RollbackIncomplete
from harness.engine.lease import Lease
from harness.engine.undo_records import LABEL
from harness.ports.cluster import Ref
from harness.ports.progress import Silent
from harness.wiring import commands
from harness.wiring.settings import Settings
from tests.fakes.cluster import FakeCluster, Shared

ALIVE = "the lock is held by a run that renews it"


def alive(*_: Any) -> None:
    raise Refused("run-alive", ALIVE, expected="no run", remedy="wait for it")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCluster:
    cluster = Shared(now=lambda: 0.0)
    for name in ("alive", "broken", "well"):
        labels = {"drill.internal/opt-in": "true"}
        cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    meta = {"name": "drill-undo-x", "namespace": "broken", "labels": {LABEL: "true"}}
    cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"record": "{"}})
    acquire = Lease.acquire
    monkeypatch.setattr(
        Lease, "acquire", lambda self, *given: (alive if self._ref.namespace == "alive" else acquire)(self, *given)
    )
    access = Access("local", "drill", tmp_path / "kubeconfig", "drill", None)
    monkeypatch.setattr(commands, "existing_access", lambda _: access)
    monkeypatch.setattr(commands, "connect", lambda *_: cluster)
    return cluster


def test_each_namespace_is_tried_and_each_is_told_of(cluster: FakeCluster, tmp_path: Path) -> None:
    done = commands.recover(Settings(runs=tmp_path), force=False, progress=Silent())
    assert next(line for line in done.lines if line.startswith("alive: ")) == f"alive: {ALIVE}"
    assert "alive:   remedy:   wait for it" in done.lines
    assert any(line.startswith("broken: ") and "drill-undo-x" in line for line in done.lines)
    assert "well: nothing to recover; no undo record is open" in done.lines
    assert done.exit_code is ExitCode.ROLLBACK_INCOMPLETE, "what is not back outweighs a refusal"
    cluster.drop(Ref("ConfigMap", "broken", "drill-undo-x"))
    assert commands.recover(Settings(runs=tmp_path), force=False, progress=Silent()).exit_code is ExitCode.REFUSED


@pytest.mark.parametrize(("namespace", "kind"), [("alive", Refused), ("broken", RollbackIncomplete)])
def test_of_a_single_namespace_it_is_an_error(
    cluster: FakeCluster, tmp_path: Path, namespace: str, kind: type[DrillError]
) -> None:
    with pytest.raises(kind):
        commands.recover(Settings(runs=tmp_path, namespace=namespace), force=False, progress=Silent())
