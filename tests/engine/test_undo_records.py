"""Undo records are read from a cluster in which others may write, too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.core.errors import RollbackIncomplete
from harness.engine import undo_records
from tests.fakes.cluster import FakeCluster

NAMESPACE = "shop"


def forged(**changes: Any) -> FakeCluster:
    cluster = FakeCluster(now=lambda: 1000.0)
    undo = {"kind": "Deployment", "namespace": NAMESPACE, "name": "worker"}
    record = {"schema": 1, "run_id": "run-1", "fault": "memory", "kind": "memory-limit", "order": 0, "undo": undo}
    cluster.put({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "forged", "namespace": NAMESPACE, "labels": {undo_records.LABEL: "true"}},
        "data": {"record": json.dumps(record | changes)},
    })  # fmt: skip
    return cluster


def test_an_honest_record_is_read() -> None:
    assert undo_records.load(forged(), NAMESPACE)[0].run_id == "run-1"


@pytest.mark.parametrize(
    "changes",
    [
        {"undo": {"kind": "Deployment", "namespace": "payments", "name": "worker"}},
        {"undo": "anything"},
        {"run_id": "../../elsewhere"},
        {"run_id": ".."},
        {"fault": "\x1b[2Jall is well"},
        {"kind": ""},
        {"kind": 7},
    ],
)
def test_a_forged_record_leads_nowhere(changes: dict[str, Any]) -> None:
    with pytest.raises(RollbackIncomplete) as refused:
        undo_records.load(forged(**changes), NAMESPACE)
    assert refused.value.slug == "undo-record-unreadable"
    assert "\x1b" not in refused.value.fact
